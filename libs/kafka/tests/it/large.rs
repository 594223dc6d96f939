//! What is larger than a message comes back whole.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use headroom_kafka::{KafkaCheckpointStore, KafkaSampleLog, KafkaSnapshotLog, Layout, SampleLogLimits};
use headroom_log::contract::{self, samples};
use headroom_log::{AppendError, CheckpointStore, Position, Published, SampleLog, SnapshotLog, SnapshotRecord};
use headroom_model::LogRecord;

use crate::broker::{connection, layout};

/// Messages of 64 KiB.
fn small() -> Layout {
    Layout { message_bytes_max: 64 << 10, ..layout(1) }
}

/// Bytes that compress badly and differ from place to place.
fn noise(length: usize) -> Bytes {
    (0..length as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_batch_is_split_and_a_large_policy_refused() {
    let Some(connection) = connection("a_large_batch_is_split_and_a_large_policy_refused") else { return };
    let log = KafkaSampleLog::open(&connection, &small(), SampleLogLimits::default()).unwrap();
    let last = log.append(0, samples(1, 20_000)).await.unwrap();
    assert_eq!(log.end(0), last.next());
    let read = contract::read_all(&log, 0, Position(0)).await;
    assert!(read.len() > 1);
    let times: Vec<i64> = read
        .iter()
        .flat_map(|(_, record)| match &**record {
            LogRecord::Samples(batch) => batch.points.time_ns.to_vec(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(times, (0..20_000).collect::<Vec<_>>());
    let policy = Arc::new(LogRecord::Policy("x".repeat(70_000).into()));
    let refused = log.append(0, policy).await;
    assert!(matches!(refused, Err(AppendError::TooLarge { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_under_way_is_refused_but_ticks_have_a_reserve() {
    let Some(connection) = connection("too_much_under_way_is_refused_but_ticks_have_a_reserve") else { return };
    let limits = SampleLogLimits { pending_bytes_max: 50_000, ..SampleLogLimits::default() };
    let log = KafkaSampleLog::open(&connection, &layout(1), limits).unwrap();
    let refused = log.append(0, samples(1, 10_000)).await;
    assert!(matches!(refused, Err(AppendError::Overloaded { bound_bytes: 50_000, .. })), "{refused:?}");
    let under_way: Vec<_> = (0..100).map(|mark| log.append(0, samples(mark, 1000))).collect();
    let ticked = log.append(0, contract::tick(10)).await;
    assert!(ticked.is_ok(), "{ticked:?}");
    let mut refused = 0;
    for append in under_way {
        refused += usize::from(matches!(append.await, Err(AppendError::Overloaded { .. })));
    }
    assert!(refused > 0, "nothing was refused");
    assert!(log.append(0, samples(1, 1000)).await.is_ok(), "it has room again");
    assert_eq!(log.stats(0).unwrap().refused_overloaded.get(), refused as u64 + 1);
}

#[test]
fn a_large_snapshot_is_whole_and_leaves_nothing_when_it_shrinks() {
    let Some(connection) = connection("a_large_snapshot_is_whole_and_leaves_nothing_when_it_shrinks") else { return };
    let layout = small();
    let cell: Arc<str> = "eu-1".into();
    let log = KafkaSnapshotLog::open(&connection, &layout, 10).unwrap();
    log.claim(0).unwrap();
    for (epoch, length) in [(10, 1_000_000), (20, 10), (30, 300_000), (40, 0)] {
        let record = SnapshotRecord { epoch, header: Bytes::from_static(b"header"), content: noise(length) };
        assert_eq!(log.publish(&cell, record.clone()), Ok(Published::Newest));
        let deadline = Instant::now() + contract::PATIENCE;
        while log.latest(&cell) != Some(record.clone()) {
            assert!(Instant::now() < deadline, "{epoch} is not read");
            std::thread::sleep(Duration::from_millis(10));
        }
        // Somebody who comes later reads the same, whatever is left of the others.
        let later = KafkaSnapshotLog::open(&connection, &layout, 10).unwrap();
        assert_eq!(later.latest(&cell), Some(record));
    }
    assert_eq!(log.unreadable(), 0);
}

#[test]
fn large_checkpoints_of_any_order_of_size() {
    let Some(connection) = connection("large_checkpoints_of_any_order_of_size") else { return };
    let layout = small();
    let store = KafkaCheckpointStore::open(&connection, &layout).unwrap();
    store.claim(0).unwrap();
    for (position, length) in [(1, 3_000_000), (2, 10), (3, 400_000), (4, 0), (5, 5_000_000)] {
        let bytes = noise(length);
        contract::put(&store, 0, position, &bytes);
        assert_eq!(store.newest(0), Ok(Some((Position(position), bytes.clone()))));
        let later = KafkaCheckpointStore::open(&connection, &layout).unwrap();
        assert_eq!(later.newest(0), Ok(Some((Position(position), bytes))));
        assert_eq!((store.damaged(), later.damaged()), (0, 0));
    }
}
