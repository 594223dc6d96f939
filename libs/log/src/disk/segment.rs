//! A segment file: its own header, and a cursor that walks its records past any damage.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::frame;

/// Version written into segments.
pub(super) const SEGMENT_VERSION: u32 = 1;
/// Bytes of a segment's header.
pub(super) const SEGMENT_HEADER_BYTES: usize = 36;
const MAGIC: &[u8; 8] = b"HEADRSEG";
/// How much a cursor reads at once.
const CHUNK_BYTES: usize = 256 << 10;
/// In place of the time of the last tick, if there was none.
pub(super) const NO_TICK: i64 = i64::MIN;

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) version: u32,
    pub(super) partition: u32,
    /// Position of the first record.
    pub(super) base: u64,
    /// Time of the newest tick before the segment, ns: what retention by age goes by, without reading records.
    pub(super) ticked_before_ns: i64,
}

impl SegmentHeader {
    pub(super) fn encode(self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&self.version.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.partition.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.base.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.ticked_before_ns.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..32]);
        bytes[32..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header that bytes start with, if it is undamaged.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; SEGMENT_HEADER_BYTES] = bytes.get(..SEGMENT_HEADER_BYTES)?.try_into().ok()?;
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | (u64::from(word(at + 4)) << 32);
        let valid = &bytes[..8] == MAGIC && crc32c::crc32c(&bytes[..32]) == word(32);
        valid.then(|| Self { version: word(8), partition: word(12), base: long(16), ticked_before_ns: long(24) as i64 })
    }
}

/// The file of the segment that starts at `base`.
pub(super) fn path_of(dir: &Path, base: u64) -> PathBuf {
    dir.join(format!("{base:020}.seg"))
}

/// The base that a file name gives, if it is a segment's.
pub(super) fn base_of(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_suffix(".seg")?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}

/// Walks the records of one segment.
pub(super) struct SegmentCursor {
    file: File,
    base: u64,
    /// Ordinal expected next.
    ordinal: u64,
    /// Offset in the file where that record is expected.
    at: u64,
    buffer: Vec<u8>,
    /// Offset in the file of the buffer's first byte.
    buffer_at: u64,
}

/// What a cursor came upon.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// An undamaged record.
    Record(u64, &'a [u8]),
    /// The positions `[from, to)` are damaged or missing; the cursor is past them.
    Damaged(u64, u64),
    /// No undamaged record follows.
    End,
}

impl SegmentCursor {
    pub(super) fn open(path: &Path, base: u64) -> io::Result<Self> {
        let file = File::open(path)?;
        Ok(Self { file, base, ordinal: 0, at: SEGMENT_HEADER_BYTES as u64, buffer: Vec::new(), buffer_at: 0 })
    }

    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// The position expected next.
    pub(super) fn position(&self) -> u64 {
        self.base + self.ordinal
    }

    /// Where the last step left off in the file: after a [`Step::End`], the end of the last good record.
    pub(super) fn offset(&self) -> u64 {
        self.at
    }

    /// The next step within the first `length` bytes of the file, the only ones that are known to be written and to
    /// stay. Records before position `from` are stepped over unread.
    pub(super) fn step(&mut self, length: u64, from: u64) -> io::Result<Step<'_>> {
        loop {
            self.load(frame::HEADER_BYTES, length)?;
            let Some(header) = frame::header(self.loaded()).filter(|header| u64::from(header.ordinal) >= self.ordinal)
            else {
                return self.search(length);
            };
            let ordinal = u64::from(header.ordinal);
            let frame_bytes = frame::HEADER_BYTES + header.length as usize;
            if self.at + frame_bytes as u64 > length {
                return self.search(length);
            }
            if ordinal > self.ordinal {
                let lost = self.position();
                self.ordinal = ordinal;
                return Ok(Step::Damaged(lost, self.position()));
            }
            let position = self.position();
            if position < from {
                self.ordinal += 1;
                self.at += frame_bytes as u64;
                continue;
            }
            if !self.load(frame_bytes, length)? {
                return Ok(Step::End);
            }
            let start = (self.at - self.buffer_at) as usize;
            let payload = start + frame::HEADER_BYTES..start + frame_bytes;
            let intact = crc32c::crc32c(&self.buffer[payload.clone()]) == header.crc;
            self.ordinal += 1;
            self.at += frame_bytes as u64;
            return Ok(match intact {
                true => Step::Record(position, &self.buffer[payload]),
                false => Step::Damaged(position, position + 1),
            });
        }
    }

    /// Looks for the next good record behind damage whose length is not known, byte by byte. It is only believed if
    /// the record behind the header is good too, and none is believed that would lie before what was read already.
    fn search(&mut self, length: u64) -> io::Result<Step<'static>> {
        let (start, lost) = (self.at, self.position());
        while self.at + (frame::HEADER_BYTES as u64) < length {
            self.at += 1;
            self.load(frame::HEADER_BYTES, length)?;
            let Some(header) = frame::header(self.loaded()) else { continue };
            let frame_bytes = frame::HEADER_BYTES + header.length as usize;
            if u64::from(header.ordinal) < self.ordinal || self.at + frame_bytes as u64 > length {
                continue;
            }
            if !self.load(frame_bytes, length)? {
                break;
            }
            if crc32c::crc32c(&self.loaded()[frame::HEADER_BYTES..frame_bytes]) == header.crc {
                self.ordinal = u64::from(header.ordinal);
                return Ok(Step::Damaged(lost, self.position()));
            }
        }
        self.at = start;
        Ok(Step::End)
    }

    /// What the buffer holds from the present offset on.
    fn loaded(&self) -> &[u8] {
        self.at.checked_sub(self.buffer_at).and_then(|start| self.buffer.get(start as usize..)).unwrap_or(&[])
    }

    /// Makes the buffer hold `bytes` from the present offset on, if the file has them.
    fn load(&mut self, bytes: usize, length: u64) -> io::Result<bool> {
        if self.loaded().len() >= bytes {
            return Ok(true);
        }
        let kept = self.loaded().len();
        let end = self.buffer.len();
        self.buffer.copy_within(end - kept.., 0);
        self.buffer.truncate(kept);
        self.buffer_at = self.at;
        let wanted = (bytes.max(CHUNK_BYTES) as u64).min(length.saturating_sub(self.at)) as usize;
        if wanted > kept {
            self.file.seek(SeekFrom::Start(self.at + kept as u64))?;
            (&mut self.file).take((wanted - kept) as u64).read_to_end(&mut self.buffer)?;
        }
        Ok(self.buffer.len() >= bytes)
    }
}
