//! One tick: the files of this crate composed, block by block.
//!
//! The state grows with the slots and never shrinks; [`HealthState::remove_slot`] makes a slot as new. The result
//! depends on the arguments of this and earlier steps alone, not on how often a frame was built or in which order its
//! samples came.

use headroom_model::Timestamp;
use headroom_model::codec::{DecodeError, Decoder, Encoder};
use headroom_model::frame::{
    FaultState, HealthFrame, LoadState, Placement, Reason, ReasonKind, ServerFrame, SignalFrame, SignalStatus, flag,
};
use headroom_model::policy::{Family, Policy, ThresholdKind};

use crate::block::{Block, block_of, is_enough, is_loaded, keep_larger};
use crate::deviation::{Bars, Line, has_lasted, is_fault};
use crate::peers::{Group, Members};
use crate::server::{Latches, Observation, Report, ServerState};
use crate::signal::{SignalState, is_relative, key};
use crate::tick::{Tick, groups, reason_pressures, scales};
use crate::{UNKNOWN_INTERVALS, WINDOW_INTERVALS, seconds32};

/// Servers per block: what the families add up for them fits into the nearest cache.
const BLOCK: usize = 512;

/// The version written in front of the state.
const STATE_VERSION: u8 = 2;

/// What happened since the process started, for metrics. Not part of the content, hence not of the binary form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HealthCounters {
    /// Changes of load or fault states.
    pub transitions: u64,
    /// Times a latch closed on a flapping state.
    pub flaps: u64,
    /// Signals that vanished while above their set-point, and began to be held.
    pub held: u64,
    /// Signals whose hold ended without their return.
    pub lost: u64,
}

/// What health remembers of a cell between ticks.
///
/// Inputs: [`Self::step`], [`Self::remove_slot`], [`Self::set_policy`]; everything else only reads.
#[derive(Debug, Default)]
pub struct HealthState {
    signals: Vec<SignalState>,
    servers: Vec<ServerState>,
    latches: Vec<Latches>,
    counters: HealthCounters,
    scratch: Scratch,
    /// The memory of a frame that is no longer read.
    spare: HealthFrame,
}

/// Buffers that keep their memory from tick to tick and nothing else.
#[derive(Debug, Default)]
struct Scratch {
    members: Members,
    keys: Vec<i64>,
    block: Block,
}

impl HealthState {
    /// The state of a cell that has not ticked yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over a policy: signals keep what is remembered of them where name and expression are unchanged.
    /// [`Self::step`] does it too; calling it earlier changes nothing.
    pub fn set_policy(&mut self, policy: &Policy) {
        let keys: Vec<u64> = policy.signals.iter().map(key).collect();
        if keys.len() == self.signals.len() && keys.iter().zip(&self.signals).all(|(key, held)| *key == held.key) {
            return;
        }
        let mut held = std::mem::take(&mut self.signals);
        self.signals = keys
            .into_iter()
            .map(|key| match held.iter().position(|state| state.key == key) {
                Some(at) => held.swap_remove(at),
                None => SignalState { key, ..SignalState::default() },
            })
            .collect();
        self.fit(policy, self.servers.len(), 0);
    }

    /// Forgets the server of a slot, so that the slot can be given to another.
    pub fn remove_slot(&mut self, slot: usize) {
        if let (Some(server), Some(latches)) = (self.servers.get_mut(slot), self.latches.get_mut(slot)) {
            (*server, *latches) = Default::default();
        }
        self.signals.iter_mut().for_each(|signal| signal.remove(slot));
    }

    /// Forgets what was usual in a pool, so that its place can be given to another.
    pub fn forget_pool(&mut self, pool: usize) {
        for baseline in self.signals.iter_mut().filter_map(|signal| signal.pools.get_mut(pool)) {
            *baseline = Default::default();
        }
    }

    /// What happened since the process started.
    pub fn counters(&self) -> HealthCounters {
        self.counters
    }

