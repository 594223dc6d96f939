//! What was passed over after an outage, against an engine that read it in its order.

use std::ops::Range;
use std::sync::Arc;

use headroom_engine::{EngineConfig, Partition};
use headroom_model::{CellSnapshot, Resource, SampleBatch, SampleBatchBuilder, Series, SeriesKind, Timestamp};
use headroom_testkit::{BASE_SECONDS, compile};

const SERVERS: usize = 3;
/// The last tick before the outage, and the first after it.
const BEFORE: i64 = 200;
const AFTER: i64 = 800;

fn engine() -> Partition {
    let mut engine = Partition::new(EngineConfig::default());
    engine.handle_policy(Arc::new(compile("mode: observe\n").unwrap()));
    engine
}

/// What all servers report at a second: a counter in two states and a gauge.
fn report(second: i64) -> SampleBatch {
    let mut builder = SampleBatchBuilder::default();
    let series = |metric: &str, kind, state: &str| {
        Arc::new(Series {
            metric: metric.into(),
            kind,
            unit: "".into(),
            attributes: [("state".into(), state.into())].into(),
            bounds: [].into(),
        })
    };
    let idle = builder.add_series(series("system.cpu.time", SeriesKind::Counter, "idle"));
    let user = builder.add_series(series("system.cpu.time", SeriesKind::Counter, "user"));
    let memory = builder.add_series(series("system.memory.utilization", SeriesKind::Gauge, "used"));
    for server in 0..SERVERS {
        let resource = builder.add_resource(Arc::new(Resource {
            server: format!("web-{server}").into(),
            cell: "eu-1".into(),
            pool: "web".into(),
            host_names: [].into(),
            aliases: [].into(),
            sender: "".into(),
            attributes: [].into(),
        }));
        let time_ns = (BASE_SECONDS + second) * 1_000_000_000 + server as i64 * 100_000_000;
        let share = 0.2 + 0.1 * server as f64;
        builder.push(resource, idle, 0, time_ns, second as f64 * (1.0 - share));
        builder.push(resource, user, 0, time_ns, second as f64 * share);
        builder.push(resource, memory, 0, time_ns, (second % 70) as f64 / 100.0);
    }
    builder.finish()
}

fn tick(engine: &mut Partition, second: i64) -> Arc<CellSnapshot> {
    engine.handle_tick(Timestamp::from_seconds(BASE_SECONDS + second)).unwrap().remove(0)
}

/// Reports and ticks of ordinary life, `from` exclusive.
fn live(engine: &mut Partition, seconds: Range<i64>) -> Arc<CellSnapshot> {
    let mut last = None;
    for second in (seconds.start + 10..=seconds.end).step_by(10) {
        engine.handle_samples(&report(second - 1));
        last = Some(tick(engine, second));
    }
    last.unwrap()
}

/// The reports of the outage; the position of each in the log is its place here.
fn missed() -> Vec<SampleBatch> {
    (BEFORE + 10..AFTER).step_by(10).map(|second| report(second - 1)).collect()
}

/// Takes up the newest `count` positions.
fn take_up(engine: &mut Partition, missed: &[SampleBatch], count: u64) {
    let range = engine.backlog().unwrap().clone();
    let slice = range.end.saturating_sub(count).max(range.start)..range.end;
    for at in slice.clone() {
        engine.handle_backlog(&missed[at as usize]);
    }
    engine.backlog_taken(&slice);
}

fn counted(engine: &Partition) -> (u64, u64, u64) {
    let window = engine.reports().next().unwrap().1.window;
    (window.backlog, window.late, window.samples_thinned)
}

/// What the windows say, as text: in columns without a value there is NaN, which equals nothing.
fn windows(snapshot: &CellSnapshot) -> String {
    format!("{:?} {:?} {:?}", snapshot.inputs, snapshot.signals, snapshot.age_seconds)
}

/// After an outage of ten minutes, read in its order.
fn oracle() -> Partition {
    let mut engine = engine();
    live(&mut engine, 0..BEFORE);
    missed().iter().for_each(|batch| engine.handle_samples(batch));
    engine
}

/// The same, passed over.
fn passed_over() -> Partition {
    let mut engine = engine();
    live(&mut engine, 0..BEFORE);
    engine.pass_over(0..missed().len() as u64);
    engine
}

