//! One tick of all servers of a cell: propose, then commit.
//!
//! A class moves at most once per new report of the signal that binds its server; a tick that brings no news repeats
//! the decision. Cutting starts at the lowest class and waits for its report before it goes on to the next, raising
//! starts at the highest: the order of the classes is a promise, whatever their set-points say.

use headroom_model::Timestamp;
use headroom_model::codec::{DecodeError, Decoder, Encoder};
use headroom_model::frame::{
    ClassFrame, DecisionReason, HealthFrame, Reason, ServerFrame, SignalFrame, ThrottleFrame, flag,
};
use headroom_model::policy::{ClassSpec, Mode, Policy};

use crate::ack::AckTable;
use crate::law;

/// The version written in front of the state.
const STATE_VERSION: u8 = 1;
/// Below this confidence nothing is tightened.
const CONFIDENCE_MIN: f32 = 0.6;
/// From this pressure on all classes are cut at once.
const PRESSURE_CRITICAL: f64 = 2.0;
/// A class at or below this (or its floor) has given what it can: the next one may be cut.
const SPENT: f64 = 0.1;
/// A slow reporter's windows stretch to this many of its intervals, and it is unknown after so many missed reports.
const WINDOW_INTERVALS: f64 = 2.5;
const UNKNOWN_INTERVALS: f32 = 4.0;
/// Two report times closer than this are one: ages are 32-bit floats.
const SAME_REPORT_MS: i64 = 50;
/// Numbers of [`ClassFrame::mode`].
const MODE_OFF: u8 = 0;
const MODE_OBSERVE: u8 = 1;
const MODE_ENFORCE: u8 = 2;

/// The arguments of a step.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The tick.
    pub tick: Timestamp,
    /// Seconds from tick to tick.
    pub tick_seconds: i64,
    /// The servers.
    pub servers: &'a ServerFrame,
    /// The signals in the order of the policy: the age of the binding one tells whether it has reported anew.
    pub signals: &'a [SignalFrame],
    /// What health made of them.
    pub health: &'a HealthFrame,
    /// What consumers said.
    pub acks: &'a AckTable,
    /// The mode an operator set for the cell; `None` = what the policy says.
    pub mode: Option<Mode>,
    /// The policy in force.
    pub policy: &'a Policy,
    /// The cell is learning: nothing is tightened.
    pub learning: bool,
}

/// What happened since the process started, for metrics. Not part of the content, hence not of the binary form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThrottleCounters {
    /// Fractions in force that fell.
    pub cuts: u64,
    /// Fractions in force that rose.
    pub raises: u64,
    /// Decisions by [`DecisionReason`], as number.
    pub reasons: [u64; DecisionReason::ALL.len()],
}

/// What the throttle remembers of a server besides the fractions in force.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Row {
    /// The report the last evaluation looked at, Unix milliseconds; 0 = none.
    report_ms: i64,
    /// The tick of the last evaluation, Unix seconds; 0 = none.
    evaluated: i64,
    /// Since when the server is silent, Unix seconds; 0 = it is not.
    silent_since: i64,
}

const ROW_BYTES: usize = 24;

/// What the throttle remembers of a cell between ticks.
///
/// Inputs: [`Self::step`], [`Self::remove_slot`], [`Self::set_policy`]; everything else only reads.
#[derive(Clone, Debug, Default)]
pub struct ThrottleState {
    names: Vec<String>,
    /// Fractions in force, per class and slot.
    fractions: Vec<Vec<f32>>,
    rows: Vec<Row>,
    counters: ThrottleCounters,
    /// The memory of a frame that is no longer read.
    spare: ThrottleFrame,
}

impl PartialEq for ThrottleState {
    /// Spare memory says nothing about a cell.
    fn eq(&self, other: &Self) -> bool {
        let known = |state: &Self| (state.counters, state.rows.len());
        known(self) == known(other)
            && self.names == other.names
            && self.fractions == other.fractions
            && self.rows == other.rows
    }
}

/// One class on one server, decided.
#[derive(Clone, Copy, Debug)]
struct Proposal {
    fraction: f64,
    reason: DecisionReason,
}

