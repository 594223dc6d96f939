//! What one tick knows before it looks at a server: the arguments, the groups of peers, set-points ready for use; and
//! what follows from them alone: the baseline in force, the standing of a vanished signal, the causes to name.

use headroom_model::frame::{HealthFrame, Reason, ReasonKind, ServerFrame, SignalFrame, SignalStatus};
use headroom_model::policy::{Family, Policy, Rule, SignalSpec};

use crate::block::{Block, is_enough, value_at};
use crate::peers::{Group, Members, group};
use crate::pressure::{PRESSURE_MAX, Scale};
use crate::reason::{Causes, REASONS_MAX};
use crate::server::Observation;
use crate::signal::{SignalState, is_relative};
use crate::{HealthCounters, UNKNOWN_INTERVALS, WINDOW_INTERVALS, span32};

/// The arguments of a step, and what follows from them once.
pub(crate) struct Tick<'a> {
    pub(crate) now: u32,
    pub(crate) seconds: f32,
    pub(crate) servers: &'a ServerFrame,
    pub(crate) frames: &'a [SignalFrame],
    pub(crate) policy: &'a Policy,
    /// Per signal and pool; empty for signals that nobody compares.
    pub(crate) groups: Vec<Vec<Group>>,
    /// Per signal and rule; a single one where all rules agree.
    pub(crate) scales: Vec<Vec<Scale>>,
    /// Per rule: the pressure from which a signal is worth a reason, the lowest set-point of the rule's classes.
    pub(crate) reason_pressures: Vec<f32>,
}

impl SignalState {
    /// The baseline in force for a slot: the pool's, else the server's own; NaN while too little was observed.
    pub(crate) fn usual(&self, tick: &Tick<'_>, slot: usize, baseline_min_seconds: i64) -> f64 {
        let min_seconds = tick.baseline_min_seconds(baseline_min_seconds);
        let pool = tick.servers.pool[slot] as usize;
        if pool != 0
            && let Some(baseline) = self.pools.get(pool)
            && baseline.seconds >= f64::from(min_seconds)
            && tick.now.saturating_sub(baseline.seen) <= span32(tick.policy.windows.baseline_seconds)
        {
            return baseline.mean;
        }
        match self.own.get(slot) {
            Some(own) if own.seconds >= min_seconds => f64::from(own.mean),
            _ => f64::NAN,
        }
    }
}

