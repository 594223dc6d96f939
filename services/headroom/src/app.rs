//! The service: roles over their ports, as a value that can be started, used and stopped.
//!
//! The order of start-up is the promise it keeps: every listener is bound before any of them answers; a policy is in the
//! log before the first sample can be; what was published last is readable, marked stale, before the engines have caught
//! up; and the service is ready only when they have.
//!
//! Where the ports lie is [`backend`]'s business, who owns which partition that of [`engines`](crate::engines).

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use headroom_access::Access;
use headroom_aggregator::{EventClock, Status};
use headroom_api::ApiLimits;
use headroom_config::{Config, TimeMode, load_policy};
use headroom_engine::CompiledPolicy;
use headroom_health_api::{CommandsOptions, LogCommands, Policies, Role, RoleOptions, TellReaders};
use headroom_kafka::KafkaControl;
use headroom_kafka::source::SourceMetrics;
use headroom_kafka_ingestor::Sources;
use headroom_log::{Position, SampleLog};
use headroom_model::{LogRecord, Policy};
use headroom_otlp_ingestor::{Ingestor, Listener, Metrics as OtlpMetrics, bind, serve};
use headroom_read_model::ReadModel;
use headroom_telemetry::{Readiness, Telemetry};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::deadline::Stopping;
use crate::engines::Engines;
use crate::pools::Pool;
use crate::roles::Roles;
use crate::{backend, clock, collect, follow, settings, sources};

/// Cells of the whole process.
pub(crate) const CELLS_MAX: usize = 4_096;

/// How late a snapshot may be on its way from the engine to a reader before it counts as stale, on the wall clock.
const GRACE_SECONDS: i64 = 5;

/// How long samples under way may take when the service stops.
const DRAIN: Duration = Duration::from_secs(3);

/// When, after a stop began, no sender is waited for any more, nor a source of Kafka. With what the command has to do
/// after the stop, all of it must be over within ten seconds.
const INTAKE_BY: Duration = Duration::from_secs(4);

/// When the engines must have written their last checkpoints.
const ENGINES_BY: Duration = Duration::from_secs(7);

/// When no reader is waited for any more.
const READERS_BY: Duration = Duration::from_secs(8);

