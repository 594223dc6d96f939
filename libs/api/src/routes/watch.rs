//! Decisions as they change: a stream of server-sent events, or one long poll.
//!
//! A watcher holds the epoch it was told last, per cell, and nothing else; when it wakes it is told what changed since,
//! however many ticks that spans. So a slow reader costs a bounded buffer (two events), skips what is outdated by
//! itself, and a reconnect with `Last-Event-ID` is the same question as a wake-up. Only the last event of a round
//! carries an id: a stream that breaks in the middle of a round resumes before it, and something comes twice, never not
//! at all.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::response::Response;
use bytes::Bytes;
use headroom_access::{Peer, Scope};
use headroom_read_model::{CellView, ReadModel};
use headroom_wire::bulk::RemovedServer;
use headroom_wire::{Decision, DecisionList, Problem, Reading, RowReader, Time};
use http::{HeaderMap, header};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::cache::Cache;
use crate::error::ApiError;
use crate::request::{JSON, MAX_EPOCH, Params, negotiate};
use crate::respond::{BodyWriter, Gone, channel_body, typed, with_header};
use crate::routes::decisions::{DecisionQuery, classes_of, not_too_old, removed};
use crate::state::{ApiState, WatcherPermit};

const EVENT_STREAM: &str = "text/event-stream";

/// A reconnecting client waits this long.
const RETRY_MILLIS: u64 = 2_000;

/// A long poll that has nothing to tell but a kill switch, which its caller may know of, waits this long.
const KILL_PAUSE: Duration = Duration::from_secs(1);

/// The data of an event: what one cell has to tell. At least one a tick; an empty one renews all decisions.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WatchEvent<'a> {
    /// The cell.
    pub cell: Cow<'a, str>,
    /// Its version.
    pub epoch: i64,
    /// The same as a time.
    pub as_of: Time,
    /// End of the lease of all its decisions, told or not.
    pub valid_until: Time,
    /// Nothing new has come for too long: follow `onExpiry` after the lease.
    pub stale: bool,
    /// The items are all there are: forget what was told before of this cell.
    pub full: bool,
    /// Decisions that changed.
    pub items: Vec<Decision<'a>>,
    /// Servers that left.
    pub removed: Vec<RemovedServer<'a>>,
    /// Further items of this epoch follow in the next event.
    pub more: bool,
}

/// Decisions as they change. An event stream, or with `wait` a long poll that answers when the epoch has passed `since`.
#[utoipa::path(get, path = "/v1/watch", tag = "decisions", operation_id = "watchDecisions",
    params(("cell" = Option<String>, Query, description = "Only this cell", min_length = 1),
        ("class" = Option<String>, Query, description = "Only this class", min_length = 1),
        ("wait" = Option<String>, Query, description = "Long poll: wait that long, such as 30s, at most 60s", pattern = "^[0-9]{1,5}(ms|s|m)?$"),
        ("since" = Option<i64>, Query, description = "epoch of an earlier answer", minimum = 0, maximum = 253402300799i64),
        ("limit" = Option<i64>, Query, description = "Long poll: items of a page", minimum = 1, maximum = 10000),
        ("cursor" = Option<String>, Query, description = "Long poll: nextCursor of the page before", min_length = 1),
        ("Last-Event-ID" = Option<String>, Header, description = "id of the last event received: the stream goes on from there")),
    responses((status = 200, description = "Events named decisions with id = epoch and a WatchEvent as data, or the page of a long poll", content(
            (WatchEvent<'static> = "text/event-stream"), (DecisionList<'static> = "application/json"))),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such cell"),
        (status = 410, body = Problem, content_type = "application/problem+json", description = "since is too old; ask without")))]
pub(crate) async fn watch(
    State(state): State<ApiState>,
    params: Params,
    peer: Option<Extension<Arc<Peer>>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    params.only(&["cell", "class", "wait", "since", "limit", "cursor"])?;
    let class = params.text("class")?;
    state.known_class(class)?;
    let cells = state.cells(params.text("cell")?)?;
    if let Some(wait) = params.duration("wait", state.limits.wait_seconds_max)? {
        negotiate(&headers, &[JSON])?;
        return long_poll(state, &params, wait).await;
    }
    if params.text("limit")?.is_some() || params.text("cursor")?.is_some() {
        return Err(ApiError::bad_query("limit", "limit and cursor are for long polls; add wait=30s"));
    }
    negotiate(&headers, &[EVENT_STREAM])?;
    let since = params.since()?;
    if let Some(since) = since {
        not_too_old(cells.iter(), since)?;
    }
    let filter = Filter { cell: params.text("cell")?.map(str::to_owned), class: class.map(str::to_owned) };
    let since = last_event_id(&headers)?.or(since);
    let permit = state.watcher_permit()?;
    let (sender, body) = channel_body(state.limits.write_stall_timeout);
    let reader = Reader { peer: peer.map(|Extension(peer)| peer).unwrap_or_default(), headers, _permit: permit };
    tokio::spawn(produce(state, filter, since, sender, reader));
    let response = typed(EVENT_STREAM, Body::new(body));
    let response = with_header(response, header::CACHE_CONTROL, "no-store");
    // Proxies that buffer would turn a stream into a heap.
    Ok(with_header(response, header::HeaderName::from_static("x-accel-buffering"), "no"))
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<i64>, ApiError> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let epoch = value.to_str().ok().and_then(|text| text.parse().ok()).filter(|epoch| (0..=MAX_EPOCH).contains(epoch));
    let detail = "Last-Event-ID is not the id of an event of this stream; leave it out to begin anew";
    epoch.map(Some).ok_or_else(|| ApiError::bad_query("Last-Event-ID", detail))
}

