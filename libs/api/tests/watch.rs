//! Watching: events, resume, long polls, shutdown.

mod support;

use std::time::Duration;

use axum::body::Body;
use headroom_api::ApiLimits;
use headroom_model::CellSnapshot;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use support::Service;
use support::fixture::{EPOCH, snapshot, table, with_slow_disk};
use tower::ServiceExt;

fn quiet(epoch: i64) -> CellSnapshot {
    snapshot("eu-1", epoch, table(&[("web-1", &[], "web"), ("web-2", &[], "web")]))
}

/// A stream of events as a client reads it.
struct Events {
    body: Body,
    text: String,
}

impl Events {
    async fn open(service: &Service, query: &str, last_event_id: Option<i64>) -> Self {
        let mut request = Request::get(format!("/v1/watch{query}")).header("accept", "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let request = request.body(Body::empty()).expect("a request");
        let response = service.router.clone().oneshot(request).await.expect("the router never fails");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body(), text: String::new() }
    }

    /// The next block that is an event: its id and its data.
    async fn next(&mut self) -> Option<(Option<i64>, Value)> {
        loop {
            while let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                if let Some(data) = field("data: ") {
                    let data = serde_json::from_str(&data).expect("data is JSON");
                    return Some((field("id: ").map(|id| id.parse().expect("an epoch")), data));
                }
            }
            let frame = self.body.frame().await?.expect("the stream does not fail");
            let bytes = frame.into_data().expect("data frames only");
            self.text.push_str(std::str::from_utf8(&bytes).expect("UTF-8"));
        }
    }
}

