//! Turns spans that are encoded as OTLP into Zipkin's v2 JSON.
//!
//! <https://opentelemetry.io/docs/specs/otel/trace/sdk_exporters/zipkin/>,
//! <https://zipkin.io/zipkin-api/zipkin2-api.yaml>
//!
//! Spans are made once, for all exporters, and most go out as they are. What the specification has
//! no place for goes where the Collector's receiver for Zipkin looks for it: `tracestate` and links
//! in tags of their own, the resource among the tags of each span.

use crate::attributes as key;
use crate::digits::hex_digit;
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
    shared.text_member(SCOPE_NAME, env!("CARGO_PKG_NAME").as_bytes());
    shared.text_member(SCOPE_VERSION, env!("CARGO_PKG_VERSION").as_bytes());
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
        json.raw(b"{");
        json.id_member(b"traceId", self.trace_id);
        json.id_member(b"id", self.span_id);
        if !self.parent_span_id.is_empty() {
            json.id_member(b"parentId", self.parent_span_id);
        }
        json.text_member(b"name", self.name);
        let kind = match self.kind {
            2 => "SERVER",
            3 => "CLIENT",
            4 => "PRODUCER",
            5 => "CONSUMER",
            _ => "",
        };
        if !kind.is_empty() {
            json.text_member(b"kind", kind.as_bytes());
        }
        json.time_member(b"timestamp", self.start_unix_nanos);
        let nanos = self.end_unix_nanos.saturating_sub(self.start_unix_nanos);
        // Zipkin takes 0 for none.
        json.time_member(b"duration", nanos.max(NANOS_PER_MICRO));
        let start = json.open(b"localEndpoint", b'{');
        json.text_member(b"serviceName", service_name);
        json.close(start, b'}');
        // Only what is called makes a dependency.
        if matches!(self.kind, 3 | 4) {
            self.write_remote_endpoint(json);
        }
        self.write_annotations(json);
        json.open(b"tags", b'{');
        json.raw(&shared.0);
        self.write_tags(json);
        json.raw(b"}}");
    }

    fn attributes(&self) -> Attributes<'a> {
        Attributes { message: Fields(self.fields), number: span::ATTRIBUTES }
    }

    #[inline(never)]
    fn attribute(&self, key: &str) -> Option<Value<'a>> {
        let mut attributes = self.attributes();
        while let Some((name, value)) = attributes.next() {
            if name == key.as_bytes() {
                return Some(value);
            }
        }
        None
    }

    /// Writes the endpoint, which is named by the first that there is of the attributes that the
    /// specification ranks and a span can have.
    fn write_remote_endpoint(&self, json: &mut Json) {
        let start = json.open(b"remoteEndpoint", b'{');
        let named = [key::PEER_SERVICE, key::SERVER_ADDRESS];
        if let Some(Value::Bytes(name)) = named.into_iter().find_map(|key| self.attribute(key)) {
            json.text_member(b"serviceName", name);
        }
        if let Some(Value::Bytes(address)) = self.attribute(key::NETWORK_PEER_ADDRESS)
            && let Some(ip) = std::str::from_utf8(address).ok().and_then(|it| it.parse().ok())
        {
            let is_v4 = matches!(ip, std::net::IpAddr::V4(_));
            json.text_member(if is_v4 { b"ipv4" } else { b"ipv6" }, address);
        }
        if let Some(Value::Varint(port)) = self.attribute(key::NETWORK_PEER_PORT) {
            json.integer_member(b"port", port);
        }
        json.close(start, b'}');
    }

    fn write_annotations(&self, json: &mut Json) {
        let start = json.open(b"annotations", b'[');
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
            json.raw(b"{");
            json.time_member(b"timestamp", unix_nanos);
            json.text_member(b"value", name);
            json.raw(b"}");
        }
        json.close(start, b']');
    }

    fn write_tags(&self, json: &mut Json) {
        let mut attributes = self.attributes();
        while let Some((name, value)) = attributes.next() {
            // Whatever its value, Zipkin takes a span that has it for failed.
            if name != ERROR {
                json.tag(name, value);
            }
        }
        let (mut links, mut place) = (Fields(self.fields), 0);
        while let Some(link) = links.next_bytes(span::LINKS) {
            let mut name = Json(LINK_PREFIX.to_vec());
            name.integer(place, 1);
            json.text_member(&name.0, &link_text(link));
            place += 1;
        }
        if !self.trace_state.is_empty() {
            json.text_member(TRACE_STATE, self.trace_state);
        }
        if self.dropped_attributes > 0 {
            json.tag(DROPPED_ATTRIBUTES_COUNT, Value::Varint(self.dropped_attributes));
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
            json.text_member(STATUS_CODE, b"ERROR");
            json.text_member(ERROR, message);
        }
    }
}

