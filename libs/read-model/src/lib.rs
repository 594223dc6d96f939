//! The latest snapshot of every cell: lock-free reads, change subscription, look-up by any alias.
#![forbid(unsafe_code)]
