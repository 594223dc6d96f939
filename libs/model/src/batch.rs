//! A batch of samples: two dictionaries (resources, series) and columns that refer to them.
//!
//! A batch is self-contained, so that a log can be read from any position. The dictionaries make that cheap: a thousand
//! servers that report the same fifty series cost a thousand and fifty entries for fifty thousand rows of 32 bytes. The
//! columns are Arrow buffers: [`SampleBatch::points_record_batch`] is a view, not a copy.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, UInt32Array};
use arrow_buffer::ScalarBuffer;
use arrow_schema::{ArrowError, DataType, Field, Schema};

use crate::resource::Resource;
use crate::series::Series;

/// The value of a point that OTLP flags `NO_RECORDED_VALUE`: the sender says that the series has ended. It is a
/// signalling NaN of its own (the bits Prometheus chose for the same purpose), told apart from a NaN that was measured
/// by its bits.
pub const STALE_NAN: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

/// Whether a value is the end-of-series marker.
pub fn is_stale_marker(value: f64) -> bool {
    value.to_bits() == STALE_NAN.to_bits()
}

/// Numeric points as columns of one length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Points {
    /// Index into [`SampleBatch::resources`].
    pub resource: ScalarBuffer<u32>,
    /// Index into [`SampleBatch::series`].
    pub series: ScalarBuffer<u32>,
    /// Start of the cumulation or of the delta interval, ns since 1970; 0 = the sender did not say.
    pub start_ns: ScalarBuffer<i64>,
    /// Time of the point, ns since 1970.
    pub time_ns: ScalarBuffer<i64>,
    /// The value; integers are converted, exact up to 2^53. NaN and infinities are kept for the engine to count.
    pub value: ScalarBuffer<f64>,
}

/// One histogram point; see [`crate::histogram`] for how buckets are laid out.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramPoint {
    /// Index into [`SampleBatch::resources`].
    pub resource: u32,
    /// Index into [`SampleBatch::series`].
    pub series: u32,
    /// Start of the cumulation or of the delta interval, ns since 1970; 0 = unknown.
    pub start_ns: i64,
    /// Time of the point, ns since 1970.
    pub time_ns: i64,
    /// Number of observations.
    pub count: u64,
    /// Sum of the observations, NaN if not sent.
    pub sum: f64,
    /// Exponential histograms: the scale; 0 for explicit ones.
    pub scale: i32,
    /// Exponential histograms: observations in the zero bucket.
    pub zero_count: u64,
    /// Exponential histograms: index of the first positive bucket.
    pub offset: i32,
    /// Explicit: one more than the bounds. Exponential: the positive buckets from `offset` on.
    pub buckets: Arc<[u64]>,
}

/// Samples of any number of servers and cells of one partition.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SampleBatch {
    /// The resources that rows refer to.
    pub resources: Vec<Arc<Resource>>,
    /// The series that rows refer to.
    pub series: Vec<Arc<Series>>,
    /// Numeric points.
    pub points: Points,
    /// Histogram points.
    pub histograms: Vec<HistogramPoint>,
}

impl SampleBatch {
    /// Number of points, numeric and histogram.
    pub fn len(&self) -> usize {
        self.points.value.len() + self.histograms.len()
    }

    /// Whether the batch has no point.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The batch in parts of at most `rows_max` rows, each with those entries of the dictionaries that it uses. A histogram
    /// counts for as many rows as take its room, and one larger than a part is a part of its own. `rows_max` below 1
    /// counts as 1.
    pub fn split_rows(mut self, rows_max: usize) -> Vec<Self> {
        let (rows, rows_max) = (self.points.value.len(), rows_max.max(1));
        if rows + self.histograms.iter().map(rows_of).sum::<usize>() <= rows_max {
            return vec![self];
        }
        let histograms = std::mem::take(&mut self.histograms);
        let chunks = (0..rows).step_by(rows_max).map(|from| from..rows.min(from + rows_max));
        let mut parts: Vec<Self> = chunks.map(|rows| self.part(rows, Vec::new())).collect();
        let (mut gathered, mut held) = (Vec::new(), 0);
        for histogram in histograms {
            let own = rows_of(&histogram);
            if held + own > rows_max && !gathered.is_empty() {
                parts.push(self.part(0..0, std::mem::take(&mut gathered)));
                held = 0;
            }
            held += own;
            gathered.push(histogram);
        }
        if !gathered.is_empty() {
            parts.push(self.part(0..0, gathered));
        }
        parts
    }

