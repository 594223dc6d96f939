//! Which scope each route needs, said once: the router enforces it and the description of the API declares it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use headroom_access::{Access, Caller, Peer, Scope, Surface};
use http::{Method, Uri};
use utoipa::openapi::OpenApi;

use crate::error::ApiError;
use crate::router::render_problem;

/// What a route of the API needs. What is not named here needs `admin`, so that a route that somebody forgets is closed
/// and not open.
pub(crate) fn scope_of(method: &str, path: &str) -> Scope {
    match (method, path) {
        ("GET" | "HEAD", _) => Scope::Read,
        // Questions that need a body, and what a consumer says about what it read.
        ("POST", "/v1/decisions:batchGet" | "/v1/policy:check" | "/v1/acks") => Scope::Read,
        ("POST", "/v1/mode" | "/v1/clock") | ("DELETE", "/v1/servers/{server}") => Scope::Operate,
        _ => Scope::Admin,
    }
}

/// The description of the API and the pages made from it say nothing about any server.
fn is_open(path: &str) -> bool {
    matches!(path, "/" | "/openapi.json" | "/docs") || path.starts_with("/docs/")
}

/// The scopes of all routes that there are.
#[derive(Debug)]
pub(crate) struct Needs(BTreeMap<String, Vec<(Method, Scope)>>);

impl Needs {
    /// Those of a description.
    pub(crate) fn of(api: &OpenApi) -> Self {
        let routes = api.paths.paths.iter().map(|(path, item)| {
            let mut methods = Vec::new();
            for (method, operation) in [
                (Method::GET, &item.get),
                (Method::POST, &item.post),
                (Method::PUT, &item.put),
                (Method::DELETE, &item.delete),
                (Method::PATCH, &item.patch),
            ] {
                if operation.is_some() {
                    methods.push((method.clone(), scope_of(method.as_str(), path)));
                }
            }
            (path.clone(), methods)
        });
        Self(routes.collect())
    }

    /// What a request to a route needs; nothing where there is no answer but 404 or 405, or an open page.
    pub(crate) fn scope(&self, method: &Method, route: Option<&str>) -> Option<Scope> {
        let route = route?;
        let Some(methods) = self.0.get(route) else {
            return (!is_open(route)).then_some(Scope::Admin);
        };
        let method = if method == Method::HEAD { &Method::GET } else { method };
        methods.iter().find(|(each, _)| each == method).map(|(_, scope)| *scope)
    }
}

/// Who sent a request: what `serve` has left in it.
fn peer(request: &Request) -> Arc<Peer> {
    request.extensions().get::<Arc<Peer>>().cloned().unwrap_or_default()
}

/// Lets a request in, or says why not.
pub(crate) fn admit(access: &Access, request: &Request, needs: Scope) -> Result<Caller, ApiError> {
    Ok(access.admit(Surface::Http, &peer(request), request.headers(), needs)?)
}

/// The probes and `/metrics`, to be served beside the API: probes are for everybody, since those who probe have no
/// secrets, and `/metrics` needs the scope `read` unless it is configured open.
pub fn guarded(probes: Router, access: Access) -> Router {
    probes
        .method_not_allowed_fallback(|method: Method| async move { ApiError::method_not_allowed(method.as_str()) })
        .layer(from_fn_with_state(access, guard))
}

/// The same, to be served by a process without the API, which has nothing else.
pub fn guarded_alone(probes: Router, access: Access) -> Router {
    guarded(probes.fallback(|uri: Uri| async move { ApiError::no_api(uri.path()) }), access)
}

async fn guard(State(access): State<Access>, request: Request, next: Next) -> Response {
    let is_metrics = request.extensions().get::<MatchedPath>().is_some_and(|path| path.as_str() == "/metrics");
    let (path, method) = (request.uri().path().to_owned(), request.method().clone());
    let admitted = if is_metrics && !access.has_open_metrics() {
        admit(&access, &request, Scope::Read).map(|_| ())
    } else {
        Ok(())
    };
    let response = match admitted {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    render_problem(response, &path, &method)
}
