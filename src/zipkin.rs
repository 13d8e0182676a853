//! Turns spans that are encoded as OTLP into Zipkin's v2 JSON.
//!
//! <https://opentelemetry.io/docs/specs/otel/trace/sdk_exporters/zipkin/>,
//! <https://zipkin.io/zipkin-api/zipkin2-api.yaml>
//!
//! Spans are encoded once, for all exporters, and most are sent as they are. What the specification
//! has no field for is put where the Collector's Zipkin receiver looks for it: `tracestate` and links
//! in tags of their own, the resource among the tags of each span.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use serde::Serialize;
use serde::ser::{SerializeSeq, Serializer};

use crate::attributes as key;
use crate::digits;
use crate::otlp;

/// Returns a JSON array of the spans in `run`, whose resource is `resource`, both as `otlp` writes
/// them. Fields that are malformed are left out.
pub fn spans(resource: &[u8], run: &[u8]) -> Vec<u8> {
    let resource: ResourceSpans = otlp::decode(resource);
    let resource = resource.resource.unwrap_or_default();
    let mut service_name = Cow::Borrowed("");
    let mut shared = Tags::new();
    for attribute in &resource.attributes {
        match attribute.key.as_str() {
            key::SERVICE_NAME => service_name = text(attribute),
            key => _ = shared.insert(key.into(), text(attribute)),
        }
    }
    shared.insert(key::OTEL_SCOPE_NAME.into(), env!("CARGO_PKG_NAME").into());
    shared.insert(key::OTEL_SCOPE_VERSION.into(), env!("CARGO_PKG_VERSION").into());
    let mut json = Vec::with_capacity(run.len() * 2);
    // Nothing here can fail: the output is memory, and every key is a string.
    let _ = put_spans(&mut json, &service_name, &shared, run);
    json
}

fn put_spans(
    json: &mut Vec<u8>,
    service_name: &str,
    shared: &Tags<'_>,
    run: &[u8],
) -> serde_json::Result<()> {
    let mut serializer = serde_json::Serializer::new(json);
    let mut list = serializer.serialize_seq(None)?;
    for span in otlp::spans(run) {
        let span: Span = otlp::decode(span);
        list.serialize_element(&ZipkinSpan::new(&span, service_name, shared))?;
    }
    list.end()
}

/// `Span` of Zipkin's API.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ZipkinSpan<'a> {
    trace_id: String,
    id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    parent_id: String,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    timestamp: u64,
    duration: u64,
    local_endpoint: Endpoint<'a>,
    #[serde(skip_serializing_if = "Endpoint::is_empty")]
    remote_endpoint: Endpoint<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    annotations: Vec<Annotation<'a>>,
    tags: Tags<'a>,
}

/// `Endpoint` of Zipkin's API.
#[derive(Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    service_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv4: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv6: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<i64>,
}

/// `Annotation` of Zipkin's API.
#[derive(Serialize)]
struct Annotation<'a> {
    timestamp: u64,
    value: &'a str,
}

/// Tags have strings as values, whatever an attribute has.
type Tags<'a> = BTreeMap<Cow<'a, str>, Cow<'a, str>>;

impl<'a> ZipkinSpan<'a> {
    fn new(span: &'a Span, service_name: &'a str, shared: &'a Tags<'_>) -> Self {
        let nanos = span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano);
        let is_caller = matches!(span.kind(), SpanKind::Client | SpanKind::Producer);
        Self {
            trace_id: digits::hex(&span.trace_id),
            id: digits::hex(&span.span_id),
            parent_id: digits::hex(&span.parent_span_id),
            name: &span.name,
            kind: match span.kind() {
                SpanKind::Server => Some("SERVER"),
                SpanKind::Client => Some("CLIENT"),
                SpanKind::Producer => Some("PRODUCER"),
                SpanKind::Consumer => Some("CONSUMER"),
                SpanKind::Internal | SpanKind::Unspecified => None,
            },
            timestamp: span.start_time_unix_nano / NANOS_PER_MICRO,
            // Zipkin takes 0 for none.
            duration: (nanos / NANOS_PER_MICRO).max(1),
            local_endpoint: Endpoint { service_name: Some(service_name), ..Endpoint::default() },
            // Only what is called makes a dependency.
            remote_endpoint: if is_caller {
                Endpoint::called_by(span)
            } else {
                Endpoint::default()
            },
            annotations: span.events.iter().map(Annotation::new).collect(),
            tags: tags(span, shared),
        }
    }
}