/// What the law looks at on one server, besides the classes.
struct Situation<'a> {
    step: &'a Step<'a>,
    slot: usize,
    tick_epoch: i64,
    classes: &'a [ClassSpec],
    /// Load pressure; NaN without one.
    pressure: f64,
    /// The binding signal has reported since the last evaluation.
    is_new: bool,
    /// Share of the control window that this evaluation stands for.
    span: f64,
    /// The server is silent for this long, seconds.
    silent_seconds: Option<i64>,
    /// Little is known of the server.
    is_vague: bool,
    /// A signal vanished while above its set-point and did not return.
    has_lost: bool,
}

impl ThrottleState {
    /// The state of a cell that has not ticked yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over a policy: classes keep their fractions by name. [`Self::step`] does it too; calling it earlier
    /// changes nothing.
    pub fn set_policy(&mut self, policy: &Policy) {
        if self.names == policy.classes {
            return;
        }
        let slots = self.rows.len();
        let fractions = policy
            .classes
            .iter()
            .map(|name| match self.names.iter().position(|held| held == name) {
                Some(at) => std::mem::take(&mut self.fractions[at]),
                None => vec![1.0; slots],
            })
            .collect();
        (self.names, self.fractions) = (policy.classes.clone(), fractions);
    }

    /// Forgets the server of a slot, so that the slot can be given to another.
    pub fn remove_slot(&mut self, slot: usize) {
        if let Some(row) = self.rows.get_mut(slot) {
            *row = Row::default();
        }
        for fraction in self.fractions.iter_mut().filter_map(|column| column.get_mut(slot)) {
            *fraction = 1.0;
        }
    }

    /// What happened since the process started.
    pub fn counters(&self) -> ThrottleCounters {
        self.counters
    }

    /// Gives back a frame that nobody reads any more: the next tick writes into its memory instead of touching new.
    pub fn recycle(&mut self, frame: ThrottleFrame) {
        self.spare = frame;
    }

    /// Takes one tick: decisions for all servers, one frame per class of the policy.
    pub fn step(&mut self, step: &Step<'_>) -> ThrottleFrame {
        let (servers, health) = (step.servers, step.health);
        let slots = [
            servers.live.len(),
            servers.rule.len(),
            servers.enforcement_rank.len(),
            servers.age_seconds.len(),
            servers.interval_seconds.len(),
            health.throttle_pressure.len(),
            health.throttle_signal.len(),
            health.confidence.len(),
            health.flags.len(),
        ]
        .into_iter()
        .fold(usize::MAX, usize::min);
        self.set_policy(step.policy);
        let length = slots.max(self.rows.len());
        self.rows.resize(length, Row::default());
        self.fractions.iter_mut().for_each(|column| column.resize(length, 1.0));
        let mut spare = std::mem::take(&mut self.spare);
        let mut frames: ThrottleFrame =
            self.names.iter().map(|_| open(slots, spare.pop().unwrap_or_default())).collect();
        self.propose(step, slots, &mut frames);
        self.commit(&frames);
        frames
    }

