//! What the group and the client tell us. The callbacks run inside a poll, on the reader's thread.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::statistics::{self, Statistics};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::beginning;
use super::flight::Flight;
use super::metrics::SourceMetrics;
use super::offsets::Offsets;
use super::pace::Pace;
use super::partitions::Partition;
use super::reader::is_due;

/// How long partitions that move wait for what is under way of them. What is not done then is read again by their next
/// owner, so this is about work done twice, not about loss.
const SETTLE: Duration = Duration::from_secs(3);

/// How often a wait looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What loop and callbacks share. One thread uses it; the lock is for the compiler.
pub(super) struct Shared {
    pub(super) offsets: Offsets,
    pub(super) flight: Flight,
    pub(super) pace: Pace,
    /// The unit that records are gathered in.
    pub(super) staged: u64,
    /// What was there when the group was new, as far as it was not assigned to us yet.
    pub(super) skipped: BTreeSet<Partition>,
}

impl Shared {
    /// Looks at what is in flight and notes what is done.
    pub(super) fn drive(&mut self, now: Instant) {
        for unit in self.flight.drive(now) {
            self.offsets.close(unit);
        }
    }
}

pub(super) struct SourceContext {
    source: String,
    metrics: SourceMetrics,
    shared: Mutex<Shared>,
    /// When an error of a kind was logged last. Without brokers the library tells of each attempt, several a second.
    told: Mutex<BTreeMap<String, Option<Instant>>>,
}

impl SourceContext {
    pub(super) fn new(source: String, metrics: SourceMetrics, flight: Flight) -> Self {
        let shared =
            Shared { offsets: Offsets::default(), flight, pace: Pace::default(), staged: 0, skipped: BTreeSet::new() };
        Self { source, metrics, shared: Mutex::new(shared), told: Mutex::default() }
    }

    pub(super) fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits what is done. Without `waiting` the broker's answer comes to [`ConsumerContext::commit_callback`].
    pub(super) fn commit(&self, consumer: &BaseConsumer<Self>, waiting: bool) {
        let mut shared = self.shared();
        let mut list = TopicPartitionList::new();
        let due = shared.offsets.to_commit();
        for ((topic, partition), offset) in &due {
            let _ = list.add_partition_offset(topic, *partition, Offset::Offset(*offset));
        }
        if due.is_empty() {
            return;
        }
        match consumer.commit(&list, if waiting { CommitMode::Sync } else { CommitMode::Async }) {
            Ok(()) => {
                // Optimistic: an answer that is an error takes it back.
                for (partition, offset) in &due {
                    shared.offsets.committed(partition, *offset);
                }
                if waiting {
                    self.metrics.commit("ok");
                }
            }
            Err(error) => {
                self.metrics.commit("failed");
                tracing::warn!(
                    source = self.source,
                    "offsets were not committed, some records will be read twice: {error}"
                );
            }
        }
    }

