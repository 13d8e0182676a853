//! Sends batches of spans to an Envoy cluster, one call at a time.
//!
//! <https://opentelemetry.io/docs/specs/otlp/>, <https://zipkin.io/zipkin-api/#/default/post_spans>
//!
//! gRPC is spoken over the call for HTTP: Envoy's call for gRPC hands over no trailers, and so not
//! when a collector wants to be asked again.

use std::time::Duration;

use opentelemetry::KeyValue;
use proxy_wasm::hostcalls;
use proxy_wasm::types::{BufferType, LogLevel, MapType, Status};

use super::ids::IdGenerator;
use super::{host, limits};
use crate::export::delivery::{Answer, Judgement, Verdict};
use crate::export::otlp;
use crate::export::queue::{Batch, Books, DropReason, Queue};
use crate::export::statistics::ExportTally;
use crate::export::zipkin;
use crate::export::{ExporterSettings, Protocol, gzip};
use crate::http::grpc;
use crate::http::head::pairs;
use crate::propagation::Propagation;

/// The exporter of one worker.
pub struct Exporter {
    settings: ExporterSettings,
    propagation: Propagation,
    ids: IdGenerator,
    /// Whether bodies are compressed: until the host once does not.
    gzip: bool,
    queue: Queue,
    /// What Envoy's timer is set to.
    tick_period: Duration,
    /// The token of the call under way.
    call: Option<u32>,
    sent_unix_nanos: u64,
    pub tally: ExportTally,
    log: Log,
}

/// What was logged, and what is to be.
#[derive(Default)]
struct Log {
    /// Spans that were dropped when that was last logged.
    dropped: [u64; DropReason::ALL.len()],
    /// What the collector said last that is no success, until it is logged.
    said: String,
    /// It was logged that exports fail, and not yet that they work again.
    failing: bool,
}

impl Exporter {
    pub fn new(
        settings: ExporterSettings,
        propagation: Propagation,
        resource: &[KeyValue],
    ) -> Self {
        let resource = otlp::encode_resource(resource);
        let queue = Queue::new(settings.limits, settings.retry, resource);
        let tick_period = settings.interval;
        let gzip = settings.gzip;
        let (tally, log) = Default::default();
        let (ids, call) = (IdGenerator::seeded(), None);
        let sent_unix_nanos = 0;
        Self {
            settings,
            propagation,
            ids,
            gzip,
            queue,
            tick_period,
            call,
            sent_unix_nanos,
            tally,
            log,
        }
    }

    pub fn books(&self) -> Books {
        self.queue.books()
    }

    /// Queues a span. A full batch is sent on a tick that comes at once: a call from the stream
    /// that ends here would never be answered, since only root contexts live on.
    pub fn push(&mut self, span: &[u8]) {
        self.queue.push(span);
        if self.tick_period != AT_ONCE && self.queue.is_urgent() {
            self.set_tick_period(AT_ONCE);
        }
    }

    /// Sets the timer of the root context to the interval.
    pub fn start_timer(&mut self) {
        self.set_tick_period(self.settings.interval);
    }

    /// Sends what is due. Runs in the root context.
    pub fn tick(&mut self, now: u64) {
        let waited = Duration::from_nanos(now.saturating_sub(self.sent_unix_nanos));
        if self.call.is_some() && waited > self.settings.timeout + ANSWER_GRACE {
            self.call = None;
            self.book(Judgement::of_http(&Answer::default(), 0), now);
        }
        self.send(now);
        self.wake_in_time(now);
        self.log_drops();
    }

    /// Books the answer to the call under way, and sends the next batch where a full one waits.
    /// A call that got no answer has no headers. An answer to another call is none.
    pub fn answered(&mut self, token: u32, body_size: usize, trailers: usize) {
        if self.call != Some(token) {
            return;
        }
        self.call = None;
        let now = host::now();
        let judgement = self.judge(body_size, trailers, now / NANOS_PER_SECOND);
        self.tally.duration_millis.push(now.saturating_sub(self.sent_unix_nanos) / NANOS_PER_MILLI);
        self.book(judgement, now);
        if self.queue.is_urgent() {
            self.send(now);
        }
        self.wake_in_time(now);
    }

    /// Returns where spans go, and as whose.
    pub fn destination(&self) -> (Protocol, &str, &str, &[(String, String)]) {
        let ExporterSettings { protocol, cluster, path, headers, .. } = &self.settings;
        (*protocol, cluster, path, headers)
    }

    /// Gives all batches away that wait or are under way.
    pub fn take_all(&mut self) -> Vec<Batch> {
        self.queue.take_all()
    }

    /// Takes the batches of a configuration that is gone over.
    pub fn take_over(&mut self, batches: Vec<Batch>) {
        batches.into_iter().for_each(|batch| self.queue.take_over(batch));
    }

