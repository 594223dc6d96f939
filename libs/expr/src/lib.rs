//! SQL expression text to compiled DataFusion expressions over the batch of a tick.
//!
//! A policy's signals are SQL expressions over nullable numbers. They are compiled once per policy and evaluated over
//! all servers of a cell at each tick, a few thousand rows at a time, so that intermediate columns stay in the cache.
//!
//! Three decisions shape this crate:
//!
//! * **A whitelist instead of a planner.** The syntax tree of the SQL parser is translated node by node; what is not
//!   named in `translate.rs` (subqueries, grouping, windows, `now()`, `random()`, text) does not exist. An expression
//!   is therefore pure, scalar and total by construction, and every complaint has a line and a column, which a planner's
//!   complaints have not.
//! * **No simplifier.** Rewriting rules change between releases of a library, and floating point notices. What is
//!   written is what is computed, so that a decision of last year can be computed again to the bit.
//! * **No number that is not finite.** A division by zero is null, and so is every result that is NaN or infinite.
//!   Functions look through nulls where SQL does (`coalesce`, `greatest`, `least`) and pass them on otherwise.
#![forbid(unsafe_code)]

mod aggregate;
mod compile;
mod error;
mod evaluate;
mod functions;
mod kernels;
mod parse;
mod rollup;
mod state;
mod translate;

pub use compile::{EWMA_CALLS_MAX, Program, compile, compile_score, score_columns};
pub use error::{EvaluateError, ExprError, nearest};
pub use functions::function_names;
pub use parse::EXPRESSION_BYTES_MAX;
pub use rollup::{AGGREGATES_MAX, Rollup, STATES, State, compile_rollup, rollup_columns};
pub use state::ExprState;
pub use translate::EXPRESSION_NODES_MAX;
