//! One thread per partition: restore, replay, follow.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use headroom_engine::{CompiledPolicy, EngineConfig, InputsReport, Partition};
use headroom_log::{CheckpointStore, Position, ReadError, SampleLog, SnapshotLog};
use headroom_model::{LogRecord, Timestamp};
use tokio::sync::watch;

use crate::checkpointing::Checkpointer;
use crate::metrics::Metrics;
use crate::publish::{Publisher, SnapshotSink};

/// How long a thread waits for a record before it looks whether it should stop.
const WAIT: Duration = Duration::from_millis(100);

/// How long a thread rests after the log could not be read.
const REST: Duration = Duration::from_millis(500);

/// How long a question for the inputs waits for all partitions.
const INPUTS_WAIT: Duration = Duration::from_secs(5);

/// Turns the text of a policy record into a policy; the text was accepted before it got into the log.
pub type Compile = Arc<dyn Fn(&str) -> Result<CompiledPolicy, String> + Send + Sync>;

/// What an aggregator needs to know.
#[derive(Clone)]
pub struct AggregatorOptions {
    /// Bounds and time mode of the engines.
    pub engine: EngineConfig,
    /// Seconds between checkpoints, in ticks of the log.
    pub checkpoint_seconds: i64,
    /// How a policy record becomes a policy.
    pub compile: Compile,
}

/// Why an aggregator did not start.
#[derive(Debug)]
pub struct StartError(String);

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

/// Where a partition stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Everything before this has taken effect and, where it was a tick, is readable.
    pub position: Position,
    /// The last tick.
    pub last_tick: Option<Timestamp>,
    /// The earliest sample seen, before the first tick only.
    pub first_sample: Option<Timestamp>,
    /// The newest time that two servers have reached.
    pub reached_by_two: Option<Timestamp>,
    /// The policy in force: hash of its text.
    pub policy: Option<Arc<str>>,
    /// Epoch of every cell.
    pub epochs: BTreeMap<Arc<str>, i64>,
    /// Whether the thread has ended.
    pub ended: bool,
}

/// What the rest of the process may know of the engines.
pub struct Status {
    progress: Vec<Mutex<Progress>>,
    inputs: Vec<ArcSwap<InputsReport>>,
    /// How many times somebody has asked for the inputs, and per partition the question answered last.
    inputs_asked: AtomicU64,
    inputs_answered: Vec<AtomicU64>,
    changes: watch::Sender<u64>,
}

impl Status {
    fn new(partitions: u32) -> Self {
        Self {
            progress: (0..partitions).map(|_| Mutex::default()).collect(),
            inputs: (0..partitions).map(|_| ArcSwap::default()).collect(),
            inputs_asked: AtomicU64::new(0),
            inputs_answered: (0..partitions).map(|_| AtomicU64::new(0)).collect(),
            changes: watch::Sender::new(0),
        }
    }

    /// Where a partition stands.
    pub fn progress(&self, partition: u32) -> Progress {
        self.progress
            .get(partition as usize)
            .map(|progress| progress.lock().unwrap_or_else(PoisonError::into_inner).clone())
            .unwrap_or_default()
    }

