//! How a value is hidden and cut before it is recorded.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use crate::http::digits;
use crate::span::text::{first_chars, printable};

/// How a value is changed: it is redacted as a whole first, and cut then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Transformation {
    pub redact: Option<Redaction>,
    /// The most characters that are recorded.
    pub max_length: Option<u32>,
}

/// How a value is made unreadable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redaction {
    /// The first half of its SHA-256, in hex. Equal values have equal hashes.
    Hash,
    /// All characters except the last four are replaced by `*`, or all of them if there are fewer than eight.
    Mask,
}

impl Transformation {
    /// Returns the text to record, and whether it was cut. An empty value stays empty. A hash is over
    /// the bytes as they are; otherwise bytes that are not UTF-8, control characters and line
    /// separators become U+FFFD.
    pub fn apply<'v>(&self, value: &'v [u8]) -> (Cow<'v, str>, bool) {
        let text = match self.redact {
            _ if value.is_empty() => Cow::Borrowed(""),
            Some(Redaction::Hash) => Cow::Owned(hash(value)),
            Some(Redaction::Mask) => Cow::Owned(mask(&printable(value))),
            None => printable(value),
        };
        let Some(max_length) = self.max_length else {
            return (text, false);
        };
        let kept = first_chars(&text, max_length as usize);
        if kept.len() == text.len() { (text, false) } else { (Cow::Owned(kept.to_owned()), true) }
    }
}

fn hash(value: &[u8]) -> String {
    digits::hex(Sha256::digest(value).get(..HASH_BYTES).unwrap_or_default())
}

fn mask(text: &str) -> String {
    let chars = text.chars().count();
    let shown = if chars < MIN_PARTLY_MASKED { 0 } else { SHOWN };
    let mut masked = String::new();
    let mut left = chars;
    for char in text.chars() {
        masked.push(if left > shown { '*' } else { char });
        left -= 1;
    }
    masked
}

const HASH_BYTES: usize = 16;
const MIN_PARTLY_MASKED: usize = 8;
const SHOWN: usize = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(redact: Option<Redaction>, max: Option<u32>, value: &[u8], expected: (&str, bool)) {
        let transformation = Transformation { redact, max_length: max };
        let (text, cut) = transformation.apply(value);
        assert_eq!((text.as_ref(), cut), expected, "{value:?}");
    }

    /// The digests are those of `printf VALUE | sha256sum`.
    #[test]
    fn equal_values_have_equal_hashes() {
        let hash = Some(Redaction::Hash);
        check(hash, None, b"abc", ("ba7816bf8f01cfea414140de5dae2223", false));
        check(hash, None, b"\xff", ("a8100ae6aa1940d0b663bb31cd466142", false));
        check(hash, Some(4), b"abc", ("ba78", true));
        check(hash, Some(32), b"abc", ("ba7816bf8f01cfea414140de5dae2223", false));
        check(hash, None, b"", ("", false));
    }

    #[test]
    fn masks_show_the_last_four_of_at_least_eight_characters() {
        let mask = Some(Redaction::Mask);
        for (value, expected) in [
            ("4111111111111111", "************1111"),
            ("12345678", "****5678"),
            ("1234567", "*******"),
            ("a", "*"),
            ("", ""),
            ("ééééabcd", "****abcd"),
            ("éééabcd", "*******"),
        ] {
            check(mask, None, value.as_bytes(), (expected, false));
        }
        check(mask, None, b"\xff\xff\xff\xffabcd", ("****abcd", false));
        check(mask, Some(5), b"12345678", ("****5", true));
    }

    #[test]
    fn characters_that_break_a_line_are_replaced() {
        for value in ["a\nb", "a\0b", "a\x7fb", "a\u{85}b", "a\u{2028}b", "a\u{2029}b", "a\tb"] {
            check(None, None, value.as_bytes(), ("a\u{fffd}b", false));
            check(Some(Redaction::Mask), None, value.as_bytes(), ("***", false));
        }
        check(None, None, "é b".as_bytes(), ("é b", false));
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        check(None, Some(2), b"abc", ("ab", true));
        check(None, Some(2), "éàü".as_bytes(), ("éà", true));
        check(None, Some(3), "éàü".as_bytes(), ("éàü", false));
        check(None, Some(2), b"a\xffb", ("a\u{fffd}", true));
        check(None, None, b"a\xffb", ("a\u{fffd}b", false));
    }

    proptest! {
        #[test]
        fn redaction_hides_all_but_four_characters(value in "[a-z]{5,40}", hash: bool) {
            let redact = Some(if hash { Redaction::Hash } else { Redaction::Mask });
            let (text, _) = Transformation { redact, max_length: None }.apply(value.as_bytes());
            prop_assert!(!text.contains(&value[value.len() - 5..]));
        }
    }
}
