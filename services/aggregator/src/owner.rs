//! One thread per partition that this process owns: claim, restore, replay, follow; and a last checkpoint when it is
//! told to stop, or none when somebody else has taken over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use headroom_engine::{CompiledPolicy, EngineConfig, Partition};
use headroom_log::{CheckpointStore, LogReader, Position, ReadError, SampleLog, SnapshotLog};
use headroom_model::{LogRecord, Timestamp};
use tokio::sync::watch;

use crate::checkpointing::Checkpointer;
use crate::metrics::Metrics;
use crate::note;
use crate::publish::{Fence, Owning, Publisher, SnapshotSink};
use crate::status::{Progress, Status};

/// How long a thread waits for a record before it looks whether it should stop.
const WAIT: Duration = Duration::from_millis(100);

/// How long a thread rests after the log could not be read.
const REST: Duration = Duration::from_millis(500);

/// How long an owner that was fenced rests before it claims the partition again, if it is still meant to own it.
const FENCED_REST: Duration = Duration::from_secs(5);

/// Seconds of ticks between two announcements of the metrics seen, for which an engine looks through all its rows.
const INPUTS_SECONDS: i64 = 60;

/// Turns the text of a policy record into a policy; the text was accepted before it got into the log.
pub type Compile = Arc<dyn Fn(&str) -> Result<CompiledPolicy, String> + Send + Sync>;

/// What owners announce to other processes beside their snapshots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Announce {
    /// Nothing: all readers are in this process.
    #[default]
    Never,
    /// At ticks, where they stand.
    Ticks,
    /// Also between ticks, whenever they have read what there is: whoever moves event time needs to know.
    Always,
}

/// What an aggregator needs to know.
#[derive(Clone)]
pub struct AggregatorOptions {
    /// Bounds and time mode of the engines.
    pub engine: EngineConfig,
    /// Seconds between checkpoints, in ticks of the log.
    pub checkpoint_seconds: i64,
    /// How a policy record becomes a policy.
    pub compile: Compile,
    /// What other processes are told.
    pub announce: Announce,
}

/// Why an aggregator did not start.
#[derive(Debug)]
pub struct StartError(String);

impl StartError {
    fn thread(error: std::io::Error) -> Self {
        Self(format!("cannot start a thread: {error}"))
    }
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

/// The threads of the partitions that this process owns.
pub struct Aggregator {
    shared: Arc<Shared>,
    threads: Mutex<BTreeMap<u32, Running>>,
}

struct Running {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

/// What all owners have in common.
struct Shared {
    log: Arc<dyn SampleLog>,
    snapshots: Arc<dyn SnapshotLog>,
    checkpoints: Arc<dyn CheckpointStore>,
    publisher: Publisher,
    options: AggregatorOptions,
    sink: SnapshotSink,
    metrics: Metrics,
    status: Arc<Status>,
    owned: watch::Sender<BTreeSet<u32>>,
}

impl Aggregator {
    /// An aggregator that owns nothing yet. `sink` is handed every snapshot, `published` every one that the snapshot log
    /// has taken.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn new(
        log: Arc<dyn SampleLog>,
        snapshots: Arc<dyn SnapshotLog>,
        checkpoints: Arc<dyn CheckpointStore>,
        options: AggregatorOptions,
        sink: SnapshotSink,
        published: Option<SnapshotSink>,
        metrics: Metrics,
    ) -> Result<Self, StartError> {
        let publisher = Publisher::start(snapshots.clone(), published).map_err(StartError::thread)?;
        let status = Arc::new(Status::local(log.partitions()));
        let owned = watch::Sender::new(BTreeSet::new());
        let shared = Shared { log, snapshots, checkpoints, publisher, options, sink, metrics, status, owned };
        Ok(Self { shared: Arc::new(shared), threads: Mutex::default() })
    }

    /// Begins to own partitions. Returns once their threads run, not once they have caught up; see
    /// [`Progress::caught_up`].
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn own(&self, partitions: impl IntoIterator<Item = u32>) -> Result<(), StartError> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for partition in partitions {
            if threads.contains_key(&partition) || partition >= self.shared.log.partitions() {
                continue;
            }
            let stop = Arc::new(AtomicBool::new(false));
            let owner = Owner { partition, shared: self.shared.clone(), stop: stop.clone() };
            let thread = std::thread::Builder::new()
                .name(format!("engine-{partition}"))
                .spawn(move || owner.run())
                .map_err(StartError::thread)?;
            threads.insert(partition, Running { stop, thread });
        }
        Ok(())
    }

