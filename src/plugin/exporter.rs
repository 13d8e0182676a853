//! Sends batches of spans to an Envoy cluster: OTLP over HTTP, one call at a time.
//!
//! <https://opentelemetry.io/docs/specs/otlp/#otlphttp>

use std::time::Duration;

use opentelemetry::KeyValue;

use super::host::{self, LogLevel};
use crate::config;
use crate::otlp;
use crate::queue::{Books, Queue};

/// The exporter of one worker.
pub struct Exporter {
    settings: config::Exporter,
    /// The encoded resource of all spans.
    resource: Vec<u8>,
    queue: Queue,
    /// A tick was asked for at once.
    hurried: bool,
    /// Why the latest export failed, until it is logged.
    reason: Option<String>,
    reported: Reported,
}

/// When dropped spans were last logged, and how many there were by then.
#[derive(Default)]
struct Reported {
    at_unix_nanos: Option<u64>,
    dropped: u64,
}

impl Exporter {
    pub fn new(settings: config::Exporter, resource: &[KeyValue]) -> Self {
        let resource = otlp::encode_resource(resource);
        let queue = Queue::new(settings.limits);
        let reported = Reported::default();
        Self { settings, resource, queue, hurried: false, reason: None, reported }
    }

    pub fn interval(&self) -> Duration {
        self.settings.interval
    }

    pub fn books(&self) -> Books {
        self.queue.books()
    }

    /// Queues a span. A full batch is sent on a tick that comes at once: a call from the stream
    /// that ends here would never be answered, since only root contexts live on.
    pub fn push(&mut self, span: &[u8]) {
        self.queue.push(span);
        if self.queue.is_urgent() && !self.hurried {
            self.hurried = true;
            host::set_tick_period(AT_ONCE);
        }
    }

    /// Sends what is due. Runs in the root context.
    pub fn tick(&mut self) {
        if self.hurried {
            self.hurried = false;
            host::set_tick_period(self.settings.interval);
        }
        self.send();
        self.report();
    }

    /// Gives up all spans that wait or are under way.
    pub fn abandon(&mut self) {
        self.queue.abandon();
    }

    /// Books the answer to the call under way, and sends the next batch where a full one waits.
    pub fn answered(&mut self) {
        let status = host::http_call_status();
        let status = status.as_ref().map(host::Bytes::as_slice).unwrap_or_default();
        let accepted = matches!(status, [b'2', _, _]);
        self.queue.answered(accepted);
        if !accepted {
            let status = String::from_utf8_lossy(status);
            let shown = if status.is_empty() { "no status" } else { &status };
            self.reason = Some(format!("cluster \"{}\" answered {shown}", self.settings.cluster));
        }
        if self.queue.is_urgent() {
            self.send();
        }
    }

    fn send(&mut self) {
        let settings = &self.settings;
        let sent = self.queue.send_next(&self.resource, |body| {
            let mut headers = vec![
                (":method", "POST"),
                (":path", settings.path.as_str()),
                (":authority", settings.authority.as_str()),
                ("content-type", "application/x-protobuf"),
                ("user-agent", USER_AGENT),
            ];
            let own = settings.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            headers.extend(own);
            host::http_call(&settings.cluster, &headers, body, settings.timeout)
        });
        if let Err(status) = sent {
            let cluster = &self.settings.cluster;
            self.reason = Some(format!("cluster \"{cluster}\" takes no call: {status:?}"));
        }
    }

    /// Logs why spans were dropped since the last time, at most once a minute.
    fn report(&mut self) {
        let dropped = self.queue.books().dropped;
        let lost = dropped - self.reported.dropped;
        if lost == 0 {
            return;
        }
        let now = host::now();
        let recent = |last| now.saturating_sub(last) < REPORT_PERIOD_NANOS;
        if self.reported.at_unix_nanos.is_some_and(recent) {
            return;
        }
        self.reported = Reported { at_unix_nanos: Some(now), dropped };
        let reason = self.reason.take();
        let reason = reason.as_deref().unwrap_or("the export queue is full");
        host::log(LogLevel::Warn, &format!("sidespan: {lost} spans dropped: {reason}"));
    }
}

/// Shortest period that Envoy's timer takes.
const AT_ONCE: Duration = Duration::from_millis(1);
const REPORT_PERIOD_NANOS: u64 = 60_000_000_000;
const USER_AGENT: &str = concat!("sidespan/", env!("CARGO_PKG_VERSION"));