impl Tick<'_> {
    pub(crate) fn scale(&self, signal: usize, rule: u16) -> Scale {
        let scales = &self.scales[signal];
        scales.get(usize::from(rule)).or(scales.last()).copied().unwrap_or_else(|| {
            let spec = &self.policy.signals[signal];
            Scale::new(spec.thresholds, spec.lower_is_worse)
        })
    }

    pub(crate) fn thresholds(&self, signal: usize, rule: u16) -> [f64; 3] {
        let of_rule = self.policy.rules.get(usize::from(rule)).and_then(|rule| rule.thresholds.get(signal));
        let thresholds = of_rule.copied().unwrap_or(self.policy.signals[signal].thresholds);
        [thresholds.under, thresholds.over, thresholds.critical]
    }

    /// Observation a baseline needs: never more than the time constant it is remembered by.
    pub(crate) fn baseline_min_seconds(&self, demanded: i64) -> f32 {
        demanded.clamp(1, self.policy.windows.baseline_seconds.max(1)) as f32
    }

    /// The control window of a signal on a server whose own is `window_seconds`.
    pub(crate) fn window_seconds(&self, slot: usize, signal: usize, window_seconds: f32) -> f32 {
        self.servers
            .slow_seconds(slot, signal)
            .map_or(window_seconds, |slow| window_seconds.max(WINDOW_INTERVALS * slow))
    }

    /// The pressure from which a signal is bad news: where it drives the throttle, the lowest set-point of the server's
    /// rule, for a class is cut from there on; else the overloaded line.
    pub(crate) fn bad_from(&self, slot: usize, spec: &SignalSpec) -> f32 {
        let throttles = spec.throttle && spec.family != Family::Errors && !spec.fatal;
        let rule = usize::from(self.servers.rule[slot]);
        if throttles { self.reason_pressures.get(rule).copied().unwrap_or(1.0) } else { 1.0 }
    }

    /// Standing of a signal that has no value at this tick; `was_bad` when it had one last.
    pub(crate) fn vanished(
        &self,
        slot: usize,
        last_seen: u32,
        was_bad: bool,
        counters: &mut HealthCounters,
    ) -> SignalStatus {
        if last_seen == 0 {
            return SignalStatus::Absent;
        }
        let gone = self.now.saturating_sub(last_seen);
        let held_seconds = span32(self.policy.health.held_seconds);
        if was_bad {
            let is_first = gone as f32 <= self.seconds;
            counters.held += u64::from(is_first);
            if gone <= held_seconds {
                return SignalStatus::Held;
            }
            counters.lost += u64::from((gone - held_seconds) as f32 <= self.seconds);
        }
        let known =
            (UNKNOWN_INTERVALS * self.servers.interval_seconds[slot]).max(self.policy.windows.baseline_seconds as f32);
        if gone as f32 > known { SignalStatus::Absent } else { SignalStatus::Missing }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one server's row, read once")]
    pub(crate) fn reasons(
        &self,
        slot: usize,
        place: usize,
        seen: &Observation,
        least: f32,
        block: &Block,
        causes: std::ops::Range<usize>,
        out: &mut HealthFrame,
    ) {
        let mut room = REASONS_MAX;
        if seen.is_stale() {
            room -= 1;
            out.reasons.push(Reason {
                kind: ReasonKind::Silent,
                signal: Reason::NO_SIGNAL,
                value: f64::from(seen.age_seconds),
                threshold: f64::from(seen.unknown_seconds),
                pressure: f32::NAN,
                window_seconds: seen.unknown_seconds,
                samples: 0,
                age_seconds: seen.age_seconds,
            });
        }
        let describe = |kind, signal: usize, threshold, pressure| {
            let frame = self.frames.get(signal);
            Reason {
                kind,
                signal: signal as u16,
                value: value_at(frame.map(|frame| &frame.control), slot),
                threshold,
                pressure,
                window_seconds: self.window_seconds(slot, signal, seen.window_seconds),
                samples: frame.and_then(|frame| frame.samples.get(slot)).copied().unwrap_or(0),
                age_seconds: frame.and_then(|frame| frame.age_seconds.get(slot)).copied().unwrap_or(f32::NAN),
            }
        };
        let mut worst = Causes::new();
        for (family, (pressures, signals)) in
            Family::ALL.into_iter().zip(block.families.iter().zip(&block.family_signals))
        {
            let (pressure, signal) = (pressures[place], signals[place] as usize);
            let Some(spec) = self.policy.signals.get(signal) else { continue };
            let throttles = spec.throttle && family != Family::Errors;
            if pressure >= 1.0 || (throttles && pressure >= least) {
                let held = out.signal_status[signal][slot] == SignalStatus::Held as u8;
                let kind = if held { ReasonKind::Held } else { ReasonKind::Threshold };
                let [under, over, critical] = match out.relative_thresholds[signal].get(slot) {
                    Some(thresholds) => *thresholds,
                    None => self.thresholds(signal, self.servers.rule[slot]),
                };
                let threshold = match pressure {
                    p if p >= 2.0 => critical,
                    p if p >= 1.0 => over,
                    _ => under + f64::from(least) * (over - under),
                };
                worst.add(family, describe(kind, signal, threshold, pressure));
            }
        }
        for (_, signal, kind, threshold, pressure) in &block.causes[causes] {
            let family = self.policy.signals[usize::from(*signal)].family;
            worst.add(family, describe(*kind, usize::from(*signal), *threshold, *pressure));
        }
        worst.finish(room, &mut out.reasons);
    }
}

pub(crate) fn groups(
    members: &Members,
    keys: &mut Vec<i64>,
    frames: &[SignalFrame],
    policy: &Policy,
    pools: usize,
) -> Vec<Vec<Group>> {
    let of_signal = |(at, spec): (usize, &SignalSpec)| {
        let frame = frames.get(at).filter(|_| is_relative(spec) || spec.peers.is_some());
        let Some(frame) = frame else { return Vec::new() };
        (0..pools)
            .map(|pool| {
                group(members.of(pool), policy.health.peers_min, keys, |slot| {
                    let enough =
                        spec.volume.as_ref().is_none_or(|(_, least)| is_enough(frame.volume.as_ref(), slot, *least));
                    if enough { value_at(Some(&frame.control), slot) } else { f64::NAN }
                })
            })
            .collect()
    };
    policy.signals.iter().enumerate().map(of_signal).collect()
}

pub(crate) fn scales(policy: &Policy, signal: usize, spec: &SignalSpec) -> Vec<Scale> {
    let of_rule = |thresholds| Scale::new(thresholds, spec.lower_is_worse);
    let mut scales: Vec<Scale> = policy
        .rules
        .iter()
        .map(|rule| of_rule(rule.thresholds.get(signal).copied().unwrap_or(spec.thresholds)))
        .collect();
    if scales.is_empty() {
        scales.push(of_rule(spec.thresholds));
    }
    if scales.iter().all(|scale| *scale == scales[0]) {
        scales.truncate(1);
    }
    scales
}

pub(crate) fn reason_pressures(policy: &Policy) -> Vec<f32> {
    let lowest = |rule: &Rule| {
        rule.classes.iter().filter_map(|class| class.set_point).fold(1.0, f64::min).clamp(0.0, PRESSURE_MAX) as f32
    };
    policy.rules.iter().map(lowest).collect()
}
