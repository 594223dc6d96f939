//! The keys and values of the snapshot, the checkpoint and the control topic, as bytes and back. `schemas/topics.md` describes them
//! for others.
//!
//! Every value begins with its version; a version once written is decoded for ever (`tests/fixtures`). Keys have none:
//! compaction compares their bytes, so a key must be spelt the same for the life of a topic.

use std::sync::Arc;

use bytes::Bytes;
use headroom_model::codec::{DecodeError, Decoder, Encoder};

/// The version written in front of every value.
pub const VERSION: u8 = 1;

/// Bytes that a part's own fields take beside its piece of the payload.
pub(crate) const PART_OVERHEAD: usize = 64;

/// A key of the snapshot topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SnapshotKey {
    /// A part of the newest snapshot of a cell.
    Part {
        /// The cell.
        cell: Arc<str>,
        /// Which part, from 0.
        part: u32,
    },
    /// Who owns a partition of the sample log.
    Claim {
        /// The partition.
        partition: u32,
    },
    /// What the owner of a partition tells readers beside its snapshots.
    Note {
        /// The partition.
        partition: u32,
        /// What about.
        name: Arc<str>,
    },
    /// Where the modes that operators set were before they had a topic of their own. Nobody writes it any more.
    Mode {
        /// The cell, or all.
        cell: Option<Arc<str>>,
    },
}

impl SnapshotKey {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        match self {
            Self::Part { cell, part } => {
                out.put_u8(0);
                out.put_u32(*part);
                out.put_str(cell);
            }
            Self::Claim { partition } => {
                out.put_u8(1);
                out.put_u32(*partition);
            }
            Self::Note { partition, name } => {
                out.put_u8(2);
                out.put_u32(*partition);
                out.put_str(name);
            }
            Self::Mode { cell } => {
                out.put_u8(3);
                out.put_bool(cell.is_some());
                out.put_str(cell.as_deref().unwrap_or(""));
            }
        }
        out.bytes
    }

    /// From bytes.
    ///
    /// # Errors
    /// If they are no key.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(bytes);
        let key = match input.get_u8()? {
            0 => {
                let part = input.get_u32()?;
                Self::Part { cell: input.get_str()?.into(), part }
            }
            1 => Self::Claim { partition: input.get_u32()? },
            2 => {
                let partition = input.get_u32()?;
                Self::Note { partition, name: input.get_str()?.into() }
            }
            3 => {
                let has_cell = input.get_bool()?;
                let cell = Arc::from(input.get_str()?);
                Self::Mode { cell: has_cell.then_some(cell) }
            }
            _ => return Err(input.error("kind of key")),
        };
        input.finish()?;
        Ok(key)
    }
}

/// A key of the control topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ControlKey {
    /// The mode that an operator has set; its value is the record of the sample log.
    Mode {
        /// The cell, or all.
        cell: Option<Arc<str>>,
    },
    /// What all processes are configured alike: [`Agreed`].
    Agreed,
}

impl ControlKey {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        match self {
            Self::Mode { cell } => {
                out.put_u8(0);
                out.put_bool(cell.is_some());
                out.put_str(cell.as_deref().unwrap_or(""));
            }
            Self::Agreed => out.put_u8(1),
        }
        out.bytes
    }

    /// From bytes.
    ///
    /// # Errors
    /// If they are no key.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(bytes);
        let key = match input.get_u8()? {
            0 => {
                let has_cell = input.get_bool()?;
                let cell = Arc::from(input.get_str()?);
                Self::Mode { cell: has_cell.then_some(cell) }
            }
            1 => Self::Agreed,
            _ => return Err(input.error("kind of key")),
        };
        input.finish()?;
        Ok(key)
    }
}

/// What all processes of a cluster must be configured alike: the ticks in the log mean something else otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Agreed {
    /// Whether time is that of the samples, not of the wall clock.
    pub event_time: bool,
    /// Seconds from tick to tick.
    pub tick_seconds: i64,
}

impl std::fmt::Display for Agreed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let time = if self.event_time { "event" } else { "wall" };
        write!(f, "{time} time with ticks of {} s", self.tick_seconds)
    }
}

