//! The sample log's promises.

use std::sync::Arc;
use std::time::Duration;

use headroom_model::LogRecord;
use headroom_model::policy::Mode;

use super::{PATIENCE, samples, tick, within_patience};
use crate::sample_log::{AppendError, LogReader, Position, ReadError, SampleLog};

/// Runs all promises that every sample log makes. `fresh` gives an empty log of at least two partitions that holds at
/// least 1 MiB in each.
pub async fn sample_log_suite(mut fresh: impl FnMut() -> Arc<dyn SampleLog>) {
    every_kind_of_record_comes_back_as_it_was(fresh()).await;
    partitions_are_separate(fresh()).await;
    a_reader_starts_anywhere(fresh()).await;
    a_reader_follows_the_tail(fresh()).await;
    a_reader_on_a_thread_sleeps_until_there_is_something(fresh()).await;
    concurrent_appends_keep_the_order_of_their_calls(fresh()).await;
    retention_never_passes_the_floor(fresh()).await;
    what_does_not_exist_is_refused(fresh()).await;
}

async fn append(log: &dyn SampleLog, partition: u32, record: Arc<LogRecord>) -> Position {
    match within_patience("an acknowledgement", log.append(partition, record)).await {
        Ok(position) => position,
        Err(error) => panic!("not appended: {error}"),
    }
}

fn reader(log: &dyn SampleLog, partition: u32, from: Position) -> Box<dyn LogReader> {
    match log.reader(partition, from) {
        Ok(reader) => reader,
        Err(error) => panic!("no reader at {from}: {error}"),
    }
}

async fn next(reader: &mut dyn LogReader) -> (Position, Arc<LogRecord>) {
    match within_patience("a record", reader.next()).await {
        Ok(next) => next,
        Err(error) => panic!("no record at {}: {error}", reader.position()),
    }
}

/// All records from `from` up to the end of the partition.
pub async fn read_all(log: &dyn SampleLog, partition: u32, from: Position) -> Vec<(Position, Arc<LogRecord>)> {
    let mut reader = reader(log, partition, from);
    let mut records = Vec::new();
    while reader.position() < log.end(partition) {
        records.push(next(&mut *reader).await);
    }
    records
}

/// Records come back in the order and at the positions at which they were acknowledged, to the bit.
pub async fn every_kind_of_record_comes_back_as_it_was(log: Arc<dyn SampleLog>) {
    let records = [
        samples(1, 100),
        tick(10),
        Arc::new(LogRecord::Policy("signals: {}".into())),
        Arc::new(LogRecord::Mode {
            cell: None,
            mode: Some(Mode::Enforce { percent: 5.0 }),
            owner: "ops".into(),
            reason: "drill".into(),
        }),
        Arc::new(LogRecord::Remove {
            cell: "eu-1".into(),
            server: "web-1".into(),
            owner: "ops".into(),
            reason: "gone".into(),
        }),
        Arc::new(LogRecord::Ack {
            cell: "eu-1".into(),
            server: "web-1".into(),
            class: "batch".into(),
            consumer: "cron".into(),
            epoch: 10,
            in_use: f64::NAN,
        }),
        samples(2, 0),
    ];
    let mut positions = Vec::new();
    for record in &records {
        positions.push(append(&*log, 0, record.clone()).await);
    }
    assert!(positions.is_sorted_by(|a, b| a < b), "{positions:?}");
    assert_eq!(log.end(0), positions[positions.len() - 1].next());
    let read = read_all(&*log, 0, log.oldest(0)).await;
    assert_eq!(read.iter().map(|(position, _)| *position).collect::<Vec<_>>(), positions);
    for ((_, read), written) in read.iter().zip(&records) {
        assert_eq!(read.encode(), written.encode());
    }
}