impl<'a> Endpoint<'a> {
    /// Returns the endpoint that a span calls. Its name is the first of the attributes that the
    /// specification ranks and a span can have.
    fn called_by(span: &'a Span) -> Self {
        let attribute = |key: &str| {
            let mut attributes = span.attributes.iter();
            attributes.find(|attribute| attribute.key == key)?.value.as_ref()?.value.as_ref()
        };
        let text = |key| match attribute(key) {
            Some(Value::StringValue(text)) => Some(text.as_str()),
            _ => None,
        };
        let address = text(key::NETWORK_PEER_ADDRESS);
        let ip = address.and_then(|address| address.parse().ok());
        Self {
            service_name: text(key::PEER_SERVICE).or_else(|| text(key::SERVER_ADDRESS)),
            ipv4: address.filter(|_| matches!(ip, Some(IpAddr::V4(_)))),
            ipv6: address.filter(|_| matches!(ip, Some(IpAddr::V6(_)))),
            port: match attribute(key::NETWORK_PEER_PORT) {
                Some(Value::IntValue(port)) => Some(*port),
                _ => None,
            },
        }
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl<'a> Annotation<'a> {
    fn new(event: &'a Event) -> Self {
        Self { timestamp: event.time_unix_nano / NANOS_PER_MICRO, value: &event.name }
    }
}

/// Returns the tags of a span; `shared` are those of all spans.
fn tags<'a>(span: &'a Span, shared: &'a Tags<'_>) -> Tags<'a> {
    let mut tags = Tags::new();
    for (key, value) in shared {
        tags.insert(Cow::Borrowed(key), Cow::Borrowed(value));
    }
    for attribute in &span.attributes {
        tags.insert(Cow::Borrowed(&attribute.key), text(attribute));
    }
    for (index, link) in span.links.iter().enumerate() {
        tags.insert(format!("{LINK_PREFIX}{index}").into(), link_text(link).into());
    }
    if !span.trace_state.is_empty() {
        tags.insert(TRACE_STATE.into(), Cow::Borrowed(&span.trace_state));
    }
    if span.dropped_attributes_count > 0 {
        let count = span.dropped_attributes_count.to_string();
        tags.insert(DROPPED_ATTRIBUTES_COUNT.into(), count.into());
    }
    // Whatever its value, Zipkin takes a span that has it for failed.
    tags.remove(ERROR);
    if let Some(status) = span.status.as_ref().filter(|it| it.code() == StatusCode::Error) {
        tags.insert(key::OTEL_STATUS_CODE.into(), "ERROR".into());
        tags.insert(ERROR.into(), Cow::Borrowed(&status.message));
    }
    tags
}

/// Returns an attribute's value as text; lists, maps and bytes, which no attribute here has, are empty.
fn text(attribute: &KeyValue) -> Cow<'_, str> {
    match attribute.value.as_ref().and_then(|any| any.value.as_ref()) {
        Some(Value::StringValue(text)) => Cow::Borrowed(text),
        Some(Value::BoolValue(true)) => Cow::Borrowed("true"),
        Some(Value::BoolValue(false)) => Cow::Borrowed("false"),
        Some(Value::IntValue(number)) => Cow::Owned(number.to_string()),
        Some(Value::DoubleValue(number)) => Cow::Owned(digits::float(*number)),
        _ => Cow::Borrowed(""),
    }
}

/// Returns a link as the Collector reads it: ids, `tracestate`, attributes, number of those dropped.
/// It refuses all spans where it finds one part more, so a `tracestate` that would make one is left
/// out.
fn link_text(link: &Link) -> String {
    let (trace_id, span_id) = (digits::hex(&link.trace_id), digits::hex(&link.span_id));
    let state = if link.trace_state.contains('|') { "" } else { &link.trace_state };
    format!("{trace_id}|{span_id}|{state}|{{}}|0")
}

const NANOS_PER_MICRO: u64 = 1_000;

