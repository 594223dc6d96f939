//! A reader of protobuf's wire format over borrowed bytes.
//!
//! Not prost: building an object tree costs ten times what the walk costs, nearly all of it allocation. Not a view
//! generator either: OTLP metrics are so deeply nested that lazy views still allocate a vector per level. The walk reads
//! every byte once, and whoever calls decides what is worth keeping.
//!
//! What is accepted is what prost accepts, except for groups: nobody has written one in OTLP, and refusing them keeps
//! skipping free of recursion. Overlong varints, overlong keys, unknown fields and any order of fields are legal.
//!
//! An error carries the *address* of the byte it is about, not its offset: a reader of a nested message then needs no
//! idea of where it lies, which keeps it at two words. [`WireError::offset_in`] makes an offset of it at the very end.

/// What is wrong with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireFault {
    /// A field reaches beyond the end of its message.
    Truncated,
    /// A varint of more than 64 bits.
    VarintTooLong,
    /// A field key with number 0, an unknown wire type or more than 32 bits.
    BadKey,
    /// A group (wire types 3 and 4), which OTLP does not have.
    Group,
    /// A known field with a wire type that is not its own.
    WrongWireType,
    /// A string that is not UTF-8.
    NotUtf8,
}

impl WireFault {
    /// The fault in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Truncated => "a field reaches beyond the end of its message",
            Self::VarintTooLong => "a varint has more than 64 bits",
            Self::BadKey => "a field key is not valid",
            Self::Group => "a group, which OTLP does not have",
            Self::WrongWireType => "a field has another wire type than the OTLP schema says",
            Self::NotUtf8 => "a string is not UTF-8",
        }
    }
}

/// A fault and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireError {
    /// What is wrong.
    pub fault: WireFault,
    address: usize,
}

impl WireError {
    /// A fault at the start of `bytes`.
    #[cold]
    pub fn at(fault: WireFault, bytes: &[u8]) -> Self {
        Self { fault, address: bytes.as_ptr().addr() }
    }

    /// The offset of the fault in the body that was being read; the body's length if it lies elsewhere.
    pub fn offset_in(&self, body: &[u8]) -> usize {
        self.address.wrapping_sub(body.as_ptr().addr()).min(body.len())
    }
}

/// Reads fields one after the other from the bytes of one message.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

/// The key of a length-delimited field: strings, bytes, messages, packed numbers.
pub const fn key_bytes(field: u32) -> u32 {
    field << 3 | 2
}

impl<'a> Reader<'a> {
    /// A reader at the start of a message.
    #[inline]
    pub fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// What was not read yet.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Goes on `length` bytes further, which the caller knows to be there.
    #[inline]
    pub fn advance(&mut self, length: usize) {
        self.rest = self.rest.get(length..).unwrap_or_default();
    }

    /// The next field's key (`number << 3 | wire type`), `None` at the end of the message. Keys of one byte come
    /// unchecked: no caller knows a field 0 or a wire type 6, and [`Self::skip`] refuses them.
    ///
    /// # Errors
    /// If the key is truncated or too large.
    #[inline(always)]
    pub fn key(&mut self) -> Result<Option<u32>, WireError> {
        match self.rest.split_first() {
            None => Ok(None),
            Some((&byte, rest)) if byte < 0x80 => {
                self.rest = rest;
                Ok(Some(u32::from(byte)))
            }
            Some(_) => self.key_slow(),
        }
    }

    #[cold]
    fn key_slow(&mut self) -> Result<Option<u32>, WireError> {
        let start = self.rest;
        u32::try_from(self.varint()?).map(Some).map_err(|_| WireError::at(WireFault::BadKey, start))
    }

