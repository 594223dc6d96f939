//! The published snapshot of a cell: one immutable record per cell and tick, columns with a row per server.
//!
//! Its content is a pure function of the log up to its tick, so two owners that read the same log publish the same
//! bytes ([`CellSnapshot::encode`]); log positions, wall-clock times and counts of duplicates stand beside it, never in
//! it. Rows lie in slot order, which is itself such a function (servers of one tick in key order, then the next tick's).

use std::convert::Infallible;
use std::sync::Arc;

use arrow_buffer::ScalarBuffer;

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::columns::{Read, Written};
use crate::coverage::{COVERAGE_FULL, COVERAGE_UNKNOWN};
use crate::frame::{ClassFrame, HealthFrame, Reason, ReasonKind};
use crate::policy::{Family, OnExpiry};

/// From this many bytes on, pieces of an encoded snapshot are handed out.
const PIECE_BYTES: usize = 256 * 1024;

/// The version written in front of every snapshot.
pub const SNAPSHOT_VERSION: u8 = 3;

/// A signal as readers need it.
#[derive(Clone, Debug, PartialEq)]
pub struct SignalHead {
    /// The name.
    pub name: Arc<str>,
    /// The family.
    pub family: Family,
    /// Unit of values.
    pub unit: Arc<str>,
    /// The reason code.
    pub reason: Arc<str>,
    /// Whether lower values are worse.
    pub lower_is_worse: bool,
    /// Whether it drives the throttle.
    pub throttle: bool,
}

/// A class as readers need it.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassHead {
    /// The name.
    pub name: Arc<str>,
}

/// A rule as readers need it.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleHead {
    /// The name.
    pub name: Arc<str>,
    /// Per signal: under, over, critical (multiples of the baseline where the signal is relative).
    pub thresholds: Vec<[f64; 3]>,
    /// Per class: the set-point, NaN = exempt.
    pub set_points: Vec<f64>,
    /// Per class: what follows a lease.
    pub on_expiry: Vec<OnExpiry>,
    /// Per class: what a fraction of 1 means, NaN = not configured.
    pub nominals: Vec<f64>,
}

/// What all rows of a snapshot share: small, and the same from tick to tick under one policy.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyHead {
    /// Version of the policy.
    pub hash: Arc<str>,
    /// The signals.
    pub signals: Vec<SignalHead>,
    /// The classes, most important first.
    pub classes: Vec<ClassHead>,
    /// The rules.
    pub rules: Vec<RuleHead>,
    /// Names of inputs and, per input, names of the dialects of its sources.
    pub inputs: Vec<(Arc<str>, Vec<Arc<str>>)>,
    /// Seconds of the control window.
    pub control_seconds: i64,
    /// Seconds a decision is valid from receipt.
    pub lease_seconds: i64,
    /// Seconds after which a consumer should renew it.
    pub refresh_seconds: i64,
}

/// Names of the servers: the same from tick to tick while nobody joins or leaves, hence behind an `Arc`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerTable {
    /// The server's name.
    pub server: Vec<Arc<str>>,
    /// All other names, sorted.
    pub aliases: Vec<Arc<[Arc<str>]>>,
    /// Index into `pools`.
    pub pool: Vec<u32>,
    /// Names of the pools.
    pub pools: Vec<Arc<str>>,
    /// Index into [`PolicyHead::rules`].
    pub rule: Vec<u16>,
}

/// One input of all servers, for `explain`.
#[derive(Clone, Debug, PartialEq)]
pub struct InputColumn {
    /// Value over the control window, NaN = none.
    pub value: ScalarBuffer<f64>,
    /// Which source won, 255 = none.
    pub source: ScalarBuffer<u8>,
}

/// One signal of all servers. A signal that is an input as it is shares the memory of its columns.
#[derive(Clone, Debug, PartialEq)]
pub struct SignalColumn {
    /// Value over the control window, NaN = none.
    pub value: ScalarBuffer<f64>,
    /// Samples in the control window.
    pub samples: ScalarBuffer<u32>,
    /// Age of the newest sample, seconds, NaN = none.
    pub age_seconds: ScalarBuffer<f32>,
}

