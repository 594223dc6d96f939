//! A map by topic and partition that is looked up without making a key: once per record.

use std::collections::BTreeMap;

use rdkafka::topic_partition_list::TopicPartitionList;

/// A topic and a partition of it.
pub(super) type Partition = (String, i32);

/// As the library takes them.
pub(super) fn list<'a>(partitions: impl IntoIterator<Item = &'a Partition>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (topic, partition) in partitions {
        list.add_partition(topic, *partition);
    }
    list
}

#[derive(Debug)]
pub(super) struct ByPartition<T>(BTreeMap<String, BTreeMap<i32, T>>);

impl<T> Default for ByPartition<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> ByPartition<T> {
    pub(super) fn get(&self, topic: &str, partition: i32) -> Option<&T> {
        self.0.get(topic)?.get(&partition)
    }

    pub(super) fn get_mut(&mut self, topic: &str, partition: i32) -> Option<&mut T> {
        self.0.get_mut(topic)?.get_mut(&partition)
    }

    /// What is there, or what `make` makes.
    pub(super) fn get_or_insert(&mut self, topic: &str, partition: i32, make: impl FnOnce() -> T) -> &mut T {
        self.0.entry(topic.to_owned()).or_default().entry(partition).or_insert_with(make)
    }

    pub(super) fn remove(&mut self, (topic, partition): &Partition) {
        if let Some(partitions) = self.0.get_mut(topic) {
            partitions.remove(partition);
            if partitions.is_empty() {
                self.0.remove(topic);
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = ((&str, i32), &T)> {
        self.0.iter().flat_map(|(topic, partitions)| {
            partitions.iter().map(move |(partition, value)| ((topic.as_str(), *partition), value))
        })
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.values_mut().flat_map(BTreeMap::values_mut)
    }
}
