//! Conditions on strings and headers, compiled once.

use memchr::memmem::Finder;
use regex_lite::Regex;

use crate::head::Head;

/// One condition on a string of bytes.
#[derive(Debug, Clone)]
pub struct StringMatch {
    pub kind: StringMatchKind,
    /// ASCII letters match in either case.
    pub ignore_case: bool,
}

#[derive(Debug, Clone)]
pub enum StringMatchKind {
    Exact(Vec<u8>),
    Prefix(Vec<u8>),
    Suffix(Vec<u8>),
    /// See [`StringMatch::contains`].
    Contains(Box<Finder<'static>>),
    /// Anchored at both ends.
    Regex(Regex),
}

impl StringMatch {
    /// Returns the condition that a value contains a pattern. Searching takes time in proportion to
    /// the length of the value, whatever the two are: clients choose the value.
    pub fn contains(pattern: &[u8], ignore_case: bool) -> Self {
        // Values are searched in lower case too.
        let lower_case = ignore_case.then(|| pattern.to_ascii_lowercase());
        let pattern = Finder::new(lower_case.as_deref().unwrap_or(pattern)).into_owned();
        Self { kind: StringMatchKind::Contains(Box::new(pattern)), ignore_case }
    }

    /// Tells whether the condition holds. A value that is not UTF-8, or longer than
    /// [`MAX_REGEX_INPUT_BYTES`], matches no regular expression.
    pub fn matches(&self, value: &[u8]) -> bool {
        match &self.kind {
            StringMatchKind::Exact(pattern) => self.equal(value, pattern),
            StringMatchKind::Prefix(pattern) => {
                value.get(..pattern.len()).is_some_and(|start| self.equal(start, pattern))
            }
            StringMatchKind::Suffix(pattern) => value
                .len()
                .checked_sub(pattern.len())
                .and_then(|start| value.get(start..))
                .is_some_and(|end| self.equal(end, pattern)),
            StringMatchKind::Contains(pattern) if self.ignore_case => {
                pattern.find(&value.to_ascii_lowercase()).is_some()
            }
            StringMatchKind::Contains(pattern) => pattern.find(value).is_some(),
            StringMatchKind::Regex(regex) => {
                value.len() <= MAX_REGEX_INPUT_BYTES
                    && std::str::from_utf8(value).is_ok_and(|text| regex.is_match(text))
            }
        }
    }

    /// Tells whether the condition can be tried on the value at all.
    fn applies(&self, value: &[u8]) -> bool {
        !matches!(self.kind, StringMatchKind::Regex(_))
            || (value.len() <= MAX_REGEX_INPUT_BYTES && std::str::from_utf8(value).is_ok())
    }

    fn equal(&self, value: &[u8], pattern: &[u8]) -> bool {
        if self.ignore_case { value.eq_ignore_ascii_case(pattern) } else { value == pattern }
    }
}

/// One condition on the header lines of a name; it holds when it holds for any line.
#[derive(Debug, Clone)]
pub struct HeaderMatch {
    pub name: String,
    pub condition: HeaderCondition,
    pub invert: bool,
}

#[derive(Debug, Clone)]
pub enum HeaderCondition {
    Present(bool),
    Value(StringMatch),
    /// The token at this place is valid.
    Token(u32),
}

/// Which tokens of a request are valid: a bit for each place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ValidTokens(pub u64);

impl HeaderMatch {
    /// Tells whether the condition holds; an absent header has no value that could match. A value
    /// that no regular expression is tried on fails an inverted condition too: a client could
    /// otherwise meet it by sending one.
    pub fn matches(&self, head: &Head<'_>, tokens: ValidTokens) -> bool {
        let holds = match &self.condition {
            HeaderCondition::Token(place) => tokens.0 >> place & 1 == 1,
            HeaderCondition::Present(wanted) => head.first(&self.name).is_some() == *wanted,
            HeaderCondition::Value(value) => {
                if self.invert && !head.all(&self.name).all(|line| value.applies(line)) {
                    return false;
                }
                head.all(&self.name).any(|line| value.matches(line))
            }
        };
        holds != self.invert
    }
}

/// Tokens that a configuration may ask for: the bits of [`ValidTokens`].
pub const MAX_TOKENS: u32 = 64;

/// Longest value that is tried against a regular expression, in bytes: matching takes time in
/// proportion to it, and a client may send up to Envoy's limit of 60 KiB of headers.
pub const MAX_REGEX_INPUT_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exact(pattern: &str) -> StringMatchKind {
        StringMatchKind::Exact(pattern.as_bytes().to_vec())
    }

    #[track_caller]
    fn check(kind: StringMatchKind, ignore_case: bool, value: &[u8], expected: bool) {
        let condition = StringMatch { kind, ignore_case };
        assert_eq!(condition.matches(value), expected, "{condition:?} on {value:?}");
    }

