//! What the filter does with one request. Features meet here and nowhere else.
//!
//! [`on_request_headers`] decides, propagates and records, in that order. Each step is a method of
//! [`Request`].

pub(crate) mod late;
pub(crate) mod overwrite_check;
pub(crate) mod stream_end;

use crate::config::Config;
use crate::export::tally::RequestSummary;
use crate::http::edits::{Edits, HeaderEdit};
use crate::http::head::Head;
use crate::http::path;
use crate::propagation::context::{Context, FreshIds, Sampling};
use crate::propagation::extracted::TraceRoot;
use crate::propagation::ot::ThresholdUpdate;
use crate::propagation::response::ResponseContext;
use crate::propagation::{self, Faults, Incoming};
use crate::sampling::conditions::{Direction, MatchFacts};
use crate::sampling::decision::{Decision, DecisionKind, Reason, decide};
use crate::sampling::limit::{BurstShare, Limit, Permits};
use crate::sampling::matching::ValidTokens;
use crate::sampling::rules::{Action, Rule};
use crate::sampling::search_budget::SearchBudget;
use crate::sampling::token::TokenFault;
use crate::span::Recording;

/// Facts about a request that only the host knows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RequestFacts<'a> {
    /// Absent if no rule needs it.
    pub direction: Option<Direction>,
    /// `source.address`; empty if it is unknown or not needed.
    pub source_address: &'a [u8],
    /// 0 if the time is not needed.
    pub unix_seconds: u64,
}

/// Which [`RequestFacts`] a request needs, beside the direction. Each costs a hostcall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NeededFacts {
    pub source_address: bool,
    pub time: bool,
}

/// Returns which facts the decision on a request needs.
pub(crate) fn needed_facts(config: &Config, head: &Head<'_>) -> NeededFacts {
    NeededFacts {
        source_address: config.trust.needs_source_address(head),
        time: config.tokens.iter().any(|token| head.first(&token.name).is_some()),
    }
}

/// Takes permits from each of two limits, or from neither if one of them refuses; the error is the
/// index of that limit.
pub(crate) type TakePermits<'p> =
    dyn FnMut([Option<(&Limit, BurstShare)>; 2], Permits) -> Result<(), usize> + 'p;

/// What the filter does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome<'c> {
    pub summary: RequestSummary,
    /// Changes to the headers that go upstream.
    pub edits: Vec<HeaderEdit<'c>>,
    pub span: PendingSpan<'c>,
    pub response_context: ResponseContext,
    /// The context that access logs show, if any. Boxed, since most requests have none.
    pub log_context: Option<Box<Context>>,
}

