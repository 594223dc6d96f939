//! The embedded service: all roles over a data directory, as a value that can be started, used and stopped.
//!
//! The order of start-up is the promise it keeps: every listener is bound before any of them answers; the policy is in
//! the log before the first sample can be; what was published last is readable, marked stale, before the engines have
//! caught up; and the service is ready only when they have.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use headroom_access::Access;
use headroom_aggregator::{Aggregator, AggregatorOptions, EventClock, Metrics as EngineMetrics, Status, ticker};
use headroom_api::ApiLimits;
use headroom_config::{Config, Durability, IdentitySection, TimeMode, load_policy};
use headroom_engine::{CompiledPolicy, EngineConfig, RegistryLimits, WindowLimits};
use headroom_health_api::{CommandsOptions, LogCommands, Policies, Role, RoleOptions};
use headroom_ingest::{IdentityConfig, NameRule};
use headroom_kafka_ingestor::Sources;
use headroom_log::disk::{
    DataDir, DiskCheckpointStore, DiskLogOptions, DiskSampleLog, DiskSnapshotLog, Durability as LogDurability,
    OsStorage,
};
use headroom_log::{Position, SampleLog, SnapshotLog};
use headroom_model::{CellSnapshot, LogRecord, Policy};
use headroom_otlp_ingestor::{Ingestor, IngestorOptions, Limits, Metrics as OtlpMetrics, bind, serve};
use headroom_read_model::ReadModel;
use headroom_telemetry::{Readiness, Telemetry};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::collect;
use crate::pools::Pool;
use crate::sources;

/// Cells of the whole process.
const CELLS_MAX: usize = 4_096;

/// How late a snapshot may be on its way from the engine to a reader before it counts as stale, on the wall clock.
const GRACE_SECONDS: i64 = 5;

/// How long requests under way may take when the service stops. The whole stop must be over within ten seconds.
const DRAIN: Duration = Duration::from_secs(3);

/// The addresses a service answers on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) otlp_grpc: SocketAddr,
    pub(crate) otlp_http: SocketAddr,
    pub(crate) http: SocketAddr,
}

/// A running service.
pub(crate) struct App {
    pub(crate) addresses: Addresses,
    pub(crate) readiness: Readiness,
    policy: Policies,
    log: Arc<DiskSampleLog>,
    aggregator: Aggregator,
    stop_ingest: watch::Sender<bool>,
    stop_api: CancellationToken,
    ingest: Vec<JoinHandle<()>>,
    sources: Sources,
    api: JoinHandle<()>,
    timekeeper: JoinHandle<()>,
    telemetry: Telemetry,
    access: Access,
    /// Held for as long as they serve.
    _pools: [Pool; 2],
}

/// Reads the configured policy, or the shipped one.
///
/// # Errors
/// Everything wrong with it, with places and suggestions.
pub(crate) fn read_policy(config: &Config) -> Result<Policy, String> {
    let policy = match &config.policy.file {
        Some(file) => load_policy(file, &crate::configuration::read(Path::new(file))?),
        None => load_policy("default policy", headroom_catalog::DEFAULT_POLICY),
    };
    policy.map_err(|errors| errors.to_string())
}

