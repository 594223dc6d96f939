//! `/metrics`, `/livez` and `/readyz` of every role, in the manner of Kubernetes' own components.
//!
//! `/livez` says that the process answers and depends on nothing: a probe that looked at the disk or at Kafka would have
//! every replica restarted when those are slow, which helps neither. `/readyz` is the conjunction of named checks; each
//! is a fact that its owner sets when it changes, so that the probe itself does no work and cannot hang. Readiness goes
//! false before anything stops.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::catalog::READINESS_CHECKS_PASSING;
use crate::metrics::Telemetry;
use crate::render;

/// The check that fails once the process has begun to stop.
pub const SHUTDOWN: &str = "shutdown";

/// Whether the process can do its work, as named checks. Cloning gives another handle to the same.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<RwLock<Checks>>);

/// What a check says now beyond how it was set.
type Remark = Box<dyn Fn() -> Option<String> + Send + Sync>;

#[derive(Default)]
struct Checks {
    standing: BTreeMap<&'static str, Check>,
    remarks: BTreeMap<&'static str, Remark>,
}

impl std::fmt::Debug for Checks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(&self.standing).finish()
    }
}

/// The standing of one check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// Whether it passes.
    pub ok: bool,
    /// Why, or how far it is; for people.
    pub detail: String,
}

impl Readiness {
    /// Sets a check. Register each as failing before the listeners are bound: what is not registered holds nobody back.
    /// An empty service is ready, a recovering one is not.
    pub fn set(&self, name: &'static str, ok: bool, detail: impl Into<String>) {
        let check = Check { ok, detail: detail.into() };
        self.0.write().unwrap_or_else(PoisonError::into_inner).standing.insert(name, check);
    }

    /// Has `remark` asked for what to say of a check instead of its detail, as long as it passes: for what a reader of the
    /// probe must know and nobody is to be taken out of service for. It must be quick.
    pub fn remark(&self, name: &'static str, remark: impl Fn() -> Option<String> + Send + Sync + 'static) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remarks.insert(name, Box::new(remark));
    }

    /// Fails from now on, because the process stops.
    pub fn shut_down(&self) {
        self.set(SHUTDOWN, false, "the process is stopping");
    }

    /// Whether every check passes.
    pub fn is_ready(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).standing.values().all(|check| check.ok)
    }

    /// Every check and its standing, by name.
    pub fn checks(&self) -> Vec<(&'static str, Check)> {
        let checks = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let with_remark = |(name, check): (&&'static str, &Check)| {
            let remark = checks.remarks.get(name).filter(|_| check.ok).and_then(|remark| remark());
            (*name, remark.map_or_else(|| check.clone(), |detail| Check { ok: true, detail }))
        };
        checks.standing.iter().map(with_remark).collect()
    }

    /// Shows the checks among the metrics.
    pub fn watch(&self, telemetry: &Telemetry) {
        let readiness = self.clone();
        telemetry.on_collect(move |telemetry| {
            for (name, check) in readiness.checks() {
                telemetry.gauge(&READINESS_CHECKS_PASSING, [name]).set(f64::from(u8::from(check.ok)));
            }
        });
    }
}

/// The routes `/metrics`, `/livez`, `/readyz` and `/healthz` (an old name of `/readyz`). Put them where load shedding
/// and authentication do not reach.
pub fn router(telemetry: Telemetry, readiness: Readiness) -> Router {
    let metrics = Router::new().route("/metrics", get(metrics)).with_state(telemetry);
    let probes = Router::new().route("/readyz", get(readyz)).route("/healthz", get(readyz)).with_state(readiness);
    metrics.merge(probes).route("/livez", get(|| async { plain(StatusCode::OK, "ok\n".to_owned()) }))
}

async fn metrics(State(telemetry): State<Telemetry>) -> Response {
    ([(CONTENT_TYPE, render::CONTENT_TYPE)], telemetry.render()).into_response()
}

