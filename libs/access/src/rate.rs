//! How much one caller may ask for: token buckets in a bounded table.
//!
//! A bucket holds two seconds' worth. Requests are paid for before, bytes after: a body that is larger than what is left
//! is taken, and the caller is in debt until it is paid off, so that any body that is allowed at all gets through.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustc_hash::{FxBuildHasher, FxHashMap};
use std::hash::BuildHasher;

use crate::denial::Denial;

/// Callers told apart. Beyond it new ones share a bucket until an idle one is forgotten; nobody active is evicted.
pub const CALLERS_TRACKED_MAX: usize = 65_536;

/// Locks of the table: two requests seldom want the same.
const SHARDS: usize = 16;

/// What may be saved up.
const BURST: Duration = Duration::from_secs(2);

/// A full table is searched for idle callers no more often than this.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// What one caller may have, per second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rates {
    /// Requests of the HTTP API.
    pub requests_per_second: u64,
    /// OTLP requests.
    pub exports_per_second: u64,
    /// Bytes of OTLP bodies as sent.
    pub export_bytes_per_second: u64,
}

/// Whom a request is counted against.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Account {
    /// A caller by name.
    Named(Arc<str>),
    /// A machine by address; of IPv6 the network, of which a machine has many addresses.
    Address(IpAddr),
    /// Tests have no peer.
    Unknown,
}

impl Account {
    pub(crate) fn of_address(address: Option<IpAddr>) -> Self {
        match address.map(|address| address.to_canonical()) {
            Some(IpAddr::V6(address)) => {
                Self::Address(IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()))
            }
            Some(address) => Self::Address(address),
            None => Self::Unknown,
        }
    }
}

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Meter {
    Requests,
    Exports,
    ExportBytes,
}

impl Meter {
    const COUNT: usize = 3;

    fn limit(self) -> &'static str {
        match self {
            Self::Requests => "requests_per_second",
            Self::Exports => "exports_per_second",
            Self::ExportBytes => "export_bytes_per_second",
        }
    }
}

/// What is left of each meter, as of a time.
#[derive(Clone, Copy, Debug)]
struct Buckets {
    left: [f64; Meter::COUNT],
    at: Instant,
}

#[derive(Debug, Default)]
struct Shard {
    buckets: FxHashMap<Account, Buckets>,
    overflow: Option<Buckets>,
    swept: Option<Instant>,
}

/// The table.
#[derive(Debug)]
pub(crate) struct RateTable {
    rates: [f64; Meter::COUNT],
    per_shard_max: usize,
    shards: [Mutex<Shard>; SHARDS],
}

impl RateTable {
    pub(crate) fn new(rates: Rates, tracked_max: usize) -> Self {
        let Rates { requests_per_second, exports_per_second, export_bytes_per_second } = rates;
        Self {
            rates: [requests_per_second as f64, exports_per_second as f64, export_bytes_per_second as f64],
            per_shard_max: tracked_max.div_ceil(SHARDS),
            shards: Default::default(),
        }
    }

    /// Takes `amount` if the bucket is not empty.
    pub(crate) fn take(&self, account: &Account, meter: Meter, amount: f64, now: Instant) -> Result<(), Denial> {
        let rate = self.rates[meter as usize];
        self.with(account, now, |buckets| {
            let left = &mut buckets.left[meter as usize];
            // Bytes are asked for with 0 and charged later: then any credit will do.
            if *left < amount.max(f64::MIN_POSITIVE) {
                let retry_after = Duration::from_secs_f64(((amount.max(1.0) - *left) / rate).clamp(0.0, 3_600.0));
                return Err(Denial::TooMany { limit: meter.limit(), per_second: rate as u64, retry_after });
            }
            *left -= amount;
            Ok(())
        })
    }

    /// Takes `amount` even if that makes a debt.
    pub(crate) fn charge(&self, account: &Account, meter: Meter, amount: f64, now: Instant) {
        self.with(account, now, |buckets| buckets.left[meter as usize] -= amount);
    }

