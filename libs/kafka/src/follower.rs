//! Reads the snapshot topic and keeps the newest whole snapshot of every cell.
//!
//! Only committed transactions are read, and a cell's snapshot appears when all of its parts have, so nobody ever sees
//! half of one. What is incomplete because compaction has taken some of its parts was overtaken, and is left behind.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use headroom_log::stats::Cell as Counter;
use headroom_log::{PublishError, SnapshotMap, SnapshotRecord};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::records::{Part, SnapshotKey, decode_claim, decode_note, whole_of};

/// How long the follower waits for a message before it looks whether it should stop.
const LOOK: Duration = Duration::from_millis(100);

/// Parts of a snapshot. At 8 MiB a part, half a terabyte: a larger number is damage.
const PARTS_MAX: u32 = 1 << 16;

/// Names of notes, over all partitions.
const NOTES_MAX: usize = 1 << 16;

/// What the snapshot topic says.
pub(crate) struct View {
    pub(crate) snapshots: Arc<SnapshotMap>,
    /// By `partition/name`; the epoch is the offset.
    pub(crate) notes: Arc<SnapshotMap>,
    state: Mutex<State>,
    changed: Condvar,
    /// Counter: values that cannot be understood.
    pub(crate) unreadable: Counter,
}

#[derive(Default)]
struct State {
    /// How many parts a cell has in the topic.
    parts: HashMap<Arc<str>, u32>,
    /// By partition.
    claims: BTreeMap<u32, u64>,
    /// Partitions that were read to their end once.
    ended: BTreeSet<i32>,
}

