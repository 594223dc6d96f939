//! What a tick of a cell costs from the samples in memory to the snapshot that readers see, and what the cell holds:
//! `cargo run --release -p headroom-load-generator --example tick_bench [servers] [ticks]`.
//!
//! The fleet and the policy are those of `load-tests/run tick` (lean: 20 gauges of one series, 20 signals, 9 compared with
//! peers), without sockets and log, so that a profile shows the engine alone. One thread, Linux.

use std::sync::Arc;
use std::time::Instant;

use headroom_engine::{EngineConfig, Partition};
use headroom_model::{Resource, SampleBatch, SampleBatchBuilder, Series, SeriesKind, Timestamp};
use headroom_read_model::ReadModel;

/// The executable's own, so that what the allocator adds is in the figures.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const STEP_SECONDS: i64 = 10;
const BEGIN_SECONDS: i64 = 1_800_000_000;
const POINTS: usize = 20;

/// CPU seconds of this thread, which other load on the machine hardly moves.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1e9
}

/// Resident bytes of this process.
fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok()).unwrap_or(f64::NAN) * 4096.0
}

/// The shipped policy's head with inputs and signals of the lean fleet, as `load-tests/run` writes it.
fn policy() -> String {
    let shipped = include_str!("../../../libs/catalog/src/default-policy.yaml");
    let head = shipped.split("\ninputs:").next().unwrap_or_default();
    let families = ["cpu", "memory", "disk", "network", "queue", "errors"];
    let (mut inputs, mut signals) = (String::new(), String::new());
    for at in 0..POINTS {
        let function = if at % 2 == 1 { "mean" } else { "last" };
        inputs += &format!(
            "  load_m{at:02}: {{unit: \"1\", function: {function}, \
             sources: [{{dialect: load, metrics: [load.m{at:02}]}}]}}\n"
        );
        let peers = if at < 9 { ", peers: {floor: 0.02}" } else { "" };
        signals += &format!(
            "  signal_{at:02}: {{family: {}, unit: \"1\", expression: \"load_m{at:02}\", under: 0.7, over: 0.85, \
             critical: 0.98{peers}}}\n",
            families[at % 6]
        );
    }
    format!("{head}\ninputs:\n{inputs}\nsignals:\n{signals}")
}

fn resource(server: usize) -> Arc<Resource> {
    let name: Arc<str> = format!("server-{server}").into();
    let pool: Arc<str> = format!("pool-{}", server % 8 + 1).into();
    Arc::new(Resource {
        server: name.clone(),
        host_names: vec![name.clone()],
        aliases: Vec::new(),
        cell: "cell-0".into(),
        pool: pool.clone(),
        sender: "".into(),
        attributes: vec![
            ("headroom.cell".into(), "cell-0".into()),
            ("headroom.pool".into(), pool),
            ("host.name".into(), name),
        ],
    })
}

fn batch(from: usize, resources: &[Arc<Resource>], series: &[Arc<Series>], step: i64, seed: &mut u64) -> SampleBatch {
    let mut builder = SampleBatchBuilder::with_capacity(resources.len() * series.len());
    for one in series {
        builder.add_series(one.clone());
    }
    for (at, resource) in resources.iter().enumerate() {
        let index = builder.add_resource(resource.clone());
        let time_ns = (BEGIN_SECONDS + step * STEP_SECONDS) * 1_000_000_000 + ((from + at) as i64 % 9_000) * 1_000_000;
        for at in 0..series.len() {
            *seed ^= *seed << 13;
            *seed ^= *seed >> 7;
            *seed ^= *seed << 17;
            let value = 0.2 + 0.6 * ((*seed >> 11) as f64 / (1u64 << 53) as f64);
            builder.push(index, at as u32, 0, time_ns, value);
        }
    }
    builder.finish()
}

fn main() {
    let number = |at: usize| std::env::args().nth(at).and_then(|n| n.parse::<usize>().ok());
    let (servers, ticks) = (number(1).unwrap_or(100_000), number(2).unwrap_or(12));
    let empty = resident();
    let mut engine = Partition::new(EngineConfig { future_max_seconds: None, ..EngineConfig::default() });
    match headroom_testkit::compile(&policy()) {
        Ok(compiled) => engine.handle_policy(Arc::new(compiled)),
        Err(problem) => return eprintln!("{problem}"),
    }
    let model = ReadModel::new(0);
    let metric = |at: usize| Series {
        metric: format!("load.m{at:02}").into(),
        unit: "1".into(),
        kind: SeriesKind::Gauge,
        attributes: [].into(),
        bounds: [].into(),
    };
    let series: Vec<Arc<Series>> = (0..POINTS).map(|at| Arc::new(metric(at))).collect();
    let resources: Vec<Arc<Resource>> = (0..servers).map(resource).collect();
    let before = resident();
    let mut seed = 0x9e37_79b9_7f4a_7c15;
    let mut figures: Vec<[f64; 5]> = Vec::new();
    for step in 0..ticks as i64 {
        let mut ingest = 0.0;
        for from in (0..servers).step_by(500) {
            let batch = batch(from, &resources[from..servers.min(from + 500)], &series, step, &mut seed);
            let begin = cpu_seconds();
            engine.handle_samples(&batch);
            ingest += cpu_seconds() - begin;
        }
        let (begin, clock) = (cpu_seconds(), Instant::now());
        let snapshots = engine.handle_tick(Timestamp::from_seconds(BEGIN_SECONDS + (step + 1) * STEP_SECONDS));
        let ticked = cpu_seconds();
        for snapshot in snapshots.iter().flatten() {
            model.apply(snapshot.clone());
        }
        let (applied, wall) = (cpu_seconds(), clock.elapsed().as_secs_f64());
        let bytes: usize = snapshots.iter().flatten().map(|snapshot| snapshot.encode().len()).sum();
        let encoded = cpu_seconds();
        drop(snapshots);
        let figure = [ingest, ticked - begin, applied - ticked, encoded - applied, wall].map(|seconds| seconds * 1e3);
        println!(
            "{step:3}  ingest {:7.1}  engine {:7.1}  visible +{:6.1}  encoded +{:6.1}  wall {:7.1} ms   {:.0} bytes a server \
             encoded, {:.0} resident a server and signal",
            figure[0],
            figure[1],
            figure[2],
            figure[3],
            figure[4],
            bytes as f64 / servers as f64,
            (resident() - before) / (servers * POINTS) as f64,
        );
        figures.push(figure);
    }
    let steady = &mut figures[ticks / 2..];
    let median = |steady: &mut [[f64; 5]], at: usize| {
        steady.sort_by(|a, b| a[at].total_cmp(&b[at]));
        steady.get(steady.len() / 2).map_or(f64::NAN, |figure| figure[at])
    };
    println!(
        "{servers} servers x {POINTS} signals, CPU: engine {:.1} ms, visible +{:.1} ms, encoded +{:.1} ms; the fleet itself \
         {:.0} MB",
        median(steady, 1),
        median(steady, 2),
        median(steady, 3),
        (before - empty) / 1e6,
    );
    for (cell, report) in engine.reports() {
        println!("{cell}: {report:?}");
    }
}