/// The snapshot of a cell at a tick.
#[derive(Clone, Debug, PartialEq)]
pub struct CellSnapshot {
    /// The cell.
    pub cell: Arc<str>,
    /// The tick, Unix seconds: the version of everything in here.
    pub epoch: i64,
    /// Seconds from tick to tick.
    pub tick_seconds: i64,
    /// What all rows share.
    pub policy: Arc<PolicyHead>,
    /// Names.
    pub servers: Arc<ServerTable>,
    /// Age of each server's newest sample at the tick, seconds; infinite before the first.
    pub age_seconds: Vec<f32>,
    /// How much of what was expected of each server had arrived, see [`coverage`](crate::coverage).
    pub coverage: Vec<u8>,
    /// Health.
    pub health: HealthFrame,
    /// Signals, in the order of the policy.
    pub signals: Vec<SignalColumn>,
    /// Inputs, in the order of the policy.
    pub inputs: Vec<InputColumn>,
    /// Decisions, one frame per class.
    pub decisions: Vec<ClassFrame>,
    /// What the policy's roll-up gives as the health of each of [`ServerTable::pools`] and, last, of the cell: 0-1, NaN =
    /// unknown. Empty where the policy has none.
    pub rolled_up: Vec<f32>,
}

impl CellSnapshot {
    /// Number of servers.
    pub fn len(&self) -> usize {
        self.servers.server.len()
    }

    /// Whether the cell has no server. Such a snapshot is the last one of its cell: it was let go.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The last word about the cell where its engine can no longer be asked for it: what it would publish at `epoch`
    /// under the same policy without a server.
    pub fn without_servers(&self, epoch: i64) -> Self {
        let signals = self.policy.signals.len();
        let signal = |_| SignalColumn {
            value: ScalarBuffer::default(),
            samples: ScalarBuffer::default(),
            age_seconds: ScalarBuffer::default(),
        };
        let input = |_| InputColumn { value: ScalarBuffer::default(), source: ScalarBuffer::default() };
        Self {
            cell: self.cell.clone(),
            epoch,
            tick_seconds: self.tick_seconds,
            policy: self.policy.clone(),
            servers: Arc::default(),
            age_seconds: Vec::new(),
            coverage: Vec::new(),
            health: HealthFrame {
                signal_pressure: vec![Vec::new(); signals],
                signal_status: vec![Vec::new(); signals],
                relative_thresholds: vec![Vec::new(); signals],
                reason_offsets: vec![0],
                ..HealthFrame::default()
            },
            signals: (0..signals).map(signal).collect(),
            inputs: (0..self.policy.inputs.len()).map(input).collect(),
            decisions: vec![ClassFrame::default(); self.policy.classes.len()],
            rolled_up: Vec::new(),
        }
    }

    /// The reasons of a row.
    pub fn reasons(&self, row: usize) -> &[Reason] {
        match (self.health.reason_offsets.get(row), self.health.reason_offsets.get(row + 1)) {
            (Some(from), Some(to)) => self.health.reasons.get(*from as usize..*to as usize).unwrap_or(&[]),
            _ => &[],
        }
    }

