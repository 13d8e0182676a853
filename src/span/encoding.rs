//! OTLP's protobuf encoding of spans, written field by field into one buffer.
//!
//! <https://github.com/open-telemetry/opentelemetry-proto/blob/v1.9.0/opentelemetry/proto/trace/v1/trace.proto>
//!
//! A tree of messages would cost one allocation for each attribute, and would be encoded seconds
//! later anyway. The fields of a protobuf message may stand in any order, so a span is encoded as its
//! facts become known: half when the request arrives, half at its end.

use opentelemetry::trace::{SpanId, SpanKind, Status, TraceFlags, TraceId};

use super::attributes::OwnKeys;
use super::protobuf::{
    WIRE_FIXED32, field_len, first_fields, len_tag, put_bytes, put_fixed64, put_len, put_varint,
    varint_len, varint_tag,
};
use super::text::{first_chars, printable};
use crate::propagation::Link;

/// OpenTelemetry's `attribute_limits`: how many attributes a span may have, and how long their values
/// may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttributeLimits {
    /// All attributes of a span. Its own are always there; custom tags beyond the limit are left out.
    pub count: u32,
    /// Characters of a string value.
    pub value_length: u32,
}

impl Default for AttributeLimits {
    /// Returns OpenTelemetry's default for the number. OpenTelemetry does not limit the length.
    fn default() -> Self {
        Self { count: 128, value_length: 1_024 }
    }
}

/// Encoded attributes, one after the other, as a span holds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    bytes: Vec<u8>,
    count: u32,
    max_chars: usize,
    /// How many values were cut.
    truncated: u32,
}

/// The fields of one `Span` message that are known so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpanFields {
    /// The span's own attributes. The other fields of the span stand between them.
    pub own: Attributes,
    /// Custom tags, which are left out where the span has too many attributes.
    pub tags: Attributes,
    /// Own attributes that are left out.
    pub omitted: OwnKeys,
    max_count: u32,
}

/// A finished span, encoded, and counts of what the limits removed from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EncodedSpan {
    pub bytes: Vec<u8>,
    /// How many values were cut.
    pub truncated: u32,
    /// How many attributes were left out.
    pub dropped: u32,
}

impl SpanFields {
    /// Starts a span. A `trace_state` that is empty or not UTF-8 is left out.
    pub(crate) fn start(ids: SpanIds<'_>, start_unix_nanos: u64, limits: AttributeLimits) -> Self {
        let mut bytes = Vec::with_capacity(TYPICAL_SPAN_BYTES);
        bytes.extend_from_slice(&[len_tag(span::TRACE_ID), 16]);
        bytes.extend_from_slice(&ids.trace_id.to_bytes());
        bytes.extend_from_slice(&[len_tag(span::SPAN_ID), 8]);
        bytes.extend_from_slice(&ids.span_id.to_bytes());
        if let Ok(state @ [_, ..]) = std::str::from_utf8(ids.trace_state).map(str::as_bytes) {
            put_bytes(&mut bytes, span::TRACE_STATE, state);
        }
        if let Some(parent) = ids.parent_span_id {
            bytes.extend_from_slice(&[len_tag(span::PARENT_SPAN_ID), 8]);
            bytes.extend_from_slice(&parent.to_bytes());
        }
        put_fixed64(&mut bytes, span::START_TIME_UNIX_NANO, start_unix_nanos);
        let is_remote = ids.parent_span_id.is_some() && ids.parent_is_remote;
        let remote = if is_remote { IS_REMOTE } else { 0 };
        let flags = u32::from(ids.flags.to_u8()) | HAS_IS_REMOTE | remote;
        bytes.extend_from_slice(&span::FLAGS_TAG);
        bytes.extend_from_slice(&flags.to_le_bytes());
        let max_chars = limits.value_length as usize;
        let own = Attributes { bytes, ..Attributes::new(max_chars) };
        let tags = Attributes { bytes: Vec::with_capacity(256), ..Attributes::new(max_chars) };
        Self { own, tags, omitted: OwnKeys::default(), max_count: limits.count }
    }

    /// Adds a string attribute that is not omitted, as [`Attributes::text`] does.
    pub(crate) fn text(&mut self, key: &str, value: &[u8]) {
        if !self.omitted.contains(key) {
            self.own.text(key, value);
        }
    }

