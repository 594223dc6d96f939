//! A server's state as OTLP, spelt as each real sender spells it: names, units, attribute keys and values, number types
//! and even the mistakes (units that are missing, gauges that should be sums) are those of captured traffic.
//!
//! What the senders do not say by themselves is what an operator adds: `host.name`, `headroom.cell` and `headroom.pool`,
//! by `OTEL_RESOURCE_ATTRIBUTES` or the Collector's `resource` processor.

use crate::fleet::{Fleet, Server};
use crate::plant::{CORES, FILESYSTEM_BYTES, HTTP_BOUNDS, MEMORY_BYTES, Plant};
use crate::proto::Attr::{self, Int, Str};
use crate::proto::Number::{Double, Int as Whole};
use crate::proto::Shape::{Counter, Gauge, UpDown};
use crate::proto::{Attrs, Number, Times, Writer};
use crate::spec::Dialect;

const DISK: &str = "vda";
const INTERFACE: &str = "eth0";
const HOSTMETRICS: &str =
    "github.com/open-telemetry/opentelemetry-collector-contrib/receiver/hostmetricsreceiver/internal/scraper/";
const CORE_NAMES: [&str; CORES] = ["cpu0", "cpu1", "cpu2", "cpu3"];
const CORE_NUMBERS: [&str; CORES] = ["0", "1", "2", "3"];

impl Fleet {
    /// One OTLP `ExportMetricsServiceRequest` (protobuf) with what these servers report at `now_ns`; indices without a
    /// server are left out. The values are those of the last step.
    pub fn export(&self, servers: &[usize], now_ns: i64) -> Vec<u8> {
        let mut out = Writer::default();
        for server in servers.iter().filter_map(|index| self.servers().get(*index)) {
            write_server(&mut out, server, now_ns);
        }
        out.bytes
    }
}

fn write_server(out: &mut Writer, server: &Server, now_ns: i64) {
    let times = Times { start_ns: server.start_ns, time_ns: now_ns };
    // Another process, another id, as SDKs do it: a restart must not make another server of it.
    let instance = format!("{}-{:x}", &server.host_id[..8], server.start_ns);
    let host: Attrs<'_> = &[
        ("host.name", Str(&server.name)),
        ("host.id", Str(&server.host_id)),
        ("headroom.cell", Str(&server.cell)),
        ("headroom.pool", Str(&server.pool)),
    ];
    let sdk = |language: &'static str| {
        [
            ("telemetry.sdk.language", Str(language)),
            ("service.name", Str(&server.pool)),
            ("service.instance.id", Str(&instance)),
            ("host.name", Str(&server.name)),
            ("headroom.cell", Str(&server.cell)),
            ("headroom.pool", Str(&server.pool)),
        ]
    };
    let plant = &server.plant;
    match server.dialect {
        Dialect::CollectorHostmetrics => {
            write_hostmetrics(out, host, plant, times);
            let scope = "io.opentelemetry.tomcat-10.0";
            out.resource(&sdk("java"), scope, |metrics| write_http(metrics, plant, times));
        }
        Dialect::Python => {
            let scope = "opentelemetry.instrumentation.system_metrics";
            out.resource(&sdk("python"), scope, |metrics| write_python(metrics, plant, times));
            let scope = "opentelemetry.instrumentation.asgi";
            out.resource(&sdk("python"), scope, |metrics| write_http(metrics, plant, times));
        }
        Dialect::Node => {
            out.resource(&sdk("nodejs"), "@opentelemetry/host-metrics", |metrics| write_node(metrics, plant, times));
            let scope = "@opentelemetry/instrumentation-http";
            out.resource(&sdk("nodejs"), scope, |metrics| write_http(metrics, plant, times));
        }
        Dialect::Semconv => {
            let mut attributes = sdk("rust").to_vec();
            attributes.push(("host.id", Str(&server.host_id)));
            out.resource(&attributes, "headroom.fleet", |metrics| {
                write_semconv(metrics, plant, times);
                write_http(metrics, plant, times);
            });
        }
    }
}

/// How a dialect names what it counts on each core.
struct CpuKeys<'a> {
    state: &'a str,
    core: &'a str,
    /// The states for user, system, waiting and idle; waiting counts as idle where a dialect has no word for it.
    states: [&'a str; 4],
}

