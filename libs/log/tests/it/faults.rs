//! A disk that is full, broken or slow.

use std::io::ErrorKind;
use std::sync::Arc;

use headroom_log::contract::{samples, tick};
use headroom_log::disk::{DiskLogOptions, Durability};
use headroom_log::{Append, AppendError, Position, SampleLog};

use crate::support::{FaultyStorage, TempDir, read_all, small};

fn synced() -> DiskLogOptions {
    DiskLogOptions { durability: Durability::Synced, segment_bytes: 1 << 20, bytes_max: 1 << 30, ..small() }
}

fn kind_of(result: Result<Position, AppendError>) -> Option<ErrorKind> {
    match result {
        Err(AppendError::Disk { kind, .. }) => Some(kind),
        _ => None,
    }
}

/// A disk that fills up at any byte of a record or of a segment's header.
#[test]
fn a_full_disk_refuses_and_recovers_by_itself() {
    for segment_bytes in [1 << 20, 700] {
        for room in [0, 1, 15, 16, 17, 40, 200] {
            let (dir, disk) = (TempDir::new(), FaultyStorage::default());
            let log = dir.log_on(DiskLogOptions { segment_bytes, ..synced() }, Arc::new(disk.clone()));
            log.append(0, samples(0, 10)).wait_blocking().unwrap();
            disk.set_room(Some(room));
            for _ in 0..2 {
                let refused = log.append(0, samples(9, 20)).wait_blocking();
                assert_eq!(kind_of(refused), Some(ErrorKind::StorageFull), "room for {room}");
            }
            assert_eq!(read_all(&log, 0).0, [(0, samples(0, 10))], "the log stays readable");
            disk.set_room(None);
            assert_eq!(log.append(0, samples(1, 10)).wait_blocking(), Ok(Position(1)));
            assert_eq!(log.stats(0).unwrap().refused_disk.get(), 2);
            drop(log);
            let log = dir.log(synced());
            assert_eq!(read_all(&log, 0), (vec![(0, samples(0, 10)), (1, samples(1, 10))], vec![]));
            assert_eq!(log.reports()[0].cut_bytes, 0, "nothing half-written was left");
        }
    }
}

/// After a failed sync nobody knows what the file holds: not even the same position may be found there again.
#[test]
fn a_failed_sync_is_not_acknowledged_and_its_file_is_left() {
    for (stuck, first) in [(false, 1), (true, 1), (false, 0)] {
        let (dir, disk) = (TempDir::new(), FaultyStorage::default());
        let log = dir.log_on(synced(), Arc::new(disk.clone()));
        let mut expected = Vec::new();
        for mark in 0..first {
            log.append(0, samples(mark, 10)).wait_blocking().unwrap();
            expected.push((mark, samples(mark, 10)));
        }
        if first == 0 {
            // The sync that starts the segment fails too.
            disk.fail_next_sync();
            assert!(kind_of(log.append(0, samples(8, 10)).wait_blocking()).is_some());
        }
        if stuck {
            disk.refuse_truncates();
        }
        disk.fail_next_sync();
        assert!(kind_of(log.append(0, samples(9, 10)).wait_blocking()).is_some());
        assert_eq!(log.end(0), Position(first), "readers do not see it");
        for mark in first..first + 2 {
            assert_eq!(log.append(0, samples(mark, 10)).wait_blocking(), Ok(Position(mark)));
            expected.push((mark, samples(mark, 10)));
        }
        assert_eq!(read_all(&log, 0), (expected.clone(), vec![]));
        drop(log);
        assert_eq!(read_all(&dir.log(synced()), 0), (expected, vec![]), "truncates refused: {stuck}");
    }
}

#[test]
fn while_a_commit_runs_the_next_group_gathers_and_shares_one_sync() {
    let (dir, disk) = (TempDir::new(), FaultyStorage::default());
    let log = dir.log_on(synced(), Arc::new(disk.clone()));
    log.append(0, samples(0, 1)).wait_blocking().unwrap();
    let before = disk.syncs();
    disk.close_gate();
    let first = log.append(0, samples(1, 1));
    disk.wait_at_gate();
    let others: Vec<Append> = (2..1500).map(|mark| log.append(0, samples(mark, 1))).collect();
    disk.open_gate();
    for (position, append) in (1..).zip([first].into_iter().chain(others)) {
        assert_eq!(append.wait_blocking(), Ok(Position(position)));
    }
    assert_eq!(disk.syncs() - before, 2);
    assert_eq!(log.stats(0).unwrap().commits.get(), 3);
}

