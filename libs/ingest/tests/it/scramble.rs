//! Rewrites a message into another that protobuf says is the same, or nearly: fields in any order, unknown fields in
//! between, lengths and keys with more bytes than they need, packed numbers unpacked, single messages in two pieces.

/// A message type of which only the nesting matters.
#[derive(Clone, Copy)]
pub enum Kind {
    Request,
    ResourceMetrics,
    Resource,
    ScopeMetrics,
    Scope,
    Metric,
    Numbers,
    Histograms,
    Exponentials,
    Summaries,
    NumberPoint,
    HistogramPoint,
    ExponentialPoint,
    Buckets,
    SummaryPoint,
    KeyValue,
}

use Kind::*;

impl Kind {
    /// The message in a field, and whether the field is singular.
    fn nested(self, field: u64) -> Option<(Kind, bool)> {
        Some(match (self, field) {
            (Request, 1) => (ResourceMetrics, false),
            (ResourceMetrics, 1) => (Resource, true),
            (ResourceMetrics, 2) => (ScopeMetrics, false),
            (Resource, 1) | (NumberPoint, 7) | (HistogramPoint, 9) | (ExponentialPoint, 1) | (SummaryPoint, 7) => {
                (KeyValue, false)
            }
            (ScopeMetrics, 1) => (Scope, true),
            (ScopeMetrics, 2) => (Metric, false),
            (Metric, 5 | 7) => (Numbers, true),
            (Metric, 9) => (Histograms, true),
            (Metric, 10) => (Exponentials, true),
            (Metric, 11) => (Summaries, true),
            (Numbers, 1) => (NumberPoint, false),
            (Histograms, 1) => (HistogramPoint, false),
            (Exponentials, 1) => (ExponentialPoint, false),
            (Summaries, 1) => (SummaryPoint, false),
            (ExponentialPoint, 8 | 9) => (Buckets, true),
            _ => return None,
        })
    }
}

/// A generator of no quality at all, but the same everywhere.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn put_varint(mut value: u64, dice: &mut Dice, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    if dice.roll(20) == 0 {
        out.extend([value as u8 | 0x80, 0x80, 0]);
    } else {
        out.push(value as u8);
    }
}

fn get_varint(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let (byte, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < &0x80 {
            return value;
        }
    }
}

/// Rewrites `message`, which prost wrote.
pub fn scramble(kind: Kind, mut message: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut fields: Vec<Vec<u8>> = Vec::new();
    while !message.is_empty() {
        let key = get_varint(&mut message);
        let mut field = Vec::new();
        match key & 7 {
            0 => {
                let value = get_varint(&mut message);
                put_varint(key, dice, &mut field);
                put_varint(value, dice, &mut field);
            }
            1 => {
                put_varint(key, dice, &mut field);
                field.extend(&message[..8]);
                message = &message[8..];
            }
            _ => {
                let length = get_varint(&mut message) as usize;
                let (value, rest) = message.split_at(length);
                message = rest;
                let is_packed_fixed = matches!((kind, key >> 3), (HistogramPoint, 6 | 7));
                let is_packed_varint = matches!((kind, key >> 3), (Buckets, 2));
                match kind.nested(key >> 3) {
                    Some((nested, is_singular)) => {
                        let value = scramble(nested, value, dice);
                        let cut = if is_singular { cut_at_field(&value, dice) } else { value.len() };
                        put_bytes(key, &value[..cut], dice, &mut field);
                        if cut < value.len() {
                            fields.push(std::mem::take(&mut field));
                            put_bytes(key, &value[cut..], dice, &mut field);
                        }
                    }
                    None if is_packed_fixed && dice.roll(2) == 0 => {
                        for chunk in value.chunks(8) {
                            put_varint(key - 1, dice, &mut field);
                            field.extend(chunk);
                            fields.push(std::mem::take(&mut field));
                        }
                    }
                    None if is_packed_varint && dice.roll(2) == 0 => {
                        let mut value = value;
                        while !value.is_empty() {
                            put_varint(key - 2, dice, &mut field);
                            put_varint(get_varint(&mut value), dice, &mut field);
                            fields.push(std::mem::take(&mut field));
                        }
                    }
                    None => put_bytes(key, value, dice, &mut field),
                }
            }
        }
        fields.push(field);
    }
    if dice.roll(4) == 0 {
        let mut unknown = Vec::new();
        match dice.roll(3) {
            0 => {
                put_varint(1000 << 3, dice, &mut unknown);
                put_varint(7, dice, &mut unknown);
            }
            1 => put_bytes(1000 << 3 | 2, b"?", dice, &mut unknown),
            _ => {
                put_varint(1000 << 3 | 5, dice, &mut unknown);
                unknown.extend(b"1234");
            }
        }
        fields.push(unknown);
    }
    if dice.roll(2) == 0 {
        for at in (1..fields.len()).rev() {
            fields.swap(at, dice.roll(at as u64 + 1) as usize);
        }
    }
    fields.concat()
}

fn put_bytes(key: u64, value: &[u8], dice: &mut Dice, out: &mut Vec<u8>) {
    put_varint(key, dice, out);
    put_varint(value.len() as u64, dice, out);
    out.extend(value);
}

/// A place between two fields of a message, or its end.
fn cut_at_field(message: &[u8], dice: &mut Dice) -> usize {
    if dice.roll(4) > 0 {
        return message.len();
    }
    let mut rest = message;
    while !rest.is_empty() && dice.roll(3) > 0 {
        match get_varint(&mut rest) & 7 {
            0 => drop(get_varint(&mut rest)),
            1 => rest = &rest[8..],
            2 => {
                let length = get_varint(&mut rest) as usize;
                rest = &rest[length..];
            }
            _ => rest = &rest[4..],
        }
    }
    message.len() - rest.len()
}
