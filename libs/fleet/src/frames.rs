//! Requests for a load generator: encoded once, patched in place.
//!
//! A generator that encodes each request spends more than the server that decodes it, and on one machine that is what
//! gets measured. Here all strings stay as they are and only what changes is overwritten: the times and values of the
//! points, whose places are known. A point costs about as much as copying it would. The requests are ordinary ones: every
//! server has [`POINTS_PER_SERVER`] series, half of them gauges and half cumulative sums, with two or three attributes
//! and about 85 bytes each, and the known nuisances of real senders appear at set shares.

use headroom_model::time::NANOS_PER_SECOND;

use crate::proto::Attr::{Int, Str};
use crate::proto::{Attrs, Number, Shape, Times, Writer};
use crate::rng::Rng;

/// Points of a server in a frame.
pub const POINTS_PER_SERVER: usize = 50;

/// What to send.
#[derive(Clone, Debug)]
pub struct FrameSpec {
    /// Determines everything random.
    pub seed: u64,
    /// Servers altogether.
    pub servers: usize,
    /// Servers in a frame; a frame is one request of `servers_per_frame * POINTS_PER_SERVER` points.
    pub servers_per_frame: usize,
    /// Servers are spread over this many cells, in blocks of whole frames: a frame is of one cell.
    pub cells: usize,
    /// How often a server reports, seconds: the span over which `disorder_share` scatters times.
    pub interval_seconds: u32,
    /// When the counters began, ns since 1970.
    pub start_ns: i64,
    /// Share of (server, frame) whose counters begin again.
    pub reset_share: f64,
    /// Share of (server, frame) that is `late_seconds` old.
    pub late_share: f64,
    /// How late the late ones are, seconds.
    pub late_seconds: u32,
    /// Share of (server, frame) whose points carry scattered times of the last interval.
    pub disorder_share: f64,
    /// Share of frames that are sent again unchanged instead of advanced.
    pub duplicate_share: f64,
}

impl Default for FrameSpec {
    /// A thousand servers in frames of 20 (1,000 points, some 85 kB); one in a hundred resets, nothing else disturbs.
    fn default() -> Self {
        Self {
            seed: 1,
            servers: 1_000,
            servers_per_frame: 20,
            cells: 1,
            interval_seconds: 10,
            start_ns: 1_795_255_200_000_000_000,
            reset_share: 0.01,
            late_share: 0.0,
            late_seconds: 60,
            disorder_share: 0.0,
            duplicate_share: 0.0,
        }
    }
}

/// What was sent, to check against what was counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FrameCounts {
    /// Frames handed out.
    pub frames: u64,
    /// Points in them.
    pub points: u64,
    /// Points of frames that were handed out again unchanged.
    pub duplicates: u64,
    /// Servers' counters that began again.
    pub resets: u64,
    /// Points with a late time.
    pub late: u64,
    /// Points with a scattered time.
    pub disordered: u64,
}

/// Where a point's changing parts lie.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Position of the start time; `usize::MAX` for gauges.
    start: usize,
    time: usize,
    value: usize,
    /// Present value: a whole number for sums, sent as `as_int`; gauges are sent as `as_double`.
    level: f64,
}

/// One request, again and again.
#[derive(Clone, Debug)]
struct Frame {
    bytes: Vec<u8>,
    slots: Vec<Slot>,
    rng: Rng,
    fresh: bool,
}

/// Requests encoded beforehand.
#[derive(Clone, Debug)]
pub struct Frames {
    spec: FrameSpec,
    frames: Vec<Frame>,
    counts: FrameCounts,
}

impl Frames {
    /// Encodes all frames of `spec`.
    pub fn new(spec: FrameSpec) -> Self {
        let per_frame = spec.servers_per_frame.max(1);
        let total = spec.servers.div_ceil(per_frame);
        let frames = (0..total)
            .map(|at| {
                let cell = at * spec.cells.max(1) / total.max(1);
                let servers = at * per_frame..((at + 1) * per_frame).min(spec.servers);
                Frame::new(&spec, at, cell, servers)
            })
            .collect();
        Self { spec, frames, counts: FrameCounts::default() }
    }

    /// Number of frames; all of them together are one report of every server.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there is no frame.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Points of a frame.
    pub fn points(&self, frame: usize) -> usize {
        self.frames.get(frame).map_or(0, |frame| frame.slots.len())
    }

