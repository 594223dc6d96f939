//! Each rule of a window, seen from outside: samples in, a batch out.

mod common;

use std::sync::Arc;

use common::*;
use headroom_model::policy::{Across, Fold, InputSpec, WindowFunction};
use headroom_model::{HistogramPoint, STALE_NAN, SeriesKind};
use headroom_window::{NO_SOURCE, WindowConfig, WindowLimits};

fn simple(function: WindowFunction) -> InputSpec {
    input("x", function, Fold::Sum, Across::First)
}

/// Samples every 10 s from `from` to before `to`, with `value(time)`.
fn every_10(from: i64, to: i64, value: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
    (from..to).step_by(10).map(|t| (t as f64, value(t as f64))).collect()
}

#[test]
fn functions_of_each_kind() {
    use SeriesKind::*;
    use WindowFunction::*;
    // Values 0, 10, 20 … 90 at 0, 10 … 90; the tick is at 100, the control window holds 70, 80, 90.
    let cases = [
        (Gauge, Last, Some(90.0), Some(90.0)),
        (Gauge, Mean, Some(80.0), Some(65.0)),
        (Gauge, Min, Some(70.0), Some(40.0)),
        (Gauge, Max, Some(90.0), Some(90.0)),
        (Gauge, Count, Some(3.0), Some(6.0)),
        (Gauge, Rate, None, None),
        (Gauge, Increase, None, None),
        (Gauge, Quantile(0.5), None, None),
        (Counter, Rate, Some(1.0), Some(1.0)),
        (Counter, Increase, Some(30.0), Some(60.0)),
        (Counter, Last, Some(90.0), Some(90.0)),
        (Counter, Mean, Some(80.0), Some(65.0)),
        (DeltaCounter, Increase, Some(240.0), Some(390.0)),
        (DeltaCounter, Rate, Some(8.0), Some(6.5)),
        (DeltaUpDown, Increase, Some(240.0), Some(390.0)),
        (DeltaUpDown, Last, None, None),
    ];
    for (kind, function, control, state) in cases {
        let mut cell = Cell::one(vec![simple(function)]);
        let series = cell.add_series("x", kind, "");
        cell.send_values(series, &every_10(0, 100, |t| t));
        let batch = cell.close(100);
        assert_eq!(values(&batch, "x", 0), (control, state), "{kind:?} {function:?}");
    }
}

#[test]
fn windows_are_half_open() {
    let mut cell = Cell::one(vec![simple(WindowFunction::Count)]);
    let series = cell.add_series("x", SeriesKind::Gauge, "");
    cell.send_values(
        series,
        &[(39.999, 1.0), (40.0, 1.0), (69.999, 1.0), (70.0, 1.0), (99.998, 1.0), (99.999, 1.0), (100.0, 1.0)],
    );
    let batch = cell.close(100);
    let (control, state) = values(&batch, "x", 0);
    assert_eq!((control, state), (Some(3.0), Some(5.0)));
    assert_eq!(batch.inputs[0].samples, [3]);
    assert!((batch.inputs[0].age_seconds[0] - 0.001).abs() < 1e-6);
    assert_eq!(batch.servers.last_sample_ns[0], ns(99.999));
}

#[test]
fn sources_scale_and_the_first_with_data_wins_per_sender() {
    let mut cell = Cell::new(
        vec![simple(WindowFunction::Last), input("y", WindowFunction::Last, Fold::Sum, Across::Sum)],
        WindowConfig::default(),
        WindowLimits::default(),
        &[(0, "b"), (0, "a"), (1, "a")],
    );
    let (x, xb) = (cell.add_series("x", SeriesKind::Gauge, ""), cell.add_series("x.b", SeriesKind::Gauge, ""));
    let (y, yb) = (cell.add_series("y", SeriesKind::Gauge, ""), cell.add_series("y.b", SeriesKind::Gauge, ""));
    let point = |sender, series, value| Point { sender, series, start: f64::NAN, time: 95.0, value };
    cell.send(&[point(1, xb, 1.0), point(0, x, 2.0), point(2, xb, 3.0)]);
    cell.send(&[point(0, y, 1.0), point(0, yb, 5.0), point(1, yb, 7.0)]);
    let batch = cell.close(100);
    // Sender b has source 0, which goes before source 1 of sender a.
    assert_eq!(values(&batch, "x", 0).0, Some(2.0));
    assert_eq!(values(&batch, "x", 1).0, Some(30.0));
    assert_eq!(batch.inputs[0].source[..3], [0, 1, NO_SOURCE]);
    // Senders add up, each with its first source: 1 + 70.
    assert_eq!(values(&batch, "y", 0).0, Some(71.0));
}

