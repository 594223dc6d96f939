//! Reads one partition of the sample log in order.
//!
//! A reader is told where to begin and commits nothing: where an engine stands is in its checkpoint, together with its
//! state, and a group's offsets beside that could only disagree with it. The library fetches ahead within a bound in
//! bytes, on threads of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use headroom_log::{BoxFuture, LogReader, Position, ReadError};
use headroom_model::LogRecord;
use headroom_model::record::Dictionary;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::Notify;

use crate::cluster::Cluster;
use crate::sample_log::PartitionState;

/// How long an async reader sleeps at most before it looks by itself; it is woken before, this only bounds a lost wake.
const NAP: Duration = Duration::from_millis(200);

type Next = Result<Option<(Position, Arc<LogRecord>)>, ReadError>;

pub(crate) struct KafkaReader {
    cluster: Arc<Cluster>,
    consumer: BaseConsumer,
    topic: String,
    partition: u32,
    at: u64,
    state: Arc<PartitionState>,
    dictionary: Dictionary,
    woken: Arc<Notify>,
    /// When it was last told that no broker answers.
    told: Option<Instant>,
}

/// How often it is told that no broker answers.
const TELL: Duration = Duration::from_secs(10);

impl KafkaReader {
    pub(crate) fn open(
        cluster: Arc<Cluster>,
        topic: &str,
        partition: u32,
        from: Position,
        state: Arc<PartitionState>,
        prefetch_bytes: u64,
        message_bytes_max: usize,
    ) -> Result<Self, ReadError> {
        let failed = |error: KafkaError| ReadError::Disk { why: format!("kafka: {topic}/{partition}: {error}").into() };
        let mut consumer = cluster.consumer(prefetch_bytes, message_bytes_max).map_err(failed)?;
        let woken = Arc::new(Notify::new());
        let wake = woken.clone();
        consumer.set_nonempty_callback(move || wake.notify_one());
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition as i32, Offset::Offset(from.0 as i64)).map_err(failed)?;
        consumer.assign(&list).map_err(failed)?;
        Ok(Self {
            cluster,
            consumer,
            topic: topic.to_owned(),
            partition,
            at: from.0,
            state,
            dictionary: Dictionary::default(),
            woken,
            told: None,
        })
    }

    /// What the library says next, within `timeout`.
    fn poll(&mut self, timeout: Duration) -> Next {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.consumer.poll(left) {
                Some(Ok(message)) => {
                    let (position, decoded) = decode(&message, &mut self.dictionary);
                    drop(message);
                    if position < self.at {
                        continue;
                    }
                    self.at = position + 1;
                    self.state.end.fetch_max(position + 1, Ordering::AcqRel);
                    self.state.stats.tail_misses.add(1);
                    return match decoded {
                        Ok(record) => Ok(Some((Position(position), Arc::new(record)))),
                        Err(why) => {
                            self.state.stats.damaged_records.add(1);
                            Err(ReadError::Unreadable { position: Position(position), why })
                        }
                    };
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) => self.complain(&error)?,
                None if left.is_zero() => return Ok(None),
                None => {}
            }
        }
    }

    /// Sorts an error of the library: most are news of a connection that it mends by itself.
    fn complain(&mut self, error: &KafkaError) -> Result<(), ReadError> {
        let place = format!("kafka: {}/{}: {error}", self.topic, self.partition);
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                let wanted = Position(self.at);
                match self.cluster.watermarks(&self.topic, self.partition) {
                    Ok((oldest, _)) if self.at < oldest => {
                        Err(ReadError::Truncated { wanted, oldest: Position(oldest) })
                    }
                    Ok((_, end)) if self.at > end => Err(ReadError::BeyondEnd { wanted, end: Position(end) }),
                    _ => Err(ReadError::Disk { why: place.into() }),
                }
            }
            Some(
                RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::TopicAuthorizationFailed,
            ) if self.told.is_none_or(|told| told.elapsed() > TELL) => {
                self.told = Some(Instant::now());
                Err(ReadError::Disk { why: place.into() })
            }
            _ => {
                tracing::debug!(place, "the reader goes on");
                Ok(())
            }
        }
    }
}

fn decode(message: &BorrowedMessage<'_>, dictionary: &mut Dictionary) -> (u64, Result<LogRecord, Arc<str>>) {
    let position = u64::try_from(message.offset()).unwrap_or(0);
    let decoded = match message.payload() {
        Some(bytes) => LogRecord::decode_with(dictionary, bytes).map_err(|error| error.to_string().into()),
        None => Err("it has no value".into()),
    };
    (position, decoded)
}

impl LogReader for KafkaReader {
    fn position(&self) -> Position {
        Position(self.at)
    }

    fn next(&mut self) -> BoxFuture<'_, Result<(Position, Arc<LogRecord>), ReadError>> {
        Box::pin(async move {
            loop {
                if let Some(next) = self.poll(Duration::ZERO)? {
                    return Ok(next);
                }
                // A wake between the look and here is kept by the notify.
                let _ = tokio::time::timeout(NAP, self.woken.notified()).await;
            }
        })
    }

    fn next_blocking(&mut self, timeout: Duration) -> Next {
        self.poll(timeout)
    }

    fn try_next(&mut self) -> Next {
        self.poll(Duration::ZERO)
    }
}
