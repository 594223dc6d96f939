//! Reading: records, lists, decisions, snapshots, probes.

mod support;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int8Type};
use arrow_ipc::reader::StreamReader;
use axum::body::Body;
use headroom_model::CellSnapshot;
use http::Request;
use http_body_util::BodyExt;
use serde_json::json;
use support::Service;
use support::fixture::{EPOCH, enforced, snapshot, table, with_slow_disk};
use tower::ServiceExt;

fn web(epoch: i64) -> CellSnapshot {
    let servers = table(&[
        ("web-17", &["web-17.example.net"], "web"),
        ("db-1", &["10.0.0.9"], "db"),
        ("web-18", &["10.0.0.8"], "web"),
    ]);
    with_slow_disk(snapshot("eu-1", epoch, servers), 0)
}

fn service() -> Service {
    let service = Service::new();
    service.read_model.apply(web(EPOCH));
    service
}

/// The record of the design's page, field by field: these names are a contract.
#[tokio::test]
async fn the_record_is_the_contract() {
    let answer = service().get("/v1/servers/web-17.example.net").await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("content-type"), answer.header("age")),
        (200, "application/json", "3")
    );
    let on_expiry = json!({"holdSeconds": 30, "then": 1.0, "rampPerMinute": 0.2});
    let decision = |class: &str, would: f64, limit, reason: &str| {
        json!({
            "server": "web-17", "cell": "eu-1", "pool": "web", "class": class, "epoch": EPOCH,
            "admitFraction": 1.0, "wouldAdmitFraction": would, "mode": "observe", "limit": limit,
            "leaseSeconds": 60, "refreshAfterSeconds": 10, "validUntil": "2026-11-21T10:01:10Z",
            "onExpiry": on_expiry, "reasonCode": reason, "guards": []
        })
    };
    let expected = json!({
        "server": "web-17", "aliases": ["web-17.example.net"], "cell": "eu-1", "pool": "web",
        "epoch": EPOCH, "asOf": "2026-11-21T10:00:10Z", "validUntil": "2026-11-21T10:01:10Z", "stale": false,
        "policyHash": "b1946ac9", "mode": "observe",
        "healthScore": 0.44, "pressure": 1.12, "loadState": "overloaded", "faultState": "ok", "placement": "avoid",
        "stateSince": "2026-11-21T09:58:40Z", "confidence": 0.96, "lastSampleAgeSeconds": 3.1, "coverage": 0.67, "flags": [],
        "reasons": [{
            "code": "disk_latency_high", "family": "disk", "signal": "disk_await_p95", "value": 0.031, "unit": "s",
            "threshold": 0.025, "pressure": 1.12, "windowSeconds": 30.0, "samples": 3, "ageSeconds": 3.1,
            "counterfactual": "wouldAdmitFraction of discretionary would be 1.0 if disk_await_p95 were < 0.019 s"
        }],
        "signals": [
            {"signal": "cpu_busy", "family": "cpu", "value": 0.61, "unit": "1", "pressure": 0.2, "status": "ok"},
            {"signal": "disk_await_p95", "family": "disk", "value": 0.031, "unit": "s", "pressure": 1.12, "status": "ok"}
        ],
        "decisions": [
            decision("urgent", 1.0, json!(null), "open"),
            decision("discretionary", 0.62, json!(200.0), "throttled_by:disk_await_p95@web-17")
        ]
    });
    assert_eq!(answer.json(), expected);
}

/// Where the decision binds, the fraction also has to rise, which takes the dead band of the law.
#[tokio::test]
async fn the_counterfactual_names_all_signals_that_have_to_move() {
    let service = Service::new();
    let mut snapshot = enforced(web(EPOCH), 0);
    snapshot.health.signal_pressure[0][0] = 0.6;
    service.read_model.apply(snapshot);
    let record = service.get("/v1/servers/web-17").await.json();
    let expected =
        "admitFraction of discretionary would be 1.0 if cpu_busy were < 0.72 and disk_await_p95 were < 0.016 s";
    assert_eq!(record["reasons"][0]["counterfactual"], expected);
    assert_eq!(record["decisions"][1]["onExpiry"]["then"], 0.1);
    assert_eq!(record["decisions"][1]["limit"], 124.0);
}

