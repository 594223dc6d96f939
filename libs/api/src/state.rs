//! What all routes share, and the bounds they keep.

use std::sync::Arc;
use std::time::Duration;

use headroom_access::Access;
use headroom_model::Timestamp;
use headroom_read_model::{CellView, Found, Lookup, ReadModel};
use headroom_wire::Reading;
use headroom_wire::bulk::Candidate;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::error::ApiError;
use crate::ports::{Commands, Observer};
use crate::routes::decisions::{POLL_BYTES_MAX, PollCache};
use crate::routes::watch::{EVENT_BYTES_MAX, EventCache};
use crate::snapshot_cache::SnapshotCache;

/// Bounds of the API. An answer that refuses for one of them names it as it is named here, in lowerCamelCase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiLimits {
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// Bytes of all bodies on their way in, but for those of operators' commands, which have places instead.
    pub inflight_bytes_max: usize,
    /// Bytes of path and query.
    pub uri_bytes_max: usize,
    /// Bytes of names and values of all headers.
    pub header_bytes_max: usize,
    /// Streams and long polls at once.
    pub watchers_max: usize,
    /// Lists, snapshots, batches and checks of policies at once. Point reads and probes never wait for them.
    pub heavy_requests_max: usize,
    /// Operators' commands at once. Reads, however many, never take their places.
    pub operator_requests_max: usize,
    /// Connections at once; further ones wait in the listener's queue.
    pub connections_max: usize,
    /// Items of a list where the request does not say.
    pub list_items_default: usize,
    /// Items of a list.
    pub list_items_max: usize,
    /// Names of a batch, acks of a request.
    pub batch_items_max: usize,
    /// Decisions in one event of a stream; further ones come in further events.
    pub event_items_max: usize,
    /// A long poll waits no longer.
    pub wait_seconds_max: u64,
    /// A stream is never silent for longer.
    pub heartbeat: Duration,
    /// Snapshots of large cells being streamed at once.
    pub snapshot_streams_max: usize,
    /// A snapshot that is streamed must have been read by then.
    pub snapshot_stream_timeout: Duration,
    /// A body must have come by then, and the head of a request too.
    pub body_timeout: Duration,
    /// A connection whose peer takes nothing for this long is closed.
    pub write_stall_timeout: Duration,
    /// Cells of up to so many servers have their JSON snapshot built once and kept; larger ones are streamed.
    pub json_snapshot_cached_servers_max: usize,
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self {
            body_bytes_max: 4 << 20,
            inflight_bytes_max: 64 << 20,
            uri_bytes_max: 8 << 10,
            header_bytes_max: 32 << 10,
            watchers_max: 10_000,
            heavy_requests_max: 16,
            operator_requests_max: 16,
            connections_max: 20_000,
            list_items_default: 1_000,
            list_items_max: 10_000,
            batch_items_max: 10_000,
            event_items_max: 2_000,
            wait_seconds_max: 60,
            heartbeat: Duration::from_secs(5),
            snapshot_streams_max: 64,
            snapshot_stream_timeout: Duration::from_secs(600),
            body_timeout: Duration::from_secs(10),
            write_stall_timeout: Duration::from_secs(30),
            json_snapshot_cached_servers_max: 10_000,
        }
    }
}

/// A clock: the wall clock, or in event time the last tick.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What all routes share.
#[derive(Clone)]
pub struct ApiState(Arc<Shared>);

/// What an [`ApiState`] is made of.
pub struct ApiParts {
    /// What is read.
    pub read_model: Arc<ReadModel>,
    /// What is done.
    pub commands: Arc<dyn Commands>,
    /// Who wants to know.
    pub observer: Arc<dyn Observer>,
    /// What time it is.
    pub now: Now,
    /// Whether senders' time drives the service: only then `POST /v1/clock` exists.
    pub event_time: bool,
    /// Who may ask.
    pub access: Access,
    /// The bounds.
    pub limits: ApiLimits,
    /// Ends all streams.
    pub shutdown: CancellationToken,
}

/// The parts, and what is in use of their bounds.
pub struct Shared {
    parts: ApiParts,
    pub(crate) heavy: Arc<Semaphore>,
    pub(crate) operators: Arc<Semaphore>,
    pub(crate) inflight_bytes: Arc<Semaphore>,
    pub(crate) snapshot_streams: Arc<Semaphore>,
    pub(crate) watchers: Arc<Semaphore>,
    pub(crate) snapshots: SnapshotCache,
    pub(crate) events: EventCache,
    pub(crate) polls: PollCache,
}

impl std::ops::Deref for ApiState {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl std::ops::Deref for Shared {
    type Target = ApiParts;

    fn deref(&self) -> &ApiParts {
        &self.parts
    }
}

impl ApiState {
    /// State over a read model and what the service can do. Cancelling `shutdown` ends all streams and long polls.
    pub fn new(parts: ApiParts) -> Self {
        let limits = &parts.limits;
        Self(Arc::new(Shared {
            heavy: Arc::new(Semaphore::new(limits.heavy_requests_max)),
            inflight_bytes: Arc::new(Semaphore::new(limits.inflight_bytes_max.min(Semaphore::MAX_PERMITS))),
            operators: Arc::new(Semaphore::new(limits.operator_requests_max)),
            snapshot_streams: Arc::new(Semaphore::new(limits.snapshot_streams_max)),
            watchers: Arc::new(Semaphore::new(limits.watchers_max)),
            snapshots: SnapshotCache::default(),
            events: EventCache::new(EVENT_BYTES_MAX),
            polls: PollCache::new(POLL_BYTES_MAX),
            parts,
        }))
    }

