//! The record of a server, its decisions, and the answer to a probe.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::time::Time;

/// All that is known of a server, and what may be done to it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerRecord<'a> {
    /// The server's name.
    pub server: Cow<'a, str>,
    /// Other names that answer with this record.
    pub aliases: Vec<Cow<'a, str>>,
    /// The cell: the unit of publication and isolation.
    pub cell: Cow<'a, str>,
    /// The pool: the peer group. `default` is nobody's peer group.
    pub pool: Cow<'a, str>,
    /// Version: Unix seconds of the tick.
    pub epoch: i64,
    /// The same as a time.
    pub as_of: Time,
    /// When the lease of the decisions ends. For people and audits: consumers count `leaseSeconds` from receipt.
    pub valid_until: Time,
    /// Nothing new has come for too long: states are unknown, decisions run out.
    pub stale: bool,
    /// Version of the policy.
    pub policy_hash: Cow<'a, str>,
    /// Mode in effect on this server.
    #[schema(schema_with = mode_schema)]
    pub mode: Cow<'a, str>,
    /// 0 to 1, 1 = healthy.
    pub health_score: Option<f32>,
    /// -1 to 3: 0 to 1 normal, from 1 overloaded, from 2 critical.
    pub pressure: Option<f32>,
    /// How loaded the server is.
    #[schema(schema_with = load_state_schema)]
    pub load_state: Cow<'a, str>,
    /// Whether the server is broken.
    #[schema(schema_with = fault_state_schema)]
    pub fault_state: Cow<'a, str>,
    /// What a placer of work should do. It binds in mode `enforce` only.
    #[schema(schema_with = placement_schema)]
    pub placement: Cow<'a, str>,
    /// Since when load and fault state are what they are.
    pub state_since: Time,
    /// Share of the weighted signals that are fresh and sufficient.
    pub confidence: Option<f32>,
    /// Age of the newest sample at the tick.
    pub last_sample_age_seconds: Option<f32>,
    /// Share of the samples expected in the control window that had arrived at the tick: what the decisions were made
    /// from. In whole percents, 1 only if all had; unknown while nothing can be expected.
    pub coverage: Option<f32>,
    /// What else is remarkable: `flapping`, `lost_signal`, `silent`, `clock_skew`, `not_a_number`, `flat_sensor`,
    /// `overlapping_writers`, `name_conflict` another server claims one of its names, `nothing_read` it reports, but no
    /// input of the policy reads it (see `/v1/inputs`), `series_refused` a bound keeps series of it from being read,
    /// `kill_switch`.
    pub flags: Vec<Cow<'a, str>>,
    /// At most three causes, worst first.
    pub reasons: Vec<Reason<'a>>,
    /// The signals of the policy.
    pub signals: Vec<Signal<'a>>,
    /// One for each class, most important first.
    pub decisions: Vec<Decision<'a>>,
}

/// One cause.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reason<'a> {
    /// Machine-readable, such as `disk_latency_high`, `cpu_busy_peer_deviation`, `silent`, `nothing_read`.
    pub code: Cow<'a, str>,
    /// The family of the signal.
    pub family: Option<Cow<'a, str>>,
    /// The signal.
    pub signal: Option<Cow<'a, str>>,
    /// Its value.
    pub value: Option<f64>,
    /// Unit of value and threshold (UCUM).
    pub unit: Option<Cow<'a, str>>,
    /// What the value is beyond; for peers their median.
    pub threshold: Option<f64>,
    /// The pressure that follows.
    pub pressure: Option<f32>,
    /// The span looked at.
    pub window_seconds: Option<f32>,
    /// Samples looked at.
    pub samples: u32,
    /// Age of the newest of them.
    pub age_seconds: Option<f32>,
    /// What would have to be otherwise for the least important limited class to be whole.
    pub counterfactual: Option<Cow<'a, str>>,
}

/// One signal.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Signal<'a> {
    /// Its name.
    pub signal: Cow<'a, str>,
    /// Its family.
    pub family: Cow<'a, str>,
    /// Value over the control window.
    pub value: Option<f64>,
    /// Unit of the value (UCUM).
    pub unit: Cow<'a, str>,
    /// -1 to 3.
    pub pressure: Option<f32>,
    /// `absent` never reported, `ok`, `insufficient` too little to judge by, `held` vanished while too high, `missing`.
    #[schema(schema_with = signal_status_schema)]
    pub status: Cow<'a, str>,
}

