//! The causes of a server's standing: at most three, one per family, worst first.
//!
//! One per family because ten symptoms of one full disk would hide the one thing that is wrong beside it.

use headroom_model::frame::Reason;
use headroom_model::policy::Family;

/// Reasons of one server.
pub(crate) const REASONS_MAX: usize = 3;

/// The worst cause of each family of one server.
#[derive(Debug)]
pub(crate) struct Causes {
    of_family: [Option<Reason>; Family::ALL.len()],
}

impl Causes {
    pub(crate) fn new() -> Self {
        Self { of_family: [None; Family::ALL.len()] }
    }

    /// Takes in a cause; the first of equals stays.
    pub(crate) fn add(&mut self, family: Family, cause: Reason) {
        let place = &mut self.of_family[family as usize];
        if place.is_none_or(|held| rank(&cause) > rank(&held)) {
            *place = Some(cause);
        }
    }

    /// Appends the worst to `reasons`, at most `room` of them; ties in the order of the families.
    pub(crate) fn finish(mut self, room: usize, reasons: &mut Vec<Reason>) {
        for _ in 0..room {
            let mut worst: Option<usize> = None;
            for (at, cause) in self.of_family.iter().enumerate() {
                if let Some(cause) = cause
                    && worst.and_then(|worst| self.of_family[worst]).is_none_or(|held| rank(cause) > rank(&held))
                {
                    worst = Some(at);
                }
            }
            match worst.and_then(|worst| self.of_family[worst].take()) {
                Some(cause) => reasons.push(cause),
                None => return,
            }
        }
    }
}

/// A cause without a pressure ranks below every other.
fn rank(cause: &Reason) -> f32 {
    if cause.pressure.is_nan() { f32::NEG_INFINITY } else { cause.pressure }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headroom_model::frame::ReasonKind;

    #[test]
    fn one_per_family_worst_first_ties_in_family_order() {
        let cause = |signal: u16, pressure: f32| Reason {
            kind: ReasonKind::Threshold,
            signal,
            value: 0.0,
            threshold: 0.0,
            pressure,
            window_seconds: 30.0,
            samples: 3,
            age_seconds: 1.0,
        };
        let mut causes = Causes::new();
        for (family, signal, pressure) in [
            (Family::Errors, 0, 1.5),
            (Family::Cpu, 1, 1.5),
            (Family::Cpu, 2, 1.2),
            (Family::Disk, 3, 2.0),
            (Family::Queue, 4, 1.1),
            (Family::Memory, 5, f32::NAN),
        ] {
            causes.add(family, cause(signal, pressure));
        }
        let mut reasons = Vec::new();
        causes.finish(REASONS_MAX, &mut reasons);
        assert_eq!(reasons.iter().map(|reason| reason.signal).collect::<Vec<_>>(), [3, 1, 0]);
    }
}
