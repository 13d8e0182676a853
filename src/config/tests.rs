use proptest::prelude::*;

use super::testing::{check_refused, fields, parse};
use super::*;
use crate::propagation::Format;
use crate::propagation::TrustAction;

#[test]
fn the_summary_has_rules_ratio_receiver_and_formats() {
    for (json, expected) in [
        (
            "{}",
            "0 rules, ratio 1; spans are not exported; contexts are read as tracecontext, b3, b3multi \
             and written as tracecontext",
        ),
        (
            r#"{"sampling": {"ratio": 0.05, "rules": [{"name": "a"}]},
                "propagation": {"extract": ["xray"], "inject": ["none"]},
                "exporter": {"otlp": {"cluster": "c", "compression": "gzip",
                    "headers": [{"name": "a", "literal": {"value": "secret"}}]}}}"#,
            "1 rule, ratio 0.05; spans go to cluster \"c\" by OTLP, http/protobuf, gzip; contexts are \
             read as xray and written as nothing",
        ),
        (
            r#"{"exporter": {"otlp": {"cluster": "c", "protocol": "grpc"}}}"#,
            "0 rules, ratio 1; spans go to cluster \"c\" by OTLP, grpc; contexts are read as \
             tracecontext, b3, b3multi and written as tracecontext",
        ),
    ] {
        assert_eq!(parse(json).unwrap().summary(), expected);
    }
}

#[test]
fn an_empty_configuration_is_valid() {
    for nothing in ["", " \n", "{}", r#"{"sampling": {}, "propagation": {}, "exporter": null}"#] {
        let config = parse(nothing).unwrap();
        let read = vec![Format::TraceContext, Format::B3Single, Format::B3Multi];
        assert_eq!(config.propagation.extract, read);
        assert_eq!(config.propagation.inject, Some(vec![Format::TraceContext]));
        assert_eq!(config.trust.default, TrustAction::Accept);
        assert_eq!(config.ratio, Ratio::new(1.0, 14).unwrap());
        assert_eq!(config.exporter, None);
    }
}

