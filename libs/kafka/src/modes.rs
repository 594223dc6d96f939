//! The modes that operators have set, for everybody who follows the snapshot topic.
//!
//! Engines learn of a mode from the sample log, where it has its place between samples and ticks. Readers cannot wait for
//! that: the kill switch must work with no engine alive, in every replica, also in one that starts afterwards. So each is
//! written here too, under a key of its own. And an owner that passes over the backlog of an outage finds here what was
//! set in the meantime.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use headroom_log::PublishError;
use headroom_model::LogRecord;
use rdkafka::ClientContext;
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use tokio::sync::{oneshot, watch};

use crate::cluster::Cluster;
use crate::records::SnapshotKey;

/// The partition of all modes.
const PARTITION: i32 = 0;

/// How long the brokers may take to a mode. An operator waits for it.
const DELIVERY: Duration = Duration::from_secs(5);

/// A cell, or all.
type Scope = Option<Arc<str>>;

/// What the topic says.
pub(crate) struct Modes {
    /// By scope: the offset, and the record. A word about all cells replaces those about single ones before it.
    set: Mutex<BTreeMap<Scope, (i64, LogRecord)>>,
    changes: watch::Sender<i64>,
}

impl Default for Modes {
    fn default() -> Self {
        Self { set: Mutex::default(), changes: watch::Sender::new(-1) }
    }
}

impl Modes {
    /// Takes a record of the topic; whether it could be understood.
    pub(crate) fn take(&self, offset: i64, value: &[u8]) -> bool {
        let Ok(record @ LogRecord::Mode { .. }) = LogRecord::decode(value) else { return false };
        let LogRecord::Mode { cell, .. } = &record else { return false };
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        if cell.is_none() {
            set.clear();
        }
        set.insert(cell.clone(), (offset, record));
        drop(set);
        self.changes.send_replace(offset);
        true
    }

    /// Those in force, in the order in which they were set, each with its place in that order.
    pub(crate) fn in_force(&self) -> Vec<(i64, LogRecord)> {
        let set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let mut modes: Vec<_> = set.values().cloned().collect();
        modes.sort_by_key(|(offset, _)| *offset);
        modes
    }

    /// Wakes when one was set.
    pub(crate) fn subscribe(&self) -> watch::Receiver<i64> {
        self.changes.subscribe()
    }
}

struct Deliveries;

type Answer = oneshot::Sender<Result<(), KafkaError>>;

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Answer>;

    fn delivery(&self, result: &DeliveryResult<'_>, answer: Box<Answer>) {
        // Whoever asked may have gone.
        let _ = answer.send(result.as_ref().map(|_| ()).map_err(|(error, _)| error.clone()));
    }
}

/// Writes modes. Several processes may: the brokers put them in order.
pub(crate) struct ModeWriter {
    producer: ThreadedProducer<Deliveries>,
    topic: String,
}

impl ModeWriter {
    pub(crate) fn new(cluster: &Cluster, topic: &str) -> Result<Self, String> {
        let mut config = cluster.config();
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", DELIVERY.as_millis().to_string())
            .set("linger.ms", "0")
            .set("reconnect.backoff.max.ms", "1000");
        let producer =
            config.create_with_context(Deliveries).map_err(|error| format!("kafka: no producer: {error}"))?;
        Ok(Self { producer, topic: topic.to_owned() })
    }

    /// Writes a mode; the future resolves when it is durable.
    pub(crate) async fn write(&self, cell: Option<Arc<str>>, record: &LogRecord) -> Result<(), PublishError> {
        let unavailable = |why: String| PublishError::Unavailable { why: why.into() };
        let (answer, answered) = oneshot::channel();
        let (key, value) = (SnapshotKey::Mode { cell }.encode(), record.encode());
        let message = BaseRecord::<[u8], [u8], _>::with_opaque_to(&self.topic, Box::new(answer))
            .partition(PARTITION)
            .key(&key)
            .payload(&value);
        self.producer.send(message).map_err(|(error, _)| unavailable(error.to_string()))?;
        match answered.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(unavailable(error.to_string())),
            Err(_) => Err(unavailable("the producer was closed".to_owned())),
        }
    }
}

impl Drop for ModeWriter {
    fn drop(&mut self) {
        let _ = self.producer.flush(Duration::from_secs(1));
    }
}

#[cfg(test)]
mod tests {
    use headroom_model::policy::Mode;

    use super::*;

    fn record(cell: Option<&str>, mode: Option<Mode>) -> LogRecord {
        LogRecord::Mode { cell: cell.map(Into::into), mode, owner: "o".into(), reason: "r".into() }
    }

    #[test]
    fn a_word_about_all_cells_replaces_those_before_it_and_no_later_one() {
        let modes = Modes::default();
        let (single, all, later) = (
            record(Some("eu"), Some(Mode::Off)),
            record(None, Some(Mode::Observe)),
            record(Some("us"), Some(Mode::Off)),
        );
        for (offset, record) in [(3, &single), (7, &all), (9, &later)] {
            assert!(modes.take(offset, &record.encode()));
        }
        assert_eq!(modes.in_force(), [(7, all), (9, later)]);
        assert!(!modes.take(10, &LogRecord::Tick(Default::default()).encode()));
        assert!(!modes.take(11, b"?"));
        assert_eq!(*modes.subscribe().borrow(), 9);
    }
}
