//! A mergeable histogram of positive values in exponential buckets, small enough to keep one per server.
//!
//! Base `2^(2^-scale)`, as in OTLP: bucket `i` holds values in `(base^i, base^(i+1)]`. Explicit OTLP buckets are folded
//! in by spreading a bucket's count evenly over the logarithm of its range, exponential ones by downscaling, so that
//! what several senders report in different layouts adds up. Counts are `f64` because folding splits them; every fold
//! runs over buckets in ascending order, so that equal inputs give equal bits.

/// Largest number of buckets; the scale falls by one when more are needed (32 × 8 bytes: 256 bytes a histogram).
pub const BUCKETS_MAX: usize = 32;

/// The finest scale: 8 buckets per doubling, a relative error of 4.4 %.
pub const SCALE_MAX: i32 = 3;

/// The scale below which nothing is merged further: one bucket spans `2^1024`, every finite double.
const SCALE_MIN: i32 = -10;

/// Observations in exponential buckets.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpHistogram {
    scale: i32,
    offset: i32,
    counts: Vec<f64>,
    /// Observations at or below zero.
    zero: f64,
}

impl Default for ExpHistogram {
    fn default() -> Self {
        Self { scale: SCALE_MAX, offset: 0, counts: Vec::new(), zero: 0.0 }
    }
}

impl ExpHistogram {
    /// Number of observations.
    pub fn count(&self) -> f64 {
        self.zero + self.counts.iter().sum::<f64>()
    }

    /// Forgets everything but the allocation.
    pub fn clear(&mut self) {
        self.scale = SCALE_MAX;
        self.offset = 0;
        self.counts.clear();
        self.zero = 0.0;
    }

    /// Adds `count` observations at or below zero.
    pub fn add_zero(&mut self, count: f64) {
        self.zero += count;
    }

    /// Adds `count` observations in the bucket `index` of `scale`.
    pub fn add_bucket(&mut self, scale: i32, index: i32, count: f64) {
        if count.is_nan() || count <= 0.0 {
            return;
        }
        let coarse = scale.max(SCALE_MIN);
        let index = if coarse > self.scale {
            shift_right(index, coarse - self.scale)
        } else {
            self.downscale_to(coarse);
            index
        };
        // Senders may name buckets in which no double lies. Inside of these bounds everything fits at `SCALE_MIN`.
        let mut index = within_doubles(index, self.scale);
        while self.scale > SCALE_MIN && !self.fits(index) {
            self.downscale_to(self.scale - 1);
            index = within_doubles(shift_right(index, 1), self.scale);
        }
        if self.counts.is_empty() {
            self.offset = index;
            self.counts.push(0.0);
        }
        if index < self.offset {
            let missing = (self.offset - index) as usize;
            self.counts.splice(0..0, std::iter::repeat_n(0.0, missing));
            self.offset = index;
        }
        let at = (index - self.offset) as usize;
        if at >= self.counts.len() {
            self.counts.resize(at + 1, 0.0);
        }
        self.counts[at] += count;
    }

    /// Adds `count` observations spread over `(low, high]`, evenly in the logarithm. A range that begins at or below
    /// zero counts at its upper end's half, an unbounded one at its lower end: what explicit buckets can tell.
    pub fn add_range(&mut self, low: f64, high: f64, count: f64) {
        if count.is_nan() || count <= 0.0 {
            return;
        }
        if high <= 0.0 {
            self.zero += count;
        } else if !high.is_finite() {
            self.add_value(low.max(f64::MIN_POSITIVE), count);
        } else {
            // A first bucket (0, b] says nothing about how small its values are: half to full of its bound. Half of the
            // smallest double is zero, whose logarithm no bucket has.
            let low = if low > 0.0 && low <= high { low } else { (high / 2.0).max(f64::MIN_POSITIVE) };
            let high = high.max(low);
            let (log_low, log_high) = (low.log2(), high.log2());
            let width = 2f64.powi(-self.scale);
            let first = bucket_above(low, self.scale);
            let last = bucket_of(high, self.scale).max(first);
            let (scale, span) = (self.scale, (log_high - log_low).max(f64::MIN_POSITIVE));
            for index in first..=last {
                let from = (f64::from(index) * width).max(log_low);
                let to = (f64::from(index + 1) * width).min(log_high);
                let share = if first == last { 1.0 } else { (to - from).max(0.0) / span };
                self.add_bucket(scale, index, count * share);
            }
        }
    }