    /// Metrics seen by all partitions. Engines look through all their rows for this, so they do it when somebody asks;
    /// a partition that does not answer in time is represented by what it said last.
    pub async fn inputs(&self) -> Vec<Arc<InputsReport>> {
        let mut changes = self.subscribe();
        let question = self.inputs_asked.fetch_add(1, Ordering::Relaxed) + 1;
        let answered = async {
            while self.inputs_answered.iter().any(|answered| answered.load(Ordering::Acquire) < question) {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(INPUTS_WAIT, answered).await;
        self.inputs.iter().map(ArcSwap::load_full).collect()
    }

    /// Answers the question for the inputs, if one is open.
    fn answer_inputs(&self, partition: u32, engine: &Partition) {
        let question = self.inputs_asked.load(Ordering::Relaxed);
        let Some(answered) = self.inputs_answered.get(partition as usize) else { return };
        if answered.load(Ordering::Relaxed) < question {
            self.inputs[partition as usize].store(Arc::new(engine.inputs()));
            answered.store(question, Ordering::Release);
            self.changes.send_modify(|change| *change += 1);
        }
    }

    /// The newest tick of any partition.
    pub fn last_tick(&self) -> Option<Timestamp> {
        (0..self.progress.len() as u32).filter_map(|partition| self.progress(partition).last_tick).max()
    }

    /// The epoch of every cell.
    pub fn epochs(&self) -> BTreeMap<Arc<str>, i64> {
        (0..self.progress.len() as u32).flat_map(|partition| self.progress(partition).epochs).collect()
    }

    /// Wakes at every change of any partition.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn set(&self, partition: u32, progress: Progress) {
        if let Some(held) = self.progress.get(partition as usize) {
            *held.lock().unwrap_or_else(PoisonError::into_inner) = progress;
        }
        self.changes.send_modify(|change| *change += 1);
    }
}

/// The threads of all partitions.
pub struct Aggregator {
    status: Arc<Status>,
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Aggregator {
    /// Starts a thread for every partition of the log. Returns once they run, not once they have caught up; see
    /// [`Self::caught_up`].
    ///
    /// # Errors
    /// If a thread cannot be started or the log refuses a reader.
    pub fn start(
        log: Arc<dyn SampleLog>,
        snapshots: Arc<dyn SnapshotLog>,
        checkpoints: Arc<dyn CheckpointStore>,
        options: AggregatorOptions,
        sink: SnapshotSink,
        metrics: Metrics,
    ) -> Result<Self, StartError> {
        let failed = |error: std::io::Error| StartError(format!("cannot start a thread: {error}"));
        let publisher = Arc::new(Publisher::start(snapshots).map_err(failed)?);
        let status = Arc::new(Status::new(log.partitions()));
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for partition in 0..log.partitions() {
            let owner = Owner {
                partition,
                log: log.clone(),
                checkpoints: checkpoints.clone(),
                publisher: publisher.clone(),
                options: options.clone(),
                sink: sink.clone(),
                metrics: metrics.clone(),
                status: status.clone(),
                stop: stop.clone(),
            };
            let thread = std::thread::Builder::new()
                .name(format!("engine-{partition}"))
                .spawn(move || owner.run())
                .map_err(failed)?;
            threads.push(thread);
        }
        Ok(Self { status, stop, threads })
    }

    /// What the engines tell.
    pub fn status(&self) -> Arc<Status> {
        self.status.clone()
    }

    /// Waits until every partition has read what the log held when this was called.
    pub async fn caught_up(&self, log: &dyn SampleLog) {
        let ends: Vec<_> = (0..log.partitions()).map(|partition| log.end(partition)).collect();
        let mut changes = self.status.subscribe();
        while !ends.iter().enumerate().all(|(partition, end)| {
            let progress = self.status.progress(partition as u32);
            progress.position >= *end || progress.ended
        }) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Stops the threads; each writes a last checkpoint. Blocks until they have ended.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("an engine thread had panicked");
            }
        }
    }
}

/// Owns the engine of a partition.
struct Owner {
    partition: u32,
    log: Arc<dyn SampleLog>,
    checkpoints: Arc<dyn CheckpointStore>,
    publisher: Arc<Publisher>,
    options: AggregatorOptions,
    sink: SnapshotSink,
    metrics: Metrics,
    status: Arc<Status>,
    stop: Arc<AtomicBool>,
}

