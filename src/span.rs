//! The span of one request, by OpenTelemetry's HTTP and RPC conventions and with Envoy's own tags.
//!
//! <https://opentelemetry.io/docs/specs/semconv/http/http-spans/>,
//! <https://opentelemetry.io/docs/specs/semconv/rpc/rpc-spans/>

use opentelemetry::trace::{SpanId, SpanKind, Status};

use crate::address::Address;
use crate::attributes as key;
use crate::config::Config;
use crate::context::Context;
use crate::decision::Reason;
use crate::digits;
use crate::grpc;
use crate::head::{CONTENT_LENGTH, CONTENT_TYPE, Head, REQUEST_ID, UPGRADE, USER_AGENT};
use crate::otlp::{EncodedSpan, SpanFields, SpanIds};
use crate::propagation::Link;
use crate::response_flags::{self, Cut, SWITCHING_PROTOCOLS};
use crate::rules::Direction;
use crate::tags::{EarlyValues, Facts, Tags};
use crate::url::{self, Url};

/// A decision to record: who the span is and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording<'c> {
    pub context: Context,
    pub parent_span_id: Option<SpanId>,
    pub trace_state: Vec<u8>,
    pub reason: Reason<'c>,
    /// The context that came in and was not trusted.
    pub link: Option<Box<Link>>,
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
    /// `xds.route_name`; empty where no route matched, or one without a name.
    pub route_name: &'a [u8],
    /// `xds.cluster_name`; empty where the route leads to none.
    pub upstream_cluster: &'a [u8],
    /// `upstream.address`; empty where no upstream was picked.
    pub upstream_address: &'a [u8],
    /// `upstream.request_attempt_count`.
    pub attempts: u64,
    /// Bytes of the request's body.
    pub request_body_bytes: u64,
    /// `response.size`: bytes of the body.
    pub response_body_bytes: u64,
    /// `grpc-status`, where the request is one of gRPC's and the response says one.
    pub grpc_status: Option<u64>,
    /// The request says that it is one of gRPC's, and the upstream answered in plain HTTP.
    pub answered_in_http: bool,
    pub end_unix_nanos: u64,
}

/// A span whose request is under way: what its headers say, encoded.
#[derive(Debug, PartialEq, Eq)]
pub struct ActiveSpan {
    fields: SpanFields,
    start_unix_nanos: u64,
    /// Encoded once the direction is known, which says in which attributes.
    url: Url,
    /// The first word of the span's name.
    method: &'static str,
    application: Application,
    /// Where the headers say it.
    request_body_bytes: Option<u64>,
    /// When the response's head came.
    first_byte_unix_nanos: Option<u64>,
    /// For the tags that are added at the end.
    early_values: EarlyValues,
}

/// What a request speaks on top of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Application {
    None,
    Grpc,
    WebSocket,
}

impl ActiveSpan {
    /// Starts the span with all that the request's headers say.
    pub fn start(
        config: &Config,
        head: &Head<'_>,
        end_of_stream: bool,
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
        let mut fields = SpanFields::start(ids, start_unix_nanos, config.attribute_limits);
        fields.text(key::HTTP_REQUEST_METHOD, method.unwrap_or(OTHER).as_bytes());
        if method.is_none() {
            fields.text(key::HTTP_REQUEST_METHOD_ORIGINAL, head.method());
        }
        header_attributes(&mut fields, config, head);
        let early_values = config.tags.at_request(&mut fields.tags, head);
        fields.text(key::REASON, recording.reason.as_str().as_bytes());
        if let Some(link) = &recording.link {
            fields.link(link);
        }
        Self {
            fields,
            start_unix_nanos,
            url: Url::new(head.scheme(), head.authority(), head.target(), &config.secret_keys),
            method: method.unwrap_or(UNKNOWN_METHOD_NAME),
            application: Application::of(head),
            request_body_bytes: if end_of_stream { Some(0) } else { content_length(head) },
            first_byte_unix_nanos: None,
            early_values,
        }
    }

    /// Notes by which condition a span is exported that was not sampled.
    pub fn export_on(&mut self, condition: &str) {
        self.fields.text(key::EXPORT_ON, condition.as_bytes());
    }

    /// Notes when the response's head came; only the first time counts.
    pub fn response_started(&mut self, unix_nanos: u64) {
        self.first_byte_unix_nanos.get_or_insert(unix_nanos);
    }

