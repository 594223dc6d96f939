//! How long a tick of the throttle takes: `cargo run --release -p headroom-throttle --example throttle_bench [slots]`.

use headroom_model::Timestamp;
use headroom_model::policy::Mode;
use headroom_throttle::{AckTable, Step, ThrottleState};

#[path = "../tests/support/mod.rs"]
mod support;

const TICKS: u32 = 20;

/// Processor time of this thread where the kernel tells it, so that a busy machine does not count; 0 elsewhere.
fn cpu_millis() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).unwrap_or(0.0) / 1e6
}

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
            let started = cpu_millis();
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
            let millis = cpu_millis() - started;
            assert_eq!(decided.len(), policy.classes.len());
            (best, sum) = (millis.min(best), sum + millis);
        }
        println!("{slots} servers x 4 classes, {name}: CPU best {best:.1} ms, mean {:.1} ms", sum / f64::from(TICKS));
    }
}
