//! `--time=event`: time moves when somebody says so, and the answer means that everything up to it can be read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use headroom_log::{AppendError, Position, SampleLog};
use headroom_model::{LogRecord, Timestamp};
use tokio::sync::Mutex;

use crate::status::Status;

/// Boundaries that one call may append.
pub const BOUNDARIES_MAX: i64 = 10_000;

/// How long a call waits for the engines.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Why the clock did not move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClockError {
    /// The time is before the last tick.
    GoesBack {
        /// The last tick.
        last: Timestamp,
    },
    /// The step holds too many boundaries.
    TooFar {
        /// How many.
        boundaries: i64,
    },
    /// The log did not take a tick.
    Log(AppendError),
    /// The engines did not get there in time.
    TimedOut,
}

impl std::fmt::Display for ClockError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::GoesBack { last } => {
                write!(f, "the clock cannot go back: the last tick is at {} Unix seconds", last.seconds())
            }
            Self::TooFar { boundaries } => write!(
                f,
                "the step holds {boundaries} tick boundaries, one call may append {BOUNDARIES_MAX}; move in smaller steps"
            ),
            Self::Log(error) => write!(f, "a tick was not appended: {error}"),
            Self::TimedOut => write!(f, "the engines did not reach the time within {} s", WAIT_MAX.as_secs()),
        }
    }
}

impl std::error::Error for ClockError {}

/// Moves event time.
pub struct EventClock {
    log: Arc<dyn SampleLog>,
    status: Arc<Status>,
    tick_seconds: i64,
    /// One call at a time: two would interleave their ticks.
    turn: Mutex<()>,
}

impl EventClock {
    /// A clock over all partitions of a log.
    pub fn new(log: Arc<dyn SampleLog>, status: Arc<Status>, tick_seconds: i64) -> Self {
        Self { log, status, tick_seconds, turn: Mutex::new(()) }
    }

    /// Appends every boundary in (last, now] to every partition and waits until the snapshots up to them are readable.
    /// Answers the epoch of every cell.
    ///
    /// # Errors
    /// As [`ClockError`] says.
    pub async fn advance(&self, now: Timestamp) -> Result<BTreeMap<Arc<str>, i64>, ClockError> {
        let _turn = self.turn.lock().await;
        // What was acknowledged before this call must be in, and where a partition stands is known only when its engine
        // has read everything.
        self.wait_for((0..self.log.partitions()).map(|partition| self.log.end(partition)).collect()).await?;
        let target = now.floor_to(self.tick_seconds);
        let mut steps = Vec::new();
        for partition in 0..self.log.partitions() {
            let progress = self.status.progress(partition);
            if progress.last_tick.is_some_and(|last| now < last) {
                return Err(ClockError::GoesBack { last: progress.last_tick.unwrap_or_default() });
            }
            // Before the first tick, time begins at the first sample; without any, there is only the present to tell.
            let from = match (progress.last_tick, progress.first_sample) {
                (Some(last), _) => last.plus_seconds(self.tick_seconds),
                (None, Some(first)) => first.floor_to(self.tick_seconds).plus_seconds(self.tick_seconds),
                (None, None) => target,
            };
            let boundaries =
                if from > target { 0 } else { (target.seconds() - from.seconds()) / self.tick_seconds + 1 };
            if boundaries > BOUNDARIES_MAX {
                return Err(ClockError::TooFar { boundaries });
            }
            steps.push((partition, from, boundaries));
        }
        let mut ends: Vec<Position> = vec![Position::default(); self.log.partitions() as usize];
        for (partition, from, boundaries) in steps {
            for step in 0..boundaries {
                let tick = from.plus_seconds(step * self.tick_seconds);
                let position =
                    self.log.append(partition, Arc::new(LogRecord::Tick(tick))).await.map_err(ClockError::Log)?;
                ends[partition as usize] = position.next();
            }
        }
        self.wait_for(ends).await?;
        Ok(self.status.epochs())
    }

    async fn wait_for(&self, positions: Vec<Position>) -> Result<(), ClockError> {
        let mut changes = self.status.subscribe();
        let reached = async {
            while !positions
                .iter()
                .enumerate()
                .all(|(partition, position)| self.status.progress(partition as u32).position >= *position)
            {
                if changes.changed().await.is_err() {
                    return Err(ClockError::TimedOut);
                }
            }
            Ok(())
        };
        tokio::time::timeout(WAIT_MAX, reached).await.unwrap_or(Err(ClockError::TimedOut))
    }

    /// `--time=event:follow`: moves with the newest time that two servers have reached, less the allowed lateness.
    pub async fn follow(&self, lateness_seconds: i64, mut shutdown: tokio::sync::watch::Receiver<bool>) {
        let mut changes = self.status.subscribe();
        loop {
            let reached = (0..self.log.partitions())
                .filter_map(|partition| self.status.progress(partition).reached_by_two)
                .max()
                .map(|reached| reached.plus_seconds(-lateness_seconds));
            if let Some(now) = reached
                && self.status.last_tick().is_none_or(|last| now >= last.plus_seconds(self.tick_seconds))
                && let Err(error) = self.advance(now).await
            {
                tracing::warn!(%error, "event time could not follow the senders");
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                _ = shutdown.wait_for(|stop| *stop) => return,
            }
        }
    }
}
