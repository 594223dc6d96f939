//! What the signals add up to for the servers of one block, and the loops over its columns.
//!
//! The loops are plain and without branches on purpose: they run once per signal and server, and are what the compiler
//! turns into vector instructions. Buffers keep their memory from block to block and from tick to tick.

use arrow_array::{Array, Float64Array};
use headroom_model::frame::{Reason, ReasonKind};
use headroom_model::policy::Family;

use crate::pressure::PRESSURE_MIN;

/// No signal, in the width of the block's columns.
const NONE: u32 = Reason::NO_SIGNAL as u32;

/// What the signals add up to for the servers of one block.
#[derive(Debug, Default)]
pub(crate) struct Block {
    pub(crate) values: Vec<f64>,
    pub(crate) state_values: Vec<f64>,
    pub(crate) pressures: Vec<f32>,
    pub(crate) state_pressures: Vec<f32>,
    pub(crate) statuses: Vec<u8>,
    pub(crate) windows: Vec<f32>,
    pub(crate) families: [Vec<f32>; Family::ALL.len()],
    pub(crate) state_families: [Vec<f32>; Family::ALL.len()],
    pub(crate) family_signals: [Vec<u32>; Family::ALL.len()],
    pub(crate) state_family_signals: [Vec<u32>; Family::ALL.len()],
    pub(crate) throttle: Vec<f32>,
    pub(crate) throttle_signals: Vec<u32>,
    pub(crate) weights: Vec<f32>,
    pub(crate) weights_ok: Vec<f32>,
    /// Whether no slot of the block is free.
    pub(crate) all_live: bool,
    pub(crate) lost: Vec<bool>,
    pub(crate) fatal: Vec<bool>,
    pub(crate) faults: Vec<f32>,
    pub(crate) fault_signals: Vec<u32>,
    /// Causes that are not the worst threshold of a family: (place in the block, signal, kind, threshold, pressure).
    pub(crate) causes: Vec<(u32, u16, ReasonKind, f64, f32)>,
}

impl Block {
    /// Makes all columns as long as the block, empty.
    pub(crate) fn clear(&mut self, length: usize) {
        let Self { values, state_values, pressures, state_pressures, statuses, windows, .. } = self;
        for column in [values, state_values] {
            column.resize(length, f64::NAN);
        }
        for column in [pressures, state_pressures, windows] {
            column.resize(length, f32::NAN);
        }
        statuses.resize(length, 0);
        let none = f32::NEG_INFINITY;
        for column in self.families.iter_mut().chain(&mut self.state_families).chain([&mut self.throttle]) {
            refill(column, length, none);
        }
        let signals = self.family_signals.iter_mut().chain(&mut self.state_family_signals);
        for column in signals.chain([&mut self.throttle_signals, &mut self.fault_signals]) {
            refill(column, length, NONE);
        }
        refill(&mut self.weights, length, 0.0);
        refill(&mut self.weights_ok, length, 0.0);
        refill(&mut self.lost, length, false);
        refill(&mut self.fatal, length, false);
        refill(&mut self.faults, length, PRESSURE_MIN as f32);
        self.causes.clear();
    }
}

fn refill<T: Copy>(column: &mut Vec<T>, length: usize, value: T) {
    column.clear();
    column.resize(length, value);
}

/// Whether a server's load explains that it is slow.
pub(crate) fn is_loaded(block: &Block, place: usize) -> bool {
    Family::ALL[..Family::Latency as usize].iter().any(|family| block.families[*family as usize][place] >= 1.0)
}

impl Block {
    /// Takes over the pressure of a fault, if it is the largest of the server.
    pub(crate) fn add_fault(&mut self, place: usize, signal: usize, pressure: f32) {
        if pressure > self.faults[place] {
            (self.faults[place], self.fault_signals[place]) = (pressure, signal as u32);
        }
    }
}

/// Where a pressure is larger than the largest so far, it and its signal take the place. Written with a mask because
/// the compiler makes a store behind a branch out of an `if`, one lane at a time.
pub(crate) fn keep_larger(largest: &mut [f32], signals: &mut [u32], pressures: &[f32], signal: u32) {
    for ((largest, of), pressure) in largest.iter_mut().zip(signals).zip(pressures) {
        // A comparison with NaN is false: what is missing never takes the place.
        let mask = u32::from(*pressure > *largest).wrapping_neg();
        *of = (*of & !mask) | (signal & mask);
        *largest = f32::from_bits((largest.to_bits() & !mask) | (pressure.to_bits() & mask));
    }
}

/// A block of a column, NaN where it is null or the slot is free: the column's own memory where nothing has to change,
/// else `buffer`.
pub(crate) fn block_of<'a>(
    buffer: &'a mut [f64],
    column: Option<&'a Float64Array>,
    from: usize,
    live: &[bool],
    all_live: bool,
) -> &'a [f64] {
    let Some(column) = column.filter(|column| column.len() >= from + buffer.len()) else {
        for (place, value) in buffer.iter_mut().enumerate() {
            *value = if live[place] { value_at(column, from + place) } else { f64::NAN };
        }
        return buffer;
    };
    let values = &column.values()[from..from + buffer.len()];
    let nulls = column.nulls().filter(|nulls| nulls.null_count() > 0);
    if all_live && nulls.is_none() {
        return values;
    }
    buffer.copy_from_slice(values);
    if let Some(nulls) = nulls {
        for (value, is_valid) in buffer.iter_mut().zip(nulls.slice(from, values.len()).iter()) {
            *value = if is_valid { *value } else { f64::NAN };
        }
    }
    for (value, live) in buffer.iter_mut().zip(live) {
        *value = if *live { *value } else { f64::NAN };
    }
    buffer
}

/// The value of a slot, NaN without one.
pub(crate) fn value_at(column: Option<&Float64Array>, slot: usize) -> f64 {
    match column {
        Some(column) if slot < column.len() && column.is_valid(slot) => column.value(slot),
        _ => f64::NAN,
    }
}

/// Whether a window held as many events as the signal demands; without a count it did not.
pub(crate) fn is_enough(volume: Option<&Float64Array>, slot: usize, least: f64) -> bool {
    value_at(volume, slot) >= least
}
