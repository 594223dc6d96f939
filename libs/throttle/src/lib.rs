//! Pressure, policy and class to a throttle decision with a lease.
#![forbid(unsafe_code)]
