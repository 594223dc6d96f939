//! `--time=event`: time moves when somebody says so, and the answer means that everything up to it can be read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use headroom_log::{AppendError, Position, SampleLog};
use headroom_model::{LogRecord, Timestamp};
use tokio::sync::Mutex;

use crate::status::Status;

/// Boundaries that one call may append.
pub const BOUNDARIES_MAX: i64 = 10_000;

/// Boundaries of a gap that [`EventClock::follow`] goes through one by one: 11 days of ticks of 10 s. What lies further
/// ahead is an archive, or clocks that are wrong; a year would be three million ticks that nobody can have reported in.
/// There it does what the wall clock does after an outage: it leaves the ticks out, and the engine learns anew.
const FOLLOWED_MAX: i64 = 100_000;

/// How long [`EventClock::follow`] rests after a failure, unless there is something new.
const RETRY: Duration = Duration::from_secs(1);

/// A clock that cannot follow says so once in this time.
const WARN_EVERY: Duration = Duration::from_secs(60);

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

/// Boundaries that a partition lacks.
struct Step {
    partition: u32,
    /// The first of them.
    from: Timestamp,
    boundaries: i64,
}

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
        let mut steps = Vec::new();
        for partition in 0..self.log.partitions() {
            let last_tick = self.status.progress(partition).last_tick;
            if let Some(last) = last_tick.filter(|last| now < *last) {
                return Err(ClockError::GoesBack { last });
            }
            let step = self.step(partition, now);
            if step.boundaries > BOUNDARIES_MAX {
                return Err(ClockError::TooFar { boundaries: step.boundaries });
            }
            steps.push(step);
        }
        self.append(steps).await?;
        Ok(self.status.epochs())
    }

    /// What a partition lacks up to `now`.
    fn step(&self, partition: u32, now: Timestamp) -> Step {
        let (target, progress) = (now.floor_to(self.tick_seconds), self.status.progress(partition));
        // Before the first tick, time begins at the first sample; without any, there is only the present to tell.
        let from = match (progress.last_tick, progress.first_sample) {
            (Some(last), _) => last.plus_seconds(self.tick_seconds),
            (None, Some(first)) => first.floor_to(self.tick_seconds).plus_seconds(self.tick_seconds),
            (None, None) => target,
        };
        let boundaries = if from > target { 0 } else { (target.seconds() - from.seconds()) / self.tick_seconds + 1 };
        Step { partition, from, boundaries }
    }

    /// Appends the ticks of `steps` and waits until the snapshots up to them are readable.
    async fn append(&self, steps: Vec<Step>) -> Result<(), ClockError> {
        let mut ends: Vec<Position> = vec![Position::default(); self.log.partitions() as usize];
        for Step { partition, from, boundaries } in steps {
            for boundary in 0..boundaries {
                let tick = from.plus_seconds(boundary * self.tick_seconds);
                let position =
                    self.log.append(partition, Arc::new(LogRecord::Tick(tick))).await.map_err(ClockError::Log)?;
                ends[partition as usize] = position.next();
            }
        }
        self.wait_for(ends).await
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
        let mut warned: Option<Instant> = None;
        loop {
            let reached = (0..self.log.partitions())
                .filter_map(|partition| self.status.progress(partition).reached_by_two)
                .max()
                .map(|reached| reached.plus_seconds(-lateness_seconds));
            let moved = match reached {
                Some(now) => self.approach(now).await,
                None => Ok(()),
            };
            let failed = moved.is_err();
            if let Err(error) = moved
                && warned.is_none_or(|last| last.elapsed() >= WARN_EVERY)
            {
                warned = Some(Instant::now());
                tracing::warn!(%error, "event time could not follow the senders; trying again");
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                // What failed may succeed although no sender says anything new.
                () = tokio::time::sleep(RETRY), if failed => {}
                _ = shutdown.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Moves towards `now`, by no more than one call may. What is left is left for the next step, which comes at once:
    /// the ticks of this one are a change that wakes [`Self::follow`].
    async fn approach(&self, now: Timestamp) -> Result<(), ClockError> {
        let _turn = self.turn.lock().await;
        let steps = || (0..self.log.partitions()).map(|partition| self.step(partition, now));
        if steps().all(|step| step.boundaries == 0) {
            return Ok(());
        }
        self.wait_for((0..self.log.partitions()).map(|partition| self.log.end(partition)).collect()).await?;
        let steps = steps().map(|mut step| {
            if step.boundaries > FOLLOWED_MAX {
                let passed_over = step.boundaries - BOUNDARIES_MAX;
                tracing::warn!(
                    partition = step.partition,
                    boundaries = passed_over,
                    to = now.seconds(),
                    "two servers are far ahead of event time; it jumps after them, and there are no ticks in between"
                );
                step.from = step.from.plus_seconds(passed_over * self.tick_seconds);
            }
            step.boundaries = step.boundaries.min(BOUNDARIES_MAX);
            step
        });
        self.append(steps.collect()).await
    }
}

#[cfg(test)]
mod tests {
    use headroom_log::memory::MemorySampleLog;

    use super::*;
    use crate::status::Progress;

    const TICK: i64 = 10;
    const START: i64 = 1_795_255_200;

    /// A clock that follows, and an engine of which no more is there than what tells the clock where it stands.
    struct Following {
        status: Arc<Status>,
        ticks: Arc<std::sync::Mutex<Vec<i64>>>,
        stop: tokio::sync::watch::Sender<bool>,
    }

    impl Following {
        /// Begins at [`START`], which was ticked.
        fn begin() -> Self {
            let log: Arc<dyn SampleLog> = Arc::new(MemorySampleLog::new(1, 1 << 30));
            let status = Arc::new(Status::local(1));
            status.set(0, Progress { last_tick: Some(Timestamp::from_seconds(START)), ..Progress::default() });
            let (stop, stopping) = tokio::sync::watch::channel(false);
            let ticks = Arc::new(std::sync::Mutex::new(Vec::new()));
            let clock = EventClock::new(log.clone(), status.clone(), TICK);
            tokio::spawn(async move { clock.follow(0, stopping).await });
            let (told, seen) = (status.clone(), ticks.clone());
            tokio::spawn(async move {
                let mut reader = log.reader(0, Position::default()).expect("the log is there");
                while let Ok((at, record)) = reader.next().await {
                    let LogRecord::Tick(tick) = *record else { continue };
                    seen.lock().expect("no panic").push(tick.seconds());
                    told.set(0, Progress { position: at.next(), last_tick: Some(tick), ..told.progress(0) });
                }
            });
            Self { status, ticks, stop }
        }

        /// Two servers reach a time; the ticks that follow.
        async fn reach(&self, seconds: i64) -> Vec<i64> {
            let reached_by_two = Some(Timestamp::from_seconds(seconds));
            self.status.set(0, Progress { reached_by_two, ..self.status.progress(0) });
            let mut changes = self.status.subscribe();
            let target = reached_by_two.map(|time| time.floor_to(TICK));
            tokio::time::timeout(Duration::from_secs(60), async {
                while self.status.last_tick() < target {
                    changes.changed().await.expect("the status is there");
                }
            })
            .await
            .expect("time moves");
            std::mem::take(&mut *self.ticks.lock().expect("no panic"))
        }
    }

    impl Drop for Following {
        fn drop(&mut self) {
            self.stop.send_replace(true);
        }
    }

    #[tokio::test]
    async fn time_follows_the_senders_through_every_boundary() {
        let following = Following::begin();
        assert_eq!(following.reach(START + 35).await, [START + 10, START + 20, START + 30]);
        assert_eq!(following.reach(START + 40).await, [START + 40]);
    }

    /// A weekend, in which nobody sent anything or of which a replay has the samples: more than one call may append.
    #[tokio::test]
    async fn a_gap_of_days_is_gone_through_in_steps() {
        let following = Following::begin();
        let boundaries = 2 * BOUNDARIES_MAX + 1_600;
        let ticks = following.reach(START + boundaries * TICK).await;
        assert_eq!(ticks.len() as i64, boundaries);
        assert!(ticks.windows(2).all(|pair| pair[1] - pair[0] == TICK));
        let next = START + (boundaries + 1) * TICK;
        assert_eq!(following.reach(next).await, [next]);
    }

    #[tokio::test]
    async fn a_gap_of_a_year_is_jumped_over() {
        let following = Following::begin();
        let end = START + 365 * 86_400;
        let ticks = following.reach(end).await;
        assert_eq!(ticks.len() as i64, BOUNDARIES_MAX);
        assert_eq!(ticks.last(), Some(&end));
        assert_eq!(following.reach(end + TICK).await, [end + TICK]);
    }
}