#[test]
fn only_reports_that_a_value_is_made_of_make_it_young() {
    let mut cell = Cell::new(
        vec![simple(WindowFunction::Last), input("y", WindowFunction::Last, Fold::Sum, Across::Sum)],
        WindowConfig::default(),
        WindowLimits::default(),
        &[(0, "a"), (0, "b")],
    );
    let (x, xb) = (cell.add_series("x", SeriesKind::Gauge, ""), cell.add_series("x.b", SeriesKind::Gauge, ""));
    let y = cell.add_series("y", SeriesKind::Gauge, "");
    let point = |sender, series, time| Point { sender, series, start: f64::NAN, time, value: 1.0 };
    // Sender a wins x; what b says later, and what a says by its second source, is not what the value is made of.
    cell.send(&[point(0, x, 80.0), point(1, x, 95.0), point(0, xb, 97.0), point(0, y, 80.0), point(1, y, 95.0)]);
    let batch = cell.close(100);
    assert_eq!([batch.inputs[0].age_seconds[0], batch.inputs[1].age_seconds[0]], [20.0, 5.0]);
    // Nobody has a value any more: how long ago anybody had is all there is to say.
    assert_eq!(cell.close(160).inputs[0].age_seconds[0], 63.0);
}

#[test]
fn sub_series_fold() {
    for (fold, expected) in
        [(Fold::Sum, 9.0), (Fold::Max, 5.0), (Fold::Min, 1.0), (Fold::Mean, 3.0), (Fold::Count, 3.0)]
    {
        let mut cell = Cell::one(vec![input("x", WindowFunction::Last, fold, Across::First)]);
        for (attribute, value) in [("a", 1.0), ("b", 5.0), ("c", 3.0)] {
            let series = cell.add_series("x", SeriesKind::Gauge, attribute);
            cell.send_values(series, &[(95.0, value)]);
        }
        assert_eq!(values(&cell.close(100), "x", 0).0, Some(expected), "{fold:?}");
    }
}

#[test]
fn a_slow_reporter_gets_a_longer_window() {
    let mut cell = Cell::one(vec![simple(WindowFunction::Rate)]);
    let series = cell.add_series("x", SeriesKind::Counter, "");
    cell.send_values(series, &[(5.0, 0.0)]);
    assert_eq!(values(&cell.close(70), "x", 0).0, None);
    cell.send_values(series, &[(65.0, 60.0), (125.0, 120.0)]);
    // Tick 170: the newest sample is 45 s old, outside 30 s, inside 150 s.
    let batch = cell.close(170);
    assert_eq!(values(&batch, "x", 0).0, Some(1.0));
    assert_eq!(batch.servers.interval_seconds[0], 60.0);
}

#[test]
fn not_a_number_is_refused_and_seen() {
    let mut cell = Cell::one(vec![simple(WindowFunction::Mean)]);
    let series = cell.add_series("x", SeriesKind::Gauge, "");
    let seen = cell.send_values(series, &[(85.0, 1.0), (90.0, f64::NAN), (95.0, f64::INFINITY), (97.0, 3.0)]);
    assert_eq!((seen.not_a_number, seen.samples), (2, 2));
    let batch = cell.close(100);
    assert_eq!(values(&batch, "x", 0).0, Some(2.0));
    assert_eq!(batch.servers.quality[0].not_a_number, 1);
    assert_eq!(cell.close(110).servers.quality[0].not_a_number, 0);
}

