//! The clock of event time. On the wall clock this route does not exist.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use headroom_wire::Problem;
use headroom_wire::operate::{ClockAnswer, ClockRequest};
use http::{HeaderMap, Request, StatusCode};

use crate::error::ApiError;
use crate::request::{Params, read_json, wants_json};
use crate::respond::json;
use crate::state::ApiState;

/// Advances the clock: every tick boundary up to `now` happens, and the snapshots are readable when the answer comes.
/// Exists in event time only.
#[utoipa::path(post, path = "/v1/clock", tag = "operate", operation_id = "advanceClock", request_body = ClockRequest,
    responses((status = 200, body = ClockAnswer, description = "The epochs of all cells"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "The service runs on the wall clock"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The clock never goes back"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "Too many ticks in one step")))]
pub(crate) async fn advance_clock(
    State(state): State<ApiState>,
    params: Params,
    headers: HeaderMap,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    params.only(&[])?;
    wants_json(&headers)?;
    let wanted: ClockRequest = read_json(&state, request).await?;
    let epochs = state.commands.advance_clock(wanted.now.0).await?;
    json(StatusCode::OK, &ClockAnswer { epochs }, None)
}
