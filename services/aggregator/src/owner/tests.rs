//! An owner and what may go wrong under it: over ports in memory, without a clock.

use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;
use headroom_log::CheckpointError;
use headroom_log::memory::{MemoryCheckpointStore, MemorySampleLog, MemorySnapshotLog};
use headroom_model::policy::{
    Across, Family, Fold, HealthSpec, InputSpec, LeaseSpec, Mode, Policy, Rule, Selector, SignalSpec, Source,
    ThresholdKind, Thresholds, WindowFunction, WindowSpec,
};
use headroom_model::{CellSnapshot, Resource, SampleBatchBuilder, Series, SeriesKind};
use headroom_telemetry::{Telemetry, TelemetryOptions};

use super::*;

/// Time begins here.
const BASE: i64 = 1_795_255_200;

/// One input, one signal, no classes.
fn policy(text: &str) -> Policy {
    let thresholds = Thresholds { under: 0.5, over: 0.8, critical: 0.95 };
    Policy {
        hash: text.into(),
        text: text.into(),
        windows: WindowSpec { control_seconds: 30, state_seconds: 60, baseline_seconds: 1800, lateness_seconds: 15 },
        health: HealthSpec {
            unknown_after_seconds: 40,
            held_seconds: 300,
            peer_z: 4.0,
            peer_effect: 0.2,
            peers_min: 5,
            silent_seconds: 3600,
            leave_seconds: 86_400,
        },
        lease: LeaseSpec { lease_seconds: 60, refresh_seconds: 10 },
        inputs: vec![InputSpec {
            name: "load".into(),
            unit: "1".into(),
            sources: vec![Source { dialect: "test".into(), metrics: vec!["load".into()], filters: vec![], scale: 1.0 }],
            fold: Fold::Max,
            across: Across::First,
            function: WindowFunction::Mean,
        }],
        signals: vec![SignalSpec {
            name: "cpu".into(),
            family: Family::Cpu,
            unit: "1".into(),
            // What an engine remembers of it from tick to tick tells one that went on from one that began anew.
            expression: "ewma(load, 300)".into(),
            lower_is_worse: false,
            thresholds,
            threshold_kind: ThresholdKind::Absolute,
            weight: 1.0,
            throttle: true,
            peers: None,
            volume: None,
            fatal: false,
            reason: "cpu_high".into(),
        }],
        score: None,
        rollup: None,
        classes: vec![],
        rules: vec![Rule {
            name: "default".into(),
            selector: Selector::default(),
            thresholds: vec![thresholds],
            classes: vec![],
            nominals: vec![],
            mode: Mode::Observe,
        }],
    }
}

/// What a server reports at a second.
fn report(second: i64) -> LogRecord {
    let mut builder = SampleBatchBuilder::default();
    let series = builder.add_series(Arc::new(Series {
        metric: "load".into(),
        kind: SeriesKind::Gauge,
        unit: "1".into(),
        attributes: [].into(),
        bounds: [].into(),
    }));
    let resource = builder.add_resource(Arc::new(Resource {
        server: "web-1".into(),
        cell: "eu-1".into(),
        pool: "web".into(),
        host_names: [].into(),
        aliases: [].into(),
        sender: "".into(),
        attributes: [].into(),
    }));
    builder.push(resource, series, 0, (BASE + second) * 1_000_000_000, (second % 7) as f64 / 7.0);
    LogRecord::Samples(builder.finish().into())
}

/// A log of so many ticks with a report before each, and one policy.
fn log(ticks: i64) -> Arc<MemorySampleLog> {
    let log = Arc::new(MemorySampleLog::new(1, 1 << 20));
    append(&*log, LogRecord::Policy("policy".into()));
    add_ticks(&*log, 1..=ticks);
    log
}

fn add_ticks(log: &dyn SampleLog, ticks: std::ops::RangeInclusive<i64>) {
    for tick in ticks {
        append(log, report(10 * tick - 1));
        append(log, LogRecord::Tick(Timestamp::from_seconds(BASE + 10 * tick)));
    }
}