#[test]
fn an_end_marker_ends_the_row_until_it_comes_back() {
    let mut cell = Cell::one(vec![simple(WindowFunction::Last)]);
    let series = cell.add_series("x", SeriesKind::Gauge, "");
    let seen = cell.send_values(series, &[(95.0, STALE_NAN), (85.0, 1.0)]);
    assert_eq!(seen.ended, 1);
    assert_eq!(values(&cell.close(100), "x", 0), (None, None));
    cell.send_values(series, &[(105.0, 2.0)]);
    assert_eq!(values(&cell.close(110), "x", 0).0, Some(2.0));
    cell.send_values(series, &[(115.0, STALE_NAN)]);
    cell.close(120);
    assert_eq!(cell.store.sizes().rows, 1);
    cell.close(400);
    assert_eq!(cell.store.sizes().rows, 0);
}

#[test]
fn repeats_change_counters_only() {
    let mut cell = Cell::one(vec![simple(WindowFunction::Last)]);
    let series = cell.add_series("x", SeriesKind::Gauge, "");
    let seen = cell.send_values(series, &[(95.0, 1.0), (95.0, 1.0), (95.0, 2.0), (95.0, 1.5)]);
    assert_eq!((seen.samples, seen.duplicates, seen.conflicts), (1, 1, 2));
    assert_eq!(values(&cell.close(100), "x", 0).0, Some(2.0));
}

#[test]
fn late_is_measured_against_the_sender_and_a_backlog_is_not_late() {
    let mut cell = Cell::one(vec![simple(WindowFunction::Count)]);
    let series = cell.add_series("x", SeriesKind::Gauge, "");
    cell.send_values(series, &every_10(0, 100, |_| 1.0));
    cell.close(100);
    // The watermark is 90: 75 is just in time, 74.999 is not.
    let seen = cell.send_values(series, &[(75.0, 1.0), (74.999, 1.0)]);
    assert_eq!((seen.samples, seen.late), (1, 1));
    // An outage until 1000; then everything since comes at once, newest first, before the next tick.
    cell.close(1_000);
    let mut backlog = every_10(100, 1_010, |_| 1.0);
    backlog.reverse();
    let seen = cell.send_values(series, &backlog);
    assert_eq!((seen.samples, seen.late), (91, 0));
    assert_eq!(values(&cell.close(1_010), "x", 0), (Some(3.0), Some(6.0)));
}

#[test]
fn the_future_waits_or_is_refused_beyond_a_bound() {
    for (future_max_ns, at_130, flagged) in [(None, Some(2.0), 0), (Some(20_000_000_000), None, 1)] {
        let config = WindowConfig { future_max_ns };
        let mut cell = Cell::new(vec![simple(WindowFunction::Last)], config, WindowLimits::default(), &[(0, "a")]);
        let series = cell.add_series("x", SeriesKind::Gauge, "");
        cell.send_values(series, &[(95.0, 1.0), (125.0, 2.0)]);
        let batch = cell.close(100);
        assert_eq!(values(&batch, "x", 0).0, Some(1.0));
        assert_eq!(batch.servers.quality[0].future, flagged);
        assert_eq!(cell.store.counters().future, u64::from(flagged));
        assert_eq!(values(&cell.close(130), "x", 0).0, at_130, "{future_max_ns:?}");
    }
}

#[test]
fn a_broken_clock_before_the_first_tick_spoils_only_its_sender() {
    for first in [0, 1] {
        let mut cell = Cell::new(
            vec![simple(WindowFunction::Last)],
            WindowConfig::default(),
            WindowLimits::default(),
            &[(0, "a"), (1, "a")],
        );
        let series = cell.add_series("x", SeriesKind::Gauge, "");
        let good = |sender| Point { sender, series, start: f64::NAN, time: 95.0, value: 1.0 };
        let wild = Point { time: 95.0 + 40.0 * 86_400.0, ..good(0) };
        let mut points = [wild, good(0)];
        points.rotate_left(first);
        cell.send(&points);
        cell.send(&[good(1)]);
        let batch = cell.close(100);
        assert_eq!((values(&batch, "x", 0).0, values(&batch, "x", 1).0), (None, Some(1.0)));
        // From now on it is known what time it is.
        let seen = cell.send(&[Point { time: 105.0 + 40.0 * 86_400.0, ..good(0) }, Point { time: 105.0, ..good(0) }]);
        assert_eq!((seen.out_of_range, seen.samples), (1, 1));
        assert_eq!(values(&cell.close(110), "x", 0).0, Some(1.0));
    }
}

