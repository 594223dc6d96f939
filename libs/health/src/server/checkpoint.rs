//! The states of one server as bytes and back.

use headroom_model::codec::{DecodeError, Decoder, Encoder};
use headroom_model::frame::{FaultState, LoadState};

use super::{Latches, ServerState};
use crate::latch::Latch;

impl ServerState {
    /// Writes the state, and the latches beside it.
    pub(crate) fn encode(&self, latches: &Latches, out: &mut Encoder) {
        out.put_u8(self.load);
        out.put_u8(self.fault);
        for counter in self.counters() {
            out.put_u8(counter);
        }
        for time in [self.since, self.load_since, self.fault_since, self.load_known, self.fault_window_end] {
            out.put_u32(time);
        }
        for report_ms in [self.last_report_ms, self.state_report_ms, self.control_report_ms] {
            out.put_i64(report_ms);
        }
        out.put_f32(self.load_pace);
        out.put_f32(self.fault_pace);
        out.put_u32(self.calm_at);
        out.put_u32(self.fault_calm_at);
        out.put_u32(self.ahead_at);
        out.put_u32(self.not_a_number_at);
        latches.load.encode(out);
        latches.fault.encode(out);
    }

    /// Least bytes of the binary form, with the latches: those of the first version.
    pub(crate) const BYTES_MIN: usize = 9 + 5 * 4 + 8 + 2 * Latch::BYTES;

    /// Reads what [`Self::encode`] wrote in this version or an earlier one.
    ///
    /// # Errors
    /// If the bytes are damaged.
    pub(crate) fn decode(version: u8, input: &mut Decoder<'_>) -> Result<(Self, Latches), DecodeError> {
        let (load, fault) = (input.get_u8()?, input.get_u8()?);
        if usize::from(load) >= LoadState::ALL.len() || usize::from(fault) >= FaultState::ALL.len() {
            return Err(input.error("state of a server"));
        }
        let mut state = Self {
            load,
            fault,
            over: input.get_u8()?,
            critical: input.get_u8()?,
            calm: input.get_u8()?,
            load_fresh: input.get_u8()?,
            fault_fresh: input.get_u8()?,
            fault_calm: input.get_u8()?,
            fault_windows: input.get_u8()?,
            since: input.get_u32()?,
            load_since: input.get_u32()?,
            fault_since: input.get_u32()?,
            load_known: input.get_u32()?,
            fault_window_end: input.get_u32()?,
            last_report_ms: input.get_i64()?,
            ..Self::default()
        };
        if version >= 2 {
            state.state_report_ms = input.get_i64()?;
            state.control_report_ms = input.get_i64()?;
            state.load_pace = input.get_f32()?;
            state.fault_pace = input.get_f32()?;
            state.calm_at = input.get_u32()?;
            state.fault_calm_at = input.get_u32()?;
            state.ahead_at = input.get_u32()?;
            state.not_a_number_at = input.get_u32()?;
        } else {
            // The first version knew one time for all: what it had seen is not news.
            (state.state_report_ms, state.control_report_ms) = (state.last_report_ms, state.last_report_ms);
        }
        Ok((state, Latches { load: Latch::decode(input)?, fault: Latch::decode(input)? }))
    }

    fn counters(&self) -> [u8; 7] {
        [self.over, self.critical, self.calm, self.load_fresh, self.fault_fresh, self.fault_calm, self.fault_windows]
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Script;
    use super::*;

    #[test]
    fn the_binary_form_restores_every_bit() {
        let mut script = Script::new();
        script.run(&[(2, 1.1), (6, 0.5), (2, 1.2)]);
        let mut out = Encoder::default();
        script.state.encode(&script.latches, &mut out);
        let (state, latches) = ServerState::decode(2, &mut Decoder::new(&out.bytes)).expect("decodes");
        assert_eq!((state, latches), (script.state, script.latches));
    }

    #[test]
    fn a_state_of_the_first_version_goes_on_and_counts_no_report_again() {
        let mut script = Script::new();
        script.run(&[(1, 1.5)]);
        let mut out = Encoder::default();
        script.state.encode(&script.latches, &mut out);
        let head = 9 + 5 * 4 + 8;
        let first = [&out.bytes[..head], &out.bytes[out.bytes.len() - 2 * Latch::BYTES..]].concat();
        assert_eq!(first.len(), ServerState::BYTES_MIN);
        let mut input = Decoder::new(&first);
        let (state, latches) = ServerState::decode(1, &mut input).expect("reads");
        assert!(input.finish().is_ok());
        assert_eq!((state.over, state.load, latches), (1, script.state.load, script.latches));
        assert_eq!([state.state_report_ms, state.control_report_ms], [script.state.last_report_ms; 2]);
    }
}
