//! What the filter counts, and the names under which Envoy shows it.
//!
//! A hostcall a count would cost a request more than its decision does, so counts are kept here and
//! published on the tick, all at once: between two ticks the published books balance too.
//!
//! Names are Prometheus' own, and a label is written as Istio writes those of its metrics:
//!
//! ```text
//! name  = "sidespan." *label family
//! label = key "=.=" value ";.;"
//! ```
//!
//! `stats_tags` of Envoy's bootstrap, and `extraStatTags` of Istio's, turn them into labels.

use crate::export::queue::{Books, DropReason};
use crate::propagation::{Faults, Format};
use crate::sampling::decision::DecisionKind;
use crate::sampling::rules::{NO_RULE, Rules, label_value};
use crate::sampling::token::TokenFault;

/// How one request was decided, and what was wrong with it: what statistics count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestSummary {
    pub kind: DecisionKind,
    pub sampled: bool,
    /// Index of the rule that decided.
    pub rule: Option<usize>,
    /// Indices of the rules whose conditions held, and that were over their limits.
    pub limited: Vec<usize>,
    /// The limit of all spans refused this one.
    pub over_limit: bool,
    /// A new trace was started in place of the incoming one.
    pub restarted: bool,
    pub faults: Faults,
    /// Why tokens were refused.
    pub token_faults: Vec<TokenFault>,
    /// Conditions would have searched more than they may.
    pub search_exceeded: bool,
}

/// Counts of requests and of what was wrong with them.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    decisions: [u64; DecisionKind::ALL.len()],
    /// How each rule decided requests; the last entry counts requests that no rule decided.
    by_rule: Vec<[u64; RuleOutcome::ALL.len()]>,
    invalid_contexts: [u64; Format::ALL.len()],
    invalid_trace_states: u64,
    pub attributes_truncated: u64,
    pub attributes_dropped: u64,
    trace_state_members_dropped: u64,
    baggage_members_dropped: u64,
    contexts_restarted: u64,
    spans_limited: u64,
    searches_exceeded: u64,
    late_exported: u64,
    late_limited: u64,
    /// Requests whose headers had no room until their end.
    pub late_not_held: u64,
    /// Requests whose upstream got another context than this filter's, of those that were compared.
    pub contexts_overwritten: u64,
    tokens_malformed: u64,
    tokens_rejected: u64,
    tokens_expired: u64,
}

impl Tally {
    pub fn new(rules: usize) -> Self {
        Self { by_rule: vec![Default::default(); rules + 1], ..Self::default() }
    }

    /// Counts a request that was decided.
    pub fn decided(&mut self, request: &RequestSummary) {
        // The kinds are in the order of `DecisionKind::ALL`.
        if let Some(count) = self.decisions.get_mut(request.kind as usize) {
            *count += 1;
        }
        for rule in &request.limited {
            self.count_rule(*rule, RuleOutcome::Limited);
        }
        let none = self.by_rule.len().saturating_sub(1);
        let by_rule = match request.kind {
            DecisionKind::Ignore => RuleOutcome::Ignored,
            _ if request.sampled => RuleOutcome::Sampled,
            _ => RuleOutcome::Unsampled,
        };
        self.count_rule(request.rule.unwrap_or(none), by_rule);
        self.spans_limited += u64::from(request.over_limit);
        self.contexts_restarted += u64::from(request.restarted);
        let faults = &request.faults;
        for format in &faults.invalid {
            // The counts are in the order of `Format::ALL`.
            if let Some(count) = self.invalid_contexts.get_mut(*format as usize) {
                *count += 1;
            }
        }
        self.invalid_trace_states += u64::from(faults.invalid_trace_state);
        self.searches_exceeded += u64::from(request.search_exceeded);
        self.trace_state_members_dropped += u64::from(faults.trace_state_members_dropped);
        self.baggage_members_dropped += u64::from(faults.baggage_members_dropped);
        for fault in &request.token_faults {
            *match fault {
                TokenFault::Malformed => &mut self.tokens_malformed,
                TokenFault::Rejected => &mut self.tokens_rejected,
                TokenFault::Expired => &mut self.tokens_expired,
            } += 1;
        }
    }

