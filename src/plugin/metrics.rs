//! Publishes metrics to Envoy.

use proxy_wasm::types::MetricType;

use super::host;
use crate::export::statistics::{
    self, EXPORT_BATCH_SPANS, EXPORT_DURATION, Metric, MetricKind, PublishedMetric,
};
use crate::export::tally::{ExportTally, Totals};
use crate::sampling::rules::Rules;

/// The metrics of one configuration.
pub(super) struct Metrics {
    all: Vec<PublishedMetric>,
    export_duration: Option<u32>,
    export_batch_spans: Option<u32>,
}

impl Metrics {
    /// Defines the metrics that are shown from the start.
    pub(super) fn define(rules: &Rules) -> Self {
        let metrics = statistics::metrics(rules).into_iter();
        let mut all: Vec<_> = metrics.map(PublishedMetric::new).collect();
        for published in all.iter_mut().filter(|published| published.metric.shown_from_start) {
            published.id = define(&published.metric);
        }
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
            let offset = published.offset(totals);
            if offset == 0 {
                continue;
            }
            published.id = published.id.or_else(|| define(&published.metric));
            if published.id.is_some_and(|id| host::increment_metric(id, offset).is_ok()) {
                published.record_published(offset);
            }
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

/// Defines a metric at the host, and returns its id.
fn define(metric: &Metric) -> Option<u32> {
    let kind = match metric.kind {
        MetricKind::Counter => MetricType::Counter,
        MetricKind::Gauge => MetricType::Gauge,
    };
    host::define_metric(kind, &metric.name).ok()
}
