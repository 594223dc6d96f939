//! What all parts of this crate ask of a cluster besides reading and writing: topics, watermarks, settings.
//!
//! The calls block. They are made at start-up, on threads of their own, or take one round trip to a broker.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::Connection;

/// How long a question to the brokers may take.
pub(crate) const ASK: Duration = Duration::from_secs(10);

/// A topic as it is.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) partitions: u32,
    pub(crate) replication_factor: u32,
}

/// Whether a cluster answers, and how many partitions topics of it have; `None` for one that is not there. Blocks, for
/// ten seconds a question at most.
///
/// # Errors
/// A sentence that says what does not answer, and what to check.
pub fn look_up(connection: &Connection, topics: &[String]) -> Result<Vec<Option<u32>>, String> {
    let cluster = Cluster::connect(connection)?;
    let partitions = |topic: &String| match cluster.topic(topic) {
        Ok(found) => Ok(found.map(|found| found.partitions)),
        Err(error) => Err(format!("kafka: the brokers do not tell of topic {topic}: {error}")),
    };
    topics.iter().map(partitions).collect()
}

/// A cluster that is known to answer.
pub(crate) struct Cluster {
    connection: Connection,
    admin: AdminClient<DefaultClientContext>,
    asking: BaseConsumer<Told>,
}

/// Keeps why the last connection failed. The error of a question says only that nobody answered it; whether that is a
/// password, an authority or an address, the library tells beside it, to whoever polls.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Option<String>>>);

/// News that are looked through for the reason; a connection that fails brings two or three, a few times a second.
const NEWS_MAX: usize = 256;

impl Told {
    fn keep(&self, reason: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
    }

