//! Conditions on strings and headers, compiled once.

use std::cell::Cell;

use memchr::memmem::Finder;

use crate::head::Head;
use crate::regex::Regex;

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
    /// The whole value matches.
    Regex(Box<Regex>),
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

    /// Tells whether the condition holds, or that the budget is too small to find out.
    pub fn matches(&self, value: &[u8], budget: &SearchBudget) -> Result<bool, Exceeded> {
        Ok(match &self.kind {
            StringMatchKind::Exact(pattern) => self.equal(value, pattern),
            StringMatchKind::Prefix(pattern) => {
                value.get(..pattern.len()).is_some_and(|start| self.equal(start, pattern))
            }
            StringMatchKind::Suffix(pattern) => value
                .len()
                .checked_sub(pattern.len())
                .and_then(|start| value.get(start..))
                .is_some_and(|end| self.equal(end, pattern)),
            StringMatchKind::Contains(pattern) => {
                budget.take(value.len())?;
                if self.ignore_case {
                    pattern.find(&value.to_ascii_lowercase()).is_some()
                } else {
                    pattern.find(value).is_some()
                }
            }
            StringMatchKind::Regex(regex) => {
                budget.take(value.len())?;
                regex.is_match(value)
            }
        })
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
    /// Tells whether the condition holds; an absent header has no value that could match. Where the
    /// budget is too small to find out, it does not hold, inverted or not.
    pub fn matches(
        &self,
        head: &Head<'_>,
        tokens: ValidTokens,
        budget: &SearchBudget,
    ) -> Result<bool, Exceeded> {
        let holds = match &self.condition {
            HeaderCondition::Token(place) => tokens.0 >> place & 1 == 1,
            HeaderCondition::Present(wanted) => head.first(&self.name).is_some() == *wanted,
            HeaderCondition::Value(value) => {
                any(head.all(&self.name), |line| value.matches(line, budget))?
            }
        };
        Ok(holds != self.invert)
    }
}

/// Tells whether the condition holds for any of them; one that exceeds the budget ends the search.
pub fn any<T>(
    items: impl IntoIterator<Item = T>,
    mut condition: impl FnMut(T) -> Result<bool, Exceeded>,
) -> Result<bool, Exceeded> {
    for item in items {
        if condition(item)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The bytes of a request's values that `contains` and `regex` may still look through. It bounds the
/// work that many conditions on long headers make.
#[derive(Debug)]
pub struct SearchBudget(Cell<Option<usize>>);

/// The budget was too small for a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded;

impl Default for SearchBudget {
    fn default() -> Self {
        Self(Cell::new(Some(MAX_SEARCHED_BYTES)))
    }
}

impl SearchBudget {
    /// Takes so many bytes; what exceeds the budget leaves nothing of it.
    fn take(&self, bytes: usize) -> Result<(), Exceeded> {
        let left = self.0.get().and_then(|left| left.checked_sub(bytes + SEARCH_BYTES));
        self.0.set(left);
        left.map(drop).ok_or(Exceeded)
    }

    /// Leaves nothing of the budget.
    pub fn exceed(&self) {
        self.0.set(None);
    }

    /// Tells whether a search was left out.
    pub fn is_exceeded(&self) -> bool {
        self.0.get().is_none()
    }
}

/// Tokens that a configuration may ask for: the bits of [`ValidTokens`].
pub const MAX_TOKENS: u32 = 64;

/// Bytes that the conditions of one request search at most: as many as Envoy lets a request's headers
/// have by default, so that one condition may look through all of them.
pub const MAX_SEARCHED_BYTES: usize = 64 * 1024;
/// What a search costs however short the value is, in bytes of a value.
const SEARCH_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exact(pattern: &str) -> StringMatchKind {
        StringMatchKind::Exact(pattern.as_bytes().to_vec())
    }

    fn regex(pattern: &str) -> StringMatchKind {
        StringMatchKind::Regex(Box::new(Regex::new(pattern, false).unwrap()))
    }

    #[track_caller]
    fn check(kind: StringMatchKind, ignore_case: bool, value: &[u8], expected: bool) {
        let condition = StringMatch { kind, ignore_case };
        let found = condition.matches(value, &SearchBudget::default());
        assert_eq!(found, Ok(expected), "{condition:?} on {value:?}");
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
        let found = condition.matches(value, &SearchBudget::default());
        assert_eq!(found, Ok(expected), "{condition:?} on {value:?}");
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
            let found = |value: &[u8]| condition.matches(value, &SearchBudget::default()).unwrap();
            assert!(!found(&[b'a'; 60_000]));
            assert!(found(&[&[b'a'; 30_000], pattern.as_slice()].concat()));
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
            prop_assert_eq!(found.matches(value.as_bytes(), &SearchBudget::default()), Ok(expected));
        }
    }

    #[test]
    fn searches_end_where_the_budget_does() {
        let regex = StringMatch { kind: regex("a*"), ignore_case: false };
        let searches =
            [(regex, vec![b'a'; 1000]), (StringMatch::contains(b"a", true), vec![b'a'; 1000])];
        for (condition, value) in searches {
            let budget = SearchBudget::default();
            for _ in 0..MAX_SEARCHED_BYTES / (value.len() + SEARCH_BYTES) {
                assert_eq!(condition.matches(&value, &budget), Ok(true));
            }
            assert!(!budget.is_exceeded());
            assert_eq!(condition.matches(&value, &budget), Err(Exceeded));
            assert!(budget.is_exceeded());
            // What follows is not searched either, however short, and what is not searched is free.
            assert_eq!(condition.matches(b"a", &budget), Err(Exceeded));
            let exact = StringMatch { kind: exact("a"), ignore_case: false };
            assert_eq!(exact.matches(b"a", &budget), Ok(true));
        }
    }

    #[test]
    fn what_exceeds_the_budget_holds_in_no_way() {
        let line = vec![b'b'; MAX_SEARCHED_BYTES / 2 + 1];
        let head = Head::new(vec![(b"x", &line), (b"x", &line)]);
        for invert in [false, true] {
            let condition = HeaderMatch {
                name: "x".to_owned(),
                condition: HeaderCondition::Value(StringMatch {
                    kind: regex("a*"),
                    ignore_case: false,
                }),
                invert,
            };
            let found = condition.matches(&head, ValidTokens(0), &SearchBudget::default());
            assert_eq!(found, Err(Exceeded));
        }
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
                kind: self::regex("a+"),
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
            (regex("raw", true), true),
            (present("x", true, false), true),
            (present("x", false, false), false),
            (present("absent", false, false), true),
            (present("absent", true, true), true),
        ] {
            let found = condition.matches(&head, ValidTokens(1), &SearchBudget::default());
            assert_eq!(found, Ok(expected), "{condition:?}");
        }
    }
}
