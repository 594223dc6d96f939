//! How long a tick of health takes: `cargo run --release -p headroom-health --example health_bench [slots]`.
//!
//! Twenty signals as a default policy has them: most compared with absolute set-points, some with peers, two relative.

use arrow_array::Float64Array;
use headroom_health::HealthState;
use headroom_model::Timestamp;
use headroom_model::frame::SignalFrame;
use headroom_model::policy::{Family, SignalSpec};

#[path = "../tests/support/mod.rs"]
mod support;

const TICKS: i64 = 12;

fn signals() -> Vec<SignalSpec> {
    let mut signals: Vec<SignalSpec> = (0..12)
        .map(|number| support::signal(&format!("plain_{number}"), Family::ALL[number % 6]))
        .chain((0..4).map(|number| support::compared(&format!("compared_{number}"), Family::ALL[number], 0.05)))
        .collect();
    signals.push(support::compared("errors", Family::Errors, 0.05));
    signals.push(SignalSpec { throttle: false, ..support::signal("full", Family::Disk) });
    for name in ["latency_http", "latency_rpc"] {
        signals.push(SignalSpec {
            peers: Some(headroom_model::policy::PeerSpec { floor: 0.05 }),
            ..support::relative(name)
        });
    }
    signals
}

/// Values about 1.4, the same in every run; every seventh server lacks every fifth signal.
fn columns(slots: usize, signals: usize, tick: i64) -> Vec<SignalFrame> {
    let mut seed = 0x9e37_79b9_7f4a_7c15 ^ (tick as u64);
    (0..signals)
        .map(|signal| {
            let values: Float64Array = (0..slots)
                .map(|slot| {
                    seed ^= seed << 13;
                    seed ^= seed >> 7;
                    seed ^= seed << 17;
                    let missing = signal % 5 == 4 && slot % 7 == 0;
                    (!missing).then_some(1.2 + 0.4 * ((seed >> 11) as f64 / (1u64 << 53) as f64))
                })
                .collect();
            SignalFrame {
                control: values.clone(),
                state: values,
                samples: vec![3; slots].into(),
                age_seconds: vec![1.0; slots].into(),
                volume: None,
            }
        })
        .collect()
}

/// Processor time of this thread where the kernel tells it, so that a busy machine does not count; 0 elsewhere.
fn cpu_millis() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).unwrap_or(0.0) / 1e6
}

fn main() {
    let slots: usize = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let signals = signals();
    let policy = support::policy(signals.clone());
    let frames: Vec<Vec<SignalFrame>> = (0..2).map(|tick| columns(slots, signals.len(), tick)).collect();
    for (name, pools) in [("10 pools", 10), ("pools of 50", slots.div_ceil(50)), ("no pools", 1)] {
        let mut servers = support::servers(slots);
        for (slot, pool) in servers.pool.iter_mut().enumerate() {
            *pool = if pools == 1 { 0 } else { 1 + (slot % pools) as u32 };
        }
        let (mut state, mut best, mut sum) = (HealthState::new(), f64::MAX, 0.0);
        for tick in 0..TICKS {
            let started = cpu_millis();
            let time = Timestamp::from_seconds(1_000_000 + 10 * tick);
            let frame = state.step(time, 10, &servers, &frames[(tick % 2) as usize], &policy, pools + 1);
            let millis = cpu_millis() - started;
            assert_eq!(frame.score.len(), slots);
            (best, sum) = (millis.min(best), sum + millis);
        }
        println!(
            "{slots} servers x {} signals, {name}: CPU best {best:.0} ms, mean {:.0} ms",
            signals.len(),
            sum / TICKS as f64
        );
    }
}
