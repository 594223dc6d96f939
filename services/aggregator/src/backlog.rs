//! What an owner does with the records that came while nobody owned its partition.
//!
//! Decisions are for the present, and whoever has none waits for them. So when nothing was published for longer than a
//! lease, an owner goes on at the end of the log and takes up what lies between beside the present: slice by slice, the
//! newest first, whenever nothing newer waits, and at every tick however much waits. Each slice is asked for by a record of the log, so that whoever reads the
//! log again does the same at the same place; and that the records were passed over is in a durable checkpoint before
//! anything that follows from it is published.
//!
//! The same where an owner falls behind by more than a lease while it lives: whoever fills the log after an outage of
//! its own may well be faster than an engine.
//!
//! Samples and removals are worth taking up. A tick of then would be of no use now, the owner sees to the policy itself,
//! and an ack is no older than a lease. What operators set is not left to the backlog: it is appended anew before the
//! present begins.
//!
//! A checkpoint is all that knows what was passed over. Should the newest be damaged, the one before it leads through the
//! same records in their order: nothing is lost then either, but windows during the outage's end come out otherwise.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use headroom_engine::Partition;
use headroom_log::{Append, Position, SampleLog, SnapshotLog};
use headroom_model::{LogRecord, Timestamp};

use crate::publish;
use crate::tail::{Next, Tail};
use crate::ticker::Now;

/// Fewer records are read at once: passing over them would gain nothing.
const RECORDS_MIN: u64 = 64;

/// Records of the first slice; how many are taken then goes by the time they take.
const SLICE_FIRST: u64 = 64;
const SLICE_MAX: u64 = 1 << 16;

/// What a slice should take: long enough that opening the log for it does not count, short beside a tick.
const SLICE: Range<Duration> = Duration::from_millis(250)..Duration::from_millis(1_000);

/// What an owner needs to notice an outage and to go on after it.
#[derive(Clone)]
pub struct Outages {
    /// The wall clock.
    pub now: Now,
    /// Seconds without a snapshot after which what was decided last is nobody's any more.
    pub after_seconds: i64,
    /// The modes that operators have set, as records.
    pub modes: Arc<dyn Fn() -> Vec<LogRecord> + Send + Sync>,
}

impl Outages {
    /// What is to be passed over in a partition. What operators have set stands behind it when this returns.
    pub(crate) fn passed_over(
        &self,
        partition: u32,
        log: &dyn SampleLog,
        snapshots: &dyn SnapshotLog,
    ) -> Option<Range<u64>> {
        let published = snapshots.cells().into_iter().filter_map(|cell| {
            let record = snapshots.latest(&cell)?;
            let (of, position) = publish::position_of(&record.header)?;
            (of == partition).then_some((record.epoch, position.0))
        });
        let (epoch, from) = published.max()?;
        self.range(partition, log, Timestamp::from_seconds(epoch), Position(from))
    }

    /// What is to be passed over by an owner that has read the log up to `from`, and whose last tick is `tick`.
    pub(crate) fn range(
        &self,
        partition: u32,
        log: &dyn SampleLog,
        tick: Timestamp,
        from: Position,
    ) -> Option<Range<u64>> {
        let silence_seconds = (self.now)().seconds() - tick.seconds();
        if silence_seconds <= self.after_seconds {
            return None;
        }
        let range = from.0..log.end(partition).0;
        if range.end.saturating_sub(range.start) < RECORDS_MIN {
            return None;
        }
        for mode in (self.modes)() {
            if let Err(error) = log.append(partition, Arc::new(mode)).wait_blocking() {
                tracing::warn!(partition, %error, "reading the whole backlog first: the modes could not be set anew");
                return None;
            }
        }
        tracing::warn!(
            partition,
            silence_seconds,
            records = range.end - range.start,
            "the last tick is older than a lease; going on with the present, and taking up the backlog beside it"
        );
        Some(range)
    }
}

/// How an owner takes up what was passed over.
pub(crate) struct Slices {
    records: u64,
    /// The slice that was asked for and has not been read yet; the answer of the log while it is not known.
    asked: Option<(Range<u64>, Option<Append>)>,
}

impl Default for Slices {
    fn default() -> Self {
        Self { records: SLICE_FIRST, asked: None }
    }
}

impl Slices {
    /// Asks for the next slice, if there is one and none is under way. Never waits.
    pub(crate) fn ask(&mut self, partition: u32, engine: &Partition, log: &dyn SampleLog) {
        if let Some((_, answer)) = &mut self.asked
            && let Some(append) = answer
            && let Poll::Ready(outcome) = Pin::new(append).poll(&mut Context::from_waker(Waker::noop()))
        {
            *answer = None;
            if let Err(error) = outcome {
                tracing::debug!(partition, %error, "the backlog waits");
                self.asked = None;
            }
        }
        let Some(backlog) = engine.backlog().filter(|_| self.asked.is_none()) else { return };
        let slice = backlog.end.saturating_sub(self.records).max(backlog.start)..backlog.end;
        let record = LogRecord::Backlog { from: slice.start, to: slice.end };
        self.asked = Some((slice, Some(log.append(partition, Arc::new(record)))));
    }

    /// Notes that a slice was read, and what it took.
    pub(crate) fn taken(&mut self, slice: &Range<u64>, took: Duration) {
        if self.asked.as_ref().map(|(asked, _)| asked) != Some(slice) {
            return;
        }
        self.asked = None;
        if took < SLICE.start {
            self.records = self.records.saturating_mul(2).min(SLICE_MAX);
        } else if took > SLICE.end {
            self.records = (self.records / 2).max(1);
        }
    }
}

/// Lets the samples of a slice take effect. Whether it was read to its end.
pub(crate) fn take_up(engine: &mut Partition, slice: &Range<u64>, mut tail: Tail<'_>) -> bool {
    while tail.position.0 < slice.end {
        match tail.wait() {
            Next::Record(at, _) if at.0 >= slice.end => break,
            Next::Record(_, record) => match &*record {
                LogRecord::Samples(batch) | LogRecord::Overdue(batch) => engine.handle_backlog(batch),
                LogRecord::Remove { cell, server, .. } => engine.handle_backlog_remove(cell, server),
                _ => {}
            },
            Next::Nothing => {}
            Next::End => return false,
        }
    }
    engine.backlog_taken(slice);
    true
}
