//! A whole cell at once.
//!
//! The entity tag is the version together with what the reader adds to it (stale, kill switch), so that a dead engine
//! never hides behind a 304. It is weak: JSON and Arrow of one version say the same in other bytes.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use headroom_read_model::CellView;
use headroom_wire::arrow::ARROW_STREAM;
use headroom_wire::{List, Problem, Reading, RowReader, ServerRecord, Time};
use http::{HeaderMap, StatusCode, header};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};
use utoipa::openapi::{KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, Type};

use crate::error::ApiError;
use crate::request::{JSON, Params, negotiate};
use crate::respond::{channel_body, typed, with_header};
use crate::snapshot_cache::{Form, arrow_stream};
use crate::state::ApiState;

/// Records in one piece of a streamed snapshot: about a millisecond of work.
const ROWS_PER_PIECE: usize = 128;

/// An Arrow IPC stream of one record batch; `headroom_wire::snapshot_schema` says its columns.
pub(crate) struct ArrowStream;

impl utoipa::PartialSchema for ArrowStream {
    fn schema() -> RefOr<Schema> {
        let binary = SchemaFormat::KnownFormat(KnownFormat::Binary);
        ObjectBuilder::new().schema_type(Type::String).format(Some(binary)).into()
    }
}

impl utoipa::ToSchema for ArrowStream {}

/// A whole cell: all records as JSON, or the core columns as an Arrow IPC stream.
#[utoipa::path(get, path = "/v1/snapshot", tag = "decisions", operation_id = "getSnapshot",
    params(("cell" = Option<String>, Query, description = "The cell; may be left out where there is one only", min_length = 1),
        ("If-None-Match" = Option<String>, Header, description = "ETag of an earlier answer")),
    responses((status = 200, description = "The cell", content(
            (List<ServerRecord<'static>> = "application/json"),
            (ArrowStream = "application/vnd.apache.arrow.stream"))),
        (status = 304, description = "Nothing has changed"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such cell")))]
pub(crate) async fn get_snapshot(
    State(state): State<ApiState>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    params.only(&["cell"])?;
    let form = negotiate(&headers, &[JSON, ARROW_STREAM])?;
    let view = the_cell(&state, params.text("cell")?)?;
    let reading = state.reading(&view);
    let version = version(&view, reading);
    let tag = format!("W/\"{version}\"");
    let mut response = if is_known(&headers, &tag) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let _permit = state.heavy_permit()?;
        match form {
            JSON if view.snapshot().len() > state.limits.json_snapshot_cached_servers_max => {
                let stream = state.snapshot_stream_permit()?;
                typed(JSON, streamed(state.clone(), Arc::clone(&view), reading, stream))
            }
            JSON => typed(JSON, cached(&state, &view, reading, Form::Json).await?),
            _ => typed(ARROW_STREAM, cached(&state, &view, reading, Form::Arrow).await?),
        }
    };
    let age = view.age_seconds(state.now()).to_string();
    for (name, value) in [
        (header::ETAG, tag.as_str()),
        (header::VARY, "Accept"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::AGE, age.as_str()),
    ] {
        response = with_header(response, name, value);
    }
    Ok(response)
}

/// The cell asked for, or the only one.
fn the_cell(state: &ApiState, cell: Option<&str>) -> Result<Arc<CellView>, ApiError> {
    if let Some(cell) = cell {
        return state.cell(cell);
    }
    let cells = state.cells(None)?;
    match &cells[..] {
        [view] => Ok(Arc::clone(view)),
        [] => Err(ApiError::unknown_cell("", std::iter::empty())),
        _ => {
            let names: Vec<&str> = cells.iter().take(10).map(|view| &*view.snapshot().cell).collect();
            let detail = format!("there are {} cells; add ?cell=, one of {}", cells.len(), names.join(", "));
            Err(ApiError::bad_query("cell", detail))
        }
    }
}

fn version(view: &CellView, reading: Reading) -> String {
    let stale = if reading.stale { "-stale" } else { "" };
    let killed = if reading.killed { "-off" } else { "" };
    format!("{}{stale}{killed}", view.epoch())
}

fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let strong = tag.trim_start_matches("W/");
    let tags = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    tags.flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.trim_start_matches("W/") == strong)
}

async fn cached(state: &ApiState, view: &Arc<CellView>, reading: Reading, form: Form) -> Result<Bytes, ApiError> {
    let of = view;
    let view = Arc::clone(view);
    let build = move || match form {
        Form::Arrow => arrow_stream(&view, reading),
        Form::Json => Ok((0..).map_while(|piece| json_piece(&view, reading, piece)).flatten().collect()),
    };
    state.snapshots.get(of, form, reading, build).await
}

/// A body made piece by piece, no faster than it is read. A piece has a place among the heavy requests while it is made,
/// not while it waits for the reader; what bounds the old snapshots that readers keep alive is a place among the streams,
/// and the time that one may take.
fn streamed(state: ApiState, view: Arc<CellView>, reading: Reading, stream: OwnedSemaphorePermit) -> Body {
    let (writer, body) = channel_body(state.limits.write_stall_timeout);
    tokio::spawn(async move {
        let _stream = stream;
        let deadline = Instant::now() + state.limits.snapshot_stream_timeout;
        for piece in 0.. {
            let made = {
                let Ok(_permit) = state.heavy.acquire().await else { return };
                json_piece(&view, reading, piece)
            };
            let Some(bytes) = made else { break };
            if !matches!(timeout_at(deadline, writer.send(bytes.into())).await, Ok(Ok(()))) {
                return;
            }
        }
        writer.finish();
    });
    Body::new(body)
}

/// The list of all records, cut into pieces: the envelope up to its items, the items, and the end.
fn json_piece(view: &CellView, reading: Reading, piece: usize) -> Option<Vec<u8>> {
    let reader = RowReader::new(view.snapshot(), reading);
    let rows = view.snapshot().len();
    let pieces = rows.div_ceil(ROWS_PER_PIECE);
    let mut bytes = Vec::with_capacity(ROWS_PER_PIECE * 4_096);
    if piece == 0 {
        let envelope = List::<ServerRecord<'_>> {
            epoch: Some(view.epoch()),
            as_of: Some(Time::from_seconds(view.epoch())),
            valid_until: Some(reader.valid_until()),
            stale: reading.stale,
            items: Vec::new(),
            next_cursor: None,
        };
        serde_json::to_writer(&mut bytes, &envelope).ok()?;
        // What follows the items is written at the end: `],"nextCursor":null}`.
        bytes.truncate(bytes.len() - END.len());
    } else if piece <= pieces {
        let from = (piece - 1) * ROWS_PER_PIECE;
        for row in from..rows.min(from + ROWS_PER_PIECE) {
            if row > 0 {
                bytes.push(b',');
            }
            serde_json::to_writer(&mut bytes, &reader.record(row)).ok()?;
        }
    } else if piece == pieces + 1 {
        bytes.extend_from_slice(END);
    } else {
        return None;
    }
    Some(bytes)
}

const END: &[u8] = b"],\"nextCursor\":null}";
