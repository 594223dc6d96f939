//! Numbers that other crates keep, brought under the catalogue's names when somebody reads the metrics; and what the
//! time is where no clock is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use headroom_aggregator::Status;
use headroom_log::disk::DiskSnapshotLog;
use headroom_log::{CheckpointStore, SampleLog};
use headroom_model::Timestamp;
use headroom_read_model::ReadModel;
use headroom_telemetry::{Readiness, Telemetry, catalog};

use crate::clock;

/// Publishes what the sample log and the snapshot log count.
pub(crate) fn log_stats(telemetry: &Telemetry, log: &Arc<dyn SampleLog>, snapshots: Option<&Arc<DiskSnapshotLog>>) {
    // Weak, or the hook would keep the data directory open after the service has stopped.
    let (log, snapshots) = (Arc::downgrade(log), snapshots.map(Arc::downgrade));
    telemetry.on_collect(move |telemetry| {
        let Some(log) = log.upgrade() else { return };
        for partition in 0..log.partitions() {
            let Some(stats) = log.stats(partition) else { continue };
            let number = partition.to_string();
            for (def, value) in [
                (&catalog::LOG_RECORDS, stats.appended_records.get()),
                (&catalog::LOG_BYTES, stats.appended_bytes.get()),
                (&catalog::LOG_COMMITS, stats.commits.get()),
                (&catalog::LOG_COMMIT_TIME, stats.commit_ns.get()),
                (&catalog::LOG_CUT, stats.cut_bytes.get()),
                (&catalog::LOG_DAMAGED, stats.damaged_records.get()),
                (&catalog::LOG_SEGMENTS_REMOVED, stats.segments_removed.get()),
            ] {
                telemetry.counter(def, [&number]).set_total(value);
            }
            for (def, value) in [
                (&catalog::LOG_PENDING, stats.pending_bytes.get()),
                (&catalog::LOG_SEGMENTS, stats.segments.get()),
                (&catalog::LOG_DISK, stats.held_bytes.get()),
                (&catalog::LOG_TAIL, stats.tail_bytes.get()),
            ] {
                telemetry.gauge(def, [&number]).set(value as f64);
            }
            for (reason, value) in [
                ("full", stats.refused_full.get()),
                ("overloaded", stats.refused_overloaded.get()),
                ("behind", stats.refused_behind.get()),
                ("disk", stats.refused_disk.get()),
                ("too_large", stats.refused_too_large.get()),
            ] {
                telemetry.counter(&catalog::LOG_REFUSED, [&number, reason]).set_total(value);
            }
            for (outcome, value) in [("hit", stats.tail_hits.get()), ("miss", stats.tail_misses.get())] {
                telemetry.counter(&catalog::LOG_TAIL_READS, [&number, outcome]).set_total(value);
            }
        }
        let Some(snapshots) = snapshots.as_ref().and_then(std::sync::Weak::upgrade) else { return };
        let stats = snapshots.stats();
        for (outcome, value) in
            [("written", stats.written.get()), ("failed", stats.failed.get()), ("damaged", stats.damaged.get())]
        {
            telemetry.counter(&catalog::SNAPSHOT_WRITES, [outcome]).set_total(value);
        }
    });
}

/// Says beside the readiness of the log when it is full: then samples are refused, and what is there can still be read.
pub(crate) fn log_remark(readiness: &Readiness, log: &Arc<dyn SampleLog>) {
    let log = Arc::downgrade(log);
    readiness.remark("log", move || {
        let log = log.upgrade()?;
        let is_full = |partition: &u32| log.stats(*partition).is_some_and(|stats| stats.full.get() > 0);
        let full: Vec<String> = (0..log.partitions()).filter(is_full).map(|partition| partition.to_string()).collect();
        (!full.is_empty())
            .then(|| format!("open, but full (log.bytes_max) and refusing samples in partition {}", full.join(", ")))
    });
}

/// Publishes what the store of checkpoints counts.
pub(crate) fn checkpoint_stats(telemetry: &Telemetry, checkpoints: &Arc<dyn CheckpointStore>) {
    let checkpoints = Arc::downgrade(checkpoints);
    telemetry.on_collect(move |telemetry| {
        if let Some(checkpoints) = checkpoints.upgrade() {
            telemetry.counter(&catalog::CHECKPOINT_DAMAGED, []).set_total(checkpoints.damaged());
        }
    });
}

/// How often the brokers are asked where the log ends.
const ASK: Duration = Duration::from_secs(1);

/// Publishes how far the engines are behind the log. Whoever waits for them reads this, so it is of the moment that it
/// is asked for, not of the last tick; where brokers must be asked for it, of a second ago, for they may take long to
/// answer and metrics must not wait for them.
pub(crate) fn lag(telemetry: &Telemetry, log: &Arc<dyn SampleLog>, status: &Arc<Status>, is_remote: bool) {
    let (log, status) = (Arc::downgrade(log), Arc::downgrade(status));
    let mut asked: Option<Arc<Vec<AtomicU64>>> = None;
    if is_remote && let Some(partitions) = log.upgrade().map(|log| log.partitions()) {
        let ends: Arc<Vec<AtomicU64>> = Arc::new((0..partitions).map(|_| AtomicU64::new(0)).collect());
        asked = Some(ends.clone());
        let (log, status) = (log.clone(), status.clone());
        let asking = std::thread::Builder::new().name("log-ends".to_owned()).spawn(move || {
            while let (Some(log), Some(status)) = (log.upgrade(), status.upgrade()) {
                for (partition, end) in (0..).zip(&*ends).filter(|(partition, _)| status.progress(*partition).owned) {
                    end.store(log.end(partition).0, Ordering::Relaxed);
                }
                drop((log, status));
                std::thread::sleep(ASK);
            }
        });
        if let Err(error) = asking {
            tracing::error!(%error, "no thread that asks where the log ends; headroom_engine_lag_records says nothing");
        }
    }
    telemetry.on_collect(move |telemetry| {
        let (Some(log), Some(status)) = (log.upgrade(), status.upgrade()) else { return };
        for partition in 0..log.partitions() {
            let progress = status.progress(partition);
            let end = || match &asked {
                Some(ends) => ends[partition as usize].load(Ordering::Relaxed),
                None => log.end(partition).0,
            };
            let behind = if progress.owned { end().saturating_sub(progress.position.0) } else { 0 };
            telemetry.gauge(&catalog::ENGINE_LAG, [&partition.to_string()]).set(behind as f64);
        }
    });
}

/// Publishes how old the snapshots are. In event time no age can be told from inside.
pub(crate) fn ages(telemetry: &Telemetry, read_model: &Arc<ReadModel>, event_time: bool) {
    if event_time {
        return;
    }
    let read_model = Arc::downgrade(read_model);
    telemetry.on_collect(move |telemetry| {
        let Some(read_model) = read_model.upgrade() else { return };
        let now = clock::now();
        let cells = read_model.cells();
        let ages = cells.iter().map(|(cell, view)| {
            let age = Duration::from_nanos(now.0.saturating_sub(Timestamp::from_seconds(view.epoch()).0).max(0) as u64);
            ([&**cell], age.as_secs_f64())
        });
        // All of them: a cell that was let go has no age.
        telemetry.replace(&catalog::ENGINE_SNAPSHOT_AGE, &[], ages);
    });
}

/// The time in event time: the newest tick that any engine or any reader knows of.
pub(crate) fn event_now(status: &Status, read_model: &ReadModel) -> Timestamp {
    let published = read_model.cells().values().map(|view| Timestamp::from_seconds(view.epoch())).max();
    status.last_tick().max(published).unwrap_or_default()
}
