use crate::config::Config;
use std::collections::BTreeMap;

use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{Span, span, status};
use prost::Message;

use super::*;
use crate::http::head::EMPTY;
use crate::propagation::context::Sampling;

const FACTS: StreamFacts<'_> = StreamFacts {
    direction: Direction::Inbound,
    source_address: b"10.0.0.9:4242",
    protocol: b"HTTP/1.1",
    status: 200,
    flags: 0,
    code_details: b"via_upstream",
    route_name: b"",
    upstream_cluster: b"shop",
    upstream_address: b"10.0.0.7:8080",
    attempts: 1,
    request_body_bytes: 0,
    response_body_bytes: 0,
    grpc_status: None,
    answered_in_http: false,
    end_unix_nanos: 2_000,
};

fn settings() -> SpanSettings {
    let json = br#"{"custom_tags": [
        {"tag": "environment", "literal": {"value": "production"}},
        {"tag": "user.id", "request_header": {"name": "X-User-Id", "default_value": "-"}},
        {"tag": "tenant.id", "request_header": {"name": "x-tenant-id"}},
        {"tag": "pod", "environment": {"name": "POD_NAME", "default_value": "none"}},
        {"tag": "zone", "environment": {"name": "ZONE"}}]}"#;
    Config::parse(json, &|_| None).unwrap().span
}

fn recording() -> Recording<'static> {
    Recording {
        context: Context {
            trace_id: TraceId::from(1),
            span_id: SpanId::from(2),
            sampling: Sampling::Sampled,
            random: true,
            short_trace_id: false,
        },
        parent_span_id: Some(SpanId::from(3)),
        trace_state: b"a=1".to_vec(),
        reason: Reason::Rule("debug-header"),
        link: None,
    }
}

fn record(lines: &[(&str, &[u8])], facts: StreamFacts<'_>) -> (Span, BTreeMap<String, String>) {
    let head = Head::new(lines.iter().map(|(k, v)| (k.as_bytes(), *v)).collect());
    let recording = recording();
    let active = ActiveSpan::start(&settings(), &head, false, &recording, 1_000);
    let mut span = Span::decode(active.finish(facts).bytes.as_slice()).unwrap();
    let attributes = std::mem::take(&mut span.attributes).into_iter();
    let text = |value| match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => format!("={number}"),
        Value::DoubleValue(number) => format!("={number:?}"),
        other => panic!("{other:?}"),
    };
    let attributes =
        attributes.map(|pair| (pair.key, text(pair.value.unwrap().value.unwrap()))).collect();
    (span, attributes)
}

