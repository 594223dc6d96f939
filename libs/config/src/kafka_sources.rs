//! The list `kafka.sources`: foreign topics, and how their records are read.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kafka::{KafkaSaslSection, KafkaSection, KafkaTlsSection};
use crate::service::IdentitySection;

/// How the records of a topic are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceEncoding {
    /// Each record says it in its header `content-type`, or in its first bytes.
    #[default]
    Auto,
    /// OTLP in protobuf, as the Collector's kafka exporter writes it.
    OtlpProto,
    /// OTLP/JSON.
    OtlpJson,
    /// Counter records, `schemas/counters.schema.json`.
    Json,
    /// Arrow IPC streams, `schemas/samples-arrow.md`.
    Arrow,
}

/// Where a group begins that has committed nothing yet. What comes later is read from its first record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceStart {
    /// At the oldest record there is.
    Earliest,
    /// Behind the newest.
    #[default]
    Latest,
}

/// How a group's members come to their partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceGroupProtocol {
    /// They agree among themselves, cooperatively.
    #[default]
    Classic,
    /// The broker assigns; from Kafka 4.0 on.
    Consumer,
}

/// Foreign topics that are read by one consumer group in one way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaSource {
    /// What it is called in metrics, logs and dead letters.
    pub name: String,
    /// Topics. One that begins with `^` is a regular expression.
    #[schemars(length(max = 64), inner(length(min = 1)))]
    pub topics: Vec<String>,
    /// The consumer group; all that share it share the work.
    #[schemars(length(min = 1))]
    pub group: String,
    /// How the records are written.
    pub encoding: SourceEncoding,
    /// Where the group begins.
    pub start: SourceStart,
    /// How its members come to their partitions.
    pub group_protocol: SourceGroupProtocol,
    /// Where records go that cannot be used. Without it they are counted, logged and skipped.
    #[schemars(length(min = 1))]
    pub dead_letter_topic: Option<String>,
    /// How servers are named; without it as `identity` says.
    pub identity: Option<IdentitySection>,
    /// Bytes that each reader may hold, fetched or not yet in the log.
    #[schemars(range(min = 8_388_608, max = 4_294_967_296_u64))]
    pub bytes_max: u64,
    /// Readers in this process, each a member of the group and a thread.
    #[schemars(range(min = 1, max = 64))]
    pub readers: usize,
    /// Another cluster than that of `kafka`; `tls` and `sasl` of `kafka` are then not used.
    #[schemars(length(max = 64), inner(length(min = 1)))]
    pub brokers: Vec<String>,
    /// Encryption with the other cluster.
    pub tls: Option<KafkaTlsSection>,
    /// Credentials for the other cluster.
    pub sasl: Option<KafkaSaslSection>,
}

impl Default for KafkaSource {
    fn default() -> Self {
        Self {
            name: String::new(),
            topics: Vec::new(),
            group: "headroom".into(),
            encoding: SourceEncoding::Auto,
            start: SourceStart::Latest,
            group_protocol: SourceGroupProtocol::Classic,
            dead_letter_topic: None,
            identity: None,
            bytes_max: 64 << 20,
            readers: 1,
            brokers: Vec::new(),
            tls: None,
            sasl: None,
        }
    }
}

impl KafkaSection {
    /// What no type can say: complaints with the key that they are about, and what to do instead.
    pub(crate) fn contradictions(&self, complain: &mut dyn FnMut(&str, String, Option<&str>)) {
        for (at, source) in self.sources.iter().enumerate() {
            let path = format!("kafka.sources.{at}");
            let own = format!("`kafka.sources` number {}", at + 1);
            if source.name.is_empty() {
                complain(&path, format!("{own} has no `name`"), Some("metrics, logs and dead letters call it by it"));
            } else if self.sources[..at].iter().any(|other| other.name == source.name) {
                complain(&format!("{path}.name"), format!("two sources are called `{}`", source.name), None);
            }
            if source.topics.is_empty() {
                complain(&path, format!("{own} has no `topics`"), Some("write topics: [otlp_metrics]"));
            }
            if let Some(topic) = source.dead_letter_topic.as_ref().filter(|topic| source.topics.contains(topic)) {
                let message = format!("{own} reads its own dead-letter topic, `{topic}`");
                complain(&format!("{path}.dead_letter_topic"), message, Some("a bad record would go in circles"));
            }
            if source.brokers.is_empty() && self.brokers.is_empty() {
                complain(
                    &path,
                    format!("{own} has no cluster: neither `kafka.brokers` nor `brokers` of its own"),
                    Some("write brokers: [\"127.0.0.1:9092\"]"),
                );
            }
            if source.brokers.is_empty() && (source.tls.is_some() || source.sasl.is_some()) {
                let message = format!("{own} has `tls` or `sasl` without `brokers` of its own");
                complain(&path, message, Some("give it brokers, or set kafka.tls and kafka.sasl"));
            }
            reach(&path, source.tls.as_ref(), source.sasl.as_ref(), complain);
            if let Some(identity) = &source.identity {
                identity.contradictions(&format!("{path}.identity"), complain);
            }
        }
        reach("kafka", self.tls.as_ref(), self.sasl.as_ref(), complain);
    }
}

/// What is wrong with how a cluster is reached.
fn reach(
    path: &str,
    tls: Option<&KafkaTlsSection>,
    sasl: Option<&KafkaSaslSection>,
    complain: &mut dyn FnMut(&str, String, Option<&str>),
) {
    if let Some(tls) = tls {
        if tls.ca_file.is_empty() {
            let message = format!("`{path}.tls` has no `ca_file`, so no broker would be trusted");
            complain(&format!("{path}.tls"), message, Some("on Debian: /etc/ssl/certs/ca-certificates.crt"));
        }
        if tls.cert_file.is_some() != tls.key_file.is_some() {
            let message = format!("`{path}.tls` has one of `cert_file` and `key_file`; they go together");
            complain(&format!("{path}.tls"), message, None);
        }
    }
    if let Some(sasl) = sasl {
        if sasl.username.is_empty() {
            complain(&format!("{path}.sasl"), format!("`{path}.sasl` has no `username`"), None);
        }
        if sasl.password_file.is_some() == sasl.password_env.is_some() {
            let message = format!("`{path}.sasl` needs either `password_file` or `password_env`");
            complain(&format!("{path}.sasl"), message, Some("a password does not belong into this file"));
        }
    }
}
