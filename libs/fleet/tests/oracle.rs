//! What the hand-written encoder writes, read back by prost: every value is the model's.

#![allow(clippy::unwrap_used, reason = "a test; clippy knows only unit tests as such")]

use headroom_fleet::frames::{FrameCounts, POINTS_PER_SERVER};
use headroom_fleet::plant::HTTP_BOUNDS;
use headroom_fleet::{Dialect, Fleet, FleetSpec, FrameSpec, Frames, Server};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::metrics::v1::{NumberDataPoint, metric::Data, number_data_point::Value};
use prost::Message;

const SECOND: i64 = 1_000_000_000;

fn decode(bytes: &[u8]) -> ExportMetricsServiceRequest {
    ExportMetricsServiceRequest::decode(bytes).unwrap()
}

fn text(attributes: &[KeyValue]) -> String {
    let value = |pair: &KeyValue| match pair.value.as_ref().and_then(|any| any.value.as_ref()) {
        Some(Any::StringValue(text)) => text.clone(),
        Some(Any::IntValue(number)) => number.to_string(),
        other => panic!("{}: {other:?}", pair.key),
    };
    attributes.iter().map(|pair| format!("{}={}", pair.key, value(pair))).collect::<Vec<_>>().join(",")
}

fn value(point: &NumberDataPoint) -> f64 {
    match point.value {
        Some(Value::AsInt(value)) => value as f64,
        Some(Value::AsDouble(value)) => value,
        None => panic!("a point without a value"),
    }
}

/// All number points of a request: (metric, kind, attributes) and value.
fn numbers(request: &ExportMetricsServiceRequest) -> Vec<(String, f64)> {
    let metrics = request.resource_metrics.iter().flat_map(|r| &r.scope_metrics).flat_map(|s| &s.metrics);
    metrics
        .flat_map(|metric| {
            let (kind, points) = match metric.data.as_ref().unwrap() {
                Data::Gauge(data) => ("gauge", &data.data_points[..]),
                Data::Sum(data) => {
                    assert_eq!(data.aggregation_temporality, 2);
                    (if data.is_monotonic { "counter" } else { "updown" }, &data.data_points[..])
                }
                _ => ("", &[][..]),
            };
            points.iter().map(move |p| (format!("{} {kind} {}", metric.name, text(&p.attributes)), value(p)))
        })
        .collect()
}

fn fleet_of(dialect: Dialect) -> (Fleet, i64) {
    let spec =
        FleetSpec { cells: 1, pools: 1, servers_per_pool: 2, dialects: vec![(dialect, 1)], ..FleetSpec::default() };
    let now_ns = spec.start_ns + 60 * SECOND;
    let mut fleet = Fleet::new(spec);
    fleet.step(now_ns);
    (fleet, now_ns)
}