    /// The content as bytes: equal contents have equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let row_bytes = 161 + 21 * self.signals.len() + 9 * self.inputs.len() + 12 * self.decisions.len();
        let mut out = Encoder { bytes: Vec::with_capacity(self.len() * row_bytes + 64 * self.health.reasons.len()) };
        let Ok(()) = self.encode_columns(&mut out, &mut |_| Ok::<(), Infallible>(()));
        out.bytes
    }

    /// Gives the bytes of [`Self::encode`] piece by piece, so that nobody needs room for all of them at once: those of a
    /// cell of a million servers are hundreds of megabytes.
    ///
    /// # Errors
    /// As soon as `put` fails.
    pub fn write_to<E>(&self, mut put: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut out = Encoder::default();
        self.encode_columns(&mut out, &mut |out| {
            if out.bytes.len() >= PIECE_BYTES {
                put(&out.bytes)?;
                out.bytes.clear();
            }
            Ok(())
        })?;
        put(&out.bytes)
    }

    /// Writes column after column; `done` may take away what was written so far after each of them.
    fn encode_columns<E>(
        &self,
        out: &mut Encoder,
        done: &mut impl FnMut(&mut Encoder) -> Result<(), E>,
    ) -> Result<(), E> {
        out.put_u8(SNAPSHOT_VERSION);
        out.put_str(&self.cell);
        out.put_i64(self.epoch);
        out.put_i64(self.tick_seconds);
        encode_policy(&self.policy, out);
        let servers = &*self.servers;
        out.put_strs(&servers.server);
        done(out)?;
        out.put_u32(servers.aliases.len() as u32);
        for aliases in &servers.aliases {
            out.put_strs(aliases);
        }
        out.put_u32s(&servers.pool);
        out.put_strs(&servers.pools);
        out.put_u16s(&servers.rule);
        out.put_f32s(&self.age_seconds);
        done(out)?;
        let rows = self.len();
        let (mut bytes, mut shorts, mut words) = (Written::new(rows), Written::new(rows), Written::new(rows));
        let (mut singles, mut doubles) = (Written::new(rows), Written::new(rows));
        encode_health(&self.health, &mut singles, &mut bytes, out, done)?;
        out.put_u32(self.signals.len() as u32);
        for column in &self.signals {
            doubles.put_f64s(out, &column.value);
            words.put_u32s(out, &column.samples);
            singles.put_f32s(out, &column.age_seconds);
            done(out)?;
        }
        out.put_u32(self.inputs.len() as u32);
        for column in &self.inputs {
            doubles.put_f64s(out, &column.value);
            bytes.put_u8s(out, &column.source);
            done(out)?;
        }
        out.put_u32(self.decisions.len() as u32);
        for class in &self.decisions {
            singles.put_f32s(out, &class.admit);
            singles.put_f32s(out, &class.would_admit);
            shorts.put_u16s(out, &class.binding);
            bytes.put_u8s(out, &class.reason);
            bytes.put_u8s(out, &class.mode);
            done(out)?;
        }
        bytes.put_u8s(out, &self.coverage);
        done(out)?;
        out.put_f32s(&self.rolled_up);
        Ok(())
    }

    /// The snapshot that bytes hold.
    ///
    /// # Errors
    /// If the bytes are damaged, of a newer version, or their columns differ in length.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(bytes);
        let version = input.get_u8()?;
        if version == 0 || version > SNAPSHOT_VERSION {
            return Err(DecodeError { what: "snapshot version (written by a newer headroom?)", at: 0 });
        }
        let cell = Arc::from(input.get_str()?);
        let epoch = input.get_i64()?;
        let tick_seconds = input.get_i64()?;
        let policy = Arc::new(decode_policy(&mut input)?);
        let server = input.get_strs()?;
        let aliases = (0..input.get_length(4, "aliases")?)
            .map(|_| input.get_strs().map(Arc::from))
            .collect::<Result<Vec<_>, _>>()?;
        let servers = Arc::new(ServerTable {
            server,
            aliases,
            pool: input.get_u32s()?,
            pools: input.get_strs()?,
            rule: input.get_u16s()?,
        });
        let age_seconds = input.get_f32s()?;
        let (rows, is_first) = (servers.server.len(), version == 1);
        let (mut bytes, mut shorts) = (Read::<u8>::new(rows, is_first), Read::<u16>::new(rows, is_first));
        let (mut words, mut singles) = (Read::<u32>::new(rows, is_first), Read::<f32>::new(rows, is_first));
        let mut doubles = Read::<f64>::new(rows, is_first);
        let health = decode_health(policy.signals.len(), &mut singles, &mut bytes, &mut input)?;
        let signals = (0..count(&mut input, policy.signals.len(), "signals")?)
            .map(|_| {
                Ok(SignalColumn {
                    value: doubles.get_f64s(&mut input)?,
                    samples: words.get_u32s(&mut input)?,
                    age_seconds: singles.get_f32s(&mut input)?,
                })
            })
            .collect::<Result<Vec<_>, DecodeError>>()?;
        let inputs = (0..count(&mut input, policy.inputs.len(), "inputs")?)
            .map(|_| Ok(InputColumn { value: doubles.get_f64s(&mut input)?, source: bytes.get_u8s(&mut input)? }))
            .collect::<Result<Vec<_>, DecodeError>>()?;
        let decisions = (0..count(&mut input, policy.classes.len(), "decisions")?)
            .map(|_| {
                Ok(ClassFrame {
                    admit: singles.get_f32s(&mut input)?.to_vec(),
                    would_admit: singles.get_f32s(&mut input)?.to_vec(),
                    binding: shorts.get_u16s(&mut input)?.to_vec(),
                    reason: bytes.get_u8s(&mut input)?.to_vec(),
                    mode: bytes.get_u8s(&mut input)?.to_vec(),
                })
            })
            .collect::<Result<Vec<_>, DecodeError>>()?;
        let coverage = if version < 3 { vec![COVERAGE_UNKNOWN; rows] } else { bytes.get_u8s(&mut input)?.to_vec() };
        let rolled_up = if version > 2 { input.get_f32s()? } else { Vec::new() };
        let snapshot = Self {
            cell,
            epoch,
            tick_seconds,
            policy,
            servers,
            age_seconds,
            coverage,
            health,
            signals,
            inputs,
            decisions,
            rolled_up,
        };
        if !snapshot.is_consistent() {
            return Err(input.error("snapshot whose columns agree"));
        }
        input.finish()?;
        Ok(snapshot)
    }

    /// Whether all columns have a value for every row and all indices lie in their tables, so that readers may index.
    pub fn is_consistent(&self) -> bool {
        let rows = self.len();
        let health = &self.health;
        let (servers, policy) = (&*self.servers, &*self.policy);
        let per_row = [
            servers.aliases.len(),
            servers.pool.len(),
            servers.rule.len(),
            self.age_seconds.len(),
            self.coverage.len(),
            health.score.len(),
            health.pressure.len(),
            health.load_pressure.len(),
            health.fault_pressure.len(),
            health.load_state.len(),
            health.fault_state.len(),
            health.placement.len(),
            health.state_since.len(),
            health.confidence.len(),
            health.flags.len(),
            health.throttle_pressure.len(),
            health.throttle_signal.len(),
        ];
        let signals = policy.signals.len();
        // A million rows are looked at at each tick: to the end and without branches, which makes vector instructions.
        fn all<T>(column: &[T], holds: impl Fn(&T) -> bool) -> bool {
            column.iter().fold(true, |all, value| all & holds(value))
        }
        let no_signal = u16::try_from(signals).unwrap_or(Reason::NO_SIGNAL);
        let is_signal = |signal: &u16| (*signal == Reason::NO_SIGNAL) | (*signal < no_signal);
        per_row.iter().all(|length| *length == rows)
            && all(&servers.pool, |pool| (*pool as usize) < servers.pools.len())
            && all(&servers.rule, |rule| usize::from(*rule) < policy.rules.len())
            && policy.rules.iter().all(|rule| {
                rule.thresholds.len() == signals
                    && [rule.set_points.len(), rule.on_expiry.len(), rule.nominals.len()]
                        .iter()
                        .all(|length| *length == policy.classes.len())
            })
            && all(&self.coverage, |byte| (*byte <= COVERAGE_FULL) | (*byte == COVERAGE_UNKNOWN))
            && all(&health.load_state, |state| *state <= 4)
            && all(&health.fault_state, |state| *state <= 3)
            && all(&health.placement, |placement| *placement <= 2)
            && [health.signal_pressure.len(), health.signal_status.len(), health.relative_thresholds.len()]
                .iter()
                .all(|length| *length == signals)
            && health.signal_pressure.iter().all(|column| column.len() == rows)
            && health.signal_status.iter().all(|column| column.len() == rows && all(column, |status| *status <= 4))
            && health.relative_thresholds.iter().all(|column| column.is_empty() || column.len() == rows)
            && health.reason_offsets.len() == rows + 1
            && health
                .reason_offsets
                .iter()
                .zip(&health.reason_offsets[1..])
                .fold(true, |all, (from, to)| all & (from <= to))
            && health.reason_offsets.last().is_some_and(|end| *end as usize == health.reasons.len())
            && health.reasons.iter().all(|reason| is_signal(&reason.signal))
            && all(&health.throttle_signal, is_signal)
            && (self.rolled_up.is_empty() || self.rolled_up.len() == servers.pools.len() + 1)
            && self.signals.len() == signals
            && self
                .signals
                .iter()
                .all(|c| c.value.len() == rows && c.samples.len() == rows && c.age_seconds.len() == rows)
            && self.inputs.len() == policy.inputs.len()
            && self.inputs.iter().all(|c| c.value.len() == rows && c.source.len() == rows)
            && self.decisions.len() == policy.classes.len()
            && self.decisions.iter().all(|class| {
                [class.admit.len(), class.would_admit.len(), class.binding.len(), class.reason.len(), class.mode.len()]
                    .iter()
                    .all(|length| *length == rows)
                    && all(&class.binding, is_signal)
                    && all(&class.reason, |reason| *reason <= 9)
                    && all(&class.mode, |mode| *mode <= 2)
            })
    }
}

