//! The checkpoint store on disk: a file per generation, written whole.
//!
//! A checkpoint found damaged is put aside (`.damaged`), so that it neither counts as a generation nor is read again,
//! and is deleted by the next one that is stored.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::data_dir::{DataDir, DirLock, OpenError};
use super::whole_file::{self, WholeFile};
use super::why;
use crate::checkpoint::{CheckpointError, CheckpointStore, GENERATIONS};
use crate::sample_log::Position;
use crate::sync::lock;

const MAGIC: &[u8; 8] = b"HEADRCKP";
const VERSION: u32 = 1;

/// The checkpoint store on disk.
pub struct DiskCheckpointStore {
    partitions: Vec<Mutex<Held>>,
    damaged: AtomicU64,
    _lock: Arc<DirLock>,
}

struct Held {
    dir: PathBuf,
    partition: u32,
    /// Positions of the files, oldest first.
    positions: Vec<u64>,
}

impl DiskCheckpointStore {
    /// Opens the store of a data directory.
    ///
    /// # Errors
    /// If it cannot be read, or a newer version wrote it.
    pub fn open(dir: &DataDir) -> Result<Self, OpenError> {
        let mut partitions = Vec::new();
        for partition in 0..dir.partitions() {
            let dir = dir.path().join("checkpoints").join(partition.to_string());
            let failed = |error| OpenError::disk("cannot open the checkpoints in", &dir, &error);
            fs::create_dir_all(&dir).map_err(failed)?;
            whole_file::remove_left_overs(&dir).map_err(failed)?;
            let positions = positions_in(&dir).map_err(failed)?;
            for position in &positions {
                let path = path_of(&dir, *position);
                if let Some(found) = whole_file::newer(&path, MAGIC, VERSION).map_err(failed)? {
                    return Err(OpenError::newer(&path, found, VERSION));
                }
            }
            partitions.push(Mutex::new(Held { dir, partition, positions }));
        }
        Ok(Self { partitions, damaged: AtomicU64::new(0), _lock: dir.lock() })
    }
}

impl CheckpointStore for DiskCheckpointStore {
    fn put(&self, partition: u32, position: Position, bytes: &[u8]) -> Result<(), CheckpointError> {
        let Some(held) = self.partitions.get(partition as usize) else {
            return Err(CheckpointError::NoSuchPartition { partition, partitions: self.partitions.len() as u32 });
        };
        let mut held = lock(held);
        if let Some(newest) = held.positions.last().filter(|newest| **newest > position.0) {
            return Err(CheckpointError::Older { newest: Position(*newest) });
        }
        let path = path_of(&held.dir, position.0);
        let spare = whole_file::spare_of(&held.dir);
        whole_file::write(&path, &spare, MAGIC, VERSION, &meta_of(partition, position.0), &[bytes])
            .map_err(|error| CheckpointError::Disk { kind: error.kind(), why: why("cannot write", &path, &error) })?;
        if held.positions.last() != Some(&position.0) {
            held.positions.push(position.0);
        }
        held.prune();
        Ok(())
    }

    fn newest(&self, partition: u32) -> Result<Option<(Position, Bytes)>, CheckpointError> {
        let Some(held) = self.partitions.get(partition as usize) else { return Ok(None) };
        let mut held = lock(held);
        while let Some(position) = held.positions.last().copied() {
            let path = path_of(&held.dir, position);
            let meta_wanted = meta_of(held.partition, position);
            match whole_file::read(&path, MAGIC, VERSION) {
                Ok(WholeFile::Intact { meta, body }) if meta == meta_wanted => {
                    return Ok(Some((Position(position), body)));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(CheckpointError::Disk { kind: error.kind(), why: why("cannot read", &path, &error) });
                }
            }
            tracing::error!(path = %path.display(), "a checkpoint is damaged; falling back to the one before");
            self.damaged.fetch_add(1, Ordering::Relaxed);
            let _ = fs::rename(&path, path.with_added_extension("damaged"));
            held.positions.pop();
        }
        Ok(None)
    }

    fn floor(&self, partition: u32) -> Option<Position> {
        self.partitions.get(partition as usize).and_then(|held| lock(held).positions.first().copied()).map(Position)
    }

    fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }
}

impl Held {
    /// Keeps the oldest surplus file to be written over next, and deletes whatever else is neither of the kept
    /// generations. A failure costs space until the next one, nothing else.
    fn prune(&mut self) {
        let surplus = self.positions.len().saturating_sub(GENERATIONS);
        let spare = whole_file::spare_of(&self.dir);
        for position in self.positions.drain(..surplus) {
            // What cannot be renamed is deleted with the rest.
            let _ = fs::rename(path_of(&self.dir, position), &spare);
        }
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path != spare
                && !position_of(&path).is_some_and(|position| self.positions.contains(&position))
                && let Err(error) = fs::remove_file(&path)
            {
                tracing::warn!(path = %path.display(), %error, "an old checkpoint cannot be deleted");
            }
        }
    }
}

fn meta_of(partition: u32, position: u64) -> Vec<u8> {
    [&partition.to_le_bytes()[..], &position.to_le_bytes()[..]].concat()
}

fn path_of(dir: &Path, position: u64) -> PathBuf {
    dir.join(format!("{position:020}.ckpt"))
}

fn position_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(".ckpt")?.parse().ok()
}

fn positions_in(dir: &Path) -> io::Result<Vec<u64>> {
    let mut positions = Vec::new();
    for entry in fs::read_dir(dir)? {
        positions.extend(position_of(&entry?.path()));
    }
    positions.sort_unstable();
    Ok(positions)
}