    /// What was handed out so far.
    pub fn counts(&self) -> FrameCounts {
        self.counts
    }

    /// The request of `frame` at `now_ns`: values moved on, times set. Empty for a frame that does not exist.
    pub fn advance(&mut self, frame: usize, now_ns: i64) -> &[u8] {
        let Some(frame) = self.frames.get_mut(frame) else { return &[] };
        self.counts.frames += 1;
        self.counts.points += frame.slots.len() as u64;
        if !frame.fresh && frame.rng.unit() < self.spec.duplicate_share {
            self.counts.duplicates += frame.slots.len() as u64;
        } else {
            frame.fresh = false;
            frame.advance(&self.spec, now_ns, &mut self.counts);
        }
        &frame.bytes
    }

    /// Splits the frames among `parts` generators, in turn; each counts for itself.
    pub fn split(self, parts: usize) -> Vec<Self> {
        let parts = parts.max(1);
        let mut split: Vec<Self> = (0..parts)
            .map(|_| Self { spec: self.spec.clone(), frames: Vec::new(), counts: FrameCounts::default() })
            .collect();
        for (at, frame) in self.frames.into_iter().enumerate() {
            split[at % parts].frames.push(frame);
        }
        split
    }
}

impl Frame {
    fn new(spec: &FrameSpec, at: usize, cell: usize, servers: std::ops::Range<usize>) -> Self {
        let times = Times { start_ns: spec.start_ns, time_ns: spec.start_ns };
        let mut out = Writer::default();
        let mut rng = Rng::new(spec.seed, at as u64);
        let mut slots = Vec::with_capacity(servers.len() * POINTS_PER_SERVER);
        for server in servers {
            let resource = [
                ("host.name", format!("server-{server}")),
                ("headroom.cell", format!("cell-{}", cell + 1)),
                ("headroom.pool", format!("pool-{}", server % 8 + 1)),
            ];
            let resource: Vec<_> = resource.iter().map(|(key, value)| (*key, Str(value))).collect();
            let first = out.marks.len();
            let mut shapes = Vec::with_capacity(POINTS_PER_SERVER);
            out.resource(&resource, "headroom.frames", |metrics| write_series(metrics, times, &mut shapes));
            let mut marks = out.marks[first..].iter().copied();
            for (shape, level) in shapes {
                let start = if shape == Shape::Gauge { usize::MAX } else { marks.next().unwrap_or(usize::MAX) };
                let (Some(time), Some(value)) = (marks.next(), marks.next()) else { break };
                slots.push(Slot { start, time, value, level: level * (0.5 + rng.unit()) });
            }
        }
        Self { bytes: out.bytes, slots, rng, fresh: true }
    }

    fn advance(&mut self, spec: &FrameSpec, now_ns: i64, counts: &mut FrameCounts) {
        let interval_ns = i64::from(spec.interval_seconds) * NANOS_PER_SECOND;
        for server in self.slots.chunks_mut(POINTS_PER_SERVER) {
            let reset = self.rng.unit() < spec.reset_share;
            let draw = self.rng.unit();
            let late = draw < spec.late_share;
            let disordered = !late && draw < spec.late_share + spec.disorder_share;
            let points = server.len() as u64;
            counts.resets += u64::from(reset);
            counts.late += if late { points } else { 0 };
            counts.disordered += if disordered { points } else { 0 };
            let late_ns = if late { i64::from(spec.late_seconds) * NANOS_PER_SECOND } else { 0 };
            let server_time = now_ns.saturating_sub(late_ns);
            // One number a server is enough: neighbouring series need not move independently.
            let mut bits = self.rng.next_u64();
            for slot in server {
                bits = bits.rotate_left(7);
                let step = (bits & 0xff) as f64;
                let time_ns = if disordered {
                    server_time.saturating_sub((bits >> 11) as i64 % interval_ns.max(1))
                } else {
                    server_time
                };
                put(&mut self.bytes, slot.time, time_ns as u64);
                if slot.start == usize::MAX {
                    slot.level += slot.level * (step - 127.5) * 1e-4;
                    put(&mut self.bytes, slot.value, slot.level.to_bits());
                    continue;
                }
                if reset {
                    slot.level = 0.0;
                    put(&mut self.bytes, slot.start, server_time.saturating_sub(interval_ns) as u64);
                }
                slot.level = (slot.level + 1.0 + step).floor();
                put(&mut self.bytes, slot.value, slot.level as u64);
            }
        }
    }
}

