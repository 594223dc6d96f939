//! What operators and consumers do: modes, removals, acks, policies. All of it becomes records of the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use headroom_access::Caller;
use headroom_model::policy::Mode;
use headroom_read_model::Lookup;
use headroom_wire::operate::{
    Accepted, AckAnswer, AckItem, AckRequest, InputsReport, ModeName, ModeRequest, PolicyRecord, PolicySummary,
};
use headroom_wire::{Problem, ProblemItem};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};

use crate::error::ApiError;
use crate::ports::{Ack, CommandError, RemoveServer, SetMode};
use crate::request::{JSON, Name, Params, content_type, negotiate, read_body, read_json, wants_json};
use crate::respond::{json, typed, with_header};
use crate::state::ApiState;

const YAML: &str = "application/yaml";
const NEXT_TICK: &str = "with the next tick";

/// Sets the mode of a cell, or of all. `off` is the kill switch: readers obey it at once, with no engine alive.
#[utoipa::path(post, path = "/v1/mode", tag = "operate", operation_id = "setMode", request_body = ModeRequest,
    responses((status = 202, body = Accepted, description = "Recorded"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such cell"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Refused"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "A value is not acceptable")))]
pub(crate) async fn set_mode(
    State(state): State<ApiState>,
    params: Params,
    headers: HeaderMap,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    params.only(&[])?;
    wants_json(&headers)?;
    let caller = request.extensions().get::<Caller>().cloned();
    let wanted: ModeRequest = read_json(&state, request).await?;
    let (owner, reason) = audited(caller.as_ref(), &wanted.owner, &wanted.reason)?;
    let mode = match (wanted.mode, wanted.percent) {
        (ModeName::Enforce, percent) => {
            let percent = percent.unwrap_or(100.0);
            if !(0.0..=100.0).contains(&percent) {
                return Err(ApiError::bad_value("percent", "percent is a share of the servers, 0 to 100"));
            }
            Some(Mode::Enforce { percent })
        }
        (_, Some(_)) => return Err(ApiError::bad_value("percent", "percent goes with the mode enforce only")),
        (ModeName::Off, None) => Some(Mode::Off),
        (ModeName::Observe, None) => Some(Mode::Observe),
        (ModeName::Policy, None) => None,
    };
    if let Some(cell) = &wanted.cell {
        state.cell(cell)?;
    }
    let cell = wanted.cell.as_deref();
    let is_kill = mode == Some(Mode::Off);
    if is_kill {
        // Before the log: the switch must work when nothing else does.
        state.read_model.kill(cell, true);
    }
    let command = SetMode { cell: cell.map(Arc::from), mode, owner, reason };
    // On a task of its own: what follows the record must follow also where nobody waits for the answer any more.
    let done = tokio::spawn(async move {
        let cell = command.cell.clone();
        state.commands.set_mode(command).await?;
        // Where readers are told of modes in one order, this one is too, and must not get ahead of another operator's word.
        if !is_kill && !state.commands.readers_are_told() {
            state.read_model.kill(cell.as_deref(), false);
        }
        Ok(())
    });
    done.await.map_err(|_| ApiError::internal())?.map_err(|error: CommandError| match error {
        CommandError::Unavailable(detail) if is_kill => ApiError::obeyed_but_not_recorded(&detail),
        error => error.into(),
    })?;
    let name = match wanted.mode {
        ModeName::Off => "off",
        ModeName::Observe => "observe",
        ModeName::Enforce => "enforce",
        ModeName::Policy => "what the policy says",
    };
    let place = cell.map_or_else(|| "all cells".into(), |cell| format!("the cell {cell}"));
    let takes_effect = if is_kill { "at once for readers, with the next tick for the engine" } else { NEXT_TICK };
    accepted(format!("mode of {place}: {name}"), takes_effect)
}

/// Removes a server. Should it report again, it joins as a new one.
#[utoipa::path(delete, path = "/v1/servers/{server}", tag = "operate", operation_id = "removeServer",
    params(("server" = String, Path, description = "The server's name, or any alias"),
        ("cell" = Option<String>, Query, description = "Where a name lies in two cells: the one meant", min_length = 1),
        ("owner" = String, Query, description = "Who asks, for the audit", min_length = 1, max_length = 256, pattern = r"\S"),
        ("reason" = String, Query, description = "Why, for the audit", min_length = 1, max_length = 1024, pattern = r"\S")),
    responses((status = 202, body = Accepted, description = "Recorded"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No server answers to the name"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Several servers answer to the name, or refused"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "A value is not acceptable")))]
