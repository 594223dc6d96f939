//! The deterministic state machine of a cell.
#![forbid(unsafe_code)]