/// A policy's text, ready to run. The text was checked before it came into the log.
fn compile(text: &str) -> Result<CompiledPolicy, String> {
    let policy = load_policy("logged policy", text).map_err(|errors| errors.to_string())?;
    CompiledPolicy::new(policy).map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

impl App {
    /// Starts a service.
    ///
    /// # Errors
    /// A sentence that says what is in the way and what to do.
    pub(crate) async fn start(config: &Config, data_dir: &Path, telemetry: Telemetry) -> Result<Self, String> {
        let addresses = addresses(config)?;
        let policy = read_policy(config)?;
        let readiness = Readiness::default();
        readiness.set("engines", false, "reading the log");
        readiness.watch(&telemetry);

        let access = Access::new(&config.security, clock::wall(), &telemetry)?;
        let (ingest_pool, api_pool) = (Pool::new("otlp")?, Pool::new("http")?);
        let grpc = ingest_pool.run(bind("otlp-grpc", addresses.otlp_grpc)).await?;
        let http = ingest_pool.run(bind("otlp-http", addresses.otlp_http)).await?;
        let role = api_pool.run(Role::bind(addresses.http)).await?;
        let addresses = Addresses { otlp_grpc: grpc.address, otlp_http: http.address, http: role.address };

        let event_time = config.time.mode != TimeMode::Wall;
        let dir = DataDir::open(data_dir, config.log.partitions, if event_time { "event" } else { "wall" })
            .map_err(|error| error.to_string())?;
        let log = Arc::new(
            DiskSampleLog::open(&dir, log_options(config), Arc::new(OsStorage)).map_err(|error| error.to_string())?,
        );
        for report in log.reports() {
            tracing::info!(?report, "opened a partition of the sample log");
        }
        let snapshots = Arc::new(DiskSnapshotLog::open(&dir, CELLS_MAX).map_err(|error| error.to_string())?);
        let checkpoints = Arc::new(DiskCheckpointStore::open(&dir).map_err(|error| error.to_string())?);
        collect::log_stats(&telemetry, &log, &snapshots);

        let read_model = Arc::new(ReadModel::new(if event_time { 0 } else { GRACE_SECONDS }));
        for cell in snapshots.cells() {
            if let Some(record) = snapshots.latest(&cell)
                && let Err(error) = read_model.restore(&record.content)
            {
                tracing::error!(cell = &*cell, %error, "the last snapshot cannot be read; the cell is unknown until its engine ticks");
            }
        }

        // A partition without records has no policy yet, and an engine without a policy can place no sample.
        for partition in 0..log.partitions() {
            if log.end(partition) == Position(0) {
                append_policy(&log, partition, &policy).await?;
            }
        }
        let policy: Policies = Arc::new(ArcSwap::from_pointee(policy));
        let sink = {
            let read_model = read_model.clone();
            Arc::new(move |snapshot: &Arc<CellSnapshot>| {
                read_model.apply(snapshot.clone());
            })
        };
        let aggregator = Aggregator::start(
            log.clone(),
            snapshots.clone(),
            checkpoints,
            AggregatorOptions {
                engine: engine_config(config, event_time),
                checkpoint_seconds: config.engine.checkpoint_seconds,
                compile: Arc::new(compile),
            },
            sink,
            EngineMetrics::new(&telemetry),
        )
        .map_err(|error| error.to_string())?;
        let status = aggregator.status();
        let clock = Arc::new(EventClock::new(log.clone(), status.clone(), config.time.tick_seconds));
        collect::lag(&telemetry, &log, &status);
        collect::ages(&telemetry, &read_model, event_time);

        let stop_api = CancellationToken::new();
        let ingestor = Ingestor::new(log.clone(), ingestor_options(config)?, OtlpMetrics::new(&telemetry));
        let ingestor = Arc::new(ingestor.with_access(access.clone()));
        let commands = LogCommands::new(CommandsOptions {
            log: log.clone(),
            status: status.clone(),
            clock: event_time.then(|| clock.clone()),
            policy: policy.clone(),
            refused: {
                let ingestor = ingestor.clone();
                Arc::new(move || ingestor.refusals().into_iter().map(refused).collect())
            },
        });
        let now: headroom_api::Now = if event_time {
            let (status, read_model) = (status.clone(), read_model.clone());
            Arc::new(move || collect::event_now(&status, &read_model))
        } else {
            clock::wall()
        };
        let options = RoleOptions {
            read_model: read_model.clone(),
            commands: Arc::new(commands),
            now,
            event_time,
            access: access.clone(),
            limits: ApiLimits {
                body_bytes_max: config.http.body_bytes_max,
                watchers_max: config.http.watchers_max,
                connections_max: config.http.connections_max,
                ..ApiLimits::default()
            },
            telemetry: telemetry.clone(),
            readiness: readiness.clone(),
        };
        let api = api_pool.spawn(role.serve(options, stop_api.clone()));

        let (stop_ingest, stopping) = watch::channel(false);
        let ingest = [grpc, http]
            .map(|listener| ingest_pool.spawn(serve(listener, ingestor.clone(), stopping.clone(), DRAIN)))
            .into();
        tokio::spawn(access.clone().keep_fresh(stopping.clone()));

        aggregator.caught_up(&*log).await;
        bring_into_force(&log, &status, &policy.load()).await?;
        readiness.set("engines", true, "caught up with the log");
        // Last: what is read before the engines have caught up only makes them later.
        let sources = sources::start(config, &(log.clone() as Arc<dyn SampleLog>), &telemetry)?;

        let timekeeper = match config.time.mode {
            TimeMode::Wall => tokio::spawn(ticker::run(log.clone(), clock::wall(), config.time.tick_seconds, stopping)),
            TimeMode::Event => tokio::spawn(async {}),
            TimeMode::EventFollow => {
                let lateness = policy.load().windows.lateness_seconds;
                tokio::spawn(async move { clock.follow(lateness, stopping).await })
            }
        };
        Ok(Self {
            addresses,
            readiness,
            policy,
            log,
            aggregator,
            stop_ingest,
            stop_api,
            ingest,
            sources,
            api,
            timekeeper,
            telemetry,
            access,
            _pools: [ingest_pool, api_pool],
        })
    }

    /// Brings another policy into force, if it differs.
    ///
    /// # Errors
    /// If the log does not take it; the one before then stays.
    pub(crate) async fn set_policy(&self, policy: Policy) -> Result<bool, String> {
        if policy.hash == self.policy.load().hash {
            return Ok(false);
        }
        bring_into_force(&self.log, &self.aggregator.status(), &policy).await?;
        self.policy.store(Arc::new(policy));
        Ok(true)
    }

    /// Who is let in.
    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    /// Our metrics.
    pub(crate) fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// Stops: no new requests, those under way finish, a last checkpoint, then the readers.
    pub(crate) async fn stop(self) {
        self.readiness.shut_down();
        let _ = self.stop_ingest.send(true);
        for listener in self.ingest {
            let _ = listener.await;
        }
        let sources = self.sources;
        if tokio::task::spawn_blocking(move || sources.stop()).await.is_err() {
            tracing::error!("the Kafka sources did not stop in order; some records will be read twice");
        }
        self.timekeeper.abort();
        let aggregator = self.aggregator;
        if tokio::task::spawn_blocking(move || aggregator.stop()).await.is_err() {
            tracing::error!("the engines did not stop in order; a restart replays more of the log");
        }
        self.stop_api.cancel();
        let _ = self.api.await;
    }
}

/// Appends the policy to the partitions whose last one differs.
async fn bring_into_force(log: &Arc<DiskSampleLog>, status: &Status, policy: &Policy) -> Result<(), String> {
    for partition in 0..log.partitions() {
        if status.progress(partition).policy.as_ref() != Some(&policy.hash) {
            append_policy(log, partition, policy).await?;
        }
    }
    Ok(())
}

async fn append_policy(log: &Arc<DiskSampleLog>, partition: u32, policy: &Policy) -> Result<(), String> {
    let record = Arc::new(LogRecord::Policy(policy.text.clone()));
    log.append(partition, record).await.map_err(|error| format!("the policy cannot be logged: {error}"))?;
    tracing::info!(partition, policy = &*policy.hash, "the policy comes into force with the next tick");
    Ok(())
}

fn addresses(config: &Config) -> Result<Addresses, String> {
    let parse = |key: &str, text: &str| {
        text.parse().map_err(|_| format!("{key}: `{text}` is no address; write it as 127.0.0.1:8080"))
    };
    Ok(Addresses {
        otlp_grpc: parse("otlp.grpc_listen", &config.otlp.grpc_listen)?,
        otlp_http: parse("otlp.http_listen", &config.otlp.http_listen)?,
        http: parse("http.listen", &config.http.listen)?,
    })
}

fn log_options(config: &Config) -> DiskLogOptions {
    DiskLogOptions {
        durability: match config.log.durability {
            Durability::Synced => LogDurability::Synced,
            Durability::Written => LogDurability::Written,
        },
        segment_bytes: config.log.segment_bytes,
        bytes_max: config.log.bytes_max,
        age_max_ns: config.log.age_max_seconds.map(|seconds| seconds.saturating_mul(1_000_000_000)),
        ..DiskLogOptions::default()
    }
}

fn engine_config(config: &Config, event_time: bool) -> EngineConfig {
    EngineConfig {
        tick_seconds: config.time.tick_seconds,
        future_max_seconds: (!event_time).then_some(config.engine.future_max_seconds),
        cells_max: CELLS_MAX,
        registry: RegistryLimits {
            servers_max: config.engine.servers_max,
            pending_max: config.engine.servers_max,
            ..RegistryLimits::default()
        },
        window: WindowLimits { rows_per_server_max: config.engine.series_per_server_max, ..WindowLimits::default() },
    }
}

/// A sender whose points were rejected, as `GET /v1/inputs` shows it: a rejection is about whole resources as often as
/// about one metric, so it names none.
fn refused(refused: headroom_otlp_ingestor::Refused) -> headroom_wire::operate::SeenMetric {
    headroom_wire::operate::SeenMetric {
        metric: "*".to_owned(),
        senders: vec![refused.sender],
        samples: refused.points,
        reason: Some(refused.message),
        ..Default::default()
    }
}

/// The rules of an `identity` section, which is at `path`.
///
/// # Errors
/// Which rule is none.
pub(crate) fn identity(section: &IdentitySection, path: &str) -> Result<IdentityConfig, String> {
    let rules = |key: &str, rules: &[String]| {
        rules
            .iter()
            .map(|rule| rule.parse::<NameRule>().map_err(|error| format!("{path}.{key}: {error}")))
            .collect::<Result<Vec<_>, _>>()
    };
    Ok(IdentityConfig {
        server: rules("keys", &section.keys)?,
        allow_service_instance: section.allow_service_instance,
        cell: rules("cell_keys", &section.cell_keys)?,
        pool: rules("pool_keys", &section.pool_keys)?,
    })
}

fn ingestor_options(config: &Config) -> Result<IngestorOptions, String> {
    let otlp = &config.otlp;
    Ok(IngestorOptions {
        limits: Limits {
            body_bytes_max: otlp.body_bytes_max,
            body_decompressed_bytes_max: otlp.body_decompressed_bytes_max,
            grpc_message_bytes_max: otlp.grpc_message_bytes_max,
            inflight_bytes_max: otlp.inflight_bytes_max,
            connections_max: otlp.connections_max,
            ..Limits::default()
        },
        identity: identity(&config.identity, "identity")?,
        ..IngestorOptions::default()
    })
}
