//! A simulated fleet of servers that reports as real senders do, for the demo, load tests and tests.
//!
//! Two things of different purpose lie here. [`Fleet`] is a plant: traffic, background work, incidents and a scheduler
//! that heeds admit fractions, so that health and throttling can be shown and tested in a closed loop. [`frames`] is
//! ammunition: OTLP requests encoded once, whose times and values are patched in place, so that a load generator on the
//! same machine costs next to nothing. Neither knows a clock, a socket or a random device: time is an argument, and the
//! seed decides the rest.
#![forbid(unsafe_code)]

mod dialect;
pub mod fleet;
pub mod frames;
pub mod plant;
mod proto;
pub mod rng;
pub mod spec;

pub use fleet::{Fleet, Pool, Server};
pub use frames::{FrameSpec, Frames};
pub use spec::{Dialect, FleetSpec, Incident, IncidentKind, WorkClass};
