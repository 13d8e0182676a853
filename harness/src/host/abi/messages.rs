//! Hostcalls that read and change messages: header maps and buffers.

use wasmtime::{Caller, Linker};

use super::{decode_headers, utf8};
use crate::host::guest::{Guest, HostcallResult, slice, to_status};
use crate::host::headers::Headers;
use crate::host::state::State;
use crate::host::status::Status;
use crate::host::stream::{BufferType, MapType, Phase};

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    hostcalls! { linker,
        // Header maps
        proxy_get_header_map_size |guest, map: u32, result: u32| {
            // Envoy looks only among the maps that can be changed now.
            let size = writable_map(guest.state(), map)?.byte_size();
            guest.write_u32(result, size as u32)
        };
        proxy_get_header_map_pairs |guest, map: u32, data: u32, size: u32| {
            // For a map that is absent now, Envoy returns no bytes and OK.
            let pairs = readable_map(guest.state(), map)?.filter(|map| !map.is_empty()).map(Headers::encode);
            guest.return_bytes(&pairs.unwrap_or_default(), data, size)
        };
        proxy_set_header_map_pairs |guest, map: u32, pairs: u32, size: u32| {
            let (memory, state) = guest.memory_and_state()?;
            *writable_map(state, map)? = decode_headers(memory, pairs, size)?;
            Ok(())
        };
        proxy_get_header_map_value |guest, map: u32, key: u32, key_size: u32, data: u32, size: u32| {
            let value = {
                let (memory, state) = guest.memory_and_state()?;
                let name = utf8(memory, key, key_size)?;
                match readable_map(state, map)? {
                    Some(map) => map.first(name).ok_or(Status::NotFound)?.to_vec(),
                    // Envoy: "maps might point to nullptr in the access log phase".
                    None if state.stream().is_some_and(|stream| stream.phase == Phase::Log) => {
                        return Err(Status::NotFound.into());
                    }
                    None => return Err(Status::BadArgument.into()),
                }
            };
            guest.return_bytes(&value, data, size)
        };
        proxy_add_header_map_value |guest, map: u32, key: u32, key_size: u32, value: u32, value_size: u32| {
            let (memory, state) = guest.memory_and_state()?;
            writable_map(state, map)?.add(utf8(memory, key, key_size)?, slice(memory, value, value_size)?);
            Ok(())
        };
        proxy_replace_header_map_value |guest, map: u32, key: u32, key_size: u32, value: u32, value_size: u32| {
            let (memory, state) = guest.memory_and_state()?;
            writable_map(state, map)?.set(utf8(memory, key, key_size)?, slice(memory, value, value_size)?);
            Ok(())
        };
        proxy_remove_header_map_value |guest, map: u32, key: u32, key_size: u32| {
            let (memory, state) = guest.memory_and_state()?;
            writable_map(state, map)?.remove(utf8(memory, key, key_size)?);
            Ok(())
        };

        // Buffers
        proxy_get_buffer_status |guest, buffer: u32, size: u32, flags: u32| {
            let length = readable_buffer(guest.state(), buffer)?.len();
            guest.write_u32(size, length as u32)?;
            guest.write_u32(flags, 0)
        };
        proxy_get_buffer_bytes |guest, buffer: u32, start: u32, max_size: u32, data: u32, size: u32| {
            let bytes = readable_buffer(guest.state(), buffer)?;
            let end = start.checked_add(max_size).ok_or(Status::BadArgument)?;
            let part = bytes.get(start as usize..bytes.len().min(end as usize)).unwrap_or_default().to_vec();
            guest.return_bytes(&part, data, size)
        };
        proxy_set_buffer_bytes |guest, buffer: u32, start: u32, size: u32, value: u32, value_size: u32| {
            let (memory, state) = guest.memory_and_state()?;
            let value = slice(memory, value, value_size)?;
            let buffer = BufferType::from_number(buffer).ok_or(Status::BadArgument)?;
            let body = state.stream_mut().and_then(|stream| stream.body_mut(buffer)).ok_or(Status::NotFound)?;
            let start = body.len().min(start as usize);
            let end = body.len().min(start.saturating_add(size as usize));
            body.splice(start..end, value.iter().copied());
            Ok(())
        };
    }
    Ok(())
}

/// Returns a header map of the stream or of the response to a call; `None` if it is absent now.
fn readable_map(state: &State, map: u32) -> Result<Option<&Headers>, Status> {
    let map = MapType::from_number(map).ok_or(Status::BadArgument)?;
    Ok(match map {
        MapType::HttpCallResponseHeaders | MapType::GrpcReceiveInitialMetadata => {
            state.call_response.as_ref().map(|response| &response.headers)
        }
        MapType::HttpCallResponseTrailers | MapType::GrpcReceiveTrailingMetadata => {
            state.call_response.as_ref().map(|response| &response.trailers)
        }
        _ => state.stream().and_then(|stream| stream.map(map)),
    })
}

fn writable_map(state: &mut State, map: u32) -> Result<&mut Headers, Status> {
    let map = MapType::from_number(map).ok_or(Status::BadArgument)?;
    let headers = state.stream_mut().and_then(|stream| stream.map_mut(map));
    headers.ok_or(Status::BadArgument)
}

fn readable_buffer(state: &mut State, buffer: u32) -> Result<&[u8], Status> {
    let buffer = BufferType::from_number(buffer).ok_or(Status::BadArgument)?;
    let bytes = match buffer {
        BufferType::VmConfiguration => Some([].as_slice()),
        BufferType::PluginConfiguration => state.configuration.as_deref(),
        BufferType::HttpCallResponseBody | BufferType::GrpcReceive => {
            state.call_response.as_ref().map(|response| response.body.as_slice())
        }
        _ => state
            .stream_mut()
            .and_then(|stream| stream.body_mut(buffer))
            .map(|body| body.as_slice()),
    };
    bytes.ok_or(Status::NotFound)
}
