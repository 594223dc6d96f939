//! JSON counter records: the published schema, an independent reading as oracle, and errors that say where.

use std::collections::BTreeMap;

use headroom_ingest::{CountersDecoder, DecodeError, IdentityConfig, IngestLimits, RecordDefaults, RejectReason};
use headroom_model::{SampleBatch, SeriesKind};
use proptest::prelude::*;
use serde_json::{Value, json};

fn decoder() -> CountersDecoder {
    CountersDecoder::new(IdentityConfig::default(), IngestLimits::default())
}

fn decode(text: &str) -> Result<(SampleBatch, headroom_ingest::IngestReport), DecodeError> {
    let mut decoder = decoder();
    let report = decoder.take(text.as_bytes(), RecordDefaults::default())?;
    Ok((decoder.finish(), report))
}

/// A row in words: cell, server, metric, unit, kind, attributes, start, time, value.
type Row = (String, String, String, String, SeriesKind, Vec<(String, String)>, i64, i64, u64);

pub fn rows(batch: &SampleBatch) -> Vec<Row> {
    let points = &batch.points;
    let mut rows: Vec<Row> = (0..points.value.len())
        .map(|row| {
            let resource = &batch.resources[points.resource[row] as usize];
            let series = &batch.series[points.series[row] as usize];
            (
                resource.cell.to_string(),
                resource.server.to_string(),
                series.metric.to_string(),
                series.unit.to_string(),
                series.kind,
                series.attributes.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
                points.start_ns[row],
                points.time_ns[row],
                points.value[row].to_bits(),
            )
        })
        .collect();
    rows.sort();
    rows
}

fn schema() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../schemas/counters.schema.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn the_examples_of_the_schema_are_taken_whole() {
    let examples = schema()["examples"].as_array().unwrap().clone();
    let mut expected_rows = [1, 5, 2].into_iter();
    for example in &examples {
        let (batch, report) = decode(&example.to_string()).unwrap();
        assert_eq!(Some(batch.len()), expected_rows.next(), "{example}");
        assert_eq!((report.rejected_points(), report.ignored_fields), (0, 0), "{example}");
        let resource = &batch.resources[0];
        assert_eq!(*resource.server, *example["server"].as_str().unwrap());
        assert_eq!(*resource.cell, *example["cell"].as_str().unwrap_or("default"));
        assert_eq!(*resource.pool, *example["pool"].as_str().unwrap_or("default"));
    }
    assert_eq!(expected_rows.next(), None);
    let (batch, _) = decode(&examples[2].to_string()).unwrap();
    let resource = &batch.resources[0];
    assert_eq!(resource.attribute("rack"), Some("12"));
    assert_eq!(resource.attribute("spot"), Some("false"));
    assert!(resource.aliases.iter().any(|alias| **alias == *"10.0.3.3:5432"));
}

