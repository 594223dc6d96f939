//! What a sample measures, in the sender's own words: metric, unit, kind and attributes.
//!
//! Dialects are resolved behind the log (`headroom-catalog`), never before it: last week's log can then be replayed
//! under a policy that reads metrics nobody had thought of last week.

use std::sync::Arc;

/// How the values of a series are to be read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum SeriesKind {
    /// An instantaneous value. Cumulative sums that may fall (OTLP's up-down counters) are gauges too.
    Gauge = 0,
    /// A monotonic sum since the start time.
    Counter = 1,
    /// A monotonic sum of the interval `[start, time)`.
    DeltaCounter = 2,
    /// A change of an up-down counter over `[start, time)`; without its history the level is unknown.
    DeltaUpDown = 3,
    /// Explicit buckets since the start time.
    Histogram = 4,
    /// Explicit buckets of the interval.
    DeltaHistogram = 5,
    /// Exponential buckets since the start time.
    ExpHistogram = 6,
    /// Exponential buckets of the interval.
    DeltaExpHistogram = 7,
}

impl SeriesKind {
    /// Every kind, in the order of its number.
    pub const ALL: [Self; 8] = [
        Self::Gauge,
        Self::Counter,
        Self::DeltaCounter,
        Self::DeltaUpDown,
        Self::Histogram,
        Self::DeltaHistogram,
        Self::ExpHistogram,
        Self::DeltaExpHistogram,
    ];

    /// The kind of a number, if there is one.
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Whether values are histograms, which lie in [`crate::SampleBatch::histograms`] instead of `points`.
    pub fn is_histogram(self) -> bool {
        self as u8 >= Self::Histogram as u8
    }

    /// Whether a value is of an interval of its own rather than since a start.
    pub fn is_delta(self) -> bool {
        matches!(self, Self::DeltaCounter | Self::DeltaUpDown | Self::DeltaHistogram | Self::DeltaExpHistogram)
    }
}

/// A series of a sender, without the sender: shared by all servers that report the same thing.
#[derive(Clone, PartialEq, Debug)]
pub struct Series {
    /// The metric's name as sent.
    pub metric: Arc<str>,
    /// The unit as sent (UCUM), empty if none.
    pub unit: Arc<str>,
    /// How to read the values.
    pub kind: SeriesKind,
    /// The data point's attributes as text, sorted by key.
    pub attributes: Arc<[(Arc<str>, Arc<str>)]>,
    /// Upper bounds of the explicit buckets, ascending; empty unless the kind is an explicit histogram.
    pub bounds: Arc<[f64]>,
}

impl Series {
    /// The value of an attribute, if the sender gave it.
    pub fn attribute(&self, key: &str) -> Option<&str> {
        self.attributes.binary_search_by(|(k, _)| (**k).cmp(key)).ok().map(|at| &*self.attributes[at].1)
    }
}
