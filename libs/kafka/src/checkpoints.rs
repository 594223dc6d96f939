//! The checkpoint store as a compacted topic.
//!
//! A checkpoint is one transaction: its chunks, then the index that says where they begin. Whoever starts reads the
//! index near the end of the partition and then exactly the chunks of the newest checkpoint, however much of older ones
//! compaction has not taken away yet. Two generations are kept in slots of their own, so that a new one overwrites the
//! older of the two.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use headroom_log::checkpoint::GENERATIONS;
use headroom_log::{CheckpointError, CheckpointStore, Position};

use crate::Connection;
use crate::cluster::Cluster;
use crate::records::{
    CheckpointKey, Generation, PART_OVERHEAD, decode_chunk, decode_index, encode_chunk, encode_index,
};
use crate::topics::Layout;
use crate::writer::{WriteError, Writer};

/// How far from the end the index is looked for first: it is the last record of its transaction, with a few marks of
/// transactions behind it. A large checkpoint whose transaction was aborted may lie behind it too, so the search widens
/// by this factor before everything is read.
const INDEX_WITHIN: u64 = 64;
const INDEX_FURTHER: u64 = 16;

/// A checkpoint store on Kafka.
pub struct KafkaCheckpointStore {
    cluster: Cluster,
    layout: Layout,
    topic: String,
    owned: Mutex<BTreeMap<u32, Arc<Mutex<Owned>>>>,
    damaged: AtomicU64,
}

/// What the owner of a partition knows.
struct Owned {
    writer: Writer,
    index: Vec<Generation>,
    /// Chunks that lie in each slot.
    chunks: [u32; GENERATIONS],
}

impl KafkaCheckpointStore {
    /// Opens the store; makes its topic if it is missing.
    ///
    /// # Errors
    /// If the brokers cannot be reached or the topic is not as it must be; the sentence says what to do.
    pub fn open(connection: &Connection, layout: &Layout) -> Result<Self, String> {
        let cluster = Cluster::connect(connection)?;
        let topic = layout.checkpoints();
        layout.ensure(&cluster, &topic)?;
        Ok(Self { cluster, layout: layout.clone(), topic, owned: Mutex::default(), damaged: AtomicU64::new(0) })
    }

    fn owned(&self, partition: u32) -> Option<Arc<Mutex<Owned>>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner).get(&partition).cloned()
    }

    /// The index as the topic has it.
    fn read_index(&self, partition: u32) -> Result<Vec<Generation>, String> {
        let (low, high) = self
            .cluster
            .watermarks(&self.topic, partition)
            .map_err(|error| format!("kafka: {}/{partition}: {error}", self.topic))?;
        if low == high {
            return Ok(Vec::new());
        }
        search_backwards(low, high, |from| {
            let mut found = None;
            self.cluster.scan(&self.topic, partition, from, self.layout.message_bytes_max, |key, value| {
                if let (Ok(CheckpointKey::Index { .. }), Some(value)) = (CheckpointKey::decode(key), value) {
                    found = Some(decode_index(value));
                }
                true
            })?;
            found.transpose().map_err(|error| format!("kafka: {}/{partition}: the index has no {error}", self.topic))
        })
        .map(Option::unwrap_or_default)
    }

    /// A checkpoint's bytes; `None` if they are not all there or not as they were.
    fn read(&self, partition: u32, generation: &Generation) -> Result<Option<Bytes>, String> {
        let mut bytes = Vec::with_capacity(usize::try_from(generation.bytes).unwrap_or(0).min(1 << 30));
        let mut next = 0;
        self.cluster.scan(&self.topic, partition, generation.offset, self.layout.message_bytes_max, |key, value| {
            if let (Ok(CheckpointKey::Chunk { chunk, .. }), Some(Ok((serial, piece)))) =
                (CheckpointKey::decode(key), value.map(decode_chunk))
                && serial == generation.serial
                && chunk == next
            {
                bytes.extend_from_slice(piece);
                next += 1;
            }
            next < generation.chunks
        })?;
        let whole = next == generation.chunks
            && bytes.len() as u64 == generation.bytes
            && crc32c::crc32c(&bytes) == generation.crc;
        Ok(whole.then(|| bytes.into()))
    }

    fn index(&self, partition: u32) -> Result<Vec<Generation>, String> {
        match self.owned(partition) {
            Some(owned) => Ok(owned.lock().unwrap_or_else(PoisonError::into_inner).index.clone()),
            None => self.read_index(partition),
        }
    }
}

/// Looks for what lies near the end of `low..high`: `look` is given a position and finds the last one from there on. What
/// it cannot read now is an error and not nothing, for nothing is where a new owner would begin anew.
fn search_backwards<T>(
    low: u64,
    high: u64,
    mut look: impl FnMut(u64) -> Result<Option<T>, String>,
) -> Result<Option<T>, String> {
    let mut within = INDEX_WITHIN;
    loop {
        let from = high.saturating_sub(within).max(low);
        within = within.saturating_mul(INDEX_FURTHER);
        match look(from)? {
            None if from > low => {}
            found => return Ok(found),
        }
    }
}

fn failed(why: impl Into<Arc<str>>) -> CheckpointError {
    CheckpointError::Disk { kind: std::io::ErrorKind::Other, why: why.into() }
}

fn refused(error: WriteError) -> CheckpointError {
    match error {
        WriteError::Fenced(why) => CheckpointError::Fenced { why },
        WriteError::Failed(why) => failed(why),
    }
}

