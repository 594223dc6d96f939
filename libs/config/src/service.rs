//! The configuration of the service: one YAML file in which everything is optional.
//!
//! A key stands here only if something reads it. Bounds that nobody should need to turn are constants of the crates that
//! keep them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kafka::KafkaSection;

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The API, the console and `/metrics`.
    pub http: HttpSection,
    /// The OTLP receivers.
    pub otlp: OtlpSection,
    /// Which attributes name a server, its cell and its pool.
    pub identity: IdentitySection,
    /// Kafka: the cluster, our own topics when `log.backend` is `kafka`, and the foreign topics that are read.
    pub kafka: KafkaSection,
    /// The sample log: where it lies, and its bounds on disk.
    pub log: LogSection,
    /// Whose time it is.
    pub time: TimeSection,
    /// Bounds of the engines.
    pub engine: EngineSection,
    /// Where the policy is.
    pub policy: PolicySection,
    /// What the service says about itself.
    pub telemetry: TelemetrySection,
    /// Who may ask.
    pub security: SecuritySection,
}

/// The API, the console and `/metrics`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSection {
    /// Address and port.
    pub listen: String,
    /// Address and port of a second listener for operators, with connections and threads of its own: the same routes,
    /// out of reach of any flood on the first. None by default.
    #[schemars(length(min = 1))]
    pub operator_listen: Option<String>,
    /// Connections at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_max: usize,
    /// Streams and long polls at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub watchers_max: usize,
    /// Bytes of a request's body.
    #[schemars(range(min = 1_024, max = 1_073_741_824))]
    pub body_bytes_max: usize,
    /// Bytes of all bodies on their way in.
    #[schemars(range(min = 1_024, max = 1_099_511_627_776_u64))]
    pub inflight_bytes_max: usize,
}

impl Default for HttpSection {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".into(),
            operator_listen: None,
            connections_max: 20_000,
            watchers_max: 10_000,
            body_bytes_max: 4 << 20,
            inflight_bytes_max: 64 << 20,
        }
    }
}

/// The OTLP receivers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OtlpSection {
    /// Address and port for gRPC.
    pub grpc_listen: String,
    /// Address and port for HTTP, with the path `/v1/metrics`.
    pub http_listen: String,
    /// Bytes of an HTTP body as sent.
    #[schemars(range(min = 1_024, max = 1_073_741_824))]
    pub body_bytes_max: u64,
    /// Bytes of an HTTP body after decompression.
    #[schemars(range(min = 1_024, max = 1_073_741_824))]
    pub body_decompressed_bytes_max: u64,
    /// Bytes of a gRPC message, as sent and after decompression.
    #[schemars(range(min = 1_024, max = 1_073_741_824))]
    pub grpc_message_bytes_max: u64,
    /// Bytes of all bodies under way; more are answered with a retryable error.
    #[schemars(range(min = 1_048_576))]
    pub inflight_bytes_max: u64,
    /// Connections of each listener.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_max: usize,
}

impl Default for OtlpSection {
    fn default() -> Self {
        Self {
            grpc_listen: "127.0.0.1:4317".into(),
            http_listen: "127.0.0.1:4318".into(),
            body_bytes_max: 20 << 20,
            body_decompressed_bytes_max: 64 << 20,
            grpc_message_bytes_max: 16 << 20,
            inflight_bytes_max: 256 << 20,
            connections_max: 10_000,
        }
    }
}

/// Which attributes name a server, its cell and its pool. Each entry is an attribute's key, or a template such as
/// `{service.namespace}/{service.name}`; the first that gives a name wins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IdentitySection {
    /// Tried before the attributes that name hosts by convention.
    #[schemars(length(max = 16), inner(length(min = 1)))]
    pub keys: Vec<String>,
    /// For the cell.
    #[schemars(length(max = 16), inner(length(min = 1)))]
    pub cell_keys: Vec<String>,
    /// For the pool.
    #[schemars(length(max = 16), inner(length(min = 1)))]
    pub pool_keys: Vec<String>,
    /// Whether `service.instance.id` may name a server that has no better name. Only where it survives restarts.
    pub allow_service_instance: bool,
}

impl Default for IdentitySection {
    fn default() -> Self {
        let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
        Self {
            keys: Vec::new(),
            cell_keys: keys(&["headroom.cell", "k8s.cluster.name", "cloud.availability_zone"]),
            pool_keys: keys(&["headroom.pool", "service.name"]),
            allow_service_instance: false,
        }
    }
}

/// What "acknowledged" means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// On the disk: survives a power cut.
    #[default]
    Synced,
    /// With the operating system: survives the death of the process, not of the machine.
    Written,
}

/// Where samples, snapshots and checkpoints lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// In the data directory: one process, nothing else needed.
    #[default]
    Disk,
    /// On the cluster of the `kafka` section: any number of processes.
    Kafka,
}

/// The sample log: where it lies, and its bounds on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogSection {
    /// Where it lies. Roles that run apart need `kafka`; all other keys here are about `disk`.
    pub backend: Backend,
    /// The data directory. Without one it is `headroom` under the user's state directory.
    pub data_dir: Option<String>,
    /// Partitions. Fixed for the life of a data directory.
    #[schemars(range(min = 1, max = 1_024))]
    pub partitions: u32,
    /// Bytes of a segment.
    #[schemars(range(min = 1_048_576, max = 1_073_741_824))]
    pub segment_bytes: u64,
    /// Bytes that a partition may hold; the oldest segments go first.
    #[schemars(range(min = 16_777_216))]
    pub bytes_max: u64,
    /// Bytes of a partition that its engine may be behind before samples are refused, retryable: what it is behind is how
    /// old decisions are, and what a restart goes through.
    #[schemars(range(min = 16_777_216))]
    pub lag_bytes_max: u64,
    /// Age at which a segment goes, whatever its size.
    #[schemars(range(min = 60))]
    pub age_max_seconds: Option<i64>,
    /// What "acknowledged" means.
    pub durability: Durability,
}

