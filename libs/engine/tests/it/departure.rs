//! Cells that nobody is in any more.

use std::sync::Arc;

use headroom_engine::{EngineConfig, Partition};
use headroom_model::{CellSnapshot, Resource, SampleBatch, SampleBatchBuilder, Series, SeriesKind, Timestamp};
use headroom_testkit::{BASE_SECONDS, Scenario, Variation, compile, run};

const SCENARIO: &str = include_str!("../../../../tests/scenarios/a_cell_without_servers_is_let_go.scenario");

/// What a scenario publishes of `eu-1`: the tick and the content.
fn published(text: &str, variation: Variation) -> Vec<(i64, Arc<CellSnapshot>)> {
    let outcome = run(&Scenario::parse(text).unwrap(), variation).unwrap();
    let of_cell = |(tick, snapshots): (i64, Vec<Arc<CellSnapshot>>)| {
        snapshots.into_iter().find(|snapshot| &*snapshot.cell == "eu-1").map(|snapshot| (tick, snapshot))
    };
    outcome.ticks.into_iter().filter_map(of_cell).collect()
}

#[test]
fn the_last_word_is_empty_and_then_there_is_none() {
    for variation in [Variation::Plain, Variation::Killed] {
        let published = published(SCENARIO, variation);
        let ticks: Vec<i64> = published.iter().map(|(tick, _)| *tick).collect();
        let expected: Vec<i64> = (10..=180).step_by(10).chain((210..=400).step_by(10)).collect();
        assert_eq!(ticks, expected);
        let of = |tick| published.iter().find(|(at, _)| *at == tick).map(|(_, snapshot)| snapshot.len());
        assert_eq!([170, 180, 190, 200, 210].map(of), [Some(1), Some(0), None, None, Some(1)]);
    }
}

#[test]
fn a_cell_that_returns_is_as_one_that_was_never_there() {
    let of_first_life = |line: &str| line.starts_with("expect") || line.starts_with("every 10 from 1 to 51 web");
    let second_life: Vec<&str> = SCENARIO.lines().filter(|line| !of_first_life(line)).collect();
    let bytes = |text: &str| -> Vec<Vec<u8>> {
        let published = published(text, Variation::Plain).into_iter();
        published.filter(|(tick, _)| *tick > 200).map(|(_, snapshot)| snapshot.encode()).collect()
    };
    let (again, new) = (bytes(SCENARIO), bytes(&second_life.join("\n")));
    assert!(new.len() == 20 && again == new);
}

fn report(cell: &str, second: i64) -> SampleBatch {
    let mut builder = SampleBatchBuilder::default();
    let series = builder.add_series(Arc::new(Series {
        metric: "system.memory.utilization".into(),
        kind: SeriesKind::Gauge,
        unit: "".into(),
        attributes: [].into(),
        bounds: [].into(),
    }));
    let resource = builder.add_resource(Arc::new(Resource {
        server: format!("{cell}-1").into(),
        cell: cell.into(),
        pool: "web".into(),
        host_names: [].into(),
        aliases: [].into(),
        sender: "".into(),
        attributes: [].into(),
    }));
    builder.push(resource, series, 0, (BASE_SECONDS + second) * 1_000_000_000, 0.5);
    builder.finish()
}

fn cells(engine: &mut Partition, tick: i64) -> Vec<(String, usize)> {
    let snapshots = engine.handle_tick(Timestamp::from_seconds(BASE_SECONDS + tick)).unwrap();
    snapshots.iter().map(|snapshot| (snapshot.cell.to_string(), snapshot.len())).collect()
}

#[test]
fn a_cell_that_was_let_go_makes_room_for_another() {
    let mut engine = Partition::new(EngineConfig { cells_max: 1, ..EngineConfig::default() });
    engine.handle_policy(Arc::new(compile("").unwrap()));
    engine.handle_samples(&report("eu-1", 1));
    engine.handle_samples(&report("us-1", 2));
    assert_eq!(cells(&mut engine, 10), [("eu-1".into(), 1)]);
    assert_eq!(engine.counters().cells_refused, 1);
    engine.take_registry_counters();
    engine.handle_remove("eu-1", "eu-1-1");
    assert_eq!(cells(&mut engine, 20), [("eu-1".into(), 0)]);
    // Who left last is counted, though the cell is gone.
    let left: u64 = engine.take_registry_counters().iter().map(|(_, counted)| counted.left).sum();
    assert_eq!((left, engine.take_registry_counters().len(), engine.epochs().len()), (1, 0, 0));
    engine.handle_samples(&report("us-1", 21));
    assert_eq!(cells(&mut engine, 30), [("us-1".into(), 1)]);
    assert_eq!(engine.counters().cells_refused, 1);
}

#[test]
fn who_reports_before_the_tick_keeps_the_cell() {
    let mut engine = Partition::new(EngineConfig::default());
    engine.handle_policy(Arc::new(compile("").unwrap()));
    engine.handle_samples(&report("eu-1", 1));
    cells(&mut engine, 10);
    engine.handle_remove("eu-1", "eu-1-1");
    engine.handle_samples(&report("eu-1", 11));
    assert_eq!(cells(&mut engine, 20), [("eu-1".into(), 1)]);
}
