//! From the configuration's keys to what each part takes.

use std::net::SocketAddr;

use headroom_config::{Config, Durability, IdentitySection};
use headroom_engine::{EngineConfig, RegistryLimits, WindowLimits};
use headroom_ingest::{IdentityConfig, NameRule};
use headroom_kafka::Layout;
use headroom_log::disk::{DiskLogOptions, Durability as LogDurability};
use headroom_otlp_ingestor::{IngestorOptions, Limits};

use crate::app::{Addresses, CELLS_MAX};

/// The address that a key of the configuration holds.
pub(crate) fn address(key: &str, text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("{key}: `{text}` is no address; write it as 127.0.0.1:8080"))
}

pub(crate) fn addresses(config: &Config) -> Result<Addresses, String> {
    Ok(Addresses {
        otlp_grpc: address("otlp.grpc_listen", &config.otlp.grpc_listen)?,
        otlp_http: address("otlp.http_listen", &config.otlp.http_listen)?,
        http: address("http.listen", &config.http.listen)?,
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
        lag_bytes_max: config.log.lag_bytes_max,
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

/// What of a Kafka source could not be used, for the same list.
pub(crate) fn refused_of_topic(refused: headroom_kafka::source::Refused) -> headroom_wire::operate::SeenMetric {
    headroom_wire::operate::SeenMetric {
        metric: "*".to_owned(),
        senders: vec![format!("kafka source {}", refused.source)],
        samples: refused.count,
        reason: Some(format!("{}: {}", refused.reason, refused.message)),
        ..Default::default()
    }
}

/// The rules of an `identity` section, which is at `path`.
///
/// # Errors
/// Which rule is none.
pub(crate) fn identity(section: &IdentitySection, path: &str) -> Result<IdentityConfig, String> {
    let rules = |key: &str, rules: &[String]| {
        rules
            .iter()
            .map(|rule| rule.parse::<NameRule>().map_err(|error| format!("{path}.{key}: {error}")))
            .collect::<Result<Vec<_>, _>>()
    };
    Ok(IdentityConfig {
        server: rules("keys", &section.keys)?,
        allow_service_instance: section.allow_service_instance,
        cell: rules("cell_keys", &section.cell_keys)?,
        pool: rules("pool_keys", &section.pool_keys)?,
    })
}

pub(crate) fn ingestor_options(config: &Config) -> Result<IngestorOptions, String> {
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
        identity: identity(&config.identity, "identity")?,
        ..IngestorOptions::default()
    })
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