    /// What the time is now.
    pub(crate) fn now(&self) -> Timestamp {
        (self.now)()
    }

    /// How a cell is to be read now.
    pub(crate) fn reading(&self, view: &CellView) -> Reading {
        Reading { stale: view.is_stale(self.now()), killed: view.is_killed() }
    }

    /// The server that answers to a name, or why none does.
    pub(crate) fn resolve(&self, name: &str, cell: Option<&str>) -> Result<Found, ApiError> {
        if let Some(cell) = cell {
            self.cell(cell)?;
        }
        match self.read_model.find(name, cell) {
            Lookup::Found(found) => Ok(found),
            Lookup::NotFound => {
                let mut full = self.commands.full_cells();
                full.retain(|full| cell.is_none_or(|cell| **full == *cell));
                Err(ApiError::unknown_server(name, cell, &full))
            }
            Lookup::Ambiguous(found) => Err(ApiError::ambiguous(name, candidates(&found))),
        }
    }

    /// A cell, or that there is none.
    pub(crate) fn cell(&self, cell: &str) -> Result<Arc<CellView>, ApiError> {
        self.read_model
            .cell(cell)
            .ok_or_else(|| ApiError::unknown_cell(cell, self.read_model.cells().keys().map(|name| &**name)))
    }

    /// The cell of that name, or all cells, by name.
    pub(crate) fn cells(&self, cell: Option<&str>) -> Result<Vec<Arc<CellView>>, ApiError> {
        match cell {
            Some(cell) => Ok(vec![self.cell(cell)?]),
            None => Ok(self.read_model.cells().values().cloned().collect()),
        }
    }

    /// The cells that were let go and are not among `cells`, which were asked for before: who was removed with them.
    pub(crate) fn departed(&self, cells: &[Arc<CellView>]) -> Vec<Arc<CellView>> {
        let is_gone = |name: &Arc<str>| !cells.iter().any(|view| view.snapshot().cell == *name);
        self.read_model.departed().iter().filter(|(name, _)| is_gone(name)).map(|(_, view)| Arc::clone(view)).collect()
    }

    /// That some cell has a class of that name; an empty service may get one yet.
    pub(crate) fn known_class(&self, class: Option<&str>) -> Result<(), ApiError> {
        let Some(class) = class else { return Ok(()) };
        let cells = self.read_model.cells();
        let mut known: Vec<&str> = Vec::new();
        for head in cells.values().flat_map(|view| &view.snapshot().policy.classes) {
            if &*head.name == class {
                return Ok(());
            }
            if !known.contains(&&*head.name) {
                known.push(&head.name);
            }
        }
        if known.is_empty() { Ok(()) } else { Err(ApiError::unknown_class(class, &known)) }
    }

    /// A place among the heavy requests; without one the caller is told to come back, and nobody waits.
    pub(crate) fn heavy_permit(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.heavy).try_acquire_owned().map_err(|_| {
            self.observer.refused("heavyRequestsMax");
            ApiError::overloaded("heavyRequestsMax", self.limits.heavy_requests_max as u64, 1)
        })
    }

    /// A place among the snapshots that are streamed.
    pub(crate) fn snapshot_stream_permit(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.snapshot_streams).try_acquire_owned().map_err(|_| {
            self.observer.refused("snapshotStreamsMax");
            ApiError::overloaded("snapshotStreamsMax", self.limits.snapshot_streams_max as u64, 5)
        })
    }

    /// Room for bytes of a body.
    pub(crate) fn body_room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        let wanted = u32::try_from(bytes).unwrap_or(u32::MAX);
        Arc::clone(&self.inflight_bytes).try_acquire_many_owned(wanted).map_err(|_| {
            self.observer.refused("inflightBytesMax");
            ApiError::bodies_fill_memory(self.limits.inflight_bytes_max as u64)
        })
    }

    /// A place among the operators' commands.
    pub(crate) fn operator_permit(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.operators).try_acquire_owned().map_err(|_| {
            self.observer.refused("operatorRequestsMax");
            ApiError::overloaded("operatorRequestsMax", self.limits.operator_requests_max as u64, 1)
        })
    }

    /// A place among the watchers.
    pub(crate) fn watcher_permit(&self) -> Result<WatcherPermit, ApiError> {
        let permit = Arc::clone(&self.watchers).try_acquire_owned().map_err(|_| {
            self.observer.refused("watchersMax");
            ApiError::overloaded("watchersMax", self.limits.watchers_max as u64, 5)
        })?;
        self.observer.watchers(self.limits.watchers_max - self.watchers.available_permits());
        Ok(WatcherPermit { permit: Some(permit), state: self.clone() })
    }
}

/// A watcher's place; whoever wants to know learns when it is given back.
pub(crate) struct WatcherPermit {
    permit: Option<OwnedSemaphorePermit>,
    state: ApiState,
}

impl Drop for WatcherPermit {
    fn drop(&mut self) {
        drop(self.permit.take());
        let open = self.state.limits.watchers_max - self.state.watchers.available_permits();
        self.state.observer.watchers(open);
    }
}

pub(crate) fn candidates(found: &[Found]) -> Vec<Candidate> {
    let candidate =
        |found: &Found| Candidate { cell: found.view.snapshot().cell.to_string(), server: found.server().to_string() };
    found.iter().map(candidate).collect()
}
