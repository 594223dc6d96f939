//! The topics of the ports: their names, their settings, and the refusal to run on others.
//!
//! A topic that exists is never altered: somebody may have meant it so, and a program that repairs what it finds hides
//! the mistake until the day it matters. It is checked, and a setting that would lose data or break a promise is a
//! refusal with the command that mends it.

use crate::cluster::Cluster;

/// What a setting must be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    /// Exactly this.
    Exactly(String),
    /// This number or a larger one.
    AtLeast(i64),
    /// Whatever it is now; this when we make the topic.
    AtCreation(String),
}

impl Wanted {
    fn value(&self) -> String {
        match self {
            Self::Exactly(value) | Self::AtCreation(value) => value.clone(),
            Self::AtLeast(number) => number.to_string(),
        }
    }

    fn accepts(&self, found: &str) -> bool {
        match self {
            Self::Exactly(value) => {
                // `compact,delete` in another order, or with a blank, is the same.
                let parts = |text: &str| {
                    let mut parts: Vec<_> = text.split(',').map(|part| part.trim().to_owned()).collect();
                    parts.sort();
                    parts
                };
                parts(value) == parts(found)
            }
            Self::AtLeast(number) => found.parse::<i64>().is_ok_and(|found| found >= *number),
            Self::AtCreation(_) => true,
        }
    }
}

/// How the topics of an installation are laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// What the names of all topics begin with.
    pub prefix: String,
    /// Partitions of each but the control topic, which has one; fixed for their life, because the cell's hash decides.
    pub partitions: u32,
    /// Copies of each record.
    pub replication_factor: u32,
    /// How long samples and decision events are kept, ms.
    pub retention_ms: i64,
    /// Bytes of a message; larger records are split.
    pub message_bytes_max: usize,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            prefix: "headroom".to_owned(),
            partitions: 16,
            replication_factor: 3,
            retention_ms: 7 * 24 * 3600 * 1000,
            message_bytes_max: 8 << 20,
        }
    }
}

impl Layout {
    /// The sample log's topic.
    pub fn samples(&self) -> String {
        format!("{}.samples", self.prefix)
    }

    /// The snapshot log's topic.
    pub fn snapshots(&self) -> String {
        format!("{}.snapshots", self.prefix)
    }

    /// The checkpoint store's topic.
    pub fn checkpoints(&self) -> String {
        format!("{}.checkpoints", self.prefix)
    }

    /// The topic of changed decisions.
    pub fn decisions(&self) -> String {
        format!("{}.decisions", self.prefix)
    }

    /// The topic of what holds for the whole cluster.
    pub fn control(&self) -> String {
        format!("{}.control", self.prefix)
    }

    /// The group whose members share the partitions.
    pub fn aggregators(&self) -> String {
        format!("{}.aggregators", self.prefix)
    }

    /// Bytes that a record may have in a message: the rest is for its key and the framing around it.
    pub(crate) fn record_bytes_max(&self) -> usize {
        self.message_bytes_max - 4096
    }

    /// Copies that must have a record before it is acknowledged: one may be missing, but never all but one of three.
    fn in_sync_min(&self) -> i64 {
        i64::from(if self.replication_factor >= 3 { 2 } else { 1u32 })
    }

    fn durable(&self) -> Vec<(&'static str, Wanted)> {
        vec![
            ("max.message.bytes", Wanted::AtLeast(self.message_bytes_max as i64)),
            ("min.insync.replicas", Wanted::AtLeast(self.in_sync_min())),
            ("unclean.leader.election.enable", Wanted::Exactly("false".to_owned())),
        ]
    }

    fn kept(&self) -> Vec<(&'static str, Wanted)> {
        let mut settings = self.durable();
        settings.push(("cleanup.policy", Wanted::Exactly("delete".to_owned())));
        settings.push(("retention.ms", Wanted::Exactly(self.retention_ms.to_string())));
        settings
    }

    /// The settings of a topic of ours.
    fn settings(&self, topic: &str) -> Vec<(&'static str, Wanted)> {
        let unbounded = |wanted: fn(String) -> Wanted| ("retention.bytes", wanted("-1".to_owned()));
        if topic == self.samples() {
            // What was acknowledged and not yet read must not go because there is much of it.
            [self.kept(), vec![unbounded(Wanted::Exactly)]].concat()
        } else if topic == self.decisions() {
            [self.kept(), vec![unbounded(Wanted::AtCreation)]].concat()
        } else {
            self.compacted()
        }
    }

    fn compacted(&self) -> Vec<(&'static str, Wanted)> {
        let mut settings = self.durable();
        settings.push(("cleanup.policy", Wanted::Exactly("compact".to_owned())));
        // What was overtaken is large and read by everybody who starts: it should go soon.
        for (key, value) in [
            ("segment.bytes", "67108864"),
            ("segment.ms", "600000"),
            ("min.cleanable.dirty.ratio", "0.2"),
            ("max.compaction.lag.ms", "3600000"),
        ] {
            settings.push((key, Wanted::AtCreation(value.to_owned())));
        }
        settings
    }