/// Compares whole messages; the other tests compare paths and parts of the reasons.
#[test]
fn errors_have_the_path_what_was_expected_and_what_was_found() {
    for (json, expected) in [
        ("[]", "expected an object, but found an array"),
        (r#""secret""#, "expected an object, but found a string"),
        (
            r#"{"responses": {}}"#,
            "responses: expected a known key, one of `service_name`, `resource_attributes`, \
             `propagation`, `sampling`, `custom_tags`, `allow_sensitive_headers`, \
             `attribute_limits`, `span`, `exporter`, `response`, `access_log`, but found \"responses\"",
        ),
        (
            r#"{"sampling": {"ratio": "all"}}"#,
            "sampling.ratio: expected a number, but found \"all\"",
        ),
        (
            r#"{"sampling": {"rules": [{"name": "a"}, {"decision": "drop"}]}}"#,
            "sampling.rules[1].name: expected a value, which is required, but found none",
        ),
        (
            r#"{"sampling": {"rules": [{"name": "a", "decision": "sample"}]}}"#,
            "sampling.rules[0].decision: expected one of `force`, `drop`, `ignore`, `parent`, but \
             found \"sample\"",
        ),
        (
            r#"{"sampling": {"rules": [{"name": "a", "match": {"headers": {"name": "x", "exact": 1}}}]}}"#,
            "sampling.rules[0].match.headers.exact: expected a string, but found 1",
        ),
        (
            r#"{"exporter": {"otlp": {"cluster": "c", "headers": "authorization=Bearer secret"}}}"#,
            "exporter.otlp.headers: expected an array, but found a string",
        ),
        (
            r#"{"exporter": {"otlp": {"cluster": "c", "timeout_ms": 1, "timeoutMs": 1}}}"#,
            "exporter.otlp.timeout_ms: expected the key once, in one spelling, but found it twice",
        ),
        (
            r#"{"exporter": {"otlp": {"cluster": "c", "timeoutMs": 1.5}}}"#,
            "exporter.otlp.timeoutMs: expected a whole number from 0 to 4294967295, but found 1.5",
        ),
        (
            r#"{"sampling": {"rules": [{"name": "a b"}, {"name": "a_b"}]}}"#,
            "sampling.rules[1].name: expected a name whose label in metrics no other rule has, but \
             found \"a_b\", whose label \"a_b\" is also that of rules[0], \"a b\"",
        ),
        (
            r#"{"resource_attributes": {"a.b": "c", "a.b": "d"}}"#,
            "resource_attributes.a.b: expected the key once, but found it twice at line 1 column 44",
        ),
        (
            r#"{"custom_tags": {"a": {"header": {"name": "cookie"}}}}"#,
            "custom_tags.a.header.name: expected a header without credentials, or one of \
             `allow_sensitive_headers`, but found \"cookie\"",
        ),
        (
            r#"{"service_name": "a"#,
            "service_name: expected JSON, but found an error: EOF while parsing a string at line 1 \
             column 19",
        ),
    ] {
        let error = parse(json).map(|_| json.to_owned()).unwrap_err();
        assert_eq!(error.to_string(), expected, "{json}");
    }
}

#[test]
fn wrong_values_are_refused_with_their_path() {
    for (json, path, findings) in [
        ("1.5", "", ["an object", "found a number"]),
        ("null", "", ["an object", "found null"]),
        (r#"{"service_name": 1}"#, "service_name", ["a string", "found 1"]),
        (r#"{"service_name": ""}"#, "service_name", ["a non-empty string", "found \"\""]),
        (
            r#"{"resource_attributes": {"a.b": true}}"#,
            "resource_attributes.a.b",
            ["a string", "found true"],
        ),
        (
            r#"{"resourceAttributes": "a=secret"}"#,
            "resourceAttributes",
            ["an object", "found a string"],
        ),
        (r#"{"resource_attributes": []}"#, "resource_attributes", ["an object", "an array"]),
        (r#"{"sampling": [0.5]}"#, "sampling", ["an object", "found an array"]),
        (r#"{"sampling": null}"#, "sampling", ["an object", "found null"]),
        (
            r#"{"allow_sensitive_headers": null}"#,
            "allow_sensitive_headers",
            ["an array", "found null"],
        ),
        (
            r#"{"allowSensitiveHeaders": [[]]}"#,
            "allowSensitiveHeaders[0]",
            ["a string", "found an array"],
        ),
        (
            r#"{"serviceName": "a", "service_name": "a"}"#,
            "service_name",
            ["the key once", "it twice"],
        ),
        (r#"{"service_name": "a", "service_name": "a"}"#, "service_name", ["once", "it twice"]),
        (r#"{"serviceNAME": "a"}"#, "serviceNAME", ["a known key", "found \"serviceNAME\""]),
        (r#"{"service\u0000": "a"}"#, "service\0", ["a known key", "found \"service\\0\""]),
    ] {
        check_refused(json, path, &findings);
    }
    let long = format!(r#"{{"{}": 1}}"#, "é".repeat(200));
    let start = "é".repeat(16);
    check_refused(&long, &format!("{start}…"), &[&format!("found \"{start}\"… (400 bytes)")]);
}

#[test]
fn no_secret_is_shown() {
    let config = r#"{
        "exporter": {"otlp": {"cluster": "c", "headers": [
            {"name": "a", "literal": {"value": "Bearer secret-1"}},
            {"name": "b", "environment": {"name": "SECRET"}},
            {"name": "c", "environment": {"name": "NONE", "default_value": "secret-3"}}]}},
        "sampling": {"rules": [{"name": "r", "match": {"headers": {"name": "x-t", "token":
            {"keys": [{"id": "k", "secret": "secret-4-89abcdef0123456789abcdef"},
                      {"id": "l", "environment": {"name": "SECRET"}}]}}}}]}}"#;
    let environment =
        |name: &str| (name == "SECRET").then(|| "secret-2-89abcdef0123456789abcdef".to_owned());
    let config = Config::parse(config.as_bytes(), &environment).unwrap();
    for shown in [format!("{config:?}"), format!("{:#?}", config.exporter.unwrap())] {
        assert!(!shown.contains("secret-"), "{shown}");
        // The bytes of "secret-", as `Debug` shows a vector of bytes.
        assert!(!shown.contains("115, 101, 99, 114, 101, 116"), "{shown}");
    }
}

/// A secret that was pasted in the wrong place is not shown whole.
#[test]
fn no_secret_in_the_wrong_place_is_shown() {
    let secret = "secret-4-89abcdef0123456789abcdef";
    for json in [
        r#"{"SECRET": 1}"#,
        r#"{"sampling": {"rules": [{"name": "r", "decision": "SECRET"}]}}"#,
        r#"{"exporter": {"otlp": {"cluster": "c", "headers": [{"name": "SECRET x", "literal": {"value": "a"}}]}}}"#,
        r#"{"exporter": {"otlp": {"cluster": "c", "headers": "SECRET"}}}"#,
        r#"{"custom_tags": [{"tag": "a", "request_header": {"name": "SECRET x"}}]}"#,
        r#"{"resource_attributes": {"SECRET": [1]}}"#,
        r#"{"propagation": {"extract": ["SECRET"]}}"#,
    ] {
        let json = json.replace("SECRET", secret);
        let error = Config::parse(json.as_bytes(), &|_| None).unwrap_err().to_string();
        assert!(!error.contains(secret), "{error}");
    }
}

#[test]
fn a_variable_with_a_secret_is_refused_in_tags_and_resource() {
    let environment =
        |name: &str| (name == "KEY").then(|| "0123456789abcdef0123456789abcdef".to_owned());
    let token = r#""sampling": {"rules": [{"name": "r", "match": {"headers": {"name": "x-t", "token":
        {"keys": [{"id": "k", "environment": {"name": "KEY"}}]}}}}]}"#;
    let exporter = r#""exporter": {"otlp": {"cluster": "c", "headers": [
        {"name": "x-token", "environment": {"name": "KEY"}}]}}"#;
    let tag = r#""custom_tags": [{"tag": "a", "environment": {"name": "KEY"}}]"#;
    let resource = r#""resource_attributes": {"a": {"environment": {"name": "KEY"}}}"#;
    let format = r#""custom_tags": [{"tag": "a", "value": "%ENVIRONMENT(KEY)%"}]"#;
    let name = r#""span": {"names": [{"name": "%ENVIRONMENT(KEY)%"}]}"#;
    for secret in [token, exporter] {
        for (public, path) in [
            (tag, "custom_tags[0].environment.name"),
            (format, "custom_tags[0].value"),
            (name, "span.names[0].name"),
            (resource, "resource_attributes.a.environment.name"),
        ] {
            let json = format!("{{{secret}, {public}}}");
            let error = Config::parse(json.as_bytes(), &environment).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{path}: ")), "{error}");
        }
    }
    let harmless = exporter.replace("x-token", "x-region");
    for rest in [String::new(), format!("{harmless}, ")] {
        let json = format!("{{{rest}{tag}, {resource}}}");
        assert!(Config::parse(json.as_bytes(), &environment).is_ok());
    }
}

/// The objects of the configuration, each with its keys and their aliases.
fn objects() -> Vec<(&'static str, Vec<&'static str>)> {
    vec![
        ("", fields::<RawConfig>()),
        ("propagation.", fields::<propagation::RawPropagation>()),
        ("propagation.baggage.", fields::<propagation::RawBaggage>()),
        ("propagation.trust_rules[].", fields::<propagation::RawTrustRule>()),
        ("propagation.trust_rules[].match.", fields::<propagation::RawTrustMatch>()),
        ("propagation.egress[].", fields::<propagation::RawEgressRule>()),
        ("sampling.", fields::<sampling::RawSampling>()),
        ("sampling.limit.", fields::<limit::RawLimit>()),
        ("sampling.export_on.", fields::<export_on::RawExportOn>()),
        ("sampling.rules[].", fields::<sampling::RawRule>()),
        ("sampling.rules[].match.", fields::<sampling::RawMatch>()),
        ("custom_tags[].", fields::<tags::RawCustomTag>()),
        ("custom_tags[].literal.", fields::<tags::source::RawLiteral>()),
        ("custom_tags[].request_header.", fields::<tags::source::RawRequestHeader>()),
        ("custom_tags[].environment.", fields::<tags::source::RawNamed>()),
        ("custom_tags[].property.", fields::<tags::source::RawProperty>()),
        ("custom_tags[].metadata.", fields::<tags::source::RawMetadata>()),
        ("custom_tags[].formatter.", fields::<tags::source::RawFormatter>()),
        ("attribute_limits.", fields::<attribute_limits::RawAttributeLimits>()),
        ("span.", fields::<span::RawSpan>()),
        ("span.names[].", fields::<span::RawName>()),
        ("span.redact_path[].", fields::<span::RawPathRedaction>()),
        ("access_log.", fields::<access_log::RawAccessLog>()),
        ("response.", fields::<response::RawResponse>()),
        ("exporter.", fields::<exporter::RawExporter>()),
        ("exporter.otlp.", fields::<exporter::RawOtlp>()),
        ("exporter.otlp.headers[].", fields::<exporter::RawExportHeader>()),
        ("exporter.otlp.headers[].literal.", fields::<exporter::RawSecretLiteral>()),
        ("exporter.otlp.headers[].environment.", fields::<exporter::RawSecretVariable>()),
        ("exporter.zipkin.", fields::<exporter::RawZipkin>()),
        ("exporter.batch.", fields::<queue::RawBatch>()),
        ("exporter.retry.", fields::<queue::RawRetry>()),
    ]
}

/// Objects that several keys share.
fn other_objects() -> Vec<(&'static str, Vec<&'static str>)> {
    vec![
        ("a string condition: ", fields::<matching::RawStringMatch>()),
        ("resource_attributes.*.", fields::<resource::RawResourceSource>()),
        ("a header condition: ", fields::<matching::RawHeaderMatch>()),
        ("token.", fields::<token::RawToken>()),
        ("token.keys[].", fields::<token::RawTokenKey>()),
        ("token.keys[].environment.", fields::<token::RawVariable>()),
        ("metadata.kind.", fields::<tags::source::RawMetadataKind>()),
        ("metadata.metadata_key.", fields::<tags::source::RawMetadataKey>()),
        ("metadata.metadata_key.path[].", fields::<tags::source::RawMetadataSegment>()),
    ]
}

fn is_alias(key: &str) -> bool {
    key.contains(|char: char| char.is_ascii_uppercase())
}

#[test]
fn every_key_of_several_words_may_be_written_in_camel_case() {
    for (prefix, fields) in objects().into_iter().chain(other_objects()) {
        let camel_case = |key: &str| {
            let mut words = key.split('_');
            let first = words.next().unwrap().to_owned();
            words.fold(first, |all, word| all + &word[..1].to_ascii_uppercase() + &word[1..])
        };
        for key in fields.iter().filter(|key| key.contains('_')) {
            assert!(fields.contains(&camel_case(key).as_str()), "{prefix}{key}");
        }
        let documented = fields.iter().filter(|key| !is_alias(key));
        let documented: Vec<_> = documented.map(|key| camel_case(key)).collect();
        for alias in fields.iter().filter(|key| is_alias(key)) {
            assert!(documented.iter().any(|key| key == alias), "{prefix}{alias}");
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = Config::parse(&bytes, &|_| None);
    }

    #[test]
    fn no_structure_panics(text in r#"[\[\]{}:,"a-z0-9. -]{0,40}"#) {
        let _ = parse(&text);
    }
}

#[test]
fn the_direction_is_needed_by_conditions_and_by_the_span_upstream() {
    for (json, is_needed) in [
        (r#"{"sampling": {"rules": [{"name": "a", "match": {"method": "GET"}}]}}"#, false),
        (r#"{"sampling": {"rules": [{"name": "a", "match": {"direction": "inbound"}}]}}"#, true),
        (
            r#"{"propagation": {"trust_rules": [{"match": {"direction": "inbound"}, "trust": "restart"}]}}"#,
            true,
        ),
        (r#"{"span": {"names": [{"match": {"direction": "inbound"}, "name": "a"}]}}"#, true),
        (r#"{"span": {"spawn_upstream_span": true}}"#, true),
    ] {
        assert_eq!(parse(json).unwrap().needs_direction(), is_needed, "{json}");
    }
}
