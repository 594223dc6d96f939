//! What a partition of the sample log counts. Plain atomics: this crate publishes no metrics, the shell reads these at
//! scrape time and gives them their names.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter or a gauge that one side changes and any side reads.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// The present value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds to it.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Replaces it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// Counters (since the log was opened) and gauges of one partition.
#[derive(Debug, Default)]
pub struct LogStats {
    /// Counter: records acknowledged.
    pub appended_records: Cell,
    /// Counter: bytes of the records acknowledged, headers included.
    pub appended_bytes: Cell,
    /// Counter: group commits that succeeded.
    pub commits: Cell,
    /// Counter: time spent in group commits, succeeded or not, ns.
    pub commit_ns: Cell,
    /// Counter: appends refused because retention may not make room.
    pub refused_full: Cell,
    /// Gauge: 1 while the log is full, so that samples are refused.
    pub full: Cell,
    /// Counter: appends refused because too many bytes wait for the disk.
    pub refused_overloaded: Cell,
    /// Counter: records refused because the engine is too far behind.
    pub refused_behind: Cell,
    /// Counter: appends refused because writing or syncing failed.
    pub refused_disk: Cell,
    /// Counter: appends refused because the record is larger than the bound.
    pub refused_too_large: Cell,
    /// Counter: bytes cut from torn tails when the log was opened.
    pub cut_bytes: Cell,
    /// Counter: positions found damaged, missing or not to be understood by readers, or lost behind a checkpoint. What
    /// opening finds is in its report alone: readers find it again.
    pub damaged_records: Cell,
    /// Gauge: bytes accepted but not yet durable.
    pub pending_bytes: Cell,
    /// Gauge: segments on disk.
    pub segments: Cell,
    /// Gauge: bytes of the segments on disk (memory log: of the records held).
    pub held_bytes: Cell,
    /// Gauge: bytes of the records in the tail cache.
    pub tail_bytes: Cell,
    /// Counter: records that a reader got from the tail cache.
    pub tail_hits: Cell,
    /// Counter: records that a reader had to read and decode from disk.
    pub tail_misses: Cell,
    /// Counter: segments removed by retention.
    pub segments_removed: Cell,
}
