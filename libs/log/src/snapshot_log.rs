//! The snapshot log: what each cell last published. Keyed by cell, latest wins.
//!
//! A snapshot is worth nothing once the next one is there, so nobody may be made to wait for, or to buffer, one that has
//! been overtaken: not the engine that publishes (it never waits for a disk or a network), not the store behind (it
//! skips epochs when it is slower than the ticks), not a subscriber (it is woken and takes what is newest *then*). All
//! three follow from one structure, [`SnapshotMap`]: a map of the newest records, each with the number of the change
//! that brought it. A subscriber is one number, so there may be any number of them, and none can hold up the others.
//!
//! A cell that has no server left is retired: its last snapshot, which is empty, still goes to those who subscribe, and
//! to nobody else, neither to a reader nor to the next start.
//!
//! An epoch that is not later than the one there is never replaces it: a published epoch is never amended, and an engine
//! that replays after a crash publishes again what is out already.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use headroom_model::CellSnapshot;
use tokio::sync::watch;

use crate::sync::lock;

/// One published snapshot, opaque to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRecord {
    /// Time of its tick, Unix seconds.
    pub epoch: i64,
    /// What stands beside the content (log positions and the like) and is not part of its identity.
    pub header: Bytes,
    /// The content: equal bytes for equal samples, whoever computed it.
    pub content: Bytes,
}

/// What became of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// It is the newest of its cell.
    Newest,
    /// Ignored: a snapshot of this epoch or a later one is there.
    NotNewer {
        /// Its epoch.
        newest: i64,
    },
}

/// Why a snapshot was not published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishError {
    /// There are as many cells as there may be; those that are there go on.
    TooManyCells {
        /// How many there may be.
        bound: usize,
    },
    /// Another owner has taken over, or this one never claimed the partition; it must stop.
    Fenced {
        /// What was seen.
        why: Arc<str>,
    },
    /// A partition could not be claimed now.
    Unavailable {
        /// What was seen.
        why: Arc<str>,
    },
}

impl std::fmt::Display for PublishError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooManyCells { bound } => write!(f, "there are already {bound} cells, which is the bound"),
            Self::Fenced { why } => write!(f, "this process does not own the partition: {why}"),
            Self::Unavailable { why } => write!(f, "the partition cannot be claimed: {why}"),
        }
    }
}

impl std::error::Error for PublishError {}

/// The newest snapshot of every cell.
pub trait SnapshotLog: Send + Sync {
    /// Publishes; never waits. On an embedded log the snapshot is readable when this returns, on a remote one soon after.
    ///
    /// # Errors
    /// If it cannot be published at all. A store behind that is slow or broken is no error: it is retried with what is
    /// newest then.
    fn publish(&self, cell: &Arc<str>, snapshot: SnapshotRecord) -> Result<Published, PublishError>;

    /// Publishes a snapshot that nobody has encoded yet: a log that need not have its bytes at once need not hold them.
    ///
    /// # Errors
    /// As [`Self::publish`].
    fn publish_snapshot(&self, snapshot: &Arc<CellSnapshot>, header: Bytes) -> Result<Published, PublishError> {
        let content = Bytes::from(snapshot.encode());
        let published = self.publish(&snapshot.cell, SnapshotRecord { epoch: snapshot.epoch, header, content })?;
        if snapshot.is_empty() && published == Published::Newest {
            self.retire(&snapshot.cell)?;
        }
        Ok(published)
    }

    /// Says that what a cell published last is its last word: it is read no more, and the cell no longer counts among as
    /// many as there may be. One that publishes again is there again.
    ///
    /// # Errors
    /// As [`Self::publish`].
    fn retire(&self, cell: &Arc<str>) -> Result<(), PublishError>;

    /// The newest snapshot of a cell.
    fn latest(&self, cell: &str) -> Option<SnapshotRecord>;

    /// All cells that have published, in order.
    fn cells(&self) -> Vec<Arc<str>>;

    /// A subscription that first gives everything there is.
    fn subscribe(&self) -> Subscription;

    /// Says that this process owns a partition of the sample log from now on and publishes its cells. Blocks until
    /// everything that earlier owners have published can be read, and they can publish no more. On an embedded log, which
    /// a lock keeps to one process, there is nothing to do.
    ///
    /// # Errors
    /// If ownership could not be had; try again, or stop.
    fn claim(&self, _partition: u32) -> Result<(), PublishError> {
        Ok(())
    }

    /// Says that this process owns a partition no longer. Blocks until what was published is durable, within a bound.
    fn release(&self, _partition: u32) {}

    /// Publishes what the owner of a partition wants readers in other processes to know besides snapshots; the latest of
    /// a name wins, and none is readable before the snapshots published before it. Never waits. An embedded log drops it:
    /// there, readers ask the owner itself.
    ///
    /// # Errors
    /// As [`Self::publish`].
    fn publish_note(&self, _partition: u32, _name: &str, _note: Bytes) -> Result<(), PublishError> {
        Ok(())
    }
}

/// A cell and its newest snapshot.
pub type CellChange = (Arc<str>, SnapshotRecord);

/// The map that all implementations share. See the module head.
pub struct SnapshotMap {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
    cells_max: usize,
}