fn append(log: &dyn SampleLog, record: LogRecord) {
    log.append(0, Arc::new(record)).wait_blocking().expect("there is room");
}

/// The snapshots that an aggregator hands over, as seconds and content. `before` is called with the second first.
struct Run {
    aggregator: Aggregator,
    snapshots: Arc<MemorySnapshotLog>,
    published: Receiver<(i64, Vec<u8>)>,
}

impl Run {
    fn start(
        log: &Arc<MemorySampleLog>,
        checkpoints: Arc<dyn CheckpointStore>,
        before: impl Fn(i64) + Send + Sync + 'static,
    ) -> Self {
        Self::beside(Arc::new(MemorySnapshotLog::new(10)), log, checkpoints, before)
    }

    /// Where snapshots were published before.
    fn beside(
        snapshots: Arc<MemorySnapshotLog>,
        log: &Arc<MemorySampleLog>,
        checkpoints: Arc<dyn CheckpointStore>,
        before: impl Fn(i64) + Send + Sync + 'static,
    ) -> Self {
        let (sender, published) = channel();
        let sink: SnapshotSink = Arc::new(move |snapshot: &Arc<CellSnapshot>| {
            let second = snapshot.epoch - BASE;
            before(second);
            let _ = sender.send((second, snapshot.encode()));
        });
        let options = AggregatorOptions {
            engine: EngineConfig::default(),
            // None but the last, so that where an engine begins is no matter of threads.
            checkpoint_seconds: i64::MAX,
            compile: Arc::new(|text| CompiledPolicy::new(policy(text)).map_err(|errors| format!("{errors:?}"))),
            announce: Announce::Never,
            outages: None,
        };
        let metrics = Metrics::new(&Telemetry::new(TelemetryOptions::default()));
        let aggregator = Aggregator::new(log.clone(), snapshots.clone(), checkpoints, options, sink, None, metrics)
            .expect("a thread can be started");
        aggregator.own([0]).expect("a thread can be started");
        Self { aggregator, snapshots, published }
    }

    /// What was published up to the snapshot of this second.
    fn until(&self, last: i64) -> Vec<(i64, Vec<u8>)> {
        let mut all = Vec::new();
        while all.last().is_none_or(|(second, _)| *second != last) {
            all.push(self.published.recv_timeout(Duration::from_secs(30)).expect("it goes on"));
        }
        all
    }
}

fn seconds(published: &[(i64, Vec<u8>)]) -> Vec<i64> {
    published.iter().map(|(second, _)| *second).collect()
}

/// What an engine publishes that nothing happens to, from the first tick on.
fn undisturbed(ticks: i64) -> Vec<(i64, Vec<u8>)> {
    let run = Run::start(&log(ticks), Arc::new(MemoryCheckpointStore::new(1)), |_| {});
    let published = run.until(10 * ticks);
    run.aggregator.stop();
    published
}

/// A log, and a store with the checkpoint of an engine that has gone through all of it.
fn stopped_after(ticks: i64) -> (Arc<MemorySampleLog>, Arc<MemoryCheckpointStore>) {
    let (log, checkpoints) = (log(ticks), Arc::new(MemoryCheckpointStore::new(1)));
    let run = Run::start(&log, checkpoints.clone(), |_| {});
    run.until(10 * ticks);
    run.aggregator.stop();
    let newest = checkpoints.newest(0).expect("it can be read").map(|(position, _)| position);
    assert_eq!(newest, Some(log.end(0)));
    (log, checkpoints)
}

#[test]
fn an_engine_that_panics_is_made_anew_from_its_checkpoint() {
    let (log, checkpoints) = stopped_after(3);
    add_ticks(&*log, 4..=6);
    let has_panicked = AtomicBool::new(false);
    let run = Run::start(&log, checkpoints, move |second| {
        if second == 50 && !has_panicked.swap(true, Ordering::Relaxed) {
            panic!("this is the panic that the test is about");
        }
    });
    let published = run.until(60);
    // Neither from the beginning nor from where it panicked.
    assert_eq!(seconds(&published), [40, 40, 50, 60]);
    let undisturbed = undisturbed(6);
    assert!(published.iter().all(|snapshot| undisturbed.contains(snapshot)), "other bytes than without the panic");
    // It owns the partition again, and follows.
    assert!(run.aggregator.owned().borrow().contains(&0));
    add_ticks(&*log, 7..=7);
    assert_eq!(seconds(&run.until(70)), [70]);
    run.aggregator.stop();
}

