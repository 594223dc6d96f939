//! The law: the arithmetic of one class on one server at one new report.
//!
//! `span` is how much of the server's control window lies between this report and the last one that moved a class, at
//! most all of it. Limits of cut and rise are per control window and are taken to the share `span`: a cut limit of
//! 0.125 a window is a halving at each of three reports, and half a hundredth less at each of three hundred. So neither
//! a long interval nor a short tick changes the gain of the loop, and with it whether it is stable.
//!
//! The proportional part `(P*/P)` counts [`STEPS_PER_WINDOW`] times per window: with three reports a window it is
//! applied once per report, which is what the field settled on and what a person can check in the head.

use headroom_model::policy::ClassSpec;

/// How often the proportional cut is applied within a control window.
const STEPS_PER_WINDOW: f64 = 3.0;
/// Below a set-point by less than this, a class neither rises nor falls.
pub(crate) const DEADBAND: f64 = 0.15;
/// So far below its set-point a class rises by all it may.
const ROOM_FULL: f64 = 1.0;
/// A fraction below this is as good as none: it falls to the floor.
const FRACTION_MIN: f64 = 0.02;

/// The fraction after a cut at this pressure, which must be above the set-point.
pub(crate) fn cut(class: &ClassSpec, set_point: f64, fraction: f64, pressure: f64, span: f64) -> f64 {
    let ratio = set_point / pressure;
    // The milder of `cut_min^span` and `ratio^(3 span)`, found before either power is taken: powers keep the order.
    let is_bounded = ratio <= 0.0 || ratio * ratio * ratio < class.cut_min;
    let factor = if is_bounded { power(class.cut_min, span) } else { power(ratio, STEPS_PER_WINDOW * span) };
    let cut = fraction * factor;
    let cut = if cut < FRACTION_MIN { 0.0 } else { cut };
    // A floor never raises: who is below it (it was raised by a new policy) rises as anyone does.
    cut.max(class.floor).min(fraction)
}

/// The fraction after a rise at this pressure, which must be below the set-point.
///
/// The rise is proportional too: all of `rise_max` from [`ROOM_FULL`] below the set-point on, and as much less as the
/// pressure is nearer to it. So a class creeps up to its set-point, where a step too far starts the next cut, and runs
/// when the surge has passed; one constant rate is too lively there or too slow here.
pub(crate) fn rise(class: &ClassSpec, set_point: f64, fraction: f64, pressure: f64, span: f64) -> f64 {
    // From near nothing a class doubles, so that its first steps are not its largest.
    let relative = STEPS_PER_WINDOW * fraction.max(FRACTION_MIN) / 2.0;
    let room = ((set_point - pressure) / ROOM_FULL).clamp(0.0, 1.0);
    (fraction + class.rise_max.min(relative) * room * span).min(1.0)
}

/// The fraction after a ramp of `seconds` towards `target`, up or down, by at most `per_minute`.
pub(crate) fn ramp(fraction: f64, target: f64, per_minute: f64, seconds: f64) -> f64 {
    let step = per_minute.max(0.0) * seconds / 60.0;
    (fraction + (target - fraction).clamp(-step, step)).clamp(0.0, 1.0)
}

/// `base` to the power of `exponent`, for a base in `[0, 1]` and an exponent in `[0, 3]`, to about 1e-14.
///
/// Written out because `f64::powf` is the C library's, whose last bit differs between platforms, and two replicas on
/// two platforms must publish the same bytes. The four basic operations are exact everywhere.
fn power(base: f64, exponent: f64) -> f64 {
    if base >= 1.0 || exponent <= 0.0 {
        return 1.0;
    }
    if base <= 0.0 || base.is_nan() {
        return 0.0;
    }
    if exponent == 1.0 {
        return base;
    }
    exp(exponent * ln(base))
}

/// The natural logarithm of a normal number in `(0, 1)`: by halves into `[sqrt(1/2), sqrt(2))`, then the series of
/// the inverse hyperbolic tangent, whose argument is then below 0.172.
fn ln(value: f64) -> f64 {
    let (mut mantissa, mut halves) = (value, 0.0);
    // A pressure ratio is at least 1/100 and a cut limit is a number of a policy: a few turns.
    while mantissa < std::f64::consts::FRAC_1_SQRT_2 {
        mantissa *= 2.0;
        halves += 1.0;
    }
    let t = (mantissa - 1.0) / (mantissa + 1.0);
    let square = t * t;
    let series = (0..10).rev().fold(0.0, |sum, k| sum * square + 1.0 / f64::from(2 * k + 1));
    2.0 * t * series - halves * std::f64::consts::LN_2
}

