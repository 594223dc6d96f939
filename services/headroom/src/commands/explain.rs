//! `headroom explain <server>`: why this score, why these decisions, from which metrics.

use std::fmt::Write;

use comfy_table::{Table, presets};
use serde_json::Value;

use crate::cli::{ExplainArgs, OutputArg};
use crate::client::{Client, encode};
use crate::commands::top::{number, quantity, text};
use crate::output::{complain, print, printable};

pub(crate) async fn run(args: ExplainArgs) -> u8 {
    let client = match Client::new(&args.service) {
        Ok(client) => client,
        Err(error) => {
            complain(&error.message);
            return error.exit;
        }
    };
    let cell = args.cell.as_deref().map_or_else(String::new, |cell| format!("?cell={}", encode(cell)));
    match client.get(&format!("/v1/servers/{}/explain{cell}", encode(&args.server))).await {
        Ok(answer) => print(&match args.output {
            OutputArg::Json => format!("{answer:#}\n"),
            OutputArg::Table => describe(&answer),
        }),
        Err(error) => {
            complain(&error.message);
            error.exit
        }
    }
}

/// The explanation as text.
fn describe(answer: &Value) -> String {
    let record = &answer["server"];
    let mut out = String::new();
    let aliases: Vec<String> = items(&record["aliases"]).map(text).collect();
    let also = if aliases.is_empty() { String::new() } else { format!(" (also {})", aliases.join(", ")) };
    let _ = writeln!(
        out,
        "{}{also}  cell {}  pool {}",
        text(&record["server"]),
        text(&record["cell"]),
        text(&record["pool"])
    );
    let _ = writeln!(
        out,
        "score {}  pressure {}  load {}  fault {}  placement {}  since {}  confidence {}  coverage {}",
        number(&record["healthScore"]),
        number(&record["pressure"]),
        text(&record["loadState"]),
        text(&record["faultState"]),
        text(&record["placement"]),
        text(&record["stateSince"]),
        number(&record["confidence"]),
        number(&record["coverage"]),
    );
    let _ = writeln!(
        out,
        "epoch {}  as of {}  policy {}  rule {}  mode {}{}",
        text(&record["epoch"]),
        text(&record["asOf"]),
        text(&record["policyHash"]),
        text(&answer["rule"]),
        text(&record["mode"]),
        if record["stale"].as_bool().unwrap_or(false) { "  STALE: do not rely on this" } else { "" },
    );
    let _ = writeln!(
        out,
        "load pressure {}  fault pressure {}  throttle pressure {} ({})",
        number(&answer["loadPressure"]),
        number(&answer["faultPressure"]),
        number(&answer["throttlePressure"]),
        text(&answer["throttleSignal"]),
    );
    let flags: Vec<String> = items(&record["flags"]).map(text).collect();
    if !flags.is_empty() {
        let _ = writeln!(out, "flags {}", flags.join(", "));
    }
    let seconds = Value::from("s");
    let reasons: Vec<String> = items(&record["reasons"])
        .map(|reason| {
            let counterfactual = reason["counterfactual"]
                .as_str()
                .map_or_else(String::new, |said| format!("\n      {}", printable(said)));
            format!(
                "  {}: {} (threshold {}), pressure {}, {} samples in {}, newest {} old{counterfactual}",
                text(&reason["code"]),
                quantity(&reason["value"], &reason["unit"]),
                number(&reason["threshold"]),
                number(&reason["pressure"]),
                text(&reason["samples"]),
                quantity(&reason["windowSeconds"], &seconds),
                quantity(&reason["ageSeconds"], &seconds),
            )
        })
        .collect();
    let _ = writeln!(
        out,
        "\nreasons{}",
        if reasons.is_empty() { ": none".to_owned() } else { format!("\n{}", reasons.join("\n")) }
    );

    for (what, key) in [("too little to judge by", "insufficient"), ("held", "held"), ("vanished", "missing")] {
        let names: Vec<String> = items(&answer["confidence"][key]).map(text).collect();
        if !names.is_empty() {
            let _ = writeln!(out, "signals {what}: {}", names.join(", "));
        }
    }

    let mut signals =
        plain(["SIGNAL", "FAMILY", "VALUE", "UNIT", "UNDER", "OVER", "CRITICAL", "PRESSURE", "STATUS", "SAMPLES"]);
    for signal in items(&answer["signals"]).filter(|signal| signal["status"] != "absent") {
        signals.add_row([
            text(&signal["signal"]),
            text(&signal["family"]),
            number(&signal["value"]),
            text(&signal["unit"]),
            number(&signal["under"]),
            number(&signal["over"]),
            number(&signal["critical"]),
            number(&signal["pressure"]),
            text(&signal["status"]),
            text(&signal["samples"]),
        ]);
    }
    let absent = items(&answer["confidence"]["absent"]).count();
    let _ = writeln!(out, "\n{signals}");
    if absent > 0 {
        let _ = writeln!(out, "and {absent} signals that this server has never reported; -o json lists them");
    }

    let mut classes = plain(["CLASS", "ADMIT", "WOULD ADMIT", "MODE", "SET-POINT", "REASON", "BECAUSE"]);
    for class in items(&answer["classes"]) {
        let decision = &class["decision"];
        classes.add_row([
            text(&decision["class"]),
            number(&decision["admitFraction"]),
            number(&decision["wouldAdmitFraction"]),
            text(&decision["mode"]),
            number(&class["setPoint"]),
            text(&decision["reasonCode"]),
            text(&class["because"]),
        ]);
    }
    let _ = writeln!(out, "\n{classes}");

    let mut inputs = plain(["INPUT", "VALUE", "DIALECT"]);
    for input in items(&answer["inputs"]).filter(|input| !input["value"].is_null()) {
        inputs.add_row([text(&input["input"]), number(&input["value"]), text(&input["dialect"])]);
    }
    let _ = writeln!(out, "\n{inputs}");
    out
}

