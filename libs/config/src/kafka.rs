//! The section `kafka`: the cluster, how our own topics are laid out in it when `log.backend` is `kafka`, and the foreign
//! topics that are read.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kafka_sources::KafkaSource;

/// Kafka: the cluster, and the foreign topics that are read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaSection {
    /// `host:port` of some brokers of the cluster; the others are found through them.
    #[schemars(length(max = 64), inner(length(min = 1)))]
    pub brokers: Vec<String>,
    /// What the names of all of our own topics and groups begin with.
    #[schemars(regex(pattern = r"^[a-zA-Z0-9._-]{1,200}$"))]
    pub topic_prefix: String,
    /// Partitions of each of our own topics. Fixed for their life.
    #[schemars(range(min = 1, max = 1_024))]
    pub partitions: u32,
    /// Copies of each record in our own topics.
    #[schemars(range(min = 1, max = 7))]
    pub replication_factor: u32,
    /// Seconds for which samples and decision events are kept. Longer than all aggregators may be away: Kafka deletes
    /// what is older, whether an engine has read it or not.
    #[schemars(range(min = 3_600))]
    pub retention_seconds: i64,
    /// Bytes of a message in our own topics; larger snapshots and checkpoints are split.
    #[schemars(range(min = 65_536, max = 67_108_864))]
    pub message_bytes_max: usize,
    /// Encryption.
    pub tls: Option<KafkaTlsSection>,
    /// Credentials.
    pub sasl: Option<KafkaSaslSection>,
    /// Foreign topics that are read.
    #[schemars(length(max = 32))]
    pub sources: Vec<KafkaSource>,
}

impl Default for KafkaSection {
    fn default() -> Self {
        Self {
            brokers: Vec::new(),
            topic_prefix: "headroom".to_owned(),
            partitions: 16,
            replication_factor: 3,
            retention_seconds: 7 * 24 * 3600,
            message_bytes_max: 8 << 20,
            tls: None,
            sasl: None,
            sources: Vec::new(),
        }
    }
}

/// Encryption between us and the brokers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaTlsSection {
    /// PEM file of the authorities that may have signed a broker's certificate; there is no built-in list.
    pub ca_file: String,
    /// PEM file of our certificate, if the brokers ask for one.
    pub cert_file: Option<String>,
    /// PEM file of its key.
    pub key_file: Option<String>,
}

/// How a password is proved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KafkaSaslMechanism {
    /// Sent as it is; only sensible over TLS.
    #[serde(rename = "PLAIN")]
    Plain,
    /// Challenge and response over SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// Challenge and response over SHA-512.
    #[default]
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

/// Credentials for the brokers. The password comes from a file or from the environment, never from this file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaSaslSection {
    /// How the password is proved.
    pub mechanism: KafkaSaslMechanism,
    /// The user.
    pub username: String,
    /// The file that holds the password; a line end behind it does not count.
    pub password_file: Option<String>,
    /// The environment variable that holds the password.
    pub password_env: Option<String>,
}
