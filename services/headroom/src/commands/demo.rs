//! `headroom demo`: a fleet of 200 servers, three incidents, the throttle and the recovery, in about a minute.
//!
//! Nothing here is a special case. The service is the one that `serve` starts, on the same ports, with the shipped policy
//! switched to enforce; the fleet pushes OTLP through the listener, reads decisions over HTTP as a scheduler would, and
//! heeds them; time is event time, moved by `POST /v1/clock`, faster than the wall clock's.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use headroom_config::{Config, Flag, LoadArgs};
use headroom_fleet::{Fleet, FleetSpec, Incident, IncidentKind, WorkClass};
use headroom_model::Timestamp;
use headroom_telemetry::logs::{self, LogSettings};
use headroom_telemetry::{Telemetry, TelemetryOptions};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::app::App;
use crate::cli::{DemoArgs, exit};
use crate::client::{Client, ClientError};
use crate::commands::top::{number, text};
use crate::roles::Roles;
use crate::{clock, output};

/// Seconds between two reports of a server, and between two ticks.
const STEP_SECONDS: i64 = 10;

/// Servers whose reports travel in one request.
const SERVERS_PER_REQUEST: usize = 50;

/// When the incidents begin and end, event seconds after the start. Before them the service learns what is usual.
const HOT: (i64, i64) = (90, 270);
const FAILING: (i64, i64) = (100, 290);
const BURST: (i64, i64) = (130, 230);

/// The pool that the burst hits, and how much more work than usual it brings.
const BURST_POOL: usize = 3;
const BURST_FACTOR: f64 = 4.0;

/// The shipped policy, enforcing.
const POLICY: &str = "# The shipped policy, with one change: decisions bind.\nmode: enforce\n";

pub(crate) async fn run(args: DemoArgs) -> u8 {
    let directory = std::env::temp_dir().join(format!("headroom-demo-{}", std::process::id()));
    let outcome = tell(&args, &directory).await;
    if let Err(error) = std::fs::remove_dir_all(&directory)
        && directory.exists()
    {
        output::complain(&format!("the demo's data stays in {}: {error}", directory.display()));
    }
    match outcome {
        Ok(()) => exit::OK,
        Err(why) => {
            output::complain(&why);
            exit::FAILED
        }
    }
}

async fn tell(args: &DemoArgs, directory: &PathBuf) -> Result<(), String> {
    std::fs::create_dir_all(directory).map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
    let policy = directory.join("policy.yaml");
    std::fs::write(&policy, POLICY).map_err(|error| format!("cannot write {}: {error}", policy.display()))?;
    let flag = |path: &str, value: String| Flag { path: path.to_owned(), value, name: "demo".to_owned() };
    let flags = vec![
        flag("log.data_dir", directory.join("data").display().to_string()),
        flag("policy.file", policy.display().to_string()),
        flag("time.mode", "event".to_owned()),
        flag("time.tick_seconds", STEP_SECONDS.to_string()),
        flag("otlp.grpc_listen", args.otlp_grpc.to_string()),
        flag("otlp.http_listen", args.otlp_http.to_string()),
        flag("http.listen", args.http.to_string()),
    ];
    // Not of the environment: what is set there is for the service, and a demo that wants tokens shows nothing.
    let loaded = Config::load(&LoadArgs { flags, ..LoadArgs::default() }).map_err(|errors| errors.to_string())?;
    logs::init(&LogSettings { level: "warn".to_owned(), ..LogSettings::default() }, None)
        .map_err(|error| error.to_string())?;
    let telemetry = Telemetry::new(TelemetryOptions::default());
    telemetry.watch_process();
    let app = App::start(&loaded.config, Roles::all(), &directory.join("data"), telemetry).await?;
    let story = play(args, &app).await;
    app.stop().await;
    story
}