/// The span that is made of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PendingSpan<'c> {
    None,
    Recorded(Recording<'c>),
    /// The request gets a span only if it ends as `export_on` says. Boxed, since most do not.
    Late(Box<Recording<'static>>),
}

/// Decides whether a request is traced, edits the headers that go upstream, and returns the span to
/// record.
///
/// A recorded request sends upstream the id of its span, or of the span of the call upstream if there is one.
/// A request that is not recorded keeps its incoming ids: otherwise, spans upstream would have a parent that
/// does not exist. Without incoming ids it gets fresh ones: otherwise, the upstream would treat the request
/// as a root and sample again.
pub(crate) fn on_request_headers<'c>(
    config: &'c Config,
    head: &Head<'_>,
    facts: RequestFacts<'_>,
    fresh: FreshIds,
    take_permits: &mut TakePermits<'_>,
) -> Outcome<'c> {
    let (tokens, token_faults) = match config.tokens.is_empty() {
        true => (ValidTokens::default(), Vec::new()),
        false => verify_tokens(config, head, facts.unix_seconds),
    };
    let RequestFacts { direction, source_address, .. } = facts;
    // An outbound span is the span of the call upstream already.
    let is_inbound = direction == Some(Direction::Inbound);
    let fresh =
        FreshIds { upstream_span_id: fresh.upstream_span_id.filter(|_| is_inbound), ..fresh };
    let facts = MatchFacts { direction, source_address, tokens };
    let request = Request { config, head, facts, fresh, budgets: Budgets::default() };
    let rule = config.rules.first_match(head, facts, &request.budgets.rules, 0);
    // Most ignored requests go on without their contexts being read.
    if is_ignored(rule) && config.trust.accepts_all() {
        return request.ignore(rule, Vec::new(), token_faults, None);
    }
    let mut incoming = config.propagation.extract(head);
    if !config.trust.accepts_all() {
        let action = config.trust.action(head, facts, &request.budgets.trust);
        incoming.apply_trust(action, fresh);
    }
    let Decided { decision, rule, limited, over_limit } =
        request.decide(rule, &incoming, take_permits);
    if decision.kind == DecisionKind::Ignore {
        return request.ignore(rule, limited, token_faults, Some(&mut incoming));
    }
    let context = request.outgoing_context(&mut incoming, decision);
    let edits = request.propagate(&context, &mut incoming);
    let restarted = incoming.restarted.is_some();
    let span = request.span(&mut incoming, context, decision);
    let summary = RequestSummary {
        kind: decision.kind,
        sampled: decision.sampled,
        rule: rule.map(|(index, _)| index),
        limited,
        over_limit,
        restarted,
        faults: std::mem::take(&mut incoming.faults),
        token_faults,
        search_exceeded: request.budgets.any_exceeded(),
    };
    let log_context = config.logs_context.then(|| match &span {
        PendingSpan::Late(recording) => Box::new(recording.context),
        PendingSpan::Recorded(recording) => Box::new(recording.context),
        PendingSpan::None => Box::new(context),
    });
    let is_forced = decision.kind == DecisionKind::Force;
    let response_context = config.response.context(is_forced, &context, || match &span {
        PendingSpan::Recorded(recording) => recording.context,
        PendingSpan::Late(recording) if recording.parent_span_id.is_none() => {
            Context { span_id: recording.context.span_id, ..context }
        }
        _ => context,
    });
    Outcome { summary, edits, span, response_context, log_context }
}

/// A request and what the steps need to know of it.
struct Request<'c, 'r> {
    config: &'c Config,
    head: &'r Head<'r>,
    facts: MatchFacts<'r>,
    fresh: FreshIds,
    budgets: Budgets,
}

/// A rule that matches, and its index.
type Matched<'c> = (usize, &'c Rule);

/// A decision, and the rules and limits that led to it.
struct Decided<'c> {
    decision: Decision<'c>,
    rule: Option<Matched<'c>>,
    /// Indices of the rules that matched and were over their limits.
    limited: Vec<usize>,
    /// The limit of all spans refused this span.
    over_limit: bool,
}

