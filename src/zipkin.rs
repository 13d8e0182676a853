//! Turns spans that are encoded as OTLP into Zipkin's v2 JSON.
//!
//! <https://opentelemetry.io/docs/specs/otel/trace/sdk_exporters/zipkin/>,
//! <https://zipkin.io/zipkin-api/zipkin2-api.yaml>
//!
//! Spans are made once, for all exporters, and most go out as they are. What the specification has
//! no place for goes where the Collector's receiver for Zipkin looks for it: `tracestate` and links
//! in tags of their own, the resource among the tags of each span.

use crate::attributes as key;
use crate::otlp::{self, any_value, event, key_value, link, resource_spans, scope_spans, span};
use crate::protobuf::{Fields, Value};

/// Returns a JSON array of the spans in `run`, whose resource is `resource`, both as `otlp` writes
/// them. Fields that are malformed are left out.
pub fn spans(resource: &[u8], run: &[u8]) -> Vec<u8> {
    let resource = Fields(resource).next_bytes(resource_spans::RESOURCE).unwrap_or_default();
    let mut shared = Json::new();
    let mut service_name = &b""[..];
    let mut attributes =
        Attributes { message: Fields(resource), number: otlp::RESOURCE_ATTRIBUTES };
    while let Some((name, value)) = attributes.next() {
        match value {
            Value::Bytes(text) if name == key::SERVICE_NAME.as_bytes() => service_name = text,
            value => shared.tag(name, value),
        }
    }
    shared.text_tag(SCOPE_NAME, env!("CARGO_PKG_NAME").as_bytes());
    shared.text_tag(SCOPE_VERSION, env!("CARGO_PKG_VERSION").as_bytes());
    let mut json = Json(Vec::with_capacity(run.len() * 2));
    json.raw(b"[");
    let mut run = Fields(run);
    while let Some(bytes) = run.next_bytes(scope_spans::SPANS) {
        json.separate();
        Span::read(bytes).write(&mut json, service_name, &shared);
    }
    json.raw(b"]");
    json.0
}

/// The fields of a span that are no lists, and all of them.
#[derive(Default)]
struct Span<'a> {
    fields: &'a [u8],
    trace_id: &'a [u8],
    span_id: &'a [u8],
    parent_span_id: &'a [u8],
    trace_state: &'a [u8],
    name: &'a [u8],
    kind: u64,
    start_unix_nanos: u64,
    end_unix_nanos: u64,
    dropped_attributes: u64,
    status: &'a [u8],
}

impl<'a> Span<'a> {
    fn read(fields: &'a [u8]) -> Self {
        let mut found = Self { fields, ..Self::default() };
        for field in Fields(fields) {
            match field {
                (span::TRACE_ID, Value::Bytes(id)) => found.trace_id = id,
                (span::SPAN_ID, Value::Bytes(id)) => found.span_id = id,
                (span::PARENT_SPAN_ID, Value::Bytes(id)) => found.parent_span_id = id,
                (span::TRACE_STATE, Value::Bytes(state)) => found.trace_state = state,
                (span::NAME, Value::Bytes(name)) => found.name = name,
                (span::KIND, Value::Varint(kind)) => found.kind = kind,
                (span::START_TIME_UNIX_NANO, Value::Fixed64(time)) => found.start_unix_nanos = time,
                (span::END_TIME_UNIX_NANO, Value::Fixed64(time)) => found.end_unix_nanos = time,
                (span::DROPPED_ATTRIBUTES_COUNT, Value::Varint(count)) => {
                    found.dropped_attributes = count;
                }
                (span::STATUS, Value::Bytes(status)) => found.status = status,
                _ => {}
            }
        }
        found
    }

