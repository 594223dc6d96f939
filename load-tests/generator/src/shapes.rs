//! What is sent: the frames of a simulated fleet, or a lean fleet of any number of points a server.
//!
//! Frames are ready in memory and patched in place, at the price of about 100 bytes a point. A million servers would not
//! fit beside the server under test, so the lean fleet is written anew for every request: gauges without attributes
//! named `load.m00`, `load.m01`, …, each of which a policy can read as an input of one series. That is what figures per
//! (server, signal) need, and it says nothing about decoding.

use std::io::Write as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use headroom_fleet::{FrameSpec, Frames};

use crate::report::{Problem, Report};

/// Which fleet.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 50 points a server, half gauges, half counters, 2-3 attributes, about 85 bytes a point
    Frames,
    /// `--points-per-server` gauges a server without attributes
    Lean,
}

/// The fleet and its time.
#[derive(Args, Clone, Debug)]
pub struct ShapeArgs {
    /// Which fleet
    #[arg(long, value_enum, default_value = "frames")]
    pub shape: Kind,
    /// Servers, named server-0, server-1, …
    #[arg(long, default_value_t = 1_000)]
    pub servers: usize,
    /// Servers in a request
    #[arg(long, default_value_t = 100)]
    pub servers_per_request: usize,
    /// Points of a server (lean; frames have 50)
    #[arg(long, default_value_t = 20)]
    pub points_per_server: usize,
    /// Cells
    #[arg(long, default_value_t = 1)]
    pub cells: usize,
    /// Time of the first round's points, Unix seconds [default: the wall clock for every request]
    #[arg(long)]
    pub start: Option<i64>,
    /// With --start: from round to round, seconds
    #[arg(long, default_value_t = 10)]
    pub step: i64,
    /// Determines everything random
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

impl ShapeArgs {
    /// Requests of a round.
    pub fn requests(&self) -> u64 {
        self.servers.div_ceil(self.servers_per_request.max(1)) as u64
    }

    /// Points of a server.
    pub fn points(&self) -> usize {
        match self.shape {
            Kind::Frames => headroom_fleet::frames::POINTS_PER_SERVER,
            Kind::Lean => self.points_per_server,
        }
    }

    /// Time of the points of a round, ns since 1970.
    pub fn time_ns(&self, round: u64) -> i64 {
        match self.start {
            Some(start) => start.saturating_add(self.step.saturating_mul(round as i64)).saturating_mul(1_000_000_000),
            None => now_ns(),
        }
    }
}

/// The wall clock, ns since 1970: a sender has one of its own.
#[allow(clippy::disallowed_methods)]
pub fn now_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64)
}

/// The requests of one connection.
#[derive(Debug)]
pub struct Shape {
    /// The whole fleet's.
    pub args: ShapeArgs,
    source: Source,
    part: usize,
    parts: usize,
}

#[derive(Debug)]
enum Source {
    Frames(Frames),
    Lean(Vec<u8>),
}

impl Shape {
    /// The fleet's requests, dealt to `parts` connections in turn: request `n` of a round belongs to part `n % parts`.
    pub fn split(args: &ShapeArgs, parts: usize) -> Vec<Self> {
        let part = |(part, source)| Self { args: args.clone(), source, part, parts };
        match args.shape {
            Kind::Lean => (0..parts).map(|at| part((at, Source::Lean(Vec::new())))).collect(),
            Kind::Frames => {
                let spec = FrameSpec {
                    seed: args.seed,
                    servers: args.servers,
                    servers_per_frame: args.servers_per_request,
                    cells: args.cells,
                    interval_seconds: u32::try_from(args.step).unwrap_or(10),
                    start_ns: args.time_ns(0).saturating_sub(3_600_000_000_000),
                    ..FrameSpec::default()
                };
                Frames::new(spec).split(parts).into_iter().map(Source::Frames).enumerate().map(part).collect()
            }
        }
    }

    /// Connections that share the fleet.
    pub fn parts(&self) -> u64 {
        self.parts as u64
    }

    /// Requests of this part in a round.
    pub fn requests(&self) -> u64 {
        (self.args.requests() + (self.parts - 1 - self.part) as u64) / self.parts as u64
    }

    /// Its `at`-th request of `round`, and the points in it.
    pub fn request(&mut self, at: u64, round: u64) -> (&[u8], u64) {
        let time_ns = self.args.time_ns(round);
        let at = at as usize;
        match &mut self.source {
            Source::Frames(frames) => {
                let points = frames.points(at) as u64;
                (frames.advance(at, time_ns), points)
            }
            Source::Lean(out) => {
                let number = at * self.parts + self.part;
                let first = number * self.args.servers_per_request;
                let last = (first + self.args.servers_per_request).min(self.args.servers);
                let cell = number * self.args.cells.max(1) / (self.args.requests() as usize).max(1);
                out.clear();
                for server in first..last {
                    let resource = [
                        ("host.name", format!("server-{server}")),
                        ("headroom.cell", format!("cell-{}", cell + 1)),
                        ("headroom.pool", format!("pool-{}", server % 8 + 1)),
                    ];
                    let draw = self.args.seed.wrapping_add((server as u64) << 20).wrapping_add(round);
                    let value = |point| unit(draw.wrapping_mul(31).wrapping_add(point));
                    gauges(out, &resource, self.args.points_per_server, time_ns, value);
                }
                (out, ((last - first) * self.args.points_per_server) as u64)
            }
        }
    }
}

