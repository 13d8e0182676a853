//! What an exporter logs, and how often anything is logged.
//!
//! All workers of an Envoy log the same things about the same receiver, so most kinds of lines are
//! limited to one a minute over all workers. Only the host can count over workers: it decides which
//! lines are logged, and confirms them.

use crate::export::queue::DropReason;
use crate::sampling::limit::Limit;

/// Returns the limit of log lines of one kind about one subject: one a minute.
pub(crate) fn limit(kind: &str, subject: &str) -> Option<Limit> {
    Limit::new(&["log/", kind, "/", subject].concat(), LINES_PER_SECOND, 1)
}

/// A line to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogLine {
    pub kind: LogKind,
    pub text: String,
}

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogKind {
    /// The receiver does not accept spans at the moment.
    Failing,
    /// The receiver accepts spans again.
    Recovered,
    /// The receiver accepted a batch, and returned a message about it.
    Message,
    /// Spans were dropped.
    Dropped,
    /// The host does not compress bodies.
    NotCompressed,
}

/// How urgent a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogLevel {
    Info,
    Warn,
}

impl LogKind {
    pub(crate) fn level(self) -> LogLevel {
        match self {
            Self::Recovered => LogLevel::Info,
            _ => LogLevel::Warn,
        }
    }

    /// Returns the name under which lines of this kind are limited to one a minute for each cluster;
    /// none if they are not limited.
    pub(crate) fn limit_name(self) -> Option<&'static str> {
        match self {
            Self::Failing => Some("failing"),
            // It follows a line that was limited.
            Self::Recovered => None,
            Self::Message => Some("message"),
            Self::Dropped => Some("dropped"),
            Self::NotCompressed => Some("gzip"),
        }
    }
}

/// The lines of an exporter that are not logged yet, and what earlier lines said.
#[derive(Debug)]
pub(crate) struct ExportLog {
    cluster: String,
    lines: Vec<LogLine>,
    /// Whether the log says that exports fail, and not yet that they work again.
    is_failing: bool,
    /// The last export error, until a line about drops gives it as the reason.
    last_error: String,
    /// Dropped spans, by reason, as of the last line about drops.
    dropped: DroppedByReason,
    reports_drops: bool,
}

/// Counts in the order of [`DropReason::ALL`].
type DroppedByReason = [u64; DropReason::ALL.len()];

impl ExportLog {
    pub(crate) fn new(cluster: &str) -> Self {
        Self {
            cluster: cluster.to_owned(),
            lines: Vec::new(),
            is_failing: false,
            last_error: String::new(),
            dropped: DroppedByReason::default(),
            reports_drops: false,
        }
    }

    /// Notes that the receiver accepted a batch, and with which message.
    pub(crate) fn accepted(&mut self, message: &str) {
        if !message.is_empty() {
            self.add(LogKind::Message, "", &[" ", message]);
        }
        if std::mem::take(&mut self.is_failing) {
            self.add(LogKind::Recovered, "", &[" accepts spans again"]);
        }
        self.last_error.clear();
    }

    /// Notes that a batch will be sent again, and how many spans are queued.
    pub(crate) fn failing(&mut self, error: String, queued: u64) {
        let queued = queued.to_string();
        let queued = ["; spans queued in this worker, to be sent again: ", &queued].concat();
        self.add(LogKind::Failing, "", &[" does not accept spans: ", &error, &queued]);
        self.last_error = error;
    }

    /// Notes that the receiver refused a batch.
    pub(crate) fn refused(&mut self, error: String) {
        self.last_error = error;
    }

    /// Notes that the host did not compress a body.
    pub(crate) fn not_compressed(&mut self) {
        let text = "sidespan: export requests are sent uncompressed: Envoy cannot compress them"
            .to_owned();
        self.lines.push(LogLine { kind: LogKind::NotCompressed, text });
    }

    /// Requests a line about new drops, if there are any. The line is not built at each drop, because drops
    /// happen while requests are handled.
    pub(crate) fn report_drops(&mut self) {
        self.reports_drops = true;
    }

    /// Returns the lines to log, in their order. `dropped` counts all dropped spans.
    pub(crate) fn take_lines(&mut self, dropped: DroppedByReason) -> Vec<LogLine> {
        if std::mem::take(&mut self.reports_drops) && dropped != self.dropped {
            self.add_drops(dropped);
        }
        std::mem::take(&mut self.lines)
    }

    /// Notes that a line was logged.
    pub(crate) fn logged(&mut self, kind: LogKind, dropped: DroppedByReason) {
        match kind {
            LogKind::Failing => self.is_failing = true,
            LogKind::Dropped => {
                self.dropped = dropped;
                self.last_error.clear();
            }
            LogKind::Recovered | LogKind::Message | LogKind::NotCompressed => {}
        }
    }

    fn add_drops(&mut self, dropped: DroppedByReason) {
        let mut counts = String::new();
        let since = dropped.iter().zip(self.dropped);
        for ((count, before), reason) in since.zip(DropReason::ALL) {
            if *count != before {
                counts.push_str(if counts.is_empty() { "" } else { ", " });
                counts.push_str(&(count - before).to_string());
                counts.push(' ');
                counts.push_str(reason.name());
            }
        }
        let error = std::mem::take(&mut self.last_error);
        let joint = match error.as_str() {
            "" => "",
            error if error.starts_with("Envoy") => "; ",
            _ => "; it ",
        };
        let after = [" were dropped in this worker: ", &counts, joint, &error];
        self.add(LogKind::Dropped, "spans for ", &after);
        self.last_error = error;
    }

    /// Adds a line about the receiver.
    fn add(&mut self, kind: LogKind, before: &str, after: &[&str]) {
        let receiver = ["the collector at cluster \"", &self.cluster, "\""].concat();
        let text = ["sidespan: ", before, &receiver, &after.concat()].concat();
        self.lines.push(LogLine { kind, text });
    }
}

const LINES_PER_SECOND: f64 = 1.0 / 60.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::limit::{BurstShare, Permits};

    #[test]
    fn one_line_a_minute_is_logged_about_a_subject() {
        const SECOND: u64 = 1_000_000_000;
        let limit_of_a = limit("failing", "a").unwrap();
        let start = 1_767_225_600 * SECOND;
        let take = |state, seconds| {
            limit_of_a.take(state, start + seconds * SECOND, BurstShare::Full, Permits::One)
        };
        let first = take(None, 0);
        assert!(first.is_some());
        assert_eq!(take(first, 59), None);
        assert!(take(first, 60).is_some());
        for other in [limit("failing", "b"), limit("dropped", "a")] {
            assert_ne!(other.unwrap().key(), limit_of_a.key());
        }
    }
}
