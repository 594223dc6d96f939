//! `headroom top`: the servers, the worst first, again at every tick.

use std::io::IsTerminal;
use std::time::Duration;

use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{TopArgs, exit};
use crate::client::{Client, ClientError, encode};
use crate::output::{complain, print, printable};

/// How often the table is made anew.
const INTERVAL: Duration = Duration::from_secs(2);

pub(crate) async fn run(args: TopArgs) -> u8 {
    let client = match Client::new(&args.service) {
        Ok(client) => client,
        Err(error) => {
            complain(&error.message);
            return error.exit;
        }
    };
    let live = !args.once && std::io::stdout().is_terminal();
    if !live {
        return once(&client, &args).await;
    }
    match signal(SignalKind::interrupt()) {
        Ok(mut interrupt) => tokio::select! {
            code = watch(&client, &args) => code,
            // Also while the service takes its time.
            _ = interrupt.recv() => exit::OK,
        },
        Err(error) => {
            complain(&format!("cannot listen for Ctrl-C: {error}"));
            exit::FAILED
        }
    }
}

/// Prints the table as it is now.
async fn once(client: &Client, args: &TopArgs) -> u8 {
    match page(client, args, colours()).await {
        Ok(page) => print(&format!("{page}\n")),
        Err(error) => {
            complain(&error.message);
            error.exit
        }
    }
}

/// Prints the table again and again, in the place of the one before.
async fn watch(client: &Client, args: &TopArgs) -> u8 {
    let mut has_answered = false;
    loop {
        match page(client, args, colours()).await {
            Ok(page) => {
                let printed = print(&format!("\x1b[2J\x1b[H{page}\n"));
                if printed != exit::OK {
                    return printed;
                }
                has_answered = true;
            }
            // A service that has answered once is restarting, say, or is being asked too much: it is asked again.
            Err(error) if has_answered => complain(&format!("{}; asking again", error.message)),
            Err(error) => {
                complain(&error.message);
                return error.exit;
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Whether to colour: on a terminal, unless NO_COLOR says otherwise.
pub(crate) fn colours() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The table as text.
async fn page(client: &Client, args: &TopArgs, colours: bool) -> Result<String, ClientError> {
    let mut path = format!("/v1/servers?sort=healthScore&limit={}", args.rows);
    for (key, value) in [("cell", &args.cell), ("pool", &args.pool)] {
        if let Some(value) = value {
            path.push_str(&format!("&{key}={}", encode(value)));
        }
    }
    let list = client.get(&path).await?;
    let cells = client.get("/v1/cells").await?;
    let mut lines = Vec::new();
    for cell in cells["items"].as_array().into_iter().flatten() {
        lines.push(line(cell));
    }
    if lines.is_empty() {
        lines.push("no server has reported yet; point OTEL_EXPORTER_OTLP_ENDPOINT at this service".to_owned());
    }
    lines.push(table(&list, colours));
    Ok(lines.join("\n"))
}

/// A cell in a line. How many are in which state stands here, because the table ends with those that it has no room for,
/// and sorts the unknown last.
fn line(cell: &Value) -> String {
    let states = ["critical", "overloaded", "unknown", "normal", "underloaded"];
    let counts = states.map(|state| (state, cell["loadStates"][state].as_u64().unwrap_or(0)));
    let counts = counts.iter().filter(|(_, count)| *count > 0).map(|(state, count)| format!("  {state} {count}"));
    format!(
        "cell {}  epoch {}  servers {}{}{}",
        text(&cell["cell"]),
        text(&cell["epoch"]),
        text(&cell["servers"]),
        counts.collect::<String>(),
        if cell["stale"].as_bool().unwrap_or(false) { "  STALE" } else { "" }
    )
}

fn table(list: &Value, colours: bool) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header([
        "SERVER",
        "POOL",
        "SCORE",
        "LOAD",
        "FAULT",
        "PLACEMENT",
        "ADMIT (lowest class)",
        "AGE",
        "REASON",
    ]);
    for item in list["items"].as_array().into_iter().flatten() {
        let lowest = item["decisions"].as_array().and_then(|decisions| decisions.last());
        let admit = lowest.map_or_else(String::new, |decision| {
            let would = &decision["wouldAdmitFraction"];
            if decision["mode"] == "enforce" {
                format!("{} {}", text(&decision["class"]), text(&decision["admitFraction"]))
            } else {
                format!("{} {} (would {})", text(&decision["class"]), text(&decision["admitFraction"]), text(would))
            }
        });
        let reason = &item["reasons"][0];
        let reason = if reason.is_null() {
            String::new()
        } else {
            format!("{} {}", text(&reason["code"]), quantity(&reason["value"], &reason["unit"]))
        };
        let score = Cell::new(number(&item["healthScore"]));
        let score = match item["healthScore"].as_f64() {
            Some(value) if colours && value < 0.5 => score.fg(Color::Red),
            Some(value) if colours && value < 0.75 => score.fg(Color::Yellow),
            Some(_) if colours => score.fg(Color::Green),
            _ => score,
        };
        table.add_row([
            Cell::new(text(&item["server"])),
            Cell::new(text(&item["pool"])),
            score,
            Cell::new(text(&item["loadState"])),
            Cell::new(text(&item["faultState"])),
            Cell::new(text(&item["placement"])),
            Cell::new(admit),
            Cell::new(quantity(&item["lastSampleAgeSeconds"], &Value::from("s"))),
            Cell::new(reason),
        ]);
    }
    table.to_string()
}

/// A JSON value as people write it, fit for a terminal.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => printable(text),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

/// A number with as many digits as one reads at a glance.
pub(crate) fn number(value: &Value) -> String {
    match value.as_f64() {
        None => "-".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(number) if number.abs() >= 1000.0 => format!("{number:.0}"),
        Some(number) if number.abs() >= 1.0 => format!("{number:.2}"),
        Some(number) => format!("{number:.3}"),
    }
}

/// A number and its unit, where there are both.
pub(crate) fn quantity(value: &Value, unit: &Value) -> String {
    match unit.as_str() {
        Some(unit) if value.is_number() => format!("{} {}", number(value), printable(unit)),
        _ => number(value),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn what_has_no_unit_or_no_value_is_not_given_one() {
        for (value, unit, said) in
            [(json!(64.3), json!("s"), "64.30 s"), (json!(64.3), json!(null), "64.30"), (json!(null), json!("s"), "-")]
        {
            assert_eq!(super::quantity(&value, &unit), said);
        }
    }

    #[test]
    fn a_server_cannot_order_the_terminal_about() {
        let item = json!({"server": "\u{1b}[2Jweb", "pool": "a\u{7}", "reasons": [{"code": "x\u{9b}", "unit": "\r"}]});
        let table = super::table(&json!({"items": [item]}), false);
        assert!(table.contains("\u{fffd}[2Jweb"), "{table:?}");
        assert!(!table.chars().any(|c| c.is_control() && c != '\n'), "{table:?}");
    }

    #[test]
    fn a_cell_says_how_many_are_in_which_state() {
        let states = json!({"unknown": 2, "underloaded": 0, "normal": 7, "overloaded": 0, "critical": 1});
        let cell = json!({"cell": "eu-1", "epoch": 10, "servers": 10, "loadStates": states, "stale": true});
        assert_eq!(super::line(&cell), "cell eu-1  epoch 10  servers 10  critical 1  unknown 2  normal 7  STALE");
    }
}