    /// Returns the size of the request's body where its headers say it, as Envoy's `request.size` has
    /// it: nearly always.
    pub fn request_body_bytes(&self) -> Option<u64> {
        self.request_body_bytes
    }

    /// Tells whether the request is one of gRPC's, whose status is then worth a look.
    pub fn is_grpc(&self) -> bool {
        self.application == Application::Grpc
    }

    /// Adds the tags whose values are known at the request's end.
    pub fn add_tags(&mut self, tags: &Tags, facts: &Facts<'_, '_>) {
        tags.at_end(&mut self.fields.tags, &self.early_values, facts);
    }

    /// Ends the span with all that Envoy knows by then.
    pub fn finish(self, facts: StreamFacts<'_>) -> EncodedSpan {
        let Self { mut fields, start_unix_nanos, url, method, mut application, .. } = self;
        if facts.answered_in_http {
            application = Application::None;
        }
        let kind = match facts.direction {
            Direction::Inbound => SpanKind::Server,
            Direction::Outbound => SpanKind::Client,
        };
        match facts.direction {
            Direction::Inbound => server_attributes(&mut fields, &url, facts.source_address),
            Direction::Outbound => {
                fields.text(key::URL_FULL, url.full());
                if let Some(upstream) = Address::parse(facts.upstream_address) {
                    peer_attributes(&mut fields, &upstream);
                }
            }
        }
        protocol_attributes(&mut fields, application, facts);
        upstream_attributes(&mut fields, facts);
        if let Some(first_byte) = self.first_byte_unix_nanos
            && !facts.upstream_address.is_empty()
        {
            let nanos = first_byte.saturating_sub(start_unix_nanos);
            fields.number(key::UPSTREAM_TIME_TO_FIRST_BYTE_MS, nanos as f64 / 1e6);
        }
        // A clock that was set back meanwhile makes no span end before it starts.
        let end_unix_nanos = facts.end_unix_nanos.max(start_unix_nanos);
        let cut = response_flags::cut(facts.flags, facts.status);
        if let Some(cut) = cut {
            fields.event(if cut == Cut::Timeout { TIMEOUT } else { RESET }, end_unix_nanos);
        }
        let (name, error) = match application {
            Application::Grpc => rpc_attributes(&mut fields, &kind, &url, facts, cut),
            _ => (http_name(&mut fields, method, facts.route_name), http_error(&kind, facts, cut)),
        };
        response_attributes(&mut fields, facts);
        let status = match error {
            Some(error) => {
                fields.text(key::ERROR_TYPE, error.as_bytes());
                Status::error("")
            }
            None => Status::Unset,
        };
        fields.end(&name, &kind, end_unix_nanos, &status)
    }
}

/// Tells whether a response came from the upstream, by `response.code_details`.
pub fn is_of_upstream(code_details: &[u8]) -> bool {
    code_details == b"via_upstream"
}

/// Tells whether a request is one of gRPC's.
pub fn is_grpc(head: &Head<'_>) -> bool {
    Application::of(head) == Application::Grpc
}

impl Application {
    fn of(head: &Head<'_>) -> Self {
        if head.first(CONTENT_TYPE).is_some_and(grpc::is_grpc) {
            Self::Grpc
        } else if head.first(UPGRADE).is_some_and(|to| to.eq_ignore_ascii_case(b"websocket")) {
            Self::WebSocket
        } else {
            Self::None
        }
    }
}

/// Reads `content-length` (RFC 9110, section 8.6).
fn content_length(head: &Head<'_>) -> Option<u64> {
    digits::decimal(head.first(CONTENT_LENGTH)?)
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
    fields.own.append(&config.tags.marks);
}

fn server_attributes(fields: &mut SpanFields, url: &Url, source_address: &[u8]) {
    fields.text(key::URL_PATH, url.path());
    if let Some(query) = url.query() {
        fields.text(key::URL_QUERY, query);
    }
    if let Some(client) = Address::parse(source_address) {
        fields.text(key::CLIENT_ADDRESS, client.host.as_bytes());
        // With port 0 the address is from x-forwarded-for, and not the peer's.
        if client.port.is_some_and(|port| port != 0) {
            peer_attributes(fields, &client);
        }
    }
}

