//! Batches apart by partition, and small batches together.
//!
//! A request may hold servers of any cells; the log wants one partition per record. And a fleet of SDKs sends ten points
//! at a time, where the log's group commit wants one record. Neither touches a value.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use hashbrown::HashTable;
use headroom_model::hash::partition_of;
use headroom_model::{HistogramPoint, Resource, SampleBatch, SampleBatchBuilder, Series};
use rustc_hash::{FxHashMap, FxHasher};

/// Splits a batch by the partition of its resources' cells, in ascending order. A batch of one partition is handed
/// through as it is. Rows keep their order. `partitions` below 1 counts as 1.
pub fn by_partition(batch: SampleBatch, partitions: u32) -> Vec<(u32, SampleBatch)> {
    let of: Vec<u32> = batch.resources.iter().map(|resource| partition_of(&resource.cell, partitions.max(1))).collect();
    let Some(&first) = of.first() else { return Vec::new() };
    if batch.is_empty() {
        return Vec::new();
    }
    if of.iter().all(|partition| *partition == first) {
        return vec![(first, batch)];
    }
    let mut parts: BTreeMap<u32, Part> = BTreeMap::new();
    let points = &batch.points;
    for row in 0..points.value.len() {
        let (resource, series) = (points.resource[row], points.series[row]);
        let part = parts.entry(of[resource as usize]).or_default();
        let resource = part
            .resources
            .index(resource, || part.builder.add_resource(Arc::clone(&batch.resources[resource as usize])));
        let series = part.series.index(series, || part.builder.add_series(Arc::clone(&batch.series[series as usize])));
        part.builder.push(resource, series, points.start_ns[row], points.time_ns[row], points.value[row]);
    }
    for point in batch.histograms {
        let part = parts.entry(of[point.resource as usize]).or_default();
        let resource = part
            .resources
            .index(point.resource, || part.builder.add_resource(Arc::clone(&batch.resources[point.resource as usize])));
        let series = part
            .series
            .index(point.series, || part.builder.add_series(Arc::clone(&batch.series[point.series as usize])));
        part.builder.push_histogram(HistogramPoint { resource, series, ..point });
    }
    parts.into_iter().map(|(partition, part)| (partition, part.builder.finish())).collect()
}

#[derive(Default)]
struct Part {
    builder: SampleBatchBuilder,
    resources: Renumbering,
    series: Renumbering,
}

/// Old indices to new ones. A map, not a vector: a part may use few of many entries.
#[derive(Default)]
struct Renumbering(FxHashMap<u32, u32>);

impl Renumbering {
    fn index(&mut self, old: u32, add: impl FnOnce() -> u32) -> u32 {
        *self.0.entry(old).or_insert_with(add)
    }
}

/// Puts batches one after the other into one with common dictionaries. Entries are the same if their `Arc` is, which it
/// is for batches of one decoder, or else if they are equal.
pub fn merge(mut batches: Vec<SampleBatch>) -> SampleBatch {
    if batches.len() <= 1 {
        return batches.pop().unwrap_or_default();
    }
    let mut builder = SampleBatchBuilder::with_capacity(batches.iter().map(|batch| batch.points.value.len()).sum());
    let mut resources = Dictionary::default();
    let mut series = Dictionary::default();
    for batch in batches {
        let new_resources: Vec<u32> = batch
            .resources
            .iter()
            .map(|entry| resources.index(entry, hash_resource, |entry| builder.add_resource(entry)))
            .collect();
        let new_series: Vec<u32> = batch
            .series
            .iter()
            .map(|entry| series.index(entry, hash_series, |entry| builder.add_series(entry)))
            .collect();
        let points = &batch.points;
        for row in 0..points.value.len() {
            let resource = new_resources[points.resource[row] as usize];
            let series = new_series[points.series[row] as usize];
            builder.push(resource, series, points.start_ns[row], points.time_ns[row], points.value[row]);
        }
        for point in batch.histograms {
            let (resource, series) = (new_resources[point.resource as usize], new_series[point.series as usize]);
            builder.push_histogram(HistogramPoint { resource, series, ..point });
        }
    }
    builder.finish()
}

/// A dictionary being built. It owns its entries, so that an address stays that of one entry.
struct Dictionary<T> {
    by_address: FxHashMap<usize, u32>,
    by_content: HashTable<(u64, u32)>,
    entries: Vec<Arc<T>>,
}

impl<T> Default for Dictionary<T> {
    fn default() -> Self {
        Self { by_address: FxHashMap::default(), by_content: HashTable::new(), entries: Vec::new() }
    }
}

impl<T: PartialEq> Dictionary<T> {
    fn index(&mut self, entry: &Arc<T>, hash: fn(&T) -> u64, add: impl FnOnce(Arc<T>) -> u32) -> u32 {
        let address = Arc::as_ptr(entry).addr();
        if let Some(at) = self.by_address.get(&address)
            && Arc::ptr_eq(&self.entries[*at as usize], entry)
        {
            return *at;
        }
        let key = hash(entry);
        if let Some((_, at)) = self.by_content.find(key, |(_, at)| *self.entries[*at as usize] == **entry) {
            return *at;
        }
        let at = add(Arc::clone(entry));
        self.entries.push(Arc::clone(entry));
        self.by_address.insert(address, at);
        self.by_content.insert_unique(key, (key, at), |(key, _)| *key);
        at
    }
}

fn hash_resource(resource: &Resource) -> u64 {
    let mut hasher = FxHasher::default();
    (&resource.server, &resource.cell, &resource.sender, &resource.attributes).hash(&mut hasher);
    hasher.finish()
}

fn hash_series(series: &Series) -> u64 {
    let mut hasher = FxHasher::default();
    (&series.metric, series.kind, &series.attributes).hash(&mut hasher);
    series.bounds.iter().for_each(|bound| bound.to_bits().hash(&mut hasher));
    hasher.finish()
}