/// How much of a class a server takes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Decision<'a> {
    /// The server's name.
    pub server: Cow<'a, str>,
    /// Its cell.
    pub cell: Cow<'a, str>,
    /// Its pool.
    pub pool: Cow<'a, str>,
    /// The workload class.
    pub class: Cow<'a, str>,
    /// Version: Unix seconds of the tick.
    pub epoch: i64,
    /// Share of the class's nominal that the server takes. 1 unless the mode is `enforce`.
    pub admit_fraction: f32,
    /// What enforcing would make of it; equal to `admitFraction` in mode `enforce`.
    pub would_admit_fraction: f32,
    /// Mode in effect for this decision.
    #[schema(schema_with = mode_schema)]
    pub mode: Cow<'a, str>,
    /// `admitFraction` of the nominal, where one is configured.
    pub limit: Option<f64>,
    /// Valid that long from receipt, on the consumer's monotonic clock, less the answer's `Age`. Shorter than the policy's
    /// lease where the answer is of a later epoch than this decision, because its cell lags.
    pub lease_seconds: i64,
    /// Renew it that often.
    pub refresh_after_seconds: i64,
    /// End of the lease for people and audits.
    pub valid_until: Time,
    /// What to do after the lease.
    pub on_expiry: OnExpiry,
    /// Why, such as `throttled_by:disk_await_p95@web-17`.
    pub reason_code: Cow<'a, str>,
    /// Guards that hold the decision.
    pub guards: Vec<Cow<'a, str>>,
}

/// What a consumer does when a lease has ended and no new decision came.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OnExpiry {
    /// Keep the last fraction this long.
    pub hold_seconds: i64,
    /// Then move to this fraction, up or down.
    pub then: f64,
    /// By at most this much a minute.
    pub ramp_per_minute: f64,
}

/// The answer to a probe. Its status code says the same: 200 open or observing, 429 throttled, 503 blocked.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Check<'a> {
    /// The server's name.
    pub server: Cow<'a, str>,
    /// Its cell.
    pub cell: Cow<'a, str>,
    /// The class the answer is for.
    pub class: Cow<'a, str>,
    /// `open`, `throttled` or `blocked`.
    pub status: Cow<'a, str>,
    /// The fraction in force now, after what the class does when a lease has ended.
    pub admit_fraction: f64,
    /// What enforcing would make of it.
    pub would_admit_fraction: f32,
    /// Mode in effect on the server.
    #[schema(schema_with = mode_schema)]
    pub mode: Cow<'a, str>,
    /// What acts: `allow` unless the mode is `enforce`.
    #[schema(schema_with = placement_schema)]
    pub placement: Cow<'a, str>,
    /// What would act if it were.
    #[schema(schema_with = placement_schema)]
    pub would_placement: Cow<'a, str>,
    /// Version: Unix seconds of the tick.
    pub epoch: i64,
    /// End of the lease.
    pub valid_until: Time,
    /// Nothing new has come for too long.
    pub stale: bool,
    /// The lease has ended: the fraction follows the class's own rule.
    pub expired: bool,
    /// Why.
    pub reason_code: Cow<'a, str>,
}

fn one_of(values: &[&str]) -> utoipa::openapi::Object {
    utoipa::openapi::ObjectBuilder::new()
        .schema_type(utoipa::openapi::Type::String)
        .enum_values(Some(values.to_vec()))
        .build()
}

pub(crate) fn mode_schema() -> utoipa::openapi::Object {
    one_of(&["off", "observe", "enforce"])
}

pub(crate) fn load_state_schema() -> utoipa::openapi::Object {
    one_of(&headroom_model::frame::LoadState::ALL.map(headroom_model::frame::LoadState::as_str))
}

pub(crate) fn fault_state_schema() -> utoipa::openapi::Object {
    one_of(&headroom_model::frame::FaultState::ALL.map(headroom_model::frame::FaultState::as_str))
}

pub(crate) fn placement_schema() -> utoipa::openapi::Object {
    one_of(&headroom_model::frame::Placement::ALL.map(headroom_model::frame::Placement::as_str))
}

pub(crate) fn signal_status_schema() -> utoipa::openapi::Object {
    one_of(&headroom_model::frame::SignalStatus::ALL.map(headroom_model::frame::SignalStatus::as_str))
}
