//! What an OTLP sender is answered: success, partial success, or a `google.rpc.Status`, in its own encoding.
//!
//! Written by hand because there are three tiny messages of it; prost checks them in the tests.

use crate::otlp::attributes::write_quoted;
use crate::otlp::proto_writer::ProtoWriter;
use crate::report::IngestReport;

/// Longest message of an answer, in bytes; some proxies refuse more in a gRPC trailer.
pub const MESSAGE_BYTES_MAX: usize = 2048;

/// The encoding of a request and of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/x-protobuf`
    Protobuf,
    /// `application/json`
    Json,
}

impl Format {
    /// The media type of an answer.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }

    /// The format that a `Content-Type` header names, whatever its parameters; `None` if it is not one of ours.
    pub fn from_header(value: &str) -> Option<Self> {
        let media_type = value.split(';').next().unwrap_or_default().trim();
        if media_type.eq_ignore_ascii_case("application/x-protobuf") {
            Some(Self::Protobuf)
        } else if media_type.eq_ignore_ascii_case("application/json") {
            Some(Self::Json)
        } else {
            None
        }
    }
}

/// The answer to a metrics request that was taken: `ExportMetricsServiceResponse`, empty unless points were rejected.
pub fn metrics_response(report: &IngestReport, format: Format) -> Vec<u8> {
    let rejected = report.rejected_points();
    let message = report.message.as_deref().unwrap_or_default();
    if rejected == 0 && message.is_empty() {
        return empty_response(format);
    }
    partial_success("rejectedDataPoints", rejected, message, format)
}

/// The answer to a request of traces or logs, all of which are taken and ignored: an empty message.
pub fn empty_response(format: Format) -> Vec<u8> {
    match format {
        Format::Protobuf => Vec::new(),
        Format::Json => b"{}".to_vec(),
    }
}

fn partial_success(field: &str, rejected: u64, message: &str, format: Format) -> Vec<u8> {
    let message = cut_message(message);
    match format {
        Format::Protobuf => {
            let mut out = ProtoWriter::default();
            out.message(1, |out| {
                out.varint(1, rejected);
                out.bytes(2, message.as_bytes());
            });
            out.finish()
        }
        Format::Json => {
            // A 64-bit integer is a string in protobuf's JSON.
            let mut out = format!("{{\"partialSuccess\":{{\"{field}\":\"{rejected}\",\"errorMessage\":");
            write_quoted(message, &mut out);
            out.push_str("}}");
            out.into_bytes()
        }
    }
}

/// The codes of `google.rpc.Code` that OTLP uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StatusCode {
    /// The request is wrong and stays wrong.
    InvalidArgument = 3,
    /// The caller may not do this.
    PermissionDenied = 7,
    /// Too large; retryable only with [`Status::retry_after_seconds`].
    ResourceExhausted = 8,
    /// There is no such method or encoding.
    Unimplemented = 12,
    /// Our fault.
    Internal = 13,
    /// Try again later.
    Unavailable = 14,
    /// The caller did not say who it is.
    Unauthenticated = 16,
}

/// A `google.rpc.Status`: the body of every 4xx and 5xx answer on OTLP paths, and gRPC's `grpc-status-details-bin`.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// The code.
    pub code: StatusCode,
    /// In English, for whoever runs the sender.
    pub message: String,
    /// What is wrong with which part of the request, as `BadRequest` detail: (field, description).
    pub violations: Vec<(String, String)>,
    /// When to try again, as `RetryInfo` detail.
    pub retry_after_seconds: Option<f64>,
}

impl Status {
    /// A status without details.
    pub fn new(code: StatusCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), violations: Vec::new(), retry_after_seconds: None }
    }

    /// The answer to a body that could not be decoded, with its `BadRequest` detail.
    pub fn bad_request(message: impl Into<String>) -> Self {
        let message = message.into();
        let violations = vec![("body".to_owned(), message.clone())];
        Self { violations, ..Self::new(StatusCode::InvalidArgument, message) }
    }

    /// The answer to a sender that should come back later.
    pub fn retry_later(message: impl Into<String>, retry_after_seconds: f64) -> Self {
        Self { retry_after_seconds: Some(retry_after_seconds), ..Self::new(StatusCode::Unavailable, message) }
    }

    /// The status as bytes.
    pub fn encode(&self, format: Format) -> Vec<u8> {
        match format {
            Format::Protobuf => self.to_protobuf(),
            Format::Json => self.to_json().into_bytes(),
        }
    }

    /// The delay in whole seconds and nanoseconds, both within protobuf's `Duration`.
    fn delay(&self) -> Option<(u64, u32)> {
        let seconds = self.retry_after_seconds?;
        let nanos = (seconds.clamp(0.0, 3e9) * 1e9).round() as u64;
        Some((nanos / 1_000_000_000, (nanos % 1_000_000_000) as u32))
    }

    fn to_protobuf(&self) -> Vec<u8> {
        let mut out = ProtoWriter::default();
        out.varint(1, self.code as u64);
        out.bytes(2, cut_message(&self.message).as_bytes());
        let mut detail = |name: &str, write: &dyn Fn(&mut ProtoWriter)| {
            let mut value = ProtoWriter::default();
            write(&mut value);
            out.message(3, |out| {
                out.bytes(1, format!("type.googleapis.com/google.rpc.{name}").as_bytes());
                out.bytes(2, &value.finish());
            });
        };
        if !self.violations.is_empty() {
            detail("BadRequest", &|out| {
                for (field, description) in &self.violations {
                    out.message(1, |out| {
                        out.bytes(1, cut_message(field).as_bytes());
                        out.bytes(2, cut_message(description).as_bytes());
                    });
                }
            });
        }
        if let Some((seconds, nanos)) = self.delay() {
            detail("RetryInfo", &|out| {
                out.message(1, |out| {
                    out.varint(1, seconds);
                    out.varint(2, u64::from(nanos));
                });
            });
        }
        out.finish()
    }

    fn to_json(&self) -> String {
        let mut out = format!("{{\"code\":{},\"message\":", self.code as u8);
        write_quoted(cut_message(&self.message), &mut out);
        let mut details = Vec::new();
        if !self.violations.is_empty() {
            let mut detail =
                "{\"@type\":\"type.googleapis.com/google.rpc.BadRequest\",\"fieldViolations\":[".to_owned();
            for (at, (field, description)) in self.violations.iter().enumerate() {
                detail.push_str(if at == 0 { "{\"field\":" } else { ",{\"field\":" });
                write_quoted(cut_message(field), &mut detail);
                detail.push_str(",\"description\":");
                write_quoted(cut_message(description), &mut detail);
                detail.push('}');
            }
            detail.push_str("]}");
            details.push(detail);
        }
        if let Some((seconds, nanos)) = self.delay() {
            let fraction = if nanos == 0 { String::new() } else { format!(".{nanos:09}") };
            details.push(format!(
                "{{\"@type\":\"type.googleapis.com/google.rpc.RetryInfo\",\"retryDelay\":\"{seconds}{fraction}s\"}}"
            ));
        }
        if !details.is_empty() {
            out.push_str(&format!(",\"details\":[{}]", details.join(",")));
        }
        out.push('}');
        out
    }
}

/// A message of an answer within its bound of [`MESSAGE_BYTES_MAX`].
pub fn cut_message(message: &str) -> &str {
    &message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)]
}