    /// Gives back a frame that nobody reads any more: the next tick writes into its memory instead of touching new.
    pub fn recycle(&mut self, frame: HealthFrame) {
        self.spare = frame;
    }

    /// Takes one tick: frames in, frame out, a row per slot.
    ///
    /// `pools` is the number of the cell's pools, of which 0 is `default`. Columns that are shorter than
    /// `servers.live`, and signals without a frame, count as values that are missing.
    pub fn step(
        &mut self,
        tick: Timestamp,
        tick_seconds: i64,
        servers: &ServerFrame,
        signals: &[SignalFrame],
        policy: &Policy,
        pools: usize,
    ) -> HealthFrame {
        let slots = [servers.pool.len(), servers.rule.len(), servers.age_seconds.len(), servers.interval_seconds.len()]
            .into_iter()
            .fold(servers.live.len(), usize::min);
        self.set_policy(policy);
        self.fit(policy, slots, pools);
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.members.gather(servers, slots, pools, policy.health.silent_seconds as f32);
        let tick = Tick {
            now: seconds32(tick),
            seconds: tick_seconds.max(1) as f32,
            servers,
            frames: signals,
            policy,
            groups: groups(&scratch.members, &mut scratch.keys, signals, policy, pools),
            scales: policy.signals.iter().enumerate().map(|(at, spec)| scales(policy, at, spec)).collect(),
            reason_pressures: reason_pressures(policy),
        };
        let mut out = blank(policy, slots, std::mem::take(&mut self.spare));
        for from in (0..slots).step_by(BLOCK) {
            self.step_block(&tick, from, (from + BLOCK).min(slots), &mut scratch.block, &mut out);
        }
        self.observe_pools(&tick, &scratch.members);
        self.scratch = scratch;
        out
    }

    fn fit(&mut self, policy: &Policy, slots: usize, pools: usize) {
        let length = slots.max(self.servers.len());
        self.servers.resize(length, ServerState::default());
        self.latches.resize(length, Latches::default());
        for (signal, spec) in self.signals.iter_mut().zip(&policy.signals) {
            signal.fit(spec, length, pools);
        }
    }

    fn step_block(&mut self, tick: &Tick<'_>, from: usize, to: usize, block: &mut Block, out: &mut HealthFrame) {
        block.clear(to - from);
        block.all_live = tick.servers.live[from..to].iter().all(|live| *live);
        let control_seconds = tick.policy.windows.control_seconds as f32;
        for (window, interval) in block.windows.iter_mut().zip(&tick.servers.interval_seconds[from..to]) {
            *window = (WINDOW_INTERVALS * interval).max(control_seconds);
        }
        for signal in 0..tick.policy.signals.len() {
            self.step_signal(tick, signal, from, to, block, out);
        }
        for signal in 0..tick.policy.signals.len() {
            self.step_deviation(tick, signal, from, to, block, out);
        }
        block.causes.sort_unstable_by_key(|(place, signal, kind, ..)| (*place, *signal, *kind));
        let mut causes = 0;
        for slot in from..to {
            let place = (slot - from) as u32;
            let first = causes;
            while block.causes.get(causes).is_some_and(|cause| cause.0 == place) {
                causes += 1;
            }
            if tick.servers.live[slot] {
                self.step_server(tick, slot, slot - from, block, first..causes, out);
            } else {
                push_dead(out);
            }
            out.reason_offsets.push(out.reasons.len() as u32);
        }
    }

