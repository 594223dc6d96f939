//! The vocabulary of Headroom: what a server, a sample, a policy, a decision and a snapshot are.
//!
//! Everything here is plain data. There is no clock, no socket, no serde and no policy of what is healthy: a type that
//! must cross a process boundary as JSON has its counterpart in `headroom-wire`, and the binary form of the log records
//! lies in [`codec`], so that a field added here does not silently become a promise to a stranger.
#![forbid(unsafe_code)]

pub mod batch;
pub mod codec;
mod columns;
pub mod coverage;
pub mod frame;
pub mod hash;
pub mod histogram;
mod points;
pub mod policy;
pub mod record;
pub mod resource;
pub mod series;
pub mod snapshot;
pub mod time;

pub use batch::{HistogramPoint, STALE_NAN, SampleBatch, SampleBatchBuilder};
pub use policy::Policy;
pub use record::LogRecord;
pub use resource::Resource;
pub use series::{Series, SeriesKind};
pub use snapshot::CellSnapshot;

pub use time::Timestamp;
