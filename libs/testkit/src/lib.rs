//! Scenarios, the simulated clock and check() helpers.
#![forbid(unsafe_code)]
