//! The checkpoint store's promises.

use std::sync::Arc;

use crate::checkpoint::{CheckpointError, CheckpointStore};
use crate::sample_log::Position;

/// Runs all promises that every checkpoint store makes. `fresh` gives an empty store of two partitions.
pub async fn checkpoint_store_suite(mut fresh: impl FnMut() -> Arc<dyn CheckpointStore>) {
    the_newest_checkpoint_is_given(fresh()).await;
    the_floor_is_the_older_generation(fresh()).await;
}

/// Stores, as a promise that it can.
pub fn put(store: &dyn CheckpointStore, partition: u32, position: u64, bytes: &[u8]) {
    if let Err(error) = store.put(partition, Position(position), bytes) {
        panic!("not stored: {error}");
    }
}

/// What [`CheckpointStore::newest`] gives, in plain values.
pub fn newest(store: &dyn CheckpointStore, partition: u32) -> Option<(u64, Vec<u8>)> {
    match store.newest(partition) {
        Ok(newest) => newest.map(|(position, bytes)| (position.0, bytes.to_vec())),
        Err(error) => panic!("cannot be read: {error}"),
    }
}

/// By partition; a repeat replaces, an older one is refused.
pub async fn the_newest_checkpoint_is_given(store: Arc<dyn CheckpointStore>) {
    assert_eq!(newest(&*store, 0), None);
    put(&*store, 0, 10, b"ten");
    put(&*store, 1, 7, b"");
    put(&*store, 0, 20, b"twenty");
    assert_eq!(newest(&*store, 0), Some((20, b"twenty".to_vec())));
    put(&*store, 0, 20, b"twenty again");
    assert_eq!(newest(&*store, 0), Some((20, b"twenty again".to_vec())));
    assert_eq!(newest(&*store, 1), Some((7, Vec::new())));
    assert_eq!(
        store.put(0, Position(15), b"late"),
        Err(CheckpointError::Older { newest: Position(20) }),
        "what is newer stays"
    );
    assert_eq!(newest(&*store, 0), Some((20, b"twenty again".to_vec())));
    assert_eq!(store.put(2, Position(1), b""), Err(CheckpointError::NoSuchPartition { partition: 2, partitions: 2 }));
    assert_eq!((newest(&*store, 2), store.floor(2), store.damaged()), (None, None, 0));
}

/// The log must reach back to the checkpoint that is fallen back to.
pub async fn the_floor_is_the_older_generation(store: Arc<dyn CheckpointStore>) {
    assert_eq!(store.floor(0), None);
    for (position, floor) in [(10, 10), (20, 10), (30, 20), (30, 20)] {
        put(&*store, 0, position, b"state");
        assert_eq!(store.floor(0), Some(Position(floor)), "after {position}");
    }
}

/// For durable stores: `open` opens the same store again, `damage` damages the file of the newest checkpoint of
/// partition 0 while it is closed. The one before is given instead, that is counted, and the store goes on from there.
pub async fn a_damaged_checkpoint_falls_back(
    mut open: impl FnMut() -> Arc<dyn CheckpointStore>,
    mut damage: impl FnMut(),
) {
    let store = open();
    for position in [10, 20, 30] {
        put(&*store, 0, position, format!("at {position}").as_bytes());
    }
    drop(store);
    damage();
    let store = open();
    assert_eq!(newest(&*store, 0), Some((20, b"at 20".to_vec())));
    assert_eq!((store.damaged(), store.floor(0)), (1, Some(Position(20))));
    put(&*store, 0, 25, b"at 25");
    drop(store);
    let store = open();
    assert_eq!(newest(&*store, 0), Some((25, b"at 25".to_vec())));
    assert_eq!((store.damaged(), store.floor(0)), (0, Some(Position(20))));
}
