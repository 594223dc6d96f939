//! Whole cells under scripts: what the frame says of servers, signals and causes.

use headroom_health::HealthState;
use headroom_model::codec::{Decoder, Encoder};
use headroom_model::frame::{FaultState, LoadState, Placement, Reason, ReasonKind, SignalStatus, flag};
use headroom_model::policy::{Family, SignalSpec};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

mod support;
use support::{Cell, column, compared, fault, load, policy, reasons, relative, signal, status};

fn cpu() -> SignalSpec {
    signal("cpu", Family::Cpu)
}

fn errors() -> SignalSpec {
    signal("errors", Family::Errors)
}

#[test]
fn a_family_is_its_worst_member_and_pressure_the_worst_family() {
    let full = SignalSpec { throttle: false, ..signal("full", Family::Disk) };
    let mut cell = Cell::new(policy(vec![cpu(), signal("disk", Family::Disk), full]), 1);
    let frame = cell.run_one(3, &[1.2, 1.8, 2.4]);
    assert_eq!((frame.pressure[0], frame.load_pressure[0], frame.score[0]), (1.4, 1.4, 1.0 - 0.7));
    assert_eq!(
        (frame.throttle_pressure[0], frame.throttle_signal[0]),
        (0.8, 1),
        "how full a disk is does not throttle"
    );
    assert_eq!((load(frame, 0), frame.confidence[0]), (LoadState::Overloaded, 1.0));
    assert_eq!(frame.placement[0], Placement::Avoid as u8);
    let found = reasons(frame, 0);
    assert_eq!((found.len(), found[0].signal, found[0].kind, found[0].threshold), (1, 2, ReasonKind::Threshold, 2.0));
}

#[test]
fn a_reason_names_the_set_point_that_is_passed() {
    for (value, expected) in [(1.6, None), (1.75, Some(1.7)), (2.5, Some(2.0)), (3.5, Some(3.0))] {
        let mut cell = Cell::new(policy(vec![cpu()]), 1);
        let found = reasons(cell.run_one(4, &[value]), 0).first().map(|reason| reason.threshold);
        assert_eq!(found.map(|threshold| (threshold * 1e4).round() / 1e4), expected, "{value}");
    }
}

#[test]
fn a_server_that_fails_fast_is_faulty_and_stays_visibly_underloaded() {
    let mut cell = Cell::new(policy(vec![cpu(), errors()]), 1);
    cell.run_one(6, &[0.5, 1.0]);
    let frame = cell.run_one(9, &[0.5, 4.0]);
    assert_eq!((load(frame, 0), fault(frame, 0)), (LoadState::Underloaded, FaultState::Faulty));
    assert_eq!((frame.placement[0], frame.score[0]), (Placement::Avoid as u8, 0.0));
    assert_eq!((frame.throttle_pressure[0], reasons(frame, 0)[0].signal), (-0.5, 1));
}

#[test]
fn a_fatal_flag_is_a_fault_at_once_and_no_load() {
    let fatal = SignalSpec { fatal: true, ..signal("read_only", Family::Disk) };
    let mut cell = Cell::new(policy(vec![cpu(), fatal]), 1);
    cell.run_one(3, &[1.2, 0.0]);
    let frame = cell.run_one(1, &[1.2, 2.0]);
    assert_eq!((load(frame, 0), fault(frame, 0)), (LoadState::Normal, FaultState::Faulty));
    assert!((frame.load_pressure[0] - 0.2).abs() < 1e-6 && frame.fault_pressure[0] == 2.0);
    assert_eq!(reasons(frame, 0)[0].kind, ReasonKind::Fatal);
}

