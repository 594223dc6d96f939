//! Arrow IPC streams: every type that a column may have, and nothing that bytes could do to us.

use std::sync::Arc;

use arrow_array::builder::StringViewBuilder;
use arrow_array::types::{Int8Type, Int32Type, UInt16Type};
use arrow_array::{
    Array, ArrayRef, DictionaryArray, Float32Array, Float64Array, Int64Array, LargeStringArray, ListArray, RecordBatch,
    StringArray, TimestampMicrosecondArray, TimestampNanosecondArray, TimestampSecondArray, UInt32Array,
};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{Field, Schema};
use headroom_ingest::{ArrowDecoder, DecodeError, Decoded, IdentityConfig, IngestLimits, RecordDefaults, RejectReason};
use headroom_model::SeriesKind;
use proptest::prelude::*;

use crate::counters::rows;

/// A time that samples may have, in seconds and as columns have it.
const NOW: i64 = 1_795_255_210;
const NOW_NS: i64 = NOW * 1_000_000_000;

fn decode(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    ArrowDecoder::new(IdentityConfig::default(), IngestLimits::default()).decode(bytes, RecordDefaults::default())
}

pub fn stream(columns: &[(&str, ArrayRef)], batches: usize) -> Vec<u8> {
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let arrays = columns.iter().map(|(_, array)| array.clone()).collect();
    let batch = RecordBatch::try_new(schema.clone(), arrays).unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), &schema).unwrap();
    for _ in 0..batches {
        writer.write(&batch).unwrap();
    }
    writer.into_inner().unwrap()
}

fn strings(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn base() -> Vec<(&'static str, ArrayRef)> {
    vec![
        ("server", strings(&["a", "a", "b"])),
        ("metric", strings(&["m", "n", "m"])),
        ("time", Arc::new(TimestampNanosecondArray::from(vec![NOW_NS + 7, NOW_NS + 7, NOW_NS + 8]))),
        ("value", Arc::new(Float64Array::from(vec![1.0, 2.0, 3.0]))),
    ]
}

fn with(name: &'static str, array: ArrayRef) -> Vec<(&'static str, ArrayRef)> {
    let mut columns = base();
    columns.retain(|(known, _)| *known != name);
    columns.push((name, array));
    columns
}

#[test]
fn texts_and_numbers_of_every_type_say_the_same() {
    let expected = rows(&decode(&stream(&base(), 1)).unwrap().batch);
    assert_eq!(expected.len(), 3);
    let servers = ["a", "a", "b"];
    let mut views = StringViewBuilder::new();
    servers.iter().for_each(|server| views.append_value(server));
    let equal: Vec<(&'static str, ArrayRef)> = vec![
        ("server", Arc::new(LargeStringArray::from(servers.to_vec()))),
        ("server", Arc::new(views.finish())),
        ("server", Arc::new(servers.into_iter().collect::<DictionaryArray<Int32Type>>())),
        ("server", Arc::new(servers.into_iter().collect::<DictionaryArray<Int8Type>>())),
        ("server", Arc::new(servers.into_iter().collect::<DictionaryArray<UInt16Type>>())),
        ("value", Arc::new(Float32Array::from(vec![1.0, 2.0, 3.0]))),
        ("value", Arc::new(UInt32Array::from(vec![1, 2, 3]))),
        ("time", Arc::new(Int64Array::from(vec![NOW_NS + 7, NOW_NS + 7, NOW_NS + 8]))),
        ("ignored", Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([None, Some([Some(1)]), Some([None])]))),
    ];
    for (name, array) in equal {
        let kind = array.data_type().to_string();
        let decoded = decode(&stream(&with(name, array), 1)).unwrap();
        assert_eq!(rows(&decoded.batch), expected, "{name} as {kind}");
        assert_eq!(decoded.report.ignored_fields, u64::from(name == "ignored"));
    }
}

#[test]
fn long_views_lie_in_their_buffers() {
    let mut views = StringViewBuilder::new();
    for name in ["a-server-with-a-long-name.example.net", "b", "c-server-with-a-long-name.example.net"] {
        views.append_value(name);
    }
    let decoded = decode(&stream(&with("server", Arc::new(views.finish())), 2)).unwrap();
    assert_eq!(decoded.batch.resources.len(), 3);
    assert_eq!(*decoded.batch.resources[0].server, *"a-server-with-a-long-name.example.net");
}

