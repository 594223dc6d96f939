//! The role's listener: bound first, answering only when all others are bound too.

use std::net::SocketAddr;
use std::sync::Arc;

use headroom_access::Access;
use headroom_api::{ApiLimits, ApiParts, ApiState, Commands, Now};
use headroom_read_model::ReadModel;
use headroom_telemetry::{Readiness, Telemetry, probes};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::observer::HttpMetrics;

/// Connections of the operators' listener: people and their tools.
const OPERATOR_CONNECTIONS_MAX: usize = 256;

/// What the role serves.
pub struct RoleOptions {
    /// What is read.
    pub read_model: Arc<ReadModel>,
    /// What is done.
    pub commands: Arc<dyn Commands>,
    /// The clock that staleness is measured by.
    pub now: Now,
    /// Whether `POST /v1/clock` exists.
    pub event_time: bool,
    /// Who may ask.
    pub access: Access,
    /// Bounds.
    pub limits: ApiLimits,
    /// Our metrics.
    pub telemetry: Telemetry,
    /// What `/readyz` answers.
    pub readiness: Readiness,
}

/// A bound listener.
pub struct Role {
    listener: TcpListener,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Role {
    /// Binds the listener.
    ///
    /// # Errors
    /// If the address cannot be bound; the message says what to do.
    pub async fn bind(address: SocketAddr) -> Result<Self, String> {
        let listener = TcpListener::bind(address).await.map_err(|error| match error.kind() {
            std::io::ErrorKind::AddrInUse => format!(
                "the HTTP API cannot have {address}: another program listens there (a second headroom?). Stop it or \
                 choose another address"
            ),
            _ => format!("the HTTP API cannot bind {address}: {error}"),
        })?;
        let address = listener.local_addr().map_err(|error| format!("the HTTP API at {address}: {error}"))?;
        Ok(Self { listener, address })
    }

    /// Serves until `shutdown` is cancelled, then lets requests under way end. `operators` is a second listener for the
    /// same routes, and the threads that it was bound on: what floods the first does not reach it.
    pub async fn serve(self, options: RoleOptions, operators: Option<(Self, Handle)>, shutdown: CancellationToken) {
        let access = options.access;
        let limits = options.limits.clone();
        let state = ApiState::new(ApiParts {
            read_model: options.read_model,
            commands: options.commands,
            observer: Arc::new(HttpMetrics::new(&options.telemetry)),
            now: options.now,
            event_time: options.event_time,
            access: access.clone(),
            limits: options.limits,
            shutdown: shutdown.clone(),
        });
        // Probes and metrics are merged outside the API's limits, so that load never hides them.
        let probes = probes::router(options.telemetry, options.readiness);
        let router = headroom_api::guarded(probes, access.clone()).merge(headroom_api::router(state));
        let second = operators.map(|(role, threads)| {
            let (router, access, shutdown) = (router.clone(), access.clone(), shutdown.clone());
            let limits = ApiLimits { connections_max: OPERATOR_CONNECTIONS_MAX, ..limits.clone() };
            threads.spawn(async move {
                headroom_api::serve("operator", role.listener, router, access, &limits, shutdown).await;
            })
        });
        headroom_api::serve("http", self.listener, router, access, &limits, shutdown).await;
        if let Some(second) = second {
            let _ = second.await;
        }
    }

    /// Serves probes and metrics alone, for a process that has other roles only.
    pub async fn serve_probes(
        self,
        telemetry: Telemetry,
        readiness: Readiness,
        access: Access,
        shutdown: CancellationToken,
    ) {
        let router = headroom_api::guarded_alone(probes::router(telemetry, readiness), access.clone());
        headroom_api::serve("http", self.listener, router, access, &ApiLimits::default(), shutdown).await;
    }
}
