//! Counts of requests and exports, kept here until they are published.
//!
//! A hostcall for each count would cost a request more than its decision does. The counts are
//! published all at once on the tick, so that the published counts of spans balance at any time.

use crate::export::queue::SpanCounts;
use crate::propagation::{Faults, Format};
use crate::sampling::decision::DecisionKind;
use crate::sampling::token::TokenFault;

/// How one request was decided, and what was wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestSummary {
    pub kind: DecisionKind,
    pub sampled: bool,
    /// Index of the rule that decided.
    pub rule: Option<usize>,
    /// Indices of the rules that matched, but were over their limits.
    pub limited: Vec<usize>,
    /// The limit of all spans refused this one.
    pub over_limit: bool,
    /// A new trace was started in place of the incoming one.
    pub restarted: bool,
    pub faults: Faults,
    /// Why tokens were rejected.
    pub token_faults: Vec<TokenFault>,
    /// Conditions exceeded the number of bytes that they may search.
    pub search_exceeded: bool,
}

/// Counts of requests, and of what was wrong with them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    /// In the order of [`DecisionKind::ALL`].
    pub decisions: [u64; DecisionKind::ALL.len()],
    /// Outcomes of each rule; the last entry counts requests that no rule decided.
    pub by_rule: Vec<[u64; RuleOutcome::ALL.len()]>,
    /// In the order of [`Format::ALL`].
    pub invalid_contexts: [u64; Format::ALL.len()],
    pub invalid_trace_states: u64,
    pub attributes_truncated: u64,
    pub attributes_dropped: u64,
    pub trace_state_members_dropped: u64,
    pub baggage_members_dropped: u64,
    pub contexts_restarted: u64,
    pub spans_limited: u64,
    pub searches_exceeded: u64,
    pub late_exported: u64,
    pub late_limited: u64,
    /// Requests whose headers did not fit into `max_held_bytes`, so that they have no late span.
    pub late_not_held: u64,
    /// Of the requests that were checked, those whose upstream got another context than this filter's.
    pub contexts_overwritten: u64,
    pub tokens_malformed: u64,
    pub tokens_rejected: u64,
    pub tokens_expired: u64,
}

impl Tally {
    pub(crate) fn new(rules: usize) -> Self {
        Self { by_rule: vec![Default::default(); rules + 1], ..Self::default() }
    }

    /// Counts a request that was decided.
    pub(crate) fn decided(&mut self, request: &RequestSummary) {
        if let Some(count) = self.decisions.get_mut(request.kind as usize) {
            *count += 1;
        }
        for rule in &request.limited {
            self.count_rule(*rule, RuleOutcome::Limited);
        }
        let no_rule = self.by_rule.len().saturating_sub(1);
        let outcome = match request.kind {
            DecisionKind::Ignore => RuleOutcome::Ignored,
            _ if request.sampled => RuleOutcome::Sampled,
            _ => RuleOutcome::Unsampled,
        };
        self.count_rule(request.rule.unwrap_or(no_rule), outcome);
        self.spans_limited += u64::from(request.over_limit);
        self.contexts_restarted += u64::from(request.restarted);
        let faults = &request.faults;
        for format in &faults.invalid {
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

    /// Counts a request that met a condition of `export_on`, and whether the limits allowed its span.
    pub(crate) fn ended_late(&mut self, permitted: bool) {
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

/// What a rule did with a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RuleOutcome {
    Sampled,
    Unsampled,
    Ignored,
    /// The rule matched, but was over its limit.
    Limited,
}

impl RuleOutcome {
    pub(crate) const ALL: [Self; 4] =
        [Self::Sampled, Self::Unsampled, Self::Ignored, Self::Limited];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sampled => "sampled",
            Self::Unsampled => "unsampled",
            Self::Ignored => "ignored",
            Self::Limited => "limited",
        }
    }
}

/// Counts of export requests, and measurements that are not published yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ExportTally {
    pub succeeded: u64,
    pub retried: u64,
    pub failed: u64,
    /// Bytes of the bodies.
    pub bytes: u64,
    /// Spans of each request.
    pub batch_spans: Vec<u64>,
    /// Time to the response, of each request that got one.
    pub duration_millis: Vec<u64>,
}

