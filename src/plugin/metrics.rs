//! What is counted, and its way into Envoy's statistics.
//!
//! A hostcall a count would cost a request more than its decision does, so counts are kept here and
//! published on the tick, all at once: between two ticks the published books balance too.
//!
//! Names are Prometheus', and their labels are written as Istio writes those of its own:
//!
//! ```text
//! name  = "sidespan." *label family
//! label = key "=.=" value ";.;"
//! ```
//!
//! `stats_tags` of Envoy's bootstrap, and `extraStatTags` of Istio's, make labels of them.

use super::host::{self, MetricId, MetricKind};
use crate::decision::Kind;
use crate::propagation::Form;
use crate::queue::{Books, DropReason};
use crate::request::Outcome;
use crate::rules::Rules;
use crate::token::TokenFault;

/// Counts that no other part keeps.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    decisions: [u64; Kind::ALL.len()],
    /// What became of requests by each rule, and last by none.
    by_rule: Vec<[u64; RULE_OUTCOMES.len()]>,
    invalid_contexts: [u64; Form::ALL.len()],
    invalid_trace_states: u64,
    pub attributes_truncated: u64,
    pub attributes_dropped: u64,
    trace_state_members_dropped: u64,
    baggage_members_dropped: u64,
    contexts_restarted: u64,
    spans_limited: u64,
    late_exported: u64,
    late_limited: u64,
    tokens_malformed: u64,
    tokens_foreign: u64,
    tokens_expired: u64,
}

impl Tally {
    pub fn new(rules: usize) -> Self {
        Self { by_rule: vec![[0; RULE_OUTCOMES.len()]; rules + 1], ..Self::default() }
    }

    pub fn decided(&mut self, outcome: &Outcome<'_>) {
        // The kinds are in the order of `Kind::ALL`.
        if let Some(count) = self.decisions.get_mut(outcome.kind as usize) {
            *count += 1;
        }
        for place in &outcome.limited {
            self.count_rule(*place, LIMITED);
        }
        let none = self.by_rule.len().saturating_sub(1);
        let what = match outcome.kind {
            Kind::Ignore => IGNORED,
            _ if outcome.sampled => SAMPLED,
            _ => UNSAMPLED,
        };
        self.count_rule(outcome.rule.unwrap_or(none), what);
        self.spans_limited += u64::from(outcome.over_limit);
        self.contexts_restarted += u64::from(outcome.restarted);
        let faults = &outcome.faults;
        for form in &faults.invalid {
            // The forms are in the order of `Form::ALL`.
            if let Some(count) = self.invalid_contexts.get_mut(*form as usize) {
                *count += 1;
            }
        }
        self.invalid_trace_states += u64::from(faults.invalid_trace_state);
        self.trace_state_members_dropped += u64::from(faults.trace_state_members_dropped);
        self.baggage_members_dropped += u64::from(faults.baggage_members_dropped);
        for fault in &faults.tokens {
            *match fault {
                TokenFault::Malformed => &mut self.tokens_malformed,
                TokenFault::Foreign => &mut self.tokens_foreign,
                TokenFault::Expired => &mut self.tokens_expired,
            } += 1;
        }
    }

    /// Counts a request that ended as `export_on` says, and whether the limits allowed its span.
    pub fn ended_late(&mut self, permitted: bool) {
        *(if permitted { &mut self.late_exported } else { &mut self.late_limited }) += 1;
    }

    fn count_rule(&mut self, place: usize, outcome: usize) {
        let count = self.by_rule.get_mut(place).and_then(|outcomes| outcomes.get_mut(outcome));
        if let Some(count) = count {
            *count += 1;
        }
    }
}

/// Calls of an exporter, and their values that are not published yet.
#[derive(Debug, Default)]
pub struct ExportTally {
    pub succeeded: u64,
    pub retried: u64,
    pub failed: u64,
    /// Of the bodies.
    pub bytes: u64,
    pub batch_spans: Vec<u64>,
    pub duration_millis: Vec<u64>,
}

/// The metrics of one root context.
pub struct Metrics {
    plain: [Metric; PLAIN.len()],
    gauges: [Metric; GAUGES.len()],
    histograms: [Metric; HISTOGRAMS.len()],
    /// In the order of [`FAMILIES`]; most are defined once there is something to count.
    labelled: [Option<Metric>; LABELLED],
    by_rule: Vec<RuleMetrics>,
}

struct Metric {
    /// None where the host refused to define it; it is then not published.
    id: Option<MetricId>,
    published: u64,
}

struct RuleMetrics {
    /// The rule's name as a label has it.
    name: String,
    outcomes: [Option<Metric>; RULE_OUTCOMES.len()],
}

impl Metric {
    #[inline(never)]
    fn define(kind: MetricKind, name: &[&str]) -> Self {
        let name = [PREFIX, &name.concat()].concat();
        Self { id: host::define_metric(kind, &name).ok(), published: 0 }
    }

    /// Brings the host's value up to this. What the host does not take is tried again.
    fn publish(&mut self, value: u64) {
        let offset = value.wrapping_sub(self.published).cast_signed();
        if let Some(id) = self.id.filter(|_| offset != 0)
            && host::increment_metric(id, offset).is_ok()
        {
            self.published = value;
        }
    }

    /// Gives the values of a histogram to the host.
    fn record(&self, values: &mut Vec<u64>) {
        for value in values.drain(..) {
            let _ = self.id.map(|id| host::record_metric(id, value));
        }
    }
}

