//! What changed since an epoch: per class and server the epoch of the last change, and who was removed.
//!
//! Found by comparing columns with the snapshot before, not by diffing records: decisions are compared without epoch
//! and times, and all else that a decision shows follows from its row of five numbers, the policy and the table of
//! servers. Marks are seconds since a base of this process in 32 bits, because a copy of them is made at each tick.

use std::sync::Arc;

use headroom_model::CellSnapshot;
use headroom_model::frame::ClassFrame;
use headroom_model::snapshot::{PolicyHead, RuleHead, ServerTable};

use crate::names::Names;

/// How far back changes and removals are known; older questions are refused, so that nobody misses a removal.
pub const HISTORY_SECONDS: i64 = 600;

/// Removals kept per cell. More than this within [`HISTORY_SECONDS`] shorten what is known.
pub const REMOVALS_MAX: usize = 100_000;

/// A server that left the cell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Removal {
    /// Its name.
    pub server: Arc<str>,
    /// The version at which it was gone.
    pub epoch: i64,
}

/// Changes of a cell.
#[derive(Clone, Debug)]
pub(crate) struct Changes {
    /// What marks count from.
    base: i64,
    /// Per class, per row.
    marks: Vec<Vec<u32>>,
    /// In the order of their epochs.
    removed: Vec<Removal>,
    /// Questions about epochs before this cannot be answered.
    horizon: i64,
    /// The last mark. Marks never go back: a cell that lagged gets ones ahead of its epochs, until those have caught up.
    last_mark: i64,
}

impl Changes {
    /// Of the first snapshot of a cell: everything is new, and nothing else is known to have been there since `horizon`.
    pub(crate) fn first(snapshot: &CellSnapshot, mark: i64, horizon: i64) -> Self {
        let horizon = horizon.max(snapshot.epoch.saturating_sub(HISTORY_SECONDS));
        let base = mark - HISTORY_SECONDS;
        let marks = snapshot.decisions.iter().map(|_| vec![HISTORY_SECONDS as u32; snapshot.len()]).collect();
        Self { base, marks, removed: Vec::new(), horizon, last_mark: mark }
    }

    /// Of the next snapshot. `mark` is the version that changes get, later than any that was handed out before this cell
    /// came back.
    pub(crate) fn next(
        &self,
        old: &CellSnapshot,
        new: &CellSnapshot,
        old_names: &Names,
        names: &Names,
        mark: i64,
    ) -> Self {
        let mark = mark.max(self.last_mark);
        let mark_offset = u32::try_from(mark.saturating_sub(self.base)).unwrap_or(u32::MAX);
        let all_changed = || new.decisions.iter().map(|_| vec![mark_offset; new.len()]).collect();
        let same_table = Arc::ptr_eq(old_names.table(), names.table());
        let same_policy = Arc::ptr_eq(&old.policy, &new.policy) || is_same_policy(&old.policy, &new.policy);
        let marks = if !same_policy || old.decisions.len() != new.decisions.len() {
            all_changed()
        } else {
            let classes = old.decisions.iter().zip(&new.decisions).zip(&self.marks);
            if same_table {
                classes.map(|((old, new), marks)| compare_same_rows(old, new, marks, mark_offset)).collect()
            } else {
                let moved = moved_rows(old_names, names);
                classes.map(|((old, new), marks)| compare_moved_rows(old, new, marks, &moved, mark_offset)).collect()
            }
        };
        let mut removed = self.removed.clone();
        if !same_table {
            let servers = &old_names.table().server;
            let at_same_row = |row: usize| names.table().server.get(row).is_some_and(|name| name == &servers[row]);
            removed.extend(
                (0..servers.len())
                    .filter(|row| !at_same_row(*row) && names.row_of_server(&servers[*row]).is_none())
                    .map(|row| Removal { server: Arc::clone(&servers[row]), epoch: mark }),
            );
        }
        let mut horizon = self.horizon.max(new.epoch.saturating_sub(HISTORY_SECONDS));
        let surplus = removed.len().saturating_sub(REMOVALS_MAX);
        if let Some(last_dropped) = surplus.checked_sub(1).and_then(|at| removed.get(at)) {
            horizon = horizon.max(last_dropped.epoch);
        }
        removed.retain(|removal| removal.epoch > horizon);
        Self { base: self.base, marks, removed, horizon, last_mark: mark }
    }

