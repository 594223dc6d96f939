//! The three ports in memory: for tests, and for measuring what the engine costs without a disk.
//!
//! They keep the bounds and answers of the disk implementations, so that what is tested against them holds there too,
//! except that nothing survives the process and that an append is durable when the call returns.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use headroom_model::LogRecord;

use crate::checkpoint::{CheckpointError, CheckpointStore, GENERATIONS};
use crate::sample_log::{Append, AppendError, BoxFuture, LogReader, Position, ReadError, SampleLog, bound_of};
use crate::snapshot_log::{PublishError, Published, SnapshotLog, SnapshotMap, SnapshotRecord, Subscription};
use crate::stats::LogStats;
use crate::sync::lock;
use crate::tail::{Found, Tail};

/// A sample log in memory, bounded in bytes per partition.
pub struct MemorySampleLog {
    partitions: Vec<Arc<Partition>>,
    bytes_max: u64,
}

struct Partition {
    tail: Tail,
    stats: Arc<LogStats>,
    writing: Mutex<Writing>,
}

#[derive(Default)]
struct Writing {
    floor: u64,
    bytes: u64,
}

impl MemorySampleLog {
    /// A log of `partitions` partitions that hold up to `bytes_max` bytes of encoded records each.
    pub fn new(partitions: u32, bytes_max: u64) -> Self {
        let partition = |_| {
            let stats = Arc::new(LogStats::default());
            Arc::new(Partition { tail: Tail::new(0, 0, stats.clone()), stats, writing: Mutex::default() })
        };
        Self { partitions: (0..partitions).map(partition).collect(), bytes_max }
    }

    fn partition(&self, partition: u32) -> Option<&Arc<Partition>> {
        self.partitions.get(partition as usize)
    }
}

impl Drop for MemorySampleLog {
    fn drop(&mut self) {
        self.partitions.iter().for_each(|partition| partition.tail.close());
    }
}

impl Partition {
    fn append(&self, record: Arc<LogRecord>, bytes_max: u64) -> Result<Position, AppendError> {
        let bytes = record.encode().len() as u64;
        let bound_bytes = bound_of(&record, bytes_max);
        if bytes > bound_bytes {
            self.stats.refused_too_large.add(1);
            return Err(AppendError::TooLarge { record_bytes: bytes, bound_bytes });
        }
        let mut writing = lock(&self.writing);
        while writing.bytes + bytes > bound_bytes {
            if self.tail.oldest() >= writing.floor.min(self.tail.end()) || self.delete_first(&mut writing).is_none() {
                self.stats.refused_full.add(1);
                return Err(AppendError::Full { what: "the sample log", bound_bytes: bytes_max });
            }
        }
        let position = self.tail.end().max(writing.floor);
        if position > self.tail.end() {
            // The positions up to the floor are lost, and so is what lies before: a log in memory has no gaps.
            while self.delete_first(&mut writing).is_some() {}
        }
        writing.bytes += bytes;
        self.tail.extend(position, std::iter::once((record, bytes)), u64::MAX);
        self.stats.appended_records.add(1);
        self.stats.appended_bytes.add(bytes);
        self.stats.commits.add(1);
        self.stats.held_bytes.set(writing.bytes);
        Ok(Position(position))
    }

    fn delete_first(&self, writing: &mut Writing) -> Option<u64> {
        let (bytes, oldest) = self.tail.delete_first()?;
        writing.bytes -= bytes;
        self.stats.held_bytes.set(writing.bytes);
        Some(oldest)
    }
}

impl SampleLog for MemorySampleLog {
    fn partitions(&self) -> u32 {
        self.partitions.len() as u32
    }

    fn append(&self, partition: u32, record: Arc<LogRecord>) -> Append {
        Append::ready(match self.partition(partition) {
            Some(partition) => partition.append(record, self.bytes_max),
            None => Err(AppendError::NoSuchPartition { partition, partitions: self.partitions() }),
        })
    }

    fn reader(&self, partition: u32, from: Position) -> Result<Box<dyn LogReader>, ReadError> {
        let Some(held) = self.partition(partition) else {
            return Err(ReadError::NoSuchPartition { partition, partitions: self.partitions() });
        };
        if from.0 > held.tail.start_max() {
            return Err(ReadError::BeyondEnd { wanted: from, end: Position(held.tail.end()) });
        }
        if let Found::Truncated(oldest) = held.tail.find(from.0) {
            return Err(ReadError::Truncated { wanted: from, oldest: Position(oldest) });
        }
        Ok(Box::new(MemoryReader { partition: held.clone(), at: from.0 }))
    }

    fn oldest(&self, partition: u32) -> Position {
        Position(self.partition(partition).map_or(0, |partition| partition.tail.oldest()))
    }

    fn end(&self, partition: u32) -> Position {
        Position(self.partition(partition).map_or(0, |partition| partition.tail.end()))
    }

    fn set_retention_floor(&self, partition: u32, floor: Position) {
        let Some(partition) = self.partition(partition) else { return };
        let mut writing = lock(&partition.writing);
        writing.floor = writing.floor.max(floor.0);
        partition.tail.raise_floor(floor.0);
    }

