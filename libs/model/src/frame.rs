//! What the stages of a tick hand to each other: columns with one row per server slot of the cell.
//!
//! `window → expr → health → throttle` is the order of the data, not of the crates: those are siblings that know only
//! this module, and the engine carries the frames between them. A slot is a number the engine gives a server for as
//! long as it lives; slots that are free have `live[slot] == false` and their values mean nothing.

use arrow_array::Float64Array;
use arrow_buffer::ScalarBuffer;

/// What is known of the servers themselves at a tick.
#[derive(Clone, Debug, Default)]
pub struct ServerFrame {
    /// Whether the slot holds a server.
    pub live: Vec<bool>,
    /// Pool of the server: an index into the cell's pools. Pool 0 is `default`, nobody's peer group.
    pub pool: Vec<u32>,
    /// The server's rule: an index into `Policy::rules`.
    pub rule: Vec<u16>,
    /// The position of the server on the way to full enforcement (`hash::enforcement_rank`).
    pub enforcement_rank: Vec<f32>,
    /// Age of the newest sample at the tick, seconds; infinite before the first.
    pub age_seconds: Vec<f32>,
    /// Interval at which the server reports, seconds; NaN while unknown.
    pub interval_seconds: Vec<f32>,
    /// The signals that report more rarely than their server, sorted by slot and signal.
    pub slow: Vec<SlowSignal>,
    /// What is wrong with the data of a server, as bits of [`flag`], sorted by slot: of [`flag::CLOCK_SKEW`] and
    /// [`flag::NOT_A_NUMBER`] what came since the last tick. [`flag::NOTHING_READ`] is of no account where what was read is
    /// young enough.
    pub data_flags: Vec<(u32, u16)>,
}

impl ServerFrame {
    /// What is wrong with the data of a server: its bits among [`Self::data_flags`].
    pub fn data_flags(&self, slot: usize) -> u16 {
        let found = self.data_flags.binary_search_by_key(&(slot as u32), |(slot, _)| *slot);
        found.map_or(0, |at| self.data_flags[at].1)
    }

    /// The interval of a signal that reports more rarely than its server, seconds.
    pub fn slow_seconds(&self, slot: usize, signal: usize) -> Option<f32> {
        if self.slow.is_empty() {
            return None;
        }
        let place = |slow: &SlowSignal| (slow.slot as usize, usize::from(slow.signal));
        let at = self.slow.binary_search_by(|slow| place(slow).cmp(&(slot, signal))).ok()?;
        Some(self.slow[at].interval_seconds)
    }
}

/// A signal of a server whose values come from a sender slower than the fastest of that server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowSignal {
    /// The slot of the server.
    pub slot: u32,
    /// Index of the signal in the policy.
    pub signal: u16,
    /// Interval of the slowest input that its value was made of, seconds.
    pub interval_seconds: f32,
}

/// The values of one signal at a tick. Columns may be shared with those of an input.
#[derive(Clone, Debug)]
pub struct SignalFrame {
    /// Over the control window; null where an input is missing.
    pub control: Float64Array,
    /// Over the state window.
    pub state: Float64Array,
    /// Samples in the control window: the fewest of the inputs the value was made of.
    pub samples: ScalarBuffer<u32>,
    /// Age of the newest sample, seconds: the oldest of the inputs the value was made of; NaN without one.
    pub age_seconds: ScalarBuffer<f32>,
    /// Events in the control window, where the signal demands a volume.
    pub volume: Option<Float64Array>,
}

/// Standing of a signal on a server. The numbers are part of the snapshot's binary form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum SignalStatus {
    /// This server has never reported it within the baseline span: does not count.
    Absent = 0,
    /// Fresh and sufficient.
    Ok = 1,
    /// Fresh, but too few events, peers or minutes of baseline to judge by.
    Insufficient = 2,
    /// Vanished while above its set-point: keeps that pressure for a while.
    Held = 3,
    /// Vanished: reported within the baseline span, not now.
    Missing = 4,
}

impl SignalStatus {
    /// Every status, in the order of its number.
    pub const ALL: [Self; 5] = [Self::Absent, Self::Ok, Self::Insufficient, Self::Held, Self::Missing];

    /// The name in answers.
    pub fn as_str(self) -> &'static str {
        ["absent", "ok", "insufficient", "held", "missing"][self as usize]
    }
}

