//! The span of one request, by OpenTelemetry's HTTP conventions and with Envoy's own tags.
//!
//! <https://opentelemetry.io/docs/specs/semconv/http/http-spans/>

use opentelemetry::trace::{SpanId, SpanKind, Status};

use crate::attributes as key;
use crate::config::Config;
use crate::context::Context;
use crate::decision::Reason;
use crate::head::{Head, REQUEST_ID, USER_AGENT};
use crate::otlp::{SpanFields, SpanIds};
use crate::response_flags;
use crate::rules::Direction;
use crate::url::{self, Url};

/// A decision to record: who the span is and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording<'c> {
    pub context: Context,
    pub parent_span_id: Option<SpanId>,
    pub trace_state: Vec<u8>,
    pub reason: Reason<'c>,
}

/// What Envoy knows of a request once it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamFacts<'a> {
    pub direction: Direction,
    /// `source.address`: the client's address, with port 0 where it was derived from
    /// `x-forwarded-for`.
    pub source_address: &'a [u8],
    /// `request.protocol`, such as `HTTP/1.1`.
    pub protocol: &'a [u8],
    /// `response.code`; 0 where no response was sent.
    pub status: u16,
    /// `response.flags`, a bit each.
    pub flags: u64,
    /// `response.code_details`.
    pub code_details: &'a [u8],
    /// `upstream.address`, for outbound requests; empty where no upstream was reached.
    pub upstream_address: &'a [u8],
    pub end_unix_nanos: u64,
}

/// A span whose request is under way: what its headers say, encoded.
#[derive(Debug, PartialEq, Eq)]
pub struct ActiveSpan {
    fields: SpanFields,
    start_unix_nanos: u64,
    /// Encoded once the direction is known, which says in which attributes.
    url: Url,
}

/// A span that is over, encoded as OTLP's `Span`.
#[derive(Debug, PartialEq, Eq)]
pub struct FinishedSpan {
    pub bytes: Vec<u8>,
    /// Attribute values that were cut.
    pub truncated: u32,
}

impl ActiveSpan {
    /// Starts the span with all that the request's headers say.
    pub fn start(
        config: &Config,
        head: &Head<'_>,
        recording: &Recording<'_>,
        start_unix_nanos: u64,
    ) -> Self {
        let ids = SpanIds {
            trace_id: recording.context.trace_id,
            span_id: recording.context.span_id,
            parent_span_id: recording.parent_span_id,
            flags: recording.context.flags(),
            trace_state: &recording.trace_state,
        };
        let method = known_method(head.method());
        let name = method.unwrap_or(UNKNOWN_METHOD_NAME);
        let mut fields = SpanFields::start(ids, name, start_unix_nanos);
        fields.text(key::HTTP_REQUEST_METHOD, method.unwrap_or(OTHER_METHOD).as_bytes());
        if method.is_none() {
            fields.text(key::HTTP_REQUEST_METHOD_ORIGINAL, head.method());
        }
        header_attributes(&mut fields, config, head);
        fields.text(key::REASON, recording.reason.as_str().as_bytes());
        let url = Url::new(head.scheme(), head.authority(), head.target());
        Self { fields, start_unix_nanos, url }
    }

    /// Ends the span with all that Envoy knows by then.
    pub fn finish(self, facts: StreamFacts<'_>) -> FinishedSpan {
        let Self { mut fields, start_unix_nanos, url } = self;
        let kind = match facts.direction {
            Direction::Inbound => SpanKind::Server,
            Direction::Outbound => SpanKind::Client,
        };
        match facts.direction {
            Direction::Inbound => server_attributes(&mut fields, &url, facts.source_address),
            Direction::Outbound => {
                fields.text(key::URL_FULL, url.full());
                peer_attributes(&mut fields, facts.upstream_address);
            }
        }
        if let Some(version) = protocol_version(facts.protocol) {
            fields.text(key::NETWORK_PROTOCOL_VERSION, version);
        }
        let status = response_attributes(&mut fields, &kind, facts);
        let truncated = fields.truncated;
        // A clock that was set back meanwhile makes no span end before it starts.
        let end_unix_nanos = facts.end_unix_nanos.max(start_unix_nanos);
        FinishedSpan { bytes: fields.end(&kind, end_unix_nanos, &status), truncated }
    }
}

