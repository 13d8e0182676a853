//! The hostcalls of proxy-wasm ABI 0.2.1, all of them: what a module imports from `env`.
//!
//! Each line of the table is one hostcall as
//! <https://github.com/proxy-wasm/spec/tree/main/abi-versions/v0.2.1> lists it; it answers what
//! Envoy answers.

use std::io::Read as _;

use flate2::Compression;
use flate2::read::ZlibEncoder;
use wasmtime::{Caller, Linker};

use super::calls::{GrpcStream, Request};
use super::cel::Expression;
use super::guest::{Answer, Guest, Status, slice, status};
use super::headers::Headers;
use super::properties;
use super::state::{LogLevel, State};
use super::stream::{BufferType, Intervention, MapType, Phase, Stream};

/// Defines one import a line: its name, its arguments, what it does.
macro_rules! hostcalls {
    ($linker:ident, $($name:ident |$guest:ident $(, $argument:ident: $type:ty)*| $body:expr;)*) => {$(
        $linker.func_wrap("env", stringify!($name), |caller: Caller<'_, State> $(, $argument: $type)*| {
            let $guest = &mut Guest::new(caller);
            if let Some(status) = $guest.state().faults.next(stringify!($name)) {
                return Ok(status);
            }
            status(|| -> Answer { $body })
        })?;
    )*};
}

