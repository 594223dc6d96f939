//! Typed, validated configuration and policy files.
//!
//! Both are YAML, and both are read in the same three steps. The text becomes a tree that knows the place of every
//! value; the tree is held against the JSON Schema that is derived from the Rust types; only a tree without problems
//! becomes those types. So the types are the one description of a file: what `config schema` prints for editors, what is
//! accepted, and the suggestion for a misspelt key cannot drift apart, and all problems of a file are told at once.
//!
//! Nothing here reads the environment or the clock, and nothing is ever ignored: a key that has no effect is an error.
#![forbid(unsafe_code)]

mod check;
mod kafka;
mod kafka_sources;
mod load;
mod merge;
mod named;
mod policy;
mod policy_file;
mod problem;
mod selector;
mod service;
mod tree;

pub use kafka::{KafkaSaslMechanism, KafkaSaslSection, KafkaSection, KafkaTlsSection};
pub use kafka_sources::{KafkaSource, SourceEncoding, SourceGroupProtocol, SourceStart};
pub use load::{Flag, LoadArgs, Loaded, Setting, load_file};
pub use policy::{CLASSES_MAX, INPUTS_MAX, RULES_MAX, SIGNALS_MAX, SOURCES_MAX, load_policy};
pub use problem::{ConfigErrors, Problem};
pub use service::{
    Auth, Backend, CallerLimitsSection, ClientAuth, Config, Durability, EngineSection, HttpSection, IdentitySection,
    LogFormat, LogLevel, LogSection, OtlpSection, PolicySection, SecuritySection, TelemetrySection, TimeMode,
    TimeSection, TlsSection,
};
pub use tree::Origin;

/// The JSON Schema of the service's configuration file, for editors.
pub fn config_schema() -> serde_json::Value {
    schemars::schema_for!(Config).to_value()
}

/// The JSON Schema of a policy file. A policy that extends another needs only the keys that differ.
pub fn policy_schema() -> serde_json::Value {
    schemars::schema_for!(policy_file::PolicyFile).to_value()
}