fn protocol_attributes(fields: &mut SpanFields, application: Application, facts: StreamFacts<'_>) {
    if application == Application::WebSocket && facts.status == SWITCHING_PROTOCOLS {
        fields.text(key::NETWORK_PROTOCOL_NAME, b"websocket");
    } else if let Some(version) = protocol_version(facts.protocol) {
        fields.text(key::NETWORK_PROTOCOL_VERSION, version);
    }
}

fn upstream_attributes(fields: &mut SpanFields, facts: StreamFacts<'_>) {
    for (key, value) in [
        (key::UPSTREAM_CLUSTER, facts.upstream_cluster),
        (key::UPSTREAM_ADDRESS, facts.upstream_address),
    ] {
        if !value.is_empty() {
            fields.text(key, value);
        }
    }
    for (key, value) in [
        (key::HTTP_REQUEST_RESEND_COUNT, facts.attempts.saturating_sub(1)),
        (key::HTTP_REQUEST_BODY_SIZE, facts.request_body_bytes),
        (key::HTTP_RESPONSE_BODY_SIZE, facts.response_body_bytes),
    ] {
        if value != 0 {
            fields.integer(key, value);
        }
    }
}

fn response_attributes(fields: &mut SpanFields, facts: StreamFacts<'_>) {
    if facts.status != 0 {
        fields.integer(key::HTTP_RESPONSE_STATUS_CODE, u64::from(facts.status));
    }
    if facts.flags != 0 {
        fields.text(key::RESPONSE_FLAGS, response_flags::names(facts.flags).as_bytes());
    }
    if !facts.code_details.is_empty() {
        fields.text(key::RESPONSE_CODE_DETAILS, facts.code_details);
    }
}

/// Adds the route, and returns the name of a span: the method, and the route where it says anything.
fn http_name(fields: &mut SpanFields, method: &str, route_name: &[u8]) -> Vec<u8> {
    let mut name = method.as_bytes().to_vec();
    if !route_name.is_empty() && !ANY_ROUTE.contains(&route_name) {
        fields.text(key::HTTP_ROUTE, route_name);
        name.push(b' ');
        name.extend_from_slice(route_name);
    }
    name
}

/// Returns `error.type` where the conventions call the request an error: 5xx, on a client 4xx too,
/// no response at all, and a response that the upstream or a time limit cut short.
fn http_error(kind: &SpanKind, facts: StreamFacts<'_>, cut: Option<Cut>) -> Option<String> {
    match facts.status {
        500.. => Some(facts.status.to_string()),
        400.. if *kind == SpanKind::Client => Some(facts.status.to_string()),
        1.. if !matches!(cut, Some(Cut::Timeout | Cut::UpstreamReset)) => None,
        _ if facts.flags == 0 => Some(OTHER.to_owned()),
        _ => Some(response_flags::names(facts.flags)),
    }
}

/// Adds what was called and how that ended, and returns the name of the span and its `error.type`.
///
/// A method that the server does not have, that HTTP refuses, or that no server was asked for or
/// answered, is `_OTHER` on its side, so that nobody makes up names of spans by asking for it.
fn rpc_attributes(
    fields: &mut SpanFields,
    kind: &SpanKind,
    url: &Url,
    facts: StreamFacts<'_>,
    cut: Option<Cut>,
) -> (Vec<u8>, Option<String>) {
    fields.text(key::RPC_SYSTEM_NAME, GRPC);
    let refused = facts.grpc_status.map_or(facts.status >= 400, |it| it == grpc::UNIMPLEMENTED);
    let unanswered = facts.upstream_address.is_empty() || facts.status == 0;
    let unknown = *kind == SpanKind::Server && (refused || unanswered);
    let name = match grpc::method(url.path()) {
        Some(method) if !unknown => {
            fields.text(key::RPC_METHOD, method);
            method
        }
        _ => {
            fields.text(key::RPC_METHOD, OTHER.as_bytes());
            let path = url.path();
            fields.text(key::RPC_METHOD_ORIGINAL, path.strip_prefix(b"/").unwrap_or(path));
            GRPC
        }
    };
    let error = match facts.grpc_status {
        Some(status) => {
            let status_name = grpc::status_name(status).unwrap_or_default();
            fields.text(key::RPC_RESPONSE_STATUS_CODE, status_name.as_bytes());
            grpc::is_error(kind, status).then(|| status_name.to_owned())
        }
        None => http_error(kind, facts, cut),
    };
    (name.to_vec(), error)
}

