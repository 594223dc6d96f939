//! What a scenario may state about a server.

use std::sync::Arc;

use headroom_model::CellSnapshot;
use headroom_model::coverage::coverage_share;
use headroom_model::frame::{FaultState, LoadState, Placement, SignalStatus, flag};

/// How far a value may be from the one after `~`: a tenth of it, or this.
const TOLERANCE: f64 = 0.02;

/// Checks the conditions of one line; returns those that do not hold.
pub(crate) fn check(latest: &[Arc<CellSnapshot>], server: &str, conditions: &[String], line: usize) -> Vec<String> {
    let found = latest.iter().find_map(|snapshot| {
        let row = snapshot.servers.server.iter().position(|name| **name == *server)?;
        Some((snapshot, row))
    });
    let Some((snapshot, row)) = found else {
        return vec![format!("line {line}: {server} is not there")];
    };
    conditions
        .iter()
        .filter_map(|condition| {
            let at = condition.find(['=', '~', '<', '>'])?;
            let (name, rest) = condition.split_at(at);
            let (operator, wanted) = rest.split_at(1);
            let got = value(snapshot, row, name);
            (!holds(&got, operator, wanted)).then(|| format!("line {line}: {server} {condition}, but it is {got}"))
        })
        .collect()
}

fn holds(got: &str, operator: &str, wanted: &str) -> bool {
    match (operator, got.parse::<f64>(), wanted.parse::<f64>()) {
        ("=", Ok(got), Ok(wanted)) => (got - wanted).abs() < 1e-6,
        ("=", _, _) => got == wanted,
        ("~", Ok(got), Ok(wanted)) => (got - wanted).abs() <= (wanted.abs() * 0.1).max(TOLERANCE),
        ("<", Ok(got), Ok(wanted)) => got < wanted,
        (">", Ok(got), Ok(wanted)) => got > wanted,
        _ => false,
    }
}

/// A property by its name in answers: `loadState`, `healthScore`, `poolHealthScore`, `cpu_busy`, `cpu_busy.status`, `admit.discretionary`,
/// `would.discretionary`, `reason`, `input.cpu_time_total`.
fn value(snapshot: &CellSnapshot, row: usize, name: &str) -> String {
    let health = &snapshot.health;
    let number = |value: f32| if value.is_nan() { "null".to_owned() } else { f64::from(value).to_string() };
    let double = |value: f64| if value.is_nan() { "null".to_owned() } else { value.to_string() };
    let signal = |name: &str| snapshot.policy.signals.iter().position(|signal| &*signal.name == name);
    let without_signal = if health.flags[row] & flag::NOTHING_READ == 0 { "silent" } else { "nothing_read" };
    let class = |name: &str| snapshot.policy.classes.iter().position(|class| &*class.name == name);
    match name {
        "healthScore" => number(health.score[row]),
        "poolHealthScore" | "cellHealthScore" => {
            let pool = snapshot.servers.pool[row] as usize;
            let at = if name == "poolHealthScore" { pool } else { snapshot.servers.pools.len() };
            number(snapshot.rolled_up.get(at).copied().unwrap_or(f32::NAN))
        }
        "pressure" => number(health.pressure[row]),
        "loadPressure" => number(health.load_pressure[row]),
        "faultPressure" => number(health.fault_pressure[row]),
        "confidence" => number(health.confidence[row]),
        "loadState" => LoadState::ALL[usize::from(health.load_state[row])].as_str().to_owned(),
        "faultState" => FaultState::ALL[usize::from(health.fault_state[row])].as_str().to_owned(),
        "placement" => Placement::ALL[usize::from(health.placement[row])].as_str().to_owned(),
        "pool" => snapshot.servers.pools[snapshot.servers.pool[row] as usize].to_string(),
        "aliases" => snapshot.servers.aliases[row].join(","),
        "flags" => {
            let names = [
                (flag::FLAPPING, "flapping"),
                (flag::LOST_SIGNAL, "lost_signal"),
                (flag::SILENT, "silent"),
                (flag::CLOCK_SKEW, "clock_skew"),
                (flag::NOT_A_NUMBER, "not_a_number"),
                (flag::FLAT_SENSOR, "flat_sensor"),
                (flag::OVERLAPPING_WRITERS, "overlapping_writers"),
                (flag::NAME_CONFLICT, "name_conflict"),
                (flag::NOTHING_READ, "nothing_read"),
                (flag::SERIES_REFUSED, "series_refused"),
            ];
            let set = names.iter().filter(|(bit, _)| health.flags[row] & bit != 0).map(|(_, name)| *name);
            set.collect::<Vec<_>>().join(",")
        }
        "age" => number(snapshot.age_seconds[row]),
        "coverage" => coverage_share(snapshot.coverage[row]).map_or_else(|| "null".to_owned(), number),
        "reason" => snapshot.reasons(row).first().map_or_else(
            || "none".to_owned(),
            |reason| {
                snapshot
                    .policy
                    .signals
                    .get(usize::from(reason.signal))
                    .map_or_else(|| without_signal.to_owned(), |s| s.name.to_string())
            },
        ),
        _ => match name.split_once('.') {
            Some(("admit", name)) => {
                class(name).map_or("no class".to_owned(), |at| number(snapshot.decisions[at].admit[row]))
            }
            Some(("would", name)) => {
                class(name).map_or("no class".to_owned(), |at| number(snapshot.decisions[at].would_admit[row]))
            }
            Some(("input", name)) => snapshot
                .policy
                .inputs
                .iter()
                .position(|(input, _)| &**input == name)
                .map_or("no input".to_owned(), |at| double(snapshot.inputs[at].value[row])),
            Some((name, "status")) => signal(name).map_or("no signal".to_owned(), |at| {
                SignalStatus::ALL[usize::from(health.signal_status[at][row])].as_str().to_owned()
            }),
            Some((name, "pressure")) => {
                signal(name).map_or("no signal".to_owned(), |at| number(health.signal_pressure[at][row]))
            }
            _ => signal(name).map_or("no such property".to_owned(), |at| double(snapshot.signals[at].value[row])),
        },
    }
}
