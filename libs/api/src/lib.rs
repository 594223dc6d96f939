//! HTTP: routes, OpenAPI, problem details, watch.
//!
//! Everything is read from the read model and written through [`Commands`]. Three paths are kept apart, because one
//! must not be able to hold up the other: point reads and probes run on the request's task and wait for nothing; lists,
//! snapshots and batches need a place among a bounded number and run on blocking threads; streams are fed by a task
//! each that waits for its reader. Operators' commands have places of their own, so that no flood of questions shuts them
//! out. [`serve`] bounds what a connection may cost.
#![forbid(unsafe_code)]

mod access;
mod cache;
mod cursor;
mod error;
mod openapi;
mod ports;
mod request;
mod respond;
mod router;
mod routes;
mod serve;
mod snapshot_cache;
mod stall;
mod state;

pub use access::{guarded, guarded_alone};
pub use openapi::{openapi, openapi_json};
pub use ports::{
    Ack, BoxFuture, ClockError, CommandError, Commands, Observer, PolicyText, RemoveServer, SetMode, Unobserved,
};
pub use router::router;
pub use routes::watch::WatchEvent;
pub use serve::serve;
pub use state::{ApiLimits, ApiParts, ApiState, Now};
