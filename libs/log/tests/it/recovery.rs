//! What a crash or a bad sector leaves: nothing good is lost, nothing bad is given, everything is counted.

use std::fs;
use std::sync::Arc;

use headroom_log::SampleLog;
use headroom_log::contract::{samples, tick};
use headroom_log::disk::DiskLogOptions;
use headroom_model::LogRecord;
use proptest::prelude::*;

use crate::support::{TempDir, read_all, small};

const SEGMENT_HEADER_BYTES: usize = 36;

/// Three records in one segment, and where each starts and the last ends.
fn three_records() -> (Vec<Arc<LogRecord>>, Vec<u8>, [usize; 4]) {
    let dir = TempDir::new();
    let records = vec![samples(1, 2), tick(10), samples(2, 3)];
    let log = dir.log(small());
    for record in &records {
        log.append(0, record.clone()).wait_blocking().unwrap();
    }
    drop(log);
    let mut ends = [SEGMENT_HEADER_BYTES; 4];
    for (index, record) in records.iter().enumerate() {
        ends[index + 1] = ends[index] + 16 + record.encode().len();
    }
    let bytes = fs::read(&dir.segments()[0]).unwrap();
    assert_eq!(bytes.len(), ends[3]);
    (records, bytes, ends)
}

fn with_segment(dir: &TempDir, bytes: &[u8]) {
    drop(dir.log(small()));
    fs::create_dir_all(dir.path().join("log/0")).unwrap();
    fs::write(dir.path().join("log/0/00000000000000000000.seg"), bytes).unwrap();
}

#[test]
fn a_log_cut_anywhere_keeps_every_whole_record_and_goes_on() {
    let (records, bytes, ends) = three_records();
    for cut in 0..bytes.len() {
        let dir = TempDir::new();
        with_segment(&dir, &bytes[..cut]);
        let whole = ends[1..].iter().filter(|end| **end <= cut).count();
        let kept_bytes = if cut < SEGMENT_HEADER_BYTES { 0 } else { ends[whole] };
        let log = dir.log(small());
        let report = &log.reports()[0];
        assert_eq!(
            (report.records, report.cut_bytes, report.damaged_records),
            (whole as u64, (cut - kept_bytes) as u64, 0)
        );
        assert_eq!(log.stats(0).unwrap().cut_bytes.get(), report.cut_bytes);
        let position = log.append(0, tick(20)).wait_blocking().unwrap();
        assert_eq!(position.0, whole as u64, "cut at {cut}");
        let mut expected: Vec<_> = (0..).zip(records[..whole].iter().cloned()).collect();
        expected.push((whole as u64, tick(20)));
        drop(log);
        assert_eq!(read_all(&dir.log(small()), 0), (expected, Vec::new()), "cut at {cut}");
    }
}

#[test]
fn a_flipped_bit_costs_the_record_it_is_in_and_no_other() {
    let (records, bytes, ends) = three_records();
    for at in SEGMENT_HEADER_BYTES..bytes.len() {
        let dir = TempDir::new();
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        with_segment(&dir, &damaged);
        let hit = ends.iter().filter(|end| **end <= at).count() - 1;
        let log = dir.log(small());
        let (read, lost) = read_all(&log, 0);
        let expected: Vec<_> =
            (0u64..).zip(records.iter().cloned()).filter(|(index, _)| *index != hit as u64).collect();
        assert_eq!(read, expected, "bit in byte {at}");
        let report = &log.reports()[0];
        if hit < 2 {
            assert_eq!((lost, report.damaged_records), (vec![(hit as u64, hit as u64 + 1)], 1), "byte {at}");
            let counted = log.stats(0).unwrap().damaged_records.get();
            assert_eq!(counted, 1, "byte {at}: what opening and a reader find is one damage");
        } else {
            assert_eq!((lost, report.cut_bytes), (Vec::new(), (ends[3] - ends[2]) as u64), "byte {at}");
        }
    }
}

