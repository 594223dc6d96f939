//! Kafka passes the contract that memory and disk pass.

use std::sync::Arc;

use headroom_kafka::{KafkaCheckpointStore, KafkaSampleLog, KafkaSnapshotLog, Layout, SampleLogLimits};
use headroom_log::contract;
use headroom_log::{CheckpointStore, SnapshotLog};

use crate::broker::{connection, layout};

#[tokio::test(flavor = "multi_thread")]
async fn sample_log() {
    let Some(connection) = connection("sample_log") else { return };
    let open =
        |layout: &Layout| Arc::new(KafkaSampleLog::open(&connection, layout, SampleLogLimits::default()).unwrap());
    contract::sample_log_suite(|| open(&layout(2))).await;
    let layout = layout(2);
    contract::a_log_survives_being_closed(|| open(&layout)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_log() {
    let Some(connection) = connection("snapshot_log") else { return };
    let open = |layout: &Layout| {
        let log = KafkaSnapshotLog::open(&connection, layout, 10).unwrap();
        for partition in 0..2 {
            log.claim(partition).unwrap();
        }
        Arc::new(log) as Arc<dyn SnapshotLog>
    };
    contract::snapshot_log_suite(|| open(&layout(2))).await;
    let layout = layout(2);
    contract::snapshots_survive_being_closed(|| open(&layout)).await;
    let layout = crate::broker::layout(2);
    contract::retired_cells_stay_gone(|| open(&layout)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoint_store() {
    let Some(connection) = connection("checkpoint_store") else { return };
    contract::checkpoint_store_suite(|| {
        let store = KafkaCheckpointStore::open(&connection, &layout(2)).unwrap();
        for partition in 0..2 {
            store.claim(partition).unwrap();
        }
        Arc::new(store)
    })
    .await;
}
