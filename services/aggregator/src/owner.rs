//! One thread per partition that this process owns: claim, restore, replay, follow; and a last checkpoint when it is
//! told to stop, or none when somebody else has taken over. What it does after an outage is told in `backlog.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use headroom_engine::{CompiledPolicy, EngineConfig, Partition};
use headroom_log::{CheckpointStore, Position, SampleLog, SnapshotLog};
use headroom_model::{CellSnapshot, LogRecord, Timestamp};
use tokio::sync::watch;

use crate::backlog::{Outages, Slices, take_up};
use crate::checkpointing::Checkpointer;
use crate::metrics::{EngineMetrics, Metrics};
use crate::note;
use crate::publish::{Fence, Owning, Publisher, SnapshotSink, position_of};
use crate::status::{Progress, Status};
use crate::tail::{Next, REST, Tail, rest};

/// How long an owner that was fenced, or whose engine panicked, rests before it claims the partition again, if it is still meant to own it.
const FENCED_REST: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 5 });

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
    /// How an owner goes on after an outage; without it, it reads the whole backlog first.
    pub outages: Option<Outages>,
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
    /// Owns until told otherwise. An engine that panics is given up and made anew from its checkpoint: the servers of a
    /// partition must not go unwatched until somebody looks why.
    fn run(self) {
        while let Ok(End::Fenced) | Err(_) =
            catch_unwind(AssertUnwindSafe(|| self.own())).inspect_err(|_| self.failed())
        {
            // Whoever fenced us is the owner, unless the partition is given back to us; then we have it still.
            tracing::warn!(partition = self.partition, "the brokers take nothing from this owner any more; resting");
            if !rest(&self.stop, FENCED_REST) {
                return;
            }
        }
    }

    /// Takes back what a panic has left behind. The panic itself was logged where it happened.
    fn failed(&self) {
        let Shared { owned, status, metrics, .. } = &*self.shared;
        tracing::error!(partition = self.partition, "the engine panicked; it is made anew from its checkpoint");
        metrics.engine_failed(self.partition);
        owned.send_if_modified(|owned| owned.remove(&self.partition));
        status.set(self.partition, Progress::default());
        self.shared.snapshots.release(self.partition);
        self.shared.checkpoints.release(self.partition);
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
                    rest(&self.stop, REST);
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
        let Shared { log, snapshots, options, .. } = &*self.shared;
        // Before anybody knows that the partition has an owner: ticks must not lie in what is passed over.
        let passed_over =
            options.outages.as_ref().and_then(|outages| outages.passed_over(self.partition, &**log, &**snapshots));
        self.shared.owned.send_if_modified(|owned| owned.insert(self.partition));
        let end = self.follow(&owning, claimed, passed_over);
        self.shared.owned.send_if_modified(|owned| owned.remove(&self.partition));
        self.shared.status.set(self.partition, Progress { caught_up: true, ..Progress::default() });
        self.shared.snapshots.release(self.partition);
        self.shared.checkpoints.release(self.partition);
        end
    }

    fn follow(&self, owning: &Owning, claimed: Instant, mut passed_over: Option<Range<u64>>) -> End {
        let Shared { log, checkpoints, options, metrics, status, publisher, .. } = &*self.shared;
        let partition = self.partition;
        let target = log.end(partition);
        let Some((mut engine, position)) = self.restore() else { return End::Stopped };
        let mut progress = Progress { position, owned: true, ..Progress::default() };
        describe(&engine, &mut progress);
        status.set(partition, progress.clone());
        let mut shown = metrics.engine(partition);
        metrics.backlog(partition, engine.backlog_len());
        let mut checkpointer = Checkpointer::new(
            partition,
            options.checkpoint_seconds,
            checkpoints.clone(),
            log.clone(),
            owning.fence.clone(),
        );
        let Some(mut tail) = self.tail(position) else {
            checkpointer.abandon();
            return End::Stopped;
        };
        let mut slices = Slices::default();
        let mut announced = None;
        let mut inputs_announced = None;
        let mut policy_announced = None;
        while !self.stop.load(Ordering::Relaxed) && !owning.fence.is_raised() {
            status.answer_inputs(partition, &engine);
            if let Some(range) = passed_over.take_if(|range| tail.position.0 >= range.start) {
                let Some(present) = self.pass_over(tail.position.0..range.end, &mut engine, &mut checkpointer, owning)
                else {
                    break;
                };
                tail = present;
                // What was asked for before lies in what is passed over now, and will not be read.
                slices = Slices::default();
            }
            if progress.position != tail.position {
                progress.position = tail.position;
                status.set(partition, progress.clone());
            }
            if !progress.caught_up && progress.position >= target {
                progress.caught_up = true;
                status.set(partition, progress.clone());
                tracing::info!(
                    partition, position = %progress.position, seconds = claimed.elapsed().as_secs_f64(),
                    "the engine has caught up with the log"
                );
                self.let_go(&engine, progress.position, owning);
            }
            let mut started = Instant::now();
            let next = match tail.try_next() {
                Next::Nothing => {
                    let due = options.announce == Announce::Always && progress.caught_up;
                    if due && announced != Some(progress.position) {
                        announced = Some(progress.position);
                        publisher.note(note::PROGRESS, note::encode_progress(&progress), owning);
                    }
                    slices.ask(partition, &engine, &**log);
                    let next = tail.wait();
                    started = Instant::now();
                    next
                }
                next => next,
            };
            let (at, record) = match next {
                Next::Record(at, record) => (at, record),
                Next::Nothing => continue,
                Next::End => break,
            };
            if let LogRecord::Backlog { from, to } = &*record {
                let slice = *from..*to;
                if engine.is_next_backlog(&slice) && !self.take_up(&mut engine, &slice, owning) {
                    // Half a slice is taken up again by whoever comes next.
                    tail.position = at;
                    break;
                }
                slices.taken(&slice, started.elapsed());
                metrics.backlog(partition, engine.backlog_len());
                if engine.backlog().is_none() {
                    tracing::info!(partition, "the backlog of the outage was taken up");
                }
            }
            let ticked = self.apply(&mut engine, &mut shown, &record, tail.position, owning);
            checkpointer.worked(started.elapsed());
            progress.position = tail.position;
            describe(&engine, &mut progress);
            status.set(partition, progress.clone());
            if let Some(tick) = ticked {
                // What a replay goes through again was announced when it was new.
                if options.announce != Announce::Never && progress.caught_up {
                    announced = Some(tail.position);
                    publisher.note(note::PROGRESS, note::encode_progress(&progress), owning);
                    if policy_announced != progress.policy
                        && let (Some(hash), Some(text)) = (engine.policy_hash(), engine.policy_text())
                    {
                        policy_announced = Some(hash.clone());
                        publisher.note(note::POLICY, note::encode_policy(hash, text), owning);
                    }
                    if inputs_announced.is_none_or(|last| tick.seconds() - last >= INPUTS_SECONDS) {
                        inputs_announced = Some(tick.seconds());
                        publisher.note(note::INPUTS, note::encode_inputs(&engine.inputs()), owning);
                    }
                }
                slices.ask(partition, &engine, &**log);
                if progress.caught_up
                    && let Some(outages) = &options.outages
                {
                    passed_over = outages.range(partition, &**log, tick, tail.position);
                }
            }
            if progress.caught_up {
                log.set_consumed(partition, tail.position);
            }
            checkpointer.consider(tail.position, &engine, metrics);
        }
        if owning.fence.is_raised() {
            checkpointer.abandon();
            return End::Fenced;
        }
        publisher.flush();
        checkpointer.finish(tail.position, &engine, metrics);
        End::Stopped
    }

    /// Lets go of cells that the snapshot log has of this partition and the engine has not: those whose last word a crash
    /// has kept from the log, or whose samples the log has lost with the checkpoint. They would be there for ever, stale,
    /// and so would be every answer over all cells.
    fn let_go(&self, engine: &Partition, position: Position, owning: &Owning) {
        let Shared { snapshots, sink, publisher, .. } = &*self.shared;
        let Some(tick) = engine.last_tick() else { return };
        for cell in snapshots.cells().into_iter().filter(|cell| !engine.has_cell(cell)) {
            let Some(record) = snapshots.latest(&cell).filter(|record| record.epoch < tick.seconds()) else { continue };
            if position_of(&record.header).is_none_or(|(of, _)| of != self.partition) {
                continue;
            }
            match CellSnapshot::decode(&record.content) {
                Ok(last) => {
                    tracing::info!(partition = self.partition, %cell, "the cell has no servers any more and is let go");
                    let last = Arc::new(last.without_servers(tick.seconds()));
                    sink(&last);
                    publisher.publish(last, owning, position);
                }
                Err(error) => {
                    tracing::error!(partition = self.partition, %cell, %error, "the last snapshot of a cell cannot be read");
                }
            }
        }
    }

    fn tail(&self, position: Position) -> Option<Tail<'_>> {
        Tail::open(&*self.shared.log, self.partition, position, &self.stop)
    }

    /// Passes over a range of the log and makes that durable; a tail behind it, unless the owner is to stop first.
    fn pass_over(
        &self,
        range: Range<u64>,
        engine: &mut Partition,
        checkpointer: &mut Checkpointer,
        owning: &Owning,
    ) -> Option<Tail<'_>> {
        let end = Position(range.end.max(range.start));
        engine.pass_over(range);
        self.shared.metrics.backlog(self.partition, engine.backlog_len());
        while let Err(error) = checkpointer.now(end, engine, &self.shared.metrics) {
            tracing::error!(partition = self.partition, error, "the present waits for a checkpoint; trying again");
            if owning.fence.is_raised() || !rest(&self.stop, REST) {
                return None;
            }
        }
        self.tail(end)
    }

    /// Takes up a slice of what was passed over; whether it was all there.
    fn take_up(&self, engine: &mut Partition, slice: &Range<u64>, owning: &Owning) -> bool {
        !owning.fence.is_raised() && self.tail(Position(slice.start)).is_some_and(|tail| take_up(engine, slice, tail))
    }

    /// The engine as of the newest checkpoint, and where to read on; `None` if the owner is to stop first.
    fn restore(&self) -> Option<(Partition, Position)> {
        let Shared { checkpoints, log, options, .. } = &*self.shared;
        let partition = self.partition;
        let fresh = || Some((Partition::new(options.engine.clone()), log.oldest(partition)));
        let newest = loop {
            match checkpoints.newest(partition) {
                Ok(newest) => break newest,
                Err(error) => {
                    tracing::error!(partition, %error, "the checkpoints cannot be read; trying again");
                    if !rest(&self.stop, REST) {
                        return None;
                    }
                }
            }
        };
        let Some((position, bytes)) = newest else { return fresh() };
        let started = Instant::now();
        match Partition::restore(options.engine.clone(), &bytes, |text| (options.compile)(text)) {
            Ok(engine) => {
                tracing::info!(
                    partition, %position, bytes = bytes.len(),
                    seconds = started.elapsed().as_secs_f64(), "restored from a checkpoint"
                );
                Some((engine, position))
            }
            Err(error) => {
                tracing::error!(partition, %position, %error, "the checkpoint cannot be used; replaying the log");
                fresh()
            }
        }
    }

    /// Lets a record take effect; returns the tick if it was one that counted.
    fn apply(
        &self,
        engine: &mut Partition,
        shown: &mut EngineMetrics,
        record: &LogRecord,
        position: Position,
        owning: &Owning,
    ) -> Option<Timestamp> {
        match record {
            LogRecord::Samples(batch) => engine.handle_samples(batch),
            LogRecord::Overdue(batch) => engine.handle_overdue(batch),
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
                    shown.published(&snapshot);
                    self.shared.publisher.publish(snapshot, owning, position);
                }
                shown.tick(started.elapsed(), engine);
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
            LogRecord::Backlog { .. } => {}
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
        progress.full = engine.full_cells();
    }
}

#[cfg(test)]
mod tests;
