//! What the appenders, the committer and the readers of one partition share, and which lock guards what.
//!
//! Three locks, none of them ever held over I/O, so that a slow disk holds up only those who wait for it: the queue
//! (appenders and committer), the list of segments (committer, readers that lag, retention), the tail (everybody, for a
//! push or a look). None is taken while another is held.

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use headroom_model::LogRecord;

use super::frame;
use super::sample_log::DiskLogOptions;
use super::segment::{NO_TICK, path_of};
use super::storage::Storage;
use crate::sample_log::{Append, AppendError, AppendTicket, Position, bound_of};
use crate::stats::LogStats;
use crate::sync::lock;
use crate::tail::Tail;

pub(super) struct Partition {
    pub(super) id: u32,
    pub(super) dir: PathBuf,
    pub(super) options: DiskLogOptions,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) tail: Tail,
    pub(super) stats: Arc<LogStats>,
    queue: Mutex<Queue>,
    queued: Condvar,
    segments: Mutex<Segments>,
    /// What the engine has read, once it has caught up.
    consumed: AtomicU64,
}

/// An engine that is behind by fewer records than this is not behind.
const LAG_RECORDS_MIN: u64 = 16;

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Bytes in `waiting` and in the commit that is running.
    pending_bytes: u64,
    closed: bool,
}

/// A record that waits for its commit.
pub(super) struct Waiting {
    pub(super) record: Arc<LogRecord>,
    pub(super) frame: Vec<u8>,
    pub(super) ticket: AppendTicket,
}

/// One file of the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) base: u64,
    /// Durable bytes.
    pub(super) bytes: u64,
    /// Time of the newest tick before the segment, ns.
    pub(super) ticked_before_ns: i64,
}

/// The files of the log, oldest first. The last one is appended to.
pub(super) struct Segments {
    list: VecDeque<Segment>,
    bytes: u64,
    floor: u64,
    /// Time of the newest tick, ns.
    pub(super) ticked_ns: i64,
    /// Samples were refused for lack of room, and nothing has happened since that could make room.
    pub(super) full: bool,
}

/// Where a reader finds a position.
pub(super) struct Place {
    pub(super) base: u64,
    pub(super) bytes: u64,
    /// Where the next segment starts, if there is one.
    pub(super) next_base: Option<u64>,
}

impl Partition {
    pub(super) fn new(
        id: u32,
        dir: PathBuf,
        options: DiskLogOptions,
        storage: Arc<dyn Storage>,
        (segments, end): (Segments, u64),
        stats: Arc<LogStats>,
    ) -> Self {
        let oldest = segments.oldest().unwrap_or(end);
        let partition = Self {
            id,
            dir,
            options,
            storage,
            tail: Tail::new(oldest, end, stats.clone()),
            stats,
            queue: Mutex::default(),
            queued: Condvar::new(),
            segments: Mutex::new(segments),
            consumed: AtomicU64::new(u64::MAX),
        };
        partition.count_segments(&lock(&partition.segments));
        partition
    }

    /// Queues a record for the committer, or says at once why not.
    pub(super) fn append(&self, record: Arc<LogRecord>) -> Append {
        let samples = record.samples().is_some();
        let bound_bytes = bound_of(&record, self.options.pending_bytes_max);
        // Before encoding: a log in trouble must not also spend the processor on what it is going to refuse.
        if samples && lock(&self.segments).full {
            self.stats.refused_full.add(1);
            return Append::ready(Err(self.full()));
        }
        if let Some(error) = self.behind().filter(|_| samples) {
            self.stats.refused_behind.add(1);
            return Append::ready(Err(error));
        }
        if let Err(error) = self.has_room(lock(&self.queue).pending_bytes, 1, bound_bytes) {
            return Append::ready(Err(error));
        }
        let frame = frame::encode(&record);
        let frame_bytes = frame.len() as u64;
        if frame_bytes > self.options.record_bytes_max() {
            self.stats.refused_too_large.add(1);
            let bound_bytes = self.options.record_bytes_max();
            return Append::ready(Err(AppendError::TooLarge { record_bytes: frame_bytes, bound_bytes }));
        }
        let (ticket, append) = Append::pending();
        let mut queue = lock(&self.queue);
        if queue.closed {
            return Append::ready(Err(AppendError::Closed));
        }
        if let Err(error) = self.has_room(queue.pending_bytes, frame_bytes, bound_bytes) {
            return Append::ready(Err(error));
        }
        queue.pending_bytes += frame_bytes;
        self.stats.pending_bytes.set(queue.pending_bytes);
        let idle = queue.waiting.is_empty();
        queue.waiting.push_back(Waiting { record, frame, ticket });
        drop(queue);
        if idle {
            self.queued.notify_one();
        }
        append
    }

    fn has_room(&self, pending_bytes: u64, more: u64, bound_bytes: u64) -> Result<(), AppendError> {
        if pending_bytes + more <= bound_bytes {
            return Ok(());
        }
        self.stats.refused_overloaded.add(1);
        Err(AppendError::Overloaded { pending_bytes, bound_bytes })
    }

    /// The engine has read everything before `position`.
    pub(super) fn set_consumed(&self, position: u64) {
        self.consumed.store(position, Ordering::Relaxed);
        self.tail.let_go_before(position);
    }

    /// The answer while the engine is too far behind. Looking at the tail's bytes takes its lock, so that is left for
    /// when the number of records alone does not tell: an engine that keeps up is a few behind.
    fn behind(&self) -> Option<AppendError> {
        let consumed = self.consumed.load(Ordering::Relaxed);
        if self.tail.end().saturating_sub(consumed) < LAG_RECORDS_MIN {
            return None;
        }
        let (behind_bytes, bound_bytes) = (self.tail.bytes_since(consumed), self.options.lag_bytes_max);
        (behind_bytes > bound_bytes).then_some(AppendError::Behind { behind_bytes, bound_bytes })
    }

