//! The law against a plant: one server with a linear processor, a saturating sensor with noise, windows over reports,
//! and consumers that act one tick late. It proves no gain in production; it shows that the loop is stable, that the
//! order of the classes holds, and that what was taken is given back.

use headroom_model::Timestamp;
use headroom_model::frame::ClassFrame;
use headroom_model::policy::{ClassSpec, Mode, Policy};
use headroom_throttle::{AckTable, Step, ThrottleState};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

mod support;
use support::{CUSTOMER, DISCRETIONARY, Frames, INTERNAL, URGENT, classes, policy};

const TICK_SECONDS: usize = 10;

/// A server that serves `fraction * demand` of each class until its processor is full.
struct Plant {
    policy: Policy,
    throttle: ThrottleState,
    frames: Frames,
    /// Seconds from report to report.
    interval_seconds: usize,
    /// Utilisation of each tick, without noise, up to 1.
    utilisation: Vec<f64>,
    /// Utilisation as the sensor saw it.
    seen: Vec<f64>,
    /// What the consumers act on: the decisions of the tick before the last.
    acting: [f64; 4],
    decided: [f64; 4],
    pressure: f64,
    seed: u64,
    acks: AckTable,
}

impl Plant {
    fn new(classes: Vec<ClassSpec>, interval_seconds: usize, seed: u64) -> Self {
        let mut frames = Frames::new(1);
        frames.servers.interval_seconds[0] = interval_seconds as f32;
        Self {
            policy: policy(Mode::Enforce { percent: 100.0 }, classes),
            throttle: ThrottleState::new(),
            frames,
            interval_seconds,
            utilisation: vec![],
            seen: vec![],
            acting: [1.0; 4],
            decided: [1.0; 4],
            pressure: 0.0,
            seed: seed | 1,
            acks: AckTable::new(4),
        }
    }

    /// Noise of a standard deviation of about 1: twelve uniform numbers of a xorshift generator.
    fn noise(&mut self) -> f64 {
        let mut sum = 0.0;
        for _ in 0..12 {
            self.seed ^= self.seed << 13;
            self.seed ^= self.seed >> 7;
            self.seed ^= self.seed << 17;
            sum += (self.seed >> 11) as f64 / (1u64 << 53) as f64;
        }
        sum - 6.0
    }

    /// One tick under this demand (shares of the server's capacity); answers the decisions.
    fn tick(&mut self, demand: [f64; 4]) -> Vec<ClassFrame> {
        let load: f64 = demand.iter().zip(self.acting).map(|(demand, fraction)| demand * fraction).sum();
        let noise = self.noise();
        self.utilisation.push(load.min(1.0));
        self.seen.push((load * (1.0 + 0.03 * noise)).clamp(0.0, 1.0));
        let seconds = self.seen.len() * TICK_SECONDS;
        let age_seconds = seconds % self.interval_seconds;
        if age_seconds == 0 {
            let window_seconds = (self.interval_seconds * 5 / 2).max(30);
            let panes = (window_seconds / TICK_SECONDS).min(self.seen.len());
            let mean = self.seen[self.seen.len() - panes..].iter().sum::<f64>() / panes as f64;
            self.pressure = pressure(mean);
        }
        self.frames.servers.age_seconds[0] = age_seconds as f32;
        self.frames.set_signal_age(age_seconds as f32);
        self.frames.health.throttle_pressure[0] = self.pressure as f32;
        let decided = self.throttle.step(&Step {
            tick: Timestamp::from_seconds(1_000_000 + seconds as i64),
            tick_seconds: TICK_SECONDS as i64,
            servers: &self.frames.servers,
            signals: &self.frames.signals,
            health: &self.frames.health,
            acks: &self.acks,
            mode: None,
            policy: &self.policy,
            learning: false,
        });
        self.acting = self.decided;
        for (class, frame) in decided.iter().enumerate() {
            self.decided[class] = f64::from(frame.admit[0]);
        }
        decided
    }

    fn run(&mut self, ticks: usize, demand: [f64; 4]) -> Summary {
        let from = self.utilisation.len();
        for _ in 0..ticks {
            self.tick(demand);
        }
        Summary::of(&self.utilisation[from..])
    }
}

fn pressure(utilisation: f64) -> f64 {
    let p = if utilisation < 0.85 { (utilisation - 0.70) / 0.15 } else { 1.0 + (utilisation - 0.85) / 0.13 };
    p.clamp(-1.0, 3.0)
}

/// How a stretch of ticks went.
#[derive(Debug)]
#[allow(dead_code, reason = "printed when a test fails")]
struct Summary {
    /// Ticks until the last one above 0.92.
    settled: usize,
    /// Over the second half.
    mean: f64,
    deviation: f64,
    least: f64,
    /// Share of ticks above 0.92 after the first minute.
    overloaded: f64,
}

