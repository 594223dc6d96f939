//! From a row of a snapshot to its records.
//!
//! The snapshot says what the engine decided; [`Reading`] says what the reader knows besides (that it is old, that the
//! kill switch is thrown). Both are put together here and nowhere else, so that no route can forget one of them. The
//! snapshot's columns must agree with each other (`CellSnapshot::is_consistent`), as those of a read model do.

use std::borrow::Cow;

use headroom_model::coverage::coverage_share;
use headroom_model::frame::{
    ClassFrame, DecisionReason, FaultState, LoadState, Placement, Reason as ModelReason, ReasonKind, SignalStatus, flag,
};
use headroom_model::{CellSnapshot, Timestamp};

use crate::because::because;
use crate::counterfactual;
use crate::explain::{ClassExplained, Confidence, Explain, InputExplained, SignalExplained};
use crate::record::{Check, Decision, OnExpiry, Reason, ServerRecord, Signal};
use crate::time::Time;

/// What a reader knows that the snapshot cannot know.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reading {
    /// The snapshot is too old to be true.
    pub stale: bool,
    /// The kill switch is thrown: nothing is limited.
    pub killed: bool,
}

/// Reads rows of a snapshot.
#[derive(Clone, Copy)]
pub struct RowReader<'a> {
    snapshot: &'a CellSnapshot,
    reading: Reading,
    /// The epoch that the answer's `Age` counts from.
    answer_epoch: i64,
}

impl<'a> RowReader<'a> {
    /// A reader of a snapshot whose columns agree.
    pub fn new(snapshot: &'a CellSnapshot, reading: Reading) -> Self {
        Self { snapshot, reading, answer_epoch: snapshot.epoch }
    }

    /// The same row in an answer whose `Age` counts from a later epoch: leases are shorter by what `Age` then leaves out.
    /// Else the cells that live would renew, at every answer, what a dead one said last.
    pub fn in_answer_of(self, epoch: i64) -> Self {
        Self { answer_epoch: epoch, ..self }
    }

    /// Whether what is read is too old to be true.
    pub fn is_stale(&self) -> bool {
        self.reading.stale
    }

    /// When the lease of the snapshot's decisions ends.
    pub fn valid_until(&self) -> Time {
        Time::from_seconds(self.snapshot.epoch.saturating_add(self.snapshot.policy.lease_seconds))
    }

    /// What is left of the lease at the epoch of the answer.
    fn lease_seconds(&self) -> i64 {
        let before_answer = self.answer_epoch.saturating_sub(self.snapshot.epoch).max(0);
        self.snapshot.policy.lease_seconds.saturating_sub(before_answer).max(0)
    }

