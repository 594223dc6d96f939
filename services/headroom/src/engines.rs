//! The aggregator role in this process: which partitions it owns, the policy in them, and their time.
//!
//! Over a data directory it owns all partitions. On a cluster the group of the aggregators says which, and that may
//! change at any moment: a caretaker sees to it that every partition that comes here gets the policy of this process
//! and its present tick.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use headroom_aggregator::{
    Aggregator, AggregatorOptions, Announce, EventClock, Metrics as EngineMetrics, Outages, SnapshotSink, Status,
    ticker,
};
use headroom_config::{Config, TimeMode};
use headroom_health_api::Policies;
use headroom_kafka::{Membership, Owners};
use headroom_log::SampleLog;
use headroom_model::{CellSnapshot, Policy};
use headroom_read_model::ReadModel;
use headroom_telemetry::{Readiness, Telemetry};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::app::{append_policy, compile};
use crate::backend::Ports;
use crate::{clock, collect, events, settings};

/// How often the caretaker looks at most.
const LOOK: Duration = Duration::from_millis(50);

/// After this time a policy that an engine has not taken is appended again: it may lie in what was passed over.
const AGAIN: Duration = Duration::from_secs(60);

/// The engines of this process.
pub(crate) struct Engines {
    aggregator: Arc<Aggregator>,
    log: Arc<dyn SampleLog>,
    policy: Policies,
    readiness: Readiness,
    /// On a cluster: membership in the group, once it was joined.
    membership: Mutex<Option<Membership>>,
    kafka: Option<(headroom_kafka::Connection, headroom_kafka::Layout)>,
    shared: Arc<Shared>,
}

