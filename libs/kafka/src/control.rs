//! What holds for the whole cluster: the modes that operators have set, and what all processes must be configured alike.
//!
//! Engines learn of a mode from the sample log, where it has its place between samples and ticks. Readers cannot wait for
//! that: the kill switch must work with no engine alive, in every replica, also in one that starts afterwards. So each is
//! written here too, under a key of its own. And an owner that passes over the backlog of an outage finds here what was
//! set in the meantime.
//!
//! The topic is its own because nobody writes transactions to it. Where owners publish, a transaction that one of them
//! left unfinished holds back whatever was written after it, until the brokers give it up: more than a minute.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use headroom_log::PublishError;
use headroom_model::LogRecord;
use rdkafka::ClientContext;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use tokio::sync::{oneshot, watch};

use crate::Connection;
use crate::cluster::{Cluster, wait};
use crate::follower::{Follower, Read};
use crate::modes::Modes;
use crate::records::{Agreed, ControlKey};
use crate::topics::Layout;

/// The one partition: there is one order of all that is said here.
const PARTITION: i32 = 0;

/// How long the brokers may take to a record. An operator waits for it.
const DELIVERY: Duration = Duration::from_secs(5);

/// How long opening waits for what the topic holds.
const CATCH_UP: Duration = Duration::from_secs(30);

/// Bytes that are fetched ahead; all records are small.
const PREFETCH_BYTES_MAX: u64 = 1 << 20;

/// The control topic of a cluster, followed.
pub struct KafkaControl {
    view: Arc<View>,
    producer: ThreadedProducer<Deliveries>,
    topic: String,
    _follower: Follower,
}

/// What the topic says.
#[derive(Default)]
struct View {
    modes: Modes,
    state: Mutex<State>,
    changed: Condvar,
    /// Whether it was told that a record cannot be understood.
    told: AtomicBool,
}

#[derive(Default)]
struct State {
    /// It was read to its end once.
    ended: bool,
    /// What the first process wrote; an error if it cannot be understood.
    agreed: Option<Result<Agreed, String>>,
}

