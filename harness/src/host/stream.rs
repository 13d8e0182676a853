//! One HTTP stream: its header maps and bodies, what Envoy knows of it, and what of both a module
//! may read in which phase.

use std::collections::BTreeMap;

use super::headers::Headers;

/// Where a stream is on its way through the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Created,
    RequestHeaders,
    RequestBody,
    RequestTrailers,
    ResponseHeaders,
    ResponseBody,
    ResponseTrailers,
    Log,
}

/// Direction of the listener, as `xds.listener_direction` numbers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    #[default]
    Unspecified = 0,
    Inbound = 1,
    Outbound = 2,
}

/// One message: headers, then a body, then trailers.
#[derive(Clone, Debug, Default)]
pub struct Message {
    pub headers: Headers,
    pub body: Vec<u8>,
    pub trailers: Headers,
}

/// What Envoy knows of a stream beside its messages (its `StreamInfo`).
#[derive(Clone, Debug, Default)]
pub struct StreamInfo {
    pub direction: Direction,
    pub protocol: String,
    /// `ip:port`, or a path with neither.
    pub source_address: String,
    pub destination_address: String,
    /// Empty where no upstream was chosen; readable once there is a response.
    pub upstream_address: String,
    pub response_code_details: String,
    /// Envoy's response flags as bits.
    pub response_flags: u64,
    /// `None` where no route matched.
    pub route_name: Option<String>,
    /// `None` where no cluster was chosen.
    pub cluster_name: Option<String>,
    /// Times that the request was sent upstream, retries among them.
    pub attempt_count: u64,
    /// From the first byte sent upstream to the last one of the response.
    pub backend_latency_ns: Option<u64>,
    /// URI names in the certificates of the downstream's connection; `None` without mTLS.
    pub peer_san: Option<String>,
    pub local_san: Option<String>,
    /// Those of the upstream's connection.
    pub upstream_peer_san: Option<String>,
    pub upstream_local_san: Option<String>,
    /// Properties by their path, which win over all above. A null is not there.
    pub properties: Vec<(Vec<String>, serde_json::Value)>,
    pub connection_id: u64,
    pub started_ns: u64,
    /// Set when the stream has ended.
    pub duration_ns: Option<u64>,
}

/// What the module did to a stream that this project's filter never does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intervention {
    /// A callback returned an action other than Continue.
    Paused { callback: &'static str, action: u32 },
    /// `proxy_send_local_response` with that status.
    LocalResponse(u32),
    /// `proxy_close_stream` of that stream type.
    Closed(u32),
}

/// A stream that the module has a context for.
#[derive(Debug)]
pub struct Stream {
    pub phase: Phase,
    pub info: StreamInfo,
    pub request: Message,
    /// Absent until response headers arrive, and for ever where none did.
    pub response: Option<Message>,
    /// What the module stored with `proxy_set_property`.
    pub filter_state: BTreeMap<Vec<u8>, Vec<u8>>,
    pub interventions: Vec<Intervention>,
}

impl Stream {
    pub fn new(info: StreamInfo, request: Message) -> Self {
        Self {
            phase: Phase::Created,
            info,
            request,
            response: None,
            filter_state: BTreeMap::new(),
            interventions: Vec::new(),
        }
    }

    /// Map that can be read now. Envoy forgets a map when its phase is over, and shows headers
    /// and response trailers again in on_log.
    pub fn map(&self, map: MapType) -> Option<&Headers> {
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

    /// Map that can be changed now: the one of the phase, none in on_log.
    pub fn map_mut(&mut self, map: MapType) -> Option<&mut Headers> {
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

    /// Body that can be read and changed now.
    pub fn body_mut(&mut self, buffer: BufferType) -> Option<&mut Vec<u8>> {
        match (buffer, self.phase) {
            (BufferType::HttpRequestBody, Phase::RequestBody) => Some(&mut self.request.body),
            (BufferType::HttpResponseBody, Phase::ResponseBody) => {
                self.response.as_mut().map(|response| &mut response.body)
            }
            _ => None,
        }
    }
}

/// Kind of a header map, as the ABI numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapType {
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
    pub fn new(number: u32) -> Option<Self> {
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

/// Kind of a buffer, as the ABI numbers it; those of TCP streams are never there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferType {
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
    pub fn new(number: u32) -> Option<Self> {
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
