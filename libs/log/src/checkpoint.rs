//! The checkpoint store: what an engine needs besides the log to go on where it was.
//!
//! Two generations are kept, because a checkpoint that turns out to be damaged must not cost the state of a fleet. It
//! follows that the log must reach back to the older of the two: [`CheckpointStore::floor`] is what retention may delete
//! up to, not the position of the newest.
//!
//! The calls block until the disk has answered. A checkpoint of a large cell is hundreds of megabytes; whoever writes it
//! has a thread for it already, and a future would only hide the wait.

use std::sync::Arc;

use bytes::Bytes;

use crate::sample_log::Position;

/// How many checkpoints of a partition are kept.
pub const GENERATIONS: usize = 2;

/// Why a checkpoint was not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckpointError {
    /// A checkpoint of a later position is there already; this one was not stored.
    Older {
        /// The position of the newest.
        newest: Position,
    },
    /// There is no such partition.
    NoSuchPartition {
        /// What was asked for.
        partition: u32,
        /// How many there are, counted from 0.
        partitions: u32,
    },
    /// Another owner has taken over the partition, or this one never claimed it; it must stop.
    Fenced {
        /// What was seen.
        why: Arc<str>,
    },
    /// Writing failed; the checkpoints that were there are still there. Try again.
    Disk {
        /// Kind of the failure; `StorageFull` is a full disk.
        kind: std::io::ErrorKind,
        /// What failed, with the path.
        why: Arc<str>,
    },
}

impl std::fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Older { newest } => write!(f, "a checkpoint of the later position {newest} is there already"),
            Self::NoSuchPartition { partition, partitions } => {
                write!(f, "there is no partition {partition}, only 0 to {}", partitions.saturating_sub(1))
            }
            Self::Fenced { why } => write!(f, "this process does not own the partition: {why}"),
            Self::Disk { why, .. } => write!(f, "the checkpoint cannot be written: {why}"),
        }
    }
}

impl std::error::Error for CheckpointError {}

/// Keeps the newest checkpoints of every partition.
pub trait CheckpointStore: Send + Sync {
    /// Says that this process owns a partition from now on: nobody who owned it before can store a checkpoint any more.
    /// On an embedded store, which a lock keeps to one process, there is nothing to do.
    ///
    /// # Errors
    /// If ownership could not be had; try again, or stop.
    fn claim(&self, _partition: u32) -> Result<(), CheckpointError> {
        Ok(())
    }

    /// Says that this process owns a partition no longer.
    fn release(&self, _partition: u32) {}

    /// Stores the state that results from all records before `position`. When it returns, the checkpoint is durable; if
    /// it fails or the process dies, those that were there before still are. A repeat of the newest position replaces it.
    ///
    /// # Errors
    /// If it was not stored.
    fn put(&self, partition: u32, position: Position, bytes: &[u8]) -> Result<(), CheckpointError>;

    /// The newest undamaged checkpoint, if there is one.
    ///
    /// # Errors
    /// If what there is cannot be read now. Whoever took that for nothing would begin anew, and lose what is there with
    /// the next checkpoint.
    fn newest(&self, partition: u32) -> Result<Option<(Position, Bytes)>, CheckpointError>;

    /// The position of the oldest checkpoint kept: what the log may delete up to, if anything. With a single checkpoint
    /// stored there is nothing to fall back to but the beginning, and the answer is that checkpoint's position all the
    /// same: a log that could delete nothing until the second one would fill for no use.
    fn floor(&self, partition: u32) -> Option<Position>;

    /// Counter: checkpoints found damaged.
    fn damaged(&self) -> u64;
}
