//! The records of the API as serde types: for the API, its clients, events and the command line.
//!
//! Names in here are a contract from the first day: more fields are welcome, renaming is not. That is why these types
//! stand apart from `headroom-model`, whose fields may change with the code. Text is borrowed where a record is made
//! from a snapshot (`ServerRecord<'a>`), because a point read must not allocate for each name in it; a reader of JSON
//! uses `ServerRecord<'static>`. An unknown number is `null`, never 0; times are RFC 3339 UTC; durations are seconds in
//! `…Seconds`.
#![forbid(unsafe_code)]

pub mod arrow;
mod because;
pub mod bulk;
mod counterfactual;
pub mod explain;
pub mod operate;
pub mod problem;
pub mod record;
pub mod rollup;
mod row;
pub mod time;

pub use arrow::{snapshot_batch, snapshot_schema};
pub use bulk::{BatchGet, DecisionList, List};
pub use explain::Explain;
pub use problem::{Problem, ProblemItem};
pub use record::{Check, Decision, OnExpiry, Reason, ServerRecord, Signal};
pub use rollup::{CellRecord, PoolRecord};
pub use row::{Reading, RowReader};
pub use time::Time;
