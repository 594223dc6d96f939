//! From the window batch to the signals: evaluate the expressions, and say what each value was made of.

use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{Array, Float64Array, RecordBatch};
use arrow_buffer::{NullBuffer, ScalarBuffer};
use headroom_expr::{EvaluateError, ExprState};
use headroom_model::frame::{SignalFrame, SlowSignal};
use headroom_window::WindowBatch;

use crate::compiled::CompiledPolicy;

/// What `ewma` remembers, apart for the two windows: they are two sequences of values.
#[derive(Debug, Default)]
pub(crate) struct SignalState {
    pub(crate) control: ExprState,
    pub(crate) state: ExprState,
}

/// Evaluates all signals for all slots.
///
/// # Errors
/// If the batch is not of the policy's inputs, which the window store sees to.
pub(crate) fn evaluate(
    compiled: &CompiledPolicy,
    batch: &WindowBatch,
    elapsed_seconds: f64,
    memory: &mut SignalState,
) -> Result<Vec<SignalFrame>, EvaluateError> {
    let control = compiled.program.evaluate(&batch.control, None, elapsed_seconds, &mut memory.control)?;
    let state = compiled.program.evaluate(&batch.state, None, elapsed_seconds, &mut memory.state)?;
    let frames = (0..compiled.policy.signals.len()).map(|signal| {
        let values = column(&control, signal);
        let (samples, age_seconds) = provenance(compiled, batch, signal);
        SignalFrame {
            control: values,
            state: column(&state, signal),
            samples,
            age_seconds,
            volume: compiled.volume_inputs[signal].map(|(input, _)| column(&batch.control, input)),
        }
    });
    Ok(frames.collect())
}

fn column(batch: &RecordBatch, at: usize) -> Float64Array {
    batch.column(at).as_primitive::<Float64Type>().clone()
}

/// The fewest samples and the oldest newest sample of the inputs a signal's value was made of. Inputs without a value
/// took no part: an expression coalesces over dialects, and those a server does not speak say nothing about it.
fn provenance(compiled: &CompiledPolicy, batch: &WindowBatch, signal: usize) -> (ScalarBuffer<u32>, ScalarBuffer<f32>) {
    let inputs = compiled.program.dependencies(signal);
    if let [input] = inputs {
        return (batch.inputs[*input].samples.clone(), batch.inputs[*input].age_seconds.clone());
    }
    let slots = batch.control.num_rows();
    let mut samples = vec![u32::MAX; slots];
    let mut age_seconds = vec![f32::NAN; slots];
    for input in inputs {
        let values = batch.control.column(*input);
        let (input_samples, input_age) = (&batch.inputs[*input].samples, &batch.inputs[*input].age_seconds);
        for slot in 0..slots {
            if values.is_valid(slot) {
                samples[slot] = samples[slot].min(input_samples[slot]);
                age_seconds[slot] = age_seconds[slot].max(input_age[slot]);
            }
        }
    }
    for samples in &mut samples {
        if *samples == u32::MAX {
            *samples = 0;
        }
    }
    (samples.into(), age_seconds.into())
}

/// The signals whose values are made of slower reports than the fastest of their server.
pub(crate) fn slow(compiled: &CompiledPolicy, batch: &WindowBatch) -> Vec<SlowSignal> {
    if batch.slow.is_empty() {
        return Vec::new();
    }
    let mut readers: Vec<Vec<u16>> = vec![Vec::new(); batch.inputs.len()];
    for signal in 0..compiled.policy.signals.len() {
        for input in compiled.program.dependencies(signal) {
            readers[*input].push(signal as u16);
        }
    }
    let mut slow = Vec::new();
    for found in &batch.slow {
        let input = usize::from(found.input);
        // As with ages: an input without a value took no part.
        if batch.control.column(input).is_valid(found.slot as usize) {
            let of_signal = |signal: &u16| SlowSignal {
                slot: found.slot,
                signal: *signal,
                interval_seconds: found.interval_seconds,
            };
            slow.extend(readers[input].iter().map(of_signal));
        }
    }
    slow.sort_unstable_by(|a, b| {
        (a.slot, a.signal).cmp(&(b.slot, b.signal)).then(b.interval_seconds.total_cmp(&a.interval_seconds))
    });
    slow.dedup_by_key(|slow| (slow.slot, slow.signal));
    slow
}

/// Frames without a value, for every signal and slot.
pub(crate) fn nothing(compiled: &CompiledPolicy, slots: usize) -> Vec<SignalFrame> {
    let nulls = || Float64Array::new(vec![f64::NAN; slots].into(), Some(NullBuffer::new_null(slots)));
    (0..compiled.policy.signals.len())
        .map(|signal| SignalFrame {
            control: nulls(),
            state: nulls(),
            samples: vec![0; slots].into(),
            age_seconds: vec![f32::NAN; slots].into(),
            volume: compiled.volume_inputs[signal].map(|_| nulls()),
        })
        .collect()
}
