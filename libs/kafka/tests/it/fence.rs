//! Whoever begins to own a partition ends whoever owned it before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use headroom_kafka::{KafkaCheckpointStore, KafkaSnapshotLog};
use headroom_log::contract::{self, snapshot};
use headroom_log::{CheckpointError, CheckpointStore, Position, PublishError, Published, SnapshotLog};

use crate::broker::{connection, layout};

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + contract::PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_stale_owner_cannot_publish() {
    let Some(connection) = connection("a_stale_owner_cannot_publish") else { return };
    let layout = layout(1);
    let cell: Arc<str> = "eu-1".into();
    let open = || KafkaSnapshotLog::open(&connection, &layout, 10).unwrap();
    let (old, new) = (open(), open());
    assert!(matches!(old.publish(&cell, snapshot(10, "unclaimed")), Err(PublishError::Fenced { .. })));
    old.claim(0).unwrap();
    old.claim(0).unwrap();
    assert_eq!(old.publish(&cell, snapshot(10, "old")), Ok(Published::Newest));
    old.publish_note(0, "status", "one".into()).unwrap();
    until("the new owner reads what the old one wrote", || new.latest(&cell) == Some(snapshot(10, "old")));

    new.claim(0).unwrap();
    assert_eq!(new.publish(&cell, snapshot(10, "new")), Ok(Published::NotNewer { newest: 10 }));
    // The old owner learns of it by its next transaction, of which nothing is visible.
    let mut epoch = 1000;
    until("the old owner is fenced", || {
        epoch += 1;
        matches!(old.publish(&cell, snapshot(epoch, "stale")), Err(PublishError::Fenced { .. }))
    });
    assert_eq!(new.publish(&cell, snapshot(20, "new")), Ok(Published::Newest));
    until("both read the new owner", || [&old, &new].iter().all(|log| log.latest(&cell) == Some(snapshot(20, "new"))));
    let note = new.notes().try_changed();
    assert_eq!(
        note.iter().map(|(name, note)| (&**name, &*note.content)).collect::<Vec<_>>(),
        [("0/status", &b"one"[..])]
    );

    // Who was fenced may come back, by claiming again.
    old.claim(0).unwrap();
    assert_eq!(old.publish(&cell, snapshot(30, "back")), Ok(Published::Newest));
    until("the third owner is read", || new.latest(&cell) == Some(snapshot(30, "back")));
}

#[test]
fn a_stale_owner_cannot_store_a_checkpoint() {
    let Some(connection) = connection("a_stale_owner_cannot_store_a_checkpoint") else { return };
    let layout = layout(1);
    let open = || KafkaCheckpointStore::open(&connection, &layout).unwrap();
    let (old, new) = (open(), open());
    assert!(matches!(old.put(0, Position(1), b""), Err(CheckpointError::Fenced { .. })));
    old.claim(0).unwrap();
    contract::put(&old, 0, 10, b"ten");
    new.claim(0).unwrap();
    assert_eq!(contract::newest(&new, 0), Some((10, b"ten".to_vec())));
    assert!(matches!(old.put(0, Position(20), b"stale"), Err(CheckpointError::Fenced { .. })));
    assert_eq!(contract::newest(&new, 0), Some((10, b"ten".to_vec())));
    contract::put(&new, 0, 15, b"fifteen");
    // A third one that owns nothing may read.
    assert_eq!(contract::newest(&open(), 0), Some((15, b"fifteen".to_vec())));
}
