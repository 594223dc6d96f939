//! What operators, consumers and simulators send, and what they get back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, OneOfBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::problem::ProblemItem;
use crate::time::Time;

/// A change of mode.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModeRequest {
    /// The mode. `policy` returns to what the policy says; `off` is the kill switch and acts on readers at once.
    pub mode: ModeName,
    /// With `enforce`: share of the servers, 0 to 100; 100 if left out.
    #[serde(default)]
    pub percent: Option<f64>,
    /// The cell; all cells if left out.
    #[serde(default)]
    pub cell: Option<String>,
    /// Who asks, for the audit.
    pub owner: String,
    /// Why, for the audit.
    pub reason: String,
}

impl ModeRequest {
    /// One of the forms a request may have: these modes go with that percentage.
    fn form(modes: &[&str], mode: &str, percent: ObjectBuilder) -> ObjectBuilder {
        let text = |max, description: &str| {
            let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(max));
            text.description(Some(description))
        };
        let cell = text(256, "The cell; all cells if left out.");
        ObjectBuilder::new()
            .property(
                "mode",
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .enum_values(Some(modes.iter().copied()))
                    .description(Some(mode)),
            )
            .required("mode")
            .property("percent", percent)
            .property("cell", cell.schema_type(SchemaType::from_iter([Type::String, Type::Null])))
            .property("owner", text(256, "Who asks, for the audit.").pattern(Some(NOT_BLANK)))
            .required("owner")
            .property("reason", text(1_024, "Why, for the audit.").pattern(Some(NOT_BLANK)))
            .required("reason")
            .additional_properties(Some(AdditionalProperties::FreeForm(false)))
    }
}

/// A text of the audit has more than spaces.
const NOT_BLANK: &str = r"\S";

/// Written by hand, because a derived schema cannot say that a percentage goes with `enforce` only.
impl PartialSchema for ModeRequest {
    fn schema() -> RefOr<Schema> {
        let percent = ObjectBuilder::new()
            .schema_type(SchemaType::from_iter([Type::Number, Type::Null]))
            .minimum(Some(0))
            .maximum(Some(100))
            .description(Some("Share of the servers; 100 if left out."));
        let others = "`observe` derives and shows decisions that nothing acts on. `policy` returns to what the policy \
                      says; `off` is the kill switch and acts on readers at once.";
        OneOfBuilder::new()
            .item(Self::form(&["enforce"], "Decisions bind.", percent))
            .item(Self::form(&["off", "observe", "policy"], others, ObjectBuilder::new().schema_type(Type::Null)))
            .description(Some("A change of mode."))
            .into()
    }
}

impl ToSchema for ModeRequest {}

/// Names of modes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ModeName {
    /// No decisions are derived; nothing is limited.
    Off,
    /// Decisions are derived and shown; nothing acts on them.
    Observe,
    /// Decisions bind.
    Enforce,
    /// What the policy says.
    Policy,
}

/// An operator's action was recorded.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    /// What was recorded, in words.
    pub accepted: String,
    /// When it takes effect.
    pub takes_effect: String,
}

/// What a consumer acts on and uses.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AckRequest {
    /// The consumer's name, the same from ack to ack.
    #[schema(min_length = 1, max_length = 256, pattern = r"\S")]
    pub consumer: String,
    /// The epoch of the decisions it acts on.
    pub epoch: i64,
    /// The cell of the servers; needed where a name lies in two cells.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 256)]
    pub cell: Option<String>,
    /// What is in use; 10,000 at most.
    #[schema(max_items = 10_000)]
    pub acks: Vec<AckItem>,
}

/// What a consumer uses of a class on a server.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AckItem {
    /// The server's name or alias.
    #[schema(min_length = 1, max_length = 1024)]
    pub server: String,
    /// The workload class.
    #[schema(min_length = 1, max_length = 256)]
    pub class: String,
    /// Share of the class's nominal in use; above 1 where the consumer uses more.
    #[schema(minimum = 0, maximum = 1000)]
    pub in_use: f64,
}

/// Acks that were recorded.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AckAnswer {
    /// How many.
    pub accepted: usize,
    /// Those that were not, and why.
    pub refused: Vec<ProblemItem>,
}

/// An advance of the clock in event time.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClockRequest {
    /// The new time.
    pub now: Time,
}

/// What the cells are at after an advance.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClockAnswer {
    /// Epoch by cell; the snapshots up to it are readable.
    pub epochs: BTreeMap<String, i64>,
}

/// The policy in force.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRecord {
    /// Version.
    pub policy_hash: String,
    /// The text.
    pub yaml: String,
    /// What each cell decides by at its latest tick.
    pub in_force: BTreeMap<String, String>,
}

/// A policy that was found to be good.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicySummary {
    /// Version it would have.
    pub policy_hash: String,
    /// Names of the inputs.
    pub inputs: Vec<String>,
    /// Names of the signals.
    pub signals: Vec<String>,
    /// Names of the classes, most important first.
    pub classes: Vec<String>,
    /// Names of the rules, most specific first.
    pub rules: Vec<String>,
    /// What is allowed and yet suspicious.
    pub warnings: Vec<ProblemItem>,
}

/// Metrics that were seen.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InputsReport {
    /// Metrics that an input reads.
    pub matched: Vec<SeenMetric>,
    /// Metrics that no input reads. They are kept in the log.
    pub unused: Vec<SeenMetric>,
    /// Metrics that were refused, with the reason.
    pub refused: Vec<SeenMetric>,
    /// Inputs of the policy that no metric has fed yet.
    pub unfed: Vec<String>,
    /// Whether there was more to tell than the report may hold.
    pub truncated: bool,
}

/// A metric that was seen, from one kind of sender.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SeenMetric {
    /// The name as sent.
    pub metric: String,
    /// The unit as sent.
    pub unit: Option<String>,
    /// Which programs send it, by `service.name`; a few of them.
    pub senders: Vec<String>,
    /// Servers that report it.
    pub servers: u64,
    /// Samples seen.
    pub samples: u64,
    /// The inputs that read it, as `input (dialect)`.
    pub inputs: Vec<String>,
    /// Why it was refused, or by which inputs it is not read for its unit.
    pub reason: Option<String>,
    /// A known metric with a similar name.
    pub nearest: Option<String>,
}