/// All counts of a configuration in one worker.
#[derive(Debug, Clone, Default)]
pub(crate) struct Totals<'t> {
    pub spans: SpanCounts,
    pub exports: Option<&'t ExportTally>,
    pub requests: Option<&'t Tally>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNSAMPLED: RequestSummary = RequestSummary {
        kind: DecisionKind::Ratio,
        sampled: false,
        rule: None,
        limited: Vec::new(),
        over_limit: false,
        restarted: false,
        faults: Faults {
            invalid: Vec::new(),
            invalid_trace_state: false,
            trace_state_members_dropped: 0,
            baggage_members_dropped: 0,
        },
        token_faults: Vec::new(),
        search_exceeded: false,
    };

    /// Compares what is counted of these requests, with two rules.
    #[track_caller]
    fn check(requests: &[RequestSummary], expected: Tally) {
        let mut tally = Tally::new(2);
        requests.iter().for_each(|request| tally.decided(request));
        assert_eq!(format!("{tally:?}"), format!("{expected:?}"));
    }

    #[test]
    fn each_request_counts_for_its_decision_and_its_rule() {
        check(&[], Tally::new(2));
        let requests = [
            UNSAMPLED,
            RequestSummary { sampled: true, ..UNSAMPLED },
            RequestSummary { kind: DecisionKind::Force, sampled: true, rule: Some(1), ..UNSAMPLED },
            RequestSummary { kind: DecisionKind::Ignore, rule: Some(0), ..UNSAMPLED },
            // Both rules matched and were over their limits.
            RequestSummary { limited: vec![0, 1], ..UNSAMPLED },
        ];
        let mut expected = Tally::new(2);
        expected.decisions[DecisionKind::Ratio as usize] = 3;
        expected.decisions[DecisionKind::Force as usize] = 1;
        expected.decisions[DecisionKind::Ignore as usize] = 1;
        // Sampled, unsampled, ignored, limited.
        expected.by_rule = vec![[0, 0, 1, 1], [1, 0, 0, 1], [1, 2, 0, 0]];
        check(&requests, expected);
    }

    #[test]
    fn each_fault_counts_once() {
        let faulty = RequestSummary {
            over_limit: true,
            restarted: true,
            search_exceeded: true,
            faults: Faults {
                invalid: vec![Format::B3Single, Format::Jaeger],
                invalid_trace_state: true,
                trace_state_members_dropped: 2,
                baggage_members_dropped: 3,
            },
            token_faults: vec![TokenFault::Malformed, TokenFault::Expired],
            ..UNSAMPLED
        };
        let mut expected = Tally::new(2);
        expected.decisions[DecisionKind::Ratio as usize] = 1;
        expected.by_rule[2] = [0, 1, 0, 0];
        expected.invalid_contexts[Format::B3Single as usize] = 1;
        expected.invalid_contexts[Format::Jaeger as usize] = 1;
        (expected.invalid_trace_states, expected.spans_limited) = (1, 1);
        (expected.contexts_restarted, expected.searches_exceeded) = (1, 1);
        (expected.trace_state_members_dropped, expected.baggage_members_dropped) = (2, 3);
        (expected.tokens_malformed, expected.tokens_expired) = (1, 1);
        check(&[faulty], expected);
    }

    #[test]
    fn names_and_indices_are_in_the_same_order() {
        assert!(DecisionKind::ALL.iter().enumerate().all(|(index, kind)| *kind as usize == index));
        assert!(Format::ALL.iter().enumerate().all(|(index, format)| *format as usize == index));
        assert!(RuleOutcome::ALL.iter().enumerate().all(|(index, it)| *it as usize == index));
    }
}
