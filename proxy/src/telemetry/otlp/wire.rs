//! Protocol Buffers, as far as OTLP needs them: writing messages, and reading the fields of a reply.
//!
//! Invariants
//! - Reading ends at the first thing that is not well formed, whatever a peer sends.
//!
//! Source: protobuf.dev/programming-guides/encoding.
//!
//! Not here: which messages there are (`messages`).

/// A message that is being written.
#[derive(Debug, Default)]
pub(super) struct Message(Vec<u8>);

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const BYTES: u32 = 2;
const FIXED32: u32 = 5;

impl Message {
    /// Its bytes.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn raw_varint(&mut self, mut value: u64) {
        loop {
            let [low, ..] = value.to_le_bytes();
            value >>= 7;
            if value == 0 {
                self.0.push(low & 0x7F);
                return;
            }
            self.0.push(low | 0x80);
        }
    }

    fn tag(&mut self, field: u32, kind: u32) {
        self.raw_varint(u64::from(field << 3 | kind));
    }

    pub(super) fn varint(&mut self, field: u32, value: u64) {
        self.tag(field, VARINT);
        self.raw_varint(value);
    }

    pub(super) fn fixed64(&mut self, field: u32, value: u64) {
        self.tag(field, FIXED64);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn fixed32(&mut self, field: u32, value: u32) {
        self.tag(field, FIXED32);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn double(&mut self, field: u32, value: f64) {
        self.fixed64(field, value.to_bits());
    }

    pub(super) fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.tag(field, BYTES);
        self.raw_varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn text(&mut self, field: u32, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    /// A message within this one.
    pub(super) fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes(field, &inner.0);
    }

    /// Numbers of eight bytes each, packed.
    pub(super) fn packed64(&mut self, field: u32, values: impl IntoIterator<Item = u64>) {
        let bytes: Vec<u8> = values.into_iter().flat_map(u64::to_le_bytes).collect();
        self.bytes(field, &bytes);
    }
}

/// A field that was read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Field<'b> {
    Varint(u64),
    Bytes(&'b [u8]),
    /// Of a fixed size.
    Fixed,
}

/// The fields of a message, as far as they are well formed.
pub(super) struct Fields<'b>(pub(super) &'b [u8]);

impl<'b> Iterator for Fields<'b> {
    type Item = (u64, Field<'b>);

    fn next(&mut self) -> Option<Self::Item> {
        let tag = self.raw_varint()?;
        let field = match tag & 7 {
            0 => Field::Varint(self.raw_varint()?),
            1 => self.skip(8)?,
            2 => {
                let length = usize::try_from(self.raw_varint()?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Field::Bytes(bytes)
            }
            5 => self.skip(4)?,
            _ => return None,
        };
        Some((tag >> 3, field))
    }
}

impl<'b> Fields<'b> {
    fn skip(&mut self, count: usize) -> Option<Field<'b>> {
        self.0 = self.0.get(count..)?;
        Some(Field::Fixed)
    }

    fn raw_varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for at in 0..10 {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7F).checked_shl(7 * at)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_is_written_as_the_guide_says() {
        let mut message = Message::default();
        message.varint(1, 150);
        message.text(2, "testing");
        message.message(3, |inner| inner.varint(1, 150));
        message.fixed32(4, 1);
        message.packed64(5, [1]);
        let expected = [
            &[0x08, 0x96, 0x01][..],
            &[0x12, 0x07],
            b"testing",
            &[0x1A, 0x03, 0x08, 0x96, 0x01],
            &[0x25, 1, 0, 0, 0],
            &[0x2A, 8, 1, 0, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(message.into_bytes(), expected.concat());
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(number in any::<u64>(), bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut message = Message::default();
            message.varint(1, number);
            message.bytes(2, &bytes);
            message.double(3, 0.5);
            let written = message.into_bytes();
            let read: Vec<_> = Fields(&written).collect();
            prop_assert_eq!(read, vec![(1, Field::Varint(number)), (2, Field::Bytes(&bytes)), (3, Field::Fixed)]);
        }

        #[test]
        fn any_bytes_are_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Fields(&bytes).count() <= bytes.len());
        }
    }
}
