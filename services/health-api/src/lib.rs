//! The health-api role: snapshots in, HTTP out; and the commands of operators and consumers, which become records of the
//! sample log like everything else that changes an answer.
#![forbid(unsafe_code)]

mod commands;
mod inputs;
mod observer;
mod role;

pub use commands::{CommandsOptions, LogCommands, Policies, TellReaders};
pub use observer::HttpMetrics;
pub use role::{Role, RoleOptions};