#[test]
fn a_signal_that_vanishes_above_its_set_point_is_held_then_lost() {
    let mut cell = Cell::new(policy(vec![cpu(), signal("disk", Family::Disk)]), 1);
    cell.run_one(4, &[1.2, 2.5]);
    let held = cell.run_one(30, &[1.2, f64::NAN]);
    assert_eq!((status(held, 1, 0), held.throttle_pressure[0], held.flags[0]), (SignalStatus::Held, 1.5, 0));
    assert_eq!((reasons(held, 0)[0].kind, held.confidence[0]), (ReasonKind::Held, 0.5));
    let lost = cell.run_one(1, &[1.2, f64::NAN]);
    assert_eq!(
        (status(lost, 1, 0), lost.flags[0], lost.throttle_signal[0]),
        (SignalStatus::Missing, flag::LOST_SIGNAL, 0)
    );
    assert_eq!((cell.state.counters().held, cell.state.counters().lost), (1, 1));
    let absent = cell.run_one(200, &[1.2, f64::NAN]);
    assert_eq!(
        (status(absent, 1, 0), absent.flags[0], absent.confidence[0]),
        (SignalStatus::Absent, flag::LOST_SIGNAL, 1.0)
    );
    let back = cell.run_one(1, &[1.2, 1.0]);
    assert_eq!((status(back, 1, 0), back.flags[0]), (SignalStatus::Ok, 0));
}

#[test]
fn a_signal_that_vanishes_below_its_set_point_is_only_missing() {
    let mut cell = Cell::new(policy(vec![cpu(), signal("disk", Family::Disk), signal("never", Family::Queue)]), 1);
    cell.run_one(4, &[1.2, 1.6, f64::NAN]);
    let frame = cell.run_one(1, &[1.2, f64::NAN, f64::NAN]);
    assert_eq!([status(frame, 1, 0), status(frame, 2, 0)], [SignalStatus::Missing, SignalStatus::Absent]);
    assert_eq!((frame.confidence[0], frame.flags[0]), (0.5, 0), "what was never reported does not count");
}

#[test]
fn the_set_point_that_a_vanished_signal_is_held_above_is_the_lowest_of_the_classes() {
    // Pressure 0.9 cuts the class whose set-point is 0.7; what throttles nothing is held from the overloaded line on.
    let full = SignalSpec { throttle: false, ..signal("full", Family::Disk) };
    let mut cell = Cell::new(policy(vec![cpu(), signal("disk", Family::Disk), full]), 1);
    cell.run_one(4, &[1.2, 1.9, 1.9]);
    let frame = cell.run_one(1, &[1.2, f64::NAN, f64::NAN]);
    assert_eq!([status(frame, 1, 0), status(frame, 2, 0)], [SignalStatus::Held, SignalStatus::Missing]);
    assert_eq!(cell.run_one(30, &[1.2, f64::NAN, f64::NAN]).flags[0], flag::LOST_SIGNAL);
}

#[test]
fn a_silent_server_is_unknown_never_healthy() {
    let mut cell = Cell::new(policy(vec![cpu()]), 1);
    cell.run_one(4, &[1.2]);
    cell.servers.age_seconds[0] = 50.0;
    let frame = cell.run_one(1, &[f64::NAN]);
    assert_eq!((load(frame, 0), fault(frame, 0)), (LoadState::Unknown, FaultState::Unknown));
    assert!(frame.score[0].is_nan() && frame.pressure[0].is_nan() && frame.throttle_pressure[0].is_nan());
    assert_eq!((frame.placement[0], frame.flags[0]), (Placement::Avoid as u8, 0));
    assert_eq!((reasons(frame, 0)[0].kind, reasons(frame, 0)[0].signal), (ReasonKind::Silent, Reason::NO_SIGNAL));
    cell.servers.age_seconds[0] = 3601.0;
    assert_eq!(cell.run_one(1, &[f64::NAN]).flags[0], flag::SILENT);
}

#[test]
fn too_few_events_are_neither_good_nor_bad() {
    let ratio = SignalSpec { volume: Some(("requests".into(), 100.0)), ..errors() };
    let mut cell = Cell::new(policy(vec![cpu(), ratio]), 1);
    for (volume, expected) in
        [(Some(99.0), SignalStatus::Insufficient), (None, SignalStatus::Insufficient), (Some(100.0), SignalStatus::Ok)]
    {
        let mut frame = column(&[5.0]);
        frame.volume = volume.map(|volume| vec![volume].into());
        let health = cell.run(1, &[column(&[1.2]), frame]);
        assert_eq!(status(health, 1, 0), expected, "{volume:?}");
        assert_eq!(health.fault_pressure[0] >= 1.0, expected == SignalStatus::Ok, "{volume:?}");
    }
}

/// Six servers of a pool whose first has this value.
fn pool_of_six(value: f64) -> Vec<f64> {
    vec![value, 1.00, 1.01, 1.02, 0.99, 1.00]
}

