//! Why a server's record is what it is: every number between a sender's metric and a decision.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::record::{Decision, ServerRecord, Signal};

/// The way from metrics to decisions, for one server at one tick.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Explain<'a> {
    /// What is explained.
    pub server: ServerRecord<'a>,
    /// The rule of the policy that holds for the server: the most specific whose selector matches.
    pub rule: Cow<'a, str>,
    /// Inputs, and which dialect of metric names they came from.
    pub inputs: Vec<InputExplained<'a>>,
    /// Signals with their set-points.
    pub signals: Vec<SignalExplained<'a>>,
    /// Largest pressure of the load families.
    pub load_pressure: Option<f32>,
    /// Pressure of the fault axis.
    pub fault_pressure: Option<f32>,
    /// Largest pressure among the signals that drive the throttle.
    pub throttle_pressure: Option<f32>,
    /// The signal it comes from.
    pub throttle_signal: Option<Cow<'a, str>>,
    /// What the confidence is made of.
    pub confidence: Confidence<'a>,
    /// Class by class, most important first: why throttled, or why not.
    pub classes: Vec<ClassExplained<'a>>,
}

/// An input of the server.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InputExplained<'a> {
    /// Its name.
    pub input: Cow<'a, str>,
    /// Its value over the control window.
    pub value: Option<f64>,
    /// The dialect whose metric it came from; `null` where no metric matched.
    pub dialect: Option<Cow<'a, str>>,
}

/// A signal of the server and what it is measured against.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignalExplained<'a> {
    /// The signal.
    #[serde(flatten)]
    pub signal: Signal<'a>,
    /// Pressure 0.
    pub under: Option<f64>,
    /// Pressure 1.
    pub over: Option<f64>,
    /// Pressure 2.
    pub critical: Option<f64>,
    /// Whether lower values are worse.
    pub lower_is_worse: bool,
    /// Whether it drives the throttle, or stops at score and placement.
    pub drives_throttle: bool,
    /// Samples in the control window.
    pub samples: u32,
    /// Age of the newest of them.
    pub age_seconds: Option<f32>,
}

/// What the confidence is made of: signals by their standing. Those never reported do not count.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Confidence<'a> {
    /// Share of the weighted signals that are fresh and sufficient.
    pub confidence: Option<f32>,
    /// Fresh and sufficient.
    pub ok: Vec<Cow<'a, str>>,
    /// Fresh, too little to judge by.
    pub insufficient: Vec<Cow<'a, str>>,
    /// Vanished while above a set-point; keep that pressure for a while.
    pub held: Vec<Cow<'a, str>>,
    /// Vanished.
    pub missing: Vec<Cow<'a, str>>,
    /// Never reported.
    pub absent: Vec<Cow<'a, str>>,
}

/// A class and why it is limited, or why not.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClassExplained<'a> {
    /// The decision.
    pub decision: Decision<'a>,
    /// The pressure above which the class is cut; `null` exempts it.
    pub set_point: Option<f64>,
    /// The signal that binds it.
    pub binding_signal: Option<Cow<'a, str>>,
    /// In words.
    pub because: Cow<'a, str>,
}
