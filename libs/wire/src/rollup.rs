//! Cells and pools in one line each.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::time::Time;

/// Servers per state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadStateCounts {
    /// No fresh data.
    pub unknown: u32,
    /// Could take more.
    pub underloaded: u32,
    /// As it should be.
    pub normal: u32,
    /// Over a set-point.
    pub overloaded: u32,
    /// Over a critical set-point.
    pub critical: u32,
}

/// Servers per fault state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FaultStateCounts {
    /// No fresh data.
    pub unknown: u32,
    /// Nothing wrong.
    pub ok: u32,
    /// Something deviates.
    pub suspect: u32,
    /// Broken.
    pub faulty: u32,
}

/// Servers per placement.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlacementCounts {
    /// Place.
    pub allow: u32,
    /// Prefer others.
    pub avoid: u32,
    /// Do not place.
    pub block: u32,
}

/// How much of a class the servers tolerate.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToleratedShare<'a> {
    /// The class.
    pub class: Cow<'a, str>,
    /// Mean admit fraction.
    pub admit_fraction: f64,
    /// Mean of what enforcing would make of it.
    pub would_admit_fraction: f64,
    /// Servers whose fraction is, or were it enforced would be, below 1.
    pub limited_servers: u32,
}

/// Counts and shares of a set of servers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Totals<'a> {
    /// Number of servers.
    pub servers: u32,
    /// By load state.
    pub load_states: LoadStateCounts,
    /// By fault state.
    pub fault_states: FaultStateCounts,
    /// By placement.
    pub placements: PlacementCounts,
    /// Health of all of them: what the policy's `rollup` makes of them, or else their median health score.
    pub health_score: Option<f32>,
    /// Lowest health score.
    pub health_score_min: Option<f32>,
    /// Median health score.
    pub health_score_median: Option<f32>,
    /// Mean share of the expected samples that had arrived at the tick, over the servers of which some were expected: a
    /// lost sender shows here as the share of its servers. The lowest would only say that some server is silent.
    pub coverage_mean: Option<f32>,
    /// By class, most important first.
    pub tolerated_shares: Vec<ToleratedShare<'a>>,
}

/// A cell.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CellRecord<'a> {
    /// Its name.
    pub cell: Cow<'a, str>,
    /// Version: Unix seconds of the tick.
    pub epoch: i64,
    /// The same as a time.
    pub as_of: Time,
    /// End of the lease of its decisions.
    pub valid_until: Time,
    /// Nothing new has come for too long.
    pub stale: bool,
    /// Whether the kill switch is thrown.
    pub kill_switch: bool,
    /// Version of the policy.
    pub policy_hash: Cow<'a, str>,
    /// From tick to tick.
    pub tick_seconds: i64,
    /// Names of its pools.
    pub pools: Vec<Cow<'a, str>>,
    /// Counts and shares.
    #[serde(flatten)]
    pub totals: Totals<'a>,
}

/// A pool of a cell.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolRecord<'a> {
    /// Its name.
    pub pool: Cow<'a, str>,
    /// Its cell.
    pub cell: Cow<'a, str>,
    /// Version: Unix seconds of the tick.
    pub epoch: i64,
    /// Nothing new has come for too long.
    pub stale: bool,
    /// Counts and shares.
    #[serde(flatten)]
    pub totals: Totals<'a>,
}
