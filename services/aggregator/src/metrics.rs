//! What the engines count, put under the catalogue's names once per tick.
//!
//! Engines know no metrics; they keep plain totals, and this module adds to the series what is new in them. It never sets a
//! series to a total: what has no series of its own shares `other` with the rest, and partitions share some from the
//! start. Decisions are aggregated here too, from the snapshot that is published, so that what a dashboard shows is what
//! a consumer got.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use headroom_engine::{CellReport, Counters, Partition, RegistryCounters};
use headroom_model::CellSnapshot;
use headroom_model::frame::{FaultState, LoadState, Placement, flag};
use headroom_telemetry::catalog::{self, Kind};
use headroom_telemetry::{Counter, Telemetry};

/// Names of the modes as the throttle numbers them.
const MODES: [&str; 3] = ["off", "observe", "enforce"];

/// Servers of a cell whose scores are metrics at all. More would be refused by the catalogue's bound anyway, and a million
/// label sets a tick cost more than the tick.
const SERVER_ROWS_MAX: usize = 10_000;

/// Publishes the engines' numbers.
#[derive(Clone, Debug)]
pub struct Metrics {
    telemetry: Telemetry,
}

impl Metrics {
    /// Numbers of engines in a telemetry.
    pub fn new(telemetry: &Telemetry) -> Self {
        Self { telemetry: telemetry.clone() }
    }

    pub(crate) fn checkpoint(&self, partition: u32, duration: Duration, bytes: usize) {
        let partition = partition.to_string();
        self.telemetry.histogram(&catalog::CHECKPOINT_DURATION, [&partition]).observe_duration(duration);
        self.telemetry.gauge(&catalog::CHECKPOINT_SIZE, [&partition]).set(bytes as f64);
    }

    pub(crate) fn checkpoint_failed(&self, partition: u32) {
        self.telemetry.counter(&catalog::CHECKPOINT_FAILURES, [&partition.to_string()]).inc();
    }

    pub(crate) fn engine_failed(&self, partition: u32) {
        self.telemetry.counter(&catalog::ENGINE_FAILURES, [&partition.to_string()]).inc();
    }

    /// Records passed over after an outage that are still to be taken up.
    pub(crate) fn backlog(&self, partition: u32, records: u64) {
        self.telemetry.gauge(&catalog::ENGINE_BACKLOG, [&partition.to_string()]).set(records as f64);
    }

    /// Begins to show an engine that was just made.
    pub(crate) fn engine(&self, partition: u32) -> EngineMetrics {
        EngineMetrics {
            telemetry: self.telemetry.clone(),
            partition: partition.to_string(),
            counted: Counters::default(),
            cells: BTreeMap::new(),
        }
    }
}

/// What one engine shows, from when it was made until its partition goes elsewhere or it fails. Dropping it takes its
/// gauges back: whoever owns the partition next shows them, and two of one cell would add up.
pub(crate) struct EngineMetrics {
    telemetry: Telemetry,
    partition: String,
    /// The totals of the engine that were added already, and those of its cells.
    counted: Counters,
    cells: BTreeMap<Arc<str>, BTreeMap<&'static str, u64>>,
}

impl Drop for EngineMetrics {
    fn drop(&mut self) {
        for cell in self.cells.keys() {
            forget(&self.telemetry, cell);
        }
        for metric in [catalog::CHECKPOINT_SIZE.metric(), catalog::ENGINE_BACKLOG.metric()] {
            self.telemetry.forget(metric, &[&self.partition]);
        }
    }
}

/// Takes back the present values of a cell. Its counters stay: they say what has been.
fn forget(telemetry: &Telemetry, cell: &str) {
    // The age of a snapshot is told by who reads it, whoever made it.
    let of_cells = catalog::ALL.iter().filter(|metric| {
        metric.kind == Kind::Gauge
            && metric.labels.first().is_some_and(|label| label.name == "cell")
            && metric.index != catalog::ENGINE_SNAPSHOT_AGE.metric().index
    });
    for metric in of_cells {
        telemetry.forget(metric, &[cell]);
    }
}

