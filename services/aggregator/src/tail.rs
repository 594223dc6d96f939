//! Reads a partition on, whatever its log says: damage is told (the log counts it), a log that was cut or cannot be read now is
//! opened again. What is left for the reader is a record, nothing yet, or the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use headroom_log::{LogReader, Position, ReadError, SampleLog};
use headroom_model::LogRecord;

/// How long a thread waits for a record before it looks whether it should stop.
pub(crate) const WAIT: Duration = Duration::from_millis(100);

/// How long a thread rests after the log could not be read.
pub(crate) const REST: Duration = Duration::from_millis(500);

/// Rests; whether to go on.
pub(crate) fn rest(stop: &AtomicBool, time: Duration) -> bool {
    let until = Instant::now() + time;
    while Instant::now() < until && !stop.load(Ordering::Relaxed) {
        std::thread::sleep(WAIT.min(until.saturating_duration_since(Instant::now())));
    }
    !stop.load(Ordering::Relaxed)
}

/// What comes next.
pub(crate) enum Next {
    /// A record at its position.
    Record(Position, Arc<LogRecord>),
    /// Nothing yet; ask again.
    Nothing,
    /// Nothing ever: the log was closed, or the owner is to stop.
    End,
}

/// A place in a partition of the log.
pub(crate) struct Tail<'a> {
    log: &'a dyn SampleLog,
    partition: u32,
    stop: &'a AtomicBool,
    reader: Box<dyn LogReader>,
    /// Everything before this was read, or is gone.
    pub(crate) position: Position,
}

impl<'a> Tail<'a> {
    /// Begins at `position`, or where the log still is. `None` if the owner is to stop first.
    pub(crate) fn open(
        log: &'a dyn SampleLog,
        partition: u32,
        position: Position,
        stop: &'a AtomicBool,
    ) -> Option<Self> {
        let (reader, position) = open(log, partition, position, stop)?;
        Some(Self { log, partition, stop, reader, position })
    }

    /// The next record if it is there.
    pub(crate) fn try_next(&mut self) -> Next {
        let next = self.reader.try_next();
        self.sort(next)
    }

    /// The next record; waits a little for it.
    pub(crate) fn wait(&mut self) -> Next {
        let next = self.reader.next_blocking(WAIT);
        self.sort(next)
    }

    fn sort(&mut self, next: Result<Option<(Position, Arc<LogRecord>)>, ReadError>) -> Next {
        let partition = self.partition;
        match next {
            Ok(Some((at, record))) => {
                self.position = at.next();
                return Next::Record(at, record);
            }
            Ok(None) => {}
            Err(ReadError::Damaged { from, to }) => {
                tracing::error!(partition, %from, %to, "records of the log are damaged and were skipped");
            }
            Err(ReadError::Unreadable { position, why }) => {
                tracing::error!(partition, %position, %why, "a record of the log cannot be understood");
            }
            Err(ReadError::Truncated { .. } | ReadError::BeyondEnd { .. }) => {
                let Some(again) = open(self.log, partition, self.position, self.stop) else { return Next::End };
                (self.reader, self.position) = again;
            }
            Err(ReadError::Closed) => return Next::End,
            Err(error) => {
                tracing::error!(partition, %error, "the log cannot be read; trying again");
                rest(self.stop, REST);
            }
        }
        if self.stop.load(Ordering::Relaxed) { Next::End } else { Next::Nothing }
    }
}

fn open(
    log: &dyn SampleLog,
    partition: u32,
    mut position: Position,
    stop: &AtomicBool,
) -> Option<(Box<dyn LogReader>, Position)> {
    while !stop.load(Ordering::Relaxed) {
        match log.reader(partition, position) {
            Ok(reader) => return Some((reader, position)),
            Err(ReadError::Truncated { wanted, oldest }) => {
                tracing::error!(
                    partition, %wanted, %oldest,
                    "the log no longer reaches back to where the engine stood; windows fill anew"
                );
                lost(log, partition, oldest.0.saturating_sub(wanted.0));
                position = oldest;
            }
            Err(ReadError::BeyondEnd { wanted, end }) => {
                tracing::error!(
                    partition, %wanted, %end,
                    "the checkpoint knows records that the log has lost; going on at its end"
                );
                lost(log, partition, wanted.0.saturating_sub(end.0));
                position = end;
            }
            Err(error @ (ReadError::NoSuchPartition { .. } | ReadError::Closed)) => {
                tracing::error!(partition, %error, "the partition cannot be read");
                return None;
            }
            Err(error) => {
                tracing::error!(partition, %error, "the partition cannot be read; trying again");
                rest(stop, REST);
            }
        }
    }
    None
}

/// Counts what a log no longer has, beside what its readers find damaged.
fn lost(log: &dyn SampleLog, partition: u32, records: u64) {
    if let Some(stats) = log.stats(partition) {
        stats.damaged_records.add(records);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headroom_log::memory::MemorySampleLog;
    use headroom_model::Timestamp;

    #[test]
    fn what_the_log_has_lost_is_counted() {
        let log = MemorySampleLog::new(1, 1 << 20);
        for second in 0..5 {
            log.append(0, Arc::new(LogRecord::Tick(Timestamp::from_seconds(second)))).wait_blocking().unwrap();
        }
        log.set_retention_floor(0, Position(3));
        assert_eq!(log.truncate_before(0, Position(3)), Position(3));
        let stop = AtomicBool::new(false);
        let lost = || log.stats(0).unwrap().damaged_records.get();
        let tail = Tail::open(&log, 0, Position(1), &stop).unwrap();
        assert_eq!((tail.position, lost()), (Position(3), 2));
        let tail = Tail::open(&log, 0, Position(9), &stop).unwrap();
        assert_eq!((tail.position, lost()), (Position(5), 6));
    }
}
