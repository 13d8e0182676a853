//! Translates spans that are encoded as OTLP into Zipkin's v2 JSON.
//!
//! <https://opentelemetry.io/docs/specs/otel/trace/sdk_exporters/zipkin/>,
//! <https://zipkin.io/zipkin-api/zipkin2-api.yaml>
//!
//! All spans are encoded as OTLP when they end; this module decodes them again. Zipkin has no fields
//! for `tracestate`, links and resource attributes. They become tags of each span, under the keys that
//! the Collector's Zipkin receiver reads.

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

use crate::export::otlp;
use crate::http::digits;
use crate::span::attributes as key;

/// Returns a JSON array of spans. `resource` and `encoded_spans` are as [`otlp`] encodes them.
/// Malformed fields are left out.
pub fn spans(resource: &[u8], encoded_spans: &[u8]) -> Vec<u8> {
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
    let mut json = Vec::with_capacity(encoded_spans.len() * 2);
    // This cannot fail: the output is in memory, and every key is a string.
    let _ = put_spans(&mut json, &service_name, &shared, encoded_spans);
    json
}

fn put_spans(
    json: &mut Vec<u8>,
    service_name: &str,
    shared: &Tags<'_>,
    encoded_spans: &[u8],
) -> serde_json::Result<()> {
    let mut serializer = serde_json::Serializer::new(json);
    let mut list = serializer.serialize_seq(None)?;
    for span in otlp::spans(encoded_spans) {
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

/// The values of tags are strings, whatever the type of an attribute.
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
            // Zipkin treats 0 as no duration.
            duration: (nanos / NANOS_PER_MICRO).max(1),
            local_endpoint: Endpoint { service_name: Some(service_name), ..Endpoint::default() },
            // Zipkin draws a dependency to the remote endpoint, so that only callers have one.
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
    /// Returns the endpoint that a span calls. Its name is the first attribute in the specification's
    /// ranking that the span has.
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

/// Returns the tags of a span, with the `shared` tags of all spans.
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
    // Zipkin treats a span with this tag as failed, whatever its value.
    tags.remove(ERROR);
    if let Some(status) = span.status.as_ref().filter(|it| it.code() == StatusCode::Error) {
        tags.insert(key::OTEL_STATUS_CODE.into(), "ERROR".into());
        tags.insert(ERROR.into(), Cow::Borrowed(&status.message));
    }
    tags
}

/// Returns an attribute's value as text. Lists, maps and bytes become empty; no attribute of the
/// filter has such a value.
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

/// Returns a link as the Collector reads it: trace id, span id, `tracestate`, attributes, and number of
/// dropped attributes, separated by `|`. The Collector refuses the whole request if there is one more
/// part, so that a `tracestate` with a `|` is left out.
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
mod tests;
