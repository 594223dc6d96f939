//! What a request becomes, whatever it came in: decompress, decode, append, acknowledge.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use headroom_access::{Access, Caller, Peer, Scope, Surface};
use headroom_ingest::{
    BodyLimits, Decoder, Encoding, Format, IdentityConfig, IngestLimits, OtherSignal, count_records,
    count_records_json, decompress, empty_response, json_to_protobuf, metrics_response,
};
use headroom_log::SampleLog;
use http::{HeaderMap, Request, Response, header};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use tracing::Instrument;

use crate::admission::{Bound, Budget, Held, Limits};
use crate::answer::Refusal;
use crate::body::{BodyError, Buffers, Read};
use crate::metrics::{Metrics, Transport};
use crate::refusals::{Refusals, Refused, sender_of};
use crate::{grpc, http as otlp_http, sink};

/// Body of an answer.
pub(crate) type Answer = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// Decoders kept for the next request. A decoder remembers the resources and series it has seen; there are never more
/// in use than worker threads.
const DECODERS_KEPT_MAX: usize = 16;

/// What a request carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Metrics,
    Traces,
    Logs,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Traces => "traces",
            Self::Logs => "logs",
        }
    }
}

/// What an ingestor needs to know.
#[derive(Clone, Debug, Default)]
pub struct IngestorOptions {
    /// Bounds of sockets and bodies.
    pub limits: Limits,
    /// Bounds of what is inside.
    pub ingest: IngestLimits,
    /// How servers are named.
    pub identity: IdentityConfig,
}

/// A request whose body was read.
pub(crate) struct Export<'a> {
    pub(crate) transport: Transport,
    pub(crate) kind: Kind,
    pub(crate) format: Format,
    pub(crate) encoding: Encoding,
    /// The bound of the body after decompression.
    pub(crate) bound: Bound,
    pub(crate) headers: &'a HeaderMap,
}

/// Answers OTLP requests. Shared by all connections of all listeners.
pub struct Ingestor {
    log: Arc<dyn SampleLog>,
    options: IngestorOptions,
    budget: Budget,
    buffers: Buffers,
    decoders: Mutex<Vec<Decoder>>,
    metrics: Metrics,
    refusals: Refusals,
    access: Access,
}

impl Ingestor {
    /// An ingestor that appends to `log` and takes what anybody sends.
    pub fn new(log: Arc<dyn SampleLog>, options: IngestorOptions, metrics: Metrics) -> Self {
        let budget = Budget::new(options.limits.inflight_bytes_max);
        let access = Access::open(metrics.telemetry());
        let buffers = Buffers::default();
        Self {
            log,
            options,
            budget,
            buffers,
            decoders: Mutex::default(),
            metrics,
            refusals: Refusals::default(),
            access,
        }
    }

    /// The same, for those whom `access` lets in.
    pub fn with_access(self, access: Access) -> Self {
        Self { access, ..self }
    }

    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    /// Whether a sender may send.
    pub(crate) fn admit(&self, peer: &Peer, headers: &HeaderMap) -> Result<Caller, Refusal> {
        Ok(self.access.admit(Surface::Otlp, peer, headers, Scope::Ingest)?)
    }

    /// The bounds in force.
    pub fn limits(&self) -> &Limits {
        &self.options.limits
    }

    /// Senders whose points were rejected since the start, and why; few of them, see
    /// [`SENDERS_MAX`](crate::refusals::SENDERS_MAX).
    pub fn refusals(&self) -> Vec<Refused> {
        self.refusals.list()
    }

