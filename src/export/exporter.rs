//! The exporter of one worker: a state machine that sends batches of spans, one call at a time.
//!
//! <https://opentelemetry.io/docs/specs/otlp/>, <https://zipkin.io/zipkin-api/#/default/post_spans>
//!
//! It does no I/O. Its owner reports events, with the time and a random number, and does what the
//! methods return:
//!
//! ```text
//! event                      what the owner does next
//! push(span)                 sets the timer, if one is returned
//! tick(), responded()        makes the call, if one is returned:
//!                              compressed(), if the call wants it; request() says what to send;
//!                              called() takes the result
//!                            then sets the timer that timer() returns, if any
//!                            then logs log_lines(), and confirms each logged line by logged()
//! take_all(), take_over()    moves batches between exporters of the same destination
//! abandon()                  logs as above
//! ```
//!
//! gRPC uses Envoy's call for HTTP too: Envoy's call for gRPC returns no trailers, and a receiver says
//! in `grpc-status-details-bin`, a trailer, when to send a batch again.

use std::time::Duration;

use opentelemetry::KeyValue;

use crate::export::delivery::{Delivery, Response, Verdict};
use crate::export::log::{ExportLog, LogKind, LogLine};
use crate::export::queue::{Batch, Queue, SpanCounts};
use crate::export::settings::{ExporterSettings, Protocol};
use crate::export::tally::ExportTally;
use crate::export::{gzip, otlp, zipkin};
use crate::http::grpc;
use crate::propagation::Propagation;
use crate::propagation::context::FreshIds;

#[derive(Debug)]
pub(crate) struct Exporter {
    settings: ExporterSettings,
    /// Writes the trace headers of export requests.
    propagation: Propagation,
    queue: Queue,
    /// Whether bodies are compressed: as configured, until compression fails once.
    compresses: bool,
    /// The current period of the owner's timer.
    timer: Duration,
    call: Option<CallInFlight>,
    pub tally: ExportTally,
    log: ExportLog,
}

/// A call whose response has not come.
#[derive(Debug)]
struct CallInFlight {
    id: u32,
    sent_unix_nanos: u64,
}

/// A call that the owner should make.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PendingCall {
    pub body: Vec<u8>,
    /// The owner should compress the body with zlib, and pass the result to [`Exporter::compressed`].
    pub wants_compression: bool,
    is_gzip: bool,
    spans: u32,
}

/// An export request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request<'r> {
    pub cluster: &'r str,
    /// Pseudo headers first. Each name occurs once.
    pub headers: Vec<(&'r str, &'r str)>,
    pub body: &'r [u8],
    pub timeout: Duration,
}

/// Trace headers of an export request: names and values.
pub(crate) type TraceHeaders = Vec<(&'static str, Vec<u8>)>;

/// Why Envoy did not make a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallError {
    UnknownCluster,
    /// No host is healthy, or a circuit breaker is open.
    NotPossible,
}

impl Exporter {
    pub(crate) fn new(
        settings: ExporterSettings,
        propagation: Propagation,
        resource: &[KeyValue],
    ) -> Self {
        let resource = otlp::encode_resource(resource);
        Self {
            queue: Queue::new(settings.limits, settings.retry, resource),
            compresses: settings.gzip,
            timer: settings.interval,
            call: None,
            tally: ExportTally::default(),
            log: ExportLog::new(&settings.cluster),
            settings,
            propagation,
        }
    }

    /// Returns the period to which the timer is to be set at first.
    pub(crate) fn start(&mut self) -> Duration {
        self.timer = self.settings.interval;
        self.timer
    }

    /// Queues a finished span, or drops it if the queue is full. Returns the timer's new period if it
    /// changes: a full batch is sent on a tick that comes at once. The stream that filled the batch cannot
    /// make the call, because its context is gone before the response comes. Root contexts stay.
    pub(crate) fn push(&mut self, span: &[u8]) -> Option<Duration> {
        self.queue.push(span);
        if self.timer == AT_ONCE || !self.queue.is_urgent() {
            return None;
        }
        self.timer = AT_ONCE;
        Some(AT_ONCE)
    }

    /// Handles a tick of the timer. Returns the call to make, if a batch is due.
    ///
    /// A call without a response counts as lost after its timeout and a grace period.
    pub(crate) fn tick(&mut self, now_unix_nanos: u64, random: u32) -> Option<PendingCall> {
        let longest = self.settings.timeout + RESPONSE_GRACE;
        let is_lost = |call: &mut CallInFlight| call.age(now_unix_nanos) > longest;
        if self.call.take_if(is_lost).is_some() {
            let no_response = Delivery::from_http(&Response::default(), 0);
            self.settle(no_response, now_unix_nanos, random);
        }
        self.log.report_drops();
        self.next_call(now_unix_nanos)
    }