#[tokio::test]
async fn stale_data_is_unknown_never_healthy() {
    let service = service();
    service.set_seconds_after_epoch(26);
    let record = service.get("/v1/servers/web-18").await.json();
    for (field, expected) in [
        ("stale", json!(true)),
        ("healthScore", json!(null)),
        ("pressure", json!(null)),
        ("loadState", json!("unknown")),
        ("faultState", json!("unknown")),
        ("placement", json!("avoid")),
        ("validUntil", json!("2026-11-21T10:01:10Z")),
    ] {
        assert_eq!(record[field], expected, "{field}");
    }
    assert_eq!(record["signals"][0]["status"], "missing");
    let cell = service.get("/v1/cells/eu-1").await.json();
    assert_eq!((&cell["loadStates"]["unknown"], &cell["healthScoreMin"]), (&json!(3), &json!(null)));
    assert_eq!(cell["coverageMean"], json!(null));
    assert_eq!(service.get("/v1/servers?loadState=normal").await.servers("items"), [""; 0]);
    assert_eq!(service.get("/v1/servers?loadState=unknown").await.servers("items").len(), 3);
}

#[tokio::test]
async fn a_name_in_two_cells_answers_409_and_lists_them() {
    let service = service();
    service.read_model.apply(snapshot("us-1", EPOCH, table(&[("web-17", &[], "web")])));
    for path in ["/v1/servers/web-17", "/v1/servers/web-17/explain", "/v1/check/web-17"] {
        let answer = service.get(path).await;
        let cells: Vec<_> =
            answer.json()["candidates"].as_array().into_iter().flatten().map(|c| c["cell"].clone()).collect();
        assert_eq!((answer.status.as_u16(), cells), (409, vec![json!("eu-1"), json!("us-1")]), "{path}");
        assert_eq!(service.get(&format!("{path}?cell=us-1")).await.status, 200);
    }
}

#[tokio::test]
async fn lists_filter_sort_and_page() {
    let service = service();
    service.read_model.apply(snapshot("us-1", EPOCH + 10, table(&[("api-1", &[], "web")])));
    for (query, expected) in [
        ("", vec!["db-1", "web-17", "web-18", "api-1"]),
        ("?cell=eu-1&pool=web", vec!["web-17", "web-18"]),
        ("?pool=nobody", vec![]),
        ("?loadState=overloaded", vec!["web-17"]),
        ("?faultState=ok&pool=db", vec!["db-1"]),
        ("?sort=healthScore", vec!["web-17", "db-1", "web-18", "api-1"]),
        ("?sort=-pressure&limit=1", vec!["web-17"]),
        ("?sort=pressure", vec!["db-1", "web-18", "api-1", "web-17"]),
    ] {
        assert_eq!(service.get(&format!("/v1/servers{query}")).await.servers("items"), expected, "{query}");
    }
    let list = service.get("/v1/servers").await.json();
    assert_eq!(
        (&list["epoch"], &list["asOf"], &list["nextCursor"]),
        (&json!(EPOCH), &json!("2026-11-21T10:00:10Z"), &json!(null))
    );
    for sort in ["server", "healthScore", "-healthScore", "pressure", "-pressure"] {
        let all = service.get(&format!("/v1/servers?sort={sort}")).await.servers("items");
        let (mut paged, mut path) = (Vec::new(), format!("/v1/servers?sort={sort}&limit=1"));
        loop {
            let page = service.get(&path).await;
            paged.extend(page.servers("items"));
            let Some(cursor) = page.json()["nextCursor"].as_str().map(str::to_owned) else { break };
            path = format!("/v1/servers?sort={sort}&limit=1&cursor={cursor}");
        }
        assert_eq!(paged, all, "{sort}");
    }
}