    /// What bodies under way may hold together, and where their memory comes from.
    pub(crate) fn room(&self) -> (&Budget, &Buffers) {
        (&self.budget, &self.buffers)
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Counts a request that is refused whole, and logs the bound that does it.
    pub(crate) fn refuse(&self, refusal: &Refusal, headers: &HeaderMap) {
        self.metrics.refused(refusal.reason);
        if refusal.is_by_bound() {
            self.refusals.note_bound(&sender_of(headers), refusal.reason, &refusal.message, Instant::now());
        }
    }

    /// Answers a request of either transport.
    pub(crate) async fn answer(&self, peer: &Peer, request: Request<Incoming>) -> Response<Answer> {
        let is_grpc = request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        let started = Instant::now();
        // The target is that of `headroom_telemetry::logs::TRACE_TARGET`: made only where spans are exported.
        let span = tracing::info_span!(
            target: "headroom_trace", "otlp export", otel.kind = "server", url.path = request.uri().path(),
            http.response.status_code = tracing::field::Empty,
        );
        let (transport, response) = if is_grpc {
            (Transport::Grpc, grpc::answer(self, peer, request).instrument(span.clone()).await)
        } else {
            (Transport::Http, otlp_http::answer(self, peer, request).instrument(span.clone()).await)
        };
        span.record("http.response.status_code", response.status().as_u16());
        self.metrics.duration(transport, started.elapsed());
        response
    }

    /// Takes a body and returns the message of the answer, in the request's format.
    pub(crate) async fn take(&self, export: Export<'_>, read: Read) -> Result<Vec<u8>, Refusal> {
        let Export { transport, kind, format, encoding, bound, headers } = export;
        let Read { bytes, mut held } = read;
        let _inflight = self.metrics.inflight(transport, bytes.len());
        let limits = BodyLimits { received_bytes_max: bytes.len(), body_bytes_max: bound.bytes as usize };
        let plain = decompress(encoding, &bytes, limits).map_err(|error| Refusal::decompress(&error, bound))?;
        if matches!(plain, Cow::Owned(_)) && !self.budget.take(plain.len() as u64, &mut held) {
            return Err(BodyError::Overloaded { bound_bytes: self.budget.bound_bytes() }.into());
        }
        match kind {
            Kind::Metrics => {
                let protobuf = match format {
                    Format::Protobuf => plain,
                    Format::Json => {
                        let protobuf = json_to_protobuf(&plain)?;
                        drop(plain);
                        // What is held from here on is what the JSON has become, not what it was.
                        held = Held::default();
                        if protobuf.len() as u64 > bound.bytes {
                            return Err(BodyError::TooLarge(bound).into());
                        }
                        if !self.budget.take(protobuf.len() as u64, &mut held) {
                            return Err(BodyError::Overloaded { bound_bytes: self.budget.bound_bytes() }.into());
                        }
                        Cow::Owned(protobuf)
                    }
                };
                let mut decoder = self.borrow_decoder();
                let decoded = decoder.decode_protobuf(&protobuf);
                self.return_decoder(decoder);
                let decoded = decoded?;
                drop(protobuf);
                self.buffers.give_back(bytes);
                sink::append(&*self.log, decoded.batch).await?;
                self.metrics.points(transport, &decoded.report);
                if let Some(message) = &decoded.report.message {
                    self.refusals.note(&sender_of(headers), message, decoded.report.rejections(), Instant::now());
                }
                Ok(metrics_response(&decoded.report, format))
            }
            Kind::Traces | Kind::Logs => {
                let signal = if kind == Kind::Traces { OtherSignal::Traces } else { OtherSignal::Logs };
                let records = match format {
                    Format::Protobuf => count_records(&plain)?,
                    Format::Json => count_records_json(signal, &plain)?,
                };
                self.metrics.ignored(kind, records);
                Ok(empty_response(format))
            }
        }
    }

    fn borrow_decoder(&self) -> Decoder {
        let kept = self.decoders.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| Decoder::new(self.options.identity.clone(), self.options.ingest.clone()))
    }

    fn return_decoder(&self, decoder: Decoder) {
        let mut kept = self.decoders.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < DECODERS_KEPT_MAX {
            kept.push(decoder);
        }
    }
}
