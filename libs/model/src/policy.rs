//! A policy as the core reads it: parsed, validated, with names resolved to indices where the hot path needs them.
//!
//! `headroom-config` makes it from YAML and refuses what contradicts itself; nothing here can fail. Set-points and laws
//! are in force per *rule*: every server obeys the most specific rule whose selector matches it.

use std::sync::Arc;

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::resource::Resource;
use crate::series::Series;

/// What may be wrong with a server, and what its signals are grouped by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Family {
    /// Processor time.
    Cpu = 0,
    /// Memory and paging.
    Memory = 1,
    /// Disks and filesystems.
    Disk = 2,
    /// Network interfaces.
    Network = 3,
    /// Queues: run queue, pending requests, ages.
    Queue = 4,
    /// Latency of requests.
    Latency = 5,
    /// Errors: the only family of the fault axis.
    Errors = 6,
}

impl Family {
    /// Every family, in the order of its number.
    pub const ALL: [Self; 7] =
        [Self::Cpu, Self::Memory, Self::Disk, Self::Network, Self::Queue, Self::Latency, Self::Errors];

    /// The name in policies and answers.
    pub fn as_str(self) -> &'static str {
        ["cpu", "memory", "disk", "network", "queue", "latency", "errors"][self as usize]
    }
}

/// How the sub-series of one sender become one value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fold {
    /// Add them.
    Sum,
    /// The largest.
    Max,
    /// The smallest.
    Min,
    /// Their mean.
    Mean,
    /// How many have a value.
    Count,
}

/// How the values of several senders on one server become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Across {
    /// Host metrics: the first sender in the order (source, sender name) that has a fresh value.
    First,
    /// Request metrics: they add up (histograms merge).
    Sum,
    /// The largest.
    Max,
}

/// What a window makes of the samples of one sub-series.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum WindowFunction {
    /// Increase per second over the time observed.
    Rate,
    /// Increase.
    Increase,
    /// The latest value.
    Last,
    /// Mean of the values.
    Mean,
    /// Smallest value.
    Min,
    /// Largest value.
    Max,
    /// Number of observations: of a histogram its count, else the number of samples.
    Count,
    /// A quantile of a histogram's observations, 0-1.
    Quantile(f64),
}

/// A condition on an attribute. It looks at the first of `keys` that the point (else its resource) carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttributeFilter {
    /// Names of the attribute in the dialects.
    pub keys: Vec<String>,
    /// Patterns (`*` matches any run of characters); one of them must match.
    pub values: Vec<String>,
    /// The condition is that none matches. An absent attribute then passes; otherwise it fails.
    pub negate: bool,
}

/// Where an input may come from. The sources of an input are tried in order; the first with data wins, per sender.
#[derive(Clone, PartialEq, Debug)]
pub struct Source {
    /// Name of the dialect, for `explain` and `GET /v1/inputs`.
    pub dialect: String,
    /// Metric names, any of them.
    pub metrics: Vec<String>,
    /// All must hold.
    pub filters: Vec<AttributeFilter>,
    /// Values are multiplied by this, to bring all sources to the unit of the input (milliseconds: 0.001), unless their
    /// series names a unit that says otherwise.
    pub scale: f64,
}

/// A named number per server and window: a column that expressions read.
#[derive(Clone, PartialEq, Debug)]
pub struct InputSpec {
    /// The column's name.
    pub name: String,
    /// Unit of the value (UCUM); empty if the policy does not say, and values then stay in the unit they were sent in.
    pub unit: String,
    /// Tried in order.
    pub sources: Vec<Source>,
    /// Sub-series of one sender to one value.
    pub fold: Fold,
    /// Senders of one server to one value.
    pub across: Across,
    /// Samples of a sub-series to one value.
    pub function: WindowFunction,
}

/// Where the samples of a series go: an input of the policy, by way of one of its sources.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Lane {
    /// Index into [`Policy::inputs`].
    pub input: u16,
    /// Index into [`InputSpec::sources`].
    pub source: u8,
    /// What values are multiplied with to be in the unit of the input.
    pub scale: f64,
}

/// Tells which lanes a series of a sender feeds. The catalogue implements it and the windows use it, so that neither
/// knows the other.
pub trait LaneMatcher {
    /// The lanes of a series that `resource` reports, empty if no input reads it. Must be a pure function of its
    /// arguments: the answer is kept for as long as the policy is in force.
    fn lanes(&self, resource: &Resource, series: &Series) -> Vec<Lane>;

    /// The lanes of a series if they are the same whoever reports it, `None` if a resource's attributes matter. Saves
    /// one call of [`Self::lanes`] for every server.
    fn lanes_of_series(&self, _series: &Series) -> Option<Vec<Lane>> {
        None
    }
}

