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
