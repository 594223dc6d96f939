//! The three ports on Kafka, and the reader of foreign topics.
#![forbid(unsafe_code)]

pub mod connection;
pub mod source;

pub use connection::{Connection, Mechanism, Sasl, Tls};
