//! The columns of a batch while a tick writes them, block by block.

use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, RecordBatch, RecordBatchOptions};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow_schema::{ArrowError, SchemaRef};
use headroom_model::Timestamp;

use crate::batch::{InputColumns, NEVER_NS, NO_SOURCE, Quality, ServerColumns, Spare, WindowBatch};
use crate::fold::InputValues;

/// Slots per block; a multiple of 64, so that validity bits are appended by words.
pub const BLOCK: usize = 256;

/// A column of values and its validity.
struct Column {
    values: Vec<f64>,
    valid: Vec<u64>,
}

impl Column {
    /// Appends values; whatever is not a finite number is null, and every null has the same bits.
    fn extend(&mut self, values: &[f64]) {
        let before = self.values.len();
        self.values.extend_from_slice(values);
        for word in self.values[before..].chunks_mut(64) {
            // Nearly always all are: one pass without a branch, which the compiler makes vector instructions of.
            let all = word.iter().fold(true, |all, value| all & value.is_finite());
            let mut bits = u64::MAX >> (64 - word.len());
            if !all {
                for (at, value) in word.iter_mut().enumerate().filter(|(_, value)| !value.is_finite()) {
                    bits &= !(1 << at);
                    *value = f64::NAN;
                }
            }
            self.valid.push(bits);
        }
    }

    fn finish(self) -> ArrayRef {
        let len = self.values.len();
        let valid = NullBuffer::new(BooleanBuffer::new(Buffer::from_vec(self.valid), 0, len));
        let nulls = Some(valid).filter(|valid| valid.null_count() > 0);
        Arc::new(Float64Array::new(self.values.into(), nulls))
    }
}

/// The batch in the making, and the block that is being evaluated: input after input, [`BLOCK`] slots each.
pub struct Output {
    slots: usize,
    control: Vec<f64>,
    state: Vec<f64>,
    samples: Vec<u32>,
    age: Vec<f32>,
    source: Vec<u8>,
    control_columns: Vec<Column>,
    state_columns: Vec<Column>,
    /// By input: samples, ages, sources.
    inputs: Vec<(Vec<u32>, Vec<f32>, Vec<u8>)>,
    servers: ServerColumns,
}

impl Output {
    /// Columns for so many inputs and slots, made from what is spare.
    pub fn new(spare: &mut Spare, inputs: usize, slots: usize) -> Self {
        let mut columns = || -> Vec<Column> {
            (0..inputs)
                .map(|_| Column { values: spare.values(slots), valid: Vec::with_capacity(slots.div_ceil(64)) })
                .collect()
        };
        let (control_columns, state_columns) = (columns(), columns());
        Self {
            slots,
            control: vec![f64::NAN; inputs * BLOCK],
            state: vec![f64::NAN; inputs * BLOCK],
            samples: vec![0; inputs * BLOCK],
            age: vec![f32::NAN; inputs * BLOCK],
            source: vec![NO_SOURCE; inputs * BLOCK],
            control_columns,
            state_columns,
            inputs: (0..inputs).map(|_| spare.input(slots)).collect(),
            servers: spare.servers(),
        }
    }

    /// Begins a block of slots of which nothing is known yet.
    pub fn begin_block(&mut self, slots: usize) {
        self.control.fill(f64::NAN);
        self.state.fill(f64::NAN);
        self.samples.fill(0);
        self.age.fill(f32::NAN);
        self.source.fill(NO_SOURCE);
        let to = self.servers.last_sample_ns.len() + slots;
        self.servers.last_sample_ns.resize(to, NEVER_NS);
        self.servers.interval_seconds.resize(to, f32::NAN);
        self.servers.coverage.resize(to, f32::NAN);
        self.servers.quality.resize(to, Quality::default());
    }

    /// Writes an input of a slot of the block.
    #[inline]
    pub fn put_input(&mut self, input: usize, slot: usize, values: &InputValues, age_seconds: f32) {
        let place = input * BLOCK + slot;
        self.control[place] = values.control;
        self.state[place] = values.state;
        self.samples[place] = values.samples;
        self.source[place] = values.source;
        self.age[place] = age_seconds;
    }

    /// Writes what is known of the server in the slot `at` of the block that began last.
    pub fn put_server(&mut self, slot: usize, at: usize, seen: (i64, u32, f32), quality: Quality) {
        let (newest_ms, interval_ms, coverage) = seen;
        let place = slot + at;
        if newest_ms > i64::MIN {
            self.servers.last_sample_ns[place] = newest_ms.saturating_mul(1_000_000);
        }
        if interval_ms < u32::MAX {
            self.servers.interval_seconds[place] = interval_ms as f32 / 1_000.0;
        }
        self.servers.coverage[place] = coverage;
        self.servers.quality[place] = quality;
    }

    /// Appends the block to the columns.
    pub fn end_block(&mut self, slots: usize) {
        for (input, (samples, age_seconds, source)) in self.inputs.iter_mut().enumerate() {
            let block = input * BLOCK..input * BLOCK + slots;
            self.control_columns[input].extend(&self.control[block.clone()]);
            self.state_columns[input].extend(&self.state[block.clone()]);
            samples.extend_from_slice(&self.samples[block.clone()]);
            age_seconds.extend_from_slice(&self.age[block.clone()]);
            source.extend_from_slice(&self.source[block]);
        }
    }

    /// The finished batch.
    pub fn finish(self, tick: Timestamp, schema: SchemaRef) -> Result<WindowBatch, ArrowError> {
        let rows = RecordBatchOptions::new().with_row_count(Some(self.slots));
        let batch = |columns: Vec<Column>| {
            let columns = columns.into_iter().map(Column::finish).collect();
            RecordBatch::try_new_with_options(schema.clone(), columns, &rows)
        };
        let columns = |(samples, age_seconds, source): (Vec<u32>, Vec<f32>, Vec<u8>)| InputColumns {
            samples: samples.into(),
            age_seconds: age_seconds.into(),
            source: source.into(),
        };
        Ok(WindowBatch {
            tick,
            control: batch(self.control_columns)?,
            state: batch(self.state_columns)?,
            inputs: self.inputs.into_iter().map(columns).collect(),
            servers: self.servers,
            slow: Vec::new(),
        })
    }
}