impl CheckpointStore for KafkaCheckpointStore {
    fn claim(&self, partition: u32) -> Result<(), CheckpointError> {
        self.release(partition);
        let writer =
            Writer::claim(&self.cluster, &self.layout, "checkpoints", &self.topic, partition).map_err(refused)?;
        let index = self.read_index(partition).map_err(failed)?;
        let mut chunks = [0; GENERATIONS];
        for generation in &index {
            if let Some(chunks) = chunks.get_mut(usize::from(generation.slot)) {
                *chunks = generation.chunks;
            }
        }
        let owned = Arc::new(Mutex::new(Owned { writer, index, chunks }));
        self.owned.lock().unwrap_or_else(PoisonError::into_inner).insert(partition, owned);
        Ok(())
    }

    fn release(&self, partition: u32) {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner).remove(&partition);
    }

    fn put(&self, partition: u32, position: Position, bytes: &[u8]) -> Result<(), CheckpointError> {
        if partition >= self.layout.partitions {
            return Err(CheckpointError::NoSuchPartition { partition, partitions: self.layout.partitions });
        }
        let Some(owned) = self.owned(partition) else {
            return Err(CheckpointError::Fenced { why: format!("partition {partition} was not claimed").into() });
        };
        let mut owned = owned.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = owned.index.last().cloned();
        if let Some(newest) = newest.as_ref().filter(|newest| newest.position > position.0) {
            return Err(CheckpointError::Older { newest: Position(newest.position) });
        }
        let mut index = owned.index.clone();
        let slot = match &newest {
            Some(newest) if newest.position == position.0 => {
                index.pop();
                newest.slot
            }
            Some(newest) => 1 - newest.slot.min(1),
            None => 0,
        };
        let serial = newest.map_or(0, |newest| newest.serial) + 1;
        let transaction = owned.writer.begin().map_err(refused)?;
        let piece_bytes_max = self.layout.record_bytes_max() - PART_OVERHEAD;
        let mut chunks = 0;
        let key = |chunk| CheckpointKey::Chunk { partition, slot, chunk }.encode();
        // An empty checkpoint has a chunk too, so that it has a place.
        for piece in bytes.chunks(piece_bytes_max).chain(bytes.is_empty().then_some(&[][..])) {
            transaction.send(&key(chunks), Some(&encode_chunk(serial, piece))).map_err(refused)?;
            chunks += 1;
        }
        let offset = transaction.flush().map_err(refused)?;
        for surplus in chunks..owned.chunks[usize::from(slot)] {
            transaction.send(&key(surplus), None).map_err(refused)?;
        }
        index.retain(|kept| kept.slot != slot);
        index.push(Generation {
            slot,
            position: position.0,
            serial,
            offset,
            chunks,
            bytes: bytes.len() as u64,
            crc: crc32c::crc32c(bytes),
        });
        transaction.send(&CheckpointKey::Index { partition }.encode(), Some(&encode_index(&index))).map_err(refused)?;
        transaction.commit().map_err(refused)?;
        owned.chunks[usize::from(slot)] = chunks;
        owned.index = index;
        Ok(())
    }

    fn newest(&self, partition: u32) -> Result<Option<(Position, Bytes)>, CheckpointError> {
        if partition >= self.layout.partitions {
            return Ok(None);
        }
        for generation in self.index(partition).map_err(failed)?.iter().rev() {
            if let Some(bytes) = self.read(partition, generation).map_err(failed)? {
                return Ok(Some((Position(generation.position), bytes)));
            }
            tracing::error!(
                partition,
                position = generation.position,
                "a checkpoint is damaged; taking the one before"
            );
            self.damaged.fetch_add(1, Ordering::Relaxed);
            if let Some(owned) = self.owned(partition) {
                let mut owned = owned.lock().unwrap_or_else(PoisonError::into_inner);
                owned.index.retain(|kept| kept.serial != generation.serial);
            }
        }
        Ok(None)
    }

    fn floor(&self, partition: u32) -> Option<Position> {
        if partition >= self.layout.partitions {
            return None;
        }
        let index = self.index(partition).ok()?;
        index.first().map(|generation| Position(generation.position))
    }

    fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::search_backwards;

    /// Searches where records lie at `places`; answers what was found and where it was looked from.
    fn search(low: u64, high: u64, places: &[u64]) -> (Option<u64>, Vec<u64>) {
        let mut looked = Vec::new();
        let found = search_backwards(low, high, |from| {
            looked.push(from);
            Ok(places.iter().copied().filter(|place| *place >= from).max())
        });
        (found.expect("all can be read"), looked)
    }

    #[test]
    fn the_newest_index_is_found_however_far_from_the_end() {
        // The newest of several, in one look; just within the first look, and just beyond it.
        assert_eq!(search(0, 100_000, &[10, 99_980, 99_990]), (Some(99_990), vec![99_936]));
        assert_eq!(search(0, 100_000, &[99_936]), (Some(99_936), vec![99_936]));
        assert_eq!(search(0, 100_000, &[99_935]), (Some(99_935), vec![99_936, 98_976]));
        // Behind a large transaction that was aborted, up to where the topic begins.
        assert_eq!(search(0, 100_000, &[500]), (Some(500), vec![99_936, 98_976, 83_616, 0]));
        assert_eq!(search(90_000, 100_000, &[90_000]), (Some(90_000), vec![99_936, 98_976, 90_000]));
    }

    #[test]
    fn what_is_not_there_is_looked_for_once_from_the_beginning() {
        assert_eq!(search(0, 10, &[]), (None, vec![0]));
        assert_eq!(search(90_000, 100_000, &[]), (None, vec![99_936, 98_976, 90_000]));
    }

    #[test]
    fn what_cannot_be_read_now_is_not_nothing() {
        let mut looks = 0;
        let found = search_backwards(0, 100_000, |_| {
            looks += 1;
            if looks < 3 { Ok(None::<u64>) } else { Err("not now".to_owned()) }
        });
        assert_eq!((found, looks), (Err("not now".to_owned()), 3));
    }
}
