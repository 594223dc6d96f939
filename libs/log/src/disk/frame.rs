//! How a record lies in a segment: a header of 16 bytes and the encoded record.
//!
//! ```text
//! length u32 | crc32c of the record u32 | ordinal u32 | crc32c of the 12 bytes before u32 | record
//! ```
//!
//! The header has a checksum of its own, so that a damaged record can be stepped over: its length is still known to be
//! right. The ordinal (the record's number in its segment) lets a reader that had to search for the next good header
//! say which positions were lost. Without the two, one flipped bit would cost the rest of the segment.

use headroom_model::LogRecord;
use headroom_model::codec::Encoder;

/// Bytes of a header.
pub(super) const HEADER_BYTES: usize = 16;

/// A header that passed its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) length: u32,
    pub(super) crc: u32,
    pub(super) ordinal: u32,
}

/// A record behind its header, in which only the ordinal is missing.
pub(super) fn encode(record: &LogRecord) -> Vec<u8> {
    let mut out = Encoder { bytes: vec![0; HEADER_BYTES] };
    record.encode_into(&mut out);
    let mut frame = out.bytes;
    let (header, payload) = frame.split_at_mut(HEADER_BYTES);
    header[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    header[4..8].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    frame
}

/// Completes the header of a frame that [`encode`] made.
pub(super) fn number(frame: &mut [u8], ordinal: u32) {
    frame[8..12].copy_from_slice(&ordinal.to_le_bytes());
    let crc = crc32c::crc32c(&frame[..12]);
    frame[12..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
}

/// The header at the start of `bytes`, if they hold an undamaged one.
pub(super) fn header(bytes: &[u8]) -> Option<Header> {
    let bytes = bytes.get(..HEADER_BYTES)?;
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let valid = crc32c::crc32c(&bytes[..12]) == word(12);
    valid.then(|| Header { length: word(0), crc: word(4), ordinal: word(8) })
}
