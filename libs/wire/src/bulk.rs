//! Answers and questions about many servers at once.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::record::Decision;
use crate::time::Time;

/// A page of a list.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct List<T> {
    /// Version: the smallest epoch of the cells answered from; `null` while there is none.
    pub epoch: Option<i64>,
    /// The same as a time.
    pub as_of: Option<Time>,
    /// When the first of the leases ends.
    pub valid_until: Option<Time>,
    /// Whether any of the cells is stale.
    pub stale: bool,
    /// The page.
    pub items: Vec<T>,
    /// Pass it as `cursor` to get the next page; `null` on the last one.
    pub next_cursor: Option<String>,
}

/// A page of decisions. With `since`, those that changed after it and the servers that left. All others are renewed by the
/// `validUntil` of their own cell in `cells`, and by nothing else: a cell whose engine is dead renews nothing.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DecisionList<'a> {
    /// Version: the smallest epoch of the cells answered from; pass it as the next `since`.
    pub epoch: Option<i64>,
    /// The same as a time.
    pub as_of: Option<Time>,
    /// When the first of the leases of all cells ends. It renews nothing; `cells` does.
    pub valid_until: Option<Time>,
    /// Whether any of the cells is stale.
    pub stale: bool,
    /// Cells answered from, with what they are at.
    pub cells: Vec<CellEpoch<'a>>,
    /// The decisions.
    pub items: Vec<Decision<'a>>,
    /// Servers that left after `since`.
    pub removed: Vec<RemovedServer<'a>>,
    /// Names asked for that nobody has; only in answers to batchGet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_found: Vec<Cow<'a, str>>,
    /// Names asked for that several servers have; only in answers to batchGet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ambiguous: Vec<AmbiguousName<'a>>,
    /// Pass it as `cursor` to get the next page; `null` on the last one.
    pub next_cursor: Option<String>,
}

/// What a cell is at.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CellEpoch<'a> {
    /// The cell.
    pub cell: Cow<'a, str>,
    /// Its version.
    pub epoch: i64,
    /// End of the lease of its decisions, and the only thing that renews those that did not change.
    pub valid_until: Time,
    /// Nothing new has come for too long: follow `onExpiry` after the lease.
    pub stale: bool,
}

/// A server that left.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemovedServer<'a> {
    /// Its name.
    pub server: Cow<'a, str>,
    /// Its cell.
    pub cell: Cow<'a, str>,
}

/// A name that several servers have.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AmbiguousName<'a> {
    /// The name.
    pub server: Cow<'a, str>,
    /// Who has it.
    pub candidates: Vec<Candidate>,
}

/// One of several servers that have a name.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// The cell.
    pub cell: String,
    /// The server's own name.
    pub server: String,
}

/// A question for the decisions of many servers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BatchGet {
    /// Names or aliases; 10,000 at most.
    #[schema(max_items = 10_000)]
    pub servers: Vec<String>,
    /// Only in this cell.
    #[serde(default)]
    #[schema(min_length = 1)]
    pub cell: Option<String>,
    /// Only this class.
    #[serde(default)]
    #[schema(min_length = 1)]
    pub class: Option<String>,
}
