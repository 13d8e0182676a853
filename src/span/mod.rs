//! The span of one request, by OpenTelemetry's HTTP and RPC conventions and with Envoy's own tags.
//!
//! <https://opentelemetry.io/docs/specs/semconv/http/http-spans/>,
//! <https://opentelemetry.io/docs/specs/semconv/rpc/rpc-spans/>

pub mod attributes;
pub mod cel;
pub mod encoding;
pub mod protobuf;
pub mod resource;
pub mod tags;
pub mod text;

use opentelemetry::trace::{SpanId, SpanKind, Status};

use crate::http::address::Address;
use crate::http::digits;
use crate::http::grpc;
use crate::http::head::{CONTENT_LENGTH, CONTENT_TYPE, Head, REQUEST_ID, UPGRADE, USER_AGENT};
use crate::http::redaction::SecretKeys;
use crate::http::response_flags::{self, Cut, SWITCHING_PROTOCOLS};
use crate::http::url::{self, Url};
use crate::propagation::Link;
use crate::propagation::context::Context;
use crate::sampling::conditions::Direction;
use crate::sampling::decision::Reason;
use crate::span::attributes as key;
use crate::span::encoding::{AttributeLimits, EncodedSpan, SpanFields, SpanIds};
use crate::span::tags::{EarlyValues, EndFacts, Tags};

/// What every span is made of.
#[derive(Debug, Clone)]
pub struct SpanSettings {
    pub attribute_limits: AttributeLimits,
    pub tags: Tags,
    /// Query parameters whose values spans leave out.
    pub secret_keys: SecretKeys,
}

/// A decision to record: the ids of the span, and the reason.
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
        settings: &SpanSettings,
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
        let mut fields = SpanFields::start(ids, start_unix_nanos, settings.attribute_limits);
        fields.text(key::HTTP_REQUEST_METHOD, method.unwrap_or(OTHER).as_bytes());
        if method.is_none() {
            fields.text(key::HTTP_REQUEST_METHOD_ORIGINAL, head.method());
        }
        header_attributes(&mut fields, settings, head);
        let early_values = settings.tags.at_request(&mut fields.tags, head);
        fields.text(key::REASON, recording.reason.as_str().as_bytes());
        if let Some(link) = &recording.link {
            fields.link(link);
        }
        Self {
            fields,
            start_unix_nanos,
            url: Url::new(head.scheme(), head.authority(), head.target(), &settings.secret_keys),
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
    pub fn add_tags(&mut self, tags: &Tags, facts: &EndFacts<'_, '_>) {
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

fn header_attributes(fields: &mut SpanFields, settings: &SpanSettings, head: &Head<'_>) {
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
    fields.own.append(&settings.tags.marks);
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
mod tests;
