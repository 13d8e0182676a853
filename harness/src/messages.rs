//! What a case sends, as the host takes it.

use crate::host::{Headers, Message, StreamInfo};
use crate::scenario::{Case, Request, Response};

/// The request, its pseudo headers first.
pub fn request_message(request: &Request) -> Message {
    let mut headers = Headers::new();
    headers.add(":authority", request.authority.as_str());
    headers.add(":path", request.path.as_str());
    headers.add(":method", request.method.as_str());
    headers.add(":scheme", request.scheme.as_str());
    for (name, value) in request.headers.to_headers() {
        headers.add(name, value);
    }
    Message {
        headers,
        body: request.body.clone().into_bytes(),
        trailers: request.trailers.to_headers().collect(),
    }
}

/// The response; `None` where none comes.
pub fn response_message(response: &Response) -> Option<Message> {
    if response.status == 0 {
        return None;
    }
    let mut headers = Headers::new();
    headers.add(":status", response.status.to_string());
    for (name, value) in response.headers.to_headers() {
        headers.add(name, value);
    }
    Some(Message {
        headers,
        body: response.body.clone().into_bytes(),
        trailers: response.trailers.to_headers().collect(),
    })
}

/// What Envoy knows of the stream.
pub fn stream_info(case: &Case) -> StreamInfo {
    let (request, response) = (case.request.clone(), case.response.clone());
    let from_upstream = response.code_details == "via_upstream" && response.status != 0;
    let backend_latency_ms =
        response.backend_latency_ms.or(from_upstream.then_some(response.duration_ms));
    StreamInfo {
        direction: case.direction,
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
        properties: case.properties.0.clone(),
        ..StreamInfo::default()
    }
}

const NANOS_PER_MS: u64 = 1_000_000;
