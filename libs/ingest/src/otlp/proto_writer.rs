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

    /// An item of a packed list of varints.
    pub(crate) fn raw_varint(&mut self, mut value: u64) {
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

    /// A field of eight bytes that stands even if it is 0: `fixed64`, `sfixed64`, `double` by its bits.
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

    /// An item of a packed list of eight bytes each.
    pub(crate) fn raw_fixed64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// A message field.
    pub(crate) fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        let from = self.begin(field);
        write(self);
        self.end(from);
    }

    /// Begins a message or a packed list, which [`end`](Self::end) ends: what is written between is inside.
    pub(crate) fn begin(&mut self, field: u32) -> usize {
        self.raw_varint(u64::from(field << 3 | 2));
        // Room for the length of most.
        self.bytes.push(0);
        self.bytes.len()
    }

    /// Ends what began at `from`. The length stands before the content and is known after it; a longer one than there
    /// is room for moves the content, which beside a buffer for each message costs nothing.
    pub(crate) fn end(&mut self, from: usize) {
        let length = self.bytes.len() - from;
        if let (Ok(short @ 0..0x80), Some(room)) = (u8::try_from(length), self.bytes.get_mut(from - 1)) {
            *room = short;
            return;
        }
        let mut prefix = Self::default();
        prefix.raw_varint(length as u64);
        self.bytes.splice(from - 1..from, prefix.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_their_length_before_them_however_long_it_is() {
        for (length, prefix) in
            [(0, &[0x0a, 0][..]), (127, &[0x0a, 127]), (128, &[0x0a, 0x80, 1]), (300, &[0x0a, 0xac, 2])]
        {
            let content = vec![b'x'; length];
            let mut out = ProtoWriter::default();
            out.message(1, |out| content.iter().for_each(|byte| out.bytes.push(*byte)));
            assert_eq!(out.finish(), [prefix, &content].concat(), "{length}");
        }
    }
}