/// Load states, in the order of severity; the numbers are part of the snapshot's binary form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum LoadState {
    /// No fresh data.
    Unknown = 0,
    /// Could take more.
    Underloaded = 1,
    /// As it should be.
    Normal = 2,
    /// Over a set-point.
    Overloaded = 3,
    /// Over a critical set-point.
    Critical = 4,
}

impl LoadState {
    /// Every state, in the order of its number.
    pub const ALL: [Self; 5] = [Self::Unknown, Self::Underloaded, Self::Normal, Self::Overloaded, Self::Critical];

    /// The name in answers.
    pub fn as_str(self) -> &'static str {
        ["unknown", "underloaded", "normal", "overloaded", "critical"][self as usize]
    }
}

/// Fault states, in the order of severity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum FaultState {
    /// No fresh data.
    Unknown = 0,
    /// Nothing wrong.
    Ok = 1,
    /// Something deviates.
    Suspect = 2,
    /// Broken.
    Faulty = 3,
}

impl FaultState {
    /// Every state, in the order of its number.
    pub const ALL: [Self; 4] = [Self::Unknown, Self::Ok, Self::Suspect, Self::Faulty];

    /// The name in answers.
    pub fn as_str(self) -> &'static str {
        ["unknown", "ok", "suspect", "faulty"][self as usize]
    }
}

/// What a placer of work should do with a server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Placement {
    /// Place.
    Allow = 0,
    /// Prefer others.
    Avoid = 1,
    /// Do not place.
    Block = 2,
}

impl Placement {
    /// Every placement, in the order of its number.
    pub const ALL: [Self; 3] = [Self::Allow, Self::Avoid, Self::Block];

    /// The name in answers.
    pub fn as_str(self) -> &'static str {
        ["allow", "avoid", "block"][self as usize]
    }
}

/// Bits of [`HealthFrame::flags`].
pub mod flag {
    /// The load state changed too often; the worse state is latched.
    pub const FLAPPING: u16 = 1;
    /// A limited class may not rise above its safe value: a signal vanished while above its set-point and its hold has
    /// ended.
    pub const LOST_SIGNAL: u16 = 2;
    /// The server has not reported for so long that it counts no more in peers, guards and limits.
    pub const SILENT: u16 = 4;
    /// The server's clock is ahead of the tick by more than the bound.
    pub const CLOCK_SKEW: u16 = 8;
    /// Values that are no finite numbers came, and were refused.
    pub const NOT_A_NUMBER: u16 = 16;
    /// A sensor that has moved before repeats one value.
    pub const FLAT_SENSOR: u16 = 32;
    /// Two writers report one counter, or intervals that overlap.
    pub const OVERLAPPING_WRITERS: u16 = 64;
    /// Another server claims one of its host-level names: a cloned machine id, mostly.
    pub const NAME_CONFLICT: u16 = 128;
    /// The server reports, but nothing that an input reads.
    pub const NOTHING_READ: u16 = 256;
    /// A bound keeps series of the server from being read.
    pub const SERIES_REFUSED: u16 = 512;
}

/// Why a reason is a reason.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum ReasonKind {
    /// The value is beyond the set-point.
    Threshold = 0,
    /// The value deviates from the pool.
    PeerDeviation = 1,
    /// The signal vanished while it was beyond the set-point.
    Held = 2,
    /// A fatal flag.
    Fatal = 3,
    /// The server is silent.
    Silent = 4,
    /// The value deviates from the server's own baseline.
    BaselineDeviation = 5,
}

impl ReasonKind {
    /// Every kind, in the order of its number.
    pub const ALL: [Self; 6] =
        [Self::Threshold, Self::PeerDeviation, Self::Held, Self::Fatal, Self::Silent, Self::BaselineDeviation];
}

/// One cause, machine-readable. At most three per server, one per family, worst first.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Reason {
    /// Why.
    pub kind: ReasonKind,
    /// The signal: an index into the policy's signals; [`Reason::NO_SIGNAL`] for a silent server.
    pub signal: u16,
    /// The value looked at, in the signal's unit.
    pub value: f64,
    /// The threshold it is beyond, in the signal's unit (for peers: the pool's median).
    pub threshold: f64,
    /// The pressure that follows.
    pub pressure: f32,
    /// Seconds looked at.
    pub window_seconds: f32,
    /// Samples looked at.
    pub samples: u32,
    /// Age of the newest of them, seconds.
    pub age_seconds: f32,
}

