//! Reads the fields of a protobuf message, one after the other, out of its bytes.
//!
//! <https://protobuf.dev/programming-guides/encoding/>
//!
//! ```text
//! message = *( tag value )        ; tag: a varint of field number << 3 | wire type
//! value   = varint / 8OCTET / length *OCTET / 4OCTET      ; wire types 0, 1, 2, 5
//! ```

/// The value of a field, by its wire type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// What is left of a message. Iterates over numbers and values of its fields, in their order, and
/// ends at the first that breaks the grammar. A number above 255, which nothing here has, is 0.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u8, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let field = self.read();
        if field.is_none() {
            self.0 = &[];
        }
        field
    }
}

impl<'a> Fields<'a> {
    fn read(&mut self) -> Option<(u8, Value<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(len)?;
                self.0 = rest;
                Value::Bytes(bytes)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return None,
        };
        Some((u8::try_from(tag >> 3).unwrap_or_default(), value))
    }

    /// Returns the value of the next field that has this number and is bytes.
    #[inline(never)]
    pub fn next_bytes(&mut self, number: u8) -> Option<&'a [u8]> {
        self.find_map(|field| match field {
            (found, Value::Bytes(bytes)) if found == number => Some(bytes),
            _ => None,
        })
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(message: &[u8], expected: &[(u8, Value<'_>)]) {
        assert_eq!(Fields(message).collect::<Vec<_>>(), expected, "{message:x?}");
    }

    #[test]
    fn fields_come_in_their_order() {
        check(b"", &[]);
        check(b"\x08\x96\x01\x12\x02hi", &[(1, Value::Varint(150)), (2, Value::Bytes(b"hi"))]);
        check(b"\x0d\x01\0\0\0", &[(1, Value::Fixed32(1))]);
        check(b"\x09\x01\0\0\0\0\0\0\0", &[(1, Value::Fixed64(1))]);
        check(b"\x82\x01\0", &[(16, Value::Bytes(b""))]);
        check(b"\x88\x10\0", &[(0, Value::Varint(0))]);
        let most = b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        check(most, &[(1, Value::Varint(u64::MAX))]);
    }

    #[test]
    fn what_breaks_the_grammar_ends_the_message() {
        for (rest, reason) in [
            (&b"\x80"[..], "a tag that does not end"),
            (b"\x08", "no value"),
            (b"\x08\xff", "a varint that does not end"),
            (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "a varint of eleven bytes"),
            (b"\x12\x03hi", "a length beyond the message"),
            (b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "a length beyond memory"),
            (b"\x0d\x01\0\0", "three bytes of four"),
            (b"\x09\x01\0\0\0\0\0\0", "seven bytes of eight"),
            (b"\x0b", "a group"),
            (b"\x0f", "a wire type that does not exist"),
        ] {
            let message = [b"\x08\x01", rest].concat();
            let found: Vec<_> = Fields(&message).collect();
            assert_eq!(found, [(1, Value::Varint(1))], "{reason}: {rest:x?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(message: Vec<u8>) {
            prop_assert!(Fields(&message).count() <= message.len());
        }
    }
}