const DROPPED_ATTRIBUTES_COUNT: &str = "otel.dropped_attributes_count";
const ERROR: &str = "error";
const TRACE_STATE: &str = "w3c.tracestate";
const LINK_PREFIX: &str = "otlp.link.";

#[cfg(test)]
mod tests {
    use opentelemetry::KeyValue;
    use opentelemetry::trace::{SpanId, SpanKind, Status, TraceFlags, TraceId};
    use proptest::prelude::*;
    use serde_json::{Value as Parsed, json};

    use super::*;
    use crate::context::{Context, Sampling};
    use crate::otlp::{AttributeLimits, SpanFields, SpanIds, append_span, encode_resource};
    use crate::propagation;
    use crate::tags::Found;

    fn fields(parent_span_id: Option<SpanId>, trace_state: &[u8]) -> SpanFields {
        let ids = SpanIds {
            trace_id: TraceId::from(0x0af7),
            span_id: SpanId::from(0xb7ad),
            parent_span_id,
            flags: TraceFlags::SAMPLED,
            trace_state,
        };
        let limits = AttributeLimits { count: 9, ..AttributeLimits::default() };
        SpanFields::start(ids, 1_000_000_001_999, limits)
    }

    #[track_caller]
    fn parsed(resource: &[KeyValue], ended: &[Vec<u8>]) -> Parsed {
        let mut run = Vec::new();
        ended.iter().for_each(|span| append_span(&mut run, span));
        let json = spans(&encode_resource(resource), &run);
        serde_json::from_slice(&json).unwrap_or_else(|error| {
            panic!("{error}: {}", String::from_utf8_lossy(&json));
        })
    }

    #[test]
    fn a_span_is_zipkins() {
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
        let resource =
            [KeyValue::new("service.name", "cart"), KeyValue::new("k8s.pod.name", "cart-1")];
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
    fn a_callee_is_named_by_what_ranks_first_and_placed_by_addresses_alone() {
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
    fn a_span_failed_by_its_status_alone() {
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
    fn a_link_has_as_many_parts_as_the_collector_reads() {
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
        for (place, (state, expected)) in states.into_iter().enumerate() {
            let link = format!("{:032x}|{:016x}|{expected}|{{}}|0", 3, 4);
            assert_eq!(tags[format!("otlp.link.{place}")], link, "{state}");
        }
        assert_eq!(tags["w3c.tracestate"], "a=1|2");
    }

    #[test]
    fn numbers_are_written_as_in_tags() {
        for number in [0.1, 404.0, 1e-21, 1e20, f64::NAN, f64::NEG_INFINITY] {
            let mut span = fields(None, b"");
            span.number("number", number);
            let span = span.end(b"", &SpanKind::Server, 1, &Status::Unset).bytes;
            let tag = Found::Double(number).into_text();
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
            let mut run = Vec::new();
            append_span(&mut run, &span);
            run
        });
        assert_eq!(String::from_utf8(json).unwrap().matches("\"zone\":\"span\"").count(), 1);
        assert_eq!(parsed(&resource, &[span])[0]["tags"]["error"], Parsed::Null);
    }

    proptest! {
        #[test]
        fn any_text_comes_back(name in "[^\\x00]{1,9}", value: String) {
            let span = of_kind(&SpanKind::Server, &[(&name, value.as_bytes())], &Status::Unset);
            let printed = crate::otlp::printable(value.as_bytes());
            prop_assert_eq!(&span["tags"][&name], &json!(printed));
        }

        #[test]
        fn any_bytes_make_a_list(resource: Vec<u8>, run: Vec<u8>) {
            let json = spans(&resource, &run);
            prop_assert!(serde_json::from_slice::<Vec<Parsed>>(&json).is_ok());
        }

        #[test]
        fn a_span_that_is_cut_is_one_still(len in 0usize..200) {
            let mut span = fields(Some(SpanId::from(1)), b"a=1");
            span.text(key::SERVER_ADDRESS, b"shop");
            span.event("timeout", 7);
            let mut bytes = span.end(b"GET", &SpanKind::Client, 9, &Status::error("gone")).bytes;
            bytes.truncate(len);
            prop_assert_eq!(parsed(&[], &[bytes]).as_array().map(Vec::len), Some(1));
        }
    }
}
