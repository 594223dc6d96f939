//! How much of what was expected of a server had arrived at a tick: whole percents in a byte.
//!
//! A reader asks whether a decision was made from all, most or little of the data, and no finer. But all is all and
//! nothing is nothing: only those are written as 100 and 0.

/// Nothing could be expected yet, or of a snapshot that was written before coverage was: unknown.
pub const COVERAGE_UNKNOWN: u8 = u8::MAX;

/// All that was expected has arrived.
pub const COVERAGE_FULL: u8 = 100;

/// The byte of a share; NaN is unknown.
pub fn coverage_byte(share: f32) -> u8 {
    match share {
        _ if share.is_nan() => COVERAGE_UNKNOWN,
        _ if share <= 0.0 => 0,
        _ if share >= 1.0 => COVERAGE_FULL,
        _ => (share * f32::from(COVERAGE_FULL)).round().clamp(1.0, f32::from(COVERAGE_FULL - 1)) as u8,
    }
}

/// The share, 0-1, that a byte stands for.
pub fn coverage_share(byte: u8) -> Option<f32> {
    (byte <= COVERAGE_FULL).then(|| f32::from(byte) / f32::from(COVERAGE_FULL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_all_nothing_is_nothing_and_between_them_are_percents() {
        for (share, byte, read) in [
            (f32::NAN, COVERAGE_UNKNOWN, None),
            (0.0, 0, Some(0.0)),
            (0.001, 1, Some(0.01)),
            (1.0 / 3.0, 33, Some(0.33)),
            (0.999, 99, Some(0.99)),
            (1.0, 100, Some(1.0)),
        ] {
            assert_eq!((coverage_byte(share), coverage_share(byte)), (byte, read), "{share}");
        }
    }
}
