//! What must hold for any stream: the content depends on which samples came between which ticks and on nothing else, a
//! store read back continues to the bit, and increases equal an oracle that knows every sample.

#![allow(clippy::unwrap_used)] // Helpers of tests are not seen as tests.

mod common;

use std::sync::Arc;

use common::*;
use headroom_model::codec::{Decoder, Encoder};
use headroom_model::policy::{Across, Fold, InputSpec, WindowFunction};
use headroom_model::{HistogramPoint, STALE_NAN, SeriesKind};
use headroom_window::{WindowConfig, WindowLimits, WindowStore};
use proptest::prelude::*;

const TICK_SECONDS: i64 = 10;

fn inputs() -> Vec<InputSpec> {
    let input = |name, function, across| input(name, function, Fold::Sum, across);
    vec![
        input("c", WindowFunction::Rate, Across::First),
        input("ci", WindowFunction::Increase, Across::Sum),
        input("d", WindowFunction::Rate, Across::Sum),
        input("g", WindowFunction::Mean, Across::First),
        input("gm", WindowFunction::Max, Across::Max),
        input("h", WindowFunction::Quantile(0.9), Across::Sum),
    ]
}

fn cell(future_max_ns: Option<i64>) -> Cell {
    let senders = [(0, "a"), (0, "b"), (1, "a")];
    let mut cell = Cell::new(inputs(), WindowConfig { future_max_ns }, WindowLimits::default(), &senders);
    for attribute in ["", "k"] {
        cell.add_series("c+ci", SeriesKind::Counter, attribute);
        cell.add_series("d", SeriesKind::DeltaCounter, attribute);
        cell.add_series("g+gm", SeriesKind::Gauge, attribute);
    }
    cell.add_series("unread", SeriesKind::Gauge, "");
    cell.series.push(series("h", SeriesKind::Histogram, "", &[1.0, 2.0, 4.0]));
    cell
}

/// A point relative to the tick it comes before: sender, series, age, start before its time, value.
#[derive(Clone, Debug)]
struct Offered {
    sender: usize,
    series: usize,
    /// Quarters of a second; negative = future.
    age: i32,
    /// 0 = unknown, else quarters before the time.
    start: u32,
    value: u8,
}

fn offered() -> impl Strategy<Value = Offered> {
    (0..3usize, 0..8usize, prop_oneof![8 => 0..40i32, 2 => 0..400i32, 1 => -200..0i32], 0..60u32, 0..=255u8)
        .prop_map(|(sender, series, age, start, value)| Offered { sender, series, age, start, value })
}

fn stream() -> impl Strategy<Value = Vec<Vec<Offered>>> {
    prop::collection::vec(prop::collection::vec(offered(), 0..60), 1..12)
}

fn send(cell: &mut Cell, tick: i64, points: &[Offered]) {
    let mut numeric = Vec::new();
    for point in points {
        let time = (tick * TICK_SECONDS) as f64 - f64::from(point.age) / 4.0;
        let start = if point.start == 0 { f64::NAN } else { time - f64::from(point.start) / 4.0 };
        if point.series == 7 {
            let v = u64::from(point.value);
            cell.send_histogram(HistogramPoint {
                resource: point.sender as u32,
                series: 7,
                start_ns: if start.is_nan() { 0 } else { ns(start) },
                time_ns: ns(time),
                count: v * 4,
                sum: v as f64,
                scale: 0,
                zero_count: 0,
                offset: 0,
                buckets: [v, v, v + v % 2, v - v % 2].into(),
            });
            continue;
        }
        let value = match point.value {
            0 => f64::NAN,
            1 => STALE_NAN,
            value => f64::from(value) / 3.0,
        };
        // Few different starts, so that epochs have more than one sample.
        let start = if point.series % 3 == 0 { (start / 20.0).floor() * 20.0 } else { start };
        numeric.push(Point { sender: point.sender, series: point.series, start, time, value });
    }
    cell.send(&numeric);
}

