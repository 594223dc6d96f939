//! The row that almost every row is, at one tick: samples of one start, of which nothing is to be noted.
//!
//! A tick of a large cell is twenty million times this, so it is written as straight lines over a block of fixed length,
//! what follows from the times alone is worked out once for all rows of the same times, and nothing is written to the
//! row. Whatever would need more (a young row, a reset, a gap, a marker, another interval, a sensor that begins or
//! ceases to move) is answered with `None` before anything happened, and goes the general way of [`crate::numeric`],
//! whose results these are, bit for bit.

use headroom_model::SeriesKind;
use headroom_model::policy::WindowFunction;

use crate::numeric::{
    Extent, TickTimes, expected_samples, increase_or_rate, level, needed_from, stretch_ms, usual_gap,
};
use crate::samples::{Row, View, flag};

/// What a tick finds in a plain row.
#[derive(Clone, Copy, Debug)]
pub struct Plain {
    /// The value over the control window, not scaled; NaN = none.
    pub control: f64,
    /// The value over the state window.
    pub state: f64,
    /// What its times alone say.
    pub times: RowTimes,
}

/// What the times of a plain row say: the same for all rows that a sender reports together.
#[derive(Clone, Copy, Debug)]
pub struct RowTimes {
    extent: Extent,
    /// Age of the newest sample at the tick, ms.
    pub age_ms: u32,
    /// Samples that the control window would have at the row's interval.
    pub expected: f64,
    /// There is a sample before the state window, and from it on no two lie too far apart for a counter.
    follows: bool,
}

impl RowTimes {
    /// Samples in the control window.
    #[inline(always)]
    pub fn samples(&self) -> u32 {
        (self.extent.end - self.extent.control) as u32
    }
}

/// Words of times in the largest block that is looked at here.
const WORDS_MAX: usize = 12;

/// The times of the last plain row, as they lie in its block, and what they say. A sender stamps all that it reports at
/// once with one time, so that nearly every row has the times of the row before: comparing them costs a quarter of
/// working out where the windows begin.
#[derive(Clone, Copy, Debug)]
pub struct LastTimes {
    words: [u64; WORDS_MAX],
    /// Number of words, length and interval of the row.
    shape: (usize, u8, u32),
    times: RowTimes,
}

impl LastTimes {
    /// Of no row: no row has no interval.
    pub fn none() -> Self {
        let extent = Extent { end: 0, control: 0, state: 0, control_ms: 0, state_ms: 0, interval_ms: 0 };
        let times = RowTimes { extent, age_ms: 0, expected: 0.0, follows: false };
        Self { words: [0; WORDS_MAX], shape: (0, 0, 0), times }
    }
}

/// The values of a row, if it is a plain one. Samples further ahead of the tick than `future_max_ms` are not plain.
#[inline(always)]
pub fn evaluate(
    row: &Row,
    view: &View<'_>,
    function: WindowFunction,
    tick: &TickTimes,
    future_max_ms: Option<i64>,
    last: &mut LastTimes,
) -> Option<Plain> {
    // The classes of senders that report every five seconds or slower.
    if let Some((time_words, values)) = view.block::<4, 8>() {
        evaluate_block(row, time_words, values, function, tick, future_max_ms, last)
    } else if let Some((time_words, values)) = view.block::<6, 12>() {
        evaluate_block(row, time_words, values, function, tick, future_max_ms, last)
    } else if let Some((time_words, values)) = view.block::<12, 24>() {
        evaluate_block(row, time_words, values, function, tick, future_max_ms, last)
    } else {
        None
    }
}

