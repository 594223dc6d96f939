//! The counters of a source, looked up once: what is counted per record costs an atomic addition.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use headroom_telemetry::{Counter, Gauge, Telemetry, catalog};

use super::Refusal;

/// What of a source could not be used, for whoever runs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// The source.
    pub source: String,
    /// Why, as a metric label.
    pub reason: &'static str,
    /// Records, or samples of records that were otherwise taken, since the start.
    pub count: u64,
    /// What was wrong the last time.
    pub message: String,
}

/// Handles of one source.
#[derive(Clone, Debug)]
pub struct SourceMetrics {
    telemetry: Telemetry,
    source: String,
    /// By reason, of which there are few.
    refusals: Arc<Mutex<BTreeMap<&'static str, (u64, String)>>>,
    accepted: Counter,
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
            accepted: telemetry.counter(&catalog::KAFKA_SOURCE_POINTS, [name]),
            held: telemetry.gauge(&catalog::KAFKA_SOURCE_HELD, [name]),
            assigned: telemetry.gauge(&catalog::KAFKA_SOURCE_PARTITIONS, [name, "assigned"]),
            paused: telemetry.gauge(&catalog::KAFKA_SOURCE_PARTITIONS, [name, "paused"]),
            telemetry: telemetry.clone(),
            source: name.to_owned(),
            refusals: Arc::default(),
        }
    }

    pub(super) fn refused(&self, refusal: &Refusal) {
        self.telemetry.counter(&catalog::KAFKA_SOURCE_REFUSED, [&self.source, refusal.reason]).inc();
        self.remember(refusal.reason, 1, &refusal.message);
    }

    /// Counts samples of a record that was otherwise taken, or that the log will never take.
    pub fn rejected(&self, reason: &'static str, points: u64, message: &str) {
        self.telemetry.counter(&catalog::KAFKA_SOURCE_REJECTED_POINTS, [&self.source, reason]).add(points);
        self.remember(reason, points, message);
    }

    fn remember(&self, reason: &'static str, count: u64, message: &str) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let row = refusals.entry(reason).or_default();
        row.0 = row.0.saturating_add(count);
        if row.1 != message {
            message.clone_into(&mut row.1);
        }
    }

    /// What could not be used since the start, and why.
    pub fn refusals(&self) -> Vec<Refused> {
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = refusals.iter().map(|(reason, (count, message))| Refused {
            source: self.source.clone(),
            reason,
            count: *count,
            message: message.clone(),
        });
        rows.collect()
    }

    pub(super) fn letter(&self, outcome: &str) {
        self.telemetry.counter(&catalog::KAFKA_SOURCE_LETTERS, [&self.source, outcome]).inc();
    }

    /// Samples that the log has acknowledged: whoever sees them counted finds them there.
    pub(super) fn accepted(&self, points: u64) {
        self.accepted.add(points);
    }

    pub(super) fn retry(&self, reason: &str) {
        self.telemetry.counter(&catalog::KAFKA_SOURCE_RETRIES, [&self.source, reason]).inc();
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
