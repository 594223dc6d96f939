//! Where a group begins that has committed nothing: `start: latest`, said once.
//!
//! The library's own `auto.offset.reset=latest` means something else: it skips what there is in every partition without a
//! commit, also in one that was added while the group ran, and in a topic that appeared after its first records. So the
//! library is told `earliest`, and what a new group is to skip is what was there when it was new.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::context::SourceContext;
use super::partitions::{self, Partition};

/// How long a question to the brokers may take.
const ASK: Duration = Duration::from_secs(10);

/// The partitions that there are, if the group has committed nothing in any of them; else none. To be asked before the
/// group is joined: as long as nobody reads, nobody commits.
pub(super) fn before_a_new_group(
    consumer: &BaseConsumer<SourceContext>,
    topics: &[String],
) -> KafkaResult<BTreeSet<Partition>> {
    // What a pattern matches the library alone knows; a partition too many is never assigned.
    let all = topics.iter().any(|topic| topic.starts_with('^'));
    let mut there = BTreeSet::new();
    for topic in if all { &[][..] } else { topics } {
        gather(&mut there, consumer, Some(topic))?;
    }
    if all {
        gather(&mut there, consumer, None)?;
    }
    let is_new = without_commit(consumer, &there)?.len() == there.len();
    Ok(if is_new { there } else { BTreeSet::new() })
}

fn gather(
    there: &mut BTreeSet<Partition>,
    consumer: &BaseConsumer<SourceContext>,
    topic: Option<&str>,
) -> KafkaResult<()> {
    let metadata = consumer.fetch_metadata(topic, ASK)?;
    for topic in metadata.topics() {
        there.extend(topic.partitions().iter().map(|partition| (topic.name().to_owned(), partition.id())));
    }
    Ok(())
}

fn without_commit(
    consumer: &BaseConsumer<SourceContext>,
    partitions: &BTreeSet<Partition>,
) -> KafkaResult<Vec<Partition>> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let committed = consumer.committed_offsets(partitions::list(partitions), ASK)?;
    let mut without = Vec::new();
    for element in committed.elements() {
        element.error()?;
        if !matches!(element.offset(), Offset::Offset(_)) {
            without.push((element.topic().to_owned(), element.partition()));
        }
    }
    Ok(without)
}

/// Commits the end of those of the partitions for which nobody has committed anything: their first owner begins there.
pub(super) fn at_the_end(consumer: &BaseConsumer<SourceContext>, partitions: &BTreeSet<Partition>) -> KafkaResult<()> {
    let mut list = TopicPartitionList::new();
    for (topic, partition) in without_commit(consumer, partitions)? {
        let (_, end) = consumer.fetch_watermarks(&topic, partition, ASK)?;
        list.add_partition_offset(&topic, partition, Offset::Offset(end))?;
    }
    if list.count() == 0 { Ok(()) } else { consumer.commit(&list, CommitMode::Sync) }
}