    /// Derives every decision from its own server alone. The frames are open to begin with.
    fn propose(&mut self, step: &Step<'_>, slots: usize, frames: &mut [ClassFrame]) {
        let count = frames.len();
        // Below all set-points nothing is cut, and who is whole stays so: most servers at most times.
        let lowest: Vec<f32> = step
            .policy
            .rules
            .iter()
            .map(|rule| rule.classes.iter().filter_map(|class| class.set_point).fold(f64::MAX, f64::min) as f32)
            .collect();
        let unknown_seconds = step.policy.health.unknown_after_seconds as f32;
        // The mode is the server's, not the class's: one column, copied into each frame.
        let mut modes = vec![MODE_OFF; slots];
        let mut untouched = 0u64;
        let mut before = vec![1.0; count];
        let mut decided = vec![Proposal { fraction: 1.0, reason: DecisionReason::Open }; count];
        for slot in 0..slots {
            if !step.servers.live[slot] {
                continue;
            }
            let number = usize::from(step.servers.rule[slot]);
            let Some(rule) = step.policy.rules.get(number).filter(|rule| rule.classes.len() == count) else { continue };
            let mode = match step.mode.unwrap_or(rule.mode) {
                Mode::Off => MODE_OFF,
                Mode::Enforce { percent } if f64::from(step.servers.enforcement_rank[slot]) < percent => MODE_ENFORCE,
                Mode::Observe | Mode::Enforce { .. } => MODE_OBSERVE,
            };
            modes[slot] = mode;
            if mode == MODE_OFF {
                frames.iter_mut().for_each(|frame| frame.reason[slot] = DecisionReason::Off as u8);
                self.rows[slot] = Row::default();
                self.counters.reasons[DecisionReason::Off as usize] += count as u64;
                continue;
            }
            let mut whole = true;
            for (held, column) in before.iter_mut().zip(&self.fractions) {
                *held = f64::from(column[slot]);
                whole &= *held >= 1.0;
            }
            let is_below = whole && step.health.throttle_pressure[slot] <= lowest[number];
            let (age, interval) = (step.servers.age_seconds[slot], step.servers.interval_seconds[slot]);
            if is_below && mode == MODE_OBSERVE && age <= (UNKNOWN_INTERVALS * interval).max(unknown_seconds) {
                // Nearly every server at nearly every time: written to only if there is something to forget.
                if self.rows[slot] != Row::default() {
                    self.rows[slot] = Row::default();
                }
                untouched += 1;
                continue;
            }
            let situation = self.look(step, slot, mode, &rule.classes);
            if is_below && situation.silent_seconds.is_none() {
                untouched += 1;
                continue;
            }
            situation.decide(&before, &mut decided);
            let binding = step.health.throttle_signal[slot];
            for (class, (frame, proposal)) in frames.iter_mut().zip(&decided).enumerate() {
                let fraction = proposal.fraction as f32;
                frame.would_admit[slot] = fraction;
                frame.reason[slot] = proposal.reason as u8;
                frame.binding[slot] = if proposal.reason == DecisionReason::Open { Reason::NO_SIGNAL } else { binding };
                self.counters.reasons[proposal.reason as usize] += 1;
                if mode == MODE_ENFORCE {
                    frame.admit[slot] = fraction;
                    self.counters.cuts += u64::from(f64::from(fraction) < before[class]);
                    self.counters.raises += u64::from(f64::from(fraction) > before[class]);
                }
            }
        }
        self.counters.reasons[DecisionReason::Open as usize] += untouched * count as u64;
        frames.iter_mut().for_each(|frame| frame.mode.copy_from_slice(&modes));
    }

    /// Makes the decided fractions those in force: 1 wherever the mode is not enforce, so that enforcing starts there.
    fn commit(&mut self, frames: &[ClassFrame]) {
        for (column, frame) in self.fractions.iter_mut().zip(frames) {
            column[..frame.admit.len()].copy_from_slice(&frame.admit);
        }
    }

