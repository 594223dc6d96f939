//! What the engines count, put under the catalogue's names once per tick.
//!
//! Engines know no metrics; they keep plain totals, and this module sets the series to them. Decisions are aggregated
//! here too, from the snapshot that is published, so that what a dashboard shows is what a consumer got.

use std::time::Duration;

use headroom_engine::{Partition, RegistryCounters};
use headroom_model::CellSnapshot;
use headroom_model::frame::{FaultState, LoadState, Placement, flag};
use headroom_telemetry::{Telemetry, catalog};

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

    pub(crate) fn damaged(&self, partition: u32, records: u64) {
        self.telemetry.counter(&catalog::LOG_DAMAGED, [&partition.to_string()]).add(records);
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

    pub(crate) fn tick(&self, partition: u32, duration: Duration, engine: &mut Partition) {
        let telemetry = &self.telemetry;
        let number = partition.to_string();
        telemetry.histogram(&catalog::ENGINE_TICK_DURATION, [&number]).observe_duration(duration);
        telemetry.counter(&catalog::ENGINE_TICKS, [&number, "published"]).inc();
        let counters = engine.counters();
        telemetry.counter(&catalog::ENGINE_TICKS, [&number, "ignored"]).set_total(counters.ticks_ignored);
        for (cell, report) in engine.reports() {
            telemetry.gauge(&catalog::ENGINE_RESOURCES, [cell]).set(report.resources as f64);
            telemetry.gauge(&catalog::ENGINE_SERIES, [cell]).set(report.series as f64);
            telemetry.gauge(&catalog::ENGINE_ROWS, [cell, "number"]).set(report.rows as f64);
            telemetry.gauge(&catalog::ENGINE_ROWS, [cell, "histogram"]).set(report.histogram_rows as f64);
            let window = report.window;
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
                telemetry.counter(&catalog::ENGINE_SAMPLES, [cell, outcome]).set_total(total);
            }
            for (kind, total) in [
                ("reset", window.resets),
                ("unknown_start", window.unknown_starts),
                ("gap", window.gaps),
                ("overlap", window.overlaps),
            ] {
                telemetry.counter(&catalog::ENGINE_IRREGULARITIES, [cell, kind]).set_total(total);
            }
        }
        for (cell, counted) in engine.take_registry_counters() {
            self.registry(&cell, &counted);
        }
        for (bound, total) in [("cells_max", counters.cells_refused), ("no_policy", counters.points_refused)] {
            if total > 0 {
                telemetry.counter(&catalog::ENGINE_REFUSED, ["", bound]).set_total(total);
            }
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

    /// Forgets the present values of a cell that was let go.
    fn forget(&self, cell: &str) {
        for metric in [
            catalog::ENGINE_RESOURCES.metric(),
            catalog::ENGINE_SERIES.metric(),
            catalog::ENGINE_ROWS.metric(),
            catalog::ENGINE_LAST_EPOCH.metric(),
            catalog::ENGINE_SERVERS.metric(),
            catalog::DECISION_LOAD_STATE.metric(),
            catalog::DECISION_FAULT_STATE.metric(),
            catalog::DECISION_PLACEMENT.metric(),
            catalog::DECISION_THROTTLED.metric(),
            catalog::DECISION_ADMIT.metric(),
            catalog::DECISION_WOULD_ADMIT.metric(),
            catalog::DECISION_HELD_BACK.metric(),
            catalog::DECISION_MODE.metric(),
            catalog::DECISION_CONFIDENCE.metric(),
            catalog::SERVER_HEALTH_SCORE.metric(),
        ] {
            self.telemetry.forget(metric, &[cell]);
        }
    }

    /// What a snapshot says, for dashboards.
    pub(crate) fn published(&self, snapshot: &CellSnapshot) {
        let telemetry = &self.telemetry;
        let cell = &*snapshot.cell;
        let rows = snapshot.len();
        if snapshot.is_empty() {
            // A gauge that nobody sets any more would say for ever how the cell was last, and its epoch that it is stuck.
            self.forget(cell);
            return;
        }
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