#[test]
fn schema_and_decoder_know_the_same_fields() {
    let schema = schema();
    for (fields, within_metric) in
        [(&schema["properties"], false), (&schema["properties"]["metrics"]["items"]["properties"], true)]
    {
        for name in fields.as_object().unwrap().keys() {
            // A value of a type that no field has: what is known complains, what is unknown steps over it.
            let text = if within_metric {
                format!(r#"{{"server":"a","time":1795255210,"metrics":[{{"{name}":[true]}}]}}"#)
            } else {
                format!(r#"{{"{name}":true}}"#)
            };
            let error = decode(&text).unwrap_err().to_string();
            assert!(error.contains(name), "{name} is not known to the decoder: {error}");
        }
    }
    let (_, report) = decode(r#"{"server":"a","time":1795255210,"gauges":{"m":1},"trace":{"id":[1]},"v":2}"#).unwrap();
    assert_eq!((report.ignored_fields, report.ignored_field.as_deref()), (2, Some("trace")));
}

#[test]
fn fields_come_in_any_order_and_say_the_same() {
    let (expected, _) = decode(
        r#"{"server":"a","cell":"c","time":1795255220,"start":1795255210,"intervalSeconds":5,"counters":{"n":1},"deltas":{"d":2}}"#,
    )
    .unwrap();
    let (batch, _) = decode(
        r#" {"deltas" : {"d":2} , "counters":{"n":1}, "intervalSeconds":5.0,"start":"2026-11-21T10:00:10Z",
        "cell":"c","time":1795255220.0,"server":"\u0061"} "#,
    )
    .unwrap();
    assert_eq!(rows(&batch), rows(&expected));
    let seconds = |seconds: i64| (1_795_255_200 + seconds) * 1_000_000_000;
    let starts: Vec<_> = rows(&batch).into_iter().map(|row| (row.4, row.6, row.7)).collect();
    assert_eq!(
        starts,
        [(SeriesKind::DeltaCounter, seconds(15), seconds(20)), (SeriesKind::Counter, seconds(10), seconds(20)),]
    );
}

#[test]
fn messages_hold_one_record_an_array_or_lines() {
    let record = |server: &str| format!(r#"{{"server":"{server}","time":1795255210,"gauges":{{"m":1}}}}"#);
    for text in [
        format!("{}\n{}\n", record("a"), record("b")),
        format!("{}{}", record("a"), record("b")),
        format!("[{},{}]", record("a"), record("b")),
        format!("[{}]\r\n[{}]", record("a"), record("b")),
    ] {
        let (batch, report) = decode(&text).unwrap();
        assert_eq!((batch.resources.len(), report.accepted_points), (2, 2), "{text}");
    }
    assert!(decode("[]").unwrap().0.is_empty());
}

#[test]
fn what_is_damaged_is_refused_whole_with_its_place() {
    for (text, at, message) in [
        ("", (1, 1), "empty"),
        ("nonsense", (1, 1), "expected a counter record"),
        ("{\"server\":\"a\",\"time\":1,\"gauges\":{\"m\":1}}\n{\"server\":\"b\"", (2, 14), "`,` or `}`"),
        ("{\"server\":\"a\",\"gauges\":{\"m\":\"1\"}}", (1, 29), "gauges.m: expected a number, found a string"),
        ("{\"server\":7}", (1, 11), "server: expected a string"),
        ("{\"gauges\":{\"m\":1e999}}", (1, 21), "beyond what a double holds"),
        ("{\"gauges\":{\"m\":01}}", (1, 16), "not written as in JSON"),
        ("{\"gauges\":{\"m\":NaN}}", (1, 16), "found `N`"),
        ("{\"server\":\"a\",\"time\":1}", (1, 1), "no samples"),
        ("{\"time\":\"yesterday\",\"gauges\":{}}", (1, 20), "time: no time between 1970 and 2262"),
        (
            "{\"metrics\":[{\"name\":\"m\",\"value\":1},{\"kind\":\"sum\"}]}",
            (1, 49),
            "metrics[1]: kind: `sum` is none of",
        ),
        (
            "{\"metrics\":[{\"name\":\"m\",\"value\":1,\"attributes\":{\"a\":[1]}}]}",
            (1, 53),
            "metrics[0]: a: an attribute is",
        ),
        ("{\"resourceMetrics\":[]}", (1, 2), "otlp_json"),
        ("{\"server\":\"a\",\"time\":1,\"gauges\":{\"m\":1}},", (1, 41), "expected a counter record"),
    ] {
        let error = decode(text).unwrap_err();
        let DecodeError::Counters { message: found, line, column } = &error else { panic!("{error}") };
        assert!(found.contains(message), "{text}: {found}");
        assert_eq!((*line, *column), at, "{text}: {found}");
    }
    let mut decoder = decoder();
    let error = decoder.take(b"{\"server\":\"\xff\"}", RecordDefaults::default()).unwrap_err();
    assert!(error.to_string().contains("UTF-8 at line 1, column 12"), "{error}");
}

#[test]
fn a_refused_message_leaves_nothing_in_the_batch() {
    let mut decoder = decoder();
    let good = br#"{"server":"a","time":1795255210,"gauges":{"m":1}}"#;
    decoder.take(good, RecordDefaults::default()).unwrap();
    let half =
        br#"{"server":"b","time":1795255210,"gauges":{"m":1}} {"server":"c","time":1795255210,"gauges":{"m":tru}}"#;
    decoder.take(half, RecordDefaults::default()).unwrap_err();
    decoder.take(good, RecordDefaults::default()).unwrap();
    let batch = decoder.finish();
    assert_eq!((batch.len(), batch.resources.len()), (2, 1));
    assert!(decoder.finish().is_empty());
}

#[test]
fn useless_samples_are_rejected_by_reason() {
    let long = "x".repeat(600);
    for (text, reason, accepted) in [
        (r#"{"time":1795255210,"gauges":{"m":1}}"#.to_owned(), RejectReason::NoIdentity, 0),
        (r#"{"server":"a","gauges":{"m":1}}"#.to_owned(), RejectReason::NoTime, 0),
        (
            r#"{"server":"a","time":"1999-12-31T23:59:59Z","gauges":{"m":1}}"#.to_owned(),
            RejectReason::TimeOutOfRange,
            0,
        ),
        (r#"{"server":"\u001b[2J","time":1795255210,"gauges":{"m":1}}"#.to_owned(), RejectReason::NoIdentity, 0),
        (r#"{"server":"a","time":1795255210,"gauges":{"m":null,"n":2}}"#.to_owned(), RejectReason::NoValue, 1),
        (r#"{"server":"a","time":1795255210,"gauges":{"":1}}"#.to_owned(), RejectReason::NoMetricName, 0),
        (format!(r#"{{"server":"a","time":1795255210,"gauges":{{"{long}":1}}}}"#), RejectReason::MetricNameTooLong, 0),
        (format!(r#"{{"server":"{long}","time":1795255210,"gauges":{{"m":1}}}}"#), RejectReason::IdentityTooLong, 0),
        (r#"{"server":"a","time":1795255210,"metrics":[{"name":"m"}]}"#.to_owned(), RejectReason::NoValue, 0),
    ] {
        let (batch, report) = decode(&text).unwrap();
        assert_eq!((report.rejected(reason), report.rejected_points()), (1, 1), "{text}: {report:?}");
        assert_eq!((batch.len(), report.accepted_points), (accepted, accepted as u64), "{text}");
        assert!(report.message.is_some());
    }
    // A message has a time where its record has none.
    let mut decoder = decoder();
    decoder
        .take(br#"{"server":"a","gauges":{"m":1}}"#, RecordDefaults { time_ns: Some(1_795_255_210_000_000_007) })
        .unwrap();
    assert_eq!(decoder.finish().points.time_ns[0], 1_795_255_210_000_000_007);
}

#[test]
fn identity_follows_the_sources_rules() {
    let identity = IdentityConfig { server: vec!["{dc}-{box}".parse().unwrap()], ..IdentityConfig::default() };
    let mut decoder = CountersDecoder::new(identity, IngestLimits::default());
    let text = br#"{"server":"a","attributes":{"box":3,"dc":"ams"},"time":1795255210,"gauges":{"m":1}}"#;
    decoder.take(text, RecordDefaults::default()).unwrap();
    let batch = decoder.finish();
    assert_eq!(*batch.resources[0].server, *"ams-3");
    assert!(batch.resources[0].aliases.iter().any(|alias| **alias == *"a"));
}

#[test]
fn resources_beyond_the_bound_are_refused_for_this_batch_only() {
    let limits = IngestLimits { resources_per_request_max: 1, ..IngestLimits::default() };
    let mut decoder = CountersDecoder::new(IdentityConfig::default(), limits);
    let record = |server: &str| format!(r#"{{"server":"{server}","time":1795255210,"gauges":{{"m":1}}}}"#);
    let take = |decoder: &mut CountersDecoder, server: &str| {
        let report = decoder.take(record(server).as_bytes(), RecordDefaults::default()).unwrap();
        report.rejected(RejectReason::TooManyResources)
    };
    assert_eq!((take(&mut decoder, "a"), take(&mut decoder, "b")), (0, 1));
    decoder.finish();
    assert_eq!(take(&mut decoder, "b"), 0);
}

/// What a record says, read by serde into values first: slow, and nothing in common with the decoder.
fn oracle(records: &[Value]) -> Vec<Row> {
    let mut expected = Vec::new();
    for record in records {
        let time = record["time"].as_i64().unwrap() * 1_000_000_000;
        let mut push = |metric: &str, unit: &str, kind, attributes: &Value, value: &Value| {
            let attributes: BTreeMap<String, String> = attributes
                .as_object()
                .into_iter()
                .flatten()
                .map(|(key, value)| (key.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
                .collect();
            expected.push((
                "default".to_owned(),
                record["server"].as_str().unwrap().to_owned(),
                metric.to_owned(),
                unit.to_owned(),
                kind,
                attributes.into_iter().collect(),
                0,
                time,
                value.as_f64().unwrap().to_bits(),
            ));
        };
        for (field, kind) in
            [("counters", SeriesKind::Counter), ("gauges", SeriesKind::Gauge), ("deltas", SeriesKind::DeltaCounter)]
        {
            for (name, value) in record[field].as_object().into_iter().flatten() {
                push(name, "", kind, &Value::Null, value);
            }
        }
        for metric in record["metrics"].as_array().into_iter().flatten() {
            let unit = metric["unit"].as_str().unwrap_or_default();
            push(metric["name"].as_str().unwrap(), unit, SeriesKind::Gauge, &metric["attributes"], &metric["value"]);
        }
    }
    expected.sort();
    expected
}

fn name() -> impl Strategy<Value = String> {
    "[a-z\\\\\"\\n\u{e9}\u{1f600}./]{1,12}"
}

fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i32>().prop_map(|value| json!(value)),
        any::<f64>().prop_filter("JSON has no others", |value| value.is_finite()).prop_map(|value| json!(value))
    ]
}

fn numbers() -> impl Strategy<Value = BTreeMap<String, Value>> {
    prop::collection::btree_map(name(), number(), 0..5)
}

fn record() -> impl Strategy<Value = Value> {
    let attribute = prop_oneof![
        name().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from)
    ];
    let attributes = prop::collection::btree_map(name(), attribute, 0..3);
    let metric = (name(), name(), number(), attributes).prop_map(
        |(name, unit, value, attributes)| json!({"name": name, "unit": unit, "value": value, "attributes": attributes}),
    );
    (0..3u8, 1_795_255_210..1_795_256_210u32, numbers(), numbers(), numbers(), prop::collection::vec(metric, 0..4))
        .prop_map(|(server, time, counters, gauges, deltas, metrics)| {
            json!({"counters": counters, "server": format!("s{server}"), "gauges": gauges, "time": time,
                "deltas": deltas, "metrics": metrics, "ignored": {"a": [1, null]}})
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn records_mean_what_another_parser_finds_in_them(records in prop::collection::vec(record(), 1..6), pretty: bool) {
        let mut decoder = decoder();
        // Twice, so that the second time everything is guessed from memory.
        for _ in 0..2 {
            for record in &records {
                let text = if pretty { serde_json::to_string_pretty(record) } else { serde_json::to_string(record) }.unwrap();
                let report = decoder.take(text.as_bytes(), RecordDefaults::default()).unwrap();
                prop_assert_eq!(report.rejected_points(), 0);
            }
            prop_assert_eq!(rows(&decoder.finish()), oracle(&records));
        }
    }

    #[test]
    fn noise_is_refused_where_serde_refuses_it(text in "[\\[\\]{}:,\"0-9a-z\\\\. -]{0,60}") {
        if decode(&text).is_ok() {
            let values: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(&text).into_iter().collect();
            prop_assert!(values.is_ok());
        }
    }

    #[test]
    fn a_changed_byte_does_not_panic(record in record(), at: prop::sample::Index, byte: u8) {
        let mut text = record.to_string().into_bytes();
        let at = at.index(text.len());
        text[at] = byte;
        let _ = decoder().take(&text, RecordDefaults::default());
    }
}

#[test]
fn useless_messages_do_not_use_up_what_good_ones_need() {
    let limits = IngestLimits { resources_per_request_max: 2, series_per_request_max: 2, ..IngestLimits::default() };
    let mut decoder = CountersDecoder::new(IdentityConfig::default(), limits);
    for number in 0..5 {
        // Nobody's samples, and each of a resource and a series of its own.
        let useless = format!(r#"{{"attributes":{{"a":{number}}},"gauges":{{"m{number}":1}}}}"#);
        let defaults = RecordDefaults { time_ns: Some(1_795_255_210_000_000_000) };
        let report = decoder.take(useless.as_bytes(), defaults).unwrap();
        assert_eq!(report.rejected(RejectReason::NoIdentity), 1, "{:?}", report.message);
    }
    let report =
        decoder.take(br#"{"server":"a","time":1795255210,"gauges":{"m":1}}"#, RecordDefaults::default()).unwrap();
    assert_eq!((report.accepted_points, report.message), (1, None));
    assert_eq!(decoder.finish().len(), 1);
}
