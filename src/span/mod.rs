//! The span of one request: its attributes, events and status, and its encoding as OTLP.
//!
//! A span has OpenTelemetry's attributes of HTTP ([`http`]), of gRPC ([`rpc`]) and of the addresses on
//! both sides ([`peer`]), Envoy's own tags beside them, and the operator's custom tags ([`tags`]).
//! [`attributes`] names all keys, [`encoding`] writes them, and [`privacy`] says what of them is left out.
//! [`property_list`] reads Envoy's attributes.
//! [`resource`] describes the service whose spans these are.
//!
//! A span is encoded as its facts become known: [`ActiveSpan::start`] at the request's headers, and
//! [`ActiveSpan::finish`] when the request is over.

pub(crate) mod attributes;
pub(crate) mod cel;
pub(crate) mod encoding;
pub(crate) mod http;
pub(crate) mod node;
pub(crate) mod peer;
pub(crate) mod privacy;
pub(crate) mod property_list;
pub(crate) mod protobuf;
pub(crate) mod resource;
pub(crate) mod rpc;
pub(crate) mod tags;
pub(crate) mod text;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use opentelemetry::trace::{SpanId, SpanKind, Status};

use crate::http::digits;
use crate::http::grpc;
use crate::http::head::{self, CONTENT_LENGTH, CONTENT_TYPE, Head, UPGRADE};
use crate::http::response_flags::{self, Cut};
use crate::http::url::Url;
use crate::propagation::Link;
use crate::propagation::context::Context;
use crate::sampling::conditions::Direction;
use crate::sampling::decision::Reason;
use crate::sampling::match_list::MatchList;
use crate::span::attributes as key;
use crate::span::encoding::{AttributeLimits, Attributes, EncodedSpan, SpanFields, SpanIds};
use crate::span::privacy::Privacy;
use crate::span::tags::source::Lookup;
use crate::span::tags::{EndFacts, KeptValues, Tags};

/// The part of the configuration that says what spans record.
#[derive(Debug, Clone)]
pub struct SpanSettings {
    pub attribute_limits: AttributeLimits,
    pub tags: Tags,
    /// Whether an inbound request has a second span, of its call upstream.
    pub spawns_upstream_span: bool,
    /// The requests of each name in [`Tags::name`].
    pub names: MatchList,
    pub privacy: Rc<Privacy>,
    /// Attributes that are the same on every span, encoded once.
    fixed_attributes: Attributes,
}

/// The decision to record a request: the ids of its span, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recording<'c> {
    pub context: Context,
    pub parent_span_id: Option<SpanId>,
    /// The id of the span of the call upstream, which goes upstream, if the request has such a span.
    pub upstream_span_id: Option<SpanId>,
    pub trace_state: Vec<u8>,
    pub reason: Reason<'c>,
    /// The index of the span's name in [`SpanSettings::names`], if it has one of the operator's.
    pub name_index: Option<usize>,
    /// Points to the incoming context, where that was not trusted.
    pub link: Option<Box<Link>>,
}

/// Facts about a request that Envoy knows when the request is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamFacts<'a> {
    pub direction: Direction,
    /// `source.address`: the client's address, with port 0 where Envoy derived it from
    /// `x-forwarded-for`.
    pub source_address: &'a [u8],
    /// `request.protocol`, such as `HTTP/1.1`.
    pub protocol: &'a [u8],
    /// `response.code`; 0 where no response was sent.
    pub status: u16,
    /// `response.flags`: one bit for each flag.
    pub flags: u64,
    /// `response.code_details`.
    pub code_details: &'a [u8],
    /// `xds.route_name`; empty where no route matched, or where the route has no name.
    pub route_name: &'a [u8],
    /// `xds.cluster_name`; empty where the route leads to no cluster.
    pub upstream_cluster: &'a [u8],
    /// `upstream.address`; empty where Envoy picked no upstream host.
    pub upstream_address: &'a [u8],
    /// `upstream.request_attempt_count`.
    pub attempts: u64,
    /// Bytes of the request's body.
    pub request_body_bytes: u64,
    /// `response.size`: bytes of the response's body.
    pub response_body_bytes: u64,
    /// `grpc-status`, where the request is a gRPC request and the response has this status.
    pub grpc_status: Option<u64>,
    /// Whether the request says that it is a gRPC request, and the upstream answered in plain HTTP.
    pub answered_in_http: bool,
    pub end_unix_nanos: u64,
}

