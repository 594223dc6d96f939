//! The snapshot log as a compacted topic: each cell's newest snapshot, whole or not at all.
//!
//! Everybody who opens the log follows the topic ([`follower`](crate::follower)) and reads from what was followed, also
//! what this very process has published: a snapshot that is readable is one that all others will read too.
//!
//! To publish, a process claims a partition of the sample log. A thread of the claim takes what is newest of all cells
//! and writes it as one transaction; what was overtaken meanwhile is never written. The claim's transactional id keeps
//! former owners out ([`writer`](crate::writer)).

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use headroom_log::{PublishError, Published, SnapshotLog, SnapshotRecord, Subscription};
use headroom_model::hash::partition_of;

use crate::Connection;
use crate::cluster::Cluster;
use crate::follower::{Follower, View};
use crate::records::{PART_OVERHEAD, SnapshotKey, encode_claim, encode_note, parts_of};
use crate::topics::Layout;
use crate::writer::{KeyValue, WriteError, Writer};

/// How long opening waits for what the topic holds.
const CATCH_UP: Duration = Duration::from_secs(120);

/// How long claiming waits for what earlier owners have published.
const CLAIM: Duration = Duration::from_secs(30);

/// How long a claim rests after a transaction that failed.
const REST: Duration = Duration::from_millis(200);

/// Bytes that the follower fetches ahead.
const PREFETCH_BYTES_MAX: u64 = 64 << 20;

/// A snapshot log on Kafka.
pub struct KafkaSnapshotLog {
    cluster: Cluster,
    layout: Layout,
    topic: String,
    view: Arc<View>,
    claims: Mutex<BTreeMap<u32, Held>>,
    _follower: Follower,
}

/// A partition that this process owns, or owned until it was fenced.
struct Held {
    claim: Arc<Claim>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Claim {
    partition: u32,
    queue: Mutex<Queue>,
    changed: Condvar,
    fenced: OnceLock<Arc<str>>,
    stop: AtomicBool,
}

/// What waits to be written; what is overtaken is replaced.
#[derive(Default)]
struct Queue {
    cells: BTreeMap<Arc<str>, SnapshotRecord>,
    /// Cells whose keys are to be deleted, after what waits of them.
    retired: BTreeSet<Arc<str>>,
    notes: BTreeMap<Arc<str>, Bytes>,
    /// Newest epoch accepted of each cell.
    newest: BTreeMap<Arc<str>, i64>,
}

impl Claim {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KafkaSnapshotLog {
    /// Opens the log; makes its topic if it is missing. Returns once everything that the topic holds can be read.
    ///
    /// # Errors
    /// If the brokers cannot be reached or the topic is not as it must be; the sentence says what to do.
    pub fn open(connection: &Connection, layout: &Layout, cells_max: usize) -> Result<Self, String> {
        let cluster = Cluster::connect(connection)?;
        let topic = layout.snapshots();
        layout.ensure(&cluster, &topic)?;
        let view = Arc::new(View::new(cells_max));
        let consumer = cluster
            .consumer(PREFETCH_BYTES_MAX, layout.message_bytes_max)
            .map_err(|error| format!("kafka: no consumer: {error}"))?;
        let follower = Follower::start(consumer, &topic, layout.partitions, "snapshots", view.clone().reader())?;
        if !view.await_all(layout.partitions, CATCH_UP) {
            return Err(format!("kafka: {topic} could not be read to its end within {} s", CATCH_UP.as_secs()));
        }
        Ok(Self { cluster, layout: layout.clone(), topic, view, claims: Mutex::default(), _follower: follower })
    }

    /// Follows the notes of all owners; the names are `partition/name`.
    pub fn notes(&self) -> Subscription {
        self.view.notes.subscribe()
    }

    /// Counter: records of the topic that could not be understood.
    pub fn unreadable(&self) -> u64 {
        self.view.unreadable.get()
    }

