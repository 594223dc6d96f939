//! Every route without credentials, with wrong ones, with too small a scope and with the right one. The routes come from
//! the description of the API, so that none can be forgotten.

mod support;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use headroom_access::{Access, Scope};
use headroom_api::{ApiLimits, guarded, guarded_alone, openapi_json};
use headroom_config::{Auth, SecuritySection};
use headroom_model::Timestamp;
use headroom_telemetry::{Readiness, Telemetry, probes};
use http::{Method, Request};
use http_body::Frame;
use http_body_util::BodyExt;
use serde_json::Value;
use support::fixture::{EPOCH, snapshot, table};
use support::{Answer, Service};
use tower::ServiceExt;

/// Callers of one scope each; a token is the scope's name, thrice.
struct Callers(PathBuf);

impl Callers {
    fn new(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("headroom-api-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary directory");
        let mut text = "callers:\n".to_owned();
        for scope in Scope::ALL {
            std::fs::write(folder.join(scope.as_str()), token(scope)).expect("a file");
            text.push_str(&format!("- {{name: {scope}-caller, scopes: [{scope}], token_file: {scope}}}\n"));
        }
        std::fs::write(folder.join("callers.yaml"), text).expect("a file");
        Self(folder)
    }

    fn without(&self, scope: Scope) {
        let file = self.0.join("callers.yaml");
        let text = std::fs::read_to_string(&file).expect("a file");
        let kept: Vec<&str> = text.lines().filter(|line| !line.contains(&format!("[{scope}]"))).collect();
        std::fs::write(file, kept.join("\n")).expect("a file");
    }

    fn access(&self, change: impl FnOnce(&mut SecuritySection)) -> Access {
        let file = self.0.join("callers.yaml").display().to_string();
        let mut security =
            SecuritySection { auth: Auth::Tokens, callers_file: Some(file), ..SecuritySection::default() };
        change(&mut security);
        let now = Arc::new(|| Timestamp::from_seconds(EPOCH));
        Access::new(&security, now, &Telemetry::default()).expect("valid callers")
    }

    fn service(&self) -> Service {
        let service = Service::for_callers(true, ApiLimits::default(), self.access(|_| {}));
        service.read_model.apply(snapshot("eu-1", EPOCH, table(&[("web-1", &[], "web")])));
        service
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn token(scope: Scope) -> String {
    format!("{scope}-{scope}-{scope}-{scope}")
}

fn bearer(scope: Scope) -> String {
    format!("Bearer {}", token(scope))
}

/// Method, path with its parameters filled in, and the scope that the description names.
fn operations() -> Vec<(Method, String, Scope)> {
    let document: Value = serde_json::from_str(&openapi_json()).expect("JSON");
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let Ok(method) = method.to_uppercase().parse::<Method>() else { continue };
            let scope = &operation["security"][0]["bearer"][0];
            assert_eq!(scope, &operation["security"][1]["certificate"][0], "{method} {path}");
            let scope = Scope::ALL.into_iter().find(|each| each.as_str() == scope);
            let scope = scope.unwrap_or_else(|| panic!("{method} {path} names no scope"));
            operations.push((method, path.replace("{server}", "web-1").replace("{cell}", "eu-1"), scope));
        }
    }
    operations
}

async fn ask(service: &Service, method: &Method, path: &str, authorization: Option<&str>) -> Answer {
    let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    let response = service.router.clone().oneshot(request.body(Body::empty()).expect("a request")).await;
    let (head, body) = response.expect("the router never fails").into_parts();
    // A stream that was let in does not end; its head says all.
    let is_stream = head.headers.get("content-type").is_some_and(|kind| kind == "text/event-stream");
    let body = if is_stream { Vec::new() } else { body.collect().await.expect("a body").to_bytes().to_vec() };
    Answer { status: head.status, headers: head.headers, body }
}

#[tokio::test]
async fn every_route_wants_its_scope_and_no_other() {
    let callers = Callers::new("routes");
    let service = callers.service();
    let allows = |given: Scope, needed: Scope| {
        given == needed || given == Scope::Admin || (given == Scope::Operate && needed == Scope::Read)
    };
    let operations = operations();
    assert!(operations.len() >= 17, "{operations:?}");
    for (method, path, needed) in &operations {
        for authorization in [None, Some("Bearer nobody-nobody-nobody"), Some("Basic cm9vdDpyb290")] {
            let answer = ask(&service, method, path, authorization).await;
            let case = format!("{method} {path} {authorization:?}: {}", answer.text());
            assert_eq!(answer.status.as_u16(), 401, "{case}");
            assert!(answer.header("www-authenticate").starts_with("Bearer realm="), "{case}");
            assert_eq!(answer.header("content-type"), "application/problem+json", "{case}");
            assert_eq!(answer.json()["type"], "/problems/unauthorized", "{case}");
            assert!(!answer.text().contains("nobody-nobody"), "{case}");
        }
        for given in Scope::ALL {
            let answer = ask(&service, method, path, Some(&bearer(given))).await;
            let case = format!("{method} {path} by {given}: {}", answer.text());
            if allows(given, *needed) {
                assert!(![401, 403].contains(&answer.status.as_u16()), "{case}");
            } else {
                assert_eq!(answer.status.as_u16(), 403, "{case}");
                let detail = format!("{given}-caller may {given}; this needs the scope {needed}");
                assert_eq!(answer.json()["detail"], detail, "{case}");
                assert!(answer.header("www-authenticate").contains(&format!("scope=\"{needed}\"")), "{case}");
            }
        }
    }
    assert!(service.commands.take().is_empty(), "no command came through without a body");
}

