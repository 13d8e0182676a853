//! The filter's metrics: one table of names, labels and values.
//!
//! Names are as Prometheus has them. A label is written into the name as Istio writes the labels of
//! its metrics:
//!
//! ```text
//! name  = "sidespan." *label family
//! label = key "=.=" value ";.;"
//! ```
//!
//! `stats_tags` in Envoy's bootstrap, or `extraStatTags` in Istio, turns them into labels.

use MetricKind::{Counter, Gauge};

use crate::export::queue::{DropReason, SpanCounts};
use crate::export::tally::{ExportTally, RuleOutcome, Tally, Totals};
use crate::propagation::Format;
use crate::sampling::decision::DecisionKind;
use crate::sampling::rules::{NO_RULE, Rules, label_value};

/// A counter or gauge.
#[derive(Debug, Clone)]
pub(crate) struct Metric {
    /// As Envoy knows it.
    pub name: String,
    pub kind: MetricKind,
    /// Whether Envoy shows it before there is something to count, with the value 0. Alerts need that:
    /// Prometheus sees no increase in the first value of a counter.
    pub shown_from_start: bool,
    value: Value,
}

/// A metric, and its state at the host.
#[derive(Debug, Clone)]
pub(crate) struct PublishedMetric {
    pub metric: Metric,
    /// Its id at the host, once it is defined.
    pub id: Option<u32>,
    /// The value that was published last.
    published: u64,
}

/// The kind of a metric in Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetricKind {
    Counter,
    Gauge,
}

/// Where the value of a metric stands in the totals.
#[derive(Debug, Clone, Copy)]
enum Value {
    Spans(fn(&SpanCounts) -> u64),
    Dropped(DropReason),
    Exports(fn(&ExportTally) -> u64),
    Requests(fn(&Tally) -> u64),
    Decisions(DecisionKind),
    InvalidContexts(Format),
    Rule { index: usize, outcome: RuleOutcome },
}

/// Metrics without a label, all shown from the start.
const PLAIN: [(&str, MetricKind, Value); 16] = [
    ("spans_recorded_total", Counter, Value::Spans(|it| it.recorded)),
    ("spans_exported_total", Counter, Value::Spans(|it| it.exported)),
    ("spans_queued", Gauge, Value::Spans(|it| it.queued)),
    ("queue_bytes", Gauge, Value::Spans(|it| it.queued_bytes)),
    ("export_bytes_total", Counter, Value::Exports(|it| it.bytes)),
    ("attributes_truncated_total", Counter, Value::Requests(|it| it.attributes_truncated)),
    ("attributes_dropped_total", Counter, Value::Requests(|it| it.attributes_dropped)),
    (
        "tracestate_members_dropped_total",
        Counter,
        Value::Requests(|it| it.trace_state_members_dropped),
    ),
    ("baggage_members_dropped_total", Counter, Value::Requests(|it| it.baggage_members_dropped)),
    ("contexts_restarted_total", Counter, Value::Requests(|it| it.contexts_restarted)),
    ("context_overwritten_total", Counter, Value::Requests(|it| it.contexts_overwritten)),
    ("spans_limited_total", Counter, Value::Requests(|it| it.spans_limited)),
    ("condition_searches_exceeded_total", Counter, Value::Requests(|it| it.searches_exceeded)),
    ("late_exported_total", Counter, Value::Requests(|it| it.late_exported)),
    ("late_limited_total", Counter, Value::Requests(|it| it.late_limited)),
    ("late_not_held_total", Counter, Value::Requests(|it| it.late_not_held)),
];

/// Counters with one label: family, label, its value. `true` for those shown from the start.
const LABELLED: [(&str, &str, &str, bool, Value); 7] = [
    ("exports_total", "result", "success", true, Value::Exports(|it| it.succeeded)),
    ("exports_total", "result", "retry", true, Value::Exports(|it| it.retried)),
    ("exports_total", "result", "failure", true, Value::Exports(|it| it.failed)),
    (
        "invalid_contexts_total",
        "format",
        "tracestate",
        false,
        Value::Requests(|it| it.invalid_trace_states),
    ),
    (
        "tokens_refused_total",
        "reason",
        "malformed",
        false,
        Value::Requests(|it| it.tokens_malformed),
    ),
    ("tokens_refused_total", "reason", "foreign", false, Value::Requests(|it| it.tokens_rejected)),
    ("tokens_refused_total", "reason", "expired", false, Value::Requests(|it| it.tokens_expired)),
];

