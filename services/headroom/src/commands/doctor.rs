//! `headroom doctor`: everything that commonly goes wrong, looked at in one go, each line with what to do about it.

use headroom_config::{Backend, Config, Flag};
use headroom_telemetry::catalog;
use serde_json::Value;

use crate::cli::{DoctorArgs, exit};
use crate::client::Client;
use crate::clock;
use crate::commands::top::{number, text};
use crate::configuration;
use crate::output::{print, printable_lines};
use crate::sources;

/// How far the service may be ahead of this machine's clock, in seconds.
const CLOCK_SKEW_SECONDS_MAX: i64 = 5;

/// Metrics and inputs of one kind that are named; `GET /v1/inputs` has them all.
const LINES_MAX: usize = 10;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// The findings so far.
#[derive(Default)]
struct Findings {
    failed: bool,
}

impl Findings {
    fn say(&mut self, verdict: Verdict, what: &str) {
        let word = match verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        self.failed |= verdict == Verdict::Fail;
        print(&format!("{word}  {}\n", printable_lines(what)));
    }
}

pub(crate) async fn run(args: DoctorArgs) -> u8 {
    let mut findings = Findings::default();
    let data_dir_flag = args.data_dir.as_ref().map(|dir| Flag {
        path: "log.data_dir".to_owned(),
        value: dir.display().to_string(),
        name: "--data-dir".to_owned(),
    });
    let config = match configuration::load(&args.configuration, data_dir_flag.into_iter().collect()) {
        Ok(loaded) => {
            findings.say(Verdict::Ok, "the configuration is valid");
            Some(loaded.config)
        }
        Err(errors) => {
            findings.say(Verdict::Fail, &format!("the configuration is not valid; see `headroom check`\n{errors}"));
            None
        }
    };
    let client = match Client::new(&args.service) {
        Ok(client) => client,
        Err(error) => {
            findings.say(Verdict::Fail, &error.message);
            return error.exit;
        }
    };
    let mut answers = true;
    match client.get_raw("/readyz?verbose").await {
        Ok((status, _)) if status.is_success() => {
            findings.say(Verdict::Ok, &format!("a service is ready at {}", args.service.url));
            service(&client, &mut findings).await;
        }
        Ok((status, body)) => findings.say(
            Verdict::Fail,
            &format!("the service at {} answers {status} to /readyz:\n{}", args.service.url, body.trim()),
        ),
        Err(error) => {
            answers = false;
            findings.say(Verdict::Warn, &error.message);
            if let Some(config) = &config {
                for (name, address) in [
                    ("OTLP/gRPC", &config.otlp.grpc_listen),
                    ("OTLP/HTTP", &config.otlp.http_listen),
                    ("HTTP API", &config.http.listen),
                ] {
                    port(name, address, &mut findings).await;
                }
            }
        }
    }
    if let Some(config) = &config {
        kafka(config, &mut findings).await;
        if config.log.backend == Backend::Kafka {
            // Nothing is kept on this machine.
        } else if answers && config.log.data_dir.is_none() {
            // Its own may well be another than the one that a service started from here would have.
            findings
                .say(Verdict::Ok, "the service's log names its data directory; give --data-dir to have it looked at");
        } else {
            data_dir(config, &mut findings);
        }
    }
    if findings.failed { exit::FAILED } else { exit::OK }
}

/// Whether a service could listen where the configuration says.
async fn port(name: &str, address: &str, findings: &mut Findings) {
    match tokio::net::TcpListener::bind(address).await {
        Ok(_) => findings.say(Verdict::Ok, &format!("{name} could listen on {address}: the port is free")),
        Err(error) => findings.say(
            Verdict::Fail,
            &format!("{name} cannot listen on {address}: {error}; stop what listens there or configure another port"),
        ),
    }
}

