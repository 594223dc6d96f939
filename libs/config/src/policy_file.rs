//! What a policy file looks like. `default-policy.yaml` in `headroom-catalog` explains every key.

use headroom_model::policy as model;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::named::Named;

/// A policy. It extends the default policy unless it says otherwise, and then needs only what differs.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicyFile {
    /// What the policy starts from.
    #[serde(default, rename = "extends")]
    _extends: Extends,
    /// Whether decisions bind: `off`, `observe`, `enforce`, or `{enforce: percent}`.
    #[serde(default)]
    pub mode: Mode,
    /// Spans of time.
    #[serde(default)]
    pub windows: Windows,
    /// The life of a decision.
    #[serde(default)]
    pub lease: Lease,
    /// Rules of the health states.
    #[serde(default)]
    pub health: Health,
    /// Workload classes, most important first.
    #[serde(default)]
    pub classes: Named<Class>,
    /// Set-points and laws for some servers.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// An expression that replaces the score.
    #[serde(default)]
    pub score: Option<String>,
    /// An expression for the health of each pool and of the cell; without one it is the median score of their servers.
    #[serde(default)]
    pub rollup: Option<String>,
    /// Columns made of metrics.
    #[serde(default)]
    pub inputs: Named<Input>,
    /// Expressions over inputs and the signals above them.
    #[serde(default)]
    pub signals: Named<Signal>,
}

/// What a policy starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Extends {
    /// The default policy.
    #[default]
    Default,
    /// An empty one.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Mode {
    /// One word.
    Word(ModeWord),
    /// Decisions bind on a share of the servers.
    Share(EnforceShare),
}