    /// Makes the topics that are missing and checks those that are there.
    pub(crate) fn ensure(&self, cluster: &Cluster, topic: &str) -> Result<(), String> {
        let settings = self.settings(topic);
        let partitions = if topic == self.control() { 1 } else { self.partitions };
        let unknown = |error: &dyn std::fmt::Display| format!("kafka: the topic {topic} cannot be looked up: {error}");
        if cluster.topic(topic).map_err(|error| unknown(&error))?.is_none() {
            let values: Vec<_> = settings.iter().map(|(key, wanted)| (*key, wanted.value())).collect();
            cluster.create(topic, partitions, self.replication_factor, &values).map_err(|error| {
                format!(
                    "kafka: the topic {topic} is not there and cannot be made with {partitions} partitions and \
                     kafka.replication_factor {}: {error}{}",
                    self.replication_factor,
                    if error.contains("InvalidReplicationFactor") {
                        "; there are fewer brokers than that, on one set kafka.replication_factor: 1"
                    } else {
                        ""
                    }
                )
            })?;
            tracing::info!(topic, partitions, "made a topic");
        }
        // A topic that was just made is known to one broker before the others.
        let deadline = std::time::Instant::now() + crate::cluster::ASK;
        let found = loop {
            match cluster.topic(topic) {
                Ok(Some(found)) => break found,
                Ok(None) if std::time::Instant::now() > deadline => {
                    return Err(format!(
                        "kafka: the topic {topic} was made, but the brokers do not know it yet; try again"
                    ));
                }
                Err(error) if std::time::Instant::now() > deadline => return Err(unknown(&error)),
                _ => std::thread::sleep(std::time::Duration::from_millis(50)),
            }
        };
        if topic == self.control() && found.partitions != partitions {
            return Err(format!(
                "kafka: the topic {topic} has {} partitions, but needs one, so that modes have one order; delete it, it is \
                 made anew, or begin anew under another kafka.topic_prefix",
                found.partitions
            ));
        }
        if found.partitions != partitions {
            return Err(format!(
                "kafka: the topic {topic} has {} partitions, kafka.partitions says {partitions}; the count is fixed for the life of \
                 the topics, because it decides where a cell lies: set kafka.partitions to {}, or begin anew under another \
                 kafka.topic_prefix",
                found.partitions, found.partitions
            ));
        }
        if found.replication_factor < self.replication_factor {
            return Err(format!(
                "kafka: the topic {topic} has {} copies of each record, kafka.replication_factor says {}; add some with \
                 kafka-reassign-partitions.sh --bootstrap-server {}, or set kafka.replication_factor to {}",
                found.replication_factor,
                self.replication_factor,
                cluster.brokers(),
                found.replication_factor
            ));
        }
        let actual = cluster.settings(topic).map_err(|error| unknown(&error))?;
        for (key, wanted) in &settings {
            let Some((_, value)) = actual.iter().find(|(name, _)| name == key) else { continue };
            if !wanted.accepts(value) {
                return Err(format!(
                    "kafka: the topic {topic} has {key}={value}, but needs {}{}; repair it with: kafka-configs.sh \
                     --bootstrap-server {} --alter --entity-type topics --entity-name {topic} --add-config {key}={}",
                    if matches!(wanted, Wanted::AtLeast(_)) { "at least " } else { "" },
                    wanted.value(),
                    cluster.brokers(),
                    wanted.value()
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bound_in_bytes_may_delete_samples() {
        let layout = Layout::default();
        let of = |topic: String| layout.settings(&topic).into_iter().find(|(key, _)| *key == "retention.bytes");
        let accepts = |topic, found| of(topic).is_some_and(|(_, wanted)| wanted.accepts(found));
        assert!(accepts(layout.samples(), "-1") && !accepts(layout.samples(), "1073741824"));
        assert!(accepts(layout.decisions(), "1073741824"), "whoever reads decisions may keep as few as they like");
    }

    #[test]
    fn settings_are_compared_as_they_are_meant() {
        for (wanted, found, accepted) in [
            (Wanted::Exactly("compact,delete".into()), "delete, compact", true),
            (Wanted::Exactly("compact".into()), "delete", false),
            (Wanted::Exactly("compact".into()), "compact,delete", false),
            (Wanted::AtLeast(2), "3", true),
            (Wanted::AtLeast(2), "1", false),
            (Wanted::AtLeast(2), "many", false),
            (Wanted::AtCreation("1".into()), "2", true),
        ] {
            assert_eq!(wanted.accepts(found), accepted, "{wanted:?} {found}");
        }
    }
}
