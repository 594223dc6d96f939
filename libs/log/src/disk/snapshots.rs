//! The snapshot log on disk: memory for those who read, files per cell for the next start.
//!
//! A snapshot is visible when it is in memory. The files only bridge a restart, so that readers have the last answer
//! (marked stale) while the engine recovers; they are written by a thread of their own that takes what is newest when it
//! gets to a cell. A disk that is slower than the ticks, or full, costs files that lag, never a tick.
//!
//! Two files of a cell are written over in turn, so that a crash leaves at least the one before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use headroom_model::CellSnapshot;
use headroom_model::codec::{DecodeError, Decoder, Encoder};
use headroom_model::hash::stable_hash;

use super::data_dir::{DataDir, DirLock, OpenError};
use super::whole_file::{self, WholeFile};
use crate::snapshot_log::{
    Content, Held, PublishError, Published, SnapshotLog, SnapshotMap, SnapshotRecord, Subscription,
};
use crate::stats::Cell;
use crate::sync::lock;

const MAGIC: &[u8; 8] = b"HEADRSNP";
const VERSION: u32 = 1;
/// How long after a failure the writer tries again if nothing is published before.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Longest escaped name of a cell in a file name, bytes; file systems take 255 with all endings.
const NAME_BYTES_MAX: usize = 180;

/// What the snapshot log on disk counts.
#[derive(Debug, Default)]
pub struct SnapshotStats {
    /// Counter: snapshots written to disk.
    pub written: Cell,
    /// Counter: attempts that failed.
    pub failed: Cell,
    /// Counter: files found damaged when the log was opened.
    pub damaged: Cell,
    /// Gauge: cells whose file lags behind memory.
    pub behind: Cell,
}

/// The snapshot log on disk. Dropping it writes what is still to be written, once.
pub struct DiskSnapshotLog {
    map: Arc<SnapshotMap>,
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
    _lock: Arc<DirLock>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<Behind>,
    changed: Condvar,
    stats: SnapshotStats,
}

#[derive(Default)]
struct Behind {
    cells: BTreeSet<Arc<str>>,
    /// Something was published since the writer last looked.
    news: bool,
    closed: bool,
}

impl DiskSnapshotLog {
    /// Opens the log of a data directory for up to `cells_max` cells, with what was published before.
    ///
    /// # Errors
    /// If it cannot be read, or a newer version wrote it.
    pub fn open(dir: &DataDir, cells_max: usize) -> Result<Self, OpenError> {
        let path = dir.path().join("snapshots");
        let map = Arc::new(SnapshotMap::new(cells_max));
        let shared = Arc::new(Shared::default());
        let slots = load(&path, &map, &shared.stats)?;
        let thread = std::thread::Builder::new().name("snapshots".into());
        let (shared_too, map_too) = (shared.clone(), map.clone());
        let writer = thread
            .spawn({
                let path = path.clone();
                move || shared_too.write_all(&map_too, &path, slots)
            })
            .map_err(|error| OpenError::disk("cannot start the writer of", &path, &error))?;
        Ok(Self { map, shared, writer: Some(writer), _lock: dir.lock() })
    }

    /// Its counters.
    pub fn stats(&self) -> &SnapshotStats {
        &self.shared.stats
    }
}

impl Drop for DiskSnapshotLog {
    fn drop(&mut self) {
        lock(&self.shared.state).closed = true;
        self.shared.changed.notify_all();
        if self.writer.take().is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the writer of the snapshots has died");
        }
    }
}

impl DiskSnapshotLog {
    fn publish_held(&self, cell: &Arc<str>, snapshot: Held) -> Result<Published, PublishError> {
        let published = self.map.publish_held(cell, snapshot)?;
        if published == Published::Newest {
            self.is_behind(cell);
        }
        Ok(published)
    }

    /// Has the writer look at a cell.
    fn is_behind(&self, cell: &Arc<str>) {
        let mut behind = lock(&self.shared.state);
        behind.cells.insert(cell.clone());
        behind.news = true;
        self.shared.stats.behind.set(behind.cells.len() as u64);
        drop(behind);
        self.shared.changed.notify_all();
    }
}

impl SnapshotLog for DiskSnapshotLog {
    fn publish(&self, cell: &Arc<str>, snapshot: SnapshotRecord) -> Result<Published, PublishError> {
        self.publish_held(cell, snapshot.into())
    }

    fn publish_snapshot(&self, snapshot: &Arc<CellSnapshot>, header: Bytes) -> Result<Published, PublishError> {
        let content = Content::Snapshot(snapshot.clone());
        let published = self.publish_held(&snapshot.cell, Held { epoch: snapshot.epoch, header, content })?;
        if snapshot.is_empty() && published == Published::Newest {
            self.retire(&snapshot.cell)?;
        }
        Ok(published)
    }

    fn retire(&self, cell: &Arc<str>) -> Result<(), PublishError> {
        self.map.retire(cell);
        self.is_behind(cell);
        Ok(())
    }

    fn latest(&self, cell: &str) -> Option<SnapshotRecord> {
        self.map.latest(cell)
    }

    fn cells(&self) -> Vec<Arc<str>> {
        self.map.cells()
    }

    fn subscribe(&self) -> Subscription {
        self.map.subscribe()
    }
}

