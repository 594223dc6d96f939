//! A value and three set-points make a pressure: dimensionless, so that the worst of unlike resources can be named.
//!
//! Two straight lines and a clamp rather than a smooth curve, because a person must be able to compute the number of an
//! explanation on paper, and to invert it: "1.0 if it were below 21 ms".

use headroom_model::policy::Thresholds;

/// The least pressure.
pub(crate) const PRESSURE_MIN: f64 = -1.0;
/// The largest pressure.
pub(crate) const PRESSURE_MAX: f64 = 3.0;

/// Set-points ready for use: with the sign turned where lower is worse, divisions done.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Scale {
    sign: f64,
    under: f64,
    over: f64,
    below: f64,
    above: f64,
}

impl Scale {
    pub(crate) fn new(thresholds: Thresholds, lower_is_worse: bool) -> Self {
        let sign = if lower_is_worse { -1.0 } else { 1.0 };
        let (under, over, critical) = (sign * thresholds.under, sign * thresholds.over, sign * thresholds.critical);
        // Configuration refuses set-points that do not ascend; should some arrive, a flat line does no harm.
        let inverse = |span: f64| if span > 0.0 { 1.0 / span } else { 0.0 };
        Self { sign, under, over, below: inverse(over - under), above: inverse(critical - over) }
    }

    /// The pressure of a value; NaN of NaN.
    #[inline]
    pub(crate) fn pressure(&self, value: f64) -> f32 {
        let x = self.sign * value;
        let below = (x - self.under) * self.below;
        let above = 1.0 + (x - self.over) * self.above;
        let pressure = if x < self.over { below } else { above };
        pressure.clamp(PRESSURE_MIN, PRESSURE_MAX) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_lines_and_a_clamp_in_both_directions() {
        let up = Thresholds { under: 70.0, over: 85.0, critical: 98.0 };
        let down = Thresholds { under: 30.0, over: 15.0, critical: 2.0 };
        for (value, expected) in [
            (70.0, 0.0),
            (77.5, 0.5),
            (85.0, 1.0),
            (91.5, 1.5),
            (98.0, 2.0),
            (1e9, 3.0),
            (f64::INFINITY, 3.0),
            (55.0, -1.0),
            (-1e9, -1.0),
        ] {
            assert_eq!(Scale::new(up, false).pressure(value), expected, "{value}");
            assert_eq!(Scale::new(down, true).pressure(100.0 - value), expected, "{value} mirrored");
        }
        assert!(Scale::new(up, false).pressure(f64::NAN).is_nan());
    }

    #[test]
    fn set_points_that_do_not_ascend_do_not_divide_by_zero() {
        let flat = Scale::new(Thresholds { under: 1.0, over: 1.0, critical: 1.0 }, false);
        assert_eq!((flat.pressure(0.5), flat.pressure(1.5)), (0.0, 1.0));
    }
}