    fn truncate_before(&self, partition: u32, before: Position) -> Position {
        let Some(partition) = self.partition(partition) else { return Position(0) };
        let mut writing = lock(&partition.writing);
        let before = before.0.min(writing.floor);
        while partition.tail.oldest() < before && partition.delete_first(&mut writing).is_some() {}
        Position(partition.tail.oldest())
    }

    fn stats(&self, partition: u32) -> Option<Arc<LogStats>> {
        self.partition(partition).map(|partition| partition.stats.clone())
    }
}

struct MemoryReader {
    partition: Arc<Partition>,
    at: u64,
}

impl MemoryReader {
    fn take(&mut self, found: Found) -> Result<Option<(Position, Arc<LogRecord>)>, ReadError> {
        match found {
            Found::Record(record) => {
                let position = Position(self.at);
                self.at += 1;
                self.partition.stats.tail_hits.add(1);
                Ok(Some((position, record)))
            }
            // There is no disk: what is forgotten is deleted, and says so.
            Found::NotYet | Found::OnDisk => Ok(None),
            Found::Truncated(oldest) => {
                Err(ReadError::Truncated { wanted: Position(self.at), oldest: Position(oldest) })
            }
            Found::Closed => Err(ReadError::Closed),
        }
    }
}

impl LogReader for MemoryReader {
    fn position(&self) -> Position {
        Position(self.at)
    }

    fn next(&mut self) -> BoxFuture<'_, Result<(Position, Arc<LogRecord>), ReadError>> {
        Box::pin(async move {
            let mut grown = self.partition.tail.subscribe();
            loop {
                grown.borrow_and_update();
                if let Some(next) = self.try_next()? {
                    return Ok(next);
                }
                if grown.changed().await.is_err() {
                    return Err(ReadError::Closed);
                }
            }
        })
    }

    fn next_blocking(&mut self, timeout: Duration) -> Result<Option<(Position, Arc<LogRecord>)>, ReadError> {
        let found = self.partition.tail.find_blocking(self.at, timeout);
        self.take(found)
    }

    fn try_next(&mut self) -> Result<Option<(Position, Arc<LogRecord>)>, ReadError> {
        let found = self.partition.tail.find(self.at);
        self.take(found)
    }
}

/// A snapshot log in memory.
pub struct MemorySnapshotLog(Arc<SnapshotMap>);

impl MemorySnapshotLog {
    /// A log for up to `cells_max` cells.
    pub fn new(cells_max: usize) -> Self {
        Self(Arc::new(SnapshotMap::new(cells_max)))
    }
}

impl SnapshotLog for MemorySnapshotLog {
    fn publish(&self, cell: &Arc<str>, snapshot: SnapshotRecord) -> Result<Published, PublishError> {
        self.0.publish(cell, snapshot)
    }

    fn retire(&self, cell: &Arc<str>) -> Result<(), PublishError> {
        self.0.retire(cell);
        Ok(())
    }

    fn latest(&self, cell: &str) -> Option<SnapshotRecord> {
        self.0.latest(cell)
    }

    fn cells(&self) -> Vec<Arc<str>> {
        self.0.cells()
    }

    fn subscribe(&self) -> Subscription {
        self.0.subscribe()
    }
}

/// A checkpoint store in memory.
pub struct MemoryCheckpointStore {
    /// By partition, oldest first.
    held: Vec<Mutex<Vec<(Position, Bytes)>>>,
    damaged: AtomicU64,
}

impl MemoryCheckpointStore {
    /// A store for `partitions` partitions.
    pub fn new(partitions: u32) -> Self {
        Self { held: (0..partitions).map(|_| Mutex::default()).collect(), damaged: AtomicU64::new(0) }
    }

    /// Forgets the newest checkpoint as if it had been found damaged, to test what depends on falling back.
    pub fn damage_newest(&self, partition: u32) {
        if self.held.get(partition as usize).is_some_and(|held| lock(held).pop().is_some()) {
            self.damaged.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl CheckpointStore for MemoryCheckpointStore {
    fn put(&self, partition: u32, position: Position, bytes: &[u8]) -> Result<(), CheckpointError> {
        let Some(held) = self.held.get(partition as usize) else {
            return Err(CheckpointError::NoSuchPartition { partition, partitions: self.held.len() as u32 });
        };
        let mut held = lock(held);
        match held.last() {
            Some((newest, _)) if *newest > position => return Err(CheckpointError::Older { newest: *newest }),
            Some((newest, _)) if *newest == position => drop(held.pop()),
            _ => {}
        }
        held.push((position, Bytes::copy_from_slice(bytes)));
        let surplus = held.len().saturating_sub(GENERATIONS);
        held.drain(..surplus);
        Ok(())
    }

    fn newest(&self, partition: u32) -> Result<Option<(Position, Bytes)>, CheckpointError> {
        Ok(self.held.get(partition as usize).and_then(|held| lock(held).last().cloned()))
    }

    fn floor(&self, partition: u32) -> Option<Position> {
        self.held.get(partition as usize).and_then(|held| lock(held).first().map(|(position, _)| *position))
    }

    fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }
}
