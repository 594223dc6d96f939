//! The binary form of log records, snapshots and checkpoints: little-endian, length-prefixed, no schema in the bytes.
//!
//! One small codec serves all three because they share their parts, and because a checkpoint must restore the engine to
//! the bit: a general format would put its own rules about NaN, map order and defaults between. Every container starts
//! with a format version of its own, so that an older one can be read and a newer one be refused untouched. Decoding
//! never panics and never allocates more than the input could fill.

use std::sync::Arc;

use arrow_buffer::{ScalarBuffer, ToByteSlice};

/// Why bytes could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// What was being read.
    pub what: &'static str,
    /// At which byte of the input.
    pub at: usize,
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the record is damaged: no valid {} at byte {}", self.what, self.at)
    }
}

impl std::error::Error for DecodeError {}

/// Two texts, mostly the key and value of an attribute.
pub type Pair = (Arc<str>, Arc<str>);

/// Appends values to a byte vector.
#[derive(Debug, Default)]
pub struct Encoder {
    /// What was written so far.
    pub bytes: Vec<u8>,
}

macro_rules! scalar {
    ($($type:ty, $put:ident, $get:ident, $puts:ident, $gets:ident);*) => {
        impl Encoder {
            $(
                #[doc = concat!("Writes one `", stringify!($type), "`.")]
                #[inline]
                pub fn $put(&mut self, value: $type) {
                    self.bytes.extend_from_slice(&value.to_le_bytes());
                }

                #[doc = concat!("Writes a slice of `", stringify!($type), "` with its length.")]
                pub fn $puts(&mut self, values: &[$type]) {
                    self.put_u32(values.len() as u32);
                    if cfg!(target_endian = "little") {
                        // The bytes in memory are the bytes on the wire: one copy instead of one push per value.
                        self.bytes.extend_from_slice(values.to_byte_slice());
                    } else {
                        values.iter().for_each(|value| self.bytes.extend_from_slice(&value.to_le_bytes()));
                    }
                }
            )*
        }

        impl Decoder<'_> {
            $(
                #[doc = concat!("Reads one `", stringify!($type), "`.")]
                ///
                /// # Errors
                /// If the input ends first.
                #[inline]
                pub fn $get(&mut self) -> Result<$type, DecodeError> {
                    const SIZE: usize = size_of::<$type>();
                    let bytes = self.take(SIZE, stringify!($type))?;
                    let mut array = [0u8; SIZE];
                    array.copy_from_slice(bytes);
                    Ok(<$type>::from_le_bytes(array))
                }

                #[doc = concat!("Reads a vector of `", stringify!($type), "`.")]
                ///
                /// # Errors
                /// If the input ends first.
                pub fn $gets(&mut self) -> Result<Vec<$type>, DecodeError> {
                    const SIZE: usize = size_of::<$type>();
                    let length = self.get_u32()? as usize;
                    let bytes = self.take(length.saturating_mul(SIZE), stringify!($type))?;
                    Ok(bytes
                        .chunks_exact(SIZE)
                        .map(|chunk| {
                            let mut array = [0u8; SIZE];
                            array.copy_from_slice(chunk);
                            <$type>::from_le_bytes(array)
                        })
                        .collect())
                }
            )*
        }
    };
}

scalar!(
    u8, put_u8, get_u8, put_u8s, get_u8s;
    u16, put_u16, get_u16, put_u16s, get_u16s;
    u32, put_u32, get_u32, put_u32s, get_u32s;
    u64, put_u64, get_u64, put_u64s, get_u64s;
    i32, put_i32, get_i32, put_i32s, get_i32s;
    i64, put_i64, get_i64, put_i64s, get_i64s;
    f32, put_f32, get_f32, put_f32s, get_f32s;
    f64, put_f64, get_f64, put_f64s, get_f64s
);

impl Encoder {
    /// Writes a string with its length.
    pub fn put_str(&mut self, text: &str) {
        self.put_u32(text.len() as u32);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// Writes a list of strings.
    pub fn put_strs(&mut self, texts: &[Arc<str>]) {
        self.put_u32(texts.len() as u32);
        for text in texts {
            self.put_str(text);
        }
    }

    /// Writes a list of pairs of strings.
    pub fn put_pairs(&mut self, pairs: &[(Arc<str>, Arc<str>)]) {
        self.put_u32(pairs.len() as u32);
        for (key, value) in pairs {
            self.put_str(key);
            self.put_str(value);
        }
    }

    /// Writes a truth value.
    pub fn put_bool(&mut self, value: bool) {
        self.put_u8(u8::from(value));
    }
}

/// Reads values from a byte slice.
#[derive(Debug)]
pub struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Decoder<'a> {
    /// A decoder at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The error that names `what` at the present place.
    pub fn error(&self, what: &'static str) -> DecodeError {
        DecodeError { what, at: self.at }
    }