/// What goes into one partition is in no other.
pub async fn partitions_are_separate(log: Arc<dyn SampleLog>) {
    assert!(log.partitions() >= 2, "the suite needs two partitions");
    append(&*log, 0, samples(1, 1)).await;
    append(&*log, 1, samples(2, 1)).await;
    append(&*log, 0, samples(3, 1)).await;
    for (partition, expected) in [(0, vec![samples(1, 1), samples(3, 1)]), (1, vec![samples(2, 1)])] {
        let read: Vec<_> = read_all(&*log, partition, log.oldest(partition)).await;
        assert_eq!(read.into_iter().map(|(_, record)| record).collect::<Vec<_>>(), expected, "partition {partition}");
    }
}

/// A reader at a position gives the record there first, however far back that is.
pub async fn a_reader_starts_anywhere(log: Arc<dyn SampleLog>) {
    let mut positions = Vec::new();
    for mark in 0..40 {
        positions.push(append(&*log, 0, samples(mark, 50)).await);
    }
    for (mark, position) in (0..).zip(&positions) {
        let (at, record) = next(&mut *reader(&*log, 0, *position)).await;
        assert_eq!((at, record), (*position, samples(mark, 50)));
    }
}

/// A reader at the end waits for the next record; giving up waiting loses nothing.
pub async fn a_reader_follows_the_tail(log: Arc<dyn SampleLog>) {
    let mut reader = reader(&*log, 0, log.end(0));
    for mark in 0..10 {
        assert!(matches!(reader.try_next(), Ok(None)), "there is nothing yet");
        let given_up = tokio::time::timeout(Duration::ZERO, reader.next()).await;
        assert!(given_up.is_err(), "a record out of nothing");
        let appended = append(&*log, 0, samples(mark, 1)).await;
        assert_eq!(next(&mut *reader).await, (appended, samples(mark, 1)));
        assert!(reader.position() > appended);
    }
}

/// The blocking form wakes for a record that comes while it sleeps, and gives up when none comes.
pub async fn a_reader_on_a_thread_sleeps_until_there_is_something(log: Arc<dyn SampleLog>) {
    let mut reader = reader(&*log, 0, log.end(0));
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    let reading = std::thread::spawn(move || {
        assert_eq!(reader.next_blocking(Duration::from_millis(1)), Ok(None));
        let _ = ready.send(());
        [reader.next_blocking(PATIENCE), reader.next_blocking(PATIENCE)]
    });
    let _ = is_ready.await;
    let first = append(&*log, 0, samples(1, 1)).await;
    let second = append(&*log, 0, samples(2, 1)).await;
    let Ok(read) = tokio::task::spawn_blocking(move || reading.join()).await.unwrap_or_else(|_| panic!("no answer"))
    else {
        panic!("the reading thread has died");
    };
    assert_eq!(read, [Ok(Some((first, samples(1, 1)))), Ok(Some((second, samples(2, 1))))]);
}

/// Appenders race, but each one's records stay in the order of its calls, and none is lost or doubled.
pub async fn concurrent_appends_keep_the_order_of_their_calls(log: Arc<dyn SampleLog>) {
    const APPENDERS: u64 = 8;
    const RECORDS: u64 = 50;
    let appenders: Vec<_> = (0..APPENDERS)
        .map(|appender| {
            let log = log.clone();
            tokio::spawn(async move {
                let appends: Vec<_> =
                    (0..RECORDS).map(|record| log.append(0, samples(appender * RECORDS + record, 1))).collect();
                let mut positions = Vec::new();
                for append in appends {
                    positions.push(within_patience("an acknowledgement", append).await);
                }
                positions
            })
        })
        .collect();
    let mut acknowledged = Vec::new();
    for (appender, task) in (0..).zip(appenders) {
        let Ok(positions) = task.await else { panic!("an appender has died") };
        assert!(positions.is_sorted_by(|a, b| matches!((a, b), (Ok(a), Ok(b)) if a < b)), "{positions:?}");
        for (record, position) in (0..).zip(positions) {
            acknowledged.extend(position.map(|position| (position, samples(appender * RECORDS + record, 1))));
        }
    }
    acknowledged.sort_by_key(|(position, _)| *position);
    assert_eq!(read_all(&*log, 0, log.oldest(0)).await, acknowledged);
}

