use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanId, SpanKind, Status, TraceFlags, TraceId};
use proptest::prelude::*;
use serde_json::{Value as Parsed, json};

use super::*;
use crate::export::otlp::{append_span, encode_resource};
use crate::propagation;
use crate::propagation::context::{Context, Sampling};
use crate::span::encoding::{AttributeLimits, SpanFields, SpanIds};
use crate::span::tags::value::TagValue;

fn fields(parent_span_id: Option<SpanId>, trace_state: &[u8]) -> SpanFields {
    let ids = SpanIds {
        trace_id: TraceId::from(0x0af7),
        span_id: SpanId::from(0xb7ad),
        parent_span_id,
        parent_is_remote: true,
        flags: TraceFlags::SAMPLED,
        trace_state,
    };
    let limits = AttributeLimits { count: 9, ..AttributeLimits::default() };
    SpanFields::start(ids, 1_000_000_001_999, limits)
}

#[track_caller]
fn parsed(resource: &[KeyValue], ended: &[Vec<u8>]) -> Parsed {
    let mut encoded_spans = Vec::new();
    ended.iter().for_each(|span| append_span(&mut encoded_spans, span));
    let json = spans(&encode_resource(resource), &encoded_spans);
    serde_json::from_slice(&json).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&json));
    })
}

#[test]
fn a_span_is_translated_field_by_field() {
    let mut first = fields(Some(SpanId::from(1)), b"a=1");
    first.text(key::SERVER_ADDRESS, b"shop");
    first.text(key::NETWORK_PEER_ADDRESS, b"10.0.0.7");
    first.integer(key::NETWORK_PEER_PORT, 8080);
    first.text("text", b"say \"\\\"\n");
    first.number("number", 10.25);
    first.own.boolean("flag", true);
    first.event("timeout", 1_000_000_002_000);
    let context = Context {
        trace_id: TraceId::from(3),
        span_id: SpanId::from(4),
        sampling: Sampling::Sampled,
        random: false,
        short_trace_id: false,
    };
    first.link(&propagation::Link { context, trace_state: b"b=2".to_vec() });
    for tag in ["kept", "also", "last", "dropped"] {
        first.tags.text(tag, b"");
    }
    let end = 1_000_003_000_000;
    let first = first.end(b"GET", &SpanKind::Client, end, &Status::error("gone")).bytes;
    let second = fields(None, b"");
    let second = second.end(b"", &SpanKind::Internal, 1, &Status::Unset).bytes;
    let resource = [KeyValue::new("service.name", "cart"), KeyValue::new("k8s.pod.name", "cart-1")];
    let shared = json!({
        "k8s.pod.name": "cart-1",
        "otel.scope.name": "sidespan",
        "otel.scope.version": env!("CARGO_PKG_VERSION"),
    });
    let mut tags = json!({
        "server.address": "shop",
        "network.peer.address": "10.0.0.7",
        "network.peer.port": "8080",
        "text": "say \"\\\"\n",
        "number": "10.25",
        "flag": "true",
        "kept": "",
        "also": "",
        "last": "",
        "otlp.link.0": "00000000000000000000000000000003|0000000000000004|b=2|{}|0",
        "w3c.tracestate": "a=1",
        "otel.dropped_attributes_count": "1",
        "otel.status_code": "ERROR",
        "error": "gone",
    });
    tags.as_object_mut().unwrap().extend(shared.as_object().unwrap().clone());
    let expected = json!([
        {
            "traceId": "00000000000000000000000000000af7",
            "id": "000000000000b7ad",
            "parentId": "0000000000000001",
            "name": "GET",
            "kind": "CLIENT",
            "timestamp": 1_000_000_001u64,
            "duration": 2_998,
            "localEndpoint": {"serviceName": "cart"},
            "remoteEndpoint": {"serviceName": "shop", "ipv4": "10.0.0.7", "port": 8080},
            "annotations": [{"timestamp": 1_000_000_002u64, "value": "timeout"}],
            "tags": tags,
        },
        {
            "traceId": "00000000000000000000000000000af7",
            "id": "000000000000b7ad",
            "name": "",
            "timestamp": 1_000_000_001u64,
            "duration": 1,
            "localEndpoint": {"serviceName": "cart"},
            "tags": shared,
        },
    ]);
    assert_eq!(parsed(&resource, &[first, second]), expected);
    assert_eq!(parsed(&[], &[]), json!([]));
}

/// One span with these attributes, parsed.
#[track_caller]
fn of_kind(kind: &SpanKind, attributes: &[(&str, &[u8])], status: &Status) -> Parsed {
    let mut span = fields(None, b"");
    for (key, value) in attributes {
        span.text(key, value);
    }
    parsed(&[], &[span.end(b"", kind, 1, status).bytes])[0].take()
}

