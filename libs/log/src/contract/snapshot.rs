//! The snapshot log's promises.

use std::sync::Arc;

use bytes::Bytes;

use super::within_patience;
use crate::snapshot_log::{Published, SnapshotLog, SnapshotRecord, Subscription};

/// Runs all promises that every snapshot log makes. `fresh` gives an empty log for at least ten cells.
pub async fn snapshot_log_suite(mut fresh: impl FnMut() -> Arc<dyn SnapshotLog>) {
    the_latest_epoch_wins(fresh()).await;
    a_subscriber_sees_what_was_there_and_what_comes(fresh()).await;
    a_slow_subscriber_skips_to_the_newest(fresh()).await;
    a_retired_cell_is_gone_but_for_its_last_word(fresh()).await;
}

/// A snapshot of an epoch, told apart by `mark`.
pub fn snapshot(epoch: i64, mark: &str) -> SnapshotRecord {
    let content = Bytes::from(format!("content {mark} {epoch}"));
    SnapshotRecord { epoch, header: Bytes::from(format!("header {epoch}")), content }
}

fn publish(log: &dyn SnapshotLog, cell: &str, snapshot: SnapshotRecord) -> Published {
    match log.publish(&cell.into(), snapshot) {
        Ok(published) => published,
        Err(error) => panic!("not published: {error}"),
    }
}

/// Waits until all of these are the newest, in whatever order they become so.
async fn until_all(log: &dyn SnapshotLog, expected: &[(&str, i64)]) {
    let mut subscription = log.subscribe();
    let seen = async {
        while !expected.iter().all(|(cell, epoch)| log.latest(cell).is_some_and(|held| held.epoch == *epoch)) {
            if subscription.changed().await.is_none() {
                panic!("the log is gone");
            }
        }
    };
    within_patience("the snapshots", seen).await;
}

async fn until_latest(subscription: &mut Subscription, cell: &str, epoch: i64) -> SnapshotRecord {
    let seen = async {
        loop {
            let Some(changes) = subscription.changed().await else { panic!("the log is gone") };
            if let Some((_, snapshot)) = changes.into_iter().find(|(c, s)| &**c == cell && s.epoch == epoch) {
                return snapshot;
            }
        }
    };
    within_patience("the snapshot", seen).await
}

/// An epoch that is older or the same never replaces the one there, and its publisher is told.
pub async fn the_latest_epoch_wins(log: Arc<dyn SnapshotLog>) {
    assert_eq!((log.latest("eu-1"), log.cells()), (None, Vec::new()));
    let mut subscription = log.subscribe();
    assert_eq!(publish(&*log, "eu-1", snapshot(20, "first")), Published::Newest);
    assert_eq!(until_latest(&mut subscription, "eu-1", 20).await, snapshot(20, "first"));
    for epoch in [10, 20] {
        let published = publish(&*log, "eu-1", snapshot(epoch, "second"));
        assert_eq!(published, Published::NotNewer { newest: 20 });
        assert_eq!(log.latest("eu-1"), Some(snapshot(20, "first")));
    }
    publish(&*log, "", snapshot(-10, "before 1970"));
    publish(&*log, "eu-1", snapshot(30, "third"));
    assert_eq!(until_latest(&mut subscription, "eu-1", 30).await, snapshot(30, "third"));
    // Cells are ordered each by itself, not among each other.
    until_all(&*log, &[("", -10)]).await;
    assert_eq!(log.latest("eu-1"), Some(snapshot(30, "third")));
    assert_eq!(log.latest(""), Some(snapshot(-10, "before 1970")));
    assert_eq!(log.cells(), ["".into(), "eu-1".into()]);
}

/// A new subscription starts with everything; then it gives changes only.
pub async fn a_subscriber_sees_what_was_there_and_what_comes(log: Arc<dyn SnapshotLog>) {
    publish(&*log, "a", snapshot(10, "x"));
    publish(&*log, "b", snapshot(10, "x"));
    until_all(&*log, &[("a", 10), ("b", 10)]).await;
    let mut late = log.subscribe();
    let there = within_patience("the first change", late.changed()).await;
    assert_eq!(there, Some(vec![("a".into(), snapshot(10, "x")), ("b".into(), snapshot(10, "x"))]));
    assert_eq!(late.try_changed(), []);
    publish(&*log, "b", snapshot(20, "x"));
    let change = within_patience("the second change", late.changed()).await;
    assert_eq!(change, Some(vec![("b".into(), snapshot(20, "x"))]));
}

