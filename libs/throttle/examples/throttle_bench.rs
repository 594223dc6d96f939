//! How long a tick of the throttle takes: `cargo run --release -p headroom-throttle --example throttle_bench [slots]`.

use std::time::Instant;

use headroom_model::Timestamp;
use headroom_model::policy::Mode;
use headroom_throttle::{AckTable, Step, ThrottleState};

#[path = "../tests/support/mod.rs"]
mod support;

const TICKS: u32 = 20;

fn main() {
    let slots = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    // A fleet at rest, and one of which every third server is being cut.
    for (name, mode, pressure) in [
        ("at rest", Mode::Enforce { percent: 100.0 }, 0.3),
        ("a third cut, enforce", Mode::Enforce { percent: 100.0 }, 1.1),
        ("a third cut, observe", Mode::Observe, 1.1),
    ] {
        let mut frames = support::Frames::new(slots);
        for slot in (0..slots).step_by(3) {
            frames.health.throttle_pressure[slot] = pressure;
        }
        let (policy, acks) = (support::policy(mode, support::classes()), AckTable::new(4));
        let (mut state, mut best, mut sum) = (ThrottleState::new(), f64::MAX, 0.0);
        for tick in 0..TICKS {
            let started = Instant::now();
            let decided = state.step(&Step {
                tick: Timestamp::from_seconds(1_000_000 + 10 * i64::from(tick)),
                tick_seconds: 10,
                servers: &frames.servers,
                signals: &frames.signals,
                health: &frames.health,
                acks: &acks,
                mode: None,
                policy: &policy,
                learning: false,
            });
            let millis = started.elapsed().as_secs_f64() * 1e3;
            assert_eq!(decided.len(), policy.classes.len());
            (best, sum) = (millis.min(best), sum + millis);
        }
        println!("{slots} servers x 4 classes, {name}: best {best:.1} ms, mean {:.1} ms", sum / f64::from(TICKS));
    }
}
