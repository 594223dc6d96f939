//! What would have to be otherwise: the set-point of the least important limited class, turned back into the units of
//! the signals.
//!
//! It must be true, so it names *every* signal that has to move, and it rounds its numbers to the safe side.

use headroom_model::CellSnapshot;
use headroom_model::frame::{DecisionReason, SignalStatus};
use headroom_model::policy::Family;

/// A limited class rises only while the pressure is this far below its set-point: the dead band of the law, which is
/// not part of a policy. Where nothing is enforced yet no fraction has to rise, and the set-point itself is the limit.
pub(crate) const RAISE_MARGIN: f64 = 0.15;

const SIGNIFICANT_DIGITS: i32 = 3;

/// The statement and the signals it names.
pub(crate) struct Counterfactual {
    pub(crate) text: String,
    pub(crate) signals: Vec<usize>,
}

/// For a row; `None` where nothing is limited, or where it is not pressure that limits.
pub(crate) fn of_row(snapshot: &CellSnapshot, row: usize) -> Option<Counterfactual> {
    let policy = &*snapshot.policy;
    let class = (0..policy.classes.len()).rev().find(|class| snapshot.decisions[*class].would_admit[row] < 1.0)?;
    let decision = &snapshot.decisions[class];
    let by_pressure =
        [DecisionReason::Throttled, DecisionReason::Held, DecisionReason::Rising, DecisionReason::HigherClass];
    if !by_pressure.iter().any(|reason| *reason as u8 == decision.reason[row]) {
        return None;
    }
    let rule = policy.rules.get(usize::from(snapshot.servers.rule[row]))?;
    let enforced = decision.mode[row] == 2;
    let target = rule.set_points[class] - if enforced { RAISE_MARGIN } else { 0.0 };
    if !target.is_finite() {
        return None;
    }
    let mut conditions = Vec::new();
    let mut signals = Vec::new();
    for (at, signal) in policy.signals.iter().enumerate() {
        let status = snapshot.health.signal_status[at][row];
        let counts = status == SignalStatus::Ok as u8 || status == SignalStatus::Held as u8;
        let pressure = f64::from(snapshot.health.signal_pressure[at][row]);
        if !signal.throttle || signal.family == Family::Errors || !counts || pressure.is_nan() || pressure < target {
            continue;
        }
        let value = value_at(thresholds(snapshot, at, row), target);
        if !value.is_finite() {
            return None;
        }
        let (relation, value) = if signal.lower_is_worse {
            (">", round_significant(value, f64::ceil))
        } else {
            ("<", round_significant(value, f64::floor))
        };
        let unit = if &*signal.unit == "1" || signal.unit.is_empty() { "" } else { &format!(" {}", signal.unit) };
        conditions.push(format!("{} were {relation} {value}{unit}", signal.name));
        signals.push(at);
    }
    if conditions.is_empty() {
        return None;
    }
    let field = if enforced { "admitFraction" } else { "wouldAdmitFraction" };
    let class = &policy.classes[class].name;
    Some(Counterfactual { text: format!("{field} of {class} would be 1.0 if {}", conditions.join(" and ")), signals })
}

/// Under, over, critical of a signal on a row, in the signal's unit.
pub(crate) fn thresholds(snapshot: &CellSnapshot, signal: usize, row: usize) -> [f64; 3] {
    match snapshot.health.relative_thresholds[signal].get(row) {
        Some(relative) => *relative,
        None => snapshot
            .policy
            .rules
            .get(usize::from(snapshot.servers.rule[row]))
            .map_or([f64::NAN; 3], |rule| rule.thresholds[signal]),
    }
}

/// The value at which a signal has a pressure.
fn value_at([under, over, critical]: [f64; 3], pressure: f64) -> f64 {
    if pressure < 1.0 { under + pressure * (over - under) } else { over + (pressure - 1.0) * (critical - over) }
}

fn round_significant(value: f64, round: fn(f64) -> f64) -> f64 {
    if value == 0.0 {
        return 0.0;
    }
    let digits = SIGNIFICANT_DIGITS - 1 - value.abs().log10().floor() as i32;
    // What arithmetic in binary left behind must not cost a digit: 30.000000000000004 is 30.
    let snap = |x: f64| if (x - x.round()).abs() < 1e-9 * x.abs() { x.round() } else { round(x) };
    if digits >= 0 {
        snap(value * 10f64.powi(digits)) / 10f64.powi(digits)
    } else {
        snap(value / 10f64.powi(-digits)) * 10f64.powi(-digits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_to_the_safe_side() {
        for (value, below, above) in [
            (0.021_49, 0.0214, 0.0215),
            (0.03, 0.03, 0.03),
            (123_456.0, 123_000.0, 124_000.0),
            (-2.5, -2.5, -2.5),
            (0.0, 0.0, 0.0),
        ] {
            assert_eq!(round_significant(value, f64::floor), below);
            assert_eq!(round_significant(value, f64::ceil), above);
        }
    }

    #[test]
    fn pressure_turns_back_into_values_in_both_directions() {
        for (thresholds, pressure, value) in [
            ([0.5, 0.9, 1.0], 0.5, 0.7),
            ([0.5, 0.9, 1.0], 1.5, 0.95),
            ([40.0, 10.0, 5.0], 0.5, 25.0),
            ([40.0, 10.0, 5.0], 2.0, 5.0),
        ] {
            assert!((value_at(thresholds, pressure) - value).abs() < 1e-12);
        }
    }
}
