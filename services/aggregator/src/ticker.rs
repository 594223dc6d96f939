//! The wall clock's only way into the engines: a tick appended at every boundary to every partition that this process
//! owns.
//!
//! A partition that has just come here gets the present tick at once: how long nobody owned it should show in a gap of
//! ticks, and its servers should not wait for the next boundary on top of it. Ticks do not wait for an engine that still
//! reads a backlog; they lie behind it in the log.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use headroom_log::SampleLog;
use headroom_model::{LogRecord, Timestamp};
use tokio::sync::watch;

/// What time it is. The one real implementation lies in the executable.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The partitions that a process owns, as it changes.
pub type Owned = watch::Receiver<BTreeSet<u32>>;

/// Appends ticks until `shutdown` turns true. A tick that the log does not take is not made up for: the snapshot then
/// is stale, and says so, and the next boundary is tried again.
pub async fn run(
    log: Arc<dyn SampleLog>,
    mut owned: Owned,
    now: Now,
    tick_seconds: i64,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut ticked: BTreeSet<u32> = BTreeSet::new();
    loop {
        let boundary = now().floor_to(tick_seconds).plus_seconds(tick_seconds);
        loop {
            let held = owned.borrow_and_update().clone();
            let new: Vec<u32> = held.difference(&ticked).copied().collect();
            ticked = held;
            append(&*log, new, now().floor_to(tick_seconds));
            let left_ns = boundary.0.saturating_sub(now().0);
            if left_ns <= 0 {
                break;
            }
            // The wall clock may be set while we sleep; looking again every second bounds how wrong that can make us.
            let nap = Duration::from_nanos(left_ns.unsigned_abs()).min(Duration::from_secs(1));
            tokio::select! {
                () = tokio::time::sleep(nap) => {}
                changed = owned.changed() => if changed.is_err() { return },
                _ = shutdown.wait_for(|stop| *stop) => return,
            }
        }
        // The clock may have jumped over several boundaries: the newest is the one that counts.
        let tick = now().floor_to(tick_seconds).max(boundary);
        append(&*log, ticked.iter().copied(), tick);
    }
}

/// Appends a tick to each. Nobody waits for the answers: the time of one partition must not depend on another's log.
fn append(log: &dyn SampleLog, partitions: impl IntoIterator<Item = u32>, tick: Timestamp) {
    for partition in partitions {
        let append = log.append(partition, Arc::new(LogRecord::Tick(tick)));
        tokio::spawn(async move {
            if let Err(error) = append.await {
                tracing::error!(partition, %error, epoch = tick.seconds(), "a tick was not appended; snapshots go stale");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::sync::{Mutex, PoisonError};

    use headroom_log::memory::MemorySampleLog;
    use headroom_log::stats::LogStats;
    use headroom_log::{Append, AppendTicket, LogReader, Position, ReadError};

    use super::*;

    /// A log whose first partition takes records and never says so.
    struct Slow {
        log: MemorySampleLog,
        taken: Mutex<Vec<(u32, i64)>>,
        unanswered: Mutex<Vec<AppendTicket>>,
        appended: watch::Sender<usize>,
    }

    impl SampleLog for Slow {
        fn partitions(&self) -> u32 {
            self.log.partitions()
        }

        fn append(&self, partition: u32, record: Arc<LogRecord>) -> Append {
            if let LogRecord::Tick(tick) = &*record {
                self.taken.lock().unwrap_or_else(PoisonError::into_inner).push((partition, tick.seconds()));
            }
            self.appended.send_modify(|appended| *appended += 1);
            if partition > 0 {
                return self.log.append(partition, record);
            }
            let (ticket, append) = Append::pending();
            self.unanswered.lock().unwrap_or_else(PoisonError::into_inner).push(ticket);
            append
        }

        fn reader(&self, partition: u32, from: Position) -> Result<Box<dyn LogReader>, ReadError> {
            self.log.reader(partition, from)
        }

        fn oldest(&self, partition: u32) -> Position {
            self.log.oldest(partition)
        }

        fn end(&self, partition: u32) -> Position {
            self.log.end(partition)
        }

        fn set_retention_floor(&self, partition: u32, floor: Position) {
            self.log.set_retention_floor(partition, floor);
        }

        fn truncate_before(&self, partition: u32, before: Position) -> Position {
            self.log.truncate_before(partition, before)
        }

        fn stats(&self, partition: u32) -> Option<Arc<LogStats>> {
            self.log.stats(partition)
        }
    }

    #[tokio::test]
    async fn a_partition_that_is_slow_keeps_no_tick_from_itself_or_another() {
        let log = Arc::new(Slow {
            log: MemorySampleLog::new(2, 1 << 20),
            taken: Mutex::default(),
            unanswered: Mutex::default(),
            appended: watch::Sender::new(0),
        });
        let mut appended = log.appended.subscribe();
        let time = Arc::new(AtomicI64::new(5));
        let clock = time.clone();
        let now: Now = Arc::new(move || Timestamp::from_seconds(clock.load(Ordering::Relaxed)));
        let (owner, owned) = watch::channel(BTreeSet::from([0, 1]));
        let (stop, shutdown) = watch::channel(false);
        let ticker = tokio::spawn(run(log.clone(), owned, now, 10, shutdown));
        // The present tick at once, then one at each boundary.
        for (ticks, seconds) in (1..).zip([5, 10, 20, 30]) {
            time.store(seconds, Ordering::Relaxed);
            // Has the ticker look at the clock now rather than when it has slept.
            owner.send_modify(|_| {});
            let enough = appended.wait_for(|appended| *appended >= 2 * ticks);
            let enough = tokio::time::timeout(Duration::from_secs(30), enough).await.expect("the ticks are appended");
            enough.expect("the log is there");
        }
        stop.send_replace(true);
        ticker.await.expect("it ends when it is told to");
        let taken = log.taken.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let of = |partition| taken.iter().filter(|(of, _)| *of == partition).map(|(_, tick)| *tick).collect::<Vec<_>>();
        assert_eq!((of(0), of(1)), (vec![0, 10, 20, 30], vec![0, 10, 20, 30]));
        assert_eq!(log.end(1), Position(4));
    }
}