    /// Drops batches that nobody takes over.
    pub fn abandon(&mut self, batches: &[Batch]) {
        self.queue.abandon(batches);
        self.log_drops();
    }

    fn send(&mut self, now: u64) {
        let Self { settings, gzip, queue, .. } = self;
        let Some(batch) = queue.next_to_send(now) else {
            return;
        };
        let body = body(settings.protocol, batch);
        let compressed = if *gzip { compressed(&body) } else { None };
        if compressed.is_none()
            && std::mem::take(gzip)
            && limits::may_log("gzip", &settings.cluster)
        {
            let message = "sidespan: bodies are sent as they are: Envoy does not compress them";
            host::log(LogLevel::Warn, message);
        }
        let spans = batch.spans;
        let mut headers = vec![
            (":method", "POST"),
            (":path", settings.path.as_str()),
            (":authority", settings.authority.as_str()),
            ("content-type", content_type(settings.protocol)),
            ("user-agent", USER_AGENT),
        ];
        if settings.protocol == Protocol::OtlpGrpc {
            headers.push(("te", "trailers"));
        }
        if compressed.is_some() {
            headers.push(("content-encoding", "gzip"));
        }
        let body = compressed.unwrap_or(body);
        let own = settings.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        headers.extend(own);
        // Without it a filter in front of the collector would take each export for a root.
        let unsampled = self.propagation.unsampled_headers(self.ids.fresh());
        let is_free = |name: &str| settings.headers.iter().all(|(own, _)| own != name);
        for (name, value) in &unsampled {
            if let Ok(value) = str::from_utf8(value)
                && is_free(name)
            {
                headers.push((name, value));
            }
        }
        let (cluster, timeout) = (&settings.cluster, settings.timeout);
        let called =
            hostcalls::dispatch_http_call(cluster, headers, Some(&body), Vec::new(), timeout);
        self.sent_unix_nanos = now;
        match called {
            Ok(token) => {
                self.call = Some(token);
                self.tally.bytes += body.len() as u64;
                self.tally.batch_spans.push(spans.into());
            }
            // Envoy may come to know the cluster, or find a host of it that is well.
            Err(status) => {
                let said = match status {
                    Status::BadArgument => "Envoy knows no such cluster",
                    _ => {
                        "Envoy makes no call to it: no host is healthy, or too many calls are under way"
                    }
                };
                let said = said.to_owned();
                self.book(Judgement { verdict: Verdict::Retry { after: None }, said }, now);
            }
        }
    }

    fn judge(&self, body_size: usize, trailers: usize, now_unix_seconds: u64) -> Judgement {
        let headers = host::headers(MapType::HttpCallResponseHeaders).unwrap_or_default();
        let headers = pairs(&headers);
        let is_grpc = self.settings.protocol == Protocol::OtlpGrpc;
        let trailers = (is_grpc && trailers > 0)
            .then(|| host::headers(MapType::HttpCallResponseTrailers).ok())
            .flatten()
            .unwrap_or_default();
        let trailers = pairs(&trailers);
        let read_body = || host::buffer(BufferType::HttpCallResponseBody, MAX_ANSWER_BYTES);
        let body = if body_size > 0 { read_body().unwrap_or_default() } else { Vec::new() };
        let find = |name: &str| {
            let mut lines = trailers.iter().chain(&headers);
            lines.find(|(found, _)| *found == name.as_bytes()).map_or(&b""[..], |(_, value)| value)
        };
        let answer = Answer {
            status: find(":status"),
            retry_after: find("retry-after"),
            grpc_status: find("grpc-status"),
            grpc_message: find("grpc-message"),
            grpc_details: find("grpc-status-details-bin"),
            body: &body,
        };
        let judge = match self.settings.protocol {
            Protocol::OtlpHttp => Judgement::of_otlp_http,
            Protocol::OtlpGrpc => Judgement::of_otlp_grpc,
            Protocol::Zipkin => Judgement::of_http,
        };
        judge(&answer, now_unix_seconds)
    }

