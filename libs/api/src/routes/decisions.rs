//! Decisions in bulk: all, what changed since an epoch, or those of a list of names.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use headroom_read_model::{CellView, Lookup, ReadModel};
use headroom_wire::bulk::{AmbiguousName, CellEpoch, RemovedServer};
use headroom_wire::{BatchGet, Decision, DecisionList, Problem, Reading, RowReader, Time};
use http::{HeaderMap, Request, StatusCode};

use crate::cache::Cache;
use crate::cursor::Cursor;
use crate::error::ApiError;
use crate::request::{Params, read_json, wants_json};
use crate::respond::json_bytes;
use crate::state::{ApiState, candidates};

/// Decisions; with `since` only those that changed after that epoch, and the servers that left.
#[utoipa::path(get, path = "/v1/decisions", tag = "decisions", operation_id = "listDecisions",
    params(("class" = Option<String>, Query, description = "Only this class", min_length = 1),
        ("cell" = Option<String>, Query, description = "Only this cell", min_length = 1),
        ("since" = Option<i64>, Query, description = "epoch of an earlier answer", minimum = 0, maximum = 253402300799i64),
        ("limit" = Option<i64>, Query, description = "Items of a page, 1,000 if left out", minimum = 1, maximum = 10000),
        ("cursor" = Option<String>, Query, description = "nextCursor of the page before", pattern = "^([0-9a-f]{2})+$")),
    responses((status = 200, body = DecisionList<'static>, description = "A page"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such cell, class or page"),
        (status = 410, body = Problem, content_type = "application/problem+json", description = "since is too old; ask without")))]
pub(crate) async fn list_decisions(
    State(state): State<ApiState>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    params.only(&["class", "cell", "since", "limit", "cursor"])?;
    wants_json(&headers)?;
    DecisionQuery::from_params(&state, &params)?.answer(state).await
}

/// The decisions of many servers, by name or alias.
#[utoipa::path(post, path = "/v1/decisions:batchGet", tag = "decisions", operation_id = "batchGetDecisions",
    request_body = BatchGet,
    responses((status = 200, body = DecisionList<'static>, description = "The decisions in the order of the names; notFound and ambiguous name the rest"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such cell or class"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "Too many names")))]
pub(crate) async fn batch_get_decisions(
    State(state): State<ApiState>,
    params: Params,
    headers: HeaderMap,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    params.only(&[])?;
    wants_json(&headers)?;
    let question: BatchGet = read_json(&state, request).await?;
    if question.servers.len() > state.limits.batch_items_max {
        state.observer.refused("batchItemsMax");
        return Err(ApiError::too_many("servers", "batchItemsMax", state.limits.batch_items_max as u64));
    }
    state.known_class(question.class.as_deref())?;
    if let Some(cell) = &question.cell {
        state.cell(cell)?;
    }
    let permit = state.heavy_permit()?;
    let body = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        batch(&state, &question)
    });
    let (body, age) = body.await.map_err(|_| ApiError::internal())??;
    Ok(json_bytes(StatusCode::OK, body.into(), age))
}

fn batch(state: &ApiState, question: &BatchGet) -> Result<(Vec<u8>, Option<i64>), ApiError> {
    let mut found = Vec::with_capacity(question.servers.len());
    let (mut not_found, mut ambiguous) = (Vec::new(), Vec::new());
    for name in &question.servers {
        match state.read_model.find(name, question.cell.as_deref()) {
            Lookup::Found(server) => found.push(server),
            Lookup::NotFound => not_found.push(Cow::Borrowed(name.as_str())),
            Lookup::Ambiguous(servers) => {
                ambiguous.push(AmbiguousName { server: Cow::Borrowed(name), candidates: candidates(&servers) })
            }
        }
    }
    let mut cells: Vec<Arc<CellView>> = Vec::new();
    for server in &found {
        if !cells.iter().any(|view| Arc::ptr_eq(view, &server.view)) {
            cells.push(Arc::clone(&server.view));
        }
    }
    let mut list = envelope(state, &cells, None);
    for server in &found {
        let reader = reader_for(state, &server.view, list.epoch);
        let classes = classes_of(&server.view, question.class.as_deref());
        list.items.extend(classes.map(|class| reader.decision(class, server.row as usize)));
    }
    (list.not_found, list.ambiguous) = (not_found, ambiguous);
    let body = serde_json::to_vec(&list).map_err(|_| ApiError::internal())?;
    Ok((body, age(state, list.epoch)))
}