/// A store that cannot be read for a while.
struct Unreadable {
    store: Arc<MemoryCheckpointStore>,
    failures: std::sync::atomic::AtomicU32,
    /// Whether anything was stored before it could be read.
    stored: AtomicBool,
}

impl CheckpointStore for Unreadable {
    fn put(&self, partition: u32, position: Position, bytes: &[u8]) -> Result<(), CheckpointError> {
        if self.failures.load(Ordering::Relaxed) > 0 {
            self.stored.store(true, Ordering::Relaxed);
        }
        self.store.put(partition, position, bytes)
    }

    fn newest(&self, partition: u32) -> Result<Option<(Position, Bytes)>, CheckpointError> {
        let fails = |left: u32| left.checked_sub(1);
        match self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fails) {
            Ok(_) => Err(CheckpointError::Disk { kind: std::io::ErrorKind::Other, why: "not now".into() }),
            Err(_) => self.store.newest(partition),
        }
    }

    fn floor(&self, partition: u32) -> Option<Position> {
        self.store.floor(partition)
    }

    fn damaged(&self) -> u64 {
        self.store.damaged()
    }
}

#[test]
fn a_checkpoint_that_cannot_be_read_now_is_not_taken_for_none() {
    let (log, store) = stopped_after(3);
    add_ticks(&*log, 4..=5);
    let failures = std::sync::atomic::AtomicU32::new(2);
    let store = Arc::new(Unreadable { store, failures, stored: AtomicBool::new(false) });
    let run = Run::start(&log, store.clone(), |_| {});
    let published = run.until(50);
    assert_eq!(seconds(&published), [40, 50], "it began anew");
    assert_eq!(published, undisturbed(5)[3..]);
    run.aggregator.stop();
    assert!(!store.stored.load(Ordering::Relaxed));
}

#[test]
fn who_is_told_to_stop_while_the_checkpoint_cannot_be_read_leaves_it_as_it_is() {
    let (log, store) = stopped_after(3);
    let before = store.newest(0).expect("it can be read");
    add_ticks(&*log, 4..=5);
    let failures = std::sync::atomic::AtomicU32::new(u32::MAX);
    let unreadable = Arc::new(Unreadable { store: store.clone(), failures, stored: AtomicBool::new(false) });
    let run = Run::start(&log, unreadable.clone(), |_| {});
    let mut owned = run.aggregator.owned();
    while !owned.borrow_and_update().contains(&0) {
        std::thread::yield_now();
    }
    run.aggregator.stop();
    assert!(!unreadable.stored.load(Ordering::Relaxed));
    assert!(store.newest(0).expect("it can be read") == before && run.published.try_recv().is_err());
}

#[test]
fn a_cell_whose_last_word_was_lost_is_let_go() {
    let (log, checkpoints) = stopped_after(3);
    let first = &undisturbed(1)[0].1;
    let snapshots = Arc::new(MemorySnapshotLog::new(10));
    // Of this partition and known, of this partition and not known any more, and of another one.
    for (cell, partition) in [("eu-1", 0), ("us-1", 0), ("ap-1", 1)] {
        let mut snapshot = CellSnapshot::decode(first).expect("it is one");
        snapshot.cell = cell.into();
        let header = crate::publish::header(partition, Position(3));
        snapshots.publish_snapshot(&Arc::new(snapshot), header).expect("there is room");
    }
    let run = Run::beside(snapshots, &log, checkpoints, |_| {});
    let last = CellSnapshot::decode(&run.until(30)[0].1).expect("it is one");
    assert_eq!((&*last.cell, last.len()), ("us-1", 0));
    run.aggregator.stop();
    assert_eq!(run.snapshots.cells(), ["ap-1".into(), "eu-1".into()]);
    assert!(run.published.try_recv().is_err());
}
