//! OTLP export requests, made of spans and a resource that are encoded already.
//!
//! <https://github.com/open-telemetry/opentelemetry-proto/blob/v1.9.0/opentelemetry/proto/collector/trace/v1/trace_service.proto>

use opentelemetry::{KeyValue, Value};
use opentelemetry_semantic_conventions::SCHEMA_URL;
use prost::Message;

use crate::span::encoding::{any_value, put_attribute_head};
use crate::span::protobuf::{field_len, first_fields, put_bytes, put_len, split_field};

/// Encodes a resource as the field of a `ResourceSpans` message. Values that are not strings are left
/// out.
pub(crate) fn encode_resource(attributes: &[KeyValue]) -> Vec<u8> {
    let mut resource = Vec::new();
    for (key, value) in string_values(attributes) {
        put_attribute_head(&mut resource, RESOURCE_ATTRIBUTES, key, field_len(value.len()));
        put_bytes(&mut resource, any_value::STRING, value.as_bytes());
    }
    let mut bytes = Vec::new();
    put_bytes(&mut bytes, resource_spans::RESOURCE, &resource);
    bytes
}

fn string_values(attributes: &[KeyValue]) -> impl Iterator<Item = (&str, &str)> {
    attributes.iter().filter_map(|attribute| match &attribute.value {
        Value::String(value) => Some((attribute.key.as_str(), value.as_str())),
        _ => None,
    })
}

/// Appends a finished span as a field of a `ScopeSpans` message.
pub fn append_span(encoded_spans: &mut Vec<u8>, span: &[u8]) {
    put_bytes(encoded_spans, scope_spans::SPANS, span);
}

/// Returns the number of bytes that [`append_span`] appends.
pub(crate) fn appended_len(span: &[u8]) -> usize {
    field_len(span.len())
}

/// Splits off the spans behind the first `spans` and returns them.
pub(crate) fn split_spans(encoded_spans: &mut Vec<u8>, spans: u32) -> Vec<u8> {
    let second = encoded_spans.split_off(first_fields(encoded_spans, spans).len());
    // The queue counts bytes by length, so no spare capacity should be kept.
    encoded_spans.shrink_to_fit();
    second
}

/// Returns each encoded span, up to the first malformed one.
pub(crate) fn spans(encoded_spans: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = encoded_spans;
    std::iter::from_fn(move || {
        let span;
        (span, rest) = split_field(rest)?;
        Some(span)
    })
}

/// Decodes a protobuf message, up to the first malformed field.
pub(crate) fn decode<M: Message + Default>(bytes: &[u8]) -> M {
    let mut message = M::default();
    // On an error, the fields before the malformed one are merged.
    let _ = message.merge(bytes);
    message
}

/// Appends an `ExportTraceServiceRequest` with this resource and these spans. Both follow the
/// conventions of [`SCHEMA_URL`].
pub(crate) fn put_export_request(bytes: &mut Vec<u8>, resource: &[u8], encoded_spans: &[u8]) {
    let mut scope = Vec::new();
    put_bytes(&mut scope, SCOPE_NAME, env!("CARGO_PKG_NAME").as_bytes());
    put_bytes(&mut scope, SCOPE_VERSION, env!("CARGO_PKG_VERSION").as_bytes());
    let schema_url_len = field_len(SCHEMA_URL.len());
    let scope_spans_len = field_len(scope.len()) + encoded_spans.len() + schema_url_len;
    let resource_spans_len = resource.len() + field_len(scope_spans_len) + schema_url_len;
    bytes.reserve_exact(field_len(resource_spans_len));
    put_len(bytes, EXPORT_RESOURCE_SPANS, resource_spans_len);
    bytes.extend_from_slice(resource);
    put_len(bytes, resource_spans::SCOPE_SPANS, scope_spans_len);
    put_bytes(bytes, scope_spans::SCOPE, &scope);
    bytes.extend_from_slice(encoded_spans);
    put_bytes(bytes, scope_spans::SCHEMA_URL, SCHEMA_URL.as_bytes());
    put_bytes(bytes, resource_spans::SCHEMA_URL, SCHEMA_URL.as_bytes());
}

const EXPORT_RESOURCE_SPANS: u8 = 1;
const RESOURCE_ATTRIBUTES: u8 = 1;
const SCOPE_NAME: u8 = 1;
const SCOPE_VERSION: u8 = 2;

mod resource_spans {
    pub(super) const RESOURCE: u8 = 1;
    pub(super) const SCOPE_SPANS: u8 = 2;
    pub(super) const SCHEMA_URL: u8 = 3;
}

mod scope_spans {
    pub(super) const SCOPE: u8 = 1;
    pub(super) const SPANS: u8 = 2;
    pub(super) const SCHEMA_URL: u8 = 3;
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanId, SpanKind, Status, TraceFlags, TraceId};
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;

    use super::*;
    use crate::span::encoding::{AttributeLimits, SpanFields, SpanIds};

    fn span() -> SpanFields {
        let ids = SpanIds {
            trace_id: TraceId::from(1),
            span_id: SpanId::from(2),
            parent_span_id: None,
            parent_is_remote: true,
            flags: TraceFlags::SAMPLED,
            trace_state: b"",
        };
        SpanFields::start(ids, 1, AttributeLimits::default())
    }

    #[test]
    fn a_request_holds_its_resource_and_its_spans() {
        let resource = encode_resource(&[KeyValue::new("service.name", "shop")]);
        let mut encoded_spans = Vec::new();
        for _ in 0..3 {
            let encoded = span().end(b"", &SpanKind::Client, 2, &Status::Unset);
            append_span(&mut encoded_spans, &encoded.bytes);
        }
        let mut bytes = Vec::new();
        put_export_request(&mut bytes, &resource, &encoded_spans);
        let request = ExportTraceServiceRequest::decode(&*bytes).unwrap();
        let [of_resource] = request.resource_spans.as_slice() else {
            panic!("{request:?}");
        };
        let resource = of_resource.resource.as_ref().unwrap();
        assert_eq!(resource.attributes[0].key, "service.name");
        assert_eq!(of_resource.scope_spans[0].scope.as_ref().unwrap().name, "sidespan");
        assert_eq!(of_resource.scope_spans[0].spans.len(), 3);
        assert_eq!(of_resource.schema_url, SCHEMA_URL);
        assert_eq!(of_resource.scope_spans[0].schema_url, SCHEMA_URL);
    }
}