/// Adds to a series what a total has grown by since it was last seen.
fn grow(series: &Counter, counted: &mut u64, total: u64) {
    series.add(total.saturating_sub(std::mem::replace(counted, total)));
}

impl EngineMetrics {
    pub(crate) fn tick(&mut self, duration: Duration, engine: &mut Partition) {
        let telemetry = &self.telemetry;
        let number = &*self.partition;
        telemetry.histogram(&catalog::ENGINE_TICK_DURATION, [number]).observe_duration(duration);
        telemetry.counter(&catalog::ENGINE_TICKS, [number, "published"]).inc();
        let (counters, counted) = (engine.counters(), &mut self.counted);
        grow(
            &telemetry.counter(&catalog::ENGINE_TICKS, [number, "ignored"]),
            &mut counted.ticks_ignored,
            counters.ticks_ignored,
        );
        self.refused(counters);
        for (cell, report) in engine.reports() {
            self.cell(cell, &report);
        }
        for (cell, counted) in engine.take_registry_counters() {
            self.registry(&cell, &counted);
        }
    }

    /// What no cell refused: series that all partitions share.
    fn refused(&mut self, counters: Counters) {
        let counted = &mut self.counted;
        for (bound, counted, total) in [
            ("cells_max", &mut counted.cells_refused, counters.cells_refused),
            ("no_policy", &mut counted.points_refused, counters.points_refused),
        ] {
            if total > *counted {
                grow(&self.telemetry.counter(&catalog::ENGINE_REFUSED, ["", bound]), counted, total);
            }
        }
    }

    fn cell(&mut self, cell: &Arc<str>, report: &CellReport) {
        let telemetry = &self.telemetry;
        telemetry.gauge(&catalog::ENGINE_RESOURCES, [cell]).set(report.resources as f64);
        telemetry.gauge(&catalog::ENGINE_SERIES, [cell]).set(report.series as f64);
        telemetry.gauge(&catalog::ENGINE_ROWS, [cell, "number"]).set(report.rows as f64);
        telemetry.gauge(&catalog::ENGINE_ROWS, [cell, "histogram"]).set(report.histogram_rows as f64);
        let window = report.window;
        let counted = self.cells.entry(cell.clone()).or_default();
        for (outcome, total) in [
            ("accepted", window.samples),
            ("unmatched", window.unmatched),
            ("skipped", window.skipped),
            ("late", window.late),
            ("backlog", window.backlog),
            ("future", window.future),
            ("out_of_range", window.out_of_range),
            ("duplicate", window.duplicates),
            ("conflict", window.conflicts),
            ("nan", window.not_a_number),
            ("stale_marker", window.ended),
            ("thinned", window.samples_thinned),
            ("kind_mismatch", window.kind_mismatch),
            ("malformed", window.malformed),
            ("refused_series", window.refused_series),
            ("refused_rows", window.refused_rows),
        ] {
            let series = telemetry.counter(&catalog::ENGINE_SAMPLES, [cell, outcome]);
            grow(&series, counted.entry(outcome).or_default(), total);
        }
        for (kind, total) in [
            ("reset", window.resets),
            ("unknown_start", window.unknown_starts),
            ("gap", window.gaps),
            ("overlap", window.overlaps),
        ] {
            let series = telemetry.counter(&catalog::ENGINE_IRREGULARITIES, [cell, kind]);
            grow(&series, counted.entry(kind).or_default(), total);
        }
    }

    fn registry(&self, cell: &str, counted: &RegistryCounters) {
        let telemetry = &self.telemetry;
        for (kind, new) in [("name", counted.name_conflicts), ("pool", counted.pool_conflicts)] {
            telemetry.counter(&catalog::ENGINE_CONFLICTS, [cell, kind]).add(new);
        }
        for (kind, new) in [("joined", counted.joined), ("merged", counted.merged), ("left", counted.left)] {
            telemetry.counter(&catalog::ENGINE_JOINS, [cell, kind]).add(new);
        }
        for (bound, new) in [
            ("servers_max", counted.refused_servers),
            ("resources_per_server_max", counted.refused_resources),
            ("pending_max", counted.refused_pending),
            ("pools_max", counted.refused_pools),
        ] {
            if new > 0 {
                telemetry.counter(&catalog::ENGINE_REFUSED, [cell, bound]).add(new);
            }
        }
    }

