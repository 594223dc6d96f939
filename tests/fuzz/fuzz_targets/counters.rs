//! Any bytes as counter records: no panic, a message is taken whole or not at all, and what is taken is JSON.
#![no_main]

use headroom_ingest::{CountersDecoder, DecodeError, IdentityConfig, IngestLimits, RecordDefaults};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let mut decoder = CountersDecoder::new(IdentityConfig::default(), IngestLimits::default());
    match decoder.take(body, RecordDefaults { time_ns: Some(1) }) {
        Ok(report) => {
            let values = serde_json::Deserializer::from_slice(body).into_iter::<serde_json::Value>();
            let values: Vec<_> = values.collect();
            // serde refuses what it cannot hold: nesting deeper than it may recurse, numbers beyond a double. Both are JSON,
            // and this decoder steps over them where it reads nothing.
            let is_too_much = |error: &serde_json::Error| {
                ["recursion", "out of range"].iter().any(|limit| error.to_string().contains(limit))
            };
            assert!(values.iter().all(|value| value.as_ref().err().is_none_or(is_too_much)), "this is no JSON");
            assert_eq!(decoder.len() as u64, report.accepted_points);
            // From memory the answer is the same.
            let first = decoder.finish();
            decoder.take(body, RecordDefaults { time_ns: Some(1) }).expect("taken a moment ago");
            assert_eq!(first.points, decoder.finish().points);
        }
        Err(DecodeError::Counters { line, column, .. }) => {
            assert!(line >= 1 && column >= 1);
            assert!(decoder.finish().is_empty());
        }
        Err(error) => panic!("another decoder's error: {error}"),
    }
});