    /// Writes the span. `shared` are tags of all spans.
    fn write(&self, json: &mut Json, service_name: &[u8], shared: &Json) {
        json.raw(b"{\"traceId\":\"");
        json.hex(self.trace_id);
        json.raw(b"\",\"id\":\"");
        json.hex(self.span_id);
        if !self.parent_span_id.is_empty() {
            json.raw(b"\",\"parentId\":\"");
            json.hex(self.parent_span_id);
        }
        json.raw(b"\",\"name\":");
        json.string(self.name);
        let kind = match self.kind {
            2 => "SERVER",
            3 => "CLIENT",
            4 => "PRODUCER",
            5 => "CONSUMER",
            _ => "",
        };
        if !kind.is_empty() {
            json.member("kind");
            json.string(kind.as_bytes());
        }
        json.member("timestamp");
        json.integer(self.start_unix_nanos / NANOS_PER_MICRO);
        json.member("duration");
        let nanos = self.end_unix_nanos.saturating_sub(self.start_unix_nanos);
        // Zipkin takes 0 for none.
        json.integer((nanos / NANOS_PER_MICRO).max(1));
        json.raw(b",\"localEndpoint\":{\"serviceName\":");
        json.string(service_name);
        json.raw(b"}");
        // Only what is called makes a dependency.
        if matches!(self.kind, 3 | 4) {
            self.write_remote_endpoint(json);
        }
        self.write_annotations(json);
        json.raw(b",\"tags\":{");
        json.raw(&shared.0);
        self.write_tags(json);
        json.raw(b"}}");
    }

    fn attributes(&self) -> Attributes<'a> {
        Attributes { message: Fields(self.fields), number: span::ATTRIBUTES }
    }

    fn write_remote_endpoint(&self, json: &mut Json) {
        let mut endpoint = Json::new();
        let mut attributes = self.attributes();
        while let Some((name, value)) = attributes.next() {
            let (member, is_text) = match value {
                Value::Bytes(_) if name == key::SERVER_ADDRESS.as_bytes() => ("serviceName", true),
                Value::Bytes(address) if name == key::NETWORK_PEER_ADDRESS.as_bytes() => {
                    match ip_member(address) {
                        Some(member) => (member, true),
                        None => continue,
                    }
                }
                Value::Varint(_) if name == key::NETWORK_PEER_PORT.as_bytes() => ("port", false),
                _ => continue,
            };
            endpoint.separate();
            endpoint.string(member.as_bytes());
            endpoint.raw(b":");
            match value {
                Value::Bytes(text) if is_text => endpoint.string(text),
                Value::Varint(port) => endpoint.integer(port),
                _ => {}
            }
        }
        if !endpoint.0.is_empty() {
            json.raw(b",\"remoteEndpoint\":{");
            json.raw(&endpoint.0);
            json.raw(b"}");
        }
    }

    fn write_annotations(&self, json: &mut Json) {
        json.raw(b",\"annotations\":[");
        let mut events = Fields(self.fields);
        while let Some(event) = events.next_bytes(span::EVENTS) {
            let (mut unix_nanos, mut name) = (0, &b""[..]);
            for field in Fields(event) {
                match field {
                    (event::TIME_UNIX_NANO, Value::Fixed64(time)) => unix_nanos = time,
                    (event::NAME, Value::Bytes(text)) => name = text,
                    _ => {}
                }
            }
            json.separate();
            json.raw(b"{\"timestamp\":");
            json.integer(unix_nanos / NANOS_PER_MICRO);
            json.member("value");
            json.string(name);
            json.raw(b"}");
        }
        json.raw(b"]");
    }

    fn write_tags(&self, json: &mut Json) {
        let mut attributes = self.attributes();
        while let Some((name, value)) = attributes.next() {
            json.tag(name, value);
        }
        let (mut links, mut place) = (Fields(self.fields), 0u32);
        while let Some(link) = links.next_bytes(span::LINKS) {
            json.text_tag(&[LINK_PREFIX, &place.to_string()].concat(), &link_text(link));
            place += 1;
        }
        if !self.trace_state.is_empty() {
            json.text_tag(TRACE_STATE, self.trace_state);
        }
        if self.dropped_attributes > 0 {
            json.tag(DROPPED_ATTRIBUTES_COUNT.as_bytes(), Value::Varint(self.dropped_attributes));
        }
        let (mut is_error, mut message) = (false, &b""[..]);
        for field in Fields(self.status) {
            match field {
                (span::STATUS_CODE, Value::Varint(code)) => {
                    is_error = code == u64::from(otlp::STATUS_CODE_ERROR);
                }
                (span::STATUS_MESSAGE, Value::Bytes(text)) => message = text,
                _ => {}
            }
        }
        if is_error {
            json.text_tag(STATUS_CODE, b"ERROR");
            json.text_tag(ERROR, message);
        }
    }
}

