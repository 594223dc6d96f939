//! Attributes as sorted pairs of text.
//!
//! Values become text because that is what selectors, filters and people compare. Strings stand as they are, other
//! values as OpenTelemetry's mapping for protocols without them says: JSON for numbers, truth values, arrays and maps,
//! Base64 for bytes, nothing for no value. Of an attribute sent twice the first counts, as in the Collector.

use std::fmt::Write as _;

use super::wire::{Joined, Reader, WireError};
use crate::limits::IngestLimits;
use crate::report::RejectReason;

/// Why attributes could not be read.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The body is damaged.
    Wire(WireError),
    /// They are beyond a bound.
    Reject(RejectReason),
}

impl From<WireError> for Fault {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

impl From<RejectReason> for Fault {
    fn from(reason: RejectReason) -> Self {
        Self::Reject(reason)
    }
}

/// What to do with a value that is too long.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum TooLong {
    /// Cut it and count.
    Cut,
    /// Reject what has it.
    Reject,
}

/// Attributes being collected.
#[derive(Debug, Default)]
pub(crate) struct AttributeList<'a> {
    pairs: Vec<(&'a str, String)>,
    /// Values that were cut.
    pub(crate) cut: u64,
}

impl<'a> AttributeList<'a> {
    /// Adds the `KeyValue` message in `bytes`.
    pub(crate) fn push(&mut self, bytes: &'a [u8], too_long: TooLong, limits: &IngestLimits) -> Result<(), Fault> {
        let mut key = "";
        let mut value = Joined::default();
        let mut reader = Reader::new(bytes);
        while let Some(field) = reader.key()? {
            match field {
                0x0a => key = reader.text()?,
                0x12 => value.push(reader.bytes()?),
                0x18 => drop(reader.varint()?),
                _ => reader.skip_unknown(field, &[1, 2, 3])?,
            }
        }
        let mut text = String::new();
        write_any_value(value.get(), false, limits.nesting_max, &mut text).map_err(|fault| match fault {
            Fault::Wire(error) => Fault::Wire(value.locate(error)),
            reject => reject,
        })?;
        if key.len() > limits.attribute_key_bytes_max {
            return Err(RejectReason::AttributeTooLong.into());
        }
        if text.len() > limits.attribute_value_bytes_max {
            if too_long == TooLong::Reject {
                return Err(RejectReason::AttributeTooLong.into());
            }
            text.truncate(text.floor_char_boundary(limits.attribute_value_bytes_max));
            self.cut += 1;
        }
        if self.pairs.len() >= limits.attributes_max {
            return Err(RejectReason::TooManyAttributes.into());
        }
        self.pairs.push((key, text));
        Ok(())
    }

    /// The attributes, sorted by key, without duplicates.
    pub(crate) fn finish(mut self) -> Vec<(&'a str, String)> {
        self.pairs.sort_by_key(|(key, _)| *key);
        self.pairs.dedup_by_key(|(key, _)| *key);
        self.pairs
    }
}

/// Writes an `AnyValue` message as text. `nested`: inside an array or map, where strings are quoted.
fn write_any_value(bytes: &[u8], nested: bool, depth: usize, out: &mut String) -> Result<(), Fault> {
    let mut last = Value::None;
    let mut compound = Joined::default();
    let mut compound_field = 0;
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.key()? {
        match field {
            0x0a => last = Value::Text(reader.text()?),
            0x10 => last = Value::Bool(reader.varint()? != 0),
            0x18 => last = Value::Int(reader.varint()? as i64),
            0x21 => last = Value::Double(reader.double()?),
            0x2a | 0x32 => {
                // Occurrences of one variant merge; another variant in between starts anew.
                let continues = matches!(last, Value::Compound) && compound_field == field;
                if !continues {
                    compound = Joined::default();
                }
                compound.push(reader.bytes()?);
                (last, compound_field) = (Value::Compound, field);
            }
            0x3a => last = Value::Bytes(reader.bytes()?),
            0x40 => {
                reader.varint()?;
                last = Value::None;
            }
            _ => reader.skip_unknown(field, &[1, 2, 3, 4, 5, 6, 7, 8])?,
        }
    }
    match last {
        Value::None if nested => out.push_str("null"),
        Value::None => {}
        Value::Text(text) if nested => write_quoted(text, out),
        Value::Text(text) => out.push_str(text),
        Value::Bool(value) => out.push_str(if value { "true" } else { "false" }),
        Value::Int(value) => write_display(value, out),
        Value::Double(value) => write_double(value, out),
        Value::Bytes(bytes) if nested => write_quoted(&base64(bytes), out),
        Value::Bytes(bytes) => out.push_str(&base64(bytes)),
        Value::Compound => {
            let Some(depth) = depth.checked_sub(1) else {
                return Err(RejectReason::NestedTooDeep.into());
            };
            write_compound(compound.get(), compound_field == 0x32, depth, out)?;
        }
    }
    Ok(())
}

