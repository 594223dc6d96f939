//! Metric dialects to inputs; the default signals and policy.
//!
//! The catalogue is data: `default-policy.yaml` names every metric that is read without configuration, in the spellings
//! that senders really use, and `headroom-config` turns it into a [`headroom_model::Policy`] like any other policy. What
//! is code here is only the question that each new series asks once: which inputs read you?
#![forbid(unsafe_code)]

mod matcher;
mod names;
mod units;

pub use matcher::{Matcher, Suggestion};

/// The default policy as its commented YAML text, which `GET /v1/policy` prints.
pub const DEFAULT_POLICY: &str = include_str!("default-policy.yaml");
