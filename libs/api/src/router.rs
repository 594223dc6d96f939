//! The routes put together, and the one layer around all of them.

use std::any::Any;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use headroom_access::Scope;
use http::{Method, StatusCode, Uri, header};
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;
use utoipa_swagger_ui::SwaggerUi;

use crate::access::{Needs, admit};
use crate::error::ApiError;
use crate::openapi::{routes, with_common_problems, with_security};
use crate::request::HasPlace;
use crate::routes::documents::{html, index_html};
use crate::state::ApiState;

/// All routes. Nothing is read or written before a request comes.
pub fn router(state: ApiState) -> Router {
    let (routes, api) = routes(state.event_time).split_for_parts();
    let api = with_common_problems(api);
    let needs = Arc::new(Needs::of(&api));
    let api = if state.access.is_restricted() { with_security(api) } else { api };
    let index = index_html(&api);
    let documents = Router::new()
        .route("/", get(move || std::future::ready(html(index.clone()))))
        .merge(SwaggerUi::new("/docs").url("/openapi.json", api));
    routes
        .with_state(state.clone())
        .merge(documents)
        .fallback(|uri: Uri| async move { ApiError::no_route(uri.path()) })
        .method_not_allowed_fallback(|method: Method| async move { ApiError::method_not_allowed(method.as_str()) })
        .layer(CatchPanicLayer::custom(|_: Box<dyn Any + Send>| {
            tracing::error!("a request handler panicked");
            ApiError::internal().into_response()
        }))
        .layer(from_fn_with_state((state, needs), around))
}

/// Around every request: bounds of its head, who may ask, problem details with their path, and a word to the observer.
async fn around(State((state, needs)): State<(ApiState, Arc<Needs>)>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let needed = needs.scope(&method, route.as_ref().map(MatchedPath::as_str));
    let response = match enter(&state, &mut request, needed) {
        Ok(_place) => {
            // The target is that of `headroom_telemetry::logs::TRACE_TARGET`: made only where spans are exported.
            let span = tracing::info_span!(
                target: "headroom_trace", "http request", otel.kind = "server",
                otel.name = format!("{method} {}", route.as_ref().map_or("unmatched", MatchedPath::as_str)),
                http.request.method = method.as_str(), http.response.status_code = tracing::field::Empty,
            );
            let response = next.run(request).instrument(span.clone()).await;
            span.record("http.response.status_code", response.status().as_u16());
            response
        }
        Err(error) => error.into_response(),
    };
    let response = render_problem(response, &path, &method);
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    let status = response.status().as_u16();
    state.observer.answered(route, method.as_str(), status, started.elapsed().as_secs_f64());
    response
}

/// Lets a request in. Operators' commands get a place of their own, and learn by whom they are given.
fn enter(
    state: &ApiState,
    request: &mut Request,
    needed: Option<Scope>,
) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
    within_bounds(state, request)?;
    let Some(needed) = needed else { return Ok(None) };
    let caller = admit(&state.access, request, needed).inspect_err(|error| {
        state.observer.refused(match error.status() {
            StatusCode::UNAUTHORIZED => "unauthorized",
            StatusCode::FORBIDDEN => "forbidden",
            _ => "rate",
        });
    })?;
    if !matches!(needed, Scope::Operate | Scope::Admin) {
        return Ok(None);
    }
    request.extensions_mut().insert(caller);
    request.extensions_mut().insert(HasPlace);
    state.operator_permit().map(Some)
}

fn within_bounds(state: &ApiState, request: &Request) -> Result<(), ApiError> {
    let uri = request.uri();
    let uri_bytes = uri.path().len() + uri.query().map_or(0, |query| query.len() + 1);
    if uri_bytes > state.limits.uri_bytes_max {
        state.observer.refused("uriBytesMax");
        return Err(ApiError::uri_too_long(state.limits.uri_bytes_max as u64));
    }
    let header_bytes: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if header_bytes > state.limits.header_bytes_max {
        state.observer.refused("headerBytesMax");
        return Err(ApiError::headers_too_large(state.limits.header_bytes_max as u64));
    }
    Ok(())
}

/// Writes the problem that a handler left in the response; headers set beside it (`Allow`) stay.
pub(crate) fn render_problem(mut response: Response, path: &str, method: &Method) -> Response {
    let Some(error) = response.extensions_mut().remove::<ApiError>() else { return response };
    let mut rendered = error.render(path);
    for (name, value) in response.headers() {
        if name != header::CONTENT_LENGTH {
            rendered.headers_mut().insert(name, value.clone());
        }
    }
    if method == Method::HEAD {
        *rendered.body_mut() = Body::empty();
    }
    rendered
}
