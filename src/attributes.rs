//! Attribute keys: OpenTelemetry's semantic conventions, and Envoy's own tag names.
//!
//! <https://opentelemetry.io/docs/specs/semconv/http/http-spans/>,
//! <https://opentelemetry.io/docs/specs/semconv/resource/>, and for Envoy's
//! `source/common/tracing/http_tracer_impl.cc`.

pub const CLIENT_ADDRESS: &str = "client.address";
pub const ERROR_TYPE: &str = "error.type";
pub const HTTP_REQUEST_METHOD: &str = "http.request.method";
pub const HTTP_REQUEST_METHOD_ORIGINAL: &str = "http.request.method_original";
pub const HTTP_REQUEST_BODY_SIZE: &str = "http.request.body.size";
pub const HTTP_REQUEST_RESEND_COUNT: &str = "http.request.resend_count";
pub const HTTP_RESPONSE_BODY_SIZE: &str = "http.response.body.size";
pub const HTTP_RESPONSE_STATUS_CODE: &str = "http.response.status_code";
pub const HTTP_ROUTE: &str = "http.route";
pub const NETWORK_PEER_ADDRESS: &str = "network.peer.address";
pub const NETWORK_PEER_PORT: &str = "network.peer.port";
pub const NETWORK_PROTOCOL_NAME: &str = "network.protocol.name";
pub const NETWORK_PROTOCOL_VERSION: &str = "network.protocol.version";
/// Gone from the conventions; custom tags may have it, and Zipkin names a span's callee by it.
pub const PEER_SERVICE: &str = "peer.service";
pub const RPC_METHOD: &str = "rpc.method";
pub const RPC_METHOD_ORIGINAL: &str = "rpc.method_original";
pub const RPC_RESPONSE_STATUS_CODE: &str = "rpc.response.status_code";
pub const RPC_SYSTEM_NAME: &str = "rpc.system.name";
pub const SERVER_ADDRESS: &str = "server.address";
pub const SERVER_PORT: &str = "server.port";
pub const URL_FULL: &str = "url.full";
pub const URL_PATH: &str = "url.path";
pub const URL_QUERY: &str = "url.query";
pub const URL_SCHEME: &str = "url.scheme";
pub const USER_AGENT_ORIGINAL: &str = "user_agent.original";

/// Envoy's tag with the value `proxy`, by which collectors tell mesh from application spans.
pub const COMPONENT: &str = "component";
/// `mesh`, for the same end.
pub const SPAN_SOURCE: &str = "span.source";
pub const REQUEST_ID: &str = "guid:x-request-id";
pub const RESPONSE_CODE_DETAILS: &str = "response_code_details";
pub const RESPONSE_FLAGS: &str = "response_flags";
pub const UPSTREAM_ADDRESS: &str = "upstream_address";
pub const UPSTREAM_CLUSTER: &str = "upstream_cluster";
/// Time from the start of the span to the head of the upstream's response, in milliseconds.
pub const UPSTREAM_TIME_TO_FIRST_BYTE_MS: &str = "upstream_time_to_first_byte_ms";
/// Why the span exists: the name of the rule that forced it, else `parent`, `ratio` or `late`.
pub const REASON: &str = "sidespan.reason";
/// Which condition of `sampling.export_on` a late span met, by its key.
pub const EXPORT_ON: &str = "sidespan.export_on";

pub const K8S_CLUSTER_NAME: &str = "k8s.cluster.name";
pub const K8S_NAMESPACE_NAME: &str = "k8s.namespace.name";
pub const K8S_POD_NAME: &str = "k8s.pod.name";
pub const SERVICE_NAME: &str = "service.name";
pub const SERVICE_VERSION: &str = "service.version";

/// What a span may hold already, and no custom tag may be called: OTLP wants keys to be unique.
pub const RESERVED: [&str; 34] = [
    CLIENT_ADDRESS,
    ERROR_TYPE,
    HTTP_REQUEST_METHOD,
    HTTP_REQUEST_METHOD_ORIGINAL,
    HTTP_REQUEST_BODY_SIZE,
    HTTP_REQUEST_RESEND_COUNT,
    HTTP_RESPONSE_BODY_SIZE,
    HTTP_RESPONSE_STATUS_CODE,
    HTTP_ROUTE,
    NETWORK_PEER_ADDRESS,
    NETWORK_PEER_PORT,
    NETWORK_PROTOCOL_NAME,
    NETWORK_PROTOCOL_VERSION,
    RPC_METHOD,
    RPC_METHOD_ORIGINAL,
    RPC_RESPONSE_STATUS_CODE,
    RPC_SYSTEM_NAME,
    SERVER_ADDRESS,
    SERVER_PORT,
    URL_FULL,
    URL_PATH,
    URL_QUERY,
    URL_SCHEME,
    USER_AGENT_ORIGINAL,
    COMPONENT,
    SPAN_SOURCE,
    REQUEST_ID,
    UPSTREAM_TIME_TO_FIRST_BYTE_MS,
    RESPONSE_CODE_DETAILS,
    RESPONSE_FLAGS,
    UPSTREAM_ADDRESS,
    UPSTREAM_CLUSTER,
    REASON,
    EXPORT_ON,
];
