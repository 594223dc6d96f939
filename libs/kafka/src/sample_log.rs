//! The sample log as a Kafka topic: our partitions are its partitions, positions are its offsets.
//!
//! The partition of a record is given explicitly, never left to a partitioner: which cell lies where is our own hash,
//! fixed for the life of the topic. A record is the bytes of [`LogRecord::encode`] and has no key.
//!
//! **Acknowledged** means that all replicas in sync have it (`acks=all`), and the producer is idempotent, so that a
//! retry neither doubles nor reorders. Bytes under way are bounded per partition; what is beyond is refused as
//! overloaded, with a reserve for ticks, so that time goes on when samples are refused.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use headroom_log::sample_log::CONTROL_RESERVE_BYTES;
use headroom_log::{Append, AppendError, AppendTicket, LogReader, LogStats, Position, ReadError, SampleLog};
use headroom_model::LogRecord;
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use crate::Connection;
use crate::cluster::Cluster;
use crate::reader::KafkaReader;
use crate::split;
use crate::topics::Layout;

/// How long a record may be under way before its sender is told to try again. Longer than a change of leader takes.
const DELIVERY: Duration = Duration::from_secs(15);

/// How long closing waits for records under way.
const CLOSE: Duration = Duration::from_secs(1);

/// Bounds of a sample log on Kafka.
#[derive(Clone, Copy, Debug)]
pub struct SampleLogLimits {
    /// Bytes of a partition that may be under way to the brokers.
    pub pending_bytes_max: u64,
    /// Bytes that a reader fetches ahead.
    pub prefetch_bytes_max: u64,
}

impl Default for SampleLogLimits {
    fn default() -> Self {
        Self { pending_bytes_max: 64 << 20, prefetch_bytes_max: 32 << 20 }
    }
}

/// A sample log on Kafka.
pub struct KafkaSampleLog {
    cluster: Arc<Cluster>,
    layout: Layout,
    topic: String,
    limits: SampleLogLimits,
    partitions: Vec<Arc<PartitionState>>,
    producer: RwLock<Arc<ThreadedProducer<Deliveries>>>,
}

/// What is known of a partition without asking.
#[derive(Default)]
pub(crate) struct PartitionState {
    /// The end at least.
    pub(crate) end: AtomicU64,
    oldest: AtomicU64,
    floor: AtomicU64,
    pending: AtomicU64,
    pub(crate) stats: Arc<LogStats>,
}

/// Where the brokers' answers go.
struct Deliveries;

/// One message under way.
struct Delivery {
    partition: Arc<PartitionState>,
    bytes: u64,
    answer: Arc<Answer>,
}

/// The answer to an append: known when all of its messages are.
struct Answer(Mutex<Waiting>);

struct Waiting {
    left: usize,
    ticket: Option<AppendTicket>,
    outcome: Result<Position, AppendError>,
}

impl Answer {
    fn one(&self, result: Result<Position, AppendError>) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.left = waiting.left.saturating_sub(1);
        waiting.outcome = match (std::mem::replace(&mut waiting.outcome, Err(AppendError::Closed)), result) {
            (Ok(a), Ok(b)) => Ok(a.max(b)),
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
        if waiting.left == 0
            && let Some(ticket) = waiting.ticket.take()
        {
            ticket.answer(waiting.outcome.clone());
        }
    }
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Box<Delivery>) {
        let state = &delivery.partition;
        state.release(delivery.bytes);
        let result = match result {
            Ok(message) => {
                // A broker that only remembers that it has the record does not say where. Everything this could spoil
                // is a lower bound.
                let offset = u64::try_from(message.offset()).unwrap_or_else(|_| state.end.load(Ordering::Acquire));
                state.end.fetch_max(offset + 1, Ordering::AcqRel);
                state.stats.appended_records.add(1);
                state.stats.appended_bytes.add(delivery.bytes);
                state.stats.commits.add(1);
                Ok(Position(offset))
            }
            Err((error, _)) => Err(state.refuse(error)),
        };
        delivery.answer.one(result);
    }
}

impl PartitionState {
    /// Takes a share of what may be under way.
    fn take(&self, bytes: u64, bound: u64) -> Result<(), u64> {
        let taken = self.pending.fetch_update(Ordering::AcqRel, Ordering::Acquire, |pending| {
            pending.checked_add(bytes).filter(|sum| *sum <= bound)
        });
        match taken {
            Ok(before) => {
                self.stats.pending_bytes.set(before + bytes);
                Ok(())
            }
            Err(pending) => Err(pending),
        }
    }