#[test]
fn a_sensor_that_moved_and_stands_still_is_flagged() {
    let flat = |value: &dyn Fn(f64) -> f64| {
        let mut cell = Cell::one(vec![simple(WindowFunction::Last)]);
        let series = cell.add_series("x", SeriesKind::Gauge, "");
        let mut flagged = Vec::new();
        for tick in (10..400).step_by(10) {
            cell.send_values(series, &[(tick as f64 - 5.0, value(tick as f64))]);
            if cell.close(tick).servers.quality[0].flat == 1 {
                flagged.push(tick);
            }
        }
        flagged
    };
    // The value of tick 100 is the first of the run, that of tick 190 the tenth.
    assert_eq!(flat(&|t| t.min(100.0)).first(), Some(&190));
    assert_eq!(flat(&|_| 7.0), Vec::<i64>::new());
    assert_eq!(flat(&|t| t), Vec::<i64>::new());
}

/// The window of a slow reporter has now two and now three of its samples, with none missing.
#[test]
fn coverage_is_full_at_every_tick_of_whoever_sends_all_he_should() {
    for interval in [1.0, 7.0, 10.02, 15.0, 29.0, 60.0] {
        let mut cell = Cell::one(vec![simple(WindowFunction::Last)]);
        let series = cell.add_series("x", SeriesKind::Gauge, "");
        let mut next = 3.0;
        for tick in (10..=600).step_by(10) {
            while next < tick as f64 {
                cell.send_values(series, &[(next, 1.0)]);
                next += interval;
            }
            let coverage = cell.close(tick).servers.coverage[0];
            if next < 3.0 + 1.5 * interval {
                assert!(coverage.is_nan(), "of one sample nothing follows: {coverage} at {tick} of {interval}");
            } else if tick as f64 > 33.0 + 4.0 * interval {
                // Now and then a window of three intervals that are a little too long has only two.
                let least = if interval == 10.02 { 0.6 } else { 1.0 };
                assert!(coverage >= least, "{coverage} at {tick} of {interval}");
            }
        }
    }
}

#[test]
fn coverage_and_gaps_are_seen() {
    let mut cell = Cell::one(vec![simple(WindowFunction::Rate)]);
    let series = cell.add_series("x", SeriesKind::Counter, "");
    cell.send_values(series, &every_10(5, 115, |t| t));
    assert_eq!(cell.close(110).servers.coverage[0], 1.0);
    cell.send_values(series, &[(115.0, 115.0)]);
    let batch = cell.close(140);
    assert!((batch.servers.coverage[0] - 1.0 / 3.0).abs() < 1e-6);
    cell.send_values(series, &[(145.0, 145.0)]);
    let batch = cell.close(150);
    assert_eq!(values(&batch, "x", 0).0, Some(1.0));
    assert_eq!((batch.servers.quality[0].gaps, cell.store.counters().gaps), (1, 1));
}

#[test]
fn resets_and_overlaps_are_counted_once_and_shown_while_in_the_window() {
    let mut cell = Cell::one(vec![simple(WindowFunction::Increase)]);
    let series = cell.add_series("x", SeriesKind::Counter, "");
    cell.send_values(series, &[(65.0, 50.0), (75.0, 60.0), (85.0, 5.0), (95.0, 15.0)]);
    for tick in [100, 110] {
        let batch = cell.close(tick);
        assert_eq!(batch.servers.quality[0].resets, 1);
        assert_eq!(values(&batch, "x", 0).0, Some(if tick == 100 { 25.0 } else { 15.0 }));
    }
    assert_eq!(cell.store.counters().resets, 1);
    let start = |start, time, value| Point { sender: 0, series, start, time, value };
    cell.send(&[start(20.0, 105.0, 1_000.0), start(90.0, 115.0, 7.0), start(20.0, 112.0, 1_010.0)]);
    let batch = cell.close(120);
    assert_eq!(
        batch.servers.quality[0].overlaps, 3,
        "both samples of the writer that ends first, and one without a start"
    );
}

