//! Hostcalls that send HTTP calls, gRPC calls and messages on gRPC streams.

use wasmtime::{Caller, Linker};

use super::{decode_headers, utf8};
use crate::host::guest::{Guest, HostcallResult, slice, to_status};
use crate::host::state::State;

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    hostcalls! { linker,
        proxy_http_call |
            guest, cluster: u32, cluster_size: u32, headers: u32, headers_size: u32, body: u32, body_size: u32,
            trailers: u32, trailers_size: u32, timeout_ms: u32, result: u32
        | {
            let (memory, state) = guest.memory_and_state()?;
            let headers = decode_headers(memory, headers, headers_size)?;
            let body = slice(memory, body, body_size)?.to_vec();
            decode_headers(memory, trailers, trailers_size)?;
            let cluster = slice(memory, cluster, cluster_size)?;
            let token = state.calls.http(cluster, timeout_ms, headers, body)?;
            guest.write_u32(result, token)
        };
        proxy_grpc_call |
            guest, service: u32, service_size: u32, name: u32, name_size: u32, method: u32, method_size: u32,
            metadata: u32, metadata_size: u32, message: u32, message_size: u32, timeout_ms: u32, result: u32
        | {
            let (memory, state) = guest.memory_and_state()?;
            utf8(memory, name, name_size)?;
            utf8(memory, method, method_size)?;
            let metadata = decode_headers(memory, metadata, metadata_size)?;
            let message = slice(memory, message, message_size)?.to_vec();
            let service = slice(memory, service, service_size)?;
            let token = state.calls.grpc(service, timeout_ms, metadata, message)?;
            guest.write_u32(result, token)
        };
        proxy_grpc_stream |
            guest, service: u32, service_size: u32, name: u32, name_size: u32, method: u32, method_size: u32,
            metadata: u32, metadata_size: u32, result: u32
        | {
            let (memory, state) = guest.memory_and_state()?;
            utf8(memory, name, name_size)?;
            utf8(memory, method, method_size)?;
            decode_headers(memory, metadata, metadata_size)?;
            let token = state.calls.open_stream(slice(memory, service, service_size)?)?;
            guest.write_u32(result, token)
        };
        proxy_grpc_send |guest, token: u32, message: u32, message_size: u32, end_of_stream: u32| {
            let (memory, state) = guest.memory_and_state()?;
            slice(memory, message, message_size)?;
            Ok(state.calls.send_message(token, end_of_stream != 0)?)
        };
        proxy_grpc_cancel |guest, token: u32| Ok(guest.state().calls.cancel(token)?);
        proxy_grpc_close |guest, token: u32| Ok(guest.state().calls.close(token)?);
        proxy_get_status |guest, status: u32, data: u32, size: u32| {
            let response = guest.state().call_response.as_ref();
            let grpc_status = response.map_or(0, |response| response.grpc_status);
            guest.write_u32(status, grpc_status)?;
            guest.return_bytes(&[], data, size)
        };
    }
    Ok(())
}