    fn release(&self, bytes: u64) {
        let before = self.pending.fetch_sub(bytes, Ordering::AcqRel);
        self.stats.pending_bytes.set(before.saturating_sub(bytes));
    }

    fn refuse(&self, error: &KafkaError) -> AppendError {
        self.stats.refused_disk.add(1);
        let kind = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::MessageTimedOut) => std::io::ErrorKind::TimedOut,
            Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight) => return AppendError::Closed,
            _ => std::io::ErrorKind::Other,
        };
        AppendError::Disk { kind, why: format!("kafka did not take the record: {error}").into() }
    }
}

impl KafkaSampleLog {
    /// Opens the log; makes its topic if it is missing.
    ///
    /// # Errors
    /// If the brokers cannot be reached or the topic is not as it must be; the sentence says what to do.
    pub fn open(connection: &Connection, layout: &Layout, limits: SampleLogLimits) -> Result<Self, String> {
        let cluster = Arc::new(Cluster::connect(connection)?);
        let topic = layout.samples();
        layout.ensure(&cluster, &topic)?;
        let producer = producer(&cluster, layout).map_err(|error| format!("kafka: no producer: {error}"))?;
        let partitions = (0..layout.partitions).map(|_| Arc::default()).collect();
        let log = Self { cluster, layout: layout.clone(), topic, limits, partitions, producer: RwLock::new(producer) };
        for partition in 0..layout.partitions {
            let (low, high) = log
                .cluster
                .watermarks(&log.topic, partition)
                .map_err(|error| format!("kafka: partition {partition} of {} does not answer: {error}", log.topic))?;
            log.partitions[partition as usize].oldest.store(low, Ordering::Release);
            log.partitions[partition as usize].end.store(high, Ordering::Release);
        }
        Ok(log)
    }

    fn state(&self, partition: u32) -> Option<&Arc<PartitionState>> {
        self.partitions.get(partition as usize)
    }

    /// Asks the brokers where a partition begins and ends; without an answer, what was known last.
    fn ask(&self, partition: u32) -> (u64, u64) {
        let Some(state) = self.state(partition) else { return (0, 0) };
        match blocking(|| self.cluster.watermarks(&self.topic, partition)) {
            Ok((low, high)) => {
                state.oldest.fetch_max(low, Ordering::AcqRel);
                state.end.fetch_max(high, Ordering::AcqRel);
            }
            Err(error) => tracing::warn!(partition, %error, "kafka does not say where the log ends"),
        }
        (state.oldest.load(Ordering::Acquire), state.end.load(Ordering::Acquire))
    }

    fn send(&self, partition: u32, bytes: &[u8], delivery: Box<Delivery>) {
        let producer = self.producer.read().unwrap_or_else(PoisonError::into_inner).clone();
        let record =
            BaseRecord::<(), [u8], _>::with_opaque_to(&self.topic, delivery).partition(partition as i32).payload(bytes);
        let Err((error, record)) = producer.send(record) else { return };
        let Delivery { partition: state, bytes, answer } = *record.delivery_opaque;
        state.release(bytes);
        let refusal = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::QueueFull) => {
                state.stats.refused_overloaded.add(1);
                AppendError::Overloaded {
                    pending_bytes: state.pending.load(Ordering::Acquire),
                    bound_bytes: self.limits.pending_bytes_max,
                }
            }
            Some(RDKafkaErrorCode::Fatal) => {
                self.renew(&producer);
                state.refuse(&error)
            }
            _ => state.refuse(&error),
        };
        answer.one(Err(refusal));
    }

    /// A producer that has lost track of what the brokers have refuses everything from then on. What it had under way is
    /// answered as failed, and senders send it again to a new one.
    fn renew(&self, broken: &Arc<ThreadedProducer<Deliveries>>) {
        let mut held = self.producer.write().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&held, broken) {
            return;
        }
        let why = broken.client().fatal_error().map_or_else(String::new, |(_, why)| why);
        match producer(&self.cluster, &self.layout) {
            Ok(new) => {
                tracing::error!(why, "the producer of the sample log failed for good and was replaced");
                *held = new;
            }
            Err(error) => {
                tracing::error!(why, %error, "the producer of the sample log failed and has no successor yet")
            }
        }
    }
}

/// Waits for the brokers: in a task of a runtime with several threads, the others go on meanwhile.
fn blocking<T>(ask: impl FnOnce() -> T) -> T {
    match tokio::runtime::Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread => {
            tokio::task::block_in_place(ask)
        }
        _ => ask(),
    }
}

