//! Refusals, and what operators do.

mod support;

use axum::body::Body;
use headroom_api::{ApiLimits, openapi, openapi_json};
use http::Request;
use serde_json::{Value, json};
use support::Service;
use support::fixture::{EPOCH, snapshot, table};

fn service() -> Service {
    let service = Service::new();
    service.read_model.apply(snapshot("eu-1", EPOCH, table(&[("web-1", &["10.0.0.1"], "web")])));
    service
}

/// Every refusal is a problem that names what is wrong and the way out.
#[tokio::test]
async fn refusals_say_what_is_wrong_and_what_to_do() {
    let service = service();
    for (path, status, kind, field, hint) in [
        ("/v1/servers/nobody", 404, "unknown-server", "server", "GET /v1/servers lists them"),
        ("/v1/servers/nobody?cell=eu-1", 404, "unknown-server", "server", "are refused (engine.servers_max) in eu-1"),
        ("/v1/servers/%FF", 400, "bad-query", "server", "UTF-8"),
        ("/v1/servers/web-1?cell=nowhere", 404, "unknown-cell", "cell", "eu-1"),
        ("/v1/servers?loadstate=normal", 400, "bad-query", "loadstate", "did you mean \"loadState\"?"),
        ("/v1/servers?loadState=norml", 400, "bad-query", "loadState", "did you mean \"normal\"?"),
        ("/v1/servers?cell=eu-1&cell=eu-1", 400, "bad-query", "cell", "twice"),
        ("/v1/servers?pool=", 400, "bad-query", "pool", "empty"),
        ("/v1/servers?limit=0", 400, "bad-query", "limit", "from 1 to 10000"),
        ("/v1/servers?limit=10001", 400, "bad-query", "limit", "from 1 to 10000"),
        ("/v1/servers?limit=many", 400, "bad-query", "limit", "integer"),
        ("/v1/servers?cursor=zz", 400, "bad-query", "cursor", "nextCursor"),
        ("/v1/servers?cursor=7", 400, "bad-query", "cursor", "nextCursor"),
        ("/v1/servers?cursor=7b7d", 404, "unknown-cursor", "cursor", "nextCursor"),
        ("/v1/servers?sort=age", 400, "bad-query", "sort", "healthScore"),
        ("/v1/cells/eu-1?x=1", 400, "bad-query", "x", "takes none"),
        ("/v1/cells?x=1", 400, "bad-query", "x", "cursor"),
        ("/v1/cells/nowhere", 404, "unknown-cell", "cell", "eu-1"),
        ("/v1/pools?cell=nowhere", 404, "unknown-cell", "cell", "eu-1"),
        ("/v1/decisions?class=discretionry", 404, "unknown-class", "class", "did you mean \"discretionary\"?"),
        ("/v1/decisions?since=yesterday", 400, "bad-query", "since", "integer"),
        ("/v1/decisions?since=1", 410, "since-too-old", "since", "without since"),
        ("/v1/watch?since=1", 410, "since-too-old", "since", "without since"),
        ("/v1/watch?wait=2h", 400, "bad-query", "wait", "30s"),
        ("/v1/watch?wait=61s", 400, "bad-query", "wait", "60s at most"),
        ("/v1/watch?limit=5", 400, "bad-query", "limit", "wait=30s"),
        ("/v1/check/web-1?class=nope", 404, "unknown-class", "class", "urgent, discretionary"),
        ("/v1/check/nobody", 404, "unknown-server", "server", "/v1/servers"),
        ("/v1/snapshot?cell=nowhere", 404, "unknown-cell", "cell", "eu-1"),
        ("/v2/servers", 404, "no-route", "", "/openapi.json"),
        ("/v1/mode", 405, "method-not-allowed", "", "Allow"),
    ] {
        let answer = service.get(path).await;
        let problem = answer.json();
        assert_eq!(answer.status.as_u16(), status, "{path}: {problem}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{path}");
        assert_eq!(problem["type"], format!("/problems/{kind}"), "{path}");
        assert_eq!(
            (&problem["status"], &problem["instance"]),
            (&json!(status), &json!(path.split('?').next())),
            "{path}"
        );
        assert_eq!(problem["field"].as_str().unwrap_or_default(), field, "{path}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(hint)), "{path}: {problem}");
    }
    assert_eq!(service.get("/v1/mode").await.header("allow"), "POST");
    for path in ["/v1/servers", "/v1/servers/web-1", "/v1/snapshot", "/v1/policy", "/v1/watch"] {
        let answer = service.get_with(path, ("accept", "image/png")).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["field"]), (406, &json!("Accept")), "{path}");
    }
}

