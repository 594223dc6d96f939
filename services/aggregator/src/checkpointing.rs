//! When a checkpoint is written, and what it lets the log forget.
//!
//! The engine's thread encodes (nobody else may see a half-applied tick) and another writes: a disk that takes seconds
//! over a large checkpoint must not make a tick late. While one is being written none is begun.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Instant;

use headroom_engine::Partition;
use headroom_log::{CheckpointError, CheckpointStore, Position, SampleLog};
use headroom_model::Timestamp;

use crate::metrics::Metrics;
use crate::publish::Fence;

type Job = (Position, Vec<u8>, Metrics);

pub(crate) struct Checkpointer {
    partition: u32,
    interval_seconds: i64,
    last: Option<Timestamp>,
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
        let (jobs, inbox) = sync_channel::<Job>(0);
        let writer = std::thread::Builder::new().name(format!("checkpoint-{partition}")).spawn(move || {
            while let Ok((position, bytes, metrics)) = inbox.recv() {
                let started = Instant::now();
                match store.put(partition, position, &bytes) {
                    Ok(()) => {
                        metrics.checkpoint(partition, started.elapsed(), bytes.len());
                        if let Some(floor) = store.floor(partition) {
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
            }
        });
        let writer = match writer {
            Ok(writer) => Some(writer),
            Err(error) => {
                tracing::error!(partition, %error, "no thread for checkpoints; a restart will replay the whole log");
                None
            }
        };
        Self { partition, interval_seconds, last: None, jobs: Some(jobs), writer }
    }

    /// Writes a checkpoint if it is time for one.
    pub(crate) fn consider(&mut self, tick: Timestamp, position: Position, engine: &Partition, metrics: &Metrics) {
        let last = *self.last.get_or_insert(tick);
        if tick.seconds() - last.seconds() < self.interval_seconds {
            return;
        }
        let Some(jobs) = &self.jobs else { return };
        match jobs.try_send((position, engine.checkpoint(), metrics.clone())) {
            Ok(()) => self.last = Some(tick),
            // The writer is still busy with the one before: at the next tick again.
            Err(TrySendError::Full(_)) => {}
            Err(TrySendError::Disconnected(_)) => self.jobs = None,
        }
    }

    /// Writes a last checkpoint and waits until it is on disk.
    pub(crate) fn finish(mut self, position: Position, engine: &Partition, metrics: &Metrics) {
        if let Some(jobs) = self.jobs.take()
            && jobs.send((position, engine.checkpoint(), metrics.clone())).is_err()
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