#[inline(always)]
fn evaluate_block<const WORDS: usize, const CAPACITY: usize>(
    row: &Row,
    time_words: &[u64; WORDS],
    values: &[u64; CAPACITY],
    function: WindowFunction,
    tick: &TickTimes,
    future_max_ms: Option<i64>,
    last: &mut LastTimes,
) -> Option<Plain> {
    let is_counter = match function {
        WindowFunction::Rate | WindowFunction::Increase if row.kind == SeriesKind::Counter => true,
        WindowFunction::Last | WindowFunction::Mean | WindowFunction::Min | WindowFunction::Max => false,
        _ => return None,
    };
    if row.flags & (flag::MARKER | flag::NOT_A_NUMBER | flag::NEW) != 0 {
        return None;
    }
    let shape = (WORDS, row.len, row.interval_ms);
    if last.shape != shape || last.words[..WORDS] != *time_words {
        last.times = times::<WORDS, CAPACITY>(row, time_words, tick, future_max_ms)?;
        last.words[..WORDS].copy_from_slice(time_words);
        last.shape = shape;
    }
    let times = last.times;
    let Extent { end, control, state, .. } = times.extent;

    let value = |at: usize| f64::from_bits(values[at]);
    let (control_value, state_value) = if is_counter {
        if !times.follows || !(state..end).all(|at| value(at) >= value(at - 1)) {
            return None;
        }
        let is_rate = matches!(function, WindowFunction::Rate);
        let newest = value(end - 1);
        let age = |at: usize| age(time_words, tick, at);
        let of = |base: usize| increase_or_rate(newest - value(base), age(base).wrapping_sub(age(end - 1)), is_rate);
        (if control < end { of(control - 1) } else { f64::NAN }, of(state - 1))
    } else {
        if row.kind == SeriesKind::Gauge {
            let newest = value(end - 1);
            let moves = (needed_from(&times.extent)..end - 1).rev().any(|at| value(at) != newest);
            if row.flags & (flag::MOVED | flag::FLAT) != if moves { flag::MOVED } else { flag::FLAT } {
                return None;
            }
        }
        level(&times.extent, function, value)
    };
    Some(Plain { control: control_value, state: state_value, times })
}

/// Age of a sample less one: a sample at the tick itself, like every later one, gets an age beyond all windows. Its
/// complement is how far the sample is ahead of the tick.
#[inline(always)]
fn age<const WORDS: usize>(time_words: &[u64; WORDS], tick: &TickTimes, at: usize) -> u32 {
    let time = (time_words[at >> 1] >> ((at & 1) << 5)) as u32;
    (tick.tick_ms as u32).wrapping_sub(1).wrapping_sub(time)
}

