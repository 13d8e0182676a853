use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::config::Config;
use crate::propagation::testing::head;
use crate::sampling::conditions::Direction;
use crate::sampling::held_heads::HeldHeads;
use crate::span::tags::EndFacts;
use crate::span::tags::property::PropertySource;
use crate::span::testing::{FACTS, recording};
use crate::span::{ActiveSpan, Recording, SpanSettings, StreamFacts};

const LINES: [(&str, &str); 7] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", "acme.shop:8443"),
    (":path", "/users/ann/cart?item=1&token=t"),
    ("user-agent", "curl/8"),
    ("x-request-id", "7"),
    ("x-forwarded-for", "203.0.113.77, 10.0.0.9"),
];

fn outbound() -> StreamFacts<'static> {
    StreamFacts { direction: Direction::Outbound, ..FACTS }
}

fn settings(span: &str, tags: &str) -> SpanSettings {
    let json = format!(r#"{{"span": {{{span}}}, "custom_tags": [{tags}]}}"#);
    Config::parse(json.as_bytes(), &|_| None).unwrap().span
}

/// Returns the value of an attribute of Envoy's.
fn value_of<'v>(path: &str, head: &Head<'v>, facts: StreamFacts<'v>) -> &'v [u8] {
    let header = |name| head.first(name).unwrap_or_default();
    match path {
        "source\0address" => facts.source_address,
        "request\0path" => head.target(),
        "request\0url_path" => split_query(head.target()).0,
        "request\0query" => split_query(head.target()).1.unwrap_or_default(),
        "request\0useragent" => header(USER_AGENT),
        other => other.strip_prefix("request\0headers\0").map_or(b"", header),
    }
}

/// Returns the span of a request, with its attributes apart as text.
fn record(
    settings: &SpanSettings,
    head: &Head<'_>,
    facts: StreamFacts<'_>,
) -> (Span, BTreeMap<String, String>) {
    let mut active = ActiveSpan::start(settings, head, true, &recording(), 1_000);
    let sources = settings.tags.properties.sources().iter();
    let values = sources.map(|source| match source {
        // The value of an expression here is what it reads.
        PropertySource::Cel(text) if text.contains("source.address") => facts.source_address,
        PropertySource::Cel(_) => head.target(),
        PropertySource::Path(path) => value_of(path, head, facts),
    });
    let values: Vec<_> = values.collect();
    let properties = settings.tags.properties.values(facts.direction, &values);
    let none = Head::new(Vec::new());
    let end_facts =
        EndFacts { is_grpc: false, response: &none, trailers: &none, properties: &properties };
    active.add_tags(&settings.tags, &end_facts);
    let mut span = Span::decode(active.finish(facts).0.bytes.as_slice()).unwrap();
    let pairs = std::mem::take(&mut span.attributes).into_iter().map(|pair| {
        match pair.value.unwrap().value.unwrap() {
            Value::StringValue(text) => (pair.key, text),
            other => (pair.key, format!("{other:?}")),
        }
    });
    let attributes = pairs.collect();
    (span, attributes)
}

/// Checks some attributes of a request's span, and its name under the key ""; an empty value stands for an
/// absent attribute.
#[track_caller]
fn check(span: &str, lines: &[(&str, &str)], facts: StreamFacts<'_>, expected: &[(&str, &str)]) {
    let (found, attributes) = record(&settings(span, ""), &head(lines), facts);
    for (key, value) in expected {
        let attribute = attributes.get(*key).map_or("", String::as_str);
        assert_eq!(if key.is_empty() { &found.name } else { attribute }, *value, "{key} of {span}");
    }
}

#[test]
fn every_own_attribute_can_be_omitted() {
    let grpc = ("content-type", "application/grpc");
    let late = StreamFacts {
        route_name: b"/users/{id}",
        attempts: 2,
        request_body_bytes: 1,
        response_body_bytes: 1,
        flags: 1 << 2,
        ..FACTS
    };
    for key in key::RESERVED {
        let settings = settings(&format!(r#""omit": ["{key}"]"#), "");
        for direction in [Direction::Inbound, Direction::Outbound] {
            for lines in [LINES.to_vec(), [&LINES[..], &[grpc]].concat()] {
                let facts = StreamFacts { direction, ..late };
                let (_, attributes) = record(&settings, &head(&lines), facts);
                assert_eq!(attributes.get(key), None);
                assert!(attributes.len() > 10, "{key}: {attributes:?}");
            }
        }
    }
}

#[test]
fn the_value_of_an_omitted_attribute_is_nowhere_else() {
    let routed = StreamFacts { route_name: b"/users/{id}", ..FACTS };
    for (omit, facts, expected) in [
        ("url.query", FACTS, ("url.path", "/users/ann/cart")),
        ("url.query", outbound(), ("url.full", "https://acme.shop:8443/users/ann/cart")),
        ("url.path", FACTS, ("url.query", "item=1&token=REDACTED")),
        ("url.path", outbound(), ("url.full", "https://acme.shop:8443?item=1&token=REDACTED")),
        (
            "server.address",
            outbound(),
            ("url.full", "https://REDACTED/users/ann/cart?item=1&token=REDACTED"),
        ),
        // The network peer is the client on a server's span, and the upstream on a client's.
        ("client.address", FACTS, ("network.peer.address", "")),
        ("client.address", outbound(), ("network.peer.address", "10.0.0.7")),
        ("network.peer.address", FACTS, ("client.address", "10.0.0.9")),
        ("http.route", routed, ("", "GET")),
        ("user_agent.original", routed, ("", "GET /users/{id}")),
    ] {
        check(&format!(r#""omit": ["{omit}"]"#), &LINES, facts, &[(omit, ""), expected]);
    }
}

#[test]
fn a_path_that_is_hidden_is_no_name_of_a_method() {
    let call = |path| {
        [(":method", "POST"), (":path", path), ("content-type", "application/grpc")].to_vec()
    };
    let ok = StreamFacts { grpc_status: Some(0), ..FACTS };
    let ok_call = StreamFacts { grpc_status: Some(0), ..outbound() };
    let unimplemented = StreamFacts { grpc_status: Some(12), ..outbound() };
    let refused = StreamFacts { grpc_status: Some(12), ..FACTS };
    let path = r#""omit": ["url.path"]"#;
    for (span, sent, facts, name, method, original) in [
        (path, "/shop.Cart/Add", ok, "shop.Cart/Add", "shop.Cart/Add", ""),
        (path, "/shop.Cart/Add", ok_call, "shop.Cart/Add", "shop.Cart/Add", ""),
        (path, "/users/ann", unimplemented, "grpc", "_OTHER", ""),
        (path, "/users/ann", refused, "grpc", "_OTHER", ""),
        (r#""omit": ["rpc.method"]"#, "/shop.Cart/Add", ok, "grpc", "", ""),
        (r#""omit": ["rpc.method"]"#, "/users/ann", refused, "grpc", "", ""),
        (ANN, "/shop.Cart/Add", ok_call, "shop.Cart/Add", "shop.Cart/Add", ""),
        (ANN, "/users/ann", unimplemented, "users/X", "users/X", ""),
        (ANN, "/users/ann", refused, "grpc", "_OTHER", "users/X"),
        (ANN, "/users/ann/cart", ok_call, "grpc", "_OTHER", "users/X/cart"),
    ] {
        let expected = [("", name), ("rpc.method", method), ("rpc.method_original", original)];
        check(span, &call(sent), facts, &expected);
    }
}

/// Redacts the segment behind `/users/`.
const ANN: &str = r#""redact_path": [{"regex": "/users/[^/]+", "replacement": "/users/X"}]"#;

#[test]
fn parts_of_paths_are_replaced_in_every_spelling() {
    let two = r#""redact_path": [{"regex": "/users/[^/]+", "replacement": "/users/{id}"},
                                 {"regex": "[0-9]{4,}", "replacement": ""}]"#;
    let long = format!("/users/ann/{}", "a".repeat(2_038));
    let hostile = "/aaaa".repeat(400);
    let slow = r#""redact_path": [{"regex": "a|a.*b", "replacement": "b"}]"#;
    for (span, sent, expected, reason) in [
        (ANN, "/users/ann", "/users/X", "at the end"),
        (ANN, "/users/ann/users/bob", "/users/X/users/X", "every match"),
        (ANN, "/a/users/ann/cart", "/a/users/X/cart", "in the middle"),
        (ANN, "/users", "/users", "no match"),
        (ANN, "/%75sers/ann", "/users/X", "a letter that is encoded"),
        (ANN, "//users//ann", "/users/X", "slashes"),
        (ANN, "/a/../users/./ann", "/users/X", "dots"),
        (ANN, "\\users\\ann", "/users/X", "backslashes"),
        (ANN, "//a/../b", "//a/../b", "a path without a match stays as it was sent"),
        (ANN, "/users/ann;token=t/b", "/users/X/b", "secret parameters first"),
        (ANN, "/b;token=t/users/ann", "/b;token=REDACTED/users/X", "secret parameters too"),
        (two, "/users/4711/orders/12345/7", "/users/{id}/orders//7", "one after the other"),
        (
            r#""redact_path": [{"regex": "^/.*$", "replacement": "/"}]"#,
            "/a/b",
            "/",
            "the whole path",
        ),
        (r#""redact_path": [{"regex": "%2F", "replacement": "x"}]"#, "/a%2Fb", "/axb", ""),
        (
            r#""redact_path": [{"regex": "%61", "replacement": "x"}]"#,
            "/%61",
            "/x",
            "as it was sent",
        ),
        (
            r#""redact_path": [{"regex": "[^/]+@[^/]+", "replacement": "x"}]"#,
            "/u/ann%40example.com",
            "/u/x",
            "reserved characters that are encoded",
        ),
        (ANN, "/a%2Fusers%2fann", "/a/users/X", "slashes that are encoded"),
        (ANN, &long, "REDACTED", "too long"),
        (slow, &hostile, "REDACTED", "over the budget"),
        (ANN, "*", "*", "no path"),
        (ANN, "", "", "none"),
    ] {
        for target in [sent.to_owned(), format!("{sent}?q")] {
            let lines = [(":scheme", "http"), (":authority", "shop"), (":path", target.as_str())];
            let (_, attributes) = record(&settings(span, ""), &head(&lines), FACTS);
            assert_eq!(attributes["url.path"], expected, "{sent}: {reason}");
            let (_, attributes) = record(&settings(span, ""), &head(&lines), outbound());
            let query = if target == sent { "" } else { "?q" };
            assert_eq!(attributes["url.full"], format!("http://shop{expected}{query}"), "{reason}");
        }
    }
}

#[test]
fn addresses_of_clients_are_masked() {
    for (address, expected) in [
        ("203.0.113.77:4242", "203.0.113.0"),
        ("203.0.113.0", "203.0.113.0"),
        ("255.255.255.255:0", "255.255.255.0"),
        ("[2001:db8:1:2:3:4:5:6]:80", "2001:db8:1::"),
        ("2001:db8:0:2::1", "2001:db8::"),
        ("[2001:0:1::9]:80", "2001:0:1::"),
        ("[fe80::1]:80", "fe80::"),
        ("::1", "::"),
        ("[::ffff:203.0.113.77]:80", "203.0.113.0"),
        ("[2002:cb00:714d::1]:80", "2002:cb00:7100::"),
        ("envoy://internal/10.0.0.9:80", ""),
        ("/run/10.0.0.9.sock", ""),
        ("@10.0.0.9:80", ""),
        ("", ""),
    ] {
        let facts = StreamFacts { source_address: address.as_bytes(), ..FACTS };
        let has_port = address.ends_with("42") || address.ends_with(":80");
        let peer = if has_port { expected } else { "" };
        let expected = [("client.address", expected), ("network.peer.address", peer)];
        check(r#""client_address": "masked""#, &LINES, facts, &expected);
    }
    let upstream = [("network.peer.address", "10.0.0.7"), ("upstream_address", "10.0.0.7:8080")];
    check(r#""client_address": "masked""#, &LINES, outbound(), &upstream);
    check(r#""client_address": "full""#, &LINES, FACTS, &[("client.address", "10.0.0.9")]);
}

proptest! {
    #[test]
    fn masks_keep_24_or_48_bits(ip: IpAddr) {
        let found: IpAddr = masked(ip).parse().unwrap();
        match (ip.to_canonical(), found) {
            (IpAddr::V4(ip), IpAddr::V4(found)) => prop_assert_eq!(found.to_bits(), ip.to_bits() >> 8 << 8),
            (IpAddr::V6(ip), IpAddr::V6(found)) => {
                prop_assume!(u32::from(ip.segments()[0]) != SIX_TO_FOUR);
                prop_assert_eq!(found.to_bits(), ip.to_bits() >> 80 << 80);
            }
            _ => prop_assert!(false),
        }
        prop_assert_eq!(masked(ip), found.to_string());
    }

    #[test]
    fn no_bytes_panic(target: Vec<u8>) {
        let privacy = &settings(ANN, "").privacy;
        let _ = (privacy.target(&target, &|_| false), masked_list(&target));
    }
}

/// Checks a tag with this source; an empty value stands for no tag.
#[track_caller]
fn check_tag(span: &str, source: &str, expected: &str) {
    let settings = settings(span, &format!(r#"{{"tag": "t", {source}}}"#));
    let (_, attributes) = record(&settings, &head(&LINES), FACTS);
    assert_eq!(attributes.get("t").map_or("", String::as_str), expected, "{source} with {span}");
}

#[test]
fn tags_of_the_path_and_the_query_hold_what_the_span_may() {
    let path = r#""request_header": {"name": ":path"}"#;
    let late_path = r#""request_header": {"name": ":path", "read": "end"}"#;
    let attribute = r#""property": {"path": "request.path"}"#;
    let in_headers = r#""property": {"path": ["request", "headers", ":path"]}"#;
    let hidden = "/users/X/cart?item=1&token=REDACTED";
    for source in [path, late_path, attribute, in_headers] {
        check_tag("", source, "/users/ann/cart?item=1&token=REDACTED");
        check_tag(ANN, source, hidden);
        check_tag(
            r#""redact_query": ["*"]"#,
            source,
            "/users/ann/cart?item=REDACTED&token=REDACTED",
        );
        check_tag(r#""omit": ["url.path"]"#, source, "?item=1&token=REDACTED");
        check_tag(r#""omit": ["url.query"]"#, source, "/users/ann/cart");
        check_tag(r#""omit": ["url.query", "url.path"]"#, source, "");
    }
    check_tag(ANN, r#""value": "%REQ(X-NONE?:PATH):12% %RESPONSE_CODE%""#, "/users/X/car ");
    check_tag(ANN, r#""property": {"path": "request.url_path"}"#, "/users/X/cart");
    for cel in ["request.path + ''", "request.headers[':path']", "request.headers[\\\":PATH\\\"]"] {
        let cel = format!(r#""cel": "{cel}""#);
        check_tag("", &cel, "/users/ann/cart?item=1&token=REDACTED");
        check_tag(ANN, &cel, hidden);
    }
    let uri = r#"{"tag": "t", "request_header": {"name": "x-original-uri"}}"#;
    let lines = [(":path", "/"), ("x-original-uri", "https://h//users//ann/?token=t")];
    let (_, attributes) = record(&settings(ANN, uri), &head(&lines), FACTS);
    assert_eq!(attributes["t"], "https:/h/users/X/?token=REDACTED");
    check_tag("", r#""property": {"path": "request.query"}"#, "item=1&token=REDACTED");
    check_tag(r#""omit": ["url.query"]"#, r#""property": {"path": "request.query"}"#, "");
}

#[test]
fn a_tag_of_one_parameter_holds_it_unless_the_configuration_hides_it() {
    let (item, token) =
        (r#""query_parameter": {"name": "item"}"#, r#""query_parameter": {"name": "token"}"#);
    check_tag("", item, "1");
    check_tag("", token, "t");
    check_tag(r#""redact_query": ["token"]"#, token, "REDACTED");
    check_tag(r#""redact_query": ["token"]"#, item, "1");
    check_tag(r#""redact_query": ["*"]"#, item, "REDACTED");
    check_tag(r#""redact_query": ["*"]"#, r#""query_parameter": {"name": "none"}"#, "");
    // No key is so long, but all parameters are hidden.
    let long = "a".repeat(65);
    let tag = format!(r#"{{"tag": "t", "query_parameter": {{"name": "{long}"}}}}"#);
    let path = format!("/?{long}=1");
    for (span, expected) in [("", "1"), (r#""redact_query": ["*"]"#, "REDACTED")] {
        let (_, attributes) = record(&settings(span, &tag), &head(&[(":path", &path)]), FACTS);
        assert_eq!(attributes["t"], expected);
    }
    check_tag(r#""redact_query": ["*", "-item"]"#, item, "1");
    check_tag(r#""omit": ["url.query"]"#, item, "");
    check_tag(
        r#""omit": ["url.query"]"#,
        r#""query_parameter": {"name": "item", "default_value": "-"}"#,
        "-",
    );
}

#[test]
fn tags_of_the_clients_address_are_masked_or_left_out() {
    let masked = r#""client_address": "masked""#;
    let omitted = r#""omit": ["client.address"]"#;
    let forwarded = r#""request_header": {"name": "X-Forwarded-For"}"#;
    check_tag("", forwarded, "203.0.113.77, 10.0.0.9");
    check_tag(masked, forwarded, "203.0.113.0, 10.0.0.0");
    for source in [
        r#""property": {"path": "source.address"}"#,
        r#""cel": "source.address""#,
        r#""cel": "string(source.port) + source.address""#,
        r#""value": "%DOWNSTREAM_REMOTE_ADDRESS%""#,
        r#""value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%""#,
    ] {
        check_tag(masked, source, "10.0.0.0");
        check_tag(omitted, source, "");
    }
    check_tag(omitted, forwarded, "");
    check_tag(omitted, r#""request_header": {"name": "x-real-ip", "default_value": "-"}"#, "-");
    check_tag(masked, r#""request_header": {"name": "x-request-id"}"#, "7");
    let hosts = [
        r#""property": {"path": "request.host"}"#,
        r#""property": {"path": "request.headers.host"}"#,
        r#""request_header": {"name": "Host", "read": "end"}"#,
        r#""request_header": {"name": ":authority"}"#,
        r#""request_header": {"name": "x-forwarded-host"}"#,
        r#""cel": "request.headers.host""#,
    ];
    hosts.iter().for_each(|source| check_tag(r#""omit": ["server.address"]"#, source, ""));
}

#[test]
fn lists_of_addresses_are_masked() {
    for (list, expected) in [
        ("", ""),
        ("203.0.113.77", "203.0.113.0"),
        ("203.0.113.77,[2001:db8:1::7]:80 , 10.0.0.9:1", "203.0.113.0,2001:db8:1:: , 10.0.0.0"),
        ("unknown, ann's laptop", "REDACTED, REDACTED REDACTED"),
        ("203.0.113.77:http", "REDACTED"),
        ("203.0.113.77.", "REDACTED"),
        (
            r#"for="[2001:db8:1::7]:80";proto=https;by=10.0.0.9"#,
            r#"for="2001:db8:1::";proto=REDACTED;by=10.0.0.0"#,
        ),
        ("for=_hidden", "for=REDACTED"),
        (",;=\" ", ",;=\" "),
    ] {
        let found = masked_list(list.as_bytes());
        assert_eq!(std::str::from_utf8(&found), Ok(expected), "{list}");
    }
}

#[test]
fn a_hash_may_stand_for_an_omitted_value() {
    let user_agent = r#""request_header": {"name": "user-agent"}"#;
    let omitted = r#""omit": ["user_agent.original", "guid:x-request-id", "server.address"]"#;
    check_tag("", user_agent, "curl/8");
    check_tag(omitted, user_agent, "");
    check_tag(omitted, r#""property": {"path": "request.useragent"}"#, "");
    check_tag(omitted, r#""request_header": {"name": "x-request-id"}"#, "");
    check_tag(omitted, r#""value": "%REQ(:AUTHORITY)%""#, "");
    check_tag(omitted, &format!(r#"{user_agent}, "redact": "mask""#), "");
    let hash = format!(r#"{user_agent}, "redact": "hash""#);
    let settings = settings(omitted, &format!(r#"{{"tag": "t", {hash}}}"#));
    let (_, attributes) = record(&settings, &head(&LINES), FACTS);
    assert_eq!(attributes["t"].len(), 32);
}

#[test]
fn names_hold_what_the_span_may() {
    for (span, expected) in [
        (ANN, "GET /users/X/cart?item=1&token=REDACTED 203.0.113.77, 10.0.0.9 curl/8"),
        (
            r#""omit": ["url.path", "user_agent.original"]"#,
            "GET ?item=1&token=REDACTED 203.0.113.77, 10.0.0.9",
        ),
        (r#""omit": ["url.query", "client.address"]"#, "GET /users/ann/cart  curl/8"),
        (
            r#""client_address": "masked", "redact_query": ["*"]"#,
            "GET /users/ann/cart?item=REDACTED&token=REDACTED 203.0.113.0, 10.0.0.0 curl/8",
        ),
    ] {
        let name = "%REQ(:METHOD)% %REQ(:PATH)% %REQ(X-FORWARDED-FOR)% %REQ(USER-AGENT)%";
        let settings = settings(&format!(r#"{span}, "names": [{{"name": "{name}"}}]"#), "");
        let recording = Recording { name_index: Some(0), ..recording() };
        let active = ActiveSpan::start(&settings, &head(&LINES), true, &recording, 1_000);
        let found = Span::decode(active.finish(FACTS).0.bytes.as_slice()).unwrap();
        assert_eq!(found.name, expected, "{span}");
    }
}

/// A late span is made of a head that was held.
#[test]
fn late_spans_hold_no_more() {
    let cut = format!("/{}/users/ann?token=t", "a".repeat(3_000));
    for path in ["/users/ann?token=t&item=1", &cut] {
        let tags = r#"{"tag": "t", "value": "%REQ(:PATH)%%REQ(X-FORWARDED-FOR)%"}"#;
        let span = format!(r#""omit": ["user_agent.original"], "client_address": "masked", {ANN}"#);
        let settings = settings(&span, tags);
        let lines = [LINES.as_slice(), &[(":path", path)]].concat();
        let lines: Vec<_> = lines.into_iter().filter(|line| *line != LINES[3]).collect();
        let direct = record(&settings, &head(&lines), FACTS);
        let held = HeldHeads::new(1 << 20, 1_024, settings.uncut_headers());
        let held = held.hold(&head(&lines)).unwrap();
        assert_eq!(record(&settings, &held.head(), FACTS), direct);
        let text = format!("{direct:?}");
        for hidden in ["ann", "=t", "curl", "10.0.0.9", "203.0.113.77"] {
            assert!(!text.contains(hidden), "{hidden} in {text}");
        }
    }
}
