//! The Kafka sources of the configuration, started.

use std::path::Path;
use std::sync::Arc;

use headroom_config::{
    Config, KafkaSaslMechanism, KafkaSaslSection, KafkaSource, KafkaTlsSection, SourceEncoding, SourceGroupProtocol,
    SourceStart, TimeMode,
};
use headroom_ingest::{IngestLimits, MessageEncoding};
use headroom_kafka::source::{GroupProtocol, SourceOptions, Start};
use headroom_kafka::{Connection, Mechanism, Sasl, Tls};
use headroom_kafka_ingestor::{Source, Sources};
use headroom_log::SampleLog;
use headroom_telemetry::Telemetry;

use crate::{clock, settings};

/// Starts the readers of `kafka.sources`.
///
/// # Errors
/// A sentence that names the setting in the way.
pub(crate) fn start(config: &Config, log: &Arc<dyn SampleLog>, telemetry: &Telemetry) -> Result<Sources, String> {
    let sources = config.kafka.sources.iter().enumerate();
    let sources = sources.map(|(at, section)| source(config, at, section)).collect::<Result<Vec<_>, _>>()?;
    for source in &sources {
        let options = &source.options;
        let (name, group) = (options.name.as_str(), options.group.as_str());
        tracing::info!(source = name, topics = options.topics.join(","), group, "reading from Kafka");
    }
    Sources::start(sources, log, telemetry)
}

fn source(config: &Config, at: usize, section: &KafkaSource) -> Result<Source, String> {
    let path = format!("kafka.sources.{at}");
    let connection = cluster_of(config, at, section)?;
    let identity = section.identity.as_ref().map(|own| settings::identity(own, &format!("{path}.identity")));
    Ok(Source {
        options: SourceOptions {
            name: section.name.clone(),
            connection,
            topics: section.topics.clone(),
            group: section.group.clone(),
            group_protocol: match section.group_protocol {
                SourceGroupProtocol::Classic => GroupProtocol::Classic,
                SourceGroupProtocol::Consumer => GroupProtocol::Consumer,
            },
            start: match section.start {
                SourceStart::Earliest => Start::Earliest,
                SourceStart::Latest => Start::Latest,
            },
            bytes_max: section.bytes_max,
            dead_letter_topic: section.dead_letter_topic.clone(),
            // In event time the senders' time is the only one.
            wall_ms: match config.time.mode {
                TimeMode::Wall => || clock::now().0.div_euclid(1_000_000),
                TimeMode::Event | TimeMode::EventFollow => || i64::MAX,
            },
        },
        encoding: match section.encoding {
            SourceEncoding::Auto => None,
            SourceEncoding::OtlpProto => Some(MessageEncoding::OtlpProto),
            SourceEncoding::OtlpJson => Some(MessageEncoding::OtlpJson),
            SourceEncoding::Json => Some(MessageEncoding::Json),
            SourceEncoding::Arrow => Some(MessageEncoding::Arrow),
        },
        identity: identity.unwrap_or_else(|| settings::identity(&config.identity, "identity"))?,
        limits: IngestLimits::default(),
        readers: section.readers,
    })
}

/// The clusters of the configuration: what asks each, and the topics that must be there. Ours are made where they are not.
///
/// # Errors
/// If a password cannot be had.
pub(crate) fn clusters(config: &Config) -> Result<Vec<(String, Connection, Vec<String>)>, String> {
    let kafka = &config.kafka;
    let mut clusters = Vec::new();
    if !kafka.brokers.is_empty() {
        let own = connection("kafka", &kafka.brokers, kafka.tls.as_ref(), kafka.sasl.as_ref())?;
        clusters.push(("kafka.brokers".to_owned(), own, Vec::new()));
    }
    for (at, section) in kafka.sources.iter().enumerate() {
        let connection = cluster_of(config, at, section)?;
        clusters.push((format!("kafka source {}", section.name), connection, section.topics.clone()));
    }
    Ok(clusters)
}

/// The cluster that a source reads: its own, or the one that all share.
fn cluster_of(config: &Config, at: usize, section: &KafkaSource) -> Result<Connection, String> {
    let kafka = &config.kafka;
    if section.brokers.is_empty() {
        connection("kafka", &kafka.brokers, kafka.tls.as_ref(), kafka.sasl.as_ref())
    } else {
        let path = format!("kafka.sources.{at}");
        connection(&path, &section.brokers, section.tls.as_ref(), section.sasl.as_ref())
    }
}

/// A cluster as configured at `path`, with the password read from where it is.
///
/// # Errors
/// If the password, or a file of the encryption, cannot be had.
pub(crate) fn connection(
    path: &str,
    brokers: &[String],
    tls: Option<&KafkaTlsSection>,
    sasl: Option<&KafkaSaslSection>,
) -> Result<Connection, String> {
    if let Some(tls) = tls {
        let files = [
            ("ca_file", Some(&tls.ca_file)),
            ("cert_file", tls.cert_file.as_ref()),
            ("key_file", tls.key_file.as_ref()),
        ];
        for (key, file) in files {
            // The library's own complaint names neither the key nor the file.
            if let Some(file) = file {
                crate::configuration::read(Path::new(file)).map_err(|error| format!("{path}.tls.{key}: {error}"))?;
            }
        }
    }
    Ok(Connection {
        brokers: brokers.to_vec(),
        tls: tls.map(|tls| Tls {
            ca_file: (&tls.ca_file).into(),
            cert_file: tls.cert_file.as_ref().map(Into::into),
            key_file: tls.key_file.as_ref().map(Into::into),
        }),
        sasl: sasl.map(|sasl| credentials(path, sasl)).transpose()?,
        client_id: String::new(),
    })
}

fn credentials(path: &str, section: &KafkaSaslSection) -> Result<Sasl, String> {
    let password = match (&section.password_file, &section.password_env) {
        (Some(file), _) => crate::configuration::read(Path::new(file))
            .map_err(|error| format!("{path}.sasl.password_file: {error}"))?
            .trim_end_matches(['\r', '\n'])
            .to_owned(),
        (None, Some(name)) => std::env::var(name)
            .map_err(|_| format!("{path}.sasl.password_env: the environment variable {name} is not set"))?,
        (None, None) => return Err(format!("{path}.sasl has neither password_file nor password_env")),
    };
    Ok(Sasl {
        mechanism: match section.mechanism {
            KafkaSaslMechanism::Plain => Mechanism::Plain,
            KafkaSaslMechanism::ScramSha256 => Mechanism::ScramSha256,
            KafkaSaslMechanism::ScramSha512 => Mechanism::ScramSha512,
        },
        username: section.username.clone(),
        password,
    })
}
