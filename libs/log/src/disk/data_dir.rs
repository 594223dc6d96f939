//! The data directory: who may use it, and what it was made for.
//!
//! Nothing is changed before both are known: the lock comes first (two processes appending to one log would destroy
//! it), then the format file, which refuses newer versions and a different number of partitions or time mode. The
//! number of partitions says where a cell's samples lie, so it is fixed for the life of a directory; the time mode says
//! what the ticks in it mean.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{storage, why};

/// The version of the directory's layout.
pub const FORMAT_VERSION: u32 = 1;
const FORMAT_TITLE: &str = "headroom data directory";

/// Why a data directory cannot be opened. Nothing in it was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Another process uses it.
    Locked {
        /// The directory.
        path: PathBuf,
        /// What the other process wrote of itself.
        holder: Arc<str>,
    },
    /// A newer version wrote it.
    Newer {
        /// The file that says so.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version known here.
        known: u32,
    },
    /// It was made for something else.
    Mismatch {
        /// The directory.
        path: PathBuf,
        /// Which setting differs.
        what: &'static str,
        /// What the directory was made for.
        stored: Arc<str>,
        /// What was asked for.
        wanted: Arc<str>,
    },
    /// It is not a data directory, or its format file is damaged.
    NotADataDir {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        why: Arc<str>,
    },
    /// Reading or writing failed.
    Disk {
        /// What failed, with the path.
        why: Arc<str>,
    },
}

impl OpenError {
    pub(super) fn disk(what: &str, path: &Path, error: &io::Error) -> Self {
        Self::Disk { why: why(what, path, error) }
    }

    pub(super) fn newer(path: &Path, found: u32, known: u32) -> Self {
        Self::Newer { path: path.to_owned(), found, known }
    }
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Locked { path, holder } => write!(
                f,
                "the data directory {} is in use by {holder}; stop that process or give this one another directory",
                path.display()
            ),
            Self::Newer { path, found, known } => write!(
                f,
                "{} has format version {found}, this program knows up to {known}; nothing was changed; use the newer \
                 program or another data directory",
                path.display()
            ),
            Self::Mismatch { path, what, stored, wanted } => write!(
                f,
                "the data directory {} was made with {what} = {stored}, but {wanted} is configured; configure {stored}, \
                 or use another data directory",
                path.display()
            ),
            Self::NotADataDir { path, why } => write!(
                f,
                "{} cannot be used as a data directory: {why}; use an empty directory, or restore its FORMAT file",
                path.display()
            ),
            Self::Disk { why } => f.write_str(why),
        }
    }
}

impl std::error::Error for OpenError {}

/// Held by everything that uses the directory; the last one to go releases it.
#[derive(Debug)]
pub(super) struct DirLock {
    _file: File,
}

/// A data directory that is this process's own.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    partitions: u32,
    lock: Arc<DirLock>,
}

impl DataDir {
    /// Opens a data directory, or makes one where there is none.
    ///
    /// # Errors
    /// [`OpenError`]; except for `LOCK`, nothing is changed then.
    pub fn open(path: &Path, partitions: u32, time_mode: &str) -> Result<Self, OpenError> {
        let failed = |error| OpenError::disk("cannot open the data directory", path, &error);
        fs::create_dir_all(path).map_err(failed)?;
        let lock = take_lock(path)?;
        let format = path.join("FORMAT");
        match fs::read_to_string(&format) {
            Ok(text) => check_format(path, &text, partitions, time_mode)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(name) = something_else_in(path).map_err(failed)? {
                    let why = format!("it holds {name} but no FORMAT").into();
                    return Err(OpenError::NotADataDir { path: path.to_owned(), why });
                }
                let text = format!(
                    "{FORMAT_TITLE}\nversion = {FORMAT_VERSION}\npartitions = {partitions}\ntime = {time_mode}\n"
                );
                write_format(&format, &text).map_err(failed)?;
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(OpenError::NotADataDir { path: path.to_owned(), why: "its FORMAT is not text".into() });
            }
            Err(error) => return Err(failed(error)),
        }
        Ok(Self { path: path.to_owned(), partitions, lock: Arc::new(lock) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many partitions it was made for.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    pub(super) fn lock(&self) -> Arc<DirLock> {
        self.lock.clone()
    }
}

fn take_lock(path: &Path) -> Result<DirLock, OpenError> {
    let failed = |error| OpenError::disk("cannot lock the data directory", path, &error);
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
    let mut file = options.open(path.join("LOCK")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.take(256).read_to_string(&mut holder);
            let holder = if holder.trim().is_empty() { "another process" } else { holder.trim() };
            return Err(OpenError::Locked { path: path.to_owned(), holder: holder.into() });
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "headroom, process {}", std::process::id()))
        .map_err(failed)?;
    Ok(DirLock { _file: file })
}

fn check_format(path: &Path, text: &str, partitions: u32, time_mode: &str) -> Result<(), OpenError> {
    let not = |why: &str| OpenError::NotADataDir { path: path.to_owned(), why: why.into() };
    let value = |key: &str| {
        text.lines().find_map(|line| line.split_once('=').filter(|(name, _)| name.trim() == key)).map(|(_, v)| v.trim())
    };
    if text.lines().next() != Some(FORMAT_TITLE) {
        return Err(not("its FORMAT is not that of a headroom data directory"));
    }
    let version: u32 =
        value("version").and_then(|v| v.parse().ok()).ok_or_else(|| not("its FORMAT gives no version"))?;
    if version > FORMAT_VERSION {
        return Err(OpenError::newer(&path.join("FORMAT"), version, FORMAT_VERSION));
    }
    for (what, key, wanted) in
        [("partitions", "partitions", partitions.to_string().as_str()), ("the time mode", "time", time_mode)]
    {
        let stored = value(key).ok_or_else(|| not("its FORMAT is not complete"))?;
        if stored != wanted {
            let (stored, wanted) = (stored.into(), wanted.into());
            return Err(OpenError::Mismatch { path: path.to_owned(), what, stored, wanted });
        }
    }
    Ok(())
}

/// The name of something that a data directory holds only together with its format file.
fn something_else_in(path: &Path) -> io::Result<Option<String>> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if ["log", "snapshots", "checkpoints"].contains(&name.as_str()) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn write_format(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_added_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    storage::sync_parent(path)
}