#[test]
fn decisions_do_not_wait_and_windows_come_out_the_same() {
    let missed = missed();
    let (mut oracle, mut subject) = (oracle(), passed_over());
    // The present begins at once, and says what is known: nothing yet.
    let first = tick(&mut subject, AFTER);
    assert_eq!(first.epoch, BASE_SECONDS + AFTER);
    assert!(first.inputs.iter().all(|input| input.value.iter().all(|value| value.is_nan())));
    tick(&mut oracle, AFTER);

    // The newest slices fill the windows, long before the rest is read.
    take_up(&mut subject, &missed, 16);
    let (mine, theirs) = (live(&mut subject, AFTER..AFTER + 10), live(&mut oracle, AFTER..AFTER + 10));
    assert!(subject.backlog_len() > 0);
    assert!(windows(&mine) == windows(&theirs));

    while subject.backlog().is_some() {
        take_up(&mut subject, &missed, 7);
    }
    let samples = (missed.len() * SERVERS * 3) as u64;
    assert_eq!(counted(&subject), (samples, 0, 0), "all of it was counted as backlog and none of it as late");
    let (mine, theirs) = (live(&mut subject, AFTER + 10..AFTER + 100), live(&mut oracle, AFTER + 10..AFTER + 100));
    assert!(windows(&mine) == windows(&theirs));
}

#[test]
fn what_was_passed_over_is_in_the_checkpoint() {
    let missed = missed();
    let (mut unbroken, mut killed) = (passed_over(), passed_over());
    tick(&mut unbroken, AFTER);
    tick(&mut killed, AFTER);
    for step in 1..=10 {
        for engine in [&mut unbroken, &mut killed] {
            if engine.backlog().is_some() {
                take_up(engine, &missed, 9);
            }
        }
        killed = Partition::restore(EngineConfig::default(), &killed.checkpoint(), compile).unwrap();
        assert_eq!(killed.backlog(), unbroken.backlog());
        let now = AFTER + step * 10;
        let (mine, theirs) = (live(&mut killed, now - 10..now), live(&mut unbroken, now - 10..now));
        assert!(mine.encode() == theirs.encode(), "at {now}");
    }
    assert_eq!(unbroken.backlog_start(), None);
}

#[test]
fn only_the_newest_slice_is_next() {
    let mut engine = passed_over();
    let end = engine.backlog_len();
    for (slice, is_next) in
        [(0..end - 1, false), (end - 5..end + 1, false), (end - 5..end, true), (end - 5..end, false)]
    {
        assert_eq!(engine.is_next_backlog(&slice), is_next, "{slice:?}");
        engine.backlog_taken(&slice);
    }
    assert_eq!(engine.backlog(), Some(&(0..end - 5)));
    // A second outage before the first was taken up: its records are newer, and come first.
    engine.pass_over(1_000..1_010);
    engine.pass_over(7..7);
    assert_eq!((engine.backlog(), engine.backlog_start()), (Some(&(1_000..1_010)), Some(0)));
    engine.backlog_taken(&(1_000..1_010));
    assert_eq!(engine.backlog_len(), end - 5);
}

#[test]
fn a_removal_of_then_does_not_take_who_reports_now() {
    let mut engine = passed_over();
    tick(&mut engine, AFTER);
    let present = report(AFTER + 9);
    // Only the first server is still there.
    let mut builder = SampleBatchBuilder::default();
    let resource = builder.add_resource(present.resources[0].clone());
    let series = builder.add_series(present.series[0].clone());
    builder.push(resource, series, 0, present.points.time_ns[0], 1.0);
    engine.handle_samples(&builder.finish());
    for server in ["web-0", "web-1", "web-7"] {
        engine.handle_backlog_remove("eu-1", server);
    }
    let snapshot = tick(&mut engine, AFTER + 10);
    let names: Vec<&str> = snapshot.servers.server.iter().map(|name| &**name).collect();
    assert_eq!(names, ["web-0", "web-2"]);
    assert_eq!(engine.counters().records_ignored, 2);
}

/// What a foreign topic holds after an outage is read by several members of a group, each at its own speed.
#[test]
fn what_a_source_reads_behind_time_is_never_late() {
    let missed = missed();
    let (mut oracle, mut subject, mut in_time) = (oracle(), engine(), engine());
    live(&mut subject, 0..BEFORE);
    live(&mut in_time, 0..BEFORE);
    let (older, newer) = missed.split_at(missed.len() / 2);
    for (part, until) in [(newer, AFTER - 10), (older, AFTER)] {
        part.iter().for_each(|batch| subject.handle_overdue(batch));
        part.iter().for_each(|batch| in_time.handle_samples(batch));
        tick(&mut subject, until);
        tick(&mut in_time, until);
    }
    tick(&mut oracle, AFTER);
    let samples = (missed.len() * SERVERS * 3) as u64;
    assert_eq!(counted(&subject), (samples, 0, 0));
    let (_, late, _) = counted(&in_time);
    assert!(late > 0, "read as if it were the present, it would be");
    let (mine, theirs) = (live(&mut subject, AFTER..AFTER + 100), live(&mut oracle, AFTER..AFTER + 100));
    assert!(windows(&mine) == windows(&theirs));
}