fn encode_policy(policy: &PolicyHead, out: &mut Encoder) {
    out.put_str(&policy.hash);
    out.put_u32(policy.signals.len() as u32);
    for signal in &policy.signals {
        out.put_str(&signal.name);
        out.put_u8(signal.family as u8);
        out.put_str(&signal.unit);
        out.put_str(&signal.reason);
        out.put_bool(signal.lower_is_worse);
        out.put_bool(signal.throttle);
    }
    out.put_u32(policy.classes.len() as u32);
    for class in &policy.classes {
        out.put_str(&class.name);
    }
    out.put_u32(policy.rules.len() as u32);
    for rule in &policy.rules {
        out.put_str(&rule.name);
        out.put_u32(rule.thresholds.len() as u32);
        for [under, over, critical] in &rule.thresholds {
            out.put_f64(*under);
            out.put_f64(*over);
            out.put_f64(*critical);
        }
        out.put_f64s(&rule.set_points);
        out.put_u32(rule.on_expiry.len() as u32);
        for on_expiry in &rule.on_expiry {
            out.put_i64(on_expiry.hold_seconds);
            out.put_f64(on_expiry.then);
            out.put_f64(on_expiry.ramp_per_minute);
        }
        out.put_f64s(&rule.nominals);
    }
    out.put_u32(policy.inputs.len() as u32);
    for (name, dialects) in &policy.inputs {
        out.put_str(name);
        out.put_strs(dialects);
    }
    out.put_i64(policy.control_seconds);
    out.put_i64(policy.lease_seconds);
    out.put_i64(policy.refresh_seconds);
}