fn peer_attributes(fields: &mut SpanFields, peer: &Address<'_>) {
    fields.text(key::NETWORK_PEER_ADDRESS, peer.host.as_bytes());
    if let Some(port) = peer.port.filter(|port| *port != 0) {
        fields.integer(key::NETWORK_PEER_PORT, u64::from(port));
    }
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

/// The conventions' value for what has no name: a method, an error.
const OTHER: &str = "_OTHER";
const UNKNOWN_METHOD_NAME: &str = "HTTP";
const GRPC: &[u8] = b"grpc";
/// Names of events.
const TIMEOUT: &str = "timeout";
const RESET: &str = "reset";
/// What Istio calls the routes that it makes itself.
const ANY_ROUTE: [&[u8]; 3] = [b"default", b"allow_any", b"block_all"];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use opentelemetry::trace::{SpanId, TraceId};
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::trace::v1::{Span, span, status};
    use prost::Message;

    use super::*;
    use crate::context::Sampling;
    use crate::head::EMPTY;

    const FACTS: StreamFacts<'_> = StreamFacts {
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
            link: None,
        }
    }

    fn record(lines: &[(&str, &[u8])], facts: StreamFacts<'_>) -> (Span, BTreeMap<String, String>) {
        let head = Head::new(lines.iter().map(|(k, v)| (k.as_bytes(), *v)).collect());
        let recording = recording();
        let active = ActiveSpan::start(&config(), &head, false, &recording, 1_000);
        let mut span = Span::decode(active.finish(facts).bytes.as_slice()).unwrap();
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
            ("upstream_cluster", "shop"),
            ("upstream_address", "10.0.0.7:8080"),
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
    fn only_ip_addresses_are_recorded_as_addresses() {
        for address in [
            "envoy://internal_client_address/",
            "envoy://connect_originate/10.0.0.7:8080",
            "/run/shop.sock",
            "@10.0.0.7:80",
            "",
        ] {
            let inbound = StreamFacts { source_address: address.as_bytes(), ..FACTS };
            let (upstream_address, direction) = (address.as_bytes(), Direction::Outbound);
            let outbound = StreamFacts { upstream_address, direction, ..FACTS };
            for facts in [inbound, outbound] {
                let (_, attributes) = record(&[], facts);
                for key in ["client.address", "network.peer.address", "network.peer.port"] {
                    assert_eq!(attributes.get(key), None, "{key} of {address}");
                }
            }
            let (_, attributes) = record(&[], outbound);
            let raw = attributes.get("upstream_address").map_or("", String::as_str);
            assert_eq!(raw, address);
        }
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

    /// Checks `error.type`, which a span has where its status is an error, and its event.
    #[track_caller]
    fn check_end(facts: StreamFacts<'_>, error_type: Option<&str>, event: Option<&str>) {
        let (span, attributes) = record(&[], facts);
        assert_eq!(attributes.get("error.type").map(String::as_str), error_type, "{facts:?}");
        let error = span.status.is_some_and(|status| status.code() == status::StatusCode::Error);
        assert_eq!(error, error_type.is_some(), "{facts:?}");
        let events: Vec<_> =
            span.events.iter().map(|event| (event.name.as_str(), event.time_unix_nano)).collect();
        let expected: Vec<_> = event.into_iter().map(|name| (name, 2_000)).collect();
        assert_eq!(events, expected, "{facts:?}");
    }

    #[test]
    fn an_error_is_what_the_http_conventions_call_one() {
        use Direction::{Inbound, Outbound};
        let (ut, uc, dc, upe) = (1 << 2, 1 << 6, 1 << 14, 1 << 23);
        for (direction, status, flags, error_type, event) in [
            (Inbound, 200, 0, None, None),
            (Inbound, 404, 0, None, None),
            (Inbound, 500, 0, Some("500"), None),
            (Inbound, 0, 0, Some("_OTHER"), None),
            (Inbound, 0, dc, Some("DC"), Some("reset")),
            (Inbound, 200, dc, None, Some("reset")),
            (Inbound, 101, dc, None, None),
            (Outbound, 101, uc, None, None),
            (Inbound, 101, ut, Some("UT"), Some("timeout")),
            (Inbound, 200, upe, Some("UPE"), Some("reset")),
            (Inbound, 504, ut, Some("504"), Some("timeout")),
            (Outbound, 302, 0, None, None),
            (Outbound, 404, 0, Some("404"), None),
            (Outbound, 503, uc, Some("503"), Some("reset")),
            (Outbound, 200, uc, Some("UC"), Some("reset")),
            (Outbound, 200, ut | uc, Some("UT,UC"), Some("timeout")),
        ] {
            check_end(StreamFacts { direction, status, flags, ..FACTS }, error_type, event);
        }
    }

    #[track_caller]
    fn check_named(
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

    #[test]
    fn a_span_is_named_by_method_and_route() {
        let get: &[(&str, &[u8])] = &[(":method", b"GET"), (":path", b"/products/7")];
        let on = |route_name: &'static [u8]| StreamFacts { route_name, ..FACTS };
        check_named(get, on(b""), "GET", &[("http.route", "")]);
        check_named(
            get,
            on(b"/products/{id}"),
            "GET /products/{id}",
            &[("http.route", "/products/{id}")],
        );
        check_named(get, on(b"shop"), "GET shop", &[("http.route", "shop")]);
        check_named(get, on(b"\xff"), "GET \u{fffd}", &[("http.route", "\u{fffd}")]);
        check_named(get, on(b"default"), "GET", &[("http.route", "")]);
        check_named(&[(":method", b"BREW")], on(b"/pot"), "HTTP /pot", &[("http.route", "/pot")]);
    }

    #[test]
    fn grpc_is_named_and_judged_by_its_own_conventions() {
        let call = |path: &'static [u8]| {
            [
                (":method", b"POST".as_slice()),
                (":path", path),
                ("content-type", b"application/grpc"),
            ]
        };
        let add = call(b"/shop.Cart/Add");
        let ended = |direction, grpc_status| StreamFacts {
            direction,
            grpc_status,
            route_name: b"grpc",
            ..FACTS
        };
        use Direction::{Inbound, Outbound};
        check_named(
            &add,
            ended(Inbound, Some(0)),
            "shop.Cart/Add",
            &[
                ("rpc.system.name", "grpc"),
                ("rpc.method", "shop.Cart/Add"),
                ("rpc.response.status_code", "OK"),
                ("error.type", ""),
                ("http.route", ""),
            ],
        );
        let not_found = [("rpc.response.status_code", "NOT_FOUND"), ("error.type", "")];
        check_named(&add, ended(Inbound, Some(5)), "shop.Cart/Add", &not_found);
        let not_found = [("rpc.response.status_code", "NOT_FOUND"), ("error.type", "NOT_FOUND")];
        check_named(&add, ended(Outbound, Some(5)), "shop.Cart/Add", &not_found);
        let unknown = [
            ("rpc.method", "_OTHER"),
            ("rpc.method_original", "shop.Cart/Add"),
            ("error.type", "UNIMPLEMENTED"),
        ];
        check_named(&add, ended(Inbound, Some(12)), "grpc", &unknown);
        check_named(
            &add,
            ended(Outbound, Some(12)),
            "shop.Cart/Add",
            &[("rpc.method_original", "")],
        );
        let plain = StreamFacts { answered_in_http: true, status: 503, ..ended(Inbound, None) };
        let of_http = [("rpc.system.name", ""), ("rpc.method", ""), ("error.type", "503")];
        check_named(&add, plain, "POST grpc", &of_http);
        // Nobody answered: whoever asks makes up the name.
        let gone = StreamFacts { status: 0, flags: 1 << 28, ..ended(Inbound, None) };
        let gone_attributes = [("rpc.method", "_OTHER"), ("error.type", "DR")];
        check_named(&add, gone, "grpc", &gone_attributes);
        check_named(&add, StreamFacts { direction: Outbound, ..gone }, "shop.Cart/Add", &[]);
        let no_upstream = StreamFacts { upstream_address: b"", ..ended(Inbound, Some(14)) };
        check_named(&add, no_upstream, "grpc", &[("rpc.response.status_code", "UNAVAILABLE")]);
        let cut = StreamFacts { flags: 1 << 6, ..ended(Outbound, None) };
        check_named(&add, cut, "shop.Cart/Add", &[("error.type", "UC")]);
        let cancelled = StreamFacts { flags: 1 << 28, ..ended(Outbound, None) };
        check_named(&add, cancelled, "shop.Cart/Add", &[("error.type", "")]);
        let no_grpc = StreamFacts { status: 404, ..ended(Inbound, None) };
        check_named(&add, no_grpc, "grpc", &[("rpc.method", "_OTHER"), ("error.type", "")]);
        let odd = [("rpc.method", "_OTHER"), ("rpc.method_original", "a/b/c")];
        check_named(&call(b"/a/b/c?x"), ended(Inbound, Some(0)), "grpc", &odd);
    }

    #[test]
    fn a_web_socket_is_no_version_of_http() {
        let asked: &[(&str, &[u8])] = &[(":method", b"GET"), ("upgrade", b"WebSocket")];
        let protocol = |name, version| {
            [("network.protocol.name", name), ("network.protocol.version", version)]
        };
        let switched = StreamFacts { status: 101, ..FACTS };
        check_named(asked, switched, "GET", &protocol("websocket", ""));
        check_named(asked, FACTS, "GET", &protocol("", "1.1"));
    }

    #[test]
    fn tries_and_sizes_are_there_where_they_say_anything() {
        let keys =
            ["http.request.resend_count", "http.request.body.size", "http.response.body.size"];
        let facts = StreamFacts {
            attempts: 3,
            request_body_bytes: 5,
            response_body_bytes: 1 << 40,
            ..FACTS
        };
        let found = |facts| {
            let (_, attributes) = record(&[], facts);
            keys.map(|key| attributes.get(key).cloned().unwrap_or_default())
        };
        assert_eq!(found(facts), ["=2", "=5", "=1099511627776"]);
        assert_eq!(found(FACTS), ["", "", ""]);
        assert_eq!(found(StreamFacts { attempts: 0, ..FACTS }), ["", "", ""]);
    }

    #[test]
    fn the_headers_say_how_large_a_body_is() {
        for (length, end_of_stream, expected) in [
            (None, true, Some(0)),
            (None, false, None),
            (Some("0"), false, Some(0)),
            (Some("18446744073709551615"), false, Some(u64::MAX)),
            (Some("18446744073709551616"), false, None),
            (Some("+1"), false, None),
            (Some(""), false, None),
            (Some("1, 1"), false, None),
        ] {
            let lines = length.map(|length| ("content-length".as_bytes(), length.as_bytes()));
            let head = Head::new(lines.into_iter().collect());
            let active = ActiveSpan::start(&config(), &head, end_of_stream, &recording(), 0);
            assert_eq!(active.request_body_bytes(), expected, "{length:?} {end_of_stream}");
        }
    }

    #[test]
    fn the_first_byte_counts_once_and_only_from_an_upstream() {
        let started = |facts| {
            let recording = recording();
            let mut active = ActiveSpan::start(&config(), &EMPTY, false, &recording, 1_000_000);
            active.response_started(3_500_000);
            active.response_started(9_000_000);
            let span = Span::decode(active.finish(facts).bytes.as_slice()).unwrap();
            let key = "upstream_time_to_first_byte_ms";
            let found = span.attributes.into_iter().find(|pair| pair.key == key);
            found.and_then(|pair| pair.value?.value)
        };
        assert_eq!(started(FACTS), Some(Value::DoubleValue(2.5)));
        assert_eq!(started(StreamFacts { upstream_address: b"", ..FACTS }), None);
    }

    #[test]
    fn long_values_are_cut_at_a_character_and_counted() {
        let path = "/é".repeat(600);
        let head = Head::new(vec![(b":path", path.as_bytes())]);
        let recording = recording();
        let finished = ActiveSpan::start(&config(), &head, false, &recording, 0).finish(FACTS);
        assert_eq!(finished.truncated, 1);
        let span = Span::decode(finished.bytes.as_slice()).unwrap();
        let path = span.attributes.iter().find(|pair| pair.key == "url.path").unwrap();
        let Some(Value::StringValue(kept)) = path.value.clone().unwrap().value else {
            panic!("{path:?}");
        };
        assert_eq!(kept.chars().count(), 1024);
    }
}
