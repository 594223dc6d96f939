//! What the policy's own expressions make of health: the score of a server, and the health of each pool and of the cell.
//!
//! Neither has a memory: smoothing belongs into a signal, where it is part of what is explained.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{Array, ArrayRef, Float64Array, RecordBatch, RecordBatchOptions, new_null_array};
use arrow_schema::{DataType, Field, Schema};
use headroom_expr::{ExprState, Program, Rollup, STATES, State};
use headroom_model::frame::{HealthFrame, ServerFrame, SignalFrame};

/// Replaces the score by the policy's own expression where that gives a value; unknown servers stay unknown.
pub(crate) fn replace_score(score: &Program, frames: &[SignalFrame], health: &mut HealthFrame) {
    let reads = score.dependencies(0).iter().copied().collect();
    let columns = Columns::new(frames, health);
    // The columns of a score are the first of a roll-up's.
    let result = columns
        .batch(columns.states_from() - 2, &reads)
        .and_then(|batch| score.evaluate(&batch, None, 0.0, &mut ExprState::default()).ok());
    let Some(result) = result else { return };
    let values = result.column(0).as_primitive::<Float64Type>();
    for (slot, held) in health.score.iter_mut().enumerate() {
        if values.is_valid(slot) && !held.is_nan() {
            *held = values.value(slot).clamp(0.0, 1.0) as f32;
        }
    }
}

/// The health of each pool and, last, of the cell, 0-1; NaN where the roll-up gives no value. A pool without servers has
/// what the roll-up makes of none.
pub(crate) fn roll_up(
    rollup: &Rollup,
    servers: &ServerFrame,
    pools: usize,
    frames: &[SignalFrame],
    health: &HealthFrame,
) -> Vec<f32> {
    let in_no_pool = u32::MAX;
    let pool_of: Vec<u32> =
        servers.pool.iter().zip(&servers.live).map(|(pool, live)| if *live { *pool } else { in_no_pool }).collect();
    let columns = Columns::new(frames, health);
    let rolled = columns
        .batch(columns.states_from() + STATES.len(), rollup.reads())
        .and_then(|batch| rollup.evaluate(&batch, &pool_of, pools).ok());
    match rolled {
        Some(values) => {
            values.iter().map(|value| value.map_or(f32::NAN, |value| value.clamp(0.0, 1.0) as f32)).collect()
        }
        None => vec![f32::NAN; pools + 1],
    }
}

/// The columns that these expressions may read, in the order of [`headroom_expr::rollup_columns`].
struct Columns<'a> {
    signals: &'a [SignalFrame],
    /// Pressures of the signals, those of the axes, score and confidence.
    singles: Vec<&'a [f32]>,
    health: &'a HealthFrame,
}

impl<'a> Columns<'a> {
    fn new(signals: &'a [SignalFrame], health: &'a HealthFrame) -> Self {
        let others =
            [&health.load_pressure, &health.fault_pressure, &health.pressure, &health.score, &health.confidence];
        let singles = health.signal_pressure.iter().chain(others).map(Vec::as_slice).collect();
        Self { signals, singles, health }
    }

    fn states_from(&self) -> usize {
        self.signals.len() + self.singles.len()
    }

    /// The first `count` columns, of which those in `reads` are made.
    fn batch(&self, count: usize, reads: &BTreeSet<usize>) -> Option<RecordBatch> {
        let rows = self.health.score.len();
        let unread = new_null_array(&DataType::Float64, rows);
        let column = |at: usize| if reads.contains(&at) { self.column(at) } else { Arc::clone(&unread) };
        let fields: Vec<Field> = (0..count).map(|at| Field::new(format!("c{at}"), DataType::Float64, true)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let columns = (0..count).map(column).collect();
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).ok()
    }

    fn column(&self, at: usize) -> ArrayRef {
        let signals = self.signals.len();
        if let Some(signal) = self.signals.get(at) {
            return Arc::new(signal.control.clone());
        }
        if let Some(values) = self.singles.get(at - signals) {
            let values = values.iter().map(|value| (!value.is_nan()).then_some(f64::from(*value)));
            return Arc::new(values.collect::<Float64Array>());
        }
        let (column, number) = match STATES[at - self.states_from()].1 {
            State::Load(state) => (&self.health.load_state, state as u8),
            State::Fault(state) => (&self.health.fault_state, state as u8),
            State::Placement(placement) => (&self.health.placement, placement as u8),
        };
        Arc::new(Float64Array::from_iter_values(column.iter().map(|held| f64::from(u8::from(*held == number)))))
    }
}
