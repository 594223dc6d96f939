//! The row that almost every row is, at one tick: samples of one start, of which nothing is to be noted.
//!
//! A tick of a large cell is twenty million times this, so it is written as straight lines over a block of fixed length:
//! the positions in the windows are counts of comparisons, without a branch for each sample, and nothing is written to
//! the row. Whatever would need more (a young row, a reset, a gap, a marker, another interval, a sensor that begins or
//! ceases to move) is answered with `None` before anything happened, and goes the general way of [`crate::numeric`],
//! whose results these are, bit for bit.

use headroom_model::SeriesKind;
use headroom_model::policy::WindowFunction;

use crate::numeric::{Extent, TickTimes, increase_or_rate, level, median, needed_from, stretch_ms};
use crate::samples::{NEWEST_KEPT, Row, View, flag};

/// What a tick finds in a plain row.
#[derive(Clone, Copy, Debug)]
pub struct Plain {
    /// The value over the control window, not scaled; NaN = none.
    pub control: f64,
    /// The value over the state window.
    pub state: f64,
    /// Samples in the control window.
    pub samples: u32,
    /// Length of the row's control window, ms.
    pub control_ms: u32,
    /// Age of the newest sample at the tick, ms.
    pub age_ms: u32,
}

/// The values of a row, if it is a plain one. Samples further ahead of the tick than `future_max_ms` are not plain.
#[inline(always)]
pub fn evaluate(
    row: &Row,
    view: &View<'_>,
    function: WindowFunction,
    times: &TickTimes,
    future_max_ms: Option<i64>,
) -> Option<Plain> {
    // The classes of senders that report every five seconds or slower.
    if let Some((time_words, values)) = view.block::<4, 8>() {
        evaluate_block(row, time_words, values, function, times, future_max_ms)
    } else if let Some((time_words, values)) = view.block::<6, 12>() {
        evaluate_block(row, time_words, values, function, times, future_max_ms)
    } else if let Some((time_words, values)) = view.block::<12, 24>() {
        evaluate_block(row, time_words, values, function, times, future_max_ms)
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
    times: &TickTimes,
    future_max_ms: Option<i64>,
) -> Option<Plain> {
    let is_counter = match function {
        WindowFunction::Rate | WindowFunction::Increase if row.kind == SeriesKind::Counter => true,
        WindowFunction::Last | WindowFunction::Mean | WindowFunction::Min | WindowFunction::Max => false,
        _ => return None,
    };
    let interval_ms = row.interval_ms;
    if row.flags & (flag::MARKER | flag::NOT_A_NUMBER | flag::NEW) != 0 || interval_ms == 0 {
        return None;
    }
    let stretched_ms = stretch_ms(interval_ms);
    let (control_ms, state_ms) = (times.control_ms.max(stretched_ms), times.state_ms.max(stretched_ms));

    // Age less one: a sample at the tick itself, like every later one, gets an age beyond all windows. Its complement is
    // how far the sample is ahead of the tick.
    let before_tick = (times.tick_ms as u32).wrapping_sub(1);
    let age = |at: usize| before_tick.wrapping_sub((time_words[at >> 1] >> ((at & 1) << 5)) as u32);
    let len = usize::from(row.len).min(CAPACITY);
    if len < NEWEST_KEPT || future_max_ms.is_some_and(|max_ms| i64::from(!age(len - 1) as i32) > max_ms) {
        return None;
    }
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
    if end < NEWEST_KEPT || state == 0 || state == end {
        return None;
    }
    let extent = Extent { end, control, state, control_ms, state_ms, interval_ms };

    let gap = |at: usize| age(at - 1).wrapping_sub(age(at)).clamp(1, crate::config::INTERVAL_MAX_MS);
    let fresh = median(gap(end - 1), gap(end - 2), gap(end - 3));
    if fresh.abs_diff(interval_ms) > interval_ms / 16 {
        return None;
    }

    let value = |at: usize| f64::from_bits(values[at]);
    let (control_value, state_value) = if is_counter {
        let longest_ms = stretched_ms.min(control_ms);
        let follows = |at: usize| value(at) >= value(at - 1) && age(at - 1).wrapping_sub(age(at)) <= longest_ms;
        if !(state..end).all(follows) {
            return None;
        }
        let is_rate = matches!(function, WindowFunction::Rate);
        let last = value(end - 1);
        let of = |base: usize| increase_or_rate(last - value(base), age(base).wrapping_sub(age(end - 1)), is_rate);
        (if control < end { of(control - 1) } else { f64::NAN }, of(state - 1))
    } else {
        if row.kind == SeriesKind::Gauge {
            let newest = value(end - 1);
            let moves = (needed_from(&extent)..end - 1).rev().any(|at| value(at) != newest);
            if row.flags & (flag::MOVED | flag::FLAT) != if moves { flag::MOVED } else { flag::FLAT } {
                return None;
            }
        }
        level(&extent, function, value)
    };
    let age_ms = age(end - 1).wrapping_add(1);
    Some(Plain { control: control_value, state: state_value, samples: (end - control) as u32, control_ms, age_ms })
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
            steps in prop::collection::vec((prop::sample::select(vec![10_000u32, 10_000, 10_000, 9_300, 5_000, 40_000]), 0u8..4), 5..24),
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
            if let Some(plain) = evaluate(&row, &view, function, &times, future_max_ms) {
                let extent = numeric::extent(&row, &view, &times);
                let general =
                    numeric::evaluate(&row, &view, &extent, function, &times, i64::MAX, &mut Scratch::default());
                prop_assert_eq!(plain.control.to_bits(), general.control.to_bits());
                prop_assert_eq!(plain.state.to_bits(), general.state.to_bits());
                prop_assert_eq!((plain.samples, general.events), (general.samples, Events::default()));
                prop_assert_eq!(plain.samples as usize, extent.end - extent.control);
                prop_assert_eq!(plain.control_ms, extent.control_ms);
                prop_assert_eq!(plain.age_ms, (times.tick_ms as u32).wrapping_sub(view.time(extent.end - 1)));
                prop_assert!(interval_of(&view, extent.end).abs_diff(row.interval_ms) <= row.interval_ms / 16);
                prop_assert!(extent.state > 0 && flags & flag::NEW == 0);
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
                let plain = evaluate(&row, &store.view(&row), function, &at(i64::from(count) * 10_000), None);
                assert_eq!(
                    plain.map(|plain| (plain.control, plain.age_ms)),
                    Some((control, 10_000)),
                    "{kind:?} {count}"
                );
            }
        }
    }
}
