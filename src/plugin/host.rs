//! Hostcalls that the SDK does not make well enough, made here against proxy-wasm's ABI 0.2.1.
//!
//! <https://github.com/proxy-wasm/spec/tree/main/abi-versions/v0.2.1>
//!
//! All other hostcalls are `proxy_wasm::hostcalls`. Each function here says which of the two reasons
//! it has: it runs for every request and the SDK copies more than is needed, or the SDK panics on a
//! status that Envoy gives. Whatever the host answers is a value here.

use std::ptr::null_mut;

use proxy_wasm::types::{BufferType, Bytes, MapType};

use crate::edits::HeaderEdit;

/// The host answered with a status other than OK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure;

/// Returns all headers of a map as one buffer, which [`crate::head::pairs`] reads.
///
/// Per request: the SDK copies each name and each value.
pub fn headers(map: MapType) -> Result<Bytes, Failure> {
    // SAFETY: the host writes one pointer and one length to the two places.
    returned(|data, size| unsafe { proxy_get_header_map_pairs(map as u32, data, size) })
}

/// Returns the first `max_size` bytes of a buffer: the configuration, or the body of an answer.
///
/// The SDK panics where Envoy answers `BadArgument`.
pub fn buffer(buffer: BufferType, max_size: usize) -> Result<Bytes, Failure> {
    // SAFETY: the host writes one pointer and one length to the two places.
    returned(|data, size| unsafe { proxy_get_buffer_bytes(buffer as u32, 0, max_size, data, size) })
}

/// Makes one change to the request's headers. A header that the host refuses stays as it came.
pub fn edit_request_header(edit: &HeaderEdit<'_>) {
    match edit {
        HeaderEdit::Add { name, value } => {
            put_header(MapType::HttpRequestHeaders, name, value, false);
        }
        HeaderEdit::Set { name, value } => {
            put_header(MapType::HttpRequestHeaders, name, value, true);
        }
        HeaderEdit::Remove { name } => {
            // SAFETY: the host reads the name, which lives until the call returns.
            unsafe {
                proxy_remove_header_map_value(
                    MapType::HttpRequestHeaders as u32,
                    name.as_ptr(),
                    name.len(),
                );
            }
        }
    }
}

/// Adds a line to a header map; with `replace`, removes the other lines of that name. A line that
/// the host refuses is missing.
///
/// The SDK panics where the map cannot be changed: Envoy answers `BadArgument` then.
pub fn put_header(map: MapType, name: &str, value: &[u8], replace: bool) {
    let put = if replace { proxy_replace_header_map_value } else { proxy_add_header_map_value };
    // SAFETY: the host reads name and value, which live until the call returns.
    unsafe { put(map as u32, name.as_ptr(), name.len(), value.as_ptr(), value.len()) };
}

/// Returns a property; `path` is its parts with a zero byte between them.
///
/// Per request: the SDK builds the path anew each time.
pub fn property(path: &str) -> Result<Bytes, Failure> {
    // SAFETY: the host reads the path, and writes one pointer and one length to the two places.
    returned(|data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) })
}

/// Calls one of the functions that Envoy has beside the ABI
/// (`source/extensions/common/wasm/foreign.cc`).
///
/// The SDK panics where such a function answers with a status of its own.
pub fn call_foreign(name: &str, argument: &[u8]) -> Result<Bytes, Failure> {
    // SAFETY: the host reads name and argument, and writes one pointer and one length to the two
    // places.
    returned(|data, size| unsafe {
        proxy_call_foreign_function(
            name.as_ptr(),
            name.len(),
            argument.as_ptr(),
            argument.len(),
            data,
            size,
        )
    })
}

/// Returns the time since the Unix epoch in nanoseconds; 0 where the host has no clock.
///
/// Per request: the SDK makes a `SystemTime` of it.
pub fn now() -> u64 {
    let mut nanos = 0;
    // SAFETY: the host writes a 64-bit number to the place.
    unsafe { proxy_get_current_time_nanoseconds(&mut nanos) };
    nanos
}

fn returned(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<Bytes, Failure> {
    let mut data = null_mut();
    let mut size = 0;
    if call(&mut data, &mut size) != OK {
        return Err(Failure);
    }
    if data.is_null() || size == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the host allocated these bytes by the SDK's `proxy_on_memory_allocate`, as a vector
    // whose capacity is its length, and gives them away with the call.
    Ok(unsafe { Vec::from_raw_parts(data, size, size) })
}

const OK: u32 = 0;

// The statuses are numbers: the SDK's enum has no value for a status that it does not know.
#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_get_current_time_nanoseconds(nanos: *mut u64) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_get_buffer_bytes(
        buffer: u32,
        start: usize,
        max_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_add_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_replace_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(map: u32, name: *const u8, name_size: usize) -> u32;
    fn proxy_get_property(
        path: *const u8,
        path_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_call_foreign_function(
        name: *const u8,
        name_size: usize,
        argument: *const u8,
        argument_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
}
