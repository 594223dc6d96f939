//! Typed, validated configuration and policy files.
#![forbid(unsafe_code)]