fn restored(cell: &Cell) -> WindowStore {
    let mut out = Encoder::default();
    cell.store.encode(&mut out);
    let mut input = Decoder::new(&out.bytes);
    let config = WindowConfig { future_max_ns: Some(20_000_000_000) };
    let matcher = Arc::new(ByName(cell.policy.clone()));
    let resources = |id| cell.ids.iter().position(|known| *known == Some(id)).map(|at| cell.resources[at].clone());
    let store =
        WindowStore::decode(&mut input, WindowLimits::default(), config, cell.policy.clone(), matcher, resources);
    input.finish().unwrap();
    store.unwrap()
}

/// Ticks of a gauge and a counter with these gaps between reports; a store is read back before every tick, and the
/// state window has these seconds from that tick on.
fn grow(gaps: &[f64], policy_at: Option<(usize, i64)>) {
    let (mut live, mut other) = (cell(Some(20_000_000_000)), cell(Some(20_000_000_000)));
    let (mut time, mut tick) = (1_000.5, 100);
    for (at, gap) in gaps.iter().enumerate() {
        time += gap;
        for cell in [&mut live, &mut other] {
            for series in [0, 2] {
                cell.send(&[Point { sender: 0, series, start: f64::NAN, time, value: time * time }]);
            }
            if let Some((_, seconds)) = policy_at.filter(|(when, _)| *when == at) {
                let mut longer = (*cell.policy).clone();
                longer.windows.state_seconds = seconds;
                cell.policy = Arc::new(longer);
                cell.store.set_policy(cell.policy.clone(), Arc::new(ByName(cell.policy.clone())));
            }
        }
        while ((tick * TICK_SECONDS) as f64) < time {
            tick += 1;
        }
        let (a, b) = (live.close(tick * TICK_SECONDS), other.close(tick * TICK_SECONDS));
        assert_eq!(content(&a), content(&b), "report {at}");
        other.store = restored(&other);
    }
}

