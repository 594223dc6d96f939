//! How what the engines publish comes to the readers of this process.
//!
//! In the embedded service engines hand their snapshots over ([`engines`](crate::engines)), and only what an earlier run
//! published is read here. On a cluster every reader follows the snapshot topic, also in the process whose engine wrote
//! it: so all replicas answer the same, and what is readable is safe.

use std::sync::Arc;

use headroom_aggregator::Status;
use headroom_kafka::{KafkaControl, KafkaSnapshotLog};
use headroom_log::{SnapshotLog, SnapshotRecord};
use headroom_model::policy::Mode;
use headroom_model::{CellSnapshot, LogRecord};
use headroom_read_model::ReadModel;

use crate::backend::Ports;
use crate::engines::Engines;

/// Fills the read model with what was published last, and keeps it up on a cluster, if anybody `reads` here. Answers
/// where the engines' status is told.
pub(crate) fn start(ports: &Ports, engines: Option<&Engines>, read_model: &Arc<ReadModel>, reads: bool) -> Arc<Status> {
    if let Some(snapshots) = ports.snapshots.as_ref().filter(|_| reads) {
        for cell in snapshots.cells() {
            if let Some(record) = snapshots.latest(&cell)
                && let Err(error) = read_model.restore(&record.content)
            {
                tracing::error!(cell = &*cell, %error, "the last snapshot cannot be read; the cell is unknown until its engine ticks");
            }
        }
    }
    let remote = || Arc::new(Status::remote(ports.log.partitions()));
    match (&ports.kafka, engines) {
        (Some(kafka), _) => {
            let status = remote();
            if let Some(log) = kafka.snapshots.as_ref().filter(|_| reads) {
                // Before anybody can ask: a switch that was thrown is in force from the first answer on.
                let obeyed = obey(kafka.control.modes(), -1, read_model);
                tokio::spawn(run(log.clone(), kafka.control.clone(), read_model.clone(), status.clone(), obeyed));
            }
            status
        }
        (None, Some(engines)) => engines.status(),
        (None, None) => remote(),
    }
}

/// Follows for as long as the process runs; where no engine holds the log, this does.
async fn run(
    log: Arc<KafkaSnapshotLog>,
    control: Arc<KafkaControl>,
    read_model: Arc<ReadModel>,
    status: Arc<Status>,
    mut obeyed: i64,
) {
    let (mut snapshots, mut notes) = (log.subscribe(), log.notes());
    let mut modes = control.modes_changed();
    loop {
        // Before the snapshots: an operator who throws the switch does not wait for one.
        modes.borrow_and_update();
        obeyed = obey(control.modes(), obeyed, &read_model);
        let told = tokio::select! {
            changed = modes.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            changes = snapshots.changed() => match changes {
                Some(changes) => {
                    apply(changes, &read_model);
                    continue;
                }
                None => return,
            },
            told = notes.changed() => match told {
                Some(told) => told,
                None => return,
            },
        };
        // A note speaks of the snapshots before it, so those first.
        apply(snapshots.try_changed(), &read_model);
        for (name, note) in told {
            if let Err(error) = status.take_note(&name, &note.content) {
                tracing::error!(name = &*name, %error, "what an owner announces cannot be understood");
            }
        }
    }
}

/// Throws and resets the kill switch as operators have said since `obeyed`; answers up to where that is.
fn obey(modes: Vec<(i64, LogRecord)>, obeyed: i64, read_model: &ReadModel) -> i64 {
    let mut last = obeyed;
    for (place, record) in modes {
        if let LogRecord::Mode { cell, mode, .. } = record
            && place > obeyed
        {
            read_model.kill(cell.as_deref(), mode == Some(Mode::Off));
            last = place;
        }
    }
    last
}

fn apply(changes: Vec<(Arc<str>, SnapshotRecord)>, read_model: &ReadModel) {
    for (cell, record) in changes {
        // Decoding a large cell takes as long as a disk does.
        let decoded = tokio::task::block_in_place(|| {
            CellSnapshot::decode(&record.content).map(|snapshot| read_model.apply(snapshot))
        });
        if let Err(error) = decoded {
            tracing::error!(cell = &*cell, %error, "a snapshot cannot be read; the cell keeps the one before and goes stale");
        }
    }
}