    /// Counts a request that ended as `export_on` says, and whether the limits allowed its span.
    pub fn ended_late(&mut self, permitted: bool) {
        *(if permitted { &mut self.late_exported } else { &mut self.late_limited }) += 1;
    }

    fn count_rule(&mut self, rule: usize, outcome: RuleOutcome) {
        if let Some(counts) = self.by_rule.get_mut(rule)
            && let Some(count) = counts.get_mut(outcome as usize)
        {
            *count += 1;
        }
    }
}

/// How a rule decided a request.
#[derive(Debug, Clone, Copy)]
enum RuleOutcome {
    Sampled,
    Unsampled,
    Ignored,
    /// The rule was over its limit, and passed over.
    Limited,
}

impl RuleOutcome {
    const ALL: [Self; 4] = [Self::Sampled, Self::Unsampled, Self::Ignored, Self::Limited];

    fn name(self) -> &'static str {
        match self {
            Self::Sampled => "sampled",
            Self::Unsampled => "unsampled",
            Self::Ignored => "ignored",
            Self::Limited => "limited",
        }
    }
}

/// Counts of an exporter's calls, and measurements of them that are not published yet.
#[derive(Debug, Clone, Default)]
pub struct ExportTally {
    pub succeeded: u64,
    pub retried: u64,
    pub failed: u64,
    /// Bytes of the bodies.
    pub bytes: u64,
    pub batch_spans: Vec<u64>,
    pub duration_millis: Vec<u64>,
}

/// All that is counted.
#[derive(Debug, Clone, Default)]
pub struct Totals<'t> {
    pub books: Books,
    pub exports: Option<&'t ExportTally>,
    pub requests: Option<&'t Tally>,
}

/// What kind of metric Envoy keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
}

