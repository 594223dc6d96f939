//! The one thread that writes a partition.
//!
//! **Group commit without a timer.** The thread takes everything that waits, writes it with one vectored write and syncs
//! once. While it does, the next group gathers by itself: an idle log commits at once, a busy one shares syncs.
//!
//! **What a failure leaves behind.** Records are acknowledged only after the sync, so after any failure the segment is
//! put back to its last durable end before anything else is written: after a failed write by cutting it; after a failed
//! *sync* by never touching that file again, because the kernel may have dropped the dirty pages and a second sync
//! that succeeds would prove nothing. The log goes on in a new segment at the same position. Should the cut fail too,
//! what is left over lies behind the next segment's base, where no reader looks.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Instant;

use headroom_model::LogRecord;

use super::partition::{Partition, Segment, Waiting};
use super::sample_log::Durability;
use super::segment::{SEGMENT_HEADER_BYTES, SEGMENT_VERSION, SegmentHeader, path_of};
use super::storage::SegmentFile;
use super::{frame, why};
use crate::sample_log::{AppendError, Position, bound_of};

/// How many buffers one vectored write takes at most (the least that POSIX systems in use allow).
const BUFFERS_MAX: usize = 1024;

/// A segment that holds so many records is left, well before their numbers run out of 32 bits.
const ORDINALS_MAX: u64 = 1 << 31;

pub(super) struct Committer {
    partition: Arc<Partition>,
    active: Option<Active>,
    /// Position of the next record.
    next: u64,
    /// The last group failed. Only the change is logged: a full disk would fill the logs of others too.
    failing: bool,
}

/// The segment that is appended to.
pub(super) struct Active {
    pub(super) file: Box<dyn SegmentFile>,
    pub(super) base: u64,
    /// Durable bytes.
    pub(super) bytes: u64,
}

impl Committer {
    pub(super) fn new(partition: Arc<Partition>, active: Option<Active>) -> Self {
        let next = partition.tail.end();
        Self { partition, active, next, failing: false }
    }

    /// Commits until the partition is closed and nothing waits.
    pub(super) fn run(mut self) {
        let mut batch = VecDeque::new();
        while self.partition.take_waiting(&mut batch) {
            self.commit(&mut batch);
        }
        self.partition.tail.close();
    }

    fn commit(&mut self, batch: &mut VecDeque<Waiting>) {
        while !batch.is_empty() {
            let started = Instant::now();
            let mut group = self.admit(batch);
            if group.is_empty() {
                continue;
            }
            let result = self.write(&mut group);
            self.partition.stats.commit_ns.add(started.elapsed().as_nanos().try_into().unwrap_or(u64::MAX));
            self.log_change(result.as_ref().err());
            match result {
                Ok(first) => self.publish(first, group),
                // The rest of the batch would most likely fare no better, and its senders have waited long enough.
                Err(error) => group.into_iter().chain(batch.drain(..)).for_each(|waiting| {
                    self.partition.stats.refused_disk.add(1);
                    self.partition.answer(waiting, Err(error.clone()));
                }),
            }
        }
    }

    fn log_change(&mut self, error: Option<&AppendError>) {
        let partition = self.partition.id;
        match error {
            Some(error) if !self.failing => tracing::error!(partition, %error, "appends are refused until this ends"),
            None if self.failing => tracing::info!(partition, "the sample log can write again"),
            _ => {}
        }
        self.failing = error.is_some();
    }

    /// Takes from the front of the batch what one segment and the bound of the log can hold, after retention has made
    /// what room it may; answers those that cannot be held.
    fn admit(&self, batch: &mut VecDeque<Waiting>) -> Vec<Waiting> {
        let options = &self.partition.options;
        let mut group: Vec<Waiting> = Vec::new();
        let mut group_bytes = 0;
        // What the segment holds already: the active one if the first record fits there, else a new one.
        let mut held_bytes = self.active.as_ref().map_or(options.segment_bytes, |active| active.bytes);
        while let Some(waiting) = batch.front() {
            let frame_bytes = waiting.frame.len() as u64;
            if held_bytes + group_bytes + frame_bytes > options.segment_bytes {
                if !group.is_empty() {
                    break;
                }
                held_bytes = SEGMENT_HEADER_BYTES as u64;
            }
            let more = group_bytes + frame_bytes + SEGMENT_HEADER_BYTES as u64;
            let bound = bound_of(&waiting.record, options.bytes_max);
            let samples = waiting.record.samples().is_some();
            self.partition.delete(|segments| segments.pop_for_room(more, bound));
            let fits = self.partition.with_segments(|segments| {
                let fits = segments.bytes() + more <= bound;
                segments.full |= !fits && samples;
                fits
            });
            let Some(waiting) = batch.pop_front() else { break };
            if fits {
                group_bytes += frame_bytes;
                group.push(waiting);
            } else {
                self.partition.stats.refused_full.add(1);
                let full = self.partition.full();
                self.partition.answer(waiting, Err(full));
            }
        }
        group
    }