    /// The next `length` bytes.
    ///
    /// # Errors
    /// If the input ends first.
    pub fn take(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        if length > self.remaining() {
            return Err(self.error(what));
        }
        let bytes = &self.bytes[self.at..self.at + length];
        self.at += length;
        Ok(bytes)
    }

    /// Reads the length of a list whose items take at least `item_bytes_min` bytes each, so that a damaged length
    /// cannot make the reader allocate more than the input could fill.
    ///
    /// # Errors
    /// If the input ends first or is too short for so many items.
    pub fn get_length(&mut self, item_bytes_min: usize, what: &'static str) -> Result<usize, DecodeError> {
        let length = self.get_u32()? as usize;
        if length.saturating_mul(item_bytes_min.max(1)) > self.remaining() {
            return Err(self.error(what));
        }
        Ok(length)
    }

    /// The bytes that `skip` goes over.
    pub(crate) fn span(
        &mut self,
        skip: impl FnOnce(&mut Self) -> Result<(), DecodeError>,
    ) -> Result<&'a [u8], DecodeError> {
        let from = self.at;
        skip(self)?;
        Ok(&self.bytes[from..self.at])
    }

    /// Goes over a string.
    pub(crate) fn skip_str(&mut self) -> Result<(), DecodeError> {
        let length = self.get_u32()? as usize;
        self.take(length, "text").map(drop)
    }

    /// Goes over a list of so many strings each.
    pub(crate) fn skip_strs(&mut self, each: usize) -> Result<(), DecodeError> {
        let length = self.get_length(4 * each, "list of texts")?;
        (0..length * each).try_for_each(|_| self.skip_str())
    }

    /// Reads a string.
    ///
    /// # Errors
    /// If the input ends first or is not UTF-8.
    pub fn get_str(&mut self) -> Result<&'a str, DecodeError> {
        let length = self.get_u32()? as usize;
        let bytes = self.take(length, "text")?;
        std::str::from_utf8(bytes).map_err(|_| self.error("UTF-8 text"))
    }

    /// Reads a list of strings.
    ///
    /// # Errors
    /// As [`Self::get_str`].
    pub fn get_strs(&mut self) -> Result<Vec<Arc<str>>, DecodeError> {
        let length = self.get_length(4, "list of texts")?;
        (0..length).map(|_| self.get_str().map(Arc::from)).collect()
    }

    /// Reads a list of pairs of strings.
    ///
    /// # Errors
    /// As [`Self::get_str`].
    pub fn get_pairs(&mut self) -> Result<Vec<Pair>, DecodeError> {
        let length = self.get_length(8, "list of pairs")?;
        (0..length).map(|_| Ok((Arc::from(self.get_str()?), Arc::from(self.get_str()?)))).collect()
    }

    /// Reads a truth value.
    ///
    /// # Errors
    /// If the input ends first or the byte is neither 0 nor 1.
    pub fn get_bool(&mut self) -> Result<bool, DecodeError> {
        match self.get_u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.error("truth value")),
        }
    }

    /// Demands that everything was read.
    ///
    /// # Errors
    /// If bytes remain.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.remaining() == 0 { Ok(()) } else { Err(self.error("end of record")) }
    }
}

/// Reads an Arrow buffer of u32.
///
/// # Errors
/// If the input ends first.
pub fn get_buffer_u32(decoder: &mut Decoder<'_>) -> Result<ScalarBuffer<u32>, DecodeError> {
    decoder.get_u32s().map(ScalarBuffer::from)
}

/// Reads an Arrow buffer of i64.
///
/// # Errors
/// If the input ends first.
pub fn get_buffer_i64(decoder: &mut Decoder<'_>) -> Result<ScalarBuffer<i64>, DecodeError> {
    decoder.get_i64s().map(ScalarBuffer::from)
}

/// Reads an Arrow buffer of f64.
///
/// # Errors
/// If the input ends first.
pub fn get_buffer_f64(decoder: &mut Decoder<'_>) -> Result<ScalarBuffer<f64>, DecodeError> {
    decoder.get_f64s().map(ScalarBuffer::from)
}
