//! A reader of a partition: from the tail while it keeps up, from the segments while it lags.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use headroom_model::LogRecord;
use headroom_model::record::Dictionary;

use super::partition::Partition;
use super::segment::{SegmentCursor, Step, path_of};
use super::why;
use crate::sample_log::{BoxFuture, LogReader, Position, ReadError};
use crate::tail::Found;

type Next = Result<Option<(Position, Arc<LogRecord>)>, ReadError>;

pub(super) struct DiskReader {
    partition: Arc<Partition>,
    at: u64,
    /// Of the last record, if that came from disk. Lost when a future is dropped midway, and then found again.
    disk: OnDisk,
}

/// Where the last record came from, and whom the records before it named.
#[derive(Default)]
struct OnDisk {
    cursor: Option<SegmentCursor>,
    dictionary: Dictionary,
}

impl DiskReader {
    pub(super) fn new(partition: Arc<Partition>, at: u64) -> Self {
        Self { partition, at, disk: OnDisk::default() }
    }

    fn take(&mut self, found: Found) -> Next {
        match found {
            Found::Record(record) => {
                self.partition.stats.tail_hits.add(1);
                // The file is not needed any more, and may be one that retention has deleted.
                self.disk = OnDisk::default();
                let position = Position(self.at);
                self.at += 1;
                Ok(Some((position, record)))
            }
            Found::OnDisk => {
                let (disk, at, next) = read(&self.partition, std::mem::take(&mut self.disk), self.at);
                self.disk = disk;
                self.at = at;
                next
            }
            Found::NotYet => Ok(None),
            Found::Truncated(oldest) => {
                Err(ReadError::Truncated { wanted: Position(self.at), oldest: Position(oldest) })
            }
            Found::Closed => Err(ReadError::Closed),
        }
    }
}

impl LogReader for DiskReader {
    fn position(&self) -> Position {
        Position(self.at)
    }

    fn next(&mut self) -> BoxFuture<'_, Result<(Position, Arc<LogRecord>), ReadError>> {
        Box::pin(async move {
            let mut grown = self.partition.tail.subscribe();
            loop {
                grown.borrow_and_update();
                match self.partition.tail.find(self.at) {
                    Found::NotYet => {
                        if grown.changed().await.is_err() {
                            return Err(ReadError::Closed);
                        }
                    }
                    Found::OnDisk => {
                        let (partition, disk, at) = (self.partition.clone(), std::mem::take(&mut self.disk), self.at);
                        let reading = tokio::task::spawn_blocking(move || read(&partition, disk, at));
                        let Ok((disk, at, next)) = reading.await else { return Err(ReadError::Closed) };
                        self.disk = disk;
                        self.at = at;
                        if let Some(next) = next? {
                            return Ok(next);
                        }
                    }
                    found => {
                        if let Some(next) = self.take(found)? {
                            return Ok(next);
                        }
                    }
                }
            }
        })
    }

    fn next_blocking(&mut self, timeout: Duration) -> Next {
        let found = self.partition.tail.find_blocking(self.at, timeout);
        self.take(found)
    }

    fn try_next(&mut self) -> Next {
        let found = self.partition.tail.find(self.at);
        self.take(found)
    }
}

/// Reads the record at `at`, which lies before the end of the log, from its segment. Gives back the disk's part and the
/// position to go on at.
fn read(partition: &Partition, mut disk: OnDisk, at: u64) -> (OnDisk, u64, Next) {
    partition.stats.tail_misses.add(1);
    match read_step(partition, &mut disk, at) {
        Ok((at, next)) => (disk, at, next),
        Err(error) => match partition.tail.find(at) {
            Found::Truncated(oldest) => {
                let (wanted, oldest) = (Position(at), Position(oldest));
                (OnDisk::default(), at, Err(ReadError::Truncated { wanted, oldest }))
            }
            _ => (OnDisk::default(), at, Err(ReadError::Disk { why: why("cannot read", &partition.dir, &error) })),
        },
    }
}

fn read_step(partition: &Partition, disk: &mut OnDisk, at: u64) -> io::Result<(u64, Next)> {
    let OnDisk { cursor, dictionary } = disk;
    // Before anything is located: what is durable now is within the bytes that `locate` then gives.
    let end = partition.tail.end();
    loop {
        let Some(place) = partition.locate(at) else {
            // Retention was faster.
            return Err(io::ErrorKind::NotFound.into());
        };
        let stop = place.next_base.unwrap_or(end).min(end);
        let reading = match cursor.take_if(|cursor| cursor.base() == place.base && cursor.position() <= at) {
            Some(kept) => cursor.insert(kept),
            None => cursor.insert(SegmentCursor::open(&path_of(&partition.dir, place.base), place.base)?),
        };
        let (from, to) = match reading.step(place.bytes, at)? {
            Step::Record(position, payload) if position == at && position < stop => {
                let next = LogRecord::decode_with(dictionary, payload)
                    .map(|record| Some((Position(position), Arc::new(record))));
                let unreadable = |error: headroom_model::codec::DecodeError| {
                    partition.stats.damaged_records.add(1);
                    ReadError::Unreadable { position: Position(position), why: error.to_string().into() }
                };
                return Ok((at + 1, next.map_err(unreadable)));
            }
            // Beyond what the segment may say: left over from a failed sync, and given again in the next one.
            Step::Record(..) | Step::End => (at, stop),
            Step::Damaged(_, to) if to <= at => continue,
            Step::Damaged(from, to) => (from.max(at), to.min(stop)),
        };
        if to <= from {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        partition.stats.damaged_records.add(to - from);
        tracing::error!(dir = %partition.dir.display(), from, to, "records of the sample log are damaged or missing");
        return Ok((to, Err(ReadError::Damaged { from: Position(from), to: Position(to) })));
    }
}
