//! One numeric row at one tick: the values of both windows, in one pass over the newest samples.
//!
//! This is what the rules are about; the many rows of which there is nothing to be noted take the short way of
//! [`crate::plain`] to the same results. A counter that only rises is a subtraction per window here too. Everything rare
//! (resets without a start time, several start times, end markers, first contact) goes through [`crate::sweep`].

use headroom_model::SeriesKind;
use headroom_model::policy::WindowFunction;

use crate::samples::{NEWEST_KEPT, Row, View, flag, since};
use crate::sweep::{self, Events, Sample, Span, Sweep};

/// The tick as rows need it.
#[derive(Clone, Copy, Debug)]
pub struct TickTimes {
    pub tick_ms: i64,
    pub control_ms: u32,
    pub state_ms: u32,
    /// The last tick; `i64::MIN` before the first.
    pub last_tick_ms: i64,
}

/// Which samples of a row a tick looks at.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// One past the newest sample before the tick.
    pub end: usize,
    /// First sample of the control window.
    pub control: usize,
    /// First sample of the state window.
    pub state: usize,
    /// Length of the row's control window, ms.
    pub control_ms: u32,
    /// Length of the row's state window, ms.
    pub state_ms: u32,
    /// Reporting interval, 0 = unknown.
    pub interval_ms: u32,
}

impl Extent {
    /// The oldest samples are gone.
    pub fn forget(&mut self, count: usize) {
        for at in [&mut self.end, &mut self.control, &mut self.state] {
            *at = at.saturating_sub(count);
        }
    }
}

/// The values of a row; NaN = none.
#[derive(Clone, Copy, Debug)]
pub struct Values {
    pub control: f64,
    pub state: f64,
    /// Samples in the control window.
    pub samples: u32,
    pub events: Events,
}

impl Values {
    pub const NONE: Self = Self {
        control: f64::NAN,
        state: f64::NAN,
        samples: 0,
        events: Events {
            resets: 0,
            gaps: 0,
            overlaps: 0,
            new_resets: 0,
            new_gaps: 0,
            new_overlaps: 0,
            new_unknown_starts: 0,
        },
    };
}

/// How long windows of a row with this interval are at least: two and a half reports.
#[inline]
pub fn stretch_ms(interval_ms: u32) -> u32 {
    interval_ms.saturating_mul(5) / 2
}

/// How many samples a window has at least of a row with this interval, wherever it begins: that of two and a half
/// intervals has two or three, and nobody is late who has sent two. Intervals jitter, so a tenth of one short of the next
/// counts as there. 0 while the interval is unknown.
#[inline]
pub fn expected_samples(window_ms: u32, interval_ms: u32) -> f64 {
    f64::from((f64::from(window_ms) / f64::from(interval_ms) + 0.1) as u32)
}

/// Median of up to the last three gaps before `end`; the lower one of two. 0 with less than two samples.
#[inline(always)]
pub fn interval_of(view: &View<'_>, end: usize) -> u32 {
    usual_gap(end, |at| view.time(at).wrapping_sub(view.time(at - 1)))
}

/// The same of the distances between each sample before `end` and the one before it.
#[inline(always)]
pub fn usual_gap(end: usize, gap: impl Fn(usize) -> u32) -> u32 {
    let gap = |at: usize| gap(at).clamp(1, crate::config::INTERVAL_MAX_MS);
    match end {
        0 | 1 => 0,
        2 => gap(1),
        3 => gap(1).min(gap(2)),
        _ => median(gap(end - 1), gap(end - 2), gap(end - 3)),
    }
}

/// The middle one of three.
#[inline(always)]
fn median(a: u32, b: u32, c: u32) -> u32 {
    a.min(b).max(a.max(b).min(c))
}

/// Finds what the tick looks at.
#[inline(always)]
pub fn extent(row: &Row, view: &View<'_>, times: &TickTimes) -> Extent {
    let tick = times.tick_ms as u32;
    let mut end = usize::from(row.len);
    while end > 0 && since(view.time(end - 1), tick) >= 0 {
        end -= 1;
    }
    // The interval of the last tick decides how much a row must keep; a row that has none yet keeps everything.
    let interval_ms = if row.interval_ms != 0 { row.interval_ms } else { interval_of(view, end) };
    let control_ms = times.control_ms.max(stretch_ms(interval_ms));
    let state_ms = times.state_ms.max(stretch_ms(interval_ms));
    let mut control = end;
    while control > 0 && tick.wrapping_sub(view.time(control - 1)) <= control_ms {
        control -= 1;
    }
    let mut state = control;
    while state > 0 && tick.wrapping_sub(view.time(state - 1)) <= state_ms {
        state -= 1;
    }
    Extent { end, control, state, control_ms, state_ms, interval_ms }
}

