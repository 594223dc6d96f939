//! Counts the records of traces and logs, which SDKs with a single endpoint send along: taken, counted, ignored.

use crate::decoder::DecodeError;
use crate::otlp::json;
use crate::otlp::wire::{Reader, WireError};

/// Which of OTLP's other signals a body holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherSignal {
    /// `ExportTraceServiceRequest`
    Traces,
    /// `ExportLogsServiceRequest`
    Logs,
}

/// Counts the spans or log records of a body in protobuf. Both messages nest alike: resources in field 1, scopes in
/// field 2, records in field 2.
///
/// # Errors
/// If the body is damaged down to that level; the records themselves are not looked at.
pub fn count_records(body: &[u8]) -> Result<u64, DecodeError> {
    count(body, &[1, 2, 2]).map_err(|error| DecodeError::wire(error, body))
}

/// Counts the spans or log records of a body in OTLP/JSON.
///
/// # Errors
/// If the body is not such a message.
pub fn count_records_json(signal: OtherSignal, body: &[u8]) -> Result<u64, DecodeError> {
    count_records(&match signal {
        OtherSignal::Traces => json::traces_to_protobuf(body)?,
        OtherSignal::Logs => json::logs_to_protobuf(body)?,
    })
}

fn count(message: &[u8], path: &[u32]) -> Result<u64, WireError> {
    let Some((field, path)) = path.split_first() else { return Ok(1) };
    let mut records = 0;
    let mut reader = Reader::new(message);
    while let Some(key) = reader.key()? {
        if key == crate::otlp::wire::key_bytes(*field) {
            records += count(reader.bytes()?, path)?;
        } else {
            reader.skip_unknown(key, &[*field])?;
        }
    }
    Ok(records)
}