#[test]
fn a_server_unlike_its_pool_is_suspect_after_three_windows_and_faulty_after_three_more() {
    let mut cell = Cell::new(policy(vec![compared("latency", Family::Latency, 0.01)]), 6);
    let run = |cell: &mut Cell, ticks, value| {
        let frame = cell.run(ticks, &[column(&pool_of_six(value))]);
        (fault(frame, 0), reasons(frame, 0).iter().map(|reason| reason.kind).collect::<Vec<_>>())
    };
    assert_eq!(run(&mut cell, 6, 1.0), (FaultState::Ok, vec![]));
    assert_eq!(run(&mut cell, 6, 1.5), (FaultState::Ok, vec![]), "50 s");
    assert_eq!(run(&mut cell, 1, 1.5), (FaultState::Suspect, vec![ReasonKind::PeerDeviation]), "60 s");
    assert_eq!(run(&mut cell, 6, 1.5).0, FaultState::Faulty);
    assert_eq!(load(&cell.frame, 0), LoadState::Normal, "half of the way to its set-point");
    assert_eq!(run(&mut cell, 6, 1.1).0, FaultState::Ok, "10 % is no effect");
}

#[test]
fn peers_need_a_pool_of_five_and_only_latency_and_errors_are_faults() {
    for (family, slots, pool, expected) in [
        (Family::Errors, 5, 1, FaultState::Faulty),
        (Family::Errors, 4, 1, FaultState::Ok),
        (Family::Errors, 6, 0, FaultState::Ok),
        (Family::Cpu, 6, 1, FaultState::Ok),
    ] {
        let mut cell = Cell::new(policy(vec![compared("x", family, 0.01)]), slots);
        cell.servers.pool = vec![pool; slots];
        let frame = cell.run(20, &[column(&pool_of_six(1.5)[..slots])]);
        assert_eq!(fault(frame, 0), expected, "{family:?} {slots} {pool}");
        let explained = reasons(frame, 0).iter().any(|reason| reason.kind == ReasonKind::PeerDeviation);
        assert_eq!(explained, slots >= 5 && pool != 0, "{family:?} {slots} {pool}");
        assert_eq!(reasons(frame, 1), []);
    }
}

#[test]
fn without_peers_a_server_is_compared_with_itself_unless_its_load_explains_it() {
    for (cpu_value, expected) in [(1.2, FaultState::Faulty), (2.5, FaultState::Ok)] {
        let mut cell = Cell::new(policy(vec![cpu(), compared("latency", Family::Latency, 0.01)]), 1);
        assert_eq!(fault(cell.run_one(60, &[1.2, 0.5]), 0), FaultState::Ok);
        assert_eq!(fault(cell.run_one(20, &[cpu_value, 1.2]), 0), expected, "{cpu_value}");
    }
}

#[test]
fn a_relative_signal_waits_for_its_baseline_and_is_measured_by_it() {
    let mut cell = Cell::new(policy(vec![cpu(), relative("latency")]), 1);
    cell.servers.pool[0] = 0;
    assert_eq!(status(cell.run_one(30, &[1.2, 0.010]), 1, 0), SignalStatus::Insufficient);
    let frame = cell.run_one(1, &[1.2, 0.010]);
    assert_eq!(status(frame, 1, 0), SignalStatus::Ok);
    for (found, expected) in frame.relative_thresholds[1][0].iter().zip([0.015, 0.020, 0.040]) {
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }
    let frame = cell.run_one(120, &[1.2, 0.030]);
    assert_eq!(load(frame, 0), LoadState::Overloaded);
    assert!((frame.relative_thresholds[1][0][1] - 0.020).abs() < 1e-6, "frozen while overloaded");
}

#[test]
fn a_new_server_is_measured_by_the_baseline_of_its_pool() {
    let mut cell = Cell::new(policy(vec![cpu(), relative("latency")]), 6);
    cell.servers.live[5] = false;
    let old = [column(&[1.2; 6]), column(&[0.01; 6])];
    cell.run(40, &old);
    cell.servers.live[5] = true;
    let mut values = [0.01; 6];
    values[5] = 0.03;
    let frame = cell.run(1, &[column(&[1.2; 6]), column(&values)]);
    assert_eq!(status(frame, 1, 5), SignalStatus::Ok);
    assert!((frame.signal_pressure[1][5] - 1.5).abs() < 1e-5);
}