#[tokio::test]
async fn decisions_page_and_tell_what_changed_and_who_left() {
    let service = service();
    assert_eq!(service.get("/v1/decisions").await.servers("items").len(), 6);
    let (mut told, mut path) = (Vec::new(), "/v1/decisions?limit=1".to_owned());
    loop {
        let page = service.get(&path).await;
        let item = &page.json()["items"][0];
        told.push(format!("{} {}", item["server"].as_str().unwrap_or("?"), item["class"].as_str().unwrap_or("?")));
        assert_eq!(page.json()["epoch"], EPOCH);
        let Some(cursor) = page.json()["nextCursor"].as_str().map(str::to_owned) else { break };
        path = format!("/v1/decisions?limit=1&cursor={cursor}");
    }
    let expected = ["db-1", "web-17", "web-18"].map(|s| [format!("{s} urgent"), format!("{s} discretionary")]).concat();
    assert_eq!(told, expected);

    let since = format!("/v1/decisions?class=discretionary&since={EPOCH}");
    assert_eq!(service.get(&since).await.servers("items"), [""; 0]);
    // The slow disk moves to another server, and one server leaves.
    let servers = table(&[("web-17", &["web-17.example.net"], "web"), ("db-1", &["10.0.0.9"], "db")]);
    service.read_model.apply(with_slow_disk(snapshot("eu-1", EPOCH + 10, servers), 1));
    let changes = service.get(&since).await;
    assert_eq!(changes.servers("items"), ["db-1", "web-17"]);
    assert_eq!(changes.servers("removed"), ["web-18"]);
    let list = changes.json();
    assert_eq!((&list["epoch"], &list["validUntil"]), (&json!(EPOCH + 10), &json!("2026-11-21T10:01:20Z")));
    let gone = service.get(&format!("/v1/decisions?since={}", EPOCH - 10)).await;
    assert_eq!((gone.status.as_u16(), &gone.json()["horizon"]), (410, &json!(EPOCH)));
}

/// `Age` counts from the epoch of the cells that live, so what a dead one said is worth less than a whole lease.
#[tokio::test]
async fn the_cells_that_live_do_not_renew_what_a_dead_one_said() {
    for (seconds, lease) in [(0, 60), (60, 60), (61, 0)] {
        let service = service();
        service.read_model.apply(snapshot("us-1", EPOCH + seconds, table(&[("db-2", &[], "db")])));
        service.set_seconds_after_epoch(seconds + 3);
        let batch = r#"{"servers": ["web-17", "db-2"]}"#;
        for answer in [
            service.get("/v1/decisions").await,
            service.post("/v1/decisions:batchGet", batch).await,
            service.get("/v1/servers").await,
        ] {
            let list = answer.json();
            let items = list["items"].as_array().cloned().unwrap_or_default();
            let decisions = items.iter().flat_map(|item| match item["decisions"].as_array() {
                Some(decisions) => decisions.clone(),
                None => vec![item.clone()],
            });
            let leases = |cell: &str| -> Vec<i64> {
                let of_cell = decisions.clone().filter(|decision| decision["cell"] == cell);
                of_cell.map(|decision| decision["leaseSeconds"].as_i64().unwrap_or(-1)).collect()
            };
            let (dead, alive) = (leases("eu-1"), leases("us-1"));
            assert!(!dead.is_empty() && dead.iter().all(|left| *left == lease), "{seconds}: {dead:?}");
            assert!(!alive.is_empty() && alive.iter().all(|left| *left == 60), "{seconds}: {alive:?}");
            assert_eq!(list["validUntil"], "2026-11-21T10:01:10Z", "{seconds}");
        }
    }
}

#[tokio::test]
async fn a_batch_answers_in_order_and_says_who_is_not_there() {
    let service = service();
    service.read_model.apply(snapshot("us-1", EPOCH, table(&[("db-1", &[], "db")])));
    let body = r#"{"servers": ["10.0.0.8", "nobody", "web-17", "db-1"], "class": "discretionary"}"#;
    let answer = service.post("/v1/decisions:batchGet", body).await;
    assert_eq!(answer.servers("items"), ["web-18", "web-17"]);
    assert_eq!(answer.json()["notFound"], json!(["nobody"]));
    assert_eq!(answer.servers("ambiguous"), ["db-1"]);
}