#[test]
fn process_churn_frees_rows_and_series() {
    let mut cell = Cell::one(vec![simple(WindowFunction::Last)]);
    for process in 0..100 {
        let series = cell.add_series("x", SeriesKind::Gauge, &format!("pid-{process}"));
        cell.send_values(series, &[(95.0, 1.0)]);
    }
    assert_eq!(values(&cell.close(100), "x", 0).0, Some(100.0));
    assert_eq!((cell.store.sizes().rows, cell.store.sizes().series), (100, 100));
    let series = cell.add_series("x", SeriesKind::Gauge, "alive");
    for tick in [2_000, 3_700, 3_800] {
        cell.send_values(series, &[(tick as f64 - 5.0, 1.0)]);
        assert_eq!(values(&cell.close(tick), "x", 0).0, Some(1.0));
    }
    assert_eq!((cell.store.sizes().rows, cell.store.sizes().series), (1, 1));
    assert_eq!(cell.store.counters().rows_expired, 100);
}

#[test]
fn limits_refuse_the_new_and_let_in_when_there_is_room() {
    let limits = WindowLimits { rows_per_server_max: 2, series_max: 4, ..WindowLimits::default() };
    let config = WindowConfig::default();
    let mut cell = Cell::new(vec![simple(WindowFunction::Last)], config, limits, &[(0, "a")]);
    for attribute in ["a", "b", "c", "d", "e"] {
        cell.add_series("x", SeriesKind::Gauge, attribute);
    }
    let seen: Vec<_> = (0..5).map(|series| cell.send_values(series, &[(95.0, 1.0)])).collect();
    assert_eq!(seen.iter().map(|s| s.samples).sum::<u64>(), 2);
    assert_eq!(seen.iter().map(|s| s.refused_rows).sum::<u64>(), 2);
    assert_eq!(seen.iter().map(|s| s.refused_series).sum::<u64>(), 1);
    assert_eq!(values(&cell.close(100), "x", 0).0, Some(2.0));
    cell.close(4_000);
    cell.close(4_010);
    assert_eq!(cell.send_values(3, &[(4_015.0, 1.0)]).samples, 1);
}

#[test]
fn a_new_policy_keeps_the_samples_of_what_it_still_reads() {
    let mut cell = Cell::one(vec![simple(WindowFunction::Last)]);
    let (x, y) = (cell.add_series("x", SeriesKind::Gauge, ""), cell.add_series("y", SeriesKind::Gauge, ""));
    cell.send_values(x, &every_10(45, 105, |t| t));
    let seen = cell.send_values(y, &[(95.0, 1.0)]);
    assert_eq!(seen.unmatched, 1);
    cell.close(110);
    let policy = policy(vec![simple(WindowFunction::Mean), input("y", WindowFunction::Last, Fold::Sum, Across::First)]);
    cell.store.set_policy(policy.clone(), Arc::new(ByName(policy)));
    cell.send_values(y, &[(105.0, 4.0)]);
    let batch = cell.close(110);
    assert_eq!((values(&batch, "x", 0).0, values(&batch, "y", 0).0), (Some(90.0), Some(4.0)));
    let report = cell.store.inputs_report();
    let seen: Vec<_> = report.metrics.iter().map(|m| (&*m.metric, m.inputs.len(), m.points, m.senders.len())).collect();
    assert_eq!(seen, [("x", 1, 6, 1), ("y", 1, 2, 1)]);
}

#[test]
fn servers_come_and_go_with_their_rows() {
    let mut cell = Cell::one(vec![simple(WindowFunction::Last)]);
    let series = cell.add_series("x", SeriesKind::Gauge, "");
    cell.send_values(series, &[(95.0, 1.0)]);
    let id = cell.ids[0].unwrap();
    cell.store.move_resource(id, 3);
    let batch = cell.store.close(headroom_model::Timestamp::from_seconds(BEGIN + 100), 5).unwrap();
    assert_eq!((values(&batch, "x", 0).0, values(&batch, "x", 3).0), (None, Some(1.0)));
    cell.store.close_server(3);
    assert_eq!((cell.store.sizes().rows, cell.store.sizes().resources), (0, 0));
    assert_eq!(cell.send_values(series, &[(105.0, 1.0)]).skipped, 1);
}