    /// Adds `count` observations of one value.
    pub fn add_value(&mut self, value: f64, count: f64) {
        if value > 0.0 && value.is_finite() {
            let scale = self.scale;
            self.add_bucket(scale, bucket_of(value, scale), count);
        } else if value <= 0.0 {
            self.zero += count;
        }
    }

    /// Adds all observations of another histogram.
    pub fn merge(&mut self, other: &Self) {
        self.zero += other.zero;
        for (at, count) in other.counts.iter().enumerate() {
            self.add_bucket(other.scale, other.offset + at as i32, *count);
        }
    }

    /// The value below which a share `q` (0-1) of the observations lies, interpolated in the logarithm inside a bucket;
    /// `None` without observations.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let total = self.count();
        if total.is_nan() || total <= 0.0 {
            return None;
        }
        let rank = q.clamp(0.0, 1.0) * total;
        let mut below = self.zero;
        if rank <= below {
            return Some(0.0);
        }
        let width = 2f64.powi(-self.scale);
        for (at, count) in self.counts.iter().enumerate() {
            if *count > 0.0 && rank <= below + count {
                let share = (rank - below) / count;
                return Some(((f64::from(self.offset + at as i32) + share) * width).exp2().min(f64::MAX));
            }
            below += count;
        }
        let end = self.offset + self.counts.len() as i32;
        Some((f64::from(end) * width).exp2().min(f64::MAX))
    }

    fn fits(&self, index: i32) -> bool {
        if self.counts.is_empty() {
            return true;
        }
        let low = index.min(self.offset);
        let high = index.max(self.offset + self.counts.len() as i32 - 1);
        ((i64::from(high) - i64::from(low)) as usize) < BUCKETS_MAX
    }

    fn downscale_to(&mut self, scale: i32) {
        if scale >= self.scale {
            return;
        }
        let by = self.scale - scale;
        if !self.counts.is_empty() {
            let first = shift_right(self.offset, by);
            let last = shift_right(self.offset + self.counts.len() as i32 - 1, by);
            let mut merged = vec![0.0; (last - first + 1) as usize];
            for (at, count) in self.counts.iter().enumerate() {
                merged[(shift_right(self.offset + at as i32, by) - first) as usize] += count;
            }
            self.offset = first;
            self.counts = merged;
        }
        self.scale = scale;
    }
}

/// The nearest bucket of a scale that a double can lie in, or that is next to one: `2^-1074` to `2^1024` and a margin.
fn within_doubles(index: i32, scale: i32) -> i32 {
    let bound = (1100.0 * 2f64.powi(scale)).ceil() as i32 + 1;
    index.clamp(-bound, bound)
}

fn shift_right(index: i32, by: i32) -> i32 {
    index >> by.clamp(0, 31)
}

/// The bucket whose range `(base^i, base^(i+1)]` holds `value`.
fn bucket_of(value: f64, scale: i32) -> i32 {
    (value.log2() * 2f64.powi(scale)).ceil() as i32 - 1
}

