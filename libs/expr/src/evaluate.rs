//! Running a program over the batch of a tick.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, Float64Array, RecordBatch, RecordBatchOptions, new_null_array};
use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder, NullBuffer};
use arrow_schema::DataType;

use crate::compile::{Operation, Program};
use crate::error::EvaluateError;
use crate::state::ExprState;

/// Rows evaluated at a time: 64 KiB a column, so that what a signal's expression makes in between stays in the cache.
const ROWS_PER_STEP: usize = 8 * 1024;

impl Program {
    /// Computes every signal for every row.
    ///
    /// `inputs` has one nullable `Float64` column for each input, in the order of [`crate::compile`]; its numbers are
    /// finite, and NaN lies under its nulls. Row i is the server in slot `slots[i]`, or in slot i without `slots`; only the
    /// memory of `ewma` cares. The answer has [`Program::output_schema`] and is made in the same way, so that equal answers
    /// are equal bytes; a signal that is an input as it is shares its memory. `elapsed_seconds` is the time since the
    /// evaluation before.
    ///
    /// # Errors
    /// If the batch has other columns, or `slots` another length.
    pub fn evaluate(
        &self,
        inputs: &RecordBatch,
        slots: Option<&[u32]>,
        elapsed_seconds: f64,
        state: &mut ExprState,
    ) -> Result<RecordBatch, EvaluateError> {
        let rows = inputs.num_rows();
        if inputs.num_columns() != self.input_count {
            return Err(EvaluateError(format!(
                "{} inputs were compiled, {} given",
                self.input_count,
                inputs.num_columns()
            )));
        }
        for (column, field) in inputs.columns().iter().zip(inputs.schema_ref().fields()) {
            if *column.data_type() != DataType::Float64 {
                return Err(EvaluateError(format!("input {} is {}, not Float64", field.name(), column.data_type())));
            }
        }
        if slots.is_some_and(|slots| slots.len() != rows) {
            return Err(EvaluateError("there is not one slot for each row".into()));
        }
        let slot_count = slots.map_or(rows, |slots| slots.iter().max().map_or(0, |greatest| *greatest as usize + 1));
        let mut outputs: Vec<Output> = (0..self.signal_count()).map(|_| Output::with_capacity(0)).collect();
        for step in &self.steps {
            if let (Some(signal), false) = (step.output, matches!(step.operation, Operation::Input(_))) {
                outputs[signal] = Output::with_capacity(rows);
            }
        }
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.column_count);
        for from in (0..rows).step_by(ROWS_PER_STEP) {
            let length = ROWS_PER_STEP.min(rows - from);
            columns.clear();
            columns.extend(inputs.columns().iter().map(|column| column.slice(from, length)));
            for step in &self.steps {
                let result: ArrayRef = match &step.operation {
                    Operation::Input(input) => {
                        columns.push(Arc::clone(&columns[*input]));
                        continue;
                    }
                    Operation::Evaluate { expr, schema, reads } => {
                        let read = reads.iter().map(|column| Arc::clone(&columns[*column])).collect();
                        let options = RecordBatchOptions::new().with_row_count(Some(length));
                        RecordBatch::try_new_with_options(Arc::clone(schema), read, &options)
                            .map_err(|error| EvaluateError(error.to_string()))
                            .and_then(|batch| {
                                expr.evaluate(&batch)
                                    .and_then(|value| value.into_array(length))
                                    .map_err(|error| EvaluateError(error.strip_backtrace()))
                            })?
                    }
                    Operation::Ewma { of, half_life_seconds, key } => {
                        let memory = state.slots_of(*key, slot_count);
                        let slots = slots.map(|slots| &slots[from..from + length]);
                        smooth(&columns[*of], share(elapsed_seconds, *half_life_seconds), memory, slots, from)
                    }
                    Operation::Nothing => new_null_array(&DataType::Float64, length),
                };
                let Some(floats) = result.as_any().downcast_ref::<Float64Array>() else {
                    return Err(EvaluateError(format!("a step gave {}", result.data_type())));
                };
                let output = step.output.and_then(|signal| outputs.get_mut(signal));
                columns.push(match output {
                    Some(output) => {
                        output.append(floats);
                        // A column nobody reads keeps its place and nothing more.
                        if step.is_read { Arc::new(output.tail(length)) } else { Arc::new(Float64Array::new_null(0)) }
                    }
                    None => {
                        let mut hidden = Output::with_capacity(length);
                        hidden.append(floats);
                        hidden.finish()
                    }
                });
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let mut outputs: Vec<ArrayRef> = outputs.into_iter().map(Output::finish).collect();
        for step in &self.steps {
            if let (Some(signal), Operation::Input(input)) = (step.output, &step.operation) {
                outputs[signal] = Arc::clone(inputs.column(*input));
            }
        }
        RecordBatch::try_new_with_options(self.output_schema(), outputs, &options)
            .map_err(|error| EvaluateError(error.to_string()))
    }
}

/// How far a smoothed value moves towards the new one in `elapsed_seconds`.
fn share(elapsed_seconds: f64, half_life_seconds: f64) -> f64 {
    1.0 - (-elapsed_seconds.max(0.0) / half_life_seconds).exp2()
}

/// One step of every smoothed value. A null leaves the memory as it is and is null itself: what is not there has no
/// smooth value either, or a signal that vanished would look alive.
fn smooth(of: &ArrayRef, share: f64, memory: &mut [f64], slots: Option<&[u32]>, from: usize) -> ArrayRef {
    let Some(of) = of.as_any().downcast_ref::<Float64Array>() else {
        return new_null_array(&DataType::Float64, of.len());
    };
    let mut smoothed = Vec::with_capacity(of.len());
    for (row, value) in of.values().iter().enumerate() {
        let slot = slots.map_or(from + row, |slots| slots[row] as usize);
        smoothed.push(match memory.get_mut(slot) {
            Some(held) if of.is_valid(row) => {
                *held = if held.is_nan() { *value } else { *held + share * (*value - *held) };
                *held
            }
            _ => 0.0,
        });
    }
    Arc::new(Float64Array::new(smoothed.into(), of.nulls().cloned()))
}

/// A signal's column in the making.
struct Output {
    values: Vec<f64>,
    /// Made when the first null comes.
    valid: Option<BooleanBufferBuilder>,
}

impl Output {
    fn with_capacity(rows: usize) -> Self {
        Self { values: Vec::with_capacity(rows), valid: None }
    }