    /// Tells whether this is the call in flight.
    pub(crate) fn awaits(&self, call_id: u32) -> bool {
        self.call.as_ref().is_some_and(|call| call.id == call_id)
    }

    /// Handles the response to a call; the default [`Response`] says that none came. Returns the call
    /// to make, if a full batch waits. Responses to any call but the one in flight are ignored.
    pub(crate) fn responded(
        &mut self,
        call_id: u32,
        response: &Response<'_>,
        now_unix_nanos: u64,
        random: u32,
    ) -> Option<PendingCall> {
        let call = self.call.take_if(|call| call.id == call_id)?;
        let now_unix_seconds = now_unix_nanos / NANOS_PER_SECOND;
        let delivery = match self.settings.protocol {
            Protocol::OtlpHttp => Delivery::from_otlp_http(response, now_unix_seconds),
            Protocol::OtlpGrpc => Delivery::from_otlp_grpc(response, now_unix_seconds),
            Protocol::Zipkin => Delivery::from_http(response, now_unix_seconds),
        };
        let millis = u64::try_from(call.age(now_unix_nanos).as_millis()).unwrap_or(u64::MAX);
        self.tally.duration_millis.push(millis);
        self.settle(delivery, now_unix_nanos, random);
        if self.queue.is_urgent() { self.next_call(now_unix_nanos) } else { None }
    }

    /// Replaces the body of a call with gzip, made from the host's zlib output. If that is `None` or not in
    /// zlib's format, this body and all later ones are sent uncompressed.
    pub(crate) fn compressed(&mut self, call: &mut PendingCall, zlib: Option<&[u8]>) {
        let mut gzip = Vec::new();
        if zlib.is_some_and(|zlib| gzip::put(&mut gzip, zlib, &call.body)) {
            (call.body, call.is_gzip) = (gzip, true);
        } else {
            self.compresses = false;
            self.log.not_compressed();
        }
        call.wants_compression = false;
    }

    /// Returns trace headers that say "not sampled". Without them, a filter on the way to the receiver
    /// would take each export for a root, and could trace it.
    pub(crate) fn trace_headers(&self, fresh: FreshIds) -> TraceHeaders {
        self.propagation.unsampled_headers(fresh)
    }