    fn claim_of(&self, partition: u32) -> Result<Arc<Claim>, PublishError> {
        let claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(held) = claims.get(&partition) else {
            return Err(PublishError::Fenced { why: format!("partition {partition} was not claimed").into() });
        };
        match held.claim.fenced.get() {
            Some(why) => Err(PublishError::Fenced { why: why.clone() }),
            None => Ok(held.claim.clone()),
        }
    }
}

impl SnapshotLog for KafkaSnapshotLog {
    fn publish(&self, cell: &Arc<str>, snapshot: SnapshotRecord) -> Result<Published, PublishError> {
        let claim = self.claim_of(partition_of(cell, self.layout.partitions))?;
        let held = self.view.snapshots.latest(cell).map(|held| held.epoch);
        let mut queue = claim.lock();
        let newest = queue.newest.get(cell).copied().max(held);
        if let Some(newest) = newest.filter(|newest| *newest >= snapshot.epoch) {
            return Ok(Published::NotNewer { newest });
        }
        queue.newest.insert(cell.clone(), snapshot.epoch);
        queue.retired.remove(cell);
        queue.cells.insert(cell.clone(), snapshot);
        drop(queue);
        claim.changed.notify_one();
        Ok(Published::Newest)
    }

    fn retire(&self, cell: &Arc<str>) -> Result<(), PublishError> {
        let claim = self.claim_of(partition_of(cell, self.layout.partitions))?;
        claim.lock().retired.insert(cell.clone());
        claim.changed.notify_one();
        Ok(())
    }

    fn latest(&self, cell: &str) -> Option<SnapshotRecord> {
        self.view.snapshots.latest(cell)
    }

    fn cells(&self) -> Vec<Arc<str>> {
        self.view.snapshots.cells()
    }

    fn subscribe(&self) -> Subscription {
        self.view.snapshots.subscribe()
    }

    fn claim(&self, partition: u32) -> Result<(), PublishError> {
        if self.claim_of(partition).is_ok() {
            return Ok(());
        }
        self.release(partition);
        let unavailable = |why: Arc<str>| PublishError::Unavailable { why };
        let failed = |error: WriteError| match error {
            WriteError::Fenced(why) | WriteError::Failed(why) => unavailable(why),
        };
        let writer = Writer::claim(&self.cluster, &self.layout, "snapshots", &self.topic, partition).map_err(failed)?;
        // A record of our own, read back, proves that everything before it was read.
        let nonce = RandomState::new().build_hasher().finish();
        writer.write([(SnapshotKey::Claim { partition }.encode(), Some(encode_claim(nonce)))]).map_err(failed)?;
        if !self.view.await_claim(partition, nonce, CLAIM) {
            return Err(unavailable(
                format!("what was published before was not read within {} s", CLAIM.as_secs()).into(),
            ));
        }
        let claim = Arc::new(Claim {
            partition,
            queue: Mutex::default(),
            changed: Condvar::new(),
            fenced: OnceLock::new(),
            stop: AtomicBool::new(false),
        });
        let (worker, view) = (claim.clone(), self.view.clone());
        let piece_bytes_max = self.layout.record_bytes_max() - PART_OVERHEAD;
        let thread = std::thread::Builder::new()
            .name(format!("publish-{partition}"))
            .spawn(move || run(&worker, &writer, &view, piece_bytes_max))
            .map_err(|error| unavailable(format!("cannot start a thread: {error}").into()))?;
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        claims.insert(partition, Held { claim, thread: Some(thread) });
        Ok(())
    }

    fn release(&self, partition: u32) {
        let held = self.claims.lock().unwrap_or_else(PoisonError::into_inner).remove(&partition);
        if let Some(mut held) = held {
            end(&mut held);
        }
    }