    /// Ceases to own partitions: each writes a last checkpoint. Blocks until they have ended.
    pub fn disown(&self, partitions: impl IntoIterator<Item = u32>) {
        let ending: Vec<Running> = {
            let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
            partitions.into_iter().filter_map(|partition| threads.remove(&partition)).collect()
        };
        for running in &ending {
            running.stop.store(true, Ordering::Relaxed);
        }
        for running in ending {
            if running.thread.join().is_err() {
                tracing::error!("an engine thread had panicked");
            }
        }
    }

    /// What the engines tell.
    pub fn status(&self) -> Arc<Status> {
        self.shared.status.clone()
    }

    /// The partitions that are owned, as it changes.
    pub fn owned(&self) -> watch::Receiver<BTreeSet<u32>> {
        self.shared.owned.subscribe()
    }

    /// Waits until every partition has read what the log held when its thread began.
    pub async fn caught_up(&self) {
        let mut changes = self.shared.status.subscribe();
        while !(0..self.shared.log.partitions()).all(|partition| self.shared.status.progress(partition).caught_up) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Stops owning anything.
    pub fn stop(&self) {
        self.disown(0..self.shared.log.partitions());
    }
}

/// Owns the engine of a partition.
struct Owner {
    partition: u32,
    shared: Arc<Shared>,
    stop: Arc<AtomicBool>,
}

/// Why an owner ended.
#[derive(PartialEq, Eq)]
enum End {
    /// It was told to.
    Stopped,
    /// Somebody else owns the partition.
    Fenced,
}

impl Owner {
    fn run(self) {
        while self.own() == End::Fenced {
            // Whoever fenced us is the owner, unless the partition is given back to us; then we have it still.
            tracing::warn!(partition = self.partition, "somebody else owns the partition; resting");
            if !self.rest(FENCED_REST) {
                return;
            }
        }
    }

    /// Rests; whether to go on.
    fn rest(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        while Instant::now() < until && !self.stop.load(Ordering::Relaxed) {
            std::thread::sleep(WAIT.min(until.saturating_duration_since(Instant::now())));
        }
        !self.stop.load(Ordering::Relaxed)
    }

    /// Keeps earlier owners out.
    fn claim(&self) -> bool {
        let Shared { checkpoints, snapshots, .. } = &*self.shared;
        while !self.stop.load(Ordering::Relaxed) {
            let claimed = checkpoints
                .claim(self.partition)
                .map_err(|error| error.to_string())
                .and_then(|()| snapshots.claim(self.partition).map_err(|error| error.to_string()));
            match claimed {
                Ok(()) => return true,
                Err(error) => {
                    tracing::error!(partition = self.partition, error, "the partition cannot be claimed; trying again");
                    self.rest(REST);
                }
            }
        }
        false
    }

    fn own(&self) -> End {
        if !self.claim() {
            return End::Stopped;
        }
        let claimed = Instant::now();
        let owning = Owning { partition: self.partition, fence: Fence::default() };
        self.shared.owned.send_if_modified(|owned| owned.insert(self.partition));
        let end = self.follow(&owning, claimed);
        self.shared.owned.send_if_modified(|owned| owned.remove(&self.partition));
        self.shared.status.set(self.partition, Progress { caught_up: true, ..Progress::default() });
        self.shared.snapshots.release(self.partition);
        self.shared.checkpoints.release(self.partition);
        end
    }

