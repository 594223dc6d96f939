//! The OTLP role: sockets in, sample log out.
//!
//! One handler answers OTLP/HTTP and OTLP/gRPC on both ports, told apart by content type, so that a sender that mixed up
//! 4317 and 4318 works all the same. gRPC is spoken on hyper directly instead of through a generated service: the body
//! is walked as bytes and never becomes an object, and a request that is too large must answer RESOURCE_EXHAUSTED, where
//! the usual server answers OUT_OF_RANGE, which OTLP clients retry for ever.
//!
//! A request is acknowledged when the sample log has it, durable by the log's own policy, and not a moment earlier.
//! Nothing is queued here: what the log or the bounds of [`admission`] do not take is answered as retryable at once.
#![forbid(unsafe_code)]

pub mod admission;
mod answer;
mod body;
mod grpc;
mod handler;
mod http;
mod listener;
mod metrics;
pub mod refusals;
mod sink;

pub use admission::Limits;
pub use handler::{Ingestor, IngestorOptions};
pub use listener::{Listener, bind, serve};
pub use metrics::Metrics;
pub use refusals::Refused;
