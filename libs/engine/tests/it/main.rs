//! Scenarios against the engine, each under every variation that must not change a published byte.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

use std::sync::Arc;

use headroom_engine::{EngineConfig, Partition};
use headroom_model::frame::flag;
use headroom_model::{SampleBatch, SampleBatchBuilder, Timestamp};
use headroom_testkit::{BASE_SECONDS, Event, Scenario, Variation, compile, run};

mod backlog;
mod bounds;
mod departure;
mod forms;

/// Runs the scenario as written and demands what it states; then demands the same bytes of every other way in which the
/// same samples can reach the engine between the same ticks.
fn check(text: &str) {
    let scenario = Scenario::parse(text).unwrap();
    let plain = run(&scenario, Variation::Plain).unwrap();
    assert_eq!(plain.failures, Vec::<String>::new());
    assert!(!plain.published.is_empty(), "nothing was published");
    for variation in
        [Variation::OneBatch, Variation::Shuffled(1), Variation::Shuffled(2), Variation::Repeated(3), Variation::Killed]
    {
        let varied = run(&scenario, variation).unwrap();
        assert_eq!(varied.failures, Vec::<String>::new(), "{variation:?}");
        assert_eq!(varied.published.len(), plain.published.len(), "{variation:?}");
        for (at, (varied, plain)) in varied.published.iter().zip(&plain.published).enumerate() {
            assert!(varied == plain, "{variation:?} published other bytes at snapshot {at}");
        }
    }
}

macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                check(include_str!(concat!("../../../../tests/scenarios/", stringify!($name), ".scenario")));
            }
        )*
    };
}

scenarios!(
    calm,
    hot_cpu_is_throttled_and_recovers,
    observe_changes_nothing,
    fails_fast_while_idle,
    silence_is_unknown_and_returns,
    slow_reporter,
    counter_resets_and_late_samples,
    two_senders_of_one_host,
    cloned_machine_id,
    removed_server,
    vanished_signal_is_held,
    latency_against_its_baseline,
    silent_process_takes_its_names_along,
    fast_sender_that_loses,
    slow_reporter_falls_silent,
    slow_signal_beside_a_fast_one,
    vanished_below_the_overloaded_line,
    dead_collector_throttles_nobody,
    days_behind_is_not_gone,
    data_quality_is_shown,
    pools_are_rolled_up,
    a_cell_without_servers_is_let_go,
    units_are_converted,
    reports_that_nothing_reads,
);

/// A clock ahead of the tick is wrong only where there is a clock to compare with, which scenarios have not.
#[test]
fn a_clock_that_is_ahead_is_shown_until_it_is_right_again() {
    let text = "sender web host.name=web-1\nseries load gauge system.cpu.load_average.1m\n\
                every 10 from 1 to 201 web load 1 +0\nadvance 200\n";
    let mut engine = Partition::new(EngineConfig::default());
    engine.handle_policy(Arc::new(compile("").unwrap()));
    let mut skewed = Vec::new();
    for event in Scenario::parse(text).unwrap().events() {
        match event {
            Event::Deliver(samples, tick) => {
                // For half a minute the sender's clock is a minute ahead.
                let ahead_seconds = if (100..130).contains(&tick) { 60 } else { 0 };
                let mut batch = SampleBatchBuilder::default();
                for sample in &samples {
                    let resource = batch.add_resource(sample.resource.clone());
                    let series = batch.add_series(sample.series.clone());
                    let time = Timestamp::from_seconds(BASE_SECONDS + sample.at_seconds as i64 + ahead_seconds);
                    batch.push(resource, series, 0, time.0, sample.values[0]);
                }
                let batch: SampleBatch = batch.finish();
                engine.handle_samples(&batch);
            }
            Event::Tick(tick) => {
                let snapshots = engine.handle_tick(Timestamp::from_seconds(BASE_SECONDS + tick)).unwrap();
                skewed.push((tick, snapshots[0].health.flags[0] & flag::CLOCK_SKEW != 0));
            }
            _ => {}
        }
    }
    let expected: Vec<_> = skewed.iter().map(|(tick, _)| (*tick, (100..=160).contains(tick))).collect();
    assert_eq!(skewed, expected);
}

/// On event time the first sample is where time begins; a clock that was never set must not put that into 1970.
#[test]
fn time_does_not_begin_where_a_clock_was_never_set() {
    let text = "sender unset host.name=web-1\nsender web host.name=web-2\n\
                series load gauge system.cpu.load_average.1m\nat 1 unset load 1\nat 2 web load 1\nadvance 10\n";
    let config = EngineConfig { future_max_seconds: None, ..EngineConfig::default() };
    let mut engine = Partition::new(config);
    engine.handle_policy(Arc::new(compile("").unwrap()));
    let events = Scenario::parse(text).unwrap().events();
    let Some(Event::Deliver(samples, _)) = events.first() else { panic!("nothing is sent") };
    let mut batch = SampleBatchBuilder::default();
    for (sample, seconds) in samples.iter().zip([60, BASE_SECONDS + 2]) {
        let resource = batch.add_resource(sample.resource.clone());
        let series = batch.add_series(sample.series.clone());
        batch.push(resource, series, 0, Timestamp::from_seconds(seconds).0, 1.0);
    }
    engine.handle_samples(&batch.finish());
    assert_eq!(engine.first_sample(), Some(Timestamp::from_seconds(BASE_SECONDS + 2)));
}
