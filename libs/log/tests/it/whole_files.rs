//! Snapshots and checkpoints on a disk that damages or refuses them.

use std::fs;
use std::sync::Arc;

use headroom_log::contract::{newest, put, snapshot};
use headroom_log::disk::{DiskCheckpointStore, DiskSnapshotLog};
use headroom_log::{CheckpointError, CheckpointStore, Position, PublishError, Published, SnapshotLog};

use crate::support::{TempDir, files};

#[test]
fn a_damaged_snapshot_costs_its_cell_until_the_next_tick_and_no_other() {
    let dir = TempDir::new();
    let log = DiskSnapshotLog::open(&dir.open(), 10).unwrap();
    for cell in ["a", "b"] {
        assert_eq!(log.publish(&cell.into(), snapshot(10, "x")), Ok(Published::Newest));
    }
    drop(log);
    let file = dir.path().join("snapshots/a.snap");
    let intact = fs::read(&file).unwrap();
    for at in 0..intact.len() {
        let mut damaged = intact.clone();
        damaged[at] ^= 0x20;
        fs::write(&file, damaged).unwrap();
        let log = DiskSnapshotLog::open(&dir.open(), 10).unwrap();
        assert_eq!((log.latest("a"), log.latest("b")), (None, Some(snapshot(10, "x"))), "byte {at}");
        assert_eq!(log.stats().damaged.get(), 1);
    }
    let log = DiskSnapshotLog::open(&dir.open(), 10).unwrap();
    log.publish(&"a".into(), snapshot(5, "y")).unwrap();
    drop(log);
    assert_eq!(DiskSnapshotLog::open(&dir.open(), 10).unwrap().latest("a"), Some(snapshot(5, "y")));
}

#[test]
fn a_crash_while_a_snapshot_is_written_leaves_the_one_before() {
    let dir = TempDir::new();
    for epoch in [10, 20, 30] {
        let log = DiskSnapshotLog::open(&dir.open(), 10).unwrap();
        log.publish(&"a".into(), snapshot(epoch, "x")).unwrap();
    }
    let held = files(&dir.path().join("snapshots"));
    assert_eq!(held.len(), 2);
    for (torn, left) in [("a.snap", 20), ("a.2.snap", 30)] {
        let file = dir.path().join("snapshots").join(torn);
        let intact = fs::read(&file).unwrap();
        fs::write(&file, &intact[..intact.len() - 1]).unwrap();
        let log = DiskSnapshotLog::open(&dir.open(), 10).unwrap();
        assert_eq!((log.latest("a"), log.stats().damaged.get()), (Some(snapshot(left, "x")), 1));
        drop(log);
        fs::write(&file, intact).unwrap();
    }
}

#[test]
fn cells_are_bounded_and_those_that_are_there_go_on() {
    let dir = TempDir::new();
    let log = DiskSnapshotLog::open(&dir.open(), 1).unwrap();
    assert_eq!(log.publish(&"a".into(), snapshot(10, "x")), Ok(Published::Newest));
    assert_eq!(log.publish(&"b".into(), snapshot(10, "x")), Err(PublishError::TooManyCells { bound: 1 }));
    assert_eq!(log.publish(&"a".into(), snapshot(20, "x")), Ok(Published::Newest));
}

/// The writer fails because a directory is in the way of its file, and succeeds once that is gone.
#[test]
fn a_snapshot_that_cannot_be_written_is_visible_and_written_later() {
    let dir = TempDir::new();
    let log = DiskSnapshotLog::open(&dir.open(), 10).unwrap();
    let obstacle = dir.path().join("snapshots/a.snap");
    fs::create_dir(&obstacle).unwrap();
    log.publish(&"a".into(), snapshot(10, "x")).unwrap();
    assert_eq!(log.latest("a"), Some(snapshot(10, "x")));
    while log.stats().failed.get() == 0 {
        std::thread::yield_now();
    }
    assert_eq!(log.stats().written.get(), 0);
    fs::remove_dir(&obstacle).unwrap();
    log.publish(&"a".into(), snapshot(20, "x")).unwrap();
    drop(log);
    assert_eq!(DiskSnapshotLog::open(&dir.open(), 10).unwrap().latest("a"), Some(snapshot(20, "x")));
}

#[test]
fn a_checkpoint_that_cannot_be_written_leaves_those_before() {
    let dir = TempDir::new();
    let store = DiskCheckpointStore::open(&dir.open()).unwrap();
    put(&store, 0, 10, b"ten");
    fs::create_dir(dir.path().join("checkpoints/0/spare.tmp")).unwrap();
    assert!(matches!(store.put(0, Position(20), b"twenty"), Err(CheckpointError::Disk { .. })));
    assert_eq!(newest(&store, 0), Some((10, b"ten".to_vec())));
}

#[test]
fn with_both_generations_damaged_there_is_none_and_both_are_counted() {
    let dir = TempDir::new();
    let store: Arc<dyn CheckpointStore> = Arc::new(DiskCheckpointStore::open(&dir.open()).unwrap());
    put(&*store, 0, 10, b"ten");
    put(&*store, 0, 20, b"twenty");
    for file in files(&dir.path().join("checkpoints/0")) {
        fs::write(file, b"").unwrap();
    }
    assert_eq!((newest(&*store, 0), store.damaged(), store.floor(0)), (None, 2, None));
    put(&*store, 0, 5, b"five");
    assert_eq!(newest(&*store, 0), Some((5, b"five".to_vec())));
    assert_eq!(files(&dir.path().join("checkpoints/0")).len(), 1, "the damaged ones are gone");
}
