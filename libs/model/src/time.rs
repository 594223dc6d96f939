//! Time as an argument. Nothing in the layers 0-2 reads a clock; whoever calls says what time it is.

/// Nanoseconds in a second.
pub const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// The year 2000, ns since 1970. No sample is older: a time before it is of a clock that was never set, or in another unit
/// than nanoseconds.
pub const EARLIEST_NS: i64 = 946_684_800 * NANOS_PER_SECOND;

/// A point in time: nanoseconds since the Unix epoch, UTC. The range (1677 to 2262) is that of OTLP's `fixed64` times.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The time `seconds` after the Unix epoch, saturating.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(NANOS_PER_SECOND))
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(NANOS_PER_SECOND)
    }

    /// `self - other` in seconds.
    pub fn seconds_since(self, other: Self) -> f64 {
        self.0.saturating_sub(other.0) as f64 / NANOS_PER_SECOND as f64
    }

    /// The latest multiple of `period` seconds that is not after `self`: where a tick lies. Euclidean, so that times
    /// before 1970 round down too. `period` must be positive.
    pub const fn floor_to(self, period_seconds: i64) -> Self {
        let period = period_seconds * NANOS_PER_SECOND;
        Self(self.0.div_euclid(period) * period)
    }

    /// `self` moved by whole seconds, saturating.
    pub const fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(NANOS_PER_SECOND)))
    }
}

#[cfg(test)]
mod tests {
    use super::Timestamp;

    #[test]
    fn ticks_round_down_on_both_sides_of_1970() {
        for (seconds, period, floor) in [(19, 10, 10), (20, 10, 20), (-1, 10, -10), (-10, 10, -10), (0, 60, 0)] {
            assert_eq!(Timestamp::from_seconds(seconds).floor_to(period), Timestamp::from_seconds(floor), "{seconds}");
        }
    }
}
