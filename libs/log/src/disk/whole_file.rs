//! Files that are replaced whole. What is read back is what was written or is reported as damaged.
//!
//! There are always two files that take turns: one that holds, and one that may be written over. Writing over a file
//! costs half as much as writing a new one (its pages and blocks are there; measured in load-tests/reports), and these
//! files are as many bytes as the log itself. A crash damages the file being written and leaves the other.
//!
//! ```text
//! magic 8 | version u32 | meta length u32 | body length u64 | crc32c of all before u32 | crc32c of meta and body u32 | meta | body
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::storage::sync_parent;

const HEADER_BYTES: usize = 32;
/// Ending of a file that may be written over. Left-overs are removed when a directory is opened.
const TEMPORARY: &str = "tmp";

/// What a whole file turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WholeFile {
    /// As it was written.
    Intact { meta: Bytes, body: Bytes },
    /// Not as it was written.
    Damaged,
    /// Written by a newer version.
    Newer(u32),
}

/// Writes `path` by way of `spare`, which is in the same folder and may be there already: it is written over, synced and
/// renamed, and its new entry survives a power cut.
pub(super) fn write(
    path: &Path,
    spare: &Path,
    magic: &[u8; 8],
    version: u32,
    meta: &[u8],
    body: &[&[u8]],
) -> io::Result<()> {
    overwrite(spare, magic, version, meta, body)?;
    fs::rename(spare, path)?;
    sync_parent(path)
}

/// Writes over `path`, or makes it. When it returns, the content is durable; after a crash it is damaged, and after an
/// error there is no file: on a full disk a half-written one takes the space that the retry needs.
pub(super) fn overwrite(path: &Path, magic: &[u8; 8], version: u32, meta: &[u8], body: &[&[u8]]) -> io::Result<()> {
    overwrite_by(path, magic, version, meta, |to| body.iter().try_for_each(|part| to.put(part)))
}

/// The same of a body that comes piece by piece, so that nobody needs memory for all of it.
pub(super) fn overwrite_by(
    path: &Path,
    magic: &[u8; 8],
    version: u32,
    meta: &[u8],
    body: impl FnOnce(&mut Body) -> io::Result<()>,
) -> io::Result<()> {
    let result = overwrite_in_place(path, magic, version, meta, body);
    if result.is_err() {
        let _ = fs::remove_file(path);
    }
    result
}

/// The body of a file that is being written.
pub(super) struct Body {
    file: File,
    crc: u32,
    bytes: u64,
}

impl Body {
    /// Appends to the body.
    pub(super) fn put(&mut self, part: &[u8]) -> io::Result<()> {
        self.crc = crc32c::crc32c_append(self.crc, part);
        self.bytes += part.len() as u64;
        self.file.write_all(part)
    }
}

fn overwrite_in_place(
    path: &Path,
    magic: &[u8; 8],
    version: u32,
    meta: &[u8],
    body: impl FnOnce(&mut Body) -> io::Result<()>,
) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    // Length and checksum are known in the end; a header of zeros is none, should there be no end.
    file.write_all(&[0; HEADER_BYTES])?;
    file.write_all(meta)?;
    let mut to = Body { file, crc: crc32c::crc32c(meta), bytes: 0 };
    body(&mut to)?;
    let Body { mut file, crc, bytes } = to;
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(magic);
    header.extend_from_slice(&version.to_le_bytes());
    header.extend_from_slice(&(meta.len() as u32).to_le_bytes());
    header.extend_from_slice(&bytes.to_le_bytes());
    header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
    header.extend_from_slice(&crc.to_le_bytes());
    file.set_len((HEADER_BYTES + meta.len()) as u64 + bytes)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&header)?;
    file.sync_data()
}

/// Reads `path` back.
pub(super) fn read(path: &Path, magic: &[u8; 8], version: u32) -> io::Result<WholeFile> {
    let bytes = Bytes::from(fs::read(path)?);
    Ok(parse(&bytes, magic, version).unwrap_or(WholeFile::Damaged))
}

/// The version of a file that a newer program wrote; reads only the header.
pub(super) fn newer(path: &Path, magic: &[u8; 8], version: u32) -> io::Result<Option<u32>> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    File::open(path)?.take(HEADER_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(match parse(&Bytes::from(bytes), magic, version) {
        Some(WholeFile::Newer(found)) => Some(found),
        _ => None,
    })
}

fn parse(bytes: &Bytes, magic: &[u8; 8], version: u32) -> Option<WholeFile> {
    let header = bytes.get(..HEADER_BYTES)?;
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if &header[..8] != magic || crc32c::crc32c(&header[..24]) != word(24) {
        return None;
    }
    if word(8) > version {
        return Some(WholeFile::Newer(word(8)));
    }
    let body_bytes = u64::from(word(16)) | (u64::from(word(20)) << 32);
    let rest = bytes.slice(HEADER_BYTES..);
    let whole = rest.len() as u64 == u64::from(word(12)).checked_add(body_bytes)?;
    if !whole || crc32c::crc32c(&rest) != word(28) {
        return None;
    }
    let meta = rest.slice(..word(12) as usize);
    Some(WholeFile::Intact { meta, body: rest.slice(word(12) as usize..) })
}

/// A file of `dir` to write over: nobody reads it.
pub(super) fn spare_of(dir: &Path) -> PathBuf {
    dir.join("spare").with_extension(TEMPORARY)
}

/// Removes what a crash left half-written in `dir`.
pub(super) fn remove_left_overs(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == TEMPORARY) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}
