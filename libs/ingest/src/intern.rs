//! What a decoder remembers: the bytes it has seen, and what they meant.
//!
//! A scrape repeats itself. The same resource comes every ten seconds, byte for byte, and a thousand servers of one
//! kind send the same fifty series in the same order. So the parsed form is kept beside the bytes it came from, and the
//! common point costs one comparison: each series remembers which one followed it last time, and that guess is compared
//! with what is there. Only where the guess fails is anything hashed, and only what was never seen is parsed.
//!
//! * A hit is always confirmed by comparing all bytes: two servers whose bytes collide in the hash stay two.
//! * The hash is seeded per decoder, so that nobody can prepare names that collide.
//! * What was refused is remembered too; a sender without identity costs no more than one with it.
//! * Everything is forgotten when a bound is reached, and only between two requests, so that indices given out during
//!   one stay valid. Inside a request the bounds of the request hold.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use hashbrown::HashTable;
use headroom_model::{Resource, SampleBatchBuilder, Series, SeriesKind};
use rustc_hash::FxHasher;

use crate::limits::IngestLimits;
use crate::report::RejectReason;

/// What a remembered text takes beside its own bytes: the two counts of its `Arc`, the allocator, the table's slot.
const TEXT_OVERHEAD_BYTES: usize = 48;

/// No entry.
pub(crate) const NONE: u32 = u32::MAX;

/// Which of the series of a metric: only summaries become several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The metric's own.
    Plain,
    /// `<name>_count` of a summary.
    Count,
    /// `<name>_sum` of a summary.
    Sum,
    /// A quantile of a summary.
    Quantile,
}

/// A metric as its bytes say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MetricKey<'a> {
    /// Entry of the scope's name.
    pub(crate) scope: u32,
    /// How to read the values.
    pub(crate) kind: SeriesKind,
    /// Which of a summary's series.
    pub(crate) role: Role,
    /// The name as sent.
    pub(crate) name: &'a [u8],
    /// The unit as sent.
    pub(crate) unit: &'a [u8],
}

/// A metric seen before.
#[derive(Debug)]
pub(crate) struct MetricEntry {
    scope: u32,
    kind: SeriesKind,
    role: Role,
    name: Arc<str>,
    unit: Arc<str>,
    hash: u64,
}

impl MetricEntry {
    #[inline]
    fn is(&self, key: &MetricKey<'_>) -> bool {
        self.scope == key.scope
            && self.kind == key.kind
            && self.role == key.role
            && self.name.as_bytes() == key.name
            && self.unit.as_bytes() == key.unit
    }
}

/// A series seen before.
#[derive(Debug)]
pub(crate) struct SeriesEntry {
    pub(crate) metric: u32,
    /// The series that came after this one last time.
    pub(crate) next: u32,
    /// The batch that `index` is of.
    epoch: u64,
    index: u32,
    /// The attribute fields of its points, byte for byte.
    pub(crate) attributes: Box<[u8]>,
    /// Bounds of a histogram, or the quantile of a summary, little-endian.
    extra: Box<[u8]>,
    hash: u64,
    outcome: Result<Arc<Series>, RejectReason>,
}

#[derive(Debug)]
struct ResourceEntry {
    epoch: u64,
    index: u32,
    /// The first series that it sent last time.
    first: u32,
    bytes: Box<[u8]>,
    hash: u64,
    outcome: Result<Arc<Resource>, RejectReason>,
}

/// The memory of one decoder.
#[derive(Debug)]
pub(crate) struct Interner {
    seed: usize,
    epoch: u64,
    cached_bytes: usize,
    created_series: usize,
    created_resources: usize,
    created_names: usize,
    batch_series: usize,
    batch_resources: usize,
    texts: HashTable<Arc<str>>,
    scopes: Vec<Arc<str>>,
    scope_table: HashTable<u32>,
    metrics: Vec<MetricEntry>,
    metric_table: HashTable<u32>,
    series: Vec<SeriesEntry>,
    series_table: HashTable<u32>,
    resources: Vec<ResourceEntry>,
    resource_table: HashTable<u32>,
}

impl Interner {
    /// An empty memory with a seed of its own.
    pub(crate) fn new() -> Self {
        // The only randomness here, and it reaches no output: it decides in which slot of a table something lies.
        let seed = std::hash::RandomState::new().hash_one(0u8) as usize;
        Self {
            seed,
            epoch: 0,
            cached_bytes: 0,
            created_series: 0,
            created_resources: 0,
            created_names: 0,
            batch_series: 0,
            batch_resources: 0,
            texts: HashTable::new(),
            scopes: Vec::new(),
            scope_table: HashTable::new(),
            metrics: Vec::new(),
            metric_table: HashTable::new(),
            series: Vec::new(),
            series_table: HashTable::new(),
            resources: Vec::new(),
            resource_table: HashTable::new(),
        }
    }