    /// What is new of a server, and notes that it was looked at.
    fn look<'a>(&mut self, step: &'a Step<'a>, slot: usize, mode: u8, classes: &'a [ClassSpec]) -> Situation<'a> {
        let tick_epoch = step.tick.seconds();
        let (servers, health) = (step.servers, step.health);
        let (age, interval) = (servers.age_seconds[slot], servers.interval_seconds[slot]);
        let unknown_seconds = (UNKNOWN_INTERVALS * interval).max(step.policy.health.unknown_after_seconds as f32);
        let row = &mut self.rows[slot];
        let is_silent = age.is_nan() || age > unknown_seconds;
        row.silent_since = match (is_silent, row.silent_since) {
            (false, _) => 0,
            (true, 0) => tick_epoch,
            (true, since) => since,
        };
        let binding = usize::from(health.throttle_signal[slot]);
        let report_age = step.signals.get(binding).and_then(|signal| signal.age_seconds.get(slot)).copied();
        let report_ms = match report_age {
            Some(age) if age.is_finite() => {
                tick_epoch.saturating_mul(1000).saturating_sub((f64::from(age) * 1000.0) as i64)
            }
            // A signal that is held has no report: nothing moves by it.
            _ => i64::MIN,
        };
        let tick_seconds = step.tick_seconds.max(1) as f64;
        let interval = servers.slow_seconds(slot, binding).unwrap_or(interval);
        let usual = if interval.is_finite() { f64::from(interval).max(tick_seconds) } else { tick_seconds };
        // To observe is one step from a fraction of 1, whenever it is asked for: the same report gives the same answer.
        let (is_new, elapsed) = if mode == MODE_ENFORCE {
            let elapsed = if row.evaluated == 0 { usual } else { tick_epoch.saturating_sub(row.evaluated) as f64 };
            let is_new = report_ms != i64::MIN && (row.report_ms == 0 || report_ms > row.report_ms + SAME_REPORT_MS);
            if is_new {
                (row.report_ms, row.evaluated) = (report_ms, tick_epoch);
            }
            (is_new, elapsed)
        } else {
            (row.report_ms, row.evaluated) = (0, 0);
            (report_ms != i64::MIN, usual)
        };
        // The binding signal may report more rarely than the server; its window stretches by its own interval.
        let window = (step.policy.windows.control_seconds.max(1) as f64).max(WINDOW_INTERVALS * usual.max(elapsed));
        Situation {
            step,
            slot,
            tick_epoch,
            classes,
            pressure: f64::from(health.throttle_pressure[slot]),
            is_new,
            span: (elapsed / window).clamp(0.0, 1.0),
            silent_seconds: is_silent.then(|| tick_epoch.saturating_sub(row.silent_since)),
            is_vague: health.confidence[slot].is_nan() || health.confidence[slot] < CONFIDENCE_MIN,
            has_lost: health.flags[slot] & flag::LOST_SIGNAL != 0,
        }
    }

    /// Writes what is remembered: a state that is decoded from it goes on to the bit.
    pub fn encode(&self, out: &mut Encoder) {
        out.put_u8(STATE_VERSION);
        out.put_u32(self.rows.len() as u32);
        for row in &self.rows {
            out.put_i64(row.report_ms);
            out.put_i64(row.evaluated);
            out.put_i64(row.silent_since);
        }
        out.put_u32(self.names.len() as u32);
        for (name, column) in self.names.iter().zip(&self.fractions) {
            out.put_str(name);
            out.put_f32s(column);
        }
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// If the bytes are damaged or of a newer version.
    pub fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        if input.get_u8()? != STATE_VERSION {
            return Err(input.error("version of the state of the throttle"));
        }
        let rows = (0..input.get_length(ROW_BYTES, "servers")?)
            .map(|_| {
                Ok(Row { report_ms: input.get_i64()?, evaluated: input.get_i64()?, silent_since: input.get_i64()? })
            })
            .collect::<Result<Vec<_>, DecodeError>>()?;
        let (names, fractions) = (0..input.get_length(8, "classes")?)
            .map(|_| {
                let (name, column) = (input.get_str()?.to_owned(), input.get_f32s()?);
                let valid = column.len() == rows.len() && column.iter().all(|f| (0.0..=1.0).contains(f));
                if valid { Ok((name, column)) } else { Err(input.error("fractions of a class")) }
            })
            .collect::<Result<(Vec<_>, Vec<_>), DecodeError>>()?;
        Ok(Self { names, fractions, rows, ..Self::default() })
    }
}

