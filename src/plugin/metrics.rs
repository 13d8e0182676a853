//! Publishes metrics to Envoy.

use proxy_wasm::types::MetricType;

use super::host;
use crate::export::statistics::{self, EXPORT_BATCH_SPANS, EXPORT_DURATION, Metric, MetricKind};
use crate::export::tally::{ExportTally, Totals};
use crate::sampling::rules::Rules;

/// The metrics of one configuration.
pub(super) struct Metrics {
    all: Vec<PublishedMetric>,
    export_duration: Option<u32>,
    export_batch_spans: Option<u32>,
}

struct PublishedMetric {
    metric: Metric,
    /// Its id at the host, once it is defined.
    id: Option<u32>,
    /// The value that the host has.
    published: u64,
}

impl Metrics {
    /// Defines the metrics that are shown from the start.
    pub(super) fn define(rules: &Rules) -> Self {
        let new = |metric| PublishedMetric { metric, id: None, published: 0 };
        let mut all: Vec<_> = statistics::metrics(rules).into_iter().map(new).collect();
        let from_start = all.iter_mut().filter(|published| published.metric.shown_from_start);
        from_start.for_each(|published| {
            published.id();
        });
        let histogram = |name| {
            let name = statistics::metric_name(name, &[]);
            host::define_metric(MetricType::Histogram, &name).ok()
        };
        let export_duration = histogram(EXPORT_DURATION);
        Self { all, export_duration, export_batch_spans: histogram(EXPORT_BATCH_SPANS) }
    }

    /// Updates the host's values to the totals.
    pub(super) fn publish(&mut self, totals: &Totals<'_>) {
        for published in &mut self.all {
            published.publish(published.metric.value(totals));
        }
    }

    /// Moves the measurements of export requests to the host.
    pub(super) fn record(&self, exports: &mut ExportTally) {
        let histograms = [
            (self.export_duration, &mut exports.duration_millis),
            (self.export_batch_spans, &mut exports.batch_spans),
        ];
        for (id, values) in histograms {
            for value in values.drain(..) {
                if let Some(id) = id {
                    host::record_metric(id, value);
                }
            }
        }
    }
}

/// Adds to a metric that all configurations share. From then on, Envoy shows it.
pub(super) fn add(kind: MetricType, name: &str, offset: i64) {
    if let Ok(id) = host::define_metric(kind, name)
        && offset != 0
    {
        let _ = host::increment_metric(id, offset);
    }
}

impl PublishedMetric {
    /// Returns the id at the host. Defines the metric if it has none.
    fn id(&mut self) -> Option<u32> {
        let kind = match self.metric.kind {
            MetricKind::Counter => MetricType::Counter,
            MetricKind::Gauge => MetricType::Gauge,
        };
        if self.id.is_none() {
            self.id = host::define_metric(kind, &self.metric.name).ok();
        }
        self.id
    }

    /// Updates the host's value. If the host refuses, the next update makes up for it.
    fn publish(&mut self, value: u64) {
        let offset = value.wrapping_sub(self.published).cast_signed();
        if offset != 0
            && let Some(id) = self.id()
            && host::increment_metric(id, offset).is_ok()
        {
            self.published = value;
        }
    }
}