    /// Pressure and status of one signal, and what it adds to its family.
    #[inline(never)]
    fn step_signal(
        &mut self,
        tick: &Tick<'_>,
        signal: usize,
        from: usize,
        to: usize,
        block: &mut Block,
        out: &mut HealthFrame,
    ) {
        let length = to - from;
        let (spec, state) = (&tick.policy.signals[signal], &mut self.signals[signal]);
        let frame = tick.frames.get(signal);
        let Block { values, state_values, pressures, state_pressures, statuses, weights, weights_ok, .. } = block;
        let (live, all_live) = (&tick.servers.live[from..to], block.all_live);
        let values = block_of(values, frame.map(|frame| &frame.control), from, live, all_live);
        let state_values = block_of(state_values, frame.map(|frame| &frame.state), from, live, all_live);
        let rules = &tick.servers.rule[from..to];
        if let ThresholdKind::Relative { floor, baseline_min_seconds } = spec.threshold_kind {
            for place in 0..length {
                let observed = state.usual(tick, from + place, baseline_min_seconds);
                // Nothing is a multiple of nothing, and the floor of what is unknown is unknown (`max` would hide it).
                let known = !observed.is_nan() && observed.max(floor) > 0.0;
                let usual = if known { observed.max(floor) } else { f64::NAN };
                let scale = tick.scale(signal, rules[place]);
                pressures[place] = scale.pressure(values[place] / usual);
                state_pressures[place] = scale.pressure(state_values[place] / usual);
                let thresholds = tick.thresholds(signal, rules[place]);
                out.relative_thresholds[signal].push(thresholds.map(|threshold| threshold * usual));
            }
        } else if let [scale] = tick.scales[signal][..] {
            for (pressure, value) in pressures.iter_mut().zip(values.iter()) {
                *pressure = scale.pressure(*value);
            }
            for (pressure, value) in state_pressures.iter_mut().zip(state_values.iter()) {
                *pressure = scale.pressure(*value);
            }
        } else {
            for place in 0..length {
                let scale = tick.scale(signal, rules[place]);
                pressures[place] = scale.pressure(values[place]);
                state_pressures[place] = scale.pressure(state_values[place]);
            }
        }
        if let Some((_, least)) = &spec.volume {
            let volume = frame.and_then(|frame| frame.volume.as_ref());
            for place in 0..length {
                if !is_enough(volume, from + place, *least) {
                    (pressures[place], state_pressures[place]) = (f32::NAN, f32::NAN);
                }
            }
        }
        let weight = spec.weight as f32;
        let load = spec.family != Family::Errors && !spec.fatal;
        let last_seen = &mut state.last_seen[from..to];
        let last_pressure = &mut state.last_pressure[from..to];
        for (pressure, state) in pressures.iter().zip(state_pressures.iter_mut()) {
            *state = if state.is_nan() { *pressure } else { *state };
        }
        statuses.fill(SignalStatus::Ok as u8);
        if !pressures.iter().fold(false, |missing, pressure| missing | pressure.is_nan()) {
            // Every server of the block has the signal, as is usual: nothing is read of what was.
            last_pressure.copy_from_slice(pressures);
            last_seen.fill(tick.now);
            weights.iter_mut().chain(weights_ok.iter_mut()).for_each(|sum| *sum += weight);
        } else {
            for place in 0..length {
                if !pressures[place].is_nan() {
                    (last_seen[place], last_pressure[place]) = (tick.now, pressures[place]);
                    continue;
                }
                let was_bad = last_pressure[place] >= tick.bad_from(from + place, spec);
                let status = if !values[place].is_nan() {
                    last_seen[place] = tick.now;
                    last_pressure[place] = f32::NAN;
                    SignalStatus::Insufficient
                } else {
                    tick.vanished(from + place, last_seen[place], was_bad, &mut self.counters)
                };
                statuses[place] = status as u8;
                let kept = if status == SignalStatus::Held { last_pressure[place] } else { f32::NAN };
                (pressures[place], state_pressures[place]) = (kept, kept);
                let is_lost = values[place].is_nan() && status != SignalStatus::Held && was_bad;
                block.lost[place] |= is_lost && load && spec.throttle;
            }
            for ((all, ok), status) in weights.iter_mut().zip(weights_ok.iter_mut()).zip(statuses.iter()) {
                *all += if *status == SignalStatus::Absent as u8 { 0.0 } else { weight };
                *ok += if *status == SignalStatus::Ok as u8 { weight } else { 0.0 };
            }
        }
        out.signal_pressure[signal].extend_from_slice(pressures);
        out.signal_status[signal].extend_from_slice(statuses);
        if spec.fatal {
            for (place, pressure) in pressures.iter().enumerate().filter(|(_, pressure)| **pressure >= 1.0) {
                let threshold = tick.thresholds(signal, rules[place])[1];
                let pressure = pressure.max(2.0);
                block.fatal[place] = true;
                if pressure > block.faults[place] {
                    (block.faults[place], block.fault_signals[place]) = (pressure, signal as u32);
                }
                block.causes.push((place as u32, signal as u16, ReasonKind::Fatal, threshold, pressure));
            }
            return;
        }
        let family = spec.family as usize;
        keep_larger(&mut block.families[family], &mut block.family_signals[family], pressures, signal as u32);
        let (largest, signals) = (&mut block.state_families[family], &mut block.state_family_signals[family]);
        keep_larger(largest, signals, state_pressures, signal as u32);
        if load && spec.throttle {
            keep_larger(&mut block.throttle, &mut block.throttle_signals, pressures, signal as u32);
        }
    }

