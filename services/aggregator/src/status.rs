//! What the rest of a process may know of the engines: where each partition stands, and what was seen.
//!
//! In the process of the engines it is told by their threads. Elsewhere it is told by notes that the owners publish
//! beside their snapshots, so that a replica of the API answers the same.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use headroom_engine::{InputsReport, Partition};
use headroom_log::Position;
use headroom_model::Timestamp;
use headroom_model::codec::DecodeError;
use tokio::sync::watch;

use crate::note;

/// How long a question for the inputs waits for all partitions.
const INPUTS_WAIT: Duration = Duration::from_secs(5);

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
    /// Cells that have lately refused servers, because they have as many as they may.
    pub full: Vec<Arc<str>>,
    /// Whether this process, or for a follower some process, runs the engine now.
    pub owned: bool,
    /// Whether the engine has read what the log held when it began.
    pub caught_up: bool,
}

/// What the rest of the process may know of the engines.
pub struct Status {
    progress: Vec<Mutex<Progress>>,
    inputs: Vec<ArcSwap<InputsReport>>,
    /// Hash and text of the policy that an owner elsewhere has told last.
    policy: Mutex<Option<(Arc<str>, Arc<str>)>>,
    /// How many times somebody has asked for the inputs, and per partition the question answered last.
    inputs_asked: AtomicU64,
    inputs_answered: Vec<AtomicU64>,
    /// Whether engines of this process answer, or others tell by notes.
    local: bool,
    changes: watch::Sender<u64>,
    /// Nanoseconds of the newest tick, or [`NO_TICK`]. Beside the mutexes, which the engines take for every record: in
    /// event time whoever reads asks what time it is.
    last_tick: AtomicI64,
}

/// No partition has had a tick.
const NO_TICK: i64 = i64::MIN;

impl Status {
    /// What the engines of this process tell.
    pub(crate) fn local(partitions: u32) -> Self {
        Self::new(partitions, true)
    }

    /// What the engines of other processes tell, as far as [`Self::take_note`] was told.
    pub fn remote(partitions: u32) -> Self {
        Self::new(partitions, false)
    }

    fn new(partitions: u32, local: bool) -> Self {
        Self {
            progress: (0..partitions).map(|_| Mutex::default()).collect(),
            inputs: (0..partitions).map(|_| ArcSwap::default()).collect(),
            policy: Mutex::default(),
            inputs_asked: AtomicU64::new(0),
            inputs_answered: (0..partitions).map(|_| AtomicU64::new(0)).collect(),
            local,
            changes: watch::Sender::new(0),
            last_tick: AtomicI64::new(NO_TICK),
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
        if !self.local {
            return self.inputs.iter().map(ArcSwap::load_full).collect();
        }
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
    pub(crate) fn answer_inputs(&self, partition: u32, engine: &Partition) {
        let question = self.inputs_asked.load(Ordering::Relaxed);
        let Some(answered) = self.inputs_answered.get(partition as usize) else { return };
        if answered.load(Ordering::Relaxed) < question {
            self.inputs[partition as usize].store(Arc::new(engine.inputs()));
            answered.store(question, Ordering::Release);
            self.changes.send_modify(|change| *change += 1);
        }
    }

    /// Hash and text of the policy in force, as engines of other processes have told; `None` if none has, or if they are
    /// here and have that of this process.
    pub fn policy(&self) -> Option<(Arc<str>, Arc<str>)> {
        self.policy.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The newest tick of any partition.
    pub fn last_tick(&self) -> Option<Timestamp> {
        Some(self.last_tick.load(Ordering::Acquire)).filter(|nanos| *nanos != NO_TICK).map(Timestamp)
    }

    /// The epoch of every cell.
    pub fn epochs(&self) -> BTreeMap<Arc<str>, i64> {
        (0..self.progress.len() as u32).flat_map(|partition| self.progress(partition).epochs).collect()
    }

    /// Cells of any partition that have lately refused servers, because they have as many as they may.
    pub fn full_cells(&self) -> Vec<Arc<str>> {
        (0..self.progress.len() as u32).flat_map(|partition| self.progress(partition).full).collect()
    }

    /// Wakes at every change of any partition.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Takes what the owner of a partition announced: a note and its name, `partition/what`.
    ///
    /// # Errors
    /// If it cannot be understood.
    pub fn take_note(&self, name: &str, bytes: &[u8]) -> Result<(), DecodeError> {
        let unknown = DecodeError { what: "name that is known", at: 0 };
        let (partition, what) = name.split_once('/').ok_or_else(|| unknown.clone())?;
        let partition: u32 = partition.parse().map_err(|_| unknown.clone())?;
        match what {
            note::PROGRESS => self.set(partition, note::decode_progress(bytes)?),
            note::INPUTS => {
                let report = note::decode_inputs(bytes)?;
                if let Some(held) = self.inputs.get(partition as usize) {
                    held.store(Arc::new(report));
                }
            }
            note::POLICY => {
                let policy = note::decode_policy(bytes)?;
                *self.policy.lock().unwrap_or_else(PoisonError::into_inner) = Some(policy);
            }
            _ => return Err(unknown),
        }
        Ok(())
    }

    pub(crate) fn set(&self, partition: u32, progress: Progress) {
        if let Some(held) = self.progress.get(partition as usize) {
            self.last_tick.fetch_max(progress.last_tick.map_or(NO_TICK, |tick| tick.0), Ordering::AcqRel);
            *held.lock().unwrap_or_else(PoisonError::into_inner) = progress;
        }
        self.changes.send_modify(|change| *change += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_in_force_is_what_an_owner_has_told() {
        let status = Status::remote(1);
        assert_eq!(status.policy(), None);
        status.take_note("0/policy", &note::encode_policy("b1946ac9", "version: 1\n")).unwrap();
        assert_eq!(status.policy(), Some(("b1946ac9".into(), "version: 1\n".into())));
        assert!(status.take_note("0/policy", &[1, 2]).is_err());
    }

    /// Readers ask what time it is at every request; no engine's turn at its partition may hold them up.
    #[test]
    fn the_newest_tick_is_known_while_an_engine_holds_its_partition() {
        let status = Status::remote(2);
        assert_eq!(status.last_tick(), None);
        for (partition, tick) in [(0, 20), (1, 10)] {
            let last_tick = Some(Timestamp::from_seconds(tick));
            status.set(partition, Progress { last_tick, ..Progress::default() });
        }
        let _held: Vec<_> = status.progress.iter().map(|progress| progress.lock()).collect();
        assert_eq!(status.last_tick(), Some(Timestamp::from_seconds(20)));
    }
}