/// A subscriber that does not look holds up nobody and then gets each cell once, newest.
pub async fn a_slow_subscriber_skips_to_the_newest(log: Arc<dyn SnapshotLog>) {
    let mut slow = log.subscribe();
    for epoch in 1..=1000 {
        publish(&*log, "a", snapshot(epoch, "x"));
        publish(&*log, "b", snapshot(epoch, "x"));
    }
    until_all(&*log, &[("a", 1000), ("b", 1000)]).await;
    let changes = within_patience("the changes", slow.changed()).await;
    assert_eq!(changes, Some(vec![("a".into(), snapshot(1000, "x")), ("b".into(), snapshot(1000, "x"))]));
    assert_eq!(slow.try_changed(), []);
}

fn retire(log: &dyn SnapshotLog, cell: &str) {
    if let Err(error) = log.retire(&cell.into()) {
        panic!("not retired: {error}");
    }
}

/// Waits until a cell has no snapshot; another one's are what wakes us.
async fn until_gone(log: &dyn SnapshotLog, gone: &str, other: &str, from: i64) {
    let mut subscription = log.subscribe();
    let seen = async {
        for epoch in from.. {
            if log.latest(gone).is_none() {
                return;
            }
            publish(log, other, snapshot(epoch, "x"));
            until_latest(&mut subscription, other, epoch).await;
        }
    };
    within_patience("the end of the cell", seen).await;
}

/// What a cell said last still reaches who subscribed before, and nobody after; a cell that returns is there again.
pub async fn a_retired_cell_is_gone_but_for_its_last_word(log: Arc<dyn SnapshotLog>) {
    publish(&*log, "a", snapshot(10, "x"));
    publish(&*log, "b", snapshot(10, "x"));
    until_all(&*log, &[("a", 10), ("b", 10)]).await;
    let mut subscription = log.subscribe();
    subscription.try_changed();
    publish(&*log, "a", snapshot(20, "last"));
    retire(&*log, "a");
    assert_eq!(until_latest(&mut subscription, "a", 20).await, snapshot(20, "last"));
    until_gone(&*log, "a", "b", 20).await;
    assert_eq!((log.latest("a"), log.cells()), (None, vec!["b".into()]));
    publish(&*log, "a", snapshot(30, "again"));
    until_all(&*log, &[("a", 30)]).await;
    assert_eq!(log.cells(), ["a".into(), "b".into()]);
}

/// For durable logs: `open` opens the same log again. A cell that was retired is not there, and the others are.
pub async fn retired_cells_stay_gone(mut open: impl FnMut() -> Arc<dyn SnapshotLog>) {
    let log = open();
    for epoch in [10, 20] {
        publish(&*log, "a", snapshot(epoch, "x"));
        publish(&*log, "b", snapshot(epoch, "x"));
    }
    drop(log);
    let log = open();
    publish(&*log, "a", snapshot(30, "last"));
    retire(&*log, "a");
    drop(log);
    assert_eq!(open().cells(), ["b".into()]);
}

/// For durable logs: `open` opens the same log again. What was newest is there, and still cannot be replaced by older.
pub async fn snapshots_survive_being_closed(mut open: impl FnMut() -> Arc<dyn SnapshotLog>) {
    let cells = ["eu-1", "EU-1", "../eu", "", &"long".repeat(200)];
    let log = open();
    for (epoch, cell) in (1..).zip(cells) {
        publish(&*log, cell, snapshot(epoch, "old"));
        publish(&*log, cell, snapshot(epoch + 100, "new"));
    }
    drop(log);
    let log = open();
    assert_eq!(log.cells().len(), cells.len());
    for (epoch, cell) in (1..).zip(cells) {
        assert_eq!(log.latest(cell), Some(snapshot(epoch + 100, "new")), "{cell}");
        let published = publish(&*log, cell, snapshot(epoch + 50, "replayed"));
        assert_eq!(published, Published::NotNewer { newest: epoch + 100 });
    }
}
