//! What is counted, and its way into Envoy's statistics.
//!
//! A hostcall a count would cost a request more than its decision does, so counts are kept here and
//! published on the tick, all at once: between two ticks the published books balance too.

use super::host::{self, MetricId, MetricKind};
use crate::decision::Kind;
use crate::propagation::Faults;
use crate::queue::Books;

/// Counts that no other part keeps.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    decisions: [u64; Kind::ALL.len()],
    invalid_contexts: u64,
    pub attributes_truncated: u64,
    pub attributes_dropped: u64,
    trace_state_members_dropped: u64,
    baggage_members_dropped: u64,
}

impl Tally {
    pub fn decided(&mut self, kind: Kind) {
        let counts = Kind::ALL.iter().zip(&mut self.decisions);
        counts.filter(|(counted, _)| **counted == kind).for_each(|(_, count)| *count += 1);
    }

    pub fn found(&mut self, faults: &Faults) {
        self.invalid_contexts += u64::from(faults.invalid_contexts());
        self.trace_state_members_dropped += u64::from(faults.trace_state_members_dropped);
        self.baggage_members_dropped += u64::from(faults.baggage_members_dropped);
    }
}

/// The metrics of one root context.
pub struct Metrics {
    metrics: Vec<Metric>,
}

struct Metric {
    /// None where the host refused to define it; it is then not published.
    id: Option<MetricId>,
    published: u64,
}

impl Metrics {
    pub fn define() -> Self {
        let counters = ["spans_recorded", "spans_exported", "spans_dropped"]
            .into_iter()
            .map(|name| (MetricKind::Counter, name.to_owned()));
        let gauge = [(MetricKind::Gauge, "spans_queued".to_owned())];
        let decisions =
            Kind::ALL.map(|kind| (MetricKind::Counter, format!("decisions_{}", kind.name())));
        let faults = FAULTS.map(|name| (MetricKind::Counter, name.to_owned()));
        let all = counters.chain(gauge).chain(decisions).chain(faults);
        let metrics = all.map(|(kind, name)| Metric {
            id: host::define_metric(kind, &format!("{PREFIX}{name}")).ok(),
            published: 0,
        });
        Self { metrics: metrics.collect() }
    }

    /// Brings the host's values up to these. What the host does not take is tried again.
    pub fn publish(&mut self, books: Books, tally: &Tally) {
        let spans = [books.recorded, books.exported, books.dropped, books.queued()];
        let faults = [
            tally.invalid_contexts,
            tally.attributes_truncated,
            tally.attributes_dropped,
            tally.trace_state_members_dropped,
            tally.baggage_members_dropped,
        ];
        let values = spans.into_iter().chain(tally.decisions).chain(faults);
        for (metric, value) in self.metrics.iter_mut().zip(values) {
            let offset = value.wrapping_sub(metric.published).cast_signed();
            let Some(id) = metric.id.filter(|_| offset != 0) else {
                continue;
            };
            if host::increment_metric(id, offset).is_ok() {
                metric.published = value;
            }
        }
    }
}

const FAULTS: [&str; 5] = [
    "invalid_contexts",
    "attributes_truncated",
    "attributes_dropped",
    "tracestate_members_dropped",
    "baggage_members_dropped",
];
const PREFIX: &str = "sidespan.";