fn producer(cluster: &Cluster, layout: &Layout) -> Result<Arc<ThreadedProducer<Deliveries>>, KafkaError> {
    let mut config = cluster.config();
    config
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", DELIVERY.as_millis().to_string())
        .set("request.timeout.ms", "5000")
        .set("retry.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000")
        .set("linger.ms", "2")
        .set("batch.size", layout.message_bytes_max.min(1 << 20).to_string())
        .set("compression.type", "lz4")
        .set("message.max.bytes", (layout.message_bytes_max - 1024).to_string())
        // Our own bound in bytes comes first; the library's would refuse without a reserve for ticks.
        .set("queue.buffering.max.messages", "0")
        .set("queue.buffering.max.kbytes", "2097151");
    Ok(Arc::new(config.create_with_context(Deliveries)?))
}

impl Drop for KafkaSampleLog {
    fn drop(&mut self) {
        let producer = self.producer.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Err(error) = producer.flush(CLOSE) {
            tracing::warn!(%error, "records were still under way when the sample log closed; nobody was told they are safe");
        }
    }
}

impl SampleLog for KafkaSampleLog {
    fn partitions(&self) -> u32 {
        self.partitions.len() as u32
    }

    fn append(&self, partition: u32, record: Arc<LogRecord>) -> Append {
        let Some(state) = self.state(partition) else {
            return Append::ready(Err(AppendError::NoSuchPartition { partition, partitions: self.partitions() }));
        };
        let bytes_max = self.layout.record_bytes_max();
        let Some(pieces) = split::encode(&record, bytes_max) else {
            state.stats.refused_too_large.add(1);
            let record_bytes = record.encode().len() as u64;
            return Append::ready(Err(AppendError::TooLarge { record_bytes, bound_bytes: bytes_max as u64 }));
        };
        let total: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        let reserve = if record.samples().is_some() { 0 } else { CONTROL_RESERVE_BYTES };
        if let Err(pending_bytes) = state.take(total, self.limits.pending_bytes_max + reserve) {
            state.stats.refused_overloaded.add(1);
            let bound_bytes = self.limits.pending_bytes_max;
            return Append::ready(Err(AppendError::Overloaded { pending_bytes, bound_bytes }));
        }
        let (ticket, append) = Append::pending();
        let answer = Arc::new(Answer(Mutex::new(Waiting {
            left: pieces.len(),
            ticket: Some(ticket),
            outcome: Ok(Position::default()),
        })));
        for piece in &pieces {
            let delivery = Delivery { partition: state.clone(), bytes: piece.len() as u64, answer: answer.clone() };
            self.send(partition, piece, Box::new(delivery));
        }
        append
    }

    fn reader(&self, partition: u32, from: Position) -> Result<Box<dyn LogReader>, ReadError> {
        let Some(state) = self.state(partition) else {
            return Err(ReadError::NoSuchPartition { partition, partitions: self.partitions() });
        };
        let (oldest, end) = self.ask(partition);
        if from.0 < oldest {
            return Err(ReadError::Truncated { wanted: from, oldest: Position(oldest) });
        }
        if from.0 > end {
            return Err(ReadError::BeyondEnd { wanted: from, end: Position(end) });
        }
        KafkaReader::open(
            self.cluster.clone(),
            &self.topic,
            partition,
            from,
            state.clone(),
            self.limits.prefetch_bytes_max,
            self.layout.message_bytes_max,
        )
        .map(|reader| Box::new(reader) as Box<dyn LogReader>)
    }

    fn oldest(&self, partition: u32) -> Position {
        Position(self.ask(partition).0)
    }

    fn end(&self, partition: u32) -> Position {
        Position(self.ask(partition).1)
    }

    fn set_retention_floor(&self, partition: u32, floor: Position) {
        if let Some(state) = self.state(partition) {
            state.floor.fetch_max(floor.0, Ordering::AcqRel);
        }
    }

    fn truncate_before(&self, partition: u32, before: Position) -> Position {
        let Some(state) = self.state(partition) else { return Position(0) };
        let before = before.0.min(state.floor.load(Ordering::Acquire));
        if before > state.oldest.load(Ordering::Acquire) {
            match self.cluster.delete_before(&self.topic, partition, before) {
                Ok(oldest) => drop(state.oldest.fetch_max(oldest, Ordering::AcqRel)),
                Err(error) => tracing::warn!(partition, before, %error, "kafka did not delete old records"),
            }
        }
        Position(state.oldest.load(Ordering::Acquire))
    }

    fn stats(&self, partition: u32) -> Option<Arc<LogStats>> {
        self.state(partition).map(|state| state.stats.clone())
    }
}