impl Metrics {
    pub fn define(rules: &Rules) -> Self {
        let mut by_rule = Vec::new();
        for name in rules.iter().map(|rule| rule.name.as_str()).chain([NO_RULE]) {
            let outcomes = [const { None }; RULE_OUTCOMES.len()];
            by_rule.push(RuleMetrics { name: label_value(name), outcomes });
        }
        Self {
            plain: PLAIN.map(|name| Metric::define(MetricKind::Counter, &[name])),
            gauges: GAUGES.map(|name| Metric::define(MetricKind::Gauge, &[name])),
            histograms: HISTOGRAMS.map(|name| Metric::define(MetricKind::Histogram, &[name])),
            labelled: [const { None }; LABELLED],
            by_rule,
        }
    }

    /// Brings the host's values up to these.
    pub fn publish(&mut self, books: &Books, exports: &mut ExportTally, tally: &Tally) {
        publish_all(
            &mut self.plain,
            &[
                books.recorded,
                books.exported,
                exports.bytes,
                tally.attributes_truncated,
                tally.attributes_dropped,
                tally.trace_state_members_dropped,
                tally.baggage_members_dropped,
                tally.contexts_restarted,
                tally.spans_limited,
                tally.late_exported,
                tally.late_limited,
            ],
        );
        publish_all(&mut self.gauges, &[books.queued, books.queued_bytes]);
        let [durations, batches] = &self.histograms;
        durations.record(&mut exports.duration_millis);
        batches.record(&mut exports.batch_spans);
        self.publish_labelled(books, exports, tally);
        for (rule, counts) in self.by_rule.iter_mut().zip(&tally.by_rule) {
            for ((metric, outcome), count) in
                rule.outcomes.iter_mut().zip(RULE_OUTCOMES).zip(counts)
            {
                if *count != 0 {
                    let name = ["rule", IS, &rule.name, END, "outcome", IS, outcome, END, RULES];
                    publish_counter(metric, &name, *count);
                }
            }
        }
    }

    fn publish_labelled(&mut self, books: &Books, exports: &ExportTally, tally: &Tally) {
        let [success, retry, failure] = [exports.succeeded, exports.retried, exports.failed];
        let mut counts: Vec<(&str, u64)> = Vec::with_capacity(LABELLED);
        for (reason, spans) in DropReason::ALL.into_iter().zip(books.dropped) {
            counts.push((reason.name(), spans));
        }
        for (kind, count) in Kind::ALL.into_iter().zip(tally.decisions) {
            counts.push((kind.name(), count));
        }
        counts.extend([("success", success), ("retry", retry), ("failure", failure)]);
        for (form, count) in Form::ALL.into_iter().zip(tally.invalid_contexts) {
            counts.push((form.name(), count));
        }
        counts.extend([
            ("tracestate", tally.invalid_trace_states),
            ("malformed", tally.tokens_malformed),
            ("foreign", tally.tokens_foreign),
            ("expired", tally.tokens_expired),
        ]);
        let mut metrics = self.labelled.iter_mut().zip(counts);
        for (family, label, len, is_always_there) in FAMILIES {
            for (metric, (value, count)) in metrics.by_ref().take(len) {
                if count != 0 || is_always_there {
                    publish_counter(metric, &[label, IS, value, END, family], count);
                }
            }
        }
    }
}

#[inline(never)]
fn publish_all(metrics: &mut [Metric], values: &[u64]) {
    for (metric, value) in metrics.iter_mut().zip(values) {
        metric.publish(*value);
    }
}

#[inline(never)]
fn publish_counter(metric: &mut Option<Metric>, name: &[&str], count: u64) {
    metric.get_or_insert_with(|| Metric::define(MetricKind::Counter, name)).publish(count);
}

/// Makes a rule's name the value of a label.
fn label_value(rule: &str) -> String {
    let plain = |char: char| char.is_ascii_alphanumeric() || "-_./".contains(char);
    rule.chars().map(|char| if plain(char) { char } else { '_' }).collect()
}

const PLAIN: [&str; 11] = [
    "spans_recorded_total",
    "spans_exported_total",
    "export_bytes_total",
    "attributes_truncated_total",
    "attributes_dropped_total",
    "tracestate_members_dropped_total",
    "baggage_members_dropped_total",
    "contexts_restarted_total",
    "spans_limited_total",
    "late_exported_total",
    "late_limited_total",
];
const GAUGES: [&str; 2] = ["spans_queued", "queue_bytes"];
const HISTOGRAMS: [&str; 2] = ["export_duration_milliseconds", "export_batch_spans"];
const RULES: &str = "rule_decisions_total";
/// Metrics with one label: the name, the label, how many values it has, and whether all are there
/// from the start. What alerts are made of is: Prometheus sees no increase in a counter's first value.
const FAMILIES: [(&str, &str, usize, bool); 5] = [
    ("spans_dropped_total", "reason", DropReason::ALL.len(), true),
    ("decisions_total", "decision", Kind::ALL.len(), true),
    ("exports_total", "result", 3, true),
    ("invalid_contexts_total", "format", Form::ALL.len() + 1, false),
    ("tokens_refused_total", "reason", 3, false),
];
const LABELLED: usize = DropReason::ALL.len() + Kind::ALL.len() + 3 + Form::ALL.len() + 1 + 3;
/// What may become of a request by a rule; the last, that the rule was over its limit.
const RULE_OUTCOMES: [&str; 4] = ["sampled", "unsampled", "ignored", "limited"];
const SAMPLED: usize = 0;
const UNSAMPLED: usize = 1;
const IGNORED: usize = 2;
const LIMITED: usize = 3;
/// Stands for the rule of requests that none decided.
const NO_RULE: &str = "none";
const PREFIX: &str = "sidespan.";
const IS: &str = "=.=";
const END: &str = ";.;";
