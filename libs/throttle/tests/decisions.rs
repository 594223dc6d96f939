//! Single decisions: what the law does at one tick, by mode, confidence, silence and use.

use headroom_model::Timestamp;
use headroom_model::codec::{Decoder, Encoder};
use headroom_model::frame::{DecisionReason, Reason, ThrottleFrame, flag};
use headroom_model::policy::Mode;
use headroom_throttle::{AckTable, Step, ThrottleState};

mod support;
use support::{CUSTOMER, DISCRETIONARY, Frames, INTERNAL, URGENT, classes, policy};

const ENFORCE: Mode = Mode::Enforce { percent: 100.0 };

/// One server under a script.
struct Script {
    state: ThrottleState,
    frames: Frames,
    acks: AckTable,
    mode: Mode,
    learning: bool,
    epoch: i64,
}

impl Script {
    fn new(mode: Mode) -> Self {
        let (state, frames, acks) = (ThrottleState::new(), Frames::new(1), AckTable::new(4));
        Self { state, frames, acks, mode, learning: false, epoch: 1_000_000 }
    }

    fn step(&mut self) -> ThrottleFrame {
        self.epoch += 10;
        self.state.step(&Step {
            tick: Timestamp::from_seconds(self.epoch),
            tick_seconds: 10,
            servers: &self.frames.servers,
            signals: &self.frames.signals,
            health: &self.frames.health,
            acks: &self.acks,
            mode: None,
            policy: &policy(self.mode, classes()),
            learning: self.learning,
        })
    }

    /// Fraction and reason of a class after so many ticks at this pressure.
    fn run(&mut self, ticks: usize, pressure: f32, class: usize) -> (f32, DecisionReason) {
        self.frames.health.throttle_pressure[0] = pressure;
        let mut last = (1.0, DecisionReason::Open);
        for _ in 0..ticks {
            let frame = &self.step()[class];
            last = (frame.admit[0], DecisionReason::ALL[usize::from(frame.reason[0])]);
        }
        last
    }
}

fn is_near(found: f32, expected: f32) -> bool {
    (found - expected).abs() < 1e-5
}

#[test]
fn the_lowest_class_is_cut_first_and_raised_last() {
    let mut script = Script::new(ENFORCE);
    let (fraction, reason) = script.run(1, 1.12, DISCRETIONARY);
    assert!(is_near(fraction, 0.625) && reason == DecisionReason::Throttled, "{fraction} {reason:?}");
    assert_eq!(script.run(1, 1.12, INTERNAL), (1.0, DecisionReason::Open));
    script.run(3, 1.12, DISCRETIONARY);
    assert!(script.run(1, 1.12, INTERNAL).0 < 1.0, "the lowest has given what it can");
    assert_eq!(script.run(1, 0.0, DISCRETIONARY).1, DecisionReason::HigherClass);
    assert_eq!(script.run(40, 0.0, DISCRETIONARY), (1.0, DecisionReason::Open));
    script.run(1, 2.5, URGENT);
    let frames = script.step();
    assert!(frames[CUSTOMER].admit[0] < 1.0, "all at once when critical");
    assert_eq!(frames[URGENT].admit[0], 1.0, "urgent is exempt");
}

#[test]
fn between_set_point_and_deadband_nothing_moves() {
    let mut script = Script::new(ENFORCE);
    let (cut, _) = script.run(1, 0.8, DISCRETIONARY);
    assert_eq!(script.run(20, 0.6, DISCRETIONARY), (cut, DecisionReason::Held));
    assert_eq!(script.run(1, 0.5, DISCRETIONARY).1, DecisionReason::Rising);
}

#[test]
fn the_same_report_moves_a_class_once() {
    let mut script = Script::new(ENFORCE);
    script.frames.servers.interval_seconds[0] = 60.0;
    let first = script.run(1, 1.0, DISCRETIONARY).0;
    for age_seconds in [10.0, 20.0, 30.0, 40.0, 50.0] {
        script.frames.set_signal_age(age_seconds);
        assert_eq!(script.run(1, 1.0, DISCRETIONARY), (first, DecisionReason::Held), "{age_seconds}");
    }
    script.frames.set_signal_age(0.0);
    assert!(script.run(1, 1.0, DISCRETIONARY).0 < first);
    script.frames.set_signal_age(f32::NAN);
    assert_eq!(script.run(1, 3.0, DISCRETIONARY).1, DecisionReason::Held, "a held signal has no report");
}

#[test]
fn observing_changes_nothing_and_never_integrates() {
    let mut script = Script::new(Mode::Observe);
    script.frames.health.throttle_pressure[0] = 1.12;
    for _ in 0..5 {
        let frames = script.step();
        let frame = &frames[DISCRETIONARY];
        assert_eq!((frame.admit[0], frame.mode[0], frame.binding[0]), (1.0, 1, 0));
        assert!(is_near(frame.would_admit[0], 0.625), "{}", frame.would_admit[0]);
    }
    script.mode = ENFORCE;
    assert!(is_near(script.run(1, 1.12, DISCRETIONARY).0, 0.625), "enforcing starts from 1");
    script.mode = Mode::Off;
    let frames = script.step();
    let frame = &frames[DISCRETIONARY];
    assert_eq!((frame.admit[0], frame.would_admit[0], frame.mode[0]), (1.0, 1.0, 0));
    assert_eq!((frame.reason[0], frame.binding[0]), (DecisionReason::Off as u8, Reason::NO_SIGNAL));
    script.mode = Mode::Enforce { percent: 0.0 };
    assert_eq!(script.run(1, 1.12, DISCRETIONARY).0, 1.0, "the server is not among 0 %");
}

