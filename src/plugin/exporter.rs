//! The hostcalls of the exporter: calls to the receiver, the timer, and the log.

use proxy_wasm::hostcalls;
use proxy_wasm::types::{BufferType, LogLevel, MapType, Status};

use super::{host, limits};
use crate::export::delivery::Response;
use crate::export::exporter::{CallError, Exporter, PendingCall};
use crate::export::log;
use crate::http::head::pairs;
use crate::propagation::ids::IdGenerator;

/// Sends the batches that are due.
pub(super) fn tick(exporter: &mut Exporter, ids: &mut IdGenerator, now: u64) {
    let call = exporter.tick(now, ids.random());
    proceed(exporter, ids, call, now);
}

/// Takes the response to a call, and sends the next batch if it is full.
pub(super) fn on_response(
    exporter: &mut Exporter,
    ids: &mut IdGenerator,
    call_id: u32,
    body_size: usize,
    trailers: usize,
) {
    if !exporter.awaits(call_id) {
        return;
    }
    let map = |map| host::headers(map).unwrap_or_default();
    let headers = map(MapType::HttpCallResponseHeaders);
    let trailers = if trailers > 0 { map(MapType::HttpCallResponseTrailers) } else { Vec::new() };
    let read_body = || host::buffer(BufferType::HttpCallResponseBody, MAX_RESPONSE_BYTES);
    let body = if body_size > 0 { read_body().unwrap_or_default() } else { Vec::new() };
    let response = Response::new(&pairs(&headers), &pairs(&trailers), &body);
    let now = host::now();
    let call = exporter.responded(call_id, &response, now, ids.random());
    proceed(exporter, ids, call, now);
}

/// Logs the lines that are due.
pub(super) fn log(exporter: &mut Exporter) {
    for line in exporter.log_lines() {
        let limit = line.kind.limit_name();
        if limit.is_none_or(|name| limits::may_log(name, exporter.cluster())) {
            let level = match line.kind.level() {
                log::LogLevel::Info => LogLevel::Info,
                log::LogLevel::Warn => LogLevel::Warn,
            };
            host::log(level, &line.text);
            exporter.logged(line.kind);
        }
    }
}

fn proceed(exporter: &mut Exporter, ids: &mut IdGenerator, call: Option<PendingCall>, now: u64) {
    if let Some(mut call) = call {
        if call.wants_compression {
            // An Envoy that is built without this function fails here.
            let zlib = host::call_foreign("compress", &call.body).ok();
            exporter.compressed(&mut call, zlib.as_deref());
        }
        let result = dispatch(exporter, ids, &call);
        exporter.called(&call, result, now, ids.random());
    }
    if let Some(period) = exporter.timer(now) {
        host::set_tick_period(period);
    }
    log(exporter);
}

/// Makes a call, and returns its id.
fn dispatch(
    exporter: &Exporter,
    ids: &mut IdGenerator,
    call: &PendingCall,
) -> Result<u32, CallError> {
    let trace_headers = exporter.trace_headers(ids.fresh(false));
    let request = exporter.request(call, &trace_headers);
    let (body, no_trailers) = (Some(request.body), Vec::new());
    hostcalls::dispatch_http_call(
        request.cluster,
        request.headers,
        body,
        no_trailers,
        request.timeout,
    )
    .map_err(|status| match status {
        Status::BadArgument => CallError::UnknownCluster,
        _ => CallError::NotPossible,
    })
}

/// How many bytes of a response are read. A partial success with its message is far shorter.
const MAX_RESPONSE_BYTES: usize = 64 << 10;
