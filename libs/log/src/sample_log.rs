//! The sample log: partitioned, ordered, replayable; the port through which samples, ticks and operator actions reach
//! the engines.
//!
//! **Appending** is a plain call that returns a future. The call encodes the record in the caller's own thread (ingest
//! has many, the log one per partition) and takes its place in the partition's order; the future resolves when the record
//! is durable. The order of acknowledged records is the order of the calls. Dropping the future does not take the record
//! back.
//!
//! **Nothing waits unboundedly.** A log that cannot keep up answers [`AppendError::Overloaded`] at once, a log that may
//! not delete what a checkpoint still needs answers [`AppendError::Full`]; both are the sender's to retry. Records other
//! than samples have a reserve of their own in both bounds: a log that refused ticks because it is full of samples would
//! never see the checkpoint that makes room.
//!
//! **Reading** follows the tail. Engines run on threads of their own without a runtime, so a reader has a blocking and an
//! async form of the same call; both sleep on the log instead of polling it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use headroom_model::LogRecord;
use tokio::sync::oneshot;

use crate::stats::LogStats;

/// A boxed future, so that the ports are object-safe.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The place of a record in its partition: the number of positions given before it. Positions only grow and are never
/// given twice, but may have gaps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Position(pub u64);

impl Position {
    /// The position after this one.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Bytes that records other than samples may take beyond the bounds of a log, so that ticks go on when samples are
/// refused. At 26 bytes a tick, ten years of ticks of 10 s.
pub const CONTROL_RESERVE_BYTES: u64 = 1 << 20;

/// The bound of a record's kind in a log bounded to `bound_bytes`.
pub(crate) fn bound_of(record: &LogRecord, bound_bytes: u64) -> u64 {
    match record.samples() {
        Some(_) => bound_bytes,
        None => bound_bytes.saturating_add(CONTROL_RESERVE_BYTES),
    }
}

/// Why a record was not appended. Nothing of it is in the log, except after [`Self::Disk`] and [`Self::Closed`], where
/// it may have become durable without being acknowledged (the engine makes repeats harmless).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// The log holds as much as it may, and retention may not delete what the older of two checkpoints does not cover.
    Full {
        /// What is full.
        what: &'static str,
        /// The bound in bytes.
        bound_bytes: u64,
    },
    /// More bytes wait for the disk than may wait.
    Overloaded {
        /// Bytes that wait.
        pending_bytes: u64,
        /// The bound in bytes.
        bound_bytes: u64,
    },
    /// The engine is further behind than it may be: more samples would only make decisions older, and a restart longer.
    Behind {
        /// Bytes that it has not read.
        behind_bytes: u64,
        /// The bound in bytes.
        bound_bytes: u64,
    },
    /// Writing or syncing failed; the log stays readable and tries again with the next record.
    Disk {
        /// Kind of the failure; `StorageFull` is a full disk.
        kind: std::io::ErrorKind,
        /// What failed, with the path.
        why: Arc<str>,
    },
    /// The record is larger than one record may be. Trying again does not help; splitting the batch does.
    TooLarge {
        /// Bytes of the record.
        record_bytes: u64,
        /// The bound in bytes.
        bound_bytes: u64,
    },
    /// There is no such partition.
    NoSuchPartition {
        /// What was asked for.
        partition: u32,
        /// How many there are, counted from 0.
        partitions: u32,
    },
    /// The log was closed.
    Closed,
}

impl AppendError {
    /// Its word in counters and refusals, the same for every way in.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Full { .. } => "log_full",
            Self::Overloaded { .. } => "log_overloaded",
            Self::Behind { .. } => "engine_behind",
            Self::Disk { .. } => "log_disk",
            Self::TooLarge { .. } => "log_record_bytes",
            Self::NoSuchPartition { .. } => "log_partition",
            Self::Closed => "log_closed",
        }
    }

    /// Whether the sender should try the same record again later.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::TooLarge { .. } | Self::NoSuchPartition { .. })
    }
}