fn plain<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    table
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use headroom_wire::explain::{ClassExplained, Confidence, InputExplained, SignalExplained};
    use headroom_wire::{Decision, Explain, OnExpiry, Reason, ServerRecord, Signal, Time};

    use super::*;

    /// Made from the API's own types, so that a field renamed there shows as a `-` here.
    fn answer() -> Explain<'static> {
        let time = Time::from_seconds(1_795_255_210);
        let decision = Decision {
            server: "web-17".into(),
            cell: "eu-1".into(),
            pool: "web".into(),
            class: "discretionary".into(),
            epoch: 1_795_255_210,
            admit_fraction: 1.0,
            would_admit_fraction: 0.62,
            mode: "observe".into(),
            limit: None,
            lease_seconds: 60,
            refresh_after_seconds: 10,
            valid_until: time,
            on_expiry: OnExpiry { hold_seconds: 30, then: 1.0, ramp_per_minute: 0.2 },
            reason_code: "throttled_by:disk_await@web-17".into(),
            guards: Vec::new(),
        };
        let signal = Signal {
            signal: "disk_await".into(),
            family: "disk".into(),
            value: Some(0.031),
            unit: "s".into(),
            pressure: Some(1.12),
            status: "ok".into(),
        };
        let reason = Reason {
            code: "disk_latency_high".into(),
            family: Some("disk".into()),
            signal: Some("disk_await".into()),
            value: Some(0.031),
            unit: Some("s".into()),
            threshold: Some(0.025),
            pressure: Some(1.12),
            window_seconds: Some(30.0),
            samples: 3,
            age_seconds: Some(3.1),
            counterfactual: Some("admitFraction of discretionary would be 1.0 if disk_await were < 0.021 s".into()),
        };
        Explain {
            server: ServerRecord {
                server: "web-17".into(),
                aliases: vec!["web-17.example.net".into()],
                cell: "eu-1".into(),
                pool: "web".into(),
                epoch: 1_795_255_210,
                as_of: time,
                valid_until: time,
                stale: false,
                policy_hash: "b1946ac9".into(),
                mode: "observe".into(),
                health_score: Some(0.44),
                pressure: Some(1.12),
                load_state: "overloaded".into(),
                fault_state: "ok".into(),
                placement: "avoid".into(),
                state_since: time,
                confidence: Some(0.96),
                last_sample_age_seconds: Some(3.1),
                coverage: Some(0.67),
                flags: vec!["flapping".into()],
                reasons: vec![reason],
                signals: vec![signal.clone()],
                decisions: vec![decision.clone()],
            },
            rule: "default".into(),
            inputs: vec![InputExplained {
                input: "disk_time".into(),
                value: Some(0.5),
                dialect: Some("node_exporter".into()),
            }],
            signals: vec![SignalExplained {
                signal,
                under: Some(0.005),
                over: Some(0.025),
                critical: Some(0.1),
                lower_is_worse: false,
                drives_throttle: true,
                samples: 3,
                age_seconds: Some(3.1),
            }],
            load_pressure: Some(1.12),
            fault_pressure: Some(0.1),
            throttle_pressure: Some(1.12),
            throttle_signal: Some("disk_await".into()),
            confidence: Confidence {
                confidence: Some(0.96),
                ok: vec!["disk_await".into()],
                insufficient: Vec::new(),
                held: Vec::new(),
                missing: vec!["cpu_busy".into()],
                absent: vec![Cow::Borrowed("swap")],
            },
            classes: vec![ClassExplained {
                decision,
                set_point: Some(0.6),
                binding_signal: Some("disk_await".into()),
                because: "its pressure is above the set-point".into(),
            }],
        }
    }

    #[test]
    fn every_number_of_the_way_is_printed() {
        let answer = serde_json::to_value(answer()).expect("the wire types are JSON");
        let text = describe(&answer);
        for part in [
            "web-17 (also web-17.example.net)  cell eu-1  pool web",
            "score 0.440  pressure 1.12  load overloaded  fault ok  placement avoid",
            "coverage 0.670",
            "policy b1946ac9  rule default  mode observe",
            "load pressure 1.12  fault pressure 0.100  throttle pressure 1.12 (disk_await)",
            "flags flapping",
            "disk_latency_high: 0.031 s (threshold 0.025), pressure 1.12, 3 samples in 30.00 s, newest 3.10 s old",
            "would be 1.0 if disk_await were < 0.021 s",
            "signals vanished: cpu_busy",
            "and 1 signals that this server has never reported",
            "0.620",
            "throttled_by:disk_await@web-17",
            "its pressure is above the set-point",
            "node_exporter",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }
}
