use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{Span, span, status};
use prost::Message;

use super::testing::{FACTS, decoded, record, recording, settings};
use super::*;
use crate::config::Config;
use crate::span::tags::property::PropertySource;

#[test]
fn a_span_has_ids_flags_and_times() {
    let (span, _) = record(&[(":method", b"GET")], FACTS);
    let expected = Span {
        trace_id: 1u128.to_be_bytes().to_vec(),
        span_id: 2u64.to_be_bytes().to_vec(),
        parent_span_id: 3u64.to_be_bytes().to_vec(),
        trace_state: "a=1".to_owned(),
        name: "GET".to_owned(),
        kind: span::SpanKind::Server.into(),
        start_time_unix_nano: 1_000,
        end_time_unix_nano: 2_000,
        flags: 0x303,
        ..Span::default()
    };
    assert_eq!(span, expected);
}

/// Checks the one event, and `error.type`, which a span has exactly where its status is an error.
#[track_caller]
fn check_end(facts: StreamFacts<'_>, error_type: Option<&str>, event: Option<&str>) {
    let (span, attributes) = record(&[], facts);
    assert_eq!(attributes.get("error.type").map(String::as_str), error_type, "{facts:?}");
    let error = span.status.is_some_and(|status| status.code() == status::StatusCode::Error);
    assert_eq!(error, error_type.is_some(), "{facts:?}");
    let events: Vec<_> =
        span.events.iter().map(|event| (event.name.as_str(), event.time_unix_nano)).collect();
    let expected: Vec<_> = event.into_iter().map(|name| (name, 2_000)).collect();
    assert_eq!(events, expected, "{facts:?}");
}

#[test]
fn errors_and_events_follow_the_status_and_the_flags() {
    use Direction::{Inbound, Outbound};
    let (ut, uc, dc, upe) = (1 << 2, 1 << 6, 1 << 14, 1 << 23);
    for (direction, status, flags, error_type, event) in [
        (Inbound, 200, 0, None, None),
        (Inbound, 404, 0, None, None),
        (Inbound, 500, 0, Some("500"), None),
        (Inbound, 0, 0, Some("_OTHER"), None),
        (Inbound, 0, dc, Some("DC"), Some("reset")),
        (Inbound, 200, dc, None, Some("reset")),
        (Inbound, 101, dc, None, None),
        (Outbound, 101, uc, None, None),
        (Inbound, 101, ut, Some("UT"), Some("timeout")),
        (Inbound, 200, upe, Some("UPE"), Some("reset")),
        (Inbound, 504, ut, Some("504"), Some("timeout")),
        (Outbound, 302, 0, None, None),
        (Outbound, 404, 0, Some("404"), None),
        (Outbound, 503, uc, Some("503"), Some("reset")),
        (Outbound, 200, uc, Some("UC"), Some("reset")),
        (Outbound, 200, ut | uc, Some("UT,UC"), Some("timeout")),
    ] {
        check_end(StreamFacts { direction, status, flags, ..FACTS }, error_type, event);
    }
}

#[test]
fn the_size_of_the_body_is_read_from_the_headers() {
    for (length, end_of_stream, expected) in [
        (None, true, Some(0)),
        (None, false, None),
        (Some("0"), false, Some(0)),
        (Some("18446744073709551615"), false, Some(u64::MAX)),
        (Some("18446744073709551616"), false, None),
        (Some("+1"), false, None),
        (Some(""), false, None),
        (Some("1, 1"), false, None),
    ] {
        let lines = length.map(|length| ("content-length".as_bytes(), length.as_bytes()));
        let head = Head::new(lines.into_iter().collect());
        let active = ActiveSpan::start(&settings(), &head, end_of_stream, &recording(), 0);
        assert_eq!(active.request_body_bytes(), expected, "{length:?} {end_of_stream}");
    }
}

#[test]
fn the_time_to_the_first_byte_is_measured_once_and_only_with_an_upstream() {
    let time_to_first_byte = |facts| {
        let recording = recording();
        let mut active =
            ActiveSpan::start(&settings(), &Head::new(Vec::new()), false, &recording, 1_000_000);
        active.response_started(3_500_000);
        active.response_started(9_000_000);
        let span = Span::decode(active.finish(facts).0.bytes.as_slice()).unwrap();
        let key = "upstream_time_to_first_byte_ms";
        let found = span.attributes.into_iter().find(|pair| pair.key == key);
        found.and_then(|pair| pair.value?.value)
    };
    assert_eq!(time_to_first_byte(FACTS), Some(Value::DoubleValue(2.5)));
    assert_eq!(time_to_first_byte(StreamFacts { upstream_address: b"", ..FACTS }), None);
}

#[test]
fn long_values_are_cut_at_a_character_and_counted() {
    let path = "/é".repeat(600);
    let head = Head::new(vec![(b":path", path.as_bytes())]);
    let recording = recording();
    let finished = ActiveSpan::start(&settings(), &head, false, &recording, 0).finish(FACTS).0;
    assert_eq!(finished.truncated, 1);
    let span = Span::decode(finished.bytes.as_slice()).unwrap();
    let path = span.attributes.iter().find(|pair| pair.key == "url.path").unwrap();
    let Some(Value::StringValue(kept)) = path.value.clone().unwrap().value else {
        panic!("{path:?}");
    };
    assert_eq!(kept.chars().count(), 1024);
}

