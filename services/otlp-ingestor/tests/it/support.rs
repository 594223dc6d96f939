//! A role on a port of its own, and the two kinds of client.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use headroom_access::Access;
use headroom_log::memory::MemorySampleLog;
use headroom_log::{Append, AppendError, LogReader, LogStats, Position, ReadError, SampleLog};
use headroom_model::LogRecord;
use headroom_otlp_ingestor::{Ingestor, IngestorOptions, Limits, Metrics, bind, serve};
use headroom_telemetry::Telemetry;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// What the Python SDK sends, with a host name and without.
pub const NAMED: &[u8] = include_bytes!("../../../../libs/ingest/tests/fixtures/python-1.otlp.pb");
pub const NAMELESS: &[u8] = include_bytes!("../../../../libs/ingest/tests/fixtures/python-anonymous-1.otlp.pb");

pub const PROTOBUF: &str = "application/x-protobuf";
pub const JSON: &str = "application/json";
pub const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

/// One gauge of one server, as OTLP/JSON.
pub const GAUGE: &[u8] = br#"{"resourceMetrics":[{"resource":{"attributes":[{"key":"host.name","value":{"stringValue":"web-1"}}]},"scopeMetrics":[{"metrics":[{"name":"system.cpu.utilization","gauge":{"dataPoints":[{"timeUnixNano":"1795255210000000000","asDouble":0.5}]}}]}]}]}"#;

/// A log that counts samples, and refuses them all while it is told to.
pub struct Log {
    inner: MemorySampleLog,
    refusal: Mutex<Option<AppendError>>,
    rows: Mutex<usize>,
}

impl SampleLog for Log {
    fn partitions(&self) -> u32 {
        self.inner.partitions()
    }

    fn append(&self, partition: u32, record: Arc<LogRecord>) -> Append {
        if let Some(refusal) = self.refusal.lock().expect("no panic").clone() {
            return Append::ready(Err(refusal));
        }
        if let LogRecord::Samples(batch) = &*record {
            *self.rows.lock().expect("no panic") += batch.len();
        }
        self.inner.append(partition, record)
    }

    fn reader(&self, partition: u32, from: Position) -> Result<Box<dyn LogReader>, ReadError> {
        self.inner.reader(partition, from)
    }

    fn oldest(&self, partition: u32) -> Position {
        self.inner.oldest(partition)
    }

    fn end(&self, partition: u32) -> Position {
        self.inner.end(partition)
    }

    fn set_retention_floor(&self, partition: u32, floor: Position) {
        self.inner.set_retention_floor(partition, floor);
    }

    fn truncate_before(&self, partition: u32, before: Position) -> Position {
        self.inner.truncate_before(partition, before)
    }

    fn stats(&self, partition: u32) -> Option<Arc<LogStats>> {
        self.inner.stats(partition)
    }
}

/// A role that serves until it is dropped.
pub struct Service {
    pub ingestor: Arc<Ingestor>,
    pub address: SocketAddr,
    log: Arc<Log>,
    telemetry: Telemetry,
    _stop: watch::Sender<bool>,
}

/// An answer of either transport; that of gRPC has its status in the trailers.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub trailers: HeaderMap,
    pub body: Bytes,
}

impl Service {
    pub async fn start(limits: Limits) -> Self {
        Self::for_senders(limits, Access::default()).await
    }

    pub async fn for_senders(limits: Limits, access: Access) -> Self {
        let inner = MemorySampleLog::new(4, 16 << 20);
        let log = Arc::new(Log { inner, refusal: Mutex::default(), rows: Mutex::default() });
        let telemetry = Telemetry::default();
        let options = IngestorOptions { limits, ..IngestorOptions::default() };
        let ingestor = Ingestor::new(log.clone(), options, Metrics::new(&telemetry));
        let ingestor = Arc::new(ingestor.with_access(access));
        let listener = bind("otlp", ([127, 0, 0, 1], 0).into()).await.expect("a free port");
        let address = listener.address;
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(serve(listener, ingestor.clone(), stopping, Duration::ZERO));
        Self { ingestor, address, log, telemetry, _stop: stop }
    }

