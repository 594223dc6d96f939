//! Locks that survive a panic of another thread: every critical section in this crate leaves its state consistent after
//! each statement, so a poisoned lock holds nothing that is worse than what an unpoisoned one holds.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, whether poisoned or not.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