    /// Adds rows, with nulls in the place of numbers that are not finite, and NaN under every null.
    fn append(&mut self, column: &Float64Array) {
        let before = self.values.len();
        self.values.extend_from_slice(column.values());
        let added = &mut self.values[before..];
        // Without short-circuit, so that the loop is one vector instruction per few rows.
        let all_finite = added.iter().fold(true, |all, x| all & x.is_finite());
        let nulls = column.nulls().filter(|nulls| nulls.null_count() > 0);
        if nulls.is_none() && all_finite {
            if let Some(valid) = &mut self.valid {
                valid.append_n(added.len(), true);
            }
            return;
        }
        let kept = match nulls {
            Some(nulls) if all_finite => nulls.inner().clone(),
            _ => BooleanBuffer::collect_bool(added.len(), |row| {
                added[row].is_finite() & nulls.is_none_or(|nulls| nulls.is_valid(row))
            }),
        };
        for row in (!&kept).set_indices() {
            added[row] = f64::NAN;
        }
        let valid = self.valid.get_or_insert_with(|| {
            let mut valid = BooleanBufferBuilder::new(self.values.capacity());
            valid.append_n(before, true);
            valid
        });
        valid.append_buffer(&kept);
    }

    /// A copy of the newest rows.
    fn tail(&self, rows: usize) -> Float64Array {
        let from = self.values.len().saturating_sub(rows);
        let valid = self.valid.as_ref().map(|valid| {
            NullBuffer::new(BooleanBuffer::collect_bool(self.values.len() - from, |row| valid.get_bit(from + row)))
        });
        Float64Array::new(self.values[from..].to_vec().into(), valid)
    }

    fn finish(self) -> ArrayRef {
        let nulls = self.valid.map(|mut valid| NullBuffer::new(valid.finish()));
        Arc::new(Float64Array::new(self.values.into(), nulls))
    }
}
