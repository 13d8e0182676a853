//! OTLP's protobuf encoding of spans, written field by field into one buffer.
//!
//! <https://github.com/open-telemetry/opentelemetry-proto/blob/v1.9.0/opentelemetry/proto/trace/v1/trace.proto>
//!
//! A message tree per span would cost an allocation an attribute, for a span that is encoded
//! seconds later anyway. Protobuf fields may stand in any order, so a span is encoded as its facts
//! become known: half at its request, half at its end.

use std::borrow::Cow;

use opentelemetry::trace::{SpanId, SpanKind, Status, TraceFlags, TraceId};
use opentelemetry::{KeyValue, Value};

/// The fields of one `Span` message, as far as they are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpanFields {
    bytes: Vec<u8>,
    /// Attribute values that were cut to [`MAX_ATTRIBUTE_VALUE_BYTES`].
    pub truncated: u32,
}

impl SpanFields {
    /// Starts a span. `trace_state` is left out where it is empty or not UTF-8.
    pub fn start(ids: SpanIds<'_>, name: &str, kind: SpanKind, start_unix_nanos: u64) -> Self {
        let mut bytes = Vec::with_capacity(TYPICAL_SPAN_BYTES);
        put_bytes(&mut bytes, span::TRACE_ID, &ids.trace_id.to_bytes());
        put_bytes(&mut bytes, span::SPAN_ID, &ids.span_id.to_bytes());
        if let Ok(state @ [_, ..]) = std::str::from_utf8(ids.trace_state).map(str::as_bytes) {
            put_bytes(&mut bytes, span::TRACE_STATE, state);
        }
        if let Some(parent) = ids.parent_span_id {
            put_bytes(&mut bytes, span::PARENT_SPAN_ID, &parent.to_bytes());
        }
        put_bytes(&mut bytes, span::NAME, name.as_bytes());
        put_varint_field(&mut bytes, span::KIND, kind_number(&kind));
        put_fixed64(&mut bytes, span::START_TIME_UNIX_NANO, start_unix_nanos);
        let remote = if ids.parent_span_id.is_some() { IS_REMOTE } else { 0 };
        let flags = u32::from(ids.flags.to_u8()) | HAS_IS_REMOTE | remote;
        put_fixed32(&mut bytes, span::FLAGS, flags);
        Self { bytes, truncated: 0 }
    }

    /// Adds a string attribute. Bytes that are not UTF-8 become U+FFFD, and a value longer than
    /// [`MAX_ATTRIBUTE_VALUE_BYTES`] is cut before the character that passes the limit.
    pub fn text(&mut self, key: &str, value: &[u8]) {
        self.truncated += u32::from(put_text_attribute(&mut self.bytes, key, value));
    }

    /// Adds an integer attribute.
    pub fn integer(&mut self, key: &str, value: u64) {
        let any_len = 1 + varint_len(value);
        put_attribute_head(&mut self.bytes, span::ATTRIBUTES, key, any_len);
        put_varint_field(&mut self.bytes, any_value::INT, value);
    }

    /// Adds attributes that were encoded once by [`encode_attributes`].
    pub fn encoded(&mut self, attributes: &[u8]) {
        self.bytes.extend_from_slice(attributes);
    }

    /// Ends a span and returns its fields.
    pub fn end(mut self, end_unix_nanos: u64, status: &Status) -> Vec<u8> {
        put_fixed64(&mut self.bytes, span::END_TIME_UNIX_NANO, end_unix_nanos);
        if let Status::Error { description } = status {
            let message_len = if description.is_empty() { 0 } else { field_len(description.len()) };
            put_len(&mut self.bytes, span::STATUS, message_len + 2);
            if !description.is_empty() {
                put_bytes(&mut self.bytes, span::STATUS_MESSAGE, description.as_bytes());
            }
            put_varint_field(&mut self.bytes, span::STATUS_CODE, STATUS_CODE_ERROR);
        }
        self.bytes
    }
}

/// Who a span is, and below whom.
#[derive(Debug, Clone, Copy)]
pub struct SpanIds<'a> {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub parent_span_id: Option<SpanId>,
    pub flags: TraceFlags,
    pub trace_state: &'a [u8],
}

/// Encodes attributes as a span holds them. Values that are no strings are left out.
pub fn encode_attributes(attributes: &[KeyValue]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, value) in texts(attributes) {
        put_text_attribute(&mut bytes, key, value.as_bytes());
    }
    bytes
}

/// Encodes a `Resource` message as `ResourceSpans` holds it. Values that are no strings are left
/// out.
pub fn encode_resource(attributes: &[KeyValue]) -> Vec<u8> {
    let mut resource = Vec::new();
    for (key, value) in texts(attributes) {
        put_attribute_head(&mut resource, RESOURCE_ATTRIBUTES, key, field_len(value.len()));
        put_bytes(&mut resource, any_value::STRING, value.as_bytes());
    }
    let mut bytes = Vec::new();
    put_bytes(&mut bytes, resource_spans::RESOURCE, &resource);
    bytes
}

fn texts(attributes: &[KeyValue]) -> impl Iterator<Item = (&str, &str)> {
    attributes.iter().filter_map(|attribute| match &attribute.value {
        Value::String(value) => Some((attribute.key.as_str(), value.as_str())),
        _ => None,
    })
}