pub(crate) async fn remove_server(
    State(state): State<ApiState>,
    Name(server): Name,
    params: Params,
    caller: Option<Extension<Caller>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    params.only(&["cell", "owner", "reason"])?;
    wants_json(&headers)?;
    let why = "removals are audited; add ?owner=you&reason=why";
    let (owner, reason) = audited(caller.as_deref(), params.required("owner", why)?, params.required("reason", why)?)?;
    let found = state.resolve(&server, params.text("cell")?)?;
    let cell = Arc::clone(&found.view.snapshot().cell);
    let server = Arc::clone(found.server());
    let what = format!("{server} leaves {cell}");
    state.commands.remove_server(RemoveServer { cell, server, owner, reason }).await?;
    accepted(what, NEXT_TICK)
}

/// A consumer says which epoch it acts on and what is in use. Where this fails with 503 some of it may be recorded all the
/// same; to repeat it is harmless.
#[utoipa::path(post, path = "/v1/acks", tag = "decisions", operation_id = "acknowledge", request_body = AckRequest,
    responses((status = 202, body = AckAnswer, description = "Recorded, but for those in refused"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such cell"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Refused"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "A value is not acceptable")))]
pub(crate) async fn acknowledge(
    State(state): State<ApiState>,
    params: Params,
    headers: HeaderMap,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    params.only(&[])?;
    wants_json(&headers)?;
    let wanted: AckRequest = read_json(&state, request).await?;
    let max = state.limits.batch_items_max;
    if wanted.acks.len() > max {
        state.observer.refused("batchItemsMax");
        return Err(ApiError::too_many("acks", "batchItemsMax", max as u64));
    }
    let consumer = audit_text("consumer", &wanted.consumer, 256)?;
    if let Some(cell) = &wanted.cell {
        state.cell(cell)?;
    }
    let (mut acks, mut refused) = (Vec::new(), Vec::new());
    for (at, item) in wanted.acks.iter().enumerate() {
        match ack(&state, wanted.cell.as_deref(), &consumer, wanted.epoch, item) {
            Ok(ack) => acks.push(ack),
            Err((field, message)) => {
                let path = format!("acks[{at}].{field}");
                refused.push(ProblemItem { path, message, ..ProblemItem::default() });
            }
        }
    }
    let accepted = acks.len();
    if !acks.is_empty() {
        state.commands.append_acks(acks).await?;
    }
    json(StatusCode::ACCEPTED, &AckAnswer { accepted, refused }, None)
}

fn ack(
    state: &ApiState,
    cell: Option<&str>,
    consumer: &Arc<str>,
    epoch: i64,
    item: &AckItem,
) -> Result<Ack, (&'static str, String)> {
    if !(0.0..=1_000.0).contains(&item.in_use) {
        return Err(("inUse", format!("{} is not a share of the nominal, 0 to 1000", item.in_use)));
    }
    let found = match state.read_model.find(&item.server, cell) {
        Lookup::Found(found) => found,
        Lookup::NotFound => return Err(("server", format!("no server answers to {:?}", item.server))),
        Lookup::Ambiguous(_) => return Err(("server", format!("several servers answer to {:?}", item.server))),
    };
    let snapshot = found.view.snapshot();
    let class = snapshot.policy.classes.iter().find(|head| *head.name == *item.class);
    let Some(class) = class else { return Err(("class", format!("there is no class {:?}", item.class))) };
    Ok(Ack {
        cell: Arc::clone(&snapshot.cell),
        server: Arc::clone(found.server()),
        class: Arc::clone(&class.name),
        consumer: Arc::clone(consumer),
        epoch,
        in_use: item.in_use,
    })
}

/// Says which version of the policy an answer is: the `policyHash` of decisions that follow from it.
const POLICY_HASH: HeaderName = HeaderName::from_static("headroom-policy-hash");