    /// Adds an integer attribute that is not omitted.
    pub(crate) fn integer(&mut self, key: &str, value: u64) {
        if !self.omitted.contains(key) {
            self.own.integer(key, value);
        }
    }

    /// Adds a floating-point attribute that is not omitted.
    pub(crate) fn number(&mut self, key: &str, value: f64) {
        if !self.omitted.contains(key) {
            self.own.number(key, value);
        }
    }

    /// Adds an event without attributes.
    pub(crate) fn event(&mut self, name: &str, unix_nanos: u64) {
        let bytes = &mut self.own.bytes;
        put_len(bytes, span::EVENTS, 9 + field_len(name.len()));
        put_fixed64(bytes, event::TIME_UNIX_NANO, unix_nanos);
        put_bytes(bytes, event::NAME, name.as_bytes());
    }

    /// Adds a link without attributes. A `tracestate` that is not UTF-8 is left out.
    pub(crate) fn link(&mut self, to: &Link) {
        let state = std::str::from_utf8(&to.trace_state).unwrap_or_default().as_bytes();
        let state_len = if state.is_empty() { 0 } else { field_len(state.len()) };
        let bytes = &mut self.own.bytes;
        put_len(bytes, span::LINKS, field_len(16) + field_len(8) + state_len + 5);
        put_bytes(bytes, link::TRACE_ID, &to.context.trace_id.to_bytes());
        put_bytes(bytes, link::SPAN_ID, &to.context.span_id.to_bytes());
        if !state.is_empty() {
            put_bytes(bytes, link::TRACE_STATE, state);
        }
        let flags = u32::from(to.context.flags().to_u8()) | HAS_IS_REMOTE | IS_REMOTE;
        bytes.push(link::FLAGS << 3 | WIRE_FIXED32);
        bytes.extend_from_slice(&flags.to_le_bytes());
    }

    /// Ends the span and returns its encoding. The name is made printable and cut like the value of an
    /// attribute.
    pub(crate) fn end(
        self,
        name: &[u8],
        kind: &SpanKind,
        end_unix_nanos: u64,
        status: &Status,
    ) -> EncodedSpan {
        let Attributes { mut bytes, count, max_chars, truncated } = self.own;
        put_bytes(&mut bytes, span::NAME, first_chars(&printable(name), max_chars).as_bytes());
        bytes.extend_from_slice(&[varint_tag(span::KIND), kind_number(kind)]);
        put_fixed64(&mut bytes, span::END_TIME_UNIX_NANO, end_unix_nanos);
        if let Status::Error { description } = status {
            let message_len = if description.is_empty() { 0 } else { field_len(description.len()) };
            put_len(&mut bytes, span::STATUS, message_len + 2);
            if !description.is_empty() {
                put_bytes(&mut bytes, span::STATUS_MESSAGE, description.as_bytes());
            }
            bytes.extend_from_slice(&[varint_tag(span::STATUS_CODE), STATUS_CODE_ERROR]);
        }
        let kept = self.max_count.saturating_sub(count).min(self.tags.count);
        bytes.extend_from_slice(self.tags.first(kept));
        let dropped = self.tags.count - kept;
        if dropped > 0 {
            bytes.push(varint_tag(span::DROPPED_ATTRIBUTES_COUNT));
            put_varint(&mut bytes, dropped.into());
        }
        EncodedSpan { bytes, truncated: truncated + self.tags.truncated, dropped }
    }
}

impl Attributes {
    /// Starts without attributes. Values get at most `max_chars` characters.
    pub fn new(max_chars: usize) -> Self {
        Self { bytes: Vec::new(), count: 0, max_chars, truncated: 0 }
    }

    /// Adds a string attribute. The value must not have ASCII control characters. Bytes that are not
    /// UTF-8 and other characters that break a line become U+FFFD, and a value that is too long is cut.
    pub fn text(&mut self, key: &str, value: &[u8]) {
        self.count += 1;
        self.truncated +=
            u32::from(put_text_attribute(&mut self.bytes, key, value, self.max_chars));
    }