    /// Starts a batch: indices of the last one are void, and if a bound is reached, so is everything else.
    pub(crate) fn begin(&mut self, limits: &IngestLimits) {
        let is_full = self.series.len() > limits.cached_series_max
            || self.metrics.len() > limits.cached_series_max
            || self.resources.len() > limits.cached_resources_max
            || self.cached_bytes > limits.cached_bytes_max;
        if is_full {
            *self = Self { seed: self.seed, epoch: self.epoch, ..Self::new() };
        }
        self.epoch += 1;
        self.created_series = 0;
        self.created_resources = 0;
        self.created_names = 0;
        self.batch_series = 0;
        self.batch_resources = 0;
    }

    fn hash(&self, numbers: u64, parts: [&[u8]; 2]) -> u64 {
        hash(self.seed, numbers, parts)
    }

    /// One `Arc` per distinct text.
    pub(crate) fn text(&mut self, text: &str) -> Arc<str> {
        let (seed, key) = (self.seed, self.hash(0, [text.as_bytes(), b""]));
        if let Some(known) = self.texts.find(key, |known| **known == *text) {
            return Arc::clone(known);
        }
        let new: Arc<str> = Arc::from(text);
        self.cached_bytes += text.len() + TEXT_OVERHEAD_BYTES;
        self.texts.insert_unique(key, Arc::clone(&new), |known| hash(seed, 0, [known.as_bytes(), b""]));
        new
    }

    /// The entry of a scope's name; `guess` is a series whose scope it probably is.
    pub(crate) fn scope(&mut self, name: &str, guess: u32, limits: &IngestLimits) -> Result<u32, RejectReason> {
        if let Some(series) = self.series.get(guess as usize) {
            let scope = self.metrics[series.metric as usize].scope;
            if *self.scopes[scope as usize] == *name {
                return Ok(scope);
            }
        }
        let key = self.hash(1, [name.as_bytes(), b""]);
        if let Some(at) = self.scope_table.find(key, |at| *self.scopes[*at as usize] == *name) {
            return Ok(*at);
        }
        self.count_name(limits)?;
        let at = self.scopes.len() as u32;
        let text = self.text(name);
        self.scopes.push(text);
        let (seed, scopes) = (self.seed, &self.scopes);
        self.scope_table.insert_unique(key, at, |at| hash(seed, 1, [scopes[*at as usize].as_bytes(), b""]));
        Ok(at)
    }

    /// Scopes and metrics are bounded like series: a request of empty ones must not fill the memory either.
    fn count_name(&mut self, limits: &IngestLimits) -> Result<(), RejectReason> {
        if self.created_names >= limits.series_per_request_max {
            return Err(RejectReason::TooManySeries);
        }
        self.created_names += 1;
        self.cached_bytes += size_of::<MetricEntry>();
        Ok(())
    }

    /// The name of the scope of a metric.
    pub(crate) fn scope_name(&self, metric: u32) -> &Arc<str> {
        &self.scopes[self.metrics[metric as usize].scope as usize]
    }

    /// The metric of the series `guess` if it is `key`.
    #[inline]
    pub(crate) fn guess_metric(&self, key: &MetricKey<'_>, guess: u32) -> Option<u32> {
        let metric = self.series.get(guess as usize)?.metric;
        self.metrics[metric as usize].is(key).then_some(metric)
    }

    /// The metric seen before under `key`, or the hash to add it with.
    pub(crate) fn find_metric(&self, key: &MetricKey<'_>) -> Result<u32, u64> {
        let numbers = u64::from(key.scope) << 16 | (key.kind as u64) << 8 | key.role as u64;
        let hash = self.hash(numbers, [key.name, key.unit]);
        self.metric_table.find(hash, |at| self.metrics[*at as usize].is(key)).copied().ok_or(hash)
    }

    /// Adds the metric that [`Self::find_metric`] did not find.
    pub(crate) fn add_metric(
        &mut self,
        key: &MetricKey<'_>,
        (name, unit): (&str, &str),
        hash: u64,
        limits: &IngestLimits,
    ) -> Result<u32, RejectReason> {
        self.count_name(limits)?;
        let at = self.metrics.len() as u32;
        let (name, unit) = (self.text(name), self.text(unit));
        self.metrics.push(MetricEntry { scope: key.scope, kind: key.kind, role: key.role, name, unit, hash });
        self.metric_table.insert_unique(hash, at, |at| self.metrics[*at as usize].hash);
        Ok(at)
    }

    /// A metric's name, unit, kind and role.
    pub(crate) fn metric(&self, metric: u32) -> (&Arc<str>, &Arc<str>, SeriesKind, Role) {
        let entry = &self.metrics[metric as usize];
        (&entry.name, &entry.unit, entry.kind, entry.role)
    }

    /// The series of an entry, if there is one of that number.
    #[inline]
    pub(crate) fn series(&self, at: u32) -> Option<&SeriesEntry> {
        self.series.get(at as usize)
    }

    /// Whether the series `guess` is that of these bytes.
    #[inline]
    pub(crate) fn is_series(&self, guess: u32, metric: u32, attributes: &[u8], extra: &[u8]) -> bool {
        self.series
            .get(guess as usize)
            .is_some_and(|s| s.metric == metric && *s.attributes == *attributes && *s.extra == *extra)
    }

