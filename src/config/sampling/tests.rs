use super::RawMatch;
use crate::config::testing::{check_refused, fields, is_alias, parse, rule};
use crate::propagation::testing::head;
use crate::sampling::conditions::{Direction, MatchFacts};
use crate::sampling::search_budget::SearchBudget;

#[test]
fn wrong_sampling_is_refused_with_its_path() {
    let rate = "a number from 0.001 to 1000000";
    for (members, path, findings) in [
        (r#""ratio": 1.5"#, "ratio", ["a number from 0 to 1", "found 1.5"]),
        (r#""ratio": -0.5"#, "ratio", ["a number from 0 to 1", "found -0.5"]),
        (r#""ratio": "1""#, "ratio", ["a number", "found \"1\""]),
        (
            r#""export": {}"#,
            "export",
            [
                "a known key, one of `ratio`, `precision`, `rules`, `limit`, `export_on`, but",
                "found \"export\"",
            ],
        ),
        (r#""precision": 15"#, "precision", ["from 1 to 14", "found 15"]),
        (r#""precision": 0"#, "precision", ["from 1 to 14", "found 0"]),
        (r#""limit": {"per_second": 0}"#, "limit.per_second", [rate, "found 0"]),
        (r#""limit": {"perSecond": 1000001}"#, "limit.per_second", [rate, "found 1000001"]),
        (r#""limit": {"per_second": "10"}"#, "limit.per_second", ["a number", "found \"10\""]),
        (r#""limit": {}"#, "limit.per_second", ["a value, which is required", "found none"]),
    ] {
        let json = format!(r#"{{"sampling": {{{members}}}}}"#);
        check_refused(&json, &format!("sampling.{path}"), &findings);
    }
}

#[test]
fn wrong_rules_are_refused_with_their_path() {
    let whole = "a whole number from 1 to 1000000";
    for (member, path, findings) in [
        (
            r#""limits": {}"#,
            "limits",
            [
                "a known key, one of `name`, `match`, `decision`, `ratio`, `limit`, but",
                "found \"limits\"",
            ],
        ),
        (
            r#""decision": "sample""#,
            "decision",
            ["one of `force`, `drop`, `ignore`, `parent`", "found \"sample\""],
        ),
        (r#""decision": {"force": null}"#, "decision", ["one of `force`", "found an object"]),
        (
            r#""decision": "force", "ratio": 0.5"#,
            "ratio",
            ["no ratio (only the decision `parent` uses one)", "found one"],
        ),
        (r#""ratio": -1"#, "ratio", ["a number from 0 to 1", "found -1"]),
        (r#""limit": {"per_second": 1, "burst": 0}"#, "limit.burst", [whole, "found 0"]),
        (
            r#""decision": "drop", "limit": {"per_second": 1}"#,
            "limit",
            ["no limit (only the decisions `force` and `parent` use one)", "found one"],
        ),
        (
            r#""match": {"direction": "in"}"#,
            "match.direction",
            ["one of `inbound`, `outbound`", "found \"in\""],
        ),
        (r#""match": []"#, "match", ["an object", "found an array"]),
    ] {
        check_refused(&rule(member), &format!("sampling.rules[1].{path}"), &findings);
    }
}

#[test]
fn each_condition_decides_which_requests_a_rule_matches() {
    let request = head(&[
        (":method", "GET"),
        (":path", "/a"),
        (":scheme", "http"),
        (":authority", "shop:81"),
        ("x-a", "1"),
    ]);
    let facts = MatchFacts { direction: Some(Direction::Inbound), ..MatchFacts::default() };
    // A condition that the request meets, and one that it does not meet.
    let conditions = [
        ("path", r#"{"exact": "/a"}"#, r#"{"exact": "/b"}"#),
        ("method", r#""GET""#, r#""PUT""#),
        ("authority", r#"{"exact": "shop"}"#, r#"{"exact": "bank"}"#),
        ("port", "81", "80"),
        ("headers", r#"{"name": "x-a", "exact": "1"}"#, r#"{"name": "x-a", "exact": "2"}"#),
        ("direction", r#""inbound""#, r#""outbound""#),
    ];
    let mut keys = fields::<RawMatch>();
    keys.retain(|key| !is_alias(key));
    assert_eq!(conditions.map(|(key, ..)| key).to_vec(), keys);
    for (key, met, unmet) in conditions {
        for (condition, expected) in [(met, Some(0)), (unmet, None)] {
            let rule = format!(r#"{{"name": "a", "match": {{"{key}": {condition}}}}}"#);
            let config = parse(&format!(r#"{{"sampling": {{"rules": [{rule}]}}}}"#)).unwrap();
            let found = config.rules.first_match(&request, facts, &SearchBudget::default(), 0);
            assert_eq!(found.map(|(index, _)| index), expected, "{rule}");
        }
    }
}

#[test]
fn rules_with_the_same_name_or_label_are_refused() {
    let rules = |names: &str| format!(r#"{{"sampling": {{"rules": [{names}]}}}}"#);
    let other = "a name whose label in metrics no other rule has";
    for (names, path, findings) in [
        (r#"{}"#, "rules[0].name", ["a value, which is required", "none"]),
        (r#"{"name": ""}"#, "rules[0].name", ["a non-empty string", "found \"\""]),
        (
            r#"{"name": "a"}, {"name": "a"}"#,
            "rules[1].name",
            ["a name that no other rule has", "\"a\", which is the name of rules[0]"],
        ),
        (
            r#"{"name": "x"}, {"name": "a b"}, {"name": "a_b"}"#,
            "rules[2].name",
            [other, "\"a_b\", whose label \"a_b\" is also that of rules[1], \"a b\""],
        ),
        (
            r#"{"name": "größe"}, {"name": "gr..e"}, {"name": "gräße"}"#,
            "rules[2].name",
            [other, "\"gräße\", whose label \"gr__e\" is also that of rules[0], \"größe\""],
        ),
        (
            r#"{"name": "none"}"#,
            "rules[0].name",
            [
                "a name that is not reserved",
                "\"none\", which is reserved for requests that no rule decided",
            ],
        ),
    ] {
        check_refused(&rules(names), &format!("sampling.{path}"), &findings);
    }
    let valid = r#"{"name": "a b"}, {"name": "a-b"}, {"name": "a.b"}, {"name": "a/b"},
                   {"name": "A b"}, {"name": "None"}"#;
    assert_eq!(parse(&rules(valid)).unwrap().rules.iter().count(), 6);
}