/// Buffers of the slow paths.
#[derive(Debug, Default)]
pub struct Scratch {
    pub samples: Vec<Sample>,
    pub sweep: Sweep,
}

/// Whether the sender has ended the series: its newest sample is the marker.
#[inline]
pub fn has_ended(row: &Row, view: &View<'_>, end: usize) -> bool {
    row.flags & flag::MARKER != 0 && end > 0 && view.value(end - 1).is_nan()
}

/// The values of a row under a window function; `None` in both windows where the function makes no sense of the kind.
#[inline(always)]
pub fn evaluate(
    row: &Row,
    view: &View<'_>,
    extent: &Extent,
    function: WindowFunction,
    times: &TickTimes,
    horizon_ms: i64,
    scratch: &mut Scratch,
) -> Values {
    if extent.state == extent.end || has_ended(row, view, extent.end) {
        return Values::NONE;
    }
    if let WindowFunction::Rate | WindowFunction::Increase = function {
        let rate = matches!(function, WindowFunction::Rate);
        return match row.kind {
            SeriesKind::Counter => counter(row, view, extent, rate, times, horizon_ms, scratch),
            SeriesKind::DeltaCounter | SeriesKind::DeltaUpDown => delta(row, view, extent, rate, times, scratch),
            // The derivative of a gauge is the expression's business, if anyone's.
            _ => Values::NONE,
        };
    }
    if row.kind == SeriesKind::DeltaUpDown && !matches!(function, WindowFunction::Count) {
        return Values::NONE;
    }
    let (control, state) = if row.flags & flag::MARKER == 0 {
        level(extent, function, |at| view.value(at))
    } else {
        scratch.samples.clear();
        let (mut control, mut state) = (0, 0);
        for at in extent.state..extent.end {
            let value = view.value(at);
            if !value.is_nan() {
                control += usize::from(at < extent.control);
                state += 1;
                scratch.samples.push(Sample { time_ms: 0, start_ms: 0, value });
            }
        }
        let plain = Extent { state: 0, control, end: state, ..*extent };
        level(&plain, function, |at| scratch.samples[at].value)
    };
    Values { control, state, samples: (extent.end - extent.control) as u32, ..Values::NONE }
}

/// The functions of single values. The state window continues where the control window ends, so that no sample is read
/// twice; the order of the sum is fixed by that.
#[inline(always)]
pub fn level(extent: &Extent, function: WindowFunction, value: impl Fn(usize) -> f64) -> (f64, f64) {
    let some = |value: f64, count: usize| if count > 0 { value } else { f64::NAN };
    match function {
        WindowFunction::Last => {
            let last = if extent.end > extent.state { value(extent.end - 1) } else { f64::NAN };
            (some(last, extent.end - extent.control), last)
        }
        WindowFunction::Mean => both(extent, &value, 0.0, |sum, v| sum + v, |sum, count| sum / count as f64),
        WindowFunction::Min => both(extent, &value, f64::INFINITY, |least, v| if v < least { v } else { least }, some),
        WindowFunction::Max => both(extent, &value, f64::NEG_INFINITY, |most, v| if v > most { v } else { most }, some),
        WindowFunction::Count => {
            let count = |from: usize| some((extent.end - from) as f64, extent.end - from);
            (count(extent.control), count(extent.state))
        }
        WindowFunction::Rate | WindowFunction::Increase | WindowFunction::Quantile(_) => (f64::NAN, f64::NAN),
    }
}

#[inline]
fn both(
    extent: &Extent,
    value: impl Fn(usize) -> f64,
    first: f64,
    step: impl Fn(f64, f64) -> f64,
    finish: impl Fn(f64, usize) -> f64,
) -> (f64, f64) {
    let control = (extent.control..extent.end).fold(first, |sum, at| step(sum, value(at)));
    let state = (extent.state..extent.control).fold(control, |sum, at| step(sum, value(at)));
    (finish(control, extent.end - extent.control), finish(state, extent.end - extent.state))
}