#[tokio::test]
async fn snapshots_carry_a_tag_that_staleness_and_the_kill_switch_change() {
    let service = service();
    let first = service.get("/v1/snapshot").await;
    assert_eq!((first.header("vary"), first.header("age"), first.servers("items").len()), ("Accept", "3", 3));
    let tag = first.header("etag").to_owned();
    assert_eq!(tag, format!("W/\"{EPOCH}\""));
    let not_modified = service.get_with("/v1/snapshot?cell=eu-1", ("if-none-match", &tag)).await;
    assert_eq!(
        (not_modified.status.as_u16(), not_modified.body.len(), not_modified.header("etag")),
        (304, 0, tag.as_str())
    );
    service.set_seconds_after_epoch(26);
    let stale = service.get_with("/v1/snapshot", ("if-none-match", &tag)).await;
    assert_eq!((stale.status.as_u16(), &stale.json()["stale"]), (200, &json!(true)));
    service.read_model.kill(Some("eu-1"), true);
    let killed = service.get_with("/v1/snapshot", ("if-none-match", stale.header("etag"))).await;
    assert_eq!((killed.status.as_u16(), &killed.json()["items"][0]["mode"]), (200, &json!("off")));
}

/// Large cells are written piece by piece; the bytes are those of a small cell.
#[tokio::test]
async fn a_streamed_snapshot_says_what_a_kept_one_says() {
    let names: Vec<String> = (0..300).map(|i| format!("web-{i}")).collect();
    let rows: Vec<(&str, &[&str], &str)> = names.iter().map(|name| (name.as_str(), &[] as &[&str], "web")).collect();
    let limits = headroom_api::ApiLimits { json_snapshot_cached_servers_max: 10, ..Default::default() };
    let (kept, streamed) = (Service::new(), Service::with(true, limits));
    for service in [&kept, &streamed] {
        service.read_model.apply(snapshot("eu-1", EPOCH, table(&rows)));
    }
    let (kept, streamed) = (kept.get("/v1/snapshot").await, streamed.get("/v1/snapshot").await);
    assert_eq!(streamed.json()["items"].as_array().map(Vec::len), Some(300));
    assert!(kept.body == streamed.body);
}

/// Who reads a large cell slowly keeps a place of his own, and none of those that lists need.
#[tokio::test(start_paused = true)]
async fn a_slow_reader_of_a_snapshot_holds_up_no_list_and_is_cut_off() {
    let limits = headroom_api::ApiLimits {
        json_snapshot_cached_servers_max: 0,
        heavy_requests_max: 1,
        snapshot_streams_max: 1,
        ..Default::default()
    };
    let stall = limits.write_stall_timeout;
    let service = Service::with(true, limits);
    service.read_model.apply(web(EPOCH));
    let open = || Request::get("/v1/snapshot").body(Body::empty()).expect("a request");
    let slow = service.router.clone().oneshot(open()).await.expect("the router never fails");
    assert_eq!(slow.status(), 200);
    // The stream's task makes as much as there is room for, and then waits for its reader.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(service.get("/v1/servers").await.status, 200);
    let refused = service.get("/v1/snapshot").await;
    assert_eq!((refused.status.as_u16(), &refused.json()["limit"]), (503, &json!("snapshotStreamsMax")));
    tokio::time::sleep(stall).await;
    assert_eq!(service.get("/v1/snapshot").await.status, 200);
    assert!(slow.into_body().collect().await.is_err(), "nobody may take a part for the whole");
}

