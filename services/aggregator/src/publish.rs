//! Where snapshots go: to the readers of this process at once, to the snapshot log as fast as it takes them.
//!
//! The readers get the snapshot itself. Only the log needs bytes, and the one on disk not before it writes them; encoding
//! costs more than computing some of it, so a thread of its own hands over the newest snapshot of every cell and skips
//! those that were overtaken meanwhile: a slow log then costs history that nobody can ask for yet, never a late decision.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use bytes::Bytes;
use headroom_log::{Position, SnapshotLog};
use headroom_model::CellSnapshot;
use headroom_model::codec::Encoder;

/// Takes every snapshot as it is published; must return at once.
pub type SnapshotSink = Arc<dyn Fn(&Arc<CellSnapshot>) + Send + Sync>;

/// Publishes the newest snapshot of every cell.
pub(crate) struct Publisher {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    newest: BTreeMap<Arc<str>, (Arc<CellSnapshot>, u32, Position)>,
    stop: bool,
}

impl Publisher {
    /// Starts the thread.
    pub(crate) fn start(log: Arc<dyn SnapshotLog>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let worker = shared.clone();
        let thread = std::thread::Builder::new().name("publish".to_owned()).spawn(move || run(&worker, &*log))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Hands over a snapshot. Never waits.
    pub(crate) fn publish(&self, snapshot: Arc<CellSnapshot>, partition: u32, position: Position) {
        let mut waiting = self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.newest.insert(snapshot.cell.clone(), (snapshot, partition, position));
        drop(waiting);
        self.shared.changed.notify_one();
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, log: &dyn SnapshotLog) {
    loop {
        let (cell, (snapshot, partition, position)) = {
            let mut waiting = shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            loop {
                if let Some(next) = waiting.newest.pop_first() {
                    break next;
                }
                if waiting.stop {
                    return;
                }
                waiting = shared.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
        };
        if let Err(error) = log.publish_snapshot(&snapshot, header(partition, position)) {
            tracing::error!(cell = &*cell, %error, "a snapshot was not published");
        }
    }
}

/// What stands beside the content: which records it was made from.
fn header(partition: u32, position: Position) -> Bytes {
    let mut out = Encoder::default();
    out.put_u8(1);
    out.put_u32(partition);
    out.put_u64(position.0);
    Bytes::from(out.bytes)
}