impl Default for LogSection {
    fn default() -> Self {
        Self {
            backend: Backend::Disk,
            data_dir: None,
            partitions: 2,
            segment_bytes: 64 << 20,
            bytes_max: 16 << 30,
            lag_bytes_max: 256 << 20,
            age_max_seconds: None,
            durability: Durability::Synced,
        }
    }
}

/// Whose time it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TimeMode {
    /// The wall clock's.
    #[default]
    #[serde(rename = "wall")]
    Wall,
    /// The senders', advanced by `POST /v1/clock` alone.
    #[serde(rename = "event")]
    Event,
    /// The senders', advanced by their samples.
    #[serde(rename = "event:follow")]
    EventFollow,
}

/// Whose time it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TimeSection {
    /// The clock.
    pub mode: TimeMode,
    /// Seconds from tick to tick.
    #[schemars(range(min = 1, max = 60))]
    pub tick_seconds: i64,
}

impl Default for TimeSection {
    fn default() -> Self {
        Self { mode: TimeMode::Wall, tick_seconds: 10 }
    }
}

/// Bounds of the engines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EngineSection {
    /// Servers of a cell; further ones are refused and counted.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub servers_max: usize,
    /// Series of a server that some input reads.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub series_per_server_max: usize,
    /// Seconds between checkpoints.
    #[schemars(range(min = 1, max = 86_400))]
    pub checkpoint_seconds: i64,
    /// Samples further ahead of the clock than this are set aside.
    #[schemars(range(min = 0, max = 86_400))]
    pub future_max_seconds: i64,
}

impl Default for EngineSection {
    fn default() -> Self {
        Self { servers_max: 1_000_000, series_per_server_max: 4_096, checkpoint_seconds: 30, future_max_seconds: 5 }
    }
}

/// Where the policy is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PolicySection {
    /// The policy's file. Without one the default policy is in force.
    #[schemars(length(min = 1))]
    pub file: Option<String>,
}

/// From which severity on the service logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Everything.
    Trace,
    /// For developers.
    Debug,
    /// What an operator may want to know.
    #[default]
    Info,
    /// What an operator should know.
    Warn,
    /// What needs an operator.
    Error,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// What the service says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetrySection {
    /// From which severity on it logs.
    pub log_level: LogLevel,
    /// How a log line looks.
    pub log_format: LogFormat,
    /// Series of `/metrics` that have a `server` label; 0 switches them off.
    #[schemars(range(min = 0, max = 10_000_000))]
    pub server_series_max: usize,
}

impl Default for TelemetrySection {
    fn default() -> Self {
        Self { log_level: LogLevel::Info, log_format: LogFormat::Auto, server_series_max: 10_000 }
    }
}

/// How a caller shows who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    /// It does not: whoever reaches the port may do everything.
    #[default]
    None,
    /// By a bearer token, or by a client certificate, of a caller in `security.callers_file`.
    Tokens,
}

/// Who may ask.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SecuritySection {
    /// How a caller shows who it is.
    pub auth: Auth,
    /// The callers and what each may do; read again when it changes. It holds no secret.
    #[schemars(length(min = 1))]
    pub callers_file: Option<String>,
    /// TLS of all listeners, on as soon as there is a certificate.
    pub tls: TlsSection,
    /// What one caller may have per second.
    pub limits: CallerLimitsSection,
    /// Whether `/metrics` is for everybody, where callers have to show who they are.
    pub open_metrics: bool,
    /// Whether tokens may come from other machines without TLS: a proxy in front encrypts.
    pub allow_plaintext: bool,
    /// Whether a listener may be reachable from other machines although nobody has to show who he is.
    pub allow_insecure_bind: bool,
}

/// Whether clients show certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// They are not asked to.
    #[default]
    None,
    /// They may; a bad one is refused.
    Optional,
    /// Whoever shows none is refused.
    Required,
}

/// TLS of all listeners. The files are PEM and are read again when they change; new ones that cannot be used leave the
/// old ones in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSection {
    /// The server's certificate, followed by those that it was issued by.
    #[schemars(length(min = 1))]
    pub cert_file: Option<String>,
    /// Its private key.
    #[schemars(length(min = 1))]
    pub key_file: Option<String>,
    /// The authorities whose client certificates are accepted.
    #[schemars(length(min = 1))]
    pub client_ca_file: Option<String>,
    /// Whether clients show certificates.
    pub client_auth: ClientAuth,
}

/// What one caller may have per second. Twice that may come at once. A caller is whom its token or certificate names,
/// else an address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CallerLimitsSection {
    /// Requests of the HTTP API.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub requests_per_second: u64,
    /// OTLP requests.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub exports_per_second: u64,
    /// Bytes of OTLP bodies as sent.
    #[schemars(range(min = 1, max = 1_000_000_000_000i64))]
    pub export_bytes_per_second: u64,
}

impl Default for CallerLimitsSection {
    fn default() -> Self {
        Self { requests_per_second: 200_000, exports_per_second: 50_000, export_bytes_per_second: 2 << 30 }
    }
}
