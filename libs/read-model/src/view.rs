//! A snapshot with all that readers need to find their way in it.

use std::sync::{Arc, OnceLock};

use headroom_model::{CellSnapshot, Timestamp};
use tokio::sync::watch;

use crate::changes::{Changes, Removal};
use crate::names::Names;
use crate::rollup::{Rollup, Rollups};

/// A cell as readers see it: immutable, and cheap to make anew when only the kill switch moved.
#[derive(Clone)]
pub struct CellView {
    pub(crate) snapshot: Arc<CellSnapshot>,
    pub(crate) names: Arc<Names>,
    pub(crate) changes: Arc<Changes>,
    pub(crate) rollups: Arc<OnceLock<Rollups>>,
    pub(crate) version: Arc<watch::Sender<u64>>,
    pub(crate) grace_seconds: i64,
    pub(crate) restored: bool,
    pub(crate) killed: bool,
    /// Whether a snapshot that came after the kill switch was thrown is itself all off.
    pub(crate) obeyed: bool,
    /// The newest epoch of all cells when the kill switch last moved here.
    pub(crate) kill_moved: Option<i64>,
}

impl CellView {
    /// The snapshot.
    pub fn snapshot(&self) -> &Arc<CellSnapshot> {
        &self.snapshot
    }

    /// The version of the cell: Unix seconds of its tick.
    pub fn epoch(&self) -> i64 {
        self.snapshot.epoch
    }

    /// Names, rows, and rows in the order of names.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Whether the kill switch is thrown: whatever the snapshot says, nothing is limited.
    pub fn is_killed(&self) -> bool {
        self.killed
    }

    /// Whether the snapshot is too old to be true at `now`: two ticks and the grace have passed without a new one, or
    /// it was found on disk and no engine has renewed it yet. Stale data is unknown, never healthy.
    pub fn is_stale(&self, now: Timestamp) -> bool {
        let limit = self.snapshot.tick_seconds.saturating_mul(2).saturating_add(self.grace_seconds);
        self.restored || self.age_seconds(now) > limit
    }

    /// Whole seconds from the tick to `now`, never negative.
    pub fn age_seconds(&self, now: Timestamp) -> i64 {
        now.seconds().saturating_sub(self.snapshot.epoch).max(0)
    }

    /// Whether `since` is too old to say what changed after it: the earliest epoch that may be asked about.
    pub fn horizon(&self) -> i64 {
        self.changes.horizon()
    }

    /// Whether the decision of a row for a class (its place in the policy) changed after `since`, epochs and times
    /// apart. A kill switch that moved at the very epoch counts as later, so it may be told twice and never missed.
    pub fn changed_since(&self, class: usize, row: u32, since: i64) -> bool {
        self.changed_everywhere_since(since) || self.changes.changed_since(class, row as usize, since)
    }

    /// Whether every decision changed at or after `since`, because the kill switch moved.
    pub fn changed_everywhere_since(&self, since: i64) -> bool {
        self.kill_moved.is_some_and(|epoch| epoch >= since)
    }

    /// Servers that left after `since` and have not come back.
    pub fn removed_since(&self, since: i64) -> impl Iterator<Item = &Removal> {
        self.changes.removed_since(since).iter().filter(|removal| self.names.row_of_server(&removal.server).is_none())
    }

    /// The roll-up of the whole cell; the first call on a snapshot computes it, in a pass over the columns.
    pub fn rollup(&self) -> &Rollup {
        &self.all_rollups().cell
    }

    /// The roll-ups of the pools, in the order of [`headroom_model::snapshot::ServerTable::pools`].
    pub fn pool_rollups(&self) -> &[Rollup] {
        &self.all_rollups().pools
    }

    fn all_rollups(&self) -> &Rollups {
        self.rollups.get_or_init(|| Rollups::of(&self.snapshot))
    }
}
