//! Times as people and programs write them.

use headroom_model::time::NANOS_PER_SECOND;

use super::number::Number;

/// From here on a number of the next smaller unit is meant: as seconds it would lie after the year 5138, as the smaller
/// unit its times begin in March 1973. So nobody has to say which unit a topic uses.
const UNIT_STEP: u64 = 100_000_000_000;

/// A time as a number: Unix seconds (also with a fraction), milliseconds, microseconds or nanoseconds, told apart by
/// size. `None` if it is before 1970 or after 2262.
pub(super) fn from_number(number: Number<'_>) -> Option<i64> {
    if let Some(integer) = number.to_u64() {
        let mut nanos_per_unit = NANOS_PER_SECOND as u64;
        let mut bound = UNIT_STEP;
        while integer >= bound && nanos_per_unit > 1 {
            nanos_per_unit /= 1_000;
            bound = bound.saturating_mul(1_000);
        }
        return integer.checked_mul(nanos_per_unit).and_then(|nanos| i64::try_from(nanos).ok());
    }
    let value = number.to_f64();
    let nanos = if value < UNIT_STEP as f64 { value * 1e9 } else { value * 1e6 };
    // Doubles are exact to about a quarter of a microsecond here; what lies beneath is noise.
    let micros = (nanos / 1e3).round();
    (micros >= 0.0 && micros < (i64::MAX / 1_000) as f64).then(|| micros as i64 * 1_000)
}

/// A time in the form of RFC 3339: `2026-11-21T10:00:00Z`, with an offset, with a fraction.
pub(super) fn from_text(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let digits = |from: usize, count: usize| {
        let digits = bytes.get(from..from + count)?;
        digits
            .iter()
            .try_fold(0i64, |value, digit| digit.is_ascii_digit().then(|| value * 10 + i64::from(digit - b'0')))
    };
    let is = |at: usize, wanted: &[u8]| bytes.get(at).is_some_and(|byte| wanted.contains(byte));
    let (year, month, day) = (digits(0, 4)?, digits(5, 2)?, digits(8, 2)?);
    let (hour, minute, second) = (digits(11, 2)?, digits(14, 2)?, digits(17, 2)?);
    let shaped = is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":");
    // A leap second is the second after it.
    let valid = (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !shaped || !valid {
        return None;
    }
    let mut at = 19;
    let mut nanos = 0i64;
    if is(at, b".") {
        let from = at + 1;
        at = from;
        let mut unit = NANOS_PER_SECOND / 10;
        while let Some(digit @ b'0'..=b'9') = bytes.get(at) {
            nanos += i64::from(digit - b'0') * unit;
            unit /= 10;
            at += 1;
        }
        if at == from {
            return None;
        }
    }
    let offset = if is(at, b"Zz") {
        at += 1;
        0
    } else {
        let sign = if is(at, b"+") { 1 } else { -1 };
        let (hours, minutes) = (digits(at + 1, 2)?, digits(at + 4, 2)?);
        if !is(at, b"+-") || !is(at + 3, b":") || hours > 23 || minutes > 59 {
            return None;
        }
        at += 6;
        sign * (hours * 3_600 + minutes * 60)
    };
    if at != bytes.len() {
        return None;
    }
    let seconds = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset;
    seconds.checked_mul(NANOS_PER_SECOND)?.checked_add(nanos).filter(|time| *time >= 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970 of a date of the Gregorian calendar, counted in years that begin in March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_rfc_3339_and_nothing_else() {
        for (text, nanos) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2026-11-21T10:00:10Z", Some(1_795_255_210_000_000_000)),
            ("2026-11-21T11:00:10+01:00", Some(1_795_255_210_000_000_000)),
            ("2026-11-21t04:30:10.25-05:30", Some(1_795_255_210_250_000_000)),
            ("2024-02-29 00:00:00.123456789Z", Some(1_709_164_800_123_456_789)),
            ("2000-02-29T23:59:60Z", Some(951_868_800_000_000_000)),
            ("2262-04-11T23:47:16Z", Some(9_223_372_036_000_000_000)),
            ("2262-04-11T23:47:17Z", None),
            ("1969-12-31T23:59:59Z", None),
            ("2023-02-29T00:00:00Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-11-21T10:00:10", None),
            ("2026-11-21T10:00:10.Z", None),
            ("2026-11-21T10:00:10Z ", None),
            ("2026-11-21T10:00:10+0100", None),
            ("2026-11-2110:00:10Z", None),
            ("é026-11-21T10:00:10Z", None),
            ("", None),
        ] {
            assert_eq!(from_text(text), nanos, "{text}");
        }
    }

    #[test]
    fn numbers_tell_their_unit_by_their_size() {
        for (text, nanos) in [
            ("1795255210", Some(1_795_255_210_000_000_000)),
            ("1795255210.25", Some(1_795_255_210_250_000_000)),
            ("1795255210250", Some(1_795_255_210_250_000_000)),
            ("1795255210250.5", Some(1_795_255_210_250_500_000)),
            ("1795255210250001", Some(1_795_255_210_250_001_000)),
            ("1795255210250000001", Some(1_795_255_210_250_000_001)),
            ("1.795255210e9", Some(1_795_255_210_000_000_000)),
            ("18446744073709551615", None),
            ("-1", None),
            ("1e300", None),
        ] {
            let (number, _) = Number::read(text, 0).unwrap();
            assert_eq!(from_number(number), nanos, "{text}");
        }
    }
}
