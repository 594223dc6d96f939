//! What a store costs: points per CPU second in, and CPU seconds and bytes per row at a tick.
//!
//! `cargo run --release -p headroom-window --example window_bench [servers]`: batches are made beforehand, so that only
//! the store is measured. One thread, Linux.

use headroom_model::policy::*;
use headroom_model::{Resource, SampleBatch, SampleBatchBuilder, Series, SeriesKind, Timestamp};
use headroom_window::{ResourceId, WindowConfig, WindowLimits, WindowStore};
use std::hint::black_box;
use std::sync::Arc;

/// CPU seconds of this thread, which other load on the machine hardly moves.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1e9
}

const STEP_SECONDS: i64 = 10;
const BEGIN_SECONDS: i64 = 1_800_000_000;

struct ByName;

impl LaneMatcher for ByName {
    fn lanes(&self, _resource: &Resource, series: &Series) -> Vec<Lane> {
        series
            .metric
            .strip_prefix('m')
            .and_then(|n| n.parse().ok())
            .map(|input| Lane { input, source: 0, scale: 1.0 })
            .into_iter()
            .collect()
    }

    fn lanes_of_series(&self, series: &Series) -> Option<Vec<Lane>> {
        let resource = resource(0);
        Some(self.lanes(&resource, series))
    }
}

fn resource(server: usize) -> Resource {
    Resource {
        server: format!("server-{server}").into(),
        host_names: Vec::new(),
        aliases: Vec::new(),
        cell: "default".into(),
        pool: "default".into(),
        sender: "".into(),
        attributes: vec![("host.name".into(), format!("server-{server}").into())],
    }
}

fn policy(inputs: usize) -> Policy {
    let input = |at: usize| InputSpec {
        name: format!("m{at:03}"),
        unit: "1".into(),
        sources: vec![Source {
            dialect: "bench".into(),
            metrics: vec![format!("m{at}")],
            filters: Vec::new(),
            scale: 1.0,
        }],
        fold: Fold::Sum,
        across: Across::First,
        function: if at.is_multiple_of(2) { WindowFunction::Rate } else { WindowFunction::Mean },
    };
    Policy {
        hash: "00000000".into(),
        text: "".into(),
        windows: WindowSpec { control_seconds: 30, state_seconds: 60, baseline_seconds: 1_800, lateness_seconds: 15 },
        health: HealthSpec {
            unknown_after_seconds: 60,
            held_seconds: 300,
            peer_z: 4.0,
            peer_effect: 0.2,
            peers_min: 5,
            silent_seconds: 3_600,
            leave_seconds: 86_400,
        },
        lease: LeaseSpec { lease_seconds: 60, refresh_seconds: 10 },
        inputs: (0..inputs).map(input).collect(),
        signals: Vec::new(),
        score: None,
        rollup: None,
        classes: Vec::new(),
        rules: Vec::new(),
    }
}

fn series(count: usize) -> Vec<Arc<Series>> {
    let one = |at: usize| Series {
        metric: format!("m{at}").into(),
        unit: "1".into(),
        kind: if at.is_multiple_of(2) { SeriesKind::Counter } else { SeriesKind::Gauge },
        attributes: [].into(),
        bounds: [].into(),
    };
    (0..count).map(|at| Arc::new(one(at))).collect()
}

fn batch(
    servers: std::ops::Range<usize>,
    series: &[Arc<Series>],
    resources: &[Arc<Resource>],
    step: i64,
) -> SampleBatch {
    let mut builder = SampleBatchBuilder::with_capacity(servers.len() * series.len());
    for one in series {
        builder.add_series(one.clone());
    }
    for server in servers {
        let resource = builder.add_resource(resources[server].clone());
        let time_ns = (BEGIN_SECONDS + step * STEP_SECONDS) * 1_000_000_000 + (server as i64 % 9_000) * 1_000_000;
        for at in 0..series.len() {
            let value = if at.is_multiple_of(2) { (step * 100) as f64 } else { ((server as i64 + step) % 7) as f64 };
            builder.push(resource, at as u32, 1_700_000_000_000_000_000, time_ns, value);
        }
    }
    builder.finish()
}

fn store(servers: usize, inputs: usize) -> (WindowStore, Vec<Arc<Resource>>, Vec<Option<ResourceId>>) {
    let mut store =
        WindowStore::new(WindowLimits::default(), WindowConfig::default(), Arc::new(policy(inputs)), Arc::new(ByName));
    let resources: Vec<Arc<Resource>> = (0..servers).map(|server| Arc::new(resource(server))).collect();
    let ids = resources
        .iter()
        .enumerate()
        .map(|(slot, resource)| {
            let id = store.open_resource(resource)?;
            store.move_resource(id, slot as u32);
            Some(id)
        })
        .collect();
    (store, resources, ids)
}

fn ingest_rate() {
    let (servers, per_server, steps) = (1_000, 50, 60);
    let series = series(per_server);
    let (mut store, resources, ids) = store(servers, per_server);
    let batches: Vec<SampleBatch> = (0..steps).map(|step| batch(0..servers, &series, &resources, step)).collect();
    let mut seconds = 0.0;
    for (step, batch) in batches.iter().enumerate() {
        let begin = cpu_seconds();
        black_box(store.ingest(batch, &ids));
        // The first batches make the rows.
        if step >= 20 {
            seconds += cpu_seconds() - begin;
        }
        let tick = Timestamp::from_seconds(BEGIN_SECONDS + (step as i64 + 1) * STEP_SECONDS);
        if let Ok(batch) = store.close(tick, servers as u32) {
            store.recycle(batch);
        }
    }
    let points = (steps as usize - 20) * servers * per_server;
    println!(
        "ingest: {:.1} M points/s ({servers} servers x {per_server} points, {points} points)",
        points as f64 / seconds / 1e6
    );
}

fn close_cost(servers: usize) {
    let inputs = 20;
    let series = series(inputs);
    let (mut store, resources, ids) = store(servers, inputs);
    let mut ingest_seconds = 0.0;
    let mut best = f64::INFINITY;
    for step in 0..14 {
        for from in (0..servers).step_by(1_000) {
            let to = servers.min(from + 1_000);
            let batch = batch(from..to, &series, &resources, step);
            let begin = cpu_seconds();
            store.ingest(&batch, &ids[from..to]);
            if step >= 10 {
                ingest_seconds += cpu_seconds() - begin;
            }
        }
        let tick = Timestamp::from_seconds(BEGIN_SECONDS + (step + 1) * STEP_SECONDS);
        let begin = cpu_seconds();
        let batch = store.close(tick, servers as u32);
        let seconds = cpu_seconds() - begin;
        if step >= 10 {
            best = best.min(seconds);
        }
        print!("{:.0} ", seconds * 1e3);
        if let Ok(batch) = batch {
            store.recycle(batch);
        }
    }
    let sizes = store.sizes();
    println!(
        "ms\nclose: {servers} servers x {inputs} rows: best {:.0} ms; {:.0} bytes a row; ingest {:.1} M points/s",
        best * 1e3,
        sizes.bytes as f64 / sizes.rows as f64,
        (4 * servers * inputs) as f64 / ingest_seconds / 1e6,
    );
}

fn main() {
    let servers = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(100_000);
    ingest_rate();
    close_cost(servers);
}
