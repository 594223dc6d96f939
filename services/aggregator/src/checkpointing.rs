//! When a checkpoint is written, and what it lets the log forget.
//!
//! The engine's thread encodes (nobody else may see a half-applied tick) and another writes: a disk that takes seconds
//! over a large checkpoint must not make a tick late. While one is being written none is begun.
//!
//! A checkpoint is due after an interval of ticks, and before that after an amount of work: what a restart costs is
//! reading again what came since, and at full load an interval holds more than anybody wants to wait for. The work
//! between two checkpoints is never less than a multiple of what a checkpoint itself took, so that a large engine does
//! not spend its time on writing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use headroom_engine::Partition;
use headroom_log::{CheckpointError, CheckpointStore, Position, SampleLog};
use headroom_model::Timestamp;

use crate::metrics::Metrics;
use crate::publish::Fence;

/// Work of the engine after which a checkpoint is due before its interval has passed. A restart goes through at most
/// this, a tick's work, and what came while the checkpoint was written; the bar for all of it is 15 s.
const WORK_MAX: Duration = Duration::from_secs(5);

/// The least work between two checkpoints that work made due, as a multiple of what encoding the last one took.
const WORK_PER_ENCODING: u32 = 6;

type Waiting = SyncSender<Result<(), CheckpointError>>;

struct Job {
    position: Position,
    /// What the engine has passed over begins here: the log must reach back to it too.
    backlog_start: Option<u64>,
    bytes: Vec<u8>,
    metrics: Metrics,
    /// Who waits for the outcome.
    waiting: Option<Waiting>,
}

impl Job {
    /// Of an engine whose last checkpoint had so many bytes.
    fn of(
        position: Position,
        engine: &Partition,
        last_bytes: usize,
        metrics: &Metrics,
        waiting: Option<Waiting>,
    ) -> Self {
        let (backlog_start, bytes) = (engine.backlog_start(), engine.checkpoint_of(last_bytes + last_bytes / 8));
        Self { position, backlog_start, bytes, metrics: metrics.clone(), waiting }
    }
}

pub(crate) struct Checkpointer {
    partition: u32,
    interval_seconds: i64,
    last: Option<Timestamp>,
    /// What the engine has worked since the last checkpoint, what encoding that one took, and its size.
    work: Duration,
    encoding: Duration,
    bytes: usize,
    /// Whether the writer is at it.
    writing: Arc<AtomicBool>,
    jobs: Option<SyncSender<Job>>,
    writer: Option<std::thread::JoinHandle<()>>,
}

impl Checkpointer {
    pub(crate) fn new(
        partition: u32,
        interval_seconds: i64,
        store: Arc<dyn CheckpointStore>,
        log: Arc<dyn SampleLog>,
        fence: Fence,
    ) -> Self {
        if let Some(floor) = store.floor(partition) {
            log.set_retention_floor(partition, floor);
        }
        let (jobs, inbox) = sync_channel::<Job>(1);
        let writing = Arc::new(AtomicBool::new(false));
        let done = writing.clone();
        let writer = std::thread::Builder::new().name(format!("checkpoint-{partition}")).spawn(move || {
            while let Ok(Job { position, backlog_start, bytes, metrics, waiting }) = inbox.recv() {
                let started = Instant::now();
                let outcome = store.put(partition, position, &bytes);
                match &outcome {
                    Ok(()) => {
                        metrics.checkpoint(partition, started.elapsed(), bytes.len());
                        if let Some(floor) = store.floor(partition) {
                            let floor = backlog_start.map_or(floor, |start| floor.min(Position(start)));
                            log.set_retention_floor(partition, floor);
                        }
                    }
                    Err(error) => {
                        metrics.checkpoint_failed(partition);
                        if matches!(error, CheckpointError::Fenced { .. }) {
                            fence.raise();
                        }
                        tracing::error!(partition, %error, "a checkpoint was not written; the log must keep more");
                    }
                }
                done.store(false, Ordering::Release);
                if let Some(waiting) = waiting {
                    // Whoever waited may have stopped.
                    let _ = waiting.send(outcome);
                }
            }
        });
        let writer = match writer {
            Ok(writer) => Some(writer),
            Err(error) => {
                tracing::error!(partition, %error, "no thread for checkpoints; a restart will replay the whole log");
                None
            }
        };
        Self {
            partition,
            interval_seconds,
            last: None,
            work: Duration::ZERO,
            encoding: Duration::ZERO,
            bytes: 0,
            writing,
            jobs: Some(jobs),
            writer,
        }
    }

    /// Notes what the engine has worked on a record.
    pub(crate) fn worked(&mut self, time: Duration) {
        self.work += time;
    }

    /// Writes a checkpoint if it is time for one.
    pub(crate) fn consider(&mut self, position: Position, engine: &Partition, metrics: &Metrics) {
        let tick = engine.last_tick().unwrap_or_default();
        let last = *self.last.get_or_insert(tick);
        let is_due = tick.seconds() - last.seconds() >= self.interval_seconds
            || self.work >= WORK_MAX.max(self.encoding * WORK_PER_ENCODING);
        // The writer may still be busy with the one before: then at the next tick again.
        if !is_due || self.writing.load(Ordering::Acquire) {
            return;
        }
        let Some(jobs) = &self.jobs else { return };
        let started = Instant::now();
        let job = Job::of(position, engine, self.bytes, metrics, None);
        (self.encoding, self.bytes) = (started.elapsed(), job.bytes.len());
        self.writing.store(true, Ordering::Release);
        match jobs.try_send(job) {
            Ok(()) => (self.last, self.work) = (Some(tick), Duration::ZERO),
            Err(_) => self.jobs = None,
        }
    }

    /// Writes a checkpoint now and waits until it is durable.
    ///
    /// # Errors
    /// If it is not.
    pub(crate) fn now(&mut self, position: Position, engine: &Partition, metrics: &Metrics) -> Result<(), String> {
        let (waiting, outcome) = sync_channel(1);
        let gone = || "the thread that writes checkpoints has ended".to_owned();
        let job = Job::of(position, engine, self.bytes, metrics, Some(waiting));
        self.jobs.as_ref().ok_or_else(gone)?.send(job).map_err(|_| gone())?;
        outcome.recv().map_err(|_| gone())?.map_err(|error| error.to_string())
    }

    /// Writes a last checkpoint and waits until it is on disk.
    pub(crate) fn finish(mut self, position: Position, engine: &Partition, metrics: &Metrics) {
        if let Some(jobs) = self.jobs.take()
            && jobs.send(Job::of(position, engine, self.bytes, metrics, None)).is_err()
        {
            tracing::error!(partition = self.partition, "the last checkpoint was not written");
        }
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }

    /// Writes no more: somebody else owns the partition.
    pub(crate) fn abandon(mut self) {
        self.jobs = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}