    /// The series seen before with these bytes, or the hash to add it with.
    pub(crate) fn find_series(&self, metric: u32, attributes: &[u8], extra: &[u8]) -> Result<u32, u64> {
        let hash = self.hash(u64::from(metric), [attributes, extra]);
        self.series_table.find(hash, |at| self.is_series(*at, metric, attributes, extra)).copied().ok_or(hash)
    }

    /// Whether the request may not create another series.
    pub(crate) fn series_are_full(&self, limits: &IngestLimits) -> bool {
        self.created_series >= limits.series_per_request_max
    }

    /// Adds the series that [`Self::find_series`] did not find.
    pub(crate) fn add_series(
        &mut self,
        metric: u32,
        attributes: &[u8],
        extra: &[u8],
        hash: u64,
        outcome: Result<Arc<Series>, RejectReason>,
    ) -> u32 {
        let at = self.series.len() as u32;
        self.created_series += 1;
        self.cached_bytes += attributes.len() + extra.len() + size_of::<SeriesEntry>();
        self.series.push(SeriesEntry {
            metric,
            next: NONE,
            epoch: 0,
            index: 0,
            attributes: attributes.into(),
            extra: extra.into(),
            hash,
            outcome,
        });
        self.series_table.insert_unique(hash, at, |at| self.series[*at as usize].hash);
        at
    }

    /// Remembers that `series` came after `previous`, or first in `resource` if there is none before it.
    pub(crate) fn link(&mut self, resource: u32, previous: u32, series: u32) {
        if let Some(entry) = self.series.get_mut(previous as usize) {
            entry.next = series;
        } else if let Some(entry) = self.resources.get_mut(resource as usize) {
            entry.first = series;
        }
    }

    /// The index of a series in the batch, which it joins if it is not in it yet.
    #[inline]
    pub(crate) fn series_index(
        &mut self,
        at: u32,
        limits: &IngestLimits,
        builder: &mut SampleBatchBuilder,
    ) -> Result<u32, RejectReason> {
        let entry = &mut self.series[at as usize];
        if entry.epoch == self.epoch {
            return Ok(entry.index);
        }
        let series = entry.outcome.as_ref().map_err(|reason| *reason)?;
        if self.batch_series >= limits.series_per_request_max {
            return Err(RejectReason::TooManySeries);
        }
        self.batch_series += 1;
        entry.index = builder.add_series(Arc::clone(series));
        entry.epoch = self.epoch;
        Ok(entry.index)
    }

    /// The resource seen before with these bytes, or the hash to add it with.
    pub(crate) fn find_resource(&self, bytes: &[u8]) -> Result<u32, u64> {
        let hash = self.hash(2, [bytes, b""]);
        self.resource_table.find(hash, |at| *self.resources[*at as usize].bytes == *bytes).copied().ok_or(hash)
    }

    /// Whether the request may not create another resource.
    pub(crate) fn resources_are_full(&self, limits: &IngestLimits) -> bool {
        self.created_resources >= limits.resources_per_request_max
    }

    /// Adds the resource that [`Self::find_resource`] did not find.
    pub(crate) fn add_resource(
        &mut self,
        bytes: &[u8],
        hash: u64,
        outcome: Result<Arc<Resource>, RejectReason>,
    ) -> u32 {
        let at = self.resources.len() as u32;
        self.created_resources += 1;
        self.cached_bytes += bytes.len() + size_of::<ResourceEntry>();
        self.resources.push(ResourceEntry { epoch: 0, index: 0, first: NONE, bytes: bytes.into(), hash, outcome });
        self.resource_table.insert_unique(hash, at, |at| self.resources[*at as usize].hash);
        at
    }

    /// The series that a resource began with last time, or why it is rejected.
    pub(crate) fn first_series(&self, resource: u32) -> Result<u32, RejectReason> {
        let entry = &self.resources[resource as usize];
        entry.outcome.as_ref().map(|_| entry.first).map_err(|reason| *reason)
    }

    /// The index of a resource in the batch, which it joins if it is not in it yet.
    pub(crate) fn resource_index(
        &mut self,
        at: u32,
        limits: &IngestLimits,
        builder: &mut SampleBatchBuilder,
    ) -> Result<u32, RejectReason> {
        let entry = &mut self.resources[at as usize];
        if entry.epoch == self.epoch {
            return Ok(entry.index);
        }
        let resource = entry.outcome.as_ref().map_err(|reason| *reason)?;
        if self.batch_resources >= limits.resources_per_request_max {
            return Err(RejectReason::TooManyResources);
        }
        self.batch_resources += 1;
        entry.index = builder.add_resource(Arc::clone(resource));
        entry.epoch = self.epoch;
        Ok(entry.index)
    }
}

fn hash(seed: usize, numbers: u64, parts: [&[u8]; 2]) -> u64 {
    let mut hasher = FxHasher::with_seed(seed);
    hasher.write_u64(numbers);
    for part in parts {
        hasher.write(part);
        hasher.write_usize(part.len());
    }
    hasher.finish()
}