#[test]
fn units_of_time_and_all_optional_columns() {
    let mut columns = with("time", Arc::new(TimestampSecondArray::from(vec![NOW, NOW, NOW])));
    columns.extend([
        ("start", Arc::new(TimestampMicrosecondArray::from(vec![Some(50_000_000), None, None])) as ArrayRef),
        ("cell", strings(&["eu", "eu", "us"])),
        ("pool", strings(&["web", "web", "db"])),
        ("unit", strings(&["s", "1", "s"])),
        ("kind", Arc::new(StringArray::from(vec![Some("counter"), Some("delta"), None]))),
        ("resource.rack", strings(&["1", "1", "2"])),
        ("attribute.cpu.mode", Arc::new(StringArray::from(vec![Some("idle"), None, Some("user")]))),
    ]);
    let decoded = decode(&stream(&columns, 1)).unwrap();
    let found = rows(&decoded.batch);
    let seconds = |seconds: i64| seconds * 1_000_000_000;
    let mode = |mode: &str| vec![("cpu.mode".to_owned(), mode.to_owned())];
    let row = |cell: &str, server: &str, metric: &str, unit: &str, kind, attributes, start, value: f64| {
        let text = str::to_owned;
        (text(cell), text(server), text(metric), text(unit), kind, attributes, start, seconds(NOW), value.to_bits())
    };
    assert_eq!(
        found,
        [
            row("eu", "a", "m", "s", SeriesKind::Counter, mode("idle"), seconds(50), 1.0),
            row("eu", "a", "n", "1", SeriesKind::DeltaCounter, vec![], 0, 2.0),
            row("us", "b", "m", "s", SeriesKind::Gauge, mode("user"), 0, 3.0),
        ]
    );
    assert_eq!(*decoded.batch.resources[1].pool, *"db");
    assert_eq!(decoded.batch.resources[1].attribute("rack"), Some("2"));
}

#[test]
fn missing_values_are_rejected_by_reason() {
    for (name, array, reason) in [
        ("server", Arc::new(StringArray::from(vec![Some("a"), None, Some("b")])) as ArrayRef, RejectReason::NoIdentity),
        ("metric", Arc::new(StringArray::from(vec![Some("m"), None, Some("m")])), RejectReason::NoMetricName),
        (
            "time",
            Arc::new(TimestampNanosecondArray::from(vec![Some(NOW_NS), None, Some(NOW_NS)])),
            RejectReason::NoTime,
        ),
        ("time", Arc::new(TimestampNanosecondArray::from(vec![NOW_NS, -7, NOW_NS])), RejectReason::TimeOutOfRange),
        ("time", Arc::new(TimestampSecondArray::from(vec![NOW, i64::MAX, NOW])), RejectReason::TimeOutOfRange),
        // Milliseconds in a column of nanoseconds.
        (
            "time",
            Arc::new(TimestampNanosecondArray::from(vec![NOW_NS, NOW * 1_000, NOW_NS])),
            RejectReason::TimeOutOfRange,
        ),
        ("value", Arc::new(Float64Array::from(vec![Some(1.0), None, Some(3.0)])), RejectReason::NoValue),
        (
            "server",
            Arc::new([Some("a"), None, Some("b")].into_iter().collect::<DictionaryArray<Int32Type>>()),
            RejectReason::NoIdentity,
        ),
    ] {
        let decoded = decode(&stream(&with(name, array), 1)).unwrap();
        assert_eq!((decoded.report.rejected(reason), decoded.report.rejected_points()), (1, 1), "{name} {reason:?}");
        assert_eq!(decoded.batch.len(), 2);
    }
}

#[test]
fn what_is_no_such_stream_is_refused_by_name() {
    let mut without_value = base();
    without_value.truncate(3);
    let without_all = vec![("host", strings(&["a"]))];
    let good = stream(&base(), 1);
    let text = |name| with(name, Arc::new(Float64Array::from(vec![1.0, 2.0, 3.0])));
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "empty"),
        (b"ARROW1\0\0".to_vec(), "not a file"),
        (good[..good.len() / 2].to_vec(), "cut off"),
        ([&good[..], b"x"].concat(), "behind the end"),
        (stream(&without_value, 1), "missing columns: value; the stream has server, metric, time"),
        (stream(&without_all, 1), "missing columns: server, metric, time, value; the stream has host"),
        (stream(&text("server"), 1), "column `server` must hold text"),
        (stream(&text("time"), 1), "column `time` must hold timestamps"),
        (stream(&with("value", strings(&["1", "2", "3"])), 1), "column `value` must hold integers, or floats"),
        (stream(&with("kind", strings(&["gauge", "sum", "gauge"])), 1), "column `kind`, row 1: `sum` is none of"),
        (stream(&base(), 300), "more than 256 batches"),
    ];
    for (bytes, message) in cases {
        let error = decode(&bytes).unwrap_err().to_string();
        assert!(error.contains(message), "{error} does not say {message}");
    }
}