#[test]
fn windows_that_grow_read_what_a_restored_store_still_has() {
    // Blocks hold eight samples: every phase of what they still have when windows grow.
    for at in 8..18 {
        grow(&[20.0; 20], Some((at, 300)));
        let gaps: Vec<f64> = (0..24).map(|report| if report < at { 20.0 } else { 70.0 }).collect();
        grow(&gaps, None);
        grow(&gaps, Some((at + 1, 600)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn order_batches_repeats_and_restarts_do_not_show(ticks in stream(), seed in any::<u64>(), cut in 1..20usize) {
        let future_max_ns = Some(20_000_000_000);
        let (mut plain, mut other) = (cell(future_max_ns), cell(future_max_ns));
        for (at, points) in ticks.iter().enumerate() {
            let tick = at as i64 + 10;
            send(&mut plain, tick, points);
            // The same, repeated and shuffled, in pieces.
            let mut shuffled: Vec<Offered> = points.iter().chain(points.iter().step_by(2)).cloned().collect();
            let mut random = seed ^ at as u64;
            for i in (1..shuffled.len()).rev() {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                shuffled.swap(i, (random >> 33) as usize % (i + 1));
            }
            for (piece, points) in shuffled.chunks(cut).enumerate() {
                if piece == 1 {
                    other.store = restored(&other);
                }
                send(&mut other, tick, points);
            }
            let (a, b) = (plain.close(tick * TICK_SECONDS), other.close(tick * TICK_SECONDS));
            prop_assert_eq!(content(&a), content(&b), "tick {}", tick);
        }
    }

    #[test]
    fn damaged_bytes_are_an_error(ticks in stream(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut cell = cell(None);
        send(&mut cell, 10, &ticks[0]);
        cell.close(100);
        let mut out = Encoder::default();
        cell.store.encode(&mut out);
        let at = at.index(out.bytes.len());
        let decode = |bytes: &[u8]| {
            let mut input = Decoder::new(bytes);
            WindowStore::decode(
                &mut input,
                WindowLimits::default(),
                WindowConfig::default(),
                cell.policy.clone(),
                Arc::new(ByName(cell.policy.clone())),
                |id| cell.resources.get(id.0 as usize).cloned(),
            )
        };
        prop_assert!(decode(&out.bytes[..at]).is_err());
        out.bytes[at] = byte;
        // Whatever these bytes say, a store that can be read can be ticked.
        if let Ok(mut store) = decode(&out.bytes) {
            prop_assert!(store.close(headroom_model::Timestamp::from_seconds(BEGIN + 110), 2).is_ok());
        }
    }

    /// A counter with true resets, falls without a start time, missing, late and shuffled samples; the oracle replays
    /// all samples of the window and the one before it.
    #[test]
    fn increases_equal_an_oracle(
        steps in prop::collection::vec((0..50u32, 0..12u8, 0..5u8), 10..80),
        starts_known in any::<bool>(),
    ) {
        let mut cell = Cell::one(vec![input("x", WindowFunction::Increase, Fold::Sum, Across::First)]);
        let series = cell.add_series("x", SeriesKind::Counter, "");
        // (arrives before tick, time, start, value)
        let mut sent: Vec<(i64, i64, f64, f64)> = Vec::new();
        let (mut value, mut start) = (1_000.0, 1.0);
        for (at, (step, event, delay)) in steps.iter().enumerate() {
            let time = at as i64 * 5 + 3;
            if *event == 0 {
                value = 0.0;
                start = (time - 1) as f64;
            }
            value += f64::from(*step);
            // One in six is lost, some are two ticks late, which is within what a slow neighbour may be.
            if *event != 1 {
                let tick = time / TICK_SECONDS + 1 + i64::from(*delay == 0 && at > 4);
                sent.push((tick, time, if starts_known { start } else { f64::NAN }, value));
            }
        }
        let last_tick = steps.len() as i64 * 5 / TICK_SECONDS + 3;
        let (mut kept, mut watermark): (Vec<(i64, f64, f64)>, i64) = (Vec::new(), i64::MIN);
        let mut interval_seconds = f32::NAN;
        for tick in 1..=last_tick {
            let now = tick * TICK_SECONDS;
            let mut arrived: Vec<_> = sent.iter().filter(|s| s.0 == tick).copied().collect();
            arrived.reverse();
            let points: Vec<Point> = arrived
                .iter()
                .map(|(_, time, start, value)| Point { sender: 0, series, start: *start, time: *time as f64, value: *value })
                .collect();
            cell.send(&points);
            let in_time = arrived.iter().filter(|(_, time, ..)| watermark == i64::MIN || *time >= watermark - 15);
            kept.extend(in_time.map(|(_, time, start, value)| (*time, *start, *value)));
            kept.sort_by_key(|k| k.0);
            watermark = kept.last().map_or(i64::MIN, |k| k.0);
            let batch = cell.close(now);
            // Samples five seconds apart, at most a few lost: the window is 30 s unless the interval that the last tick
            // saw says more.
            let interval_seconds = std::mem::replace(&mut interval_seconds, batch.servers.interval_seconds[0]);
            if !(0.0..=12.0).contains(&interval_seconds) || tick < 8 {
                continue;
            }
            let from = now - 30;
            let mut expected = None;
            for pair in kept.windows(2) {
                let ((t0, s0, v0), (t1, s1, v1)) = (pair[0], pair[1]);
                let began = starts_known && s0 != s1;
                // After a silence longer than the window only what began since can be told.
                if t1 < from || t0 < from && t1 - t0 > 30 && !began {
                    continue;
                }
                let reset = v1 < v0 || began;
                *expected.get_or_insert(0.0) += if reset { v1 } else { v1 - v0 };
            }
            prop_assert_eq!(values(&batch, "x", 0).0, expected, "tick {}", tick);
        }
    }
}
