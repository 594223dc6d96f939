//! The three ports on Kafka, and the reader of foreign topics.
//!
//! Everything that several machines must agree on lies in five topics ([`Layout`]): samples, snapshots, checkpoints,
//! the decisions that changed, and what holds for the whole cluster. There is no other cluster state, no leader of ours, and no clock shared: who owns a
//! partition is what Kafka's group says, and a former owner is kept out by Kafka's own fence on transactional ids.
#![forbid(unsafe_code)]

mod checkpoints;
mod cluster;
pub mod connection;
mod control;
mod events;
mod follower;
mod modes;
mod ownership;
mod reader;
pub mod records;
mod sample_log;
mod snapshot_log;
pub mod source;
mod split;
mod topics;
mod writer;

pub use checkpoints::KafkaCheckpointStore;
pub use cluster::look_up;
pub use connection::{Connection, Mechanism, Sasl, Tls};
pub use control::KafkaControl;
pub use events::DecisionEvents;
pub use ownership::{Membership, Owners};
pub use sample_log::{KafkaSampleLog, SampleLogLimits};
pub use snapshot_log::KafkaSnapshotLog;
pub use topics::Layout;