/// The answers to long polls, by question. Most of them ask the same: what changed since the last tick.
pub(crate) type PollCache = Cache<String, Vec<Reading>, CellView>;

/// Bytes of answers that are kept.
pub(crate) const POLL_BYTES_MAX: usize = 64 << 20;

/// A question for a page of decisions.
pub(crate) struct DecisionQuery {
    cells: Vec<Arc<CellView>>,
    /// Cells that were let go, of which only those that left are told.
    departed: Vec<Arc<CellView>>,
    class: Option<String>,
    since: Option<i64>,
    limit: usize,
    after: Option<Cursor>,
    question: String,
}

impl DecisionQuery {
    pub(crate) fn from_params(state: &ApiState, params: &Params) -> Result<Self, ApiError> {
        let (class, cell, since) = (params.text("class")?, params.text("cell")?, params.since()?);
        state.known_class(class)?;
        let question = format!("decisions|{class:?}|{cell:?}|{since:?}");
        let after = params.text("cursor")?.map(|cursor| Cursor::decode(cursor, &question)).transpose()?;
        let cells = state.cells(cell)?;
        let departed = if since.is_some() && cell.is_none() { state.departed(&cells) } else { Vec::new() };
        if let Some(since) = since {
            not_too_old(cells.iter().chain(&departed), since)?;
        }
        let class = class.map(str::to_owned);
        Ok(Self { cells, departed, class, since, limit: params.limit(state)?, after, question })
    }

    /// The page; made where it holds up nobody.
    pub(crate) async fn answer(self, state: ApiState) -> Result<Response, ApiError> {
        let permit = state.heavy_permit()?;
        let body = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            self.run(&state)
        });
        let (body, age) = body.await.map_err(|_| ApiError::internal())??;
        Ok(json_bytes(StatusCode::OK, body.into(), age))
    }

    /// The same for one of many who wait for the next version: who asks the same is given the same bytes, and where there
    /// is no place to make them, waits for one.
    pub(crate) async fn answer_shared(self, state: ApiState) -> Result<Response, ApiError> {
        let key = format!("{}|{}", self.question, self.limit);
        let readings: Vec<Reading> = self.cells.iter().map(|view| state.reading(view)).collect();
        let epoch = ReadModel::shared_epoch(self.cells.iter());
        let slot = state.polls.slot(key.clone(), readings, &self.cells);
        let made = slot.get_or_try_init(|| async {
            let permit = Arc::clone(&state.heavy).acquire_owned().await.map_err(|_| ApiError::internal())?;
            let state = state.clone();
            let body = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                self.run(&state)
            });
            body.await.map_err(|_| ApiError::internal())?.map(|(body, _)| Bytes::from(body))
        });
        let body = made.await.cloned();
        state.polls.made(&key, &slot);
        Ok(json_bytes(StatusCode::OK, body?, age(&state, epoch)))
    }

    fn run(&self, state: &ApiState) -> Result<(Vec<u8>, Option<i64>), ApiError> {
        let mut list = envelope(state, &self.cells, self.after.as_ref().and_then(|after| after.epoch));
        let mut last: Option<(usize, u32, usize)> = None;
        'cells: for (at, view) in self.cells.iter().enumerate() {
            let snapshot = view.snapshot();
            let order = view.names().order();
            let after = self.after.as_ref().filter(|after| *after.cell == *snapshot.cell);
            let start = match (&self.after, after) {
                (Some(after), None) if *snapshot.cell < *after.cell => continue,
                (_, Some(after)) => {
                    order.partition_point(|row| *snapshot.servers.server[*row as usize] < *after.server)
                }
                _ => 0,
            };
            let reader = reader_for(state, view, list.epoch);
            let classes: Vec<usize> = classes_of(view, self.class.as_deref()).collect();
            for row in &order[start..] {
                for class in &classes {
                    let is_told = after.is_some_and(|after| {
                        *snapshot.servers.server[*row as usize] == *after.server && *class <= after.class
                    });
                    let is_old = self.since.is_some_and(|since| !view.changed_since(*class, *row, since));
                    if is_told || is_old {
                        continue;
                    }
                    if list.items.len() == self.limit {
                        list.next_cursor = last.map(|last| self.cursor(list.epoch, last));
                        break 'cells;
                    }
                    list.items.push(reader.decision(*class, *row as usize));
                    last = Some((at, *row, *class));
                }
            }
        }
        if let (Some(since), None) = (self.since, &self.after) {
            list.removed = self.cells.iter().chain(&self.departed).flat_map(|view| removed(view, since)).collect();
        }
        let body = serde_json::to_vec(&list).map_err(|_| ApiError::internal())?;
        Ok((body, age(state, list.epoch)))
    }

    fn cursor(&self, epoch: Option<i64>, (cell, row, class): (usize, u32, usize)) -> String {
        let snapshot = self.cells[cell].snapshot();
        Cursor {
            question: self.question.clone(),
            epoch,
            key: 0,
            cell: snapshot.cell.to_string(),
            server: snapshot.servers.server[row as usize].to_string(),
            class,
        }
        .encode()
    }
}