/// The three set-points of a signal. With `direction` down (lower is worse) they descend.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Thresholds {
    /// At or below: pressure 0 or less.
    pub under: f64,
    /// Pressure 1: overloaded from here on.
    pub over: f64,
    /// Pressure 2: critical from here on.
    pub critical: f64,
}

/// What the set-points of a signal are measured in.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum ThresholdKind {
    /// In the signal's unit.
    Absolute,
    /// In multiples of the pool's baseline of the signal, else of the server's own; insufficient until a baseline of
    /// `baseline_min_seconds` exists. `floor` is the least baseline assumed, in the signal's unit.
    Relative {
        /// The least baseline assumed.
        floor: f64,
        /// How long a baseline must have been observed.
        baseline_min_seconds: i64,
    },
}

/// When a signal counts as deviating from its peers: by robust z and by effect.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PeerSpec {
    /// Least absolute scale: `epsilon` of z is the larger of this and 1 % of the median, in the signal's unit.
    pub floor: f64,
}

/// A health signal.
#[derive(Clone, PartialEq, Debug)]
pub struct SignalSpec {
    /// The name.
    pub name: String,
    /// The family.
    pub family: Family,
    /// Unit of the value (UCUM).
    pub unit: String,
    /// The SQL expression over inputs and earlier signals.
    pub expression: String,
    /// Whether lower values are worse.
    pub lower_is_worse: bool,
    /// The set-points where no rule says otherwise.
    pub thresholds: Thresholds,
    /// What the set-points are measured in.
    pub threshold_kind: ThresholdKind,
    /// Weight in the confidence. Not in the score: resources are never averaged.
    pub weight: f64,
    /// Whether the signal drives the throttle, or stops at score and placement (how full a filesystem is).
    pub throttle: bool,
    /// Compare with the pool.
    pub peers: Option<PeerSpec>,
    /// The input that counts events and how many a window needs; below that the signal is insufficient.
    pub volume: Option<(String, f64)>,
    /// A fatal flag: any value at or above `over` makes the server faulty at once (read-only filesystem, ECC storm).
    pub fatal: bool,
    /// The reason code, such as `disk_latency_high`.
    pub reason: String,
}

/// What a consumer does with a class after a lease has expired.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct OnExpiry {
    /// Keep the last admit fraction this long.
    pub hold_seconds: i64,
    /// Then move towards this fraction.
    pub then: f64,
    /// By at most this much a minute.
    pub ramp_per_minute: f64,
}

/// A workload class and its law (`P*` = set-point on the load pressure).
#[derive(Clone, PartialEq, Debug)]
pub struct ClassSpec {
    /// The name.
    pub name: String,
    /// The pressure above which the class is cut; `None` exempts the class.
    pub set_point: Option<f64>,
    /// The admit fraction never falls below this.
    pub floor: f64,
    /// A cut multiplies by no less than this per control window.
    pub cut_min: f64,
    /// The fraction rises by no more than this per control window.
    pub rise_max: f64,
    /// After the lease.
    pub on_expiry: OnExpiry,
}

/// Whether decisions bind.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Mode {
    /// No decisions are derived.
    Off,
    /// Decisions are derived and shown; nothing acts on them.
    Observe,
    /// The given share of servers, 0-100, obeys.
    Enforce {
        /// Percent of the servers, by [`crate::hash::enforcement_rank`].
        percent: f64,
    },
}

impl Mode {
    /// Writes the mode.
    pub fn encode(self, out: &mut Encoder) {
        let (number, percent) = match self {
            Self::Off => (0, 0.0),
            Self::Observe => (1, 0.0),
            Self::Enforce { percent } => (2, percent),
        };
        out.put_u8(number);
        out.put_f64(percent);
    }

    /// Reads a mode.
    ///
    /// # Errors
    /// If the bytes are none.
    pub fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let number = input.get_u8()?;
        let percent = input.get_f64()?;
        match number {
            0 => Ok(Self::Off),
            1 => Ok(Self::Observe),
            2 if (0.0..=100.0).contains(&percent) => Ok(Self::Enforce { percent }),
            _ => Err(input.error("mode")),
        }
    }
}

/// Which servers a rule is for. All given conditions must hold; patterns may hold `*`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Selector {
    /// Pattern of the cell.
    pub cell: Option<String>,
    /// Pattern of the pool.
    pub pool: Option<String>,
    /// Attribute and pattern of its value, sorted by attribute.
    pub attributes: Vec<(String, String)>,
}

