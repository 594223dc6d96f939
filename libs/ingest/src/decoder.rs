//! The decoder that a worker keeps: configuration, bounds and the memory of what it has seen.

use std::fmt;

use headroom_model::SampleBatch;

use crate::identity::IdentityConfig;
use crate::intern::Interner;
use crate::limits::IngestLimits;
use crate::otlp::json;
use crate::otlp::walk::{Scratch, Walk};
use crate::otlp::wire::{WireError, WireFault};
use crate::report::IngestReport;

/// Bytes of body per point assumed before the first request says better; only the first allocation depends on it.
const BYTES_PER_POINT: usize = 64;

/// What a body held.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// The accepted samples, of any number of cells.
    pub batch: SampleBatch,
    /// What became of the data points.
    pub report: IngestReport,
}

/// Why a body could not be decoded at all. Answer with HTTP 400 or gRPC `INVALID_ARGUMENT`; sending it again is useless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The body is not an OTLP message.
    Protobuf {
        /// What is wrong.
        fault: WireFault,
        /// At which byte of the decompressed body.
        offset: usize,
    },
    /// The body is not OTLP/JSON.
    Json {
        /// What is wrong.
        message: String,
        /// Line, from 1; 0 if unknown.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// The message is not made of JSON counter records.
    Counters {
        /// What is wrong, with the field.
        message: String,
        /// Line, from 1.
        line: usize,
        /// Column in bytes, from 1.
        column: usize,
    },
    /// The message is not an Arrow IPC stream of samples.
    Arrow {
        /// What is wrong, with the column.
        message: String,
    },
}

/// Bytes of what an error says: senders' own names and values stand in it, and it is logged and remembered.
const MESSAGE_BYTES_MAX: usize = 512;

/// A message within its bound, and whether there was more.
fn cut(message: &str) -> String {
    let end = message.floor_char_boundary(MESSAGE_BYTES_MAX);
    if end < message.len() { format!("{}…", &message[..end]) } else { message.to_owned() }
}

impl DecodeError {
    #[cold]
    pub(crate) fn counters(message: &str, body: &[u8], at: usize) -> Self {
        let before = body.get(..at).unwrap_or(body);
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        Self::Counters { message: cut(message), line, column }
    }

    #[cold]
    pub(crate) fn arrow(message: &str) -> Self {
        Self::Arrow { message: cut(message) }
    }

    pub(crate) fn wire(error: WireError, body: &[u8]) -> Self {
        Self::Protobuf { fault: error.fault, offset: error.offset_in(body) }
    }

    pub(crate) fn json(error: &serde_json::Error) -> Self {
        let full = error.to_string();
        // serde_json appends the place to its message; here it has fields of its own.
        let message = cut(full.rsplit_once(" at line ").map_or(&*full, |(message, _)| message));
        Self::Json { message, line: error.line(), column: error.column() }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protobuf { fault, offset } => {
                write!(f, "the body is not a valid OTLP protobuf message: {} at byte {offset}", fault.as_str())
            }
            Self::Json { message, line, column } => {
                write!(f, "the body is not valid OTLP/JSON: {message} at line {line}, column {column}")
            }
            Self::Counters { message, line, column } => {
                write!(f, "not a counter record: {message} at line {line}, column {column}")
            }
            Self::Arrow { message } => write!(f, "not an Arrow IPC stream of samples: {message}"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Turns request bodies into sample batches. One per worker: it remembers what it has seen, and is faster for it, but
/// what it answers does not depend on it.
#[derive(Debug)]
pub struct Decoder {
    identity: IdentityConfig,
    limits: IngestLimits,
    interner: Interner,
    scratch: Scratch,
    bytes_per_point: usize,
}

impl Decoder {
    /// A decoder that has seen nothing yet.
    pub fn new(identity: IdentityConfig, limits: IngestLimits) -> Self {
        Self {
            identity,
            limits,
            interner: Interner::new(),
            scratch: Scratch::default(),
            bytes_per_point: BYTES_PER_POINT,
        }
    }

    /// Decodes an `ExportMetricsServiceRequest` in protobuf, also called `MetricsData`. An empty body is an empty
    /// request.
    ///
    /// # Errors
    /// If the body is not such a message. Points that are useless by themselves are no error but in the report.
    pub fn decode_protobuf(&mut self, body: &[u8]) -> Result<Decoded, DecodeError> {
        let points = body.len() / self.bytes_per_point;
        let mut walk = Walk::new(&mut self.interner, &mut self.scratch, &self.identity, &self.limits, points);
        walk.request(body).map_err(|error| DecodeError::wire(error, body))?;
        let (builder, mut report) = (walk.builder, walk.report);
        if !builder.is_empty() {
            // A little less than it was, so that the next body of this sender fits without growing.
            self.bytes_per_point = (body.len() / builder.len()).saturating_sub(1).max(16);
        }
        report.explain(&self.limits, &self.identity);
        Ok(Decoded { batch: builder.finish(), report })
    }

    /// Decodes the same message in OTLP/JSON.
    ///
    /// # Errors
    /// If the body is not such a message.
    pub fn decode_json(&mut self, body: &[u8]) -> Result<Decoded, DecodeError> {
        self.decode_protobuf(&json_to_protobuf(body)?)
    }
}

/// The same message in protobuf, for [`Decoder::decode_protobuf`]: for those who account for what a body becomes. It may
/// be four times as large.
///
/// # Errors
/// If the body is not such a message.
pub fn json_to_protobuf(body: &[u8]) -> Result<Vec<u8>, DecodeError> {
    json::to_protobuf(body)
}
