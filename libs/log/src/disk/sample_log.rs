//! The sample log on disk: its options, its threads, and the port.

use std::sync::Arc;
use std::thread::JoinHandle;

use headroom_model::LogRecord;

use super::committer::Committer;
use super::data_dir::{DataDir, DirLock, OpenError};
use super::partition::Partition;
use super::reader::DiskReader;
use super::recovery::{RecoveryReport, recover};
use super::storage::Storage;
use crate::sample_log::{Append, AppendError, LogReader, Position, ReadError, SampleLog};
use crate::stats::LogStats;
use crate::tail::Found;

/// What "acknowledged" means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Durability {
    /// Synced: survives a power cut.
    #[default]
    Synced,
    /// Handed to the operating system: survives the death of the process, not of the machine.
    Written,
}

/// Bounds of the sample log, each per partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskLogOptions {
    /// What "acknowledged" means.
    pub durability: Durability,
    /// How large a segment becomes, bytes; at most a quarter of `bytes_max`, so that retention has something to delete.
    pub segment_bytes: u64,
    /// How much the log may hold on disk, bytes.
    pub bytes_max: u64,
    /// Segments whose newest record is older than this by the ticks in the log are deleted, ns. `None`: only for room.
    pub age_max_ns: Option<i64>,
    /// How much may wait for the disk, bytes.
    pub pending_bytes_max: u64,
    /// How much the tail cache may hold, bytes.
    pub tail_bytes_max: u64,
    /// Bytes in memory, were they there, of what a partition's engine may be behind before samples are refused.
    pub lag_bytes_max: u64,
}

impl Default for DiskLogOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Synced,
            segment_bytes: 64 << 20,
            bytes_max: 16 << 30,
            age_max_ns: None,
            pending_bytes_max: 64 << 20,
            tail_bytes_max: 64 << 20,
            lag_bytes_max: 256 << 20,
        }
    }
}

impl DiskLogOptions {
    /// How large one record may be, bytes: it must fit among what waits and leave retention something to delete.
    pub fn record_bytes_max(&self) -> u64 {
        self.pending_bytes_max.min(self.bytes_max / 4).min(1 << 30)
    }
}

/// The sample log on disk. Dropping it commits what waits and ends its threads.
pub struct DiskSampleLog {
    partitions: Vec<Arc<Partition>>,
    reports: Vec<RecoveryReport>,
    committers: Vec<JoinHandle<()>>,
    _lock: Arc<DirLock>,
}

impl DiskSampleLog {
    /// Opens the log of a data directory and recovers it from whatever ended its last use.
    ///
    /// # Errors
    /// If it cannot be read or written, or a newer version wrote it.
    pub fn open(dir: &DataDir, mut options: DiskLogOptions, storage: Arc<dyn Storage>) -> Result<Self, OpenError> {
        options.segment_bytes = options.segment_bytes.min(options.bytes_max / 4);
        let mut log = Self { partitions: Vec::new(), reports: Vec::new(), committers: Vec::new(), _lock: dir.lock() };
        for id in 0..dir.partitions() {
            let path = dir.path().join("log").join(id.to_string());
            let recovered = recover(&path, id, &*storage)?;
            let stats = Arc::new(LogStats::default());
            stats.cut_bytes.add(recovered.report.cut_bytes);
            let held = (recovered.segments, recovered.end);
            let partition = Arc::new(Partition::new(id, path.clone(), options, storage.clone(), held, stats));
            let committer = Committer::new(partition.clone(), recovered.active);
            log.partitions.push(partition);
            log.reports.push(recovered.report);
            let thread = std::thread::Builder::new()
                .name(format!("log-commit-{id}"))
                .spawn(move || committer.run())
                .map_err(|error| OpenError::disk("cannot start the committer of", &path, &error))?;
            log.committers.push(thread);
        }
        Ok(log)
    }

    /// What opening found, by partition.
    pub fn reports(&self) -> &[RecoveryReport] {
        &self.reports
    }

    fn partition(&self, partition: u32) -> Option<&Arc<Partition>> {
        self.partitions.get(partition as usize)
    }
}

impl Drop for DiskSampleLog {
    fn drop(&mut self) {
        self.partitions.iter().for_each(|partition| partition.close());
        for committer in self.committers.drain(..) {
            if committer.join().is_err() {
                tracing::error!("a committer of the sample log has died");
            }
        }
    }
}

impl SampleLog for DiskSampleLog {
    fn partitions(&self) -> u32 {
        self.partitions.len() as u32
    }

    fn append(&self, partition: u32, record: Arc<LogRecord>) -> Append {
        match self.partition(partition) {
            Some(partition) => partition.append(record),
            None => Append::ready(Err(AppendError::NoSuchPartition { partition, partitions: self.partitions() })),
        }
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
        Ok(Box::new(DiskReader::new(held.clone(), from.0)))
    }

    fn oldest(&self, partition: u32) -> Position {
        Position(self.partition(partition).map_or(0, |partition| partition.tail.oldest()))
    }

    fn end(&self, partition: u32) -> Position {
        Position(self.partition(partition).map_or(0, |partition| partition.tail.end()))
    }

    fn set_consumed(&self, partition: u32, position: Position) {
        if let Some(partition) = self.partition(partition) {
            partition.set_consumed(position.0);
        }
    }

    fn set_retention_floor(&self, partition: u32, floor: Position) {
        let Some(partition) = self.partition(partition) else { return };
        partition.with_segments(|segments| segments.raise_floor(floor.0));
        partition.tail.raise_floor(floor.0);
    }

    fn truncate_before(&self, partition: u32, before: Position) -> Position {
        let Some(partition) = self.partition(partition) else { return Position(0) };
        partition.delete(|segments| std::iter::from_fn(|| segments.pop_before(before.0)).collect());
        Position(partition.tail.oldest())
    }

    fn stats(&self, partition: u32) -> Option<Arc<LogStats>> {
        self.partition(partition).map(|partition| partition.stats.clone())
    }
}
