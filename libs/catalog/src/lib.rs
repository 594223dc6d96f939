//! Metric dialects to inputs; the default signals and policy.
#![forbid(unsafe_code)]