/// The span of a request that is not over yet. The facts from its headers are encoded already.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ActiveSpan {
    fields: SpanFields,
    name: Name,
    /// The span of the call upstream, if the request has one.
    upstream: Option<Box<SpanFields>>,
    request: RequestParts,
    /// Set where the request's headers tell the size.
    request_body_bytes: Option<u64>,
    kept_values: KeptValues,
}

/// What the end of a span needs to know of the request, beside what is encoded.
#[derive(Debug, PartialEq, Eq)]
struct RequestParts {
    start_unix_nanos: u64,
    /// Not encoded before the end: the direction, which is known then, decides on the attributes.
    url: Url,
    /// The method as the span's name begins with it.
    method: &'static str,
    protocol: ApplicationProtocol,
    /// When the head of the response arrived.
    first_byte_unix_nanos: Option<u64>,
    /// Whether the client's address is recorded without its last bits.
    masks_client: bool,
}

/// The name of a span. It may be known only at the request's end.
#[derive(Debug, PartialEq, Eq)]
enum Name {
    Default,
    /// The name at this index of `span.names`. It is empty so far, or needs facts of the request's end.
    ByIndex(usize),
    /// A complete name of `span.names`.
    Complete(Vec<u8>),
}

/// The protocol that a request speaks on top of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ApplicationProtocol {
    None,
    Grpc,
    WebSocket,
}

impl SpanSettings {
    pub fn new(
        attribute_limits: AttributeLimits,
        tags: Tags,
        names: MatchList,
        privacy: Rc<Privacy>,
    ) -> Self {
        let mut fixed_attributes = Attributes::new(attribute_limits.value_length as usize);
        for (key, value) in [(key::COMPONENT, "proxy"), (key::SPAN_SOURCE, "mesh")] {
            if !privacy.omitted.contains(key) {
                fixed_attributes.text(key, value.as_bytes());
            }
        }
        Self {
            attribute_limits,
            tags,
            spawns_upstream_span: false,
            names,
            privacy,
            fixed_attributes,
        }
    }

    /// Returns the names of the request headers that a span needs uncut; a name may come twice.
    pub fn uncut_headers(&self) -> impl Iterator<Item = &str> {
        let of_paths = (!self.privacy.paths.is_empty()).then_some(head::PATH);
        self.tags.request_headers().chain(of_paths)
    }
}

impl ActiveSpan {
    /// Starts the span with everything that the request's headers say, and the span of the call upstream
    /// if the recording has an id for it. `end_of_stream` tells that the request has no body.
    pub(crate) fn start(
        settings: &SpanSettings,
        head: &Head<'_>,
        end_of_stream: bool,
        recording: &Recording<'_>,
        start_unix_nanos: u64,
    ) -> Box<Self> {
        let ids = SpanIds {
            trace_id: recording.context.trace_id,
            span_id: recording.context.span_id,
            parent_span_id: recording.parent_span_id,
            parent_is_remote: true,
            flags: recording.context.flags(),
            trace_state: &recording.trace_state,
        };
        let mut fields = SpanFields::start(ids, start_unix_nanos, settings.attribute_limits);
        fields.omitted = settings.privacy.omitted;
        let method = http::request_attributes(&mut fields, head);
        http::caller_attributes(&mut fields, head);
        peer::server_attributes(&mut fields, head);
        fields.own.append(&settings.fixed_attributes);
        let kept_values = settings.tags.at_request(&mut fields.tags, head);
        fields.text(key::REASON, recording.reason.as_str().as_bytes());
        if let Some(link) = &recording.link {
            fields.link(link);
        }
        let upstream = recording.upstream_span_id.map(|span_id| {
            let parent_span_id = Some(ids.span_id);
            let ids = SpanIds { span_id, parent_span_id, parent_is_remote: false, ..ids };
            upstream_span(settings, head, recording, ids, start_unix_nanos)
        });
        let request = RequestParts {
            start_unix_nanos,
            url: settings.privacy.url(head),
            method,
            protocol: ApplicationProtocol::of(head),
            first_byte_unix_nanos: None,
            masks_client: settings.privacy.masks_clients,
        };
        Box::new(Self {
            fields,
            upstream,
            request,
            request_body_bytes: if end_of_stream { Some(0) } else { content_length(head) },
            kept_values,
            name: recording.name_index.map_or(Name::Default, |index| {
                Name::ByIndex(index).complete(&settings.tags, Lookup::AtRequest(head))
            }),
        })
    }

