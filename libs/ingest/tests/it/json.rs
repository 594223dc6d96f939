//! OTLP/JSON: the same rows as protobuf, OTLP's own rules about names and numbers, errors with their place.

use headroom_ingest::{DecodeError, OtherSignal, RejectReason, count_records_json};
use headroom_model::Series;
use headroom_model::batch::is_stale_marker as is_stale;
use proptest::prelude::*;
use prost::Message;

use crate::generate::request;
use crate::oracle::rows_of;
use crate::protobuf::decoder;

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn json_means_what_protobuf_means(request in request()) {
        let json = serde_json::to_vec(&request).unwrap();
        let mut decoder = decoder();
        let from_json = decoder.decode_json(&json).unwrap();
        let from_protobuf = decoder.decode_protobuf(&request.encode_to_vec()).unwrap();
        prop_assert_eq!(rows_of(&from_json.batch), rows_of(&from_protobuf.batch));
        prop_assert_eq!(from_json.report, from_protobuf.report);
    }

    #[test]
    fn noise_does_not_panic(text in "[\\[\\]{}:,\"0-9a-z]{0,60}") {
        let _ = decoder().decode_json(text.as_bytes());
    }
}

fn gauge(point: &str) -> String {
    format!(
        r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{{"key":"host.name","value":{{"stringValue":"web-1"}}}}]}},
        "scopeMetrics":[{{"metrics":[{{"name":"m","gauge":{{"dataPoints":[{point}]}}}}]}}]}}]}}"#
    )
}

#[test]
fn numbers_in_every_form() {
    for (point, expect) in [
        (r#"{"timeUnixNano":"1795255210000000000","asDouble":1.5}"#, 1.5),
        (r#"{"timeUnixNano":1795255210000000000,"asInt":"-3"}"#, -3.0),
        (r#"{"timeUnixNano":1795255210000000000.0,"asInt":4,"unknown":{"a":[1]}}"#, 4.0),
        (r#"{"timeUnixNano":"1795255210000000000","asDouble":"Infinity","attributes":null}"#, f64::INFINITY),
        (r#"{"timeUnixNano":"1795255210000000000","asDouble":"2.5"}"#, 2.5),
    ] {
        let batch = decoder().decode_json(gauge(point).as_bytes()).unwrap().batch;
        assert_eq!((batch.points.value[0], batch.points.time_ns[0]), (expect, 1_795_255_210_000_000_000), "{point}");
    }
    let nan = decoder()
        .decode_json(gauge(r#"{"timeUnixNano":"1795255210000000000","asDouble":"NaN"}"#).as_bytes())
        .unwrap()
        .batch;
    assert!(nan.points.value[0].is_nan() && !is_stale(nan.points.value[0]));
    let stale =
        decoder().decode_json(gauge(r#"{"timeUnixNano":"1795255210000000000","flags":1}"#).as_bytes()).unwrap().batch;
    assert!(is_stale(stale.points.value[0]));
}

/// A field in nanoseconds that holds something else is what a sender written by hand gets wrong first.
#[test]
fn a_time_in_another_unit_is_refused_with_the_unit_that_was_meant() {
    for (time, hint) in [
        ("1795255210000", "1795255210000 looks like milliseconds, multiply it by 1000000 "),
        ("1795255210", "1795255210 looks like seconds, multiply it by 1000000000 "),
        ("1795255210000001", "1795255210000001 looks like microseconds, multiply it by 1000 "),
        ("7", "timeUnixNano is in nanoseconds since 1970 "),
    ] {
        let point = format!(r#"{{"timeUnixNano":"{time}","asDouble":1}}"#);
        let decoded = decoder().decode_json(gauge(&point).as_bytes()).unwrap();
        assert_eq!((decoded.batch.len(), decoded.report.rejected(RejectReason::TimeOutOfRange)), (0, 1), "{time}");
        let message = decoded.report.message.unwrap();
        assert!(message.contains(hint), "{message}");
    }
}

#[test]
fn the_example_of_the_specification() {
    // examples/metrics.json of opentelemetry-proto, with a host and without what is not read.
    let body = br#"{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"my.service"}},
        {"key":"host.name","value":{"stringValue":"web-1"}}]},"scopeMetrics":[{"scope":{"name":"my.scope","version":"1.0.0"},
        "metrics":[{"name":"my.counter","unit":"1","description":"I am a Counter","sum":{"aggregationTemporality":1,
        "isMonotonic":true,"dataPoints":[{"asDouble":5,"startTimeUnixNano":"1544712660300000000",
        "timeUnixNano":"1544712660300000000","attributes":[{"key":"my.counter.attr","value":{"stringValue":"some value"}}]}]}},
        {"name":"my.histogram","unit":"1","histogram":{"aggregationTemporality":1,"dataPoints":[{"startTimeUnixNano":
        "1544712660300000000","timeUnixNano":"1544712660300000000","count":2,"sum":2,"bucketCounts":[1,1],
        "explicitBounds":[1],"min":0,"max":2}]}},{"name":"my.exponential.histogram","unit":"1","exponentialHistogram":
        {"aggregationTemporality":1,"dataPoints":[{"timeUnixNano":"1544712660300000000","count":3,"sum":10,"scale":0,
        "zeroCount":1,"positive":{"offset":1,"bucketCounts":[0,2]},"min":0,"max":5,"zeroThreshold":0}]}}]}]}]}"#;
    let decoded = decoder().decode_json(body).unwrap();
    assert_eq!((decoded.report.accepted_points, decoded.report.rejected_points()), (3, 0));
    let names: Vec<&str> = decoded.batch.series.iter().map(|series: &std::sync::Arc<Series>| &*series.metric).collect();
    assert_eq!(names, ["my.counter", "my.histogram", "my.exponential.histogram"]);
    assert_eq!(decoded.batch.series[0].attribute("otel.scope.name"), Some("my.scope"));
    assert_eq!((decoded.batch.histograms[1].offset, &decoded.batch.histograms[1].buckets[..]), (1, &[0, 2][..]));
}

#[test]
fn errors_have_line_and_column() {
    for (body, line, column, contains) in [
        ("{\n\"resourceMetrics\": 7}", 2, 20, "expected"),
        ("{\"resourceMetrics\": [}", 1, 22, "expected"),
        ("", 1, 0, "EOF"),
    ] {
        let Err(DecodeError::Json { message, line: l, column: c }) = decoder().decode_json(body.as_bytes()) else {
            panic!("{body} decodes");
        };
        assert_eq!((l, c), (line, column), "{body}: {message}");
        assert!(message.contains(contains), "{message}");
    }
    for point in [r#"{"timeUnixNano":"x"}"#, r#"{"timeUnixNano":-1}"#, r#"{"asDouble":"inf"}"#, r#"{"flags":1.5}"#] {
        assert!(decoder().decode_json(gauge(point).as_bytes()).is_err(), "{point}");
    }
    let enum_name =
        r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"sum":{"aggregationTemporality":"DELTA"}}]}]}]}"#;
    assert!(decoder().decode_json(enum_name.as_bytes()).is_err());
}

#[test]
fn other_signals_are_counted() {
    let traces = br#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"a"},{}]},{"spans":null}]},{"scopeSpans":[{"spans":[{}]}]}]}"#;
    assert_eq!(count_records_json(OtherSignal::Traces, traces), Ok(3));
    let logs = br#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{}]}]}]}"#;
    assert_eq!(count_records_json(OtherSignal::Logs, logs), Ok(1));
    assert!(count_records_json(OtherSignal::Logs, b"[").is_err());
}
