//! A transactional producer: the one writer of what one partition's owner publishes.
//!
//! Its transactional id is made from the partition's number, so whoever begins to own the partition fences everybody who
//! owned it before: the brokers refuse a transaction of an older producer of the same id, however late it comes. What is
//! unfinished at that moment is aborted, and no reader ever sees a part of it.
//!
//! A transaction whose end the brokers have not confirmed in time leaves the library in the middle of a call that it
//! alone can finish: the producer begins no other. Such a writer is broken, and says that it is fenced; its owner then
//! claims the partition again, which gives it a new one.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use crate::cluster::Cluster;
use crate::topics::Layout;

/// How long becoming the writer may take.
const INIT: Duration = Duration::from_secs(30);

/// How long a transaction may take before it is given up. The brokers abort it by themselves a little later.
const TRANSACTION: Duration = Duration::from_secs(60);

/// How long one call of the library may take; it is asked again until [`TRANSACTION`] has passed.
const STEP: Duration = Duration::from_secs(5);

/// Why a transaction did not happen. Nothing of it is visible.
#[derive(Clone, Debug)]
pub(crate) enum WriteError {
    /// Somebody else owns the partition.
    Fenced(Arc<str>),
    /// Not now.
    Failed(Arc<str>),
}

/// Key and value; no value deletes what the key had.
pub(crate) type KeyValue = (Vec<u8>, Option<Vec<u8>>);

pub(crate) struct Writer {
    producer: ThreadedProducer<Context>,
    topic: String,
    partition: i32,
    /// A transaction was left without an end.
    broken: AtomicBool,
}

struct Context;

/// What has become of the messages of a transaction.
pub(crate) struct Sent {
    /// Offset of the first.
    pub(crate) first: AtomicI64,
    failed: Mutex<Option<KafkaError>>,
}

impl ClientContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = Arc<Sent>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Arc<Sent>) {
        match result {
            Ok(message) => drop(sent.first.fetch_min(message.offset(), Ordering::AcqRel)),
            Err((error, _)) => {
                sent.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error.clone());
            }
        }
    }
}

/// Sorts an error: whether it means that somebody else has taken over.
fn sorted(producer: &ThreadedProducer<Context>, error: &KafkaError) -> WriteError {
    let fence = |code: RDKafkaErrorCode| {
        matches!(
            code,
            RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch
        )
    };
    match (error.rdkafka_error_code(), producer.client().fatal_error()) {
        (Some(code), _) if fence(code) => WriteError::Fenced(error.to_string().into()),
        // A producer that has failed for good can only be made anew, and that would fence whoever is the owner by now:
        // it is the owner's business, not the writer's.
        (_, Some((_, why))) => WriteError::Fenced(why.into()),
        _ => WriteError::Failed(error.to_string().into()),
    }
}

impl Writer {
    /// Becomes the one writer of this role and partition.
    pub(crate) fn claim(
        cluster: &Cluster,
        layout: &Layout,
        role: &str,
        topic: &str,
        partition: u32,
    ) -> Result<Self, WriteError> {
        let mut config = cluster.config();
        config
            .set("transactional.id", format!("{}.{role}.{partition}", layout.prefix))
            .set("transaction.timeout.ms", (TRANSACTION.as_millis() + 5000).to_string())
            .set("linger.ms", "0")
            .set("compression.type", "lz4")
            .set("reconnect.backoff.max.ms", "1000")
            .set("message.max.bytes", (layout.message_bytes_max - 1024).to_string())
            .set("queue.buffering.max.messages", "1000000")
            .set("queue.buffering.max.kbytes", "131072");
        let producer: ThreadedProducer<Context> =
            config.create_with_context(Context).map_err(|error| WriteError::Failed(error.to_string().into()))?;
        let deadline = Instant::now() + INIT;
        while let Err(error) = producer.init_transactions(STEP) {
            if !is_retriable(&error) || Instant::now() > deadline {
                return Err(sorted(&producer, &error));
            }
        }
        Ok(Self { producer, topic: topic.to_owned(), partition: partition as i32, broken: AtomicBool::new(false) })
    }

    /// Begins a transaction. Dropped without [`Transaction::commit`], it is aborted.
    pub(crate) fn begin(&self) -> Result<Transaction<'_>, WriteError> {
        if self.broken.load(Ordering::Acquire) {
            return Err(WriteError::Fenced("the brokers did not confirm the end of a transaction".into()));
        }
        self.producer.begin_transaction().map_err(|error| sorted(&self.producer, &error))?;
        let sent = Arc::new(Sent { first: AtomicI64::new(i64::MAX), failed: Mutex::new(None) });
        Ok(Transaction { writer: self, sent, deadline: Instant::now() + TRANSACTION, committed: false })
    }

    /// All of these or none.
    pub(crate) fn write(&self, records: impl IntoIterator<Item = KeyValue>) -> Result<(), WriteError> {
        let transaction = self.begin()?;
        for (key, value) in records {
            transaction.send(&key, value.as_deref())?;
        }
        transaction.commit()
    }
}

pub(crate) struct Transaction<'a> {
    writer: &'a Writer,
    sent: Arc<Sent>,
    deadline: Instant,
    committed: bool,
}

impl Transaction<'_> {
    pub(crate) fn send(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), WriteError> {
        let mut record = BaseRecord::<[u8], [u8], _>::with_opaque_to(&self.writer.topic, self.sent.clone())
            .partition(self.writer.partition)
            .key(key);
        if let Some(value) = value {
            record = record.payload(value);
        }
        loop {
            match self.writer.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((error, back))
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull)
                        && Instant::now() < self.deadline =>
                {
                    // The library's queue is the bound on how much of a large checkpoint is under way at once.
                    std::thread::sleep(Duration::from_millis(2));
                    record = back;
                }
                Err((error, _)) => return Err(sorted(&self.writer.producer, &error)),
            }
        }
    }

    /// Waits until everything sent is with the brokers; answers the offset of the first.
    pub(crate) fn flush(&self) -> Result<u64, WriteError> {
        while let Err(error) = self.writer.producer.flush(STEP) {
            if Instant::now() > self.deadline {
                return Err(sorted(&self.writer.producer, &error));
            }
        }
        if let Some(error) = &*self.sent.failed.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(sorted(&self.writer.producer, error));
        }
        Ok(u64::try_from(self.sent.first.load(Ordering::Acquire)).unwrap_or(0))
    }

    pub(crate) fn commit(mut self) -> Result<(), WriteError> {
        loop {
            match self.writer.producer.commit_transaction(STEP) {
                Ok(()) => {
                    self.committed = true;
                    return Ok(());
                }
                Err(error) if is_retriable(&error) && Instant::now() < self.deadline => {}
                Err(error) => {
                    if is_retriable(&error) {
                        self.writer.broken.store(true, Ordering::Release);
                    }
                    return Err(sorted(&self.writer.producer, &error));
                }
            }
        }
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if !self.committed
            && let Err(error) = self.writer.producer.abort_transaction(STEP)
        {
            self.writer.broken.store(true, Ordering::Release);
            tracing::debug!(%error, "a transaction was not aborted; the brokers will");
        }
    }
}

fn is_retriable(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => error.is_retriable(),
        KafkaError::Flush(code) => *code == RDKafkaErrorCode::OperationTimedOut,
        _ => false,
    }
}