#[test]
fn every_dialect_reports_the_model_in_its_own_words() {
    type Expected = fn(&Server) -> f64;
    let idle: Expected = |server| server.plant.cpu_seconds[0][3];
    let idle_or_waiting: Expected = |server| server.plant.cpu_seconds[0][3] + server.plant.cpu_seconds[0][2];
    let used: Expected = |server| server.plant.memory_used_bytes.floor();
    let used_exactly: Expected = |server| server.plant.memory_used_bytes;
    let writes: Expected = |server| server.plant.disk_operations[1].floor();
    let write_seconds: Expected = |server| server.plant.disk_operation_seconds[1];
    let cases: &[(Dialect, &[(&str, Expected)])] = &[
        (
            Dialect::CollectorHostmetrics,
            &[
                ("system.cpu.time counter state=idle,cpu=cpu0", idle),
                ("system.memory.usage updown state=used", used),
                ("system.disk.operations counter device=vda,direction=write", writes),
                ("system.disk.operation_time counter device=vda,direction=write", write_seconds),
                ("system.disk.io_time counter device=vda", |server| server.plant.disk_busy_seconds),
                ("system.cpu.load_average.1m gauge ", |server| server.plant.load_average[0]),
                (
                    "system.filesystem.usage updown device=/dev/vda1,mode=rw,mountpoint=/,type=ext4,state=used",
                    |server| server.plant.filesystem_used_bytes.floor(),
                ),
                ("system.network.dropped counter device=eth0,direction=receive", |server| {
                    server.plant.network_dropped[0].floor()
                }),
                ("system.paging.faults counter type=minor", |server| server.plant.faults[1].floor()),
            ],
        ),
        (
            Dialect::Python,
            &[
                ("system.cpu.time counter state=idle,cpu=1", idle_or_waiting),
                ("system.memory.usage gauge state=used", used),
                ("system.disk.operations counter device=vda,direction=write", writes),
                ("system.disk.time counter device=vda,direction=write", write_seconds),
            ],
        ),
        (
            Dialect::Node,
            &[
                ("system.cpu.time counter system.cpu.state=idle,system.cpu.logical_number=0", idle_or_waiting),
                ("system.memory.usage gauge system.memory.state=used", used_exactly),
            ],
        ),
        (
            Dialect::Semconv,
            &[
                ("system.cpu.time counter cpu.mode=idle,cpu.logical_number=0", idle),
                ("system.memory.usage updown system.memory.state=used", used),
                ("system.disk.operation_time counter system.device=vda,disk.io.direction=write", write_seconds),
            ],
        ),
    ];
    for (dialect, expected) in cases {
        let (fleet, now_ns) = fleet_of(*dialect);
        let server = &fleet.servers()[1];
        let request = decode(&fleet.export(&[1], now_ns));
        let numbers = numbers(&request);
        for (key, expected) in *expected {
            let found: Vec<f64> = numbers.iter().filter(|(name, _)| name == key).map(|(_, value)| *value).collect();
            assert_eq!(found, [expected(server)], "{dialect:?} {key}: {numbers:#?}");
            assert!(found[0] >= 0.0);
        }
        for resource in &request.resource_metrics {
            let attributes = text(&resource.resource.as_ref().unwrap().attributes);
            for part in ["host.name=web-2", "headroom.cell=eu-1", "headroom.pool=web"] {
                assert!(attributes.contains(part), "{dialect:?}: {attributes}");
            }
        }
    }
}