    fn with<R>(&self, account: &Account, now: Instant, act: impl FnOnce(&mut Buckets) -> R) -> R {
        let shard = FxBuildHasher.hash_one(account) as usize >> 7 & (SHARDS - 1);
        let mut shard = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        let full = || Buckets { left: self.rates.map(|rate| self.capacity(rate)), at: now };
        if shard.buckets.len() >= self.per_shard_max && !shard.buckets.contains_key(account) {
            let is_due = shard.swept.is_none_or(|last| now.saturating_duration_since(last) >= SWEEP_EVERY);
            if is_due {
                shard.swept = Some(now);
                shard.buckets.retain(|_, buckets| {
                    self.refill(buckets, now);
                    (0..Meter::COUNT).any(|meter| buckets.left[meter] < self.capacity(self.rates[meter]))
                });
            }
            if shard.buckets.len() >= self.per_shard_max {
                let buckets = shard.overflow.get_or_insert_with(full);
                self.refill(buckets, now);
                return act(buckets);
            }
        }
        // The common case is a caller that is there, and needs no copy of its name.
        if let Some(buckets) = shard.buckets.get_mut(account) {
            self.refill(buckets, now);
            return act(buckets);
        }
        act(shard.buckets.entry(account.clone()).or_insert_with(full))
    }

    fn capacity(&self, rate: f64) -> f64 {
        rate * BURST.as_secs_f64()
    }

    fn refill(&self, buckets: &mut Buckets, now: Instant) {
        let seconds = now.saturating_duration_since(buckets.at).as_secs_f64();
        for (left, rate) in buckets.left.iter_mut().zip(self.rates) {
            *left = (*left + seconds * rate).min(self.capacity(rate));
        }
        buckets.at = buckets.at.max(now);
    }

    #[cfg(test)]
    fn tracked(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).buckets.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates = Rates { requests_per_second: 10, exports_per_second: 5, export_bytes_per_second: 1_000 };

    fn named(name: &str) -> Account {
        Account::Named(name.into())
    }

    #[test]
    fn a_caller_has_a_burst_and_then_its_rate_and_others_have_theirs() {
        let (table, start) = (RateTable::new(RATES, CALLERS_TRACKED_MAX), Instant::now());
        let taken = |name: &str, now| {
            let account = named(name);
            (0..100).take_while(|_| table.take(&account, Meter::Requests, 1.0, now).is_ok()).count()
        };
        assert_eq!(taken("a", start), 20);
        let refused = table.take(&named("a"), Meter::Requests, 1.0, start);
        let retry_after = Duration::from_millis(100);
        let expected = Denial::TooMany { limit: "requests_per_second", per_second: 10, retry_after };
        assert_eq!(refused, Err(expected));
        assert_eq!(taken("a", start + Duration::from_secs(1)), 10);
        assert_eq!(taken("b", start), 20, "another caller");
        assert_eq!(taken("a", start + Duration::from_secs(60)), 20, "nothing is saved beyond the burst");
        assert!(table.take(&named("a"), Meter::Exports, 1.0, start).is_ok(), "meters are apart");
    }

    #[test]
    fn a_large_body_is_taken_and_paid_off() {
        let (table, start) = (RateTable::new(RATES, CALLERS_TRACKED_MAX), Instant::now());
        let ask = |at: u64| table.take(&named("a"), Meter::ExportBytes, 0.0, start + Duration::from_secs(at)).is_ok();
        assert!(ask(0));
        table.charge(&named("a"), Meter::ExportBytes, 5_000.0, start);
        assert_eq!([ask(0), ask(2), ask(4)], [false, false, true]);
    }

    #[test]
    fn the_table_is_bounded_and_forgets_only_the_idle() {
        let (table, start) = (RateTable::new(RATES, SHARDS), Instant::now());
        for caller in 0..1_000 {
            let _ = table.take(&named(&caller.to_string()), Meter::Requests, 1.0, start);
        }
        assert_eq!(table.tracked(), SHARDS);
        // All of them have spent something; only when that is refilled may a new one take a place.
        let later = start + Duration::from_secs(3);
        for caller in 1_000..1_200 {
            assert!(table.take(&named(&caller.to_string()), Meter::Requests, 1.0, later).is_ok(), "{caller}");
        }
        assert_eq!(table.tracked(), SHARDS);
    }

    #[test]
    fn one_network_of_ipv6_is_one_account() {
        let of = |text: &str| Account::of_address(Some(text.parse().expect("an address")));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.2"), of("10.0.0.1"));
    }
}
