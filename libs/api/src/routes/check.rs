//! The probe: one status code for load balancers, health checks and shell scripts.

use axum::extract::State;
use axum::response::Response;
use headroom_wire::{Check, Problem, RowReader};
use http::{HeaderMap, StatusCode, header};

use crate::error::ApiError;
use crate::request::{Name, Params, wants_json};
use crate::respond::{json, with_header};
use crate::state::ApiState;

/// Whether a server takes work now: 200 open or observing, 429 admit fraction below 1, 503 blocked. When the lease has
/// ended the class's own rule decides.
#[utoipa::path(get, path = "/v1/check/{server}", tag = "servers", operation_id = "checkServer",
    params(("server" = String, Path, description = "The server's name, or any alias", example = "web-1"),
        ("class" = Option<String>, Query, description = "The class; if left out, the one of which the least is admitted", min_length = 1),
        ("cell" = Option<String>, Query, description = "Where a name lies in two cells: the one meant", min_length = 1)),
    responses((status = 200, body = Check<'static>, description = "Open, or nothing is enforced"),
        (status = 429, description = "Throttled: take admitFraction of the nominal; or the caller asks too often", content((Check<'static> = "application/json"), (Problem = "application/problem+json"))),
        (status = 503, description = "Blocked: place nothing", content((Check<'static> = "application/json"), (Problem = "application/problem+json"))),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No server answers to the name, or no such class"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Several servers answer to the name")))]
pub(crate) async fn check_server(
    State(state): State<ApiState>,
    Name(server): Name,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    params.only(&["class", "cell"])?;
    wants_json(&headers)?;
    let found = state.resolve(&server, params.text("cell")?)?;
    let snapshot = found.view.snapshot();
    let class = match params.text("class")? {
        None => None,
        Some(class) => {
            let at = snapshot.policy.classes.iter().position(|head| *head.name == *class);
            let known: Vec<&str> = snapshot.policy.classes.iter().map(|head| &*head.name).collect();
            Some(at.ok_or_else(|| ApiError::unknown_class(class, &known))?)
        }
    };
    let now = state.now();
    let reader = RowReader::new(snapshot, state.reading(&found.view));
    let check = reader.check(found.row as usize, class, now).ok_or_else(ApiError::internal)?;
    let status = match &*check.status {
        "open" => StatusCode::OK,
        "throttled" => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let response = json(status, &check, Some(found.view.age_seconds(now)))?;
    if status == StatusCode::OK {
        return Ok(response);
    }
    Ok(with_header(response, header::RETRY_AFTER, &snapshot.policy.refresh_seconds.to_string()))
}