#[test]
fn requests_are_a_cumulative_histogram_by_outcome() {
    let (fleet, now_ns) = fleet_of(Dialect::CollectorHostmetrics);
    let request = decode(&fleet.export(&[0, 7, 1], now_ns));
    let metrics = request.resource_metrics.iter().flat_map(|r| &r.scope_metrics).flat_map(|s| &s.metrics);
    let points: Vec<_> = metrics
        .filter(|metric| metric.name == "http.server.request.duration" && metric.unit == "s")
        .flat_map(|metric| match metric.data.as_ref().unwrap() {
            Data::Histogram(data) => {
                assert_eq!(data.aggregation_temporality, 2);
                data.data_points.clone()
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(points.len(), 4, "two servers, two outcomes; the third index is nobody's");
    let plant = &fleet.servers()[0].plant;
    for (point, (requests, outcome)) in points.iter().zip([
        (&plant.requests_ok, "http.response.status_code=200"),
        (&plant.requests_failed, "http.response.status_code=503,error.type=503"),
    ]) {
        assert!(text(&point.attributes).ends_with(outcome), "{}", text(&point.attributes));
        assert_eq!(point.bucket_counts, requests.counts());
        assert_eq!(point.explicit_bounds, HTTP_BOUNDS);
        assert_eq!((point.count, point.sum), (requests.counts().iter().sum(), Some(requests.sum_seconds)));
        let times = (point.start_time_unix_nano as i64, point.time_unix_nano as i64);
        assert_eq!(times, (fleet.spec().start_ns, now_ns));
    }
    assert!(points[0].count > 1_000);
}

#[test]
fn frames_move_in_place_and_stay_valid() {
    let spec = FrameSpec { servers: 50, servers_per_frame: 20, cells: 2, ..FrameSpec::default() };
    let start_ns = spec.start_ns;
    let mut frames = Frames::new(FrameSpec { reset_share: 0.0, ..spec });
    assert_eq!((frames.len(), frames.points(0), frames.points(2)), (3, 20 * POINTS_PER_SERVER, 10 * POINTS_PER_SERVER));
    let size = frames.advance(0, start_ns).len();
    let per_point = size as f64 / (20 * POINTS_PER_SERVER) as f64;
    assert!((80.0..95.0).contains(&per_point), "{per_point} bytes a point");

    let before = numbers(&decode(frames.advance(0, start_ns + 10 * SECOND)));
    let request = decode(frames.advance(0, start_ns + 20 * SECOND));
    let after = numbers(&request);
    assert_eq!(after.len(), 20 * POINTS_PER_SERVER);
    let counters = after.iter().filter(|(name, _)| name.contains(" counter ")).count();
    assert_eq!(counters * 2, after.len());
    for ((name, before), (same, after)) in before.iter().zip(&after) {
        assert_eq!(name, same);
        let step = after - before;
        if name.contains(" counter ") {
            assert!((1.0..=256.0).contains(&step), "{name} {step}");
        } else {
            assert!(*after > 0.0 && step != 0.0, "{name} {step}");
        }
    }
    for point in
        request.resource_metrics.iter().flat_map(|r| &r.scope_metrics).flat_map(|s| &s.metrics).flat_map(|metric| {
            match metric.data.as_ref().unwrap() {
                Data::Gauge(data) => &data.data_points,
                Data::Sum(data) => &data.data_points,
                other => panic!("{other:?}"),
            }
        })
    {
        assert_eq!(point.time_unix_nano as i64, start_ns + 20 * SECOND);
    }
    assert_eq!(frames.advance(9, start_ns), b"");
}

#[test]
fn nuisances_come_at_their_share_and_are_counted() {
    let spec = FrameSpec {
        servers: 100,
        servers_per_frame: 10,
        reset_share: 0.1,
        late_share: 0.1,
        disorder_share: 0.1,
        duplicate_share: 0.2,
        ..FrameSpec::default()
    };
    let (start_ns, late_ns) = (spec.start_ns, i64::from(spec.late_seconds) * SECOND);
    let mut frames = Frames::new(spec.clone());
    let mut seen = FrameCounts::default();
    let mut last = vec![Vec::new(); frames.len()];
    for round in 1..=20 {
        let now_ns = start_ns + round * 10 * SECOND;
        for (at, last) in last.iter_mut().enumerate() {
            let bytes = frames.advance(at, now_ns).to_vec();
            seen.frames += 1;
            seen.points += 10 * POINTS_PER_SERVER as u64;
            if bytes == *last {
                seen.duplicates += 10 * POINTS_PER_SERVER as u64;
                continue;
            }
            for resource in &decode(&bytes).resource_metrics {
                let mut reset = false;
                for metric in &resource.scope_metrics[0].metrics {
                    let points = match metric.data.as_ref().unwrap() {
                        Data::Gauge(data) => &data.data_points,
                        Data::Sum(data) => &data.data_points,
                        other => panic!("{other:?}"),
                    };
                    for point in points {
                        let age = now_ns - point.time_unix_nano as i64;
                        seen.late += u64::from(age == late_ns);
                        seen.disordered += u64::from(age > 0 && age < late_ns);
                        let since = point.time_unix_nano as i64 - point.start_time_unix_nano as i64;
                        reset |= metric.name == "system.disk.io" && since == 10 * SECOND && value(point) <= 256.0;
                    }
                }
                seen.resets += u64::from(reset);
            }
            *last = bytes;
        }
    }
    let counts = frames.counts();
    // A scattered time may be the present one.
    assert!(counts.disordered - seen.disordered < 5, "{counts:?} {seen:?}");
    // A reset seen through scattered times is not recognised above.
    assert!(seen.resets <= counts.resets && counts.resets - seen.resets < counts.resets / 3, "{counts:?} {seen:?}");
    assert_eq!(FrameCounts { disordered: 0, resets: 0, ..counts }, FrameCounts { disordered: 0, resets: 0, ..seen });
    assert!(counts.late > 0 && counts.duplicates > 0 && counts.resets > 100, "{counts:?}");
    assert_eq!(Frames::new(spec).split(3).iter().map(Frames::len).collect::<Vec<_>>(), [4, 3, 3]);
}