impl std::fmt::Display for AppendError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full { what, bound_bytes } => write!(
                f,
                "{what} is full: {bound_bytes} bytes are held (log.bytes_max), and the older of the two newest checkpoints \
                 does not yet allow deleting any"
            ),
            Self::Overloaded { pending_bytes, bound_bytes } => {
                write!(
                    f,
                    "the sample log is overloaded: {pending_bytes} of at most {bound_bytes} bytes wait for the disk"
                )
            }
            Self::Behind { behind_bytes, bound_bytes } => write!(
                f,
                "the engine is {behind_bytes} bytes behind the sample log, of at most {bound_bytes} (log.lag_bytes_max)"
            ),
            Self::Disk { why, .. } => write!(f, "the sample log cannot write: {why}"),
            Self::TooLarge { record_bytes, bound_bytes } => {
                write!(f, "a record of {record_bytes} bytes is larger than the {bound_bytes} bytes that one may have")
            }
            Self::NoSuchPartition { partition, partitions } => {
                write!(f, "there is no partition {partition}, only 0 to {}", partitions.saturating_sub(1))
            }
            Self::Closed => f.write_str("the sample log is closed"),
        }
    }
}

impl std::error::Error for AppendError {}

/// Why a reader has no next record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// Retention has deleted the position. The reader stays where it is; open a new one at `oldest`.
    Truncated {
        /// The position that was wanted.
        wanted: Position,
        /// The oldest position still there.
        oldest: Position,
    },
    /// The position is beyond the end of the log: what asked for it knows records that this log has lost.
    BeyondEnd {
        /// The position that was wanted.
        wanted: Position,
        /// The end of the log.
        end: Position,
    },
    /// The records in `[from, to)` are damaged or missing. The reader has gone past them and can be asked again.
    Damaged {
        /// The first position lost.
        from: Position,
        /// The first position after the loss.
        to: Position,
    },
    /// The record is undamaged but cannot be understood, mostly because a newer version wrote it. The reader has gone
    /// past it and can be asked again.
    Unreadable {
        /// Its position.
        position: Position,
        /// Why.
        why: Arc<str>,
    },
    /// Reading failed. The reader stays where it is and can be asked again.
    Disk {
        /// What failed, with the path.
        why: Arc<str>,
    },
    /// There is no such partition.
    NoSuchPartition {
        /// What was asked for.
        partition: u32,
        /// How many there are, counted from 0.
        partitions: u32,
    },
    /// The log was closed and everything in it was read.
    Closed,
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Truncated { wanted, oldest } => {
                write!(f, "position {wanted} was deleted by retention; the oldest left is {oldest}")
            }
            Self::BeyondEnd { wanted, end } => write!(f, "position {wanted} is beyond the end of the log, {end}"),
            Self::Damaged { from, to } => {
                write!(f, "the records from position {from} up to {to} are damaged or missing")
            }
            Self::Unreadable { position, why } => write!(f, "the record at position {position} cannot be read: {why}"),
            Self::Disk { why } => write!(f, "the sample log cannot be read: {why}"),
            Self::NoSuchPartition { partition, partitions } => {
                write!(f, "there is no partition {partition}, only 0 to {}", partitions.saturating_sub(1))
            }
            Self::Closed => f.write_str("the sample log is closed"),
        }
    }
}

impl std::error::Error for ReadError {}

/// A partitioned, ordered, replayable log. See the module head for what all implementations share, and
/// [`crate::contract`] for the same as code.
pub trait SampleLog: Send + Sync {
    /// How many partitions there are; fixed for the life of the log.
    fn partitions(&self) -> u32;

    /// Appends a record; the future resolves to its position once it is durable. Never waits itself.
    fn append(&self, partition: u32, record: Arc<LogRecord>) -> Append;

    /// A reader whose first record is the one at `from`, or the first after it if `from` is a gap.
    ///
    /// # Errors
    /// [`ReadError::Truncated`], [`ReadError::BeyondEnd`] or [`ReadError::NoSuchPartition`]. Reading at the end itself,
    /// or at a retention floor beyond it, is no error: such a reader waits.
    fn reader(&self, partition: u32, from: Position) -> Result<Box<dyn LogReader>, ReadError>;

    /// The oldest position that can be read; equal to [`Self::end`] if the partition is empty. 0 without the partition.
    fn oldest(&self, partition: u32) -> Position;