#[tokio::test]
async fn operators_routes_need_more_than_reading() {
    let needed = |wanted: Scope| {
        let found = operations().into_iter().filter(move |(_, _, scope)| *scope == wanted);
        found.map(|(method, path, _)| format!("{method} {path}")).collect::<Vec<_>>()
    };
    let mut operate = needed(Scope::Operate);
    operate.sort();
    assert_eq!(operate, ["DELETE /v1/servers/web-1", "POST /v1/clock", "POST /v1/mode"]);
    assert!(needed(Scope::Admin).is_empty(), "a route that access.rs does not name: {:?}", needed(Scope::Admin));
}

#[tokio::test]
async fn pages_and_probes_are_for_everybody_and_metrics_for_readers() {
    let callers = Callers::new("probes");
    let service = callers.service();
    for path in ["/", "/openapi.json", "/docs/", "/docs/swagger-ui.css"] {
        assert_eq!(ask(&service, &Method::GET, path, None).await.status.as_u16(), 200, "{path}");
    }
    assert_eq!(ask(&service, &Method::GET, "/nothing", None).await.status.as_u16(), 404);
    assert_eq!(ask(&service, &Method::PUT, "/v1/mode", None).await.status.as_u16(), 405);
    let described: Value = ask(&service, &Method::GET, "/openapi.json", None).await.json();
    assert_eq!(described["paths"]["/v1/mode"]["post"]["security"][0]["bearer"][0], "operate");
    assert!(ask(&service, &Method::GET, "/", None).await.text().contains("Authorization: Bearer $TOKEN"));

    let open = |security: &mut SecuritySection| security.open_metrics = true;
    for (access, without) in [(callers.access(|_| {}), 401), (callers.access(open), 200), (Access::default(), 200)] {
        let router = guarded(probes::router(Telemetry::default(), Readiness::default()), access);
        for (path, authorization, expected) in [
            ("/livez", None, 200),
            ("/readyz", None, 200),
            ("/metrics", None, without),
            ("/metrics", Some(bearer(Scope::Read)), 200),
            ("/metrics", Some(bearer(Scope::Ingest)), if without == 401 { 403 } else { 200 }),
        ] {
            let mut request = Request::get(path);
            if let Some(authorization) = &authorization {
                request = request.header("authorization", authorization);
            }
            let answer = router.clone().oneshot(request.body(Body::empty()).expect("a request")).await;
            let answer = answer.expect("the router never fails");
            assert_eq!(answer.status().as_u16(), expected, "{path} {authorization:?}");
        }
    }
}

/// Whoever asks a process for what it does not have is told so in the same form everywhere.
#[tokio::test]
async fn probes_refuse_in_problems_like_the_api_beside_them_or_alone() {
    let probes = || probes::router(Telemetry::default(), Readiness::default());
    let beside = guarded(probes(), Access::default()).merge(Service::new().router);
    let alone = guarded_alone(probes(), Access::default());
    for (method, path, status, kind, router) in [
        (Method::POST, "/livez", 405, "method-not-allowed", &beside),
        (Method::POST, "/livez", 405, "method-not-allowed", &alone),
        (Method::PUT, "/readyz", 405, "method-not-allowed", &alone),
        (Method::DELETE, "/metrics", 405, "method-not-allowed", &alone),
        (Method::GET, "/nothing", 404, "no-route", &beside),
        (Method::GET, "/v1/cells", 404, "no-route", &alone),
        (Method::POST, "/", 404, "no-route", &alone),
    ] {
        let request = Request::builder().method(&method).uri(path).body(Body::empty()).expect("a request");
        let (head, body) = router.clone().oneshot(request).await.expect("the router never fails").into_parts();
        let body = body.collect().await.expect("the body ends").to_bytes();
        let problem: Value = serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        assert_eq!(head.headers["content-type"], "application/problem+json", "{method} {path}");
        assert_eq!(
            (head.status.as_u16(), problem["type"].as_str(), problem["instance"].as_str()),
            (status, Some(&*format!("/problems/{kind}")), Some(path)),
            "{method} {path}"
        );
        assert_eq!(head.headers.get("allow").map(|allow| allow == "GET,HEAD"), (status == 405).then_some(true));
    }
    let head = Request::head("/nothing").body(Body::empty()).expect("a request");
    let answer = alone.oneshot(head).await.expect("the router never fails");
    assert_eq!(answer.status().as_u16(), 404);
    assert!(answer.into_body().collect().await.expect("the body ends").to_bytes().is_empty());
}