impl Default for Mode {
    fn default() -> Self {
        Self::Word(ModeWord::Observe)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ModeWord {
    /// No decisions are derived.
    Off,
    /// Decisions are derived and shown; nothing acts on them.
    Observe,
    /// Decisions bind on every server.
    Enforce,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnforceShare {
    /// Percent of the servers, 0-100.
    #[schemars(range(min = 0, max = 100))]
    enforce: f64,
}

impl From<Mode> for model::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Word(ModeWord::Off) => Self::Off,
            Mode::Word(ModeWord::Observe) => Self::Observe,
            Mode::Word(ModeWord::Enforce) => Self::Enforce { percent: 100.0 },
            Mode::Share(share) => Self::Enforce { percent: share.enforce },
        }
    }
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Windows {
    #[schemars(range(min = 1, max = 3_600))]
    pub control_seconds: i64,
    #[schemars(range(min = 1, max = 3_600))]
    pub state_seconds: i64,
    #[schemars(range(min = 60, max = 604_800))]
    pub baseline_seconds: i64,
    #[schemars(range(min = 0, max = 3_600))]
    pub lateness_seconds: i64,
}

impl Default for Windows {
    fn default() -> Self {
        Self { control_seconds: 30, state_seconds: 60, baseline_seconds: 1_800, lateness_seconds: 15 }
    }
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Lease {
    #[schemars(range(min = 1, max = 3_600))]
    pub lease_seconds: i64,
    #[schemars(range(min = 1, max = 3_600))]
    pub refresh_seconds: i64,
}

impl Default for Lease {
    fn default() -> Self {
        Self { lease_seconds: 60, refresh_seconds: 10 }
    }
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Health {
    #[schemars(range(min = 1, max = 86_400))]
    pub unknown_after_seconds: i64,
    #[schemars(range(min = 0, max = 86_400))]
    pub held_seconds: i64,
    #[schemars(range(min = 1, max = 100))]
    pub peer_z: f64,
    #[schemars(range(min = 0, max = 100))]
    pub peer_effect: f64,
    #[schemars(range(min = 3, max = 1_000_000))]
    pub peers_min: usize,
    #[schemars(range(min = 1, max = 31_536_000))]
    pub silent_seconds: i64,
    #[schemars(range(min = 1, max = 31_536_000))]
    pub leave_seconds: i64,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            unknown_after_seconds: 40,
            held_seconds: 300,
            peer_z: 4.0,
            peer_effect: 0.2,
            peers_min: 5,
            silent_seconds: 3_600,
            leave_seconds: 86_400,
        }
    }
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Class {
    /// The pressure above which the class is cut; null exempts it.
    #[schemars(range(min = 0.2, max = 3))]
    pub set_point: Option<f64>,
    #[schemars(range(min = 0, max = 1))]
    pub floor: f64,
    #[schemars(range(min = 0.01, max = 1))]
    pub cut_min: f64,
    #[schemars(range(min = 0.001, max = 1))]
    pub rise_max: f64,
    pub on_expiry: OnExpiry,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OnExpiry {
    #[schemars(range(min = 0, max = 86_400))]
    pub hold_seconds: i64,
    #[schemars(range(min = 0, max = 1))]
    pub then: f64,
    #[schemars(range(min = 0.001, max = 1))]
    pub ramp_per_minute: f64,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    #[schemars(length(min = 1))]
    pub name: String,
    #[serde(rename = "match")]
    pub selector: Match,
    #[serde(default)]
    pub signals: Named<ThresholdPatch>,
    #[serde(default)]
    pub classes: Named<ClassPatch>,
    /// What a fraction of 1 means for a class.
    #[serde(default)]
    pub nominal: Named<f64>,
    #[serde(default)]
    pub mode: Option<Mode>,
}

/// Patterns; `*` stands for any run of characters.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Match {
    #[serde(default)]
    pub cell: Option<String>,
    #[serde(default)]
    pub pool: Option<String>,
    #[serde(default)]
    pub attributes: Named<String>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ThresholdPatch {
    pub under: Option<f64>,
    pub over: Option<f64>,
    pub critical: Option<f64>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClassPatch {
    #[schemars(range(min = 0.2, max = 3))]
    pub set_point: Option<f64>,
    #[schemars(range(min = 0, max = 1))]
    pub floor: Option<f64>,
    #[schemars(range(min = 0.01, max = 1))]
    pub cut_min: Option<f64>,
    #[schemars(range(min = 0.001, max = 1))]
    pub rise_max: Option<f64>,
    pub on_expiry: Option<OnExpiry>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Input {
    /// Unit of the value (UCUM). Series that name another unit of the same quantity (`%`, `ms`, `MBy`) are converted, of
    /// another quantity are not read; without a unit here all values stay as they were sent.
    #[serde(default)]
    pub unit: String,
    pub function: Function,
    #[serde(default)]
    pub fold: Fold,
    #[serde(default)]
    pub across: Across,
    #[schemars(length(min = 1, max = 16))]
    pub sources: Vec<Source>,
}

fn dimensionless() -> String {
    "1".into()
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Function {
    Word(FunctionWord),
    Quantile(Quantile),
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FunctionWord {
    Rate,
    Increase,
    Last,
    Mean,
    Min,
    Max,
    Count,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Quantile {
    #[schemars(range(min = 0, max = 1))]
    quantile: f64,
}

impl From<Function> for model::WindowFunction {
    fn from(function: Function) -> Self {
        match function {
            Function::Word(FunctionWord::Rate) => Self::Rate,
            Function::Word(FunctionWord::Increase) => Self::Increase,
            Function::Word(FunctionWord::Last) => Self::Last,
            Function::Word(FunctionWord::Mean) => Self::Mean,
            Function::Word(FunctionWord::Min) => Self::Min,
            Function::Word(FunctionWord::Max) => Self::Max,
            Function::Word(FunctionWord::Count) => Self::Count,
            Function::Quantile(of) => Self::Quantile(of.quantile),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fold {
    #[default]
    Sum,
    Max,
    Min,
    Mean,
    Count,
}

impl From<Fold> for model::Fold {
    fn from(fold: Fold) -> Self {
        match fold {
            Fold::Sum => Self::Sum,
            Fold::Max => Self::Max,
            Fold::Min => Self::Min,
            Fold::Mean => Self::Mean,
            Fold::Count => Self::Count,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Across {
    #[default]
    First,
    Sum,
    Max,
}

impl From<Across> for model::Across {
    fn from(across: Across) -> Self {
        match across {
            Across::First => Self::First,
            Across::Sum => Self::Sum,
            Across::Max => Self::Max,
        }
    }
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Source {
    /// A name for people.
    #[serde(default = "custom")]
    pub dialect: String,
    #[schemars(length(min = 1, max = 64), inner(length(min = 1)))]
    pub metrics: Vec<String>,
    #[serde(default, rename = "where")]
    #[schemars(length(max = 16))]
    pub filters: Vec<Filter>,
    /// Brings the source to the input's unit, where its series name no unit. One that they name is believed instead.
    #[serde(default = "one")]
    pub scale: f64,
}

fn custom() -> String {
    "custom".into()
}

fn one() -> f64 {
    1.0
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Filter {
    #[schemars(length(min = 1, max = 16), inner(length(min = 1)))]
    pub keys: Vec<String>,
    /// Patterns of which one must match.
    #[serde(default, rename = "in")]
    #[schemars(length(max = 256))]
    pub one_of: Option<Vec<String>>,
    /// Patterns of which none may match.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub not_in: Option<Vec<String>>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Signal {
    pub family: Family,
    #[serde(default = "dimensionless")]
    pub unit: String,
    /// SQL over inputs and the signals above.
    #[schemars(length(min = 1))]
    pub expression: String,
    pub under: f64,
    pub over: f64,
    pub critical: f64,
    #[serde(default)]
    pub lower_is_worse: bool,
    #[serde(default)]
    pub relative: Option<Relative>,
    /// Weight in the confidence.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1_000))]
    pub weight: f64,
    #[serde(default = "yes")]
    pub throttle: bool,
    #[serde(default)]
    pub peers: Option<Peers>,
    #[serde(default)]
    pub volume: Option<Volume>,
    #[serde(default)]
    pub fatal: bool,
    /// The reason code; without one it is the signal's name with `_high` or `_low`.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub reason: Option<String>,
}

fn yes() -> bool {
    true
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Family {
    Cpu,
    Memory,
    Disk,
    Network,
    Queue,
    Latency,
    Errors,
}

impl From<Family> for model::Family {
    fn from(family: Family) -> Self {
        match family {
            Family::Cpu => Self::Cpu,
            Family::Memory => Self::Memory,
            Family::Disk => Self::Disk,
            Family::Network => Self::Network,
            Family::Queue => Self::Queue,
            Family::Latency => Self::Latency,
            Family::Errors => Self::Errors,
        }
    }
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Relative {
    #[schemars(range(min = 0))]
    pub floor: f64,
    #[schemars(range(min = 1, max = 604_800))]
    pub baseline_min_seconds: i64,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Peers {
    #[schemars(range(min = 0))]
    pub floor: f64,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Volume {
    pub input: String,
    #[schemars(range(min = 0))]
    pub min: f64,
}
