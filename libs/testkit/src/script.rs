//! A scenario as a script for a running service: requests, ticks, and the snapshots that must be readable after each.
//!
//! The engine computes what a service must answer, in the words of the API, so that whoever drives the service (over
//! sockets, through Kafka, with roles that are killed on the way) only has to post, read and compare. Samples are written
//! as OTLP/JSON: they take the way of real ones, through decoding and identity.

use std::sync::Arc;

use headroom_model::policy::Mode;
use headroom_model::{CellSnapshot, SeriesKind};
use headroom_wire::{Reading, RowReader};
use serde_json::{Value, json};

use crate::scenario::{Event, Sample, Scenario};
use crate::{BASE_SECONDS, Variation, run};

/// Writes the script, a JSON object per step, in order:
/// `{"tickSeconds","policy"}` first; then `{"export": <OTLP/JSON>}`, `{"mode", "percent"}`, `{"remove", "cell"}` and
/// `{"tick": <Unix seconds>, "cells": {<cell>: [<record>…]}}`.
///
/// # Errors
/// If the scenario cannot be run or its own expectations are not met.
pub fn write(scenario: &Scenario) -> Result<Vec<Value>, String> {
    let outcome = run(scenario, Variation::Plain)?;
    if !outcome.failures.is_empty() {
        return Err(outcome.failures.join("\n"));
    }
    let mut ticks = outcome.ticks.into_iter();
    let mut is_killed = false;
    let mut script = vec![json!({ "tickSeconds": scenario.tick_seconds, "policy": scenario.policy })];
    for event in scenario.events() {
        match event {
            Event::Deliver(samples, _) if samples.is_empty() => {}
            Event::Deliver(samples, _) => script.push(json!({ "export": export(&samples) })),
            Event::Tick(tick) => {
                let snapshots = ticks.next().map(|(_, snapshots)| snapshots).unwrap_or_default();
                let cells = snapshots.iter().map(|snapshot| records(snapshot, is_killed)).collect::<Result<_, _>>()?;
                script.push(json!({ "tick": BASE_SECONDS + tick, "cells": Value::Object(cells) }));
            }
            Event::Mode(mode) => {
                is_killed = mode == Some(Mode::Off);
                script.push(mode_request(mode));
            }
            Event::Remove(cell, server) => script.push(json!({ "remove": server, "cell": cell })),
            Event::Expect(..) | Event::Absent(..) => {}
        }
    }
    Ok(script)
}

fn records(snapshot: &Arc<CellSnapshot>, is_killed: bool) -> Result<(String, Value), String> {
    let reader = RowReader::new(snapshot, Reading { stale: false, killed: is_killed });
    // By way of text, as in an answer: a value made directly would widen 32-bit numbers and show digits they do not have.
    let record = |row| serde_json::from_str(&serde_json::to_string(&reader.record(row))?);
    let records: Result<Vec<Value>, serde_json::Error> = (0..snapshot.len()).map(record).collect();
    Ok((snapshot.cell.to_string(), Value::Array(records.map_err(|error| error.to_string())?)))
}

fn mode_request(mode: Option<Mode>) -> Value {
    match mode {
        None => json!({ "mode": "policy" }),
        Some(Mode::Off) => json!({ "mode": "off" }),
        Some(Mode::Observe) => json!({ "mode": "observe" }),
        Some(Mode::Enforce { percent }) => json!({ "mode": "enforce", "percent": percent }),
    }
}

fn export(samples: &[Sample]) -> Value {
    let resources: Vec<Value> = samples.iter().map(resource_metrics).collect();
    json!({ "resourceMetrics": resources })
}

fn resource_metrics(sample: &Sample) -> Value {
    let mut point = json!({
        "timeUnixNano": nanoseconds(sample.at_seconds),
        "startTimeUnixNano": sample.start_seconds.map_or_else(|| "0".to_owned(), nanoseconds),
        "attributes": attributes(&sample.series.attributes),
    });
    if sample.series.kind.is_histogram() {
        let buckets: Vec<String> = sample.values.iter().map(|count| (*count as u64).to_string()).collect();
        let count: u64 = sample.values.iter().map(|count| *count as u64).sum();
        point["count"] = json!(count.to_string());
        point["bucketCounts"] = json!(buckets);
        point["explicitBounds"] = json!(&sample.series.bounds[..]);
    } else {
        // JSON has no number for NaN; OTLP writes it as a text.
        point["asDouble"] = match sample.values.first() {
            Some(value) if value.is_nan() => json!("NaN"),
            value => json!(value),
        };
    }
    let (delta, cumulative) = (1, 2);
    let (kind, data) = match sample.series.kind {
        SeriesKind::Gauge => ("gauge", json!({ "dataPoints": [point] })),
        SeriesKind::Counter => {
            ("sum", json!({ "dataPoints": [point], "isMonotonic": true, "aggregationTemporality": cumulative }))
        }
        SeriesKind::DeltaCounter => {
            ("sum", json!({ "dataPoints": [point], "isMonotonic": true, "aggregationTemporality": delta }))
        }
        SeriesKind::DeltaHistogram => ("histogram", json!({ "dataPoints": [point], "aggregationTemporality": delta })),
        _ => ("histogram", json!({ "dataPoints": [point], "aggregationTemporality": cumulative })),
    };
    json!({
        "resource": { "attributes": attributes(&sample.resource.attributes) },
        "scopeMetrics": [{ "metrics": [{ "name": &*sample.series.metric, "unit": &*sample.series.unit, kind: data }] }],
    })
}

fn attributes(pairs: &[(Arc<str>, Arc<str>)]) -> Value {
    pairs.iter().map(|(key, value)| json!({ "key": &**key, "value": { "stringValue": &**value } })).collect()
}

/// OTLP/JSON writes 64-bit integers as text.
fn nanoseconds(seconds: f64) -> String {
    (BASE_SECONDS * 1_000_000_000 + (seconds * 1e9) as i64).to_string()
}
