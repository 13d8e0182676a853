//! Envoy's attributes as `proxy_get_property` shows them: by path, in the phases in which Envoy
//! has them, serialised as its wasm extension does.
//!
//! Text is its bytes, a number a 64-bit little-endian integer or double, a bool one byte, a map
//! the ABI's pairs. <https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/advanced/attributes>

use serde_json::Value;

use super::guest::Status;
use super::headers::Headers;
use super::state::Node;
use super::stream::{Message, Phase, Stream};

/// Value of a property of a stream (or of the node alone, for the root context).
pub fn property(node: &Node, stream: Option<&Stream>, path: &[u8]) -> Result<Vec<u8>, Status> {
    let path_text = std::str::from_utf8(path).map_err(|_| Status::NotFound)?;
    if let Some(given) = stream.and_then(|stream| given_property(stream, path_text)) {
        return given;
    }
    if let Some(path) = path_text.strip_prefix("xds\0node\0") {
        return node_property(node, path.split('\0'));
    }
    let value = match path_text {
        "plugin_name" => Some(PLUGIN_NAME.into()),
        "plugin_root_id" | "plugin_vm_id" => Some(Vec::new()),
        _ => stream.and_then(|stream| stream_property(stream, path_text)),
    };
    value.ok_or(Status::NotFound)
}

/// A property that the case gives itself, or a part of one; it wins over what Envoy would say.
/// `None` where it gives nothing of the kind, or Envoy has nothing of the kind in this phase.
fn given_property(stream: &Stream, path: &str) -> Option<Result<Vec<u8>, Status>> {
    let parts: Vec<&str> = path.split('\0').collect();
    let known = (1..=parts.len()).rev().find_map(|length| {
        let (known, rest) = parts.split_at(length);
        let value = stream.info.properties.iter().find(|(path, _)| path == known);
        value.map(|(_, value)| (value, rest))
    });
    let (value, rest) = known?;
    let there = match parts[0] {
        "request" => stream.phase < Phase::ResponseHeaders || stream.phase == Phase::Log,
        "response" | "upstream" => stream.phase >= Phase::ResponseHeaders,
        _ => true,
    };
    if !there {
        return None;
    }
    let part = rest.iter().try_fold(value, |value, part| match value {
        Value::Object(fields) => fields.get(*part),
        Value::Array(items) => items.get(part.parse::<usize>().ok()?),
        _ => None,
    });
    Some(match part {
        None | Some(Value::Null) => Err(Status::NotFound),
        Some(part) => serialize(part, Numbers::Typed).ok_or(Status::SerializationFailure),
    })
}

fn node_property<'a>(
    node: &Node,
    mut path: impl Iterator<Item = &'a str>,
) -> Result<Vec<u8>, Status> {
    match path.next() {
        Some("id") => Ok(node.id.clone().into_bytes()),
        Some("cluster") => Ok(node.cluster.clone().into_bytes()),
        Some("metadata") => {
            let mut value = Value::Object(node.metadata.clone());
            for key in path {
                let field = value.as_object_mut().and_then(|fields| fields.remove(key));
                value = field.ok_or(Status::NotFound)?;
            }
            serialize(&value, Numbers::Double).ok_or(Status::SerializationFailure)
        }
        _ => Err(Status::NotFound),
    }
}

fn stream_property(stream: &Stream, path: &str) -> Option<Vec<u8>> {
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
        _ => stream.filter_state.get(path.as_bytes()).cloned(),
    }
}

fn xds_property(stream: &Stream, key: &str) -> Option<Vec<u8>> {
    let info = &stream.info;
    match key {
        "listener_direction" => Some(int(info.direction as i64)),
        "route_name" => info.route_name.clone().map(String::into_bytes),
        "cluster_name" => info.cluster_name.clone().map(String::into_bytes),
        "virtual_host_name" | "filter_chain_name" => Some(Vec::new()),
        _ => None,
    }
}

/// In the response phase Envoy has forgotten the request's headers, and knows the rest.
fn request_property(stream: &Stream, key: &str, name: Option<&str>) -> Option<Vec<u8>> {
    let headers = (stream.phase < Phase::ResponseHeaders || stream.phase == Phase::Log)
        .then_some(&stream.request.headers);
    let header = |name: &str| headers?.first(name).map(<[u8]>::to_vec);
    let path = || header(":path").map(|path| split_query(&path));
    let received = stream.request.body.len();
    match key {
        "path" => header(":path"),
        "url_path" => path().map(|(path, _)| path),
        "query" => path().map(|(_, query)| query),
        "host" => header(":authority"),
        "scheme" => header(":scheme"),
        "method" => header(":method"),
        "referer" => header("referer"),
        "useragent" => header("user-agent"),
        "id" => header("x-request-id"),
        "headers" => match name {
            Some(name) => header(name),
            None => Some(headers.map_or_else(|| Headers::new().encode(), Headers::encode)),
        },
        "headers_bytes" => Some(int(headers.map_or(0, Headers::byte_size) as i64)),
        "protocol" => Some(stream.info.protocol.clone().into_bytes()),
        "time" => Some(int(stream.info.started_ns as i64)),
        // Envoy believes the header before it counts.
        "size" => match header("content-length") {
            Some(length) => std::str::from_utf8(&length).ok()?.parse().ok().map(int),
            None => Some(int(received as i64)),
        },
        "duration" => stream.info.duration_ns.map(|duration| int(duration as i64)),
        "total_size" => Some(int((headers.map_or(0, Headers::byte_size) + received) as i64)),
        _ => None,
    }
}