fn header_attributes(fields: &mut SpanFields, config: &Config, head: &Head<'_>) {
    if !head.scheme().is_empty() {
        fields.text(key::URL_SCHEME, head.scheme());
    }
    let (host, port) = url::host_and_port(head.authority());
    if !host.is_empty() {
        fields.text(key::SERVER_ADDRESS, host);
        if let Some(port) = port.or_else(|| url::default_port(head.scheme())) {
            fields.integer(key::SERVER_PORT, u64::from(port));
        }
    }
    for (key, header) in [(key::USER_AGENT_ORIGINAL, USER_AGENT), (key::REQUEST_ID, REQUEST_ID)] {
        if let Some(value) = head.first(header) {
            fields.text(key, value);
        }
    }
    fields.encoded(&config.tags.constant);
    for tag in &config.tags.request_headers {
        let default = tag.default_value.as_deref().map(str::as_bytes);
        if let Some(value) = head.first(&tag.header).or(default) {
            fields.text(&tag.tag, value);
        }
    }
}

fn server_attributes(fields: &mut SpanFields, url: &Url, source_address: &[u8]) {
    fields.text(key::URL_PATH, url.path());
    if let Some(query) = url.query() {
        fields.text(key::URL_QUERY, query);
    }
    let (client, port) = url::host_and_port(source_address);
    if !client.is_empty() {
        fields.text(key::CLIENT_ADDRESS, client);
    }
    // With port 0 the address is one that x-forwarded-for told, not the peer's.
    if port.is_some() {
        peer_attributes(fields, source_address);
    }
}

/// Adds how the request ended, and returns the span's status.
fn response_attributes(fields: &mut SpanFields, kind: &SpanKind, facts: StreamFacts<'_>) -> Status {
    if facts.status != 0 {
        fields.integer(key::HTTP_RESPONSE_STATUS_CODE, u64::from(facts.status));
    }
    let flags = response_flags::names(facts.flags);
    if !flags.is_empty() {
        fields.text(key::RESPONSE_FLAGS, flags.as_bytes());
    }
    if !facts.code_details.is_empty() {
        fields.text(key::RESPONSE_CODE_DETAILS, facts.code_details);
    }
    let status = status(kind, facts.status);
    if status != Status::Unset {
        let error = if facts.status != 0 { facts.status.to_string() } else { flags };
        let error = if error.is_empty() { UNKNOWN_ERROR.to_owned() } else { error };
        fields.text(key::ERROR_TYPE, error.as_bytes());
    }
    status
}

fn peer_attributes(fields: &mut SpanFields, address: &[u8]) {
    let (peer, port) = url::host_and_port(address);
    if !peer.is_empty() {
        fields.text(key::NETWORK_PEER_ADDRESS, peer);
    }
    if let Some(port) = port {
        fields.integer(key::NETWORK_PEER_PORT, u64::from(port));
    }
}

/// The conventions' status: 5xx is an error, on a client 4xx too, and no response at all.
fn status(kind: &SpanKind, code: u16) -> Status {
    let error = match code {
        0 | 500.. => true,
        400.. => *kind == SpanKind::Client,
        _ => false,
    };
    if error { Status::error("") } else { Status::Unset }
}

/// The methods of RFC 9110, section 9, and PATCH (RFC 5789).
fn known_method(method: &[u8]) -> Option<&'static str> {
    Some(match method {
        b"GET" => "GET",
        b"POST" => "POST",
        b"PUT" => "PUT",
        b"DELETE" => "DELETE",
        b"HEAD" => "HEAD",
        b"OPTIONS" => "OPTIONS",
        b"PATCH" => "PATCH",
        b"CONNECT" => "CONNECT",
        b"TRACE" => "TRACE",
        _ => return None,
    })
}