#[test]
fn a_segment_with_a_damaged_header_is_read_and_left_behind() {
    let (records, bytes, _) = three_records();
    for at in 0..SEGMENT_HEADER_BYTES {
        let dir = TempDir::new();
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        with_segment(&dir, &damaged);
        let log = dir.log(small());
        assert_eq!(log.reports()[0].damaged_segments, dir.segments(), "byte {at}");
        log.append(0, tick(20)).wait_blocking().unwrap();
        assert_eq!(dir.segments().len(), 2);
        let expected: Vec<_> = (0u64..).zip(records.iter().cloned().chain([tick(20)])).collect();
        assert_eq!(read_all(&log, 0), (expected, Vec::new()), "byte {at}");
    }
}

#[test]
fn a_segment_of_a_newer_version_is_refused_untouched() {
    let (_, mut bytes, _) = three_records();
    bytes[8] = 2;
    let crc = crc32c(&bytes[..32]);
    bytes[32..36].copy_from_slice(&crc.to_le_bytes());
    let dir = TempDir::new();
    with_segment(&dir, &bytes[..bytes.len() - 1]);
    let error =
        headroom_log::disk::DiskSampleLog::open(&dir.open(), small(), Arc::new(headroom_log::disk::OsStorage)).err();
    assert!(error.is_some_and(|error| error.to_string().contains("format version 2")));
    assert_eq!(fs::read(&dir.segments()[0]).unwrap(), bytes[..bytes.len() - 1]);
}

/// The checksum written out bit by bit: the file format is a promise, so the test does not borrow the writer's code.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & 0u32.wrapping_sub(crc & 1)))
    })
}

#[test]
fn damage_in_an_old_segment_is_reported_and_the_next_segments_are_read() {
    let dir = TempDir::new();
    let log = dir.log(small());
    for mark in 0..30 {
        log.append(0, samples(mark, 30)).wait_blocking().unwrap();
    }
    drop(log);
    let segments = dir.segments();
    let third: u64 = segments[2].file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let second: u64 = segments[1].file_stem().unwrap().to_str().unwrap().parse().unwrap();
    fs::write(&segments[1], [0u8; 3000]).unwrap();
    let log = dir.log(small());
    let (read, lost) = read_all(&log, 0);
    assert_eq!(lost, [(second, third)]);
    assert_eq!(log.stats(0).unwrap().damaged_records.get(), third - second);
    let expected: Vec<_> =
        (0..30).filter(|mark| !(second..third).contains(mark)).map(|mark| (mark, samples(mark, 30))).collect();
    assert_eq!(read, expected);
}

#[test]
fn a_reader_that_keeps_up_gets_the_same_record_and_one_that_lags_reads_the_disk() {
    let dir = TempDir::new();
    let log = dir.log(small());
    let mut reader = log.reader(0, log.end(0)).unwrap();
    for mark in 0..40 {
        let record = samples(mark, 30);
        log.append(0, record.clone()).wait_blocking().unwrap();
        let (_, read) = reader.try_next().unwrap().unwrap();
        assert!(Arc::ptr_eq(&record, &read));
    }
    let stats = log.stats(0).unwrap();
    assert_eq!((stats.tail_hits.get(), stats.tail_misses.get()), (40, 0));
    assert!(stats.tail_bytes.get() <= small().tail_bytes_max);
    let (read, lost) = read_all(&log, 0);
    assert_eq!((read.len(), lost.len()), (40, 0));
    assert!(stats.tail_misses.get() > 20, "the tail holds few of them");
    assert_eq!(stats.tail_hits.get() + stats.tail_misses.get(), 80);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is appended in whatever segments with whatever restarts, it comes back.
    #[test]
    fn what_goes_in_comes_out(
        rounds in prop::collection::vec(prop::collection::vec(0usize..120, 0..12), 1..5),
        segment_bytes in 100u64..6000,
        from in 0.0..1.0,
    ) {
        let dir = TempDir::new();
        let options = DiskLogOptions { segment_bytes, ..small() };
        let mut expected = Vec::new();
        for sizes in rounds {
            let log = dir.log(options);
            let appends: Vec<_> = sizes
                .iter()
                .map(|points| {
                    let record = samples(expected.len() as u64, *points);
                    expected.push((expected.len() as u64, record.clone()));
                    log.append(0, record)
                })
                .collect();
            for append in appends {
                append.wait_blocking().unwrap();
            }
            let from = (expected.len() as f64 * from) as usize;
            prop_assert_eq!(read_all(&log, from as u64), (expected[from..].to_vec(), Vec::new()));
        }
    }
}
