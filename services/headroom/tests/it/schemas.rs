//! `schemas/` is made from code. A test that finds a file out of date writes it anew and fails, so that running the
//! tests twice updates everything and the change shows in the diff; with `CI` set it only fails.

use std::fmt::Write;

use arrow_schema::{DataType, Schema};
use headroom_catalog::DEFAULT_POLICY;
use headroom_model::SampleBatch;
use serde_json::{Map, Value, json};

use crate::root;

fn ensure(name: &str, wanted: &str) {
    let path = root().join("schemas").join(name);
    if std::fs::read_to_string(&path).is_ok_and(|found| found == wanted) {
        return;
    }
    if std::env::var_os("CI").is_none() {
        std::fs::write(&path, wanted).expect("schemas/ can be written");
    }
    panic!("schemas/{name} was out of date; outside CI it has been written anew: look at the difference and commit it");
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

#[test]
fn openapi() {
    let text = headroom_api::openapi_json();
    assert!(text.len() > 10_000, "{text}");
    ensure("openapi.json", &format!("{}\n", text.trim_end()));
}

/// What a consumer of the decision topic reads: the records of the API that it consists of, and what they refer to.
#[test]
fn decision_events() {
    const IN_API: &str = "#/components/schemas/";
    let api: Value = serde_json::from_str(&headroom_api::openapi_json()).expect("JSON");
    let (mut definitions, mut wanted) = (Map::new(), vec!["Decision".to_owned(), "RemovedServer".to_owned()]);
    while let Some(name) = wanted.pop() {
        let text = api["components"]["schemas"][&name].to_string();
        let names = text.split(IN_API).skip(1).filter_map(|rest| rest.split('"').next());
        wanted.extend(names.filter(|name| !definitions.contains_key(*name)).map(str::to_owned));
        let own = serde_json::from_str(&text.replace(IN_API, "#/$defs/")).expect("JSON");
        definitions.insert(name, own);
    }
    assert!(definitions["Decision"]["properties"]["admitFraction"].is_object(), "{definitions:?}");
    assert!(definitions["RemovedServer"]["properties"]["server"].is_object(), "{definitions:?}");
    let event = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "An event of the topic <kafka.topic_prefix>.decisions",
        "oneOf": [
            {"$ref": "#/$defs/Decision"},
            {
                "description": "The server has left.",
                "$ref": "#/$defs/RemovedServer",
                "properties": {"epoch": {"type": "integer", "format": "int64"}, "removed": {"const": true}},
                "required": ["epoch", "removed"],
            },
        ],
        "$defs": definitions,
    });
    ensure("decision-event.schema.json", &pretty(&event));
}

#[test]
fn configuration() {
    ensure("config.schema.json", &pretty(&headroom_config::config_schema()));
}

#[test]
fn policy() {
    ensure("policy.schema.json", &pretty(&headroom_config::policy_schema()));
}

#[test]
fn callers() {
    ensure("callers.schema.json", &pretty(&headroom_access::callers_schema()));
}

#[test]
fn metrics() {
    ensure("metrics.md", &headroom_telemetry::catalog::markdown());
}

#[test]
fn arrow() {
    let mut text = String::from(
        "# Arrow schemas\n\nMade from code; do not edit. Field order is part of the schema; `null` says whether values \
         may be missing.\n",
    );
    table(
        &mut text,
        "Points of a sample batch",
        "Numeric samples between ingest and engine. `resource` and `series` are indices into the batch's dictionaries; \
         times are nanoseconds since 1970, a start of 0 is unknown.",
        &SampleBatch::points_schema(),
    );
    let classes = ["urgent", "customerExpectation", "internalMaintenance", "discretionary"];
    table(
        &mut text,
        "Snapshot of a cell",
        "`GET /v1/snapshot?cell=…` with `Accept: application/vnd.apache.arrow.stream`, here for the default classes; \
         each class of the policy has a column of either kind, most important first. The schema's metadata has `cell`, \
         `epoch`, `leaseSeconds`, `refreshAfterSeconds`, `policyHash` and `stale`, as text.",
        &headroom_wire::snapshot_schema(classes.into_iter()),
    );
    // The classes named here are those of the default policy.
    assert!(classes.iter().all(|class| DEFAULT_POLICY.contains(&format!("\n  {class}:"))));
    ensure("arrow.md", &text);
}

fn table(text: &mut String, title: &str, about: &str, schema: &Schema) {
    let _ = write!(text, "\n## {title}\n\n{about}\n\n| Field | Type | Null |\n|---|---|---|\n");
    for field in schema.fields() {
        let null = if field.is_nullable() { "yes" } else { "no" };
        let _ = writeln!(text, "| `{}` | {} | {null} |", field.name(), type_name(field.data_type()));
    }
}

/// The type as Arrow's own documents write it.
fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Dictionary(key, value) => format!("dictionary({}, {})", type_name(key), type_name(value)),
        other => other.to_string().to_lowercase(),
    }
}
