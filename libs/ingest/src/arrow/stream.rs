//! From bytes to messages, and from messages to the buffers of each column.

use std::borrow::Cow;

use arrow_ipc::{
    BodyCompressionMethod, CompressionType, Endianness, Field, Message, MessageHeader, RecordBatch, Type, UnionMode,
    root_as_message,
};

use super::wrong;
use crate::decoder::DecodeError;

/// Columns of a stream, those inside others included.
pub(super) const COLUMNS_MAX: usize = 256;

/// Lists and structs inside each other.
const DEPTH_MAX: usize = 8;

/// Batches of a stream, dictionaries included.
const BATCHES_MAX: usize = 256;

/// Bytes of a stream's compressed buffers after decompression.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

/// What every message begins with.
const CONTINUATION: [u8; 4] = [0xff; 4];

/// Messages of a stream.
pub(super) struct Messages<'a> {
    rest: &'a [u8],
    number: usize,
    /// Bytes that may still be decompressed.
    left: usize,
}

impl<'a> Messages<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, number: 0, left: DECOMPRESSED_BYTES_MAX }
    }

    /// The next message with its body; `None` at the end of the stream.
    pub(super) fn next(&mut self) -> Result<Option<(Message<'a>, &'a [u8])>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let number = self.number;
        let cut = || wrong(format!("message {number} is cut off"));
        if self.take(4) != Some(&CONTINUATION) {
            return Err(wrong(format!(
                "message {number} does not begin with 0xFFFFFFFF; what is wanted is the IPC stream format, not a file or \
                 Feather"
            )));
        }
        let length = self.take(4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes).ok_or_else(cut)?;
        if length == 0 {
            if self.rest.iter().any(|byte| *byte != 0) {
                return Err(wrong("there are bytes behind the end of the stream; send one stream per message"));
            }
            self.rest = &[];
            return Ok(None);
        }
        let metadata = self.take(length as usize).ok_or_else(cut)?;
        let message = root_as_message(metadata).map_err(|_| wrong(format!("message {number} has broken metadata")))?;
        let body = usize::try_from(message.bodyLength()).ok().and_then(|length| self.take(length)).ok_or_else(cut)?;
        self.number += 1;
        if self.number > BATCHES_MAX {
            return Err(wrong(format!("more than {BATCHES_MAX} batches in one stream; write larger ones")));
        }
        Ok(Some((message, body)))
    }

    /// What a message behind the schema is.
    pub(super) fn part(&mut self, message: &Message<'a>, body: &'a [u8]) -> Result<Part<'a>, DecodeError> {
        match message.header_type() {
            MessageHeader::RecordBatch => {
                let header = message.header_as_record_batch().ok_or_else(|| wrong("a batch without its header"))?;
                Ok(Part::Batch(Batch::new(header, body, self.left)?))
            }
            MessageHeader::DictionaryBatch => {
                let header = message.header_as_dictionary_batch();
                let header = header.ok_or_else(|| wrong("a dictionary without its header"))?;
                if header.isDelta() {
                    return Err(wrong("delta dictionaries are not read; let the writer send whole ones"));
                }
                let data = header.data().ok_or_else(|| wrong("a dictionary without data"))?;
                Ok(Part::Dictionary { id: header.id(), batch: Batch::new(data, body, self.left)? })
            }
            other => Err(wrong(format!("a message of type {} where a batch was expected", other.0))),
        }
    }

    /// Takes note of what a batch has decompressed.
    pub(super) fn used(&mut self, batch: &Batch<'_>) {
        self.left = batch.left;
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }
}

/// A column of the stream: what it is called and how many nodes and buffers come before it.
#[derive(Clone, Copy)]
pub(super) struct Layout<'a> {
    pub(super) field: Field<'a>,
    pub(super) at: Extent,
    pub(super) extent: Extent,
}

/// Nodes, buffers and variadic counts.
#[derive(Clone, Copy, Default)]
pub(super) struct Extent {
    nodes: usize,
    buffers: usize,
    variadic: usize,
}