/// The policy in force: its text, or as JSON together with what each cell decides by.
#[utoipa::path(get, path = "/v1/policy", tag = "policy", operation_id = "getPolicy",
    responses((status = 200, description = "The policy",
        headers(("headroom-policy-hash" = String, description = "Its version: the policyHash of what is decided by it")), content((Object = "application/yaml"), (PolicyRecord = "application/json"), (String = "text/plain")))))]
pub(crate) async fn get_policy(
    State(state): State<ApiState>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    params.only(&[])?;
    let form = negotiate(&headers, &[YAML, JSON, "text/plain"])?;
    let policy = state.commands.policy();
    let response = if form == JSON {
        let cells = state.read_model.cells();
        let in_force: BTreeMap<String, String> =
            cells.iter().map(|(cell, view)| (cell.to_string(), view.snapshot().policy.hash.to_string())).collect();
        let record = PolicyRecord { policy_hash: policy.hash.to_string(), yaml: policy.text.to_string(), in_force };
        json(StatusCode::OK, &record, None)?
    } else {
        typed(form, policy.text.to_string())
    };
    let version = HeaderValue::from_str(&policy.hash).map_err(|_| ApiError::internal())?;
    let mut response = with_header(response, header::VARY, "Accept");
    response.headers_mut().insert(POLICY_HASH, version);
    Ok(response)
}

/// Says whether a text is a policy, and all that is wrong with it if not. Changes nothing.
#[utoipa::path(post, path = "/v1/policy:check", tag = "policy", operation_id = "checkPolicy",
    request_body(content((Object = "application/yaml"), (Object = "application/x-yaml"), (Object = "text/yaml"), (String = "text/plain"))),
    responses((status = 200, body = PolicySummary, description = "It is a policy"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "It is not; problems says why")))]
pub(crate) async fn check_policy(
    State(state): State<ApiState>,
    params: Params,
    headers: HeaderMap,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    params.only(&[])?;
    wants_json(&headers)?;
    if ![YAML, "application/x-yaml", "text/yaml", "text/plain"].contains(&content_type(&headers).as_str()) {
        return Err(ApiError::unsupported_media_type(YAML));
    }
    let _place = state.heavy_permit()?;
    let text = String::from_utf8(read_body(&state, request).await?);
    let text = text.map_err(|error| ApiError::bad_body(format!("the policy is not UTF-8: {error}")))?;
    match state.commands.check_policy(text).await {
        Ok(summary) => json(StatusCode::OK, &summary, None),
        Err(problems) => Err(ApiError::invalid_policy(problems)),
    }
}

/// Metrics seen: matched, unused, refused, by sender and dialect.
#[utoipa::path(get, path = "/v1/inputs", tag = "policy", operation_id = "getInputs",
    responses((status = 200, body = InputsReport, description = "What was seen"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Refused")))]
pub(crate) async fn get_inputs(
    State(state): State<ApiState>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    params.only(&[])?;
    wants_json(&headers)?;
    let _place = state.heavy_permit()?;
    json(StatusCode::OK, &state.commands.inputs().await?, None)
}

fn accepted(what: String, takes_effect: &str) -> Result<Response, ApiError> {
    let body = Accepted { accepted: what, takes_effect: takes_effect.into() };
    json(StatusCode::ACCEPTED, &body, None).map(IntoResponse::into_response)
}

/// Owner and reason of an operator's action. Who has shown who he is, is the owner; what he calls himself stands beside
/// the reason, since a tool may act for somebody.
fn audited(caller: Option<&Caller>, owner: &str, reason: &str) -> Result<(Arc<str>, Arc<str>), ApiError> {
    let owner = audit_text("owner", owner, 256)?;
    let reason = audit_text("reason", reason, 1_024)?;
    match caller.and_then(|caller| caller.name.clone()) {
        Some(name) if name != owner => Ok((name, format!("{reason} (for {owner})").into())),
        Some(name) => Ok((name, reason)),
        None => Ok((owner, reason)),
    }
}

/// A text that goes into the audit: not empty, not a novel.
fn audit_text(field: &str, text: &str, max: usize) -> Result<Arc<str>, ApiError> {
    if text.trim().is_empty() || text.chars().count() > max {
        return Err(ApiError::bad_value(field, format!("{field} is a text of 1 to {max} characters, not only spaces")));
    }
    Ok(text.trim().into())
}
