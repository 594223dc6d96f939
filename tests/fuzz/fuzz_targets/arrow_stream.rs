//! Any bytes as an Arrow IPC stream: no panic, and every row is counted once.
#![no_main]

use headroom_ingest::{ArrowDecoder, IdentityConfig, IngestLimits, RecordDefaults};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let mut decoder = ArrowDecoder::new(IdentityConfig::default(), IngestLimits::default());
    if let Ok(decoded) = decoder.decode(body, RecordDefaults::default()) {
        assert_eq!(decoded.batch.len() as u64, decoded.report.accepted_points);
        let again = decoder.decode(body, RecordDefaults::default()).expect("decoded a moment ago");
        assert_eq!(again.report.rejected_points(), decoded.report.rejected_points());
    }
});
