//! The hostcalls of proxy-wasm ABI 0.2.1, all of them: the functions that a module imports from `env`.
//!
//! Each line of the tables is one hostcall of
//! <https://github.com/proxy-wasm/spec/tree/main/abi-versions/v0.2.1>; it returns what Envoy returns.

use wasmtime::{Caller, Linker};

use super::guest::{Guest, HostcallResult, slice, to_status};
use super::headers::Headers;
use super::log::LogLevel;
use super::properties;
use super::state::{ROOT_CONTEXT, State};
use super::status::Status;
use super::stream::{Intervention, Stream};

/// Defines one import a line: its name, its arguments, and a body that returns a [`HostcallResult`].
macro_rules! hostcalls {
    ($linker:ident, $($name:ident |$guest:ident $(, $argument:ident: $type:ty)*| $body:expr;)*) => {$(
        $linker.func_wrap("env", stringify!($name), |caller: Caller<'_, State> $(, $argument: $type)*| {
            let $guest = &mut Guest::new(caller);
            if let Some(status) = $guest.state().faults.next(stringify!($name)) {
                return Ok(status);
            }
            to_status(|| -> HostcallResult { $body })
        })?;
    )*};
}

mod calls;
mod foreign;
mod messages;

/// Links the whole ABI.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    messages::link(linker)?;
    calls::link(linker)?;
    foreign::link(linker)?;
    hostcalls! { linker,
        // Log and time
        proxy_log |guest, level: u32, message: u32, size: u32| {
            let level = LogLevel::from_number(level).ok_or(Status::BadArgument)?;
            let (memory, state) = guest.memory_and_state()?;
            state.push_log(level, slice(memory, message, size)?);
            Ok(())
        };
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

        // Properties
        proxy_get_property |guest, path: u32, path_size: u32, data: u32, size: u32| {
            let value = {
                let (memory, state) = guest.memory_and_state()?;
                let path = str::from_utf8(slice(memory, path, path_size)?);
                let path = path.map_err(|_| Status::NotFound)?;
                properties::attribute(&state.node, state.stream(), path)?.serialize()?
            };
            guest.return_bytes(&value, data, size)
        };
        proxy_set_property |guest, path: u32, path_size: u32, value: u32, value_size: u32| {
            let (memory, state) = guest.memory_and_state()?;
            let stream = state.stream_mut().ok_or(Status::NotFound)?;
            let path = slice(memory, path, path_size)?.to_vec();
            stream.filter_state.insert(path, slice(memory, value, value_size)?.to_vec());
            Ok(())
        };

        // Streams
        proxy_continue_stream |guest, stream_type: u32| {
            http_stream(guest, stream_type)?;
            Ok(())
        };
        proxy_close_stream |guest, stream_type: u32| {
            http_stream(guest, stream_type)?.interventions.push(Intervention::Closed);
            Ok(())
        };
        proxy_send_local_response |
            guest, status: u32, _details: u32, _details_size: u32, _body: u32, _body_size: u32,
            _headers: u32, _headers_size: u32, _grpc_status: i32
        | {
            let stream = guest.state().stream_mut().ok_or(Status::BadArgument)?;
            stream.interventions.push(Intervention::LocalResponse(status));
            Ok(())
        };

        // Shared data and queues
        proxy_get_shared_data |guest, key: u32, key_size: u32, data: u32, size: u32, result_cas: u32| {
            let (value, cas) = {
                let (memory, state) = guest.memory_and_state()?;
                state.data.read(slice(memory, key, key_size)?)?
            };
            guest.return_bytes(&value, data, size)?;
            guest.write_u32(result_cas, cas)
        };
        proxy_set_shared_data |guest, key: u32, key_size: u32, value: u32, value_size: u32, cas: u32| {
            let (memory, state) = guest.memory_and_state()?;
            let value = slice(memory, value, value_size)?.to_vec();
            Ok(state.data.write(slice(memory, key, key_size)?, value, cas)?)
        };
        proxy_register_shared_queue |guest, name: u32, name_size: u32, result: u32| {
            let (memory, state) = guest.memory_and_state()?;
            let queue = state.queues.register(slice(memory, name, name_size)?);
            guest.write_u32(result, queue)
        };
        proxy_resolve_shared_queue |guest, vm_id: u32, vm_id_size: u32, name: u32, name_size: u32, result: u32| {
            let (memory, state) = guest.memory_and_state()?;
            // This VM is the only one, and its id is empty.
            let is_this_vm = slice(memory, vm_id, vm_id_size)?.is_empty();
            let queue = state.queues.resolve(slice(memory, name, name_size)?).filter(|_| is_this_vm);
            guest.write_u32(result, queue.ok_or(Status::NotFound)?)
        };
        proxy_enqueue_shared_queue |guest, queue: u32, value: u32, value_size: u32| {
            let (memory, state) = guest.memory_and_state()?;
            Ok(state.queues.enqueue(queue, slice(memory, value, value_size)?.to_vec())?)
        };
        proxy_dequeue_shared_queue |guest, queue: u32, data: u32, size: u32| {
            let value = guest.state().queues.dequeue(queue)?;
            guest.return_bytes(&value, data, size)
        };

        // Metrics
        proxy_define_metric |guest, kind: u32, name: u32, name_size: u32, result: u32| {
            let (memory, state) = guest.memory_and_state()?;
            let metric = state.metrics.define(kind, utf8(memory, name, name_size)?)?;
            guest.write_u32(result, metric)
        };
        proxy_get_metric |guest, metric: u32, result: u32| {
            let value = guest.state().metrics.read(metric)?;
            guest.write_u64(result, value)
        };
        proxy_record_metric |guest, metric: u32, value: u64| Ok(guest.state().metrics.record(metric, value)?);
        proxy_increment_metric |guest, metric: u32, offset: i64| {
            Ok(guest.state().metrics.increment(metric, offset)?)
        };

        // Contexts
        proxy_set_effective_context |guest, context: u32| {
            let state = guest.state();
            if context != ROOT_CONTEXT && !state.streams.contains_key(&context) {
                return Err(Status::BadArgument.into());
            }
            state.effective_context = context;
            Ok(())
        };
        // Envoy keeps only root contexts alive until they call this, and this host ends no root context.
        proxy_done |guest| Err(Status::NotFound.into());
    }
    Ok(())
}

/// Returns the stream of the effective context, for a hostcall that names one of its two directions.
fn http_stream<'a>(guest: &'a mut Guest, stream_type: u32) -> Result<&'a mut Stream, Status> {
    let stream = guest.state().stream_mut().filter(|_| stream_type <= LAST_HTTP_STREAM_TYPE);
    stream.ok_or(Status::BadArgument)
}

/// Returns text in the module's memory, or `BadArgument` if it is not UTF-8.
fn utf8(memory: &[u8], address: u32, size: u32) -> Result<&str, Status> {
    str::from_utf8(slice(memory, address, size)?).map_err(|_| Status::BadArgument)
}

/// Parses a header map in the module's memory.
fn decode_headers(memory: &[u8], address: u32, size: u32) -> Result<Headers, Status> {
    Headers::decode(slice(memory, address, size)?).ok_or(Status::BadArgument)
}

/// Stream types 0 and 1 are the HTTP request and response; 2 and 3 are the directions of TCP.
const LAST_HTTP_STREAM_TYPE: u32 = 1;
const NANOS_PER_MS: u64 = 1_000_000;
