//! Bodies of every encoding, the bounds on both sides, and damage.

use std::borrow::Cow;
use std::io::Write;

use headroom_ingest::{BodyLimits, DecompressError, Encoding, decompress};

const LIMITS: BodyLimits = BodyLimits { received_bytes_max: 1000, body_bytes_max: 5000 };

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn pack(encoding: Encoding, bytes: &[u8]) -> Vec<u8> {
    match encoding {
        Encoding::Identity => bytes.to_vec(),
        Encoding::Gzip => gzip(bytes),
        Encoding::Zstd => zstd::encode_all(bytes, 3).unwrap(),
    }
}

#[test]
fn bodies_come_out_as_they_went_in() {
    for encoding in [Encoding::Identity, Encoding::Gzip, Encoding::Zstd] {
        for length in [0usize, 1, 900] {
            let body: Vec<u8> = (0..length).map(|i| (i % 7) as u8).collect();
            let packed = pack(encoding, &body);
            assert_eq!(decompress(encoding, &packed, LIMITS).as_deref(), Ok(&body[..]), "{encoding:?} {length}");
        }
        assert_eq!(decompress(encoding, &[], LIMITS).as_deref(), Ok(&[][..]));
        let twice = [pack(encoding, b"ab"), pack(encoding, b"cd")].concat();
        assert_eq!(decompress(encoding, &twice, LIMITS).as_deref(), Ok(&b"abcd"[..]), "{encoding:?}");
    }
    assert!(matches!(decompress(Encoding::Identity, b"x", LIMITS), Ok(Cow::Borrowed(_))));
}

#[test]
fn bounds_on_both_sides() {
    for encoding in [Encoding::Gzip, Encoding::Zstd] {
        let fits = pack(encoding, &[0; 5000]);
        assert_eq!(decompress(encoding, &fits, LIMITS).map(|body| body.len()), Ok(5000));
        for bomb in [vec![0; 5001], vec![0; 900_000]] {
            let error = decompress(encoding, &pack(encoding, &bomb), LIMITS).unwrap_err();
            // Either way it is told apart from damage.
            assert!(error.is_too_large(), "{encoding:?} {error}");
        }
    }
    let received = decompress(Encoding::Gzip, &[0; 1001], LIMITS).unwrap_err();
    assert_eq!(received, DecompressError::ReceivedTooLarge { bytes_max: 1000 });
    let limits = BodyLimits { received_bytes_max: 9, body_bytes_max: 3 };
    assert_eq!(decompress(Encoding::Identity, b"abcd", limits), Err(DecompressError::BodyTooLarge { bytes_max: 3 }));
}

#[test]
fn damage_is_told_apart() {
    for encoding in [Encoding::Gzip, Encoding::Zstd] {
        let whole = pack(encoding, b"some text that is long enough to be cut");
        let flipped: Vec<u8> = whole.iter().map(|byte| !byte).collect();
        for damaged in [&whole[..whole.len() - 3], b"no such thing", &flipped] {
            let error = decompress(encoding, damaged, LIMITS).unwrap_err();
            assert!(matches!(error, DecompressError::Corrupt { .. }), "{encoding:?} {error}");
        }
    }
}

#[test]
fn headers_name_encodings() {
    for (header, expect) in [
        ("", Some(Encoding::Identity)),
        ("identity", Some(Encoding::Identity)),
        ("GZIP", Some(Encoding::Gzip)),
        (" zstd ", Some(Encoding::Zstd)),
        ("deflate", None),
    ] {
        assert_eq!(Encoding::from_header(header), expect, "{header:?}");
    }
}
