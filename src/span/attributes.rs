//! Attribute keys: OpenTelemetry's semantic conventions, and Envoy's own tag names.
//!
//! <https://opentelemetry.io/docs/specs/semconv/http/http-spans/>,
//! <https://opentelemetry.io/docs/specs/semconv/resource/>, and for Envoy's
//! `source/common/tracing/http_tracer_impl.cc`.

pub(crate) use opentelemetry_semantic_conventions::attribute::{
    CLIENT_ADDRESS, ERROR_TYPE, HTTP_REQUEST_BODY_SIZE, HTTP_REQUEST_METHOD,
    HTTP_REQUEST_METHOD_ORIGINAL, HTTP_REQUEST_RESEND_COUNT, HTTP_RESPONSE_BODY_SIZE,
    HTTP_RESPONSE_STATUS_CODE, HTTP_ROUTE, K8S_CLUSTER_NAME, K8S_NAMESPACE_NAME, K8S_POD_NAME,
    NETWORK_PEER_ADDRESS, NETWORK_PEER_PORT, NETWORK_PROTOCOL_NAME, NETWORK_PROTOCOL_VERSION,
    OTEL_SCOPE_NAME, OTEL_SCOPE_VERSION, OTEL_STATUS_CODE, RPC_METHOD, RPC_METHOD_ORIGINAL,
    RPC_RESPONSE_STATUS_CODE, RPC_SYSTEM_NAME, SERVER_ADDRESS, SERVER_PORT, SERVICE_NAME,
    SERVICE_VERSION, URL_FULL, URL_PATH, URL_QUERY, URL_SCHEME, USER_AGENT_ORIGINAL,
};

/// Deprecated in the conventions. A custom tag may have this key; Zipkin then shows its value as the
/// service that a span calls.
pub(crate) const PEER_SERVICE: &str = "peer.service";
/// Envoy's tag with the value `proxy`: tells the spans of proxies from those of applications.
pub(crate) const COMPONENT: &str = "component";
/// Has the value `mesh`, for the same purpose.
pub(crate) const SPAN_SOURCE: &str = "span.source";
pub(crate) const REQUEST_ID: &str = "guid:x-request-id";
pub(crate) const RESPONSE_CODE_DETAILS: &str = "response_code_details";
pub(crate) const RESPONSE_FLAGS: &str = "response_flags";
/// The name of Envoy's route, if it is no template of the path.
pub(crate) const ROUTE_NAME: &str = "route_name";
pub(crate) const UPSTREAM_ADDRESS: &str = "upstream_address";
pub(crate) const UPSTREAM_CLUSTER: &str = "upstream_cluster";
/// Milliseconds from the start of the span to the head of the upstream's response.
pub(crate) const UPSTREAM_TIME_TO_FIRST_BYTE_MS: &str = "upstream_time_to_first_byte_ms";
/// Why the request was recorded: the name of the rule that forced it, else `parent`, `ratio` or `late`.
pub(crate) const REASON: &str = "sidespan.reason";
/// The key of the condition in `sampling.export_on` that a late span met.
pub(crate) const EXPORT_ON: &str = "sidespan.export_on";

/// A set of the keys in [`RESERVED`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OwnKeys(u64);

impl OwnKeys {
    /// Adds a key. Returns whether a span can have it.
    pub fn insert(&mut self, key: &str) -> bool {
        self.0 |= bit(key);
        bit(key) != 0
    }

    /// Tells whether the set has a key. It is asked for every attribute, and nearly always empty.
    #[inline(always)]
    pub fn contains(self, key: &str) -> bool {
        self.0 != 0 && self.0 & bit(key) != 0
    }
}

/// Returns the bit of a key in [`OwnKeys`]; none for any other text.
#[inline(never)]
fn bit(key: &str) -> u64 {
    RESERVED.iter().position(|known| *known == key).map_or(0, |index| 1 << index)
}

/// Keys of the span's own attributes, at most 64. Custom tags must not use them: OTLP requires unique keys.
pub(crate) const RESERVED: [&str; 35] = [
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
    ROUTE_NAME,
    UPSTREAM_ADDRESS,
    UPSTREAM_CLUSTER,
    REASON,
    EXPORT_ON,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own_bit() {
        for (index, key) in RESERVED.iter().enumerate() {
            assert_eq!(bit(key), 1 << index, "{key}");
        }
    }

    /// docs/privacy.md says of every key what it can hold.
    #[test]
    fn the_page_on_privacy_has_every_key() {
        let page = include_str!("../../docs/privacy.md");
        let (_, table) = page.split_once("|---|---|---|---|\n").unwrap();
        let rows = table.lines().take_while(|line| line.starts_with('|'));
        let cells = rows.filter_map(|row| row.split('|').nth(1));
        let mut listed: Vec<_> =
            cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
        let mut known = RESERVED.to_vec();
        listed.sort_unstable();
        known.sort_unstable();
        assert_eq!(listed, known);
    }
}