    /// What a snapshot says, for dashboards.
    pub(crate) fn published(&mut self, snapshot: &CellSnapshot) {
        let telemetry = &self.telemetry;
        let cell = &*snapshot.cell;
        let rows = snapshot.len();
        if snapshot.is_empty() {
            // A gauge that nobody sets any more would say for ever how the cell was last, and its epoch that it is stuck.
            forget(telemetry, cell);
            self.cells.remove(cell);
            return;
        }
        // Before anything shows, so that all of it is taken back.
        self.cells.entry(snapshot.cell.clone()).or_default();
        telemetry.gauge(&catalog::ENGINE_LAST_EPOCH, [cell]).set(snapshot.epoch as f64);
        let silent = snapshot.health.flags.iter().filter(|flags| **flags & flag::SILENT != 0).count();
        telemetry.gauge(&catalog::ENGINE_SERVERS, [cell, "reporting"]).set((rows - silent) as f64);
        telemetry.gauge(&catalog::ENGINE_SERVERS, [cell, "silent"]).set(silent as f64);

        let pools = &snapshot.servers.pools;
        let mut load = vec![[0u64; LoadState::ALL.len()]; pools.len()];
        let mut fault = vec![[0u64; FaultState::ALL.len()]; pools.len()];
        let mut placement = [0u64; Placement::ALL.len()];
        for row in 0..rows {
            let pool = snapshot.servers.pool[row] as usize;
            load[pool][usize::from(snapshot.health.load_state[row])] += 1;
            fault[pool][usize::from(snapshot.health.fault_state[row])] += 1;
            placement[usize::from(snapshot.health.placement[row])] += 1;
        }
        for (at, pool) in pools.iter().enumerate() {
            for state in LoadState::ALL {
                let servers = load[at][state as usize] as f64;
                telemetry.gauge(&catalog::DECISION_LOAD_STATE, [cell, pool, state.as_str()]).set(servers);
            }
            for state in FaultState::ALL {
                let servers = fault[at][state as usize] as f64;
                telemetry.gauge(&catalog::DECISION_FAULT_STATE, [cell, pool, state.as_str()]).set(servers);
            }
        }
        for state in Placement::ALL {
            let servers = placement[state as usize] as f64;
            telemetry.gauge(&catalog::DECISION_PLACEMENT, [cell, state.as_str()]).set(servers);
        }
        let share = |sum: f64| if rows == 0 { 1.0 } else { sum / rows as f64 };
        for (class, frame) in snapshot.policy.classes.iter().zip(&snapshot.decisions) {
            let sum = |column: &[f32]| column.iter().map(|fraction| f64::from(*fraction)).sum::<f64>();
            let admitted = sum(&frame.admit);
            let throttled = frame.admit.iter().filter(|fraction| **fraction < 1.0).count();
            let labels = [cell, &*class.name];
            telemetry.gauge(&catalog::DECISION_THROTTLED, labels).set(throttled as f64);
            telemetry.gauge(&catalog::DECISION_ADMIT, labels).set(share(admitted));
            telemetry.gauge(&catalog::DECISION_WOULD_ADMIT, labels).set(share(sum(&frame.would_admit)));
            telemetry.gauge(&catalog::DECISION_HELD_BACK, labels).set(rows as f64 - admitted);
        }
        if let Some(frame) = snapshot.decisions.first() {
            for (number, mode) in MODES.iter().enumerate() {
                let servers = frame.mode.iter().filter(|held| usize::from(**held) == number).count();
                telemetry.gauge(&catalog::DECISION_MODE, [cell, mode]).set(servers as f64);
            }
        }
        let confidence = snapshot.health.confidence.iter().map(|c| f64::from(*c)).filter(|c| !c.is_nan()).sum::<f64>();
        telemetry.gauge(&catalog::DECISION_CONFIDENCE, [cell]).set(share(confidence));
        let servers = &snapshot.servers;
        telemetry.replace(
            &catalog::SERVER_HEALTH_SCORE,
            &[cell],
            (0..rows.min(SERVER_ROWS_MAX)).filter(|row| !snapshot.health.score[*row].is_nan()).map(|row| {
                let pool = &*pools[servers.pool[row] as usize];
                ([cell, pool, &*servers.server[row]], f64::from(snapshot.health.score[row]))
            }),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of a series of the text that Prometheus reads.
    fn value(telemetry: &Telemetry, series: &str) -> Option<f64> {
        telemetry.render().lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }

    fn report(samples: u64, resets: u64) -> CellReport {
        let mut report = CellReport::default();
        (report.window.samples, report.window.resets) = (samples, resets);
        report
    }

    #[test]
    fn cells_beyond_the_bound_add_up_in_one_series() {
        let telemetry = Telemetry::default();
        let mut engine = Metrics::new(&telemetry).engine(0);
        let cells: Vec<Arc<str>> = (0..400).map(|number| Arc::from(format!("cell-{number:03}"))).collect();
        for total in [5, 5, 8] {
            for cell in &cells {
                engine.cell(cell, &report(total, total));
            }
        }
        let sum = |metric: &str, kind: &str| {
            let rows = telemetry.render();
            let rows = rows.lines().filter(|line| {
                line.starts_with(metric) && (line.contains(&format!("\"{kind}\"")) || line.contains("\"other\""))
            });
            rows.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>()
        };
        assert_eq!(sum("headroom_engine_samples_total{", "accepted"), 400.0 * 8.0);
        assert_eq!(sum("headroom_engine_irregularities_total{", "reset"), 400.0 * 8.0);
        // An engine made anew counts from nothing, and what was counted before stays.
        drop(engine);
        let mut engine = Metrics::new(&telemetry).engine(0);
        engine.cell(&cells[0], &report(2, 0));
        assert_eq!(
            value(&telemetry, "headroom_engine_samples_total{cell=\"cell-000\",outcome=\"accepted\"}"),
            Some(10.0)
        );
    }

    #[test]
    fn what_partitions_refuse_adds_up() {
        let telemetry = Telemetry::default();
        let mut engines = [0, 1].map(|partition| Metrics::new(&telemetry).engine(partition));
        for round in 1..3 {
            for (engine, points) in engines.iter_mut().zip([18, 6]) {
                engine.refused(Counters { points_refused: round * points, ..Counters::default() });
            }
        }
        assert_eq!(value(&telemetry, "headroom_engine_refused_total{cell=\"\",bound=\"no_policy\"}"), Some(48.0));
    }

    #[test]
    fn a_partition_that_goes_takes_its_gauges_along() {
        let telemetry = Telemetry::default();
        let mut engines = ["here", "gone"].map(|_| Metrics::new(&telemetry).engine(0)).into_iter();
        let (mut here, mut gone) = (engines.next().expect("two"), engines.next().expect("two"));
        here.cell(&Arc::from("here"), &report(1, 0));
        gone.cell(&Arc::from("gone"), &report(1, 0));
        telemetry.gauge(&catalog::ENGINE_LAST_EPOCH, ["gone"]).set(10.0);
        telemetry.gauge(&catalog::DECISION_LOAD_STATE, ["gone", "web", "normal"]).set(1.0);
        telemetry.gauge(&catalog::SERVER_HEALTH_SCORE, ["gone", "web", "web-1"]).set(1.0);
        telemetry.gauge(&catalog::ENGINE_SNAPSHOT_AGE, ["gone"]).set(3.0);
        drop(gone);
        let rendered = telemetry.render();
        let left: Vec<&str> = rendered.lines().filter(|line| line.contains("cell=\"gone\"")).collect();
        assert!(
            left.iter().all(|line| line.contains("_total{") || line.contains("snapshot_age")) && left.len() > 1,
            "{left:?}"
        );
        assert_eq!(value(&telemetry, "headroom_engine_resources{cell=\"here\"}"), Some(0.0));
    }
}
