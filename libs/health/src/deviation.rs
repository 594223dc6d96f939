//! Who is unlike the pool, or unlike itself.
//!
//! A deviation must be unlikely (robust z), matter (effect), point the bad way, and last for three windows one after
//! the other: the windows hop by a tick, so they are counted by the time they span and not by ticks. Its pressure says
//! how far both bars are passed, and never more than critical: far from the median is not the same as broken.
//!
//! The pool is the better witness, since what all its servers share (a slow dependency) is nobody's fault; a server's
//! own past speaks only where no pool does, only when the server's load does not explain it, and at a higher bar.

use headroom_model::policy::{Family, HealthSpec, PeerSpec};

use crate::peers::Group;
use crate::signal::Baseline;

/// Windows that a deviation lasts before it counts.
const WINDOWS_MIN: u32 = 3;
/// Observation that a server's own baseline needs before it speaks, seconds.
const OWN_SECONDS_MIN: f32 = 300.0;
/// Least effect of a deviation from the own baseline: twice the usual.
const OWN_EFFECT_MIN: f64 = 1.0;
/// From a mean distance to the standard deviation of a normal distribution.
const DISTANCE_TO_SIGMA: f64 = 1.2533;
/// Epsilon of z, as a share of the median.
const EPSILON_SHARE: f64 = 0.01;
/// So many times the bar of the effect, and twice that of z, is critical.
const EFFECT_OF_CRITICAL: f64 = 5.0;

/// The bars a deviation has to pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bars {
    sign: f64,
    floor: f64,
    z: f64,
    effect: f64,
}

impl Bars {
    pub(crate) fn new(health: &HealthSpec, peers: PeerSpec, lower_is_worse: bool) -> Self {
        Self {
            sign: if lower_is_worse { -1.0 } else { 1.0 },
            floor: peers.floor.max(0.0),
            z: health.peer_z.max(f64::MIN_POSITIVE),
            effect: health.peer_effect.max(EPSILON_SHARE),
        }
    }

    /// The pressure of a deviation from the pool, 1 to 2; `None` where it is none.
    #[inline]
    pub(crate) fn against_peers(&self, value: f64, group: &Group) -> Option<f32> {
        self.pressure(value, group.median, group.sigma, self.effect)
    }

    /// The bars against a pool as one line.
    pub(crate) fn line(&self, group: &Group) -> Line {
        let (scale, effect_scale) = self.scales(group.median, group.sigma);
        let least = if scale > 0.0 { (self.z * scale).max(self.effect * effect_scale) } else { f64::INFINITY };
        Line { sign: self.sign, usual: group.median, least }
    }

    /// The pressure of a deviation from the own baseline, 1 to 2; `None` where it is none.
    #[inline]
    pub(crate) fn against_own(&self, value: f64, own: &Baseline) -> Option<f32> {
        if own.seconds < OWN_SECONDS_MIN {
            return None;
        }
        let sigma = DISTANCE_TO_SIGMA * f64::from(own.spread);
        self.pressure(value, f64::from(own.mean), sigma, self.effect.max(OWN_EFFECT_MIN))
    }

    /// What distances are measured by: for z, and for the effect.
    #[inline]
    fn scales(&self, usual: f64, sigma: f64) -> (f64, f64) {
        (sigma + (EPSILON_SHARE * usual.abs()).max(self.floor), usual.abs().max(self.floor))
    }

    #[inline]
    fn pressure(&self, value: f64, usual: f64, sigma: f64, effect_min: f64) -> Option<f32> {
        let distance = self.sign * (value - usual);
        let (scale, effect_scale) = self.scales(usual, sigma);
        // Without a spread, a floor or a size there is no scale to measure by.
        let deviates = scale > 0.0 && distance >= self.z * scale && distance >= effect_min * effect_scale;
        if !deviates {
            return None;
        }
        let by_z = distance / scale / self.z - 1.0;
        let by_effect = (distance / effect_scale / effect_min - 1.0) / (EFFECT_OF_CRITICAL - 1.0);
        Some((1.0 + by_z.min(by_effect).clamp(0.0, 1.0)) as f32)
    }
}

/// The bars of a pool, ready for a comparison per server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    sign: f64,
    usual: f64,
    least: f64,
}

impl Line {
    /// Whether the value is no deviation. Where nothing judges, or there is no value, nothing deviates.
    #[inline]
    pub(crate) fn is_within(&self, value: f64) -> bool {
        let deviates = self.sign * (value - self.usual) >= self.least;
        !deviates
    }
}

/// Whether a deviation that began then has lasted for three windows.
#[inline]
pub(crate) fn has_lasted(since: u32, now: u32, window_seconds: f32) -> bool {
    since != 0 && now.saturating_sub(since) as f32 >= (WINDOWS_MIN - 1) as f32 * window_seconds
}

/// Whether a deviation of a signal of this family is a fault; that of any other is only a reason.
pub(crate) fn is_fault(family: Family) -> bool {
    matches!(family, Family::Latency | Family::Errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bars(lower_is_worse: bool, floor: f64) -> Bars {
        let health = HealthSpec {
            unknown_after_seconds: 40,
            held_seconds: 300,
            peer_z: 4.0,
            peer_effect: 0.2,
            peers_min: 5,
            silent_seconds: 3600,
            leave_seconds: 86_400,
        };
        Bars::new(&health, PeerSpec { floor }, lower_is_worse)
    }

    #[test]
    fn both_bars_must_be_passed_the_bad_way() {
        let group = Group { median: 100.0, sigma: 1.0 };
        for (value, lower_is_worse, expected) in [
            (119.0, false, None),      // z 9.5, effect 19 %
            (120.0, false, Some(1.0)), // z 10, effect 20 %
            (160.0, false, Some(1.5)),
            (500.0, false, Some(2.0)),
            (50.0, false, None),
            (80.0, true, Some(1.0)),
        ] {
            let bars = bars(lower_is_worse, 0.0);
            assert_eq!(bars.against_peers(value, &group), expected, "{value}");
            assert_eq!(bars.line(&group).is_within(value), expected.is_none(), "{value}");
        }
        let wide = Group { median: 100.0, sigma: 20.0 };
        assert_eq!(bars(false, 0.0).against_peers(180.0, &wide), None, "z below four");
        assert_eq!(bars(false, 0.0).against_peers(180.0, &Group::NONE), None);
    }

    #[test]
    fn the_floor_keeps_noise_about_zero_quiet() {
        let silent = Group { median: 0.0, sigma: 0.0 };
        assert_eq!(bars(false, 0.005).against_peers(0.01, &silent), None);
        assert_eq!(bars(false, 0.005).against_peers(0.02, &silent), Some(1.0));
        assert_eq!(bars(false, 0.0).against_peers(0.02, &silent), None, "no scale at all");
    }

    #[test]
    fn the_own_baseline_needs_time_and_twice_the_usual() {
        let own = Baseline { mean: 10.0, spread: 0.5, seconds: 300.0 };
        assert_eq!(bars(false, 0.0).against_own(19.0, &own), None);
        assert_eq!(bars(false, 0.0).against_own(20.0, &own), Some(1.0));
        assert_eq!(bars(false, 0.0).against_own(20.0, &Baseline { seconds: 290.0, ..own }), None);
    }

    #[test]
    fn three_windows_span_two_hops() {
        assert!(!has_lasted(0, 1000, 30.0));
        assert!(!has_lasted(941, 1000, 30.0));
        assert!(has_lasted(940, 1000, 30.0));
    }
}
