//! The wire format of protobuf, for fields with numbers below 16: their tags have one byte.
//!
//! <https://protobuf.dev/programming-guides/encoding/>

/// Returns how many bytes a length-delimited field takes, whose value takes `len`.
pub(crate) fn field_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

/// Returns how many bytes a varint takes.
pub(crate) fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

pub(crate) fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Writes the tag and the length of a field, whose value must follow.
pub(crate) fn put_len(bytes: &mut Vec<u8>, field: u8, len: usize) {
    bytes.push(len_tag(field));
    put_varint(bytes, len as u64);
}

pub(crate) fn put_bytes(bytes: &mut Vec<u8>, field: u8, value: &[u8]) {
    put_len(bytes, field, value.len());
    bytes.extend_from_slice(value);
}

pub(crate) fn put_fixed64(bytes: &mut Vec<u8>, field: u8, value: u64) {
    bytes.push(field << 3 | WIRE_FIXED64);
    bytes.extend_from_slice(&value.to_le_bytes());
}

/// Returns the tag of a length-delimited field.
pub(crate) const fn len_tag(field: u8) -> u8 {
    field << 3 | WIRE_LEN
}

/// Returns the tag of a field whose value is a varint.
pub(crate) const fn varint_tag(field: u8) -> u8 {
    field << 3 | WIRE_VARINT
}

/// Returns the bytes of the first `count` length-delimited fields.
pub(crate) fn first_fields(fields: &[u8], count: u32) -> &[u8] {
    let mut rest = fields;
    for _ in 0..count {
        rest = split_field(rest).map_or(&[], |(_, rest)| rest);
    }
    fields.get(..fields.len() - rest.len()).unwrap_or_default()
}

/// Splits off the first of several length-delimited fields. Returns its value, and the other fields.
pub(crate) fn split_field(fields: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_, mut rest) = fields.split_first()?;
    let len = prost::decode_length_delimiter(&mut rest).ok()?;
    rest.split_at_checked(len)
}

pub(crate) const WIRE_VARINT: u8 = 0;
pub(crate) const WIRE_FIXED64: u8 = 1;
pub(crate) const WIRE_LEN: u8 = 2;
pub(crate) const WIRE_FIXED32: u8 = 5;
