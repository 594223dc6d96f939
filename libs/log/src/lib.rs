//! The three ports that decide embedded or scaled out: the sample log (partitioned, ordered, replayable), the snapshot
//! log (keyed by cell, latest wins) and the checkpoint store.
//!
//! Everything above this crate holds an `Arc<dyn SampleLog>`, an `Arc<dyn SnapshotLog>` and an `Arc<dyn CheckpointStore>`
//! and does not know what lies behind: memory ([`memory`], for tests), a data directory ([`disk`], the embedded default)
//! or Kafka (a crate above this one). What all of them promise is written down once as executable text in [`contract`];
//! an implementation that passes it may stand in for any other.
//!
//! No wall clock is read here. Retention by age follows the ticks in the log, so that it means the same thing in
//! `--time=event` as on the wall clock.
#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod contract;
pub mod disk;
pub mod memory;
pub mod sample_log;
pub mod snapshot_log;
pub mod stats;

mod sync;
mod tail;

pub use checkpoint::{CheckpointError, CheckpointStore};
pub use sample_log::{Append, AppendError, AppendTicket, BoxFuture, LogReader, Position, ReadError, SampleLog};
pub use snapshot_log::{
    CellChange, PublishError, Published, RETIRED_MAX, SnapshotLog, SnapshotMap, SnapshotRecord, Subscription,
};
pub use stats::LogStats;