impl<'a> Layout<'a> {
    pub(super) fn name(&self) -> &'a str {
        self.field.name().unwrap_or_default()
    }

    /// The one column of a dictionary's batch: the values of this column, which is encoded with it.
    pub(super) fn as_values(&self) -> Self {
        let is_view = self.field.type_type() == Type::Utf8View;
        let extent = Extent { nodes: 1, buffers: if is_view { 2 } else { 3 }, variadic: usize::from(is_view) };
        Self { field: self.field, at: Extent::default(), extent }
    }
}

/// The top-level columns of a schema message.
pub(super) fn layouts<'a>(message: &Message<'a>) -> Result<Vec<Layout<'a>>, DecodeError> {
    let schema = message.header_as_schema().ok_or_else(|| wrong("the first message is not a schema"))?;
    if schema.endianness() != Endianness::Little {
        return Err(wrong("the stream is big-endian; only little-endian ones are read"));
    }
    let mut layouts = Vec::new();
    let mut columns = 0;
    let mut at = Extent::default();
    for field in schema.fields().into_iter().flatten() {
        let mut extent = Extent::default();
        measure(&field, 0, &mut columns, &mut extent)?;
        layouts.push(Layout { field, at, extent });
        at.nodes += extent.nodes;
        at.buffers += extent.buffers;
        at.variadic += extent.variadic;
    }
    Ok(layouts)
}

/// How many nodes and buffers a field has, by the table of the format's specification.
fn measure(field: &Field<'_>, depth: usize, columns: &mut usize, out: &mut Extent) -> Result<(), DecodeError> {
    *columns += 1;
    if *columns > COLUMNS_MAX || depth > DEPTH_MAX {
        return Err(wrong(format!("more than {COLUMNS_MAX} columns, or more than {DEPTH_MAX} inside each other")));
    }
    out.nodes += 1;
    if field.dictionary().is_some() {
        out.buffers += 2;
        return Ok(());
    }
    out.buffers += match field.type_type() {
        Type::Null | Type::RunEndEncoded => 0,
        Type::Struct_ | Type::FixedSizeList => 1,
        Type::Utf8 | Type::Binary | Type::LargeUtf8 | Type::LargeBinary | Type::ListView | Type::LargeListView => 3,
        Type::Utf8View | Type::BinaryView => {
            out.variadic += 1;
            2
        }
        Type::Union => match field.type_as_union() {
            Some(union) if union.mode() == UnionMode::Dense => 2,
            _ => 1,
        },
        Type::Int
        | Type::FloatingPoint
        | Type::Bool
        | Type::Decimal
        | Type::Date
        | Type::Time
        | Type::Timestamp
        | Type::Interval
        | Type::Duration
        | Type::FixedSizeBinary
        | Type::List
        | Type::LargeList
        | Type::Map => 2,
        _ => return Err(wrong(format!("column `{}` is of a type unknown here", field.name().unwrap_or_default()))),
    };
    for child in field.children().into_iter().flatten() {
        measure(&child, depth + 1, columns, out)?;
    }
    Ok(())
}

/// The buffers of one column of one batch.
pub(super) struct Buffers<'a> {
    /// Rows.
    pub(super) rows: usize,
    /// Whether the validity bitmap counts.
    pub(super) has_nulls: bool,
    /// In the order of the specification, validity first.
    pub(super) buffers: Vec<Cow<'a, [u8]>>,
}

/// A batch with the body that its buffers lie in.
pub(super) struct Batch<'a> {
    header: RecordBatch<'a>,
    body: &'a [u8],
    is_compressed: bool,
    variadic: Vec<usize>,
    left: usize,
    /// Bytes of the body that no buffer has claimed. Buffers that lie over one another would make columns out of nothing.
    unclaimed: usize,
}

impl<'a> Batch<'a> {
    fn new(header: RecordBatch<'a>, body: &'a [u8], left: usize) -> Result<Self, DecodeError> {
        let is_compressed = match header.compression() {
            None => false,
            Some(how) if how.codec() == CompressionType::ZSTD && how.method() == BodyCompressionMethod::BUFFER => true,
            Some(_) => return Err(wrong("buffers are compressed with LZ4; write them with zstd or uncompressed")),
        };
        let counts = header.variadicBufferCounts().into_iter().flatten();
        let variadic = counts.map(|count| usize::try_from(count).unwrap_or(usize::MAX)).collect();
        Ok(Self { header, body, is_compressed, variadic, left, unclaimed: body.len() })
    }