#[test]
fn a_new_policy_keeps_what_it_leaves_unchanged() {
    let mut cell = Cell::new(policy(vec![cpu(), relative("latency")]), 1);
    cell.run_one(40, &[1.2, 0.010]);
    cell.policy = policy(vec![signal("new", Family::Queue), relative("latency"), cpu()]);
    assert_eq!(status(cell.run_one(1, &[1.0, 0.010, 1.2]), 1, 0), SignalStatus::Ok);
    let changed = SignalSpec { expression: "other".into(), ..relative("latency") };
    cell.policy = policy(vec![changed]);
    assert_eq!(status(cell.run_one(1, &[0.010]), 0, 0), SignalStatus::Insufficient);
}

#[test]
fn a_slot_given_to_another_server_remembers_nothing() {
    let mut cell = Cell::new(policy(vec![cpu()]), 1);
    cell.run_one(5, &[2.5]);
    cell.state.remove_slot(0);
    cell.servers.live[0] = false;
    let frame = cell.run_one(1, &[2.5]).clone();
    assert!(frame.score[0].is_nan() && reasons(&frame, 0).is_empty());
    cell.servers.live[0] = true;
    let frame = cell.run_one(1, &[f64::NAN]).clone();
    assert_eq!((load(&frame, 0), status(&frame, 0, 0)), (LoadState::Unknown, SignalStatus::Absent));
    assert_eq!(frame.state_since[0], cell.epoch);
}

#[test]
fn short_columns_are_missing_values_not_a_panic() {
    let mut cell = Cell::new(policy(vec![cpu(), errors()]), 3);
    let frame = cell.run(4, &[column(&[1.2])]);
    assert_eq!([load(frame, 0), load(frame, 2)], [LoadState::Normal, LoadState::Unknown]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, rng_seed: RngSeed::Fixed(7), ..ProptestConfig::default() })]

    /// A state restored at any tick goes on to the bit, damaged bytes are refused without a panic, and what is
    /// published lies in its range.
    #[test]
    fn a_restored_state_goes_on_to_the_bit(
        seed in 1u64..u64::MAX, cut in 1usize..40, damage in 0usize..10_000,
    ) {
        let mut seed = seed;
        let mut random = move || { seed ^= seed << 13; seed ^= seed >> 7; seed ^= seed << 17; (seed >> 40) as f64 / f64::from(1 << 24) };
        let slots = 7;
        let signals = vec![cpu(), compared("latency", Family::Latency, 0.01), relative("rpc"), compared("errors", Family::Errors, 0.01)];
        let mut cell = Cell::new(policy(signals), slots);
        let mut restored: Option<HealthState> = None;
        for tick in 0..60 {
            for slot in 0..slots {
                cell.servers.age_seconds[slot] = if random() < 0.2 { 60.0 * random() as f32 } else { 1.0 };
            }
            let columns: Vec<_> = (0..4)
                .map(|_| column(&(0..slots).map(|_| if random() < 0.1 { f64::NAN } else { 4.0 * random() }).collect::<Vec<_>>()))
                .collect();
            cell.run(1, &columns);
            if let Some(state) = &mut restored {
                let tick = headroom_model::Timestamp::from_seconds(cell.epoch);
                let frame = state.step(tick, 10, &cell.servers, &columns, &cell.policy, 3);
                prop_assert_eq!(format!("{frame:?}"), format!("{:?}", cell.frame));
            }
            let frame = &cell.frame;
            prop_assert!(frame.score.iter().all(|score| score.is_nan() || (0.0..=1.0).contains(score)));
            prop_assert!(frame.pressure.iter().all(|p| p.is_nan() || (-1.0..=3.0).contains(p)));
            prop_assert!((0..slots).all(|slot| reasons(frame, slot).len() <= 3));
            if tick == cut {
                let mut out = Encoder::default();
                cell.state.encode(&mut out);
                restored = HealthState::decode(&mut Decoder::new(&out.bytes)).ok();
                prop_assert!(restored.is_some());
                let short = damage % out.bytes.len();
                prop_assert!(HealthState::decode(&mut Decoder::new(&out.bytes[..short])).is_err());
                out.bytes[short] ^= 0xff;
                let _ = HealthState::decode(&mut Decoder::new(&out.bytes));
            }
        }
    }
}
