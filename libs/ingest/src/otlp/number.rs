//! Number data points: the hot path.
//!
//! The attributes, most of a point's bytes, are not read: if the point goes on with exactly the attribute fields of the
//! series that is expected here, they are stepped over. Because those bytes were a sequence of whole fields when they
//! were remembered, the same bytes are the same fields now.

use super::wire::{Reader, WireError};

/// Flag of a point that says the series has ended.
pub(crate) const NO_RECORDED_VALUE: u64 = 1;

/// Where the attribute fields of a point lie in its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AttributeSpan {
    from: usize,
    to: usize,
    /// Other fields stand between them.
    is_scattered: bool,
}

impl AttributeSpan {
    /// Takes in a field at `from..to`.
    #[inline]
    pub(crate) fn add(&mut self, from: usize, to: usize) {
        if self.to == self.from {
            self.from = from;
        } else if self.to != from {
            self.is_scattered = true;
        }
        self.to = to;
    }

    /// The attribute fields of `point`, joined in `scratch` if they are scattered.
    pub(crate) fn bytes<'a>(&self, point: &'a [u8], key: u32, scratch: &'a mut Vec<u8>) -> Result<&'a [u8], WireError> {
        if !self.is_scattered {
            return Ok(point.get(self.from..self.to).unwrap_or_default());
        }
        scratch.clear();
        let mut reader = Reader::new(point);
        loop {
            let before = reader.rest();
            let Some(field) = reader.key()? else { break };
            reader.skip(field)?;
            if field == key {
                scratch.extend_from_slice(&before[..before.len() - reader.rest().len()]);
            }
        }
        Ok(scratch)
    }
}

/// A point's fields.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NumberPoint {
    pub(crate) start: u64,
    pub(crate) time: u64,
    pub(crate) value: Option<f64>,
    pub(crate) flags: u64,
    pub(crate) attributes: AttributeSpan,
    /// The attribute fields are those that were expected.
    pub(crate) is_as_expected: bool,
}

/// Key of a number point's attribute fields.
pub(crate) const ATTRIBUTES_KEY: u32 = 0x3a;

/// Reads a point that probably has the attribute fields `expected`.
#[inline(always)]
pub(crate) fn read(bytes: &[u8], expected: Option<&[u8]>) -> Result<NumberPoint, WireError> {
    let mut point = NumberPoint::default();
    let mut reader = Reader::new(bytes);
    let expect = expected.unwrap_or_default();
    loop {
        let before = reader.rest();
        let Some(key) = reader.key()? else { break };
        match key {
            0x11 => point.start = reader.fixed64()?,
            0x19 => point.time = reader.fixed64()?,
            0x21 => point.value = Some(reader.double()?),
            0x31 => point.value = Some(reader.fixed64()? as i64 as f64),
            ATTRIBUTES_KEY => {
                let from = bytes.len() - before.len();
                if point.attributes.to == 0 && !expect.is_empty() && before.starts_with(expect) {
                    reader = Reader::new(before);
                    reader.advance(expect.len());
                    point.attributes = AttributeSpan { from, to: from + expect.len(), is_scattered: false };
                    point.is_as_expected = true;
                } else {
                    point.is_as_expected = false;
                    reader.bytes()?;
                    point.attributes.add(from, bytes.len() - reader.rest().len());
                }
            }
            0x40 => point.flags = reader.varint()?,
            0x2a => drop(reader.bytes()?),
            _ => reader.skip_unknown(key, &[2, 3, 4, 5, 6, 7, 8])?,
        }
    }
    if point.attributes.to == 0 {
        point.is_as_expected = expected == Some(&[]);
    }
    Ok(point)
}