/// Appends a finished span to a run of spans, as `ScopeSpans` holds them.
pub fn append_span(run: &mut Vec<u8>, span: &[u8]) {
    put_bytes(run, scope_spans::SPANS, span);
}

/// Wraps a run of spans in an `ExportTraceServiceRequest` with this resource.
pub fn export_request(resource: &[u8], run: &[u8]) -> Vec<u8> {
    let mut scope = Vec::new();
    put_bytes(&mut scope, SCOPE_NAME, env!("CARGO_PKG_NAME").as_bytes());
    put_bytes(&mut scope, SCOPE_VERSION, env!("CARGO_PKG_VERSION").as_bytes());
    let scope_spans_len = field_len(scope.len()) + run.len();
    let resource_spans_len = resource.len() + field_len(scope_spans_len);
    let mut bytes = Vec::with_capacity(field_len(resource_spans_len));
    put_len(&mut bytes, EXPORT_RESOURCE_SPANS, resource_spans_len);
    bytes.extend_from_slice(resource);
    put_len(&mut bytes, resource_spans::SCOPE_SPANS, scope_spans_len);
    put_bytes(&mut bytes, scope_spans::SCOPE, &scope);
    bytes.extend_from_slice(run);
    bytes
}

fn put_text_attribute(bytes: &mut Vec<u8>, key: &str, value: &[u8]) -> bool {
    let value = match std::str::from_utf8(value) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(value),
    };
    let end = value.floor_char_boundary(MAX_ATTRIBUTE_VALUE_BYTES);
    let kept = value.get(..end).unwrap_or_default();
    put_attribute_head(bytes, span::ATTRIBUTES, key, field_len(kept.len()));
    put_bytes(bytes, any_value::STRING, kept.as_bytes());
    end < value.len()
}

/// Writes a `KeyValue` up to its value, whose `AnyValue` takes `any_len` bytes.
fn put_attribute_head(bytes: &mut Vec<u8>, field: u32, key: &str, any_len: usize) {
    put_len(bytes, field, field_len(key.len()) + field_len(any_len));
    put_bytes(bytes, key_value::KEY, key.as_bytes());
    put_len(bytes, key_value::VALUE, any_len);
}

fn kind_number(kind: &SpanKind) -> u64 {
    match kind {
        SpanKind::Internal => 1,
        SpanKind::Server => 2,
        SpanKind::Client => 3,
        SpanKind::Producer => 4,
        SpanKind::Consumer => 5,
    }
}

/// Bytes of a length-delimited field whose number is below 16.
fn field_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn put_varint_field(bytes: &mut Vec<u8>, field: u32, value: u64) {
    put_varint(bytes, u64::from(field << 3 | WIRE_VARINT));
    put_varint(bytes, value);
}

fn put_len(bytes: &mut Vec<u8>, field: u32, len: usize) {
    put_varint(bytes, u64::from(field << 3 | WIRE_LEN));
    put_varint(bytes, len as u64);
}

fn put_bytes(bytes: &mut Vec<u8>, field: u32, value: &[u8]) {
    put_len(bytes, field, value.len());
    bytes.extend_from_slice(value);
}

fn put_fixed64(bytes: &mut Vec<u8>, field: u32, value: u64) {
    put_varint(bytes, u64::from(field << 3 | WIRE_FIXED64));
    bytes.extend_from_slice(&value.to_le_bytes());
}

fn put_fixed32(bytes: &mut Vec<u8>, field: u32, value: u32) {
    put_varint(bytes, u64::from(field << 3 | WIRE_FIXED32));
    bytes.extend_from_slice(&value.to_le_bytes());
}

/// Longest value of a string attribute, in bytes.
pub const MAX_ATTRIBUTE_VALUE_BYTES: usize = 1024;

const TYPICAL_SPAN_BYTES: usize = 1024;

const WIRE_VARINT: u32 = 0;
const WIRE_FIXED64: u32 = 1;
const WIRE_LEN: u32 = 2;
const WIRE_FIXED32: u32 = 5;

/// `SpanFlags`: whether the parent was remote is known, and it was.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;
const STATUS_CODE_ERROR: u64 = 2;

const EXPORT_RESOURCE_SPANS: u32 = 1;
const RESOURCE_ATTRIBUTES: u32 = 1;
const SCOPE_NAME: u32 = 1;
const SCOPE_VERSION: u32 = 2;

mod resource_spans {
    pub const RESOURCE: u32 = 1;
    pub const SCOPE_SPANS: u32 = 2;
}

mod scope_spans {
    pub const SCOPE: u32 = 1;
    pub const SPANS: u32 = 2;
}

mod span {
    pub const TRACE_ID: u32 = 1;
    pub const SPAN_ID: u32 = 2;
    pub const TRACE_STATE: u32 = 3;
    pub const PARENT_SPAN_ID: u32 = 4;
    pub const NAME: u32 = 5;
    pub const KIND: u32 = 6;
    pub const START_TIME_UNIX_NANO: u32 = 7;
    pub const END_TIME_UNIX_NANO: u32 = 8;
    pub const ATTRIBUTES: u32 = 9;
    pub const STATUS: u32 = 15;
    pub const FLAGS: u32 = 16;
    pub const STATUS_MESSAGE: u32 = 2;
    pub const STATUS_CODE: u32 = 3;
}

mod key_value {
    pub const KEY: u32 = 1;
    pub const VALUE: u32 = 2;
}

mod any_value {
    pub const STRING: u32 = 1;
    pub const INT: u32 = 3;
}