    /// Who deviates in one signal, and what is usual for it from now on.
    #[inline(never)]
    fn step_deviation(
        &mut self,
        tick: &Tick<'_>,
        signal: usize,
        from: usize,
        to: usize,
        block: &mut Block,
        out: &HealthFrame,
    ) {
        let (spec, state) = (&tick.policy.signals[signal], &mut self.signals[signal]);
        let relative = is_relative(spec);
        if spec.peers.is_none() && !relative {
            return;
        }
        let frame = tick.frames.get(signal);
        let mut buffer = std::mem::take(&mut block.values);
        let live = &tick.servers.live[from..to];
        let values = block_of(&mut buffer, frame.map(|frame| &frame.control), from, live, block.all_live);
        let volume = frame.and_then(|frame| frame.volume.as_ref());
        let bars = spec.peers.map(|peers| Bars::new(&tick.policy.health, peers, spec.lower_is_worse));
        let judged = &out.signal_pressure[signal][from..to];
        let lines: Vec<Line> = match &bars {
            Some(bars) if state.own.is_empty() => tick.groups[signal].iter().map(|group| bars.line(group)).collect(),
            _ => Vec::new(),
        };
        for (place, own_pressure) in judged.iter().copied().enumerate() {
            let (slot, value) = (from + place, values[place]);
            if let Some(line) = lines.get(tick.servers.pool[slot] as usize)
                && line.is_within(value)
                && state.deviating_since[slot] == 0
            {
                // Like its pool, as nearly everybody is at nearly every time.
                continue;
            }
            let enough = spec.volume.as_ref().is_none_or(|(_, least)| is_enough(volume, slot, *least));
            if value.is_nan() || !enough {
                if let Some(since) = state.deviating_since.get_mut(slot) {
                    *since = 0;
                }
                continue;
            }
            let mut deviates = false;
            if let Some(bars) = &bars {
                let group = tick.groups[signal].get(tick.servers.pool[slot] as usize).unwrap_or(&Group::NONE);
                let (found, kind, usual) = if group.judges() {
                    (bars.against_peers(value, group), ReasonKind::PeerDeviation, group.median)
                } else if is_fault(spec.family) && !is_loaded(block, place) {
                    let own = &state.own[slot];
                    (bars.against_own(value, own), ReasonKind::BaselineDeviation, f64::from(own.mean))
                } else {
                    (None, ReasonKind::PeerDeviation, f64::NAN)
                };
                let since = &mut state.deviating_since[slot];
                deviates = found.is_some();
                *since = match (deviates, *since) {
                    (false, _) => 0,
                    (true, 0) => tick.now,
                    (true, since) => since,
                };
                if let Some(pressure) = found
                    && has_lasted(*since, tick.now, tick.window_seconds(slot, signal, block.windows[place]))
                {
                    // A deviation of cpu or memory says that work is spread unevenly; its pressure is the signal's own.
                    let pressure = if is_fault(spec.family) {
                        block.add_fault(place, signal, pressure);
                        pressure
                    } else {
                        own_pressure
                    };
                    block.causes.push((place as u32, signal as u16, kind, usual, pressure));
                }
            }
            if let Some(own) = state.own.get_mut(slot) {
                let server = &self.servers[slot];
                let frozen = deviates
                    || server.load >= LoadState::Overloaded as u8
                    || server.fault >= FaultState::Suspect as u8
                    || (relative && own_pressure >= 1.0);
                if !frozen && value.is_finite() {
                    own.observe(value, tick.seconds, tick.policy.windows.baseline_seconds as f32);
                }
            }
        }
        block.values = buffer;
    }

