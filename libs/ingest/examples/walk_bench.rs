//! How fast OTLP bytes become a sample batch: one thread, one body, over and over.
//!
//! `cargo run --release --example walk_bench -p headroom-ingest [seconds]`. This is the kernel alone: no socket, no log,
//! no windows; see load-tests/ for figures that count. Rates are per second of CPU time.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Instant;

use headroom_ingest::{Decoder, IdentityConfig, IngestLimits};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

const HOSTS: usize = 100;
/// Data points per metric, 50 a host: what a small Linux host reports (cpu times, memory, disks, …).
const POINTS: [usize; 14] = [8, 6, 2, 1, 1, 6, 4, 4, 4, 2, 2, 4, 5, 1];

fn attribute(key: &str, value: String) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value)) });
    KeyValue { key: key.to_owned(), value, ..Default::default() }
}

fn request(points_per_metric: &[usize]) -> ExportMetricsServiceRequest {
    let metrics = |host: usize| {
        points_per_metric.iter().enumerate().map(move |(at, points)| {
            let data_points = (0..*points)
                .map(|point| NumberDataPoint {
                    attributes: vec![
                        attribute("device", format!("nvme{point}n1")),
                        attribute("state", "idle".to_owned()),
                    ],
                    start_time_unix_nano: 1_795_000_000_000_000_000,
                    time_unix_nano: 1_795_255_210_000_000_000,
                    value: Some(number_data_point::Value::AsDouble((host * at + point) as f64)),
                    ..Default::default()
                })
                .collect();
            let data = if at % 2 == 0 {
                metric::Data::Gauge(Gauge { data_points })
            } else {
                metric::Data::Sum(Sum { data_points, aggregation_temporality: 2, is_monotonic: true })
            };
            Metric {
                name: format!("system.disk.operation_{at}"),
                unit: "{operation}".to_owned(),
                data: Some(data),
                ..Default::default()
            }
        })
    };
    let resource_metrics = (0..HOSTS)
        .map(|host| ResourceMetrics {
            resource: Some(Resource {
                attributes: vec![
                    attribute("host.name", format!("web-{host}.eu-1.example.net")),
                    attribute("host.id", format!("4c4c4544-0042-{host:04}")),
                    attribute("os.type", "linux".to_owned()),
                    attribute("k8s.cluster.name", "eu-1".to_owned()),
                    attribute("service.name", "node".to_owned()),
                ],
                ..Default::default()
            }),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(InstrumentationScope { name: "hostmetrics".to_owned(), ..Default::default() }),
                metrics: metrics(host).collect(),
                ..Default::default()
            }],
            ..Default::default()
        })
        .collect();
    ExportMetricsServiceRequest { resource_metrics }
}

fn main() {
    let seconds: f64 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(2.0);
    for (name, shape) in [("host (1-8 points per metric)", &POINTS[..]), ("flat (1 point per metric)", &[1; 50])] {
        let request = request(shape);
        let body = request.encode_to_vec();
        let points = HOSTS * shape.iter().sum::<usize>();
        let mut decoder = Decoder::new(IdentityConfig::default(), IngestLimits::default());
        assert_eq!(decoder.decode_protobuf(&body).unwrap().batch.len(), points);
        println!("{name}: {points} points, {:.1} bytes per point", body.len() as f64 / points as f64);
        let ours = measure(seconds, || {
            black_box(decoder.decode_protobuf(black_box(&body)).unwrap());
        });
        let prost = measure(seconds / 2.0, || {
            black_box(ExportMetricsServiceRequest::decode(black_box(&body[..])).unwrap());
        });
        for (what, rate) in [("walk to SampleBatch", ours), ("prost, decoded and dropped", prost)] {
            let (points, bytes) = (rate * points as f64, rate * body.len() as f64);
            println!("  {what}: {:.1} M points/s, {:.2} GB/s", points / 1e6, bytes / 1e9);
        }
    }
}

/// Calls per second of CPU time, which other programs on the machine hardly change.
fn measure(seconds: f64, mut call: impl FnMut()) -> f64 {
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let mut calls = 0u32;
    while start.elapsed().as_secs_f64() < seconds {
        call();
        calls += 1;
    }
    let used = cpu_seconds().zip(cpu).map(|(now, then)| now - then);
    f64::from(calls) / used.unwrap_or_else(|| start.elapsed().as_secs_f64())
}

/// CPU time of this thread so far, where the kernel tells it (Linux).
fn cpu_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split(' ').next()?.parse::<f64>().ok()? / 1e9)
}