fn cpu_seconds(
    out: &mut Writer,
    plant: &Plant,
    times: Times,
    keys: &CpuKeys<'_>,
    core: impl Fn(usize) -> Attr<'static>,
) {
    let mut points = Vec::with_capacity(CORES * 4);
    for (at, seconds) in plant.cpu_seconds.iter().enumerate() {
        for (state, name) in keys.states.iter().enumerate() {
            let folded = if name.is_empty() {
                continue;
            } else if state == 3 && keys.states[2].is_empty() {
                seconds[2] + seconds[3]
            } else {
                seconds[state]
            };
            points.push(([(keys.state, Str(name)), (keys.core, core(at))], Double(folded)));
        }
    }
    let points: Vec<(Attrs<'_>, Number)> = points.iter().map(|(attributes, value)| (&attributes[..], *value)).collect();
    out.metric("system.cpu.time", "s", Counter, times, &points);
}

/// A metric with one point for each value of one attribute, after the attributes `fixed`.
fn by_value(
    out: &mut Writer,
    (name, unit, shape): (&str, &str, crate::proto::Shape),
    times: Times,
    fixed: Attrs<'_>,
    key: &str,
    values: &[(&str, Number)],
) {
    let attributes: Vec<Vec<_>> =
        values.iter().map(|(value, _)| fixed.iter().copied().chain([(key, Str(value))]).collect()).collect();
    let points: Vec<(Attrs<'_>, Number)> =
        attributes.iter().zip(values).map(|(attributes, (_, number))| (&attributes[..], *number)).collect();
    out.metric(name, unit, shape, times, &points);
}

fn whole(value: f64) -> Number {
    Whole(value as i64)
}

fn memory(plant: &Plant) -> (f64, f64, f64) {
    let used = plant.memory_used_bytes;
    let cached = (MEMORY_BYTES - used) * 0.6;
    (used, MEMORY_BYTES - used - cached, cached)
}

fn write_hostmetrics(out: &mut Writer, host: Attrs<'_>, plant: &Plant, times: Times) {
    let scope = |name: &str| format!("{HOSTMETRICS}{name}");
    out.resource(host, &scope("cpuscraper"), |m| {
        let keys = CpuKeys { state: "state", core: "cpu", states: ["user", "system", "wait", "idle"] };
        cpu_seconds(m, plant, times, &keys, |core| Str(CORE_NAMES[core]));
    });
    out.resource(host, &scope("loadscraper"), |m| {
        for (span, value) in ["1m", "5m", "15m"].into_iter().zip(plant.load_average) {
            m.metric(&format!("system.cpu.load_average.{span}"), "{thread}", Gauge, times, &[(&[], Double(value))]);
        }
    });
    out.resource(host, &scope("memoryscraper"), |m| {
        let (used, free, cached) = memory(plant);
        let values = [("used", whole(used)), ("free", whole(free)), ("cached", whole(cached)), ("buffered", Whole(0))];
        by_value(m, ("system.memory.usage", "By", UpDown), times, &[], "state", &values);
    });
    out.resource(host, &scope("diskscraper"), |m| {
        let device: Attrs<'_> = &[("device", Str(DISK))];
        m.metric("system.disk.io_time", "s", Counter, times, &[(device, Double(plant.disk_busy_seconds))]);
        let [read, write] = plant.disk_operation_seconds;
        let values = [("read", Double(read)), ("write", Double(write))];
        by_value(m, ("system.disk.operation_time", "s", Counter), times, device, "direction", &values);
        directions(
            m,
            ("system.disk.operations", "{operations}"),
            times,
            device,
            "direction",
            READ_WRITE,
            plant.disk_operations,
        );
        directions(m, ("system.disk.io", "By"), times, device, "direction", READ_WRITE, plant.disk_bytes);
    });
    out.resource(host, &scope("filesystemscraper"), |m| {
        let fixed: Attrs<'_> =
            &[("device", Str("/dev/vda1")), ("mode", Str("rw")), ("mountpoint", Str("/")), ("type", Str("ext4"))];
        let used = plant.filesystem_used_bytes;
        let values = [("used", whole(used)), ("free", whole(FILESYSTEM_BYTES - used)), ("reserved", Whole(0))];
        by_value(m, ("system.filesystem.usage", "By", UpDown), times, fixed, "state", &values);
    });
    out.resource(host, &scope("networkscraper"), |m| {
        let device: Attrs<'_> = &[("device", Str(INTERFACE))];
        directions(m, ("system.network.io", "By"), times, device, "direction", RECEIVE_TRANSMIT, plant.network_bytes);
        let packets = plant.network_bytes.map(|bytes| bytes / 1_000.0);
        directions(m, ("system.network.packets", "{packets}"), times, device, "direction", RECEIVE_TRANSMIT, packets);
        directions(m, ("system.network.errors", "{errors}"), times, device, "direction", RECEIVE_TRANSMIT, [0.0; 2]);
        directions(
            m,
            ("system.network.dropped", "{packets}"),
            times,
            device,
            "direction",
            RECEIVE_TRANSMIT,
            plant.network_dropped,
        );
    });
    out.resource(host, &scope("pagingscraper"), |m| {
        let values = [("major", whole(plant.faults[0])), ("minor", whole(plant.faults[1]))];
        by_value(m, ("system.paging.faults", "{faults}", Counter), times, &[], "type", &values);
    });
}

const READ_WRITE: [&str; 2] = ["read", "write"];
const RECEIVE_TRANSMIT: [&str; 2] = ["receive", "transmit"];

/// A counter with two directions.
fn directions(
    out: &mut Writer,
    (name, unit): (&str, &str),
    times: Times,
    fixed: Attrs<'_>,
    key: &str,
    names: [&str; 2],
    values: [f64; 2],
) {
    by_value(
        out,
        (name, unit, Counter),
        times,
        fixed,
        key,
        &[(names[0], whole(values[0])), (names[1], whole(values[1]))],
    );
}

fn write_python(m: &mut Writer, plant: &Plant, times: Times) {
    let keys = CpuKeys { state: "state", core: "cpu", states: ["user", "system", "", "idle"] };
    cpu_seconds(m, plant, times, &keys, |core| Int(core as i64 + 1));
    let (used, free, cached) = memory(plant);
    let values = [("used", whole(used)), ("free", whole(free)), ("cached", whole(cached))];
    by_value(m, ("system.memory.usage", "By", Gauge), times, &[], "state", &values);
    let ratio = |bytes: f64| Double(bytes / MEMORY_BYTES);
    let values = [("used", ratio(used)), ("free", ratio(free)), ("cached", ratio(cached))];
    by_value(m, ("system.memory.utilization", "1", Gauge), times, &[], "state", &values);
    let device: Attrs<'_> = &[("device", Str(DISK))];
    directions(m, ("system.disk.io", "By"), times, device, "direction", READ_WRITE, plant.disk_bytes);
    directions(
        m,
        ("system.disk.operations", "operations"),
        times,
        device,
        "direction",
        READ_WRITE,
        plant.disk_operations,
    );
    let [read, write] = plant.disk_operation_seconds;
    let values = [("read", Double(read)), ("write", Double(write))];
    by_value(m, ("system.disk.time", "s", Counter), times, device, "direction", &values);
    let device: Attrs<'_> = &[("device", Str(INTERFACE))];
    directions(m, ("system.network.io", "By"), times, device, "direction", RECEIVE_TRANSMIT, plant.network_bytes);
    directions(
        m,
        ("system.network.dropped_packets", "packets"),
        times,
        device,
        "direction",
        RECEIVE_TRANSMIT,
        plant.network_dropped,
    );
}

fn write_node(m: &mut Writer, plant: &Plant, times: Times) {
    let keys = CpuKeys {
        state: "system.cpu.state",
        core: "system.cpu.logical_number",
        states: ["user", "system", "", "idle"],
    };
    cpu_seconds(m, plant, times, &keys, |core| Str(CORE_NUMBERS[core]));
    let (used, free) = (plant.memory_used_bytes, MEMORY_BYTES - plant.memory_used_bytes);
    let key = "system.memory.state";
    let values = [("used", Double(used)), ("free", Double(free))];
    by_value(m, ("system.memory.usage", "", Gauge), times, &[], key, &values);
    let values = [("used", Double(used / MEMORY_BYTES)), ("free", Double(free / MEMORY_BYTES))];
    by_value(m, ("system.memory.utilization", "", Gauge), times, &[], key, &values);
    let (device, key): (Attrs<'_>, _) = (&[("system.device", Str(INTERFACE))], "network.io.direction");
    for (name, [receive, transmit]) in [
        ("system.network.dropped", plant.network_dropped),
        ("system.network.errors", [0.0; 2]),
        ("system.network.io", plant.network_bytes),
    ] {
        let values = [("receive", Double(receive)), ("transmit", Double(transmit))];
        by_value(m, (name, "", Counter), times, device, key, &values);
    }
}

fn write_semconv(m: &mut Writer, plant: &Plant, times: Times) {
    let keys = CpuKeys { state: "cpu.mode", core: "cpu.logical_number", states: ["user", "system", "iowait", "idle"] };
    cpu_seconds(m, plant, times, &keys, |core| Int(core as i64));
    let (used, free, cached) = memory(plant);
    let values = [("used", whole(used)), ("free", whole(free)), ("cached", whole(cached))];
    by_value(m, ("system.memory.usage", "By", UpDown), times, &[], "system.memory.state", &values);
    m.metric("system.memory.limit", "By", UpDown, times, &[(&[], whole(MEMORY_BYTES))]);
    let device: Attrs<'_> = &[("system.device", Str(DISK))];
    let key = "disk.io.direction";
    m.metric("system.disk.io_time", "s", Counter, times, &[(device, Double(plant.disk_busy_seconds))]);
    let [read, write] = plant.disk_operation_seconds;
    let values = [("read", Double(read)), ("write", Double(write))];
    by_value(m, ("system.disk.operation_time", "s", Counter), times, device, key, &values);
    directions(m, ("system.disk.operations", "{operation}"), times, device, key, READ_WRITE, plant.disk_operations);
    directions(m, ("system.disk.io", "By"), times, device, key, READ_WRITE, plant.disk_bytes);
    let fixed: Attrs<'_> = &[
        ("system.device", Str("/dev/vda1")),
        ("system.filesystem.mode", Str("rw")),
        ("system.filesystem.mountpoint", Str("/")),
        ("system.filesystem.type", Str("ext4")),
    ];
    let used = plant.filesystem_used_bytes;
    let values = [("used", whole(used)), ("free", whole(FILESYSTEM_BYTES - used))];
    by_value(m, ("system.filesystem.usage", "By", UpDown), times, fixed, "system.filesystem.state", &values);
    let (device, key): (Attrs<'_>, _) = (&[("network.interface.name", Str(INTERFACE))], "network.io.direction");
    directions(m, ("system.network.io", "By"), times, device, key, RECEIVE_TRANSMIT, plant.network_bytes);
    directions(
        m,
        ("system.network.packet.dropped", "{packet}"),
        times,
        device,
        key,
        RECEIVE_TRANSMIT,
        plant.network_dropped,
    );
    let values = [("major", whole(plant.faults[0])), ("minor", whole(plant.faults[1]))];
    by_value(m, ("system.paging.faults", "{fault}", Counter), times, &[], "system.paging.fault.type", &values);
}

fn write_http(m: &mut Writer, plant: &Plant, times: Times) {
    let route = [("http.request.method", Str("GET")), ("url.scheme", Str("http")), ("http.route", Str("/items/{id}"))];
    let mut ok = route.to_vec();
    ok.push(("http.response.status_code", Int(200)));
    let mut failed = route.to_vec();
    failed.extend([("http.response.status_code", Int(503)), ("error.type", Str("503"))]);
    let (ok_counts, failed_counts) = (plant.requests_ok.counts(), plant.requests_failed.counts());
    let points: [(Attrs<'_>, &[u64], f64); 2] = [
        (&ok, &ok_counts, plant.requests_ok.sum_seconds),
        (&failed, &failed_counts, plant.requests_failed.sum_seconds),
    ];
    m.histogram("http.server.request.duration", "s", times, &HTTP_BOUNDS, &points);
}
