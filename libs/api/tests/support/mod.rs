//! A service without a log: a read model, a clock that stands still, and commands that are written down.
#![allow(dead_code)]

#[path = "../../../read-model/tests/fixture/mod.rs"]
pub mod fixture;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use fixture::EPOCH;
use headroom_access::Access;
use headroom_api::*;
use headroom_model::Timestamp;
use headroom_read_model::ReadModel;
use headroom_wire::ProblemItem;
use headroom_wire::operate::{InputsReport, PolicySummary};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Writes down what it is told; the text "broken" is no policy, a cell named `full` has no room in its log, and that of
/// one named `slow` waits at the gate.
pub struct Recorder {
    pub calls: Mutex<Vec<String>>,
    pub gate: Semaphore,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { calls: Mutex::default(), gate: Semaphore::new(0) }
    }
}

impl Recorder {
    fn record(&self, call: String) {
        self.calls.lock().expect("no test panics while it holds this").push(call);
    }

    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().expect("no test panics while it holds this"))
    }
}

impl Commands for Recorder {
    fn set_mode(&self, c: SetMode) -> BoxFuture<'_, Result<(), CommandError>> {
        let (is_full, is_slow) = (c.cell.as_deref() == Some("full"), c.cell.as_deref() == Some("slow"));
        self.record(format!("mode {:?} {:?} {} {}", c.cell, c.mode, c.owner, c.reason));
        Box::pin(async move {
            if is_slow {
                let _passed = self.gate.acquire().await;
            }
            if is_full { Err(CommandError::Unavailable("the log is full".into())) } else { Ok(()) }
        })
    }

    fn remove_server(&self, c: RemoveServer) -> BoxFuture<'_, Result<(), CommandError>> {
        self.record(format!("remove {}/{} {} {}", c.cell, c.server, c.owner, c.reason));
        Box::pin(async { Ok(()) })
    }

    fn append_acks(&self, acks: Vec<Ack>) -> BoxFuture<'_, Result<(), CommandError>> {
        for a in acks {
            self.record(format!("ack {}/{} {} {} {} {}", a.cell, a.server, a.class, a.consumer, a.epoch, a.in_use));
        }
        Box::pin(async { Ok(()) })
    }

    fn advance_clock(&self, now: Timestamp) -> BoxFuture<'_, Result<BTreeMap<String, i64>, ClockError>> {
        Box::pin(async move {
            match now.seconds() - EPOCH {
                ..0 => Err(ClockError::Backwards { now: Timestamp::from_seconds(EPOCH) }),
                100_001.. => Err(ClockError::TooManyTicks { ticks: 10_001, max: 10_000 }),
                _ => Ok(BTreeMap::from([("eu-1".into(), now.floor_to(10).seconds())])),
            }
        })
    }

    fn check_policy(&self, text: String) -> BoxFuture<'_, Result<PolicySummary, Vec<ProblemItem>>> {
        Box::pin(async move {
            if text.contains("broken") {
                let message = "not a number".to_owned();
                return Err(vec![ProblemItem {
                    path: "signals.cpu_busy.over".into(),
                    line: Some(3),
                    message,
                    ..Default::default()
                }]);
            }
            let none = Vec::new;
            Ok(PolicySummary {
                policy_hash: "0000abcd".into(),
                inputs: none(),
                signals: none(),
                classes: vec!["urgent".into()],
                rules: none(),
                warnings: Vec::new(),
            })
        })
    }

    fn policy(&self) -> PolicyText {
        PolicyText { hash: "b1946ac9".into(), text: "# the policy\nsignals: {}\n".into() }
    }

    fn full_cells(&self) -> Vec<Arc<str>> {
        vec!["eu-1".into()]
    }

    fn inputs(&self) -> BoxFuture<'_, Result<InputsReport, CommandError>> {
        Box::pin(async { Ok(InputsReport { unfed: vec!["cpu_busy".into()], ..InputsReport::default() }) })
    }
}

/// The service under test.
pub struct Service {
    pub read_model: Arc<ReadModel>,
    pub commands: Arc<Recorder>,
    pub router: Router,
    pub shutdown: CancellationToken,
    now: Arc<AtomicI64>,
}

impl Service {
    pub fn new() -> Self {
        Self::with(true, ApiLimits::default())
    }

    /// The clock stands three seconds after [`EPOCH`].
    pub fn with(event_time: bool, limits: ApiLimits) -> Self {
        Self::for_callers(event_time, limits, Access::default())
    }

    pub fn for_callers(event_time: bool, limits: ApiLimits, access: Access) -> Self {
        let read_model = Arc::new(ReadModel::new(5));
        let commands = Arc::new(Recorder::default());
        let now = Arc::new(AtomicI64::new(EPOCH + 3));
        let clock: Now = {
            let now = Arc::clone(&now);
            Arc::new(move || Timestamp::from_seconds(now.load(Ordering::SeqCst)))
        };
        let shutdown = CancellationToken::new();
        let state = ApiState::new(ApiParts {
            read_model: Arc::clone(&read_model),
            commands: Arc::clone(&commands) as Arc<dyn Commands>,
            observer: Arc::new(Unobserved),
            now: clock,
            event_time,
            access,
            limits,
            shutdown: shutdown.clone(),
        });
        Self { read_model, commands, router: router(state), shutdown, now }
    }

    pub fn set_seconds_after_epoch(&self, seconds: i64) {
        self.now.store(EPOCH + seconds, Ordering::SeqCst);
    }

    pub async fn call(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.expect("the router never fails");
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("the body ends").to_bytes();
        Answer { status: head.status, headers: head.headers, body: body.to_vec() }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Request::get(path).body(Body::empty()).expect("a request")).await
    }

    pub async fn get_with(&self, path: &str, header: (&str, &str)) -> Answer {
        self.call(Request::get(path).header(header.0, header.1).body(Body::empty()).expect("a request")).await
    }

    pub async fn post(&self, path: &str, body: &str) -> Answer {
        let request = Request::post(path).header("content-type", "application/json");
        self.call(request.body(Body::from(body.to_owned())).expect("a request")).await
    }
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("an ASCII header"))
    }

    /// Names in an array of the answer, such as `servers("items")`.
    pub fn servers(&self, array: &str) -> Vec<String> {
        let items = self.json()[array].as_array().cloned().unwrap_or_default();
        items.iter().map(|item| item["server"].as_str().unwrap_or_default().to_owned()).collect()
    }
}