    /// The last version that a change got.
    pub(crate) fn last_mark(&self) -> i64 {
        self.last_mark
    }

    /// The earliest epoch that may be asked about.
    pub(crate) fn horizon(&self) -> i64 {
        self.horizon
    }

    /// Whether the decision changed after `since`.
    pub(crate) fn changed_since(&self, class: usize, row: usize, since: i64) -> bool {
        let Some(mark) = self.marks.get(class).and_then(|marks| marks.get(row)) else { return true };
        self.base + i64::from(*mark) > since
    }

    /// Servers removed after `since`, oldest first; one that came back since is among them.
    pub(crate) fn removed_since(&self, since: i64) -> &[Removal] {
        &self.removed[self.removed.partition_point(|removal| removal.epoch <= since)..]
    }
}

/// Whether two heads say the same. Not `==`: an exempt class has NaN for a set-point, which is unequal to itself.
fn is_same_policy(old: &PolicyHead, new: &PolicyHead) -> bool {
    let bits = |numbers: &[f64]| -> Vec<u64> { numbers.iter().map(|number| number.to_bits()).collect() };
    let same_rule = |(old, new): (&RuleHead, &RuleHead)| {
        old.name == new.name
            && old.on_expiry == new.on_expiry
            && bits(old.thresholds.as_flattened()) == bits(new.thresholds.as_flattened())
            && bits(&old.set_points) == bits(&new.set_points)
            && bits(&old.nominals) == bits(&new.nominals)
    };
    let rest = |head: &PolicyHead| PolicyHead { rules: Vec::new(), ..head.clone() };
    rest(old) == rest(new) && old.rules.len() == new.rules.len() && old.rules.iter().zip(&new.rules).all(same_rule)
}

fn same_decision(old: &ClassFrame, at: usize, new: &ClassFrame, row: usize) -> bool {
    old.admit[at].to_bits() == new.admit[row].to_bits()
        && old.would_admit[at].to_bits() == new.would_admit[row].to_bits()
        && old.binding[at] == new.binding[row]
        && old.reason[at] == new.reason[row]
        && old.mode[at] == new.mode[row]
}

/// Column by column and without a branch, so that a million rows take a millisecond or two per class.
fn compare_same_rows(old: &ClassFrame, new: &ClassFrame, marks: &[u32], mark: u32) -> Vec<u32> {
    let mut result = marks.to_vec();
    fn mark_where<T: PartialEq>(old: &[T], new: &[T], result: &mut [u32], mark: u32) {
        for ((old, new), result) in old.iter().zip(new).zip(result) {
            *result = if old == new { *result } else { mark };
        }
    }
    for (old, new) in [(&old.admit, &new.admit), (&old.would_admit, &new.would_admit)] {
        mark_where(old, new, &mut result, mark);
    }
    mark_where(&old.binding, &new.binding, &mut result, mark);
    mark_where(&old.reason, &new.reason, &mut result, mark);
    mark_where(&old.mode, &new.mode, &mut result, mark);
    result
}

fn compare_moved_rows(old: &ClassFrame, new: &ClassFrame, marks: &[u32], moved: &[Option<u32>], mark: u32) -> Vec<u32> {
    moved
        .iter()
        .enumerate()
        .map(|(row, from)| match from {
            Some(from) if same_decision(old, *from as usize, new, row) => marks[*from as usize],
            _ => mark,
        })
        .collect()
}

/// For every row the row that the same server, unchanged in pool and rule, had before.
fn moved_rows(old: &Names, new: &Names) -> Vec<Option<u32>> {
    let (old_table, new_table) = (old.table(), new.table());
    let same_pools = old_table.pools == new_table.pools;
    let pool = |table: &ServerTable, row: usize| table.pools.get(table.pool[row] as usize).cloned();
    (0..new_table.server.len())
        .map(|row| {
            let server = &new_table.server[row];
            let from = match old_table.server.get(row) {
                Some(name) if Arc::ptr_eq(name, server) || name == server => row,
                _ => old.row_of_server(server)? as usize,
            };
            let same_pool = if same_pools {
                old_table.pool[from] == new_table.pool[row]
            } else {
                pool(old_table, from) == pool(new_table, row)
            };
            (same_pool && old_table.rule[from] == new_table.rule[row]).then_some(from as u32)
        })
        .collect()
}
