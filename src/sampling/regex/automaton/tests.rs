use proptest::prelude::*;
use regex::bytes::RegexBuilder;

use super::testing::any_pattern;
use super::*;

/// Compiles the pattern with the `regex` crate, for bytes and ASCII, as a match of the whole value.
fn reference(pattern: &str, ignore_case: bool) -> Option<regex::bytes::Regex> {
    // The pattern must be valid without the anchors too: `a)|(b` is not.
    let build = |pattern: &str| {
        RegexBuilder::new(pattern).unicode(false).case_insensitive(ignore_case).build().ok()
    };
    build(pattern)?;
    build(&format!(r"\A(?:{pattern})\z")).or_else(|| build(&format!("\\A(?:{pattern}\n)\\z")))
}

#[track_caller]
fn check(pattern: &str, value: &str, expected: bool) {
    let regex = Regex::new(pattern, false).unwrap();
    assert_eq!(regex.is_match(value.as_bytes()), expected, "{pattern} on {value:?}");
    let known = reference(pattern, false).unwrap();
    assert_eq!(known.is_match(value.as_bytes()), expected, "regex: {pattern} on {value:?}");
}

#[test]
fn the_whole_value_must_match() {
    check("", "", true);
    check("", "a", false);
    check("a|b", "b", true);
    check("a|b", "ab", false);
    check("a|", "", true);
    check("(a|b)*c", "ababc", true);
    check("/items/[0-9]+", "/items/42", true);
    check("/items/[0-9]+", "/items/42/", false);
    check("a{2,3}", "a", false);
    check("a{2,3}", "aaa", true);
    check("a{2,3}", "aaaa", false);
    check("a{2}", "aa", true);
    check("a{2,}", "aaaaa", true);
    check("(a{1,2}){2}", "aaa", true);
    check("(a*)*", "aaaa", true);
    check("(|a)+", "aa", true);
    check("a*?b+?c??", "aabb", true);
    check(".*(bot|crawler|spider).*", "Googlebot/2.1", true);
    check(".*(bot|crawler|spider).*", "Mozilla/5.0", false);
    check(".", "\n", false);
    check("(?s).", "\n", true);
    check("é", "é", true);
    check("[^/]+", "é", true);
}

#[test]
fn classes_and_escapes_match_their_bytes() {
    check(r"\d\D\s\S\w\W", "1a a_-", true);
    check(r"[\d_-]+", "1_-", true);
    check("[]a]+", "]a", true);
    check("[^]a]", "b", true);
    check("[a-]", "-", true);
    check("[[:alpha:][:digit:]]+", "a1", true);
    check("[[:^alpha:]]", "a", false);
    check(r"\x41\x{42}\.\/\n", "AB./\n", true);
    check(r"[\x41-\x43\]]+", "ABC]", true);
}

#[test]
fn flags_apply_until_their_group_ends() {
    check("(?i)abc", "aBC", true);
    check("(?i:a)b", "AB", false);
    check("(?i:a)b", "Ab", true);
    check("((?i)a)b", "AB", false);
    check("(?i)a(?-i)b", "AB", false);
    check("(?i)[a-b]", "B", true);
    check("(?is)a.", "A\n", true);
    check("(?U)a+", "aa", true);
    check("(?x) a b # comment\n c", "abc", true);
    check("(?x)a#", "a", true);
    check(r"(?x)a\ b", "a b", true);
    check("(?P<name>a)(?<other>b)", "ab", true);
}

#[test]
fn assertions_look_at_the_bytes_before_and_after() {
    check("^a$", "a", true);
    check("a^b", "ab", false);
    check("(^|a)b", "ab", true);
    check("(?m)a$\n^b", "a\nb", true);
    check("a$\n^b", "a\nb", false);
    check(r".*\bbot\b.*", "a bot here", true);
    check(r".*\bbot\b.*", "robots", false);
    check(r"a\Bb", "ab", true);
    check(r"\Aa\z", "a", true);
}

/// In the mode `(?x)` a comment ends at the end of its line.
#[test]
fn comments_are_skipped() {
    check("(?x) a | b # either (one", "b", true);
    check("(?x)a # first\n b # second", "ab", true);
    check("(?x)#", "", true);
    check("(?x)#", "\n", false);
    check("(?mx)a$#", "a", true);
    check("(?x:a) #", "a #", true);
    check("(?-x)a#", "a#", true);
}

#[test]
fn invalid_patterns_are_refused() {
    for pattern in [
        "(",
        ")",
        "a)|(b",
        "*",
        "a|*",
        "a{2,1}",
        "a{",
        "a{,2}",
        "a{x}",
        "[",
        "[]",
        "[b-a]",
        "[a",
        r"\",
        r"\q",
        r"\x4",
        r"\x{110000}",
        "(?",
        "(?z)",
        "(?P<>a)",
        "(?P<1>a)",
        "(?=a)",
        "(?i-)",
        r"(a)\1",
        "[[:no:]]",
        "[é]",
        "[a-é]",
        "[a[b]]",
        r"\pL",
        r"[\b]",
    ] {
        assert_eq!(Regex::new(pattern, false).unwrap_err(), Invalid::Syntax, "{pattern}");
    }
}

#[test]
fn patterns_with_too_large_automata_are_refused() {
    for pattern in [
        "(a{100}){100}",
        "((a{1000}){1000}){1000}",
        "(((){1000}){1000}){1000}",
        "a{4294967295}",
        ".*a.{20}",
        &"(".repeat(100),
    ] {
        assert_eq!(Regex::new(pattern, false).unwrap_err(), Invalid::TooLarge, "{pattern}");
    }
    // Patterns of the size that people use are not refused.
    for pattern in ["(a{1,50}){1,8}b", "[a-z0-9-]{1,63}(\\.[a-z0-9-]{1,63}){1,8}", ".*a.{6}"] {
        Regex::new(pattern, false).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn patterns_match_what_the_regex_crate_matches(
        pattern in any_pattern(),
        values in prop::collection::vec("[abAB_\n-]{0,6}", 8),
        ignore_case: bool,
    ) {
        let found = Regex::new(&pattern, ignore_case).unwrap();
        let known = reference(&pattern, ignore_case).unwrap();
        for value in values {
            let value = value.as_bytes();
            prop_assert_eq!(found.is_match(value), known.is_match(value), "{:?} on {:?}", pattern, value);
        }
    }

    #[test]
    fn texts_that_both_accept_match_the_same(pattern in "[ab()\\[\\]{}*+?|^$.,\\\\0-9:<>P=i-]{0,16}") {
        // For the crate, these are the ends of a word; for RE2, which Envoy has, an angle bracket.
        prop_assume!(!pattern.contains(r"\<") && !pattern.contains(r"\>"));
        if let Ok(found) = Regex::new(&pattern, false) {
            let known = reference(&pattern, false);
            if let Some(known) = known {
                prop_assert_eq!(found.is_match(b"ab"), known.is_match(b"ab"), "{}", pattern);
            }
        }
    }
}