    /// Waits until nothing of the partitions is under way, or for [`SETTLE`].
    pub(super) fn settle(&self, partitions: Option<&[Partition]>) {
        let until = Instant::now() + SETTLE;
        loop {
            let mut shared = self.shared();
            let now = Instant::now();
            shared.drive(now);
            let is_busy = match partitions {
                Some(partitions) => partitions.iter().any(|partition| shared.offsets.is_busy(partition, shared.staged)),
                None => !shared.flight.is_empty(),
            };
            if !is_busy || now >= until {
                return;
            }
            drop(shared);
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<Partition> {
    list.elements().iter().map(|element| (element.topic().to_owned(), element.partition())).collect()
}

impl ConsumerContext for SourceContext {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Revoke(list) => {
                let leaving = partitions(list);
                if consumer.assignment_lost() {
                    // Others have them already; a commit would be refused.
                    self.metrics.rebalance("lost");
                    tracing::warn!(
                        source = self.source,
                        partitions = leaving.len(),
                        "partitions were lost: others have them, or their topic was deleted"
                    );
                } else {
                    self.metrics.rebalance("revoked");
                    self.settle(Some(&leaving));
                    self.commit(consumer, true);
                }
                let mut shared = self.shared();
                for partition in &leaving {
                    shared.offsets.revoke(partition);
                    shared.pace.forget(partition);
                    self.metrics.forget_lag(&partition.0, partition.1);
                }
            }
            Rebalance::Assign(list) => {
                self.metrics.rebalance("assigned");
                let coming = partitions(list);
                let mut shared = self.shared();
                for partition in &coming {
                    shared.pace.forget(partition);
                    shared.offsets.assign(partition);
                }
                let skipped: BTreeSet<_> =
                    coming.into_iter().filter(|partition| shared.skipped.remove(partition)).collect();
                drop(shared);
                // Before the library asks where to begin.
                if let Err(error) = beginning::at_the_end(consumer, &skipped) {
                    tracing::error!(
                        source = self.source,
                        "the end of what there is could not be committed; reading begins at the oldest record: {error}"
                    );
                }
            }
            Rebalance::Error(error) => {
                self.metrics.rebalance("error");
                tracing::error!(source = self.source, "the group cannot agree on partitions: {error}");
            }
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let assigned = self.shared().offsets.assigned().count();
        self.metrics.assigned.set(assigned as f64);
        if !matches!(rebalance, Rebalance::Error(_)) {
            tracing::info!(source = self.source, assigned, "partitions changed");
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, list: &TopicPartitionList) {
        match result {
            Ok(()) => self.metrics.commit("ok"),
            Err(error) => {
                self.metrics.commit("failed");
                let mut shared = self.shared();
                for (topic, partition) in partitions(list) {
                    shared.offsets.not_committed(&topic, partition);
                }
                drop(shared);
                tracing::warn!(source = self.source, "offsets were not committed now, which is tried again: {error}");
            }
        }
    }
}

/// Records behind what is committed; as long as nothing is, behind the first record read, or the next to be.
fn lag(partition: &statistics::Partition, first: Option<i64>) -> Option<i64> {
    let begin = first.unwrap_or(partition.next_offset);
    let uncommitted = || (begin >= 0 && partition.hi_offset >= begin).then(|| partition.hi_offset - begin);
    Some(partition.consumer_lag).filter(|lag| *lag >= 0).or_else(uncommitted)
}

impl ClientContext for SourceContext {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        let source = &self.source;
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::error!(source, fac, "{message}");
            }
            RDKafkaLogLevel::Warning => tracing::warn!(source, fac, "{message}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::debug!(source, fac, "{message}"),
            RDKafkaLogLevel::Debug => tracing::trace!(source, fac, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().map_or_else(|| "other".to_owned(), |code| format!("{code:?}"));
        self.metrics.error(&code);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if is_due(told.entry(code).or_default(), Instant::now()) {
            tracing::warn!(source = self.source, "Kafka: {error}: {reason}");
        }
    }

    fn stats(&self, statistics: Statistics) {
        let shared = self.shared();
        for (topic, partition) in shared.offsets.assigned() {
            let found = statistics.topics.get(topic).and_then(|topic| topic.partitions.get(&partition));
            if let Some(lag) = found.and_then(|found| lag(found, shared.offsets.first(topic, partition))) {
                self.metrics.lag(topic, partition, lag);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_commit_the_lag_is_that_behind_the_first_record() {
        let partition = |consumer_lag, next_offset, hi_offset| statistics::Partition {
            consumer_lag,
            next_offset,
            hi_offset,
            ..statistics::Partition::default()
        };
        for (partition, first, expected) in [
            (partition(7, 100, 100), Some(20), Some(7)),
            (partition(-1, 100, 100), Some(20), Some(80)),
            (partition(-1, 90, 100), None, Some(10)),
            (partition(-1, -1001, 100), None, None),
            (partition(-1, 0, -1001), None, None),
        ] {
            assert_eq!(lag(&partition, first), expected, "{partition:?}");
        }
    }
}