/// That changes after `since` are known in all of the cells.
pub(crate) fn not_too_old<'a>(cells: impl Iterator<Item = &'a Arc<CellView>>, since: i64) -> Result<(), ApiError> {
    match cells.map(|view| view.horizon()).max() {
        Some(horizon) if since < horizon => Err(ApiError::since_too_old(since, horizon)),
        _ => Ok(()),
    }
}

/// The places of the class asked for, or of all classes, in a cell's policy.
pub(crate) fn classes_of<'a>(view: &'a CellView, class: Option<&'a str>) -> impl Iterator<Item = usize> + 'a {
    let classes = view.snapshot().policy.classes.iter().enumerate();
    classes.filter(move |(_, head)| class.is_none_or(|class| *head.name == *class)).map(|(at, _)| at)
}

/// Servers of a cell that left after `since`.
pub(crate) fn removed(view: &CellView, since: i64) -> impl Iterator<Item = RemovedServer<'_>> {
    view.removed_since(since).map(|removal| RemovedServer {
        server: Cow::Borrowed(&*removal.server),
        cell: Cow::Borrowed(&*view.snapshot().cell),
    })
}

fn envelope<'a>(state: &ApiState, cells: &'a [Arc<CellView>], epoch: Option<i64>) -> DecisionList<'a> {
    let epoch = epoch.or_else(|| ReadModel::shared_epoch(cells.iter()));
    let cells: Vec<CellEpoch<'a>> = cells
        .iter()
        .map(|view| CellEpoch {
            cell: Cow::Borrowed(&*view.snapshot().cell),
            epoch: view.epoch(),
            valid_until: RowReader::new(view.snapshot(), state.reading(view)).valid_until(),
            stale: view.is_stale(state.now()),
        })
        .collect();
    DecisionList {
        epoch,
        as_of: epoch.map(Time::from_seconds),
        // Also of cells that lag behind the epoch: what this renews must not outlive any lease.
        valid_until: cells.iter().map(|cell| cell.valid_until).min(),
        stale: cells.iter().any(|cell| cell.stale),
        cells,
        items: Vec::<Decision<'a>>::new(),
        removed: Vec::new(),
        not_found: Vec::new(),
        ambiguous: Vec::new(),
        next_cursor: None,
    }
}

/// A reader of a cell's rows for an answer of an epoch, which a cell that lags has not reached.
pub(crate) fn reader_for<'a>(state: &ApiState, view: &'a CellView, epoch: Option<i64>) -> RowReader<'a> {
    RowReader::new(view.snapshot(), state.reading(view)).in_answer_of(epoch.unwrap_or(view.epoch()))
}

fn age(state: &ApiState, epoch: Option<i64>) -> Option<i64> {
    epoch.map(|epoch| (state.now().seconds() - epoch).max(0))
}
