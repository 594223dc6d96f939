//! The answers, read back by prost and serde_json.

use headroom_ingest::{
    CountersDecoder, Decoder, Format, IdentityConfig, IngestLimits, IngestReport, RecordDefaults, Status, StatusCode,
    count_records, empty_response, metrics_response,
};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message;

// google.rpc as its .proto files say; no crate for four messages.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct BadRequest {
    #[prost(message, repeated, tag = "1")]
    field_violations: Vec<FieldViolation>,
}

#[derive(Clone, PartialEq, Message)]
struct FieldViolation {
    #[prost(string, tag = "1")]
    field: String,
    #[prost(string, tag = "2")]
    description: String,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Duration>,
}

#[derive(Clone, PartialEq, Message)]
struct Duration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[test]
#[allow(clippy::field_reassign_with_default)]
fn success_leaves_partial_success_unset() {
    let mut report = IngestReport::default();
    report.accepted_points = 5;
    let response = ExportMetricsServiceResponse::decode(&metrics_response(&report, Format::Protobuf)[..]).unwrap();
    assert_eq!(response.partial_success, None);
    assert_eq!(metrics_response(&report, Format::Json), b"{}");
    assert_eq!((empty_response(Format::Protobuf), empty_response(Format::Json)), (vec![], b"{}".to_vec()));
}

#[test]
fn partial_success_says_how_many_and_why() {
    let body = br#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","gauge":{"dataPoints":[{},{}]}}]}]}]}"#;
    let report = Decoder::new(IdentityConfig::default(), IngestLimits::default()).decode_json(body).unwrap().report;
    let partial = ExportMetricsServiceResponse::decode(&metrics_response(&report, Format::Protobuf)[..]).unwrap();
    let partial = partial.partial_success.unwrap();
    assert_eq!((partial.rejected_data_points, Some(partial.error_message)), (2, report.message.clone()));
    let json: serde_json::Value = serde_json::from_slice(&metrics_response(&report, Format::Json)).unwrap();
    assert_eq!(json["partialSuccess"]["rejectedDataPoints"], "2");
    assert_eq!(json["partialSuccess"]["errorMessage"].as_str(), report.message.as_deref());
}

#[test]
fn a_bad_request_and_a_retry() {
    let status = Status::bad_request("a \"quoted\"\nline");
    let decoded = RpcStatus::decode(&status.encode(Format::Protobuf)[..]).unwrap();
    assert_eq!((decoded.code, &*decoded.message), (3, "a \"quoted\"\nline"));
    assert_eq!(decoded.details[0].type_url, "type.googleapis.com/google.rpc.BadRequest");
    let detail = BadRequest::decode(&decoded.details[0].value[..]).unwrap();
    assert_eq!(
        (&*detail.field_violations[0].field, &*detail.field_violations[0].description),
        ("body", "a \"quoted\"\nline")
    );
    let json: serde_json::Value = serde_json::from_slice(&status.encode(Format::Json)).unwrap();
    assert_eq!((&json["code"], &json["message"]), (&3.into(), &"a \"quoted\"\nline".into()));
    assert_eq!(json["details"][0]["fieldViolations"][0]["field"], "body");

    for (seconds, expect, text) in
        [(1.5, (1, 500_000_000), "1.500000000s"), (30.0, (30, 0), "30s"), (f64::NAN, (0, 0), "0s")]
    {
        let status = Status::retry_later("the log is full", seconds);
        let decoded = RpcStatus::decode(&status.encode(Format::Protobuf)[..]).unwrap();
        assert_eq!((decoded.code, &*decoded.details[0].type_url), (14, "type.googleapis.com/google.rpc.RetryInfo"));
        let delay = RetryInfo::decode(&decoded.details[0].value[..]).unwrap().retry_delay.unwrap();
        assert_eq!((delay.seconds, delay.nanos), expect);
        let json: serde_json::Value = serde_json::from_slice(&status.encode(Format::Json)).unwrap();
        assert_eq!(json["details"][0]["retryDelay"], text);
    }
    let bare: serde_json::Value =
        serde_json::from_slice(&Status::new(StatusCode::ResourceExhausted, "no").encode(Format::Json)).unwrap();
    assert_eq!(bare, serde_json::json!({ "code": 8, "message": "no" }));
}

#[test]
fn headers_name_formats() {
    for (header, format) in [
        ("application/x-protobuf", Some(Format::Protobuf)),
        ("Application/JSON; charset=utf-8", Some(Format::Json)),
        ("text/plain", None),
        ("", None),
    ] {
        assert_eq!(Format::from_header(header), format, "{header}");
    }
}

#[test]
fn other_signals_are_counted() {
    // resource_spans { scope_spans { spans {} spans {} } scope_spans {} } and a schema URL.
    let body = [0x0a, 0x0b, 0x12, 0x04, 0x12, 0x00, 0x12, 0x00, 0x12, 0x00, 0x1a, 0x01, b'u'];
    assert_eq!(count_records(&body), Ok(2));
    assert_eq!(count_records(&[]), Ok(0));
    assert!(count_records(&body[..9]).is_err());
}

#[test]
fn what_senders_write_does_not_make_errors_of_any_length() {
    let long = "é".repeat(500_000);
    let otlp = |point: String| {
        let metric = format!(r#"{{"name":"m","gauge":{{"dataPoints":[{point}]}}}}"#);
        let body = format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{metric}]}}]}}]}}"#);
        Decoder::new(IdentityConfig::default(), IngestLimits::default()).decode_json(body.as_bytes()).unwrap_err()
    };
    let record = |body: String| {
        CountersDecoder::new(IdentityConfig::default(), IngestLimits::default())
            .take(body.as_bytes(), RecordDefaults::default())
            .unwrap_err()
    };
    for error in [
        otlp(format!(r#"{{"asInt":"{long}"}}"#)),
        otlp(format!(r#"{{"asInt":" at line {long}"}}"#)),
        record(format!(r#"{{"server":"a","gauges":{{"{long}":"x"}}}}"#)),
        record(format!(r#"{{"server":"a","metrics":[{{"kind":"{long}"}}]}}"#)),
        record(format!(r#"{{"server":"a","gauges":{{}},"{long}":x}}"#)),
    ] {
        let message = error.to_string();
        assert!(message.len() < 700 && message.contains('…') && message.contains("line 1, column"), "{message}");
    }
}
