//! Every error of the API, as problem details with a way out. One place, so that the kinds stay few and stable.

use std::fmt::Display;
use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use headroom_access::Denial;
use headroom_model::Timestamp;
use headroom_wire::bulk::Candidate;
use headroom_wire::{Problem, ProblemItem, Time};
use http::{HeaderValue, StatusCode, header};

use crate::ports::{ClockError, CommandError};

/// The media type of problem details.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// An error on its way to the caller, and the challenge of one that says too little about itself. The outermost layer
/// adds the path and writes it, see `router`.
#[derive(Clone, Debug)]
pub(crate) struct ApiError(Box<Problem>, Option<HeaderValue>);

impl ApiError {
    fn new(status: StatusCode, kind: &str, title: &str, detail: impl Into<String>) -> Self {
        let problem = Problem {
            kind: format!("/problems/{kind}"),
            title: title.into(),
            status: status.as_u16(),
            detail: detail.into(),
            ..Problem::default()
        };
        Self(Box::new(problem), None)
    }

    fn field(mut self, field: &str) -> Self {
        self.0.field = Some(field.into());
        self
    }

    fn limit(mut self, limit: &str, bound: u64) -> Self {
        self.0.limit = Some(limit.into());
        self.0.bound = Some(bound);
        self
    }

    fn retry_after(mut self, seconds: u64) -> Self {
        self.0.retry_after_seconds = Some(seconds);
        self
    }

    pub(crate) fn no_route(path: &str) -> Self {
        let detail = format!("nothing lies at {path}; GET / lists what there is, /openapi.json describes it");
        Self::new(StatusCode::NOT_FOUND, "no-route", "No such route", detail)
    }

    /// A path of a process that has only probes and metrics.
    pub(crate) fn no_api(path: &str) -> Self {
        let detail = format!(
            "nothing lies at {path}; this process answers /livez, /readyz and /metrics, and the API is where the role \
             health-api runs"
        );
        Self::new(StatusCode::NOT_FOUND, "no-route", "No such route", detail)
    }

    pub(crate) fn method_not_allowed(method: &str) -> Self {
        let detail = format!("the path exists, but not for {method}; the header Allow names its methods");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed", detail)
    }

    /// No server answers. `full` are the cells that have lately refused servers: it may be one of those.
    pub(crate) fn unknown_server(name: &str, cell: Option<&str>, full: &[Arc<str>]) -> Self {
        let place = cell.map_or_else(String::new, |cell| format!(" in the cell {cell}"));
        let mut detail =
            format!("no server{place} answers to {name:?}, neither by name nor by alias; GET /v1/servers lists them");
        if !full.is_empty() {
            detail.push_str("; new servers are refused (engine.servers_max) in ");
            detail.push_str(&full.join(", "));
        }
        Self::new(StatusCode::NOT_FOUND, "unknown-server", "Unknown server", detail).field("server")
    }

