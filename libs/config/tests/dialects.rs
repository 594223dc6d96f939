//! The default policy reads what real senders send. Every line is spelled as the sender spells it: the Collector, the SDKs
//! and the Java agent as they were recorded, node_exporter and semconv as they document it.

use headroom_catalog::{DEFAULT_POLICY, Matcher};
use headroom_config::load_policy;
use headroom_model::policy::LaneMatcher;
use headroom_model::{Resource, Series, SeriesKind};

const SENT: &[(&str, &str, &str)] = &[
    // Metric, attributes, inputs.
    // The Collector's host_metrics.
    ("system.cpu.time", "cpu=cpu0 state=wait", "cpu_time_idle cpu_time_total"),
    ("system.cpu.time", "cpu=cpu0 state=user", "cpu_time_total"),
    ("system.cpu.time", "cpu=cpu1 state=steal", "cpu_time_steal cpu_time_total"),
    ("system.cpu.load_average.1m", "", "load_average"),
    ("system.memory.usage", "state=used", "memory_states memory_used"),
    ("system.memory.usage", "state=buffered", "memory_states"),
    ("system.memory.usage", "state=slab_reclaimable", ""),
    ("system.paging.faults", "type=major", "page_faults_major"),
    ("system.paging.faults", "type=minor", ""),
    ("system.paging.operations", "direction=page_in type=major", "pages_swapped_in"),
    ("system.paging.operations", "direction=page_out type=major", ""),
    ("system.disk.io_time", "device=vda", "disk_io_time"),
    ("system.disk.operation_time", "device=vda direction=read", "disk_operation_time"),
    ("system.disk.operations", "device=vda direction=write", "disk_operations"),
    ("system.filesystem.usage", "device=/dev/vda mode=rw mountpoint=/ type=ext4 state=used", "filesystem_used"),
    ("system.filesystem.usage", "device=/dev/vda mode=rw mountpoint=/ type=ext4 state=reserved", ""),
    ("system.filesystem.usage", "device=tmpfs mode=rw mountpoint=/run type=tmpfs state=used", ""),
    ("system.filesystem.utilization", "device=/dev/vda mode=rw mountpoint=/ type=ext4", "filesystem_used_ratio"),
    ("system.filesystem.utilization", "device=/dev/sr0 mode=ro mountpoint=/mnt type=iso9660", ""),
    ("system.paging.utilization", "device=/dev/vdb state=used", "swap_used_ratio"),
    ("system.paging.utilization", "device=/dev/vdb state=free", ""),
    ("system.network.errors", "device=eth0 direction=receive", "network_errors"),
    ("system.network.dropped", "device=eth0 direction=transmit", "network_drops"),
    ("system.network.packets", "device=eth0 direction=transmit", "network_packets"),
    ("system.network.packets", "device=lo direction=transmit", ""),
    // Its process scraper.
    ("process.memory.usage", "", "process_memory"),
    ("process.cpu.utilization", "state=user", "process_cpu_ratio"),
    ("process.cpu.utilization", "state=wait", ""),
    ("process.open_file_descriptors", "", "files_open"),
    ("process.uptime", "", "process_uptime"),
    // semconv 1.44.
    ("system.paging.utilization", "system.paging.state=used system.device=/dev/vdb", "swap_used_ratio"),
    ("system.filesystem.limit", "system.filesystem.mode=rw system.filesystem.type=ext4", "filesystem_size"),
    ("system.filesystem.limit", "system.filesystem.mode=rw system.filesystem.type=tmpfs", ""),
    ("process.unix.file_descriptor.count", "", "files_open"),
    ("process.cpu.utilization", "cpu.mode=system", "process_cpu_ratio"),
    ("jvm.file_descriptor.count", "", "files_open"),
    ("jvm.file_descriptor.limit", "", "files_open_limit"),
    ("system.cpu.time", "cpu.mode=iowait cpu.logical_number=0", "cpu_time_idle cpu_time_total"),
    ("system.cpu.utilization", "cpu.mode=idle", "cpu_idle_ratio"),
    ("system.memory.linux.available", "", "memory_available"),
    ("system.memory.limit", "", "memory_limit"),
    ("system.disk.io_time", "system.device=sda", "disk_io_time"),
    ("system.network.packet.dropped", "network.interface.name=eth0 network.io.direction=receive", "network_drops"),
    ("rpc.server.call.duration", "rpc.response.status_code=UNAVAILABLE", "rpc_errors rpc_latency_p95 rpc_requests"),
    ("rpc.server.call.duration", "rpc.response.status_code=OK", "rpc_latency_p95 rpc_requests"),
    ("hw.errors", "hw.id=dimm0 hw.type=memory error.type=uncorrected", "memory_uncorrectable"),
    // Python SDK with system-metrics.
    ("system.cpu.time", "cpu=1 state=idle", "cpu_time_idle cpu_time_total"),
    ("system.cpu.utilization", "cpu=1 state=idle", "cpu_idle_ratio"),
    ("system.memory.utilization", "state=used", "memory_used_ratio"),
    ("system.swap.utilization", "state=used", "swap_used_ratio"),
    ("system.swap.utilization", "state=free", ""),
    ("process.cpu.utilization", "", "process_cpu_ratio"),
    ("process.memory.usage", "", "process_memory"),
    ("process.open_file_descriptor.count", "", "files_open"),
    ("system.disk.time", "device=vda direction=read", "disk_operation_time"),
    ("system.disk.time", "device=loop0 direction=read", ""),
    ("system.network.dropped_packets", "device=eth0 direction=receive", "network_drops"),
    // Node SDK with host-metrics.
    ("system.cpu.time", "system.cpu.state=idle system.cpu.logical_number=0", "cpu_time_idle cpu_time_total"),
    ("system.cpu.utilization", "system.cpu.state=idle system.cpu.logical_number=0", "cpu_idle_ratio"),
    ("system.memory.usage", "system.memory.state=used", "memory_states memory_used"),
    ("system.network.errors", "system.device=eth0 network.io.direction=receive", "network_errors"),
    ("process.cpu.utilization", "process.cpu.state=user", "process_cpu_ratio"),
    ("process.memory.usage", "", "process_memory"),
    // Java agent.
    (
        "http.server.request.duration",
        "error.type=500 http.request.method=GET http.response.status_code=500 http.route=/ url.scheme=http",
        "http_errors http_latency_p95 http_requests",
    ),
    (
        "http.server.request.duration",
        "http.request.method=GET http.response.status_code=200 http.route=/ url.scheme=http",
        "http_latency_p95 http_requests",
    ),
    ("http.client.request.duration", "http.response.status_code=500", ""),
    ("jvm.memory.used_after_last_gc", "jvm.memory.pool.name=G1_Old_Gen jvm.memory.type=heap", "heap_used"),
    ("jvm.memory.limit", "jvm.memory.pool.name=Metaspace jvm.memory.type=non_heap", ""),
    // Older SDKs, in milliseconds.
    ("http.server.duration", "http.status_code=503", "http_errors http_latency_p95 http_requests"),
    ("rpc.server.duration", "rpc.grpc.status_code=14", "rpc_errors rpc_latency_p95 rpc_requests"),
    // node_exporter.
    ("node_cpu_seconds_total", "cpu=0 mode=iowait", "cpu_time_idle cpu_time_total"),
    ("node_load1", "", "load_average"),
    ("node_memory_MemAvailable_bytes", "", "memory_available"),
    ("node_disk_io_time_seconds_total", "device=sda", "disk_io_time"),
    ("node_disk_writes_completed_total", "device=sda", "disk_operations"),
    ("node_disk_writes_completed_total", "device=dm-0", ""),
    ("node_filesystem_avail_bytes", "device=/dev/sda1 fstype=ext4 mountpoint=/", "filesystem_free"),
    ("node_network_receive_drop_total", "device=eth0", "network_drops"),
    ("node_pressure_memory_waiting_seconds_total", "", "memory_waiting"),
    ("process_open_fds", "", "files_open"),
    ("process_resident_memory_bytes", "", "process_memory"),
    // semconv by way of Prometheus.
    ("system_cpu_time_seconds_total", "cpu_mode=idle", "cpu_time_idle cpu_time_total"),
    (
        "http_server_request_duration_seconds",
        "http_response_status_code=502",
        "http_errors http_latency_p95 http_requests",
    ),
    ("system_network_dropped_total", "device=eth0", "network_drops"),
];

