//! Scenarios as text, and the ways to run them.
//!
//! A scenario says who sends what when, lets time pass, and states what must then be true. The same text runs at every
//! boundary that takes samples and ticks; here is the innermost, the engine, and with it the [`Variation`]s under which
//! the published bytes must not change: other batches, another order, repeats, a kill between two ticks.
#![forbid(unsafe_code)]

mod expect;
mod random;
mod run;
mod scenario;

pub use random::Random;
pub use run::{Outcome, Variation, compile, run};
pub use scenario::{Scenario, Step};

/// The time that scenarios call 0: 2026-11-21T10:00:00Z.
pub const BASE_SECONDS: i64 = 1_795_255_200;
