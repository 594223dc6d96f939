//! The counters of a source, looked up once: what is counted per record costs an atomic addition.

use headroom_telemetry::{Counter, Gauge, Telemetry, catalog};

/// Handles of one source.
#[derive(Clone, Debug)]
pub struct SourceMetrics {
    telemetry: Telemetry,
    source: String,
    pub(super) bytes: Counter,
    pub(super) held: Gauge,
    pub(super) assigned: Gauge,
    pub(super) paused: Gauge,
}

impl SourceMetrics {
    /// The handles of the source `name` in a telemetry.
    pub fn new(telemetry: &Telemetry, name: &str) -> Self {
        Self {
            bytes: telemetry.counter(&catalog::KAFKA_SOURCE_BYTES, [name]),
            held: telemetry.gauge(&catalog::KAFKA_SOURCE_HELD, [name]),
            assigned: telemetry.gauge(&catalog::KAFKA_SOURCE_PARTITIONS, [name, "assigned"]),
            paused: telemetry.gauge(&catalog::KAFKA_SOURCE_PARTITIONS, [name, "paused"]),
            telemetry: telemetry.clone(),
            source: name.to_owned(),
        }
    }

    pub(super) fn refused(&self, reason: &str) {
        self.telemetry.counter(&catalog::KAFKA_SOURCE_REFUSED, [&self.source, reason]).inc();
    }

    pub(super) fn letter(&self, outcome: &str) {
        self.telemetry.counter(&catalog::KAFKA_SOURCE_LETTERS, [&self.source, outcome]).inc();
    }

    pub(super) fn retry(&self, reason: &str) {
        self.telemetry.counter(&catalog::KAFKA_SOURCE_RETRIES, [&self.source, reason]).inc();
    }

    pub(super) fn lost(&self, reason: &str, points: u64) {
        self.telemetry.counter(&catalog::KAFKA_SOURCE_REJECTED_POINTS, [&self.source, reason]).add(points);
    }

    pub(super) fn rebalance(&self, event: &str) {
        self.telemetry.counter(&catalog::KAFKA_SOURCE_REBALANCES, [&self.source, event]).inc();
    }

    pub(super) fn commit(&self, outcome: &str) {
        self.telemetry.counter(&catalog::KAFKA_SOURCE_COMMITS, [&self.source, outcome]).inc();
    }

    pub(super) fn error(&self, kind: &str) {
        self.telemetry.counter(&catalog::KAFKA_SOURCE_ERRORS, [&self.source, kind]).inc();
    }

    pub(super) fn lag(&self, topic: &str, partition: i32, lag: i64) {
        let partition = partition.to_string();
        self.telemetry.gauge(&catalog::KAFKA_SOURCE_LAG, [&self.source, topic, &partition]).set(lag as f64);
    }

    pub(super) fn forget_lag(&self, topic: &str, partition: i32) {
        self.telemetry.forget(catalog::KAFKA_SOURCE_LAG.metric(), &[&self.source, topic, &partition.to_string()]);
    }
}
