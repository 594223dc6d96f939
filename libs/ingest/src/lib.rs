//! Bytes to sample batches: OTLP in protobuf and JSON, counter records, Arrow; decompression, identity, the answers.
//!
//! Everything here is a function of bytes: no socket, no clock, no task. A worker keeps one [`Decoder`]; what it
//! remembers makes it faster and changes no answer. The way of a body: [`decompress()`] → [`Decoder::decode_protobuf`] (or
//! `_json`) → [`by_partition`] → the log, and [`response::metrics_response`] back to the sender.
#![forbid(unsafe_code)]

mod count;
mod decoder;
mod decompress;
mod intern;
mod sniff;
mod split;

pub mod arrow;
pub mod counters;
pub mod identity;
pub mod limits;
pub mod otlp;
pub mod report;
pub mod response;

pub use arrow::ArrowDecoder;
pub use count::{OtherSignal, count_records, count_records_json};
pub use counters::{CountersDecoder, RecordDefaults};
pub use decoder::{DecodeError, Decoded, Decoder, json_to_protobuf};
pub use decompress::{BodyLimits, DecompressError, Encoding, decompress};
pub use identity::{IdentityConfig, NameRule, NameRuleError};
pub use limits::IngestLimits;
pub use otlp::attributes::base64;
pub use otlp::lookup::{QUANTILE_ATTRIBUTE, SCOPE_ATTRIBUTE};
pub use report::{IngestReport, RejectReason};
pub use response::{Format, Status, StatusCode, cut_message, empty_response, metrics_response};
pub use sniff::{MessageEncoding, sniff};
pub use split::{by_partition, merge};