impl Reason {
    /// Stands for no signal.
    pub const NO_SIGNAL: u16 = u16::MAX;
}

/// What health made of the signals.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HealthFrame {
    /// 0-1, 1 = healthy; NaN = unknown.
    pub score: Vec<f32>,
    /// The larger of load and fault pressure, -1 to 3; NaN = unknown.
    pub pressure: Vec<f32>,
    /// Largest pressure of the load families over the control window; NaN = unknown.
    pub load_pressure: Vec<f32>,
    /// Pressure of the fault axis; NaN = unknown.
    pub fault_pressure: Vec<f32>,
    /// [`LoadState`] as number.
    pub load_state: Vec<u8>,
    /// [`FaultState`] as number.
    pub fault_state: Vec<u8>,
    /// [`Placement`] as number.
    pub placement: Vec<u8>,
    /// Epoch of the tick at which load or fault state last changed.
    pub state_since: Vec<i64>,
    /// Share of the weighted signals that are fresh and sufficient, 0-1.
    pub confidence: Vec<f32>,
    /// Bits of [`flag`].
    pub flags: Vec<u16>,
    /// Per signal: the pressure, NaN without one.
    pub signal_pressure: Vec<Vec<f32>>,
    /// Per signal: [`SignalStatus`] as number.
    pub signal_status: Vec<Vec<u8>>,
    /// Largest pressure over the control window among the load signals that drive the throttle; NaN = unknown.
    pub throttle_pressure: Vec<f32>,
    /// The signal it comes from, [`Reason::NO_SIGNAL`] without one.
    pub throttle_signal: Vec<u16>,
    /// Set-points in force in the signal's unit where they are relative to a baseline: per signal, per slot
    /// `[under, over, critical]`; empty for signals with absolute set-points.
    pub relative_thresholds: Vec<Vec<[f64; 3]>>,
    /// Reasons of the slot `s`: `reasons[reason_offsets[s]..reason_offsets[s + 1]]`.
    pub reason_offsets: Vec<u32>,
    /// All reasons.
    pub reasons: Vec<Reason>,
}

/// What the throttle law decided for one class.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassFrame {
    /// In force, 0-1. 1 wherever the mode on the server is not enforce.
    pub admit: Vec<f32>,
    /// What enforcing would make of it; equal to `admit` where the mode is enforce.
    pub would_admit: Vec<f32>,
    /// The signal that binds the class, [`Reason::NO_SIGNAL`] where none does.
    pub binding: Vec<u16>,
    /// [`DecisionReason`] as number.
    pub reason: Vec<u8>,
    /// Whether the mode on the server is enforce: 0 off, 1 observe, 2 enforce.
    pub mode: Vec<u8>,
}

/// Why a decision is what it is, in the manner of Exchange's `StalledDueTo…`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum DecisionReason {
    /// Nothing limits the class.
    Open = 0,
    /// `throttled_by:<signal>@<server>`: cut by the pressure of the binding signal.
    Throttled = 1,
    /// `held_by:<signal>@<server>`: limited, neither cut nor raised at this tick.
    Held = 2,
    /// `rising`: limited, on the way up.
    Rising = 3,
    /// `held_by:low_confidence`: too little is known to tighten.
    LowConfidence = 4,
    /// `held_by:no_data`: the server is unknown; the class moves to its safe value.
    NoData = 5,
    /// `held_by:lost_signal`: a signal vanished while above its set-point; the class stays at its safe value.
    LostSignal = 6,
    /// `held_by:higher_class`: waits until the classes above are whole again.
    HigherClass = 7,
    /// `mode_off`: no decisions are derived.
    Off = 8,
    /// `held_by:learning`: the cell has just begun to tick.
    Learning = 9,
}

impl DecisionReason {
    /// Every reason, in the order of its number.
    pub const ALL: [Self; 10] = [
        Self::Open,
        Self::Throttled,
        Self::Held,
        Self::Rising,
        Self::LowConfidence,
        Self::NoData,
        Self::LostSignal,
        Self::HigherClass,
        Self::Off,
        Self::Learning,
    ];
}

/// What the throttle decided: one frame per class of the policy, in its order.
pub type ThrottleFrame = Vec<ClassFrame>;
