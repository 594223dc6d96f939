//! How far each partition is done.
//!
//! Records of a partition belong to units, which are acknowledged in any order: one waits for the log, another for the
//! dead-letter topic. A partition is done up to the first unit that is not.

use std::collections::{BTreeSet, VecDeque};

use super::partitions::{ByPartition, Partition};

/// Where every assigned partition stands.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    partitions: ByPartition<Progress>,
    open: BTreeSet<u64>,
}

#[derive(Debug, Default)]
struct Progress {
    /// Units in the order of the partition, each with the offset behind its last record.
    units: VecDeque<(u64, i64)>,
    /// The offset of the first record.
    first: Option<i64>,
    /// The offset behind the last record that is done.
    done: Option<i64>,
    committed: Option<i64>,
}

impl Progress {
    fn advance(&mut self, open: &BTreeSet<u64>) {
        while let Some((unit, next)) = self.units.front() {
            if open.contains(unit) {
                break;
            }
            self.done = Some(*next);
            self.units.pop_front();
        }
    }
}

impl Offsets {
    /// A partition is ours.
    pub(super) fn assign(&mut self, (topic, partition): &Partition) {
        self.partitions.get_or_insert(topic, *partition, Progress::default);
    }

    /// A partition is ours no longer. What of it is still under way finishes, and its offsets are its next owner's.
    pub(super) fn revoke(&mut self, partition: &Partition) {
        self.partitions.remove(partition);
    }

    /// A record belongs to a unit, which is open from now on. Records of partitions that are not ours are nobody's.
    pub(super) fn note(&mut self, topic: &str, partition: i32, offset: i64, unit: u64) {
        let next = offset.saturating_add(1);
        let Some(progress) = self.partitions.get_mut(topic, partition) else { return };
        self.open.insert(unit);
        progress.first.get_or_insert(offset);
        match progress.units.back_mut() {
            Some((last, end)) if *last == unit => *end = next,
            _ => progress.units.push_back((unit, next)),
        }
    }

    /// All of a unit is done.
    pub(super) fn close(&mut self, unit: u64) {
        self.open.remove(&unit);
        for progress in self.partitions.values_mut() {
            progress.advance(&self.open);
        }
    }

    /// Partitions that are done further than was committed.
    pub(super) fn to_commit(&self) -> Vec<(Partition, i64)> {
        self.partitions
            .iter()
            .filter_map(|((topic, partition), progress)| {
                let done = progress.done.filter(|done| progress.committed != Some(*done))?;
                Some(((topic.to_owned(), partition), done))
            })
            .collect()
    }

    /// An offset was committed.
    pub(super) fn committed(&mut self, (topic, partition): &Partition, offset: i64) {
        if let Some(progress) = self.partitions.get_mut(topic, *partition) {
            progress.committed = Some(offset);
        }
    }

    /// The broker did not take a commit after all: what was committed of a partition is to be said again.
    pub(super) fn not_committed(&mut self, topic: &str, partition: i32) {
        if let Some(progress) = self.partitions.get_mut(topic, partition) {
            progress.committed = None;
        }
    }

    /// The first record of a partition since it became ours.
    pub(super) fn first(&self, topic: &str, partition: i32) -> Option<i64> {
        self.partitions.get(topic, partition)?.first
    }

    /// Whether something of a partition is under way, other than in the unit `staged`, which nobody has been given yet.
    pub(super) fn is_busy(&self, (topic, partition): &Partition, staged: u64) -> bool {
        let units = self.partitions.get(topic, *partition).map(|progress| &progress.units);
        units.is_some_and(|units| units.iter().any(|(unit, _)| *unit != staged))
    }

    /// The partitions that are ours.
    pub(super) fn assigned(&self) -> impl Iterator<Item = (&str, i32)> {
        self.partitions.iter().map(|(partition, _)| partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(offsets: &Offsets) -> Vec<(i32, i64)> {
        offsets.to_commit().into_iter().map(|((_, partition), offset)| (partition, offset)).collect()
    }

    #[test]
    fn a_partition_is_done_up_to_its_first_open_unit() {
        let mut offsets = Offsets::default();
        for partition in [0, 1] {
            offsets.assign(&("t".into(), partition));
        }
        for (partition, offset, unit) in [(0, 10, 1), (0, 11, 1), (1, 5, 1), (0, 12, 2), (0, 14, 3), (1, 6, 3)] {
            offsets.note("t", partition, offset, unit);
        }
        assert_eq!(done(&offsets), []);
        offsets.close(3);
        assert_eq!(done(&offsets), [], "unit 1 is before it in both");
        offsets.close(1);
        assert_eq!(done(&offsets), [(0, 12), (1, 7)]);
        offsets.committed(&("t".into(), 1), 7);
        assert_eq!(done(&offsets), [(0, 12)]);
        offsets.not_committed("t", 1);
        assert_eq!(done(&offsets), [(0, 12), (1, 7)], "a commit that failed is said again");
        offsets.committed(&("t".into(), 1), 7);
        offsets.close(2);
        assert_eq!(done(&offsets), [(0, 15)]);
        assert!(!offsets.is_busy(&("t".into(), 0), 9));
    }

    #[test]
    fn what_is_revoked_is_not_committed_and_begins_anew() {
        let mut offsets = Offsets::default();
        let partition = ("t".to_owned(), 0);
        offsets.assign(&partition);
        offsets.note("t", 0, 1, 1);
        assert!(offsets.is_busy(&partition, 9));
        assert!(!offsets.is_busy(&partition, 1), "what is only staged holds nobody up");
        offsets.revoke(&partition);
        offsets.note("t", 0, 2, 1);
        offsets.close(1);
        assert_eq!(done(&offsets), []);
        offsets.assign(&partition);
        assert_eq!(done(&offsets), []);
        offsets.note("t", 0, 2, 2);
        offsets.close(2);
        assert_eq!(done(&offsets), [(0, 3)]);
    }

    #[test]
    fn a_partition_assigned_twice_keeps_its_progress() {
        let mut offsets = Offsets::default();
        offsets.assign(&("t".into(), 0));
        offsets.note("t", 0, 1, 1);
        offsets.assign(&("t".into(), 0));
        offsets.close(1);
        assert_eq!(done(&offsets), [(0, 2)]);
    }
}