    /// The record of a server.
    pub fn record(&self, row: usize) -> ServerRecord<'a> {
        let snapshot = self.snapshot;
        let health = &snapshot.health;
        ServerRecord {
            server: self.server(row),
            aliases: snapshot.servers.aliases[row].iter().map(|alias| Cow::Borrowed(&**alias)).collect(),
            cell: Cow::Borrowed(&snapshot.cell),
            pool: self.pool(row),
            epoch: snapshot.epoch,
            as_of: Time::from_seconds(snapshot.epoch),
            valid_until: self.valid_until(),
            stale: self.reading.stale,
            policy_hash: Cow::Borrowed(&snapshot.policy.hash),
            mode: Cow::Borrowed(self.mode(row)),
            health_score: self.score(row),
            pressure: self.unless_stale(health.pressure[row]),
            load_state: Cow::Borrowed(self.load_state(row).as_str()),
            fault_state: Cow::Borrowed(self.fault_state(row).as_str()),
            placement: Cow::Borrowed(self.placement(row).as_str()),
            state_since: Time::from_seconds(health.state_since[row]),
            confidence: self.unless_stale(health.confidence[row]),
            last_sample_age_seconds: known32(snapshot.age_seconds[row]),
            coverage: coverage_share(snapshot.coverage[row]).filter(|_| !self.reading.stale),
            flags: self.flags(row),
            reasons: self.reasons(row),
            signals: (0..snapshot.policy.signals.len()).map(|signal| self.signal(signal, row)).collect(),
            decisions: (0..snapshot.policy.classes.len()).map(|class| self.decision(class, row)).collect(),
        }
    }

    /// The decision of a server for a class, named by its place in the policy.
    pub fn decision(&self, class: usize, row: usize) -> Decision<'a> {
        let snapshot = self.snapshot;
        let policy = &*snapshot.policy;
        let admit_fraction = self.admit(class, row);
        let nominal = policy.rules[usize::from(snapshot.servers.rule[row])].nominals[class];
        Decision {
            server: self.server(row),
            cell: Cow::Borrowed(&snapshot.cell),
            pool: self.pool(row),
            class: Cow::Borrowed(&policy.classes[class].name),
            epoch: snapshot.epoch,
            admit_fraction,
            would_admit_fraction: if self.reading.killed { 1.0 } else { snapshot.decisions[class].would_admit[row] },
            mode: Cow::Borrowed(self.class_mode(class, row)),
            limit: known(nominal * short(admit_fraction)),
            lease_seconds: self.lease_seconds(),
            refresh_after_seconds: policy.refresh_seconds,
            valid_until: self.valid_until(),
            on_expiry: self.on_expiry(class, row),
            reason_code: self.reason_code(class, row),
            guards: self.guards(class, row),
        }
    }

    /// What a probe is told at `now`. Without a class, about the one of which the least is admitted.
    pub fn check(&self, row: usize, class: Option<usize>, now: Timestamp) -> Option<Check<'a>> {
        let classes = self.snapshot.policy.classes.len();
        let fraction = |class: usize| self.fraction_at(class, row, now);
        let least = || (0..classes).min_by(|a, b| fraction(*a).total_cmp(&fraction(*b)));
        let class = class.filter(|class| *class < classes).or_else(least)?;
        let admit_fraction = fraction(class);
        let mode = self.class_mode(class, row);
        let expired = self.seconds_after_lease(now) > 0.0;
        // A block is a decision too, and no decision outlives its lease.
        let published = Placement::ALL[usize::from(self.snapshot.health.placement[row])];
        let would = if expired { Placement::Avoid } else { published };
        let acts = if mode == "enforce" { would } else { Placement::Allow };
        let status = match acts {
            Placement::Block => "blocked",
            _ if admit_fraction < 1.0 => "throttled",
            _ => "open",
        };
        Some(Check {
            server: self.server(row),
            cell: Cow::Borrowed(&self.snapshot.cell),
            class: Cow::Borrowed(&self.snapshot.policy.classes[class].name),
            status: Cow::Borrowed(status),
            admit_fraction,
            would_admit_fraction: self.decision(class, row).would_admit_fraction,
            mode: Cow::Borrowed(mode),
            placement: Cow::Borrowed(acts.as_str()),
            would_placement: Cow::Borrowed(would.as_str()),
            epoch: self.snapshot.epoch,
            valid_until: self.valid_until(),
            stale: self.reading.stale,
            expired,
            reason_code: self.reason_code(class, row),
        })
    }

    /// Why the record is what it is.
    pub fn explain(&self, row: usize) -> Explain<'a> {
        let snapshot = self.snapshot;
        let (policy, health) = (&*snapshot.policy, &snapshot.health);
        let rule = &policy.rules[usize::from(snapshot.servers.rule[row])];
        let record = self.record(row);
        let inputs = policy.inputs.iter().zip(&snapshot.inputs).map(|((name, dialects), column)| InputExplained {
            input: Cow::Borrowed(&**name),
            value: known(column.value[row]),
            dialect: dialects.get(usize::from(column.source[row])).map(|dialect| Cow::Borrowed(&**dialect)),
        });
        let signals = policy.signals.iter().enumerate().map(|(at, head)| {
            let [under, over, critical] = counterfactual::thresholds(snapshot, at, row);
            SignalExplained {
                signal: self.signal(at, row),
                under: known(under),
                over: known(over),
                critical: known(critical),
                lower_is_worse: head.lower_is_worse,
                drives_throttle: head.throttle,
                samples: snapshot.signals[at].samples[row],
                age_seconds: known32(snapshot.signals[at].age_seconds[row]),
            }
        });
        let with_status = |status: SignalStatus| -> Vec<Cow<'a, str>> {
            let names = policy.signals.iter().zip(&health.signal_status);
            let names = names.filter(|(_, column)| column[row] == status as u8);
            names.map(|(head, _)| Cow::Borrowed(&*head.name)).collect()
        };
        let confidence = Confidence {
            confidence: record.confidence,
            ok: with_status(SignalStatus::Ok),
            insufficient: with_status(SignalStatus::Insufficient),
            held: with_status(SignalStatus::Held),
            missing: with_status(SignalStatus::Missing),
            absent: with_status(SignalStatus::Absent),
        };
        let classes = (0..policy.classes.len()).map(|class| ClassExplained {
            set_point: known(rule.set_points[class]),
            binding_signal: policy
                .signals
                .get(usize::from(snapshot.decisions[class].binding[row]))
                .map(|head| Cow::Borrowed(&*head.name)),
            because: Cow::Owned(self.because(class, row)),
            decision: self.decision(class, row),
        });
        Explain {
            rule: Cow::Borrowed(&*rule.name),
            load_pressure: self.unless_stale(health.load_pressure[row]),
            fault_pressure: self.unless_stale(health.fault_pressure[row]),
            throttle_pressure: self.unless_stale(health.throttle_pressure[row]),
            throttle_signal: policy
                .signals
                .get(usize::from(health.throttle_signal[row]))
                .map(|head| Cow::Borrowed(&*head.name)),
            inputs: inputs.collect(),
            signals: signals.collect(),
            confidence,
            classes: classes.collect(),
            server: record,
        }
    }

    /// The health score; unknown when stale.
    pub fn score(&self, row: usize) -> Option<f32> {
        self.unless_stale(self.snapshot.health.score[row])
    }

    /// The load state; unknown when stale.
    pub fn load_state(&self, row: usize) -> LoadState {
        let state = LoadState::ALL[usize::from(self.snapshot.health.load_state[row])];
        if self.reading.stale { LoadState::Unknown } else { state }
    }

    /// The fault state; unknown when stale.
    pub fn fault_state(&self, row: usize) -> FaultState {
        let state = FaultState::ALL[usize::from(self.snapshot.health.fault_state[row])];
        if self.reading.stale { FaultState::Unknown } else { state }
    }

    /// The placement; avoid when stale.
    pub fn placement(&self, row: usize) -> Placement {
        let placement = Placement::ALL[usize::from(self.snapshot.health.placement[row])];
        if self.reading.stale { Placement::Avoid } else { placement }
    }

    /// The fraction in force for a class.
    pub fn admit(&self, class: usize, row: usize) -> f32 {
        if self.reading.killed { 1.0 } else { self.snapshot.decisions[class].admit[row] }
    }

    /// The mode in effect on a server.
    pub fn mode(&self, row: usize) -> &'static str {
        if self.snapshot.decisions.is_empty() { "observe" } else { self.class_mode(0, row) }
    }

    fn class_mode(&self, class: usize, row: usize) -> &'static str {
        match self.snapshot.decisions[class].mode[row] {
            _ if self.reading.killed => "off",
            0 => "off",
            1 => "observe",
            _ => "enforce",
        }
    }

    fn server(&self, row: usize) -> Cow<'a, str> {
        Cow::Borrowed(&self.snapshot.servers.server[row])
    }

    fn pool(&self, row: usize) -> Cow<'a, str> {
        Cow::Borrowed(&self.snapshot.servers.pools[self.snapshot.servers.pool[row] as usize])
    }

    fn unless_stale(&self, value: f32) -> Option<f32> {
        known32(value).filter(|_| !self.reading.stale)
    }

    fn flags(&self, row: usize) -> Vec<Cow<'a, str>> {
        let names = [
            (flag::FLAPPING, "flapping"),
            (flag::LOST_SIGNAL, "lost_signal"),
            (flag::SILENT, "silent"),
            (flag::CLOCK_SKEW, "clock_skew"),
            (flag::NOT_A_NUMBER, "not_a_number"),
            (flag::FLAT_SENSOR, "flat_sensor"),
            (flag::OVERLAPPING_WRITERS, "overlapping_writers"),
            (flag::NAME_CONFLICT, "name_conflict"),
            (flag::NOTHING_READ, "nothing_read"),
            (flag::SERIES_REFUSED, "series_refused"),
        ];
        let bits = self.snapshot.health.flags[row];
        let set = names.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name);
        set.chain(self.reading.killed.then_some("kill_switch")).map(Cow::Borrowed).collect()
    }

    fn signal(&self, signal: usize, row: usize) -> Signal<'a> {
        let head = &self.snapshot.policy.signals[signal];
        let health = &self.snapshot.health;
        let status = SignalStatus::ALL[usize::from(health.signal_status[signal][row])];
        let status = if self.reading.stale && status != SignalStatus::Absent { SignalStatus::Missing } else { status };
        Signal {
            signal: Cow::Borrowed(&head.name),
            family: Cow::Borrowed(head.family.as_str()),
            value: known(self.snapshot.signals[signal].value[row]),
            unit: Cow::Borrowed(&head.unit),
            pressure: self.unless_stale(health.signal_pressure[signal][row]),
            status: Cow::Borrowed(status.as_str()),
        }
    }

    fn reasons(&self, row: usize) -> Vec<Reason<'a>> {
        let reasons = self.snapshot.reasons(row);
        if reasons.is_empty() {
            return Vec::new();
        }
        let what_if = if self.reading.killed { None } else { counterfactual::of_row(self.snapshot, row) };
        let is_read = self.snapshot.health.flags[row] & flag::NOTHING_READ == 0;
        reasons.iter().map(|reason| self.reason(reason, is_read, what_if.as_ref())).collect()
    }

    fn reason(
        &self,
        reason: &ModelReason,
        is_read: bool,
        what_if: Option<&counterfactual::Counterfactual>,
    ) -> Reason<'a> {
        let head = self.snapshot.policy.signals.get(usize::from(reason.signal));
        let code = match (reason.kind, head) {
            (ReasonKind::Silent, _) | (_, None) => Cow::Borrowed(if is_read { "silent" } else { "nothing_read" }),
            (ReasonKind::Threshold | ReasonKind::Fatal, Some(head)) => Cow::Borrowed(&*head.reason),
            (ReasonKind::Held, Some(head)) => Cow::Owned(format!("{}_held", head.reason)),
            (ReasonKind::PeerDeviation, Some(head)) => Cow::Owned(format!("{}_peer_deviation", head.name)),
            (ReasonKind::BaselineDeviation, Some(head)) => Cow::Owned(format!("{}_baseline_deviation", head.name)),
        };
        let what_if = what_if.filter(|what_if| what_if.signals.contains(&usize::from(reason.signal)));
        Reason {
            code,
            family: head.map(|head| Cow::Borrowed(head.family.as_str())),
            signal: head.map(|head| Cow::Borrowed(&*head.name)),
            value: known(reason.value),
            unit: head.map(|head| Cow::Borrowed(&*head.unit)),
            threshold: known(reason.threshold),
            pressure: known32(reason.pressure),
            window_seconds: known32(reason.window_seconds),
            samples: reason.samples,
            age_seconds: known32(reason.age_seconds),
            counterfactual: what_if.map(|what_if| Cow::Owned(what_if.text.clone())),
        }
    }

    fn class_frame(&self, class: usize, row: usize) -> (&'a ClassFrame, DecisionReason) {
        let frame = &self.snapshot.decisions[class];
        let reason =
            if self.reading.killed { DecisionReason::Off } else { DecisionReason::ALL[usize::from(frame.reason[row])] };
        (frame, reason)
    }

    fn binding(&self, class: usize, row: usize) -> &'a str {
        let binding = self.snapshot.decisions[class].binding[row];
        self.snapshot.policy.signals.get(usize::from(binding)).map_or("none", |head| &*head.name)
    }

    fn reason_code(&self, class: usize, row: usize) -> Cow<'a, str> {
        let by = |verb: &str| {
            Cow::Owned(format!("{verb}:{}@{}", self.binding(class, row), self.snapshot.servers.server[row]))
        };
        match self.class_frame(class, row).1 {
            DecisionReason::Open => Cow::Borrowed("open"),
            DecisionReason::Throttled => by("throttled_by"),
            DecisionReason::Held => by("held_by"),
            DecisionReason::Rising => Cow::Borrowed("rising"),
            DecisionReason::LowConfidence => Cow::Borrowed("held_by:low_confidence"),
            DecisionReason::NoData => Cow::Borrowed("held_by:no_data"),
            DecisionReason::LostSignal => Cow::Borrowed("held_by:lost_signal"),
            DecisionReason::HigherClass => Cow::Borrowed("held_by:higher_class"),
            DecisionReason::Off => Cow::Borrowed("mode_off"),
            DecisionReason::Learning => Cow::Borrowed("held_by:learning"),
        }
    }

    /// Made of the decision's own columns alone, so that whoever compares those columns sees every change of it.
    fn guards(&self, class: usize, row: usize) -> Vec<Cow<'a, str>> {
        let guard = match self.class_frame(class, row).1 {
            _ if self.reading.killed => Some("kill_switch"),
            DecisionReason::LowConfidence => Some("low_confidence"),
            DecisionReason::NoData => Some("no_data"),
            DecisionReason::LostSignal => Some("lost_signal"),
            DecisionReason::Learning => Some("learning"),
            _ => None,
        };
        guard.map(Cow::Borrowed).into_iter().collect()
    }

    fn because(&self, class: usize, row: usize) -> String {
        if self.reading.killed {
            return "the kill switch is thrown: nothing is limited".into();
        }
        let rule = &self.snapshot.policy.rules[usize::from(self.snapshot.servers.rule[row])];
        let pressure = self.snapshot.health.throttle_pressure[row];
        because(self.class_frame(class, row).1, pressure, rule.set_points[class], self.binding(class, row))
    }

    /// Where nothing is enforced, nothing may change when a lease ends either.
    fn on_expiry(&self, class: usize, row: usize) -> OnExpiry {
        let rule = &self.snapshot.policy.rules[usize::from(self.snapshot.servers.rule[row])].on_expiry[class];
        let enforced = self.class_mode(class, row) == "enforce";
        OnExpiry {
            hold_seconds: rule.hold_seconds,
            then: if enforced { rule.then } else { 1.0 },
            ramp_per_minute: rule.ramp_per_minute,
        }
    }

    fn seconds_after_lease(&self, now: Timestamp) -> f64 {
        now.seconds_since(self.valid_until().0)
    }

    fn fraction_at(&self, class: usize, row: usize, now: Timestamp) -> f64 {
        let admit = short(self.admit(class, row));
        after_lease(admit, &self.on_expiry(class, row), self.seconds_after_lease(now))
    }
}

