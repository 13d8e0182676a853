//! What is counted, and its way into Envoy's statistics.
//!
//! A hostcall a count would cost a request more than its decision does, so counts are kept here and
//! published on the tick, all at once: between two ticks the published books balance too.

use super::host::{self, MetricId, MetricKind};
use crate::decision::Kind;
use crate::queue::Books;
use crate::request::Outcome;
use crate::rules::Rules;
use crate::token::TokenFault;

/// Counts that no other part keeps.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    decisions: [u64; Kind::ALL.len()],
    /// What became of requests by each rule, and last by none.
    by_rule: Vec<[u64; RULE_OUTCOMES.len()]>,
    invalid_contexts: u64,
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
        self.invalid_contexts += u64::from(faults.invalid_contexts());
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

/// The metrics of one root context.
pub struct Metrics {
    metrics: Vec<Metric>,
    /// By rule and outcome, each defined once there is something to count: most never are.
    by_rule: Vec<RuleMetrics>,
}

struct Metric {
    /// None where the host refused to define it; it is then not published.
    id: Option<MetricId>,
    published: u64,
}

struct RuleMetrics {
    /// The rule's name as a part of a statistic's.
    name: String,
    outcomes: [Option<Metric>; RULE_OUTCOMES.len()],
}

impl Metric {
    fn define(kind: MetricKind, name: &[&str]) -> Self {
        let mut full_name = PREFIX.to_owned();
        name.iter().for_each(|part| full_name.push_str(part));
        Self { id: host::define_metric(kind, &full_name).ok(), published: 0 }
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
}

impl Metrics {
    pub fn define(rules: &Rules) -> Self {
        let mut metrics = Vec::new();
        for name in SPANS {
            metrics.push(Metric::define(MetricKind::Counter, &[name]));
        }
        metrics.push(Metric::define(MetricKind::Gauge, &["spans_queued"]));
        for kind in Kind::ALL {
            metrics.push(Metric::define(MetricKind::Counter, &["decisions_", kind.name()]));
        }
        for name in OTHERS {
            metrics.push(Metric::define(MetricKind::Counter, &[name]));
        }
        let mut by_rule = Vec::new();
        for name in rules.iter().map(|rule| rule.name.as_str()).chain([NO_RULE]) {
            let outcomes = [const { None }; RULE_OUTCOMES.len()];
            by_rule.push(RuleMetrics { name: part_of_name(name), outcomes });
        }
        Self { metrics, by_rule }
    }

    /// Brings the host's values up to these.
    pub fn publish(&mut self, books: Books, tally: &Tally) {
        let spans = [books.recorded, books.exported, books.dropped, books.queued()];
        let others = [
            tally.invalid_contexts,
            tally.attributes_truncated,
            tally.attributes_dropped,
            tally.trace_state_members_dropped,
            tally.baggage_members_dropped,
            tally.contexts_restarted,
            tally.spans_limited,
            tally.late_exported,
            tally.late_limited,
            tally.tokens_malformed,
            tally.tokens_foreign,
            tally.tokens_expired,
        ];
        let values = spans.into_iter().chain(tally.decisions).chain(others);
        for (metric, value) in self.metrics.iter_mut().zip(values) {
            metric.publish(value);
        }
        for (rule, counts) in self.by_rule.iter_mut().zip(&tally.by_rule) {
            for ((metric, outcome), count) in
                rule.outcomes.iter_mut().zip(RULE_OUTCOMES).zip(counts)
            {
                if *count != 0 {
                    let name = ["rule_decisions.", &rule.name, ".", outcome];
                    metric
                        .get_or_insert_with(|| Metric::define(MetricKind::Counter, &name))
                        .publish(*count);
                }
            }
        }
    }
}

/// Makes a rule's name a part of a statistic's, whose parts are divided by dots.
fn part_of_name(rule: &str) -> String {
    let plain = |char: char| char.is_ascii_alphanumeric() || char == '-';
    rule.chars().map(|char| if plain(char) { char } else { '_' }).collect()
}

const SPANS: [&str; 3] = ["spans_recorded", "spans_exported", "spans_dropped"];
const OTHERS: [&str; 12] = [
    "invalid_contexts",
    "attributes_truncated",
    "attributes_dropped",
    "tracestate_members_dropped",
    "baggage_members_dropped",
    "contexts_restarted",
    "spans_limited",
    "late_exported",
    "late_limited",
    "tokens_malformed",
    "tokens_foreign",
    "tokens_expired",
];
/// What may become of a request by a rule; the last, that the rule was over its limit.
const RULE_OUTCOMES: [&str; 4] = ["sampled", "unsampled", "ignored", "limited"];
const SAMPLED: usize = 0;
const UNSAMPLED: usize = 1;
const IGNORED: usize = 2;
const LIMITED: usize = 3;
/// Stands for the rule of requests that none decided.
const NO_RULE: &str = "none";
const PREFIX: &str = "sidespan.";