/// `1.1` for `HTTP/1.1`.
fn protocol_version(protocol: &[u8]) -> Option<&[u8]> {
    protocol.strip_prefix(b"HTTP/")
}

const OTHER_METHOD: &str = "_OTHER";
const UNKNOWN_METHOD_NAME: &str = "HTTP";
/// The conventions' fallback for `error.type`.
const UNKNOWN_ERROR: &str = "_OTHER";

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use opentelemetry::trace::{SpanId, TraceId};
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::trace::v1::{Span, span, status};
    use prost::Message;

    use super::*;
    use crate::context::Sampling;

    const FACTS: StreamFacts<'_> = StreamFacts {
        direction: Direction::Inbound,
        source_address: b"10.0.0.9:4242",
        protocol: b"HTTP/1.1",
        status: 200,
        flags: 0,
        code_details: b"via_upstream",
        upstream_address: b"10.0.0.7:8080",
        end_unix_nanos: 2_000,
    };

    fn config() -> Config {
        let json = br#"{"custom_tags": [
            {"tag": "environment", "literal": {"value": "production"}},
            {"tag": "user.id", "request_header": {"name": "X-User-Id", "default_value": "-"}},
            {"tag": "tenant.id", "request_header": {"name": "x-tenant-id"}},
            {"tag": "pod", "environment": {"name": "POD_NAME", "default_value": "none"}},
            {"tag": "zone", "environment": {"name": "ZONE"}}]}"#;
        Config::parse(json, &|_| None).unwrap()
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
        }
    }

    fn record(lines: &[(&str, &[u8])], facts: StreamFacts<'_>) -> (Span, BTreeMap<String, String>) {
        let head = Head::new(lines.iter().map(|(k, v)| (k.as_bytes(), *v)).collect());
        let recording = recording();
        let active = ActiveSpan::start(&config(), &head, &recording, 1_000);
        let mut span = Span::decode(active.finish(facts).bytes.as_slice()).unwrap();
        let attributes = std::mem::take(&mut span.attributes).into_iter();
        let text = |value| match value {
            Value::StringValue(text) => text,
            Value::IntValue(number) => format!("={number}"),
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
        ];
        let expected = expected.iter().chain(&constant);
        let expected: BTreeMap<_, _> =
            expected.map(|(k, v)| (k.to_string(), v.to_string())).collect();
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

    #[test]
    fn status_follows_the_http_conventions() {
        use Direction::{Inbound, Outbound};
        for (direction, code, error) in [
            (Inbound, 200, false),
            (Inbound, 404, false),
            (Inbound, 500, true),
            (Inbound, 0, true),
            (Outbound, 302, false),
            (Outbound, 404, true),
            (Outbound, 503, true),
        ] {
            let (span, _) = record(&[], StreamFacts { direction, status: code, ..FACTS });
            let found =
                span.status.is_some_and(|status| status.code() == status::StatusCode::Error);
            assert_eq!(found, error, "{direction:?} {code}");
        }
    }

    #[test]
    fn long_values_are_cut_at_a_character_and_counted() {
        let path = "/é".repeat(crate::otlp::MAX_ATTRIBUTE_VALUE_BYTES);
        let head = Head::new(vec![(b":path", path.as_bytes())]);
        let recording = recording();
        let finished = ActiveSpan::start(&config(), &head, &recording, 0).finish(FACTS);
        assert_eq!(finished.truncated, 1);
        let span = Span::decode(finished.bytes.as_slice()).unwrap();
        let path = span.attributes.iter().find(|pair| pair.key == "url.path").unwrap();
        let Some(Value::StringValue(kept)) = path.value.clone().unwrap().value else {
            panic!("{path:?}");
        };
        assert_eq!(kept.len(), 1024);
    }
}
