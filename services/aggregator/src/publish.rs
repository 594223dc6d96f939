//! Where snapshots go: to the readers of this process at once, to the snapshot log as fast as it takes them.
//!
//! The readers get the snapshot itself. Only the log needs bytes, and the one on disk not before it writes them; encoding
//! costs more than computing some of it, so a thread of its own hands over the newest snapshot of every cell and skips
//! those that were overtaken meanwhile: a slow log then costs history that nobody can ask for yet, never a late decision.
//!
//! A log that says that somebody else owns the partition raises the owner's [`Fence`], and the owner stops.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use headroom_log::{Position, PublishError, Published, SnapshotLog};
use headroom_model::CellSnapshot;
use headroom_model::codec::{Decoder, Encoder};

/// Takes every snapshot as it is published; must return at once.
pub type SnapshotSink = Arc<dyn Fn(&Arc<CellSnapshot>) + Send + Sync>;

/// How long handing over everything may take when an owner stops.
const FLUSH: Duration = Duration::from_secs(5);

/// Raised when somebody else owns the partition.
#[derive(Clone, Default)]
pub(crate) struct Fence(Arc<AtomicBool>);

impl Fence {
    pub(crate) fn raise(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Who publishes.
#[derive(Clone)]
pub(crate) struct Owning {
    pub(crate) partition: u32,
    pub(crate) fence: Fence,
}

/// Publishes the newest snapshot of every cell.
pub(crate) struct Publisher {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    idle: Condvar,
}

#[derive(Default)]
struct Waiting {
    newest: BTreeMap<Arc<str>, (Arc<CellSnapshot>, Owning, Position)>,
    /// By partition and name; published when no snapshot waits.
    notes: BTreeMap<(u32, &'static str), (Bytes, Owning)>,
    busy: bool,
    stop: bool,
}

enum Job {
    Snapshot(Arc<CellSnapshot>, Owning, Position),
    Note(&'static str, Bytes, Owning),
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Publisher {
    /// Starts the thread. `published` is told of every snapshot that the log has taken.
    pub(crate) fn start(log: Arc<dyn SnapshotLog>, published: Option<SnapshotSink>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let worker = shared.clone();
        let thread = std::thread::Builder::new()
            .name("publish".to_owned())
            .spawn(move || run(&worker, &*log, published.as_ref()))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Hands over a snapshot. Never waits.
    pub(crate) fn publish(&self, snapshot: Arc<CellSnapshot>, owning: &Owning, position: Position) {
        self.shared.lock().newest.insert(snapshot.cell.clone(), (snapshot, owning.clone(), position));
        self.shared.changed.notify_one();
    }

    /// Hands over a note, to be published after the snapshots before it. Never waits.
    pub(crate) fn note(&self, name: &'static str, note: Vec<u8>, owning: &Owning) {
        self.shared.lock().notes.insert((owning.partition, name), (note.into(), owning.clone()));
        self.shared.changed.notify_one();
    }

    /// Waits until everything handed over is with the log, within a bound.
    pub(crate) fn flush(&self) {
        let busy = |waiting: &mut Waiting| waiting.busy || !waiting.newest.is_empty() || !waiting.notes.is_empty();
        let _ = self.shared.idle.wait_timeout_while(self.shared.lock(), FLUSH, busy);
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn next(shared: &Shared) -> Option<Job> {
    let mut waiting = shared.lock();
    loop {
        waiting.busy = true;
        if let Some((_, (snapshot, owning, position))) = waiting.newest.pop_first() {
            return Some(Job::Snapshot(snapshot, owning, position));
        }
        if let Some(((_, name), (note, owning))) = waiting.notes.pop_first() {
            return Some(Job::Note(name, note, owning));
        }
        waiting.busy = false;
        shared.idle.notify_all();
        if waiting.stop {
            return None;
        }
        waiting = shared.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
    }
}

fn run(shared: &Shared, log: &dyn SnapshotLog, published: Option<&SnapshotSink>) {
    while let Some(job) = next(shared) {
        let (outcome, owning) = match job {
            Job::Snapshot(snapshot, owning, position) => {
                let outcome = log.publish_snapshot(&snapshot, header(owning.partition, position));
                if let (Ok(Published::Newest), Some(published)) = (&outcome, published) {
                    published(&snapshot);
                }
                (outcome.map(|_| ()).map_err(|error| (snapshot.cell.clone(), error)), owning)
            }
            Job::Note(name, note, owning) => {
                (log.publish_note(owning.partition, name, note).map_err(|error| (name.into(), error)), owning)
            }
        };
        match outcome {
            Ok(()) => {}
            Err((_, PublishError::Fenced { .. })) if owning.fence.is_raised() => {}
            Err((what, error)) => {
                if matches!(error, PublishError::Fenced { .. }) {
                    owning.fence.raise();
                }
                tracing::error!(partition = owning.partition, what = &*what, %error, "not published");
            }
        }
    }
}

/// What stands beside the content: which records it was made from.
pub(crate) fn header(partition: u32, position: Position) -> Bytes {
    let mut out = Encoder::default();
    out.put_u8(1);
    out.put_u32(partition);
    out.put_u64(position.0);
    Bytes::from(out.bytes)
}

/// The partition of a snapshot, and the position after the tick that it was made by, as its header says.
pub(crate) fn position_of(header: &[u8]) -> Option<(u32, Position)> {
    let mut input = Decoder::new(header);
    (input.get_u8() == Ok(1)).then_some(())?;
    Some((input.get_u32().ok()?, Position(input.get_u64().ok()?)))
}