#[track_caller]
fn check(lines: &[(&str, &[u8])], facts: StreamFacts<'_>, expected: &[(&str, &str)]) {
    let (_, found) = record(lines, facts);
    let constant = [
        ("component", "proxy"),
        ("span.source", "mesh"),
        ("sidespan.reason", "debug-header"),
        ("environment", "production"),
        ("pod", "none"),
        ("network.protocol.version", "1.1"),
        ("upstream_cluster", "shop"),
        ("upstream_address", "10.0.0.7:8080"),
    ];
    let expected = expected.iter().chain(&constant);
    let expected: BTreeMap<_, _> = expected.map(|(k, v)| (k.to_string(), v.to_string())).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_server_span_describes_the_request() {
    check(
        &[
            (":method", b"GET"),
            (":scheme", b"https"),
            (":authority", b"shop:8443"),
            (":path", b"/cart?item=1&sig=secret"),
            ("user-agent", b"curl/8"),
            ("x-request-id", b"7"),
            ("x-user-id", b"u\xff"),
            ("x-tenant-id", b"acme"),
        ],
        FACTS,
        &[
            ("http.request.method", "GET"),
            ("url.scheme", "https"),
            ("url.path", "/cart"),
            ("url.query", "item=1&sig=REDACTED"),
            ("server.address", "shop"),
            ("server.port", "=8443"),
            ("client.address", "10.0.0.9"),
            ("network.peer.address", "10.0.0.9"),
            ("network.peer.port", "=4242"),
            ("user_agent.original", "curl/8"),
            ("guid:x-request-id", "7"),
            ("http.response.status_code", "=200"),
            ("response_code_details", "via_upstream"),
            ("user.id", "u\u{fffd}"),
            ("tenant.id", "acme"),
        ],
    );
}

#[test]
fn a_client_span_describes_the_call() {
    check(
        &[
            (":method", b"BREW"),
            (":scheme", b"http"),
            (":authority", b"user:pass@pot"),
            (":path", b"/coffee?milk"),
        ],
        StreamFacts { direction: Direction::Outbound, status: 404, ..FACTS },
        &[
            ("http.request.method", "_OTHER"),
            ("http.request.method_original", "BREW"),
            ("url.scheme", "http"),
            ("url.full", "http://pot/coffee?milk"),
            ("server.address", "pot"),
            ("server.port", "=80"),
            ("network.peer.address", "10.0.0.7"),
            ("network.peer.port", "=8080"),
            ("http.response.status_code", "=404"),
            ("error.type", "404"),
            ("response_code_details", "via_upstream"),
            ("user.id", "-"),
        ],
    );
}

#[test]
fn an_address_from_forwarded_headers_is_no_peer() {
    let facts = StreamFacts { source_address: b"203.0.113.7:0", ..FACTS };
    let (_, attributes) = record(&[], facts);
    assert_eq!(attributes.get("client.address").map(String::as_str), Some("203.0.113.7"));
    assert_eq!(attributes.get("network.peer.address"), None);
}

#[test]
fn only_ip_addresses_are_recorded_as_addresses() {
    for address in [
        "envoy://internal_client_address/",
        "envoy://connect_originate/10.0.0.7:8080",
        "/run/shop.sock",
        "@10.0.0.7:80",
        "",
    ] {
        let inbound = StreamFacts { source_address: address.as_bytes(), ..FACTS };
        let (upstream_address, direction) = (address.as_bytes(), Direction::Outbound);
        let outbound = StreamFacts { upstream_address, direction, ..FACTS };
        for facts in [inbound, outbound] {
            let (_, attributes) = record(&[], facts);
            for key in ["client.address", "network.peer.address", "network.peer.port"] {
                assert_eq!(attributes.get(key), None, "{key} of {address}");
            }
        }
        let (_, attributes) = record(&[], outbound);
        let raw = attributes.get("upstream_address").map_or("", String::as_str);
        assert_eq!(raw, address);
    }
}

#[test]
fn a_request_without_a_response_names_its_flags() {
    let reset = StreamFacts {
        status: 0,
        flags: 1 << 14,
        code_details: b"downstream_remote_disconnect",
        ..FACTS
    };
    let (span, attributes) = record(&[], reset);
    assert_eq!(attributes.get("error.type").map(String::as_str), Some("DC"));
    assert_eq!(attributes.get("response_flags").map(String::as_str), Some("DC"));
    assert_eq!(attributes.get("http.response.status_code"), None);
    assert_eq!(span.status.unwrap().code(), status::StatusCode::Error);
}

#[test]
fn who_the_span_is_and_when_it_was() {
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

/// Checks `error.type`, which a span has where its status is an error, and its event.
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
fn an_error_is_what_the_http_conventions_call_one() {
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

#[track_caller]
fn check_named(
    lines: &[(&str, &[u8])],
    facts: StreamFacts<'_>,
    name: &str,
    expected: &[(&str, &str)],
) {
    let (span, found) = record(lines, facts);
    assert_eq!(span.name, name, "{lines:?}");
    for (key, value) in expected {
        let value = (!value.is_empty()).then_some(*value);
        assert_eq!(found.get(*key).map(String::as_str), value, "{key} of {lines:?}");
    }
}

#[test]
fn a_span_is_named_by_method_and_route() {
    let get: &[(&str, &[u8])] = &[(":method", b"GET"), (":path", b"/products/7")];
    let on = |route_name: &'static [u8]| StreamFacts { route_name, ..FACTS };
    check_named(get, on(b""), "GET", &[("http.route", "")]);
    check_named(
        get,
        on(b"/products/{id}"),
        "GET /products/{id}",
        &[("http.route", "/products/{id}")],
    );
    check_named(get, on(b"shop"), "GET shop", &[("http.route", "shop")]);
    check_named(get, on(b"\xff"), "GET \u{fffd}", &[("http.route", "\u{fffd}")]);
    check_named(get, on(b"default"), "GET", &[("http.route", "")]);
    check_named(&[(":method", b"BREW")], on(b"/pot"), "HTTP /pot", &[("http.route", "/pot")]);
}

#[test]
fn grpc_is_named_and_judged_by_its_own_conventions() {
    let call = |path: &'static [u8]| {
        [(":method", b"POST".as_slice()), (":path", path), ("content-type", b"application/grpc")]
    };
    let add = call(b"/shop.Cart/Add");
    let ended = |direction, grpc_status| StreamFacts {
        direction,
        grpc_status,
        route_name: b"grpc",
        ..FACTS
    };
    use Direction::{Inbound, Outbound};
    check_named(
        &add,
        ended(Inbound, Some(0)),
        "shop.Cart/Add",
        &[
            ("rpc.system.name", "grpc"),
            ("rpc.method", "shop.Cart/Add"),
            ("rpc.response.status_code", "OK"),
            ("error.type", ""),
            ("http.route", ""),
        ],
    );
    let not_found = [("rpc.response.status_code", "NOT_FOUND"), ("error.type", "")];
    check_named(&add, ended(Inbound, Some(5)), "shop.Cart/Add", &not_found);
    let not_found = [("rpc.response.status_code", "NOT_FOUND"), ("error.type", "NOT_FOUND")];
    check_named(&add, ended(Outbound, Some(5)), "shop.Cart/Add", &not_found);
    let unknown = [
        ("rpc.method", "_OTHER"),
        ("rpc.method_original", "shop.Cart/Add"),
        ("error.type", "UNIMPLEMENTED"),
    ];
    check_named(&add, ended(Inbound, Some(12)), "grpc", &unknown);
    check_named(&add, ended(Outbound, Some(12)), "shop.Cart/Add", &[("rpc.method_original", "")]);
    let plain = StreamFacts { answered_in_http: true, status: 503, ..ended(Inbound, None) };
    let of_http = [("rpc.system.name", ""), ("rpc.method", ""), ("error.type", "503")];
    check_named(&add, plain, "POST grpc", &of_http);
    // Nobody answered: whoever asks makes up the name.
    let gone = StreamFacts { status: 0, flags: 1 << 28, ..ended(Inbound, None) };
    let gone_attributes = [("rpc.method", "_OTHER"), ("error.type", "DR")];
    check_named(&add, gone, "grpc", &gone_attributes);
    check_named(&add, StreamFacts { direction: Outbound, ..gone }, "shop.Cart/Add", &[]);
    let no_upstream = StreamFacts { upstream_address: b"", ..ended(Inbound, Some(14)) };
    check_named(&add, no_upstream, "grpc", &[("rpc.response.status_code", "UNAVAILABLE")]);
    let cut = StreamFacts { flags: 1 << 6, ..ended(Outbound, None) };
    check_named(&add, cut, "shop.Cart/Add", &[("error.type", "UC")]);
    let cancelled = StreamFacts { flags: 1 << 28, ..ended(Outbound, None) };
    check_named(&add, cancelled, "shop.Cart/Add", &[("error.type", "")]);
    let no_grpc = StreamFacts { status: 404, ..ended(Inbound, None) };
    check_named(&add, no_grpc, "grpc", &[("rpc.method", "_OTHER"), ("error.type", "")]);
    let odd = [("rpc.method", "_OTHER"), ("rpc.method_original", "a/b/c")];
    check_named(&call(b"/a/b/c?x"), ended(Inbound, Some(0)), "grpc", &odd);
}

#[test]
fn a_web_socket_is_no_version_of_http() {
    let asked: &[(&str, &[u8])] = &[(":method", b"GET"), ("upgrade", b"WebSocket")];
    let protocol =
        |name, version| [("network.protocol.name", name), ("network.protocol.version", version)];
    let switched = StreamFacts { status: 101, ..FACTS };
    check_named(asked, switched, "GET", &protocol("websocket", ""));
    check_named(asked, FACTS, "GET", &protocol("", "1.1"));
}

#[test]
fn tries_and_sizes_are_there_where_they_say_anything() {
    let keys = ["http.request.resend_count", "http.request.body.size", "http.response.body.size"];
    let facts =
        StreamFacts { attempts: 3, request_body_bytes: 5, response_body_bytes: 1 << 40, ..FACTS };
    let found = |facts| {
        let (_, attributes) = record(&[], facts);
        keys.map(|key| attributes.get(key).cloned().unwrap_or_default())
    };
    assert_eq!(found(facts), ["=2", "=5", "=1099511627776"]);
    assert_eq!(found(FACTS), ["", "", ""]);
    assert_eq!(found(StreamFacts { attempts: 0, ..FACTS }), ["", "", ""]);
}

#[test]
fn the_headers_say_how_large_a_body_is() {
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
fn the_first_byte_counts_once_and_only_from_an_upstream() {
    let started = |facts| {
        let recording = recording();
        let mut active = ActiveSpan::start(&settings(), &EMPTY, false, &recording, 1_000_000);
        active.response_started(3_500_000);
        active.response_started(9_000_000);
        let span = Span::decode(active.finish(facts).bytes.as_slice()).unwrap();
        let key = "upstream_time_to_first_byte_ms";
        let found = span.attributes.into_iter().find(|pair| pair.key == key);
        found.and_then(|pair| pair.value?.value)
    };
    assert_eq!(started(FACTS), Some(Value::DoubleValue(2.5)));
    assert_eq!(started(StreamFacts { upstream_address: b"", ..FACTS }), None);
}

#[test]
fn long_values_are_cut_at_a_character_and_counted() {
    let path = "/é".repeat(600);
    let head = Head::new(vec![(b":path", path.as_bytes())]);
    let recording = recording();
    let finished = ActiveSpan::start(&settings(), &head, false, &recording, 0).finish(FACTS);
    assert_eq!(finished.truncated, 1);
    let span = Span::decode(finished.bytes.as_slice()).unwrap();
    let path = span.attributes.iter().find(|pair| pair.key == "url.path").unwrap();
    let Some(Value::StringValue(kept)) = path.value.clone().unwrap().value else {
        panic!("{path:?}");
    };
    assert_eq!(kept.chars().count(), 1024);
}
