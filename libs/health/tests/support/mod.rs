//! Policies, frames and a cell under a script, for tests and the benchmark.
#![allow(dead_code, reason = "each user takes the part it needs")]

use arrow_array::Float64Array;
use headroom_health::HealthState;
use headroom_model::Timestamp;
use headroom_model::frame::{FaultState, HealthFrame, LoadState, Reason, ServerFrame, SignalFrame, SignalStatus};
use headroom_model::policy::{
    ClassSpec, Family, HealthSpec, LeaseSpec, Mode, OnExpiry, PeerSpec, Policy, Rule, Selector, SignalSpec,
    ThresholdKind, Thresholds, WindowSpec,
};

/// A signal with set-points 1, 2, 3: its pressure is its value less one.
pub fn signal(name: &str, family: Family) -> SignalSpec {
    SignalSpec {
        name: name.into(),
        family,
        unit: "1".into(),
        expression: name.into(),
        lower_is_worse: false,
        thresholds: Thresholds { under: 1.0, over: 2.0, critical: 3.0 },
        threshold_kind: ThresholdKind::Absolute,
        weight: 1.0,
        throttle: true,
        peers: None,
        volume: None,
        fatal: false,
        reason: format!("{name}_high"),
    }
}

/// The same signal, compared with its pool.
pub fn compared(name: &str, family: Family, floor: f64) -> SignalSpec {
    SignalSpec { peers: Some(PeerSpec { floor }), ..signal(name, family) }
}

/// A latency whose set-points are 1.5, 2 and 4 times what is usual.
pub fn relative(name: &str) -> SignalSpec {
    SignalSpec {
        thresholds: Thresholds { under: 1.5, over: 2.0, critical: 4.0 },
        threshold_kind: ThresholdKind::Relative { floor: 0.001, baseline_min_seconds: 300 },
        ..signal(name, Family::Latency)
    }
}

pub fn policy(signals: Vec<SignalSpec>) -> Policy {
    let on_expiry = OnExpiry { hold_seconds: 30, then: 0.1, ramp_per_minute: 0.2 };
    Policy {
        hash: "0".into(),
        text: "".into(),
        windows: WindowSpec { control_seconds: 30, state_seconds: 60, baseline_seconds: 1800, lateness_seconds: 15 },
        health: HealthSpec {
            unknown_after_seconds: 40,
            held_seconds: 300,
            peer_z: 4.0,
            peer_effect: 0.2,
            peers_min: 5,
            silent_seconds: 3600,
            leave_seconds: 86_400,
        },
        lease: LeaseSpec { lease_seconds: 60, refresh_seconds: 10 },
        inputs: vec![],
        score: None,
        rollup: None,
        classes: vec!["discretionary".into()],
        rules: vec![Rule {
            name: "default".into(),
            selector: Selector::default(),
            thresholds: signals.iter().map(|signal| signal.thresholds).collect(),
            classes: vec![ClassSpec {
                name: "discretionary".into(),
                set_point: Some(0.7),
                floor: 0.0,
                cut_min: 0.125,
                rise_max: 0.15,
                on_expiry,
            }],
            nominals: vec![None],
            mode: Mode::Observe,
        }],
        signals,
    }
}

/// Servers of pool 1 that have just reported.
pub fn servers(slots: usize) -> ServerFrame {
    ServerFrame {
        live: vec![true; slots],
        pool: vec![1; slots],
        rule: vec![0; slots],
        enforcement_rank: vec![0.0; slots],
        age_seconds: vec![1.0; slots],
        interval_seconds: vec![10.0; slots],
        slow: Vec::new(),
        data_flags: Vec::new(),
    }
}

/// A column of values over both windows; NaN is null.
pub fn column(values: &[f64]) -> SignalFrame {
    let array: Float64Array = values.iter().map(|value| (!value.is_nan()).then_some(*value)).collect();
    SignalFrame {
        control: array.clone(),
        state: array,
        samples: vec![3; values.len()].into(),
        age_seconds: values.iter().map(|value| if value.is_nan() { f32::NAN } else { 1.0 }).collect(),
        volume: None,
    }
}

/// A cell under a script: one tick each ten seconds.
pub struct Cell {
    pub state: HealthState,
    pub policy: Policy,
    pub servers: ServerFrame,
    pub epoch: i64,
    pub frame: HealthFrame,
}

impl Cell {
    pub fn new(policy: Policy, slots: usize) -> Self {
        let (state, servers, frame) = (HealthState::new(), servers(slots), HealthFrame::default());
        Self { state, policy, servers, epoch: 1_000_000, frame }
    }

    /// So many ticks with these columns, one per signal.
    pub fn run(&mut self, ticks: usize, columns: &[SignalFrame]) -> &HealthFrame {
        for _ in 0..ticks {
            self.epoch += 10;
            let tick = Timestamp::from_seconds(self.epoch);
            self.frame = self.state.step(tick, 10, &self.servers, columns, &self.policy, 3);
        }
        &self.frame
    }

    /// So many ticks with one value per signal for the only server.
    pub fn run_one(&mut self, ticks: usize, values: &[f64]) -> &HealthFrame {
        let columns: Vec<SignalFrame> = values.iter().map(|value| column(&[*value])).collect();
        self.run(ticks, &columns)
    }
}

pub fn load(frame: &HealthFrame, slot: usize) -> LoadState {
    LoadState::ALL[usize::from(frame.load_state[slot])]
}

pub fn fault(frame: &HealthFrame, slot: usize) -> FaultState {
    FaultState::ALL[usize::from(frame.fault_state[slot])]
}

pub fn status(frame: &HealthFrame, signal: usize, slot: usize) -> SignalStatus {
    SignalStatus::ALL[usize::from(frame.signal_status[signal][slot])]
}

pub fn reasons(frame: &HealthFrame, slot: usize) -> &[Reason] {
    &frame.reasons[frame.reason_offsets[slot] as usize..frame.reason_offsets[slot + 1] as usize]
}