impl Summary {
    fn of(utilisation: &[f64]) -> Self {
        let is_over = |u: &&f64| **u > 0.92;
        let late = &utilisation[utilisation.len() / 2..];
        let mean = late.iter().sum::<f64>() / late.len() as f64;
        let variance = late.iter().map(|u| (u - mean) * (u - mean)).sum::<f64>() / late.len() as f64;
        let after = &utilisation[6.min(utilisation.len())..];
        Self {
            settled: utilisation.iter().rposition(|u| *u > 0.92).map_or(0, |at| at + 1),
            mean,
            deviation: variance.sqrt(),
            least: late.iter().copied().fold(f64::MAX, f64::min),
            overloaded: after.iter().filter(is_over).count() as f64 / after.len().max(1) as f64,
        }
    }
}

/// A quiet night, a surge, and the night again; the demand of each class as a share of the server's capacity.
const NIGHT: [f64; 4] = [0.05, 0.25, 0.15, 0.15];

#[test]
fn surges_settle_below_overload_and_are_given_back() {
    // 92 % is beyond the overload line (85 %) and below the critical one (98 %).
    for (surge, interval_seconds, settled_max, back_max) in [
        ([0.05, 0.25, 0.45, 0.70], 10, 6, 30),
        ([0.05, 0.25, 0.85, 1.40], 10, 12, 45),
        ([0.05, 0.85, 0.20, 0.20], 10, 12, 60),
        ([0.05, 0.25, 0.45, 0.70], 60, 30, 120),
        ([0.05, 0.25, 0.85, 1.40], 60, 36, 240),
        ([0.05, 0.85, 0.20, 0.20], 60, 36, 280),
    ] {
        for seed in 1..=4 {
            let mut plant = Plant::new(classes(), interval_seconds, seed * 7919);
            plant.run(30, NIGHT);
            assert_eq!(plant.decided, [1.0; 4], "nothing is cut without need");
            let summary = plant.run(300, surge);
            let case = format!("{surge:?} every {interval_seconds} s, seed {seed}: {summary:?}");
            assert!(summary.settled <= settled_max, "{case}");
            assert!((0.75..0.90).contains(&summary.mean), "{case}");
            assert!(summary.deviation < 0.08, "{case}");
            let back = (0..1000).find(|_| {
                plant.tick(NIGHT);
                plant.decided == [1.0; 4]
            });
            assert!(back.is_some_and(|ticks| ticks <= back_max), "{case} back after {back:?}");
        }
    }
}

#[test]
fn slow_reports_do_not_swing_the_loop() {
    let mut plant = Plant::new(classes(), 60, 7919);
    plant.run(30, NIGHT);
    plant.run(120, [0.05, 0.25, 0.45, 0.70]);
    let steady = plant.run(360, [0.05, 0.25, 0.45, 0.70]);
    assert!(steady.deviation < 0.02 && steady.overloaded == 0.0, "{steady:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, rng_seed: RngSeed::Fixed(7), ..ProptestConfig::default() })]

    /// Whatever the demand does: all classes in use, a class never has less than one below it, except by floors; and
    /// nothing leaves `[floor, 1]`.
    #[test]
    fn no_priority_inversion(
        seed in 1u64..u64::MAX,
        interval_seconds in prop::sample::select(vec![10usize, 20, 60]),
        cut_mins in prop::array::uniform4(0.1f64..0.95),
        phases in prop::collection::vec((1usize..40, prop::array::uniform4(0.0f64..1.5)), 1..8),
    ) {
        // Laws that are not in order themselves: a lower class that may be cut less than a higher one.
        let mut laws = classes();
        laws.iter_mut().zip(cut_mins).for_each(|(law, cut_min)| law.cut_min = cut_min);
        let mut plant = Plant::new(laws, interval_seconds, seed);
        let floors: Vec<f32> = classes().iter().map(|class| class.floor as f32).collect();
        for (ticks, demand) in phases {
            for _ in 0..ticks {
                let frames = plant.tick(demand);
                for (higher, lower) in [(URGENT, CUSTOMER), (CUSTOMER, INTERNAL), (INTERNAL, DISCRETIONARY)] {
                    let (h, l) = (frames[higher].admit[0], frames[lower].admit[0]);
                    prop_assert!(h >= l || l <= floors[lower], "{higher}: {h} below {lower}: {l}");
                }
                for (frame, floor) in frames.iter().zip(&floors) {
                    prop_assert!((*floor..=1.0).contains(&frame.admit[0]));
                    prop_assert_eq!(frame.admit[0], frame.would_admit[0]);
                }
            }
        }
    }
}

/// The same demand without a throttle: what the tests above are to be compared with.
#[test]
fn without_a_throttle_the_plant_is_overloaded() {
    let mut plant = Plant::new(classes(), 10, 7919);
    plant.policy.rules[0].mode = Mode::Observe;
    plant.run(30, NIGHT);
    let summary = plant.run(300, [0.05, 0.25, 0.45, 0.70]);
    assert_eq!(summary.overloaded, 1.0, "{summary:?}");
}
