//! Same rows as prost, whatever the order and form of the fields; never a panic, whatever the bytes.

use headroom_ingest::otlp::wire::WireFault;
use headroom_ingest::{DecodeError, Decoder, IdentityConfig, IngestLimits};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use proptest::prelude::*;
use prost::Message;

use crate::generate::request;
use crate::oracle::{rows, rows_of};
use crate::scramble::{Dice, Kind, scramble};

pub fn decoder() -> Decoder {
    Decoder::new(IdentityConfig::default(), IngestLimits::default())
}

/// What prost makes of the bytes must be what we make of them, also with a decoder that remembers other requests.
pub fn check(decoder: &mut Decoder, bytes: &[u8]) {
    match (ExportMetricsServiceRequest::decode(bytes), decoder.decode_protobuf(bytes)) {
        (Ok(request), Ok(decoded)) => {
            let (expect, rejected) = rows(&request);
            assert_eq!(rows_of(&decoded.batch), expect);
            let reasons: Vec<_> = decoded
                .report
                .rejections()
                .flat_map(|(reason, points)| std::iter::repeat_n(reason, points as usize))
                .collect();
            assert_eq!(reasons, rejected);
            assert_eq!(decoded.report.message.is_some(), !rejected.is_empty());
        }
        // Groups are refused on purpose.
        (Ok(_), Err(DecodeError::Protobuf { fault: WireFault::Group, .. })) => {}
        (Ok(request), Err(error)) => panic!("prost takes it: {error}\n{request:?}"),
        // The walk steps over what it does not need, and so takes some damage that prost does not.
        (Err(_), _) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rows_are_prosts(first in request(), second in request(), seed: u64) {
        let mut decoder = decoder();
        let dice = &mut Dice(seed);
        for request in [&first, &second, &first] {
            let plain = request.encode_to_vec();
            check(&mut decoder, &plain);
            let scrambled = scramble(Kind::Request, &plain, dice);
            prop_assert!(ExportMetricsServiceRequest::decode(&scrambled[..]).is_ok());
            check(&mut decoder, &scrambled);
        }
    }

    #[test]
    fn damage_is_prosts_damage(request in request(), seed: u64) {
        let mut decoder = decoder();
        let dice = &mut Dice(seed);
        let whole = scramble(Kind::Request, &request.encode_to_vec(), dice);
        for _ in 0..16 {
            let mut bytes = whole.clone();
            for _ in 0..=dice.roll(3) {
                let at = dice.roll(bytes.len() as u64 + 1) as usize;
                match dice.roll(4) {
                    0 => bytes.truncate(at),
                    1 => bytes.insert(at, dice.roll(256) as u8),
                    _ if at == bytes.len() => {}
                    2 => drop(bytes.remove(at)),
                    _ => bytes[at] ^= 1 << dice.roll(8),
                }
            }
            check(&mut decoder, &bytes);
        }
    }

    #[test]
    fn noise_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        check(&mut decoder(), &bytes);
    }
}

#[test]
fn an_empty_body_is_an_empty_request() {
    let decoded = decoder().decode_protobuf(&[]).unwrap();
    assert!(decoded.batch.is_empty() && decoded.report.message.is_none());
}

#[test]
fn an_error_says_at_which_byte() {
    // A ResourceMetrics of 4 bytes whose scope (field 2) claims 9.
    let error = decoder().decode_protobuf(&[0x0a, 0x04, 0x12, 0x09, 0x00, 0x00]).unwrap_err();
    assert_eq!(error, DecodeError::Protobuf { fault: WireFault::Truncated, offset: 3 });
}

#[test]
fn dictionaries_hold_each_entry_once() {
    let body = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/python-1.otlp.pb")).unwrap();
    let body = [body.clone(), body].concat();
    let batch = decoder().decode_protobuf(&body).unwrap().batch;
    assert_eq!(batch.resources.len(), 1);
    assert_eq!(batch.len() % 2, 0);
    assert_eq!(batch.series.len(), batch.len() / 2);
}