#[tokio::test]
async fn a_snapshot_as_arrow_reads_back() {
    let service = service();
    let answer = service.get_with("/v1/snapshot", ("accept", "application/vnd.apache.arrow.stream")).await;
    assert_eq!(answer.header("content-type"), "application/vnd.apache.arrow.stream");
    let mut reader = StreamReader::try_new(answer.body.as_slice(), None).expect("an arrow stream");
    assert_eq!(reader.schema().metadata().get("epoch"), Some(&EPOCH.to_string()));
    let batch = reader.next().expect("a batch").expect("a readable batch");
    let names: Vec<_> = batch["server"].as_string::<i32>().iter().flatten().collect();
    assert_eq!(names, ["web-17", "db-1", "web-18"]);
    assert_eq!(batch["healthScore"].as_primitive::<Float32Type>().value(0), 0.44);
    assert_eq!(batch["wouldAdmitFraction.discretionary"].as_primitive::<Float32Type>().values(), &[0.62, 1.0, 1.0]);
    let coverage = batch["coverage"].as_dictionary::<Int8Type>();
    let coverage = coverage.downcast_dict::<arrow_array::Float32Array>().expect("shares").into_iter();
    assert_eq!(coverage.collect::<Vec<_>>(), [Some(0.67), Some(1.0), Some(1.0)]);
    let states = batch["loadState"].as_dictionary::<Int8Type>();
    let states: Vec<_> =
        states.downcast_dict::<arrow_array::StringArray>().expect("text").into_iter().flatten().collect();
    assert_eq!(states, ["overloaded", "normal", "normal"]);
    assert!(reader.next().is_none());
}

/// Status codes of the probe, over mode, fraction, placement, age and kill switch.
#[tokio::test]
async fn the_probe_says_open_throttled_or_blocked() {
    const BLOCK: u8 = 2;
    for (what, is_enforced, admit, placement, seconds, killed, status) in [
        ("observing", false, 0.3, BLOCK, 3, false, 200),
        ("open", true, 1.0, 0, 3, false, 200),
        ("avoid is not a block", true, 1.0, 1, 3, false, 200),
        ("throttled", true, 0.62, 0, 3, false, 429),
        ("throttled to nothing", true, 0.0, 0, 3, false, 429),
        ("blocked", true, 1.0, BLOCK, 3, false, 503),
        ("blocked and stale, within the lease", true, 1.0, BLOCK, 59, false, 503),
        ("no block outlives its lease", true, 1.0, BLOCK, 61, false, 200),
        ("after the lease the class holds", true, 1.0, 0, 90, false, 200),
        ("and then goes to its safe value", true, 1.0, 0, 120, false, 429),
        ("killed", true, 0.0, BLOCK, 3, true, 200),
    ] {
        let service = Service::new();
        let mut snapshot = web(EPOCH);
        snapshot.decisions[1].would_admit[0] = admit;
        snapshot.health.placement[0] = placement;
        service.read_model.apply(if is_enforced { enforced(snapshot, 0) } else { snapshot });
        service.read_model.kill(None, killed);
        service.set_seconds_after_epoch(seconds);
        let answer = service.get("/v1/check/web-17?class=discretionary").await;
        assert_eq!(answer.status.as_u16(), status, "{what}: {}", answer.text());
        assert_eq!(answer.header("retry-after"), if status == 200 { "" } else { "10" }, "{what}");
        let body = answer.json();
        if !is_enforced || killed {
            assert_eq!((&body["placement"], &body["admitFraction"]), (&json!("allow"), &json!(1.0)), "{what}");
        }
    }
}

#[tokio::test]
async fn a_probe_without_a_class_looks_at_the_one_of_which_the_least_is_admitted() {
    let service = Service::new();
    service.read_model.apply(enforced(web(EPOCH), 0));
    let answer = service.get("/v1/check/web-17").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["class"]), (429, &json!("discretionary")));
    assert_eq!(service.get("/v1/check/web-17?class=urgent").await.status, 200);
    let head = Request::head("/v1/check/web-17").body(Body::empty()).expect("a request");
    let head = service.call(head).await;
    assert_eq!((head.status.as_u16(), head.body.len()), (429, 0));
}

#[tokio::test]
async fn cells_and_pools_roll_up() {
    let service = service();
    let cells = service.get("/v1/cells").await.json();
    let cell = &cells["items"][0];
    assert_eq!((&cell["cell"], &cell["servers"], &cell["pools"]), (&json!("eu-1"), &json!(3), &json!(["db", "web"])));
    assert_eq!((&cell["loadStates"]["overloaded"], &cell["healthScoreMin"]), (&json!(1), &json!(0.44)));
    assert_eq!(cell["coverageMean"], json!(0.89));
    assert_eq!(cell["healthScore"], cell["healthScoreMedian"]);
    assert_eq!(cell["toleratedShares"][1]["limitedServers"], 1);
    let pools = service.get("/v1/pools?cell=eu-1").await.json();
    let names: Vec<_> = pools["items"].as_array().into_iter().flatten().map(|p| (&p["pool"], &p["servers"])).collect();
    assert_eq!(names, [(&json!("db"), &json!(1)), (&json!("web"), &json!(2))]);
}