fn decode_policy(input: &mut Decoder<'_>) -> Result<PolicyHead, DecodeError> {
    let arc = |input: &mut Decoder<'_>| input.get_str().map(Arc::<str>::from);
    let hash = arc(input)?;
    let signals = (0..input.get_length(15, "signals of the policy")?)
        .map(|_| {
            Ok(SignalHead {
                name: arc(input)?,
                family: *Family::ALL.get(usize::from(input.get_u8()?)).ok_or_else(|| input.error("family"))?,
                unit: arc(input)?,
                reason: arc(input)?,
                lower_is_worse: input.get_bool()?,
                throttle: input.get_bool()?,
            })
        })
        .collect::<Result<Vec<_>, DecodeError>>()?;
    let classes = (0..input.get_length(4, "classes")?)
        .map(|_| Ok(ClassHead { name: arc(input)? }))
        .collect::<Result<Vec<_>, DecodeError>>()?;
    let rules = (0..input.get_length(20, "rules")?)
        .map(|_| {
            Ok(RuleHead {
                name: arc(input)?,
                thresholds: (0..input.get_length(24, "thresholds")?)
                    .map(|_| Ok([input.get_f64()?, input.get_f64()?, input.get_f64()?]))
                    .collect::<Result<Vec<_>, DecodeError>>()?,
                set_points: input.get_f64s()?,
                on_expiry: (0..input.get_length(24, "expiry rules")?)
                    .map(|_| {
                        Ok(OnExpiry {
                            hold_seconds: input.get_i64()?,
                            then: input.get_f64()?,
                            ramp_per_minute: input.get_f64()?,
                        })
                    })
                    .collect::<Result<Vec<_>, DecodeError>>()?,
                nominals: input.get_f64s()?,
            })
        })
        .collect::<Result<Vec<_>, DecodeError>>()?;
    let inputs = (0..input.get_length(8, "inputs of the policy")?)
        .map(|_| Ok((arc(input)?, input.get_strs()?)))
        .collect::<Result<Vec<_>, DecodeError>>()?;
    Ok(PolicyHead {
        hash,
        signals,
        classes,
        rules,
        inputs,
        control_seconds: input.get_i64()?,
        lease_seconds: input.get_i64()?,
        refresh_seconds: input.get_i64()?,
    })
}

