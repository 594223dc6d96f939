//! Cells and pools in one line each.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use headroom_read_model::{CellView, ReadModel, Rollup};
use headroom_wire::rollup::{FaultStateCounts, LoadStateCounts, PlacementCounts, ToleratedShare, Totals};
use headroom_wire::{CellRecord, List, PoolRecord, Problem, RowReader, Time};
use http::{HeaderMap, StatusCode};
use serde::Serialize;

use crate::cursor::Cursor;
use crate::error::ApiError;
use crate::request::{Name, Params, wants_json};
use crate::respond::json_bytes;
use crate::state::ApiState;

/// All cells.
#[utoipa::path(get, path = "/v1/cells", tag = "cells and pools", operation_id = "listCells",
    params(("limit" = Option<i64>, Query, description = "Items of a page, 1,000 if left out", minimum = 1, maximum = 10000),
        ("cursor" = Option<String>, Query, description = "nextCursor of the page before", pattern = "^([0-9a-f]{2})+$")),
    responses((status = 200, body = List<CellRecord<'static>>, description = "A page of the cells, by name"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such page")))]
pub(crate) async fn list_cells(
    State(state): State<ApiState>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    params.only(&["limit", "cursor"])?;
    wants_json(&headers)?;
    let page = Page::asked(&state, &params, "cells".to_owned())?;
    let cells = state.cells(None)?;
    answer(state, cells, move |state, cells| {
        let left = cells.iter().filter(|view| page.is_left(&view.snapshot().cell, ""));
        write(&page.list(state, cells, left.map(|view| ((&*view.snapshot().cell, ""), || cell_record(state, view)))))
    })
    .await
}

/// One cell.
#[utoipa::path(get, path = "/v1/cells/{cell}", tag = "cells and pools", operation_id = "getCell",
    params(("cell" = String, Path, description = "The cell's name")),
    responses((status = 200, body = CellRecord<'static>, description = "The cell"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such cell")))]
pub(crate) async fn get_cell(
    State(state): State<ApiState>,
    Name(cell): Name,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    params.only(&[])?;
    wants_json(&headers)?;
    let cells = vec![state.cell(&cell)?];
    answer(state, cells, |state, cells| write(&cell_record(state, &cells[0]))).await
}

/// The pools of all cells.
#[utoipa::path(get, path = "/v1/pools", tag = "cells and pools", operation_id = "listPools",
    params(("cell" = Option<String>, Query, description = "Only this cell", min_length = 1),
        ("limit" = Option<i64>, Query, description = "Items of a page, 1,000 if left out", minimum = 1, maximum = 10000),
        ("cursor" = Option<String>, Query, description = "nextCursor of the page before", pattern = "^([0-9a-f]{2})+$")),
    responses((status = 200, body = List<PoolRecord<'static>>, description = "A page of the pools that have servers, by cell and name"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such cell, or no such page")))]
pub(crate) async fn list_pools(
    State(state): State<ApiState>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    params.only(&["cell", "limit", "cursor"])?;
    wants_json(&headers)?;
    let cell = params.text("cell")?;
    let page = Page::asked(&state, &params, format!("pools|{cell:?}"))?;
    let cells = state.cells(cell)?;
    answer(state, cells, move |state, cells| {
        let pools = cells.iter().flat_map(|view| pools_by_name(view).into_iter().map(move |pool| (view, pool)));
        let left = pools.filter(|(view, (name, _))| page.is_left(&view.snapshot().cell, name));
        let records = left.map(|(view, (name, rollup))| {
            ((&*view.snapshot().cell, name), move || pool_record(state, view, name, rollup))
        });
        write(&page.list(state, cells, records))
    })
    .await
}

/// Which page of a list was asked for.
struct Page {
    question: String,
    limit: usize,
    after: Option<Cursor>,
}

impl Page {
    fn asked(state: &ApiState, params: &Params, question: String) -> Result<Self, ApiError> {
        let after = params.text("cursor")?.map(|cursor| Cursor::decode(cursor, &question)).transpose()?;
        Ok(Self { limit: params.limit(state)?, after, question })
    }

    /// Whether an item comes after the pages before.
    fn is_left(&self, cell: &str, pool: &str) -> bool {
        self.after.as_ref().is_none_or(|after| (cell, pool) > (&*after.cell, &*after.server))
    }

    /// The page. `left` are the items from its first on, each with its cell and pool, and made only if it is on the page.
    fn list<'a, T>(
        &self,
        state: &ApiState,
        cells: &[Arc<CellView>],
        left: impl Iterator<Item = ((&'a str, &'a str), impl FnOnce() -> T)>,
    ) -> List<T> {
        let epoch = ReadModel::shared_epoch(cells.iter());
        let mut left = left.peekable();
        let (mut items, mut last) = (Vec::new(), None);
        while items.len() < self.limit
            && let Some((key, record)) = left.next()
        {
            items.push(record());
            last = Some(key);
        }
        let last = last.filter(|_| left.peek().is_some());
        List {
            epoch,
            as_of: epoch.map(Time::from_seconds),
            valid_until: cells.iter().map(|view| reader(state, view).valid_until()).min(),
            stale: cells.iter().any(|view| view.is_stale(state.now())),
            items,
            next_cursor: last.map(|(cell, pool)| {
                let (cell, pool, question) = (cell.to_owned(), pool.to_owned(), self.question.clone());
                Cursor { question, epoch, key: 0, cell, server: pool, class: 0 }.encode()
            }),
        }
    }
}

/// Runs what may pass over a million rows where it holds up nobody.
async fn answer(
    state: ApiState,
    cells: Vec<Arc<CellView>>,
    write: impl FnOnce(&ApiState, &[Arc<CellView>]) -> Result<Vec<u8>, ApiError> + Send + 'static,
) -> Result<Response, ApiError> {
    let permit = state.heavy_permit()?;
    let age = ReadModel::shared_epoch(cells.iter()).map(|epoch| (state.now().seconds() - epoch).max(0));
    let body = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        write(&state, &cells)
    });
    Ok(json_bytes(StatusCode::OK, body.await.map_err(|_| ApiError::internal())??.into(), age))
}

fn write(body: &impl Serialize) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(body).map_err(|_| ApiError::internal())
}

fn reader<'a>(state: &ApiState, view: &'a CellView) -> RowReader<'a> {
    RowReader::new(view.snapshot(), state.reading(view))
}