#[inline(always)]
fn counter(
    row: &Row,
    view: &View<'_>,
    extent: &Extent,
    rate: bool,
    times: &TickTimes,
    horizon_ms: i64,
    scratch: &mut Scratch,
) -> Values {
    let Extent { end, control, state, .. } = *extent;
    let gap_ms = if extent.interval_ms == 0 { u32::MAX } else { stretch_ms(extent.interval_ms) };
    let distance = |at: usize| view.time(at).wrapping_sub(view.time(at - 1));
    let plain = state > 0
        && !row.is_wide()
        && row.flags & flag::MARKER == 0
        && (state..end).all(|at| view.value(at) >= view.value(at - 1) && distance(at) <= gap_ms.min(extent.control_ms));
    if plain {
        let (last_value, last_time) = (view.value(end - 1), view.time(end - 1));
        let of = |base: usize| {
            increase_or_rate(last_value - view.value(base), last_time.wrapping_sub(view.time(base)), rate)
        };
        let values = Values { state: of(state - 1), samples: (end - control) as u32, ..Values::NONE };
        return if control < end { Values { control: of(control - 1), ..values } } else { values };
    }
    counter_by_sweep(view, extent, rate, times, horizon_ms, scratch)
}

/// What a counter's increase over a time is under its function.
#[inline(always)]
pub fn increase_or_rate(increase: f64, over_ms: u32, rate: bool) -> f64 {
    if rate { increase * 1_000.0 / f64::from(over_ms) } else { increase }
}

/// The general way, for everything that is not plain.
#[cold]
#[inline(never)]
fn counter_by_sweep(
    view: &View<'_>,
    extent: &Extent,
    rate: bool,
    times: &TickTimes,
    horizon_ms: i64,
    scratch: &mut Scratch,
) -> Values {
    let gap_ms = if extent.interval_ms == 0 { u32::MAX } else { stretch_ms(extent.interval_ms) };
    gather(view, extent, times, &mut scratch.samples);
    let mut result = Values { samples: (extent.end - extent.control) as u32, ..Values::NONE };
    for (window_ms, is_control) in [(extent.state_ms, false), (extent.control_ms, true)] {
        let span = Span {
            from_ms: times.tick_ms - i64::from(window_ms),
            reach_ms: i64::from(window_ms),
            horizon_ms,
            gap_ms: i64::from(gap_ms),
            new_from_ms: times.last_tick_ms,
        };
        scratch.sweep.counter(&scratch.samples, span);
        // The same arithmetic as above: whether a row takes the short way must not show in the last bit.
        let value = match scratch.sweep.increase(&scratch.samples) {
            Some(increase) if rate => increase * 1_000.0 / scratch.sweep.covered_ms as f64,
            Some(increase) => increase,
            None => f64::NAN,
        };
        if is_control {
            result.control = value;
            result.events = scratch.sweep.events;
        } else {
            result.state = value;
        }
    }
    result
}

#[cold]
#[inline(never)]
fn delta(row: &Row, view: &View<'_>, extent: &Extent, rate: bool, times: &TickTimes, scratch: &mut Scratch) -> Values {
    gather_all(view, extent, times, &mut scratch.samples);
    let mut result = Values::NONE;
    for (window_ms, is_control) in [(extent.state_ms, false), (extent.control_ms, true)] {
        let from_ms = times.tick_ms - i64::from(window_ms);
        let step_ms = i64::from(extent.interval_ms);
        let (sum, _) = sweep::deltas(&scratch.samples, from_ms, times.last_tick_ms, row.start_ms, step_ms, |_| {});
        let value = match sum.samples {
            0 => f64::NAN,
            _ if rate && sum.covered_ms > 0 => sum.sum * 1_000.0 / sum.covered_ms as f64,
            _ if rate => f64::NAN,
            _ => sum.sum,
        };
        if is_control {
            (result.control, result.samples, result.events) = (value, sum.samples, sum.events);
        } else {
            result.state = value;
        }
    }
    result
}

/// Oldest sample that a later tick may read: what lies before it is not looked at either, so that it makes no
/// difference whether it has been forgotten yet.
#[inline]
pub fn needed_from(extent: &Extent) -> usize {
    extent.state.saturating_sub(1).min(extent.end.saturating_sub(NEWEST_KEPT))
}

fn gather(view: &View<'_>, extent: &Extent, times: &TickTimes, out: &mut Vec<Sample>) {
    gather_range(view, needed_from(extent)..extent.end, times, out);
}

/// Deltas are forgotten at the tick, so their whole set is what may be read.
pub fn gather_all(view: &View<'_>, extent: &Extent, times: &TickTimes, out: &mut Vec<Sample>) {
    gather_range(view, 0..extent.end, times, out);
}

/// Copies samples with absolute times.
pub fn gather_range(view: &View<'_>, range: std::ops::Range<usize>, times: &TickTimes, out: &mut Vec<Sample>) {
    let tick = times.tick_ms as u32;
    out.clear();
    out.extend(range.map(|at| Sample {
        time_ms: times.tick_ms - i64::from(tick.wrapping_sub(view.time(at))),
        start_ms: view.start(at),
        value: view.value(at),
    }));
}
