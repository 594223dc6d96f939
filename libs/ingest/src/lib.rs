//! Bytes to sample batches: OTLP wire walk, OTLP JSON, identity. Pure functions, fuzzed.
#![forbid(unsafe_code)]
