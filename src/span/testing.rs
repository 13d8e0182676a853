//! What the tests of spans share: one request's facts, its span decoded, and checks of both.

use std::collections::BTreeMap;

use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use super::{ActiveSpan, Recording, SpanSettings, StreamFacts};
use crate::config::Config;
use crate::http::head::Head;
use crate::propagation::context::{Context, Sampling};
use crate::sampling::conditions::Direction;
use crate::sampling::decision::Reason;
use crate::span::encoding::EncodedSpan;

/// The facts of an inbound request that the upstream answered.
pub const FACTS: StreamFacts<'_> = StreamFacts {
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

pub fn settings() -> SpanSettings {
    let json = br#"{"custom_tags": [
        {"tag": "environment", "literal": {"value": "production"}},
        {"tag": "user.id", "request_header": {"name": "X-User-Id", "default_value": "-"}},
        {"tag": "tenant.id", "request_header": {"name": "x-tenant-id"}},
        {"tag": "pod", "environment": {"name": "POD_NAME", "default_value": "none"}},
        {"tag": "zone", "environment": {"name": "ZONE"}}]}"#;
    Config::parse(json, &|_| None).unwrap().span
}

pub fn recording() -> Recording<'static> {
    Recording {
        context: Context {
            trace_id: TraceId::from(1),
            span_id: SpanId::from(2),
            sampling: Sampling::Sampled,
            random: true,
            short_trace_id: false,
        },
        parent_span_id: Some(SpanId::from(3)),
        upstream_span_id: None,
        trace_state: b"a=1".to_vec(),
        reason: Reason::Rule("debug-header"),
        name_index: None,
        link: None,
    }
}

/// Records a request. Returns its span without the attributes, and the attributes as text: numbers
/// have a `=` in front.
pub fn record(lines: &[(&str, &[u8])], facts: StreamFacts<'_>) -> (Span, BTreeMap<String, String>) {
    let head = Head::new(lines.iter().map(|(k, v)| (k.as_bytes(), *v)).collect());
    let recording = recording();
    let active = ActiveSpan::start(&settings(), &head, false, &recording, 1_000);
    decoded(&active.finish(facts).0)
}

/// Decodes a span. Returns it without the attributes, and the attributes as text.
pub fn decoded(span: &EncodedSpan) -> (Span, BTreeMap<String, String>) {
    let mut span = Span::decode(span.bytes.as_slice()).unwrap();
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

/// Checks all attributes of a request's span, beside those that every span here has.
#[track_caller]
pub fn check(lines: &[(&str, &[u8])], facts: StreamFacts<'_>, expected: &[(&str, &str)]) {
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

/// Checks the name of a request's span and some attributes; an empty value stands for an absent
/// attribute.
#[track_caller]
pub fn check_named(
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
