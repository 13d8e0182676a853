use super::*;

use std::collections::BTreeMap;

use opentelemetry::trace::{SpanId, SpanKind, Status, TraceFlags, TraceId};
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use crate::config::Config;
use crate::propagation::testing::head;
use crate::sampling::conditions::Direction;
use crate::span::cel;
use crate::span::encoding::{AttributeLimits, SpanFields, SpanIds};
use crate::span::tags::property::PropertySource;
use crate::span::tags::time;

/// Returns the attributes that these tags add to the span of one request.
fn recorded(tags: &str) -> BTreeMap<String, any_value::Value> {
    let environment = |name: &str| (name == "POD").then(|| "pod-1".to_owned());
    let json = format!(r#"{{"custom_tags": {tags}}}"#);
    let tags = Config::parse(json.as_bytes(), &environment).unwrap().span.tags;
    let request = head(&[
        (":path", "/cart?order=o%207&empty="),
        ("x-user", "ada"),
        ("x-empty", ""),
        ("cookie", "tier=gold"),
        ("baggage", "account=4711"),
    ]);
    let response = head(&[("x-order", "o-1"), ("x-empty", "")]);
    let trailers = head(&[("grpc-status", "5")]);
    let code = 404u64.to_le_bytes();
    let grpc_status = 5u64.to_le_bytes();
    let millis = 1_234_567_890u64.to_le_bytes();
    let flags = (1u64 << 8).to_le_bytes();
    let values: Vec<&[u8]> = tags
        .properties
        .sources()
        .iter()
        .map(|source| match source {
            PropertySource::Path(path) => path.replace('\0', "/"),
            PropertySource::Cel(expression) => expression.clone(),
        })
        .map(|source| match source.as_str() {
            "response/code" => code.as_slice(),
            "request/duration" => &millis,
            "response/flags" => &flags,
            "upstream/address" => b"10.0.0.1:80",
            "upstream/uri_san_local_certificate" => b"spiffe://mesh/caller",
            "upstream/uri_san_peer_certificate" => b"spiffe://mesh/called",
            "metadata/filter_metadata/a.b/c/d" => b"deep",
            "xds/upstream_host_metadata/filter_metadata/lb/canary" => &[1],
            "response/grpc_status" => &grpc_status,
            time::START_TIME => time::EXAMPLE,
            expression if expression == cel::text_of("1 + 1") => b"2",
            expression if expression.contains(r#"["shop.plan"]"#) => b"gold",
            expression if expression.contains("filter_state.peer.app") => b"cart",
            // A later filter has set it.
            "request/headers/x-user" => b"grace",
            _ => b"",
        })
        .collect();
    let values = tags.properties.values(Direction::Outbound, &values);
    let facts =
        EndFacts { is_grpc: true, response: &response, trailers: &trailers, properties: &values };
    let ids = SpanIds {
        trace_id: TraceId::from(1),
        span_id: SpanId::from(2),
        parent_span_id: None,
        parent_is_remote: true,
        flags: TraceFlags::SAMPLED,
        trace_state: b"",
    };
    let mut fields = SpanFields::start(ids, 1, AttributeLimits::default());
    let kept = tags.at_request(&mut fields.tags, &request);
    tags.at_end(&mut fields.tags, &kept, &facts);
    let encoded = fields.end(b"GET", &SpanKind::Client, 2, &Status::Unset);
    let span = Span::decode(encoded.bytes.as_slice()).unwrap();
    let pairs = span.attributes.into_iter();
    pairs.map(|pair| (pair.key, pair.value.unwrap().value.unwrap())).collect()
}

#[track_caller]
fn check_value(member: &str, expected: Option<any_value::Value>) {
    let found = recorded(&format!(r#"[{{"tag": "a", {member}}}]"#));
    let expected = expected.into_iter().map(|value| ("a".to_owned(), value)).collect();
    assert_eq!(found, expected, "{member}");
}

#[track_caller]
fn check(member: &str, expected: &str) {
    let text = any_value::Value::StringValue(expected.to_owned());
    check_value(member, (!expected.is_empty()).then_some(text));
}

#[test]
fn every_source_is_read() {
    check(r#""literal": {"value": "v"}"#, "v");
    check(r#""environment": {"name": "POD"}"#, "pod-1");
    check(r#""request_header": {"name": "X-User"}"#, "ada");
    check(r#""header": {"name": "x-user"}"#, "ada");
    check(r#""response_header": {"name": "x-order"}"#, "o-1");
    check(r#""response_trailer": {"name": "grpc-status"}"#, "5");
    check(r#""query_parameter": {"name": "order"}"#, "o 7");
    check(r#""cookie": {"name": "tier"}"#, "gold");
    check(r#""baggage": {"name": "account"}"#, "4711");
    check(r#""property": {"path": ["upstream", "address"]}"#, "10.0.0.1:80");
    check(r#""identity": "source""#, "spiffe://mesh/caller");
    check(r#""identity": "destination""#, "spiffe://mesh/called");
    check(
        r#""metadata": {"kind": {"request": {}},
            "metadataKey": {"key": "a.b", "path": [{"key": "c"}, {"key": "d"}]}}"#,
        "deep",
    );
    check(
        r#""metadata": {"kind": {"host": {}},
            "metadata_key": {"key": "lb", "path": [{"key": "canary"}]}}"#,
        "true",
    );
    let code = Some(any_value::Value::IntValue(404));
    check_value(r#""property": {"path": "response.code"}"#, code);
    check(r#""property": {"path": "response.code", "type": "string"}"#, "404");
}

#[test]
fn an_expression_that_has_no_value_makes_no_tag() {
    check(r#""cel": "1 + 1""#, "2");
    check(r#""cel": "1 + 1", "redact": "mask""#, "*");
    check(r#""cel": "request.headers['x-none']""#, "");
}

/// As in Envoy's access logs, but that request headers are read when the request arrives.
#[test]
fn commands_of_formats_have_values() {
    check(r#""value": "%PATH%""#, "/cart?order=o%207&empty=");
    check(r#""value": "%PATH(NQ)%""#, "/cart");
    check(r#""value": "%PATH(NQ:PATH):3%""#, "/ca");
    check(r#""value": "%PATH(WQ:ORIG)%""#, "");
    check(r#""value": "%PATH(:PATH)%", "read": "end""#, "");
    check(r#""value": "%REQ_WITHOUT_QUERY(X-NONE?:PATH):3%""#, "/ca");
    check(r#""value": "%QUERY_PARAM(order)%/%QUERY_PARAM(none)%""#, "o 7/");
    check(r#""value": "%QUERY_PARAM(order)%%RESPONSE_CODE%""#, "o 7404");
    check(r#""value": "%REQUEST_HEADER(x-user):2%""#, "ad");
    check(r#""value": "%GRPC_STATUS%""#, "NotFound");
    check(r#""value": "%GRPC_STATUS(SNAKE_STRING)%/%GRPC_STATUS(NUMBER)%""#, "NOT_FOUND/5");
    check(r#""value": "%GRPC_STATUS_NUMBER%""#, "5");
    check(r#""value": "%START_TIME%""#, "2026-11-27T20:07:43.566Z");
    check(r#""value": "%START_TIME(%s.%3f)%""#, "1795810063.566");
    check(r#""value": "%FILTER_STATE(shop.plan:PLAIN):2%""#, "go");
    check(r#""value": "%FILTER_STATE(peer:FIELD:app)%""#, "cart");
    check(r#""value": "%FILTER_STATE(none:PLAIN)%""#, "");
    check(r#""value": "%METADATA(DYNAMIC:a.b:c:d)%""#, "deep");
    check(r#""value": "%METADATA(UPSTREAM_HOST:lb:canary)%""#, "true");
    check(r#""value": "%CEL(1 + 1)%/%CEL('a)' + 'b')%""#, "2/");
}

#[test]
fn defaults_replace_missing_values_but_not_empty_ones() {
    for source in ["request_header", "response_header", "query_parameter", "baggage", "cookie"] {
        check(&format!(r#""{source}": {{"name": "none", "default_value": "d"}}"#), "d");
        check(&format!(r#""{source}": {{"name": "none"}}"#), "");
    }
    check(r#""request_header": {"name": "x-empty", "default_value": "d"}"#, "");
    check(r#""response_header": {"name": "x-empty", "default_value": "d"}"#, "");
    check(r#""query_parameter": {"name": "empty", "default_value": "d"}"#, "");
    check(r#""environment": {"name": "NONE", "default_value": "d"}"#, "d");
    check(r#""environment": {"name": "NONE"}"#, "");
    check(r#""property": {"path": "xds.route_name", "default_value": "d"}"#, "d");
    check(
        r#""metadata": {"kind": {"route": {}}, "default_value": "d",
            "metadata_key": {"key": "a", "path": [{"key": "b"}]}}"#,
        "d",
    );
}

#[test]
fn formats_join_texts_and_values() {
    for (format, expected) in [
        ("plain 100%%", "plain 100%"),
        ("%REQ(X-USER)%-%RESP(X-ORDER)%", "ada-o-1"),
        ("%REQ(X-NONE?X-USER):2%", "ad"),
        ("%REQ(X-NONE?:PATH):5%", "/cart"),
        ("%REQ(X-NONE)%", ""),
        ("[%REQ(X-NONE)%]", "[]"),
        ("%RESPONSE_CODE%/%RESPONSE_FLAGS%/%DURATION%", "404/NR/1234"),
        ("%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "10.0.0.1"),
        ("%TRAILER(grpc-status)%", "5"),
        ("%ENVIRONMENT(POD):3%", "pod"),
        ("%DYNAMIC_METADATA(a.b:c:d):2%", "de"),
        ("%UPSTREAM_METADATA(lb:canary)%", "true"),
        ("%PROTOCOL%", ""),
    ] {
        check(&format!(r#""value": "{format}""#), expected);
        check(&format!(r#""formatter": {{"value": "{format}"}}"#), expected);
    }
}

/// A command has the same value, whether or not the format must wait for the request's end.
#[test]
fn request_headers_are_read_when_the_request_arrives() {
    check(r#""value": "%REQ(X-USER)%""#, "ada");
    check(r#""value": "%REQ(X-USER)%/%RESPONSE_CODE%""#, "ada/404");
    check(r#""value": "%RESP(X-NONE)%%REQ(X-NONE?X-USER)%%REQ(X-EMPTY)%""#, "ada");
    check(r#""value": "%REQ(X-USER):2%%RESP(X-ORDER)%", "redact": "mask""#, "*****");
    check(r#""request_header": {"name": "x-user", "read": "start"}"#, "ada");
}

#[test]
fn request_headers_may_be_read_at_the_end() {
    check(r#""request_header": {"name": "X-User", "read": "end"}"#, "grace");
    check(r#""header": {"name": "x-a", "default_value": "d", "read": "end"}"#, "d");
    check(r#""value": "%REQ(X-NONE?X-USER):3%", "read": "end""#, "gra");
    check(r#""formatter": {"value": "%REQ(X-USER)%-%RESP(X-ORDER)%", "read": "end"}"#, "grace-o-1");
}

/// Kept values are bounded, and long enough for the attribute limit and for a hash.
#[test]
fn kept_values_are_bounded() {
    let lens = |tag: &str, value: &str| {
        let json = format!(
            r#"{{"attribute_limits": {{"attribute_value_length_limit": 32}},
                 "custom_tags": [{{"tag": "a", {tag}, "value": "%REQ(X)%%RESPONSE_CODE%"}}]}}"#
        );
        let tags = Config::parse(json.as_bytes(), &|_| None).unwrap().span.tags;
        let KeptValues(values) = tags.at_request(&mut Attributes::new(32), &head(&[("x", value)]));
        values.into_iter().map(|value| value.map(|value| value.len())).collect::<Vec<_>>()
    };
    let (short, long) = ("a".repeat(33), "a".repeat(100_000));
    assert_eq!(lens(r#""redact": null"#, &short), [Some(33)]);
    assert_eq!(lens(r#""redact": null"#, &long), [Some(160)]);
    assert_eq!(lens(r#""redact": "mask""#, &long), [Some(160)]);
    assert_eq!(lens(r#""redact": "hash""#, &long), [Some(8_192)]);
}

#[test]
fn values_are_redacted_and_cut_but_defaults_are_not() {
    let account = r#""baggage": {"name": "account"}"#;
    check(&format!(r#"{account}, "redact": "mask""#), "****");
    check(&format!(r#"{account}, "maxLength": 3"#), "471");
    check(&format!(r#"{account}, "redact": "hash""#), "de650d61f5bd166a91f8ccec3158297d");
    check(r#""property": {"path": "response.code"}, "redact": "mask""#, "***");
    let none = r#""cookie": {"name": "none", "default_value": "unknown"}"#;
    check(&format!(r#"{none}, "redact": "hash""#), "unknown");
    check(r#""literal": {"value": "secret"}, "redact": "mask""#, "******");
    check(r#""request_header": {"name": "x-empty"}, "redact": "hash""#, "");
}

#[test]
fn an_object_of_tags_means_the_same_as_a_list() {
    let by_name = r#"{"user": {"header": {"name": "x-user", "defaultValue": "-"}},
                      "pod": {"environment": {"name": "POD"}},
                      "env": {"literal": {"value": "prod"}},
                      "code": {"formatter": {"value": "%RESPONSE_CODE%"}}}"#;
    let gateways = r#"{"user": {"type": "RequestHeader",
                                "requestHeader": {"name": "x-user", "defaultValue": "-"}},
                       "pod": {"type": "Environment", "environment": {"name": "POD"}},
                       "env": {"type": "Literal", "literal": {"value": "prod"}},
                       "code": {"value": "%RESPONSE_CODE%"}}"#;
    let list = r#"[{"tag": "user", "requestHeader": {"name": "x-user", "defaultValue": "-"}},
                   {"tag": "pod", "environment": {"name": "POD"}},
                   {"tag": "env", "literal": {"value": "prod"}},
                   {"tag": "code", "value": "%RESPONSE_CODE%"}]"#;
    let expected = [("code", "404"), ("env", "prod"), ("pod", "pod-1"), ("user", "ada")];
    let expected: BTreeMap<_, _> = expected
        .map(|(key, text)| (key.to_owned(), any_value::Value::StringValue(text.to_owned())))
        .into();
    for tags in [by_name, gateways, list] {
        assert_eq!(recorded(tags), expected, "{tags}");
    }
}

#[test]
fn tags_need_only_the_inputs_that_they_read() {
    let needed = |tag: &str| {
        let json = format!(r#"{{"custom_tags": [{{"tag": "a", {tag}}}]}}"#);
        let tags = Config::parse(json.as_bytes(), &|_| None).unwrap().span.tags;
        [Input::ResponseHeaders, Input::ResponseTrailers, Input::Properties]
            .map(|input| tags.needs(input))
    };
    assert_eq!(needed(r#""request_header": {"name": "x"}"#), [false; 3]);
    assert_eq!(needed(r#""value": "%REQ(X)%""#), [false; 3]);
    assert_eq!(needed(r#""response_header": {"name": "x"}"#), [true, false, false]);
    assert_eq!(needed(r#""value": "%REQ(X)%%RESP(X)%""#), [true, false, false]);
    assert_eq!(needed(r#""value": "%TRAILER(X)%%PROTOCOL%""#), [false, true, true]);
}