#[tokio::test]
async fn cells_and_pools_come_in_pages() {
    let service = service();
    for cell in ["eu-2", "eu-3"] {
        service.read_model.apply(snapshot(cell, EPOCH, table(&[("a", &[], "api"), ("b", &[], "batch")])));
    }
    for (path, item, expected) in [
        ("/v1/cells?limit=2", "cell", vec!["eu-1", "eu-2", "eu-3"]),
        ("/v1/pools?limit=2", "pool", vec!["db", "web", "api", "batch", "api", "batch"]),
        ("/v1/pools?cell=eu-2&limit=1", "pool", vec!["api", "batch"]),
    ] {
        let (mut names, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = service.get(&format!("{path}{cursor}")).await.json();
            assert_eq!(page["epoch"], EPOCH, "{path}");
            let items = page["items"].as_array().expect("a list").clone();
            assert!(!items.is_empty() && items.len() <= 2, "{path}");
            names.extend(items.iter().map(|of| of[item].as_str().expect("a name").to_owned()));
            let Some(next) = page["nextCursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(names, expected, "{path}");
    }
    let next = service.get("/v1/cells?limit=1").await.json()["nextCursor"].as_str().expect("more").to_owned();
    assert_eq!(service.get(&format!("/v1/pools?cursor={next}")).await.status, 404, "the cursor of another list");
    assert_eq!(service.get("/v1/cells?limit=10001").await.status, 400);
}

#[tokio::test]
async fn explain_shows_the_way_from_metric_to_decision() {
    let explain = service().get("/v1/servers/web-17/explain").await.json();
    assert_eq!(explain["inputs"][0], json!({"input": "cpu_busy", "value": 0.61, "dialect": "node_exporter"}));
    let disk = &explain["signals"][1];
    assert_eq!(
        (&disk["signal"], &disk["over"], &disk["pressure"]),
        (&json!("disk_await_p95"), &json!(0.025), &json!(1.12))
    );
    assert_eq!((&explain["rule"], &explain["throttleSignal"]), (&json!("default"), &json!("disk_await_p95")));
    let class = &explain["classes"][1];
    assert_eq!(
        (&class["setPoint"], &class["because"]),
        (&json!(0.7), &json!("cut by disk_await_p95: pressure 1.12 is above the set-point 0.70"))
    );
    assert_eq!(explain["classes"][0]["because"], "the class is exempt from throttling");
    assert_eq!(explain["confidence"]["ok"], json!(["cpu_busy", "disk_await_p95"]));
}

#[tokio::test]
async fn a_cell_that_was_let_go_answers_404_and_names_who_left_with_it() {
    let service = service();
    let before = service.get("/v1/decisions").await.json()["epoch"].clone();
    let servers = service.get("/v1/cells/eu-1").await.json()["servers"].clone();
    service.read_model.apply(snapshot("us-1", EPOCH, table(&[("db-1", &[], "db")])));
    service.read_model.apply(snapshot("eu-1", EPOCH + 10, table(&[])));
    for path in ["/v1/cells/eu-1", "/v1/decisions?cell=eu-1", "/v1/snapshot?cell=eu-1", "/v1/watch?cell=eu-1"] {
        assert_eq!(service.get(path).await.status.as_u16(), 404, "{path}");
    }
    let changed = service.get(&format!("/v1/decisions?since={before}")).await.json();
    assert_eq!(json!(changed["removed"].as_array().map(Vec::len)), servers);
    assert!(changed["removed"].as_array().into_iter().flatten().all(|removed| removed["cell"] == "eu-1"));
    assert_eq!(changed["cells"].as_array().map(Vec::len), Some(1));
    let later = service.get(&format!("/v1/decisions?since={}", EPOCH + 10)).await.json();
    assert_eq!(later["removed"], json!([]));
}
