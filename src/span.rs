//! The span of one request, by OpenTelemetry's HTTP conventions and with Envoy's own tags.
//!
//! <https://opentelemetry.io/docs/specs/semconv/http/http-spans/>

use opentelemetry::trace::{SpanId, SpanKind, Status};

use crate::attributes as key;
use crate::config::Config;
use crate::context::Context;
use crate::decision::Reason;
use crate::head::{Head, REQUEST_ID, USER_AGENT, split_query};
use crate::otlp::{SpanFields, SpanIds};
use crate::response_flags;
use crate::rules::Direction;
use crate::url;

/// A decision to record: who the span is and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording<'c> {
    pub context: Context,
    pub parent_span_id: Option<SpanId>,
    pub trace_state: Vec<u8>,
    pub reason: Reason<'c>,
}

/// What Envoy knows of the request besides its headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestFacts<'a> {
    pub direction: Direction,
    /// Envoy's `source.address`: the client's address, with port 0 where it was derived from
    /// `x-forwarded-for`.
    pub source_address: &'a [u8],
    /// Envoy's `request.protocol`, such as `HTTP/1.1`.
    pub protocol: &'a [u8],
    pub start_unix_nanos: u64,
}

/// What Envoy knows of the request once it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseFacts<'a> {
    /// Envoy's `response.code`; 0 where no response was sent.
    pub status: u16,
    /// Envoy's `response.flags`, a bit each.
    pub flags: u64,
    pub code_details: &'a [u8],
    /// Envoy's `upstream.address`; empty where no upstream was reached.
    pub upstream_address: &'a [u8],
    pub end_unix_nanos: u64,
}

/// A span whose request is under way.
#[derive(Debug, PartialEq, Eq)]
pub struct ActiveSpan {
    kind: SpanKind,
    fields: SpanFields,
}

/// A span that is over, encoded as OTLP's `Span`.
#[derive(Debug, PartialEq, Eq)]
pub struct FinishedSpan {
    pub bytes: Vec<u8>,
    /// Attribute values that were cut.
    pub truncated: u32,
}

impl ActiveSpan {
    /// Starts the span with all that the request says.
    pub fn start(
        config: &Config,
        head: &Head<'_>,
        recording: &Recording<'_>,
        facts: RequestFacts<'_>,
    ) -> Self {
        let kind = match facts.direction {
            Direction::Inbound => SpanKind::Server,
            Direction::Outbound => SpanKind::Client,
        };
        let ids = SpanIds {
            trace_id: recording.context.trace_id,
            span_id: recording.context.span_id,
            parent_span_id: recording.parent_span_id,
            flags: recording.context.flags(),
            trace_state: &recording.trace_state,
        };
        let method = known_method(head.method());
        let name = method.unwrap_or(UNKNOWN_METHOD_NAME);
        let mut fields = SpanFields::start(ids, name, kind.clone(), facts.start_unix_nanos);
        fields.text(key::HTTP_REQUEST_METHOD, method.unwrap_or(OTHER_METHOD).as_bytes());
        if method.is_none() {
            fields.text(key::HTTP_REQUEST_METHOD_ORIGINAL, head.method());
        }
        match facts.direction {
            Direction::Inbound => server_attributes(&mut fields, head, facts),
            Direction::Outbound => client_attributes(&mut fields, head),
        }
        common_attributes(&mut fields, config, head, recording, facts);
        Self { kind, fields }
    }

    /// Tells whether this is a CLIENT span, whose end asks for the upstream's address.
    pub fn is_client(&self) -> bool {
        self.kind == SpanKind::Client
    }

    /// Ends the span with all that the response says.
    pub fn finish(mut self, facts: ResponseFacts<'_>) -> FinishedSpan {
        let fields = &mut self.fields;
        if self.kind == SpanKind::Client {
            peer_attributes(fields, facts.upstream_address);
        }
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
        let status = status(&self.kind, facts.status);
        if status != Status::Unset {
            let error = if facts.status != 0 { facts.status.to_string() } else { flags };
            let error = if error.is_empty() { UNKNOWN_ERROR.to_owned() } else { error };
            fields.text(key::ERROR_TYPE, error.as_bytes());
        }
        let truncated = fields.truncated;
        FinishedSpan { bytes: self.fields.end(facts.end_unix_nanos, &status), truncated }
    }
}

fn server_attributes(fields: &mut SpanFields, head: &Head<'_>, facts: RequestFacts<'_>) {
    let (path, query) = split_query(head.target());
    fields.text(key::URL_PATH, path);
    if let Some(query) = query {
        fields.text(key::URL_QUERY, &url::redacted_query(query));
    }
    let (client, port) = url::host_and_port(facts.source_address);
    if !client.is_empty() {
        fields.text(key::CLIENT_ADDRESS, client);
    }
    // With port 0 the address is one that x-forwarded-for told, not the peer's.
    if port.is_some() {
        peer_attributes(fields, facts.source_address);
    }
}

fn client_attributes(fields: &mut SpanFields, head: &Head<'_>) {
    let url = url::full_url(head.scheme(), head.authority(), head.target());
    fields.text(key::URL_FULL, &url);
}

fn common_attributes(
    fields: &mut SpanFields,
    config: &Config,
    head: &Head<'_>,
    recording: &Recording<'_>,
    facts: RequestFacts<'_>,
) {
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
    if let Some(version) = protocol_version(facts.protocol) {
        fields.text(key::NETWORK_PROTOCOL_VERSION, version);
    }
    for (key, header) in [(key::USER_AGENT_ORIGINAL, USER_AGENT), (key::REQUEST_ID, REQUEST_ID)] {
        if let Some(value) = head.first(header) {
            fields.text(key, value);
        }
    }
    fields.text(key::REASON, recording.reason.as_str().as_bytes());
    fields.encoded(&config.tags.constant);
    for tag in &config.tags.request_headers {
        let default = tag.default_value.as_deref().map(str::as_bytes);
        if let Some(value) = head.first(&tag.header).or(default) {
            fields.text(&tag.tag, value);
        }
    }
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

fn known_method(method: &[u8]) -> Option<&'static str> {
    KNOWN_METHODS.into_iter().find(|known| known.as_bytes() == method)
}

/// `1.1` for `HTTP/1.1`.
fn protocol_version(protocol: &[u8]) -> Option<&[u8]> {
    protocol.strip_prefix(b"HTTP/")
}

/// RFC 9110, section 9, and PATCH (RFC 5789).
const KNOWN_METHODS: [&str; 9] =
    ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE"];
const OTHER_METHOD: &str = "_OTHER";
const UNKNOWN_METHOD_NAME: &str = "HTTP";
/// The conventions' fallback for `error.type`.
const UNKNOWN_ERROR: &str = "_OTHER";