#[test]
fn a_remote_endpoint_has_the_first_name_of_the_ranking_and_an_ip_address_or_none() {
    let (address, server) = (key::NETWORK_PEER_ADDRESS, key::SERVER_ADDRESS);
    for (attributes, expected) in [
        (&[(address, &b"10.0.0.7"[..])][..], json!({"ipv4": "10.0.0.7"})),
        (&[(address, b"fd00::7")], json!({"ipv6": "fd00::7"})),
        (&[(address, b"::ffff:10.0.0.7")], json!({"ipv6": "::ffff:10.0.0.7"})),
        (&[(server, b"shop"), (address, b"bad:cafe")], json!({"serviceName": "shop"})),
        (&[(server, b"shop"), (key::PEER_SERVICE, b"cart")], json!({"serviceName": "cart"})),
        (&[(address, b"/run/shop.sock")], Parsed::Null),
        (&[(address, b"10.0.0.7:80")], Parsed::Null),
        (&[(address, b"beef")], Parsed::Null),
        (&[(address, b"1.2.3")], Parsed::Null),
        (&[(address, b"")], Parsed::Null),
        (&[], Parsed::Null),
    ] {
        for (kind, expected) in [
            (SpanKind::Client, &expected),
            (SpanKind::Producer, &expected),
            (SpanKind::Server, &Parsed::Null),
            (SpanKind::Consumer, &Parsed::Null),
            (SpanKind::Internal, &Parsed::Null),
        ] {
            let found = &of_kind(&kind, attributes, &Status::Unset)["remoteEndpoint"];
            assert_eq!(found, expected, "{kind:?} {attributes:?}");
        }
    }
}

#[test]
fn only_the_status_makes_a_span_failed() {
    for (status, expected) in [
        (Status::Unset, Parsed::Null),
        (Status::error(""), json!("")),
        (Status::error("gone"), json!("gone")),
    ] {
        let span = of_kind(&SpanKind::Server, &[("error", b"false")], &status);
        assert_eq!(span["tags"]["error"], expected);
    }
}

#[test]
fn a_link_has_the_number_of_parts_that_the_collector_reads() {
    let context = Context {
        trace_id: TraceId::from(3),
        span_id: SpanId::from(4),
        sampling: Sampling::Sampled,
        random: false,
        short_trace_id: false,
    };
    let states = [("", ""), ("a=1,b=2", "a=1,b=2"), ("a=1|2", ""), ("a=1|{}|9|", "")];
    let mut span = fields(None, b"a=1|2");
    for (state, _) in states {
        span.link(&propagation::Link { context, trace_state: state.into() });
    }
    let span = span.end(b"", &SpanKind::Server, 1, &Status::Unset).bytes;
    let tags = &parsed(&[], &[span])[0]["tags"];
    for (index, (state, expected)) in states.into_iter().enumerate() {
        let link = format!("{:032x}|{:016x}|{expected}|{{}}|0", 3, 4);
        assert_eq!(tags[format!("otlp.link.{index}")], link, "{state}");
    }
    assert_eq!(tags["w3c.tracestate"], "a=1|2");
}

#[test]
fn numbers_are_written_as_in_tags() {
    for number in [0.1, 404.0, 1e-21, 1e20, f64::NAN, f64::NEG_INFINITY] {
        let mut span = fields(None, b"");
        span.number("number", number);
        let span = span.end(b"", &SpanKind::Server, 1, &Status::Unset).bytes;
        let tag = TagValue::Double(number).into_text();
        assert_eq!(parsed(&[], &[span])[0]["tags"]["number"], *String::from_utf8_lossy(&tag));
    }
}

#[test]
fn a_tag_of_the_span_overrides_one_of_the_resource() {
    let mut span = fields(None, b"");
    span.text("zone", b"span");
    let span = span.end(b"", &SpanKind::Server, 1, &Status::Unset).bytes;
    let resource = [KeyValue::new("zone", "resource"), KeyValue::new("error", "resource")];
    let json = spans(&encode_resource(&resource), &{
        let mut encoded_spans = Vec::new();
        append_span(&mut encoded_spans, &span);
        encoded_spans
    });
    assert_eq!(String::from_utf8(json).unwrap().matches("\"zone\":\"span\"").count(), 1);
    assert_eq!(parsed(&resource, &[span])[0]["tags"]["error"], Parsed::Null);
}

proptest! {
    #[test]
    fn any_text_comes_back(name in "[^\\x00]{1,9}", value: String) {
        let span = of_kind(&SpanKind::Server, &[(&name, value.as_bytes())], &Status::Unset);
        let printed = crate::span::text::printable(value.as_bytes());
        prop_assert_eq!(&span["tags"][&name], &json!(printed));
    }

    #[test]
    fn any_bytes_make_a_list(resource: Vec<u8>, encoded_spans: Vec<u8>) {
        let json = spans(&resource, &encoded_spans);
        prop_assert!(serde_json::from_slice::<Vec<Parsed>>(&json).is_ok());
    }

    #[test]
    fn a_truncated_span_is_still_one_span(len in 0usize..200) {
        let mut span = fields(Some(SpanId::from(1)), b"a=1");
        span.text(key::SERVER_ADDRESS, b"shop");
        span.event("timeout", 7);
        let mut bytes = span.end(b"GET", &SpanKind::Client, 9, &Status::error("gone")).bytes;
        bytes.truncate(len);
        prop_assert_eq!(parsed(&[], &[bytes]).as_array().map(Vec::len), Some(1));
    }
}