    fn why(&self, asking: &BaseConsumer<Self>) -> Option<String> {
        for _ in 0..NEWS_MAX {
            let _ = asking.poll(Duration::ZERO);
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Told {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == "FAIL" {
            self.keep(message);
        }
        tracing::debug!(?level, facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // That all are down follows from each of them being so.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            self.keep(reason);
        }
        tracing::debug!(%error, "{reason}");
    }
}

impl ConsumerContext for Told {}

impl Cluster {
    /// Connects; the first answer is waited for.
    pub(crate) fn connect(connection: &Connection) -> Result<Self, String> {
        let config = connection.client_config();
        let failed = |error: KafkaError| format!("kafka: the client cannot be made: {error}; check the kafka section");
        let told = Told::default();
        let cluster = Self {
            connection: connection.clone(),
            admin: config.create().map_err(failed)?,
            asking: config.create_with_context(told.clone()).map_err(failed)?,
        };
        match cluster.asking.fetch_metadata(None, ASK) {
            Ok(_) => Ok(cluster),
            Err(error) => Err(format!(
                "kafka: none of {} answers within {} s: {}; check kafka.brokers, and tls and sasl if the brokers ask for \
                 them",
                connection.brokers.join(", "),
                ASK.as_secs(),
                told.why(&cluster.asking).unwrap_or_else(|| format!(
                    "{error}, without a word, as brokers do that expect TLS where none is configured"
                ))
            )),
        }
    }

    /// The settings that all clients begin with.
    pub(crate) fn config(&self) -> ClientConfig {
        self.connection.client_config()
    }

    /// Addresses for `--bootstrap-server`.
    pub(crate) fn brokers(&self) -> String {
        self.connection.brokers.join(",")
    }

    /// A topic, if it exists.
    pub(crate) fn topic(&self, topic: &str) -> Result<Option<Found>, KafkaError> {
        let metadata = self.asking.fetch_metadata(Some(topic), ASK)?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
        if found.error().is_some() || found.partitions().is_empty() {
            return Ok(None);
        }
        let replicas = found.partitions().iter().map(|partition| partition.replicas().len()).min().unwrap_or(0);
        Ok(Some(Found { partitions: found.partitions().len() as u32, replication_factor: replicas as u32 }))
    }

    /// Makes a topic. One that somebody else has just made is no error.
    pub(crate) fn create(
        &self,
        topic: &str,
        partitions: u32,
        replication_factor: u32,
        settings: &[(&str, String)],
    ) -> Result<(), String> {
        let mut new = NewTopic::new(topic, partitions as i32, TopicReplication::Fixed(replication_factor as i32));
        for (key, value) in settings {
            new = new.set(key, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(ASK)).request_timeout(Some(ASK));
        let made = wait(self.admin.create_topics(&[new], &options)).map_err(|error| error.to_string())?;
        match made.into_iter().next() {
            Some(Err((_, code))) if code != RDKafkaErrorCode::TopicAlreadyExists => Err(code.to_string()),
            _ => Ok(()),
        }
    }

    /// The settings of a topic by name.
    pub(crate) fn settings(&self, topic: &str) -> Result<Vec<(String, String)>, String> {
        let options = AdminOptions::new().request_timeout(Some(ASK));
        let found = wait(self.admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &options))
            .map_err(|error| error.to_string())?;
        match found.into_iter().next() {
            Some(Ok(resource)) => {
                Ok(resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect())
            }
            Some(Err(code)) => Err(code.to_string()),
            None => Err("the brokers described nothing".to_owned()),
        }
    }

    /// The oldest offset of a partition and the one after its newest record.
    pub(crate) fn watermarks(&self, topic: &str, partition: u32) -> Result<(u64, u64), KafkaError> {
        let deadline = Instant::now() + ASK;
        loop {
            match self.asking.fetch_watermarks(topic, partition as i32, ASK) {
                Ok((low, high)) => return Ok((low.max(0) as u64, high.max(0) as u64)),
                // A partition that was just made, or whose leader has just died, has one in a moment.
                Err(error) if Instant::now() < deadline && awaits_leader(&error) => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Deletes the records before `before`; answers the oldest offset left.
    pub(crate) fn delete_before(&self, topic: &str, partition: u32, before: u64) -> Result<u64, KafkaError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition as i32, Offset::Offset(before as i64))?;
        let left = wait(self.admin.delete_records(&list, &AdminOptions::new().request_timeout(Some(ASK))))?;
        match left.find_partition(topic, partition as i32) {
            Some(element) => {
                element.error()?;
                Ok(element.offset().to_raw().unwrap_or(0).max(0) as u64)
            }
            None => Ok(0),
        }
    }

    /// A consumer that reads what it is assigned and commits nothing. `group.id` is only a name here: the library wants
    /// one for any consumer.
    pub(crate) fn consumer(&self, prefetch_bytes: u64, message_bytes_max: usize) -> Result<BaseConsumer, KafkaError> {
        let mut config = self.config();
        config
            .set("group.id", "headroom-readers")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("queued.max.messages.kbytes", (prefetch_bytes / 1024).max(1024).to_string())
            .set("queued.min.messages", "20000")
            // A reader that has emptied its queue must not wait a second before the library fetches again.
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.error.backoff.ms", "100")
            .set("reconnect.backoff.max.ms", "1000")
            .set("topic.metadata.refresh.interval.ms", "10000")
            .set("fetch.message.max.bytes", message_bytes_max.to_string());
        config.create()
    }
}

fn awaits_leader(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::OffsetNotAvailable
                | RDKafkaErrorCode::NotEnoughReplicas
        )
    )
}

/// How long a scan may go without a message before it is given up.
const SCAN: Duration = Duration::from_secs(30);

impl Cluster {
    /// Reads a partition from an offset on until its end, or until `each` (key, value) says that it has seen enough.
    pub(crate) fn scan(
        &self,
        topic: &str,
        partition: u32,
        from: u64,
        message_bytes_max: usize,
        mut each: impl FnMut(&[u8], Option<&[u8]>) -> bool,
    ) -> Result<(), String> {
        let failed = |error: KafkaError| format!("kafka: {topic}/{partition} cannot be read: {error}");
        let consumer = self.consumer(32 << 20, message_bytes_max).map_err(failed)?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition as i32, Offset::Offset(from as i64)).map_err(failed)?;
        consumer.assign(&list).map_err(failed)?;
        let mut progress = Instant::now();
        loop {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    progress = Instant::now();
                    if !each(message.key().unwrap_or_default(), message.payload()) {
                        return Ok(());
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => return Err(failed(error)),
                Some(Err(error)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset) => {
                    return Err(failed(error));
                }
                // The library mends connections by itself.
                Some(Err(_)) | None if progress.elapsed() < SCAN => {}
                Some(Err(error)) => return Err(failed(error)),
                None => return Err(format!("kafka: {topic}/{partition} gave nothing for {} s", SCAN.as_secs())),
            }
        }
    }
}

/// Waits for a future whose waker is woken from another thread, as those of the admin client are. No runtime: this is
/// called on plain threads and at start-up.
pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        std::thread::park();
    }
}
