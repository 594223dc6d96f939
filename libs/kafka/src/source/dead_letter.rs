//! Where records go that nobody can use: their own bytes, and beside them why, and where they came from.

use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord};

use super::{Refusal, SourceOptions};

/// Bytes kept of the message that says what was wrong.
const DETAIL_BYTES_MAX: usize = 1_000;

/// A letter is written within this time, or tried again.
const DELIVERY_TIMEOUT_MS: &str = "10000";

/// The producer of a source's dead-letter topic.
pub(super) struct DeadLetters {
    producer: FutureProducer,
    topic: String,
}

/// A record that cannot be used.
pub(super) struct Letter {
    key: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
    headers: OwnedHeaders,
}

impl Letter {
    /// The letter of a record.
    pub(super) fn new<M: Message>(source: &str, record: &M, refusal: &Refusal) -> Self {
        let original = record.headers();
        let mut headers = OwnedHeaders::new_with_capacity(9 + original.map_or(0, Headers::count));
        for header in original.into_iter().flat_map(Headers::iter) {
            headers = headers.insert(header);
        }
        let detail = &refusal.message[..refusal.message.floor_char_boundary(DETAIL_BYTES_MAX)];
        let timestamp = record.timestamp().to_millis().map(|ms| ms.to_string());
        for (key, value) in [
            ("headroom.reason", Some(refusal.reason)),
            ("headroom.detail", Some(detail)),
            ("headroom.encoding", Some(refusal.encoding).filter(|encoding| !encoding.is_empty())),
            ("headroom.source", Some(source)),
            ("headroom.topic", Some(record.topic())),
            ("headroom.partition", Some(record.partition().to_string().as_str())),
            ("headroom.offset", Some(record.offset().to_string().as_str())),
            ("headroom.timestamp", timestamp.as_deref()),
        ] {
            if let Some(value) = value {
                headers = headers.insert(Header { key, value: Some(value) });
            }
        }
        Self { key: record.key().map(<[u8]>::to_vec), payload: record.payload().map(<[u8]>::to_vec), headers }
    }

    /// Bytes that it holds in memory.
    pub(super) fn bytes(&self) -> u64 {
        (self.payload.as_ref().map_or(0, Vec::len) + self.key.as_ref().map_or(0, Vec::len)) as u64
    }
}

impl DeadLetters {
    /// The producer, if the source has a dead-letter topic.
    pub(super) fn new(options: &SourceOptions) -> Result<Option<Self>, String> {
        let Some(topic) = options.dead_letter_topic.clone() else { return Ok(None) };
        let mut config = options.connection.client_config();
        config.set("enable.idempotence", "true");
        config.set("message.timeout.ms", DELIVERY_TIMEOUT_MS);
        // The broker's bound is the one that counts, and it says so; what we have read, we may also write.
        config.set("message.max.bytes", "100000000");
        let producer = config.create().map_err(|error| {
            format!("source `{}`: the producer of its dead-letter topic cannot be made: {error}", options.name)
        })?;
        Ok(Some(Self { producer, topic }))
    }

    /// Begins to write a letter; `None` if there is no room for it now.
    pub(super) fn send(&self, letter: &Letter) -> Option<DeliveryFuture> {
        let mut record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(&self.topic).headers(letter.headers.clone());
        record.key = letter.key.as_deref();
        record.payload = letter.payload.as_deref();
        self.producer.send_result(record).ok()
    }
}
