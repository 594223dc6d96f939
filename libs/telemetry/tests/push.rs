//! What leaves the process by OTLP: this test starts itself again with `OTEL_*` set, because variables of a running
//! test process cannot be set without racing other tests, and takes what arrives.

#![allow(clippy::unwrap_used, reason = "a test; clippy knows only unit tests as such")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::thread;
use std::time::Duration;

use headroom_telemetry::catalog::{BUILD_INFO, HTTP_REQUEST_DURATION, OTLP_POINTS_ACCEPTED, SERVER_HEALTH_SCORE};
use headroom_telemetry::logs::{self, LogSettings};
use headroom_telemetry::otel::{self, OtelSettings};
use headroom_telemetry::{Telemetry, TelemetryOptions};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use prost::Message;

const IS_CHILD: &str = "HEADROOM_TEST_IS_CHILD";

#[test]
fn metrics_and_our_own_spans_arrive_where_the_environment_says() {
    if std::env::var(IS_CHILD).is_ok() {
        return push_once();
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = thread::spawn(move || (0..2).map(|_| answer(&listener)).collect::<Vec<_>>());
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "metrics_and_our_own_spans_arrive_where_the_environment_says", "--nocapture"])
        .envs([(IS_CHILD, "1"), ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint)])
        .env("OTEL_RESOURCE_ATTRIBUTES", "host.name=web-1")
        .output()
        .unwrap();
    assert!(
        child.status.success(),
        "{}{}",
        String::from_utf8_lossy(&child.stdout),
        String::from_utf8_lossy(&child.stderr)
    );

    let received = server.join().unwrap();
    let body = |path: &str| &received.iter().find(|(got, _)| got == path).unwrap().1;
    let metrics = ExportMetricsServiceRequest::decode(&body("/v1/metrics")[..]).unwrap();
    let resource = metrics.resource_metrics[0].resource.as_ref().unwrap();
    let attribute = |key: &str| {
        let pair = resource.attributes.iter().find(|pair| pair.key == key).unwrap();
        format!("{:?}", pair.value)
    };
    assert!(attribute("service.name").contains("\"headroom\"") && attribute("host.name").contains("\"web-1\""));

    let metrics = &metrics.resource_metrics[0].scope_metrics[0].metrics;
    let data = |name: &str| metrics.iter().find(|metric| metric.name == name).unwrap().data.as_ref().unwrap();
    let Data::Sum(points) = data("headroom.otlp.accepted_points") else { panic!("a counter is a sum") };
    assert!(points.is_monotonic);
    assert_eq!(points.data_points[0].value, Some(Value::AsInt(42)));
    assert_eq!(points.data_points[0].attributes[0].key, "transport");
    let Data::Gauge(build) = data("headroom.build.info") else { panic!("a gauge is a gauge") };
    assert_eq!(build.data_points[0].value, Some(Value::AsDouble(1.0)), "set by a hook");
    let Data::Histogram(durations) = data("headroom.http.request_duration") else { panic!("a histogram is one") };
    assert_eq!((durations.data_points[0].count, durations.data_points[0].sum), (2, Some(0.75)));
    assert_eq!(durations.data_points[0].explicit_bounds.len(), HTTP_REQUEST_DURATION.metric().bounds().len());
    let Data::Gauge(scores) = data("headroom.server.health_score") else { panic!("a gauge is a gauge") };
    assert_eq!(scores.data_points.len(), 3_000, "the SDK's own bound of 2,000 does not apply");

    let traces = ExportTraceServiceRequest::decode(&body("/v1/traces")[..]).unwrap();
    let spans = &traces.resource_spans[0].scope_spans[0].spans;
    assert_eq!(spans.iter().map(|span| &*span.name).collect::<Vec<_>>(), ["tick"], "and none of a library");
}

/// The child: some values, a span of ours and one of a library, then the end.
fn push_once() {
    // As in the service: started, used and stopped inside a runtime, which gRPC needs and a blocking client must bear.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let telemetry = Telemetry::new(TelemetryOptions::default());
    let settings = OtelSettings::read(|name| std::env::var(name).ok());
    assert!(settings.metrics && settings.traces, "{settings:?}");
    let exporters = otel::start(&settings, &telemetry).unwrap();
    logs::init(&LogSettings::default(), exporters.tracer()).unwrap();

    telemetry.on_collect(|telemetry| telemetry.gauge(&BUILD_INFO, ["1", "abc", "all"]).set(1.0));
    telemetry.counter(&OTLP_POINTS_ACCEPTED, ["http"]).add(42);
    let duration = telemetry.histogram(&HTTP_REQUEST_DURATION, ["/v1/pools"]);
    duration.observe(0.25);
    duration.observe_duration(Duration::from_millis(500));
    let names: Vec<String> = (0..3_000).map(|server| format!("web-{server}")).collect();
    let rows = names.iter().map(|name| (["eu-1", "web", &**name], 1.0));
    telemetry.replace(&SERVER_HEALTH_SCORE, &["eu-1"], rows);
    tracing::info_span!(target: "headroom_engine", "tick").in_scope(|| {});
    tracing::info_span!(target: "hyper::client", "connect").in_scope(|| {});
    assert!(exporters.shutdown(Duration::from_secs(30)));
}

/// Takes one HTTP request and answers it: path and body.
fn answer(listener: &TcpListener) -> (String, Vec<u8>) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut path, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        } else if let Some(bytes) = line.strip_prefix("content-length:") {
            length = bytes.trim().parse().unwrap();
        } else if line.starts_with("post ") {
            path = line.split(' ').nth(1).unwrap().to_owned();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
    (path, body)
}