async fn readyz(State(readiness): State<Readiness>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let parameters: Vec<(&str, &str)> =
        query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect();
    let verbose = parameters.iter().any(|(key, _)| *key == "verbose");
    let excluded: Vec<&str> =
        parameters.iter().filter(|(key, _)| *key == "exclude").flat_map(|(_, names)| names.split(',')).collect();
    let checks = readiness.checks();
    let unknown = excluded.iter().filter(|name| checks.iter().all(|(check, _)| check != *name));
    // Kubernetes names them too: a misspelt exclusion would otherwise look like one that did not help.
    let mut text: String = unknown.map(|name| format!("warn: there is no check {name:?} to exclude\n")).collect();
    let mut ready = true;
    for (name, check) in checks {
        if excluded.contains(&name) {
            text.push_str(&format!("[+]{name} excluded: ok\n"));
            continue;
        }
        ready &= check.ok;
        let (sign, word) = if check.ok { ('+', "ok") } else { ('-', "failed") };
        let colon = if check.detail.is_empty() { "" } else { ": " };
        text.push_str(&format!("[{sign}]{name} {word}{colon}{}\n", check.detail));
    }
    match (ready, verbose) {
        (true, false) => plain(StatusCode::OK, "ok\n".to_owned()),
        (true, true) => plain(StatusCode::OK, text + "readyz check passed\n"),
        // What failed is told unasked: the reader of a failed probe's event has no second request.
        (false, _) => plain(StatusCode::SERVICE_UNAVAILABLE, text + "readyz check failed\n"),
    }
}

fn plain(status: StatusCode, text: String) -> Response {
    let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, "no-store")];
    (status, headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use super::*;
    use crate::catalog::OTLP_POINTS_ACCEPTED;

    async fn ask(router: &Router, path: &str) -> (u16, String) {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let answer = router.clone().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_remark_stands_in_for_the_detail_of_a_check_that_passes() {
        let readiness = Readiness::default();
        let router = router(Telemetry::default(), readiness.clone());
        let full = Arc::new(AtomicBool::new(false));
        let told = full.clone();
        readiness.remark("log", move || told.load(Relaxed).then(|| "full".to_owned()));
        readiness.set("log", true, "open");
        assert_eq!(ask(&router, "/readyz?verbose").await, (200, "[+]log ok: open\nreadyz check passed\n".to_owned()));
        full.store(true, Relaxed);
        assert_eq!(ask(&router, "/readyz?verbose").await, (200, "[+]log ok: full\nreadyz check passed\n".to_owned()));
        readiness.set("log", false, "closed");
        assert_eq!(ask(&router, "/readyz").await.1, "[-]log failed: closed\nreadyz check failed\n");
    }

    #[tokio::test]
    async fn readiness_is_the_conjunction_of_its_checks() {
        let (telemetry, readiness) = (Telemetry::default(), Readiness::default());
        readiness.watch(&telemetry);
        let router = router(telemetry.clone(), readiness.clone());
        assert_eq!(ask(&router, "/readyz").await, (200, "ok\n".to_owned()));

        readiness.set("log", true, "");
        readiness.set("recovery", false, "12 of 40 segments read");
        let failed = "[+]log ok\n[-]recovery failed: 12 of 40 segments read\nreadyz check failed\n";
        assert_eq!(ask(&router, "/readyz").await, (503, failed.to_owned()));
        assert_eq!(ask(&router, "/healthz").await.0, 503);
        assert_eq!(ask(&router, "/livez").await.0, 200);
        let excluded = "[+]log ok\n[+]recovery excluded: ok\nreadyz check passed\n";
        assert_eq!(ask(&router, "/readyz?verbose&exclude=recovery").await, (200, excluded.to_owned()));
        assert!(ask(&router, "/readyz?exclude=recovry").await.1.starts_with("warn: there is no check \"recovry\""));
        assert!(telemetry.render().contains("headroom_readiness_check_passing{check=\"recovery\"} 0\n"));

        readiness.set("recovery", true, "done");
        assert_eq!(ask(&router, "/readyz").await.0, 200);
        readiness.shut_down();
        assert_eq!((ask(&router, "/readyz").await.0, ask(&router, "/livez").await.0), (503, 200));
    }

    #[tokio::test]
    async fn metrics_are_served_as_text() {
        let telemetry = Telemetry::default();
        telemetry.watch_process();
        telemetry.counter(&OTLP_POINTS_ACCEPTED, ["http"]).add(5);
        let router = router(telemetry, Readiness::default());
        let (status, text) = ask(&router, "/metrics").await;
        assert_eq!(status, 200);
        assert!(text.contains(
            "# HELP headroom_otlp_accepted_points_total Data points acknowledged to their sender.\n\
             # TYPE headroom_otlp_accepted_points_total counter\n\
             headroom_otlp_accepted_points_total{transport=\"http\"} 5\n"
        ));
        assert!(!cfg!(target_os = "linux") || text.contains("\nprocess_start_time_seconds "), "{text}");
    }
}
