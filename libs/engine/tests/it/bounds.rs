//! Who is refused by a bound is told, and who is not is left in peace.

use std::sync::Arc;

use headroom_engine::{EngineConfig, Partition, RegistryLimits, WindowLimits};
use headroom_model::frame::flag;
use headroom_model::{CellSnapshot, SampleBatchBuilder, Timestamp};
use headroom_testkit::{BASE_SECONDS, Event, Scenario, compile};

/// What is published at each tick of a scenario of samples alone, and whether the cell is full.
fn run(config: EngineConfig, text: &str) -> Vec<(Arc<CellSnapshot>, bool)> {
    let mut engine = Partition::new(config);
    engine.handle_policy(Arc::new(compile("").unwrap()));
    let mut published = Vec::new();
    for event in Scenario::parse(text).unwrap().events() {
        match event {
            Event::Deliver(samples, _) => {
                let mut batch = SampleBatchBuilder::default();
                for sample in &samples {
                    let resource = batch.add_resource(sample.resource.clone());
                    let series = batch.add_series(sample.series.clone());
                    let time = Timestamp::from_seconds(BASE_SECONDS + sample.at_seconds as i64);
                    batch.push(resource, series, 0, time.0, sample.values[0]);
                }
                engine.handle_samples(&batch.finish());
            }
            Event::Tick(tick) => {
                let snapshots = engine.handle_tick(Timestamp::from_seconds(BASE_SECONDS + tick)).unwrap();
                published.push((snapshots[0].clone(), !engine.full_cells().is_empty()));
            }
            _ => panic!("only samples"),
        }
    }
    published
}

#[test]
fn a_cell_that_refuses_servers_says_so_until_it_no_longer_does() {
    let text = "sender a host.name=web-1\nsender b host.name=web-2\nseries load gauge system.cpu.load_average.1m\n\
                every 10 from 1 to 1001 a load 1 +0.1\nevery 10 from 21 to 41 b load 1 +0.1\nadvance 1000\n";
    let limits = RegistryLimits { servers_max: 1, ..RegistryLimits::default() };
    let published = run(EngineConfig { registry: limits, ..EngineConfig::default() }, text);
    assert!(published.iter().all(|(snapshot, _)| snapshot.servers.server.len() == 1));
    let full: Vec<usize> = (0..).zip(&published).filter(|(_, (_, full))| *full).map(|(at, _)| 10 * (at + 1)).collect();
    // The last refusal is at the tick after the sample at 41 s.
    assert_eq!((full.first(), full.last()), (Some(&30), Some(&650)));
}

#[test]
fn a_server_with_refused_series_is_marked() {
    let text = "sender a host.name=web-1\nsender b host.name=web-2\nseries load gauge system.cpu.load_average.1m\n\
                series memory gauge system.memory.utilization state=used\n\
                every 10 from 1 to 101 a load 1 +0.1\nevery 10 from 1 to 101 a memory 0 +0.01\n\
                every 10 from 1 to 101 b load 1 +0.1\nadvance 100\n";
    let limits = WindowLimits { rows_per_server_max: 1, ..WindowLimits::default() };
    let published = run(EngineConfig { window: limits, ..EngineConfig::default() }, text);
    let (last, _) = published.last().unwrap();
    let flagged: Vec<_> = last
        .servers
        .server
        .iter()
        .zip(&last.health.flags)
        .map(|(server, flags)| (&**server, flags & flag::SERIES_REFUSED != 0))
        .collect();
    assert_eq!(flagged, [("web-1", true), ("web-2", false)]);
}