    /// States and results of one server.
    #[inline(never)]
    fn step_server(
        &mut self,
        tick: &Tick<'_>,
        slot: usize,
        place: usize,
        block: &Block,
        causes: std::ops::Range<usize>,
        out: &mut HealthFrame,
    ) {
        let load_families = &Family::ALL[..Family::Errors as usize];
        // The largest pressure, and the signal that it is of.
        let largest = |families: &[Vec<f32>; Family::ALL.len()], signals: &[Vec<u32>; Family::ALL.len()]| {
            let (mut worst, mut of) = (f32::NEG_INFINITY, u32::from(Reason::NO_SIGNAL));
            for family in load_families {
                let (pressure, signal) = (families[*family as usize][place], signals[*family as usize][place]);
                if pressure > worst {
                    (worst, of) = (pressure, signal);
                }
            }
            (if worst == f32::NEG_INFINITY { f32::NAN } else { worst }, of as usize)
        };
        let (control, control_signal) = largest(&block.families, &block.family_signals);
        let (state, state_signal) = largest(&block.state_families, &block.state_family_signals);
        let errors = block.families[Family::Errors as usize][place];
        let fault_signal = if errors >= block.faults[place] {
            block.family_signals[Family::Errors as usize][place]
        } else {
            block.fault_signals[place]
        };
        let report = |signal: usize| {
            let status = out.signal_status.get(signal).and_then(|column| column.get(slot));
            let is_ok = status == Some(&(SignalStatus::Ok as u8));
            let age = tick.frames.get(signal).filter(|_| is_ok).and_then(|frame| frame.age_seconds.get(slot));
            Report {
                age_seconds: age.copied().unwrap_or(f32::NAN),
                slow_seconds: tick.servers.slow_seconds(slot, signal).unwrap_or(0.0),
            }
        };
        let over = block.families.iter().filter(|family| family[place] >= 1.0).count();
        let health = &tick.policy.health;
        let interval_seconds = tick.servers.interval_seconds[slot];
        let seen = Observation {
            now: tick.now,
            age_seconds: tick.servers.age_seconds[slot],
            interval_seconds,
            window_seconds: block.windows[place],
            unknown_seconds: (UNKNOWN_INTERVALS * interval_seconds).max(health.unknown_after_seconds as f32),
            control,
            control_report: report(control_signal),
            state,
            state_report: report(state_signal),
            confirmed: over >= 2 || errors >= 1.0 || block.families[Family::Latency as usize][place] >= 1.0,
            fault: block.faults[place].max(errors),
            fault_report: report(fault_signal as usize),
            fatal: block.fatal[place],
            data_flags: tick.servers.data_flags(slot),
        };
        let (server, latches) = (&mut self.servers[slot], &mut self.latches[slot]);
        server.step(&seen, latches, &mut self.counters);

        let stale = seen.is_stale();
        let load_pressure = if stale { f32::NAN } else { seen.control };
        let fault_pressure = if stale { f32::NAN } else { seen.fault };
        // What is unknown never looks healthy, but a fault that is known is not hidden by a load that is not.
        let knows_load = server.load != LoadState::Unknown as u8 && !load_pressure.is_nan();
        let pressure = if knows_load {
            load_pressure.max(fault_pressure)
        } else if fault_pressure >= 1.0 {
            fault_pressure
        } else {
            f32::NAN
        };
        let throttle = block.throttle[place];
        let has_throttle = !stale && throttle > f32::NEG_INFINITY;
        let mut flags = server.data_flags(&seen);
        let is_unread = stale && flags & flag::NOTHING_READ != 0;
        if !is_unread {
            flags &= !flag::NOTHING_READ;
        }
        for (bit, is_set) in [
            (flag::FLAPPING, latches.is_closed(tick.now)),
            (flag::LOST_SIGNAL, block.lost[place]),
            (
                flag::SILENT,
                !is_unread && (seen.age_seconds.is_nan() || seen.age_seconds > health.silent_seconds as f32),
            ),
        ] {
            flags |= if is_set { bit } else { 0 };
        }
        out.score.push(1.0 - (pressure / 2.0).clamp(0.0, 1.0));
        out.pressure.push(pressure);
        out.load_pressure.push(load_pressure);
        out.fault_pressure.push(fault_pressure);
        out.load_state.push(server.load);
        out.fault_state.push(server.fault);
        out.placement.push(placement(server.load, server.fault) as u8);
        out.state_since.push(i64::from(server.since));
        out.confidence.push(if block.weights[place] > 0.0 {
            block.weights_ok[place] / block.weights[place]
        } else {
            0.0
        });
        out.flags.push(flags);
        out.throttle_pressure.push(if has_throttle { throttle } else { f32::NAN });
        out.throttle_signal.push(if has_throttle { block.throttle_signals[place] as u16 } else { Reason::NO_SIGNAL });

        let rule = usize::from(tick.servers.rule[slot]);
        let least = tick.reason_pressures.get(rule).copied().unwrap_or(1.0);
        if stale || !causes.is_empty() || seen.control >= least || errors >= 1.0 {
            tick.reasons(slot, place, &seen, least, block, causes, out);
        }
    }