/// The content of a snapshot, encoded or not yet: most are overtaken before anybody asks for their bytes.
#[derive(Clone)]
pub(crate) enum Content {
    Bytes(Bytes),
    Snapshot(Arc<CellSnapshot>),
}

/// A snapshot as the map holds it.
#[derive(Clone)]
pub(crate) struct Held {
    pub epoch: i64,
    pub header: Bytes,
    pub content: Content,
}

impl From<SnapshotRecord> for Held {
    fn from(record: SnapshotRecord) -> Self {
        Self { epoch: record.epoch, header: record.header, content: Content::Bytes(record.content) }
    }
}

impl From<Held> for SnapshotRecord {
    fn from(held: Held) -> Self {
        let content = match held.content {
            Content::Bytes(bytes) => bytes,
            Content::Snapshot(snapshot) => Bytes::from(snapshot.encode()),
        };
        Self { epoch: held.epoch, header: held.header, content }
    }
}

/// Last words of retired cells that are kept for subscribers; the oldest go first.
pub const RETIRED_MAX: usize = 1_024;

#[derive(Default)]
struct State {
    cells: BTreeMap<Arc<str>, (u64, Held)>,
    retired: BTreeMap<Arc<str>, (u64, Held)>,
    change: u64,
}

impl SnapshotMap {
    /// An empty map for up to `cells_max` cells.
    pub fn new(cells_max: usize) -> Self {
        Self { state: Mutex::default(), changes: watch::Sender::new(0), cells_max }
    }

    /// As [`SnapshotLog::publish`].
    ///
    /// # Errors
    /// [`PublishError::TooManyCells`].
    pub fn publish(&self, cell: &Arc<str>, snapshot: SnapshotRecord) -> Result<Published, PublishError> {
        self.publish_held(cell, snapshot.into())
    }

    /// The same of a snapshot that may not be encoded yet.
    pub(crate) fn publish_held(&self, cell: &Arc<str>, snapshot: Held) -> Result<Published, PublishError> {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        match state.cells.get(cell) {
            Some((_, held)) if held.epoch >= snapshot.epoch => {
                return Ok(Published::NotNewer { newest: held.epoch });
            }
            None if state.cells.len() >= self.cells_max => {
                return Err(PublishError::TooManyCells { bound: self.cells_max });
            }
            _ => {}
        }
        state.change += 1;
        state.retired.remove(cell);
        state.cells.insert(cell.clone(), (state.change, snapshot));
        let change = state.change;
        drop(guard);
        // Two publishers may get here in the other order; the counter must not go back.
        self.changes.send_modify(|seen| *seen = (*seen).max(change));
        Ok(Published::Newest)
    }

    /// As [`SnapshotLog::retire`].
    pub fn retire(&self, cell: &str) {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let Some((cell, last)) = state.cells.remove_entry(cell) else { return };
        state.retired.insert(cell, last);
        if state.retired.len() > RETIRED_MAX
            && let Some(oldest) =
                state.retired.iter().min_by_key(|(_, (change, _))| *change).map(|(cell, _)| cell.clone())
        {
            state.retired.remove(&oldest);
        }
    }

    /// As [`SnapshotLog::latest`].
    pub fn latest(&self, cell: &str) -> Option<SnapshotRecord> {
        self.held(cell).map(SnapshotRecord::from)
    }

    /// The same, encoded or not.
    pub(crate) fn held(&self, cell: &str) -> Option<Held> {
        lock(&self.state).cells.get(cell).map(|(_, snapshot)| snapshot.clone())
    }

    /// As [`SnapshotLog::cells`].
    pub fn cells(&self) -> Vec<Arc<str>> {
        lock(&self.state).cells.keys().cloned().collect()
    }

    /// As [`SnapshotLog::subscribe`].
    pub fn subscribe(self: &Arc<Self>) -> Subscription {
        Subscription { wake: self.changes.subscribe(), map: Arc::downgrade(self), seen: 0 }
    }
}

/// Follows the newest snapshots of all cells. A slow subscriber skips to the newest of each cell and costs nobody
/// anything.
pub struct Subscription {
    map: std::sync::Weak<SnapshotMap>,
    wake: watch::Receiver<u64>,
    seen: u64,
}

impl Subscription {
    /// The newest snapshots of the cells that changed since the last call, in order of the cells; waits until there is
    /// one. `None` once the log is gone. Dropping the future loses nothing.
    pub async fn changed(&mut self) -> Option<Vec<CellChange>> {
        loop {
            self.wake.borrow_and_update();
            let changes = self.try_changed();
            if !changes.is_empty() {
                return Some(changes);
            }
            self.wake.changed().await.ok()?;
        }
    }

    /// The same without waiting; empty if nothing changed.
    pub fn try_changed(&mut self) -> Vec<CellChange> {
        let Some(map) = self.map.upgrade() else { return Vec::new() };
        let state = lock(&map.state);
        let changed = state.cells.iter().chain(&state.retired).filter(|(_, (change, _))| *change > self.seen);
        let held: Vec<(Arc<str>, Held)> = changed.map(|(cell, (_, held))| (cell.clone(), held.clone())).collect();
        self.seen = state.change;
        drop(state);
        held.into_iter().map(|(cell, held)| (cell, held.into())).collect()
    }
}
