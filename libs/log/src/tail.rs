//! The end of a partition: the most recent records as they were appended, and where readers sleep.
//!
//! A reader that keeps up gets the very `Arc` that ingest appended, so that a batch is decoded once in its life (from
//! the wire) and not again from disk. The memory log is this and nothing else. Only durable records come in here, so a
//! reader never sees what a crash could take back.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use headroom_model::LogRecord;
use tokio::sync::watch;

use crate::stats::LogStats;
use crate::sync::lock;

pub(crate) struct Tail {
    state: Mutex<State>,
    grown: Condvar,
    /// Counts changes, for readers on a runtime.
    changes: watch::Sender<u64>,
    stats: Arc<LogStats>,
}

struct State {
    /// Oldest position that the log can give.
    oldest: u64,
    /// Position of `records[0]`; equal to `end` if there are none.
    first: u64,
    /// Position after the last durable record.
    end: u64,
    /// Where the next record goes if that is beyond `end`.
    floor: u64,
    records: VecDeque<(Arc<LogRecord>, u64)>,
    bytes: u64,
    closed: bool,
}

/// What the tail knows about a position.
pub(crate) enum Found {
    Record(Arc<LogRecord>),
    /// Before the end, but not in memory.
    OnDisk,
    NotYet,
    Truncated(u64),
    Closed,
}

impl Tail {
    pub(crate) fn new(oldest: u64, end: u64, stats: Arc<LogStats>) -> Self {
        Self {
            state: Mutex::new(State {
                oldest,
                first: end,
                end,
                floor: 0,
                records: VecDeque::new(),
                bytes: 0,
                closed: false,
            }),
            grown: Condvar::new(),
            changes: watch::Sender::new(0),
            stats,
        }
    }

    pub(crate) fn oldest(&self) -> u64 {
        lock(&self.state).oldest
    }

    pub(crate) fn end(&self) -> u64 {
        lock(&self.state).end
    }

    /// Bytes from `position` to the end: exact within what is held, by the mean of that before it.
    pub(crate) fn bytes_since(&self, position: u64) -> u64 {
        let state = lock(&self.state);
        let held = state.records.len() as u64;
        let since = state.end.saturating_sub(position);
        if since <= held {
            return state.records.iter().rev().take(since as usize).map(|(_, bytes)| bytes).sum();
        }
        (state.bytes / held.max(1)).saturating_mul(since)
    }

    /// The furthest position at which a reader may start.
    pub(crate) fn start_max(&self) -> u64 {
        let state = lock(&self.state);
        state.end.max(state.floor)
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(crate) fn find(&self, position: u64) -> Found {
        lock(&self.state).find(position)
    }

    /// As [`Self::find`], but sleeps up to `timeout` while the answer is [`Found::NotYet`].
    pub(crate) fn find_blocking(&self, position: u64, timeout: Duration) -> Found {
        let state = lock(&self.state);
        let (state, _) = self
            .grown
            .wait_timeout_while(state, timeout, |state| matches!(state.find(position), Found::NotYet))
            .unwrap_or_else(PoisonError::into_inner);
        state.find(position)
    }

    /// Takes in records that have become durable at `first` and the positions after it, and forgets older ones until
    /// no more than `bytes_max` are held.
    pub(crate) fn extend(&self, first: u64, records: impl Iterator<Item = (Arc<LogRecord>, u64)>, bytes_max: u64) {
        let mut state = lock(&self.state);
        if first != state.end {
            // A gap: what is held before it no longer has positions that follow from `first`.
            state.records.clear();
            state.bytes = 0;
            state.first = first;
            if state.oldest == state.end {
                state.oldest = first;
            }
            state.end = first;
        }
        for (record, bytes) in records {
            state.records.push_back((record, bytes));
            state.bytes += bytes;
            state.end += 1;
        }
        while state.bytes > bytes_max {
            state.forget_first();
        }
        self.stats.tail_bytes.set(state.bytes);
        drop(state);
        self.wake();
    }

    /// Forgets the first record for good, and returns its bytes and the oldest position left.
    pub(crate) fn delete_first(&self) -> Option<(u64, u64)> {
        let mut state = lock(&self.state);
        let bytes = state.forget_first()?;
        state.oldest = state.first;
        self.stats.tail_bytes.set(state.bytes);
        Some((bytes, state.oldest))
    }

    /// Says that nothing before `oldest` can be read any more.
    pub(crate) fn set_oldest(&self, oldest: u64) {
        let mut state = lock(&self.state);
        state.oldest = state.oldest.max(oldest);
        while state.first < state.oldest && state.forget_first().is_some() {}
        self.stats.tail_bytes.set(state.bytes);
    }

    /// Lets go of what was read for good: whoever still wants it reads the disk. Memory that was written a moment ago goes
    /// back to who writes next, while it is still near.
    pub(crate) fn let_go_before(&self, position: u64) {
        let mut state = lock(&self.state);
        while state.first < position && state.forget_first().is_some() {}
        self.stats.tail_bytes.set(state.bytes);
    }

    pub(crate) fn raise_floor(&self, floor: u64) {
        let mut state = lock(&self.state);
        state.floor = state.floor.max(floor);
    }

    pub(crate) fn close(&self) {
        lock(&self.state).closed = true;
        self.wake();
    }

    fn wake(&self) {
        self.grown.notify_all();
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }
}

impl State {
    fn find(&self, position: u64) -> Found {
        if position < self.oldest {
            return Found::Truncated(self.oldest);
        }
        if position >= self.end {
            return if self.closed { Found::Closed } else { Found::NotYet };
        }
        let held = position.checked_sub(self.first).and_then(|index| self.records.get(index as usize));
        held.map_or(Found::OnDisk, |(record, _)| Found::Record(record.clone()))
    }

    fn forget_first(&mut self) -> Option<u64> {
        let (_, bytes) = self.records.pop_front()?;
        self.bytes -= bytes;
        self.first += 1;
        Some(bytes)
    }
}
