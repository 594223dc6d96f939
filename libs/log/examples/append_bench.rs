//! Measures the sample log on a real disk: `append_bench [directory] [MiB] [rows per record] [appenders] [synced|written]`.
//!
//! Appenders encode and append batches in closed loops of eight open appends each, while a reader follows the tail.
//! Prints throughput, commits, and processor time, then the rate at which the segments are read back.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use headroom_log::contract::samples;
use headroom_log::disk::{DataDir, DiskLogOptions, DiskSampleLog, Durability, OsStorage};
use headroom_log::{Position, SampleLog};

const OPEN_APPENDS: usize = 8;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: u64| arguments.get(at).and_then(|text| text.parse().ok()).unwrap_or(default);
    let path = arguments.first().map_or_else(|| std::env::temp_dir().join("headroom-append-bench"), PathBuf::from);
    let (mebibytes, rows, appenders) = (number(1, 1024).min(8192), number(2, 8192), number(3, 2));
    let written = arguments.get(4).is_some_and(|text| text == "written");
    let record = samples(1, rows as usize);
    let record_bytes = record.encode().len() as u64;
    let per_appender = (mebibytes << 20) / record_bytes / appenders.max(1);
    measure_encoding(&record, record_bytes);

    let dir = DataDir::open(&path, 1, "wall")?;
    let durability = if written { Durability::Written } else { Durability::Synced };
    let options = DiskLogOptions { durability, ..DiskLogOptions::default() };
    let log: Arc<dyn SampleLog> = Arc::new(DiskSampleLog::open(&dir, options, Arc::new(OsStorage))?);
    let start = log.end(0);
    let records = per_appender * appenders;
    let mut reader = log.reader(0, start)?;
    let began = Instant::now();
    let following = std::thread::spawn(move || {
        for _ in 0..records {
            while !matches!(reader.next_blocking(Duration::from_secs(1)), Ok(Some(_))) {}
        }
    });
    let appending: Vec<_> = (0..appenders)
        .map(|_| {
            let (log, record) = (log.clone(), record.clone());
            std::thread::spawn(move || {
                let mut open = std::collections::VecDeque::new();
                for _ in 0..per_appender {
                    if open.len() == OPEN_APPENDS {
                        let append: Option<headroom_log::Append> = open.pop_front();
                        append.map(headroom_log::Append::wait_blocking).transpose()?;
                    }
                    open.push_back(log.append(0, record.clone()));
                }
                open.into_iter().try_for_each(|append| append.wait_blocking().map(drop))
            })
        })
        .collect();
    for thread in appending {
        thread.join().map_err(|_| "an appender died")??;
    }
    following.join().map_err(|_| "the reader died")?;
    let seconds = began.elapsed().as_secs_f64();
    let Some(stats) = log.stats(0) else { return Err("no partition".into()) };
    let megabytes = stats.appended_bytes.get() as f64 / 1e6;
    println!(
        "append {durability:?}: {records} records of {record_bytes} B, {appenders} appenders: {:.0} MB/s, {:.0} commits/s, \
         {:.2} records a commit, {:.2} ms a commit; tail hits {} misses {}",
        megabytes / seconds,
        stats.commits.get() as f64 / seconds,
        records as f64 / stats.commits.get() as f64,
        stats.commit_ns.get() as f64 / 1e6 / stats.commits.get() as f64,
        stats.tail_hits.get(),
        stats.tail_misses.get()
    );
    read_back(&*log, start, &record, records, megabytes)?;
    drop((log, dir));
    std::fs::remove_dir_all(&path)?;
    Ok(())
}

fn measure_encoding(record: &headroom_model::LogRecord, record_bytes: u64) {
    let rounds = (1u64 << 30) / record_bytes.max(1);
    let began = Instant::now();
    let bytes: u64 =
        (0..rounds).map(|_| std::hint::black_box(std::hint::black_box(record).encode()).len() as u64).sum();
    println!(
        "encode, one record over and over in cache: {:.0} MB/s",
        bytes as f64 / 1e6 / began.elapsed().as_secs_f64()
    );
}

fn read_back(
    log: &dyn SampleLog,
    start: Position,
    record: &headroom_model::LogRecord,
    records: u64,
    megabytes: f64,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut reader = log.reader(0, start)?;
    let began = Instant::now();
    for offset in 0..records {
        match reader.try_next()? {
            Some((position, read)) if position.0 == start.0 + offset && *read == *record => {}
            other => return Err(format!("not what was written: {:?}", other.map(|(position, _)| position)).into()),
        }
    }
    println!("replay (page cache, checksum, decode, compare): {:.0} MB/s", megabytes / began.elapsed().as_secs_f64());
    Ok(())
}