/// A counter or gauge: its name, and how its value follows from the totals.
pub struct Statistic {
    pub name: String,
    pub kind: MetricKind,
    /// Shown from the start, with the value 0. An alert needs that: Prometheus sees no increase in
    /// the first value of a counter. Other statistics are shown once there is something to count.
    pub shown_from_start: bool,
    value: Box<dyn Fn(&Totals<'_>) -> u64>,
}

impl Statistic {
    /// Returns the value that Envoy should show.
    pub fn value(&self, totals: &Totals<'_>) -> u64 {
        (self.value)(totals)
    }
}

/// Returns all statistics of a configuration with these rules, except histograms.
pub fn statistics(rules: &Rules) -> Vec<Statistic> {
    let mut table = Table(Vec::new());
    table.plain("spans_recorded_total", |totals| totals.books.recorded);
    table.plain("spans_exported_total", |totals| totals.books.exported);
    table.gauge("spans_queued", |totals| totals.books.queued);
    table.gauge("queue_bytes", |totals| totals.books.queued_bytes);
    for reason in DropReason::ALL {
        let label = [("reason", reason.name())];
        table.always("spans_dropped_total", &label, move |totals| {
            totals.books.dropped.get(reason as usize).copied().unwrap_or_default()
        });
    }

    table.plain("export_bytes_total", exports(|exports| exports.bytes));
    let results: [Count<ExportTally>; 3] = [
        ("success", |exports| exports.succeeded),
        ("retry", |exports| exports.retried),
        ("failure", |exports| exports.failed),
    ];
    for (result, count) in results {
        table.always("exports_total", &[("result", result)], exports(count));
    }

    let plain: [Count<Tally>; 11] = [
        ("attributes_truncated_total", |tally| tally.attributes_truncated),
        ("attributes_dropped_total", |tally| tally.attributes_dropped),
        ("tracestate_members_dropped_total", |tally| tally.trace_state_members_dropped),
        ("baggage_members_dropped_total", |tally| tally.baggage_members_dropped),
        ("contexts_restarted_total", |tally| tally.contexts_restarted),
        ("context_overwritten_total", |tally| tally.contexts_overwritten),
        ("spans_limited_total", |tally| tally.spans_limited),
        ("condition_searches_exceeded_total", |tally| tally.searches_exceeded),
        ("late_exported_total", |tally| tally.late_exported),
        ("late_limited_total", |tally| tally.late_limited),
        ("late_not_held_total", |tally| tally.late_not_held),
    ];
    for (name, count) in plain {
        table.plain(name, requests(count));
    }
    for kind in DecisionKind::ALL {
        let count =
            move |tally: &Tally| tally.decisions.get(kind as usize).copied().unwrap_or_default();
        table.always("decisions_total", &[("decision", kind.name())], requests(count));
    }
    for format in Format::ALL {
        let count = move |tally: &Tally| {
            tally.invalid_contexts.get(format as usize).copied().unwrap_or_default()
        };
        table.seldom("invalid_contexts_total", &[("format", format.name())], requests(count));
    }
    let label = [("format", "tracestate")];
    table.seldom("invalid_contexts_total", &label, requests(|tally| tally.invalid_trace_states));
    let refused: [Count<Tally>; 3] = [
        ("malformed", |tally| tally.tokens_malformed),
        ("foreign", |tally| tally.tokens_rejected),
        ("expired", |tally| tally.tokens_expired),
    ];
    for (reason, count) in refused {
        table.seldom("tokens_refused_total", &[("reason", reason)], requests(count));
    }
    let names = rules.iter().map(|rule| label_value(&rule.name)).chain([NO_RULE.to_owned()]);
    for (rule, name) in names.enumerate() {
        for outcome in RuleOutcome::ALL {
            let count = move |tally: &Tally| {
                let counts = tally.by_rule.get(rule).and_then(|all| all.get(outcome as usize));
                counts.copied().unwrap_or_default()
            };
            let labels = [("rule", name.as_str()), ("outcome", outcome.name())];
            table.seldom("rule_decisions_total", &labels, requests(count));
        }
    }
    table.0
}

/// A name or a label's value, and what is counted under it.
type Count<T> = (&'static str, fn(&T) -> u64);

/// Statistics under way.
struct Table(Vec<Statistic>);

impl Table {
    fn plain(&mut self, family: &str, value: impl Fn(&Totals<'_>) -> u64 + 'static) {
        self.always(family, &[], value);
    }

    fn gauge(&mut self, family: &str, value: impl Fn(&Totals<'_>) -> u64 + 'static) {
        self.add(family, &[], MetricKind::Gauge, true, value);
    }

    fn always(
        &mut self,
        family: &str,
        labels: &[(&str, &str)],
        value: impl Fn(&Totals<'_>) -> u64 + 'static,
    ) {
        self.add(family, labels, MetricKind::Counter, true, value);
    }

    fn seldom(
        &mut self,
        family: &str,
        labels: &[(&str, &str)],
        value: impl Fn(&Totals<'_>) -> u64 + 'static,
    ) {
        self.add(family, labels, MetricKind::Counter, false, value);
    }

    fn add(
        &mut self,
        family: &str,
        labels: &[(&str, &str)],
        kind: MetricKind,
        shown_from_start: bool,
        value: impl Fn(&Totals<'_>) -> u64 + 'static,
    ) {
        let name = metric_name(family, labels);
        self.0.push(Statistic { name, kind, shown_from_start, value: Box::new(value) });
    }
}

fn exports(count: impl Fn(&ExportTally) -> u64) -> impl Fn(&Totals<'_>) -> u64 {
    move |totals| totals.exports.map_or(0, &count)
}

fn requests(count: impl Fn(&Tally) -> u64) -> impl Fn(&Totals<'_>) -> u64 {
    move |totals| totals.requests.map_or(0, &count)
}

/// Returns the name under which Envoy keeps a metric.
pub fn metric_name(family: &str, labels: &[(&str, &str)]) -> String {
    let labels = labels.iter().map(|(key, value)| format!("{key}=.={value};.;"));
    format!("sidespan.{}{family}", labels.collect::<String>())
}

/// Returns the name of the gauge that says which versions run.
pub fn build_info() -> String {
    metric_name("build_info", &[("version", env!("CARGO_PKG_VERSION"))])
}

/// The counter of configurations that were taken.
pub const CONFIGURED: &str = "configured_total";
/// The gauge of configurations that are not valid, and were taken all the same.
pub const CONFIGURATION_REJECTED: &str = "configuration_rejected";
/// The histogram of how long the collector took to answer, in milliseconds.
pub const EXPORT_DURATION: &str = "export_duration_milliseconds";
/// The histogram of how many spans a call carried.
pub const EXPORT_BATCH_SPANS: &str = "export_batch_spans";

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::Config;

    fn rules(names: &[&str]) -> Rules {
        let rules: Vec<_> = names.iter().map(|name| format!(r#"{{"name": "{name}"}}"#)).collect();
        let json = format!(r#"{{"sampling": {{"rules": [{}]}}}}"#, rules.join(","));
        Config::parse(json.as_bytes(), &|_| None).unwrap().rules
    }

    /// The statistics that are shown, by name, with their values.
    fn shown(rules: &Rules, totals: &Totals<'_>) -> BTreeMap<String, u64> {
        statistics(rules)
            .into_iter()
            .map(|it| (it.value(totals), it))
            .filter(|(value, it)| *value != 0 || it.shown_from_start)
            .map(|(value, it)| (it.name, value))
            .collect()
    }

    #[test]
    fn every_name_stands_once() {
        let all = statistics(&rules(&["a", "b/c"]));
        let names: std::collections::BTreeSet<_> = all.iter().map(|it| &it.name).collect();
        assert_eq!(names.len(), all.len());
        assert!(names.iter().all(|name| name.starts_with("sidespan.")));
    }

    #[test]
    fn each_count_has_its_own_name() {
        let mut tally = Tally::new(1);
        tally.decisions = [1, 2, 3, 4, 5];
        tally.by_rule = vec![[6, 0, 0, 7], [0, 8, 9, 0]];
        tally.invalid_contexts[Format::B3Multi as usize] = 10;
        (tally.invalid_trace_states, tally.tokens_rejected) = (11, 12);
        (tally.spans_limited, tally.late_limited, tally.late_not_held) = (13, 14, 15);
        let exports = ExportTally { succeeded: 16, failed: 17, bytes: 18, ..Default::default() };
        let mut books = Books { recorded: 19, exported: 20, queued: 21, ..Books::default() };
        books.dropped[DropReason::TooLarge as usize] = 22;
        let totals = Totals { books, exports: Some(&exports), requests: Some(&tally) };
        let mut found = shown(&rules(&["a b"]), &totals);
        found.retain(|_, value| *value != 0);
        let expected = [
            ("sidespan.decision=.=drop;.;decisions_total", 2),
            ("sidespan.decision=.=force;.;decisions_total", 1),
            ("sidespan.decision=.=ignore;.;decisions_total", 3),
            ("sidespan.decision=.=parent;.;decisions_total", 4),
            ("sidespan.decision=.=ratio;.;decisions_total", 5),
            ("sidespan.export_bytes_total", 18),
            ("sidespan.format=.=b3multi;.;invalid_contexts_total", 10),
            ("sidespan.format=.=tracestate;.;invalid_contexts_total", 11),
            ("sidespan.late_limited_total", 14),
            ("sidespan.late_not_held_total", 15),
            ("sidespan.reason=.=foreign;.;tokens_refused_total", 12),
            ("sidespan.reason=.=too_large;.;spans_dropped_total", 22),
            ("sidespan.result=.=failure;.;exports_total", 17),
            ("sidespan.result=.=success;.;exports_total", 16),
            ("sidespan.rule=.=a_b;.;outcome=.=limited;.;rule_decisions_total", 7),
            ("sidespan.rule=.=a_b;.;outcome=.=sampled;.;rule_decisions_total", 6),
            ("sidespan.rule=.=none;.;outcome=.=ignored;.;rule_decisions_total", 9),
            ("sidespan.rule=.=none;.;outcome=.=unsampled;.;rule_decisions_total", 8),
            ("sidespan.spans_exported_total", 20),
            ("sidespan.spans_limited_total", 13),
            ("sidespan.spans_queued", 21),
            ("sidespan.spans_recorded_total", 19),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(found, BTreeMap::from(expected));
    }

    #[test]
    fn alerts_find_their_statistics_from_the_start() {
        let found = shown(&rules(&["a"]), &Totals::default());
        for name in ["spans_dropped_total", "exports_total", "decisions_total", "spans_queued"] {
            assert!(found.keys().any(|key| key.ends_with(name)), "{name}: {found:?}");
        }
        assert!(!found.keys().any(|key| key.contains("rule=.=")), "{found:?}");
    }
}
