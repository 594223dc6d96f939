//! Pressure, policy and class to a throttle decision with a lease.
//!
//! [`ThrottleState::step`] is the only entry: one tick, all servers of a cell, a frame per workload class out. The law
//! is proportional: the further the pressure is over a class's set-point, the deeper the cut; below it the class rises
//! slowly. It reads pressures and never states, because on/off control by states oscillates.
//!
//! One file each: `law` is the arithmetic of one class on one server, `step` decides for whole cells and keeps the
//! fractions in force, `ack` is what consumers say of themselves.
//!
//! # Where the guards of a fleet belong
//!
//! A step has two halves. *Propose* derives every decision from its own server alone and writes the frames; *commit*
//! makes the proposed fractions those in force. What looks at a pool or a cell as a whole (brakes, slew, correlated
//! silence) belongs between the two, as a function from frames to frames, so that a fraction it changed is the one the
//! law goes on from.
#![forbid(unsafe_code)]

mod ack;
mod law;
mod step;

pub use ack::AckTable;
pub use step::{Step, ThrottleCounters, ThrottleState};