/// What the times of a row say, if it may be plain.
#[inline(never)]
fn times<const WORDS: usize, const CAPACITY: usize>(
    row: &Row,
    time_words: &[u64; WORDS],
    tick: &TickTimes,
    future_max_ms: Option<i64>,
) -> Option<RowTimes> {
    let age = |at: usize| age(time_words, tick, at);
    let interval_ms = row.interval_ms;
    let len = usize::from(row.len).min(CAPACITY);
    if interval_ms == 0 || len == 0 || future_max_ms.is_some_and(|max_ms| i64::from(!age(len - 1) as i32) > max_ms) {
        return None;
    }
    let stretched_ms = stretch_ms(interval_ms);
    let (control_ms, state_ms) = (tick.control_ms.max(stretched_ms), tick.state_ms.max(stretched_ms));
    let mut end = len;
    while end > 0 && age(end - 1) >= 1 << 31 {
        end -= 1;
    }
    let mut control = end;
    while control > 0 && age(control - 1) < control_ms {
        control -= 1;
    }
    let mut state = control;
    while state > 0 && age(state - 1) < state_ms {
        state -= 1;
    }
    let gap = |at: usize| age(at - 1).wrapping_sub(age(at));
    let fresh = usual_gap(end, gap);
    if state == end || fresh == 0 || fresh.abs_diff(interval_ms) > interval_ms / 16 {
        return None;
    }
    Some(RowTimes {
        extent: Extent { end, control, state, control_ms, state_ms, interval_ms },
        age_ms: age(end - 1).wrapping_add(1),
        expected: expected_samples(control_ms, interval_ms),
        follows: state > 0 && (state..end).all(|at| gap(at) <= stretched_ms.min(control_ms)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numeric::{self, Scratch, interval_of};
    use crate::samples::Samples;
    use crate::sweep::Events;
    use proptest::prelude::*;

    const FUNCTIONS: [WindowFunction; 8] = [
        WindowFunction::Rate,
        WindowFunction::Increase,
        WindowFunction::Last,
        WindowFunction::Mean,
        WindowFunction::Min,
        WindowFunction::Max,
        WindowFunction::Count,
        WindowFunction::Quantile(0.5),
    ];

    fn row(kind: SeriesKind, samples: &[(u32, f64)]) -> (Samples, Row) {
        let mut store = Samples::default();
        let mut row = store.new_row(0, kind);
        for (time, value) in samples {
            store.insert(&mut row, *time, 7, *value, None);
        }
        let view = store.view(&row);
        row.interval_ms = interval_of(&view, samples.len());
        row.flags = flag::LIVE | flag::MOVED;
        (store, row)
    }

    fn at(tick_ms: i64) -> TickTimes {
        TickTimes { tick_ms, control_ms: 30_000, state_ms: 60_000, last_tick_ms: tick_ms - 10_000 }
    }

    proptest! {
        /// A row that is taken for plain is one of which the general way finds the same, and nothing to note.
        #[test]
        fn plain_rows_are_what_the_general_way_makes_of_them(
            steps in prop::collection::vec((prop::sample::select(vec![10_000u32, 10_000, 10_000, 9_300, 5_000, 40_000]), 0u8..4), 1..24),
            falls in 0u8..8,
            kind in prop::sample::select(vec![SeriesKind::Gauge, SeriesKind::Counter]),
            function in prop::sample::select(FUNCTIONS.to_vec()),
            (behind, beside) in (-5i64..8, -1i64..=1),
            future_max_ms in prop::option::of(prop::sample::select(vec![0i64, 4_999, 5_000, 20_000])),
            flags in prop::sample::select(vec![flag::MOVED, flag::MOVED, flag::FLAT, flag::MOVED | flag::FLAT, 0, flag::NEW]),
        ) {
            let (mut time, mut value) = (u32::MAX - 100_000, 0.1);
            let samples: Vec<(u32, f64)> = steps.iter().map(|(step, rise)| {
                time = time.wrapping_add(*step);
                value += f64::from(*rise) * 1.1 - if falls == 0 { 1.0 } else { 0.0 };
                (time, value)
            }).collect();
            let (store, mut row) = row(kind, &samples);
            row.flags = flag::LIVE | flags;
            let view = store.view(&row);
            // Any number of wraps of the clock away.
            let times = at(i64::from(time) + (3 << 32) + behind * 5_000 + beside);
            let mut last = LastTimes::none();
            let first = evaluate(&row, &view, function, &times, future_max_ms, &mut last);
            // From the times of the row before, which are its own, the same follows.
            let again = evaluate(&row, &view, function, &times, future_max_ms, &mut last);
            prop_assert_eq!(format!("{first:?}"), format!("{again:?}"));
            if let Some(plain) = first {
                let extent = numeric::extent(&row, &view, &times);
                let general =
                    numeric::evaluate(&row, &view, &extent, function, &times, i64::MAX, &mut Scratch::default());
                prop_assert_eq!(plain.control.to_bits(), general.control.to_bits());
                prop_assert_eq!(plain.state.to_bits(), general.state.to_bits());
                prop_assert_eq!((plain.times.samples(), general.events), (general.samples, Events::default()));
                prop_assert_eq!(plain.times.samples() as usize, extent.end - extent.control);
                prop_assert_eq!(plain.times.expected, expected_samples(extent.control_ms, row.interval_ms));
                prop_assert_eq!(plain.times.age_ms, (times.tick_ms as u32).wrapping_sub(view.time(extent.end - 1)));
                prop_assert!(interval_of(&view, extent.end).abs_diff(row.interval_ms) <= row.interval_ms / 16);
                prop_assert_eq!(flags & flag::NEW, 0);
                prop_assert!(extent.state > 0 || !matches!(function, WindowFunction::Rate | WindowFunction::Increase));
                let ahead = i64::from(crate::samples::since(view.time(samples.len() - 1), times.tick_ms as u32));
                prop_assert!(future_max_ms.is_none_or(|max_ms| ahead <= max_ms));
                if kind == SeriesKind::Gauge && !matches!(function, WindowFunction::Rate | WindowFunction::Increase) {
                    let moves = (needed_from(&extent)..extent.end - 1)
                        .any(|at| view.value(at) != view.value(extent.end - 1));
                    prop_assert_eq!(flags, if moves { flag::MOVED } else { flag::FLAT });
                }
            }
        }
    }

    #[test]
    fn what_nearly_every_row_is_is_plain() {
        for (kind, function, control) in [
            (SeriesKind::Counter, WindowFunction::Rate, 0.1),
            (SeriesKind::Gauge, WindowFunction::Mean, 8.0),
            (SeriesKind::Gauge, WindowFunction::Last, 9.0),
        ] {
            for count in [8, 9, 13] {
                let samples: Vec<(u32, f64)> =
                    (0..count).map(|n| (n * 10_000, f64::from(n) + 10.0 - f64::from(count))).collect();
                let (store, row) = row(kind, &samples);
                let times = at(i64::from(count) * 10_000);
                let plain = evaluate(&row, &store.view(&row), function, &times, None, &mut LastTimes::none());
                assert_eq!(
                    plain.map(|plain| (plain.control, plain.times.age_ms)),
                    Some((control, 10_000)),
                    "{kind:?} {count}"
                );
            }
        }
    }
}
