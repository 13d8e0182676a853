//! One HTTP stream: its messages, its `StreamInfo`, and which of its header maps and bodies a module
//! can read and change in each phase.

use std::collections::BTreeMap;
use std::fmt;

use super::headers::Headers;

/// How far a stream has come through the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Created,
    RequestHeaders,
    RequestBody,
    RequestTrailers,
    ResponseHeaders,
    ResponseBody,
    ResponseTrailers,
    Log,
}

/// Direction of a listener, as `xds.listener_direction` numbers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    #[default]
    Unspecified = 0,
    Inbound = 1,
    Outbound = 2,
}

/// A request or a response.
#[derive(Clone, Debug, Default)]
pub struct Message {
    pub headers: Headers,
    pub body: Vec<u8>,
    pub trailers: Headers,
}

/// What Envoy knows about a stream apart from its messages: Envoy's `StreamInfo`.
#[derive(Clone, Debug, Default)]
pub struct StreamInfo {
    pub direction: Direction,
    pub protocol: String,
    /// `ip:port`, or the path of a Unix socket.
    pub source_address: String,
    pub destination_address: String,
    /// Empty if no upstream was selected; a module can read it from the response phase on.
    pub upstream_address: String,
    pub response_code_details: String,
    /// Envoy's response flags as bits.
    pub response_flags: u64,
    /// `None` if no route matched.
    pub route_name: Option<String>,
    /// `None` if no cluster was selected.
    pub cluster_name: Option<String>,
    /// How often the request was sent upstream, retries included.
    pub attempt_count: u64,
    /// Time from the first byte sent upstream to the last byte of the response.
    pub backend_latency_ns: Option<u64>,
    /// URI names in the certificates of the downstream connection; `None` without mTLS.
    pub peer_san: Option<String>,
    pub local_san: Option<String>,
    /// URI names in the certificates of the upstream connection.
    pub upstream_peer_san: Option<String>,
    pub upstream_local_san: Option<String>,
    /// Attributes by path, which override those that the fields above make. A null is absent.
    pub properties: Vec<(Vec<String>, serde_json::Value)>,
    pub connection_id: u64,
    pub started_ns: u64,
    /// `None` until the stream ends.
    pub duration_ns: Option<u64>,
}

/// An action by which a module holds up or ends a stream. The filter must never take one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intervention {
    /// A callback returned this action, which is not Continue.
    Paused { callback: &'static str, action: u32 },
    /// The module called `proxy_send_local_response` with this status.
    LocalResponse(u32),
    /// The module called `proxy_close_stream`.
    Closed,
}

impl fmt::Display for Intervention {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("expected the request to continue, but ")?;
        match self {
            Self::Paused { callback, action } => {
                write!(f, "{callback} returned the action {action}")
            }
            Self::LocalResponse(status) => {
                write!(f, "the filter sent a local response with the status {status}")
            }
            Self::Closed => f.write_str("the filter reset its stream"),
        }
    }
}

/// A stream for which the module has a context.
#[derive(Debug)]
pub struct Stream {
    pub(crate) phase: Phase,
    pub(crate) info: StreamInfo,
    pub request: Message,
    /// `None` until the response headers arrive.
    pub response: Option<Message>,
    /// Values that the module stored with `proxy_set_property`.
    pub(crate) filter_state: BTreeMap<Vec<u8>, Vec<u8>>,
    pub interventions: Vec<Intervention>,
}

impl Stream {
    pub(crate) fn new(info: StreamInfo, request: Message) -> Self {
        Self {
            phase: Phase::Created,
            info,
            request,
            response: None,
            filter_state: BTreeMap::new(),
            interventions: Vec::new(),
        }
    }

    /// Returns a header map if the module can read it now. Envoy forgets a map when its phase is
    /// over, and has headers and response trailers again in on_log.
    pub(crate) fn map(&self, map: MapType) -> Option<&Headers> {
        let response = self.response.as_ref();
        match (map, self.phase) {
            (MapType::RequestHeaders, Phase::RequestHeaders | Phase::Log) => {
                Some(&self.request.headers)
            }
            (MapType::RequestTrailers, Phase::RequestTrailers) => Some(&self.request.trailers),
            (MapType::ResponseHeaders, Phase::ResponseHeaders | Phase::Log) => {
                response.map(|response| &response.headers)
            }
            (MapType::ResponseTrailers, Phase::ResponseTrailers | Phase::Log) => {
                response.map(|response| &response.trailers)
            }
            _ => None,
        }
    }

    /// Returns a header map if the module can change it now: only in its own phase.
    pub(crate) fn map_mut(&mut self, map: MapType) -> Option<&mut Headers> {
        let response = self.response.as_mut();
        match (map, self.phase) {
            (MapType::RequestHeaders, Phase::RequestHeaders) => Some(&mut self.request.headers),
            (MapType::RequestTrailers, Phase::RequestTrailers) => Some(&mut self.request.trailers),
            (MapType::ResponseHeaders, Phase::ResponseHeaders) => {
                response.map(|response| &mut response.headers)
            }
            (MapType::ResponseTrailers, Phase::ResponseTrailers) => {
                response.map(|response| &mut response.trailers)
            }
            _ => None,
        }
    }

    /// Returns a body if the module can read and change it now: only in its own phase.
    pub(crate) fn body_mut(&mut self, buffer: BufferType) -> Option<&mut Vec<u8>> {
        match (buffer, self.phase) {
            (BufferType::HttpRequestBody, Phase::RequestBody) => Some(&mut self.request.body),
            (BufferType::HttpResponseBody, Phase::ResponseBody) => {
                self.response.as_mut().map(|response| &mut response.body)
            }
            _ => None,
        }
    }
}

/// Type of a header map, as the ABI numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MapType {
    RequestHeaders,
    RequestTrailers,
    ResponseHeaders,
    ResponseTrailers,
    GrpcReceiveInitialMetadata,
    GrpcReceiveTrailingMetadata,
    HttpCallResponseHeaders,
    HttpCallResponseTrailers,
}

impl MapType {
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::RequestHeaders,
            1 => Self::RequestTrailers,
            2 => Self::ResponseHeaders,
            3 => Self::ResponseTrailers,
            4 => Self::GrpcReceiveInitialMetadata,
            5 => Self::GrpcReceiveTrailingMetadata,
            6 => Self::HttpCallResponseHeaders,
            7 => Self::HttpCallResponseTrailers,
            _ => return None,
        })
    }
}

/// Type of a buffer, as the ABI numbers it. Buffers of TCP streams never exist here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BufferType {
    HttpRequestBody,
    HttpResponseBody,
    DownstreamData,
    UpstreamData,
    HttpCallResponseBody,
    GrpcReceive,
    VmConfiguration,
    PluginConfiguration,
    CallData,
}

impl BufferType {
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::HttpRequestBody,
            1 => Self::HttpResponseBody,
            2 => Self::DownstreamData,
            3 => Self::UpstreamData,
            4 => Self::HttpCallResponseBody,
            5 => Self::GrpcReceive,
            6 => Self::VmConfiguration,
            7 => Self::PluginConfiguration,
            8 => Self::CallData,
            _ => return None,
        })
    }
}