    fn part(&self, rows: Range<usize>, mut histograms: Vec<HistogramPoint>) -> Self {
        let (mut resources, mut series) = (Used::of(&self.resources), Used::of(&self.series));
        let (from, length) = (rows.start, rows.len());
        let points = Points {
            resource: self.points.resource[rows.clone()].iter().map(|at| resources.place(*at)).collect(),
            series: self.points.series[rows].iter().map(|at| series.place(*at)).collect(),
            start_ns: self.points.start_ns.slice(from, length),
            time_ns: self.points.time_ns.slice(from, length),
            value: self.points.value.slice(from, length),
        };
        for histogram in &mut histograms {
            histogram.resource = resources.place(histogram.resource);
            histogram.series = series.place(histogram.series);
        }
        Self { resources: resources.entries, series: series.entries, points, histograms }
    }

    /// The Arrow schema of the numeric points, documented in `schemas/arrow.md`.
    pub fn points_schema() -> Schema {
        Schema::new(vec![
            Field::new("resource", DataType::UInt32, false),
            Field::new("series", DataType::UInt32, false),
            Field::new("start_ns", DataType::Int64, false),
            Field::new("time_ns", DataType::Int64, false),
            Field::new("value", DataType::Float64, false),
        ])
    }

    /// The numeric points as a record batch of [`Self::points_schema`], without copying.
    ///
    /// # Errors
    /// If the columns differ in length, which [`SampleBatchBuilder`] never produces.
    pub fn points_record_batch(&self) -> Result<RecordBatch, ArrowError> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(UInt32Array::new(self.points.resource.clone(), None)),
            Arc::new(UInt32Array::new(self.points.series.clone(), None)),
            Arc::new(Int64Array::new(self.points.start_ns.clone(), None)),
            Arc::new(Int64Array::new(self.points.time_ns.clone(), None)),
            Arc::new(Float64Array::new(self.points.value.clone(), None)),
        ];
        RecordBatch::try_new(Arc::new(Self::points_schema()), columns)
    }
}

/// How many rows take the room of a histogram: four buckets are as large as a row, and the rest is two of them.
fn rows_of(histogram: &HistogramPoint) -> usize {
    2 + histogram.buckets.len().div_ceil(4)
}

/// The entries of a dictionary that a part uses, in the order in which it does.
struct Used<'a, T> {
    all: &'a [Arc<T>],
    entries: Vec<Arc<T>>,
    /// By the place in the whole dictionary.
    places: Vec<Option<u32>>,
}

impl<'a, T> Used<'a, T> {
    fn of(all: &'a [Arc<T>]) -> Self {
        Self { all, entries: Vec::new(), places: vec![None; all.len()] }
    }

    /// The place in the part of the entry `at` of the whole; what is beyond the whole stays beyond the part.
    fn place(&mut self, at: u32) -> u32 {
        let (Some(entry), Some(place)) = (self.all.get(at as usize), self.places.get_mut(at as usize)) else {
            return u32::MAX;
        };
        *place.get_or_insert_with(|| {
            self.entries.push(Arc::clone(entry));
            (self.entries.len() - 1) as u32
        })
    }
}

/// Collects a batch row by row. Dictionaries are the caller's to intern: it knows the cheapest key.
#[derive(Debug, Default)]
pub struct SampleBatchBuilder {
    resources: Vec<Arc<Resource>>,
    series: Vec<Arc<Series>>,
    resource: Vec<u32>,
    series_index: Vec<u32>,
    start_ns: Vec<i64>,
    time_ns: Vec<i64>,
    value: Vec<f64>,
    histograms: Vec<HistogramPoint>,
}

impl SampleBatchBuilder {
    /// An empty builder with room for `points` rows.
    pub fn with_capacity(points: usize) -> Self {
        Self {
            resource: Vec::with_capacity(points),
            series_index: Vec::with_capacity(points),
            start_ns: Vec::with_capacity(points),
            time_ns: Vec::with_capacity(points),
            value: Vec::with_capacity(points),
            ..Self::default()
        }
    }

    /// Adds a resource to the dictionary and returns its index.
    pub fn add_resource(&mut self, resource: Arc<Resource>) -> u32 {
        self.resources.push(resource);
        (self.resources.len() - 1) as u32
    }

    /// Adds a series to the dictionary and returns its index.
    pub fn add_series(&mut self, series: Arc<Series>) -> u32 {
        self.series.push(series);
        (self.series.len() - 1) as u32
    }

    /// Adds a numeric row. `resource` and `series` are indices returned by the two methods above.
    #[inline]
    pub fn push(&mut self, resource: u32, series: u32, start_ns: i64, time_ns: i64, value: f64) {
        self.resource.push(resource);
        self.series_index.push(series);
        self.start_ns.push(start_ns);
        self.time_ns.push(time_ns);
        self.value.push(value);
    }

