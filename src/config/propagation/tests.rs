use super::*;
use crate::config::testing::{check_refused, parse};
use crate::propagation::baggage;

#[test]
fn b3_has_two_encodings_and_other_formats_one() {
    let config = parse(
        r#"{"propagation": {
            "extract": ["b3multi", "jaeger", "b3", "xray"],
            "inject": ["datadog", "ottrace", "baggage", "grpc-trace-bin", "b3multi"]}}"#,
    );
    let read = vec![Format::B3Single, Format::B3Multi, Format::Jaeger, Format::XRay];
    let written = vec![Format::Datadog, Format::OtTrace, Format::GrpcTraceBin, Format::B3Multi];
    let propagation = config.unwrap().propagation;
    assert_eq!((propagation.extract, propagation.inject), (read, Some(written)));
}

#[test]
fn baggage_is_limited_where_a_limit_is_given() {
    for (limits, expected) in [
        ("{}", None),
        (r#"{"max_members": null}"#, None),
        (r#"{"max_members": 64}"#, Some((64, usize::MAX))),
        (r#"{"maxBytes": 9000}"#, Some((usize::MAX, 9000))),
        (r#"{"max_members": 65, "max_bytes": 8192}"#, Some((65, 8192))),
    ] {
        let config = parse(&format!(r#"{{"propagation": {{"baggage": {limits}}}}}"#)).unwrap();
        let limits = |(max_members, max_bytes)| baggage::Limits { max_members, max_bytes };
        assert_eq!(config.propagation.baggage, expected.map(limits));
    }
}

#[test]
fn wrong_propagation_is_refused_with_its_path() {
    let trust = "one of `accept`, `restart`, `ignore_flags`";
    let required = "a value, which is required";
    let formats = Format::ALL.map(|format| format!("`{}`, ", format.name())).concat();
    let names = format!("one of {formats}`baggage`, `none`");
    for (members, path, findings) in [
        (r#""extract": ["b3", "zipkin"]"#, "extract[1]", [names.as_str(), "found \"zipkin\""]),
        (r#""extract": ["B3"]"#, "extract[0]", ["one of `tracecontext`", "found \"B3\""]),
        (r#""inject": [{"b3": {}}]"#, "inject[0]", ["one of `tracecontext`", "an object"]),
        (r#""inject": "b3""#, "inject", ["an array", "found a string"]),
        (r#""inject": ["b3", "b3"]"#, "inject[1]", ["each format once", "found it again"]),
        (r#""inject": ["b3", "none"]"#, "inject", ["`none` alone or other formats", "found both"]),
        (r#""baggage": {"max_members": 63}"#, "baggage.max_members", ["from 64 up", "found 63"]),
        (r#""baggage": {"max_bytes": 8191}"#, "baggage.max_bytes", ["from 8192 up", "8191"]),
        (
            r#""baggage": {"max_entries": 64}"#,
            "baggage.max_entries",
            ["a known key, one of `max_members`, `max_bytes`, but", "found \"max_entries\""],
        ),
        (r#""trust": "never""#, "trust", [trust, "found \"never\""]),
        (r#""trust_rules": [{"match": {}}]"#, "trust_rules[0].trust", [required, "none"]),
        (r#""trustRules": {"trust": "accept"}"#, "trustRules", ["an array", "an object"]),
        (
            r#""trust_rules": [{"trust": "accept",
                "match": {"source_ranges": ["::1", "10.0.0.0/33"]}}]"#,
            "trust_rules[0].match.source_ranges[1]",
            ["an address range, such as 10.0.0.0/8 or fd00::/8", "found \"10.0.0.0/33\""],
        ),
        (
            r#""trust_rules": [{"trust": "accept", "match": {"source_ranges": 10}}]"#,
            "trust_rules[0].match.source_ranges",
            ["a string", "found 10"],
        ),
        (
            r#""trust_rules": [{"trust": "accept", "match": {"headers": [{"name": "a"}]}}]"#,
            "trust_rules[0].match.headers[0]",
            ["one of `exact`", "none of them"],
        ),
        (r#""egress": [{"authority": {"exact": "a"}}]"#, "egress[0].action", [required, "none"]),
        (
            r#""egress": [{"authority": [{}], "action": "strip"}]"#,
            "egress[0].authority[0]",
            ["one of `exact`, `prefix`, `suffix`, `contains`, `regex`", "none of them"],
        ),
        (
            r#""egress": [{"except": "a"}]"#,
            "egress[0].except",
            ["a known key, one of `authority`, `port`, `action`, but", "found \"except\""],
        ),
    ] {
        let json = format!(r#"{{"propagation": {{{members}}}}}"#);
        check_refused(&json, &format!("propagation.{path}"), &findings);
    }
}
