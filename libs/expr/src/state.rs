//! What `ewma` remembers between ticks.
//!
//! The memory lies outside the program, so that one compiled program serves many cells and a checkpoint can hold it. It
//! is keyed by the hash of the signal and the number of the call in it: a new policy that leaves a signal and all that
//! it reads unchanged finds the memory where the old one left it.

use std::collections::BTreeMap;

use headroom_model::codec::{DecodeError, Decoder, Encoder};

use crate::compile::Program;

/// The version written in front of an encoded state.
const STATE_VERSION: u8 = 1;

/// The memory of the `ewma` calls of a cell: one number per call and slot, NaN where there is none yet.
#[derive(Clone, Debug, Default)]
pub struct ExprState {
    calls: BTreeMap<u64, Vec<f64>>,
}

impl PartialEq for ExprState {
    /// By bits, so that a state equals its copy although NaN equals nothing.
    fn eq(&self, other: &Self) -> bool {
        let bits = |state: &Self| -> Vec<(u64, Vec<u64>)> {
            state.calls.iter().map(|(key, slots)| (*key, slots.iter().map(|x| x.to_bits()).collect())).collect()
        };
        bits(self) == bits(other)
    }
}

impl ExprState {
    /// Forgets a slot, for the next server that gets it.
    pub fn clear_slot(&mut self, slot: u32) {
        for slots in self.calls.values_mut() {
            if let Some(value) = slots.get_mut(slot as usize) {
                *value = f64::NAN;
            }
        }
    }

    /// Forgets the calls that `program` does not make. Call it when a policy comes into force.
    pub fn retain(&mut self, program: &Program) {
        self.calls.retain(|key, _| program.ewma_keys().contains(key));
    }

    /// The memory of a call, long enough for `slots` slots.
    pub(crate) fn slots_of(&mut self, key: u64, slots: usize) -> &mut [f64] {
        let of = self.calls.entry(key).or_default();
        if of.len() < slots {
            of.resize(slots, f64::NAN);
        }
        of
    }

    /// Bytes held.
    pub fn memory_bytes(&self) -> usize {
        self.calls.values().map(|slots| slots.capacity() * size_of::<f64>()).sum()
    }

    /// Writes the state.
    pub fn encode(&self, out: &mut Encoder) {
        out.put_u8(STATE_VERSION);
        out.put_u32(self.calls.len() as u32);
        for (key, slots) in &self.calls {
            out.put_u64(*key);
            out.put_f64s(slots);
        }
    }

    /// Reads a state.
    ///
    /// # Errors
    /// If the bytes are none, or of a later version.
    pub fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        if input.get_u8()? != STATE_VERSION {
            return Err(input.error("version of the expression state"));
        }
        let length = input.get_length(12, "expression state")?;
        let mut calls = BTreeMap::new();
        for _ in 0..length {
            let key = input.get_u64()?;
            calls.insert(key, input.get_f64s()?);
        }
        Ok(Self { calls })
    }
}
