//! What is taken, what of it is rejected, and what is not OTLP at all.

use std::io::Write;

use headroom_otlp_ingestor::Limits;
use http::Method;

use crate::support::{GAUGE, JSON, METRICS, NAMED, NAMELESS, PROTOBUF, Service};

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body).expect("memory");
    encoder.finish().expect("memory")
}

fn zstd(body: &[u8]) -> Vec<u8> {
    zstd::encode_all(body, 1).expect("memory")
}

#[tokio::test]
async fn every_transport_format_and_compression_brings_the_same() {
    let service = Service::start(Limits::default()).await;
    let json = service.post("/v1/metrics", &[("content-type", JSON)], GAUGE).await;
    assert_eq!((json.status.as_u16(), json.header("content-type"), &*json.body), (200, Some(JSON), &b"{}"[..]));
    assert_eq!(service.rows(), 1);
    let mut before = 1;
    let mut rows = Vec::new();
    for (encoding, body) in [("identity", NAMED.to_vec()), ("gzip", gzip(NAMED)), ("zstd", zstd(NAMED))] {
        let headers = [("content-type", PROTOBUF), ("content-encoding", encoding)];
        let answer = service.post("/v1/metrics", &headers, &body).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, Some(PROTOBUF)), "{encoding}");
        assert_eq!(answer.partial_success(), None);
        rows.push(service.rows() - before);
        before = service.rows();

        let encoding = Some(encoding).filter(|encoding| *encoding != "identity");
        let answer = service.call(METRICS, encoding, &body).await;
        assert_eq!((answer.status.as_u16(), answer.trailer("grpc-status")), (200, Some("0")), "{encoding:?}");
        assert_eq!(answer.partial_success(), None);
        rows.push(service.rows() - before);
        before = service.rows();
    }
    assert!(rows[0] > 30 && rows.iter().all(|each| *each == rows[0]), "{rows:?}");
}

#[tokio::test]
async fn a_sender_without_a_name_is_told_so_and_remembered() {
    let service = Service::start(Limits::default()).await;
    let answer = service.call(METRICS, None, NAMELESS).await;
    assert_eq!(answer.trailer("grpc-status"), Some("0"));
    let (rejected, message) = answer.partial_success().expect("a partial success");
    assert!(message.contains("OTEL_RESOURCE_ATTRIBUTES=host.name=<name>"), "{message}");
    assert_eq!(service.rows(), 0);

    let again = service.post("/v1/metrics", &[("content-type", PROTOBUF)], NAMELESS).await;
    assert_eq!(again.partial_success(), Some((rejected, message.clone())));
    let refusals = service.ingestor.refusals();
    let seen: Vec<_> = refusals.iter().map(|row| (row.reason, &*row.sender, row.points as i64)).collect();
    assert_eq!(
        seen,
        [("no_identity", "OTel-OTLP-Exporter-Python/1.45.2", rejected), ("no_identity", "unknown", rejected)]
    );
    assert!(refusals.iter().all(|row| row.message == message));
}

#[tokio::test]
async fn traces_and_logs_are_accepted_and_dropped() {
    let service = Service::start(Limits::default()).await;
    for path in ["/v1/traces", "/v1/logs"] {
        assert_eq!(service.post(path, &[("content-type", JSON)], b"{}").await.status, 200, "{path}");
    }
    for method in [
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    ] {
        assert_eq!(service.call(method, None, b"").await.trailer("grpc-status"), Some("0"), "{method}");
    }
}

#[tokio::test]
async fn what_is_not_otlp_is_told_what_would_be() {
    let service = Service::start(Limits::default()).await;
    let (post, get) = (Method::POST, Method::GET);
    let zipped = [("content-type", JSON), ("content-encoding", "br")];
    for (method, path, headers, body, status, part) in [
        (&post, "/v1/metric", &[("content-type", JSON)][..], &b"{}"[..], 404, "/v1/metrics"),
        (&get, "/v1/metrics", &[][..], &b""[..], 405, "POST"),
        (&post, "/v1/metrics", &[("content-type", "text/plain")][..], &b"x"[..], 415, "application/x-protobuf"),
        (&post, "/v1/metrics", &zipped[..], &b"{}"[..], 415, "gzip"),
        (&post, "/v1/metrics", &[("content-type", JSON)][..], &b"{"[..], 400, "line 1"),
        (&post, "/v1/metrics", &[("content-type", PROTOBUF)][..], &b"\xff"[..], 400, "byte"),
    ] {
        let answer = service.request(method.clone(), path, headers, body).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path}");
        let message = answer.rpc_status().message;
        assert!(message.contains(part), "{message}");
        assert_eq!(answer.header("retry-after"), None);
    }
    assert_eq!(service.request(get, "/v1/metrics", &[], b"").await.header("allow"), Some("POST"));
    let unknown = service.call("/opentelemetry.proto.collector.profiles.v1.ProfilesService/Export", None, b"").await;
    assert_eq!(unknown.trailer("grpc-status"), Some("12"));
    let brotli = service.call(METRICS, Some("br"), b"").await;
    assert_eq!(brotli.trailer("grpc-status"), Some("12"));
    assert_eq!(brotli.header("grpc-accept-encoding"), Some("identity,gzip,zstd"));
}

#[tokio::test]
async fn what_is_left_out_of_what_is_taken_is_counted() {
    let body = r#"{"resourceMetrics":[{"resource":{"attributes":[{"key":"host.name","value":{"stringValue":"a"}}]},
        "scopeMetrics":[{"metrics":[{"name":"h","exponentialHistogram":{"aggregationTemporality":1,"dataPoints":[
        {"timeUnixNano":"1795255210000000000","count":1,"negative":{"bucketCounts":[1]}}]}}]}]}]}"#;
    let service = Service::start(Limits::default()).await;
    assert_eq!(service.post("/v1/metrics", &[("content-type", JSON)], body.as_bytes()).await.status, 200);
    assert!(service.counts("headroom_otlp_left_out_values_total{what=\"negative_buckets\"} 1"));
}