/// Links the whole ABI.
pub fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    hostcalls! { linker,
        // Log and time
        proxy_log |guest, level: u32, at: u32, size: u32| log(guest, level, at, size);
        proxy_get_log_level |guest, result: u32| guest.write_u32(result, LogLevel::Info as u32);
        proxy_get_current_time_nanoseconds |guest, result: u32| {
            let now = guest.state().now_ns;
            guest.write_u64(result, now)
        };
        proxy_set_tick_period_milliseconds |guest, period: u32| {
            let state = guest.state();
            state.tick_period_ms = period;
            state.next_tick_ns = state.now_ns + u64::from(period) * NANOS_PER_MS;
            Ok(())
        };

        // Header maps
        proxy_get_header_map_size |guest, map: u32, result: u32| {
            // Envoy looks among the maps that can be changed now.
            let size = write_map(guest.state(), map)?.byte_size();
            guest.write_u32(result, size as u32)
        };
        proxy_get_header_map_pairs |guest, map: u32, data: u32, size: u32| {
            // Where there is no map now, Envoy answers with none of its lines.
            let pairs = read_map(guest.state(), map)?.filter(|map| !map.is_empty()).map(Headers::encode);
            guest.give(&pairs.unwrap_or_default(), data, size)
        };
        proxy_set_header_map_pairs |guest, map: u32, at: u32, size: u32| {
            let (memory, state) = guest.split()?;
            *write_map(state, map)? = decode_map(memory, at, size)?;
            Ok(())
        };
        proxy_get_header_map_value |guest, map: u32, key: u32, key_size: u32, data: u32, size: u32| {
            let value = {
                let (memory, state) = guest.split()?;
                let name = name(memory, key, key_size)?;
                match read_map(state, map)? {
                    Some(map) => map.first(name).ok_or(Status::NotFound)?.to_vec(),
                    // Envoy: "maps might point to nullptr in the access log phase".
                    None if state.stream().is_some_and(|stream| stream.phase == Phase::Log) => {
                        return Err(Status::NotFound.into());
                    }
                    None => return Err(Status::BadArgument.into()),
                }
            };
            guest.give(&value, data, size)
        };
        proxy_add_header_map_value |guest, map: u32, key: u32, key_size: u32, value: u32, value_size: u32| {
            let (memory, state) = guest.split()?;
            write_map(state, map)?.add(name(memory, key, key_size)?, slice(memory, value, value_size)?);
            Ok(())
        };
        proxy_replace_header_map_value |guest, map: u32, key: u32, key_size: u32, value: u32, value_size: u32| {
            let (memory, state) = guest.split()?;
            write_map(state, map)?.set(name(memory, key, key_size)?, slice(memory, value, value_size)?);
            Ok(())
        };
        proxy_remove_header_map_value |guest, map: u32, key: u32, key_size: u32| {
            let (memory, state) = guest.split()?;
            write_map(state, map)?.remove(name(memory, key, key_size)?);
            Ok(())
        };

        // Buffers
        proxy_get_buffer_status |guest, buffer: u32, size: u32, flags: u32| {
            let length = read_buffer(guest.state(), buffer)?.len();
            guest.write_u32(size, length as u32)?;
            guest.write_u32(flags, 0)
        };
        proxy_get_buffer_bytes |guest, buffer: u32, start: u32, max_size: u32, data: u32, size: u32| {
            let bytes = read_buffer(guest.state(), buffer)?;
            let end = start.checked_add(max_size).ok_or(Status::BadArgument)?;
            let part = bytes.get(start as usize..bytes.len().min(end as usize)).unwrap_or_default().to_vec();
            guest.give(&part, data, size)
        };
        proxy_set_buffer_bytes |guest, buffer: u32, start: u32, size: u32, at: u32, value_size: u32| {
            let (memory, state) = guest.split()?;
            let value = slice(memory, at, value_size)?;
            let buffer = BufferType::new(buffer).ok_or(Status::BadArgument)?;
            let body = state.stream_mut().and_then(|stream| stream.body_mut(buffer)).ok_or(Status::NotFound)?;
            let start = body.len().min(start as usize);
            let end = body.len().min(start.saturating_add(size as usize));
            body.splice(start..end, value.iter().copied());
            Ok(())
        };

        // Properties
        proxy_get_property |guest, path: u32, path_size: u32, data: u32, size: u32| {
            let value = {
                let (memory, state) = guest.split()?;
                let path = str::from_utf8(slice(memory, path, path_size)?);
                let path = path.map_err(|_| Status::NotFound)?;
                properties::attribute(&state.node, state.stream(), path)?.serialize()?
            };
            guest.give(&value, data, size)
        };
        proxy_set_property |guest, path: u32, path_size: u32, value: u32, value_size: u32| {
            let (memory, state) = guest.split()?;
            let stream = state.stream_mut().ok_or(Status::NotFound)?;
            let path = slice(memory, path, path_size)?.to_vec();
            stream.filter_state.insert(path, slice(memory, value, value_size)?.to_vec());
            Ok(())
        };

        // Streams
        proxy_continue_stream |guest, stream_type: u32| http_stream(guest, stream_type).map(drop);
        proxy_close_stream |guest, stream_type: u32| {
            http_stream(guest, stream_type)?.interventions.push(Intervention::Closed(stream_type));
            Ok(())
        };
        proxy_send_local_response |
            guest, code: u32, _details: u32, _details_size: u32, _body: u32, _body_size: u32,
            _headers: u32, _headers_size: u32, _grpc_status: i32
        | {
            let stream = guest.state().stream_mut().ok_or(Status::BadArgument)?;
            stream.interventions.push(Intervention::LocalResponse(code));
            Ok(())
        };
        proxy_get_status |guest, code: u32, data: u32, size: u32| {
            let grpc_status = guest.state().answer.as_ref().map_or(0, |answer| answer.grpc_status);
            guest.write_u32(code, grpc_status)?;
            guest.give(&[], data, size)
        };

        // Shared data and queues
        proxy_get_shared_data |guest, key: u32, key_size: u32, data: u32, size: u32, result_cas: u32| {
            let (value, cas) = {
                let (memory, state) = guest.split()?;
                state.data.read(slice(memory, key, key_size)?)?
            };
            guest.give(&value, data, size)?;
            guest.write_u32(result_cas, cas)
        };
        proxy_set_shared_data |guest, key: u32, key_size: u32, value: u32, value_size: u32, cas: u32| {
            let (memory, state) = guest.split()?;
            let value = slice(memory, value, value_size)?.to_vec();
            state.data.write(slice(memory, key, key_size)?, value, cas)
        };
        proxy_register_shared_queue |guest, name: u32, name_size: u32, result: u32| {
            let (memory, state) = guest.split()?;
            let queue = state.queues.register(slice(memory, name, name_size)?);
            guest.write_u32(result, queue)
        };
        proxy_resolve_shared_queue |guest, vm_id: u32, vm_id_size: u32, name: u32, name_size: u32, result: u32| {
            let (memory, state) = guest.split()?;
            // There is this one VM, and its id is empty.
            let ours = slice(memory, vm_id, vm_id_size)?.is_empty();
            let queue = state.queues.resolve(slice(memory, name, name_size)?).filter(|_| ours);
            guest.write_u32(result, queue.ok_or(Status::NotFound)?)
        };
        proxy_enqueue_shared_queue |guest, queue: u32, value: u32, value_size: u32| {
            let (memory, state) = guest.split()?;
            state.queues.enqueue(queue, slice(memory, value, value_size)?.to_vec())
        };
        proxy_dequeue_shared_queue |guest, queue: u32, data: u32, size: u32| {
            let value = guest.state().queues.dequeue(queue)?;
            guest.give(&value, data, size)
        };

        // Calls
        proxy_http_call |
            guest, cluster: u32, cluster_size: u32, headers: u32, headers_size: u32, body: u32, body_size: u32,
            trailers: u32, trailers_size: u32, timeout_ms: u32, result: u32
        | {
            let (memory, state) = guest.split()?;
            let request = Request::Http {
                headers: decode_map(memory, headers, headers_size)?,
                body: slice(memory, body, body_size)?.to_vec(),
                trailers: decode_map(memory, trailers, trailers_size)?,
            };
            let cluster = slice(memory, cluster, cluster_size)?;
            let token = state.calls.http(cluster, timeout_ms, request)?;
            guest.write_u32(result, token)
        };
        proxy_grpc_call |
            guest, service: u32, service_size: u32, name: u32, name_size: u32, method: u32, method_size: u32,
            metadata: u32, metadata_size: u32, message: u32, message_size: u32, timeout_ms: u32, result: u32
        | {
            let (memory, state) = guest.split()?;
            let request = Request::Grpc {
                service: text(memory, name, name_size)?,
                method: text(memory, method, method_size)?,
                metadata: decode_map(memory, metadata, metadata_size)?,
                message: slice(memory, message, message_size)?.to_vec(),
            };
            let service = slice(memory, service, service_size)?;
            let token = state.calls.grpc(service, timeout_ms, request)?;
            guest.write_u32(result, token)
        };
        proxy_grpc_stream |
            guest, service: u32, service_size: u32, name: u32, name_size: u32, method: u32, method_size: u32,
            metadata: u32, metadata_size: u32, result: u32
        | {
            let (memory, state) = guest.split()?;
            let stream = GrpcStream {
                service: text(memory, name, name_size)?,
                method: text(memory, method, method_size)?,
                metadata: decode_map(memory, metadata, metadata_size)?,
                ..GrpcStream::default()
            };
            let token = state.calls.open_stream(slice(memory, service, service_size)?, stream)?;
            guest.write_u32(result, token)
        };
        proxy_grpc_send |guest, token: u32, message: u32, message_size: u32, end: u32| {
            let (memory, state) = guest.split()?;
            state.calls.send_message(token, slice(memory, message, message_size)?.to_vec(), end != 0)
        };
        proxy_grpc_cancel |guest, token: u32| guest.state().calls.cancel(token);
        proxy_grpc_close |guest, token: u32| guest.state().calls.close(token);
        proxy_call_foreign_function |
            guest, name: u32, name_size: u32, argument: u32, argument_size: u32, data: u32, size: u32
        | {
            let result = {
                let (memory, state) = guest.split()?;
                let argument = slice(memory, argument, argument_size)?;
                foreign(state, slice(memory, name, name_size)?, argument)?
            };
            guest.give(&result, data, size)
        };

        // Metrics
        proxy_define_metric |guest, kind: u32, name: u32, name_size: u32, result: u32| {
            let (memory, state) = guest.split()?;
            let metric = state.metrics.define(kind, &text(memory, name, name_size)?)?;
            guest.write_u32(result, metric)
        };
        proxy_get_metric |guest, metric: u32, result: u32| {
            let value = guest.state().metrics.read(metric)?;
            guest.write_u64(result, value)
        };
        proxy_record_metric |guest, metric: u32, value: u64| guest.state().metrics.record(metric, value);
        proxy_increment_metric |guest, metric: u32, offset: i64| guest.state().metrics.increment(metric, offset);

        // Contexts
        proxy_set_effective_context |guest, context: u32| {
            let state = guest.state();
            if context != super::vm::ROOT_CONTEXT && !state.streams.contains_key(&context) {
                return Err(Status::BadArgument.into());
            }
            state.effective_context = context;
            Ok(())
        };
        // Envoy keeps root contexts alone until then, when they go; here none goes.
        proxy_done |guest| Err(Status::NotFound.into());
    }
    Ok(())
}