async fn long_poll(state: ApiState, params: &Params, wait: Duration) -> Result<Response, ApiError> {
    let cell = params.text("cell")?;
    let (Some(since), None) = (params.since()?, params.text("cursor")?) else {
        return DecisionQuery::from_params(&state, params)?.answer(state).await;
    };
    // Held until the answer is made: it is what bounds those who wait for a place among the heavy requests then.
    let _permit = state.watcher_permit()?;
    let deadline = Instant::now() + wait;
    let mut changes = state.read_model.subscribe(cell).ok_or_else(ApiError::internal)?;
    let has_moved = |cells: &[Arc<CellView>]| ReadModel::shared_epoch(cells.iter()).is_some_and(|epoch| epoch > since);
    let is_killed_since = |cells: &[Arc<CellView>]| cells.iter().any(|view| view.changed_everywhere_since(since));
    // Whether the caller knows of a kill switch that moved at the very epoch, the epoch cannot say. If it does, a dead
    // engine would have it ask in a hot loop; if not, it learns in a moment.
    let after_kill = deadline.min(Instant::now() + KILL_PAUSE);
    loop {
        let cells = state.cells(cell)?;
        if has_moved(&cells) {
            break;
        }
        let until = if is_killed_since(&cells) { after_kill } else { deadline };
        tokio::select! {
            () = tokio::time::sleep_until(until) => break,
            () = state.shutdown.cancelled() => break,
            changed = changes.changed() => match changed {
                Ok(()) if !is_killed_since(&state.cells(cell)?) => {}
                _ => break,
            },
        }
    }
    DecisionQuery::from_params(&state, params)?.answer_shared(state).await
}

struct Filter {
    cell: Option<String>,
    class: Option<String>,
}

/// What an event that holds all of a round depends on, besides cell and class.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct EventKey {
    reading: Reading,
    since: Option<i64>,
    leased_from: i64,
}

/// The latest event of each cell and class. A thousand watchers that were told the same tick are told the next one in
/// the same bytes: one of them pays for finding and writing what changed.
pub(crate) type EventCache = Cache<(Arc<str>, Option<String>), EventKey, CellView>;

/// Bytes of events that are kept.
pub(crate) const EVENT_BYTES_MAX: usize = 64 << 20;

/// Who reads a stream, and the place that it has.
struct Reader {
    peer: Arc<Peer>,
    headers: HeaderMap,
    _permit: WatcherPermit,
}

/// What a watcher was told last of a cell.
type Told = BTreeMap<Arc<str>, (i64, Reading)>;

async fn produce(state: ApiState, filter: Filter, since: Option<i64>, sender: BodyWriter, watching: Reader) {
    if watch_until_gone(&state, &filter, since, &sender, &watching).await.is_ok() {
        sender.finish();
    }
}

/// Ends well where it is we who end it.
async fn watch_until_gone(
    state: &ApiState,
    filter: &Filter,
    since: Option<i64>,
    sender: &BodyWriter,
    watching: &Reader,
) -> Result<(), Gone> {
    let mut told = Told::new();
    let Some(mut changes) = state.read_model.subscribe(filter.cell.as_deref()) else { return Ok(()) };
    sender.send(Bytes::from(format!("retry: {RETRY_MILLIS}\n\n"))).await?;
    loop {
        // A token that was taken back must not live on in a stream; whoever has another one comes again.
        if !state.access.is_still_good(&watching.peer, &watching.headers, Scope::Read) {
            return Ok(());
        }
        changes.borrow_and_update();
        tell(state, filter, since, &mut told, sender).await?;
        if filter.cell.as_deref().is_some_and(|cell| state.read_model.cell(cell).is_none()) {
            // The cell was let go, and this told.
            return Ok(());
        }
        tokio::select! {
            () = state.shutdown.cancelled() => return Ok(()),
            () = sender.closed() => return Err(Gone),
            changed = changes.changed() => if changed.is_err() { return Ok(()) },
            // Also the moment to notice that a cell has become stale, which nobody announces.
            () = tokio::time::sleep(state.limits.heartbeat) => {
                sender.send(Bytes::from_static(b": heartbeat\n\n")).await?;
            }
        }
    }
}