    #[test]
    fn strings_match_by_kind() {
        use StringMatchKind::{Prefix, Suffix};
        check(exact("/a"), false, b"/a", true);
        check(exact("/a"), false, b"/A", false);
        check(exact("/a"), true, b"/A", true);
        check(exact("/a"), false, b"/a/", false);
        check(Prefix(b"/a".to_vec()), false, b"/ab", true);
        check(Prefix(b"/a".to_vec()), false, b"/", false);
        check(Prefix(b"/a".to_vec()), true, b"/AB", true);
        check(Suffix(b".css".to_vec()), false, b"/x.css", true);
        check(Suffix(b".css".to_vec()), false, b"css", false);
        check(Suffix(b".css".to_vec()), true, b"/x.CSS", true);
    }

    #[track_caller]
    fn check_contains(pattern: &[u8], ignore_case: bool, value: &[u8], expected: bool) {
        let condition = StringMatch::contains(pattern, ignore_case);
        assert_eq!(condition.matches(value), expected, "{condition:?} on {value:?}");
    }

    #[test]
    fn values_contain_patterns_in_their_case_or_in_any() {
        check_contains(b"b", false, b"abc", true);
        check_contains(b"b", false, b"aBc", false);
        check_contains(b"b", false, b"", false);
        check_contains(b"", false, b"", true);
        check_contains(b"", true, b"a", true);
        check_contains(b"\xff", false, b"a\xff", true);
        check_contains(b"BC", true, b"abcd", true);
        check_contains(b"bc", true, b"ABCD", true);
        check_contains(b"bd", true, b"ABCD", false);
        check_contains(b"abcd", true, b"abc", false);
        // Letters beyond ASCII have one case.
        check_contains("\u{e9}".as_bytes(), true, "\u{c9}".as_bytes(), false);
    }

    /// A search that compares at every position would compare a billion bytes here. The time is that
    /// of the two-way algorithm, which [`Finder`] uses: linear in the worst case.
    #[test]
    fn a_value_that_nearly_matches_everywhere_is_searched_by_a_finder() {
        let pattern = [vec![b'a'; 30_000], vec![b'b']].concat();
        for ignore_case in [false, true] {
            let condition = StringMatch::contains(&pattern, ignore_case);
            assert!(!condition.matches(&[b'a'; 60_000]));
            assert!(condition.matches(&[&[b'a'; 30_000], pattern.as_slice()].concat()));
        }
    }

    proptest! {
        #[test]
        fn patterns_are_found_as_by_looking_everywhere(
            pattern in "[abAB]{0,4}", value in "[abAB]{0,12}", ignore_case: bool,
        ) {
            let found = StringMatch::contains(pattern.as_bytes(), ignore_case);
            let lower = |text: &str| if ignore_case { text.to_ascii_lowercase() } else { text.into() };
            let expected = lower(&value).contains(&lower(&pattern));
            prop_assert_eq!(found.matches(value.as_bytes()), expected);
        }
    }

    #[test]
    fn regular_expressions_need_utf8_of_bounded_length() {
        let regex = || StringMatchKind::Regex(Regex::new("^(?:a+)$").unwrap());
        check(regex(), false, b"aaa", true);
        check(regex(), false, b"aab", false);
        check(regex(), false, b"aa\xff", false);
        check(regex(), false, &vec![b'a'; MAX_REGEX_INPUT_BYTES], true);
        check(regex(), false, &vec![b'a'; MAX_REGEX_INPUT_BYTES + 1], false);
    }

    #[test]
    fn headers_match_by_any_line_and_by_presence() {
        let head = Head::new(vec![(b"x", b"1"), (b"x", b"2"), (b"empty", b""), (b"raw", b"\xff")]);
        let value = |name: &str, value: &str, invert| HeaderMatch {
            name: name.to_owned(),
            condition: HeaderCondition::Value(StringMatch {
                kind: exact(value),
                ignore_case: false,
            }),
            invert,
        };
        let regex = |name: &str, invert| HeaderMatch {
            name: name.to_owned(),
            condition: HeaderCondition::Value(StringMatch {
                kind: StringMatchKind::Regex(Regex::new("^(?:a+)$").unwrap()),
                ignore_case: false,
            }),
            invert,
        };
        let present = |name: &str, wanted, invert| HeaderMatch {
            name: name.to_owned(),
            condition: HeaderCondition::Present(wanted),
            invert,
        };
        for (condition, expected) in [
            (value("x", "1", false), true),
            (value("x", "2", false), true),
            (value("x", "3", false), false),
            (value("x", "3", true), true),
            (value("absent", "", false), false),
            (value("absent", "1", true), true),
            (value("empty", "", false), true),
            (regex("x", true), true),
            (regex("raw", false), false),
            (regex("raw", true), false),
            (present("x", true, false), true),
            (present("x", false, false), false),
            (present("absent", false, false), true),
            (present("absent", true, true), true),
        ] {
            assert_eq!(condition.matches(&head, ValidTokens(1)), expected, "{condition:?}");
        }
    }
}
