//! Which partitions to pause.
//!
//! Two reasons. *Memory*: while too much is in flight, or the log refuses, all of them. *Order*: a backlog is read much
//! faster than it was written, and not evenly; where a server's records are spread over partitions, as the Collector
//! spreads them, one partition an hour ahead would make everything of the others late. So no partition runs further
//! ahead of the slowest than the policy's default lateness forgives. One that brings nothing for a while holds nobody.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::partitions::{ByPartition, Partition};

/// How far a partition may be ahead of the slowest, by its records' timestamps: less than the lateness that policies
/// allow by default, 15 s.
const AHEAD_MS_MAX: i64 = 10_000;

/// A partition that has brought nothing for so long is at its end, or its broker is away.
const SILENCE: Duration = Duration::from_secs(1);

/// Of the bound in bytes, what must be left before reading goes on.
const RESUME_SHARE: u64 = 2;

#[derive(Debug)]
struct Head {
    timestamp_ms: i64,
    seen: Instant,
}

/// Keeps readers in step.
#[derive(Debug, Default)]
pub(super) struct Pace {
    heads: ByPartition<Head>,
    paused: BTreeSet<Partition>,
    is_full: bool,
}

/// What to tell the consumer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) pause: Vec<Partition>,
    pub(super) resume: Vec<Partition>,
}

impl Pace {
    /// A record came.
    pub(super) fn saw(&mut self, topic: &str, partition: i32, timestamp_ms: Option<i64>, now: Instant) {
        let Some(timestamp_ms) = timestamp_ms else { return };
        match self.heads.get_mut(topic, partition) {
            Some(head) => {
                head.timestamp_ms = head.timestamp_ms.max(timestamp_ms);
                head.seen = now;
            }
            None => drop(self.heads.get_or_insert(topic, partition, || Head { timestamp_ms, seen: now })),
        }
    }

    /// A partition is ours no longer.
    pub(super) fn forget(&mut self, partition: &Partition) {
        self.heads.remove(partition);
        self.paused.remove(partition);
    }

    /// Partitions paused now.
    pub(super) fn paused(&self) -> usize {
        self.paused.len()
    }

    /// Whether everything is paused for want of room.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// What changes, given what is in flight. `is_blocked`: the log takes nothing at the moment.
    pub(super) fn decide<'p>(
        &mut self,
        assigned: impl Iterator<Item = (&'p str, i32)>,
        held_bytes: u64,
        bytes_max: u64,
        is_blocked: bool,
        now: Instant,
    ) -> Change {
        let bound = if self.is_full { bytes_max / RESUME_SHARE } else { bytes_max };
        self.is_full = is_blocked || held_bytes > bound;
        let slowest = self
            .heads
            .iter()
            .filter(|((topic, partition), head)| {
                now.saturating_duration_since(head.seen) < SILENCE
                    && !self.paused.contains(&((*topic).to_owned(), *partition))
            })
            .map(|(_, head)| head.timestamp_ms)
            .min();
        let mut change = Change::default();
        for (topic, number) in assigned {
            let partition = (topic.to_owned(), number);
            let is_ahead = match (self.heads.get(topic, number), slowest) {
                (Some(head), Some(slowest)) => head.timestamp_ms.saturating_sub(slowest) > AHEAD_MS_MAX,
                _ => false,
            };
            match (self.is_full || is_ahead, self.paused.contains(&partition)) {
                (true, false) => change.pause.push(partition),
                (false, true) => change.resume.push(partition),
                _ => {}
            }
        }
        self.paused.extend(change.pause.iter().cloned());
        for partition in &change.resume {
            self.paused.remove(partition);
            // It has had no chance to bring anything; its silence begins now.
            if let Some(head) = self.heads.get_mut(&partition.0, partition.1) {
                head.seen = now;
            }
        }
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partitions(count: i32) -> Vec<Partition> {
        (0..count).map(|partition| ("t".to_owned(), partition)).collect()
    }

    fn numbers(partitions: &[Partition]) -> Vec<i32> {
        partitions.iter().map(|(_, number)| *number).collect()
    }

    #[test]
    fn memory_pauses_all_and_resumes_at_half() {
        let (mut pace, now, assigned) = (Pace::default(), Instant::now(), partitions(2));
        for (held, blocked, pause, resume) in [
            (100, false, vec![], vec![]),
            (101, false, vec![0, 1], vec![]),
            (51, false, vec![], vec![]),
            (50, false, vec![], vec![0, 1]),
            (0, true, vec![0, 1], vec![]),
            (0, false, vec![], vec![0, 1]),
        ] {
            let change =
                pace.decide(assigned.iter().map(|(topic, number)| (topic.as_str(), *number)), held, 100, blocked, now);
            assert_eq!((numbers(&change.pause), numbers(&change.resume)), (pause, resume), "{held} {blocked}");
        }
    }

    #[test]
    fn who_runs_ahead_waits_for_the_slowest_unless_that_is_silent() {
        let (mut pace, start, assigned) = (Pace::default(), Instant::now(), partitions(2));
        let decide = |pace: &mut Pace, ms: u64| {
            let change = pace.decide(
                assigned.iter().map(|(topic, number)| (topic.as_str(), *number)),
                0,
                100,
                false,
                start + Duration::from_millis(ms),
            );
            (numbers(&change.pause), numbers(&change.resume))
        };
        let at = |ms| start + Duration::from_millis(ms);
        pace.saw("t", 0, Some(1_000), at(0));
        pace.saw("t", 1, Some(1_000 + AHEAD_MS_MAX), at(0));
        assert_eq!(decide(&mut pace, 1), (vec![], vec![]));
        pace.saw("t", 1, Some(1_001 + AHEAD_MS_MAX), at(1));
        assert_eq!(decide(&mut pace, 2), (vec![1], vec![]));
        pace.saw("t", 0, Some(900), at(3));
        assert_eq!(decide(&mut pace, 3), (vec![], vec![]), "a head does not go back");
        pace.saw("t", 0, Some(1_001), at(4));
        assert_eq!(decide(&mut pace, 4), (vec![], vec![1]));
        pace.saw("t", 1, Some(50_000), at(5));
        assert_eq!(decide(&mut pace, 5), (vec![1], vec![]));
        // Partition 0 is at its end: after its silence partition 1 goes on alone.
        assert_eq!(decide(&mut pace, 1_003), (vec![], vec![]));
        assert_eq!(decide(&mut pace, 1_004), (vec![], vec![1]));
        pace.forget(&("t".to_owned(), 1));
        assert_eq!(pace.paused(), 0);
    }
}
