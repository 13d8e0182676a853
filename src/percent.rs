//! Percent-encoding: <https://www.rfc-editor.org/rfc/rfc3986#section-2.1>.
//!
//! ```text
//! pct-encoded = "%" HEXDIG HEXDIG     ; in either case
//! ```

use std::borrow::Cow;

/// Returns the bytes that an encoded text stands for. They need not be UTF-8; a `%` without two
/// hex digits after it stands for itself.
pub fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let encoded = match rest {
            [b'%', high, low, after @ ..] => pair(*high, *low).map(|byte| (byte, after)),
            _ => None,
        };
        let (byte, after) = encoded.unwrap_or((*first, after));
        bytes.push(byte);
        rest = after;
    }
    Cow::Owned(bytes)
}

fn pair(high: u8, low: u8) -> Option<u8> {
    let digit = |byte| char::from(byte).to_digit(16);
    Some((digit(high)? << 4 | digit(low)?) as u8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[u8]) {
        assert_eq!(&*decoded(text.as_bytes()), expected, "{text:?}");
    }

    #[test]
    fn pairs_of_hex_digits_are_decoded() {
        check("", b"");
        check("plain", b"plain");
        check("a%20b", b"a b");
        check("%C3%a9", "é".as_bytes());
        check("%2541", b"%41");
        check("%ff", b"\xff");
    }

    #[test]
    fn what_is_no_encoding_stands_for_itself() {
        check("%", b"%");
        check("100%", b"100%");
        check("%4", b"%4");
        check("%g0", b"%g0");
        check("%+1", b"%+1");
        check("%%41", b"%A");
        check("a+b", b"a+b");
    }

    proptest! {
        #[test]
        fn every_byte_comes_back(bytes: Vec<u8>) {
            let text: String = bytes.iter().map(|byte| format!("%{byte:02X}")).collect();
            prop_assert_eq!(&*decoded(text.as_bytes()), bytes.as_slice());
        }

        #[test]
        fn no_bytes_panic(text: Vec<u8>) {
            prop_assert!(decoded(&text).len() <= text.len());
        }
    }
}