#[test]
fn a_slow_disk_bounds_what_waits_and_holds_up_no_reader() {
    let (dir, disk) = (TempDir::new(), FaultyStorage::default());
    let options = DiskLogOptions { pending_bytes_max: 20_000, ..synced() };
    let log = dir.log_on(options, Arc::new(disk.clone()));
    log.append(0, samples(0, 10)).wait_blocking().unwrap();
    disk.close_gate();
    let mut waiting = vec![log.append(0, samples(1, 100))];
    disk.wait_at_gate();
    let refused = loop {
        assert!(waiting.len() < 100, "nothing bounds what waits");
        let pending = log.stats(0).unwrap().pending_bytes.get();
        let append = log.append(0, samples(waiting.len() as u64 + 1, 100));
        // An append that is taken stays unanswered behind the gate.
        if log.stats(0).unwrap().pending_bytes.get() == pending {
            break append.wait_blocking();
        }
        waiting.push(append);
    };
    assert!(matches!(refused, Err(AppendError::Overloaded { bound_bytes: 20_000, .. })), "{refused:?}");
    assert!(log.stats(0).unwrap().pending_bytes.get() <= 20_000);
    waiting.push(log.append(0, tick(10)));
    let mut reader = log.reader(0, Position(0)).unwrap();
    assert_eq!(reader.try_next(), Ok(Some((Position(0), samples(0, 10)))));
    assert_eq!(reader.try_next(), Ok(None), "what is not durable is not shown");
    disk.open_gate();
    for (position, append) in (1..).zip(waiting) {
        assert_eq!(append.wait_blocking(), Ok(Position(position)));
    }
    let stats = log.stats(0).unwrap();
    assert_eq!((stats.pending_bytes.get(), stats.refused_overloaded.get()), (0, 1));
}

#[test]
fn closing_commits_what_waits() {
    let dir = TempDir::new();
    let log = dir.log(small());
    let appends: Vec<_> = (0..50).map(|mark| log.append(0, samples(mark, 5))).collect();
    drop(log);
    for (position, append) in (0..).zip(appends) {
        assert_eq!(append.wait_blocking(), Ok(Position(position)));
    }
    assert_eq!(read_all(&dir.log(small()), 0).0.len(), 50);
}

#[test]
fn a_record_that_can_never_fit_is_refused_for_good() {
    let dir = TempDir::new();
    let log = dir.log(DiskLogOptions { pending_bytes_max: 1000, ..small() });
    let refused = log.append(0, samples(0, 100)).wait_blocking();
    let Err(error) = refused else { panic!("{refused:?}") };
    assert!(matches!(error, AppendError::TooLarge { bound_bytes: 1000, .. }) && !error.is_retryable(), "{error:?}");
}

#[test]
fn an_engine_that_is_too_far_behind_has_samples_wait_and_ticks_not() {
    let dir = TempDir::new();
    let log = dir.log(DiskLogOptions { lag_bytes_max: 100_000, ..small() });
    let append = |mark| log.append(0, samples(mark, 100)).wait_blocking();
    // Before it has caught up once, what it is behind is nobody's fault.
    for mark in 0..100 {
        assert!(append(mark).is_ok(), "{mark}");
    }
    log.set_consumed(0, log.end(0));
    let refused = (100..200).find_map(|mark| append(mark).err());
    assert!(matches!(refused, Some(AppendError::Behind { bound_bytes: 100_000, .. })), "{refused:?}");
    assert!(refused.is_some_and(|error| error.is_retryable() && error.to_string().contains("log.lag_bytes_max")));
    assert!(log.append(0, tick(10)).wait_blocking().is_ok(), "time goes on");
    assert_eq!(log.stats(0).unwrap().refused_behind.get(), 1);
    log.set_consumed(0, log.end(0));
    assert!(append(200).is_ok(), "it has caught up");
}