    /// The answer of a log that may not delete anything.
    pub(super) fn full(&self) -> AppendError {
        AppendError::Full { what: "the sample log", bound_bytes: self.options.bytes_max }
    }

    /// For the committer: everything that waits, as soon as anything does. `false` once closed and drained.
    pub(super) fn take_waiting(&self, batch: &mut VecDeque<Waiting>) -> bool {
        let queue = lock(&self.queue);
        let mut queue = self
            .queued
            .wait_while(queue, |queue| queue.waiting.is_empty() && !queue.closed)
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(batch, &mut queue.waiting);
        !batch.is_empty()
    }

    /// Answers a record and gives its bytes back to the bound, in this order for the caller: whoever hears the answer
    /// finds the room.
    pub(super) fn answer(&self, waiting: Waiting, result: Result<Position, AppendError>) {
        let mut queue = lock(&self.queue);
        queue.pending_bytes -= waiting.frame.len() as u64;
        self.stats.pending_bytes.set(queue.pending_bytes);
        drop(queue);
        waiting.ticket.answer(result);
    }

    /// Takes no more records; the committer finishes what waits.
    pub(super) fn close(&self) {
        lock(&self.queue).closed = true;
        self.queued.notify_all();
    }

    pub(super) fn with_segments<T>(&self, act: impl FnOnce(&mut Segments) -> T) -> T {
        let mut segments = lock(&self.segments);
        let result = act(&mut segments);
        self.count_segments(&segments);
        result
    }

    fn count_segments(&self, segments: &Segments) {
        self.stats.segments.set(segments.list.len() as u64);
        self.stats.held_bytes.set(segments.bytes());
        self.stats.full.set(u64::from(segments.full));
    }

    /// Deletes the files that `choose` takes out of the list. Readers learn of it first.
    pub(super) fn delete(&self, choose: impl FnOnce(&mut Segments) -> Vec<Segment>) {
        let (removed, oldest) = self.with_segments(|segments| {
            let removed = choose(segments);
            (removed, segments.oldest())
        });
        if removed.is_empty() {
            return;
        }
        if let Some(oldest) = oldest {
            self.tail.set_oldest(oldest);
        }
        for segment in removed {
            self.stats.segments_removed.add(1);
            let path = path_of(&self.dir, segment.base);
            if let Err(error) = fs::remove_file(&path) {
                // It is forgotten all the same; the next start sees it again, and deletes it when room is needed.
                tracing::warn!(path = %path.display(), %error, "a segment that retention let go cannot be deleted");
            }
        }
    }

    pub(super) fn locate(&self, position: u64) -> Option<Place> {
        let segments = lock(&self.segments);
        let after = segments.list.partition_point(|segment| segment.base <= position);
        let segment = segments.list.get(after.checked_sub(1)?)?;
        Some(Place {
            base: segment.base,
            bytes: segment.bytes,
            next_base: segments.list.get(after).map(|segment| segment.base),
        })
    }
}

impl Segments {
    pub(super) fn new(list: VecDeque<Segment>, ticked_ns: i64) -> Self {
        let bytes = list.iter().map(|segment| segment.bytes).sum();
        Self { list, bytes, floor: 0, ticked_ns, full: false }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    pub(super) fn raise_floor(&mut self, floor: u64) {
        self.floor = self.floor.max(floor);
        self.full = false;
    }

    /// Base of the oldest segment.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.list.front().map(|segment| segment.base)
    }

    /// Adds a new last segment, in place of an empty one that started at the same position.
    pub(super) fn push(&mut self, segment: Segment) {
        if let Some(replaced) = self.list.pop_back_if(|last| last.base == segment.base) {
            self.bytes -= replaced.bytes;
        }
        self.bytes += segment.bytes;
        self.list.push_back(segment);
    }

    /// Counts bytes appended to the last segment.
    pub(super) fn grow(&mut self, bytes: u64) {
        if let Some(last) = self.list.back_mut() {
            last.bytes += bytes;
            self.bytes += bytes;
        }
    }

    /// Takes the oldest segment out if all its records lie before `before` and before the floor.
    pub(super) fn pop_before(&mut self, before: u64) -> Option<Segment> {
        if self.list.get(1)?.base > before.min(self.floor) {
            return None;
        }
        let segment = self.list.pop_front()?;
        self.bytes -= segment.bytes;
        self.full = false;
        Some(segment)
    }

    /// Takes out what must go so that `more` bytes fit into `bound_bytes`, as far as the floor lets it.
    pub(super) fn pop_for_room(&mut self, more: u64, bound_bytes: u64) -> Vec<Segment> {
        let mut removed = Vec::new();
        while self.bytes() + more > bound_bytes {
            let Some(segment) = self.pop_before(u64::MAX) else { break };
            removed.push(segment);
        }
        removed
    }

    /// Takes out what is older than `age_max_ns` by the ticks in the log.
    pub(super) fn pop_expired(&mut self, age_max_ns: i64) -> Vec<Segment> {
        let mut removed = Vec::new();
        while let Some(next) = self.list.get(1) {
            let newest = next.ticked_before_ns;
            let expired = self.ticked_ns != NO_TICK && self.ticked_ns.saturating_sub(newest) > age_max_ns;
            match if expired { self.pop_before(u64::MAX) } else { None } {
                Some(segment) => removed.push(segment),
                None => break,
            }
        }
        removed
    }
}