/// Whether the brokers answer, and have the topics that sources read.
async fn kafka(config: &Config, findings: &mut Findings) {
    let sources = match sources::clusters(config) {
        Ok(sources) => sources,
        Err(message) => return findings.say(Verdict::Fail, &message),
    };
    for (name, connection, topics) in sources {
        let brokers = connection.brokers.join(", ");
        let asked = topics.clone();
        let found = tokio::task::spawn_blocking(move || headroom_kafka::look_up(&connection, &asked)).await;
        match found {
            Ok(Ok(found)) => {
                findings.say(Verdict::Ok, &format!("kafka answers at {brokers} ({name})"));
                for (topic, partitions) in topics.iter().zip(found) {
                    match partitions {
                        Some(count) => findings.say(Verdict::Ok, &format!("{name}: topic {topic}, {count} partitions")),
                        None => findings.say(
                            Verdict::Warn,
                            &format!("{name}: there is no topic {topic}; make it, or mend kafka.sources[].topics"),
                        ),
                    }
                }
            }
            Ok(Err(message)) => findings.say(Verdict::Fail, &format!("{name}: {message}")),
            Err(_) => findings.say(Verdict::Fail, &format!("{name}: the brokers at {brokers} could not be asked")),
        }
    }
}

/// Whether the data directory can be used.
fn data_dir(config: &Config, findings: &mut Findings) {
    let dir = match configuration::data_dir(config) {
        Ok(dir) => dir,
        Err(message) => return findings.say(Verdict::Fail, &message),
    };
    if !dir.exists() {
        findings.say(Verdict::Ok, &format!("the data directory {} does not exist yet; serve makes it", dir.display()));
        return;
    }
    let probe = dir.join(format!(".doctor-{}", std::process::id()));
    match std::fs::write(&probe, b"headroom") {
        Ok(()) => {
            let _ = std::fs::remove_file(&probe);
            findings.say(Verdict::Ok, &format!("the data directory {} can be written", dir.display()));
        }
        Err(error) => findings.say(
            Verdict::Fail,
            &format!(
                "the data directory {} cannot be written: {error}; free space, or give serve --data-dir",
                dir.display()
            ),
        ),
    }
}

/// What a running service knows about itself.
async fn service(client: &Client, findings: &mut Findings) {
    let now = clock::now();
    match client.get("/v1/cells").await {
        Ok(cells) => {
            let items = cells["items"].as_array().cloned().unwrap_or_default();
            if items.is_empty() {
                findings.say(
                    Verdict::Warn,
                    "no server has reported yet; senders need OTEL_EXPORTER_OTLP_ENDPOINT and host.name (docs/senders)",
                );
            }
            for cell in items {
                let name = text(&cell["cell"]);
                if cell["stale"].as_bool().unwrap_or(false) {
                    findings
                        .say(Verdict::Fail, &format!("cell {name} is stale: its engine has not ticked; see the log"));
                } else {
                    findings.say(
                        Verdict::Ok,
                        &format!(
                            "cell {name} is at epoch {}, {} servers",
                            text(&cell["epoch"]),
                            text(&cell["servers"])
                        ),
                    );
                }
                let ahead = cell["epoch"].as_i64().unwrap_or(0) - now.seconds();
                if ahead > CLOCK_SKEW_SECONDS_MAX {
                    findings.say(
                        Verdict::Warn,
                        &format!("cell {name} is {ahead} s ahead of this machine's clock; check NTP (unless it runs on event time)"),
                    );
                }
            }
        }
        Err(error) => findings.say(Verdict::Fail, &error.message),
    }
    match client.get("/v1/inputs").await {
        Ok(inputs) => unread(&inputs, findings),
        Err(error) => findings.say(Verdict::Fail, &error.message),
    }
    match client.get_raw("/metrics").await {
        Ok((status, metrics)) if status.is_success() => counters(&metrics, findings),
        Ok((status, _)) => findings.say(Verdict::Fail, &format!("/metrics answers {status}; give --token-file")),
        Err(error) => findings.say(Verdict::Fail, &error.message),
    }
}

