//! Changed decisions as events on a cluster, from each snapshot that was published.
//!
//! What changed is told by the same index that answers `GET /v1/decisions?since=`. The first snapshot after a takeover is
//! held against the one that the former owner published, so that a new owner does not tell everything anew. A thread of
//! its own, and the newest snapshot of each cell: brokers that are slow cost events in between, never a decision.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use headroom_aggregator::SnapshotSink;
use headroom_kafka::DecisionEvents;
use headroom_log::SnapshotLog;
use headroom_model::CellSnapshot;
use headroom_read_model::{Applied, ReadModel};
use headroom_telemetry::{Telemetry, catalog};
use headroom_wire::bulk::RemovedServer;
use headroom_wire::{Reading, RowReader};
use serde::Serialize;

use crate::backend::Kafka;

/// A server that left.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Left<'a> {
    #[serde(flatten)]
    server: RemovedServer<'a>,
    epoch: i64,
    removed: bool,
}

#[derive(Default)]
struct Waiting {
    newest: Mutex<BTreeMap<Arc<str>, Arc<CellSnapshot>>>,
    changed: Condvar,
}

impl Waiting {
    /// What is newest; waits for it, but not for ever, or the thread would never notice that nobody is left to wake it.
    fn take(&self) -> BTreeMap<Arc<str>, Arc<CellSnapshot>> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut newest, _) = self
            .changed
            .wait_timeout_while(newest, Duration::from_secs(1), |newest| newest.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *newest)
    }
}

/// Starts the thread; it ends when the sink is dropped. The sink is to be given every published snapshot.
///
/// # Errors
/// If the topic cannot be opened.
pub(crate) fn start(
    kafka: &Kafka,
    snapshots: Arc<dyn SnapshotLog>,
    telemetry: &Telemetry,
) -> Result<SnapshotSink, String> {
    let events = tokio::task::block_in_place(|| DecisionEvents::open(&kafka.connection, &kafka.layout))?;
    let events = Arc::new(events);
    let counted = Arc::downgrade(&events);
    telemetry.on_collect(move |telemetry| {
        let Some((written, failed)) = counted.upgrade().map(|events| events.counts()) else { return };
        for (outcome, count) in [("written", written), ("failed", failed)] {
            telemetry.counter(&catalog::DECISION_EVENTS, [outcome]).set_total(count);
        }
    });
    let waiting = Arc::new(Waiting::default());
    let worker = Arc::downgrade(&waiting);
    std::thread::Builder::new()
        .name("events".to_owned())
        .spawn(move || {
            let known = ReadModel::new(0);
            loop {
                let Some(waiting) = worker.upgrade() else { return };
                let newest = waiting.take();
                drop(waiting);
                for snapshot in newest.into_values() {
                    tell(&events, &known, &*snapshots, &snapshot);
                }
            }
        })
        .map_err(|error| format!("cannot start a thread: {error}"))?;
    Ok(Arc::new(move |snapshot: &Arc<CellSnapshot>| {
        let mut newest = waiting.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.insert(snapshot.cell.clone(), snapshot.clone());
        drop(newest);
        waiting.changed.notify_one();
    }))
}

/// Tells what changed since the snapshot before.
fn tell(events: &DecisionEvents, known: &ReadModel, snapshots: &dyn SnapshotLog, snapshot: &Arc<CellSnapshot>) {
    let cell = &snapshot.cell;
    let held = known.cell(cell).map(|view| view.epoch());
    // What others have published since we last looked is the better base; our own snapshot may be there already.
    if let Some(record) = snapshots
        .latest(cell)
        .filter(|record| record.epoch < snapshot.epoch && held.is_none_or(|held| record.epoch > held))
        && let Err(error) = known.restore(&record.content)
    {
        tracing::warn!(cell = &**cell, %error, "the snapshot before cannot be read; all decisions are told anew");
    }
    let before = known.cell(cell).map_or(i64::MIN, |view| view.epoch());
    if known.apply(snapshot.clone()) != Applied::Published {
        return;
    }
    // The last snapshot of a cell tells who left with it.
    let Some(view) = known.cell(cell).or_else(|| known.departed().get(cell).cloned()) else { return };
    let reader = RowReader::new(snapshot, Reading::default());
    for row in 0..snapshot.len() {
        for class in 0..snapshot.policy.classes.len() {
            if before == i64::MIN || view.changed_since(class, row as u32, before) {
                send(events, &snapshot.servers.server[row], &reader.decision(class, row));
            }
        }
    }
    if before > i64::MIN {
        for removal in view.removed_since(before) {
            let server = RemovedServer { server: Cow::Borrowed(&removal.server), cell: Cow::Borrowed(cell) };
            send(events, &removal.server, &Left { server, epoch: removal.epoch, removed: true });
        }
    }
}

fn send(events: &DecisionEvents, server: &str, event: &impl Serialize) {
    match serde_json::to_vec(event) {
        Ok(bytes) => events.send(server, &bytes),
        Err(error) => tracing::error!(server, %error, "a decision cannot be written as JSON"),
    }
}