    fn publish_note(&self, partition: u32, name: &str, note: Bytes) -> Result<(), PublishError> {
        let claim = self.claim_of(partition)?;
        claim.lock().notes.insert(name.into(), note);
        claim.changed.notify_one();
        Ok(())
    }
}

impl Drop for KafkaSnapshotLog {
    fn drop(&mut self) {
        let claims = std::mem::take(&mut *self.claims.lock().unwrap_or_else(PoisonError::into_inner));
        for held in claims.values() {
            held.claim.stop.store(true, Ordering::Release);
            held.claim.changed.notify_one();
        }
        claims.into_values().for_each(|mut held| end(&mut held));
    }
}

fn end(held: &mut Held) {
    held.claim.stop.store(true, Ordering::Release);
    held.claim.changed.notify_one();
    if let Some(thread) = held.thread.take() {
        let _ = thread.join();
    }
}

/// Writes what is newest until the claim ends; what waits then is still tried once.
fn run(claim: &Claim, writer: &Writer, view: &View, piece_bytes_max: usize) {
    let mut written: BTreeMap<Arc<str>, u32> = BTreeMap::new();
    loop {
        let (cells, retired, notes) = {
            let mut guard = claim.lock();
            loop {
                let queue = &mut *guard;
                if !queue.cells.is_empty() || !queue.retired.is_empty() || !queue.notes.is_empty() {
                    for cell in &queue.retired {
                        queue.newest.remove(cell);
                    }
                    let retired = std::mem::take(&mut queue.retired);
                    break (std::mem::take(&mut queue.cells), retired, std::mem::take(&mut queue.notes));
                }
                if claim.stop.load(Ordering::Acquire) {
                    return;
                }
                // The stop flag is set without the lock, so a wake may be missed: hence not for ever.
                (guard, _) = claim
                    .changed
                    .wait_timeout(guard, Duration::from_millis(200))
                    .unwrap_or_else(PoisonError::into_inner);
            }
        };
        let mut records: Vec<KeyValue> = Vec::new();
        let mut lengths = Vec::new();
        for (cell, snapshot) in &cells {
            let parts = parts_of(snapshot.epoch, &snapshot.header, &snapshot.content, piece_bytes_max);
            let before = written.get(cell).copied().unwrap_or(0).max(view.parts(cell));
            let key = |part| SnapshotKey::Part { cell: cell.clone(), part }.encode();
            lengths.push((cell.clone(), parts.len() as u32));
            records.extend((0..).zip(&parts).map(|(at, part)| (key(at), Some(part.encode()))));
            records.extend((parts.len() as u32..before).map(|at| (key(at), None)));
        }
        for cell in &retired {
            // Behind its last snapshot in the same transaction: who follows reads both, who comes later neither.
            let now = lengths.iter().find(|(of, _)| of == cell).map_or(0, |(_, parts)| *parts);
            let parts = written.get(cell).copied().unwrap_or(0).max(view.parts(cell)).max(now);
            records.extend((0..parts).map(|part| (SnapshotKey::Part { cell: cell.clone(), part }.encode(), None)));
        }
        for (name, note) in &notes {
            let key = SnapshotKey::Note { partition: claim.partition, name: name.clone() };
            records.push((key.encode(), Some(encode_note(note))));
        }
        match writer.write(records) {
            Ok(()) => {
                written.extend(lengths);
                written.retain(|cell, _| !retired.contains(cell));
            }
            Err(WriteError::Fenced(why)) => {
                tracing::warn!(partition = claim.partition, why = &*why, "another owner publishes this partition now");
                let _ = claim.fenced.set(why);
                return;
            }
            Err(WriteError::Failed(why)) => {
                tracing::warn!(
                    partition = claim.partition,
                    why = &*why,
                    "snapshots were not published; trying again with what is newest then"
                );
                if claim.stop.load(Ordering::Acquire) {
                    return;
                }
                let mut queue = claim.lock();
                for (cell, snapshot) in cells {
                    queue.cells.entry(cell).or_insert(snapshot);
                }
                for cell in retired {
                    // Unless it has published again meanwhile.
                    if !queue.newest.contains_key(&cell) {
                        queue.retired.insert(cell);
                    }
                }
                for (name, note) in notes {
                    queue.notes.entry(name).or_insert(note);
                }
                drop(queue);
                std::thread::sleep(REST);
            }
        }
    }
}
