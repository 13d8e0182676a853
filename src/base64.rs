//! Base64: <https://www.rfc-editor.org/rfc/rfc4648#section-4>, and its URL-safe digits (section 5).
//!
//! ```text
//! base64 = *( 4digit ) [ 2digit [ "==" ] / 3digit [ "=" ] ]
//! digit  = ALPHA / DIGIT / "+" / "/"     ; six bits each; those that no byte needs are zero
//! url-safe digit = ALPHA / DIGIT / "-" / "_"
//! ```
//!
//! A decoder of our own, since the base64 crate takes 6 KiB of the module and this 1 KiB.

/// Returns what a text stands for, with its padding or without; none where it is no base64.
pub fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let digits = match text {
        [digits @ .., b'=', b'='] | [digits @ .., b'='] if text.len().is_multiple_of(4) => digits,
        digits => digits,
    };
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    let (mut bits, mut pending) = (0, 0);
    for digit in digits {
        bits = (bits << 6 | value(*digit)?) & 0xfff;
        pending += 6;
        if pending >= 8 {
            pending -= 8;
            bytes.push((bits >> pending) as u8);
        }
    }
    let rest = bits & ((1 << pending) - 1);
    (pending < 6 && rest == 0).then_some(bytes)
}

/// Returns what a text in URL-safe digits stands for, without padding; none for any other.
pub fn decoded_url_safe(text: &[u8]) -> Option<Vec<u8>> {
    let mut digits = Vec::with_capacity(text.len());
    for digit in text {
        digits.push(match digit {
            b'-' => b'+',
            b'_' => b'/',
            b'+' | b'/' | b'=' => return None,
            other => *other,
        });
    }
    decoded(&digits)
}

/// Returns bytes as base64 without padding.
pub fn encoded(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    let (mut bits, mut pending) = (0u32, 0);
    for byte in bytes {
        bits = (bits << 8 | u32::from(*byte)) & 0xffff;
        pending += 8;
        while pending >= 6 {
            pending -= 6;
            text.push(digit(bits >> pending & 63));
        }
    }
    if pending > 0 {
        text.push(digit(bits << (6 - pending) & 63));
    }
    text
}

fn value(digit: u8) -> Option<u32> {
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

fn digit(value: u32) -> u8 {
    let value = value as u8;
    match value {
        0..26 => b'A' + value,
        26..52 => b'a' + value - 26,
        52..62 => b'0' + value - 52,
        62 => b'+',
        _ => b'/',
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        let found = decoded(text.as_bytes());
        assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{text:?}");
    }

    #[test]
    fn texts_are_decoded_with_their_padding_or_without() {
        check("", Some(""));
        check("Zg==", Some("f"));
        check("Zg", Some("f"));
        check("Zm8=", Some("fo"));
        check("Zm8", Some("fo"));
        check("Zm9v", Some("foo"));
        check("Zm9vYmFy", Some("foobar"));
        check("fn5+Pz8/", Some("~~~???"));
    }

    #[test]
    fn what_is_no_base64_is_refused() {
        for text in [
            "=",
            "==",
            "===",
            "====",
            "Z",
            "Z===",
            "Zg=",
            "Zg===",
            "Zm8==",
            "Zm9v=",
            "Zm9v==",
            "Zm9v====",
            "Zh==",
            "Zh",
            "Zm9",
            "Zm=v",
            "=m9v",
            "Zm 9",
            "Zm9v\n",
            "Zm9-",
            "Zm9_",
            "Zm9v,Zm9v",
            "Zmé",
        ] {
            check(text, None);
        }
    }

    proptest! {
        #[test]
        fn bytes_come_back(bytes: Vec<u8>) {
            let mut text = encoded(&bytes);
            prop_assert_eq!(decoded(&text), Some(bytes.clone()));
            text.resize(text.len().next_multiple_of(4), b'=');
            prop_assert_eq!(decoded(&text), Some(bytes));
        }

        #[test]
        fn no_bytes_panic(text: Vec<u8>) {
            let _ = decoded(&text);
        }
    }
}