impl Owner {
    fn run(self) {
        let (mut engine, mut position) = self.restore();
        let mut progress = Progress { position, ..Progress::default() };
        self.describe(&engine, &mut progress);
        self.status.set(self.partition, progress.clone());
        let mut checkpointer = Checkpointer::new(
            self.partition,
            self.options.checkpoint_seconds,
            self.checkpoints.clone(),
            self.log.clone(),
        );
        let mut reader = loop {
            match self.log.reader(self.partition, position) {
                Ok(reader) => break reader,
                Err(ReadError::Truncated { wanted, oldest }) => {
                    tracing::error!(
                        partition = self.partition, %wanted, %oldest,
                        "the log no longer reaches back to the checkpoint; windows fill anew"
                    );
                    position = oldest;
                }
                Err(ReadError::BeyondEnd { wanted, end }) => {
                    tracing::error!(
                        partition = self.partition, %wanted, %end,
                        "the checkpoint knows records that the log has lost; going on at its end"
                    );
                    position = end;
                }
                Err(error) => {
                    tracing::error!(partition = self.partition, %error, "the partition cannot be read");
                    self.status.set(self.partition, Progress { ended: true, ..progress });
                    return;
                }
            }
        };
        while !self.stop.load(Ordering::Relaxed) {
            self.status.answer_inputs(self.partition, &engine);
            match reader.next_blocking(WAIT) {
                Ok(None) => {}
                Ok(Some((at, record))) => {
                    position = at.next();
                    let ticked = self.apply(&mut engine, &record, position);
                    progress.position = position;
                    self.describe(&engine, &mut progress);
                    self.status.set(self.partition, progress.clone());
                    if let Some(tick) = ticked {
                        checkpointer.consider(tick, position, &engine, &self.metrics);
                    }
                }
                Err(ReadError::Damaged { from, to }) => {
                    tracing::error!(partition = self.partition, %from, %to, "records of the log are damaged and were skipped");
                    self.metrics.damaged(self.partition, to.0.saturating_sub(from.0));
                }
                Err(ReadError::Unreadable { position, why }) => {
                    tracing::error!(partition = self.partition, %position, %why, "a record of the log cannot be understood");
                    self.metrics.damaged(self.partition, 1);
                }
                Err(ReadError::Closed) => break,
                Err(error) => {
                    tracing::error!(partition = self.partition, %error, "the log cannot be read; trying again");
                    std::thread::sleep(REST);
                }
            }
        }
        checkpointer.finish(position, &engine, &self.metrics);
        self.status.set(self.partition, Progress { ended: true, ..progress });
    }

    /// The engine as of the newest checkpoint, and where to read on.
    fn restore(&self) -> (Partition, Position) {
        let fresh = || (Partition::new(self.options.engine.clone()), self.log.oldest(self.partition));
        let Some((position, bytes)) = self.checkpoints.newest(self.partition) else {
            return fresh();
        };
        let started = Instant::now();
        match Partition::restore(self.options.engine.clone(), &bytes, |text| (self.options.compile)(text)) {
            Ok(engine) => {
                tracing::info!(
                    partition = self.partition, %position, bytes = bytes.len(),
                    seconds = started.elapsed().as_secs_f64(), "restored from a checkpoint"
                );
                (engine, position)
            }
            Err(error) => {
                tracing::error!(partition = self.partition, %position, %error, "the checkpoint cannot be used; replaying the log");
                fresh()
            }
        }
    }

    /// Lets a record take effect; returns the tick if it was one that counted.
    fn apply(&self, engine: &mut Partition, record: &LogRecord, position: Position) -> Option<Timestamp> {
        match record {
            LogRecord::Samples(batch) => engine.handle_samples(batch),
            LogRecord::Tick(tick) => {
                let started = Instant::now();
                let snapshots = engine.handle_tick(*tick)?;
                for snapshot in snapshots {
                    (self.sink)(&snapshot);
                    self.metrics.published(&snapshot);
                    self.publisher.publish(snapshot, self.partition, position);
                }
                self.metrics.tick(self.partition, started.elapsed(), engine);
                return Some(*tick);
            }
            LogRecord::Policy(text) => match (self.options.compile)(text) {
                Ok(policy) => engine.handle_policy(Arc::new(policy)),
                Err(error) => {
                    tracing::error!(partition = self.partition, %error, "a policy in the log is not understood; the one before stays");
                }
            },
            LogRecord::Mode { cell, mode, .. } => engine.handle_mode(cell.as_ref(), *mode),
            LogRecord::Remove { cell, server, .. } => engine.handle_remove(cell, server),
            LogRecord::Ack { cell, server, class, epoch, in_use, .. } => {
                engine.handle_ack(cell, server, class, *epoch, *in_use);
            }
        }
        None
    }

    fn describe(&self, engine: &Partition, progress: &mut Progress) {
        progress.last_tick = engine.last_tick();
        progress.first_sample = engine.first_sample();
        progress.reached_by_two = engine.reached_by_two();
        if progress.policy.as_ref() != engine.policy_hash() {
            progress.policy = engine.policy_hash().cloned();
        }
        if progress.last_tick.is_some() {
            progress.epochs = engine.epochs();
        }
    }
}