impl Situation<'_> {
    /// Decides all classes of the server, from the fractions `before`, most important class first.
    fn decide(&self, before: &[f64], decided: &mut [Proposal]) {
        let mut higher_are_whole = true;
        // While a class above is cut, none below it that is in use may have more than it.
        let mut cap = 1.0_f64;
        for (class, spec) in self.classes.iter().enumerate() {
            let in_use = self.is_in_use(class, before[class]);
            let mut proposal = match spec.set_point {
                Some(set_point) => {
                    let lower_are_spent = self.pressure >= PRESSURE_CRITICAL || self.are_spent(class + 1, before);
                    let fraction = before[class];
                    self.decide_class(spec, set_point, fraction, in_use, lower_are_spent, higher_are_whole)
                }
                None => Proposal { fraction: 1.0, reason: DecisionReason::Open },
            };
            if spec.set_point.is_some() && proposal.fraction > cap.max(spec.floor) {
                proposal = Proposal { fraction: cap.max(spec.floor), reason: DecisionReason::Throttled };
            }
            if in_use && proposal.reason == DecisionReason::Throttled {
                cap = cap.min(proposal.fraction);
            }
            higher_are_whole &= proposal.fraction >= 1.0 || !in_use;
            decided[class] = proposal;
        }
    }

    fn decide_class(
        &self,
        spec: &ClassSpec,
        set_point: f64,
        fraction: f64,
        in_use: bool,
        lower_are_spent: bool,
        higher_are_whole: bool,
    ) -> Proposal {
        let is_limited = fraction < 1.0;
        let stay = |reason| Proposal { fraction, reason };
        let seconds = self.step.tick_seconds.max(1) as f64;
        let safe = spec.on_expiry.then.clamp(0.0, 1.0);
        let to_safe = |reason| {
            let ramped = law::ramp(fraction, safe.max(spec.floor), spec.on_expiry.ramp_per_minute, seconds);
            let tightens = ramped < fraction;
            if tightens && self.step.learning {
                stay(DecisionReason::Learning)
            } else {
                Proposal { fraction: ramped, reason }
            }
        };
        if let Some(silent_seconds) = self.silent_seconds {
            // Silence is the least of knowledge, and little knowledge never tightens: what is not limited stays so. One dead
            // collector would else throttle all that it speaks for.
            let holds = silent_seconds < spec.on_expiry.hold_seconds || !is_limited;
            return if holds { stay(DecisionReason::NoData) } else { to_safe(DecisionReason::NoData) };
        }
        if self.has_lost && is_limited && fraction > safe.max(spec.floor) {
            return to_safe(DecisionReason::LostSignal);
        }
        if self.pressure.is_nan() {
            return stay(DecisionReason::NoData);
        }
        let held = if is_limited { DecisionReason::Held } else { DecisionReason::Open };
        if !self.is_new {
            return stay(held);
        }
        if self.pressure > set_point {
            return if !lower_are_spent || fraction <= spec.floor {
                stay(held)
            } else if self.step.learning {
                stay(DecisionReason::Learning)
            } else if self.is_vague {
                stay(DecisionReason::LowConfidence)
            } else {
                let cut = law::cut(spec, set_point, fraction, self.pressure, self.span);
                Proposal { fraction: cut, reason: DecisionReason::Throttled }
            };
        }
        if !is_limited {
            return stay(DecisionReason::Open);
        }
        // What nobody uses adds no load by rising; it waits for nobody and needs no distance from the set-point.
        let has_room = self.pressure < set_point - law::DEADBAND;
        if in_use && !has_room {
            return stay(held);
        }
        if in_use && !higher_are_whole {
            return stay(DecisionReason::HigherClass);
        }
        let risen = law::rise(spec, set_point, fraction, self.pressure, self.span);
        if self.has_lost && risen > safe.max(spec.floor) {
            return Proposal { fraction: safe.max(spec.floor).max(fraction), reason: DecisionReason::LostSignal };
        }
        Proposal { fraction: risen, reason: if risen < 1.0 { DecisionReason::Rising } else { DecisionReason::Open } }
    }

    /// Whether the consumers of a class use at least half of what they may; who says nothing counts as using it.
    fn is_in_use(&self, class: usize, fraction: f64) -> bool {
        let lease_seconds = self.step.policy.lease.lease_seconds;
        let in_use = self.step.acks.in_use(self.slot, class, self.tick_epoch, lease_seconds);
        in_use.is_none_or(|in_use| f64::from(in_use) >= fraction / 2.0)
    }

    /// Whether the classes from `first` on have given what they can.
    fn are_spent(&self, first: usize, before: &[f64]) -> bool {
        self.classes
            .iter()
            .zip(before)
            .skip(first)
            .all(|(spec, fraction)| spec.set_point.is_none() || *fraction <= f64::from(spec.floor.max(SPENT) as f32))
    }
}

/// A frame in which nothing is limited and nothing was decided.
fn open(slots: usize, spare: ClassFrame) -> ClassFrame {
    fn all<T: Copy>(mut column: Vec<T>, slots: usize, value: T) -> Vec<T> {
        column.clear();
        column.resize(slots, value);
        column
    }
    ClassFrame {
        admit: all(spare.admit, slots, 1.0),
        would_admit: all(spare.would_admit, slots, 1.0),
        binding: all(spare.binding, slots, Reason::NO_SIGNAL),
        reason: all(spare.reason, slots, DecisionReason::Open as u8),
        mode: all(spare.mode, slots, MODE_OFF),
    }
}
