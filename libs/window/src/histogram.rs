//! Histogram rows: raw snapshots sorted by time, subtracted and folded at the tick.
//!
//! A snapshot is kept as it was sent, sharing the buckets of the batch. Only at the tick are the buckets of an epoch's
//! first snapshot subtracted from those of its last and the difference folded into an [`ExpHistogram`]: layouts may
//! change in between, order and repeats cannot matter, and the fold runs over buckets in ascending order.

use std::cmp::Ordering;
use std::sync::Arc;

use headroom_model::histogram::ExpHistogram;
use headroom_model::{HistogramPoint, Series, SeriesKind};

use crate::config::{BUCKETS_PER_POINT_MAX, BUCKETS_PER_ROW_MAX, EXPONENTIAL_BUCKETS, SAMPLES_PER_ROW_MAX};
use crate::numeric::{TickTimes, stretch_ms};
use crate::samples::{Insertion, NEWEST_KEPT};
use crate::sweep::{self, Events, Sample, Span, Sweep};

/// One snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    pub time_ms: i64,
    /// 0 = unknown.
    pub start_ms: i64,
    /// `None` is the end-of-series marker.
    pub data: Option<Buckets>,
}

/// What a snapshot counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Buckets {
    pub count: u64,
    pub sum: f64,
    pub scale: i32,
    pub zero: u64,
    pub offset: i32,
    pub buckets: Arc<[u64]>,
}

/// A histogram sub-series of a resource.
#[derive(Clone, Debug)]
pub struct HistogramRow {
    pub series: u32,
    pub resource: u32,
    pub kind: SeriesKind,
    pub flags: u8,
    /// Reporting interval as of the last tick, 0 = unknown.
    pub interval_ms: u32,
    /// Last sign of life while there is no snapshot, ms.
    pub seen_ms: i64,
    /// Deltas: end of the last kept interval before those in the set.
    pub floor_ms: i64,
    /// Sorted by time and start.
    pub snapshots: Vec<Snapshot>,
    /// How many there may be, an even number that follows from the series.
    pub snapshots_max: usize,
}

/// How many snapshots a row of this series keeps. It must not depend on what has arrived, or the order of arrival would
/// show in what is left out.
pub fn snapshots_max(series: &Series) -> usize {
    let buckets = match series.kind {
        SeriesKind::Histogram | SeriesKind::DeltaHistogram => series.bounds.len() + 1,
        _ => EXPONENTIAL_BUCKETS,
    };
    (BUCKETS_PER_ROW_MAX / buckets).clamp(8, SAMPLES_PER_ROW_MAX) / 2 * 2
}

/// What a window of a histogram row adds up to.
#[derive(Clone, Debug, Default)]
pub struct HistogramSum {
    pub count: f64,
    pub sum: f64,
    pub covered_ms: i64,
    pub any: bool,
    pub samples: u32,
    pub events: Events,
}

/// Whether a point's buckets fit its series.
pub fn is_well_formed(point: &HistogramPoint, series: &Series) -> bool {
    if point.buckets.len() > BUCKETS_PER_POINT_MAX {
        return false;
    }
    match series.kind {
        SeriesKind::Histogram | SeriesKind::DeltaHistogram => {
            (point.buckets.is_empty() || point.buckets.len() == series.bounds.len() + 1)
                && series.bounds.windows(2).all(|pair| pair[0] < pair[1])
        }
        SeriesKind::ExpHistogram | SeriesKind::DeltaExpHistogram => {
            (-16..=24).contains(&point.scale) && point.offset.checked_add(point.buckets.len() as i32).is_some()
        }
        _ => false,
    }
}

fn content_order(a: &Snapshot, b: &Snapshot) -> Ordering {
    let key = |s: &Snapshot| s.data.as_ref().map(|d| (d.count, d.sum.to_bits(), d.scale, d.zero, d.offset));
    key(a).cmp(&key(b)).then_with(|| match (&a.data, &b.data) {
        (Some(a), Some(b)) => a.buckets.cmp(&b.buckets),
        _ => Ordering::Equal,
    })
}

impl HistogramRow {
    /// Adds a snapshot to the set, by the rules of [`crate::samples::Samples::insert`].
    pub fn insert(&mut self, snapshot: Snapshot) -> Insertion {
        let key = (snapshot.time_ms, snapshot.start_ms);
        let at = match self.snapshots.binary_search_by(|held| (held.time_ms, held.start_ms).cmp(&key)) {
            Ok(at) => {
                let held = &mut self.snapshots[at];
                return match content_order(held, &snapshot) {
                    Ordering::Equal => Insertion::Duplicate,
                    Ordering::Greater => Insertion::Conflict,
                    Ordering::Less => {
                        *held = snapshot;
                        Insertion::Conflict
                    }
                };
            }
            Err(at) => at,
        };
        self.snapshots.insert(at, snapshot);
        if self.snapshots.len() > self.snapshots_max {
            self.snapshots.remove(self.snapshots_max / 2);
            return Insertion::Thinned;
        }
        Insertion::New
    }

