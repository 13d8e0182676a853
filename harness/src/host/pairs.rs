//! Pairs of byte strings as the ABI serialises them: header maps, maps and lists.
//!
//! ```text
//! pairs = count (name-size value-size){count} (name NUL value NUL){count}   ; sizes: u32 little endian
//! ```

/// Serialises pairs.
pub(crate) fn encode<N: AsRef<[u8]>, V: AsRef<[u8]>>(pairs: &[(N, V)]) -> Vec<u8> {
    let mut bytes = (pairs.len() as u32).to_le_bytes().to_vec();
    for (name, value) in pairs {
        bytes.extend((name.as_ref().len() as u32).to_le_bytes());
        bytes.extend((value.as_ref().len() as u32).to_le_bytes());
    }
    for (name, value) in pairs {
        for text in [name.as_ref(), value.as_ref()] {
            bytes.extend(text);
            bytes.push(0);
        }
    }
    bytes
}

/// Parses serialised pairs; no bytes at all are no pairs. `None` if sizes and bytes disagree.
pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let Some((count, rest)) = bytes.split_first_chunk() else {
        return bytes.is_empty().then(Vec::new);
    };
    let count = u32::from_le_bytes(*count) as usize;
    let (mut sizes, mut texts) = rest.split_at_checked(count.checked_mul(8)?)?;
    let mut pairs = Vec::with_capacity(count);
    for _ in 0..count {
        let name = take_text(&mut sizes, &mut texts)?;
        let value = take_text(&mut sizes, &mut texts)?;
        pairs.push((name, value));
    }
    Some(pairs)
}

/// Takes one size off `sizes`, and the NUL-terminated text of that size off `texts`.
fn take_text<'a>(sizes: &mut &[u8], texts: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (size, rest) = sizes.split_first_chunk()?;
    *sizes = rest;
    let (text, rest) = texts.split_at_checked(u32::from_le_bytes(*size) as usize)?;
    *texts = rest.strip_prefix(&[0])?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decode_returns_the_encoded_pairs() {
        let pairs: [(&[u8], &[u8]); 3] = [(b"b3", b"0"), (b"x", b""), (b"x", &[0xff, 0])];
        assert_eq!(decode(&encode(&pairs)).as_deref(), Some(pairs.as_slice()));
        assert_eq!(decode(&[]), Some(vec![]));
    }

    #[test]
    fn truncated_and_overlong_pairs_are_rejected() {
        let whole = encode(&[("b3", "0")]);
        for size in 1..whole.len() {
            assert_eq!(decode(&whole[..size]), None, "first {size} bytes");
        }
        assert_eq!(decode(&[0xff; 12]), None, "more pairs than bytes");
    }
}