/// The first bucket that reaches above `value`.
fn bucket_above(value: f64, scale: i32) -> i32 {
    (value.log2() * 2f64.powi(scale)).floor() as i32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Any double by its bits: subnormals, infinities and NaNs included, which ranges of doubles would never draw.
    fn any_double() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<u64>().prop_map(f64::from_bits),
            prop_oneof![Just(0.0), Just(5e-324), Just(f64::MIN_POSITIVE), Just(f64::MAX), Just(f64::INFINITY)],
        ]
    }

    fn any_index() -> impl Strategy<Value = i32> {
        prop_oneof![any::<i32>(), -2_000..2_000i32, Just(i32::MIN), Just(i32::MAX), Just(1_000_000_000)]
    }

    proptest! {
        /// Whatever senders name, the size stays bounded and nothing is lost.
        #[test]
        fn hostile_buckets_and_ranges_stay_bounded(
            buckets in prop::collection::vec((-40..40i32, any_index()), 0..20),
            ranges in prop::collection::vec((any_double(), any_double()), 0..5),
        ) {
            let mut histogram = ExpHistogram::default();
            for (at, (scale, index)) in buckets.iter().enumerate() {
                histogram.add_bucket(*scale, *index, 1.0);
                prop_assert!(histogram.counts.len() <= BUCKETS_MAX, "{} buckets", histogram.counts.len());
                prop_assert_eq!(histogram.count(), (at + 1) as f64);
            }
            for (low, high) in ranges {
                histogram.add_range(low, high, 1.0);
                prop_assert!(histogram.counts.len() <= BUCKETS_MAX, "{} buckets", histogram.counts.len());
            }
            let mut merged = histogram.clone();
            merged.merge(&histogram);
            prop_assert!(merged.counts.len() <= BUCKETS_MAX, "{} buckets", merged.counts.len());
            prop_assert!(merged.quantile(0.99).is_none_or(f64::is_finite));
        }
    }

    #[test]
    fn buckets_beyond_every_double_merge_into_the_outermost() {
        for offsets in [[0, 1_000_000_000], [-2_000_000_000, 2_000_000_000], [i32::MIN, i32::MAX]] {
            let mut histogram = ExpHistogram::default();
            for offset in offsets {
                histogram.add_bucket(-10, offset, 1.0);
            }
            assert_eq!(histogram.count(), 2.0);
            assert!(histogram.counts.len() <= 7, "{offsets:?}: {} buckets", histogram.counts.len());
        }
    }

    #[test]
    fn a_bound_among_the_smallest_doubles_is_one_bucket_and_not_all_of_them() {
        for bound in [5e-324, 1e-310, f64::MIN_POSITIVE] {
            let mut histogram = ExpHistogram::default();
            histogram.add_range(0.0, bound, 3.0);
            histogram.add_range(bound, bound, 1.0);
            assert!((histogram.count() - 4.0).abs() < 1e-9, "{bound:e}: {}", histogram.count());
            let median = histogram.quantile(0.5).unwrap();
            assert!((0.0..1e-300).contains(&median), "{bound:e}: {median:e}");
        }
    }

    #[test]
    fn quantiles_of_single_values_are_within_a_bucket() {
        for value in [0.001, 0.02, 0.5, 1.0, 3.0, 1_000.0] {
            let mut histogram = ExpHistogram::default();
            histogram.add_value(value, 100.0);
            let got = histogram.quantile(0.95).unwrap();
            assert!((got / value - 1.0).abs() < 0.1, "{value} {got}");
        }
    }

    #[test]
    fn folding_keeps_the_count_and_bounds_the_size() {
        let mut histogram = ExpHistogram::default();
        let bounds = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
        let mut low = 0.0;
        for (at, bound) in bounds.iter().enumerate() {
            histogram.add_range(low, *bound, (at + 1) as f64);
            low = *bound;
        }
        histogram.add_range(10.0, f64::INFINITY, 5.0);
        assert!((histogram.count() - 110.0).abs() < 1e-9, "{}", histogram.count());
        assert!(histogram.counts.len() <= BUCKETS_MAX);
        let p50 = histogram.quantile(0.5).unwrap();
        assert!((0.4..1.5).contains(&p50), "{p50}");
    }

    #[test]
    fn merging_equals_adding() {
        let (mut left, mut right, mut both) =
            (ExpHistogram::default(), ExpHistogram::default(), ExpHistogram::default());
        for i in 1..200 {
            let value = 0.001 * f64::from(i * i);
            if i % 2 == 0 {
                left.add_value(value, 1.0)
            } else {
                right.add_value(value, 1.0)
            }
            both.add_value(value, 1.0);
        }
        left.merge(&right);
        assert_eq!(left.count(), both.count());
        let (a, b) = (left.quantile(0.9).unwrap(), both.quantile(0.9).unwrap());
        assert!((a / b - 1.0).abs() < 0.3, "{a} {b}");
    }

    #[test]
    fn extreme_inputs_do_not_panic() {
        let mut histogram = ExpHistogram::default();
        for (scale, index) in
            [(20, i32::MAX), (20, i32::MIN), (-10, 1), (-10, -1), (0, 1_000_000), (0, -1_000_000), (-31, 0)]
        {
            histogram.add_bucket(scale, index, 1.0);
        }
        for value in [f64::NAN, f64::INFINITY, -1.0, 0.0, f64::MAX, f64::MIN_POSITIVE] {
            histogram.add_value(value, 1.0);
            histogram.add_range(value, value, 1.0);
        }
        assert!(histogram.quantile(0.5).is_some());
    }
}