#[inline]
fn put(bytes: &mut [u8], at: usize, bits: u64) {
    if let Some(place) = bytes.get_mut(at..at + 8) {
        place.copy_from_slice(&bits.to_le_bytes());
    }
}

/// The series of one server: 25 gauges and 25 sums. Notes the shape and the usual size of each, in order.
fn write_series(out: &mut Writer, times: Times, shapes: &mut Vec<(Shape, f64)>) {
    let mut metric = |name: &str, unit: &str, shape: Shape, level: f64, attributes: &[Attrs<'_>]| {
        let value = if shape == Shape::Gauge { Number::Double(level) } else { Number::Int(level as i64) };
        let points: Vec<(Attrs<'_>, Number)> = attributes.iter().map(|attributes| (*attributes, value)).collect();
        shapes.extend(points.iter().map(|_| (shape, level)));
        out.metric(name, unit, shape, times, &points);
    };
    let on_device = |device: &'static str, direction: &'static str| {
        [("system.device", Str(device)), ("disk.io.direction", Str(direction))]
    };
    let disk: Vec<_> = ["vda", "vdb"].iter().flat_map(|d| [on_device(d, "read"), on_device(d, "write")]).collect();
    let disk: Vec<Attrs<'_>> = disk.iter().map(|attributes| &attributes[..]).collect();
    for (name, unit, level) in [
        ("system.disk.operations", "{operation}", 1e5),
        ("system.disk.io", "By", 1e9),
        ("system.disk.merged", "{operation}", 1e4),
    ] {
        metric(name, unit, Shape::Counter, level, &disk);
    }
    let on_interface = |interface: &'static str, direction: &'static str| {
        [("network.interface.name", Str(interface)), ("network.io.direction", Str(direction))]
    };
    let network = [on_interface("eth0", "receive"), on_interface("eth0", "transmit")];
    let network: Vec<Attrs<'_>> = network.iter().map(|attributes| &attributes[..]).collect();
    for (name, unit, level) in [
        ("system.network.io", "By", 1e9),
        ("system.network.packet.count", "{packet}", 1e6),
        ("system.network.errors", "{error}", 10.0),
        ("system.network.packet.dropped", "{packet}", 100.0),
    ] {
        metric(name, unit, Shape::Counter, level, &network);
    }
    let jobs: Vec<_> = ["ok", "failed", "retried", "expired", "refused"]
        .iter()
        .map(|outcome| [("queue", Str("default")), ("outcome", Str(outcome)), ("shard", Int(3))])
        .collect();
    let jobs: Vec<Attrs<'_>> = jobs.iter().map(|attributes| &attributes[..]).collect();
    metric("job.executions", "{job}", Shape::Counter, 1e4, &jobs);

    let modes = ["user", "system", "iowait", "idle"];
    let cpu: Vec<_> = (0..4).flat_map(|core| modes.map(|mode| [("state", Str(mode)), ("cpu", Int(core))])).collect();
    let cpu: Vec<Attrs<'_>> = cpu.iter().map(|attributes| &attributes[..]).collect();
    metric("system.cpu.utilization", "1", Shape::Gauge, 0.25, &cpu);
    let filesystem: Vec<_> = ["used", "free", "reserved"]
        .iter()
        .map(|state| {
            [
                ("system.device", Str("vda1")),
                ("system.filesystem.mountpoint", Str("/")),
                ("system.filesystem.state", Str(state)),
            ]
        })
        .collect();
    let filesystem: Vec<Attrs<'_>> = filesystem.iter().map(|attributes| &attributes[..]).collect();
    metric("system.filesystem.utilization", "1", Shape::Gauge, 0.3, &filesystem);
    let memory: Vec<_> = ["used", "free", "cached", "buffers", "slab", "available"]
        .iter()
        .map(|state| [("system.memory.state", Str(state)), ("numa.node", Int(0))])
        .collect();
    let memory: Vec<Attrs<'_>> = memory.iter().map(|attributes| &attributes[..]).collect();
    metric("system.memory.utilization", "1", Shape::Gauge, 0.2, &memory);
}
