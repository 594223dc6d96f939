//! Our own metrics, traces and logs; /metrics, /livez and /readyz of every role.
//!
//! Nothing leaves the process unasked: metrics can be scraped, and are pushed (as traces are) only if the standard
//! `OTEL_*` variables name an endpoint. That endpoint may be a Headroom: a push is one request an interval, whose own
//! trace is one span of the next, so what we tell ourselves about ourselves does not grow.
#![forbid(unsafe_code)]

pub mod catalog;
pub mod logs;
pub mod metrics;
pub mod otel;
pub mod probes;
mod process;
mod push;
mod render;

pub use metrics::{Counter, Gauge, Histogram, Telemetry, TelemetryOptions};
pub use probes::Readiness;