/// Compares the name of a span whose request matches the first entry of `span.names`, which has this format.
#[track_caller]
fn check_name(format: &str, lines: &[(&str, &[u8])], expected: &str) {
    let json = format!(r#"{{"span": {{"names": [{{"name": "{format}"}}]}}}}"#);
    let settings = Config::parse(json.as_bytes(), &|_| None).unwrap().span;
    let head = Head::new(lines.iter().map(|(name, value)| (name.as_bytes(), *value)).collect());
    let recording = Recording { name_index: Some(0), ..recording() };
    let mut span = ActiveSpan::start(&settings, &head, false, &recording, 1_000);
    let values: Vec<&[u8]> = settings
        .tags
        .properties
        .sources()
        .iter()
        .map(|source| match source {
            PropertySource::Path(path) if path == "xds\0route_name" => &b"orders"[..],
            _ => b"",
        })
        .collect();
    if settings.tags.needs_end_facts() {
        let response = Head::new(vec![(b"x-handler", b"cart\n")]);
        let trailers = Head::new(Vec::new());
        let properties = settings.tags.properties.values(Direction::Inbound, &values);
        let facts = EndFacts {
            is_grpc: false,
            response: &response,
            trailers: &trailers,
            properties: &properties,
        };
        span.add_tags(&settings.tags, &facts);
    }
    let span = Span::decode(span.finish(FACTS).0.bytes.as_slice()).unwrap();
    assert_eq!(span.name, expected, "{format}");
    assert_eq!(span.attributes.len(), record(lines, FACTS).1.len() - 3, "{format}");
}

#[test]
fn a_name_of_the_operators_replaces_the_default_one() {
    let get: &[(&str, &[u8])] = &[(":method", b"GET"), (":path", b"/a"), ("operation-id", b"list")];
    let call: &[(&str, &[u8])] = &[
        (":method", b"POST"),
        (":path", b"/shop.Cart/Add"),
        ("content-type", b"application/grpc"),
    ];
    for (format, lines, expected) in [
        ("api-v1-request", get, "api-v1-request"),
        ("%REQ(operation-id)%", get, "list"),
        ("%REQ(:METHOD)% %ROUTE_NAME%", get, "GET orders"),
        // There is no upstream host: the space before it is removed.
        ("%REQ(:METHOD)% %UPSTREAM_HOST%", get, "GET"),
        ("%RESP(x-handler)%", get, "cart"),
        ("%RESP(x-handler)%/", get, "cart\u{fffd}/"),
        ("%REQ(operation-id)%:%RESP(x-none)%", get, "list:"),
        // An empty name falls to the default one.
        ("%REQ(x-none)%", get, "GET"),
        (" %REQ(x-none)% ", get, "GET"),
        ("%RESP(x-none)%", get, "GET"),
        ("%REQ(x-none)%", call, "shop.Cart/Add"),
        ("cart", call, "cart"),
    ] {
        check_name(format, lines, expected);
    }
    let long = [b'x'; 3000];
    let lines: [(&str, &[u8]); 2] = [(":method", b"GET"), ("operation-id", &long)];
    check_name("%REQ(operation-id)%", &lines, &"x".repeat(1024));
    check_name("%REQ(operation-id)%%RESP(x-none)%", &lines, &"x".repeat(1024));
}

/// A request whose call upstream has a span of its own. Returns both spans with their attributes.
fn pair(lines: &[(&str, &[u8])], facts: StreamFacts<'_>) -> Vec<(Span, BTreeMap<String, String>)> {
    pair_by(&settings(), lines, facts)
}

fn pair_by(
    settings: &SpanSettings,
    lines: &[(&str, &[u8])],
    facts: StreamFacts<'_>,
) -> Vec<(Span, BTreeMap<String, String>)> {
    let head = Head::new(lines.iter().map(|(name, value)| (name.as_bytes(), *value)).collect());
    let recording = Recording { upstream_span_id: Some(SpanId::from(4)), ..recording() };
    let mut active = ActiveSpan::start(settings, &head, false, &recording, 1_000);
    active.response_started(1_500_000);
    active.export_on("resets");
    let (span, of_call) = active.finish(facts);
    [Some(span), of_call].iter().flatten().map(decoded).collect()
}

/// Returns the attributes of `one` that `other` lacks or has with another value.
fn difference<'m>(
    one: &'m BTreeMap<String, String>,
    other: &BTreeMap<String, String>,
) -> Vec<(&'m str, &'m str)> {
    let differs = |(key, value): &(&String, &String)| other.get(*key) != Some(*value);
    one.iter().filter(differs).map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

#[test]
fn the_call_upstream_has_a_span_below_that_of_the_request() {
    let lines: &[(&str, &[u8])] = &[
        (":method", b"GET"),
        (":scheme", b"https"),
        (":authority", b"shop"),
        (":path", b"/cart?item=1"),
        ("user-agent", b"curl/8"),
        ("x-request-id", b"7"),
    ];
    let facts = StreamFacts { status: 404, attempts: 3, route_name: b"/cart", ..FACTS };
    let spans = pair(lines, facts);
    let [(server, of_server), (client, of_client)] = spans.as_slice() else { panic!("{spans:?}") };
    let ids = |span: &Span| (span.span_id.clone(), span.parent_span_id.clone(), span.flags);
    let id = |id: u64| id.to_be_bytes().to_vec();
    assert_eq!(ids(server), (id(2), id(3), 0x303));
    // The parent is not remote.
    assert_eq!(ids(client), (id(4), id(2), 0x103));
    for span in [server, client] {
        assert_eq!(span.trace_id, 1u128.to_be_bytes());
        assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (1_000, 2_000));
        assert_eq!(span.trace_state, "a=1");
    }
    assert_eq!((server.name.as_str(), server.kind()), ("GET /cart", span::SpanKind::Server));
    assert_eq!((client.name.as_str(), client.kind()), ("GET", span::SpanKind::Client));
    let server_only = [
        ("client.address", "10.0.0.9"),
        ("environment", "production"),
        ("guid:x-request-id", "7"),
        ("http.route", "/cart"),
        ("network.peer.address", "10.0.0.9"),
        ("network.peer.port", "=4242"),
        ("network.protocol.version", "1.1"),
        ("pod", "none"),
        ("url.path", "/cart"),
        ("url.query", "item=1"),
        ("user.id", "-"),
        ("user_agent.original", "curl/8"),
    ];
    assert_eq!(difference(of_server, of_client), server_only);
    let client_only = [
        ("error.type", "404"),
        ("http.request.resend_count", "=2"),
        ("network.peer.address", "10.0.0.7"),
        ("network.peer.port", "=8080"),
        ("upstream_address", "10.0.0.7:8080"),
        ("upstream_cluster", "shop"),
        ("upstream_time_to_first_byte_ms", "=1.499"),
        ("url.full", "https://shop/cart?item=1"),
    ];
    assert_eq!(difference(of_client, of_server), client_only);
    assert_eq!(of_client["sidespan.reason"], "debug-header");
    assert_eq!(of_client["sidespan.export_on"], "resets");
}

