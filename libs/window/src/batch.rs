//! What a tick makes of the samples: columns with one row per server slot.

use arrow_array::{Array, Float64Array, RecordBatch};
use headroom_model::Timestamp;

/// Where an input got nothing from any source.
pub const NO_SOURCE: u8 = u8::MAX;

/// A server that has never sent a sample, in [`ServerColumns::last_sample_ns`].
pub const NEVER_NS: i64 = i64::MIN;

/// How an input came to its values, per slot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InputColumns {
    /// Samples in the control window.
    pub samples: Vec<u32>,
    /// Age of the newest sample at the tick, seconds; NaN = none is known.
    pub age_seconds: Vec<f32>,
    /// The source that won: an index into the input's sources; [`NO_SOURCE`] = none.
    pub source: Vec<u8>,
}

/// What is wrong with the data of a server in the control window: numbers of rows or events, which repeats of a sample
/// do not change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quality {
    /// Counters that began again.
    pub resets: u16,
    /// Times that nothing covers.
    pub gaps: u16,
    /// Second writers, overlapping deltas.
    pub overlaps: u16,
    /// Rows that reported NaN or infinity since the last tick.
    pub not_a_number: u16,
    /// Rows with samples further ahead of the tick than allowed.
    pub future: u16,
    /// Sensors that moved once and now repeat one value.
    pub flat: u16,
}

/// What is known of the servers themselves, per slot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerColumns {
    /// Time of the newest sample before the tick, ns since 1970 in steps of a millisecond; [`NEVER_NS`].
    pub last_sample_ns: Vec<i64>,
    /// Smallest reporting interval among the rows, seconds; NaN = unknown.
    pub interval_seconds: Vec<f32>,
    /// Samples observed in the control window as a share of those expected, 0-1; NaN while nothing can be expected.
    pub coverage: Vec<f32>,
    /// What is wrong with the data.
    pub quality: Vec<Quality>,
}

/// The windows of a cell at a tick. Rows of free slots mean nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowBatch {
    /// The tick. Windows are half-open and end here.
    pub tick: Timestamp,
    /// The inputs over the control window: a nullable f64 column for each, in the policy's order.
    pub control: RecordBatch,
    /// The inputs over the state window.
    pub state: RecordBatch,
    /// For each input how it came about.
    pub inputs: Vec<InputColumns>,
    /// For each server what is known of it.
    pub servers: ServerColumns,
}

/// Buffers of a batch that is no longer read.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    values: Vec<Vec<f64>>,
    inputs: Vec<InputColumns>,
    servers: ServerColumns,
}

impl Spare {
    /// Takes back the buffers of a batch, as far as nobody else holds them.
    pub fn put(&mut self, batch: WindowBatch) {
        let WindowBatch { control, state, inputs, servers, .. } = batch;
        let mut buffers = Vec::new();
        for column in control.columns().iter().chain(state.columns()) {
            if let Some(array) = column.as_any().downcast_ref::<Float64Array>() {
                buffers.push(array.values().clone());
            }
        }
        drop((control, state));
        self.values = buffers.into_iter().filter_map(|buffer| buffer.into_inner().into_vec().ok()).collect();
        self.inputs = inputs;
        self.servers = servers;
    }

    /// An empty buffer for `slots` values.
    pub fn values(&mut self, slots: usize) -> Vec<f64> {
        let mut values = self.values.pop().unwrap_or_default();
        values.clear();
        values.reserve(slots);
        values
    }

    /// Empty columns of an input.
    pub fn input(&mut self, slots: usize) -> InputColumns {
        let mut columns = self.inputs.pop().unwrap_or_default();
        columns.samples.clear();
        columns.samples.reserve(slots);
        columns.age_seconds.clear();
        columns.age_seconds.reserve(slots);
        columns.source.clear();
        columns.source.reserve(slots);
        columns
    }

    /// Empty columns of the servers.
    pub fn servers(&mut self) -> ServerColumns {
        let mut columns = std::mem::take(&mut self.servers);
        columns.last_sample_ns.clear();
        columns.interval_seconds.clear();
        columns.coverage.clear();
        columns.quality.clear();
        columns
    }
}
