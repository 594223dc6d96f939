//! SQL expression text to compiled DataFusion expressions over the batch of a tick.
#![forbid(unsafe_code)]