impl<'c> Request<'c, '_> {
    /// Decides by the first rule that matches and is within its limit.
    fn decide(
        &self,
        mut rule: Option<Matched<'c>>,
        incoming: &Incoming<'_>,
        take_permits: &mut TakePermits<'_>,
    ) -> Decided<'c> {
        let Self { config, head, facts, fresh, budgets } = self;
        let trace_id = incoming.trace(*fresh).trace_id;
        let randomness = match incoming.sampling {
            Sampling::Deferred => incoming.randomness(trace_id),
            _ => 0,
        };
        let permits = Permits::of_request(fresh.upstream_span_id.is_some());
        let mut limited = Vec::new();
        loop {
            let matched = rule.map(|(_, rule)| rule);
            let mut decision = decide(matched, incoming.sampling, randomness, config.ratio);
            let of_rule = matched.and_then(|rule| rule.limit.as_ref());
            if !decision.sampled || (of_rule.is_none() && config.limit.is_none()) {
                return Decided { decision, rule, limited, over_limit: false };
            }
            // Requests that a rule forces may use the reserve of the limit of all spans.
            let share = match decision.kind {
                DecisionKind::Force => BurstShare::Full,
                _ => BurstShare::ExceptReserve,
            };
            let of_rule = of_rule.map(|limit| (limit, BurstShare::Full));
            let of_all = config.limit.as_ref().map(|limit| (limit, share));
            match (take_permits([of_rule, of_all], permits), rule) {
                (Ok(()), _) => return Decided { decision, rule, limited, over_limit: false },
                (Err(0), Some((index, _))) => {
                    limited.push(index);
                    rule = config.rules.first_match(head, *facts, &budgets.rules, index + 1);
                }
                (Err(_), _) => {
                    decision.revoke();
                    return Decided { decision, rule, limited, over_limit: true };
                }
            }
        }
    }

    /// Returns the context that goes upstream, and states the decision in `tracestate`.
    fn outgoing_context(&self, incoming: &mut Incoming<'_>, decision: Decision<'_>) -> Context {
        let parent = incoming.parent;
        let TraceRoot { trace_id, short_trace_id, .. } = incoming.trace(self.fresh);
        incoming.update_threshold(trace_id, decision.threshold_update, decision.sampled);
        Context {
            trace_id,
            span_id: match parent {
                Some(parent) if !self.is_recorded(decision) => parent.span_id,
                _ => self.fresh.upstream_span_id.unwrap_or(self.fresh.span_id),
            },
            sampling: incoming.sampling.decided(decision.sampled),
            // A fresh id is random. But OpenTelemetry's SDK for Go before 1.42 refuses a context with
            // the random flag, and its applications would leave the trace.
            random: match (parent, incoming.root) {
                (Some(parent), _) => parent.random,
                (None, Some(_)) => false,
                (None, None) => self.config.propagation.random_flag,
            },
            short_trace_id,
        }
    }

    /// Writes the context and the baggage, or removes them if they may not go upstream.
    fn propagate(&self, context: &Context, incoming: &mut Incoming<'_>) -> Vec<HeaderEdit<'c>> {
        let propagation = &self.config.propagation;
        let mut edits = self.strip_headers();
        if self.config.trust.may_propagate_to(self.head, self.facts, &self.budgets.egress) {
            propagation.inject(context, incoming, &mut edits);
            if let Some(limits) = propagation.baggage {
                incoming.faults.baggage_members_dropped = limits.apply(self.head, &mut edits);
            }
        } else {
            propagation::remove_all(&mut edits);
        }
        edits.finish()
    }

    /// Returns the span to record, now or at the end of the request.
    fn span(
        &self,
        incoming: &mut Incoming<'_>,
        context: Context,
        decision: Decision<'c>,
    ) -> PendingSpan<'c> {
        if self.is_recorded(decision) {
            return PendingSpan::Recorded(self.recording(incoming, context, decision.reason));
        }
        if !self.may_be_late(decision) {
            return PendingSpan::None;
        }
        incoming.update_threshold(context.trace_id, ThresholdUpdate::Erase, false);
        PendingSpan::Late(Box::new(self.recording(incoming, context, Reason::Late)))
    }

    fn recording<'r>(
        &self,
        incoming: &mut Incoming<'_>,
        context: Context,
        reason: Reason<'r>,
    ) -> Recording<'r> {
        let names = &self.config.span.names;
        Recording {
            context: Context { span_id: self.fresh.span_id, ..context },
            upstream_span_id: self.fresh.upstream_span_id,
            parent_span_id: incoming.parent.map(|parent| parent.span_id),
            trace_state: incoming.trace_state(context.trace_id).to_vec(),
            reason,
            name_index: names.first(self.head, self.facts, &self.budgets.names, 0),
            link: incoming.restarted.take(),
        }
    }

    fn is_recorded(&self, decision: Decision<'_>) -> bool {
        decision.sampled && self.config.exporter.is_some()
    }

    /// Tells whether a request that is not recorded may be exported late. Requests that a rule drops are
    /// dropped however they end.
    fn may_be_late(&self, decision: Decision<'_>) -> bool {
        let Config { export_on, exporter, .. } = self.config;
        export_on.is_some() && exporter.is_some() && decision.kind != DecisionKind::Drop
    }

    /// Leaves a request as it is, except for headers that may not go upstream: tokens, contexts that
    /// are not trusted, and contexts that must not leave the mesh. `incoming` is absent if every context
    /// is trusted.
    #[inline(never)]
    fn ignore(
        &self,
        rule: Option<Matched<'c>>,
        limited: Vec<usize>,
        token_faults: Vec<TokenFault>,
        incoming: Option<&mut Incoming<'_>>,
    ) -> Outcome<'c> {
        let mut edits = self.strip_headers();
        if !self.config.trust.may_propagate_to(self.head, self.facts, &self.budgets.egress) {
            propagation::remove_all(&mut edits);
        } else if let Some(incoming) = incoming {
            self.config.propagation.pass_on(incoming, &mut edits);
        }
        let summary = RequestSummary {
            kind: DecisionKind::Ignore,
            sampled: false,
            rule: rule.map(|(index, _)| index),
            limited,
            over_limit: false,
            restarted: false,
            faults: Faults::default(),
            token_faults,
            search_exceeded: self.budgets.any_exceeded(),
        };
        Outcome {
            summary,
            edits: edits.finish(),
            span: PendingSpan::None,
            response_context: ResponseContext::Unchanged,
            log_context: None,
        }
    }

    /// Returns edits that remove the headers in `strip`, tokens among them.
    fn strip_headers(&self) -> Edits<'_, 'c> {
        let mut edits = Edits::of(self.head);
        self.config.strip.iter().for_each(|name| edits.remove(name));
        edits
    }
}