fn encode_health<'a, E>(
    health: &'a HealthFrame,
    singles: &mut Written<'a>,
    bytes: &mut Written<'a>,
    out: &mut Encoder,
    done: &mut impl FnMut(&mut Encoder) -> Result<(), E>,
) -> Result<(), E> {
    out.put_f32s(&health.score);
    out.put_f32s(&health.pressure);
    out.put_f32s(&health.load_pressure);
    out.put_f32s(&health.fault_pressure);
    out.put_u8s(&health.load_state);
    out.put_u8s(&health.fault_state);
    out.put_u8s(&health.placement);
    out.put_i64s(&health.state_since);
    out.put_f32s(&health.confidence);
    out.put_u16s(&health.flags);
    out.put_u32(health.signal_pressure.len() as u32);
    for column in &health.signal_pressure {
        singles.put_f32s(out, column);
        done(out)?;
    }
    out.put_u32(health.signal_status.len() as u32);
    for column in &health.signal_status {
        bytes.put_u8s(out, column);
        done(out)?;
    }
    out.put_f32s(&health.throttle_pressure);
    out.put_u16s(&health.throttle_signal);
    out.put_u32(health.relative_thresholds.len() as u32);
    for column in &health.relative_thresholds {
        out.put_u32(column.len() as u32);
        for [under, over, critical] in column {
            out.put_f64(*under);
            out.put_f64(*over);
            out.put_f64(*critical);
        }
    }
    out.put_u32s(&health.reason_offsets);
    out.put_u32(health.reasons.len() as u32);
    for reason in &health.reasons {
        out.put_u8(reason.kind as u8);
        out.put_u16(reason.signal);
        out.put_f64(reason.value);
        out.put_f64(reason.threshold);
        out.put_f32(reason.pressure);
        out.put_f32(reason.window_seconds);
        out.put_u32(reason.samples);
        out.put_f32(reason.age_seconds);
    }
    done(out)
}

/// The number of columns, which must be `wanted`: seen before they are made, for a few bytes may stand for a column of a
/// million rows.
fn count(input: &mut Decoder<'_>, wanted: usize, what: &'static str) -> Result<usize, DecodeError> {
    let count = input.get_length(2, what)?;
    if count == wanted { Ok(count) } else { Err(input.error(what)) }
}

