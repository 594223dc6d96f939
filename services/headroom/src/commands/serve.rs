//! `headroom serve`: the service, until a signal stops it.

use std::time::Duration;

use headroom_config::{Backend, Config, Flag, LogFormat as ConfiguredFormat, LogLevel};
use headroom_telemetry::logs::{self, LogFormat, LogSettings};
use headroom_telemetry::otel::{self, OtelSettings};
use headroom_telemetry::{Telemetry, TelemetryOptions, catalog};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::app::{self, App};
use crate::cli::{ServeArgs, exit};
use crate::roles::Roles;
use crate::{configuration, output, watcher};

/// How long exporting the last of our telemetry may hold up the end.
const FLUSH: Duration = Duration::from_secs(1);

pub(crate) async fn run(args: ServeArgs) -> u8 {
    let loaded = match configuration::load(&args.configuration, flags(&args)) {
        Ok(loaded) => loaded,
        Err(errors) => {
            output::complain(&errors.to_string());
            return exit::FAILED;
        }
    };
    match serve(&loaded.config, Roles::of(&args.role)).await {
        Ok(()) => exit::OK,
        Err(why) => {
            output::complain(&why);
            exit::FAILED
        }
    }
}

/// The flags that have names of their own, as settings.
fn flags(args: &ServeArgs) -> Vec<Flag> {
    let flag = |path: &str, name: &str, value: Option<String>| {
        value.map(|value| Flag { path: path.to_owned(), name: name.to_owned(), value })
    };
    [
        flag("log.data_dir", "--data-dir", args.data_dir.as_ref().map(|dir| dir.display().to_string())),
        flag("policy.file", "--policy", args.policy.as_ref().map(|file| file.display().to_string())),
        flag("otlp.grpc_listen", "--otlp-grpc", args.otlp_grpc.map(|address| address.to_string())),
        flag("otlp.http_listen", "--otlp-http", args.otlp_http.map(|address| address.to_string())),
        flag("http.listen", "--http", args.http.map(|address| address.to_string())),
        flag("time.mode", "--time", args.time.map(|time| time.as_str().to_owned())),
        flag("time.tick_seconds", "--tick", args.tick.map(|seconds| seconds.to_string())),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What the configuration says about logging.
pub(crate) fn log_settings(config: &Config) -> LogSettings {
    let level = match config.telemetry.log_level {
        LogLevel::Trace => "trace",
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
    };
    let format = match config.telemetry.log_format {
        ConfiguredFormat::Auto => LogFormat::Auto,
        ConfiguredFormat::Text => LogFormat::Text,
        ConfiguredFormat::Json => LogFormat::Json,
    };
    LogSettings { level: level.to_owned(), format }
}

async fn serve(config: &Config, roles: Roles) -> Result<(), String> {
    let telemetry = Telemetry::new(TelemetryOptions { server_series_max: config.telemetry.server_series_max });
    telemetry.watch_process();
    telemetry.gauge(&catalog::BUILD_INFO, [env!("CARGO_PKG_VERSION"), "unknown", &roles.to_string()]).set(1.0);
    let settings = OtelSettings::read(|name| std::env::var(name).ok());
    let exporters = otel::start(&settings, &telemetry).map_err(|error| error.to_string())?;
    logs::init(&log_settings(config), exporters.tracer()).map_err(|error| error.to_string())?;
    for problem in &settings.problems {
        tracing::warn!(problem, "an OTEL_ variable cannot be followed");
    }
    // Over Kafka nothing is kept here, and a container needs no home.
    let data_dir = match config.log.backend {
        Backend::Disk => Some(configuration::data_dir(config)?),
        Backend::Kafka => None,
    };
    // Before the start, which reads the log: a signal that comes meanwhile must end it in order too.
    let mut signals = Signals::listen()?;
    let starting = {
        let (config, data_dir) = (config.clone(), data_dir.clone().unwrap_or_default());
        // On a task of its own: opening a log waits for disks and brokers without giving the thread back.
        tokio::spawn(async move { App::start(&config, roles, &data_dir, telemetry).await })
    };
    let app = tokio::select! {
        started = starting => started.map_err(|error| format!("the service could not start: {error}"))??,
        () = signals.stop() => {
            tracing::info!("stopped before the service had started");
            return Ok(());
        }
    };
    let addresses = app.addresses;
    tracing::info!(
        otlp_grpc = %addresses.otlp_grpc, otlp_http = %addresses.otlp_http, http = %addresses.http,
        data_dir = data_dir.as_ref().map(|dir| tracing::field::display(dir.display())), %roles, "serving"
    );
    let scheme = if app.access().has_tls() { "https" } else { "http" };
    // Each to whom this process has something to say.
    if roles.otlp_ingestor {
        tracing::info!(
            "senders: OTEL_EXPORTER_OTLP_ENDPOINT={scheme}://{} OTEL_RESOURCE_ATTRIBUTES=host.name=<name>",
            addresses.otlp_http
        );
    }
    if roles.health_api {
        tracing::info!("readers: curl {scheme}://{}/v1/servers", addresses.http);
    }
    until_stopped(&app, config, &mut signals).await;
    tracing::info!("stopping");
    app.stop().await;
    if !tokio::task::spawn_blocking(move || exporters.shutdown(FLUSH)).await.unwrap_or(false) {
        tracing::warn!("the last of our own telemetry was not exported");
    }
    Ok(())
}

/// What others may tell a process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// From now on signals are heard, and none ends the process by itself.
    ///
    /// # Errors
    /// If they cannot be.
    fn listen() -> Result<Self, String> {
        let heard = |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
        Ok(Self {
            terminate: heard(SignalKind::terminate())?,
            interrupt: heard(SignalKind::interrupt())?,
            hangup: heard(SignalKind::hangup())?,
        })
    }

    /// Ends when one says stop.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Reloads the policy when it changes or SIGHUP asks for it; returns when a signal says stop.
async fn until_stopped(app: &App, config: &Config, signals: &mut Signals) {
    let (changed, mut changes) = mpsc::channel(1);
    let _watcher = config.policy.file.as_ref().and_then(|file| watcher::watch(file.as_ref(), changed));
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return,
            _ = signals.interrupt.recv() => return,
            _ = signals.hangup.recv() => {
                app.access().refresh();
                reload(app, config).await;
            }
            Some(()) = changes.recv() => reload(app, config).await,
        }
    }
}

/// Puts the policy file in force; a bad one leaves the one before.
async fn reload(app: &App, config: &Config) {
    let outcome = match app::read_policy(config) {
        Ok(policy) => match app.set_policy(policy).await {
            Ok(true) => "applied",
            Ok(false) => "unchanged",
            Err(why) => {
                tracing::error!(why, "the new policy was not put in force; the one before stays");
                "refused"
            }
        },
        Err(why) => {
            tracing::error!(why, "the new policy is not valid; the one before stays");
            "refused"
        }
    };
    app.telemetry().counter(&catalog::POLICY_RELOADS, [outcome]).inc();
}