    /// What is usual in each pool from now on. Frozen while the pool is overloaded: a baseline that is measured under
    /// load drifts until the overload is the norm.
    #[inline(never)]
    fn observe_pools(&mut self, tick: &Tick<'_>, members: &Members) {
        let pools = tick.groups.iter().map(Vec::len).max().unwrap_or(0);
        let overloaded: Vec<bool> = (0..pools)
            .map(|pool| {
                let is_loaded = |slot: &&u32| self.servers[**slot as usize].load >= LoadState::Overloaded as u8;
                2 * members.of(pool).iter().filter(is_loaded).count() >= members.of(pool).len().max(1)
            })
            .collect();
        for (signal, spec) in tick.policy.signals.iter().enumerate() {
            let ThresholdKind::Relative { floor, baseline_min_seconds } = spec.threshold_kind else { continue };
            let min_seconds = tick.baseline_min_seconds(baseline_min_seconds);
            for (pool, group) in tick.groups[signal].iter().enumerate().filter(|(_, group)| group.judges()) {
                let baseline = &mut self.signals[signal].pools[pool];
                baseline.seen = tick.now;
                let rule = members.of(pool).first().map_or(0, |slot| tick.servers.rule[*slot as usize]);
                let multiple = group.median / baseline.mean.max(floor);
                let is_over =
                    baseline.seconds >= f64::from(min_seconds) && tick.scale(signal, rule).pressure(multiple) >= 1.0;
                if !overloaded[pool] && !is_over {
                    let time_constant = tick.policy.windows.baseline_seconds as f64;
                    baseline.observe(group.median, f64::from(tick.seconds), time_constant);
                }
            }
        }
    }