    /// Records which condition of `sampling.export_on` the request met.
    pub(crate) fn export_on(&mut self, condition: &str) {
        for fields in self.upstream.as_deref_mut().into_iter().chain([&mut self.fields]) {
            fields.text(key::EXPORT_ON, condition.as_bytes());
        }
    }

    /// Records when the head of the response arrived; only the first call counts.
    pub(crate) fn response_started(&mut self, unix_nanos: u64) {
        self.request.first_byte_unix_nanos.get_or_insert(unix_nanos);
    }

    /// Returns the size of the request's body where the headers tell it, which they nearly always do.
    /// It equals Envoy's `request.size`.
    pub(crate) fn request_body_bytes(&self) -> Option<u64> {
        self.request_body_bytes
    }

    /// Tells whether an own attribute is left out.
    pub(crate) fn omits(&self, key: &str) -> bool {
        self.fields.omitted.contains(key)
    }

    /// Tells whether the request is a gRPC request, whose response has a `grpc-status`.
    pub(crate) fn is_grpc(&self) -> bool {
        self.request.protocol == ApplicationProtocol::Grpc
    }

    /// Adds the tags and the name whose values are known at the request's end.
    pub(crate) fn add_tags(&mut self, tags: &Tags, facts: &EndFacts<'_, '_>) {
        tags.at_end(&mut self.fields.tags, &self.kept_values, facts);
        let name = std::mem::replace(&mut self.name, Name::Default);
        self.name = name.complete(tags, Lookup::AtEnd(&self.kept_values, facts));
    }

    /// Ends the span with the facts that Envoy knows when the request is over. Returns the span, and that
    /// of the call upstream if it has one and Envoy picked an upstream host.
    #[allow(clippy::boxed_local, reason = "each move of the struct costs 70 instructions")]
    pub(crate) fn finish(
        self: Box<Self>,
        facts: StreamFacts<'_>,
    ) -> (EncodedSpan, Option<EncodedSpan>) {
        let Self { fields, name, upstream, request, .. } = *self;
        let Some(call) = upstream else {
            return (request.end(fields, name, facts, Describes::Both), None);
        };
        // Envoy does not tell the protocol that it speaks with the upstream.
        let of_call =
            StreamFacts { direction: Direction::Outbound, protocol: b"", route_name: b"", ..facts };
        let call = (!facts.upstream_address.is_empty())
            .then(|| request.end(*call, Name::Default, of_call, Describes::Call));
        let describes = if call.is_some() { Describes::Request } else { Describes::Both };
        (request.end(fields, name, facts, describes), call)
    }
}

/// Starts the span of the call upstream. The caller's attributes and the custom tags are on the span above it.
#[inline(never)]
fn upstream_span(
    settings: &SpanSettings,
    head: &Head<'_>,
    recording: &Recording<'_>,
    ids: SpanIds<'_>,
    start_unix_nanos: u64,
) -> Box<SpanFields> {
    let mut fields = SpanFields::start(ids, start_unix_nanos, settings.attribute_limits);
    fields.omitted = settings.privacy.omitted;
    http::request_attributes(&mut fields, head);
    peer::server_attributes(&mut fields, head);
    fields.own.append(&settings.fixed_attributes);
    fields.text(key::REASON, recording.reason.as_str().as_bytes());
    Box::new(fields)
}

