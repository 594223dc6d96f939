//! Who may ask, over what, how often: TLS, callers and their scopes, rates.
//!
//! One crate for all listeners, because a rule that is written twice is two rules. It decides and never answers: OTLP
//! and the HTTP API each say the same [`Denial`] in their own words. The order of questions is fixed: who is it, has it
//! asked too often, may it do this. Nothing here waits, but for the handshake.
#![forbid(unsafe_code)]

mod access;
mod callers;
mod certificate;
mod denial;
mod files;
mod heads;
mod listener;
mod rate;
mod scope;
mod stream;
mod tls;

pub use access::{Access, Caller, Now, Peer, REREAD_EVERY, Surface};
pub use callers::{CALLERS_MAX, CallerEntry, Callers, CallersFile, Grant};
pub use certificate::CertificateNames;
pub use denial::Denial;
pub use heads::{HeadDeadline, Requests};
pub use listener::{ListenerCounts, OpenConnection};
pub use rate::{CALLERS_TRACKED_MAX, Rates};
pub use scope::{Scope, Scopes};
pub use stream::Stream;
pub use tls::{ClientAuth, HANDSHAKE_TIMEOUT, HandshakeError, TlsFiles, provider};

/// The JSON Schema of a callers' file, for editors.
pub fn callers_schema() -> serde_json::Value {
    schemars::schema_for!(CallersFile).to_value()
}