/// What the group's callbacks and the caretaker share.
struct Shared {
    aggregator: Arc<Aggregator>,
    /// What the group has said is ours, be it nothing; `None` until it has. To own it takes a moment more.
    assigned: Mutex<Option<BTreeSet<u32>>>,
    changed: watch::Sender<u64>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<BTreeSet<u32>>> {
        self.assigned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Owners for Shared {
    fn assigned(&self, partitions: &[u32]) {
        self.lock().get_or_insert_default().extend(partitions);
        if let Err(error) = self.aggregator.own(partitions.iter().copied()) {
            tracing::error!(%error, ?partitions, "partitions that this process should own have no engine");
        }
        self.changed.send_modify(|change| *change += 1);
    }

    fn revoked(&self, partitions: &[u32]) {
        if let Some(assigned) = &mut *self.lock() {
            assigned.retain(|partition| !partitions.contains(partition));
        }
        self.aggregator.disown(partitions.iter().copied());
        self.changed.send_modify(|change| *change += 1);
    }
}

impl Engines {
    /// Engines that own nothing yet.
    ///
    /// # Errors
    /// If threads cannot be started.
    pub(crate) fn new(
        config: &Config,
        ports: &Ports,
        policy: Policies,
        read_model: &Arc<ReadModel>,
        telemetry: &Telemetry,
        readiness: &Readiness,
    ) -> Result<Self, String> {
        let (Some(snapshots), Some(checkpoints)) = (&ports.snapshots, &ports.checkpoints) else {
            return Err("the aggregator has no snapshot log or no checkpoint store".to_owned());
        };
        let event_time = config.time.mode != TimeMode::Wall;
        let sink: SnapshotSink = match &ports.kafka {
            // On a cluster this process reads what it has published like everybody else.
            Some(_) => Arc::new(|_| {}),
            None => {
                let read_model = read_model.clone();
                Arc::new(move |snapshot: &Arc<CellSnapshot>| {
                    read_model.apply(snapshot.clone());
                })
            }
        };
        let published = match &ports.kafka {
            Some(kafka) => Some(events::start(kafka, snapshots.clone(), telemetry)?),
            None => None,
        };
        collect::checkpoint_stats(telemetry, checkpoints);
        let aggregator = Aggregator::new(
            ports.log.clone(),
            snapshots.clone(),
            checkpoints.clone(),
            AggregatorOptions {
                engine: settings::engine_config(config, event_time),
                checkpoint_seconds: config.engine.checkpoint_seconds,
                compile: Arc::new(compile),
                announce: match (&ports.kafka, event_time) {
                    (None, _) => Announce::Never,
                    (Some(_), false) => Announce::Ticks,
                    (Some(_), true) => Announce::Always,
                },
                // In one process, whoever would fill the log is out when the engines are.
                outages: ports.kafka.as_ref().map(|kafka| kafka.control.clone()).filter(|_| !event_time).map(
                    |control| Outages {
                        now: clock::wall(),
                        after_seconds: policy.load().lease.lease_seconds,
                        modes: Arc::new(move || control.modes().into_iter().map(|(_, record)| record).collect()),
                    },
                ),
            },
            sink,
            published,
            EngineMetrics::new(telemetry),
        )
        .map_err(|error| error.to_string())?;
        let aggregator = Arc::new(aggregator);
        collect::lag(telemetry, &ports.log, &aggregator.status(), ports.kafka.is_some());
        let shared =
            Shared { aggregator: aggregator.clone(), assigned: Mutex::default(), changed: watch::Sender::new(0) };
        Ok(Self {
            aggregator,
            log: ports.log.clone(),
            policy,
            readiness: readiness.clone(),
            membership: Mutex::default(),
            kafka: ports.kafka.as_ref().map(|kafka| (kafka.connection.clone(), kafka.layout.clone())),
            shared: Arc::new(shared),
        })
    }

    /// What the engines of this process tell.
    pub(crate) fn status(&self) -> Arc<Status> {
        self.aggregator.status()
    }

    /// Begins to own: all partitions of a data directory, and returns once they have caught up; or those that the group
    /// gives, and returns at once. The task that is answered keeps time until it is stopped.
    ///
    /// # Errors
    /// If it cannot begin.
    pub(crate) async fn run(
        &self,
        config: &Config,
        clock: Arc<EventClock>,
        stopping: watch::Receiver<bool>,
    ) -> Result<JoinHandle<()>, String> {
        match &self.kafka {
            None => {
                self.aggregator.own(0..self.log.partitions()).map_err(|error| error.to_string())?;
                self.aggregator.caught_up().await;
                let policy = self.policy.load_full();
                self.bring_into_force(&policy).await?;
                self.readiness.set("engines", true, "caught up with the log");
            }
            Some((connection, layout)) => {
                let membership = Membership::join(connection, layout, self.shared.clone())?;
                *self.membership.lock().unwrap_or_else(PoisonError::into_inner) = Some(membership);
                let care = Caretaker {
                    shared: self.shared.clone(),
                    log: self.log.clone(),
                    policy: self.policy.clone(),
                    readiness: self.readiness.clone(),
                };
                tokio::spawn(care.run(stopping.clone()));
            }
        }
        let (log, tick_seconds) = (self.log.clone(), config.time.tick_seconds);
        Ok(match config.time.mode {
            TimeMode::Wall => {
                tokio::spawn(ticker::run(log, self.aggregator.owned(), clock::wall(), tick_seconds, stopping))
            }
            TimeMode::Event => tokio::spawn(async {}),
            TimeMode::EventFollow => {
                let lateness = self.policy.load().windows.lateness_seconds;
                tokio::spawn(async move { clock.follow(lateness, stopping).await })
            }
        })
    }

    /// Appends the policy to the partitions of this process whose last one differs.
    ///
    /// # Errors
    /// If the log does not take it.
    pub(crate) async fn bring_into_force(&self, policy: &Policy) -> Result<(), String> {
        let (status, owned) = (self.aggregator.status(), self.aggregator.owned().borrow().clone());
        for partition in owned {
            if status.progress(partition).policy.as_ref() != Some(&policy.hash) {
                append_policy(&*self.log, partition, policy).await?;
            }
        }
        Ok(())
    }

    /// Gives back what is owned, each partition with a last checkpoint. Blocks until that is done.
    pub(crate) fn stop(&self) {
        if let Some(membership) = self.membership.lock().unwrap_or_else(PoisonError::into_inner).take() {
            membership.leave();
        }
        self.aggregator.stop();
    }
}

/// Looks after partitions as they come and go.
struct Caretaker {
    shared: Arc<Shared>,
    log: Arc<dyn SampleLog>,
    policy: Policies,
    readiness: Readiness,
}

impl Caretaker {
    async fn run(self, mut stopping: watch::Receiver<bool>) {
        let status = self.shared.aggregator.status();
        let (mut told, mut group) = (status.subscribe(), self.shared.changed.subscribe());
        let owned = self.shared.aggregator.owned();
        // What this process has appended to a partition since it came here, and when.
        let mut appended: BTreeMap<u32, (Arc<str>, Instant)> = BTreeMap::new();
        let mut ready = None;
        loop {
            let held = owned.borrow().clone();
            appended.retain(|partition, _| held.contains(partition));
            let policy = self.policy.load_full();
            let mut behind = 0;
            for partition in &held {
                let progress = status.progress(*partition);
                if !progress.caught_up {
                    behind += 1;
                } else if progress.policy.as_ref() != Some(&policy.hash)
                    && appended.get(partition).is_none_or(|(hash, at)| *hash != policy.hash || at.elapsed() > AGAIN)
                {
                    match append_policy(&*self.log, *partition, &policy).await {
                        Ok(()) => drop(appended.insert(*partition, (policy.hash.clone(), Instant::now()))),
                        Err(why) => tracing::warn!(partition, why, "trying again"),
                    }
                }
            }
            // What was assigned and is not held yet has no engine that could have caught up.
            let now = self.shared.lock().as_ref().map(|assigned| {
                let behind = behind + assigned.iter().filter(|partition| !held.contains(partition)).count();
                (behind, assigned.len())
            });
            if ready != Some(now) {
                ready = Some(now);
                match now {
                    None => self.readiness.set("engines", false, "waiting for the group of aggregators"),
                    Some((0, assigned)) => {
                        self.readiness.set("engines", true, format!("{assigned} partitions, caught up"));
                    }
                    Some((behind, assigned)) => {
                        let detail = format!("{behind} of {assigned} partitions are still reading the log");
                        self.readiness.set("engines", false, detail);
                    }
                }
            }
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return,
                changed = told.changed() => if changed.is_err() { return },
                changed = group.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
    }
}
