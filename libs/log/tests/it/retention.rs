//! Retention by room and by age, and the floor that neither passes.

use headroom_log::contract::{samples, tick};
use headroom_log::disk::DiskLogOptions;
use headroom_log::{AppendError, Position, ReadError, SampleLog};

use crate::support::{TempDir, read_all, small};

#[test]
fn room_is_made_up_to_the_floor_and_a_bound_holds() {
    let dir = TempDir::new();
    let options = DiskLogOptions { bytes_max: 32 << 10, ..small() };
    let log = dir.log(options);
    let stats = log.stats(0).unwrap();
    let mut floor = 0;
    for mark in 0..400 {
        match log.append(0, samples(mark, 30)).wait_blocking() {
            Ok(_) => {}
            Err(AppendError::Full { .. }) => {
                assert!(log.oldest(0).0 <= floor, "deleted what the checkpoint needs");
                floor = log.end(0).0;
                log.set_retention_floor(0, Position(floor));
            }
            Err(error) => panic!("{error}"),
        }
        assert!(stats.held_bytes.get() <= options.bytes_max);
    }
    assert!(stats.refused_full.get() > 0 && stats.segments_removed.get() > 0);
    assert_eq!(dir.segments().len() as u64, stats.segments.get());
    let held: u64 = dir.segments().iter().map(|path| path.metadata().unwrap().len()).sum();
    assert_eq!(held, stats.held_bytes.get());
    let oldest = log.oldest(0);
    let (read, lost) = read_all(&log, oldest.0);
    assert_eq!((read.len() as u64, lost.len()), (log.end(0).0 - oldest.0, 0));
}

#[test]
fn age_is_measured_in_ticks_across_restarts() {
    let dir = TempDir::new();
    let options = DiskLogOptions { age_max_ns: Some(60_000_000_000), ..small() };
    let mut log = dir.log(options);
    log.set_retention_floor(0, Position(0));
    for step in 0..40 {
        log.append(0, samples(step, 60)).wait_blocking().unwrap();
        log.append(0, tick(step as i64 * 10)).wait_blocking().unwrap();
    }
    assert_eq!(log.oldest(0), Position(0), "no checkpoint, no deletion");
    drop(log);
    log = dir.log(options);
    log.set_retention_floor(0, Position(50));
    log.append(0, tick(400)).wait_blocking().unwrap();
    // The answer comes before the deletion, the next answer after it.
    log.append(0, tick(410)).wait_blocking().unwrap();
    let oldest = log.oldest(0);
    assert!(oldest > Position(40) && oldest <= Position(50), "{oldest}");
    log.set_retention_floor(0, log.end(0));
    log.append(0, tick(420)).wait_blocking().unwrap();
    log.append(0, tick(420)).wait_blocking().unwrap();
    let (read, _) = read_all(&log, log.oldest(0).0);
    let young = Position(2 * 37);
    assert!(log.oldest(0) > oldest && log.oldest(0) <= young, "{} is within the age", log.oldest(0));
    assert_eq!(read.last(), Some(&(83, tick(420))));
}

#[test]
fn a_reader_that_retention_overtakes_is_told() {
    let dir = TempDir::new();
    let log = dir.log(small());
    for mark in 0..60 {
        log.append(0, samples(mark, 30)).wait_blocking().unwrap();
    }
    let mut reader = log.reader(0, Position(0)).unwrap();
    assert_eq!(reader.try_next(), Ok(Some((Position(0), samples(0, 30)))));
    log.set_retention_floor(0, log.end(0));
    let oldest = log.truncate_before(0, Position(30));
    assert!(oldest > Position(20) && oldest <= Position(30), "{oldest}");
    assert_eq!(reader.try_next(), Err(ReadError::Truncated { wanted: Position(1), oldest }));
    assert_eq!(read_all(&log, oldest.0).0.len() as u64, 60 - oldest.0);
}
