//! The listener: a real socket, once.

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use headroom_access::Access;
use headroom_api::{ApiLimits, serve};
use headroom_telemetry::Telemetry;
use support::Service;
use support::fixture::{EPOCH, snapshot, table};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A stream over a socket ends when the service stops, and so does the service; nothing says what software answers.
#[tokio::test]
async fn a_shutdown_ends_open_streams_and_then_the_listener() {
    let service = Service::new();
    service.read_model.apply(snapshot("eu-1", EPOCH, table(&[("web-1", &[], "web")])));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let limits = ApiLimits::default();
    let server = {
        let (router, shutdown) = (service.router.clone(), service.shutdown.clone());
        tokio::spawn(async move { serve("http", listener, router, Access::default(), &limits, shutdown).await })
    };
    let mut stream = BufReader::new(TcpStream::connect(address).await.expect("the service listens"));
    stream.write_all(b"GET /v1/watch HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("the request is taken");
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(stream.read_line(&mut head).await.expect("a line"), 0, "the head ends");
    }
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(!head.to_lowercase().contains("\nserver:"), "{head}");
    service.shutdown.cancel();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.expect("the stream ends in order");
    assert!(rest.contains(&format!("id: {EPOCH}")) && rest.ends_with("0\r\n\r\n"), "{rest}");
    server.await.expect("the service ends");
}

/// hyper has no timer for the bytes by which it tells HTTP/1 from HTTP/2, and one that begins anew once it can.
#[tokio::test]
async fn a_connection_without_a_head_gives_its_place_back() {
    let service = Service::new();
    let telemetry = Telemetry::default();
    let access = Access::open(&telemetry);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let limits = ApiLimits { connections_max: 1, body_timeout: Duration::from_millis(50), ..ApiLimits::default() };
    let (router, shutdown) = (service.router.clone(), service.shutdown.clone());
    tokio::spawn(async move { serve("http", listener, router, access, &limits, shutdown).await });
    for beginning in ["", "PRI * HTTP/2.0", "G", "GET /v1/cells HTTP/1.1\r\nHost"] {
        let mut silent = TcpStream::connect(address).await.expect("the service listens");
        silent.write_all(beginning.as_bytes()).await.expect("the bytes are taken");
        let mut rest = Vec::new();
        let _ = silent.read_to_end(&mut rest).await;
        assert_eq!(rest, b"", "{beginning}");
    }
    let late = "headroom_listener_refused_connections_total{listener=\"http\",bound=\"head_timeout\"} 4\n";
    assert!(telemetry.render().contains(late), "{}", telemetry.render());
    let mut idle = BufReader::new(TcpStream::connect(address).await.expect("the service listens"));
    for _ in 0..2 {
        idle.write_all(b"GET /v1/cells HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("the request is taken");
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(idle.read_line(&mut head).await.expect("a line"), 0, "the head ends");
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let mut body = vec![0; length.parse().expect("a number")];
        idle.read_exact(&mut body).await.expect("the body is whole");
    }
    drop(idle);
    until(&telemetry, "headroom_listener_connections{listener=\"http\"} 0").await;
}

#[tokio::test]
async fn connections_are_counted_and_those_that_wait_for_a_place() {
    let service = Service::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let limits = ApiLimits { connections_max: 1, ..ApiLimits::default() };
    let (router, shutdown) = (service.router.clone(), service.shutdown.clone());
    let telemetry = Telemetry::default();
    let access = Access::open(&telemetry);
    tokio::spawn(async move { serve("operator", listener, router, access, &limits, shutdown).await });
    let first = TcpStream::connect(address).await.expect("the service listens");
    until(&telemetry, "headroom_listener_connections{listener=\"operator\"} 1").await;
    let waited = "headroom_listener_refused_connections_total{listener=\"operator\",bound=\"connections_max\"}";
    until(&telemetry, &format!("{waited} 0")).await;
    let _second = TcpStream::connect(address).await.expect("the service listens");
    until(&telemetry, &format!("{waited} 1")).await;
    drop(first);
    until(&telemetry, "headroom_listener_connections{listener=\"operator\"} 1").await;
}

/// Waits until the metrics have a line.
async fn until(telemetry: &Telemetry, line: &str) {
    let shown = async {
        while !telemetry.render().lines().any(|shown| shown == line) {
            tokio::task::yield_now().await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(30), shown).await;
    assert!(in_time.is_ok(), "{line} is not among\n{}", telemetry.render());
}

/// Keeps the names of spans and what is recorded in them.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<String>>>);

impl Spans {
    fn note(&self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        let mut notes = self.0.lock().expect("no test panics while it holds this");
        notes.push(format!("{field}={value:?}"));
    }
}

impl tracing::Subscriber for Spans {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "headroom_trace"
    }

    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        span.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| self.note(field, value));
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, values: &tracing::span::Record<'_>) {
        values.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| self.note(field, value));
    }

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn a_request_is_one_span_with_the_routes_name_and_the_answers_status() {
    let spans = Spans::default();
    let _default = tracing::subscriber::set_default(spans.clone());
    let service = Service::new();
    assert_eq!(service.get("/v1/servers/nobody").await.status, 404);
    let notes = spans.0.lock().expect("no test panics while it holds this").join(" ");
    for told in ["otel.name=\"GET /v1/servers/{server}\"", "http.response.status_code=404"] {
        assert_eq!(notes.matches(told).count(), 1, "{notes}");
    }
}