/// Plays the story, or as much of it as the time allows.
async fn play(args: &DemoArgs, app: &App) -> Result<(), String> {
    let start = clock::now().floor_to(STEP_SECONDS);
    let mut fleet = Fleet::new(FleetSpec {
        pools: 4,
        servers_per_pool: 25,
        start_ns: start.0,
        interval_seconds: STEP_SECONDS as u32,
        // Early in the afternoon, when people ask for most: background work is in the way then.
        start_second_of_day: 13 * 3_600,
        ..FleetSpec::default()
    });
    let at = |seconds: i64| start.plus_seconds(seconds).0;
    let (hot, failing) = (fleet.pools()[0].servers.start + 6, fleet.pools()[1].servers.start + 3);
    let incident = |kind, (from, to)| Incident { kind, start_ns: at(from), end_ns: at(to) };
    fleet.add_incident(incident(IncidentKind::HotServer { server: hot }, HOT));
    fleet.add_incident(incident(IncidentKind::FailsFastIdle { server: failing }, FAILING));
    let burst =
        IncidentKind::BackgroundBurst { pool: BURST_POOL, class: WorkClass::Discretionary, factor: BURST_FACTOR };
    fleet.add_incident(incident(burst, BURST));
    let story = Story::new(&fleet, hot, failing, args.speed);
    let api = format!("http://{}", app.addresses.http);
    output::print(&story.prologue(&fleet, &api));

    let local = |url: &str| Client::local(url).map_err(|error| error.message);
    let otlp = local(&format!("http://{}", app.addresses.otlp_http))?;
    let client = local(&api)?;
    // Listened to from here on: most of the time goes into the steps, and a Ctrl-C within one counts as well.
    let mut interrupt =
        signal(SignalKind::interrupt()).map_err(|error| format!("cannot listen for signals: {error}"))?;
    let mut beat = interval(Duration::from_secs_f64(STEP_SECONDS as f64 / f64::from(args.speed)));
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = Instant::now() + Duration::from_secs(u64::from(args.seconds));
    let mut story = story;
    let mut elapsed = 0;
    while args.keep || Instant::now() < end {
        tokio::select! {
            _ = beat.tick() => {}
            _ = interrupt.recv() => return Ok(()),
        }
        elapsed += STEP_SECONDS;
        let now = start.plus_seconds(elapsed);
        step(&mut fleet, now, &otlp, &client).await.map_err(|error| error.message)?;
        let view = View::read(&client).await.map_err(|error| error.message)?;
        output::print(&story.line(elapsed, &view, &fleet));
    }
    output::print(&story.epilogue(&api));
    if story.is_complete() { Ok(()) } else { Err("the story was cut short; give it more --seconds".to_owned()) }
}

/// One step of the fleet: live, report, let time pass, and do as the decisions say.
async fn step(fleet: &mut Fleet, now: Timestamp, otlp: &Client, client: &Client) -> Result<(), ClientError> {
    // A report carries the moment before the boundary, so that it belongs to the pane that ends there.
    let reported = Timestamp(now.0 - 1_000_000_000);
    fleet.step(reported.0);
    let all: Vec<usize> = (0..fleet.servers().len()).collect();
    for some in all.chunks(SERVERS_PER_REQUEST) {
        otlp.post_bytes("/v1/metrics", "application/x-protobuf", fleet.export(some, reported.0).into()).await?;
    }
    let rfc3339 = headroom_wire::Time(now).to_string();
    client.post("/v1/clock", &json!({ "now": rfc3339 })).await?;
    for class in WorkClass::ALL {
        let list = client.get(&format!("/v1/decisions?class={}", class.name())).await?;
        for decision in list["items"].as_array().into_iter().flatten() {
            if let (Some(server), Some(fraction)) = (
                decision["server"].as_str().and_then(|name| fleet.server_by_name(name)),
                decision["admitFraction"].as_f64(),
            ) {
                fleet.set_admission(server, class, fraction);
            }
        }
    }
    Ok(())
}

/// What a reader sees at one tick.
struct View {
    servers: BTreeMap<String, Value>,
}

impl View {
    async fn read(client: &Client) -> Result<Self, ClientError> {
        let list = client.get("/v1/servers?limit=1000").await?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        Ok(Self { servers: items.into_iter().map(|item| (text(&item["server"]), item)).collect() })
    }

    fn count(&self, state: &str) -> usize {
        self.servers.values().filter(|server| server["loadState"] == state).count()
    }

    /// Smallest and mean admit fraction of a class over some servers.
    fn admitted(&self, names: &[String], class: &str) -> (f64, f64) {
        let fractions: Vec<f64> = names
            .iter()
            .filter_map(|name| self.servers.get(name))
            .filter_map(|server| server["decisions"].as_array()?.iter().find(|decision| decision["class"] == class))
            .filter_map(|decision| decision["admitFraction"].as_f64())
            .collect();
        let least = fractions.iter().copied().fold(1.0, f64::min);
        let mean = if fractions.is_empty() { 1.0 } else { fractions.iter().sum::<f64>() / fractions.len() as f64 };
        (least, mean)
    }
}

/// What has happened so far, so that each thing is told once.
struct Story {
    hot: String,
    failing: String,
    pool: Vec<String>,
    pool_name: String,
    speed: u32,
    told: Told,
}

#[derive(Default)]
struct Told {
    hot: bool,
    failing: bool,
    throttled: bool,
    over: bool,
    recovered: bool,
}

impl Story {
    fn new(fleet: &Fleet, hot: usize, failing: usize, speed: u32) -> Self {
        let pool = &fleet.pools()[BURST_POOL];
        Self {
            hot: fleet.servers()[hot].name.clone(),
            failing: fleet.servers()[failing].name.clone(),
            pool: fleet.servers()[pool.servers.clone()].iter().map(|server| server.name.clone()).collect(),
            pool_name: format!("{}/{}", pool.cell, pool.name),
            speed,
            told: Told::default(),
        }
    }

    fn is_complete(&self) -> bool {
        let told = &self.told;
        told.hot && told.failing && told.throttled && told.recovered
    }

