//! Any bytes in any encoding: no panic, and never more than the bound.
#![no_main]

use headroom_ingest::{BodyLimits, Encoding, decompress};
use libfuzzer_sys::fuzz_target;

const LIMITS: BodyLimits = BodyLimits { received_bytes_max: 4096, body_bytes_max: 1 << 16 };

fuzz_target!(|received: &[u8]| {
    for encoding in [Encoding::Identity, Encoding::Gzip, Encoding::Zstd] {
        if let Ok(body) = decompress(encoding, received, LIMITS) {
            assert!(body.len() <= LIMITS.body_bytes_max);
        }
    }
});
