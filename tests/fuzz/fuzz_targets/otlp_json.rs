//! Any text as OTLP/JSON: no panic, and an error has a place.
#![no_main]

use headroom_ingest::{DecodeError, Decoder, IdentityConfig, IngestLimits, OtherSignal, count_records_json};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    for signal in [OtherSignal::Traces, OtherSignal::Logs] {
        let _ = count_records_json(signal, body);
    }
    match Decoder::new(IdentityConfig::default(), IngestLimits::default()).decode_json(body) {
        Ok(decoded) => assert!(decoded.batch.len() as u64 >= decoded.report.accepted_points),
        Err(DecodeError::Json { line, .. }) => assert!(line >= 1),
        Err(error) => panic!("what we wrote ourselves does not decode: {error}"),
    }
});
