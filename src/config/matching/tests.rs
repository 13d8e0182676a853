use proptest::prelude::*;

use super::*;
use crate::config::testing::{check_refused, rule};

#[test]
fn wrong_conditions_are_refused_with_their_path() {
    let kinds = "one of `exact`, `prefix`, `suffix`, `contains`, `regex`";
    let valid = "a valid regular expression";
    let several = "`present`, `token` or a condition on the value";
    let name = "the name of a header";
    let stripped = "a header that a request can do without and that holds no context";
    for (members, path, findings) in [
        (r#""path": {"regex": "("}"#, "path.regex", [valid, "found \"(\""]),
        (r#""path": [{"regex": "a)|(b"}]"#, "path[0].regex", [valid, "found \"a)|(b\""]),
        (
            r#""path": [{"regex": "(a{1000}){1000}"}]"#,
            "path[0].regex",
            [valid, "found \"(a{1000}){1000}\""],
        ),
        (r#""path": ["/a"]"#, "path[0]", ["an object", "found a string"]),
        (r#""path": "/a""#, "path", ["an object", "found a string"]),
        (r#""path": []"#, "path", ["at least one", "an empty array"]),
        (r#""path": null"#, "path", ["an object", "found null"]),
        (r#""path": [[{"exact": "/"}]]"#, "path[0]", ["an object", "found an array"]),
        (r#""path": [{}]"#, "path[0]", [kinds, "none of them"]),
        (r#""path": {"ignore_case": true}"#, "path", [kinds, "none of them"]),
        (
            r#""path": [{"exact": "/", "prefix": "/"}]"#,
            "path[0]",
            [kinds, "both `exact` and `prefix`"],
        ),
        (
            r#""path": {"glob": "/*"}"#,
            "path.glob",
            [
                "a known key, one of `exact`, `prefix`, `suffix`, `contains`, `regex`, \
                 `ignore_case`, but",
                "found \"glob\"",
            ],
        ),
        (
            r#""path": {"exact": "/", "ignoreCase": true, "ignore_case": true}"#,
            "path.ignore_case",
            ["the key once", "it twice"],
        ),
        (r#""method": 1"#, "method", ["a method or an object", "found 1"]),
        (r#""method": ["GET", {"exact": 1}]"#, "method[1].exact", ["a string", "found 1"]),
        (r#""method": [{}]"#, "method[0]", [kinds, "none of them"]),
        (r#""headers": [{"exact": "1"}]"#, "headers[0].name", ["required", "none"]),
        (r#""headers": {"exact": "1"}"#, "headers.name", ["required", "none"]),
        (r#""headers": [{"name": "x y", "exact": "1"}]"#, "headers[0].name", [name, "\"x y\""]),
        (r#""headers": [{"name": "", "exact": "1"}]"#, "headers[0].name", [name, "\"\""]),
        (r#""headers": {"name": ":status", "exact": "1"}"#, "headers.name", [name, "\":status\""]),
        (r#""headers": {"name": "x", "exact": true}"#, "headers.exact", ["a string", "true"]),
        (r#""headers": {"name": "x", "regex": "["}"#, "headers.regex", [valid, "found \"[\""]),
        (
            r#""headers": {"name": "x"}"#,
            "headers",
            [
                "one of `exact`, `prefix`, `suffix`, `contains`, `regex`, `present`, `token`",
                "none of them",
            ],
        ),
        (r#""headers": {"name": "x", "ignore_case": true}"#, "headers", [kinds, "none of them"]),
        (
            r#""headers": {"name": "x", "present": true, "exact": "1"}"#,
            "headers",
            [several, "several of them"],
        ),
        (
            r#""headers": {"name": "x", "present": true, "ignoreCase": false}"#,
            "headers",
            [several, "several of them"],
        ),
        (
            r#""headers": [{"name": "x", "present": true, "token": {}}]"#,
            "headers[0]",
            [several, "several of them"],
        ),
        (
            r#""headers": {"name": "x", "exact": "1", "ignore_case": null}"#,
            "headers.ignore_case",
            ["true or false", "found null"],
        ),
        (
            r#""headers": {"name": "x", "equals": "1"}"#,
            "headers.equals",
            [
                "a known key, one of `name`, `present`, `invert`, `token`, `strip`, `exact`, \
                 `prefix`, `suffix`, `contains`, `regex`, `ignore_case`, but",
                "found \"equals\"",
            ],
        ),
        (
            r#""headers": {"name": "Baggage", "present": true, "strip": true}"#,
            "headers.name",
            [stripped, "\"baggage\""],
        ),
        (
            r#""headers": {"name": ":path", "present": true, "strip": true}"#,
            "headers.name",
            [stripped, "\":path\""],
        ),
    ] {
        let json = rule(&format!(r#""match": {{{members}}}"#));
        check_refused(&json, &format!("sampling.rules[1].match.{path}"), &findings);
    }
}

#[track_caller]
fn check_regex(pattern: &str, matching: &[&str], other: &[&str]) {
    let regex = regex(pattern, false).unwrap();
    for (text, expected) in
        matching.iter().map(|text| (text, true)).chain(other.iter().map(|text| (text, false)))
    {
        assert_eq!(regex.is_match(text), expected, "{pattern:?} on {text:?}");
    }
}

#[test]
fn regular_expressions_match_whole_values() {
    check_regex("a|b", &["a", "b"], &["ab", "xa", "bx", ""]);
    check_regex("a|ab", &["a", "ab"], &["abb"]);
    check_regex("", &[""], &["a", "\n"]);
    check_regex("a", &["a"], &["a\n", "\na", "b\na"]);
    check_regex("(?m)a", &["a"], &["a\n", "b\na"]);
    check_regex("(?m)a$", &["a"], &["a\n", "a\nb"]);
    check_regex("a#", &["a#"], &["a", "a#\n"]);
    check_regex("a\\)", &["a)"], &["a"]);
    check_regex("[)(]", &["(", ")"], &["()"]);
    check_regex("(?-x)a#", &["a#"], &["a", "a#\n"]);
    check_regex("(?x:a) #", &["a #"], &["a", "a #\n"]);
}

/// In the mode `(?x)` a comment reaches to the end of its line.
#[test]
fn regular_expressions_may_end_in_a_comment() {
    check_regex("(?x)a#", &["a"], &["a\n", "a#", "b", ""]);
    check_regex("(?x) a | b # either (one", &["a", "b"], &["ab", "xa", "b\n", " a "]);
    check_regex("(?x)a # first\n b # second", &["ab"], &["a", "ab\n"]);
    check_regex("(?x)#", &[""], &["a", "\n"]);
    check_regex("(?x)a\\ #", &["a "], &["a", "a \n"]);
    check_regex("(?mx)a$#", &["a"], &["a\n", "a\nb"]);
}

#[test]
fn regular_expressions_may_be_as_large_as_they_are_alone() {
    let nested = |depth| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
    check_regex(&nested(MAX_REGEX_DEPTH as usize), &["a"], &["aa"]);
    assert!(regex(&nested(MAX_REGEX_DEPTH as usize + 1), false).is_err());
    let alone =
        |pattern: &str| RegexBuilder::new(pattern).size_limit(MAX_REGEX_BYTES).build().is_ok();
    let largest = (1..10_000).rev().find(|len| alone(&"a".repeat(*len))).unwrap();
    check_regex(&"a".repeat(largest), &[&"a".repeat(largest)], &["a"]);
    assert!(regex(&"a".repeat(largest + 1), false).is_err());
}

proptest! {
    #[test]
    fn patterns_that_compile_alone_compile_anchored(pattern in "[-ab#()|?x:\\[\\]\\\\\n *+^$]{0,12}") {
        for pattern in [pattern.clone(), format!("(?x){pattern}")] {
            prop_assert_eq!(regex(&pattern, false).is_ok(), Regex::new(&pattern).is_ok());
        }
    }

    #[test]
    fn anchored_patterns_match_where_they_match_the_whole(
        pattern in "(\\(\\?x\\))?[ab#|\n ]{0,8}",
        text in "[ab#\n ]{0,4}",
    ) {
        // Of alternatives without anything to repeat, one is the whole value.
        let (verbose, alternatives) = match pattern.strip_prefix("(?x)") {
            Some(rest) => (true, rest),
            None => (false, pattern.as_str()),
        };
        let mut plain = String::new();
        for line in alternatives.split_inclusive('\n') {
            let code = if verbose { line.split('#').next().unwrap_or_default() } else { line };
            plain.extend(code.chars().filter(|char| !(verbose && char.is_whitespace())));
        }
        let expected = plain.split('|').any(|alternative| alternative == text);
        prop_assert_eq!(regex(&pattern, false).unwrap().is_match(&text), expected);
    }
}