    fn book(&mut self, Judgement { verdict, said }: Judgement, now: u64) {
        let is_retry = matches!(verdict, Verdict::Retry { .. });
        let random = if is_retry { random() } else { 0 };
        self.queue.answered(verdict, now, random);
        match verdict {
            Verdict::Accepted { .. } => {
                self.tally.succeeded += 1;
                if !said.is_empty() && self.may_log("said") {
                    self.warn(&["the collector at cluster \"", self.cluster(), "\" ", &said]);
                }
                if std::mem::take(&mut self.log.failing) {
                    let message = [
                        "sidespan: the collector at cluster \"",
                        self.cluster(),
                        "\" takes spans again",
                    ];
                    host::log(LogLevel::Info, &message.concat());
                }
                self.log.said.clear();
            }
            Verdict::Retry { .. } => {
                self.tally.retried += 1;
                if self.may_log("failing") {
                    self.log.failing = true;
                    let queued = self.queue.books().queued.to_string();
                    self.warn(&[
                        "the collector at cluster \"",
                        self.cluster(),
                        "\" takes no spans now: ",
                        &said,
                        "; ",
                        &queued,
                        " are queued in this worker, and are sent again",
                    ]);
                }
                self.log.said = said;
            }
            Verdict::TooLarge | Verdict::Refused => {
                self.tally.failed += 1;
                self.log.said = said;
            }
        }
    }

    /// Logs how many spans were dropped since the last time.
    fn log_drops(&mut self) {
        let dropped = self.queue.books().dropped;
        if dropped == self.log.dropped || !self.may_log("dropped") {
            return;
        }
        let mut text = String::new();
        let since = dropped.iter().zip(self.log.dropped);
        for ((count, before), reason) in since.zip(DropReason::ALL) {
            if *count != before {
                let parts = [&(count - before).to_string(), " ", reason.name()].concat();
                text.push_str(if text.is_empty() { "" } else { ", " });
                text.push_str(&parts);
            }
        }
        self.log.dropped = dropped;
        let said = std::mem::take(&mut self.log.said);
        let joint = match said.as_str() {
            "" => "",
            said if said.starts_with("Envoy") => "; ",
            _ => "; it ",
        };
        self.warn(&[
            "spans for the collector at cluster \"",
            self.cluster(),
            "\" were dropped in this worker: ",
            &text,
            joint,
            &said,
        ]);
    }

    fn may_log(&self, kind: &str) -> bool {
        limits::may_log(kind, self.cluster())
    }

    fn warn(&self, message: &[&str]) {
        host::log(LogLevel::Warn, &["sidespan: ", &message.concat()].concat());
    }

    fn cluster(&self) -> &str {
        &self.settings.cluster
    }

    /// Sets the timer to when a batch is due again, or to the interval.
    fn wake_in_time(&mut self, now: u64) {
        let interval = self.settings.interval;
        let rest = self.queue.rest_nanos(now).map(Duration::from_nanos);
        let period = match rest {
            _ if self.queue.is_urgent() => AT_ONCE,
            // The next tick must not come before: Envoy's timer counts milliseconds.
            Some(rest) => (rest + AT_ONCE).min(interval),
            None => interval,
        };
        if period != self.tick_period {
            self.set_tick_period(period);
        }
    }

    fn set_tick_period(&mut self, period: Duration) {
        self.tick_period = period;
        host::set_tick_period(period);
    }
}

fn body(protocol: Protocol, batch: &Batch) -> Vec<u8> {
    let mut body = Vec::new();
    match protocol {
        Protocol::OtlpHttp => otlp::put_export_request(&mut body, &batch.resource, &batch.run),
        Protocol::OtlpGrpc => {
            body.resize(grpc::MESSAGE_PREFIX_BYTES, 0);
            otlp::put_export_request(&mut body, &batch.resource, &batch.run);
            grpc::write_message_prefix(&mut body);
        }
        Protocol::Zipkin => return zipkin::spans(&batch.resource, &batch.run),
    }
    body
}

/// Has the host compress a body. An Envoy that is built without its function for it does not.
fn compressed(body: &[u8]) -> Option<Vec<u8>> {
    let zlib = host::call_foreign("compress", body).ok()?;
    let mut compressed = Vec::new();
    gzip::put(&mut compressed, &zlib, body).then_some(compressed)
}

fn content_type(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::OtlpHttp => "application/x-protobuf",
        Protocol::OtlpGrpc => "application/grpc",
        Protocol::Zipkin => "application/json",
    }
}

/// Returns a random number, or the middle one where the host has none.
fn random() -> u32 {
    let mut bytes = [0; 4];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u32::from_le_bytes(bytes),
        Err(_) => u32::MAX / 2,
    }
}

/// How long after its time an answer is waited for: Envoy gives one, but a call that is never answered
/// would hold everything up.
const ANSWER_GRACE: Duration = Duration::from_secs(5);
/// Shortest period that Envoy's timer takes.
const AT_ONCE: Duration = Duration::from_millis(1);
const NANOS_PER_SECOND: u64 = 1_000_000_000;
const NANOS_PER_MILLI: u64 = 1_000_000;
/// How much of an answer is read: a partial success with its message is far shorter.
const MAX_ANSWER_BYTES: usize = 64 << 10;
const USER_AGENT: &str = concat!("sidespan/", env!("CARGO_PKG_VERSION"));