    /// Makes a group durable and returns its first position.
    fn write(&mut self, group: &mut [Waiting]) -> Result<u64, AppendError> {
        let group_bytes: u64 = group.iter().map(|waiting| waiting.frame.len() as u64).sum();
        let path = path_of(&self.partition.dir, self.active.as_ref().map_or(self.next, |active| active.base));
        let failed = |what: &str, error: io::Error| disk_error(what, &path, &error);
        let durability = self.partition.options.durability;
        let mut active = self.active_for(group_bytes)?;
        for (index, waiting) in group.iter_mut().enumerate() {
            frame::number(&mut waiting.frame, (self.next - active.base) as u32 + index as u32);
        }
        if let Err(error) = append_all(&mut *active.file, group) {
            if active.file.truncate(active.bytes).is_ok() {
                self.active = Some(active);
            }
            return Err(failed("cannot write", error));
        }
        if durability == Durability::Synced
            && let Err(error) = active.file.sync()
        {
            let _ = active.file.truncate(active.bytes);
            return Err(failed("cannot sync", error));
        }
        active.bytes += group_bytes;
        self.active = Some(active);
        let first = self.next;
        self.next += group.len() as u64;
        Ok(first)
    }

    /// Takes the active segment if the group belongs there, or starts a new one.
    fn active_for(&mut self, group_bytes: u64) -> Result<Active, AppendError> {
        let floor = self.partition.with_segments(|segments| segments.floor());
        if floor > self.next {
            tracing::error!(
                partition = self.partition.id,
                end = self.next,
                floor,
                "the log ends before its newest checkpoint: records that were not synced are lost; going on at the checkpoint"
            );
            self.partition.stats.damaged_records.add(floor - self.next);
            self.next = floor;
            self.active = None;
        }
        let (next, segment_bytes) = (self.next, self.partition.options.segment_bytes);
        let has_room = |active: &Active| {
            active.bytes == SEGMENT_HEADER_BYTES as u64 || active.bytes + group_bytes <= segment_bytes
        };
        let can_number = |active: &Active| next - active.base < ORDINALS_MAX;
        match self.active.take().filter(|active| has_room(active) && can_number(active)) {
            Some(active) => Ok(active),
            None => self.start_segment(),
        }
    }

    fn start_segment(&self) -> Result<Active, AppendError> {
        let partition = &self.partition;
        let path = path_of(&partition.dir, self.next);
        let ticked_before_ns = partition.with_segments(|segments| segments.ticked_ns);
        let header =
            SegmentHeader { version: SEGMENT_VERSION, partition: partition.id, base: self.next, ticked_before_ns };
        let create = || -> io::Result<Box<dyn SegmentFile>> {
            // A file of this name holds nothing that was acknowledged: it was left by a failed sync or a failed start.
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error);
            }
            let mut file = partition.storage.create(&path)?;
            let bytes = header.encode();
            let written = file.append(&[IoSlice::new(&bytes)])?;
            if written < bytes.len() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            if partition.options.durability == Durability::Synced {
                file.sync()?;
            }
            Ok(file)
        };
        let file = create().map_err(|error| {
            let _ = fs::remove_file(&path);
            disk_error("cannot start", &path, &error)
        })?;
        let segment = Segment { base: self.next, bytes: SEGMENT_HEADER_BYTES as u64, ticked_before_ns };
        let oldest = partition.with_segments(|segments| {
            segments.push(segment);
            segments.oldest()
        });
        partition.tail.set_oldest(oldest.unwrap_or(segment.base));
        Ok(Active { file, base: segment.base, bytes: segment.bytes })
    }

    /// Shows a durable group to readers and answers its appenders.
    fn publish(&self, first: u64, group: Vec<Waiting>) {
        let partition = &self.partition;
        let bytes: u64 = group.iter().map(|waiting| waiting.frame.len() as u64).sum();
        let ticked_ns = group.iter().rev().find_map(|waiting| match &*waiting.record {
            LogRecord::Tick(time) => Some(time.0),
            _ => None,
        });
        partition.with_segments(|segments| {
            segments.grow(bytes);
            segments.ticked_ns = ticked_ns.unwrap_or(segments.ticked_ns).max(segments.ticked_ns);
        });
        // What is kept is the record, not its bytes.
        let records = group.iter().map(|waiting| (waiting.record.clone(), waiting.record.memory_bytes()));
        partition.tail.extend(first, records, partition.options.tail_bytes_max);
        partition.stats.commits.add(1);
        partition.stats.appended_records.add(group.len() as u64);
        partition.stats.appended_bytes.add(bytes);
        for (position, waiting) in (first..).zip(group) {
            partition.answer(waiting, Ok(Position(position)));
        }
        if let (Some(_), Some(age_max_ns)) = (ticked_ns, partition.options.age_max_ns) {
            partition.delete(|segments| segments.pop_expired(age_max_ns));
        }
    }
}

fn append_all(file: &mut dyn SegmentFile, group: &[Waiting]) -> io::Result<()> {
    for part in group.chunks(BUFFERS_MAX) {
        let mut buffers: Vec<IoSlice<'_>> = part.iter().map(|waiting| IoSlice::new(&waiting.frame)).collect();
        let mut rest = &mut buffers[..];
        while !rest.is_empty() {
            match file.append(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn disk_error(what: &str, path: &std::path::Path, error: &io::Error) -> AppendError {
    AppendError::Disk { kind: error.kind(), why: why(what, path, error) }
}