impl Shared {
    /// `slots` has the slot of the newest file of each cell.
    fn write_all(&self, map: &SnapshotMap, dir: &Path, mut slots: Slots) {
        let mut failing = false;
        loop {
            let (cells, closed) = self.wait(failing);
            failing = false;
            for cell in cells {
                let slot = slots.get(&cell).map_or(0, |newest| 1 - newest);
                let held = map.held(&cell);
                let outcome = match &held {
                    Some(snapshot) => write(&dir.join(file_name(&cell, slot)), &cell, snapshot),
                    None => remove(dir, &cell, 1 - slot),
                };
                if let Err(error) = outcome {
                    self.stats.failed.add(1);
                    tracing::warn!(%cell, %error, "a snapshot cannot be written; readers have it, a restart would not");
                    lock(&self.state).cells.insert(cell);
                    failing = true;
                } else if held.is_some() {
                    self.stats.written.add(1);
                    slots.insert(cell, slot);
                } else {
                    slots.remove(&cell);
                }
                self.stats.behind.set(lock(&self.state).cells.len() as u64);
            }
            if closed {
                return;
            }
        }
    }

    /// The cells to write. After a failure the news wake, or the time to retry.
    fn wait(&self, failing: bool) -> (BTreeSet<Arc<str>>, bool) {
        let behind = lock(&self.state);
        let mut behind = if failing {
            let idle = |behind: &mut Behind| !behind.news && !behind.closed;
            self.changed.wait_timeout_while(behind, RETRY_AFTER, idle).unwrap_or_else(PoisonError::into_inner).0
        } else {
            let idle = |behind: &mut Behind| behind.cells.is_empty() && !behind.closed;
            self.changed.wait_while(behind, idle).unwrap_or_else(PoisonError::into_inner)
        };
        behind.news = false;
        (std::mem::take(&mut behind.cells), behind.closed)
    }
}

/// Which of a cell's two files is the newest.
type Slots = BTreeMap<Arc<str>, usize>;

/// Endings of a cell's two files. Names of cells have no dot left when they get here.
const SLOT_ENDINGS: [&str; 2] = [".snap", ".2.snap"];

fn write(path: &Path, cell: &str, snapshot: &Held) -> std::io::Result<()> {
    let mut meta = Encoder::default();
    meta.put_str(cell);
    meta.put_i64(snapshot.epoch);
    meta.put_u32(snapshot.header.len() as u32);
    whole_file::overwrite_by(path, MAGIC, VERSION, &meta.bytes, |body| {
        body.put(&snapshot.header)?;
        match &snapshot.content {
            Content::Bytes(bytes) => body.put(bytes),
            Content::Snapshot(snapshot) => snapshot.write_to(|piece| body.put(piece)),
        }
    })
}

/// Removes the files of a cell that was retired, the older one first: it must not become the newest.
fn remove(dir: &Path, cell: &str, newest: usize) -> std::io::Result<()> {
    for slot in [1 - newest, newest] {
        match fs::remove_file(dir.join(file_name(cell, slot))) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn load(dir: &Path, map: &SnapshotMap, stats: &SnapshotStats) -> Result<Slots, OpenError> {
    let failed = |error| OpenError::disk("cannot open the snapshots in", dir, &error);
    fs::create_dir_all(dir).map_err(failed)?;
    whole_file::remove_left_overs(dir).map_err(failed)?;
    let mut slots = Slots::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let read = match whole_file::read(&path, MAGIC, VERSION).map_err(failed)? {
            WholeFile::Newer(found) => return Err(OpenError::newer(&path, found, VERSION)),
            WholeFile::Intact { meta, body } => parse(&meta, body).ok(),
            WholeFile::Damaged => None,
        };
        let Some((cell, snapshot)) = read else {
            stats.damaged.add(1);
            tracing::warn!(path = %path.display(), "a snapshot is damaged; the cell has the one before, if any, until its next tick");
            continue;
        };
        let slot = usize::from(path.to_string_lossy().ends_with(SLOT_ENDINGS[1]));
        match map.publish(&cell, snapshot) {
            Ok(Published::Newest) => _ = slots.insert(cell, slot),
            Ok(Published::NotNewer { .. }) => {}
            Err(error) => tracing::warn!(%cell, %error, "a snapshot cannot be held"),
        }
    }
    Ok(slots)
}

fn parse(meta: &[u8], body: Bytes) -> Result<(Arc<str>, SnapshotRecord), DecodeError> {
    let mut meta = Decoder::new(meta);
    let cell = meta.get_str()?.into();
    let epoch = meta.get_i64()?;
    let header_bytes = meta.get_u32()? as usize;
    if header_bytes > body.len() {
        return Err(meta.error("length of the header"));
    }
    let header = body.slice(..header_bytes);
    Ok((cell, SnapshotRecord { epoch, header, content: body.slice(header_bytes..) }))
}

/// A name for one of the cell's files: readable where that is safe, different for different cells.
fn file_name(cell: &str, slot: usize) -> PathBuf {
    let mut name = String::new();
    for byte in cell.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            // Capitals too: some file systems do not tell them apart.
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    if name.len() > NAME_BYTES_MAX {
        name.truncate(NAME_BYTES_MAX);
        name.push_str(&format!("+{:016x}", stable_hash(&[cell])));
    }
    format!("{name}{}", SLOT_ENDINGS[slot]).into()
}

#[cfg(test)]
mod tests {
    use super::file_name;

    #[test]
    fn file_names_are_safe_and_distinct() {
        let long = |end: &str| "x".repeat(400) + end;
        let cells = ["eu-1", "EU-1", "", ".", "..", "a/b", "a%2Fb", "a.tmp", "zürich", &long("1"), &long("2")];
        let names: Vec<String> =
            cells.iter().flat_map(|cell| [0, 1].map(|slot| file_name(cell, slot).display().to_string())).collect();
        for (index, name) in names.iter().enumerate() {
            assert!(name.len() < 255 && !name.contains('/') && name.ends_with(".snap"), "{name}");
            assert!(!names[..index].iter().any(|other| other.eq_ignore_ascii_case(name)), "{name}");
        }
        assert_eq!(names[0], "eu-1.snap");
    }
}
