//! Calls to the host, proxy-wasm ABI 0.2.1, that never panic.
//!
//! <https://github.com/proxy-wasm/spec/tree/main/abi-versions/v0.2.1>
//!
//! Whatever status the host answers with is a value here: a panic would take the VM of a worker. A
//! map of headers is one buffer, and slices of it.

use std::ptr::null_mut;
use std::time::Duration;

use crate::edits::HeaderEdit;

/// A status other than OK, as the host gave it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Failure(pub u32);

/// Bytes that the host put into this module's memory.
#[derive(Default)]
pub struct Bytes(Vec<u8>);

impl Bytes {
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

/// Log levels of the ABI.
#[derive(Debug, Clone, Copy)]
pub enum LogLevel {
    Info = 2,
    Warn = 3,
    Error = 4,
}

/// Metric types of the ABI.
#[derive(Debug, Clone, Copy)]
pub enum MetricKind {
    Counter = 0,
    Gauge = 1,
    Histogram = 2,
}

impl Failure {
    /// What was named is not there, such as the cluster of a call.
    pub const BAD_ARGUMENT: Self = Self(2);
    /// The value is not there.
    pub const NOT_FOUND: Self = Self(1);
    /// The value has another version by now.
    pub const CAS_MISMATCH: Self = Self(8);
}

/// A metric that was defined.
#[derive(Debug, Clone, Copy)]
pub struct MetricId(u32);

/// Header maps of the ABI.
#[derive(Debug, Clone, Copy)]
pub enum HeaderMap {
    Request = 0,
    Response = 2,
    ResponseTrailers = 3,
    CallResponse = 6,
    CallResponseTrailers = 7,
}

/// Returns all headers of a map, serialized; [`pairs`] reads them.
pub fn headers(map: HeaderMap) -> Result<Bytes, Failure> {
    returned(|data, size| unsafe { proxy_get_header_map_pairs(map as u32, data, size) })
}

/// Reads serialized pairs of names and values, such as headers: their number, then the lengths of
/// each name and value, then each name and value with a zero byte behind it. What does not add up
/// ends the list.
pub fn pairs(serialized: &[u8]) -> Vec<(&[u8], &[u8])> {
    let Some((count, rest)) = serialized.split_first_chunk::<4>() else {
        return Vec::new();
    };
    let count = (u32::from_le_bytes(*count) as usize).min(rest.len() / 8);
    let (lengths, mut text) = rest.split_at(count * 8);
    let mut pairs = Vec::with_capacity(count);
    for [a, b, c, d, e, f, g, h] in lengths.as_chunks::<8>().0 {
        let name = split_text(text, u32::from_le_bytes([*a, *b, *c, *d]));
        let Some((name, after_name)) = name else { break };
        let value = split_text(after_name, u32::from_le_bytes([*e, *f, *g, *h]));
        let Some((value, after_value)) = value else { break };
        text = after_value;
        pairs.push((name, value));
    }
    pairs
}

/// Makes one change to the request's headers.
pub fn edit_request_header(edit: &HeaderEdit<'_>) -> Result<(), Failure> {
    match edit {
        HeaderEdit::Add { name, value } => put_header(HeaderMap::Request, name, value, false),
        HeaderEdit::Set { name, value } => put_header(HeaderMap::Request, name, value, true),
        HeaderEdit::Remove { name } => done(unsafe {
            proxy_remove_header_map_value(HeaderMap::Request as u32, name.as_ptr(), name.len())
        }),
    }
}

/// Adds a line to a header map, in place of those of that name or beside them.
pub fn put_header(map: HeaderMap, name: &str, value: &[u8], replace: bool) -> Result<(), Failure> {
    let put = if replace { proxy_replace_header_map_value } else { proxy_add_header_map_value };
    done(unsafe { put(map as u32, name.as_ptr(), name.len(), value.as_ptr(), value.len()) })
}

/// Calls a cluster of the host, and returns the token that the answer will have. It comes to the root
/// context that calls, or is never given.
pub fn http_call(
    cluster: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    timeout: Duration,
) -> Result<u32, Failure> {
    let headers = serialized(headers);
    let no_trailers = serialized(&[]);
    let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    let mut token = 0;
    done(unsafe {
        proxy_http_call(
            cluster.as_ptr(),
            cluster.len(),
            headers.as_ptr(),
            headers.len(),
            body.as_ptr(),
            body.len(),
            no_trailers.as_ptr(),
            no_trailers.len(),
            timeout_ms,
            &mut token,
        )
    })?;
    Ok(token)
}

/// Returns the first so many bytes of the body of the answer to an HTTP call.
pub fn call_response_body(max_size: usize) -> Result<Bytes, Failure> {
    returned(|data, size| unsafe {
        proxy_get_buffer_bytes(CALL_RESPONSE_BODY, 0, max_size, data, size)
    })
}

/// Returns a property; `path` is its parts with a zero byte between them.
pub fn property(path: &str) -> Result<Bytes, Failure> {
    returned(|data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) })
}