#[test]
fn series_of_closed_servers_make_room() {
    let limits = WindowLimits { series_max: 1, ..WindowLimits::default() };
    let config = WindowConfig::default();
    let mut cell = Cell::new(vec![simple(WindowFunction::Last)], config, limits, &[(0, "a"), (1, "a")]);
    let (a, b) = (cell.add_series("x", SeriesKind::Gauge, "a"), cell.add_series("x", SeriesKind::Gauge, "b"));
    let point = |sender, series| Point { sender, series, start: f64::NAN, time: 95.0, value: 1.0 };
    assert_eq!(cell.send(&[point(0, a), point(1, b)]).refused_series, 1);
    cell.store.close_server(0);
    cell.close(100);
    assert_eq!(cell.send(&[point(1, b)]).samples, 1);
}

fn histogram_point(series: usize, sender: u32, start: f64, time: f64, buckets: &[u64]) -> HistogramPoint {
    HistogramPoint {
        resource: sender,
        series: series as u32,
        start_ns: if start.is_nan() { 0 } else { ns(start) },
        time_ns: ns(time),
        count: buckets.iter().sum(),
        sum: buckets.iter().sum::<u64>() as f64 * 0.5,
        scale: 0,
        zero_count: 0,
        offset: -1,
        buckets: buckets.into(),
    }
}

#[test]
fn histograms_subtract_fold_and_merge() {
    use WindowFunction::*;
    let inputs = || {
        vec![
            input("q", Quantile(0.5), Fold::Sum, Across::Sum),
            input("n", Count, Fold::Sum, Across::Sum),
            input("r", Rate, Fold::Sum, Across::Sum),
            input("m", Mean, Fold::Max, Across::Max),
        ]
    };
    for (kind, cumulative) in [
        (SeriesKind::Histogram, true),
        (SeriesKind::DeltaHistogram, false),
        (SeriesKind::ExpHistogram, true),
        (SeriesKind::DeltaExpHistogram, false),
    ] {
        let mut cell = Cell::new(inputs(), WindowConfig::default(), WindowLimits::default(), &[(0, "a"), (0, "b")]);
        cell.series.push(series(
            "q+n+r+m",
            kind,
            "",
            if cumulative || kind == SeriesKind::DeltaHistogram { &[1.0, 2.0] } else { &[] },
        ));
        let explicit = matches!(kind, SeriesKind::Histogram | SeriesKind::DeltaHistogram);
        // Ten observations in (1, 2] every ten seconds by each of two senders; a hundred elsewhere before the window.
        for sender in 0..2 {
            for step in 0..10u64 {
                let ten = if cumulative { 10 * step } else { 10 };
                let old = if cumulative || step == 0 { 100 } else { 0 };
                let buckets = if explicit { vec![old, ten, 0] } else { vec![old, ten] };
                let time = step as f64 * 10.0 + 5.0;
                let start = if cumulative { -1_000.0 } else { time - 10.0 };
                let seen = cell.send_histogram(histogram_point(0, sender, start, time, &buckets));
                assert_eq!((seen.samples, seen.malformed), (1, 0), "{kind:?}");
            }
        }
        let batch = cell.close(100);
        assert_eq!(values(&batch, "n", 0), (Some(60.0), Some(120.0)), "{kind:?}");
        assert_eq!(values(&batch, "r", 0).0, Some(2.0), "{kind:?}");
        assert_eq!(values(&batch, "m", 0).0, Some(0.5), "{kind:?}");
        let median = values(&batch, "q", 0).0.unwrap();
        assert!((1.2..1.7).contains(&median), "{kind:?} {median}");
    }
}

#[test]
fn malformed_histograms_and_mixed_kinds_are_counted() {
    let mut cell = Cell::one(vec![input("q", WindowFunction::Quantile(0.5), Fold::Sum, Across::Sum)]);
    cell.series.push(series("q", SeriesKind::Histogram, "", &[1.0, 2.0]));
    assert_eq!(cell.send_histogram(histogram_point(0, 0, 0.0, 95.0, &[1, 2])).malformed, 1);
    assert_eq!(cell.send_values(0, &[(95.0, 1.0)]).kind_mismatch, 1);
    let gauge = cell.add_series("q", SeriesKind::Gauge, "");
    assert_eq!(cell.send_histogram(histogram_point(gauge, 0, 0.0, 95.0, &[1, 2, 3])).kind_mismatch, 1);
    assert_eq!(values(&cell.close(100), "q", 0), (None, None));
}
