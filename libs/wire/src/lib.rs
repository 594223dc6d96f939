//! The records of the API as serde types.
#![forbid(unsafe_code)]
