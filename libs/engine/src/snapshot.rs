//! From the frames of a tick to the snapshot: rows of free slots go. Columns are shared with the frames and not copied; NaN
//! of the same bits lies under every null of theirs, so that their values alone are the snapshot's.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_buffer::{ArrowNativeType, ScalarBuffer};
use headroom_model::coverage::coverage_byte;
use headroom_model::frame::{ClassFrame, HealthFrame, ServerFrame, SignalFrame, ThrottleFrame};
use headroom_model::snapshot::{InputColumn, PolicyHead, ServerTable, SignalColumn};
use headroom_model::{CellSnapshot, Timestamp};
use headroom_window::WindowBatch;

/// What a snapshot is made of.
pub(crate) struct Parts<'a> {
    pub(crate) cell: Arc<str>,
    pub(crate) tick: Timestamp,
    pub(crate) tick_seconds: i64,
    pub(crate) head: Arc<PolicyHead>,
    /// Names of the live slots, in slot order.
    pub(crate) table: Arc<ServerTable>,
    pub(crate) servers: &'a ServerFrame,
    pub(crate) batch: &'a mut WindowBatch,
    pub(crate) frames: Vec<SignalFrame>,
    pub(crate) health: HealthFrame,
    /// The health of each pool and, last, of the cell; empty where the policy has no roll-up.
    pub(crate) rolled_up: Vec<f32>,
    pub(crate) throttle: ThrottleFrame,
}

/// Makes the snapshot.
pub(crate) fn build(parts: Parts<'_>) -> CellSnapshot {
    let live = Live::new(&parts.servers.live);
    let signals = parts
        .frames
        .into_iter()
        .map(|frame| SignalColumn {
            value: live.keep_shared(frame.control.values()),
            samples: live.keep_shared(&frame.samples),
            age_seconds: live.keep_shared(&frame.age_seconds),
        })
        .collect();
    let inputs = std::mem::take(&mut parts.batch.inputs)
        .into_iter()
        .enumerate()
        .map(|(at, input)| InputColumn {
            value: live.keep_shared(parts.batch.control.column(at).as_primitive::<Float64Type>().values()),
            source: live.keep_shared(&input.source),
        })
        .collect();
    let decisions = parts
        .throttle
        .into_iter()
        .map(|class| ClassFrame {
            admit: live.keep(class.admit),
            would_admit: live.keep(class.would_admit),
            binding: live.keep(class.binding),
            reason: live.keep(class.reason),
            mode: live.keep(class.mode),
        })
        .collect();
    CellSnapshot {
        cell: parts.cell,
        epoch: parts.tick.seconds(),
        tick_seconds: parts.tick_seconds,
        policy: parts.head,
        servers: parts.table,
        age_seconds: live.keep(parts.servers.age_seconds.clone()),
        coverage: live.keep(parts.batch.servers.coverage.iter().map(|share| coverage_byte(*share)).collect()),
        health: live.keep_health(parts.health),
        signals,
        inputs,
        decisions,
        rolled_up: parts.rolled_up,
    }
}

/// Which slots are rows of the snapshot.
struct Live {
    /// `None` where every slot lives, and columns are taken as they are.
    slots: Option<Vec<u32>>,
}

impl Live {
    fn new(live: &[bool]) -> Self {
        let all = live.iter().all(|live| *live);
        let slots = (!all).then(|| (0..live.len() as u32).filter(|slot| live[*slot as usize]).collect());
        Self { slots }
    }

    fn keep<T: Copy>(&self, column: Vec<T>) -> Vec<T> {
        match &self.slots {
            None => column,
            Some(slots) => slots.iter().map(|slot| column[*slot as usize]).collect(),
        }
    }

    /// Columns that several parts of a tick read: shared where all rows stay.
    fn keep_shared<T: ArrowNativeType>(&self, column: &ScalarBuffer<T>) -> ScalarBuffer<T> {
        match &self.slots {
            None => column.clone(),
            Some(slots) => slots.iter().map(|slot| column[*slot as usize]).collect(),
        }
    }

    fn keep_health(&self, health: HealthFrame) -> HealthFrame {
        let Some(slots) = &self.slots else { return health };
        let mut reason_offsets = vec![0u32];
        let mut reasons = Vec::with_capacity(health.reasons.len());
        for slot in slots {
            let slot = *slot as usize;
            let (from, to) = (health.reason_offsets[slot], health.reason_offsets[slot + 1]);
            reasons.extend_from_slice(&health.reasons[from as usize..to as usize]);
            reason_offsets.push(reasons.len() as u32);
        }
        HealthFrame {
            score: self.keep(health.score),
            pressure: self.keep(health.pressure),
            load_pressure: self.keep(health.load_pressure),
            fault_pressure: self.keep(health.fault_pressure),
            load_state: self.keep(health.load_state),
            fault_state: self.keep(health.fault_state),
            placement: self.keep(health.placement),
            state_since: self.keep(health.state_since),
            confidence: self.keep(health.confidence),
            flags: self.keep(health.flags),
            signal_pressure: health.signal_pressure.into_iter().map(|column| self.keep(column)).collect(),
            signal_status: health.signal_status.into_iter().map(|column| self.keep(column)).collect(),
            throttle_pressure: self.keep(health.throttle_pressure),
            throttle_signal: self.keep(health.throttle_signal),
            relative_thresholds: health
                .relative_thresholds
                .into_iter()
                .map(|column| if column.is_empty() { column } else { self.keep(column) })
                .collect(),
            reason_offsets,
            reasons,
        }
    }
}
