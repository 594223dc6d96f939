//! What may be under way at once: bytes of bodies and connections. Everything beyond is refused by name, at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of a unit of the budget: a semaphore counts to 2^32 units at most, and single bytes would be many.
pub(crate) const UNIT_BYTES: u64 = 1024;

/// Bounds of the OTLP role.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a body as sent.
    pub body_bytes_max: u64,
    /// Bytes of a body after decompression.
    pub body_decompressed_bytes_max: u64,
    /// Bytes of a gRPC message, as sent and after decompression.
    pub grpc_message_bytes_max: u64,
    /// Bytes of all bodies under way.
    pub inflight_bytes_max: u64,
    /// Connections of a listener.
    pub connections_max: usize,
    /// How long a sender may take over the head of a request, the first included.
    pub head_timeout: Duration,
    /// How long a request may take to arrive.
    pub request_timeout: Duration,
    /// What a refused sender is told to wait.
    pub retry_after: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 20 << 20,
            body_decompressed_bytes_max: 64 << 20,
            grpc_message_bytes_max: 16 << 20,
            inflight_bytes_max: 256 << 20,
            connections_max: 10_000,
            head_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            retry_after: Duration::from_secs(1),
        }
    }
}

/// A bound in bytes with the name that its key in the configuration has: what a refusal is counted and explained by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    /// The key's last part.
    pub(crate) name: &'static str,
    /// Its value.
    pub(crate) bytes: u64,
}

/// The byte budget of all requests under way.
#[derive(Clone, Debug)]
pub struct Budget {
    units: Arc<Semaphore>,
    bound_bytes: u64,
}

/// Bytes taken from the budget; given back when dropped.
#[derive(Debug, Default)]
pub struct Held(Vec<OwnedSemaphorePermit>);

impl Budget {
    /// A budget of so many bytes.
    pub fn new(bound_bytes: u64) -> Self {
        let units = (bound_bytes / UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS as u64 / 2);
        Self { units: Arc::new(Semaphore::new(units as usize)), bound_bytes }
    }

    /// The bound.
    pub fn bound_bytes(&self) -> u64 {
        self.bound_bytes
    }

    /// Bytes free.
    pub fn free_bytes(&self) -> u64 {
        self.units.available_permits() as u64 * UNIT_BYTES
    }

    /// Takes bytes if they are free; whether it did.
    pub fn take(&self, bytes: u64, held: &mut Held) -> bool {
        let units = bytes.div_ceil(UNIT_BYTES).try_into().unwrap_or(u32::MAX);
        match self.units.clone().try_acquire_many_owned(units) {
            Ok(permit) => {
                held.0.push(permit);
                true
            }
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_refuses_what_does_not_fit_and_gets_it_back() {
        let budget = Budget::new(10 * UNIT_BYTES);
        let mut held = Held::default();
        assert!(budget.take(9 * UNIT_BYTES, &mut held));
        assert!(!budget.take(2 * UNIT_BYTES, &mut held));
        assert!(budget.take(1, &mut held));
        assert_eq!(budget.free_bytes(), 0);
        drop(held);
        assert_eq!(budget.free_bytes(), 10 * UNIT_BYTES);
    }
}