fn log(guest: &mut Guest, level: u32, at: u32, size: u32) -> Answer {
    let level = LogLevel::new(level).ok_or(Status::BadArgument)?;
    let (memory, state) = guest.split()?;
    state.log(level, slice(memory, at, size)?);
    Ok(())
}

/// Those of Envoy's foreign functions that a filter needs which writes headers, reads attributes and
/// exports.
fn foreign(state: &mut State, name: &[u8], argument: &[u8]) -> Result<Vec<u8>, Status> {
    match name {
        b"clear_route_cache" => return Ok(Vec::new()),
        b"compress" => return Ok(zlib(argument)),
        _ => {}
    }
    let expressions = state.expressions.as_mut().ok_or(Status::NotFound)?;
    match name {
        b"expr_create" => {
            let expression = std::str::from_utf8(argument).ok().and_then(Expression::parse);
            let token = expressions.len() as u32;
            expressions.push(expression.ok_or(Status::BadArgument)?);
            Ok(token.to_le_bytes().to_vec())
        }
        b"expr_evaluate" => {
            let token = argument.try_into().map(u32::from_le_bytes);
            let token = token.map_err(|_| Status::BadArgument)? as usize;
            let expression = expressions.get(token).cloned().ok_or(Status::NotFound)?;
            let read = |path: &str| properties::attribute(&state.node, state.stream(), path);
            expression.evaluate(&read)?.serialize()
        }
        _ => Err(Status::NotFound),
    }
}