    pub(crate) fn unknown_cell<'a>(cell: &str, known: impl Iterator<Item = &'a str>) -> Self {
        let known: Vec<&str> = known.take(10).collect();
        let hint = match known[..] {
            [] => "there is none yet: no telemetry has made a tick".into(),
            _ => format!("GET /v1/cells lists them: {}", known.join(", ")),
        };
        let detail = format!("there is no cell {cell:?}; {hint}");
        Self::new(StatusCode::NOT_FOUND, "unknown-cell", "Unknown cell", detail).field("cell")
    }

    pub(crate) fn unknown_class(class: &str, known: &[&str]) -> Self {
        let nearest = nearest(class, known).map_or_else(String::new, |name| format!(", did you mean {name:?}?"));
        let detail = format!("there is no class {class:?}{nearest}; there are {}", known.join(", "));
        Self::new(StatusCode::NOT_FOUND, "unknown-class", "Unknown class", detail).field("class")
    }

    /// A cursor that is one in form only, or belongs to another list.
    pub(crate) fn unknown_cursor(detail: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "unknown-cursor", "No such page", detail).field("cursor")
    }

    pub(crate) fn ambiguous(name: &str, candidates: Vec<Candidate>) -> Self {
        let detail = format!(
            "{} servers answer to {name:?}; add ?cell=, or ask for a server's own name, see candidates",
            candidates.len()
        );
        let mut error =
            Self::new(StatusCode::CONFLICT, "ambiguous-name", "Several servers have this name", detail).field("server");
        error.0.candidates = candidates;
        error
    }

    pub(crate) fn bad_query(field: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-query", "The query cannot be understood", detail).field(field)
    }

    pub(crate) fn bad_body(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-body", "The body cannot be understood", detail)
    }

    pub(crate) fn bad_value(field: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-value", "A value is not acceptable", detail).field(field)
    }

    pub(crate) fn too_many(field: &str, limit: &str, bound: u64) -> Self {
        let detail = format!("{field} may hold {bound} at most; split the request");
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "too-many-items", "Too many items", detail)
            .field(field)
            .limit(limit, bound)
    }

    pub(crate) fn invalid_policy(problems: Vec<ProblemItem>) -> Self {
        let detail = format!("{} things are wrong with the policy, see problems", problems.len());
        let mut error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-policy", "Not a valid policy", detail);
        error.0.problems = problems;
        error
    }

    pub(crate) fn not_acceptable(offered: &[&str]) -> Self {
        let detail = format!("this is available as {}; the header Accept allows none of it", offered.join(" or "));
        Self::new(StatusCode::NOT_ACCEPTABLE, "not-acceptable", "Not available in this form", detail).field("Accept")
    }

    pub(crate) fn unsupported_media_type(expected: &str) -> Self {
        let detail = format!("send Content-Type: {expected}");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "Unsupported media type", detail)
            .field("Content-Type")
    }

    pub(crate) fn body_too_large(bound: u64) -> Self {
        let detail = format!("the body may have {bound} bytes at most; split the request");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large", detail)
            .limit("bodyBytesMax", bound)
    }

    pub(crate) fn bodies_fill_memory(bound: u64) -> Self {
        let detail = format!("bodies of {bound} bytes are on their way in; questions without a body are not affected");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Too many bodies at once", detail)
            .limit("inflightBytesMax", bound)
            .retry_after(1)
    }

    pub(crate) fn body_timeout(seconds: u64) -> Self {
        let detail = format!("the body did not come within {seconds} s");
        Self::new(StatusCode::REQUEST_TIMEOUT, "body-timeout", "The body took too long", detail)
            .limit("bodyTimeout", seconds)
    }

    pub(crate) fn uri_too_long(bound: u64) -> Self {
        let detail = format!("path and query may have {bound} bytes at most; POST /v1/decisions:batchGet takes lists");
        Self::new(StatusCode::URI_TOO_LONG, "uri-too-long", "The address is too long", detail)
            .limit("uriBytesMax", bound)
    }

    pub(crate) fn headers_too_large(bound: u64) -> Self {
        let detail = format!("the headers may have {bound} bytes at most");
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        Self::new(status, "headers-too-large", "The headers are too large", detail).limit("headerBytesMax", bound)
    }

    pub(crate) fn since_too_old(since: i64, horizon: i64) -> Self {
        let detail = format!(
            "changes are known back to {horizon}, not to {since}; repeat the request without since to get all there is"
        );
        let mut error = Self::new(StatusCode::GONE, "since-too-old", "That epoch is no longer known", detail);
        error.0.horizon = Some(horizon);
        error.field("since")
    }

    pub(crate) fn overloaded(limit: &str, bound: u64, retry_after_seconds: u64) -> Self {
        let detail = format!("{bound} of these are already running; point reads and probes are not affected");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Too many requests of this kind at once", detail)
            .limit(limit, bound)
            .retry_after(retry_after_seconds)
    }

    /// The kill switch, where only the readers could be told.
    pub(crate) fn obeyed_but_not_recorded(detail: &str) -> Self {
        let detail = format!(
            "readers of this replica obey already: nothing is limited; but the log did not take the record ({detail}), so \
             the engine and other replicas do not know; repeat the request until it is answered with 202"
        );
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not possible now", detail).retry_after(1)
    }

    pub(crate) fn internal() -> Self {
        let detail = "this is a fault of the service, not of the request; its log says more";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error", detail)
    }

    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The problem as a response, once the path is known.
    pub(crate) fn render(mut self, path: &str) -> Response {
        self.0.instance = path.into();
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        let mut response = (self.status(), body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = self.0.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(challenge) = self.1 {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Denial> for ApiError {
    fn from(denial: Denial) -> Self {
        let detail = denial.to_string();
        let (kind, title) = match denial.status() {
            StatusCode::UNAUTHORIZED => ("unauthorized", "Who asks is not known"),
            StatusCode::FORBIDDEN => ("forbidden", "The caller may not do this"),
            _ => ("too-many-requests", "The caller asks too often"),
        };
        let mut error = Self::new(denial.status(), kind, title, detail);
        error.1 = denial.challenge().and_then(|challenge| HeaderValue::from_str(&challenge).ok());
        match (&denial, denial.retry_after_seconds()) {
            (Denial::TooMany { limit, per_second, .. }, Some(seconds)) => {
                error.limit(limit, *per_second).retry_after(seconds)
            }
            _ => error.field("Authorization"),
        }
    }
}

impl From<CommandError> for ApiError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Unavailable(detail) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not possible now", detail).retry_after(1)
            }
            CommandError::Refused(detail) => Self::new(StatusCode::CONFLICT, "refused", "Refused", detail),
        }
    }
}

impl From<ClockError> for ApiError {
    fn from(error: ClockError) -> Self {
        match error {
            ClockError::Backwards { now } => {
                let detail = format!("the clock shows {} and never goes back", text(now));
                Self::new(StatusCode::CONFLICT, "clock-backwards", "The clock never goes back", detail).field("now")
            }
            ClockError::TooManyTicks { ticks, max } => {
                let detail = format!("the step holds {ticks} ticks, {max} at most; advance in several steps");
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "too-many-ticks", "The step is too long", detail)
                    .field("now")
                    .limit("clockTicksMax", max)
            }
            ClockError::Unavailable(detail) => CommandError::Unavailable(detail).into(),
        }
    }
}

fn text(time: Timestamp) -> impl Display {
    Time(time)
}

/// The known name that a misspelt one is most like, if it is like one at all.
pub(crate) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let similarity = |candidate: &str| strsim::jaro_winkler(&name.to_lowercase(), &candidate.to_lowercase());
    let best = known.iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b)))?;
    (similarity(best) > 0.75).then_some(*best)
}