    /// Adds an integer attribute.
    pub fn integer(&mut self, key: &str, value: u64) {
        self.put_head(key, 1 + varint_len(value));
        self.bytes.push(varint_tag(any_value::INT));
        put_varint(&mut self.bytes, value);
    }

    /// Adds a boolean attribute.
    pub fn boolean(&mut self, key: &str, value: bool) {
        self.put_head(key, 2);
        self.bytes.extend_from_slice(&[varint_tag(any_value::BOOL), u8::from(value)]);
    }

    /// Adds a floating-point attribute.
    pub fn number(&mut self, key: &str, value: f64) {
        self.put_head(key, 9);
        put_fixed64(&mut self.bytes, any_value::DOUBLE, value.to_bits());
    }

    /// Adds attributes that are encoded already.
    pub fn append(&mut self, others: &Self) {
        self.count += others.count;
        self.bytes.extend_from_slice(&others.bytes);
    }

    /// Counts a value that was cut before it was added.
    pub fn count_truncated(&mut self) {
        self.truncated += 1;
    }

    fn put_head(&mut self, key: &str, any_len: usize) {
        self.count += 1;
        put_attribute_head(&mut self.bytes, span::ATTRIBUTES, key, any_len);
    }

    /// Returns the bytes of the first `count` attributes.
    fn first(&self, count: u32) -> &[u8] {
        if count == self.count {
            return &self.bytes;
        }
        first_fields(&self.bytes, count)
    }
}

/// The ids of a span and of its parent, and what `traceparent` and `tracestate` say beside them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpanIds<'a> {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub parent_span_id: Option<SpanId>,
    /// Whether the parent, if any, is a span of another process.
    pub parent_is_remote: bool,
    pub flags: TraceFlags,
    pub trace_state: &'a [u8],
}

/// Writes a string attribute. Returns whether the value was cut.
fn put_text_attribute(bytes: &mut Vec<u8>, key: &str, value: &[u8], max_chars: usize) -> bool {
    let short = key.len() + value.len() <= SHORT_ATTRIBUTE_BYTES && value.len() <= max_chars;
    if short && value.is_ascii() {
        put_short_text_attribute(bytes, key, value);
        return false;
    }
    // A character has at most four bytes, and each byte that is not UTF-8 becomes one character.
    let start = value.get(..max_chars.saturating_mul(4)).unwrap_or(value);
    // Envoy refuses headers with ASCII control characters.
    let text = if start.is_ascii() { String::from_utf8_lossy(start) } else { printable(start) };
    let kept = first_chars(&text, max_chars);
    put_attribute_head(bytes, span::ATTRIBUTES, key, field_len(kept.len()));
    put_bytes(bytes, any_value::STRING, kept.as_bytes());
    kept.len() < text.len() || start.len() < value.len()
}

/// Writes a string attribute whose lengths take one byte each, as nearly all do. It reserves room once
/// for the whole attribute: this code runs for every attribute of every span.
fn put_short_text_attribute(bytes: &mut Vec<u8>, key: &str, value: &[u8]) {
    let (key_len, value_len) = (key.len() as u8, value.len() as u8);
    let pair_len = key_len + value_len + 6;
    let head = [len_tag(span::ATTRIBUTES), pair_len, len_tag(key_value::KEY), key_len];
    let any = [len_tag(key_value::VALUE), value_len + 2, len_tag(any_value::STRING), value_len];
    let (start, len) = (bytes.len(), key.len() + value.len() + 8);
    bytes.reserve(len);
    // SAFETY: `bytes` has room for `len` more bytes, and all of them are written.
    unsafe {
        let end = bytes.as_mut_ptr().add(start);
        end.cast::<[u8; 4]>().write(head);
        end.add(4).copy_from_nonoverlapping(key.as_ptr(), key.len());
        end.add(4 + key.len()).cast::<[u8; 4]>().write(any);
        end.add(8 + key.len()).copy_from_nonoverlapping(value.as_ptr(), value.len());
        bytes.set_len(start + len);
    }
}

/// Writes a `KeyValue` up to its value, whose `AnyValue` takes `any_len` bytes.
pub(crate) fn put_attribute_head(bytes: &mut Vec<u8>, field: u8, key: &str, any_len: usize) {
    put_len(bytes, field, field_len(key.len()) + field_len(any_len));
    put_bytes(bytes, key_value::KEY, key.as_bytes());
    put_len(bytes, key_value::VALUE, any_len);
}

