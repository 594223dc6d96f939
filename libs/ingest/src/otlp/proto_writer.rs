//! Writes protobuf messages: the few that we answer with, and OTLP/JSON on its way to the walk.

/// Appends fields to a message. Fields of a value equal to their default are left out, as in proto3.
#[derive(Debug, Default)]
pub(crate) struct ProtoWriter {
    bytes: Vec<u8>,
}

impl ProtoWriter {
    /// The finished message.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// A varint field: `int32`, `int64`, `uint32`, `bool`, enums.
    pub(crate) fn varint(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.varint_always(field, value);
        }
    }

    /// A varint field that stands even if it is 0: members of a `oneof`, items of repeated fields.
    pub(crate) fn varint_always(&mut self, field: u32, value: u64) {
        self.raw_varint(u64::from(field << 3));
        self.raw_varint(value);
    }

    /// An `sint32` field.
    pub(crate) fn sint32(&mut self, field: u32, value: i32) {
        self.varint(field, u64::from((value << 1 ^ value >> 31) as u32));
    }

    /// A field of eight bytes: `fixed64`, `sfixed64`, `double` by its bits.
    pub(crate) fn fixed64(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.fixed64_always(field, value);
        }
    }

    /// A field of eight bytes that stands even if it is 0.
    pub(crate) fn fixed64_always(&mut self, field: u32, value: u64) {
        self.raw_varint(u64::from(field << 3 | 1));
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// A string or bytes field.
    pub(crate) fn bytes(&mut self, field: u32, value: &[u8]) {
        if !value.is_empty() {
            self.bytes_always(field, value);
        }
    }

    /// A string, bytes or message field that stands even if it is empty.
    pub(crate) fn bytes_always(&mut self, field: u32, value: &[u8]) {
        self.raw_varint(u64::from(field << 3 | 2));
        self.raw_varint(value.len() as u64);
        self.bytes.extend_from_slice(value);
    }

    /// A message field.
    pub(crate) fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes_always(field, &inner.bytes);
    }
}