/// Returns all metrics of a configuration with these rules, except histograms, in the order in which they
/// are published. The recorded spans are the last: if their number has changed, all other metrics of that
/// tick are already published.
pub(crate) fn metrics(rules: &Rules) -> Vec<Metric> {
    let plain = PLAIN.map(|(family, kind, value)| {
        let name = metric_name(family, &[]);
        Metric { name, kind, shown_from_start: true, value }
    });
    let with_label = |(family, label, label_value, shown_from_start, value)| {
        let name = metric_name(family, &[(label, label_value)]);
        Metric { name, kind: Counter, shown_from_start, value }
    };
    let dropped = DropReason::ALL.map(|reason| {
        with_label(("spans_dropped_total", "reason", reason.name(), true, Value::Dropped(reason)))
    });
    let decisions = DecisionKind::ALL.map(|kind| {
        with_label(("decisions_total", "decision", kind.name(), true, Value::Decisions(kind)))
    });
    let invalid_contexts = Format::ALL.map(|format| {
        let value = Value::InvalidContexts(format);
        with_label(("invalid_contexts_total", "format", format.name(), false, value))
    });
    let mut metrics = Vec::from(plain);
    metrics.extend(LABELLED.map(with_label));
    metrics.extend(dropped);
    metrics.extend(decisions);
    metrics.extend(invalid_contexts);
    let rule_names = rules.iter().map(|rule| label_value(&rule.name)).chain([NO_RULE.to_owned()]);
    for (index, rule) in rule_names.enumerate() {
        metrics.extend(RuleOutcome::ALL.map(|outcome| Metric {
            name: metric_name(
                "rule_decisions_total",
                &[("rule", &rule), ("outcome", outcome.name())],
            ),
            kind: Counter,
            shown_from_start: false,
            value: Value::Rule { index, outcome },
        }));
    }
    metrics.reverse();
    metrics
}

impl Metric {
    /// Returns the value that Envoy should show.
    pub(crate) fn value(&self, totals: &Totals<'_>) -> u64 {
        let Totals { spans, exports, requests } = totals;
        let found = match self.value {
            Value::Spans(value) => Some(value(spans)),
            Value::Exports(value) => exports.map(value),
            Value::Requests(value) => requests.map(value),
            Value::Dropped(reason) => spans.dropped.get(reason as usize).copied(),
            Value::Decisions(kind) => {
                requests.and_then(|tally| tally.decisions.get(kind as usize).copied())
            }
            Value::InvalidContexts(format) => {
                requests.and_then(|tally| tally.invalid_contexts.get(format as usize).copied())
            }
            Value::Rule { index, outcome } => {
                requests.and_then(|tally| tally.by_rule.get(index)?.get(outcome as usize).copied())
            }
        };
        found.unwrap_or_default()
    }
}

impl PublishedMetric {
    pub(crate) fn new(metric: Metric) -> Self {
        Self { metric, id: None, published: 0 }
    }

    /// Returns its value in the totals minus the published one.
    pub(crate) fn offset(&self, totals: &Totals<'_>) -> i64 {
        self.metric.value(totals).wrapping_sub(self.published).cast_signed()
    }

    /// Records that the host accepted an offset. An offset that it refused becomes part of the next one.
    pub(crate) fn record_published(&mut self, offset: i64) {
        self.published = self.published.wrapping_add_signed(offset);
    }
}

/// Returns the name under which Envoy keeps a metric.
pub(crate) fn metric_name(family: &str, labels: &[(&str, &str)]) -> String {
    let mut name = "sidespan.".to_owned();
    for (key, value) in labels {
        name.push_str(&[key, "=.=", value, ";.;"].concat());
    }
    name.push_str(family);
    name
}

/// Returns the name of the gauge that shows which versions run.
pub(crate) fn build_info() -> String {
    metric_name("build_info", &[("version", env!("CARGO_PKG_VERSION"))])
}