impl View {
    fn take(&self, message: &BorrowedMessage<'_>) {
        let key = message.key().map(ControlKey::decode);
        let understood = match (key, message.payload()) {
            (Some(Ok(ControlKey::Mode { .. })), Some(value)) => self.modes.take(message.offset(), value),
            (Some(Ok(ControlKey::Agreed)), Some(value)) => {
                self.change(|state| {
                    state.agreed.get_or_insert_with(|| Agreed::decode(value).map_err(|error| error.to_string()));
                });
                true
            }
            (Some(Ok(_)), None) => true,
            _ => false,
        };
        if !understood && !self.told.swap(true, Ordering::Relaxed) {
            tracing::error!(
                offset = message.offset(),
                "a record of the control topic cannot be understood and is passed over; was it written by a newer headroom?"
            );
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    /// Waits until the state gives an answer.
    fn await_that<T>(&self, mut answer: impl FnMut(&State) -> Option<T>) -> Option<T> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, _) = self
            .changed
            .wait_timeout_while(state, CATCH_UP, |state| answer(state).is_none())
            .unwrap_or_else(PoisonError::into_inner);
        answer(&state)
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

impl KafkaControl {
    /// Opens the control topic; makes it if it is missing. Returns once everything that it holds was read. The first
    /// process of a cluster writes what `agreed` says, all others must say the same.
    ///
    /// # Errors
    /// If the brokers cannot be reached, the topic is not as it must be, or this process is configured otherwise than the
    /// cluster; the sentence says what to do.
    pub fn open(connection: &Connection, layout: &Layout, agreed: Agreed) -> Result<Self, String> {
        let cluster = Cluster::connect(connection)?;
        let topic = layout.control();
        layout.ensure(&cluster, &topic)?;
        let consumer = cluster
            .consumer(PREFETCH_BYTES_MAX, layout.message_bytes_max)
            .map_err(|error| format!("kafka: no consumer: {error}"))?;
        let view = Arc::new(View::default());
        let follower = {
            let view = view.clone();
            Follower::start(consumer, &topic, 1, "control", move |read| match read {
                Read::Message(message) => view.take(message),
                Read::End(_) => view.change(|state| state.ended = true),
            })?
        };
        let mut config = cluster.config();
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", DELIVERY.as_millis().to_string())
            .set("linger.ms", "0")
            .set("reconnect.backoff.max.ms", "1000");
        let producer =
            config.create_with_context(Deliveries).map_err(|error| format!("kafka: no producer: {error}"))?;
        let control = Self { view, producer, topic, _follower: follower };
        control.agree(agreed, layout)?;
        Ok(control)
    }

    /// Compares what this process is configured with what the cluster runs on; the first to come says it.
    fn agree(&self, ours: Agreed, layout: &Layout) -> Result<(), String> {
        let unread = || format!("kafka: {} could not be read to its end within {} s", self.topic, CATCH_UP.as_secs());
        let said = self.view.await_that(|state| state.ended.then(|| state.agreed.clone())).ok_or_else(unread)?;
        let first = said.is_none();
        let theirs = match said {
            Some(said) => said,
            None => {
                self.say(ours)?;
                // Somebody else may have been faster: what stands first holds.
                self.view.await_that(|state| state.agreed.clone()).ok_or_else(unread)?
            }
        };
        let theirs = theirs.map_err(|error| format!("kafka: what {} says of the cluster: {error}", self.topic))?;
        if theirs == ours {
            return Ok(());
        }
        if first {
            // Compaction keeps the last; it must not be ours.
            self.say(theirs)?;
        }
        Err(format!(
            "kafka: the cluster with kafka.topic_prefix {} runs on {theirs}, this process is configured for {ours}; set \
             time.mode and time.tick_seconds as the others have them, or begin anew under another kafka.topic_prefix (to \
             change tick seconds: stop all processes, delete the topic {}, start them, and set modes again)",
            layout.prefix, self.topic
        ))
    }

    fn say(&self, agreed: Agreed) -> Result<(), String> {
        wait(self.write(&ControlKey::Agreed, &agreed.encode()))
            .map_err(|error| format!("kafka: {} cannot be written: {error}", self.topic))
    }

    /// Tells everybody who follows of the mode that an operator has set, a [`LogRecord::Mode`]; resolves when that is
    /// durable.
    ///
    /// # Errors
    /// [`PublishError::Unavailable`].
    pub async fn publish_mode(&self, record: &LogRecord) -> Result<(), PublishError> {
        let LogRecord::Mode { cell, .. } = record else { return Ok(()) };
        self.write(&ControlKey::Mode { cell: cell.clone() }, &record.encode()).await
    }

    /// The modes that operators have set, in the order in which they were, each with its place in that order.
    pub fn modes(&self) -> Vec<(i64, LogRecord)> {
        self.view.modes.in_force()
    }

    /// Wakes when a mode was set.
    pub fn modes_changed(&self) -> watch::Receiver<i64> {
        self.view.modes.subscribe()
    }

    /// Writes a record; the future resolves when it is durable. Several processes may: the brokers put them in order.
    async fn write(&self, key: &ControlKey, value: &[u8]) -> Result<(), PublishError> {
        let unavailable = |why: String| PublishError::Unavailable { why: why.into() };
        let (answer, answered) = oneshot::channel();
        let key = key.encode();
        let message = BaseRecord::<[u8], [u8], _>::with_opaque_to(&self.topic, Box::new(answer))
            .partition(PARTITION)
            .key(&key)
            .payload(value);
        self.producer.send(message).map_err(|(error, _)| unavailable(error.to_string()))?;
        match answered.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(unavailable(error.to_string())),
            Err(_) => Err(unavailable("the producer was closed".to_owned())),
        }
    }
}

impl Drop for KafkaControl {
    fn drop(&mut self) {
        let _ = self.producer.flush(Duration::from_secs(1));
    }
}
