//! Which partitions to pause.
//!
//! Two reasons. *Memory*: while too much is in flight, or the log refuses, all of them. *Order*: a backlog is read much
//! faster than it was written, and not evenly; where a server's records are spread over partitions, as the Collector
//! spreads them, one partition an hour ahead would make everything of the others late. So no partition runs further
//! ahead of the slowest than the policy's default lateness forgives.
//!
//! The timestamps are the producers' own, so none may have power over others for long. One that lies in the future says
//! no more than that its record is here. A partition that brings nothing, or nothing newer than before, holds nobody; and
//! one that is still behind after a minute of holding others is left behind: what is fresh does not wait for it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::partitions::{ByPartition, Partition};

/// How far a partition may be ahead of the slowest, by its records' timestamps: less than the lateness that policies
/// allow by default, 15 s.
const AHEAD_MS_MAX: i64 = 10_000;

/// A partition that has brought nothing for so long is at its end, or its broker is away.
const SILENCE: Duration = Duration::from_secs(1);

/// How long a partition may hold the others.
const HOLD_MAX: Duration = Duration::from_secs(60);

/// Of the bound in bytes, what must be left before reading goes on.
const RESUME_SHARE: u64 = 2;

#[derive(Debug)]
struct Head {
    timestamp_ms: i64,
    /// When it last brought something newer than before.
    advanced: Instant,
    /// Since when it has held others without a break.
    holding: Option<Instant>,
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
    /// A record came, when the wall clock said `wall_ms`.
    pub(super) fn saw(&mut self, topic: &str, partition: i32, timestamp_ms: Option<i64>, wall_ms: i64, now: Instant) {
        let Some(timestamp_ms) = timestamp_ms.map(|timestamp_ms| timestamp_ms.min(wall_ms)) else { return };
        match self.heads.get_mut(topic, partition) {
            Some(head) if head.timestamp_ms < timestamp_ms => {
                head.timestamp_ms = timestamp_ms;
                head.advanced = now;
            }
            Some(_) => {}
            None => {
                let head = || Head { timestamp_ms, advanced: now, holding: None };
                self.heads.get_or_insert(topic, partition, head);
            }
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
        let newest = self.heads.iter().map(|(_, head)| head.timestamp_ms).max();
        let slowest = self
            .heads
            .iter()
            .filter(|((topic, partition), head)| {
                now.saturating_duration_since(head.advanced) < SILENCE
                    && head.holding.is_none_or(|since| now.saturating_duration_since(since) < HOLD_MAX)
                    && !self.paused.contains(&((*topic).to_owned(), *partition))
            })
            .map(|(_, head)| head.timestamp_ms)
            .min();
        for head in self.heads.values_mut() {
            let is_behind = newest.is_some_and(|newest| newest.saturating_sub(head.timestamp_ms) > AHEAD_MS_MAX);
            head.holding = if is_behind { head.holding.or(Some(now)) } else { None };
        }
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
                head.advanced = now;
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
        let saw = |pace: &mut Pace, partition, timestamp_ms, ms| {
            pace.saw("t", partition, Some(timestamp_ms), i64::MAX, at(ms));
        };
        saw(&mut pace, 0, 1_000, 0);
        saw(&mut pace, 1, 1_000 + AHEAD_MS_MAX, 0);
        assert_eq!(decide(&mut pace, 1), (vec![], vec![]));
        saw(&mut pace, 1, 1_001 + AHEAD_MS_MAX, 1);
        assert_eq!(decide(&mut pace, 2), (vec![1], vec![]));
        saw(&mut pace, 0, 900, 3);
        assert_eq!(decide(&mut pace, 3), (vec![], vec![]), "a head does not go back");
        saw(&mut pace, 0, 1_001, 4);
        assert_eq!(decide(&mut pace, 4), (vec![], vec![1]));
        saw(&mut pace, 1, 50_000, 5);
        assert_eq!(decide(&mut pace, 5), (vec![1], vec![]));
        // Partition 0 brings nothing newer: after its silence partition 1 goes on alone.
        saw(&mut pace, 0, 1_001, 1_002);
        assert_eq!(decide(&mut pace, 1_003), (vec![], vec![]));
        assert_eq!(decide(&mut pace, 1_004), (vec![], vec![1]));
        pace.forget(&("t".to_owned(), 1));
        assert_eq!(pace.paused(), 0);
    }

    #[test]
    fn a_timestamp_in_the_future_is_the_present() {
        let (mut pace, now, assigned) = (Pace::default(), Instant::now(), partitions(2));
        pace.saw("t", 0, Some(i64::MAX), 100_000, now);
        pace.saw("t", 1, Some(95_000), 100_000, now);
        let change = pace.decide(assigned.iter().map(|(topic, number)| (topic.as_str(), *number)), 0, 100, false, now);
        assert_eq!(change, Change::default());
    }

    #[test]
    fn who_is_far_behind_holds_others_for_a_minute_only() {
        let (mut pace, start, assigned) = (Pace::default(), Instant::now(), partitions(2));
        let mut freed_at = None;
        for second in 0..=62 {
            let now = start + Duration::from_secs(second);
            // Partition 0 works off a backlog of hours, second by second.
            pace.saw("t", 0, Some(second as i64 * 1_000), i64::MAX, now);
            pace.saw("t", 1, Some(9_000_000 + second as i64), i64::MAX, now);
            pace.decide(assigned.iter().map(|(topic, number)| (topic.as_str(), *number)), 0, 100, false, now);
            if second > 1 && pace.paused() == 0 {
                freed_at.get_or_insert(second);
            }
        }
        assert_eq!(freed_at, Some(60));
    }
}