enum Value<'a> {
    None,
    Text(&'a str),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(&'a [u8]),
    Compound,
}

fn write_compound(bytes: &[u8], is_map: bool, depth: usize, out: &mut String) -> Result<(), Fault> {
    out.push(if is_map { '{' } else { '[' });
    let mut reader = Reader::new(bytes);
    let mut is_first = true;
    while let Some(field) = reader.key()? {
        if field != 0x0a {
            reader.skip_unknown(field, &[1])?;
            continue;
        }
        let item = reader.bytes()?;
        if !is_first {
            out.push(',');
        }
        is_first = false;
        if !is_map {
            write_any_value(item, true, depth, out)?;
            continue;
        }
        let (mut key, mut value) = ("", Joined::default());
        let mut fields = Reader::new(item);
        while let Some(field) = fields.key()? {
            match field {
                0x0a => key = fields.text()?,
                0x12 => value.push(fields.bytes()?),
                0x18 => drop(fields.varint()?),
                _ => fields.skip_unknown(field, &[1, 2, 3])?,
            }
        }
        write_quoted(key, out);
        out.push(':');
        write_any_value(value.get(), true, depth, out)?;
    }
    out.push(if is_map { '}' } else { ']' });
    Ok(())
}

/// A double as a JSON number; what JSON lacks as OTLP's words for it.
pub(crate) fn write_double(value: f64, out: &mut String) {
    if value.is_nan() {
        out.push_str("NaN");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { "Infinity" } else { "-Infinity" });
    } else if value.fract() == 0.0 && value.abs() < 1e15 {
        write_display(value, out);
    } else {
        write_display(format_args!("{value:?}"), out);
    }
}

/// Writes what can be displayed. A string takes all that is written to it, so there is no error to tell.
fn write_display(value: impl std::fmt::Display, out: &mut String) {
    let _ = write!(out, "{value}");
}

/// A string as a JSON string.
pub(crate) fn write_quoted(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => write_display(format_args!("\\u{:04x}", c as u32), out),
            c => out.push(c),
        }
    }
    out.push('"');
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Bytes as Base64, standard and padded.
pub fn base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().enumerate().fold(0u32, |bits, (at, byte)| bits | u32::from(*byte) << (16 - 8 * at));
        for at in 0..4 {
            let digit = BASE64[(bits >> (18 - 6 * at)) as usize & 63];
            out.push(if at <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

/// The bytes of a Base64 text, standard or URL-safe, padded or not; `None` if it is not one.
pub(crate) fn base64_decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let (mut bits, mut count) = (0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let standard = match byte {
            b'-' => b'+',
            b'_' => b'/',
            byte => byte,
        };
        let digit = BASE64.iter().position(|digit| *digit == standard)?;
        bits = bits << 6 | digit as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    (count < 6).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_there_and_back() {
        for (bytes, text) in
            [(&b""[..], ""), (b"f", "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v"), (&[0xfb, 0xff], "+/8=")]
        {
            assert_eq!(base64(bytes), text);
            assert_eq!(base64_decode(text).as_deref(), Some(bytes));
        }
        assert_eq!(base64_decode("-_8"), Some(vec![0xfb, 0xff]));
        assert_eq!(base64_decode("A"), None);
        assert_eq!(base64_decode("A*=="), None);
    }

    #[test]
    fn doubles_are_json_numbers() {
        for (value, text) in [
            (1.0, "1"),
            (-0.5, "-0.5"),
            (1e300, "1e300"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
            (0.1, "0.1"),
        ] {
            let mut out = String::new();
            write_double(value, &mut out);
            assert_eq!(out, text);
        }
    }
}