/// Calls one of the functions that Envoy has beside the ABI.
pub fn call_foreign(name: &str, argument: &[u8]) -> Result<Bytes, Failure> {
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

/// Returns the plugin's configuration.
pub fn configuration(size: usize) -> Result<Bytes, Failure> {
    returned(|data, len| unsafe {
        proxy_get_buffer_bytes(PLUGIN_CONFIGURATION, 0, size, data, len)
    })
}

/// Returns the time since the Unix epoch in nanoseconds.
pub fn now() -> u64 {
    let mut nanos = 0;
    unsafe { proxy_get_current_time_nanoseconds(&mut nanos) };
    nanos
}

/// Returns a value that all VMs of the same `vm_id` share, and the version that it has.
pub fn shared_data(key: &str) -> Result<(Bytes, u32), Failure> {
    let mut version = 0;
    let value = returned(|data, size| unsafe {
        proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &mut version)
    })?;
    Ok((value, version))
}

/// Replaces a shared value whose version is this one, or makes one that is not there.
pub fn replace_shared_data(key: &str, value: &[u8], version: u32) -> Result<(), Failure> {
    done(unsafe {
        proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), version)
    })
}

/// Asks for a tick every `period`; zero stops it.
pub fn set_tick_period(period: Duration) {
    let millis = u32::try_from(period.as_millis()).unwrap_or(u32::MAX);
    unsafe { proxy_set_tick_period_milliseconds(millis) };
}

/// Adds a value to a histogram.
pub fn record_metric(id: MetricId, value: u64) -> Result<(), Failure> {
    done(unsafe { proxy_record_metric(id.0, value) })
}

pub fn log(level: LogLevel, message: &str) {
    unsafe { proxy_log(level as u32, message.as_ptr(), message.len()) };
}

pub fn define_metric(kind: MetricKind, name: &str) -> Result<MetricId, Failure> {
    let mut id = 0;
    done(unsafe { proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &mut id) })?;
    Ok(MetricId(id))
}

/// Adds to a metric; only a gauge takes a negative offset.
pub fn increment_metric(id: MetricId, offset: i64) -> Result<(), Failure> {
    done(unsafe { proxy_increment_metric(id.0, offset) })
}

/// Fills the buffer with random bytes (WASI `random_get`).
pub fn fill_random(bytes: &mut [u8]) -> Result<(), Failure> {
    done(u32::from(unsafe { random_get(bytes.as_mut_ptr(), bytes.len()) }))
}

/// Returns a variable of the VM's environment (WASI `environ_get`), and none where it is no text.
pub fn environment(name: &str) -> Option<String> {
    let (mut count, mut size) = (0, 0);
    done(u32::from(unsafe { environ_sizes_get(&mut count, &mut size) })).ok()?;
    let (mut places, mut text) = (vec![null_mut(); count], vec![0u8; size]);
    done(u32::from(unsafe { environ_get(places.as_mut_ptr(), text.as_mut_ptr()) })).ok()?;
    // Each variable ends with a zero byte, one behind the other.
    let is = |entry: &&[u8]| {
        entry.strip_prefix(name.as_bytes()).is_some_and(|it| it.first() == Some(&b'='))
    };
    let entry = text.split(|byte| *byte == 0).find(is)?;
    let value = entry.get(name.len() + 1..)?;
    Some(std::str::from_utf8(value).ok()?.to_owned())
}

fn done(status: u32) -> Result<(), Failure> {
    if status == OK { Ok(()) } else { Err(Failure(status)) }
}

fn returned(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<Bytes, Failure> {
    let mut data = null_mut();
    let mut size = 0;
    done(call(&mut data, &mut size))?;
    if data.is_null() || size == 0 {
        return Ok(Bytes(Vec::new()));
    }
    // The host allocated these bytes by `proxy_on_memory_allocate` of this module, which makes
    // them a vector whose capacity is its length, and gives them away with the call.
    Ok(Bytes(unsafe { Vec::from_raw_parts(data, size, size) }))
}

/// Serializes pairs as [`pairs`] reads them.
fn serialized(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&(pairs.len() as u32).to_le_bytes());
    for (name, value) in pairs {
        bytes.extend_from_slice(&(name.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
    }
    for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(0);
    }
    bytes
}

/// Splits text of that length off, and the zero byte behind it.
fn split_text(bytes: &[u8], len: u32) -> Option<(&[u8], &[u8])> {
    let (text, rest) = bytes.split_at_checked(len as usize)?;
    Some((text, rest.split_first()?.1))
}

const OK: u32 = 0;
const CALL_RESPONSE_BODY: u32 = 4;
const PLUGIN_CONFIGURATION: u32 = 7;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, data: *const u8, size: usize) -> u32;
    fn proxy_get_current_time_nanoseconds(nanos: *mut u64) -> u32;
    fn proxy_set_tick_period_milliseconds(millis: u32) -> u32;
    fn proxy_get_buffer_bytes(
        buffer: u32,
        start: usize,
        max_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
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
    fn proxy_http_call(
        cluster: *const u8,
        cluster_size: usize,
        headers: *const u8,
        headers_size: usize,
        body: *const u8,
        body_size: usize,
        trailers: *const u8,
        trailers_size: usize,
        timeout_ms: u32,
        token: *mut u32,
    ) -> u32;
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
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, offset: i64) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
}

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn random_get(data: *mut u8, size: usize) -> u16;
    fn environ_sizes_get(count: *mut usize, size: *mut usize) -> u16;
    fn environ_get(places: *mut *mut u8, text: *mut u8) -> u16;
}