    fn follow(&self, owning: &Owning, claimed: Instant) -> End {
        let Shared { log, checkpoints, options, metrics, status, publisher, .. } = &*self.shared;
        let partition = self.partition;
        let target = log.end(partition);
        let (mut engine, mut position) = self.restore();
        let mut progress = Progress { position, owned: true, ..Progress::default() };
        describe(&engine, &mut progress);
        status.set(partition, progress.clone());
        let mut checkpointer = Checkpointer::new(
            partition,
            options.checkpoint_seconds,
            checkpoints.clone(),
            log.clone(),
            owning.fence.clone(),
        );
        let Some(mut reader) = self.reader(&mut position) else {
            checkpointer.abandon();
            return End::Stopped;
        };
        progress.position = position;
        let mut announced = None;
        let mut inputs_announced = None;
        while !self.stop.load(Ordering::Relaxed) && !owning.fence.is_raised() {
            status.answer_inputs(partition, &engine);
            if !progress.caught_up && progress.position >= target {
                progress.caught_up = true;
                status.set(partition, progress.clone());
                tracing::info!(
                    partition, position = %progress.position, seconds = claimed.elapsed().as_secs_f64(),
                    "the engine has caught up with the log"
                );
            }
            let next = match reader.try_next() {
                Ok(None) => {
                    let due = options.announce == Announce::Always && progress.caught_up;
                    if due && announced != Some(progress.position) {
                        announced = Some(progress.position);
                        publisher.note(note::PROGRESS, note::encode_progress(&progress), owning);
                    }
                    reader.next_blocking(WAIT)
                }
                next => next,
            };
            match next {
                Ok(None) => {}
                Ok(Some((at, record))) => {
                    position = at.next();
                    let ticked = self.apply(&mut engine, &record, position, owning);
                    progress.position = position;
                    describe(&engine, &mut progress);
                    status.set(partition, progress.clone());
                    if let Some(tick) = ticked {
                        // What a replay goes through again was announced when it was new.
                        if options.announce != Announce::Never && progress.caught_up {
                            announced = Some(position);
                            publisher.note(note::PROGRESS, note::encode_progress(&progress), owning);
                            if inputs_announced.is_none_or(|last| tick.seconds() - last >= INPUTS_SECONDS) {
                                inputs_announced = Some(tick.seconds());
                                publisher.note(note::INPUTS, note::encode_inputs(&engine.inputs()), owning);
                            }
                        }
                        checkpointer.consider(tick, position, &engine, metrics);
                    }
                }
                Err(ReadError::Damaged { from, to }) => {
                    tracing::error!(partition, %from, %to, "records of the log are damaged and were skipped");
                    metrics.damaged(partition, to.0.saturating_sub(from.0));
                }
                Err(ReadError::Unreadable { position, why }) => {
                    tracing::error!(partition, %position, %why, "a record of the log cannot be understood");
                    metrics.damaged(partition, 1);
                }
                Err(ReadError::Truncated { .. } | ReadError::BeyondEnd { .. }) => {
                    let Some(again) = self.reader(&mut position) else { break };
                    reader = again;
                    progress.position = position;
                }
                Err(ReadError::Closed) => break,
                Err(error) => {
                    tracing::error!(partition, %error, "the log cannot be read; trying again");
                    self.rest(REST);
                }
            }
        }
        if owning.fence.is_raised() {
            checkpointer.abandon();
            return End::Fenced;
        }
        publisher.flush();
        checkpointer.finish(position, &engine, metrics);
        End::Stopped
    }

    /// A reader where the engine stands, or where the log still is.
    fn reader(&self, position: &mut Position) -> Option<Box<dyn LogReader>> {
        while !self.stop.load(Ordering::Relaxed) {
            match self.shared.log.reader(self.partition, *position) {
                Ok(reader) => return Some(reader),
                Err(ReadError::Truncated { wanted, oldest }) => {
                    tracing::error!(
                        partition = self.partition, %wanted, %oldest,
                        "the log no longer reaches back to the checkpoint; windows fill anew"
                    );
                    *position = oldest;
                }
                Err(ReadError::BeyondEnd { wanted, end }) => {
                    tracing::error!(
                        partition = self.partition, %wanted, %end,
                        "the checkpoint knows records that the log has lost; going on at its end"
                    );
                    *position = end;
                }
                Err(error @ (ReadError::NoSuchPartition { .. } | ReadError::Closed)) => {
                    tracing::error!(partition = self.partition, %error, "the partition cannot be read");
                    return None;
                }
                Err(error) => {
                    tracing::error!(partition = self.partition, %error, "the partition cannot be read; trying again");
                    self.rest(REST);
                }
            }
        }
        None
    }

    /// The engine as of the newest checkpoint, and where to read on.
    fn restore(&self) -> (Partition, Position) {
        let fresh = || (Partition::new(self.shared.options.engine.clone()), self.shared.log.oldest(self.partition));
        let Some((position, bytes)) = self.shared.checkpoints.newest(self.partition) else {
            return fresh();
        };
        let started = Instant::now();
        match Partition::restore(self.shared.options.engine.clone(), &bytes, |text| (self.shared.options.compile)(text))
        {
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
    fn apply(
        &self,
        engine: &mut Partition,
        record: &LogRecord,
        position: Position,
        owning: &Owning,
    ) -> Option<Timestamp> {
        match record {
            LogRecord::Samples(batch) => engine.handle_samples(batch),
            LogRecord::Tick(tick) => {
                let started = Instant::now();
                // The target is that of `headroom_telemetry::logs::TRACE_TARGET`: made only where spans are exported.
                let span = tracing::info_span!(
                    target: "headroom_trace", "tick", partition = self.partition, epoch = tick.seconds(),
                    cells = tracing::field::Empty,
                );
                let _entered = span.enter();
                let snapshots = engine.handle_tick(*tick)?;
                span.record("cells", snapshots.len());
                for snapshot in snapshots {
                    (self.shared.sink)(&snapshot);
                    self.shared.metrics.published(&snapshot);
                    self.shared.publisher.publish(snapshot, owning, position);
                }
                self.shared.metrics.tick(self.partition, started.elapsed(), engine);
                return Some(*tick);
            }
            LogRecord::Policy(text) => match (self.shared.options.compile)(text) {
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
}

fn describe(engine: &Partition, progress: &mut Progress) {
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
