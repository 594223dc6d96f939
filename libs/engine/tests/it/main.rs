//! Scenarios against the engine, each under every variation that must not change a published byte.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

use headroom_testkit::{Scenario, Variation, run};

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
);
