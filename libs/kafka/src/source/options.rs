//! What a source is, and what that means for a consumer.

use rdkafka::ClientConfig;

use crate::connection::Connection;

/// Where a group begins that has committed nothing. Partitions and topics that come later are read from their first record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Start {
    /// At the oldest record there is.
    Earliest,
    /// Behind the newest.
    #[default]
    Latest,
}

/// How the members of a group come to their partitions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum GroupProtocol {
    /// The members agree among themselves, cooperatively: only what moves is stopped.
    #[default]
    Classic,
    /// The broker assigns (KIP-848); from Kafka 4.0 on.
    Consumer,
}

/// A source: topics of a cluster, read by a group.
#[derive(Clone, Debug)]
pub struct SourceOptions {
    /// What it is called in metrics, logs and dead letters.
    pub name: String,
    /// The cluster.
    pub connection: Connection,
    /// The topics; one that begins with `^` is a regular expression.
    pub topics: Vec<String>,
    /// The consumer group.
    pub group: String,
    /// How partitions are assigned.
    pub group_protocol: GroupProtocol,
    /// Where to begin.
    pub start: Start,
    /// Bytes that one reader may hold: half of it fetched and not yet read, half read and not yet in the log.
    pub bytes_max: u64,
    /// Where records go that cannot be used. Without it they are counted, logged and skipped.
    pub dead_letter_topic: Option<String>,
    /// The wall clock, Unix milliseconds: no record is from later.
    pub wall_ms: fn() -> i64,
}

/// Least of [`SourceOptions::bytes_max`]: room for a few records of the size that brokers take by default.
pub const BYTES_MAX_LEAST: u64 = 8 << 20;

/// A member that says nothing for so long has died, and its partitions move. Kafka's own default is 45 s, in which a
/// fleet would go unseen for four ticks.
const SESSION_TIMEOUT_MS: &str = "10000";

/// A fetch waits this long for [`FETCH_BYTES_MIN`]: what a record may be late by on a quiet topic.
const FETCH_WAIT_MS: &str = "100";

/// Bytes that are worth an answer of their own.
const FETCH_BYTES_MIN: &str = "65536";

impl SourceOptions {
    /// Bytes that may be read and not yet in the log.
    pub(super) fn in_flight_bytes_max(&self) -> u64 {
        self.bytes_max.max(BYTES_MAX_LEAST) / 2
    }

    /// The settings of the consumer.
    pub(super) fn consumer_config(&self) -> ClientConfig {
        let mut config = self.connection.client_config();
        let fetched = self.bytes_max.max(BYTES_MAX_LEAST) / 2;
        config.set("group.id", &self.group);
        config.set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "false");
        config.set("allow.auto.create.topics", "false");
        // Whatever `start` says: it is about a new group, this about every partition without a commit.
        config.set("auto.offset.reset", "earliest");
        match self.group_protocol {
            GroupProtocol::Classic => {
                config.set("partition.assignment.strategy", "cooperative-sticky");
                config.set("session.timeout.ms", SESSION_TIMEOUT_MS);
            }
            // The broker has the say over assignment and timeouts; naming them is an error.
            GroupProtocol::Consumer => {
                config.set("group.protocol", "consumer");
            }
        }
        // The queue counts what was fetched; an answer that is under way comes on top and is bounded as well.
        config.set("queued.max.messages.kbytes", (fetched / 2 / 1024).to_string());
        config.set("fetch.max.bytes", (fetched / 2).clamp(1 << 20, 50 << 20).to_string());
        config.set("fetch.wait.max.ms", FETCH_WAIT_MS);
        config.set("fetch.min.bytes", FETCH_BYTES_MIN);
        config.set("topic.metadata.refresh.interval.ms", "10000");
        config.set("statistics.interval.ms", "5000");
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(group_protocol: GroupProtocol) -> SourceOptions {
        SourceOptions {
            name: "s".into(),
            connection: Connection { brokers: vec!["a:1".into()], ..Connection::default() },
            topics: vec!["t".into()],
            group: "g".into(),
            group_protocol,
            start: Start::Latest,
            bytes_max: 64 << 20,
            dead_letter_topic: None,
            wall_ms: || i64::MAX,
        }
    }

    #[test]
    fn nothing_is_committed_behind_our_back_and_memory_is_bounded() {
        let config = options(GroupProtocol::Classic).consumer_config();
        for (key, value) in [
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "earliest"),
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("queued.max.messages.kbytes", "16384"),
            ("fetch.max.bytes", "16777216"),
        ] {
            assert_eq!(config.get(key), Some(value), "{key}");
        }
    }

    #[test]
    fn with_the_new_protocol_no_strategy_is_named() {
        let config = options(GroupProtocol::Consumer).consumer_config();
        assert_eq!(config.get("group.protocol"), Some("consumer"));
        for key in ["partition.assignment.strategy", "session.timeout.ms", "heartbeat.interval.ms"] {
            assert_eq!(config.get(key), None, "{key}");
        }
    }

    #[test]
    fn the_client_takes_both_configurations() {
        for protocol in [GroupProtocol::Classic, GroupProtocol::Consumer] {
            let consumer: Result<rdkafka::consumer::BaseConsumer, _> = options(protocol).consumer_config().create();
            assert!(consumer.is_ok(), "{protocol:?}: {:?}", consumer.err());
        }
    }
}
