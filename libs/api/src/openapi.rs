//! The description of the API, made from the routes themselves.
//!
//! What every route may answer (bad query, wrong form, too much, overload) is added here in one place instead of at
//! each of them, so that a description without it cannot be written.

use utoipa::OpenApi as _;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::access::scope_of;
use crate::error::PROBLEM_JSON;
use crate::routes::{check, clock, decisions, operate, rollups, servers, snapshot, watch};
use crate::state::ApiState;

/// Names of the security schemes.
const BEARER: &str = "bearer";
const CERTIFICATE: &str = "certificate";

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Headroom",
        version = "1",
        description = "How much more each server in a fleet can take, and what callers should do about it.\n\nTimes are RFC 3339 UTC, durations are seconds in `…Seconds`, ratios are 0 to 1, an unknown number is `null`. An epoch is the time of a tick in Unix seconds: the version of everything published. Errors are problem details (RFC 9457).",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(headroom_wire::Problem)),
    tags(
        (name = "decisions", description = "How much of each class each server takes: in bulk, as changes, as a stream"),
        (name = "servers", description = "One server, or lists of them"),
        (name = "cells and pools", description = "Roll-ups"),
        (name = "policy", description = "The policy in force, and what it reads"),
        (name = "operate", description = "Operator actions, audited"),
    )
)]
struct Head;

/// The routes with their description. `POST /v1/clock` exists in event time only.
pub(crate) fn routes(event_time: bool) -> OpenApiRouter<ApiState> {
    let routes = OpenApiRouter::with_openapi(Head::openapi())
        .routes(routes!(servers::list_servers))
        .routes(routes!(servers::get_server, operate::remove_server))
        .routes(routes!(servers::explain_server))
        .routes(routes!(check::check_server))
        .routes(routes!(decisions::list_decisions))
        .routes(routes!(decisions::batch_get_decisions))
        .routes(routes!(snapshot::get_snapshot))
        .routes(routes!(watch::watch))
        .routes(routes!(operate::acknowledge))
        .routes(routes!(rollups::list_cells))
        .routes(routes!(rollups::get_cell))
        .routes(routes!(rollups::list_pools))
        .routes(routes!(operate::get_policy))
        .routes(routes!(operate::check_policy))
        .routes(routes!(operate::get_inputs))
        .routes(routes!(operate::set_mode));
    if event_time { routes.routes(routes!(clock::advance_clock)) } else { routes }
}

/// The description of a service on the wall clock or in event time.
pub fn openapi(event_time: bool) -> OpenApi {
    with_common_problems(routes(event_time).into_openapi())
}

/// The same as JSON, with every route there is: for files kept beside the code.
pub fn openapi_json() -> String {
    with_security(openapi(true)).to_pretty_json().unwrap_or_default()
}

pub(crate) fn with_common_problems(mut api: OpenApi) -> OpenApi {
    for item in api.paths.paths.values_mut() {
        for operation in operations(item) {
            let mut common = vec![
                ("400", "The query or the body cannot be understood"),
                ("406", "Not available in a form the header Accept allows"),
                ("414", "The address is too long"),
                ("429", "The caller asks too often; see Retry-After"),
                ("431", "The headers are too large"),
                ("500", "A fault of the service"),
                ("503", "Too many requests of this kind at once, or not possible now; see Retry-After"),
            ];
            if operation.request_body.is_some() {
                common.extend([
                    ("408", "The body took too long"),
                    ("413", "The body is too large"),
                    ("415", "The body is of an unsupported media type"),
                ]);
            }
            for (status, description) in common {
                operation.responses.responses.entry(status.to_owned()).or_insert_with(|| problem(description));
            }
        }
    }
    api
}

/// Declares how callers show who they are, and the scope that each operation needs.
pub(crate) fn with_security(mut api: OpenApi) -> OpenApi {
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A token of a caller in `security.callers_file`"))
        .build();
    let certificate = SecurityScheme::MutualTls {
        description: Some("A certificate one of whose names is a caller's in `security.callers_file`".to_owned()),
        deprecated: None,
        extensions: None,
    };
    let components = api.components.get_or_insert_default();
    components.add_security_scheme(BEARER, SecurityScheme::Http(bearer));
    components.add_security_scheme(CERTIFICATE, certificate);
    for (path, item) in &mut api.paths.paths {
        for (method, operation) in
            [("GET", &mut item.get), ("POST", &mut item.post), ("PUT", &mut item.put), ("DELETE", &mut item.delete)]
        {
            let Some(operation) = operation else { continue };
            let scope = [scope_of(method, path).as_str()];
            let ways = [BEARER, CERTIFICATE].map(|scheme| SecurityRequirement::new(scheme, scope));
            operation.security = Some(ways.into());
            for (status, description) in [
                ("401", "Who asks is not known; WWW-Authenticate says how to say it"),
                ("403", "The caller lacks the scope"),
            ] {
                operation.responses.responses.entry(status.to_owned()).or_insert_with(|| problem(description));
            }
        }
    }
    api
}

fn problem(description: &str) -> RefOr<Response> {
    let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    RefOr::T(ResponseBuilder::new().description(description).content(PROBLEM_JSON, problem).build())
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post, &mut item.put, &mut item.delete].into_iter().filter_map(Option::as_mut)
}
