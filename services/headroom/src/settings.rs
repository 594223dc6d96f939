//! From the configuration's keys to what each part takes.

use std::path::PathBuf;

use headroom_config::{Config, Durability, KafkaMechanism};
use headroom_engine::{EngineConfig, RegistryLimits, WindowLimits};
use headroom_ingest::{IdentityConfig, NameRule};
use headroom_kafka::{Connection, Layout, Mechanism, Sasl, Tls};
use headroom_log::disk::{DiskLogOptions, Durability as LogDurability};
use headroom_otlp_ingestor::{IngestorOptions, Limits};

use crate::app::{Addresses, CELLS_MAX};

pub(crate) fn addresses(config: &Config) -> Result<Addresses, String> {
    let parse = |key: &str, text: &str| {
        text.parse().map_err(|_| format!("{key}: `{text}` is no address; write it as 127.0.0.1:8080"))
    };
    Ok(Addresses {
        otlp_grpc: parse("otlp.grpc_listen", &config.otlp.grpc_listen)?,
        otlp_http: parse("otlp.http_listen", &config.otlp.http_listen)?,
        http: parse("http.listen", &config.http.listen)?,
    })
}

pub(crate) fn log_options(config: &Config) -> DiskLogOptions {
    DiskLogOptions {
        durability: match config.log.durability {
            Durability::Synced => LogDurability::Synced,
            Durability::Written => LogDurability::Written,
        },
        segment_bytes: config.log.segment_bytes,
        bytes_max: config.log.bytes_max,
        age_max_ns: config.log.age_max_seconds.map(|seconds| seconds.saturating_mul(1_000_000_000)),
        ..DiskLogOptions::default()
    }
}

pub(crate) fn engine_config(config: &Config, event_time: bool) -> EngineConfig {
    EngineConfig {
        tick_seconds: config.time.tick_seconds,
        future_max_seconds: (!event_time).then_some(config.engine.future_max_seconds),
        cells_max: CELLS_MAX,
        registry: RegistryLimits {
            servers_max: config.engine.servers_max,
            pending_max: config.engine.servers_max,
            ..RegistryLimits::default()
        },
        window: WindowLimits { rows_per_server_max: config.engine.series_per_server_max, ..WindowLimits::default() },
    }
}

/// A sender whose points were rejected, as `GET /v1/inputs` shows it: a rejection is about whole resources as often as
/// about one metric, so it names none.
pub(crate) fn refused(refused: headroom_otlp_ingestor::Refused) -> headroom_wire::operate::SeenMetric {
    headroom_wire::operate::SeenMetric {
        metric: "*".to_owned(),
        senders: vec![refused.sender],
        samples: refused.points,
        reason: Some(refused.message),
        ..Default::default()
    }
}

pub(crate) fn ingestor_options(config: &Config) -> Result<IngestorOptions, String> {
    let rules = |key: &str, rules: &[String]| {
        rules
            .iter()
            .map(|rule| rule.parse::<NameRule>().map_err(|error| format!("identity.{key}: {error}")))
            .collect::<Result<Vec<_>, _>>()
    };
    let otlp = &config.otlp;
    Ok(IngestorOptions {
        limits: Limits {
            body_bytes_max: otlp.body_bytes_max,
            body_decompressed_bytes_max: otlp.body_decompressed_bytes_max,
            grpc_message_bytes_max: otlp.grpc_message_bytes_max,
            inflight_bytes_max: otlp.inflight_bytes_max,
            connections_max: otlp.connections_max,
            ..Limits::default()
        },
        identity: IdentityConfig {
            server: rules("keys", &config.identity.keys)?,
            allow_service_instance: config.identity.allow_service_instance,
            cell: rules("cell_keys", &config.identity.cell_keys)?,
            pool: rules("pool_keys", &config.identity.pool_keys)?,
        },
        ..IngestorOptions::default()
    })
}

/// How the cluster is reached.
///
/// # Errors
/// If the credentials are incomplete or cannot be read.
pub(crate) fn connection(config: &Config) -> Result<Connection, String> {
    let kafka = &config.kafka;
    if kafka.brokers.is_empty() {
        return Err("kafka.brokers is empty: name at least one as host:port".to_owned());
    }
    let path = |file: &Option<String>| file.as_ref().map(PathBuf::from);
    let tls = path(&kafka.tls.ca_file).map(|ca_file| Tls {
        ca_file,
        cert_file: path(&kafka.tls.cert_file),
        key_file: path(&kafka.tls.key_file),
    });
    if tls.is_none() && (kafka.tls.cert_file.is_some() || kafka.tls.key_file.is_some()) {
        return Err(
            "kafka.tls.cert_file and key_file need kafka.tls.ca_file: without it there is no encryption".to_owned()
        );
    }
    let sasl = match &kafka.sasl.username {
        None => None,
        Some(username) => Some(Sasl {
            mechanism: match kafka.sasl.mechanism {
                KafkaMechanism::Plain => Mechanism::Plain,
                KafkaMechanism::ScramSha256 => Mechanism::ScramSha256,
                KafkaMechanism::ScramSha512 => Mechanism::ScramSha512,
            },
            username: username.clone(),
            password: password(config)?,
        }),
    };
    Ok(Connection { brokers: kafka.brokers.clone(), tls, sasl, client_id: String::new() })
}

fn password(config: &Config) -> Result<String, String> {
    match (&config.kafka.sasl.password_file, &config.kafka.sasl.password_env) {
        (Some(file), None) => std::fs::read_to_string(file)
            .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
            .map_err(|error| format!("kafka.sasl.password_file: cannot read {file}: {error}")),
        (None, Some(name)) => std::env::var(name)
            .map_err(|_| format!("kafka.sasl.password_env: the environment variable {name} is not set")),
        (Some(_), Some(_)) => Err("kafka.sasl: set password_file or password_env, not both".to_owned()),
        (None, None) => Err("kafka.sasl.username needs kafka.sasl.password_file or kafka.sasl.password_env".to_owned()),
    }
}

/// How the topics are laid out.
pub(crate) fn layout(config: &Config) -> Layout {
    let kafka = &config.kafka;
    Layout {
        prefix: kafka.topic_prefix.clone(),
        partitions: kafka.partitions,
        replication_factor: kafka.replication_factor,
        retention_ms: kafka.retention_seconds.saturating_mul(1000),
        message_bytes_max: kafka.message_bytes_max,
    }
}