/// A number in [0.2, 0.8) that depends on `draw` alone: a fleet at ordinary load.
fn unit(draw: u64) -> f64 {
    let mut bits = draw.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    0.2 + 0.6 * ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Name of the lean fleet's metric `at`.
fn metric_name(at: usize) -> String {
    format!("load.m{at:02}")
}

/// Appends one ResourceMetrics of `count` gauges with one point each.
fn gauges(out: &mut Vec<u8>, resource: &[(&str, String)], count: usize, time_ns: i64, value: impl Fn(u64) -> f64) {
    let named: Vec<(String, f64)> = (0..count).map(|at| (metric_name(at), value(at as u64))).collect();
    resource_metrics(out, resource, &named, time_ns);
}

/// Appends field 1 of an export request: one resource with these gauges.
pub fn resource_metrics(out: &mut Vec<u8>, resource: &[(&str, String)], gauges: &[(String, f64)], time_ns: i64) {
    let mut attributes = Vec::new();
    for (key, value) in resource {
        let mut pair = Vec::new();
        bytes(&mut pair, 1, key.as_bytes());
        let mut any = Vec::new();
        bytes(&mut any, 1, value.as_bytes());
        bytes(&mut pair, 2, &any);
        bytes(&mut attributes, 1, &pair);
    }
    let mut metrics = Vec::new();
    for (name, value) in gauges {
        // NumberDataPoint: time_unix_nano = 3 and as_double = 4, both fixed64.
        let mut point = vec![3 << 3 | 1];
        point.extend_from_slice(&time_ns.to_le_bytes());
        point.push(4 << 3 | 1);
        point.extend_from_slice(&value.to_le_bytes());
        let mut gauge = Vec::new();
        bytes(&mut gauge, 1, &point);
        let mut metric = Vec::new();
        bytes(&mut metric, 1, name.as_bytes());
        bytes(&mut metric, 3, b"1");
        bytes(&mut metric, 5, &gauge);
        bytes(&mut metrics, 2, &metric);
    }
    let mut body = Vec::new();
    bytes(&mut body, 1, &attributes);
    bytes(&mut body, 2, &metrics);
    bytes(out, 1, &body);
}

/// A length-delimited field of protobuf.
fn bytes(out: &mut Vec<u8>, field: u8, content: &[u8]) {
    out.push(field << 3 | 2);
    let mut length = content.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(content);
}

/// Writes the requests of the first round to `path`.
pub fn write_bodies(args: &ShapeArgs, path: &Path) -> Result<Report, Problem> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    let (mut points, mut written) = (0, 0);
    for mut shape in Shape::split(args, 1) {
        for at in 0..shape.requests() {
            let (body, inside) = shape.request(at, 0);
            file.write_all(&u32::try_from(body.len())?.to_be_bytes())?;
            file.write_all(body)?;
            points += inside;
            written += body.len() as u64;
        }
    }
    file.flush()?;
    Ok(Report::default().with("requests", args.requests()).with("points", points).with("bytes", written))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(shape: Kind) -> ShapeArgs {
        ShapeArgs {
            shape,
            servers: 25,
            servers_per_request: 10,
            points_per_server: 3,
            cells: 1,
            start: Some(1_795_255_200),
            step: 10,
            seed: 7,
        }
    }

    #[test]
    fn however_many_connections_a_round_is_one_report_of_every_server() {
        for kind in [Kind::Frames, Kind::Lean] {
            let args = args(kind);
            for parts in 1..5 {
                let mut points = 0;
                for mut shape in Shape::split(&args, parts) {
                    points += (0..shape.requests()).map(|at| shape.request(at, 0).1).sum::<u64>();
                }
                assert_eq!(points, 25 * args.points() as u64, "{kind:?} in {parts}");
            }
        }
    }

    #[test]
    fn a_seed_and_a_round_give_the_same_bytes() {
        for kind in [Kind::Frames, Kind::Lean] {
            let bytes = |seed: u64| {
                let mut shape = Shape::split(&ShapeArgs { seed, ..args(kind) }, 1).remove(0);
                shape.request(1, 4).0.to_vec()
            };
            assert_eq!(bytes(7), bytes(7));
            assert_ne!(bytes(7), bytes(8));
        }
    }
}