#[tokio::test]
async fn bodies_that_cannot_be_understood_say_where() {
    let service = service();
    for (path, body, status, hint) in [
        ("/v1/decisions:batchGet", "{", 400, "line 1"),
        ("/v1/decisions:batchGet", "{}", 400, "missing field `servers`"),
        ("/v1/decisions:batchGet", r#"{"servers": [], "clas": "x"}"#, 400, "unknown field `clas`"),
        ("/v1/mode", r#"{"mode": "on", "owner": "a", "reason": "b"}"#, 400, "unknown variant `on`"),
        ("/v1/mode", r#"{"mode": "observe", "owner": " ", "reason": "b"}"#, 422, "owner"),
        ("/v1/mode", r#"{"mode": "enforce", "percent": 101, "owner": "a", "reason": "b"}"#, 422, "0 to 100"),
        ("/v1/mode", r#"{"mode": "observe", "percent": 1, "owner": "a", "reason": "b"}"#, 422, "enforce only"),
        ("/v1/mode", r#"{"mode": "observe", "cell": "x", "owner": "a", "reason": "b"}"#, 404, "eu-1"),
        ("/v1/clock", r#"{"now": "yesterday"}"#, 400, "RFC 3339"),
        ("/v1/clock", r#"{"now": "2026-11-21T09:00:00Z"}"#, 409, "never goes back"),
        ("/v1/clock", r#"{"now": "2027-11-21T09:00:00Z"}"#, 422, "several steps"),
        ("/v1/acks", r#"{"consumer": "", "epoch": 1, "acks": []}"#, 422, "consumer"),
    ] {
        let answer = service.post(path, body).await;
        assert_eq!(answer.status.as_u16(), status, "{path} {body}: {}", answer.text());
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert!(answer.json()["detail"].as_str().is_some_and(|detail| detail.contains(hint)), "{}", answer.text());
    }
    let text =
        Request::post("/v1/acks").header("content-type", "text/plain").body(Body::from("{}")).expect("a request");
    assert_eq!(service.call(text).await.status, 415);
    assert_eq!(service.commands.take(), [""; 0]);
}

#[tokio::test]
async fn limits_refuse_by_name_and_a_full_house_of_lists_leaves_point_reads_alone() {
    let limits = ApiLimits {
        body_bytes_max: 64,
        uri_bytes_max: 64,
        header_bytes_max: 64,
        heavy_requests_max: 0,
        batch_items_max: 1,
        ..ApiLimits::default()
    };
    let service = Service::with(true, limits);
    service.read_model.apply(snapshot("eu-1", EPOCH, table(&[("web-1", &[], "web")])));
    let refusal = |answer: support::Answer| {
        let problem = answer.json();
        (answer.status.as_u16(), problem["limit"].as_str().unwrap_or_default().to_owned(), problem["bound"].as_u64())
    };
    for path in ["/v1/servers", "/v1/decisions", "/v1/snapshot", "/v1/cells", "/v1/pools", "/v1/inputs"] {
        let answer = service.get(path).await;
        assert_eq!(answer.header("retry-after"), "1");
        assert_eq!(refusal(answer), (503, "heavyRequestsMax".into(), Some(0)), "{path}");
    }
    assert_eq!(service.get("/v1/servers/web-1").await.status, 200);
    assert_eq!(service.get("/v1/check/web-1").await.status, 200);
    let long = format!("/v1/servers/{}", "x".repeat(64));
    assert_eq!(refusal(service.get(&long).await), (414, "uriBytesMax".into(), Some(64)));
    let header = service.get_with("/v1/cells", ("x-much", &"x".repeat(64))).await;
    assert_eq!(refusal(header), (431, "headerBytesMax".into(), Some(64)));
    let body = format!(r#"{{"servers": ["{}"]}}"#, "x".repeat(64));
    assert_eq!(refusal(service.post("/v1/decisions:batchGet", &body).await), (413, "bodyBytesMax".into(), Some(64)));
    let names = refusal(service.post("/v1/decisions:batchGet", r#"{"servers": ["a", "b"]}"#).await);
    assert_eq!(names, (422, "batchItemsMax".into(), Some(1)));
}

/// Bodies count as they come; operators' commands have places of their own.
#[tokio::test]
async fn bodies_on_their_way_in_have_a_bound_together() {
    let limits = ApiLimits { inflight_bytes_max: 100, ..ApiLimits::default() };
    let service = Service::with(true, limits);
    service.read_model.apply(snapshot("eu-1", EPOCH, table(&[("web-1", &[], "web")])));
    let batch = |bytes: usize| format!(r#"{{"servers": ["{}"]}}"#, "x".repeat(bytes));
    let refused = service.post("/v1/decisions:batchGet", &batch(100)).await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, "1"));
    assert_eq!((&refused.json()["limit"], &refused.json()["bound"]), (&json!("inflightBytesMax"), &json!(100)));
    for _ in 0..3 {
        assert_eq!(service.post("/v1/decisions:batchGet", &batch(50)).await.status, 200, "the room is given back");
    }
    let mode = format!(r#"{{"mode": "observe", "owner": "ann", "reason": "{}"}}"#, "x".repeat(100));
    assert_eq!(service.post("/v1/mode", &mode).await.status, 202);
}

#[tokio::test]
async fn operators_and_consumers_write_to_the_log() {
    let service = service();
    let mode = |body: &str| format!(r#"{{{body}, "owner": "ann", "reason": "incident 7"}}"#);
    assert_eq!(service.post("/v1/mode", &mode(r#""mode": "enforce", "percent": 5, "cell": "eu-1""#)).await.status, 202);
    assert_eq!(service.post("/v1/mode", &mode(r#""mode": "policy""#)).await.status, 202);
    let remove = Request::delete("/v1/servers/10.0.0.1?owner=ann&reason=gone").body(Body::empty()).expect("a request");
    assert_eq!(service.call(remove).await.status, 202);
    let unaudited = Request::delete("/v1/servers/web-1").body(Body::empty()).expect("a request");
    assert_eq!(service.call(unaudited).await.json()["field"], "owner");
    let acks = json!({"consumer": "batch", "epoch": EPOCH, "acks": [
        {"server": "10.0.0.1", "class": "urgent", "inUse": 0.5},
        {"server": "nobody", "class": "urgent", "inUse": 0.5},
        {"server": "web-1", "class": "nothing", "inUse": 0.5},
        {"server": "web-1", "class": "urgent", "inUse": -1.0}]});
    let answer = service.post("/v1/acks", &acks.to_string()).await;
    let refused: Vec<Value> =
        answer.json()["refused"].as_array().into_iter().flatten().map(|r| r["path"].clone()).collect();
    assert_eq!((answer.status.as_u16(), &answer.json()["accepted"]), (202, &json!(1)));
    assert_eq!(refused, ["acks[1].server", "acks[2].class", "acks[3].inUse"]);
    assert_eq!(
        service.commands.take(),
        [
            "mode Some(\"eu-1\") Some(Enforce { percent: 5.0 }) ann incident 7",
            "mode None None ann incident 7",
            "remove eu-1/web-1 ann gone",
            &format!("ack eu-1/web-1 urgent batch {EPOCH} 0.5"),
        ]
    );
}

/// The kill switch works with no engine and no log alive.
#[tokio::test]
async fn off_acts_on_readers_at_once_even_if_the_log_is_full() {
    let service = Service::new();
    service.read_model.apply(snapshot("full", EPOCH, table(&[("web-1", &[], "web")])));
    let body = r#"{"mode": "off", "cell": "full", "owner": "ann", "reason": "incident 7"}"#;
    let answer = service.post("/v1/mode", body).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "1"));
    for told in ["obey already", "the log is full", "repeat the request"] {
        assert!(answer.text().contains(told), "{}", answer.text());
    }
    assert_eq!(service.get("/v1/servers/web-1").await.json()["mode"], "off");
}

/// Else the kill switch would stay thrown on this replica, with a log that says otherwise.
#[tokio::test]
async fn a_mode_takes_effect_though_its_caller_has_left() {
    let service = Service::new();
    service.read_model.apply(snapshot("slow", EPOCH, table(&[("web-1", &[], "web")])));
    service.read_model.kill(Some("slow"), true);
    let body = r#"{"mode": "enforce", "cell": "slow", "owner": "ann", "reason": "over"}"#;
    {
        let mut request = std::pin::pin!(service.post("/v1/mode", body));
        while service.commands.take().is_empty() {
            assert!(poll_once(request.as_mut()).await.is_none(), "the log has not answered yet");
            tokio::task::yield_now().await;
        }
    }
    service.commands.gate.add_permits(1);
    while service.read_model.cell("slow").is_some_and(|cell| cell.is_killed()) {
        tokio::task::yield_now().await;
    }
}

/// Polls once.
async fn poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

#[tokio::test]
async fn the_clock_exists_in_event_time_only() {
    let (event, wall) = (service(), Service::with(false, ApiLimits::default()));
    let body = r#"{"now": "2026-11-21T10:00:25Z"}"#;
    let answer = event.post("/v1/clock", body).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"epochs": {"eu-1": EPOCH + 10}})));
    assert_eq!(wall.post("/v1/clock", body).await.status, 404);
    let has_clock = |api: utoipa::openapi::OpenApi| api.paths.paths.contains_key("/v1/clock");
    assert!(has_clock(openapi(true)) && !has_clock(openapi(false)));
}

#[tokio::test]
async fn policies_are_shown_and_checked() {
    let service = service();
    let yaml = service.get("/v1/policy").await;
    assert_eq!(
        (yaml.header("content-type"), yaml.text().as_str()),
        ("application/yaml", "# the policy\nsignals: {}\n")
    );
    let record = service.get_with("/v1/policy", ("accept", "application/json")).await.json();
    assert_eq!((&record["policyHash"], &record["inForce"]), (&json!("b1946ac9"), &json!({"eu-1": "b1946ac9"})));
    let check = |text: &'static str| {
        let request = Request::post("/v1/policy:check").header("content-type", "application/yaml; charset=utf-8");
        service.call(request.body(Body::from(text)).expect("a request"))
    };
    assert_eq!(check("signals: {}").await.json()["classes"], json!(["urgent"]));
    let broken = check("broken").await;
    assert_eq!((broken.status.as_u16(), &broken.json()["problems"][0]["line"]), (422, &json!(3)));
    assert_eq!(service.post("/v1/policy:check", "{}").await.status, 415);
    assert_eq!(service.get("/v1/inputs").await.json()["unfed"], json!(["cpu_busy"]));
}

/// An empty service answers, and says what it is waiting for.
#[tokio::test]
async fn an_empty_service_answers() {
    let service = Service::new();
    for path in ["/v1/servers", "/v1/cells", "/v1/pools", "/v1/decisions", "/v1/watch?wait=1s"] {
        let answer = service.get(path).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["epoch"]), (200, &Value::Null), "{path}");
    }
    assert!(service.get("/v1/snapshot").await.text().contains("no telemetry"));
}

/// The description names every answer the routes give, and its references lead somewhere.
#[tokio::test]
async fn the_description_is_whole_and_the_documents_are_served_from_here() {
    let api: Value = serde_json::from_str(&openapi_json()).expect("JSON");
    assert!(api["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    let mut operations = 0;
    for (path, methods) in api["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            operations += 1;
            for status in ["400", "406", "414", "431", "500", "503"] {
                assert!(operation["responses"][status].is_object(), "{method} {path} {status}");
            }
            assert!(operation["summary"].is_string() && operation["operationId"].is_string(), "{method} {path}");
        }
    }
    assert_eq!(operations, 18);
    let text = api.to_string();
    for reference in text.split("\"$ref\":\"#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(api["components"]["schemas"][reference].is_object(), "{reference}");
    }
    let service = service();
    assert_eq!(service.get("/openapi.json").await.json()["info"]["title"], "Headroom");
    for path in ["/", "/docs/"] {
        let page = service.get(path).await;
        assert_eq!(page.status, 200, "{path}");
        assert!(page.header("content-type").starts_with("text/html"));
        let text = page.text().to_lowercase();
        assert!(
            !text.contains("src=\"http") && !text.contains("link href=\"http") && !text.contains("href=\"http"),
            "{path}"
        );
    }
    assert!(service.get("/").await.text().contains("curl http://localhost:8080/v1/servers/SERVER"));
}
