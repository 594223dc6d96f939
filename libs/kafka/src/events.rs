//! The topic of changed decisions, for consumers who want to be told.
//!
//! Keyed by server, so that the events of a server stay in order. It is a convenience beside the snapshots, not the truth:
//! an event may come twice, and one may be missing where an aggregator died in between or the brokers were too slow; epochs say which is newer, and a
//! consumer renews what it holds by `GET /v1/decisions?since=`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use headroom_log::stats::Cell as Counter;
use rdkafka::ClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use crate::Connection;
use crate::cluster::Cluster;
use crate::topics::Layout;

/// How long an event waits for room among those under way before it is given up.
const WAIT: Duration = Duration::from_secs(5);

/// How long the end waits for events under way.
const CLOSE: Duration = Duration::from_secs(1);

/// Writes changed decisions.
pub struct DecisionEvents {
    producer: ThreadedProducer<Deliveries>,
    topic: String,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Counters {
    written: Counter,
    failed: Counter,
}

struct Deliveries(Arc<Counters>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => self.0.written.add(1),
            Err(_) => self.0.failed.add(1),
        }
    }
}

impl DecisionEvents {
    /// Opens the topic; makes it if it is missing.
    ///
    /// # Errors
    /// If the brokers cannot be reached or the topic is not as it must be; the sentence says what to do.
    pub fn open(connection: &Connection, layout: &Layout) -> Result<Self, String> {
        let cluster = Cluster::connect(connection)?;
        let topic = layout.decisions();
        layout.ensure(&cluster, &topic)?;
        let counters = Arc::new(Counters::default());
        let mut config = cluster.config();
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", "15000")
            .set("linger.ms", "20")
            .set("compression.type", "lz4")
            .set("reconnect.backoff.max.ms", "1000")
            .set("queue.buffering.max.messages", "200000")
            .set("queue.buffering.max.kbytes", "65536");
        let producer = config
            .create_with_context(Deliveries(counters.clone()))
            .map_err(|error| format!("kafka: no producer: {error}"))?;
        Ok(Self { producer, topic, counters })
    }

    /// Writes an event of a server. Waits while too much is under way, within a bound.
    pub fn send(&self, server: &str, event: &[u8]) {
        let deadline = Instant::now() + WAIT;
        let mut record = BaseRecord::to(&self.topic).key(server).payload(event);
        while let Err((error, back)) = self.producer.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) || Instant::now() > deadline {
                self.counters.failed.add(1);
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
            record = back;
        }
    }

    /// Counters: events written, and events given up.
    pub fn counts(&self) -> (u64, u64) {
        (self.counters.written.get(), self.counters.failed.get())
    }
}

impl Drop for DecisionEvents {
    fn drop(&mut self) {
        let _ = self.producer.flush(CLOSE);
    }
}
