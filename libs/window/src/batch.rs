//! What a tick makes of the samples: columns with one row per server slot.

use arrow_array::{Array, Float64Array, RecordBatch};
use arrow_buffer::{ArrowNativeType, ScalarBuffer};
use headroom_model::Timestamp;

/// Where an input got nothing from any source.
pub const NO_SOURCE: u8 = u8::MAX;

/// A server that has never sent a sample, in [`ServerColumns::last_sample_ns`].
pub const NEVER_NS: i64 = i64::MIN;

/// How an input came to its values, per slot. Readers of a tick share the columns instead of copying them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InputColumns {
    /// Samples in the control window.
    pub samples: ScalarBuffer<u32>,
    /// Age of the newest sample at the tick, seconds; NaN = none is known.
    pub age_seconds: ScalarBuffer<f32>,
    /// The source that won: an index into the input's sources; [`NO_SOURCE`] = none.
    pub source: ScalarBuffer<u8>,
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
    /// Inputs that report more rarely than their server by more than a quarter, by slot and input.
    pub slow: Vec<SlowInput>,
}

/// An input of a server whose value comes from a sender slower than the fastest of that server. Most servers have none,
/// hence a list and not a column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowInput {
    /// The slot of the server.
    pub slot: u32,
    /// Index of the input in the policy.
    pub input: u16,
    /// Its reporting interval, seconds.
    pub interval_seconds: f32,
}

/// Memory of columns that are no longer read.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    values: Vec<Vec<f64>>,
    samples: Vec<Vec<u32>>,
    age_seconds: Vec<Vec<f32>>,
    source: Vec<Vec<u8>>,
    servers: ServerColumns,
}

impl Spare {
    /// Takes back the columns of a batch, as far as nobody else holds them.
    pub fn put(&mut self, batch: WindowBatch, inputs_max: usize) {
        let WindowBatch { control, state, inputs, servers, .. } = batch;
        let columns = control.columns().iter().chain(state.columns());
        let buffers: Vec<ScalarBuffer<f64>> = columns
            .filter_map(|column| Some(column.as_any().downcast_ref::<Float64Array>()?.values().clone()))
            .collect();
        drop((control, state));
        for values in buffers {
            self.put_values(values, inputs_max);
        }
        for columns in inputs {
            self.put_input(columns, inputs_max);
        }
        self.servers = servers;
    }

    /// Takes back a column of values, unless there are as many as a tick of so many inputs needs.
    pub fn put_values(&mut self, values: ScalarBuffer<f64>, inputs_max: usize) {
        keep(&mut self.values, values, 2 * inputs_max);
    }

    /// Takes back the columns of an input.
    pub fn put_input(&mut self, columns: InputColumns, inputs_max: usize) {
        keep(&mut self.samples, columns.samples, inputs_max);
        keep(&mut self.age_seconds, columns.age_seconds, inputs_max);
        keep(&mut self.source, columns.source, inputs_max);
    }

    /// An empty buffer for `slots` values.
    pub fn values(&mut self, slots: usize) -> Vec<f64> {
        empty(&mut self.values, slots)
    }

    /// Empty columns of an input: samples, ages, sources.
    pub fn input(&mut self, slots: usize) -> (Vec<u32>, Vec<f32>, Vec<u8>) {
        (empty(&mut self.samples, slots), empty(&mut self.age_seconds, slots), empty(&mut self.source, slots))
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

/// Keeps the memory of a column that nobody else holds.
fn keep<T: ArrowNativeType>(held: &mut Vec<Vec<T>>, column: ScalarBuffer<T>, max: usize) {
    if held.len() < max
        && let Ok(column) = column.into_inner().into_vec()
    {
        held.push(column);
    }
}

fn empty<T>(held: &mut Vec<Vec<T>>, length: usize) -> Vec<T> {
    let mut column = held.pop().unwrap_or_default();
    column.clear();
    column.reserve_exact(length);
    column
}
