//! How fast counter records and Arrow streams become sample batches: one thread, the same bytes over and over.
//!
//! `cargo run --release --example records_bench -p headroom-ingest [seconds]`. This is the kernel alone: no broker, no
//! log, no windows; see load-tests/ for figures that count.
#![allow(clippy::unwrap_used)]

use std::fmt::Write;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, DictionaryArray, Float64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{Field, Schema};
use headroom_ingest::{ArrowDecoder, CountersDecoder, IdentityConfig, IngestLimits, RecordDefaults};

const SERVERS: usize = 1_000;
const COUNTERS: usize = 20;
/// Records of a batch: what a poll of a busy topic brings.
const RECORDS_PER_BATCH: usize = 1_000;

fn record(server: usize) -> Vec<u8> {
    let mut text = format!(
        r#"{{"server":"web-{server}.eu-1.example.net","cell":"eu-1","pool":"web","time":1795255200{:03},"counters":{{"#,
        server % 1000
    );
    for counter in 0..COUNTERS {
        let comma = if counter > 0 { "," } else { "" };
        let value = (server * 7_919 + counter * 104_729) as f64 * if counter % 2 == 0 { 1.0 } else { 0.125 };
        write!(text, r#"{comma}"system.disk.operation_{counter}":{value}"#).unwrap();
    }
    text.push_str("}}");
    text.into_bytes()
}

fn stream(is_dictionary: bool) -> Vec<u8> {
    let servers: Vec<String> = (0..SERVERS).map(|server| format!("web-{server}.eu-1.example.net")).collect();
    let metrics: Vec<String> = (0..COUNTERS).map(|counter| format!("system.disk.operation_{counter}")).collect();
    let of_row = |row: usize| (servers[row / COUNTERS].as_str(), metrics[row % COUNTERS].as_str());
    let rows = SERVERS * COUNTERS;
    let text = |select: fn((&'static str, &'static str)) -> &'static str| -> ArrayRef {
        // Leaked: a bench ends before that matters.
        let values = (0..rows).map(|row| {
            let (server, metric) = of_row(row);
            select((server.to_owned().leak(), metric.to_owned().leak()))
        });
        if is_dictionary {
            Arc::new(values.collect::<DictionaryArray<Int32Type>>())
        } else {
            Arc::new(StringArray::from_iter_values(values))
        }
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("server", text(|(server, _)| server)),
        ("metric", text(|(_, metric)| metric)),
        ("kind", text(|_| "counter")),
        ("time", Arc::new(TimestampNanosecondArray::from(vec![1_795_255_200_000_000_000; rows]))),
        ("value", Arc::new((0..rows).map(|row| Some(row as f64)).collect::<Float64Array>())),
    ];
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), false)).collect();
    let schema = Arc::new(Schema::new(fields));
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    let mut writer = StreamWriter::try_new(Vec::new(), &schema).unwrap();
    writer.write(&RecordBatch::try_new(schema.clone(), arrays).unwrap()).unwrap();
    writer.into_inner().unwrap()
}

/// CPU time of this thread's process: user and system, in seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn run(name: &str, unit: &str, seconds: f64, mut once: impl FnMut() -> (usize, usize)) {
    once();
    let (started, cpu) = (Instant::now(), cpu_seconds());
    let (mut units, mut points) = (0, 0);
    while started.elapsed().as_secs_f64() < seconds {
        let (of_once, points_of_once) = once();
        units += of_once;
        points += points_of_once;
    }
    let cpu = cpu_seconds() - cpu;
    println!("{name}: {:.0} k {unit}/s, {:.2} M points/s", units as f64 / cpu / 1e3, points as f64 / cpu / 1e6);
}

fn main() {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(2.0);
    let records: Vec<Vec<u8>> = (0..SERVERS).map(record).collect();
    let bytes: usize = records.iter().map(Vec::len).sum();
    println!("{SERVERS} servers, {COUNTERS} counters a record of {} bytes", bytes / SERVERS);
    let mut decoder = CountersDecoder::new(IdentityConfig::default(), IngestLimits::default());
    run("JSON records", "records", seconds, || {
        for record in records.iter().cycle().take(RECORDS_PER_BATCH) {
            decoder.take(record, RecordDefaults::default()).unwrap();
        }
        (RECORDS_PER_BATCH, black_box(decoder.finish()).len())
    });
    for (name, is_dictionary) in [("Arrow, dictionaries", true), ("Arrow, plain text", false)] {
        let stream = stream(is_dictionary);
        let mut decoder = ArrowDecoder::new(IdentityConfig::default(), IngestLimits::default());
        run(name, "messages", seconds, || {
            (1, black_box(decoder.decode(&stream, RecordDefaults::default()).unwrap()).batch.len())
        });
    }
}
