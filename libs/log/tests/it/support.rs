//! Directories that go away, and a disk that can be filled, stopped and broken.

use std::fs;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use headroom_log::disk::{DataDir, DiskLogOptions, DiskSampleLog, Durability, OsStorage, SegmentFile, Storage};
use headroom_log::{Position, ReadError, SampleLog};
use headroom_model::LogRecord;

/// A directory of its own, removed when dropped.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("headroom-log-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // Where there is a file system in memory, the hundreds of crashes played here need not wait for a disk to sync.
        let memory = Path::new("/dev/shm");
        Self(if memory.is_dir() { memory.join(name) } else { std::env::temp_dir().join(name) })
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn segments(&self) -> Vec<PathBuf> {
        files(&self.0.join("log/0"))
    }

    pub fn open(&self) -> DataDir {
        DataDir::open(&self.0, 2, "wall").unwrap()
    }

    pub fn log(&self, options: DiskLogOptions) -> DiskSampleLog {
        self.log_on(options, Arc::new(OsStorage))
    }

    pub fn log_on(&self, options: DiskLogOptions, storage: Arc<dyn Storage>) -> DiskSampleLog {
        DiskSampleLog::open(&self.open(), options, storage).unwrap()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Small segments, so that a test crosses them; no syncs, which tests of anything but syncs need not pay for.
pub fn small() -> DiskLogOptions {
    DiskLogOptions {
        durability: Durability::Written,
        segment_bytes: 4 << 10,
        bytes_max: 1 << 20,
        tail_bytes_max: 8 << 10,
        ..DiskLogOptions::default()
    }
}

/// Records with their positions.
pub type Records = Vec<(u64, Arc<LogRecord>)>;

/// Everything a log gives from `from` to its end: records, and what was reported as damaged.
pub fn read_all(log: &dyn SampleLog, from: u64) -> (Records, Vec<(u64, u64)>) {
    let (mut records, mut damaged) = (Vec::new(), Vec::new());
    let mut reader = log.reader(0, Position(from)).unwrap();
    loop {
        match reader.try_next() {
            Ok(Some((position, record))) => records.push((position.0, record)),
            Ok(None) => return (records, damaged),
            Err(ReadError::Damaged { from, to }) => damaged.push((from.0, to.0)),
            Err(error) => panic!("{error}"),
        }
    }
}

/// A disk whose faults a test controls.
#[derive(Clone, Default)]
pub struct FaultyStorage(Arc<(Mutex<Faults>, Condvar)>);

#[derive(Default)]
struct Faults {
    room_bytes: Option<u64>,
    failing_syncs: u32,
    stuck_truncates: bool,
    syncs: u64,
    gate_closed: bool,
    at_gate: bool,
}

impl FaultyStorage {
    fn change<T>(&self, act: impl FnOnce(&mut Faults) -> T) -> T {
        let result = act(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
        result
    }

    /// From now on only so many bytes fit; `None` lifts it.
    pub fn set_room(&self, bytes: Option<u64>) {
        self.change(|faults| faults.room_bytes = bytes);
    }

    pub fn fail_next_sync(&self) {
        self.change(|faults| faults.failing_syncs = 1);
    }

    pub fn refuse_truncates(&self) {
        self.change(|faults| faults.stuck_truncates = true);
    }

    pub fn syncs(&self) -> u64 {
        self.change(|faults| faults.syncs)
    }

    /// Syncs hang from now on, until [`Self::open_gate`].
    pub fn close_gate(&self) {
        self.change(|faults| faults.gate_closed = true);
    }

    pub fn open_gate(&self) {
        self.change(|faults| faults.gate_closed = false);
    }

    /// Returns once a sync hangs.
    pub fn wait_at_gate(&self) {
        let faults = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(faults, |faults| !faults.at_gate).unwrap());
    }
}

struct FaultyFile(Box<dyn SegmentFile>, FaultyStorage);

impl Storage for FaultyStorage {
    fn create(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(FaultyFile(OsStorage.create(path)?, self.clone())))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(FaultyFile(OsStorage.open(path)?, self.clone())))
    }
}

impl SegmentFile for FaultyFile {
    fn append(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let all: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let fits = self.1.change(|faults| {
            let fits = faults.room_bytes.unwrap_or(u64::MAX).min(all.len() as u64);
            faults.room_bytes = faults.room_bytes.map(|room| room - fits);
            fits as usize
        });
        match fits {
            0 => Err(io::ErrorKind::StorageFull.into()),
            _ => self.0.append(&[IoSlice::new(&all[..fits])]),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        let (faults, changed) = &*self.1.0;
        let mut faults = faults.lock().unwrap();
        faults.syncs += 1;
        faults.at_gate = faults.gate_closed;
        changed.notify_all();
        let mut faults = changed.wait_while(faults, |faults| faults.gate_closed).unwrap();
        faults.at_gate = false;
        if faults.failing_syncs > 0 {
            faults.failing_syncs -= 1;
            return Err(io::Error::other("the disk lost what was written"));
        }
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        match self.1.change(|faults| faults.stuck_truncates) {
            true => Err(io::Error::other("the disk does not truncate")),
            false => self.0.truncate(length),
        }
    }
}