/// Set-points and laws in force for the servers of a selector. Everything is resolved: defaults are filled in.
#[derive(Clone, PartialEq, Debug)]
pub struct Rule {
    /// The name.
    pub name: String,
    /// Which servers.
    pub selector: Selector,
    /// Set-points, one for each of [`Policy::signals`].
    pub thresholds: Vec<Thresholds>,
    /// Laws, one for each of [`Policy::classes`], in their order.
    pub classes: Vec<ClassSpec>,
    /// What a fraction of 1 means for each class, in the operator's own unit (tasks, requests per second).
    pub nominals: Vec<Option<f64>>,
    /// Whether decisions bind.
    pub mode: Mode,
}

/// Spans of time, in seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WindowSpec {
    /// Control window: what the throttle and the values in answers look at.
    pub control_seconds: i64,
    /// State window: what load states look at.
    pub state_seconds: i64,
    /// Time constant of baselines.
    pub baseline_seconds: i64,
    /// Samples later than this behind their sender's watermark are counted and left out.
    pub lateness_seconds: i64,
}

/// Rules of the health states; see `reference` comments in `headroom-health`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct HealthSpec {
    /// Least age of the newest sample that makes a server unknown; a slow sender gets four of its intervals.
    pub unknown_after_seconds: i64,
    /// How long a vanished signal keeps the pressure it had above its set-point.
    pub held_seconds: i64,
    /// Robust z from which a signal deviates from its peers.
    pub peer_z: f64,
    /// Least relative effect of a deviation.
    pub peer_effect: f64,
    /// Least number of peers.
    pub peers_min: usize,
    /// A silent server stops counting in peers, guards and limits after this.
    pub silent_seconds: i64,
    /// A silent server leaves after this.
    pub leave_seconds: i64,
}

/// The life of a decision, in seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseSpec {
    /// How long a decision is valid from receipt.
    pub lease_seconds: i64,
    /// How often a consumer should renew it.
    pub refresh_seconds: i64,
}

/// A whole policy.
#[derive(Clone, PartialEq, Debug)]
pub struct Policy {
    /// Version: eight hex digits over the text.
    pub hash: Arc<str>,
    /// The YAML it was made from.
    pub text: Arc<str>,
    /// Spans of windows.
    pub windows: WindowSpec,
    /// Rules of states.
    pub health: HealthSpec,
    /// Life of decisions.
    pub lease: LeaseSpec,
    /// The inputs, sorted by name.
    pub inputs: Vec<InputSpec>,
    /// The signals in the order of the file: later ones may read earlier ones.
    pub signals: Vec<SignalSpec>,
    /// An expression over signals and their pressures (`<signal>_pressure`, `load_pressure`, `fault_pressure`) that
    /// replaces the score, 0-1.
    pub score: Option<String>,
    /// An expression over aggregates of servers that gives the health of each pool and of the cell, 0-1.
    pub rollup: Option<String>,
    /// Names of the classes, most important first.
    pub classes: Vec<String>,
    /// The rules, most specific first; the last one matches every server.
    pub rules: Vec<Rule>,
}

impl Policy {
    /// The rule of a server: index into [`Self::rules`]. The last rule is taken where none matches.
    pub fn rule_of(&self, cell: &str, pool: &str, attribute: impl Fn(&str) -> Option<String>) -> usize {
        let fits = |selector: &Selector| {
            selector.cell.as_deref().is_none_or(|pattern| matches_pattern(pattern, cell))
                && selector.pool.as_deref().is_none_or(|pattern| matches_pattern(pattern, pool))
                && selector
                    .attributes
                    .iter()
                    .all(|(key, pattern)| attribute(key).is_some_and(|value| matches_pattern(pattern, &value)))
        };
        self.rules.iter().position(|rule| fits(&rule.selector)).unwrap_or(self.rules.len().saturating_sub(1))
    }
}

/// Whether `text` matches `pattern`, in which `*` stands for any run of characters. Linear in time apart from the
/// backtracking to the last star, so that no pattern is a weapon.
pub fn matches_pattern(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            last_star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && pattern[p] == text[t] {
            p += 1;
            t += 1;
        } else if let Some((star_p, star_t)) = last_star {
            p = star_p + 1;
            t = star_t + 1;
            last_star = Some((star_p, star_t + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::matches_pattern;

    #[test]
    fn stars_match_any_run() {
        for (pattern, text, expected) in [
            ("web-*", "web-17", true),
            ("*", "", true),
            ("web", "web-1", false),
            ("*-db-*", "eu-db-1", true),
            ("a*b*c", "axxbyyb", false),
            ("a*b*c", "axxbyybc", true),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(matches_pattern(pattern, text), expected, "{pattern} {text}");
        }
    }
}