fn cell_record<'a>(state: &ApiState, view: &'a CellView) -> CellRecord<'a> {
    let snapshot = view.snapshot();
    CellRecord {
        cell: Cow::Borrowed(&snapshot.cell),
        epoch: snapshot.epoch,
        as_of: Time::from_seconds(snapshot.epoch),
        valid_until: reader(state, view).valid_until(),
        stale: view.is_stale(state.now()),
        kill_switch: view.is_killed(),
        policy_hash: Cow::Borrowed(&snapshot.policy.hash),
        tick_seconds: snapshot.tick_seconds,
        pools: pools_by_name(view).into_iter().map(|(name, _)| Cow::Borrowed(name)).collect(),
        totals: totals(state, view, view.rollup()),
    }
}

fn pool_record<'a>(state: &ApiState, view: &'a CellView, name: &'a str, rollup: &Rollup) -> PoolRecord<'a> {
    let snapshot = view.snapshot();
    PoolRecord {
        pool: Cow::Borrowed(name),
        cell: Cow::Borrowed(&*snapshot.cell),
        epoch: snapshot.epoch,
        stale: view.is_stale(state.now()),
        totals: totals(state, view, rollup),
    }
}

fn pools_by_name(view: &CellView) -> Vec<(&str, &Rollup)> {
    let names = view.snapshot().servers.pools.iter().map(|name| &**name);
    let mut pools: Vec<_> = names.zip(view.pool_rollups()).filter(|(_, rollup)| rollup.servers > 0).collect();
    pools.sort_unstable_by_key(|(name, _)| *name);
    pools
}

/// What is known of a stale cell is how many servers it had: stale data is unknown, never healthy.
fn totals<'a>(state: &ApiState, view: &'a CellView, rollup: &Rollup) -> Totals<'a> {
    let servers = rollup.servers;
    let stale = view.is_stale(state.now());
    let [unknown, underloaded, normal, overloaded, critical] = rollup.load_states;
    let load_states = LoadStateCounts { unknown, underloaded, normal, overloaded, critical };
    let [unknown, ok, suspect, faulty] = rollup.fault_states;
    let fault_states = FaultStateCounts { unknown, ok, suspect, faulty };
    let [allow, avoid, block] = rollup.placements;
    let placements = PlacementCounts { allow, avoid, block };
    let known = |value: f32| Some(value).filter(|value| value.is_finite() && !stale);
    let classes = view.snapshot().policy.classes.iter().zip(&rollup.classes);
    let killed = view.is_killed();
    Totals {
        servers,
        load_states: if stale { LoadStateCounts { unknown: servers, ..Default::default() } } else { load_states },
        fault_states: if stale { FaultStateCounts { unknown: servers, ..Default::default() } } else { fault_states },
        placements: if stale { PlacementCounts { avoid: servers, ..Default::default() } } else { placements },
        health_score: known(rollup.score),
        health_score_min: known(rollup.score_min),
        health_score_median: known(rollup.score_median),
        coverage_mean: known(rollup.coverage_mean),
        tolerated_shares: classes
            .map(|(head, share)| ToleratedShare {
                class: Cow::Borrowed(&*head.name),
                admit_fraction: if killed { 1.0 } else { share.admit_mean },
                would_admit_fraction: if killed { 1.0 } else { share.would_admit_mean },
                limited_servers: if killed { 0 } else { share.limited },
            })
            .collect(),
    }
}
