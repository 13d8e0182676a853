//! Hostcalls of proxy-wasm's ABI 0.2.1 that the SDK makes at too high a cost, or with a panic.
//!
//! <https://github.com/proxy-wasm/spec/tree/main/abi-versions/v0.2.1>
//!
//! All other hostcalls are `proxy_wasm::hostcalls`. Each function here has one of two reasons: it runs
//! for each request and the SDK copies more than necessary, or the SDK panics on a status that Envoy
//! returns. Here, each status becomes a value.

use std::ptr::null_mut;
use std::time::Duration;

use proxy_wasm::types::{BufferType, Bytes, LogLevel, MapType, MetricType};

use crate::http::edits::HeaderEdit;
use crate::sampling::shared_number::WriteError;

// For a call that `capability_restriction_config` does not allow, Envoy returns a status that the SDK
// does not know, and on which it panics (`proxy-wasm-cpp-host`, `src/exports.cc`).

/// A status other than OK that the host returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failure(u32);

impl Failure {
    pub(super) const NOT_FOUND: Self = Self(1);
}

/// Returns all headers of a map as one buffer, which [`crate::http::head::pairs`] reads.
///
/// Per request: the SDK copies each name and each value.
pub(super) fn headers(map: MapType) -> Result<Bytes, Failure> {
    // SAFETY: the host writes one pointer and one length to these two variables.
    returned(|data, size| unsafe { proxy_get_header_map_pairs(map as u32, data, size) })
}

/// Returns the first `max_size` bytes of a buffer: the configuration, or the body of a response.
///
/// The SDK panics if Envoy returns `BadArgument`.
pub(super) fn buffer(buffer: BufferType, max_size: usize) -> Result<Bytes, Failure> {
    // SAFETY: the host writes one pointer and one length to these two variables.
    returned(|data, size| unsafe { proxy_get_buffer_bytes(buffer as u32, 0, max_size, data, size) })
}

/// Makes one change to a header map. A header that the host refuses to change stays as it was.
///
/// The SDK panics if the map cannot be changed: Envoy returns `BadArgument` then.
pub(super) fn edit_header(map: MapType, edit: &HeaderEdit<'_>) {
    let map = map as u32;
    // SAFETY: the host reads name and value, which live until the call returns.
    unsafe {
        match edit {
            HeaderEdit::Add { name, value } => proxy_add_header_map_value(
                map,
                name.as_ptr(),
                name.len(),
                value.as_ptr(),
                value.len(),
            ),
            HeaderEdit::Set { name, value } => proxy_replace_header_map_value(
                map,
                name.as_ptr(),
                name.len(),
                value.as_ptr(),
                value.len(),
            ),
            HeaderEdit::Remove { name } => {
                proxy_remove_header_map_value(map, name.as_ptr(), name.len())
            }
        }
    };
}

/// Returns a property. Its path has a zero byte between the parts.
///
/// Per request: the SDK builds the path on each call.
pub(super) fn property(path: &str) -> Result<Bytes, Failure> {
    // SAFETY: the host reads the path, and writes one pointer and one length to these two variables.
    returned(|data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) })
}

/// Returns a property as text; an absent one is empty.
pub(super) fn text(path: &str) -> String {
    let bytes = property(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    bytes.unwrap_or_default()
}

/// Sets a property of the stream, which Envoy keeps as filter state under `wasm.` and the path
/// (`Context::setProperty`, `source/extensions/common/wasm/context.cc`). Nothing is set
/// if the host refuses.
///
/// The SDK panics if the host does not allow it.
pub(super) fn set_property(path: &str, value: &[u8]) {
    // SAFETY: the host reads path and value, which live until the call returns.
    unsafe { proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) };
}