/// What Envoy knows of the response before it comes are its flags and that nothing was sent.
fn response_property(stream: &Stream, key: &str, name: Option<&str>) -> Option<Vec<u8>> {
    let come = stream.phase >= Phase::ResponseHeaders;
    let response = stream.response.as_ref().filter(|_| come);
    let code = || -> Option<i64> {
        std::str::from_utf8(response?.headers.first(":status")?).ok()?.parse().ok()
    };
    let map = |map: fn(&Message) -> &Headers| match name {
        Some(name) => response.and_then(|response| map(response).first(name)).map(<[u8]>::to_vec),
        None => Some(
            response.map_or_else(|| Headers::new().encode(), |response| map(response).encode()),
        ),
    };
    match key {
        "flags" => Some(int(if come { stream.info.response_flags as i64 } else { 0 })),
        "code_details" => {
            let details = &stream.info.response_code_details;
            (come && !details.is_empty()).then(|| details.clone().into_bytes())
        }
        "code" => code().map(int),
        "headers" => map(|response| &response.headers),
        "trailers" if stream.phase >= Phase::ResponseTrailers => map(|response| &response.trailers),
        "trailers" => name.is_none().then(|| Headers::new().encode()),
        // Without the header Envoy translates the HTTP status: any response has a gRPC status.
        "grpc_status" => {
            let trailers = stream.phase >= Phase::ResponseTrailers;
            let header = response.and_then(|response| {
                let trailer = response.trailers.first("grpc-status").filter(|_| trailers);
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

/// `grpc-status` as Envoy reads it: -1 where it is none of gRPC's own codes.
fn grpc_status(header: &[u8]) -> i64 {
    let status = std::str::from_utf8(header).ok().and_then(|text| text.parse().ok());
    status.filter(|status| (0..=16).contains(status)).unwrap_or(-1)
}

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

fn upstream_property(stream: &Stream, key: &str) -> Option<Vec<u8>> {
    let info = &stream.info;
    let chosen = stream.phase >= Phase::ResponseHeaders && !info.upstream_address.is_empty();
    match key {
        "request_attempt_count" => Some(int(if chosen { info.attempt_count as i64 } else { 0 })),
        _ if !chosen => None,
        "uri_san_peer_certificate" => info.upstream_peer_san.clone().map(String::into_bytes),
        "uri_san_local_certificate" => info.upstream_local_san.clone().map(String::into_bytes),
        "transport_failure_reason" => Some(Vec::new()),
        _ => address_property(&info.upstream_address, key),
    }
}

fn connection_property(stream: &Stream, key: &str) -> Option<Vec<u8>> {
    match key {
        "id" => Some(stream.info.connection_id.to_le_bytes().to_vec()),
        "mtls" => Some(vec![u8::from(stream.info.peer_san.is_some())]),
        "uri_san_peer_certificate" => stream.info.peer_san.clone().map(String::into_bytes),
        "uri_san_local_certificate" => stream.info.local_san.clone().map(String::into_bytes),
        "requested_server_name" => Some(Vec::new()),
        _ => None,
    }
}

fn address_property(address: &str, key: &str) -> Option<Vec<u8>> {
    match key {
        "address" => Some(address.as_bytes().to_vec()),
        "port" => address.rsplit_once(':')?.1.parse().ok().map(int),
        _ => None,
    }
}

/// Splits at the first `?`, and ends at the first `#` after it; without one the query is empty.
fn split_query(path: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut parts = path.splitn(2, |&byte| byte == b'?');
    let (path, query) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let query = query.split(|&byte| byte == b'#').next().unwrap_or_default();
    (path.to_vec(), query.to_vec())
}

fn int(value: i64) -> Vec<u8> {
    value.to_le_bytes().to_vec()
}

/// What a number becomes: in a protobuf Struct, such as the node's metadata, all are doubles.
#[derive(Clone, Copy)]
enum Numbers {
    Double,
    Typed,
}

/// Serialises a value: a list as a map from item to nothing. Envoy cannot serialise a null.
fn serialize(value: &Value, numbers: Numbers) -> Option<Vec<u8>> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => vec![u8::from(*value)],
        Value::Number(value) => match (numbers, value.as_i64()) {
            (Numbers::Typed, Some(value)) => int(value),
            _ => value.as_f64()?.to_le_bytes().to_vec(),
        },
        Value::String(value) => value.clone().into_bytes(),
        Value::Array(items) => {
            let items = items.iter().map(|item| Some((serialize(item, numbers)?, Vec::new())));
            pairs(&items.collect::<Option<Vec<_>>>()?)
        }
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(key, value)| Some((key.clone().into_bytes(), serialize(value, numbers)?)));
            pairs(&fields.collect::<Option<Vec<_>>>()?)
        }
    })
}

/// Pairs of any bytes; unlike header names these keep their case.
pub fn pairs(pairs: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = (pairs.len() as u32).to_le_bytes().to_vec();
    for (key, value) in pairs {
        bytes.extend_from_slice(&(key.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
    }
    for (key, value) in pairs {
        bytes.extend_from_slice(key);
        bytes.push(0);
        bytes.extend_from_slice(value);
        bytes.push(0);
    }
    bytes
}

const PLUGIN_NAME: &str = "sidespan";
