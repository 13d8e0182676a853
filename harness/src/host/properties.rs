//! Envoy's attributes as `proxy_get_property` shows them: by path, in the phases in which Envoy
//! has them, serialised as its wasm extension does.
//!
//! Text is its bytes, a number a 64-bit little-endian integer or double, a bool one byte, a map
//! the ABI's pairs. <https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/advanced/attributes>

use serde_json::Value;

use super::guest::Status;
use super::state::Node;
use super::stream::{Phase, Stream};

/// Value of a property of a stream (or of the node alone, for the root context).
pub fn property(node: &Node, stream: Option<&Stream>, path: &[u8]) -> Result<Vec<u8>, Status> {
    let path_text = std::str::from_utf8(path).map_err(|_| Status::NotFound)?;
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
            serialize(&value).ok_or(Status::SerializationFailure)
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
        "route_name" => Some(info.route_name.clone().into_bytes()),
        "cluster_name" => Some(info.cluster_name.clone().into_bytes()),
        "virtual_host_name" => Some(Vec::new()),
        _ => None,
    }
}

/// In the response phase Envoy has forgotten the request.
fn request_property(stream: &Stream, key: &str, name: Option<&str>) -> Option<Vec<u8>> {
    if !matches!(
        stream.phase,
        Phase::RequestHeaders | Phase::RequestBody | Phase::RequestTrailers | Phase::Log
    ) {
        return None;
    }
    let headers = &stream.request.headers;
    let header = |name: &str| headers.first(name).map(<[u8]>::to_vec);
    let path = || header(":path").map(|path| split_query(&path));
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
        "headers" => name.map_or_else(|| Some(headers.encode()), header),
        "protocol" => Some(stream.info.protocol.clone().into_bytes()),
        "time" => Some(int(stream.info.started_ns as i64)),
        "size" => Some(int(stream.request.body.len() as i64)),
        "duration" => stream.info.duration_ns.map(|duration| int(duration as i64)),
        "total_size" if stream.phase == Phase::Log => {
            Some(int((headers.byte_size() + stream.request.body.len()) as i64))
        }
        _ => None,
    }
}

fn response_property(stream: &Stream, key: &str, name: Option<&str>) -> Option<Vec<u8>> {
    if key == "flags" {
        return Some(int(stream.info.response_flags as i64));
    }
    if stream.phase < Phase::ResponseHeaders {
        return None;
    }
    let response = stream.response.as_ref();
    match key {
        "code_details" => {
            let details = &stream.info.response_code_details;
            (!details.is_empty()).then(|| details.clone().into_bytes())
        }
        "code" => {
            let status = std::str::from_utf8(response?.headers.first(":status")?).ok()?;
            status.parse().ok().map(int)
        }
        "headers" => match name {
            Some(name) => response?.headers.first(name).map(<[u8]>::to_vec),
            None => Some(response?.headers.encode()),
        },
        "grpc_status" => {
            let response = response?;
            let status =
                response.trailers.first("grpc-status").or(response.headers.first("grpc-status"))?;
            std::str::from_utf8(status).ok()?.parse().ok().map(int)
        }
        "backend_latency" if stream.phase == Phase::Log => stream
            .info
            .duration_ns
            .filter(|_| response.is_some())
            .map(|latency| int(latency as i64)),
        "size" => response.map(|response| int(response.body.len() as i64)),
        _ => None,
    }
}

fn upstream_property(stream: &Stream, key: &str) -> Option<Vec<u8>> {
    let chosen = stream.phase >= Phase::ResponseHeaders && !stream.info.upstream_address.is_empty();
    if chosen { address_property(&stream.info.upstream_address, key) } else { None }
}

fn connection_property(stream: &Stream, key: &str) -> Option<Vec<u8>> {
    match key {
        "id" => Some(stream.info.connection_id.to_le_bytes().to_vec()),
        "mtls" => Some(vec![0]),
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

/// Splits at the first `?`; without one the query is empty.
fn split_query(path: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut parts = path.splitn(2, |&byte| byte == b'?').map(<[u8]>::to_vec);
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

fn int(value: i64) -> Vec<u8> {
    value.to_le_bytes().to_vec()
}

/// Serialises a value of the node's metadata: a list as a map from item to nothing. Envoy cannot
/// serialise a null.
fn serialize(value: &Value) -> Option<Vec<u8>> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => vec![u8::from(*value)],
        // A protobuf Struct has no integers.
        Value::Number(value) => value.as_f64()?.to_le_bytes().to_vec(),
        Value::String(value) => value.clone().into_bytes(),
        Value::Array(items) => {
            let items = items.iter().map(|item| Some((serialize(item)?, Vec::new())));
            pairs(&items.collect::<Option<Vec<_>>>()?)
        }
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(key, value)| Some((key.clone().into_bytes(), serialize(value)?)));
            pairs(&fields.collect::<Option<Vec<_>>>()?)
        }
    })
}

/// Pairs of any bytes; unlike header names these keep their case.
fn pairs(pairs: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
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
