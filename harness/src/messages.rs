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
    StreamInfo {
        direction: case.direction,
        protocol: case.request.protocol.clone(),
        source_address: case.request.source_address.clone(),
        destination_address: case.request.destination_address.clone(),
        upstream_address: case.response.upstream_address.clone(),
        response_code_details: case.response.code_details.clone(),
        response_flags: case.response.flags.0,
        ..StreamInfo::default()
    }
}
