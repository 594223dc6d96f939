//! The aggregator role: sample log in, one engine per partition, snapshots out.
//!
//! Every partition has a thread of its own, because an engine is busy for as long as a tick takes and a runtime's tasks
//! must not wait for it. The thread is the only owner of its engine; the rest of the process sees what it publishes:
//! snapshots, and a [`Status`] that is replaced at every tick. Which partitions a process owns may change while it runs.
//! Time reaches the engine only as records that [`ticker`] or the event clock append to the log.
#![forbid(unsafe_code)]

mod backlog;
mod checkpointing;
pub mod clock;
mod metrics;
mod note;
mod owner;
mod publish;
mod status;
mod tail;
pub mod ticker;

pub use backlog::Outages;
pub use clock::{ClockError, EventClock};
pub use headroom_engine::SeenMetric;
pub use metrics::Metrics;
pub use owner::{Aggregator, AggregatorOptions, Announce, Compile, StartError};
pub use publish::SnapshotSink;
pub use status::{Progress, Status};