    /// A varint of up to ten bytes.
    ///
    /// # Errors
    /// If it is truncated or has more than 64 bits.
    #[inline(always)]
    pub fn varint(&mut self) -> Result<u64, WireError> {
        match self.rest.split_first() {
            Some((&byte, rest)) if byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(byte))
            }
            _ => self.varint_slow(),
        }
    }

    fn varint_slow(&mut self) -> Result<u64, WireError> {
        let start = self.rest;
        let mut value = 0u64;
        for (at, &byte) in start.iter().enumerate().take(10) {
            if at == 9 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                self.advance(at + 1);
                return Ok(value);
            }
        }
        let fault = if start.len() < 10 { WireFault::Truncated } else { WireFault::VarintTooLong };
        Err(WireError::at(fault, start))
    }

    /// A signed varint in zigzag form, `sint32`.
    ///
    /// # Errors
    /// As [`Self::varint`].
    pub fn sint32(&mut self) -> Result<i32, WireError> {
        let value = self.varint()? as u32;
        Ok((value >> 1) as i32 ^ -((value & 1) as i32))
    }

    /// Eight little-endian bytes.
    ///
    /// # Errors
    /// If they are not there.
    #[inline(always)]
    pub fn fixed64(&mut self) -> Result<u64, WireError> {
        let Some((bytes, rest)) = self.rest.split_first_chunk::<8>() else {
            return Err(WireError::at(WireFault::Truncated, self.rest));
        };
        self.rest = rest;
        Ok(u64::from_le_bytes(*bytes))
    }

    /// A double.
    ///
    /// # Errors
    /// If its eight bytes are not there.
    #[inline(always)]
    pub fn double(&mut self) -> Result<f64, WireError> {
        self.fixed64().map(f64::from_bits)
    }

    /// A length and as many bytes.
    ///
    /// # Errors
    /// If they are not there.
    #[inline(always)]
    pub fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        let start = self.rest;
        let length = self.varint()?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some((bytes, rest)) = self.rest.split_at_checked(length) else {
            return Err(WireError::at(WireFault::Truncated, start));
        };
        self.rest = rest;
        Ok(bytes)
    }

    /// A length and as many bytes of UTF-8.
    ///
    /// # Errors
    /// If they are not there or not UTF-8.
    pub fn text(&mut self) -> Result<&'a str, WireError> {
        text(self.bytes()?)
    }

    /// Skips the field whose key was just read.
    ///
    /// # Errors
    /// If its key is not valid, it is a group, or it is truncated.
    pub fn skip(&mut self, key: u32) -> Result<(), WireError> {
        if key >> 3 == 0 {
            return Err(WireError::at(WireFault::BadKey, self.rest));
        }
        match key & 7 {
            0 => self.varint().map(drop),
            1 => self.fixed64().map(drop),
            2 => self.bytes().map(drop),
            3 | 4 => Err(WireError::at(WireFault::Group, self.rest)),
            5 if self.rest.len() >= 4 => {
                self.advance(4);
                Ok(())
            }
            5 => Err(WireError::at(WireFault::Truncated, self.rest)),
            _ => Err(WireError::at(WireFault::BadKey, self.rest)),
        }
    }

    /// Skips a field that the caller did not match; if its number is one of `known`, it has a wrong wire type.
    ///
    /// # Errors
    /// As [`Self::skip`].
    pub fn skip_unknown(&mut self, key: u32, known: &[u32]) -> Result<(), WireError> {
        if known.contains(&(key >> 3)) {
            return Err(WireError::at(WireFault::WrongWireType, self.rest));
        }
        self.skip(key)
    }
}

/// Bytes as UTF-8.
///
/// # Errors
/// If they are not.
pub fn text(bytes: &[u8]) -> Result<&str, WireError> {
    std::str::from_utf8(bytes).map_err(|_| WireError::at(WireFault::NotUtf8, bytes))
}

/// A message field that may come in several pieces: protobuf merges the occurrences of a singular message, which is
/// the same as joining their bytes. One piece, the only case seen in the field, is borrowed.
#[derive(Debug, Default)]
pub struct Joined<'a> {
    first: Option<&'a [u8]>,
    all: Vec<u8>,
}

impl<'a> Joined<'a> {
    /// Adds an occurrence.
    #[inline]
    pub fn push(&mut self, piece: &'a [u8]) {
        match self.first {
            None => self.first = Some(piece),
            Some(first) => {
                if self.all.is_empty() {
                    self.all.extend_from_slice(first);
                }
                self.all.extend_from_slice(piece);
            }
        }
    }

    /// Whether the field occurred at all.
    #[inline]
    pub fn is_present(&self) -> bool {
        self.first.is_some()
    }

    /// The message's bytes, empty if it did not occur.
    #[inline]
    pub fn get(&self) -> &[u8] {
        if self.all.is_empty() { self.first.unwrap_or_default() } else { &self.all }
    }

    /// Moves an error inside the joined copy to the first occurrence, the nearest place the sender knows.
    pub fn locate(&self, error: WireError) -> WireError {
        match self.first {
            Some(first) if self.all.as_ptr_range().contains(&std::ptr::without_provenance(error.address)) => {
                WireError::at(error.fault, first)
            }
            _ => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_of_every_length_and_beyond() {
        let ten = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        let overflow = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        for (bytes, expect) in [
            (&[0x01][..], Ok(1)),
            (&[0x81, 0x00], Ok(1)),
            (&[0xac, 0x02], Ok(300)),
            (&ten, Ok(u64::MAX)),
            (&overflow, Err(WireFault::VarintTooLong)),
            (&[0x80; 11], Err(WireFault::VarintTooLong)),
            (&[0x80], Err(WireFault::Truncated)),
            (&[], Err(WireFault::Truncated)),
        ] {
            assert_eq!(Reader::new(bytes).varint().map_err(|e| e.fault), expect, "{bytes:?}");
        }
    }

    #[test]
    fn errors_say_where() {
        let body = [0x0a, 0x05, 1, 2];
        let mut reader = Reader::new(&body);
        assert_eq!(reader.key(), Ok(Some(key_bytes(1))));
        let error = reader.bytes().unwrap_err();
        assert_eq!((error.fault, error.offset_in(&body)), (WireFault::Truncated, 1));
    }

    #[test]
    fn skipping_refuses_groups_and_nonsense() {
        for (key, fault) in [
            (0x0b, WireFault::Group),
            (0x0c, WireFault::Group),
            (0x0e, WireFault::BadKey),
            (0x02, WireFault::BadKey),
            (0x0d, WireFault::Truncated),
        ] {
            assert_eq!(Reader::new(&[1, 2]).skip(key).map_err(|e| e.fault), Err(fault), "{key:#x}");
        }
    }

    #[test]
    fn pieces_join() {
        let mut joined = Joined::default();
        assert!(!joined.is_present());
        joined.push(&[]);
        joined.push(&[1]);
        joined.push(&[2]);
        assert_eq!(joined.get(), [1, 2]);
    }
}
