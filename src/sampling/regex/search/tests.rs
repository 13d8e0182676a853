use proptest::prelude::*;
use regex::bytes::RegexBuilder;

use super::*;
use crate::sampling::regex::automaton::testing::any_pattern;

fn found(pattern: &str, value: &[u8]) -> Vec<Range<usize>> {
    Search::new(pattern).unwrap().find_all(value, &SearchBudget::default()).unwrap()
}

/// Finds the matches by trying every start and every end with the `regex` crate.
fn reference(pattern: &str, value: &[u8]) -> Vec<Range<usize>> {
    let matches = |start: usize, end: usize| {
        let rest = value.len() - end;
        let whole = format!(r"\A(?s:.{{{start}}})(?:{pattern})(?s:.{{{rest}}})\z");
        RegexBuilder::new(&whole).unicode(false).build().unwrap().is_match(value)
    };
    let (mut found, mut start) = (Vec::new(), 0);
    while start < value.len() {
        match (start + 1..=value.len()).rev().find(|end| matches(start, *end)) {
            Some(end) => {
                found.push(start..end);
                start = end;
            }
            None => start += 1,
        }
    }
    found
}

#[track_caller]
fn check(pattern: &str, value: &str, expected: &[&str]) {
    let ranges = found(pattern, value.as_bytes());
    let texts: Vec<_> = ranges.iter().map(|range| &value[range.clone()]).collect();
    assert_eq!(texts, expected, "{pattern} in {value:?}");
    assert_eq!(reference(pattern, value.as_bytes()), ranges, "regex: {pattern} in {value:?}");
}

#[test]
fn all_matches_are_found_from_the_left() {
    check("[0-9]+", "/users/42/orders/7", &["42", "7"]);
    check("[0-9]+", "/users/ann", &[]);
    check("a", "", &[]);
    check("a", "aaa", &["a", "a", "a"]);
    check("/users/[^/]+", "/users/ann/cart", &["/users/ann"]);
    check("/users/[^/]+", "/users//users/ann", &["/users/ann"]);
    check("aba", "ababa", &["aba"]);
    check("é+", "/éé/é", &["éé", "é"]);
}

#[test]
fn each_match_is_as_long_as_possible() {
    check("a|ab|abc", "abcd", &["abc"]);
    check("a+?", "aaa", &["aaa"]);
    check("ab?", "ab", &["ab"]);
    check("a.*b", "a-b-b-", &["a-b-b"]);
    check("(?:ab)+", "abababa", &["ababab"]);
}

#[test]
fn empty_matches_do_not_count() {
    check("a*", "baab", &["aa"]);
    check("", "ab", &[]);
    check(r"\b", "ab", &[]);
    assert!(Search::new("a*").unwrap().matches_empty());
    assert!(Search::new("^").unwrap().matches_empty());
    assert!(!Search::new("a").unwrap().matches_empty());
}

#[test]
fn assertions_look_at_the_whole_value() {
    check("^/a", "/a/a", &["/a"]);
    check("/a$", "/a/a", &["/a"]);
    check(r"\Aa|a\z", "aba", &["a", "a"]);
    check(r"\b[0-9]+\b", "/7/a8/9b/10", &["7", "10"]);
    check(r"\B[0-9]", "/78/9", &["8"]);
    check("(?m)^a$", "a\nab\na", &["a", "a"]);
    check("(^|x)a", "axa", &["a", "xa"]);
}

/// `a|a.*b` reads the whole rest behind each `a`, so the budget must end it; other patterns stay within.
#[test]
fn the_budget_bounds_a_search() {
    let long = "a".repeat(1_024);
    let budget = SearchBudget::default();
    assert_eq!(
        Search::new("a|a.*b").unwrap().find_all(long.as_bytes(), &budget),
        Err(BudgetExceeded)
    );
    for pattern in ["a+b", "[a-z]{1,63}-", ".*b", "a{16}", "(a|aa)+b", "a+"] {
        let budget = SearchBudget::default();
        let found = Search::new(pattern).unwrap().find_all(long.as_bytes(), &budget);
        assert!(found.is_ok(), "{pattern}");
    }
}

#[test]
fn patterns_of_the_size_that_people_use_are_accepted() {
    for pattern in [
        "/users/[^/]+",
        "[0-9]{16}",
        "[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}",
        r"[\w.+-]+(@|%40)[\w-]+(\.[\w-]+)+",
        "/(account|orders|invoices)/[^/]+(/items/[0-9]+)?",
        "[A-Za-z0-9_-]{20,}\\.[A-Za-z0-9_-]{20,}\\.[A-Za-z0-9_-]{20,}",
    ] {
        assert!(Search::new(pattern).is_ok(), "{pattern}");
    }
    for (pattern, expected) in
        [("(", Invalid::Syntax), ("a{9999}", Invalid::TooLarge), ("a.{20}", Invalid::TooLarge)]
    {
        // Reading from the end, `.{20}` cannot know which of the last bytes are an `a`.
        let found = Search::new(&format!("{pattern}x")).map(|_| ()).unwrap_err();
        assert_eq!(found, expected, "{pattern}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn matches_are_those_of_the_regex_crate(
        pattern in any_pattern(),
        values in prop::collection::vec("[ab_\n-]{0,6}", 3),
    ) {
        let search = Search::new(&pattern).unwrap();
        for value in values {
            let found = search.find_all(value.as_bytes(), &SearchBudget::default()).unwrap();
            prop_assert_eq!(found, reference(&pattern, value.as_bytes()), "{:?} in {:?}", pattern, value);
        }
    }
}
