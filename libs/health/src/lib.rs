//! Signals to pressures, score, states with hysteresis, peers, confidence and reasons.
//!
//! [`HealthState::step`] is the only entry: one tick, all servers of a cell, columns in and columns out. What it keeps
//! between ticks is what a pure function of one window cannot know: how long a condition has lasted, what a vanished
//! signal showed last, and what is usual for a server and its pool.
//!
//! Why a pass over blocks of servers with the signals inside, and not server by server: a signal is a column, so its
//! loop is a few vector instructions, and a block is small enough that what the families add up stays in the cache.
//!
//! The order of a tick, one file each:
//!
//! 1. `peers`: median and spread of each signal within each pool;
//! 2. `pressure`, `signal`: value → pressure and status, what vanished, what is usual;
//! 3. `deviation`: who is unlike the pool, or unlike itself;
//! 4. `server`, `latch`: states with entry, exit and hold rules, and the latch on flapping;
//! 5. `reason`: at most three causes;
//! 6. `step` composes these over the columns of a `block` and writes the frame.
//!
//! States are for people and placement. The throttle reads pressures: control by states oscillates.
#![forbid(unsafe_code)]

mod block;
mod deviation;
mod latch;
mod peers;
mod pressure;
mod reason;
mod server;
mod signal;
mod step;
mod tick;

pub use step::{HealthCounters, HealthState};

/// A slow reporter's windows stretch to this many of its intervals.
const WINDOW_INTERVALS: f32 = 2.5;

/// A slow reporter is unknown after this many missed reports.
const UNKNOWN_INTERVALS: f32 = 4.0;

/// Whole Unix seconds in the 32 bits that the columns keep; 0 stands for never. Holds until 2106.
fn seconds32(tick: headroom_model::Timestamp) -> u32 {
    tick.seconds().clamp(1, i64::from(u32::MAX)) as u32
}

/// A span of the policy in the 32 bits that the columns keep.
fn span32(seconds: i64) -> u32 {
    seconds.clamp(0, i64::from(u32::MAX)) as u32
}