#[tokio::test]
async fn without_callers_the_description_says_nothing_of_credentials() {
    let service = Service::new();
    let described = service.get("/openapi.json").await.json();
    assert_eq!(described["paths"]["/v1/mode"]["post"]["security"], Value::Null);
    assert!(!service.get("/").await.text().contains("Authorization"));
    assert_eq!(service.get("/v1/cells").await.status.as_u16(), 200);
}

#[tokio::test]
async fn who_has_shown_who_he_is_is_the_owner() {
    let callers = Callers::new("owner");
    let service = callers.service();
    let set = |owner: &str| {
        let body = format!(r#"{{"mode": "observe", "owner": "{owner}", "reason": "why"}}"#);
        let request = Request::post("/v1/mode").header("content-type", "application/json");
        request.header("authorization", bearer(Scope::Operate)).body(Body::from(body)).expect("a request")
    };
    for (owner, recorded) in [("me", "operate-caller why (for me)"), ("operate-caller", "operate-caller why")] {
        assert_eq!(service.call(set(owner)).await.status.as_u16(), 202);
        assert_eq!(service.commands.take(), [format!("mode None Some(Observe) {recorded}")]);
    }
    let remove = Request::delete("/v1/servers/web-1?owner=me&reason=why").header("authorization", bearer(Scope::Admin));
    assert_eq!(service.call(remove.body(Body::empty()).expect("a request")).await.status.as_u16(), 202);
    assert_eq!(service.commands.take(), ["remove eu-1/web-1 admin-caller why (for me)"]);
}

#[tokio::test]
async fn a_caller_that_asks_too_often_is_told_when_to_come_back() {
    let callers = Callers::new("rate");
    let access = callers.access(|security| security.limits.requests_per_second = 1);
    let service = Service::for_callers(true, ApiLimits::default(), access);
    let mut refused = None;
    // A thousand requests take less than 998 seconds.
    for _ in 0..1_000 {
        let answer = ask(&service, &Method::GET, "/v1/cells", Some(&bearer(Scope::Read))).await;
        if answer.status.as_u16() != 200 {
            refused = Some(answer);
            break;
        }
    }
    let answer = refused.expect("a refusal");
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (429, "1"));
    let problem = answer.json();
    assert_eq!(problem["type"], "/problems/too-many-requests");
    assert_eq!((&problem["limit"], &problem["bound"]), (&"requests_per_second".into(), &1.into()));
    assert_ne!(ask(&service, &Method::GET, "/v1/cells", Some(&bearer(Scope::Admin))).await.status.as_u16(), 429);
}

/// Commands that cannot finish fill the operators' places; reads go on, and the other way round.
#[tokio::test]
async fn operators_and_readers_do_not_take_each_others_places() {
    let limits = ApiLimits { operator_requests_max: 1, heavy_requests_max: 0, ..ApiLimits::default() };
    let service = Service::for_callers(true, limits, Access::default());
    service.read_model.apply(snapshot("eu-1", EPOCH, table(&[("web-1", &[], "web")])));
    assert_eq!(service.get("/v1/servers").await.status.as_u16(), 503, "no place for a list");
    let mode = r#"{"mode": "observe", "owner": "me", "reason": "why"}"#;
    assert_eq!(service.post("/v1/mode", mode).await.status.as_u16(), 202, "a flood of lists shuts no operator out");

    // A body that does not come holds the only operator's place.
    let body = Body::new(Never);
    let request = Request::post("/v1/mode").header("content-type", "application/json").body(body).expect("a request");
    let stuck = tokio::spawn(service.router.clone().oneshot(request));
    // It must come first: a command waits for its record, and who comes meanwhile is refused.
    tokio::task::yield_now().await;
    let refused = loop {
        let answer = service.post("/v1/mode", mode).await;
        if answer.status.as_u16() != 202 {
            break answer;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, "1"));
    assert_eq!(refused.json()["limit"], "operatorRequestsMax");
    assert_eq!(service.get("/v1/servers/web-1").await.status.as_u16(), 200);
    stuck.abort();
}

/// A body that never comes.
struct Never;

impl http_body::Body for Never {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_when_its_token_does() {
    let callers = Callers::new("stream");
    let access = callers.access(|_| {});
    let service = Service::for_callers(true, ApiLimits::default(), access.clone());
    service.read_model.apply(snapshot("eu-1", EPOCH, table(&[("web-1", &[], "web")])));
    let request = Request::get("/v1/watch").header("authorization", bearer(Scope::Read)).body(Body::empty());
    let response = service.router.clone().oneshot(request.expect("a request")).await.expect("the router never fails");
    let mut body = response.into_body();
    let first = body.frame().await.expect("the stream goes on").expect("a frame");
    assert!(first.is_data());
    callers.without(Scope::Read);
    access.refresh();
    // Time stands still while anything else can happen: the stream ends at its next heartbeat.
    while let Some(frame) = body.frame().await {
        assert!(frame.is_ok());
    }
    assert_eq!(ask(&service, &Method::GET, "/v1/watch", Some(&bearer(Scope::Read))).await.status.as_u16(), 401);
}