/// What a span describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Describes {
    /// The request alone: its call upstream has a span of its own.
    Request,
    /// The call upstream alone, below the span of its request.
    Call,
    /// The request and the call upstream.
    Both,
}

impl RequestParts {
    fn end(
        &self,
        mut fields: SpanFields,
        name: Name,
        mut facts: StreamFacts<'_>,
        describes: Describes,
    ) -> EncodedSpan {
        let Self { start_unix_nanos, url, method, protocol, first_byte_unix_nanos, .. } = self;
        let protocol = if facts.answered_in_http { ApplicationProtocol::None } else { *protocol };
        let kind = match facts.direction {
            Direction::Inbound => SpanKind::Server,
            Direction::Outbound => SpanKind::Client,
        };
        http::url_attributes(&mut fields, facts.direction, url);
        match facts.direction {
            Direction::Inbound => {
                peer::client_attributes(&mut fields, facts.source_address, self.masks_client);
            }
            Direction::Outbound => peer::callee_attributes(&mut fields, facts.upstream_address),
        }
        let is_web_socket = protocol == ApplicationProtocol::WebSocket;
        http::protocol_attributes(&mut fields, is_web_socket, facts);
        if describes == Describes::Request {
            facts.attempts = 0;
        } else {
            peer::upstream_attributes(&mut fields, facts);
        }
        http::volume_attributes(&mut fields, facts);
        if let Some(first_byte) = first_byte_unix_nanos
            && !facts.upstream_address.is_empty()
            && describes != Describes::Request
        {
            let nanos = first_byte.saturating_sub(*start_unix_nanos);
            fields.number(key::UPSTREAM_TIME_TO_FIRST_BYTE_MS, nanos as f64 / 1e6);
        }
        // The clock may have been set back meanwhile: a span never ends before it starts.
        let end_unix_nanos = facts.end_unix_nanos.max(*start_unix_nanos);
        let cut = response_flags::cut(facts.flags, facts.status);
        if let Some(cut) = cut {
            fields.event(if cut == Cut::Timeout { TIMEOUT } else { RESET }, end_unix_nanos);
        }
        let (default_name, error_type) = match protocol {
            ApplicationProtocol::Grpc => {
                let is_inbound = kind == SpanKind::Server || describes == Describes::Call;
                rpc::name_and_error_type(&mut fields, &kind, is_inbound, url, facts, cut)
            }
            _ => (
                http::name(&mut fields, method, facts.route_name),
                http::error_type(&kind, facts, cut),
            ),
        };
        http::response_attributes(&mut fields, facts);
        let status = match error_type {
            Some(error_type) => {
                fields.text(key::ERROR_TYPE, error_type.as_bytes());
                Status::error("")
            }
            None => Status::Unset,
        };
        let name = match name {
            Name::Complete(name) => name,
            Name::Default | Name::ByIndex(_) => default_name,
        };
        fields.end(&name, &kind, end_unix_nanos, &status)
    }
}

impl Name {
    fn complete(self, tags: &Tags, lookup: Lookup<'_, '_>) -> Self {
        match self {
            Self::ByIndex(index) => tags.name(index, lookup).map_or(self, Self::Complete),
            other => other,
        }
    }
}

/// Tells by `response.code_details` whether a response came from the upstream, not from Envoy itself.
pub(crate) fn is_of_upstream(code_details: &[u8]) -> bool {
    code_details == b"via_upstream"
}

/// Tells whether a request is a gRPC request.
pub(crate) fn is_grpc(head: &Head<'_>) -> bool {
    ApplicationProtocol::of(head) == ApplicationProtocol::Grpc
}

impl ApplicationProtocol {
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

/// The conventions' value for a method or an error that has no name of its own.
const OTHER: &str = "_OTHER";
/// Names of the events of a stream that was cut short.
const TIMEOUT: &str = "timeout";
const RESET: &str = "reset";
