//! Scenarios as text, and the ways to run them.
//!
//! A scenario says who sends what when, lets time pass, and states what must then be true. The same text runs at every
//! boundary that takes samples and ticks. Here is the innermost, the engine, and with it the [`Variation`]s under which
//! the published bytes must not change: other batches, another order, repeats, a kill between two ticks. For a running
//! service, whatever it is made of, [`script`] writes the same scenario down as what to post and what must then be read.
#![forbid(unsafe_code)]

mod expect;
mod random;
mod run;
mod scenario;
pub mod script;

pub use random::Random;
pub use run::{Outcome, Variation, compile, run};
pub use scenario::{Event, Sample, Scenario, Step};

/// The time that scenarios call 0: 2026-11-21T10:00:00Z.
pub const BASE_SECONDS: i64 = 1_795_255_200;