    /// The position after the last durable record. 0 without the partition.
    fn end(&self, partition: u32) -> Position;

    /// Says that the partition's engine keeps up with the tail and has read everything before `position`. A log whose
    /// engine is in the same process may refuse samples while the engine is too far behind; what it is behind when it
    /// begins is nobody's fault, so nothing is said before it has caught up once.
    fn set_consumed(&self, _partition: u32, _position: Position) {}

    /// Says that everything before `floor` is covered by a durable checkpoint, so that retention may delete it. The
    /// floor only rises; it starts at 0, where nothing may be deleted. A floor beyond the end means that the log has lost
    /// what the checkpoint has seen (unsynced writes and a power cut); the log then goes on at the floor, so that no
    /// position is given twice. Pass [`CheckpointStore::floor`](crate::CheckpointStore::floor).
    fn set_retention_floor(&self, partition: u32, floor: Position);

    /// Deletes what lies before `before` and before the floor, as far as the implementation's units of deletion allow,
    /// and returns the oldest position left.
    fn truncate_before(&self, partition: u32, before: Position) -> Position;

    /// The counters of a partition, if there is one.
    fn stats(&self, partition: u32) -> Option<Arc<LogStats>>;
}

/// Reads one partition in order and follows its tail.
pub trait LogReader: Send {
    /// The position that the next record has at least.
    fn position(&self) -> Position;

    /// The next record, waiting for it if need be. Dropping the future loses nothing.
    fn next(&mut self) -> BoxFuture<'_, Result<(Position, Arc<LogRecord>), ReadError>>;

    /// The next record, waiting up to `timeout` for it; `None` if none came. For threads of their own: it must not be
    /// called on an async task.
    ///
    /// # Errors
    /// As [`ReadError`] says for each case whether to go on.
    fn next_blocking(&mut self, timeout: Duration) -> Result<Option<(Position, Arc<LogRecord>)>, ReadError>;

    /// The next record if it is there; may read the disk, never waits for an append.
    ///
    /// # Errors
    /// As [`Self::next_blocking`].
    fn try_next(&mut self) -> Result<Option<(Position, Arc<LogRecord>)>, ReadError>;
}

/// The answer to an append, once it is known.
#[derive(Debug)]
pub struct Append(State);

#[derive(Debug)]
enum State {
    Ready(Option<Result<Position, AppendError>>),
    Waiting(oneshot::Receiver<Result<Position, AppendError>>),
}

/// The other end of an [`Append`], held by whoever makes the record durable. Dropped unanswered, it answers
/// [`AppendError::Closed`].
#[derive(Debug)]
pub struct AppendTicket(oneshot::Sender<Result<Position, AppendError>>);

impl AppendTicket {
    /// Answers.
    pub fn answer(self, result: Result<Position, AppendError>) {
        // The caller may have gone; the record stays all the same.
        let _ = self.0.send(result);
    }
}

impl Append {
    /// An answer that is known at once.
    pub fn ready(result: Result<Position, AppendError>) -> Self {
        Self(State::Ready(Some(result)))
    }

    /// An answer that is to come.
    pub fn pending() -> (AppendTicket, Self) {
        let (sender, receiver) = oneshot::channel();
        (AppendTicket(sender), Self(State::Waiting(receiver)))
    }

    /// Waits on a thread of its own.
    ///
    /// # Errors
    /// If the record was not appended.
    ///
    /// # Panics
    /// Inside an async task, where it would stall the runtime.
    pub fn wait_blocking(self) -> Result<Position, AppendError> {
        match self.0 {
            State::Ready(result) => result.unwrap_or(Err(AppendError::Closed)),
            State::Waiting(receiver) => receiver.blocking_recv().unwrap_or(Err(AppendError::Closed)),
        }
    }
}

impl Future for Append {
    type Output = Result<Position, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Ready(result) => Poll::Ready(result.take().unwrap_or(Err(AppendError::Closed))),
            State::Waiting(receiver) => {
                Pin::new(receiver).poll(context).map(|answer| answer.unwrap_or(Err(AppendError::Closed)))
            }
        }
    }
}