/// Counter of valid configurations that Envoy uses, once for each root context.
pub(crate) const CONFIGURED: &str = "configured_total";
/// Gauge of invalid configurations that were accepted, but are not in force.
pub(crate) const CONFIGURATION_REJECTED: &str = "configuration_rejected";
/// Histogram of the time that receivers took to respond, in milliseconds.
pub(crate) const EXPORT_DURATION: &str = "export_duration_milliseconds";
/// Histogram of the number of spans in an export request.
pub(crate) const EXPORT_BATCH_SPANS: &str = "export_batch_spans";

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::config::Config;

    fn rules(names: &[&str]) -> Rules {
        let rules: Vec<_> = names.iter().map(|name| format!(r#"{{"name": "{name}"}}"#)).collect();
        let json = format!(r#"{{"sampling": {{"rules": [{}]}}}}"#, rules.join(","));
        Config::parse(json.as_bytes(), &|_| None).unwrap().rules
    }

    /// Compares the names and values of all metrics with one rule, `a b`, that Envoy shows.
    #[track_caller]
    fn check(totals: &Totals<'_>, expected: &[(&str, u64)]) {
        let shown: BTreeMap<String, u64> = metrics(&rules(&["a b"]))
            .into_iter()
            .map(|metric| (metric.value(totals), metric))
            .filter(|(value, metric)| *value != 0 || metric.shown_from_start)
            .map(|(value, metric)| (metric.name, value))
            .collect();
        let expected = expected.iter().map(|(name, value)| (format!("sidespan.{name}"), *value));
        assert_eq!(shown, expected.collect());
    }

    #[test]
    fn metrics_for_alerts_are_shown_from_the_start() {
        let shown = [
            "attributes_dropped_total",
            "attributes_truncated_total",
            "baggage_members_dropped_total",
            "condition_searches_exceeded_total",
            "context_overwritten_total",
            "contexts_restarted_total",
            "decision=.=drop;.;decisions_total",
            "decision=.=force;.;decisions_total",
            "decision=.=ignore;.;decisions_total",
            "decision=.=parent;.;decisions_total",
            "decision=.=ratio;.;decisions_total",
            "export_bytes_total",
            "late_exported_total",
            "late_limited_total",
            "late_not_held_total",
            "queue_bytes",
            "reason=.=configuration_removed;.;spans_dropped_total",
            "reason=.=partial_success;.;spans_dropped_total",
            "reason=.=queue_full;.;spans_dropped_total",
            "reason=.=rejected;.;spans_dropped_total",
            "reason=.=retries_exhausted;.;spans_dropped_total",
            "reason=.=too_large;.;spans_dropped_total",
            "result=.=failure;.;exports_total",
            "result=.=retry;.;exports_total",
            "result=.=success;.;exports_total",
            "spans_exported_total",
            "spans_limited_total",
            "spans_queued",
            "spans_recorded_total",
            "tracestate_members_dropped_total",
        ];
        let zero = shown.map(|name| (name, 0));
        check(&Totals::default(), &zero);
        let (exports, tally) = (ExportTally::default(), Tally::new(1));
        let spans = SpanCounts::default();
        check(&Totals { spans, exports: Some(&exports), requests: Some(&tally) }, &zero);
    }

    #[test]
    fn an_offset_that_the_host_refused_is_a_part_of_the_next() {
        let queued = metrics(&rules(&[])).into_iter().find(|it| it.name == "sidespan.spans_queued");
        let mut queued = PublishedMetric::new(queued.unwrap());
        for (total, is_added, expected) in
            [(0, true, 0), (3, true, 3), (5, false, 2), (6, true, 3), (1, true, -5), (1, true, 0)]
        {
            let spans = SpanCounts { queued: total, ..SpanCounts::default() };
            let offset = queued.offset(&Totals { spans, ..Totals::default() });
            assert_eq!(offset, expected, "{total}");
            if is_added {
                queued.record_published(offset);
            }
        }
    }

    #[test]
    fn each_count_has_its_own_name() {
        let spans = SpanCounts {
            recorded: 1,
            exported: 2,
            dropped: [3, 4, 5, 6, 7, 8],
            queued: 9,
            queued_bytes: 10,
        };
        let exports = ExportTally {
            succeeded: 11,
            retried: 12,
            failed: 13,
            bytes: 14,
            ..ExportTally::default()
        };
        let mut tally = Tally {
            decisions: [15, 16, 17, 18, 19],
            by_rule: vec![[20, 21, 22, 23], [24, 25, 26, 27]],
            invalid_trace_states: 28,
            attributes_truncated: 29,
            attributes_dropped: 30,
            trace_state_members_dropped: 31,
            baggage_members_dropped: 32,
            contexts_restarted: 33,
            spans_limited: 34,
            searches_exceeded: 35,
            late_exported: 36,
            late_limited: 37,
            late_not_held: 38,
            contexts_overwritten: 39,
            tokens_malformed: 40,
            tokens_rejected: 41,
            tokens_expired: 42,
            ..Tally::default()
        };
        (43..).zip(&mut tally.invalid_contexts).for_each(|(value, count)| *count = value);
        let expected = [
            ("spans_recorded_total", 1),
            ("spans_exported_total", 2),
            ("reason=.=queue_full;.;spans_dropped_total", 3),
            ("reason=.=rejected;.;spans_dropped_total", 4),
            ("reason=.=partial_success;.;spans_dropped_total", 5),
            ("reason=.=retries_exhausted;.;spans_dropped_total", 6),
            ("reason=.=too_large;.;spans_dropped_total", 7),
            ("reason=.=configuration_removed;.;spans_dropped_total", 8),
            ("spans_queued", 9),
            ("queue_bytes", 10),
            ("result=.=success;.;exports_total", 11),
            ("result=.=retry;.;exports_total", 12),
            ("result=.=failure;.;exports_total", 13),
            ("export_bytes_total", 14),
            ("decision=.=force;.;decisions_total", 15),
            ("decision=.=drop;.;decisions_total", 16),
            ("decision=.=ignore;.;decisions_total", 17),
            ("decision=.=parent;.;decisions_total", 18),
            ("decision=.=ratio;.;decisions_total", 19),
            ("rule=.=a_b;.;outcome=.=sampled;.;rule_decisions_total", 20),
            ("rule=.=a_b;.;outcome=.=unsampled;.;rule_decisions_total", 21),
            ("rule=.=a_b;.;outcome=.=ignored;.;rule_decisions_total", 22),
            ("rule=.=a_b;.;outcome=.=limited;.;rule_decisions_total", 23),
            ("rule=.=none;.;outcome=.=sampled;.;rule_decisions_total", 24),
            ("rule=.=none;.;outcome=.=unsampled;.;rule_decisions_total", 25),
            ("rule=.=none;.;outcome=.=ignored;.;rule_decisions_total", 26),
            ("rule=.=none;.;outcome=.=limited;.;rule_decisions_total", 27),
            ("format=.=tracestate;.;invalid_contexts_total", 28),
            ("attributes_truncated_total", 29),
            ("attributes_dropped_total", 30),
            ("tracestate_members_dropped_total", 31),
            ("baggage_members_dropped_total", 32),
            ("contexts_restarted_total", 33),
            ("spans_limited_total", 34),
            ("condition_searches_exceeded_total", 35),
            ("late_exported_total", 36),
            ("late_limited_total", 37),
            ("late_not_held_total", 38),
            ("context_overwritten_total", 39),
            ("reason=.=malformed;.;tokens_refused_total", 40),
            ("reason=.=foreign;.;tokens_refused_total", 41),
            ("reason=.=expired;.;tokens_refused_total", 42),
        ];
        let invalid =
            |format: Format| format!("format=.={};.;invalid_contexts_total", format.name());
        let formats = Format::ALL.map(invalid);
        let of_formats = formats.iter().map(String::as_str).zip(43..);
        let expected: Vec<_> = expected.into_iter().chain(of_formats).collect();
        check(&Totals { spans, exports: Some(&exports), requests: Some(&tally) }, &expected);
    }

    #[test]
    fn each_name_occurs_once_and_only_gauges_can_sink() {
        let all = metrics(&rules(&["a", "b/c"]));
        let names: BTreeSet<_> = all.iter().map(|metric| &metric.name).collect();
        assert_eq!(names.len(), all.len());
        let gauges = all.iter().filter(|metric| metric.kind == Gauge).map(|metric| &*metric.name);
        assert_eq!(gauges.collect::<Vec<_>>(), ["sidespan.queue_bytes", "sidespan.spans_queued"]);
    }

    #[test]
    fn recorded_spans_are_published_last() {
        let last = metrics(&rules(&["a"])).pop().map(|metric| metric.name);
        assert_eq!(last.as_deref(), Some("sidespan.spans_recorded_total"));
    }
}