/// Writes a link as the Collector does: ids, `tracestate`, attributes, how many were dropped.
fn link_text(fields: &[u8]) -> Vec<u8> {
    let first = |number| Fields(fields).next_bytes(number).unwrap_or_default();
    let mut text = Json::new();
    text.hex(first(link::TRACE_ID));
    text.raw(b"|");
    text.hex(first(link::SPAN_ID));
    text.raw(b"|");
    text.raw(first(link::TRACE_STATE));
    text.raw(b"|{}|0");
    text.0
}

/// Returns the endpoint's member that an address belongs in; none for what is no IP address.
fn ip_member(address: &[u8]) -> Option<&'static str> {
    let is_ip = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':');
    let is_v6 = address.contains(&b':');
    address.iter().all(is_ip).then_some(if is_v6 { "ipv6" } else { "ipv4" })
}

/// Attributes of a message, in its field of this number.
struct Attributes<'a> {
    message: Fields<'a>,
    number: u8,
}

impl<'a> Attributes<'a> {
    /// Returns the next key and its value; what is not of one field has no value.
    #[inline(never)]
    fn next(&mut self) -> Option<(&'a [u8], Value<'a>)> {
        let pair = self.message.next_bytes(self.number)?;
        let key = Fields(pair).next_bytes(key_value::KEY).unwrap_or_default();
        let any = Fields(pair).next_bytes(key_value::VALUE).unwrap_or_default();
        let value = match Fields(any).next() {
            Some((any_value::BOOL, Value::Varint(0))) => Value::Bytes(b"false"),
            Some((any_value::BOOL, _)) => Value::Bytes(b"true"),
            Some((_, value)) => value,
            None => Value::Bytes(b""),
        };
        Some((key, value))
    }
}

/// JSON as far as it is written.
struct Json(Vec<u8>);

impl Json {
    fn new() -> Self {
        Self(Vec::new())
    }

    #[inline(never)]
    fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Writes a comma where something of the same list or object stands before.
    #[inline(never)]
    fn separate(&mut self) {
        if !matches!(self.0.last(), None | Some(b'[' | b'{')) {
            self.0.push(b',');
        }
    }

    /// Begins a further member of an object.
    #[inline(never)]
    fn member(&mut self, name: &str) {
        self.raw(b",\"");
        self.raw(name.as_bytes());
        self.raw(b"\":");
    }

    #[inline(never)]
    fn integer(&mut self, value: u64) {
        self.raw(value.to_string().as_bytes());
    }

    #[inline(never)]
    fn hex(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0.push(hex_digit(byte >> 4));
            self.0.push(hex_digit(byte & 15));
        }
    }

    /// Writes a string; its bytes are UTF-8 already.
    #[inline(never)]
    fn string(&mut self, text: &[u8]) {
        self.0.push(b'"');
        for byte in text {
            match byte {
                b'"' | b'\\' => self.0.push(b'\\'),
                0..b' ' => {
                    self.raw(b"\\u00");
                    self.hex(&[*byte]);
                    continue;
                }
                _ => {}
            }
            self.0.push(*byte);
        }
        self.0.push(b'"');
    }

    #[inline(never)]
    fn text_tag(&mut self, name: &str, value: &[u8]) {
        self.tag(name.as_bytes(), Value::Bytes(value));
    }

    /// Writes a tag, whose value is a string whatever it is.
    fn tag(&mut self, name: &[u8], value: Value<'_>) {
        self.separate();
        self.string(name);
        self.0.push(b':');
        match value {
            Value::Bytes(text) => self.string(text),
            Value::Varint(value) => self.string(value.cast_signed().to_string().as_bytes()),
            Value::Fixed64(bits) => self.string(decimal(f64::from_bits(bits)).as_bytes()),
            Value::Fixed32(_) => self.string(b""),
        }
    }
}