fn kind_number(kind: &SpanKind) -> u8 {
    match kind {
        SpanKind::Internal => 1,
        SpanKind::Server => 2,
        SpanKind::Client => 3,
        SpanKind::Producer => 4,
        SpanKind::Consumer => 5,
    }
}

/// Up to this many bytes of key and value, the length of the whole attribute takes one byte.
const SHORT_ATTRIBUTE_BYTES: usize = 121;

const TYPICAL_SPAN_BYTES: usize = 1024;

/// Bits of `SpanFlags`: it is known whether the parent is remote, and it is.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;
const STATUS_CODE_ERROR: u8 = 2;

mod span {
    pub(super) const TRACE_ID: u8 = 1;
    pub(super) const SPAN_ID: u8 = 2;
    pub(super) const TRACE_STATE: u8 = 3;
    pub(super) const PARENT_SPAN_ID: u8 = 4;
    pub(super) const NAME: u8 = 5;
    pub(super) const KIND: u8 = 6;
    pub(super) const START_TIME_UNIX_NANO: u8 = 7;
    pub(super) const END_TIME_UNIX_NANO: u8 = 8;
    pub(super) const ATTRIBUTES: u8 = 9;
    pub(super) const DROPPED_ATTRIBUTES_COUNT: u8 = 10;
    pub(super) const EVENTS: u8 = 11;
    pub(super) const LINKS: u8 = 13;
    pub(super) const STATUS: u8 = 15;
    /// Field 16, fixed32: the only tag with two bytes.
    pub(super) const FLAGS_TAG: [u8; 2] = [0x85, 0x01];
    pub(super) const STATUS_MESSAGE: u8 = 2;
    pub(super) const STATUS_CODE: u8 = 3;
}

mod event {
    pub(super) const TIME_UNIX_NANO: u8 = 1;
    pub(super) const NAME: u8 = 2;
}

mod link {
    pub(super) const TRACE_ID: u8 = 1;
    pub(super) const SPAN_ID: u8 = 2;
    pub(super) const TRACE_STATE: u8 = 3;
    pub(super) const FLAGS: u8 = 6;
}

mod key_value {
    pub(super) const KEY: u8 = 1;
    pub(super) const VALUE: u8 = 2;
}

pub(crate) mod any_value {
    pub(crate) const STRING: u8 = 1;
    pub(crate) const BOOL: u8 = 2;
    pub(crate) const INT: u8 = 3;
    pub(crate) const DOUBLE: u8 = 4;
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::any_value;
    use opentelemetry_proto::tonic::trace::v1::Span;
    use opentelemetry_proto::tonic::trace::v1::span::{self, Event};
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::propagation;
    use crate::propagation::context::{Context, Sampling};

    fn fields(trace_state: &[u8]) -> SpanFields {
        limited(trace_state, AttributeLimits::default())
    }

    fn limited(trace_state: &[u8], limits: AttributeLimits) -> SpanFields {
        let ids = SpanIds {
            trace_id: TraceId::from(1),
            span_id: SpanId::from(2),
            parent_span_id: None,
            parent_is_remote: true,
            flags: TraceFlags::SAMPLED,
            trace_state,
        };
        SpanFields::start(ids, 1, limits)
    }

    fn decoded(fields: SpanFields) -> Span {
        let encoded = fields.end(b"GET", &SpanKind::Server, 2, &Status::error("gone"));
        Span::decode(encoded.bytes.as_slice()).unwrap()
    }

    #[test]
    fn a_tracestate_is_recorded_if_it_is_text() {
        for (state, expected) in [("a=1,b=2".as_bytes(), "a=1,b=2"), (b"", ""), (b"a=\xff", "")] {
            assert_eq!(decoded(fields(state)).trace_state, expected);
        }
    }

    #[test]
    fn an_event_has_its_name_and_time() {
        let mut fields = fields(b"");
        fields.event("timeout", 7);
        let event = Event { name: "timeout".to_owned(), time_unix_nano: 7, ..Event::default() };
        assert_eq!(decoded(fields).events, [event]);
    }

