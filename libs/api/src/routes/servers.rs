//! One server, and lists of them.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use headroom_model::frame::{FaultState, LoadState};
use headroom_read_model::{CellView, ReadModel};
use headroom_wire::{Explain, List, Problem, RowReader, ServerRecord, Time};
use http::{HeaderMap, StatusCode};

use crate::cursor::Cursor;
use crate::error::ApiError;
use crate::request::{Name, Params, wants_json};
use crate::respond::{json, json_bytes};
use crate::routes::decisions::reader_for;
use crate::state::ApiState;

/// One server: health, signals, reasons and decisions.
#[utoipa::path(get, path = "/v1/servers/{server}", tag = "servers", operation_id = "getServer",
    params(("server" = String, Path, description = "The server's name, or any alias", example = "web-1"),
        ("cell" = Option<String>, Query, description = "Where a name lies in two cells: the one meant", min_length = 1)),
    responses((status = 200, body = ServerRecord<'static>, description = "The record"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No server answers to the name"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Several servers answer to the name")))]
pub(crate) async fn get_server(
    State(state): State<ApiState>,
    Name(server): Name,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    params.only(&["cell"])?;
    wants_json(&headers)?;
    let found = state.resolve(&server, params.text("cell")?)?;
    let reader = RowReader::new(found.view.snapshot(), state.reading(&found.view));
    json(StatusCode::OK, &reader.record(found.row as usize), Some(found.view.age_seconds(state.now())))
}

/// Why a server's record is what it is: inputs, dialects, set-points, confidence, class by class.
#[utoipa::path(get, path = "/v1/servers/{server}/explain", tag = "servers", operation_id = "explainServer",
    params(("server" = String, Path, description = "The server's name, or any alias", example = "web-1"),
        ("cell" = Option<String>, Query, description = "Where a name lies in two cells: the one meant", min_length = 1)),
    responses((status = 200, body = Explain<'static>, description = "The way from metrics to decisions"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No server answers to the name"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Several servers answer to the name")))]
pub(crate) async fn explain_server(
    State(state): State<ApiState>,
    Name(server): Name,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    params.only(&["cell"])?;
    wants_json(&headers)?;
    let found = state.resolve(&server, params.text("cell")?)?;
    let reader = RowReader::new(found.view.snapshot(), state.reading(&found.view));
    json(StatusCode::OK, &reader.explain(found.row as usize), Some(found.view.age_seconds(state.now())))
}

/// Servers, filtered and sorted.
#[utoipa::path(get, path = "/v1/servers", tag = "servers", operation_id = "listServers",
    params(("cell" = Option<String>, Query, description = "Only this cell", min_length = 1),
        ("pool" = Option<String>, Query, description = "Only this pool", min_length = 1),
        ("loadState" = Option<String>, Query, description = "underloaded, normal, overloaded, critical or unknown", pattern = "^(underloaded|normal|overloaded|critical|unknown)$"),
        ("faultState" = Option<String>, Query, description = "ok, suspect, faulty or unknown", pattern = "^(ok|suspect|faulty|unknown)$"),
        ("sort" = Option<String>, Query, description = "server, healthScore (worst first), -healthScore, pressure or -pressure (worst first); unknown comes last", pattern = "^(server|-?healthScore|-?pressure)$"),
        ("limit" = Option<i64>, Query, description = "Items of a page, 1,000 if left out", minimum = 1, maximum = 10000),
        ("cursor" = Option<String>, Query, description = "nextCursor of the page before", pattern = "^([0-9a-f]{2})+$")),
    responses((status = 200, body = List<ServerRecord<'static>>, description = "A page"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such cell, or no such page")))]
pub(crate) async fn list_servers(
    State(state): State<ApiState>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    params.only(&["cell", "pool", "loadState", "faultState", "sort", "limit", "cursor"])?;
    wants_json(&headers)?;
    let (cell, pool) = (params.text("cell")?, params.text("pool")?);
    let load_state = params.one_of("loadState", &LoadState::ALL.map(LoadState::as_str))?;
    let fault_state = params.one_of("faultState", &FaultState::ALL.map(FaultState::as_str))?;
    let sort = params.one_of("sort", &["server", "healthScore", "-healthScore", "pressure", "-pressure"])?;
    let question = format!("servers|{cell:?}|{pool:?}|{load_state:?}|{fault_state:?}|{sort:?}");
    let after = params.text("cursor")?.map(|cursor| Cursor::decode(cursor, &question)).transpose()?;
    let query = ListQuery {
        cells: state.cells(cell)?,
        pool: pool.map(str::to_owned),
        load_state,
        fault_state,
        sort: sort.unwrap_or("server"),
        limit: params.limit(&state)?,
        after,
        question,
    };
    let permit = state.heavy_permit()?;
    let epoch = ReadModel::shared_epoch(query.cells.iter());
    let body = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        query.run(&state)
    });
    let (body, now) = body.await.map_err(|_| ApiError::internal())??;
    Ok(json_bytes(StatusCode::OK, body.into(), epoch.map(|epoch| (now - epoch).max(0))))
}

struct ListQuery {
    cells: Vec<Arc<CellView>>,
    pool: Option<String>,
    load_state: Option<&'static str>,
    fault_state: Option<&'static str>,
    sort: &'static str,
    limit: usize,
    after: Option<Cursor>,
    question: String,
}

/// An item of the list before it is written: sort key, cell (its place in the list of cells), row.
type Item = (u32, usize, u32);

impl ListQuery {
    /// The page as JSON, and the time it was made at.
    fn run(self, state: &ApiState) -> Result<(Vec<u8>, i64), ApiError> {
        let epoch = ReadModel::shared_epoch(self.cells.iter());
        let readers: Vec<RowReader<'_>> = self.cells.iter().map(|view| reader_for(state, view, epoch)).collect();
        let mut items = if self.sort == "server" { self.by_name(&readers) } else { self.by_key(&readers) };
        let more = items.len() > self.limit;
        items.truncate(self.limit);
        let last = if more { items.last() } else { None };
        let next_cursor = last.map(|(key, cell, row)| Cursor {
            question: self.question.clone(),
            epoch,
            key: *key,
            cell: self.cells[*cell].snapshot().cell.to_string(),
            server: self.server(*cell, *row).to_owned(),
            class: 0,
        });
        let list = List {
            epoch,
            as_of: epoch.map(Time::from_seconds),
            valid_until: readers.iter().map(RowReader::valid_until).min(),
            stale: self.cells.iter().any(|view| view.is_stale(state.now())),
            items: items.iter().map(|(_, cell, row)| readers[*cell].record(*row as usize)).collect(),
            next_cursor: next_cursor.map(|cursor| cursor.encode()),
        };
        let body = serde_json::to_vec(&list).map_err(|_| ApiError::internal())?;
        Ok((body, state.now().seconds()))
    }

    fn server(&self, cell: usize, row: u32) -> &str {
        &self.cells[cell].snapshot().servers.server[row as usize]
    }

    /// Pools of a cell that the filter lets through, by their number; `None` lets all through.
    fn pools(&self, cell: usize) -> Option<Vec<bool>> {
        let wanted = self.pool.as_deref()?;
        Some(self.cells[cell].snapshot().servers.pools.iter().map(|pool| **pool == *wanted).collect())
    }

    fn passes(&self, reader: &RowReader<'_>, pools: Option<&Vec<bool>>, cell: usize, row: u32) -> bool {
        let row_pool = self.cells[cell].snapshot().servers.pool[row as usize] as usize;
        pools.is_none_or(|pools| pools.get(row_pool).copied().unwrap_or(false))
            && self.load_state.is_none_or(|state| state == reader.load_state(row as usize).as_str())
            && self.fault_state.is_none_or(|state| state == reader.fault_state(row as usize).as_str())
    }

    fn by_name(&self, readers: &[RowReader<'_>]) -> Vec<Item> {
        let mut items = Vec::new();
        for (cell, view) in self.cells.iter().enumerate() {
            let order = view.names().order();
            let cell_name = &*view.snapshot().cell;
            let start = match &self.after {
                Some(after) if cell_name < after.cell.as_str() => continue,
                Some(after) if cell_name == after.cell => {
                    order.partition_point(|row| self.server(cell, *row) <= after.server.as_str())
                }
                _ => 0,
            };
            let pools = self.pools(cell);
            let passing = order[start..].iter().filter(|row| self.passes(&readers[cell], pools.as_ref(), cell, **row));
            items.extend(passing.take(self.limit + 1 - items.len()).map(|row| (0, cell, *row)));
            if items.len() > self.limit {
                break;
            }
        }
        items
    }

    fn by_key(&self, readers: &[RowReader<'_>]) -> Vec<Item> {
        let name = |item: &Item| (&*self.cells[item.1].snapshot().cell, self.server(item.1, item.2));
        let mut items: Vec<Item> = Vec::new();
        for (cell, view) in self.cells.iter().enumerate() {
            let pools = self.pools(cell);
            let health = &view.snapshot().health;
            let column = if self.sort.ends_with("healthScore") { &health.score } else { &health.pressure };
            let is_stale = readers[cell].is_stale();
            for row in 0..view.snapshot().len() as u32 {
                if self.passes(&readers[cell], pools.as_ref(), cell, row) {
                    let value = if is_stale { f32::NAN } else { column[row as usize] };
                    items.push((sort_key(value, self.sort.starts_with('-')), cell, row));
                }
            }
        }
        if let Some(after) = &self.after {
            let last = (after.key, (after.cell.as_str(), after.server.as_str()));
            items.retain(|item| (item.0, name(item)) > last);
        }
        let compare = |a: &Item, b: &Item| a.0.cmp(&b.0).then_with(|| name(a).cmp(&name(b)));
        if items.len() > self.limit + 1 {
            items.select_nth_unstable_by(self.limit, compare);
            items.truncate(self.limit + 1);
        }
        items.sort_unstable_by(compare);
        items
    }
}

/// Numbers in the order of the values, unknown last in both directions.
fn sort_key(value: f32, descending: bool) -> u32 {
    if value.is_nan() {
        return u32::MAX;
    }
    let bits = value.to_bits();
    let ascending = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    if descending { !ascending } else { ascending }
}

#[cfg(test)]
mod tests {
    use super::sort_key;

    #[test]
    fn keys_sort_as_values_do_and_unknown_last() {
        let values = [-1.0, -0.5, 0.0, 0.25, 1.0, 3.0];
        assert!(values.is_sorted_by_key(|value| sort_key(*value, false)));
        assert!(values.iter().rev().is_sorted_by_key(|value| sort_key(*value, true)));
        assert!([false, true].iter().all(|descending| sort_key(f32::NAN, *descending) > sort_key(3.0, *descending)));
    }
}