/// The addresses a service answers on, as far as it has the roles.
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
    engines: Option<Engines>,
    stop_ingest: watch::Sender<bool>,
    stop_api: CancellationToken,
    ingest: Vec<JoinHandle<()>>,
    sources: Option<Sources>,
    api: JoinHandle<()>,
    timekeeper: Option<JoinHandle<()>>,
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
pub(crate) fn compile(text: &str) -> Result<CompiledPolicy, String> {
    let policy = load_policy("logged policy", text).map_err(|errors| errors.to_string())?;
    CompiledPolicy::new(policy).map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

impl App {
    /// Starts a service with some roles.
    ///
    /// # Errors
    /// A sentence that says what is in the way and what to do.
    pub(crate) async fn start(
        config: &Config,
        roles: Roles,
        data_dir: &Path,
        telemetry: Telemetry,
    ) -> Result<Self, String> {
        roles.check(config)?;
        let addresses = settings::addresses(config)?;
        let policy = read_policy(config)?;
        let readiness = Readiness::default();
        readiness.set("log", false, "opening the log");
        if roles.aggregator {
            readiness.set("engines", false, "reading the log");
        }
        readiness.watch(&telemetry);

        let access = Access::new(&config.security, clock::wall(), &telemetry)?;
        let (ingest_pool, api_pool) = (Pool::new("otlp")?, Pool::new("http")?);
        let mut listeners = Vec::new();
        if roles.otlp_ingestor {
            listeners.push(ingest_pool.run(bind("otlp-grpc", addresses.otlp_grpc)).await?);
            listeners.push(ingest_pool.run(bind("otlp-http", addresses.otlp_http)).await?);
        }
        let role = api_pool.run(Role::bind(addresses.http)).await?;
        // On the threads of start and stop, which have little else to do.
        let operators = match &config.http.operator_listen {
            Some(address) if roles.health_api => {
                let address = settings::address("http.operator_listen", address)?;
                Some((Role::bind(address).await?, Handle::current()))
            }
            _ => None,
        };
        let bound = |at: usize, wanted| listeners.get(at).map_or(wanted, |listener: &Listener| listener.address);
        let addresses = Addresses {
            otlp_grpc: bound(0, addresses.otlp_grpc),
            otlp_http: bound(1, addresses.otlp_http),
            http: role.address,
        };

        let event_time = config.time.mode != TimeMode::Wall;
        let ports = backend::open(config, roles, data_dir, event_time)?;
        let log = ports.log.clone();
        collect::log_stats(&telemetry, &log, ports.disk_snapshots.as_ref());
        let read_model = Arc::new(ReadModel::new(if event_time { 0 } else { GRACE_SECONDS }));
        // A partition without records has no policy yet, and an engine without a policy can place no sample. Whatever the
        // role: the first record of the API is a command, and nobody after it would find the partition empty.
        for partition in 0..log.partitions() {
            if log.end(partition) == Position(0) {
                append_policy(&*log, partition, &policy).await?;
            }
        }
        readiness.set("log", true, "open");
        collect::log_remark(&readiness, &log);
        let policy: Policies = Arc::new(ArcSwap::from_pointee(policy));
        let (stop_ingest, stopping) = watch::channel(false);
        let engines = match roles.aggregator {
            true => Some(Engines::new(config, &ports, policy.clone(), &read_model, &telemetry, &readiness)?),
            false => None,
        };
        let reads = roles.health_api || config.time.mode == TimeMode::EventFollow;
        let status = follow::start(&ports, engines.as_ref(), &read_model, reads);
        let clock = Arc::new(EventClock::new(log.clone(), status.clone(), config.time.tick_seconds));
        if roles.health_api {
            collect::ages(&telemetry, &read_model, event_time);
        }

        let stop_api = CancellationToken::new();
        // The sources start last, and are asked for what they could not use before that too.
        let refused_of_topics: Arc<OnceLock<Vec<SourceMetrics>>> = Arc::default();
        let ingestor = Ingestor::new(log.clone(), settings::ingestor_options(config)?, OtlpMetrics::new(&telemetry));
        let ingestor = Arc::new(ingestor.with_access(access.clone()));
        let api = if roles.health_api {
            let now: headroom_api::Now = if event_time {
                let (status, read_model) = (status.clone(), read_model.clone());
                Arc::new(move || collect::event_now(&status, &read_model))
            } else {
                clock::wall()
            };
            let options = RoleOptions {
                read_model,
                commands: Arc::new(commands(
                    log.clone(),
                    status,
                    event_time.then_some(clock.clone()),
                    &policy,
                    &ingestor,
                    ports.kafka.as_ref().map(|kafka| kafka.control.clone()),
                    refused_of_topics.clone(),
                )),
                now,
                event_time,
                access: access.clone(),
                limits: ApiLimits {
                    body_bytes_max: config.http.body_bytes_max,
                    inflight_bytes_max: config.http.inflight_bytes_max,
                    watchers_max: config.http.watchers_max,
                    connections_max: config.http.connections_max,
                    ..ApiLimits::default()
                },
                telemetry: telemetry.clone(),
                readiness: readiness.clone(),
            };
            api_pool.spawn(role.serve(options, operators, stop_api.clone()))
        } else {
            let probes = role.serve_probes(telemetry.clone(), readiness.clone(), access.clone(), stop_api.clone());
            api_pool.spawn(probes)
        };
        let ingest = listeners
            .into_iter()
            .map(|listener| ingest_pool.spawn(serve(listener, ingestor.clone(), stopping.clone(), DRAIN)))
            .collect();
        tokio::spawn(access.clone().keep_fresh(stopping.clone()));
        let timekeeper = match &engines {
            Some(engines) => Some(engines.run(config, clock, stopping).await?),
            None => None,
        };
        // Last: what is read before the engines have caught up only makes them later.
        let sources = match roles.kafka_ingestor {
            true => {
                let sources = sources::start(config, &log, &telemetry)?;
                let _ = refused_of_topics.set(sources.metrics().to_vec());
                Some(sources)
            }
            false => None,
        };
        Ok(Self {
            addresses,
            readiness,
            policy,
            engines,
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
        if let Some(engines) = &self.engines {
            engines.bring_into_force(&policy).await?;
        }
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
        let stopping = Stopping::begins();
        self.readiness.shut_down();
        let _ = self.stop_ingest.send(true);
        let ingest = async {
            for listener in self.ingest {
                let _ = listener.await;
            }
        };
        let sources = async {
            match self.sources {
                Some(sources) => tokio::task::spawn_blocking(move || sources.stop()).await.is_ok(),
                None => true,
            }
        };
        if !matches!(stopping.by(INTAKE_BY, async { tokio::join!(ingest, sources) }).await, Some(((), true))) {
            tracing::error!("what takes samples did not stop in order; some Kafka records may be read twice");
        }
        if let Some(timekeeper) = self.timekeeper {
            timekeeper.abort();
        }
        if let Some(engines) = self.engines {
            // Brokers that do not answer must not hold up the end; what was not written is in the log.
            let stopped = tokio::task::spawn_blocking(move || engines.stop());
            if !matches!(stopping.by(ENGINES_BY, stopped).await, Some(Ok(()))) {
                tracing::error!("the engines did not stop in order; a restart replays more of the log");
            }
        }
        self.stop_api.cancel();
        if stopping.by(READERS_BY, self.api).await.is_none() {
            tracing::warn!("some readers were cut off");
        }
    }
}

fn commands(
    log: Arc<dyn SampleLog>,
    status: Arc<Status>,
    clock: Option<Arc<EventClock>>,
    policy: &Policies,
    ingestor: &Arc<Ingestor>,
    control: Option<Arc<KafkaControl>>,
    refused_of_topics: Arc<OnceLock<Vec<SourceMetrics>>>,
) -> LogCommands {
    let ingestor = ingestor.clone();
    let tell_readers = control.map(|control| -> TellReaders {
        Arc::new(move |record| {
            let control = control.clone();
            Box::pin(async move { control.publish_mode(&record).await.map_err(|error| error.to_string()) })
        })
    });
    LogCommands::new(CommandsOptions {
        log,
        status,
        clock,
        policy: policy.clone(),
        tell_readers,
        refused: Arc::new(move || {
            let of_topics = refused_of_topics.get().into_iter().flatten().flat_map(SourceMetrics::refusals);
            let of_senders = ingestor.refusals().into_iter().map(settings::refused);
            of_senders.chain(of_topics.map(settings::refused_of_topic)).collect()
        }),
    })
}

/// Appends a policy to a partition.
///
/// # Errors
/// If the log does not take it.
pub(crate) async fn append_policy(log: &dyn SampleLog, partition: u32, policy: &Policy) -> Result<(), String> {
    let record = Arc::new(LogRecord::Policy(policy.text.clone()));
    log.append(partition, record).await.map_err(|error| format!("the policy cannot be logged: {error}"))?;
    tracing::info!(partition, policy = &*policy.hash, "the policy comes into force with the next tick");
    Ok(())
}