    #[test]
    fn a_link_points_to_a_context() {
        let context = Context {
            trace_id: TraceId::from(3),
            span_id: SpanId::from(4),
            sampling: Sampling::Sampled,
            random: true,
            short_trace_id: false,
        };
        for (trace_state, expected) in [("", ""), ("a=1", "a=1")] {
            let mut fields = fields(b"");
            fields.link(&propagation::Link { context, trace_state: trace_state.into() });
            let link = span::Link {
                trace_id: context.trace_id.to_bytes().to_vec(),
                span_id: context.span_id.to_bytes().to_vec(),
                trace_state: expected.to_owned(),
                flags: 0x303,
                ..span::Link::default()
            };
            assert_eq!(decoded(fields).links, [link]);
        }
    }

    #[test]
    fn a_name_is_text_of_bounded_length() {
        let end = |name: &[u8]| fields(b"").end(name, &SpanKind::Server, 2, &Status::Unset);
        let name = |name: &[u8]| Span::decode(end(name).bytes.as_slice()).unwrap().name;
        assert_eq!(name(b"GET /\xff"), "GET /\u{fffd}");
        assert_eq!(name(&[b'a'; 2000]).len(), 1024);
    }

    #[test]
    fn tags_beyond_the_limit_are_left_out_and_counted() {
        for (count, expected) in
            [(9, "own 0 1 2 3 4 5 6 7"), (3, "own 0 1"), (2, "own 0"), (1, "own"), (0, "own")]
        {
            let mut fields = limited(b"", AttributeLimits { count, ..AttributeLimits::default() });
            for key in ["0", "1", "2", "3"] {
                fields.tags.text(key, "é".repeat(key.len() * 200).as_bytes());
            }
            fields.tags.integer("4", u64::MAX);
            fields.tags.boolean("5", true);
            fields.tags.number("6", 0.5);
            fields.tags.text("7", b"");
            // An attribute of the span's own stays, although it is added last.
            fields.text("own", b"");
            let encoded = fields.end(b"", &SpanKind::Server, 2, &Status::Unset);
            let span = Span::decode(encoded.bytes.as_slice()).unwrap();
            let keys: Vec<_> = span.attributes.iter().map(|pair| pair.key.as_str()).collect();
            assert_eq!(keys.join(" "), expected);
            let dropped = 9 - keys.len() as u32;
            assert_eq!((span.dropped_attributes_count, encoded.dropped), (dropped, dropped));
        }
    }

    #[test]
    fn values_are_cut_at_the_limit_in_characters() {
        for (value, expected, truncated) in
            [("abc", "abc", 0), ("abcd", "abc", 1), ("ééé", "ééé", 0), ("éééé", "ééé", 1)]
        {
            let mut attributes = Attributes::new(3);
            attributes.text("key", value.as_bytes());
            assert_eq!(attributes.truncated, truncated, "{value}");
            assert!(attributes.bytes.ends_with(expected.as_bytes()), "{value}");
        }
    }

    #[test]
    fn an_error_has_its_description() {
        let status = decoded(fields(b"")).status.unwrap();
        assert_eq!((status.code, status.message.as_str()), (2, "gone"));
    }

    proptest! {
        /// Around 128 bytes, the length of the pair, of the value or of the text takes a second byte.
        #[test]
        fn attributes_are_decoded_as_they_were_encoded(
            key in "[a-z.]{1,140}", text in "[^\\p{C}\\p{Zl}\\p{Zp}]{0,200}", number: u64,
        ) {
            let mut fields = fields(b"");
            fields.text(&key, text.as_bytes());
            fields.integer(&key, number);
            fields.number(&key, f64::from(number as u32) / 8.0);
            fields.own.boolean(&key, number % 2 == 0);
            let found: Vec<_> = decoded(fields)
                .attributes
                .into_iter()
                .map(|pair| (pair.key, pair.value.unwrap().value.unwrap()))
                .collect();
            let expected = [
                any_value::Value::StringValue(text),
                any_value::Value::IntValue(number.cast_signed()),
                any_value::Value::DoubleValue(f64::from(number as u32) / 8.0),
                any_value::Value::BoolValue(number % 2 == 0),
            ];
            prop_assert_eq!(found, expected.map(|value| (key.clone(), value)).to_vec());
        }
    }
}