/// Returns bytes in zlib's format, as Envoy's own zlib would by default.
fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut compressed = Vec::new();
    let read = ZlibEncoder::new(bytes, Compression::default()).read_to_end(&mut compressed);
    read.expect("bytes are read from memory");
    compressed
}

/// Map that can be read now: of the stream, or of the answer to a call.
fn read_map(state: &State, map: u32) -> Answer<Option<&Headers>> {
    let map = MapType::new(map).ok_or(Status::BadArgument)?;
    Ok(match map {
        MapType::HttpCallResponseHeaders | MapType::GrpcReceiveInitialMetadata => {
            state.answer.as_ref().map(|answer| &answer.headers)
        }
        MapType::HttpCallResponseTrailers | MapType::GrpcReceiveTrailingMetadata => {
            state.answer.as_ref().map(|answer| &answer.trailers)
        }
        _ => state.stream().and_then(|stream| stream.map(map)),
    })
}

fn write_map(state: &mut State, map: u32) -> Answer<&mut Headers> {
    let map = MapType::new(map).ok_or(Status::BadArgument)?;
    let headers = state.stream_mut().and_then(|stream| stream.map_mut(map));
    Ok(headers.ok_or(Status::BadArgument)?)
}

fn read_buffer(state: &mut State, buffer: u32) -> Answer<&[u8]> {
    let buffer = BufferType::new(buffer).ok_or(Status::BadArgument)?;
    let bytes = match buffer {
        BufferType::VmConfiguration => Some([].as_slice()),
        BufferType::PluginConfiguration => state.configuration.as_deref(),
        BufferType::HttpCallResponseBody | BufferType::GrpcReceive => {
            state.answer.as_ref().map(|answer| answer.body.as_slice())
        }
        _ => state
            .stream_mut()
            .and_then(|stream| stream.body_mut(buffer))
            .map(|body| body.as_slice()),
    };
    Ok(bytes.ok_or(Status::NotFound)?)
}

/// Stream of the current context, for a call that names one of its two directions.
fn http_stream<'a>(guest: &'a mut Guest, stream_type: u32) -> Answer<&'a mut Stream> {
    let stream = guest.state().stream_mut().filter(|_| stream_type <= LAST_HTTP_STREAM_TYPE);
    Ok(stream.ok_or(Status::BadArgument)?)
}

fn decode_map(memory: &[u8], at: u32, size: u32) -> Answer<Headers> {
    Ok(Headers::decode(slice(memory, at, size)?).ok_or(Status::BadArgument)?)
}

fn name(memory: &[u8], at: u32, size: u32) -> Answer<&str> {
    Ok(std::str::from_utf8(slice(memory, at, size)?).map_err(|_| Status::BadArgument)?)
}

fn text(memory: &[u8], at: u32, size: u32) -> Answer<String> {
    name(memory, at, size).map(str::to_owned)
}

/// Stream types 0 and 1 are the HTTP request and response, 2 and 3 those of TCP.
const LAST_HTTP_STREAM_TYPE: u32 = 1;
const NANOS_PER_MS: u64 = 1_000_000;
