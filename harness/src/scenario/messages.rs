//! The request and the response of a case, as a user writes them and as the host takes them.

use serde::Deserialize;

use super::headers::without_pseudo_headers;
use super::{Case, HeaderLines, ResponseFlags};
use crate::host::{Headers, Message, StreamInfo};

/// A request as the filter gets it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Request {
    /// Default: `GET`.
    pub(crate) method: String,
    /// Default: `http`.
    pub(crate) scheme: String,
    /// Default: `localhost`.
    pub(crate) authority: String,
    /// Path and query. Default: `/`.
    pub(crate) path: String,
    /// Default: `HTTP/1.1`.
    pub(crate) protocol: String,
    /// The downstream's `ip:port`. Default: `10.0.0.9:40000`.
    pub(crate) source_address: String,
    /// The listener's `ip:port`. Default: `10.0.0.7:8080`.
    pub(crate) destination_address: String,
    /// URI in the client's certificate, for example `spiffe://cluster.local/ns/shop/sa/web`. Default:
    /// none, and no mTLS.
    pub(crate) uri_san_peer_certificate: Option<String>,
    /// URI in the listener's own certificate. Default: none.
    pub(crate) uri_san_local_certificate: Option<String>,
    /// Name of the route that matched; null if none matched. Default: empty, a route without a name.
    pub(crate) route_name: Option<String>,
    /// Name of the cluster that the route selected; null if it selected none. Default: empty.
    pub(crate) cluster_name: Option<String>,
    /// Header lines: a map, or a list of `{name, value}` or `{name, value_hex}`. Default: none.
    #[serde(deserialize_with = "without_pseudo_headers")]
    pub(crate) headers: HeaderLines,
    /// Default: none.
    pub(crate) body: String,
    /// Default: none.
    #[serde(deserialize_with = "without_pseudo_headers")]
    pub(crate) trailers: HeaderLines,
}

/// A response as the filter gets it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Response {
    /// 0: there is no response. Default: 200.
    pub(crate) status: u16,
    /// Envoy's response flags: their short names, such as `"UF,URX"`, or their bits. Default: none.
    pub(crate) flags: ResponseFlags,
    /// Default: `via_upstream`.
    pub(crate) code_details: String,
    /// The upstream's `ip:port`; empty if no upstream was selected. Default: `10.0.0.8:8080`.
    pub(crate) upstream_address: String,
    /// URI in the upstream's certificate. Default: none.
    pub(crate) upstream_uri_san_peer_certificate: Option<String>,
    /// URI in Envoy's own certificate of the upstream connection. Default: none.
    pub(crate) upstream_uri_san_local_certificate: Option<String>,
    /// How often the request was sent upstream. Default: 1.
    pub(crate) attempts: u64,
    /// Milliseconds from the first byte sent upstream to the last byte of the response. Default:
    /// `duration_ms` if `code_details` is `via_upstream`; otherwise Envoy does not know it.
    pub(crate) backend_latency_ms: Option<u64>,
    /// Milliseconds from the request's headers to the end of the stream. Default: 10.
    pub(crate) duration_ms: u64,
    /// Default: none.
    #[serde(deserialize_with = "without_pseudo_headers")]
    pub(crate) headers: HeaderLines,
    /// Default: none.
    pub(crate) body: String,
    /// Default: none.
    #[serde(deserialize_with = "without_pseudo_headers")]
    pub(crate) trailers: HeaderLines,
}

impl Request {
    /// Returns the request, pseudo headers first.
    pub(crate) fn to_message(&self) -> Message {
        let mut headers = Headers::new();
        headers.add(":authority", self.authority.as_str());
        headers.add(":path", self.path.as_str());
        headers.add(":method", self.method.as_str());
        headers.add(":scheme", self.scheme.as_str());
        for (name, value) in self.headers.iter() {
            headers.add(name, value);
        }
        let trailers = self.trailers.iter().collect();
        Message { headers, body: self.body.clone().into_bytes(), trailers }
    }
}

impl Response {
    /// Returns the response; `None` if its status is 0.
    pub(crate) fn to_message(&self) -> Option<Message> {
        if self.status == 0 {
            return None;
        }
        let mut headers = Headers::new();
        headers.add(":status", self.status.to_string());
        for (name, value) in self.headers.iter() {
            headers.add(name, value);
        }
        let trailers = self.trailers.iter().collect();
        Some(Message { headers, body: self.body.clone().into_bytes(), trailers })
    }
}

impl Case {
    /// Returns what Envoy knows about the stream of the case.
    pub(crate) fn stream_info(&self) -> StreamInfo {
        let (request, response) = (self.request.clone(), self.response.clone());
        let is_from_upstream = response.code_details == "via_upstream" && response.status != 0;
        let backend_latency_ms =
            response.backend_latency_ms.or(is_from_upstream.then_some(response.duration_ms));
        StreamInfo {
            direction: self.direction,
            protocol: request.protocol,
            source_address: request.source_address,
            destination_address: request.destination_address,
            upstream_address: response.upstream_address,
            response_code_details: response.code_details,
            response_flags: response.flags.0,
            route_name: request.route_name,
            cluster_name: request.cluster_name,
            attempt_count: response.attempts,
            backend_latency_ns: backend_latency_ms.map(|latency| latency * NANOS_PER_MS),
            peer_san: request.uri_san_peer_certificate,
            local_san: request.uri_san_local_certificate,
            upstream_peer_san: response.upstream_uri_san_peer_certificate,
            upstream_local_san: response.upstream_uri_san_local_certificate,
            properties: self.properties.0.clone(),
            ..StreamInfo::default()
        }
    }
}

impl Default for Request {
    fn default() -> Self {
        Self {
            method: "GET".into(),
            scheme: "http".into(),
            authority: "localhost".into(),
            path: "/".into(),
            protocol: "HTTP/1.1".into(),
            source_address: "10.0.0.9:40000".into(),
            destination_address: "10.0.0.7:8080".into(),
            uri_san_peer_certificate: None,
            uri_san_local_certificate: None,
            route_name: Some(String::new()),
            cluster_name: Some(String::new()),
            headers: HeaderLines::default(),
            body: String::new(),
            trailers: HeaderLines::default(),
        }
    }
}

impl Default for Response {
    fn default() -> Self {
        Self {
            status: 200,
            flags: ResponseFlags::default(),
            code_details: "via_upstream".into(),
            upstream_address: "10.0.0.8:8080".into(),
            upstream_uri_san_peer_certificate: None,
            upstream_uri_san_local_certificate: None,
            attempts: 1,
            backend_latency_ms: None,
            duration_ms: 10,
            headers: HeaderLines::default(),
            body: String::new(),
            trailers: HeaderLines::default(),
        }
    }
}

const NANOS_PER_MS: u64 = 1_000_000;