/// One round: an event, or several where there is much to tell, for each cell that moved.
async fn tell(
    state: &ApiState,
    filter: &Filter,
    resume: Option<i64>,
    told: &mut Told,
    sender: &BodyWriter,
) -> Result<(), Gone> {
    // Names and not views: a slow reader must not keep the snapshots of cells alive that it has not come to yet.
    let (id, moved) = {
        let cells = state.cells(filter.cell.as_deref()).unwrap_or_default();
        let departed = state.departed(&cells);
        let is_news =
            |view: &&Arc<CellView>| told.get(&view.snapshot().cell) != Some(&(view.epoch(), state.reading(view)));
        // Once, and only to who knows the cell.
        let is_farewell = |view: &&Arc<CellView>| {
            let since = told.get(&view.snapshot().cell).map(|(epoch, _)| *epoch).or(resume);
            filter.cell.as_deref().is_none_or(|cell| *cell == *view.snapshot().cell)
                && since.is_some_and(|since| since < view.epoch() && view.removed_since(since).next().is_some())
        };
        let moved = cells.iter().filter(is_news).chain(departed.iter().filter(is_farewell));
        let moved: Vec<Arc<str>> = moved.map(|view| view.snapshot().cell.clone()).collect();
        (ReadModel::shared_epoch(cells.iter()), moved)
    };
    for (at, cell) in moved.iter().enumerate() {
        let id = id.filter(|_| at + 1 == moved.len());
        let departed = || state.read_model.departed().get(cell).cloned();
        let Some(mut view) = state.read_model.cell(cell).or_else(departed) else { continue };
        let reading = state.reading(&view);
        let since = told.get(cell).map(|(epoch, _)| *epoch).or(resume).filter(|since| *since >= view.horizon());
        // An event has no `Age`. One that tells of a tick comes with the tick; what a new reader is told may be older.
        let is_news = told.contains_key(cell) && !reading.stale;
        // What changes while the round is under way is told in the next one, so this is where that begins.
        let now_told = (view.epoch(), reading);
        let mut row = 0;
        loop {
            let (data, more) = one_event(state, filter, &view, since, is_news, &mut row);
            if let Some(id) = id.filter(|_| !more) {
                // A field of the event that follows: a reader takes neither unless both have come.
                sender.send(Bytes::from(format!("id: {id}\n"))).await?;
            }
            sender.send(data).await?;
            if !more {
                break;
            }
            // As long as the rows are the same servers, the newest snapshot tells of them, and the old one may go.
            let has_same_rows = |newest: &Arc<CellView>| Arc::ptr_eq(newest.names().table(), view.names().table());
            view = state.read_model.cell(cell).filter(has_same_rows).unwrap_or(view);
        }
        told.insert(Arc::clone(cell), now_told);
    }
    Ok(())
}

/// The bytes of the event of a cell that begins with `row`, and whether there are more; moves it to where the next one
/// begins.
fn one_event(
    state: &ApiState,
    filter: &Filter,
    view: &Arc<CellView>,
    since: Option<i64>,
    is_news: bool,
    row: &mut u32,
) -> (Bytes, bool) {
    let reading = state.reading(view);
    let leased_from = if is_news { view.epoch() } else { state.now().seconds() };
    let key = EventKey { reading, since, leased_from };
    let of = (Arc::clone(&view.snapshot().cell), filter.class.clone());
    let views = std::slice::from_ref(view);
    let is_first = *row == 0;
    if let Some(data) = state.events.get(&of, &key, views).filter(|_| is_first) {
        return (data, false);
    }
    let event = event(state, filter, view, &key, row);
    let data = frame(&event);
    if is_first && !event.more {
        state.events.keep(of, key, views, &data);
    }
    (data, event.more)
}

/// The next event of a cell, from `row` on; moves it to where the one after begins.
fn event<'a>(state: &ApiState, filter: &Filter, view: &'a CellView, key: &EventKey, row: &mut u32) -> WatchEvent<'a> {
    let EventKey { reading, since, leased_from } = *key;
    let reader = RowReader::new(view.snapshot(), reading).in_answer_of(leased_from);
    let classes: Vec<usize> = classes_of(view, filter.class.as_deref()).collect();
    let is_first = *row == 0;
    let rows = view.snapshot().len() as u32;
    let mut items = Vec::new();
    while *row < rows && items.len() < state.limits.event_items_max {
        let changed = classes.iter().filter(|class| since.is_none_or(|since| view.changed_since(**class, *row, since)));
        items.extend(changed.map(|class| reader.decision(*class, *row as usize)));
        *row += 1;
    }
    let removed = since.filter(|_| is_first).map(|since| removed(view, since).collect());
    WatchEvent {
        cell: Cow::Borrowed(&*view.snapshot().cell),
        epoch: view.epoch(),
        as_of: Time::from_seconds(view.epoch()),
        valid_until: reader.valid_until(),
        stale: reading.stale,
        full: since.is_none() && is_first,
        items,
        removed: removed.unwrap_or_default(),
        more: *row < rows,
    }
}

fn frame(event: &WatchEvent<'_>) -> Bytes {
    let mut bytes = Vec::with_capacity(256 + event.items.len() * 640);
    bytes.extend_from_slice(b"event: decisions\ndata: ");
    // JSON has no line breaks, so one line of data holds it; text and numbers cannot fail to be written.
    let _ = serde_json::to_writer(&mut bytes, event);
    bytes.extend_from_slice(b"\n\n");
    bytes.into()
}