impl Agreed {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        out.put_u8(VERSION);
        out.put_bool(self.event_time);
        out.put_i64(self.tick_seconds);
        out.bytes
    }

    /// From bytes.
    ///
    /// # Errors
    /// If they are damaged or of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = versioned(bytes)?;
        let agreed = Self { event_time: input.get_bool()?, tick_seconds: input.get_i64()? };
        input.finish()?;
        Ok(agreed)
    }
}

/// A part of a snapshot. The parts in order are the payload: length of the header, header, content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// The snapshot's epoch.
    pub epoch: i64,
    /// How many parts it has.
    pub parts: u32,
    /// CRC-32C of the whole payload.
    pub crc: u32,
    /// This part of the payload.
    pub piece: Bytes,
}

impl Part {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder { bytes: Vec::with_capacity(self.piece.len() + PART_OVERHEAD) };
        out.put_u8(VERSION);
        out.put_i64(self.epoch);
        out.put_u32(self.parts);
        out.put_u32(self.crc);
        out.bytes.extend_from_slice(&self.piece);
        out.bytes
    }

    /// From bytes.
    ///
    /// # Errors
    /// If they are damaged or of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = versioned(bytes)?;
        let (epoch, parts, crc) = (input.get_i64()?, input.get_u32()?, input.get_u32()?);
        if parts == 0 {
            return Err(input.error("number of parts"));
        }
        let length = input.remaining();
        Ok(Self { epoch, parts, crc, piece: Bytes::copy_from_slice(input.take(length, "part of a snapshot")?) })
    }
}

/// A snapshot's header and content, cut into parts of at most `piece_bytes_max`.
pub fn parts_of(epoch: i64, header: &[u8], content: &[u8], piece_bytes_max: usize) -> Vec<Part> {
    let mut payload = Encoder { bytes: Vec::with_capacity(4 + header.len() + content.len()) };
    payload.put_u32(header.len() as u32);
    payload.bytes.extend_from_slice(header);
    payload.bytes.extend_from_slice(content);
    let payload = Bytes::from(payload.bytes);
    let crc = crc32c::crc32c(&payload);
    let parts = payload.len().div_ceil(piece_bytes_max.max(1)).max(1) as u32;
    (0..parts as usize)
        .map(|part| {
            let from = part * piece_bytes_max;
            let piece = payload.slice(from..payload.len().min(from + piece_bytes_max));
            Part { epoch, parts, crc, piece }
        })
        .collect()
}

/// Header and content of a snapshot from its parts in order; `None` if they are damaged.
pub fn whole_of(parts: &[Part]) -> Option<(Bytes, Bytes)> {
    let payload = match parts {
        [one] => one.piece.clone(),
        _ => parts.iter().flat_map(|part| part.piece.iter().copied()).collect::<Vec<u8>>().into(),
    };
    if crc32c::crc32c(&payload) != parts.first()?.crc {
        return None;
    }
    let mut input = Decoder::new(&payload);
    let header = input.get_u32().ok()? as usize;
    let from = payload.len() - input.remaining();
    (payload.len() >= from + header).then(|| (payload.slice(from..from + header), payload.slice(from + header..)))
}

/// Who owns a partition: a number that this claim alone has.
pub fn encode_claim(nonce: u64) -> Vec<u8> {
    let mut out = Encoder::default();
    out.put_u8(VERSION);
    out.put_u64(nonce);
    out.bytes
}

/// The number of a claim.
///
/// # Errors
/// If the bytes are damaged or of a newer version.
pub fn decode_claim(bytes: &[u8]) -> Result<u64, DecodeError> {
    let mut input = versioned(bytes)?;
    let nonce = input.get_u64()?;
    input.finish()?;
    Ok(nonce)
}

/// A note with its version in front.
pub fn encode_note(note: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(note.len() + 1);
    out.push(VERSION);
    out.extend_from_slice(note);
    out
}

/// A note.
///
/// # Errors
/// If it is of a newer version.
pub fn decode_note(bytes: &[u8]) -> Result<Bytes, DecodeError> {
    let mut input = versioned(bytes)?;
    let length = input.remaining();
    Ok(Bytes::copy_from_slice(input.take(length, "note")?))
}

