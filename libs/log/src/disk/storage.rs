//! The seam between the log and the disk it appends to, so that a test can fill, slow down or break the disk.
//!
//! Only appending goes through it. What a failing *read* means is decided by the checks on what was read, and those can
//! be tested by damaging real files.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::path::Path;

/// Makes segment files.
pub trait Storage: Send + Sync {
    /// Creates a file that must not exist yet, durably: its directory entry survives a power cut.
    ///
    /// # Errors
    /// As the file system says.
    fn create(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>>;

    /// Opens an existing file for appending.
    ///
    /// # Errors
    /// As the file system says.
    fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>>;
}

/// A file that is appended to.
pub trait SegmentFile: Send {
    /// Appends as much as it can and says how much that was.
    ///
    /// # Errors
    /// As the file system says; an unknown part may have been written.
    fn append(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Returns once all that was appended survives a power cut.
    ///
    /// # Errors
    /// If it may not; the caller must then not count on anything appended since the last success, nor on a repeat.
    fn sync(&mut self) -> io::Result<()>;

    /// Cuts the file to `length` bytes; the next append goes there.
    ///
    /// # Errors
    /// As the file system says.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
}

/// The operating system's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsStorage;

impl Storage for OsStorage {
    fn create(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        let file = OpenOptions::new().append(true).create_new(true).open(path)?;
        sync_parent(path)?;
        Ok(Box::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(OpenOptions::new().append(true).open(path)?))
    }
}

impl SegmentFile for File {
    fn append(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write_vectored(parts)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

/// Makes the entry of `path` in its directory survive a power cut.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