    /// From now on the log refuses everything.
    pub fn refuse(&self, refusal: AppendError) {
        *self.log.refusal.lock().expect("no panic") = Some(refusal);
    }

    /// Rows in the log.
    pub fn rows(&self) -> usize {
        *self.log.rows.lock().expect("no panic")
    }

    /// Whether the metrics have this line.
    pub fn counts(&self, line: &str) -> bool {
        self.telemetry.render().lines().any(|other| other == line)
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("a connection")
    }

    /// An OTLP/HTTP export.
    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.request(Method::POST, path, headers, body).await
    }

    pub async fn request(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let io = TokioIo::new(self.connect().await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("a handshake");
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).expect("a request");
        Answer::read(sender.send_request(request).await.expect("an answer")).await
    }

    /// A unary gRPC call of one message.
    pub async fn call(&self, method: &str, encoding: Option<&str>, message: &[u8]) -> Answer {
        self.call_with(method, encoding, &[], message).await
    }

    /// The same with more metadata.
    pub async fn call_with(
        &self,
        method: &str,
        encoding: Option<&str>,
        metadata: &[(&str, &str)],
        message: &[u8],
    ) -> Answer {
        let io = TokioIo::new(self.connect().await);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("a handshake");
        tokio::spawn(connection);
        let mut framed = vec![u8::from(encoding.is_some())];
        framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
        framed.extend_from_slice(message);
        let mut request = Request::post(format!("http://{}{method}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", "OTel-OTLP-Exporter-Python/1.45.2");
        if let Some(encoding) = encoding {
            request = request.header("grpc-encoding", encoding);
        }
        for (name, value) in metadata {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(framed))).expect("a request");
        Answer::read(sender.send_request(request).await.expect("an answer")).await
    }
}

impl Answer {
    async fn read(response: hyper::Response<hyper::body::Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("a body");
        let trailers = body.trailers().cloned().unwrap_or_default();
        Self { status: head.status, headers: head.headers, trailers, body: body.to_bytes() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn trailer(&self, name: &str) -> Option<&str> {
        self.trailers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as `google.rpc.Status`, in the encoding that the answer says.
    pub fn rpc_status(&self) -> RpcStatus {
        if self.header("content-type") == Some(JSON) {
            let status: serde_json::Value = serde_json::from_slice(&self.body).expect("JSON");
            let code = status["code"].as_i64().expect("a code") as i32;
            let message = status["message"].as_str().expect("a message").to_owned();
            return RpcStatus { code, message, details: Vec::new() };
        }
        RpcStatus::decode(&*self.body).expect("a status")
    }

    /// The status in `grpc-status-details-bin`.
    pub fn details(&self) -> RpcStatus {
        RpcStatus::decode(&*from_base64(self.trailer("grpc-status-details-bin").expect("details"))).expect("a status")
    }

    /// Rejected points and message of the answer's partial success.
    pub fn partial_success(&self) -> Option<(i64, String)> {
        let message =
            if self.header("content-type") == Some("application/grpc") { &self.body[5..] } else { &self.body };
        let response = ExportResponse::decode(message).expect("a response");
        response.partial_success.map(|partial| (partial.rejected, partial.message))
    }
}

fn from_base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    for chunk in text.as_bytes().chunks(4) {
        let sextet = |at: usize| chunk.get(at).and_then(|c| ALPHABET.iter().position(|other| other == c)).unwrap_or(0);
        let group = (0..4).fold(0, |group, at| group << 6 | sextet(at));
        bytes.extend((1..chunk.len()).map(|at| (group >> (24 - 8 * at)) as u8));
    }
    bytes
}

#[derive(Clone, PartialEq, Message)]
pub struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Detail>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Detail {
    #[prost(string, tag = "1")]
    pub type_url: String,
    #[prost(bytes, tag = "2")]
    pub value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    message: String,
}