/// Calls a function that Envoy offers in addition to the ABI
/// (`source/extensions/common/wasm/foreign.cc`).
///
/// The SDK panics if such a function returns a status of its own.
pub(super) fn call_foreign(name: &str, argument: &[u8]) -> Result<Bytes, Failure> {
    // SAFETY: the host reads name and argument, and writes one pointer and one length to
    // these two variables.
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
/// Per request: the SDK converts it to a `SystemTime`.
pub(super) fn now() -> u64 {
    let mut nanos = 0;
    // SAFETY: the host writes a 64-bit number to this variable.
    unsafe { proxy_get_current_time_nanoseconds(&mut nanos) };
    nanos
}

/// Logs a message, if the host accepts it.
///
/// The SDK panics if the host does not allow it.
pub(super) fn log(level: LogLevel, message: &str) {
    // SAFETY: the host reads the message, which lives until the call returns.
    unsafe { proxy_log(level as u32, message.as_ptr(), message.len()) };
}

/// Sets the period of the root context's ticks in whole milliseconds; zero stops them.
///
/// The SDK panics if the host does not allow it.
pub(super) fn set_tick_period(period: Duration) {
    let millis = u32::try_from(period.as_millis()).unwrap_or(u32::MAX);
    // SAFETY: only numbers are passed.
    unsafe { proxy_set_tick_period_milliseconds(millis) };
}

/// Defines a metric and returns its id.
///
/// The SDK panics if the host does not allow it.
pub(super) fn define_metric(kind: MetricType, name: &str) -> Result<u32, Failure> {
    let mut id = 0;
    // SAFETY: the host reads the name, and writes a 32-bit number to this variable.
    ok(unsafe { proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &mut id) })?;
    Ok(id)
}

/// Adds an offset to a counter or gauge.
///
/// The SDK panics if the host does not allow it.
pub(super) fn increment_metric(id: u32, offset: i64) -> Result<(), Failure> {
    // SAFETY: only numbers are passed.
    ok(unsafe { proxy_increment_metric(id, offset) })
}

/// Adds a measurement to a histogram, if the host accepts it.
///
/// The SDK panics if the host does not allow it.
pub(super) fn record_metric(id: u32, value: u64) {
    // SAFETY: only numbers are passed.
    unsafe { proxy_record_metric(id, value) };
}

/// Returns the value of a key in the data that all workers share, and its version; none if the key has
/// no value.
///
/// The SDK panics if the host does not allow it.
pub(super) fn shared_data(key: &str) -> Result<Option<(Bytes, u32)>, Failure> {
    let mut version = 0;
    // SAFETY: the host reads the key, and writes a pointer, a length and a 32-bit number to these
    // variables.
    let value = returned(|data, size| unsafe {
        proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &mut version)
    });
    match value {
        Ok(value) => Ok(Some((value, version))),
        Err(Failure::NOT_FOUND) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Sets the value of a key in the data that all workers share, if its value still has this version.
///
/// The SDK panics if the host does not allow it.
pub(super) fn set_shared_data(key: &str, value: &[u8], version: u32) -> Result<(), WriteError> {
    // SAFETY: the host reads key and value, which live until the call returns.
    let status = unsafe {
        proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), version)
    };
    match status {
        OK => Ok(()),
        CAS_MISMATCH => Err(WriteError::Changed),
        _ => Err(WriteError::Failed),
    }
}

fn ok(status: u32) -> Result<(), Failure> {
    if status == OK { Ok(()) } else { Err(Failure(status)) }
}

fn returned(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<Bytes, Failure> {
    let mut data = null_mut();
    let mut size = 0;
    ok(call(&mut data, &mut size))?;
    if data.is_null() || size == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the host allocated these bytes by the SDK's `proxy_on_memory_allocate`, as a vector
    // whose capacity is its length, and gives them away with the call.
    Ok(unsafe { Vec::from_raw_parts(data, size, size) })
}

const OK: u32 = 0;
const CAS_MISMATCH: u32 = 8;

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
    fn proxy_set_property(
        path: *const u8,
        path_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_call_foreign_function(
        name: *const u8,
        name_size: usize,
        argument: *const u8,
        argument_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_log(level: u32, message: *const u8, message_size: usize) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, offset: i64) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
    fn proxy_get_shared_data(
        key: *const u8,
        key_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
        version: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
        version: u32,
    ) -> u32;
}