fn series(metric: &str, attributes: &str) -> Series {
    let mut attributes: Vec<_> = attributes
        .split_whitespace()
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.into(), value.into()))
        .collect();
    attributes.sort();
    Series {
        metric: metric.into(),
        unit: "".into(),
        kind: SeriesKind::Gauge,
        attributes: attributes.into(),
        bounds: [].into(),
    }
}

#[test]
fn what_senders_send_is_read() {
    let policy = load_policy("default-policy.yaml", DEFAULT_POLICY).unwrap();
    let matcher = Matcher::new(&policy.inputs);
    let resource = Resource {
        server: "web-1".into(),
        host_names: vec![],
        aliases: vec![],
        cell: "default".into(),
        pool: "default".into(),
        sender: "".into(),
        attributes: vec![("host.name".into(), "web-1".into())],
    };
    let mut read = std::collections::BTreeSet::new();
    for (metric, attributes, expected) in SENT {
        let lanes = matcher.lanes(&resource, &series(metric, attributes));
        let inputs: Vec<&str> = lanes.iter().map(|lane| policy.inputs[usize::from(lane.input)].name.as_str()).collect();
        assert_eq!(inputs.join(" "), *expected, "{metric} {attributes}");
        read.extend(inputs.into_iter().map(String::from));
    }
    // Inputs that no line above feeds are of senders that were never recorded; a new one must be added here on purpose.
    let unread: Vec<&str> =
        policy.inputs.iter().map(|input| input.name.as_str()).filter(|name| !read.contains(*name)).collect();
    assert_eq!(unread, ["cpu_busy_ratio", "cpu_count", "cpu_wait_ratio", "heap_limit", "http_active"]);
}
