//! Which roles a process has.

use std::fmt;

use headroom_config::{Backend, Config};

use crate::cli::RoleArg;

/// The roles of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Roles {
    pub(crate) otlp_ingestor: bool,
    pub(crate) kafka_ingestor: bool,
    pub(crate) aggregator: bool,
    pub(crate) health_api: bool,
}

impl Roles {
    /// All in one process.
    pub(crate) fn all() -> Self {
        Self::of(&[RoleArg::All])
    }

    /// Those that were asked for.
    pub(crate) fn of(args: &[RoleArg]) -> Self {
        let has = |role| args.contains(&role) || args.contains(&RoleArg::All);
        Self {
            otlp_ingestor: has(RoleArg::OtlpIngestor),
            kafka_ingestor: has(RoleArg::KafkaIngestor),
            aggregator: has(RoleArg::Aggregator),
            health_api: has(RoleArg::HealthApi),
        }
    }

    fn is_all(self) -> bool {
        self == Self::all()
    }

    /// Whether these roles can run on the configured log.
    ///
    /// # Errors
    /// What to do where they cannot.
    pub(crate) fn check(self, config: &Config) -> Result<(), String> {
        if !self.is_all() && config.log.backend == Backend::Disk {
            return Err(format!(
                "the role {self} runs apart from the others, and a data directory belongs to one process: set log.backend: \
                 kafka and kafka.brokers, or leave --role away to run all roles here"
            ));
        }
        if self.kafka_ingestor && !self.is_all() && config.kafka.sources.is_empty() {
            return Err("the role kafka-ingestor has nothing to read: name topics under kafka.sources".to_owned());
        }
        Ok(())
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_all() {
            return f.write_str("all");
        }
        let names = [
            (self.otlp_ingestor, "otlp-ingestor"),
            (self.kafka_ingestor, "kafka-ingestor"),
            (self.aggregator, "aggregator"),
            (self.health_api, "health-api"),
        ];
        let names: Vec<_> = names.into_iter().filter(|(has, _)| *has).map(|(_, name)| name).collect();
        f.write_str(&names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_apart_need_a_log_that_they_share() {
        let mut config = Config::default();
        assert_eq!(Roles::all().check(&config), Ok(()));
        let apart = Roles::of(&[RoleArg::Aggregator, RoleArg::HealthApi]);
        assert_eq!(apart.to_string(), "aggregator,health-api");
        let error = apart.check(&config).err().unwrap_or_default();
        assert!(error.contains("log.backend: kafka"), "{error}");
        config.log.backend = Backend::Kafka;
        assert_eq!(apart.check(&config), Ok(()));
    }
}