    /// One past the newest snapshot before the tick.
    pub fn end(&self, tick_ms: i64) -> usize {
        self.snapshots.partition_point(|snapshot| snapshot.time_ms < tick_ms)
    }

    /// Median of up to the last three gaps before `end`, as for numeric rows.
    pub fn interval_of(&self, end: usize) -> u32 {
        let mut gaps: Vec<i64> = self.snapshots[end.saturating_sub(NEWEST_KEPT)..end]
            .windows(2)
            .map(|pair| (pair[1].time_ms - pair[0].time_ms).clamp(1, i64::from(crate::config::INTERVAL_MAX_MS)))
            .collect();
        gaps.sort_unstable();
        if gaps.is_empty() { 0 } else { gaps[(gaps.len() - 1) / 2] as u32 }
    }

    /// The interval in force at a tick.
    pub fn interval_at(&self, end: usize) -> u32 {
        if self.interval_ms != 0 { self.interval_ms } else { self.interval_of(end) }
    }

    /// Adds up a window of at least `window_ms` and folds its buckets, scaled, into `into`.
    #[allow(clippy::too_many_arguments)] // One call site; the parts have nothing in common to be a struct of.
    pub fn add_window(
        &self,
        series: &Series,
        scale: f64,
        window_ms: u32,
        times: &TickTimes,
        horizon_ms: i64,
        samples: &mut Vec<Sample>,
        sweep: &mut Sweep,
        into: &mut ExpHistogram,
    ) -> HistogramSum {
        let end = self.end(times.tick_ms);
        let mut result = HistogramSum::default();
        if end == 0 || self.snapshots[end - 1].data.is_none() {
            return result;
        }
        let interval_ms = self.interval_at(end);
        let window_ms = i64::from(window_ms.max(stretch_ms(interval_ms)));
        let from_ms = times.tick_ms - window_ms;
        samples.clear();
        samples.extend(self.snapshots[..end].iter().map(|snapshot| Sample {
            time_ms: snapshot.time_ms,
            start_ms: snapshot.start_ms,
            value: snapshot.data.as_ref().map_or(f64::NAN, |data| data.count as f64),
        }));
        let mut fold = |first: Option<&Buckets>, last: &Buckets| {
            result.any = true;
            result.count += last.count.saturating_sub(first.map_or(0, |first| first.count)) as f64;
            result.sum += (last.sum - first.map_or(0.0, |first| first.sum)) * scale;
            fold_difference(series, scale, first, last, into);
        };
        if self.kind.is_delta() {
            let step_ms = i64::from(interval_ms);
            for sample in samples.iter_mut().filter(|sample| sample.start_ms == 0) {
                sample.start_ms = sample.time_ms;
            }
            let (sum, _) = sweep::deltas(samples, from_ms, times.last_tick_ms, self.floor_ms, step_ms, |at| {
                if let Some(data) = &self.snapshots[at].data {
                    fold(None, data);
                }
            });
            (result.covered_ms, result.samples, result.events) = (sum.covered_ms, sum.samples, sum.events);
            return result;
        }
        let gap_ms = if interval_ms == 0 { i64::MAX } else { i64::from(stretch_ms(interval_ms)) };
        let span = Span { from_ms, reach_ms: window_ms, horizon_ms, gap_ms, new_from_ms: times.last_tick_ms };
        sweep.counter(samples, span);
        if sweep.covered_ms > 0 {
            for segment in &sweep.segments {
                let first = segment.base.and_then(|base| self.snapshots[base].data.as_ref());
                if let Some(last) = &self.snapshots[segment.last].data {
                    fold(first, last);
                }
            }
        }
        result.covered_ms = sweep.covered_ms;
        result.events = sweep.events;
        result.samples = samples.iter().filter(|sample| sample.time_ms >= from_ms).count() as u32;
        result
    }
}

