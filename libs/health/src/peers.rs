//! Median and spread of a signal within each pool.
//!
//! Median and MAD rather than mean and deviation: a bad server inflates the deviation it is measured by, so that in a
//! group of five a single one can never reach two sigma; the MAD holds until half of the group is bad.
//!
//! Of a large pool an even sample of its servers is looked at. With [`SAMPLED_MAX`] servers the median is off by 4 % of
//! the spread, nothing beside a bar of four, and the cost of a tick no longer depends on how servers are pooled.

use headroom_model::frame::ServerFrame;

/// Servers of one pool that are looked at.
pub(crate) const SAMPLED_MAX: usize = 1024;

/// From the MAD to the standard deviation of a normal distribution.
const MAD_TO_SIGMA: f64 = 1.4826;

/// The servers of each pool, in slot order. Pool 0 is nobody's peer group and has none here.
#[derive(Debug, Default)]
pub(crate) struct Members {
    slots: Vec<u32>,
    offsets: Vec<u32>,
}

impl Members {
    /// Sorts the servers by pool: those that live and are not silent.
    pub(crate) fn gather(&mut self, servers: &ServerFrame, slots: usize, pools: usize, silent_seconds: f32) {
        let counts = |slot: usize| {
            let pool = servers.pool[slot] as usize;
            (servers.live[slot] && pool != 0 && pool < pools && servers.age_seconds[slot] <= silent_seconds)
                .then_some(pool)
        };
        self.offsets.clear();
        self.offsets.resize(pools + 1, 0);
        for pool in (0..slots).filter_map(counts) {
            self.offsets[pool + 1] += 1;
        }
        for pool in 0..pools {
            self.offsets[pool + 1] += self.offsets[pool];
        }
        self.slots.clear();
        self.slots.resize(self.offsets[pools] as usize, 0);
        let mut next = self.offsets.clone();
        for slot in 0..slots {
            if let Some(pool) = counts(slot) {
                self.slots[next[pool] as usize] = slot as u32;
                next[pool] += 1;
            }
        }
    }

    /// The slots of a pool.
    pub(crate) fn of(&self, pool: usize) -> &[u32] {
        match (self.offsets.get(pool), self.offsets.get(pool + 1)) {
            (Some(from), Some(to)) => &self.slots[*from as usize..*to as usize],
            _ => &[],
        }
    }
}

/// One signal within one pool.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Group {
    /// The median; NaN where the group is too small to judge by.
    pub(crate) median: f64,
    /// The spread in the manner of a standard deviation, without the epsilon of z.
    pub(crate) sigma: f64,
}

impl Group {
    /// Too small to judge by.
    pub(crate) const NONE: Self = Self { median: f64::NAN, sigma: f64::NAN };

    /// Whether the group is large enough to judge by.
    pub(crate) fn judges(&self) -> bool {
        !self.median.is_nan()
    }
}

/// The group of a pool whose servers have these values; `value` answers NaN where a server has none to compare.
pub(crate) fn group(members: &[u32], peers_min: usize, scratch: &mut Vec<i64>, value: impl Fn(usize) -> f64) -> Group {
    let stride = members.len().div_ceil(SAMPLED_MAX).max(1);
    scratch.clear();
    let mut at = 0;
    while let Some(slot) = members.get(at) {
        let value = value(*slot as usize);
        if value.is_finite() {
            scratch.push(sortable(value));
        }
        at += stride;
    }
    if scratch.len() < peers_min.max(1) {
        return Group::NONE;
    }
    let median = median(scratch);
    for key in scratch.iter_mut() {
        *key = sortable((value_of(*key) - median).abs());
    }
    Group { median, sigma: MAD_TO_SIGMA * self::median(scratch) }
}

/// A value as an integer of the same order: integers are selected without the branches of `total_cmp`.
fn sortable(value: f64) -> i64 {
    let bits = value.to_bits() as i64;
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

/// The value of [`sortable`]'s integer.
fn value_of(key: i64) -> f64 {
    f64::from_bits((key ^ (((key >> 63) as u64) >> 1) as i64) as u64)
}

/// The median of keys that are not empty; leaves them in another order.
fn median(keys: &mut [i64]) -> f64 {
    let middle = keys.len() / 2;
    let odd = keys.len() % 2 == 1;
    let (below, upper, _) = keys.select_nth_unstable(middle);
    let upper = value_of(*upper);
    let Some(lower) = below.iter().max().filter(|_| !odd) else { return upper };
    let lower = value_of(*lower);
    lower + (upper - lower) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_mad() {
        for (values, median, mad) in [
            (vec![1.0, 2.0, 3.0, 4.0, 100.0], 3.0, 1.0),
            (vec![4.0, 1.0, 3.0, 2.0, f64::NAN, 2.5], 2.5, 0.5),
            (vec![7.0; 6], 7.0, 0.0),
        ] {
            let members: Vec<u32> = (0..values.len() as u32).collect();
            let found = group(&members, 5, &mut Vec::new(), |slot| values[slot]);
            assert_eq!(found, Group { median, sigma: MAD_TO_SIGMA * mad }, "{values:?}");
        }
        assert!(!group(&[0, 1, 2, 3], 5, &mut Vec::new(), |_| 1.0).judges());
    }

    #[test]
    fn the_default_pool_the_dead_and_the_silent_are_no_peers() {
        let servers = ServerFrame {
            live: vec![true, true, false, true, true],
            pool: vec![0, 1, 1, 1, 2],
            age_seconds: vec![1.0, 1.0, 1.0, f32::INFINITY, 3600.0],
            ..ServerFrame::default()
        };
        let mut members = Members::default();
        members.gather(&servers, 5, 3, 3600.0);
        assert_eq!([members.of(0), members.of(1), members.of(2), members.of(3)], [&[][..], &[1], &[4], &[]]);
    }
}
