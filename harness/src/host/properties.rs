//! Envoy's attributes by path, each in the phases in which Envoy has it.
//! <https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/advanced/attributes>

use super::headers::Headers;
use super::state::Node;
use super::status::Status;
use super::stream::{Message, Phase, Stream};
use super::value::{Numbers, Value};

/// Returns an attribute of a stream, or of the node alone for the root context, which has no stream.
/// The parts of a path are separated by NUL.
pub(crate) fn attribute(node: &Node, stream: Option<&Stream>, path: &str) -> Result<Value, Status> {
    if let Some(given) = stream.and_then(|stream| given_property(stream, path)) {
        return given;
    }
    if let Some(path) = path.strip_prefix("xds\0node\0") {
        return node_property(node, path);
    }
    let value = match path {
        "plugin_name" => Some(Value::text(PLUGIN_NAME)),
        "plugin_root_id" | "plugin_vm_id" => Some(Value::text("")),
        "xds" | "xds\0node" => Some(Value::Message(path.to_owned())),
        _ => stream.and_then(|stream| stream_property(stream, path)),
    };
    value.ok_or(Status::NotFound)
}

/// Returns an attribute that `StreamInfo::properties` gives, or a member of one; these override
/// Envoy's own. `None` if it is not given, or Envoy does not have it in this phase.
fn given_property(stream: &Stream, path: &str) -> Option<Result<Value, Status>> {
    let parts: Vec<&str> = path.split('\0').collect();
    let given = &stream.info.properties;
    let is_prefix = |path: &[String]| {
        path.len() > parts.len() && path.iter().zip(&parts).all(|(given, part)| given == part)
    };
    if given.iter().any(|(path, _)| is_prefix(path)) {
        return Some(Ok(Value::Message(path.to_owned())));
    }
    // The longest given path that is the attribute's path or contains it.
    let (value, members) = (1..=parts.len()).rev().find_map(|length| {
        let (start, members) = parts.split_at(length);
        let (_, value) = given.iter().find(|(path, _)| path == start)?;
        Some((value, members))
    })?;
    let is_readable = match parts[0] {
        "request" => stream.phase < Phase::ResponseHeaders || stream.phase == Phase::Log,
        "response" | "upstream" => stream.phase >= Phase::ResponseHeaders,
        _ => true,
    };
    if !is_readable {
        return None;
    }
    let value = Value::from_json(value, Numbers::Typed);
    let member = members.iter().try_fold(&value, |value, name| value.member(name));
    // A given null removes the attribute.
    let member = member.filter(|member| **member != Value::Null);
    Some(member.cloned().ok_or(Status::NotFound))
}

fn node_property(node: &Node, path: &str) -> Result<Value, Status> {
    let mut parts = path.split('\0');
    match parts.next() {
        Some("id") => Ok(Value::text(node.id.as_str())),
        Some("cluster") => Ok(Value::text(node.cluster.as_str())),
        Some("metadata") => {
            let metadata = serde_json::Value::Object(node.metadata.clone());
            let metadata = Value::from_json(&metadata, Numbers::Double);
            let member = parts.try_fold(&metadata, |value, name| value.member(name));
            member.cloned().ok_or(Status::NotFound)
        }
        _ => Err(Status::NotFound),
    }
}

fn stream_property(stream: &Stream, path: &str) -> Option<Value> {
    if STREAM_MESSAGES.contains(&path) {
        return Some(Value::Message(path.to_owned()));
    }
    if ["metadata\0filter_metadata", "xds\0route_metadata\0filter_metadata"].contains(&path) {
        // Envoy has the map even when no filter or route has metadata.
        return Some(Value::Map(vec![]));
    }
    let mut parts = path.split('\0');
    match (parts.next()?, parts.next()) {
        ("xds", Some(key)) => xds_property(stream, key),
        ("request", Some(key)) => request_property(stream, key, parts.next()),
        ("response", Some(key)) => response_property(stream, key, parts.next()),
        ("source", Some(key)) => address_property(&stream.info.source_address, key),
        ("destination", Some(key)) => address_property(&stream.info.destination_address, key),
        ("upstream", Some(key)) => upstream_property(stream, key),
        ("connection", Some(key)) => connection_property(stream, key),
        ("connection_id", None) => connection_property(stream, "id"),
        _ => stream.filter_state.get(path.as_bytes()).cloned().map(Value::Text),
    }
}

fn xds_property(stream: &Stream, key: &str) -> Option<Value> {
    let info = &stream.info;
    match key {
        "listener_direction" => Some(int(info.direction as i64)),
        "route_name" => info.route_name.as_deref().map(Value::text),
        "cluster_name" => info.cluster_name.as_deref().map(Value::text),
        "virtual_host_name" | "filter_chain_name" => Some(Value::text("")),
        _ => None,
    }
}

