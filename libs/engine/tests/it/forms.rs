//! Checkpoints in forms of the past still open, and what follows is the same to the bit.
//!
//! `RECORD_FIXTURES=1` writes the form of today, for the day on which it becomes one of the past.

use std::path::Path;
use std::sync::Arc;

use headroom_engine::{EngineConfig, Partition};
use headroom_model::{Resource, SampleBatch, SampleBatchBuilder, Series, SeriesKind, Timestamp};
use headroom_testkit::{BASE_SECONDS, compile};

/// The seconds of the checkpoint and of the last tick after it.
const HELD: i64 = 120;
const END: i64 = 180;

const POLICY: &str = "mode: observe\n";

fn engine() -> Partition {
    let mut engine = Partition::new(EngineConfig::default());
    engine.handle_policy(Arc::new(compile(POLICY).unwrap()));
    engine
}

/// Every kind of row: gauges, counters of one start and of two, deltas, a row that came late, one that is silent.
fn report(second: i64) -> SampleBatch {
    let mut builder = SampleBatchBuilder::default();
    let series = |metric: &str, kind, key: &str, value: &str| {
        Arc::new(Series {
            metric: metric.into(),
            kind,
            unit: "".into(),
            attributes: [(key.into(), value.into())].into(),
            bounds: [].into(),
        })
    };
    let used = builder.add_series(series("system.memory.utilization", SeriesKind::Gauge, "state", "used"));
    let idle = builder.add_series(series("system.cpu.time", SeriesKind::Counter, "state", "idle"));
    let user = builder.add_series(series("system.cpu.time", SeriesKind::Counter, "state", "user"));
    let drops = builder.add_series(series("system.network.dropped", SeriesKind::DeltaCounter, "direction", "receive"));
    for server in 0..4 {
        let resource = builder.add_resource(Arc::new(Resource {
            server: format!("web-{server}").into(),
            cell: "eu-1".into(),
            pool: "web".into(),
            host_names: [].into(),
            aliases: [].into(),
            sender: "".into(),
            attributes: [].into(),
        }));
        let at = |second: i64| (BASE_SECONDS + second) * 1_000_000_000;
        // One restarts halfway, so that its counters have samples of two starts.
        let start = if server == 1 && second >= 60 { 60 } else { 0 };
        let up = (second - start) as f64;
        builder.push(resource, used, 0, at(second), (second * (server + 1) % 70) as f64 / 100.0);
        builder.push(resource, idle, at(start), at(second), up * 0.75);
        if server != 2 || second >= 50 {
            builder.push(resource, user, at(start), at(second), up * 0.25);
        }
        if server != 3 || second < 90 {
            builder.push(resource, drops, at(second - 10), at(second), (second % 3) as f64);
        }
    }
    builder.finish()
}

fn live(engine: &mut Partition, from: i64, to: i64) -> Vec<Vec<u8>> {
    let tick = |second: i64| {
        engine.handle_samples(&report(second - 1));
        engine.handle_tick(Timestamp::from_seconds(BASE_SECONDS + second)).unwrap().remove(0).encode()
    };
    (from + 10..=to).step_by(10).map(tick).collect()
}

#[test]
fn checkpoints_of_the_past_still_open() {
    let path = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    let mut unbroken = engine();
    live(&mut unbroken, 0, HELD);
    let today = unbroken.checkpoint();
    if std::env::var_os("RECORD_FIXTURES").is_some() {
        std::fs::write(path("checkpoint-today.bin"), &today).unwrap();
    }
    let expected = live(&mut unbroken, HELD, END);
    let past = ["checkpoint-window-1.bin"].map(|name| (name, std::fs::read(path(name)).unwrap()));
    for (name, bytes) in past.into_iter().chain([("today", today)]) {
        // The text of the policy has other comments since, and with them another hash.
        let mut restored = Partition::restore(EngineConfig::default(), &bytes, |_| compile(POLICY)).expect(name);
        assert!(live(&mut restored, HELD, END) == expected, "{name}");
    }
}