fn hex_digit(value: u8) -> u8 {
    value + if value < 10 { b'0' } else { b'a' - 10 }
}

/// Writes a number with six places behind the point at most, and a power of ten where it is too
/// large for that. The standard library's way takes 9 KB of the module.
fn decimal(number: f64) -> String {
    let mut text = if number < 0.0 { "-".to_owned() } else { String::new() };
    if !number.is_finite() {
        text.push_str(if number.is_nan() { "NaN" } else { "Infinity" });
        return text;
    }
    let (mut size, mut exponent) = (number.abs(), 0);
    while size >= 1e12 {
        (size, exponent) = (size / 10.0, exponent + 1);
    }
    // To the nearest.
    let millionths = (size * 1e6 + 0.5) as u64;
    text.push_str(&(millionths / 1_000_000).to_string());
    if !millionths.is_multiple_of(1_000_000) {
        let places = (millionths % 1_000_000 + 1_000_000).to_string();
        text.push('.');
        text.push_str(places.get(1..).unwrap_or_default().trim_end_matches('0'));
    }
    if exponent != 0 {
        text.push('e');
        text.push_str(&exponent.to_string());
    }
    text
}

const NANOS_PER_MICRO: u64 = 1_000;

const SCOPE_NAME: &str = "otel.scope.name";
const SCOPE_VERSION: &str = "otel.scope.version";
const STATUS_CODE: &str = "otel.status_code";
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
                "annotations": [],
                "tags": shared,
            },
        ]);
        assert_eq!(parsed(&resource, &[first, second]), expected);
        assert_eq!(parsed(&[], &[]), json!([]));
    }

    #[test]
    fn only_addresses_are_addresses() {
        for (address, expected) in [
            ("10.0.0.7", json!({"ipv4": "10.0.0.7"})),
            ("fd00::7", json!({"ipv6": "fd00::7"})),
            ("/run/shop.sock", Parsed::Null),
        ] {
            let mut span = fields(None, b"");
            span.text(key::NETWORK_PEER_ADDRESS, address.as_bytes());
            let span = span.end(b"", &SpanKind::Client, 1, &Status::Unset).bytes;
            assert_eq!(parsed(&[], &[span])[0]["remoteEndpoint"], expected, "{address}");
        }
    }

    #[test]
    fn numbers_are_read_as_they_were() {
        for (number, expected) in [
            (0.0, "0"),
            (-0.0, "0"),
            (10.0, "10"),
            (0.1, "0.1"),
            (1.000001, "1.000001"),
            (11.1, "11.1"),
            (0.999_999_9, "1"),
            (-2.5, "-2.5"),
            (1e11, "100000000000"),
            (1e20, "100000000000e9"),
            (2.5e-4, "0.00025"),
            (1e-9, "0"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(decimal(number), expected, "{number}");
        }
    }

    proptest! {
        #[test]
        fn any_text_comes_back(name: String, value: String) {
            let mut json = Json::new();
            json.raw(b"{");
            json.text_tag(&name, value.as_bytes());
            json.raw(b"}");
            prop_assert_eq!(serde_json::from_slice::<Parsed>(&json.0).unwrap(), json!({name: value}));
        }

        #[test]
        fn decimals_are_near(number: f64) {
            let read: f64 = decimal(number).parse().unwrap();
            prop_assert!((number - read).abs() <= number.abs() * 1e-11 + 5.1e-7, "{read}");
        }

        #[test]
        fn any_bytes_make_a_list(resource: Vec<u8>, run: Vec<u8>) {
            let json = spans(&resource, &run);
            prop_assert!(json.starts_with(b"[") && json.ends_with(b"]"));
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
