//! What the API asks of the rest of the service: commands that become records of the log, and what was observed.
//!
//! The API reads from the read model and from nothing else; whatever changes an answer goes through [`Commands`], which
//! the service implements over the sample log. So the routes can be tested without a log, and no route can write past
//! it.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use headroom_model::Timestamp;
use headroom_model::policy::Mode;
use headroom_wire::ProblemItem;
use headroom_wire::operate::{InputsReport, PolicySummary};

/// A future behind a pointer, so that [`Commands`] can be a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why a command did not happen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CommandError {
    /// Not now: the log does not take it. The caller may repeat it.
    Unavailable(String),
    /// Not like this.
    Refused(String),
}

impl fmt::Display for CommandError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Unavailable(detail) | Self::Refused(detail)) = self;
        formatter.write_str(detail)
    }
}

impl std::error::Error for CommandError {}

/// Why the clock did not move.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClockError {
    /// It never goes back.
    Backwards {
        /// What it shows.
        now: Timestamp,
    },
    /// The step holds too many ticks.
    TooManyTicks {
        /// How many.
        ticks: u64,
        /// How many one step may hold.
        max: u64,
    },
    /// Not now. The caller may repeat it.
    Unavailable(String),
}

/// A change of mode, by an operator.
#[derive(Clone, PartialEq, Debug)]
pub struct SetMode {
    /// The cell, or all.
    pub cell: Option<Arc<str>>,
    /// The mode, or what the policy says.
    pub mode: Option<Mode>,
    /// Who asked.
    pub owner: Arc<str>,
    /// Why.
    pub reason: Arc<str>,
}

/// A removal, by an operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemoveServer {
    /// The cell.
    pub cell: Arc<str>,
    /// The server's own name.
    pub server: Arc<str>,
    /// Who asked.
    pub owner: Arc<str>,
    /// Why.
    pub reason: Arc<str>,
}

/// What a consumer acts on and uses.
#[derive(Clone, PartialEq, Debug)]
pub struct Ack {
    /// The cell.
    pub cell: Arc<str>,
    /// The server's own name.
    pub server: Arc<str>,
    /// The workload class.
    pub class: Arc<str>,
    /// The consumer's name.
    pub consumer: Arc<str>,
    /// The epoch it acts on.
    pub epoch: i64,
    /// Share of the nominal in use.
    pub in_use: f64,
}

/// The policy in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PolicyText {
    /// Its version.
    pub hash: Arc<str>,
    /// Its YAML.
    pub text: Arc<str>,
}

/// What the API may have done. All of it is durable when the future ends.
pub trait Commands: Send + Sync + 'static {
    /// Records a mode; it is in force from the next tick on.
    fn set_mode(&self, command: SetMode) -> BoxFuture<'_, Result<(), CommandError>>;

    /// Whether readers, also those of this process, are told of every mode in the one order in which operators set them;
    /// otherwise whoever sets it tells those of this process.
    fn readers_are_told(&self) -> bool {
        false
    }

    /// Records that a server leaves.
    fn remove_server(&self, command: RemoveServer) -> BoxFuture<'_, Result<(), CommandError>>;

    /// Records acks. Where it fails some may be recorded all the same; to repeat them is harmless, for the last one of a
    /// server and class counts.
    fn append_acks(&self, acks: Vec<Ack>) -> BoxFuture<'_, Result<(), CommandError>>;

    /// Appends every tick boundary in (last, now], and ends when the snapshots up to them are in the read model.
    /// Answers the epoch of every cell. Called in event time only.
    fn advance_clock(&self, now: Timestamp) -> BoxFuture<'_, Result<BTreeMap<String, i64>, ClockError>>;

    /// Says whether a text is a policy, and all that is wrong with it if not. Changes nothing.
    fn check_policy(&self, text: String) -> BoxFuture<'_, Result<PolicySummary, Vec<ProblemItem>>>;

    /// The policy that cells without one of their own get.
    fn policy(&self) -> PolicyText;

    /// Cells that have lately refused servers, because they have as many as they may.
    fn full_cells(&self) -> Vec<Arc<str>> {
        Vec::new()
    }

    /// Metrics seen: matched, unused, refused.
    fn inputs(&self) -> BoxFuture<'_, Result<InputsReport, CommandError>>;
}

/// Who wants to know what the API does: the service's metrics. Called on the request's own thread; must not wait.
pub trait Observer: Send + Sync + 'static {
    /// A request was answered: the route's pattern, method, status and seconds to the answer's head.
    fn answered(&self, route: &str, method: &str, status: u16, seconds: f64);

    /// So many watchers are connected now.
    fn watchers(&self, open: usize);

    /// A bound of [`crate::ApiLimits`] refused a request.
    fn refused(&self, limit: &'static str);
}

/// Nobody wants to know.
pub struct Unobserved;

impl Observer for Unobserved {
    fn answered(&self, _: &str, _: &str, _: u16, _: f64) {}
    fn watchers(&self, _: usize) {}
    fn refused(&self, _: &'static str) {}
}