fn names(event: &Value, array: &str) -> Vec<String> {
    let items = event[array].as_array().into_iter().flatten();
    items.map(|item| item["server"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn a_stream_begins_with_all_and_goes_on_with_changes_one_event_a_tick() {
    let service = Service::new();
    service.read_model.apply(quiet(EPOCH));
    let mut events = Events::open(&service, "?class=discretionary", None).await;
    let (id, first) = events.next().await.expect("an event");
    assert_eq!((id, &first["full"], names(&first, "items").len()), (Some(EPOCH), &json!(true), 2));
    service.read_model.apply(with_slow_disk(quiet(EPOCH + 10), 1));
    let (id, change) = events.next().await.expect("an event");
    assert_eq!((id, &change["full"], names(&change, "items")), (Some(EPOCH + 10), &json!(false), vec!["web-2".into()]));
    service.read_model.apply(with_slow_disk(quiet(EPOCH + 20), 1));
    let (id, renewal) = events.next().await.expect("an event");
    assert_eq!((id, names(&renewal, "items").len()), (Some(EPOCH + 20), 0));
    assert_eq!(renewal["validUntil"], "2026-11-21T10:01:30Z");
}

/// An event has no `Age`; whoever connects again and again must not renew what a dead engine said last.
#[tokio::test]
async fn who_begins_to_watch_late_is_told_what_is_left_of_the_lease() {
    let service = Service::new();
    service.read_model.apply(quiet(EPOCH));
    for (seconds, left) in [(3, 57), (59, 1), (70, 0)] {
        service.set_seconds_after_epoch(seconds);
        let mut events = Events::open(&service, "", None).await;
        let (_, event) = events.next().await.expect("an event");
        assert_eq!(event["items"][0]["leaseSeconds"], left, "{seconds}");
    }
    service.set_seconds_after_epoch(3);
    let mut events = Events::open(&service, "", None).await;
    events.next().await.expect("an event");
    service.read_model.apply(with_slow_disk(quiet(EPOCH + 10), 1));
    let (_, change) = events.next().await.expect("an event");
    assert_eq!(change["items"][0]["leaseSeconds"], 60);
}

#[tokio::test]
async fn a_stream_resumes_after_the_last_event_and_begins_anew_where_that_is_too_old() {
    let service = Service::new();
    service.read_model.apply(quiet(EPOCH));
    service.read_model.apply(with_slow_disk(quiet(EPOCH + 10), 1));
    let one = snapshot("eu-1", EPOCH + 20, table(&[("web-2", &[], "web")]));
    service.read_model.apply(with_slow_disk(one, 0));
    for (id, full, items, removed) in [
        (EPOCH + 10, false, vec![], vec!["web-1"]),
        (EPOCH, false, vec!["web-2"], vec!["web-1"]),
        (EPOCH - 10, true, vec!["web-2", "web-2"], vec![]),
    ] {
        let mut events = Events::open(&service, "", Some(id)).await;
        let (_, event) = events.next().await.expect("an event");
        assert_eq!(
            (&event["full"], names(&event, "items"), names(&event, "removed")),
            (
                &json!(full),
                items.into_iter().map(str::to_owned).collect(),
                removed.into_iter().map(str::to_owned).collect()
            ),
            "{id}"
        );
    }
}

/// A new cell is news to those who follow, and no reason to begin anew.
#[tokio::test(start_paused = true)]
async fn a_new_cell_is_told_as_changes_to_whoever_was_told_of_the_others() {
    let service = Service::new();
    service.read_model.apply(quiet(EPOCH));
    let mut follower = Events::open(&service, "", None).await;
    follower.next().await.expect("an event");
    let poll = format!("/v1/watch?wait=30s&since={EPOCH}");
    let moves = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        service.read_model.apply(snapshot("us-1", EPOCH + 10, table(&[("db-1", &[], "db")])));
        service.read_model.apply(quiet(EPOCH + 10));
    };
    let (polled, ()) = tokio::join!(service.get(&poll), moves);
    let asked = service.get(&format!("/v1/decisions?since={EPOCH}")).await;
    for answer in [polled, asked] {
        assert_eq!((answer.status.as_u16(), answer.servers("items")), (200, vec!["db-1".to_owned(); 2]));
        assert_eq!(answer.json()["epoch"], EPOCH + 10);
    }
    let mut resumed = Events::open(&service, &format!("?since={EPOCH}"), None).await;
    for events in [&mut follower, &mut resumed] {
        let mut told = Vec::new();
        while told.is_empty() {
            told = names(&events.next().await.expect("an event").1, "items");
        }
        assert_eq!(told, ["db-1", "db-1"]);
    }
}

/// A round over two cells, in pieces: only its last event has an id, so that a break in the middle loses nothing.
#[tokio::test]
async fn only_the_last_event_of_a_round_has_an_id() {
    let limits = ApiLimits { event_items_max: 2, ..ApiLimits::default() };
    let service = Service::with(true, limits);
    service.read_model.apply(snapshot("us-1", EPOCH - 10, table(&[("db-1", &[], "db")])));
    service.read_model.apply(quiet(EPOCH));
    let mut events = Events::open(&service, "", None).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let (id, event) = events.next().await.expect("an event");
        seen.push((id, event["cell"].clone(), event["more"].clone(), event["full"].clone()));
    }
    let eu = json!("eu-1");
    assert_eq!(
        seen,
        [
            (None, eu.clone(), json!(true), json!(true)),
            (None, eu, json!(false), json!(false)),
            (Some(EPOCH - 10), json!("us-1"), json!(false), json!(true)),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn staleness_and_the_kill_switch_are_events_too() {
    let service = Service::new();
    service.read_model.apply(quiet(EPOCH));
    let mut events = Events::open(&service, "?cell=eu-1", None).await;
    events.next().await.expect("an event");
    service.read_model.kill(None, true);
    let (_, killed) = events.next().await.expect("an event");
    assert_eq!((&killed["items"][0]["mode"], names(&killed, "items").len()), (&json!("off"), 4));
    service.set_seconds_after_epoch(26);
    let (_, stale) = events.next().await.expect("an event");
    assert_eq!((&stale["stale"], &stale["epoch"]), (&json!(true), &json!(EPOCH)));
}

#[tokio::test]
async fn a_shutdown_ends_streams_and_a_reader_that_leaves_gives_its_place_back() {
    let limits = ApiLimits { watchers_max: 1, ..ApiLimits::default() };
    let service = Service::with(true, limits);
    service.read_model.apply(quiet(EPOCH));
    let mut events = Events::open(&service, "", None).await;
    events.next().await.expect("an event");
    let refused = service.get("/v1/watch").await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, "5"));
    assert_eq!((&refused.json()["limit"], &refused.json()["bound"]), (&json!("watchersMax"), &json!(1)));
    drop(events);
    while service.get("/v1/watch?wait=0s&since=1795255210").await.status != 200 {
        tokio::task::yield_now().await;
    }
    let mut events = Events::open(&service, "", None).await;
    events.next().await.expect("an event");
    service.shutdown.cancel();
    assert_eq!(events.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_answers_when_the_epoch_moves_or_the_time_is_up() {
    let service = Service::new();
    service.read_model.apply(quiet(EPOCH));
    let path = format!("/v1/watch?wait=30s&since={EPOCH}");
    let unchanged = service.get(&path).await;
    assert_eq!((&unchanged.json()["epoch"], unchanged.servers("items").len()), (&json!(EPOCH), 0));
    let moves = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        service.read_model.apply(with_slow_disk(quiet(EPOCH + 10), 0));
    };
    let (changed, ()) = tokio::join!(service.get(&path), moves);
    assert_eq!((&changed.json()["epoch"], changed.servers("items")), (&json!(EPOCH + 10), vec!["web-1".to_owned()]));
    assert_eq!(service.get("/v1/watch?wait=30s").await.servers("items").len(), 4);
    assert_eq!(service.get(&format!("/v1/watch?wait=30s&since={}", EPOCH - 10)).await.status, 410);
}

/// All who wait are woken by the same tick: none of them is refused for that, and few have to make the answer.
#[tokio::test(start_paused = true)]
async fn long_polls_that_one_tick_wakes_are_all_answered() {
    let limits = ApiLimits { heavy_requests_max: 1, ..ApiLimits::default() };
    let service = Service::with(true, limits);
    service.read_model.apply(quiet(EPOCH));
    let polls = (0..200).map(|at| {
        let class = if at % 2 == 0 { "discretionary" } else { "urgent" };
        let path = format!("/v1/watch?wait=30s&since={EPOCH}&class={class}");
        let router = service.router.clone();
        tokio::spawn(async move {
            let response = router.oneshot(Request::get(path).body(Body::empty()).expect("a request")).await;
            let response = response.expect("the router never fails");
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.expect("the body ends").to_bytes();
            let body: Value = serde_json::from_slice(&body).expect("JSON");
            (status, body["epoch"].as_i64(), names(&body, "items").len(), at % 2 == 0)
        })
    });
    let polls: Vec<_> = polls.collect();
    tokio::time::sleep(Duration::from_secs(5)).await;
    service.read_model.apply(with_slow_disk(quiet(EPOCH + 10), 0));
    for poll in polls {
        let (status, epoch, items, is_limited) = poll.await.expect("the poll ends");
        assert_eq!((status, epoch, items), (200, Some(EPOCH + 10), usize::from(is_limited)));
    }
}

/// With a dead engine the epoch never passes the one at which the kill switch moved.
#[tokio::test(start_paused = true)]
async fn a_kill_switch_wakes_a_long_poll_at_once_and_none_asks_in_a_hot_loop() {
    let service = Service::new();
    service.read_model.apply(quiet(EPOCH));
    let path = format!("/v1/watch?wait=30s&since={EPOCH}");
    let started = tokio::time::Instant::now();
    let kill = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        service.read_model.kill(None, true);
    };
    let (answer, ()) = tokio::join!(service.get(&path), kill);
    assert_eq!((answer.servers("items").len(), started.elapsed().as_secs()), (4, 5));
    let answer = service.get(&path).await;
    assert_eq!((answer.servers("items").len(), started.elapsed().as_secs()), (4, 6));
    service.read_model.kill(None, false);
    let answer = service.get(&path).await;
    assert_eq!((&answer.json()["items"][0]["mode"], started.elapsed().as_secs()), (&json!("observe"), 7));
}

/// One stream of an HTTP/2 connection that stands still does not show at the socket.
#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_loses_its_place() {
    let limits = ApiLimits { watchers_max: 1, event_items_max: 1, ..ApiLimits::default() };
    let stall = limits.write_stall_timeout;
    let service = Service::with(true, limits);
    service.read_model.apply(quiet(EPOCH));
    let mut events = Events::open(&service, "", None).await;
    let poll = format!("/v1/watch?wait=0s&since={EPOCH}");
    assert_eq!(service.get(&poll).await.status, 503);
    tokio::time::sleep(stall + Duration::from_secs(1)).await;
    assert_eq!(service.get(&poll).await.status, 200);
    let broken_off = loop {
        match events.body.frame().await {
            Some(Ok(_)) => {}
            end => break end.is_some(),
        }
    };
    assert!(broken_off, "nobody may take what came for all there was");
}

/// What is told late is told as it is, not as it was when the round began.
#[tokio::test]
async fn a_long_round_goes_on_with_the_newest_snapshot() {
    let limits = ApiLimits { event_items_max: 1, ..ApiLimits::default() };
    let service = Service::with(true, limits);
    let names: Vec<String> = (0..8).map(|at| format!("web-{at}")).collect();
    let servers: Vec<(&str, &[&str], &str)> = names.iter().map(|name| (name.as_str(), &[][..], "web")).collect();
    let servers = table(&servers);
    service.read_model.apply(snapshot("eu-1", EPOCH, servers.clone()));
    let mut events = Events::open(&service, "?class=discretionary", None).await;
    events.next().await.expect("an event");
    for tick in 1..=2 {
        let next = snapshot("eu-1", EPOCH + 10 * tick, servers.clone());
        service.read_model.apply(with_slow_disk(with_slow_disk(next, 0), 7));
    }
    let mut last = None;
    let mut ids = Vec::new();
    while ids.len() < 2 {
        let (id, event) = events.next().await.expect("an event");
        if event["items"][0]["server"] == "web-7" && last.is_none() {
            last = Some((event["epoch"].clone(), event["items"][0]["wouldAdmitFraction"].as_f64()));
        }
        ids.extend(id);
    }
    let (epoch, would_admit) = last.expect("the last server was told of");
    assert_eq!(epoch, EPOCH + 20);
    assert!(would_admit.is_some_and(|fraction| fraction < 1.0));
    assert_eq!(ids, [EPOCH, EPOCH + 20]);
}

#[tokio::test]
async fn a_cell_that_was_let_go_is_told_once_and_its_own_stream_ends() {
    let service = Service::new();
    service.read_model.apply(quiet(EPOCH));
    service.read_model.apply(snapshot("us-1", EPOCH, table(&[("db-1", &[], "db")])));
    let (mut all, mut one) = (Events::open(&service, "", None).await, Events::open(&service, "?cell=eu-1", None).await);
    for expected in ["eu-1", "us-1"] {
        assert_eq!(all.next().await.expect("an event").1["cell"], expected);
    }
    one.next().await.expect("an event");
    service.read_model.apply(snapshot("eu-1", EPOCH + 10, table(&[])));
    for events in [&mut all, &mut one] {
        let (_, farewell) = events.next().await.expect("an event");
        assert_eq!((&farewell["cell"], &farewell["full"]), (&json!("eu-1"), &json!(false)));
        assert_eq!(names(&farewell, "removed"), ["web-1", "web-2"]);
    }
    assert!(one.next().await.is_none(), "the stream of a cell ends with it");
    service.read_model.apply(snapshot("us-1", EPOCH + 10, table(&[("db-1", &[], "db")])));
    let (id, next) = all.next().await.expect("an event");
    assert_eq!((id, &next["cell"]), (Some(EPOCH + 10), &json!("us-1")));
    // Who was away when it left learns of it when they resume.
    let mut resumed = Events::open(&service, "", Some(EPOCH)).await;
    let told = [resumed.next().await.expect("an event").1, resumed.next().await.expect("an event").1];
    assert_eq!(told.each_ref().map(|event| &event["cell"]), [&json!("us-1"), &json!("eu-1")]);
    assert_eq!(names(&told[1], "removed"), ["web-1", "web-2"]);
}
