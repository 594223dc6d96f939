//! The deterministic state machine of a partition: a cell of servers each, windows, health and throttle composed.
//!
//! ```text
//! handle_samples ─► registry (who is this?) ─► window store
//! handle_tick    ─► registry joins ─► window ─► expr ─► health ─► throttle ─► CellSnapshot
//! handle_policy, handle_mode, handle_remove, handle_ack take effect with the next tick
//! ```
//!
//! There is no clock, thread, lock or I/O in here: the caller owns an engine alone, gives it the records of a log in
//! order and takes the snapshots it returns. Everything it knows follows from those records. Between two ticks their
//! order does not matter, nor do repeats; across a crash, [`Partition::checkpoint`] and [`Partition::restore`] continue
//! to the bit. What is counted for metrics only ([`Counters`]) is outside that promise.
#![forbid(unsafe_code)]

mod cell;
mod compiled;
mod partition;
mod registry;
mod score;
mod signals;
mod snapshot;

pub use cell::{CellReport, EngineConfig};
pub use compiled::CompiledPolicy;
pub use headroom_window::{InputsReport, SeenMetric, WindowLimits};
pub use partition::{Counters, Partition};
pub use registry::{RegistryCounters, RegistryLimits};