fn decode_health(
    signals: usize,
    singles: &mut Read<f32>,
    bytes: &mut Read<u8>,
    input: &mut Decoder<'_>,
) -> Result<HealthFrame, DecodeError> {
    Ok(HealthFrame {
        score: input.get_f32s()?,
        pressure: input.get_f32s()?,
        load_pressure: input.get_f32s()?,
        fault_pressure: input.get_f32s()?,
        load_state: input.get_u8s()?,
        fault_state: input.get_u8s()?,
        placement: input.get_u8s()?,
        state_since: input.get_i64s()?,
        confidence: input.get_f32s()?,
        flags: input.get_u16s()?,
        signal_pressure: (0..count(input, signals, "pressures")?)
            .map(|_| singles.get_f32s(input).map(|column| column.to_vec()))
            .collect::<Result<Vec<_>, _>>()?,
        signal_status: (0..count(input, signals, "statuses")?)
            .map(|_| bytes.get_u8s(input).map(|column| column.to_vec()))
            .collect::<Result<Vec<_>, _>>()?,
        throttle_pressure: input.get_f32s()?,
        throttle_signal: input.get_u16s()?,
        relative_thresholds: (0..input.get_length(4, "relative thresholds")?)
            .map(|_| {
                (0..input.get_length(24, "relative thresholds")?)
                    .map(|_| Ok([input.get_f64()?, input.get_f64()?, input.get_f64()?]))
                    .collect::<Result<Vec<_>, DecodeError>>()
            })
            .collect::<Result<Vec<_>, _>>()?,
        reason_offsets: input.get_u32s()?,
        reasons: (0..input.get_length(35, "reasons")?)
            .map(|_| {
                Ok(Reason {
                    kind: *ReasonKind::ALL
                        .get(usize::from(input.get_u8()?))
                        .ok_or_else(|| input.error("kind of reason"))?,
                    signal: input.get_u16()?,
                    value: input.get_f64()?,
                    threshold: input.get_f64()?,
                    pressure: input.get_f32()?,
                    window_seconds: input.get_f32()?,
                    samples: input.get_u32()?,
                    age_seconds: input.get_f32()?,
                })
            })
            .collect::<Result<Vec<_>, DecodeError>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the first version wrote it: a cell of six servers.
    const FIRST: &[u8] = include_bytes!("../tests/fixtures/snapshot-v1.bin");

    /// The same as the second version wrote it.
    const SECOND: &[u8] = include_bytes!("../tests/fixtures/snapshot-v2.bin");

    /// The same with coverage, which the first two did not have.
    const THIRD: &[u8] = include_bytes!("../tests/fixtures/snapshot-v3.bin");

    #[test]
    fn the_first_version_is_read_for_ever_and_takes_less_now() {
        let snapshot = CellSnapshot::decode(FIRST).unwrap();
        assert_eq!((&*snapshot.cell, snapshot.len()), ("us-1", 6));
        let bytes = snapshot.encode();
        assert!(bytes.len() < FIRST.len(), "{} {}", bytes.len(), FIRST.len());
        let again = CellSnapshot::decode(&bytes).unwrap();
        // NaN equals nothing, its bytes do.
        assert!(again.encode() == bytes);
        assert_eq!(format!("{again:?}"), format!("{snapshot:?}"));
        let mut pieces = Vec::new();
        let Ok(()) = snapshot.write_to(|piece| {
            pieces.extend_from_slice(piece);
            Ok::<(), Infallible>(())
        });
        assert!(pieces == bytes);
    }

    /// Bytes of snapshots are compared to see whether two owners agree, so they must not change within a version either.
    #[test]
    fn all_versions_say_the_same_but_for_what_the_older_ones_did_not_know() {
        let [first, second, mut third] = [FIRST, SECOND, THIRD].map(|bytes| CellSnapshot::decode(bytes).unwrap());
        assert_eq!(format!("{second:?}"), format!("{first:?}"));
        assert_eq!(second.coverage, [COVERAGE_UNKNOWN; 6]);
        assert!(third.encode() == THIRD);
        assert_eq!(third.coverage, [100, 100, 33, 0, COVERAGE_UNKNOWN, 99]);
        third.coverage = second.coverage.clone();
        assert_eq!(format!("{third:?}"), format!("{second:?}"));
        third.coverage[0] = COVERAGE_FULL + 1;
        assert!(CellSnapshot::decode(&third.encode()).is_err());
    }

    #[test]
    fn the_second_version_is_read_for_ever_and_is_the_same() {
        let (first, second) = (CellSnapshot::decode(FIRST).unwrap(), CellSnapshot::decode(SECOND).unwrap());
        assert!(second.rolled_up.is_empty());
        assert!(second.encode() == first.encode());
    }

    #[test]
    fn what_is_rolled_up_is_read_back_and_has_a_value_for_each_pool_and_the_cell() {
        let mut snapshot = CellSnapshot::decode(SECOND).unwrap();
        snapshot.rolled_up = vec![0.25; snapshot.servers.pools.len() + 1];
        assert_eq!(CellSnapshot::decode(&snapshot.encode()).unwrap().rolled_up, snapshot.rolled_up);
        snapshot.rolled_up.pop();
        assert!(CellSnapshot::decode(&snapshot.encode()).is_err());
    }

    #[test]
    fn a_snapshot_without_servers_is_whole() {
        let last = CellSnapshot::decode(SECOND).unwrap().without_servers(30);
        assert!(last.is_empty() && last.is_consistent());
        let again = CellSnapshot::decode(&last.encode()).unwrap();
        assert_eq!((&*again.cell, again.epoch, again.encode() == last.encode()), ("us-1", 30, true));
    }

    #[test]
    fn damage_is_refused() {
        let bytes = THIRD.to_vec();
        for cut in 0..bytes.len() {
            assert!(CellSnapshot::decode(&bytes[..cut]).is_err(), "{cut}");
        }
        for version in [0, SNAPSHOT_VERSION + 1] {
            let mut other = bytes.clone();
            other[0] = version;
            assert!(CellSnapshot::decode(&other).is_err());
        }
    }
}
