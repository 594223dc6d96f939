//! What a point read costs without the socket: look-up by name and JSON of the record, over 100,000 servers with 20
//! signals. Prints microseconds of one thread; `cargo run --release -p headroom-api --example point_read_bench`.

#[path = "../../read-model/tests/fixture/mod.rs"]
mod fixture;

use std::sync::Arc;
use std::time::Instant;

use headroom_model::Timestamp;
use headroom_model::snapshot::ServerTable;
use headroom_read_model::{Lookup, ReadModel};
use headroom_wire::{Reading, RowReader};

const SERVERS: usize = 100_000;
const SIGNALS: usize = 20;
const READS: usize = 200_000;
const TICKS: i64 = 5;

fn main() {
    let servers: usize = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(SERVERS);
    let names: Arc<ServerTable> = Arc::new(ServerTable {
        server: (0..servers).map(|i| format!("server-{i:07}").into()).collect(),
        aliases: (0..servers)
            .map(|i| {
                [format!("10.{}.{}", i >> 8, i & 255), format!("server-{i:07}.example.net")].map(Into::into).into()
            })
            .collect(),
        pool: vec![1; servers],
        pools: vec!["default".into(), "web".into()],
        rule: vec![0; servers],
    });
    let model = ReadModel::new(5);
    for tick in 0..TICKS {
        let mut snapshot = fixture::snapshot("eu-1", fixture::EPOCH + tick * 10, Arc::clone(&names));
        widen(&mut snapshot);
        snapshot.decisions[1].would_admit[tick as usize] = 0.5;
        let started = Instant::now();
        model.apply(snapshot);
        println!("apply {tick}: {:.1} ms", started.elapsed().as_secs_f64() * 1e3);
    }
    let now = Timestamp::from_seconds(fixture::EPOCH);
    let mut bytes = 0;
    let started = Instant::now();
    for read in 0..READS {
        let name = format!("server-{:07}.example.net", read * 7_919 % servers);
        let Lookup::Found(found) = model.find(&name, None) else { continue };
        let reading = Reading { stale: found.view.is_stale(now), killed: found.view.is_killed() };
        let record = RowReader::new(found.view.snapshot(), reading).record(found.row as usize);
        bytes += serde_json::to_vec(&record).map_or(0, |body| body.len());
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{:.2} us a read, {} bytes each", seconds / READS as f64 * 1e6, bytes / READS);
    let Some(view) = model.cell("eu-1") else { return };
    let started = Instant::now();
    let batch = headroom_wire::snapshot_batch(view.snapshot(), Reading::default());
    println!(
        "arrow batch: {:.1} ms, {} rows",
        started.elapsed().as_secs_f64() * 1e3,
        batch.map_or(0, |batch| batch.num_rows())
    );
}

/// As many signals as the default policy has.
fn widen(snapshot: &mut headroom_model::CellSnapshot) {
    let policy = Arc::make_mut(&mut snapshot.policy);
    while policy.signals.len() < SIGNALS {
        policy.signals.push(policy.signals[0].clone());
        policy.rules[0].thresholds.push([0.5, 0.9, 1.0]);
        let health = &mut snapshot.health;
        health.signal_pressure.push(health.signal_pressure[0].clone());
        health.signal_status.push(health.signal_status[0].clone());
        health.relative_thresholds.push(Vec::new());
        snapshot.signals.push(snapshot.signals[0].clone());
    }
}