/// In the response phase Envoy no longer has the request's headers; it has the rest.
fn request_property(stream: &Stream, key: &str, name: Option<&str>) -> Option<Value> {
    let headers = (stream.phase < Phase::ResponseHeaders || stream.phase == Phase::Log)
        .then_some(&stream.request.headers);
    let line = |name: &str| headers?.first(name);
    let header = |name: &str| line(name).map(Value::text);
    let path = || line(":path").map(split_query);
    let received = stream.request.body.len();
    match key {
        "path" => header(":path"),
        "url_path" => path().map(|(path, _)| Value::text(path)),
        "query" => path().map(|(_, query)| Value::text(query)),
        "host" => header(":authority"),
        "scheme" => header(":scheme"),
        "method" => header(":method"),
        "referer" => header("referer"),
        "useragent" => header("user-agent"),
        "id" => header("x-request-id"),
        "headers" => match name {
            Some(name) => headers?.joined(name).map(Value::Text),
            None => Some(Value::Headers(headers.cloned().unwrap_or_default())),
        },
        "headers_bytes" => Some(int(headers.map_or(0, Headers::byte_size) as i64)),
        "protocol" => Some(Value::text(stream.info.protocol.as_str())),
        "time" => Some(int(stream.info.started_ns as i64)),
        // Envoy takes the header if there is one, and counts the bytes if not.
        "size" => match line("content-length") {
            Some(length) => std::str::from_utf8(length).ok()?.parse().ok().map(int),
            None => Some(int(received as i64)),
        },
        "duration" => stream.info.duration_ns.map(|duration| int(duration as i64)),
        "total_size" => Some(int((headers.map_or(0, Headers::byte_size) + received) as i64)),
        _ => None,
    }
}

/// Before the response, Envoy has its flags and a size of 0.
fn response_property(stream: &Stream, key: &str, name: Option<&str>) -> Option<Value> {
    let is_response_phase = stream.phase >= Phase::ResponseHeaders;
    let response = stream.response.as_ref().filter(|_| is_response_phase);
    let code = || -> Option<i64> {
        std::str::from_utf8(response?.headers.first(":status")?).ok()?.parse().ok()
    };
    let map = |map: fn(&Message) -> &Headers| match name {
        Some(name) => response.and_then(|response| map(response).joined(name)).map(Value::Text),
        None => Some(Value::Headers(response.map(map).cloned().unwrap_or_default())),
    };
    match key {
        "flags" => Some(int(if is_response_phase { stream.info.response_flags as i64 } else { 0 })),
        "code_details" => {
            let details = &stream.info.response_code_details;
            (is_response_phase && !details.is_empty()).then(|| Value::text(details.as_str()))
        }
        "code" => code().map(int),
        "headers" => map(|response| &response.headers),
        "trailers" if stream.phase >= Phase::ResponseTrailers => map(|response| &response.trailers),
        "trailers" => name.is_none().then(|| Value::Headers(Headers::new())),
        // Any response has a gRPC status: without the header Envoy derives it from the HTTP status.
        "grpc_status" => {
            let has_trailers = stream.phase >= Phase::ResponseTrailers;
            let header = response.and_then(|response| {
                let trailer = response.trailers.first("grpc-status").filter(|_| has_trailers);
                trailer.or(response.headers.first("grpc-status"))
            });
            header.map(grpc_status).or_else(|| code().map(grpc_status_of_http)).map(int)
        }
        "backend_latency" if stream.phase == Phase::Log => {
            response?;
            stream.info.backend_latency_ns.map(|latency| int(latency as i64))
        }
        "size" => {
            let sent = response.filter(|_| stream.phase > Phase::ResponseHeaders);
            Some(int(sent.map_or(0, |response| response.body.len() as i64)))
        }
        _ => None,
    }
}

/// Parses `grpc-status` as Envoy does: -1 if it is not one of gRPC's status codes.
fn grpc_status(header: &[u8]) -> i64 {
    let status = std::str::from_utf8(header).ok().and_then(|text| text.parse().ok());
    status.filter(|status| (0..=16).contains(status)).unwrap_or(-1)
}

/// Returns the gRPC status that an HTTP status stands for.
/// <https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>
fn grpc_status_of_http(status: i64) -> i64 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

fn upstream_property(stream: &Stream, key: &str) -> Option<Value> {
    let info = &stream.info;
    let has_upstream = stream.phase >= Phase::ResponseHeaders && !info.upstream_address.is_empty();
    match key {
        "request_attempt_count" => {
            Some(int(if has_upstream { info.attempt_count as i64 } else { 0 }))
        }
        _ if !has_upstream => None,
        "uri_san_peer_certificate" => info.upstream_peer_san.as_deref().map(Value::text),
        "uri_san_local_certificate" => info.upstream_local_san.as_deref().map(Value::text),
        "transport_failure_reason" => Some(Value::text("")),
        _ => address_property(&info.upstream_address, key),
    }
}

fn connection_property(stream: &Stream, key: &str) -> Option<Value> {
    match key {
        "id" => Some(Value::Uint(stream.info.connection_id)),
        "mtls" => Some(Value::Bool(stream.info.peer_san.is_some())),
        "uri_san_peer_certificate" => stream.info.peer_san.as_deref().map(Value::text),
        "uri_san_local_certificate" => stream.info.local_san.as_deref().map(Value::text),
        "requested_server_name" => Some(Value::text("")),
        _ => None,
    }
}

fn address_property(address: &str, key: &str) -> Option<Value> {
    match key {
        "address" => Some(Value::text(address)),
        "port" => address.rsplit_once(':')?.1.parse().ok().map(int),
        _ => None,
    }
}

/// Splits a path from its query at the first `?`. The query ends at the first `#`, and is empty without
/// a `?`.
fn split_query(path: &[u8]) -> (&[u8], &[u8]) {
    let mut parts = path.splitn(2, |&byte| byte == b'?');
    let (path, query) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    (path, query.split(|&byte| byte == b'#').next().unwrap_or_default())
}

fn int(value: i64) -> Value {
    Value::Int(value)
}

/// Messages of a stream, whose fields are the attributes.
const STREAM_MESSAGES: [&str; 9] = [
    "request",
    "response",
    "connection",
    "upstream",
    "source",
    "destination",
    "metadata",
    "filter_state",
    "xds\0route_metadata",
];
const PLUGIN_NAME: &str = "sidespan";