#[test]
fn samples_beyond_the_bound_are_counted() {
    let limits = IngestLimits { points_per_request_max: 4, ..IngestLimits::default() };
    let mut decoder = ArrowDecoder::new(IdentityConfig::default(), limits);
    let decoded = decoder.decode(&stream(&base(), 2), RecordDefaults::default()).unwrap();
    assert_eq!((decoded.batch.len(), decoded.report.rejected(RejectReason::TooManyPoints)), (4, 2));
}

#[test]
fn a_dictionary_is_bounded_and_any_number_of_columns_may_share_it() {
    let limits = IngestLimits { points_per_request_max: 4, ..IngestLimits::default() };
    for (entries, message) in [(4, None), (5, Some("has 5 entries, and a message may have 4 samples"))] {
        let values: Vec<String> = (0..entries).map(|entry| format!("s{entry}")).collect();
        let values = StringArray::from(values);
        let server: ArrayRef = Arc::new(DictionaryArray::<Int8Type>::new(vec![0, 0, 3].into(), Arc::new(values)));
        let mut decoder = ArrowDecoder::new(IdentityConfig::default(), limits.clone());
        match (decoder.decode(&stream(&with("server", server), 1), RecordDefaults::default()), message) {
            (Ok(decoded), None) => assert_eq!((decoded.batch.len(), &*decoded.batch.resources[1].server), (3, "s3")),
            (Err(error), Some(message)) => assert!(error.to_string().contains(message), "{error}"),
            (other, _) => panic!("{entries}: {other:?}"),
        }
    }
}

#[test]
fn views_may_share_texts_but_not_without_end() {
    for (bytes, is_read) in [(1000, true), (1_000_000, false)] {
        let mut server = StringViewBuilder::new().with_deduplicate_strings();
        let name = "x".repeat(bytes);
        (0..3).for_each(|_| server.append_value(&name));
        let decoded = decode(&stream(&with("server", Arc::new(server.finish())), 1));
        match decoded {
            Ok(decoded) => {
                assert!(is_read && decoded.report.rejected(RejectReason::IdentityTooLong) == 3, "{decoded:?}")
            }
            Err(error) => assert!(!is_read && error.to_string().contains("many times"), "{error}"),
        }
    }
}

#[test]
fn buffers_that_lie_over_one_another_are_refused() {
    let mut bytes = stream(&base(), 1);
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    // Each message is a marker, a length, metadata and a body; the schema's has none.
    let batch = 8 + word(4);
    let message = arrow_ipc::root_as_message(&bytes[batch + 8..batch + 8 + word(batch + 4)]).unwrap();
    let whole = [0i64.to_le_bytes(), message.bodyLength().to_le_bytes()].concat();
    let places = message.header_as_record_batch().unwrap().buffers().unwrap().bytes();
    let (from, length) = (places.as_ptr() as usize - bytes.as_ptr() as usize, places.len());
    for place in bytes[from..from + length].chunks_mut(16) {
        place.copy_from_slice(&whole);
    }
    let error = decode(&bytes).unwrap_err().to_string();
    assert!(error.contains("lie over those of others"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changed_bytes_do_not_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), dictionary: bool) {
        let server: ArrayRef = if dictionary {
            Arc::new(["a", "b", "b"].into_iter().collect::<DictionaryArray<Int32Type>>())
        } else {
            Arc::new(StringArray::from(vec![Some("a"), None, Some("a longer name than fits")]))
        };
        let mut bytes = stream(&with("server", server), 2);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(decoded) = decode(&bytes) {
            prop_assert_eq!(decoded.batch.len() as u64, decoded.report.accepted_points);
        }
    }
}

#[test]
fn what_pyarrow_writes_is_read_in_every_form() {
    let read = |name: &str| {
        let path = format!("{}/tests/fixtures/pyarrow-{name}.arrow", env!("CARGO_MANIFEST_DIR"));
        decode(&std::fs::read(path).unwrap())
    };
    let plain = rows(&read("plain").unwrap().batch);
    let words: Vec<_> =
        plain.iter().map(|row| format!("{}/{} {} {:?} {:?}", row.0, row.1, row.2, row.4, row.5)).collect();
    assert_eq!(
        words,
        [
            r#"eu-1/web-1 queue_length Gauge []"#,
            r#"eu-1/web-1 requests Counter [("code", "200")]"#,
            r#"eu-2/db-1 requests Counter [("code", "500")]"#,
        ]
    );
    assert_eq!(rows(&read("dictionary").unwrap().batch), plain);
    assert_eq!(rows(&read("zstd").unwrap().batch), plain);
    assert!(read("lz4").unwrap_err().to_string().contains("LZ4; write them with zstd or uncompressed"));
}
