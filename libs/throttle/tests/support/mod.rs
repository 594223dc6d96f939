//! A policy with one signal and the four default classes, and frames of one row or many, for tests and the benchmark.
#![allow(dead_code, reason = "each user takes the part it needs")]

use arrow_array::Float64Array;
use headroom_model::frame::{FaultState, HealthFrame, LoadState, ServerFrame, SignalFrame};
use headroom_model::policy::{ClassSpec, HealthSpec, LeaseSpec, Mode, OnExpiry, Policy, Rule, Selector, WindowSpec};

pub const URGENT: usize = 0;
pub const CUSTOMER: usize = 1;
pub const INTERNAL: usize = 2;
pub const DISCRETIONARY: usize = 3;

pub fn class(
    name: &str,
    set_point: Option<f64>,
    [floor, cut_min, rise_max]: [f64; 3],
    (hold_seconds, then): (i64, f64),
) -> ClassSpec {
    let on_expiry = OnExpiry { hold_seconds, then, ramp_per_minute: 0.2 };
    ClassSpec { name: name.into(), set_point, floor, cut_min, rise_max, on_expiry }
}

/// The classes as recommended for the default policy; cuts and rises are per control window.
pub fn classes() -> Vec<ClassSpec> {
    vec![
        class("urgent", None, [1.0, 0.73, 0.3], (0, 1.0)),
        class("customerExpectation", Some(1.2), [0.5, 0.73, 0.075], (30, 1.0)),
        class("internalMaintenance", Some(0.9), [0.05, 0.51, 0.1], (30, 0.25)),
        class("discretionary", Some(0.7), [0.0, 0.125, 0.15], (30, 0.1)),
    ]
}

pub fn policy(mode: Mode, classes: Vec<ClassSpec>) -> Policy {
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
        signals: vec![],
        score: None,
        rollup: None,
        classes: classes.iter().map(|class| class.name.clone()).collect(),
        rules: vec![Rule {
            name: "default".into(),
            selector: Selector::default(),
            thresholds: vec![],
            nominals: vec![None; classes.len()],
            classes,
            mode,
        }],
    }
}

/// One signal, the binding one of all servers, and what the throttle reads of health.
pub struct Frames {
    pub servers: ServerFrame,
    pub signals: Vec<SignalFrame>,
    pub health: HealthFrame,
}

impl Frames {
    /// Sets the age of the first server's signal.
    pub fn set_signal_age(&mut self, age_seconds: f32) {
        let mut ages = self.signals[0].age_seconds.to_vec();
        ages[0] = age_seconds;
        self.signals[0].age_seconds = ages.into();
    }

    /// Servers that have just reported and are at rest.
    pub fn new(slots: usize) -> Self {
        Self {
            servers: ServerFrame {
                live: vec![true; slots],
                pool: vec![1; slots],
                rule: vec![0; slots],
                enforcement_rank: (0..slots).map(|slot| slot as f32 * 100.0 / slots as f32).collect(),
                age_seconds: vec![0.0; slots],
                interval_seconds: vec![10.0; slots],
                slow: Vec::new(),
                data_flags: Vec::new(),
            },
            signals: vec![SignalFrame {
                control: Float64Array::from(vec![0.0; slots]),
                state: Float64Array::from(vec![0.0; slots]),
                samples: vec![3; slots].into(),
                age_seconds: vec![0.0; slots].into(),
                volume: None,
            }],
            health: HealthFrame {
                load_state: vec![LoadState::Normal as u8; slots],
                fault_state: vec![FaultState::Ok as u8; slots],
                confidence: vec![1.0; slots],
                flags: vec![0; slots],
                throttle_pressure: vec![0.0; slots],
                throttle_signal: vec![0; slots],
                ..HealthFrame::default()
            },
        }
    }
}
