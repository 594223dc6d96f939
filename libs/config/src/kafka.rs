//! The `kafka` section: the cluster that the ports lie on when `log.backend` is `kafka`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The cluster, and how the topics of this installation are laid out in it. Read when `log.backend` is `kafka`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaSection {
    /// `host:port` of some of the brokers; the others are found through them.
    #[schemars(length(max = 64), inner(length(min = 1)))]
    pub brokers: Vec<String>,
    /// What the names of all topics and groups begin with.
    #[schemars(regex(pattern = r"^[a-zA-Z0-9._-]{1,200}$"))]
    pub topic_prefix: String,
    /// Partitions of each topic. Fixed for the life of the topics.
    #[schemars(range(min = 1, max = 1_024))]
    pub partitions: u32,
    /// Copies of each record.
    #[schemars(range(min = 1, max = 7))]
    pub replication_factor: u32,
    /// Seconds for which samples and decision events are kept.
    #[schemars(range(min = 60))]
    pub retention_seconds: i64,
    /// Bytes of a message; larger snapshots and checkpoints are split.
    #[schemars(range(min = 65_536, max = 67_108_864))]
    pub message_bytes_max: usize,
    /// Encryption.
    pub tls: KafkaTls,
    /// Credentials.
    pub sasl: KafkaSasl,
}

impl Default for KafkaSection {
    fn default() -> Self {
        Self {
            brokers: vec!["127.0.0.1:9092".to_owned()],
            topic_prefix: "headroom".to_owned(),
            partitions: 16,
            replication_factor: 3,
            retention_seconds: 7 * 24 * 3600,
            message_bytes_max: 8 << 20,
            tls: KafkaTls::default(),
            sasl: KafkaSasl::default(),
        }
    }
}

/// Encryption. Used when `ca_file` is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaTls {
    /// PEM file of the authorities that may have signed a broker's certificate.
    #[schemars(length(min = 1))]
    pub ca_file: Option<String>,
    /// PEM file of this client's certificate, if the brokers ask for one.
    #[schemars(length(min = 1))]
    pub cert_file: Option<String>,
    /// PEM file of the certificate's key.
    #[schemars(length(min = 1))]
    pub key_file: Option<String>,
}

/// How a password is proved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KafkaMechanism {
    /// Sent as it is; only sensible with TLS.
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

/// Credentials. Used when `username` is set. The password itself has no key, so that it stands in no file of settings
/// and in no answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaSasl {
    /// How the password is proved.
    pub mechanism: KafkaMechanism,
    /// The user.
    #[schemars(length(min = 1))]
    pub username: Option<String>,
    /// File that holds the password; a newline at its end does not count.
    #[schemars(length(min = 1))]
    pub password_file: Option<String>,
    /// Name of the environment variable that holds the password.
    #[schemars(length(min = 1))]
    pub password_env: Option<String>,
}