/// Metrics that arrive and feed nothing.
fn unread(inputs: &Value, findings: &mut Findings) {
    let unused = inputs["unused"].as_array().cloned().unwrap_or_default();
    let matched = inputs["matched"].as_array().map_or(0, Vec::len);
    findings.say(Verdict::Ok, &format!("{matched} metrics are read, {} are seen and not read", unused.len()));
    for metric in unused.iter().filter(|metric| !metric["nearest"].is_null()).take(LINES_MAX) {
        findings.say(Verdict::Warn, &not_read(&text(&metric["metric"]), &text(&metric["nearest"])));
    }
    let unfed: Vec<String> = inputs["unfed"].as_array().into_iter().flatten().map(text).collect();
    if !unfed.is_empty() {
        let named = unfed.iter().take(LINES_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if unfed.len() > LINES_MAX { ", …" } else { "" };
        findings.say(
            Verdict::Ok,
            &format!("{} inputs are fed by nothing, and signals of them alone are absent: {named}{more}", unfed.len()),
        );
    }
}

/// What to do about a metric that is not read.
fn not_read(metric: &str, nearest: &str) -> String {
    if metric == nearest {
        return format!(
            "{metric} is not read although an input names it: its unit, its kind or its attributes (`where` of the \
             input's source) are others than the input wants"
        );
    }
    format!("{metric} is not read, but {nearest} is: if they mean the same, add the name to that input in the policy")
}

/// Counters that should stand still.
fn counters(metrics: &str, findings: &mut Findings) {
    let (samples, letters) = (catalog::ENGINE_SAMPLES.metric(), catalog::KAFKA_SOURCE_LETTERS.metric());
    // The metric, a label that narrows it, and what it means when it has moved.
    let watched = [
        (catalog::OTLP_POINTS_REJECTED.metric(), "", "points were rejected; the answers told the senders why"),
        (catalog::OTLP_REFUSED.metric(), "", "OTLP requests were refused whole; the label is the bound"),
        (catalog::LOG_REFUSED.metric(), "", "the sample log refused appends; see its disk and bounds"),
        (catalog::LOG_DAMAGED.metric(), "", "records of the log were lost to damage; see the disk"),
        (catalog::CHECKPOINT_FAILURES.metric(), "", "a checkpoint could not be stored; see the disk"),
        (catalog::CHECKPOINT_DAMAGED.metric(), "", "a checkpoint was damaged; see the disk"),
        (catalog::POLICY_RELOADS.metric(), "outcome=\"refused\"", "a policy was refused; `headroom check` says why"),
        (catalog::ENGINE_FAILURES.metric(), "", "an engine failed and was made anew; see the log, and report it"),
        (catalog::ENGINE_CONFLICTS.metric(), "", "resources contradict each other about a server; see docs/limits.md"),
        (catalog::ENGINE_REFUSED.metric(), "", "a bound of the engine refused something new; see docs/limits.md"),
        (samples, "outcome=\"future\"", "samples came from the future; check the senders' clocks"),
        (samples, "outcome=\"late\"", "samples came too late; check the senders' queues"),
        (samples, "outcome=\"refused_", "a bound on series refused samples; see docs/limits.md"),
        (samples, "outcome=\"out_of_range\"", "samples have times that cannot be; check the senders' clocks"),
        (samples, "outcome=\"kind_mismatch\"", "a metric is of another kind than its input reads; see GET /v1/inputs"),
        (samples, "outcome=\"malformed\"", "histograms contradict themselves; check their senders"),
        (catalog::KAFKA_SOURCE_REFUSED.metric(), "", "records of a Kafka source cannot be used; see its dead letters"),
        (letters, "outcome=\"failed\"", "dead letters could not be written; see the dead-letter topic"),
        (letters, "outcome=\"lost\"", "dead letters were too large for their topic and are lost"),
        (catalog::KAFKA_SOURCE_ERRORS.metric(), "", "the client of a Kafka source met errors; see the log"),
    ];
    for (metric, label, meaning) in watched {
        for (labels, value) in series(metrics, metric.name).filter(|(labels, _)| labels.contains(label)) {
            if value > 0.0 {
                let value = number(&Value::from(value));
                findings.say(Verdict::Warn, &format!("{meaning}: {}{labels} is {value}", metric.name));
            }
        }
    }
}

/// The series of a metric in the text of `/metrics`: labels and value.
fn series<'a>(metrics: &'a str, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
    metrics.lines().filter_map(move |line| {
        let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
        // What only begins like the name is another metric.
        (labels.is_empty() || labels.starts_with('{')).then_some(())?;
        Some((labels, value.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_known_is_not_to_be_added() {
        assert!(not_read("system.cpu.utilization", "system.cpu.utilization").contains("attributes"));
        assert!(not_read("system.cpu.utilisation", "system.cpu.utilization").contains("add the name"));
    }

    #[test]
    fn counters_that_moved_are_found_by_their_exact_name() {
        let metrics = "# TYPE a_total counter\na_total 3\na_total_more 4\na_total{b=\"c d\"} 5e3\na_total{b=\"e\"} x\n";
        let found: Vec<(&str, f64)> = series(metrics, "a_total").collect();
        assert_eq!(found, [("", 3.0), ("{b=\"c d\"}", 5_000.0)]);
    }
}