#[test]
fn too_little_knowledge_never_tightens_and_may_relax() {
    for (vague, learning, expected) in
        [(true, false, DecisionReason::LowConfidence), (false, true, DecisionReason::Learning)]
    {
        let mut script = Script::new(ENFORCE);
        let cut = script.run(1, 1.0, DISCRETIONARY).0;
        script.frames.health.confidence[0] = if vague { 0.59 } else { 1.0 };
        script.learning = learning;
        assert_eq!(script.run(3, 3.0, DISCRETIONARY), (cut, expected));
        assert_eq!(script.run(1, 0.0, DISCRETIONARY).1, DecisionReason::Rising);
    }
}

#[test]
fn a_silent_server_holds_then_ramps_what_is_limited_to_its_safe_value() {
    let mut script = Script::new(ENFORCE);
    let cut = script.run(1, 1.0, DISCRETIONARY).0;
    script.frames.servers.age_seconds[0] = 41.0;
    assert_eq!(script.run(3, f32::NAN, DISCRETIONARY), (cut, DecisionReason::NoData), "holds for 30 s");
    let (fraction, _) = script.run(3, f32::NAN, DISCRETIONARY);
    assert!(is_near(fraction, cut - 0.1), "20 % a minute: {fraction}");
    assert!(is_near(script.run(60, f32::NAN, DISCRETIONARY).0, 0.1));
    assert_eq!(script.run(1, f32::NAN, INTERNAL), (1.0, DecisionReason::NoData), "was not limited");
    assert_eq!(script.run(1, f32::NAN, CUSTOMER).0, 1.0, "its safe value is 1");
    script.frames.servers.age_seconds[0] = 1.0;
    assert!(is_near(script.run(5, f32::NAN, DISCRETIONARY).0, 0.1), "reports without a load signal: holds");

    let mut learning = Script::new(ENFORCE);
    let cut = learning.run(1, 1.0, DISCRETIONARY).0;
    learning.learning = true;
    learning.frames.servers.age_seconds[0] = f32::INFINITY;
    assert_eq!(learning.run(20, f32::NAN, DISCRETIONARY), (cut, DecisionReason::Learning));
}

#[test]
fn a_lost_signal_keeps_limited_classes_at_most_at_their_safe_value() {
    let mut script = Script::new(ENFORCE);
    let cut = script.run(1, 1.0, DISCRETIONARY).0;
    script.frames.health.flags[0] = flag::LOST_SIGNAL;
    let (fraction, reason) = script.run(3, 0.0, DISCRETIONARY);
    assert!(is_near(fraction, cut - 0.1) && reason == DecisionReason::LostSignal, "{fraction} {reason:?}");
    assert!(is_near(script.run(60, 0.0, DISCRETIONARY).0, 0.1));
    assert_eq!(script.run(1, 0.0, INTERNAL), (1.0, DecisionReason::Open), "was not limited");
    script.run(5, 3.0, DISCRETIONARY);
    assert!(is_near(script.run(60, 0.0, DISCRETIONARY).0, 0.1), "rises to its safe value and no further");
    script.frames.health.flags[0] = 0;
    assert_eq!(script.run(60, 0.0, DISCRETIONARY).0, 1.0);
}

#[test]
fn a_class_that_is_not_in_use_stands_in_nobodys_way() {
    let mut script = Script::new(ENFORCE);
    script.run(8, 1.5, DISCRETIONARY);
    let (internal, _) = script.run(1, 1.5, INTERNAL);
    assert!(internal < 1.0);
    script.acks.set(0, INTERNAL, 0.0, script.epoch, script.epoch);
    let frames = script.run(1, 0.5, DISCRETIONARY);
    assert_eq!(frames.1, DecisionReason::Rising, "internalMaintenance counts as 1");
    let (risen, reason) = script.run(1, 0.85, INTERNAL);
    assert!(risen > internal && reason == DecisionReason::Rising, "rises freely under its set-point");
    assert_eq!(script.run(7, 0.85, INTERNAL).1, DecisionReason::Held, "the ack is older than the lease");
}

#[test]
fn a_restored_state_goes_on_to_the_bit() {
    let mut script = Script::new(ENFORCE);
    script.run(5, 1.3, DISCRETIONARY);
    let mut out = Encoder::default();
    script.state.encode(&mut out);
    let mut restored = ThrottleState::decode(&mut Decoder::new(&out.bytes)).expect("decodes");
    std::mem::swap(&mut restored, &mut script.state);
    let (epoch, resumed) = (script.epoch, script.step());
    (script.epoch, script.state) = (epoch, restored);
    assert_eq!(script.step(), resumed);
    for length in 0..out.bytes.len() {
        assert!(ThrottleState::decode(&mut Decoder::new(&out.bytes[..length])).is_err(), "{length}");
    }
}

#[test]
fn a_removed_server_leaves_nothing_and_classes_keep_fractions_by_name() {
    let mut script = Script::new(ENFORCE);
    let (cut, _) = script.run(2, 1.0, DISCRETIONARY);
    let mut swapped = policy(ENFORCE, classes());
    swapped.classes.swap(INTERNAL, DISCRETIONARY);
    script.state.set_policy(&swapped);
    script.state.set_policy(&policy(ENFORCE, classes()));
    assert_eq!(script.run(1, 0.6, DISCRETIONARY), (cut, DecisionReason::Held));
    script.state.remove_slot(0);
    assert_eq!(script.run(1, 0.6, DISCRETIONARY), (1.0, DecisionReason::Open));
}