/// Folds `last - first` bucket by bucket.
fn fold_difference(series: &Series, scale: f64, first: Option<&Buckets>, last: &Buckets, into: &mut ExpHistogram) {
    if matches!(series.kind, SeriesKind::Histogram | SeriesKind::DeltaHistogram) {
        let mut low = 0.0_f64;
        for (at, count) in last.buckets.iter().enumerate() {
            let before = first.and_then(|first| first.buckets.get(at)).copied().unwrap_or(0);
            let high = series.bounds.get(at).copied().unwrap_or(f64::INFINITY);
            into.add_range(low * scale, high * scale, count.saturating_sub(before) as f64);
            low = high.max(0.0);
        }
        return;
    }
    into.add_zero(last.zero.saturating_sub(first.map_or(0, |first| first.zero)) as f64);
    // Cumulative exponential histograms grow coarser as they go: compare both in the coarser layout.
    let coarse = first.map_or(last.scale, |first| first.scale.min(last.scale));
    let mut counts: Vec<(i32, u64)> = Vec::with_capacity(last.buckets.len());
    for (index, count) in indexed(last, coarse) {
        match counts.last_mut() {
            Some((held, sum)) if *held == index => *sum = sum.saturating_add(count),
            _ => counts.push((index, count)),
        }
    }
    if let Some(first) = first {
        for (index, count) in indexed(first, coarse) {
            if let Ok(at) = counts.binary_search_by_key(&index, |(held, _)| *held) {
                counts[at].1 = counts[at].1.saturating_sub(count);
            }
        }
    }
    let width = 2f64.powi(-coarse);
    for (index, count) in counts {
        if scale == 1.0 {
            into.add_bucket(coarse, index, count as f64);
        } else {
            let edge = |index: f64| (index * width).exp2() * scale;
            into.add_range(edge(f64::from(index)), edge(f64::from(index) + 1.0), count as f64);
        }
    }
}

/// Buckets of a snapshot with their indices at a coarser scale, ascending.
fn indexed(buckets: &Buckets, coarse: i32) -> impl Iterator<Item = (i32, u64)> {
    let by = buckets.scale.saturating_sub(coarse).clamp(0, 31);
    buckets.buckets.iter().enumerate().map(move |(at, count)| (buckets.offset.saturating_add(at as i32) >> by, *count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(scale: i32, offset: i32, counts: &[u64]) -> Buckets {
        Buckets { count: counts.iter().sum(), sum: 0.0, scale, zero: 0, offset, buckets: counts.into() }
    }

    #[test]
    fn exponential_snapshots_of_two_scales_are_compared_in_the_coarser() {
        let series = Series {
            metric: "m".into(),
            unit: "s".into(),
            kind: SeriesKind::ExpHistogram,
            attributes: [].into(),
            bounds: [].into(),
        };
        let (first, last) = (buckets(1, -2, &[1, 1, 1, 1]), buckets(0, -1, &[2, 12]));
        let mut into = ExpHistogram::default();
        fold_difference(&series, 1.0, Some(&first), &last, &mut into);
        assert_eq!(into.count(), 10.0);
        assert!((1.0..=2.0).contains(&into.quantile(0.5).unwrap()));
    }

    #[test]
    fn many_buckets_make_few_snapshots_in_whatever_order_they_come() {
        let series = |kind, bounds: usize| Series {
            metric: "m".into(),
            unit: "s".into(),
            kind,
            attributes: [].into(),
            bounds: (0..bounds).map(|bound| bound as f64).collect(),
        };
        for (kind, bounds, expected) in [
            (SeriesKind::Histogram, 14, SAMPLES_PER_ROW_MAX),
            (SeriesKind::DeltaHistogram, 1_023, 32),
            (SeriesKind::ExpHistogram, 0, 102),
        ] {
            assert_eq!(snapshots_max(&series(kind, bounds)), expected, "{bounds}");
        }
        let kept = |times: &mut dyn Iterator<Item = i64>| {
            let mut row = HistogramRow {
                series: 0,
                resource: 0,
                kind: SeriesKind::Histogram,
                flags: 0,
                interval_ms: 0,
                seen_ms: 0,
                floor_ms: i64::MIN,
                snapshots: Vec::new(),
                snapshots_max: snapshots_max(&series(SeriesKind::Histogram, 1_023)),
            };
            for time_ms in times {
                row.insert(Snapshot { time_ms, start_ms: 0, data: Some(buckets(0, 0, &[1])) });
            }
            row.snapshots.iter().map(|snapshot| snapshot.time_ms).collect::<Vec<_>>()
        };
        let ends: Vec<i64> = (0..16).chain(84..100).collect();
        assert_eq!(kept(&mut (0..100)), ends);
        assert_eq!(kept(&mut (0..100).rev()), ends);
        assert_eq!(kept(&mut (0..100).map(|at| at * 37 % 100)), ends);
    }
}