    /// Rows that the batch says it has; no column may have fewer.
    pub(super) fn rows(&self) -> Result<usize, DecodeError> {
        let rows = usize::try_from(self.header.length()).unwrap_or(usize::MAX);
        // Every column that is read has at least a byte per row.
        let rows_max = if self.is_compressed { DECOMPRESSED_BYTES_MAX } else { self.body.len() };
        if rows > rows_max {
            Err(wrong("a batch says that it has more rows than its bytes can hold"))
        } else {
            Ok(rows)
        }
    }

    /// The buffers of a column.
    pub(super) fn column(&mut self, layout: &Layout<'a>) -> Result<Buffers<'a>, DecodeError> {
        let name = layout.name();
        let missing = || wrong(format!("column `{name}` lacks its buffers"));
        let nodes = self.header.nodes().ok_or_else(missing)?;
        if layout.at.nodes >= nodes.len() {
            return Err(missing());
        }
        let node = nodes.get(layout.at.nodes);
        let rows = usize::try_from(node.length()).map_err(|_| missing())?;
        // Columns of views before this one have as many more buffers as they say.
        let extra = |range: std::ops::Range<usize>| {
            let counts = self.variadic.get(range).ok_or_else(missing)?;
            counts.iter().try_fold(0usize, |sum, count| sum.checked_add(*count)).ok_or_else(missing)
        };
        let until = layout.at.variadic + layout.extent.variadic;
        let before = extra(0..layout.at.variadic)?;
        let own = extra(layout.at.variadic..until)?;
        let from = layout.at.buffers.checked_add(before).ok_or_else(missing)?;
        let to = from.checked_add(layout.extent.buffers).and_then(|to| to.checked_add(own)).ok_or_else(missing)?;
        let places = self.header.buffers().ok_or_else(missing)?;
        if to > places.len() {
            return Err(missing());
        }
        let mut buffers = Vec::with_capacity(to - from);
        for at in from..to {
            let place = places.get(at);
            let bytes = usize::try_from(place.offset()).ok().zip(usize::try_from(place.length()).ok());
            let bytes = bytes.and_then(|(offset, length)| self.body.get(offset..offset.checked_add(length)?));
            let bytes =
                bytes.ok_or_else(|| wrong(format!("a buffer of column `{name}` lies outside of its message")))?;
            self.unclaimed = self
                .unclaimed
                .checked_sub(bytes.len())
                .ok_or_else(|| wrong(format!("the buffers of column `{name}` lie over those of others")))?;
            buffers.push(if self.is_compressed { self.decompress(bytes, name)? } else { Cow::Borrowed(bytes) });
        }
        Ok(Buffers { rows, has_nulls: node.null_count() != 0, buffers })
    }

    /// A compressed buffer: its length, then a frame; a length of -1 says that it is not compressed after all.
    fn decompress(&mut self, bytes: &'a [u8], name: &str) -> Result<Cow<'a, [u8]>, DecodeError> {
        if bytes.is_empty() {
            return Ok(Cow::Borrowed(bytes));
        }
        let broken = || wrong(format!("a buffer of column `{name}` does not decompress"));
        let (length, frame) = bytes.split_first_chunk::<8>().ok_or_else(broken)?;
        let length = i64::from_le_bytes(*length);
        if length == -1 {
            return Ok(Cow::Borrowed(frame));
        }
        let length = usize::try_from(length).map_err(|_| broken())?;
        self.left = self.left.checked_sub(length).ok_or_else(|| {
            wrong(format!("the message is larger than {DECOMPRESSED_BYTES_MAX} bytes after decompression"))
        })?;
        let plain = zstd::bulk::decompress(frame, length).map_err(|_| broken())?;
        if plain.len() == length { Ok(Cow::Owned(plain)) } else { Err(broken()) }
    }
}

/// What a message is, once the schema has been read.
pub(super) enum Part<'a> {
    Batch(Batch<'a>),
    Dictionary { id: i64, batch: Batch<'a> },
}