/// Writes a link as the Collector does: ids, `tracestate`, attributes, how many were dropped. It
/// refuses all spans where it finds one part more, so a `tracestate` that would make one is left out.
fn link_text(fields: &[u8]) -> Vec<u8> {
    let first = |number| Fields(fields).next_bytes(number).unwrap_or_default();
    let mut text = Json::new();
    text.hex(first(link::TRACE_ID));
    text.raw(b"|");
    text.hex(first(link::SPAN_ID));
    text.raw(b"|");
    let state = first(link::TRACE_STATE);
    if !state.contains(&b'|') {
        text.raw(state);
    }
    text.raw(b"|{}|0");
    text.0
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

    /// Begins a member of an object.
    #[inline(never)]
    fn member(&mut self, name: &[u8]) {
        self.separate();
        self.string(name);
        self.0.push(b':');
    }

    /// Begins a member that is a list or an object, and returns where.
    #[inline(never)]
    fn open(&mut self, name: &[u8], bracket: u8) -> usize {
        let start = self.0.len();
        self.member(name);
        self.0.push(bracket);
        start
    }

    /// Ends what was opened there, or takes it back where it holds nothing.
    #[inline(never)]
    fn close(&mut self, start: usize, bracket: u8) {
        if matches!(self.0.last(), Some(b'[' | b'{')) {
            self.0.truncate(start);
        } else {
            self.0.push(bracket);
        }
    }

    #[inline(never)]
    fn text_member(&mut self, name: &[u8], text: &[u8]) {
        self.member(name);
        self.string(text);
    }

    fn id_member(&mut self, name: &[u8], id: &[u8]) {
        let mut hex = Self::new();
        hex.hex(id);
        self.text_member(name, &hex.0);
    }

    #[inline(never)]
    fn integer_member(&mut self, name: &[u8], value: u64) {
        self.member(name);
        self.integer(value, 1);
    }

    fn time_member(&mut self, name: &[u8], nanos: u64) {
        self.integer_member(name, nanos / NANOS_PER_MICRO);
    }

    #[inline(never)]
    fn hex(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0.extend_from_slice(&[hex_digit(byte >> 4), hex_digit(byte & 15)]);
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

    /// Writes a tag, whose value is a string whatever it is.
    fn tag(&mut self, name: &[u8], value: Value<'_>) {
        if let Value::Bytes(text) = value {
            return self.text_member(name, text);
        }
        self.member(name);
        self.0.push(b'"');
        match value {
            Value::Varint(value) => {
                let value = value.cast_signed();
                if value < 0 {
                    self.0.push(b'-');
                }
                self.integer(value.unsigned_abs(), 1);
            }
            Value::Fixed64(bits) => self.decimal(f64::from_bits(bits)),
            _ => {}
        }
        self.0.push(b'"');
    }

    /// Writes a number with so many digits at least.
    #[inline(never)]
    fn integer(&mut self, mut value: u64, width: usize) {
        let mut digits = [b'0'; MAX_DIGITS];
        for digit in digits.iter_mut().rev() {
            *digit += (value % 10) as u8;
            value /= 10;
        }
        let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
        self.raw(digits.get(zeros.min(MAX_DIGITS - width)..).unwrap_or_default());
    }

    /// Writes a number with six places behind the point at most, and a power of ten where it is too
    /// large for that. The standard library's way takes 9 KB of the module.
    fn decimal(&mut self, number: f64) {
        if number < 0.0 {
            self.0.push(b'-');
        }
        if !number.is_finite() {
            return self.raw(if number.is_nan() { b"NaN" } else { b"Infinity" });
        }
        let (mut size, mut exponent) = (number.abs(), 0);
        while size >= 1e12 {
            (size, exponent) = (size / 10.0, exponent + 1);
        }
        // To the nearest.
        let millionths = (size * 1e6 + 0.5) as u64;
        self.integer(millionths / 1_000_000, 1);
        let places = millionths % 1_000_000;
        if places > 0 {
            self.0.push(b'.');
            self.integer(places, 6);
            while self.0.pop_if(|digit| *digit == b'0').is_some() {}
        }
        if exponent > 0 {
            self.0.push(b'e');
            self.integer(exponent, 1);
        }
    }
}

const NANOS_PER_MICRO: u64 = 1_000;
/// Of the largest integer.
const MAX_DIGITS: usize = 20;

const SCOPE_NAME: &[u8] = b"otel.scope.name";
const SCOPE_VERSION: &[u8] = b"otel.scope.version";
const STATUS_CODE: &[u8] = b"otel.status_code";
const DROPPED_ATTRIBUTES_COUNT: &[u8] = b"otel.dropped_attributes_count";
const ERROR: &[u8] = b"error";
const TRACE_STATE: &[u8] = b"w3c.tracestate";
const LINK_PREFIX: &[u8] = b"otlp.link.";

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

    fn decimal(number: f64) -> String {
        let mut json = Json::new();
        json.decimal(number);
        String::from_utf8(json.0).unwrap()
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
            json.text_member(name.as_bytes(), value.as_bytes());
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