#[test]
fn both_spans_of_a_grpc_call_name_its_method() {
    let lines: &[(&str, &[u8])] = &[
        (":method", b"POST"),
        (":path", b"/shop.Cart/Add"),
        ("content-type", b"application/grpc"),
    ];
    let spans = pair(lines, StreamFacts { grpc_status: Some(5), ..FACTS });
    for (span, attributes) in &spans {
        assert_eq!(span.name, "shop.Cart/Add");
        assert_eq!(attributes["rpc.response.status_code"], "NOT_FOUND");
    }
    let is_error = |(_, attributes): &(_, BTreeMap<_, _>)| attributes.contains_key("error.type");
    assert_eq!(spans.iter().map(is_error).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn neither_span_names_a_grpc_method_that_the_server_does_not_have() {
    let lines: &[(&str, &[u8])] =
        &[(":method", b"POST"), (":path", b"/Made.Up/X123"), ("content-type", b"application/grpc")];
    for facts in [
        StreamFacts { grpc_status: Some(12), ..FACTS },
        StreamFacts { status: 0, flags: 1 << 28, ..FACTS },
    ] {
        for (span, attributes) in pair(lines, facts) {
            assert_eq!((span.name.as_str(), &*attributes["rpc.method"]), ("grpc", "_OTHER"));
        }
    }
}

#[test]
fn a_request_without_a_call_upstream_has_one_span() {
    let unhealthy = StreamFacts { upstream_address: b"", flags: 1 << 1, status: 503, ..FACTS };
    let spans = pair(&[(":method", b"GET")], unhealthy);
    let [(_, attributes)] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!(attributes["upstream_cluster"], "shop", "it has no other span");
}

#[test]
fn the_span_of_a_call_holds_no_more_than_that_of_its_request() {
    let json = br#"{"span": {"omit": ["url.query", "upstream_cluster", "component"],
        "redact_path": [{"regex": "[0-9]+", "replacement": "{id}"}]}}"#;
    let settings = Config::parse(json, &|_| None).unwrap().span;
    let lines: &[(&str, &[u8])] = &[
        (":method", b"GET"),
        (":scheme", b"http"),
        (":authority", b"shop"),
        (":path", b"/a/7?b=c"),
    ];
    let spans = pair_by(&settings, lines, FACTS);
    let [(_, of_server), (_, of_client)] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!(of_server["url.path"], "/a/{id}");
    assert_eq!(of_client["url.full"], "http://shop/a/{id}");
    for key in ["url.query", "upstream_cluster", "component"] {
        assert!(!of_server.contains_key(key) && !of_client.contains_key(key), "{key}");
    }
}