    /// Adds numeric rows column by column, as many as there are `values`; the other columns must have at least so many.
    pub fn extend(
        &mut self,
        resource: impl Iterator<Item = u32>,
        series: impl Iterator<Item = u32>,
        start_ns: impl Iterator<Item = i64>,
        time_ns: impl Iterator<Item = i64>,
        values: &[f64],
    ) {
        let rows = values.len();
        self.resource.extend(resource.take(rows));
        self.series_index.extend(series.take(rows));
        self.start_ns.extend(start_ns.take(rows));
        self.time_ns.extend(time_ns.take(rows));
        self.value.extend_from_slice(values);
        debug_assert!(
            [self.resource.len(), self.series_index.len(), self.start_ns.len(), self.time_ns.len()]
                .into_iter()
                .all(|length| length == self.value.len())
        );
    }

    /// Adds a histogram row.
    pub fn push_histogram(&mut self, point: HistogramPoint) {
        self.histograms.push(point);
    }

    /// Rows so far.
    pub fn len(&self) -> usize {
        self.value.len() + self.histograms.len()
    }

    /// Whether there is no row yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The finished batch.
    pub fn finish(self) -> SampleBatch {
        SampleBatch {
            resources: self.resources,
            series: self.series,
            points: Points {
                resource: self.resource.into(),
                series: self.series_index.into(),
                start_ns: self.start_ns.into(),
                time_ns: self.time_ns.into(),
                value: self.value.into(),
            },
            histograms: self.histograms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::SeriesKind;

    fn batch(resources: u32, rows: usize, histograms: &[usize]) -> SampleBatch {
        let mut builder = SampleBatchBuilder::default();
        for number in 0..resources {
            let name: Arc<str> = format!("s{number}").into();
            builder.add_resource(Arc::new(Resource {
                server: name.clone(),
                host_names: Vec::new(),
                aliases: Vec::new(),
                cell: name.clone(),
                pool: name.clone(),
                sender: name,
                attributes: Vec::new(),
            }));
        }
        let series = builder.add_series(Arc::new(Series {
            metric: "m".into(),
            unit: "".into(),
            kind: SeriesKind::Gauge,
            attributes: Arc::default(),
            bounds: Arc::default(),
        }));
        (0..rows).for_each(|row| builder.push(row as u32 % resources, series, 0, row as i64, 0.0));
        for (at, buckets) in histograms.iter().enumerate() {
            builder.push_histogram(HistogramPoint {
                resource: at as u32 % resources,
                series,
                start_ns: 0,
                time_ns: at as i64,
                count: 0,
                sum: 0.0,
                scale: 0,
                zero_count: 0,
                offset: 0,
                buckets: vec![0; *buckets].into(),
            });
        }
        builder.finish()
    }

    /// Servers and times of a batch's rows and histograms.
    fn content(batch: &SampleBatch) -> Vec<(String, i64, usize)> {
        let server = |at: u32| batch.resources[at as usize].server.to_string();
        let rows = batch.points.resource.iter().zip(&*batch.points.time_ns).map(|(at, time)| (server(*at), *time, 0));
        let histograms = batch.histograms.iter().map(|h| (server(h.resource), h.time_ns, h.buckets.len()));
        rows.chain(histograms).collect()
    }

    #[test]
    fn parts_hold_what_fits_and_only_the_entries_that_they_use() {
        for (resources, rows, histograms, lengths) in [
            (3, 4, &[][..], &[(4, 0)][..]),
            (3, 5, &[], &[(4, 0), (1, 0)]),
            (9, 9, &[], &[(4, 0), (4, 0), (1, 0)]),
            (1, 2, &[0], &[(2, 1)]),
            (2, 2, &[4, 4, 1], &[(2, 0), (0, 1), (0, 1), (0, 1)]),
            (2, 0, &[0, 0, 400, 0], &[(0, 2), (0, 1), (0, 1)]),
        ] {
            let whole = batch(resources, rows, histograms);
            let parts = whole.clone().split_rows(4);
            let got: Vec<_> = parts.iter().map(|part| (part.points.value.len(), part.histograms.len())).collect();
            assert_eq!(got, lengths, "{rows} rows, {histograms:?}");
            assert_eq!(parts.iter().flat_map(content).collect::<Vec<_>>(), content(&whole));
            if parts.len() > 1 {
                assert!(parts.iter().all(|part| part.resources.len() <= part.len()), "{rows} rows, {histograms:?}");
            }
        }
    }
}