fn is_ignored(rule: Option<Matched<'_>>) -> bool {
    rule.is_some_and(|(_, rule)| rule.action == Action::Ignore)
}

/// A budget for each kind of list: a request that exceeds one leaves the others untouched.
#[derive(Default)]
struct Budgets {
    rules: SearchBudget,
    trust: SearchBudget,
    egress: SearchBudget,
    names: SearchBudget,
}

impl Budgets {
    fn any_exceeded(&self) -> bool {
        let all = [&self.rules, &self.trust, &self.egress, &self.names];
        all.iter().any(|budget| budget.is_exceeded())
    }
}

/// Verifies the tokens of a request.
#[inline(never)]
fn verify_tokens(
    config: &Config,
    head: &Head<'_>,
    unix_seconds: u64,
) -> (ValidTokens, Vec<TokenFault>) {
    let mut valid = ValidTokens::default();
    // One fault a header: several rules may verify the same header, each with its own keys.
    let mut faults: Vec<(&str, Option<TokenFault>)> = Vec::new();
    let path = path::normalized(head.target()).unwrap_or_default();
    for (index, token) in config.tokens.iter().enumerate() {
        let mut lines = head.all(&token.name);
        let verified = match (lines.next(), lines.next()) {
            (None, _) => continue,
            (Some(line), None) => token.check.verify(line, &path, unix_seconds),
            _ => Err(TokenFault::Malformed),
        };
        valid.0 |= u64::from(verified.is_ok()) << index;
        let fault = verified.err();
        match faults.iter_mut().find(|(name, _)| *name == token.name) {
            // A token that is valid for one rule has no fault, and a more specific fault replaces `Rejected`.
            Some((_, known)) if fault.is_none() || *known == Some(TokenFault::Rejected) => {
                *known = fault;
            }
            Some(_) => {}
            None => faults.push((&token.name, fault)),
        }
    }
    (valid, faults.into_iter().filter_map(|(_, fault)| fault).collect())
}

#[cfg(test)]
mod tests;
