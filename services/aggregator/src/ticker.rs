//! The wall clock's only way into the engines: a tick appended to every partition at every boundary.

use std::sync::Arc;
use std::time::Duration;

use headroom_log::SampleLog;
use headroom_model::{LogRecord, Timestamp};
use tokio::sync::watch;

/// What time it is. The one real implementation lies in the executable.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Appends ticks until `shutdown` turns true. A tick that the log does not take is not made up for: the snapshot then
/// is stale, and says so, and the next boundary is tried again.
pub async fn run(log: Arc<dyn SampleLog>, now: Now, tick_seconds: i64, mut shutdown: watch::Receiver<bool>) {
    loop {
        let boundary = now().floor_to(tick_seconds).plus_seconds(tick_seconds);
        loop {
            let left_ns = boundary.0.saturating_sub(now().0);
            if left_ns <= 0 {
                break;
            }
            // The wall clock may be set while we sleep; looking again every second bounds how wrong that can make us.
            let nap = Duration::from_nanos(left_ns.unsigned_abs()).min(Duration::from_secs(1));
            tokio::select! {
                () = tokio::time::sleep(nap) => {}
                _ = shutdown.wait_for(|stop| *stop) => return,
            }
        }
        // The clock may have jumped over several boundaries: the newest is the one that counts.
        let tick = now().floor_to(tick_seconds).max(boundary);
        let appends: Vec<_> =
            (0..log.partitions()).map(|partition| log.append(partition, Arc::new(LogRecord::Tick(tick)))).collect();
        for append in appends {
            if let Err(error) = append.await {
                tracing::error!(%error, epoch = tick.seconds(), "a tick was not appended; snapshots go stale");
            }
        }
    }
}