/// The fraction that is left of `last`, so many seconds after the end of its lease.
pub fn after_lease(last: f64, rule: &OnExpiry, seconds_after_lease: f64) -> f64 {
    let step = (seconds_after_lease - rule.hold_seconds as f64).max(0.0) / 60.0 * rule.ramp_per_minute;
    if rule.then > last { (last + step).min(rule.then) } else { (last - step).max(rule.then) }
}

/// A fraction without the digits that 32 bits do not have: 0.62, not 0.6200000047683716.
fn short(fraction: f32) -> f64 {
    (f64::from(fraction) * 1e7).round() / 1e7
}

pub(crate) fn known(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

pub(crate) fn known32(value: f32) -> Option<f32> {
    value.is_finite().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_lease_the_class_holds_and_then_moves_to_its_safe_value() {
        let rule = |then| OnExpiry { hold_seconds: 30, then, ramp_per_minute: 0.2 };
        for (last, then, seconds, expected) in [
            (0.5, 1.0, -10.0, 0.5),
            (0.5, 1.0, 30.0, 0.5),
            (0.5, 1.0, 90.0, 0.7),
            (0.5, 1.0, 600.0, 1.0),
            (0.8, 0.1, 90.0, 0.6),
            (0.8, 0.1, 6000.0, 0.1),
        ] {
            assert!((after_lease(last, &rule(then), seconds) - expected).abs() < 1e-12, "{last} {then} {seconds}");
        }
    }
}