/// The exponential of a number that is not positive: by halves to less than 1/4, the Taylor series, and back by squares.
fn exp(value: f64) -> f64 {
    let (mut small, mut squares) = (value.max(-700.0), 0);
    while small < -0.25 {
        small /= 2.0;
        squares += 1;
    }
    let series = (1..14).rev().fold(1.0, |sum, k| 1.0 + sum * small / f64::from(k));
    (0..squares).fold(series, |result, _| result * result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use headroom_model::policy::OnExpiry;

    fn class(floor: f64, cut_min: f64, rise_max: f64) -> ClassSpec {
        let on_expiry = OnExpiry { hold_seconds: 30, then: 0.1, ramp_per_minute: 0.2 };
        ClassSpec { name: "c".into(), set_point: Some(0.7), floor, cut_min, rise_max, on_expiry }
    }

    fn is_near(found: f64, expected: f64) -> bool {
        (found - expected).abs() < 1e-9
    }

    #[test]
    fn power_is_the_power() {
        for base in [1e-9, 0.01, 0.125, 0.5, 0.7, 0.9, 0.999_999, 1.0] {
            for exponent in [0.0, 1.0 / 30.0, 1.0 / 3.0, 0.4, 1.0, 2.5, 3.0] {
                let (found, expected) = (power(base, exponent), f64::powf(base, exponent));
                assert!((found / expected - 1.0).abs() < 1e-12, "{base}^{exponent}: {found} {expected}");
            }
        }
    }

    #[test]
    fn a_cut_is_proportional_and_bounded_by_limit_and_floor() {
        let third = 1.0 / 3.0;
        for (floor, fraction, pressure, expected) in [
            (0.0, 1.0, 1.12, 0.625),
            (0.0, 1.0, 3.0, 0.5),
            (0.8, 1.0, 1.12, 0.8),
            (0.0, 0.03, 3.0, 0.0),
            (0.5, 0.3, 3.0, 0.3),
        ] {
            let found = cut(&class(floor, 0.125, 0.075), 0.7, fraction, pressure, third);
            assert!(is_near(found, expected), "{floor} {fraction} {pressure}: {found}");
        }
    }

    #[test]
    fn a_window_cuts_and_raises_the_same_in_any_number_of_steps() {
        let class = class(0.0, 0.125, 0.075);
        for steps in [1, 3, 30] {
            let span = 1.0 / f64::from(steps);
            let cut = (0..steps).fold(1.0, |f, _| cut(&class, 0.7, f, 0.8, span));
            let limit = (0..steps).fold(1.0, |f, _| super::cut(&class, 0.7, f, 3.0, span));
            let risen = (0..steps).fold(0.5, |f, _| rise(&class, 0.7, f, -1.0, span));
            assert!(is_near(cut, 0.875 * 0.875 * 0.875), "{steps}: {cut}");
            assert!(is_near(limit, 0.125) && is_near(risen, 0.575), "{steps}: {limit} {risen}");
        }
    }

    #[test]
    fn a_rise_starts_small_ends_at_one_and_creeps_near_the_set_point() {
        let class = class(0.0, 0.125, 0.3);
        for (fraction, pressure, span, expected) in
            [(0.0, -1.0, 1.0 / 3.0, 0.01), (0.99, -1.0, 1.0, 1.0), (0.5, -0.3, 1.0, 0.8), (0.5, 0.5, 1.0, 0.56)]
        {
            let found = rise(&class, 0.7, fraction, pressure, span);
            assert!(is_near(found, expected), "{fraction} {pressure}: {found}");
        }
    }

    #[test]
    fn a_ramp_goes_both_ways_and_no_further() {
        for (fraction, target, expected) in [(1.0, 0.1, 0.9), (0.0, 0.25, 0.1), (0.2, 0.25, 0.25)] {
            assert!(is_near(ramp(fraction, target, 0.2, 30.0), expected), "{fraction} {target}");
        }
    }
}