/// A key of the checkpoint topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CheckpointKey {
    /// A chunk of a checkpoint. The two generations that are kept have a slot each.
    Chunk {
        /// Partition of the sample log.
        partition: u32,
        /// 0 or 1.
        slot: u8,
        /// Which chunk, from 0.
        chunk: u32,
    },
    /// Where the checkpoints of a partition are.
    Index {
        /// Partition of the sample log.
        partition: u32,
    },
}

impl CheckpointKey {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        match self {
            Self::Chunk { partition, slot, chunk } => {
                out.put_u8(0);
                out.put_u32(*partition);
                out.put_u8(*slot);
                out.put_u32(*chunk);
            }
            Self::Index { partition } => {
                out.put_u8(1);
                out.put_u32(*partition);
            }
        }
        out.bytes
    }

    /// From bytes.
    ///
    /// # Errors
    /// If they are no key.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(bytes);
        let key = match input.get_u8()? {
            0 => Self::Chunk { partition: input.get_u32()?, slot: input.get_u8()?, chunk: input.get_u32()? },
            1 => Self::Index { partition: input.get_u32()? },
            _ => return Err(input.error("kind of key")),
        };
        input.finish()?;
        Ok(key)
    }
}

/// A checkpoint that is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Generation {
    /// Which of the two slots holds its chunks.
    pub slot: u8,
    /// The records that it covers end here.
    pub position: u64,
    /// Counts the checkpoints of the partition; its chunks bear the same number.
    pub serial: u64,
    /// Offset of its first chunk.
    pub offset: u64,
    /// How many chunks.
    pub chunks: u32,
    /// How many bytes.
    pub bytes: u64,
    /// CRC-32C of them.
    pub crc: u32,
}

/// The checkpoints of a partition, oldest first.
pub fn encode_index(generations: &[Generation]) -> Vec<u8> {
    let mut out = Encoder::default();
    out.put_u8(VERSION);
    out.put_u32(generations.len() as u32);
    for generation in generations {
        out.put_u8(generation.slot);
        out.put_u64(generation.position);
        out.put_u64(generation.serial);
        out.put_u64(generation.offset);
        out.put_u32(generation.chunks);
        out.put_u64(generation.bytes);
        out.put_u32(generation.crc);
    }
    out.bytes
}

/// The same from bytes.
///
/// # Errors
/// If they are damaged or of a newer version.
pub fn decode_index(bytes: &[u8]) -> Result<Vec<Generation>, DecodeError> {
    let mut input = versioned(bytes)?;
    let generations = (0..input.get_length(41, "checkpoints")?)
        .map(|_| {
            Ok(Generation {
                slot: input.get_u8()?,
                position: input.get_u64()?,
                serial: input.get_u64()?,
                offset: input.get_u64()?,
                chunks: input.get_u32()?,
                bytes: input.get_u64()?,
                crc: input.get_u32()?,
            })
        })
        .collect::<Result<_, DecodeError>>()?;
    input.finish()?;
    Ok(generations)
}

/// A chunk of the checkpoint with this number.
pub fn encode_chunk(serial: u64, piece: &[u8]) -> Vec<u8> {
    let mut out = Encoder { bytes: Vec::with_capacity(piece.len() + PART_OVERHEAD) };
    out.put_u8(VERSION);
    out.put_u64(serial);
    out.bytes.extend_from_slice(piece);
    out.bytes
}

/// The number of a chunk's checkpoint, and the chunk.
///
/// # Errors
/// If the bytes are damaged or of a newer version.
pub fn decode_chunk(bytes: &[u8]) -> Result<(u64, &[u8]), DecodeError> {
    let mut input = versioned(bytes)?;
    let serial = input.get_u64()?;
    let length = input.remaining();
    Ok((serial, input.take(length, "chunk")?))
}

fn versioned(bytes: &[u8]) -> Result<Decoder<'_>, DecodeError> {
    let mut input = Decoder::new(bytes);
    if input.get_u8()? != VERSION {
        return Err(DecodeError { what: "version of the value (written by a newer headroom?)", at: 0 });
    }
    Ok(input)
}