impl View {
    pub(crate) fn new(cells_max: usize) -> Self {
        Self {
            snapshots: Arc::new(SnapshotMap::new(cells_max)),
            notes: Arc::new(SnapshotMap::new(NOTES_MAX)),
            state: Mutex::default(),
            changed: Condvar::new(),
            unreadable: Counter::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many parts a cell has in the topic.
    pub(crate) fn parts(&self, cell: &str) -> u32 {
        self.lock().parts.get(cell).copied().unwrap_or(0)
    }

    /// What a follower of the topic does with all that it reads.
    pub(crate) fn reader(self: Arc<Self>) -> impl FnMut(Read<'_>) + Send + 'static {
        let mut assembling: HashMap<Arc<str>, Assembly> = HashMap::new();
        move |read| match read {
            Read::Message(message) => take(message, &self, &mut assembling),
            Read::End(partition) => {
                self.lock().ended.insert(partition);
                self.changed.notify_all();
            }
        }
    }

    fn await_that(&self, timeout: Duration, holds: impl Fn(&State) -> bool) -> bool {
        let (_state, waited) = self
            .changed
            .wait_timeout_while(self.lock(), timeout, |state| !holds(state))
            .unwrap_or_else(PoisonError::into_inner);
        !waited.timed_out()
    }

    /// Waits until everything was read that was there at the start.
    pub(crate) fn await_all(&self, partitions: u32, timeout: Duration) -> bool {
        self.await_that(timeout, |state| state.ended.len() >= partitions as usize)
    }

    /// Waits until everything before a claim was read.
    pub(crate) fn await_claim(&self, partition: u32, nonce: u64, timeout: Duration) -> bool {
        self.await_that(timeout, |state| state.claims.get(&partition) == Some(&nonce))
    }
}

/// What a follower reads.
pub(crate) enum Read<'a> {
    /// A record.
    Message(&'a BorrowedMessage<'a>),
    /// There is nothing more in this partition, for now.
    End(i32),
}

/// The thread that reads a topic.
pub(crate) struct Follower {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Follower {
    /// Starts to read all partitions from their beginning, on a thread of this name.
    pub(crate) fn start(
        consumer: BaseConsumer,
        topic: &str,
        partitions: u32,
        name: &str,
        each: impl FnMut(Read<'_>) + Send + 'static,
    ) -> Result<Self, String> {
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition_offset(topic, partition as i32, Offset::Beginning)
                .map_err(|error| format!("kafka: {topic}: {error}"))?;
        }
        consumer.assign(&list).map_err(|error| format!("kafka: {topic}: {error}"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn({
                let topic = topic.to_owned();
                move || run(&consumer, &topic, each, &stopping)
            })
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(consumer: &BaseConsumer, topic: &str, mut each: impl FnMut(Read<'_>), stop: &AtomicBool) {
    let mut told = None::<Instant>;
    while !stop.load(Ordering::Relaxed) {
        match consumer.poll(LOOK) {
            None => {}
            Some(Ok(message)) => each(Read::Message(&message)),
            Some(Err(KafkaError::PartitionEOF(partition))) => each(Read::End(partition)),
            Some(Err(error)) if told.is_none_or(|told| told.elapsed() > Duration::from_secs(10)) => {
                tracing::warn!(topic, %error, "the topic cannot be followed now; what is read here goes stale, and says so");
                told = Some(Instant::now());
            }
            Some(Err(_)) => {}
        }
    }
}

/// The parts of a cell's snapshot that have come so far.
struct Assembly {
    epoch: i64,
    parts: Vec<Part>,
}

fn take(message: &BorrowedMessage<'_>, view: &View, assembling: &mut HashMap<Arc<str>, Assembly>) {
    let key = message.key().map(SnapshotKey::decode);
    let understood = match (key, message.payload()) {
        (Some(Ok(SnapshotKey::Part { cell, part })), Some(value)) => match Part::decode(value) {
            Ok(value) => take_part(cell, part, value, view, assembling),
            Err(_) => false,
        },
        // The first part is deleted where the cell was retired.
        (Some(Ok(SnapshotKey::Part { cell, part: 0 })), None) => {
            assembling.remove(&cell);
            view.lock().parts.remove(&cell);
            view.snapshots.retire(&cell);
            true
        }
        // Surplus parts, deleted: the snapshot that has fewer came in the same transaction.
        (Some(Ok(SnapshotKey::Part { .. })), None) => true,
        (Some(Ok(SnapshotKey::Claim { partition })), Some(value)) => match decode_claim(value) {
            Ok(nonce) => {
                view.lock().claims.insert(partition, nonce);
                view.changed.notify_all();
                true
            }
            Err(_) => false,
        },
        (Some(Ok(SnapshotKey::Note { partition, name })), Some(value)) => match decode_note(value) {
            Ok(content) => {
                let note = SnapshotRecord { epoch: message.offset(), header: Default::default(), content };
                view.notes.publish(&format!("{partition}/{name}").into(), note).is_ok()
            }
            Err(_) => false,
        },
        // Where modes were before they had a topic of their own. Engines have them from the sample log.
        (Some(Ok(SnapshotKey::Mode { .. })), Some(_)) => true,
        (Some(Ok(_)), None) => true,
        _ => false,
    };
    if !understood {
        if view.unreadable.get() == 0 {
            tracing::error!(
                partition = message.partition(),
                offset = message.offset(),
                "a record of the snapshot topic cannot be understood and is passed over; was it written by a newer headroom?"
            );
        }
        view.unreadable.add(1);
    }
}

/// Takes a part; whether it could be understood.
fn take_part(
    cell: Arc<str>,
    part: u32,
    value: Part,
    view: &View,
    assembling: &mut HashMap<Arc<str>, Assembly>,
) -> bool {
    if value.parts > PARTS_MAX || part >= value.parts {
        return false;
    }
    let (epoch, parts) = (value.epoch, value.parts as usize);
    // Parts come in order, so the first of an epoch begins it anew and a gap means that it was overtaken.
    let assembly = assembling.entry(cell.clone()).or_insert_with(|| Assembly { epoch, parts: Vec::new() });
    if part == 0 {
        *assembly = Assembly { epoch, parts: Vec::with_capacity(parts) };
    } else if assembly.epoch != epoch || assembly.parts.len() != part as usize {
        assembling.remove(&cell);
        return true;
    }
    assembly.parts.push(value);
    if assembly.parts.len() < parts {
        return true;
    }
    let Some(assembly) = assembling.remove(&cell) else { return true };
    let Some((header, content)) = whole_of(&assembly.parts) else { return false };
    view.lock().parts.insert(cell.clone(), parts as u32);
    match view.snapshots.publish(&cell, SnapshotRecord { epoch, header, content }) {
        Ok(_) => true,
        Err(error @ PublishError::TooManyCells { .. }) => {
            tracing::error!(cell = &*cell, %error, "a cell cannot be read here");
            true
        }
        Err(_) => false,
    }
}