    fn prologue(&self, fleet: &Fleet, api: &str) -> String {
        format!(
            "headroom demo: {} simulated servers in 2 cells report by OTLP every {STEP_SECONDS} s, at {} times the speed.\n\
             The shipped policy is in force and enforces. Look for yourself while it runs:\n\n  \
             curl {api}/v1/servers/{hot}\n  \
             curl '{api}/v1/servers?sort=healthScore&limit=3'\n  \
             curl '{api}/v1/decisions?class=discretionary'\n  \
             curl -i '{api}/v1/check/{hot}?class=discretionary'\n  \
             headroom explain {failing} --url {api}\n  \
             headroom top --url {api}\n\n\
             Incidents to come: {hot} turns hot at {} s, {failing} fails fast while looking idle at {} s,\n\
             pool {} is hit by {BURST_FACTOR} times its discretionary work at {} s.\n\n",
            fleet.servers().len(),
            self.speed,
            HOT.0,
            FAILING.0,
            self.pool_name,
            BURST.0,
            hot = self.hot,
            failing = self.failing,
        )
    }

    /// The lines of one tick.
    fn line(&mut self, elapsed: i64, view: &View, fleet: &Fleet) -> String {
        let mut out = String::new();
        let (least, mean) = self.fraction(view, "discretionary");
        let maintenance = self.fraction(view, "internalMaintenance").1;
        out.push_str(&format!(
            "{elapsed:>4} s  servers {:>3}  overloaded {:>2}  critical {:>2}  {}: cpu {:>3.0} %  discretionary {mean:.2} (least {least:.2})  maintenance {maintenance:.2}\n",
            view.servers.len(),
            view.count("overloaded"),
            view.count("critical"),
            self.pool_name,
            self.busy(fleet) * 100.0,
        ));
        if !self.told.hot
            && let Some(server) = view.servers.get(&self.hot).filter(|server| is_overloaded(server))
        {
            self.told.hot = true;
            out.push_str(&format!("  >>   incident: {} is {}\n", self.hot, why(server)));
        }
        if !self.told.failing
            && let Some(server) = view.servers.get(&self.failing).filter(|server| server["faultState"] == "faulty")
        {
            self.told.failing = true;
            out.push_str(&format!(
                "  >>   incident: {} looks {} and is faulty: {}; placement {}\n",
                self.failing,
                text(&server["loadState"]),
                why(server),
                text(&server["placement"]),
            ));
        }
        if !self.told.throttled && elapsed > BURST.0 && mean < 0.8 {
            self.told.throttled = true;
            let server = self.pool.iter().filter_map(|name| view.servers.get(name)).find(|server| is_throttled(server));
            let because = server.map_or_else(String::new, |server| {
                let name = text(&server["server"]);
                let code = server["decisions"]
                    .as_array()
                    .and_then(|d| d.last())
                    .map_or_else(String::new, |d| text(&d["reasonCode"]));
                format!(", on {name} {code}")
            });
            out.push_str(&format!(
                "  >>   throttle: the burst in {} is held back, discretionary first{because}; higher classes at {maintenance:.2} and {:.2}\n",
                self.pool_name,
                self.fraction(view, "customerExpectation").1,
            ));
        }
        if !self.told.over && elapsed >= BURST.1 {
            self.told.over = true;
            out.push_str(&format!("  >>   the burst in {} is over\n", self.pool_name));
        }
        if self.told.over && self.told.throttled && !self.told.recovered && mean > 0.9 {
            self.told.recovered = true;
            out.push_str(&format!("  >>   recovered: {} takes its discretionary work again\n", self.pool_name));
        }
        out
    }

    fn fraction(&self, view: &View, class: &str) -> (f64, f64) {
        view.admitted(&self.pool, class)
    }

    fn busy(&self, fleet: &Fleet) -> f64 {
        let busy: Vec<f64> = self
            .pool
            .iter()
            .filter_map(|name| fleet.server_by_name(name))
            .map(|at| fleet.servers()[at].plant.cpu_busy)
            .collect();
        busy.iter().sum::<f64>() / busy.len().max(1) as f64
    }

    fn epilogue(&self, api: &str) -> String {
        let what = if self.is_complete() { "That was it" } else { "The time is up" };
        format!("\n{what}: {api} stops now. Next: `headroom serve`, and point your senders at it (README.md).\n")
    }
}

fn is_overloaded(server: &Value) -> bool {
    server["loadState"] == "overloaded" || server["loadState"] == "critical"
}

fn is_throttled(server: &Value) -> bool {
    server["decisions"]
        .as_array()
        .and_then(|decisions| decisions.last())
        .is_some_and(|decision| decision["admitFraction"].as_f64().is_some_and(|fraction| fraction < 1.0))
}

/// State, score and reasons of a server in a few words.
fn why(server: &Value) -> String {
    let reasons: Vec<String> = server["reasons"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|reason| {
            let (value, threshold) = (number(&reason["value"]), number(&reason["threshold"]));
            format!("{} {value} (threshold {threshold})", text(&reason["code"]))
        })
        .collect();
    let (state, score) = (text(&server["loadState"]), number(&server["healthScore"]));
    format!("{state}, score {score}, because of {}", reasons.join(", "))
}