    /// Returns what to send. A configured header wins over a trace header of the same name.
    pub(crate) fn request<'r>(
        &'r self,
        call: &'r PendingCall,
        trace_headers: &'r TraceHeaders,
    ) -> Request<'r> {
        let ExporterSettings { protocol, cluster, authority, path, timeout, headers, .. } =
            &self.settings;
        let (content_type, te) = match protocol {
            Protocol::OtlpHttp => ("application/x-protobuf", None),
            Protocol::OtlpGrpc => ("application/grpc", Some(("te", "trailers"))),
            Protocol::Zipkin => ("application/json", None),
        };
        let of_protocol = [
            (":method", "POST"),
            (":path", path),
            (":authority", authority),
            ("content-type", content_type),
            ("user-agent", USER_AGENT),
        ];
        let is_configured = |name: &str| headers.iter().any(|(configured, _)| configured == name);
        let trace_headers = trace_headers.iter().filter_map(|(name, value)| {
            let value = str::from_utf8(value).ok()?;
            (!is_configured(name)).then_some((*name, value))
        });
        let headers = of_protocol
            .into_iter()
            .chain(te)
            .chain(call.is_gzip.then_some(("content-encoding", "gzip")))
            .chain(headers.iter().map(|(name, value)| (name.as_str(), value.as_str())))
            .chain(trace_headers)
            .collect();
        Request { cluster, headers, body: &call.body, timeout: *timeout }
    }

    /// Handles the result of making a call: the call's id, by which [`Exporter::responded`] knows it, or why
    /// Envoy did not make it. A batch whose call was not made is sent again, because Envoy may learn of the
    /// cluster or find a healthy host.
    pub(crate) fn called(
        &mut self,
        call: &PendingCall,
        result: Result<u32, CallError>,
        now_unix_nanos: u64,
        random: u32,
    ) {
        match result {
            Ok(id) => {
                self.call = Some(CallInFlight { id, sent_unix_nanos: now_unix_nanos });
                self.tally.bytes += call.body.len() as u64;
                self.tally.batch_spans.push(call.spans.into());
            }
            Err(error) => {
                let delivery = Delivery {
                    verdict: Verdict::Retry { after: None },
                    message: error.message().to_owned(),
                };
                self.settle(delivery, now_unix_nanos, random);
            }
        }
    }

    /// Returns the timer's new period if it changes: the shortest one for a full batch; else the configured
    /// interval, or the rest of a pause before a retry if that is shorter.
    pub(crate) fn timer(&mut self, now_unix_nanos: u64) -> Option<Duration> {
        let interval = self.settings.interval;
        let remaining = self.queue.remaining_nanos(now_unix_nanos).map(Duration::from_nanos);
        let period = match remaining {
            _ if self.queue.is_urgent() => AT_ONCE,
            // The timer counts whole milliseconds, and must not end before the pause.
            Some(remaining) => (remaining + AT_ONCE).min(interval),
            None => interval,
        };
        let is_changed = period != self.timer;
        self.timer = period;
        is_changed.then_some(period)
    }

    /// Returns the lines to log. The owner may leave out lines that [`LogKind::limit_name`] limits.
    pub(crate) fn log_lines(&mut self) -> Vec<LogLine> {
        self.log.take_lines(self.queue.counts().dropped)
    }

    /// Notes that a line of [`Exporter::log_lines`] was logged.
    pub(crate) fn logged(&mut self, kind: LogKind) {
        self.log.logged(kind, self.queue.counts().dropped);
    }

    /// Returns the cluster, the subject of all log lines.
    pub(crate) fn cluster(&self) -> &str {
        &self.settings.cluster
    }

    pub(crate) fn counts(&self) -> SpanCounts {
        self.queue.counts()
    }

    /// Tells whether another exporter has the same destination: see [`ExporterSettings::destination`].
    pub(crate) fn has_destination_of(&self, other: &Self) -> bool {
        self.settings.destination() == other.settings.destination()
    }

    /// Removes and returns all batches that wait or are in flight.
    pub(crate) fn take_all(&mut self) -> Vec<Batch> {
        self.queue.take_all()
    }

    /// Queues the batches of an exporter whose configuration was removed. Batches that do not fit are
    /// dropped.
    pub(crate) fn take_over(&mut self, batches: Vec<Batch>) {
        batches.into_iter().for_each(|batch| self.queue.take_over(batch));
    }

    /// Counts batches that no other exporter took over as dropped.
    pub(crate) fn abandon(&mut self, batches: &[Batch]) {
        self.queue.abandon(batches);
        self.log.report_drops();
    }

    fn next_call(&mut self, now_unix_nanos: u64) -> Option<PendingCall> {
        let batch = self.queue.next_to_send(now_unix_nanos)?;
        Some(PendingCall {
            body: body(self.settings.protocol, batch),
            wants_compression: self.compresses,
            is_gzip: false,
            spans: batch.spans,
        })
    }

    fn settle(&mut self, delivery: Delivery, now_unix_nanos: u64, random: u32) {
        let Delivery { verdict, message } = delivery;
        self.queue.settle(verdict, now_unix_nanos, random);
        match verdict {
            Verdict::Accepted { .. } => {
                self.tally.succeeded += 1;
                self.log.accepted(&message);
            }
            Verdict::Retry { .. } => {
                self.tally.retried += 1;
                self.log.failing(message, self.queue.counts().queued);
            }
            Verdict::TooLarge | Verdict::Refused => {
                self.tally.failed += 1;
                self.log.refused(message);
            }
        }
    }
}

impl CallInFlight {
    fn age(&self, now_unix_nanos: u64) -> Duration {
        Duration::from_nanos(now_unix_nanos.saturating_sub(self.sent_unix_nanos))
    }
}

impl CallError {
    fn message(self) -> &'static str {
        match self {
            Self::UnknownCluster => "Envoy knows no such cluster",
            Self::NotPossible => {
                "Envoy did not make the call: no host is healthy, or too many calls are in flight"
            }
        }
    }
}

fn body(protocol: Protocol, batch: &Batch) -> Vec<u8> {
    let mut body = Vec::new();
    let Batch { resource, encoded_spans, .. } = batch;
    match protocol {
        Protocol::OtlpHttp => otlp::put_export_request(&mut body, resource, encoded_spans),
        Protocol::OtlpGrpc => {
            body.resize(grpc::MESSAGE_PREFIX_BYTES, 0);
            otlp::put_export_request(&mut body, resource, encoded_spans);
            grpc::write_message_prefix(&mut body);
        }
        Protocol::Zipkin => return zipkin::spans(resource, encoded_spans),
    }
    body
}

/// How long after its timeout a call counts as lost. Envoy reports timeouts itself, but a call that it never
/// reports would block all later calls.
const RESPONSE_GRACE: Duration = Duration::from_secs(5);
/// Shortest period of Envoy's timer.
const AT_ONCE: Duration = Duration::from_millis(1);
const NANOS_PER_SECOND: u64 = 1_000_000_000;
const USER_AGENT: &str = concat!("sidespan/", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests;
