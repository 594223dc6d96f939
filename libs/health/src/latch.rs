//! The latch on flapping: a state that changes too often stays at the worse of the two for a while.
//!
//! Both axes use this one machine, so that no detector has a back-off that does not grow. The latch doubles with each
//! repeat and forgets one doubling for each quiet half hour; both are settled when it next closes, so that a quiet
//! server costs nothing.

use headroom_model::codec::{DecodeError, Decoder, Encoder};

/// Changes within the span that are still no flapping.
const CHANGES_MAX: usize = 4;
/// The span, for a server that reports every ten seconds.
const SPAN_SECONDS: f32 = 600.0;
/// The first latch.
const LATCH_SECONDS: u32 = 300;
/// The longest latch.
const LATCH_SECONDS_MAX: u32 = 1800;
/// Quiet after which one doubling is forgotten.
const FORGET_SECONDS: u32 = 1800;
/// Doublings that make a difference.
const DOUBLINGS_MAX: u8 = 3;

/// What one axis of one server remembers of its changes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Latch {
    /// When the last changes were, oldest first; 0 = none.
    changes: [u32; CHANGES_MAX + 1],
    /// The latch is closed until then.
    until: u32,
    /// How often the latch has doubled.
    doublings: u8,
}

impl Latch {
    /// Bytes of the binary form.
    pub(crate) const BYTES: usize = 4 * (CHANGES_MAX + 2) + 1;

    /// Whether the state may only get worse at present.
    pub(crate) fn is_closed(&self, now: u32) -> bool {
        now < self.until
    }

    /// Notes a change; answers whether the latch closed by it. `interval_seconds` is the server's own.
    pub(crate) fn change(&mut self, now: u32, interval_seconds: f32) -> bool {
        self.changes.rotate_left(1);
        self.changes[CHANGES_MAX] = now;
        let span = SPAN_SECONDS * (interval_seconds / 10.0).max(1.0);
        let oldest = self.changes[0];
        if oldest == 0 || now.saturating_sub(oldest) as f32 > span {
            return false;
        }
        let quiet = now.saturating_sub(self.until) / FORGET_SECONDS;
        self.doublings = if self.until == 0 {
            0
        } else {
            (self.doublings + 1).saturating_sub(quiet.min(255) as u8).min(DOUBLINGS_MAX)
        };
        self.until = now.saturating_add((LATCH_SECONDS << self.doublings).min(LATCH_SECONDS_MAX));
        self.changes = Default::default();
        true
    }

    pub(crate) fn encode(&self, out: &mut Encoder) {
        self.changes.iter().for_each(|change| out.put_u32(*change));
        out.put_u32(self.until);
        out.put_u8(self.doublings);
    }

    pub(crate) fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let mut latch = Self::default();
        for change in &mut latch.changes {
            *change = input.get_u32()?;
        }
        latch.until = input.get_u32()?;
        latch.doublings = input.get_u8()?.min(DOUBLINGS_MAX);
        Ok(latch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Changes every 100 s from `from` until the latch closes; the closing time and the span.
    fn flap(latch: &mut Latch, from: u32) -> (u32, u32) {
        let closed = (0..20).map(|i| from + 100 * i).find(|now| latch.change(*now, 10.0)).expect("closes");
        (closed, latch.until - closed)
    }

    #[test]
    fn the_fifth_change_closes_it_and_repeats_double_it() {
        let mut latch = Latch::default();
        assert_eq!(flap(&mut latch, 1000), (1400, 300));
        assert!(latch.is_closed(1699) && !latch.is_closed(1700));
        assert_eq!(flap(&mut latch, 1700).1, 600);
        assert_eq!(flap(&mut latch, 2800).1, 1200);
        assert_eq!(flap(&mut latch, 4500).1, 1800);
        let after = latch.until + 10 * FORGET_SECONDS;
        assert_eq!(flap(&mut latch, after).1, 300, "forgotten when quiet");
    }

    #[test]
    fn rare_changes_never_close_it_unless_the_reports_are_rare_too() {
        let (mut fast, mut slow) = (Latch::default(), Latch::default());
        let changes = (1..9).map(|i| 1000 + 300 * i);
        assert!(changes.clone().all(|now| !fast.change(now, 10.0)));
        assert!(changes.into_iter().any(|now| slow.change(now, 60.0)));
    }
}
