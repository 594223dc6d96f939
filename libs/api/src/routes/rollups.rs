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

use crate::error::ApiError;
use crate::request::{Name, Params, wants_json};
use crate::respond::json_bytes;
use crate::state::ApiState;

/// All cells.
#[utoipa::path(get, path = "/v1/cells", tag = "cells and pools", operation_id = "listCells",
    responses((status = 200, body = List<CellRecord<'static>>, description = "All cells, by name")))]
pub(crate) async fn list_cells(
    State(state): State<ApiState>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    params.only(&[])?;
    wants_json(&headers)?;
    let cells = state.cells(None)?;
    answer(state, cells, |state, cells| {
        write(&envelope(state, cells, cells.iter().map(|view| cell_record(state, view)).collect()))
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
    params(("cell" = Option<String>, Query, description = "Only this cell", min_length = 1)),
    responses((status = 200, body = List<PoolRecord<'static>>, description = "Pools that have servers, by cell and name"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such cell")))]
pub(crate) async fn list_pools(
    State(state): State<ApiState>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    params.only(&["cell"])?;
    wants_json(&headers)?;
    let cells = state.cells(params.text("cell")?)?;
    answer(state, cells, |state, cells| {
        let pools = cells.iter().flat_map(|view| pool_records(state, view)).collect();
        write(&envelope(state, cells, pools))
    })
    .await
}

/// Makes the body of an answer about some cells.
type Write = fn(&ApiState, &[Arc<CellView>]) -> Result<Vec<u8>, ApiError>;

/// Runs what may pass over a million rows where it holds up nobody.
async fn answer(state: ApiState, cells: Vec<Arc<CellView>>, write: Write) -> Result<Response, ApiError> {
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

fn envelope<T>(state: &ApiState, cells: &[Arc<CellView>], items: Vec<T>) -> List<T> {
    let epoch = ReadModel::shared_epoch(cells.iter());
    List {
        epoch,
        as_of: epoch.map(Time::from_seconds),
        valid_until: cells.iter().map(|view| reader(state, view).valid_until()).min(),
        stale: cells.iter().any(|view| view.is_stale(state.now())),
        items,
        next_cursor: None,
    }
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

fn pool_records<'a>(state: &ApiState, view: &'a CellView) -> Vec<PoolRecord<'a>> {
    let snapshot = view.snapshot();
    let record = |(name, rollup): (&'a str, &Rollup)| PoolRecord {
        pool: Cow::Borrowed(name),
        cell: Cow::Borrowed(&*snapshot.cell),
        epoch: snapshot.epoch,
        stale: view.is_stale(state.now()),
        totals: totals(state, view, rollup),
    };
    pools_by_name(view).into_iter().map(record).collect()
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