    /// Writes what is remembered: a state that is decoded from it goes on to the bit.
    pub fn encode(&self, out: &mut Encoder) {
        out.put_u8(STATE_VERSION);
        out.put_u32(self.servers.len() as u32);
        for (server, latches) in self.servers.iter().zip(&self.latches) {
            server.encode(latches, out);
        }
        out.put_u32(self.signals.len() as u32);
        self.signals.iter().for_each(|signal| signal.encode(out));
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// If the bytes are damaged or of a newer version.
    pub fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let version = input.get_u8()?;
        if !(1..=STATE_VERSION).contains(&version) {
            return Err(input.error("version of the state of health"));
        }
        let slots = input.get_length(ServerState::BYTES_MIN, "servers")?;
        let (servers, latches) = (0..slots).map(|_| ServerState::decode(version, input)).collect::<Result<_, _>>()?;
        let signals = (0..input.get_length(28, "signals")?)
            .map(|_| SignalState::decode(input, slots))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { signals, servers, latches, ..Self::default() })
    }
}

/// Placement is at most *avoid*: *block* belongs to critical and faulty servers, and waits for the fleet guards that
/// keep a cell from blocking more of itself than it can spare.
fn placement(load: u8, fault: u8) -> Placement {
    let fits =
        (load == LoadState::Underloaded as u8 || load == LoadState::Normal as u8) && fault == FaultState::Ok as u8;
    if fits { Placement::Allow } else { Placement::Avoid }
}

/// An empty frame with room for `slots` rows, in the memory of one that is no longer read.
fn blank(policy: &Policy, slots: usize, spare: HealthFrame) -> HealthFrame {
    fn empty<T>(mut column: Vec<T>, length: usize) -> Vec<T> {
        column.clear();
        column.reserve_exact(length);
        column
    }
    fn columns<T>(mut columns: Vec<Vec<T>>, lengths: impl Iterator<Item = usize>) -> Vec<Vec<T>> {
        columns.reverse();
        lengths.map(|length| empty(columns.pop().unwrap_or_default(), length)).collect()
    }
    let each = || policy.signals.iter().map(|_| slots);
    let mut reason_offsets = empty(spare.reason_offsets, slots + 1);
    reason_offsets.push(0);
    HealthFrame {
        score: empty(spare.score, slots),
        pressure: empty(spare.pressure, slots),
        load_pressure: empty(spare.load_pressure, slots),
        fault_pressure: empty(spare.fault_pressure, slots),
        load_state: empty(spare.load_state, slots),
        fault_state: empty(spare.fault_state, slots),
        placement: empty(spare.placement, slots),
        state_since: empty(spare.state_since, slots),
        confidence: empty(spare.confidence, slots),
        flags: empty(spare.flags, slots),
        signal_pressure: columns(spare.signal_pressure, each()),
        signal_status: columns(spare.signal_status, each()),
        throttle_pressure: empty(spare.throttle_pressure, slots),
        throttle_signal: empty(spare.throttle_signal, slots),
        relative_thresholds: columns(
            spare.relative_thresholds,
            policy.signals.iter().map(|spec| if is_relative(spec) { slots } else { 0 }),
        ),
        reason_offsets,
        reasons: empty(spare.reasons, 0),
    }
}

/// The row of a free slot: the same whatever lay there before.
fn push_dead(out: &mut HealthFrame) {
    for column in
        [&mut out.score, &mut out.pressure, &mut out.load_pressure, &mut out.fault_pressure, &mut out.throttle_pressure]
    {
        column.push(f32::NAN);
    }
    out.load_state.push(LoadState::Unknown as u8);
    out.fault_state.push(FaultState::Unknown as u8);
    out.placement.push(Placement::Avoid as u8);
    out.state_since.push(0);
    out.confidence.push(0.0);
    out.flags.push(0);
    out.throttle_signal.push(Reason::NO_SIGNAL);
}
