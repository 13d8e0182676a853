use proptest::prelude::*;

use super::*;
use crate::sampling::search_budget::{BYTES_PER_SEARCH, MAX_SEARCHED_BYTES};

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
fn strings_match_by_the_kind_of_condition() {
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
fn patterns_are_found_in_their_case_or_in_any_case() {
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
    // Only ASCII letters match in either case.
    check_contains("\u{e9}".as_bytes(), true, "\u{c9}".as_bytes(), false);
}

/// A search that compares the pattern at every position would compare a billion bytes here. [`Finder`]
/// uses the two-way algorithm, which is linear in the worst case.
#[test]
fn a_value_that_nearly_matches_everywhere_is_searched_in_linear_time() {
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
    fn patterns_are_found_where_std_finds_them(
        pattern in "[abAB]{0,4}", value in "[abAB]{0,12}", ignore_case: bool,
    ) {
        let found = StringMatch::contains(pattern.as_bytes(), ignore_case);
        let lower = |text: &str| if ignore_case { text.to_ascii_lowercase() } else { text.into() };
        let expected = lower(&value).contains(&lower(&pattern));
        prop_assert_eq!(found.matches(value.as_bytes(), &SearchBudget::default()), Ok(expected));
    }
}

#[test]
fn no_value_is_searched_over_the_budget() {
    let regex = StringMatch { kind: regex("a*"), ignore_case: false };
    let searches =
        [(regex, vec![b'a'; 1000]), (StringMatch::contains(b"a", true), vec![b'a'; 1000])];
    for (condition, value) in searches {
        let budget = SearchBudget::default();
        for _ in 0..MAX_SEARCHED_BYTES / (value.len() + BYTES_PER_SEARCH) {
            assert_eq!(condition.matches(&value, &budget), Ok(true));
        }
        assert!(!budget.is_exceeded());
        assert_eq!(condition.matches(&value, &budget), Err(BudgetExceeded));
        assert!(budget.is_exceeded());
        // No further value is searched, however short. Conditions without a search cost nothing.
        assert_eq!(condition.matches(b"a", &budget), Err(BudgetExceeded));
        let exact = StringMatch { kind: exact("a"), ignore_case: false };
        assert_eq!(exact.matches(b"a", &budget), Ok(true));
    }
}

#[test]
fn a_header_over_the_budget_matches_neither_a_condition_nor_its_inversion() {
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
        assert_eq!(found, Err(BudgetExceeded));
    }
}

#[test]
fn headers_match_by_one_of_their_lines_or_by_presence() {
    let head = Head::new(vec![(b"x", b"1"), (b"x", b"2"), (b"empty", b""), (b"raw", b"\xff")]);
    let value = |name: &str, value: &str, invert| HeaderMatch {
        name: name.to_owned(),
        condition: HeaderCondition::Value(StringMatch { kind: exact(value), ignore_case: false }),
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