/// Truncation stops at the floor, whatever is asked for, and without a floor nothing is deleted.
pub async fn retention_never_passes_the_floor(log: Arc<dyn SampleLog>) {
    let mut positions = Vec::new();
    for mark in 0..60 {
        positions.push(append(&*log, 0, samples(mark, 100)).await);
    }
    let first = log.oldest(0);
    assert_eq!(log.truncate_before(0, log.end(0)), first, "no checkpoint, no deletion");
    log.set_retention_floor(0, positions[20]);
    log.set_retention_floor(0, positions[10]);
    let oldest = log.truncate_before(0, log.end(0));
    assert!(oldest <= positions[20], "{oldest} is beyond the floor");
    assert_eq!(oldest, log.oldest(0));
    let read = read_all(&*log, 0, positions[20]).await;
    assert_eq!(read.iter().map(|(position, _)| *position).collect::<Vec<_>>(), positions[20..]);
    if oldest > first {
        let refused = log.reader(0, first).err();
        assert_eq!(refused, Some(ReadError::Truncated { wanted: first, oldest }));
    }
}

/// Partitions and positions that there are not.
pub async fn what_does_not_exist_is_refused(log: Arc<dyn SampleLog>) {
    let (partition, partitions) = (log.partitions(), log.partitions());
    let appended = within_patience("an answer", log.append(partition, tick(10))).await;
    assert_eq!(appended, Err(AppendError::NoSuchPartition { partition, partitions }));
    let read = log.reader(partition, Position(0)).err();
    assert_eq!(read, Some(ReadError::NoSuchPartition { partition, partitions }));
    assert!(log.stats(partition).is_none());
    let (wanted, end) = (log.end(0).next(), log.end(0));
    assert_eq!(log.reader(0, wanted).err(), Some(ReadError::BeyondEnd { wanted, end }));
}

/// For durable logs: `open` opens the same log again and again. What was acknowledged is there, and positions go on.
pub async fn a_log_survives_being_closed(mut open: impl FnMut() -> Arc<dyn SampleLog>) {
    let mut expected = Vec::new();
    for round in 0..3 {
        let log = open();
        assert_eq!(read_all(&*log, 0, log.oldest(0)).await, expected);
        for mark in 0..20 {
            let record = samples(round * 100 + mark, 30);
            expected.push((append(&*log, 0, record.clone()).await, record));
        }
        assert!(expected.is_sorted_by_key(|(position, _)| *position));
    }
}

/// For bounded logs: `log` holds less than 1000 records of 1000 samples. Once full it refuses samples as retryable, but
/// takes ticks; it stays readable, and takes samples again when the floor has moved.
pub async fn a_full_log_refuses_samples_and_takes_ticks(log: Arc<dyn SampleLog>) {
    let first = append(&*log, 0, samples(0, 1000)).await;
    let mut refused = None;
    for mark in 1..1000 {
        if let Err(error) = within_patience("an answer", log.append(0, samples(mark, 1000))).await {
            refused = Some(error);
            break;
        }
    }
    assert!(matches!(refused, Some(AppendError::Full { .. })), "{refused:?}");
    assert!(refused.is_some_and(|error| error.is_retryable()));
    let ticked = append(&*log, 0, tick(10)).await;
    assert_eq!(read_all(&*log, 0, first).await.last(), Some(&(ticked, tick(10))));
    log.set_retention_floor(0, log.end(0));
    let after = append(&*log, 0, samples(1000, 1000)).await;
    assert_eq!(read_all(&*log, 0, after).await, [(after, samples(1000, 1000))]);
    assert!(log.oldest(0) > first, "retention has made room");
}

/// For embedded logs: a checkpoint that knows more than the log moves its end, so that no position is given twice.
pub async fn a_floor_beyond_the_end_moves_the_end(log: Arc<dyn SampleLog>) {
    append(&*log, 0, samples(1, 1)).await;
    let floor = Position(log.end(0).0 + 100);
    log.set_retention_floor(0, floor);
    let mut reader = reader(&*log, 0, floor);
    assert_eq!(append(&*log, 0, samples(2, 1)).await, floor);
    assert_eq!(next(&mut *reader).await, (floor, samples(2, 1)));
}
