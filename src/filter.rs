//! One request, from its headers to what becomes of it: the one place where features meet.
//!
//! [`on_request_headers`] decides, propagates and records, in that order. Each step is a method of
//! [`Request`].

use crate::config::Config;
use crate::export::statistics::RequestSummary;
use crate::http::edits::{Edits, HeaderEdit};
use crate::http::head::Head;
use crate::http::path;
use crate::propagation::context::{Context, FreshIds, Sampling};
use crate::propagation::ot::ThresholdUpdate;
use crate::propagation::{self, Faults, Incoming};
use crate::sampling::decision::{Decision, Kind, Reason, decide};
use crate::sampling::limit::{Limit, Share};
use crate::sampling::matching::{SearchBudget, ValidTokens};
use crate::sampling::rules::{Action, Direction, Facts, Rule};
use crate::sampling::token::TokenFault;
use crate::span::Recording;

/// Facts about a request that only the host knows. Each costs a hostcall; [`needed_facts`] says which
/// are needed.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestFacts<'a> {
    pub direction: Option<Direction>,
    /// `source.address`, or nothing.
    pub source_address: &'a [u8],
    pub unix_seconds: u64,
}

/// Which [`RequestFacts`] a request needs, beside the direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeededFacts {
    pub source_address: bool,
    pub time: bool,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome<'c> {
    pub summary: RequestSummary,
    /// Changes to the headers that the upstream gets.
    pub edits: Vec<HeaderEdit<'c>>,
    pub span: PendingSpan<'c>,
    /// The context that the client is told, if any. Boxed, since most requests have none.
    pub response_context: Option<Box<Context>>,
    /// The context that access logs show, if any. Boxed, since most requests have none.
    pub log_context: Option<Box<Context>>,
}

/// The span that a request will have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PendingSpan<'c> {
    None,
    /// The request is recorded.
    Recorded(Recording<'c>),
    /// The request is recorded if it ends as `export_on` says. Boxed, since most are not.
    Late(Box<Recording<'static>>),
}

/// Takes one from each limit, or from none; the error is the index of the one that refuses.
pub type Permits<'p> = dyn FnMut([Option<(&Limit, Share)>; 2]) -> Result<(), usize> + 'p;

/// Returns which facts the decision needs.
pub fn needed_facts(config: &Config, head: &Head<'_>) -> NeededFacts {
    NeededFacts {
        source_address: config.trust.needs_source_address(head),
        time: config.tokens.iter().any(|token| head.first(&token.name).is_some()),
    }
}

/// Decides on a request, edits the headers that its upstream gets, and says which span to record.
/// `permits` takes one from each of these limits or, where one of them has none left, from neither,
/// and then returns which refused.
///
/// A request that is recorded here passes its own span id on. One that is not keeps the ids that
/// it came with, so that nothing upstream hangs below a span that does not exist; without ids it
/// gets fresh ones, so that nothing upstream takes itself for a root and samples anew.
pub fn on_request_headers<'c>(
    config: &'c Config,
    head: &Head<'_>,
    facts: RequestFacts<'_>,
    fresh: FreshIds,
    permits: &mut Permits<'_>,
) -> Outcome<'c> {
    let (tokens, token_faults) = match config.tokens.is_empty() {
        true => (ValidTokens::default(), Vec::new()),
        false => verify_tokens(config, head, facts.unix_seconds),
    };
    let source_address = facts.source_address;
    let facts = Facts { direction: facts.direction, tokens };
    let request = Request { config, head, facts, fresh, budgets: Budgets::default() };
    let rule = config.rules.first_match(head, facts, &request.budgets.rules, 0);
    // Nothing of most requests that are ignored is read.
    if is_ignored(rule) && config.trust.accepts_all() {
        return request.ignore(rule, Vec::new(), token_faults, None);
    }
    let mut incoming = config.propagation.extract(head);
    if !config.trust.accepts_all() {
        let trust = config.trust.trust(head, facts, source_address, &request.budgets.trust);
        incoming.apply_trust(trust, fresh);
    }
    let Decided { decision, rule, limited, over_limit } = request.decide(rule, &incoming, permits);
    if decision.kind == Kind::Ignore {
        return request.ignore(rule, limited, token_faults, Some(&mut incoming));
    }
    let context = request.outgoing_context(&mut incoming, decision);
    let edits = request.propagate(&context, &mut incoming);
    let summary = RequestSummary {
        kind: decision.kind,
        sampled: decision.sampled,
        rule: rule.map(|(index, _)| index),
        limited,
        over_limit,
        restarted: incoming.restarted.is_some(),
        faults: std::mem::take(&mut incoming.faults),
        token_faults,
        search_exceeded: request.budgets.any_exceeded(),
    };
    let span = request.span(&mut incoming, context, decision);
    let log_context = config.logs_context.then(|| match &span {
        PendingSpan::Late(recording) => Box::new(recording.context),
        _ => Box::new(context),
    });
    let is_forced = decision.kind == Kind::Force;
    let is_told = config.response.is_for(is_forced, &context);
    let response_context = is_told.then(|| Box::new(context));
    Outcome { summary, edits, span, response_context, log_context }
}

/// One request under way.
struct Request<'c, 'r> {
    config: &'c Config,
    head: &'r Head<'r>,
    facts: Facts,
    fresh: FreshIds,
    budgets: Budgets,
}

/// A rule and its index.
type Matched<'c> = (usize, &'c Rule);

/// A decision, and how the rules and limits led to it.
struct Decided<'c> {
    decision: Decision<'c>,
    rule: Option<Matched<'c>>,
    /// Indices of the rules whose conditions held, and that were over their limits.
    limited: Vec<usize>,
    /// The limit of all spans refused this one.
    over_limit: bool,
}

impl<'c> Request<'c, '_> {
    /// Decides by the first rule that matches and is within its limit.
    fn decide(
        &self,
        mut rule: Option<Matched<'c>>,
        incoming: &Incoming<'_>,
        permits: &mut Permits<'_>,
    ) -> Decided<'c> {
        let Self { config, head, facts, fresh, budgets } = self;
        let trace_id = incoming.parent.map_or(fresh.trace_id, |parent| parent.trace_id);
        let randomness = match incoming.sampling {
            Sampling::Deferred => incoming.randomness(trace_id),
            _ => 0,
        };
        let mut limited = Vec::new();
        loop {
            let matched = rule.map(|(_, rule)| rule);
            let mut decision = decide(matched, incoming.sampling, randomness, config.ratio);
            let of_rule = matched.and_then(|rule| rule.limit.as_ref());
            if !decision.sampled || (of_rule.is_none() && config.limit.is_none()) {
                return Decided { decision, rule, limited, over_limit: false };
            }
            // A part of the limit of all spans is kept for those that a rule forces.
            let share = match decision.kind {
                Kind::Force => Share::Whole,
                _ => Share::ButReserve,
            };
            let of_rule = of_rule.map(|limit| (limit, Share::Whole));
            let of_all = config.limit.as_ref().map(|limit| (limit, share));
            match (permits([of_rule, of_all]), rule) {
                (Ok(()), _) => return Decided { decision, rule, limited, over_limit: false },
                (Err(0), Some((index, _))) => {
                    limited.push(index);
                    rule = config.rules.first_match(head, *facts, &budgets.rules, index + 1);
                }
                (Err(_), _) => {
                    decision.over_limit();
                    return Decided { decision, rule, limited, over_limit: true };
                }
            }
        }
    }

    /// Returns the context that goes upstream, and brings `tracestate` up to the decision.
    fn outgoing_context(&self, incoming: &mut Incoming<'_>, decision: Decision<'_>) -> Context {
        let parent = incoming.parent;
        let trace_id = parent.map_or(self.fresh.trace_id, |parent| parent.trace_id);
        incoming.update_threshold(trace_id, decision.threshold_update, decision.sampled);
        Context {
            trace_id,
            span_id: match parent {
                Some(parent) if !self.is_recorded(decision) => parent.span_id,
                _ => self.fresh.span_id,
            },
            sampling: incoming.sampling.decided(decision.sampled),
            // A fresh id is random, but OpenTelemetry's SDK for Go before 1.42 refuses a context that
            // says so, and its applications would leave the trace.
            random: parent.map_or(self.config.propagation.random_flag, |parent| parent.random),
            short_trace_id: parent.is_some_and(|parent| parent.short_trace_id),
        }
    }

    /// Writes the context and the baggage, or removes them where they may not go upstream.
    fn propagate(&self, context: &Context, incoming: &mut Incoming<'_>) -> Vec<HeaderEdit<'c>> {
        let propagation = &self.config.propagation;
        let mut edits = self.stripped();
        if self.config.trust.may_propagate_to(self.head, &self.budgets.egress) {
            propagation.inject(context, incoming, &mut edits);
            if let Some(limits) = propagation.baggage {
                incoming.faults.baggage_members_dropped = limits.apply(self.head, &mut edits);
            }
        } else {
            propagation::remove_all(&mut edits);
        }
        edits.finish()
    }

    /// Returns the span to record, now or for how the request ends.
    fn span(
        &self,
        incoming: &mut Incoming<'_>,
        context: Context,
        decision: Decision<'c>,
    ) -> PendingSpan<'c> {
        if self.is_recorded(decision) {
            return PendingSpan::Recorded(recording(incoming, context, decision.reason));
        }
        if !self.is_late(decision) {
            return PendingSpan::None;
        }
        incoming.update_threshold(context.trace_id, ThresholdUpdate::Erase, false);
        let context = Context { span_id: self.fresh.span_id, ..context };
        PendingSpan::Late(Box::new(recording(incoming, context, Reason::Late)))
    }

    fn is_recorded(&self, decision: Decision<'_>) -> bool {
        decision.sampled && self.config.exporter.is_some()
    }

    /// Tells whether a request that is not recorded may be exported for how it ends. A rule that drops
    /// requests drops all of them.
    fn is_late(&self, decision: Decision<'_>) -> bool {
        let Config { export_on, exporter, .. } = self.config;
        export_on.is_some() && exporter.is_some() && decision.kind != Kind::Drop
    }

    /// Leaves a request as it is, except for headers that may not go upstream: tokens, contexts that
    /// are not trusted, and contexts that must not leave the mesh. `incoming` is given where not every
    /// context is trusted.
    #[inline(never)]
    fn ignore(
        &self,
        rule: Option<Matched<'c>>,
        limited: Vec<usize>,
        token_faults: Vec<TokenFault>,
        incoming: Option<&mut Incoming<'_>>,
    ) -> Outcome<'c> {
        let mut edits = self.stripped();
        if !self.config.trust.may_propagate_to(self.head, &self.budgets.egress) {
            propagation::remove_all(&mut edits);
        } else if let Some(incoming) = incoming {
            self.config.propagation.pass_on(incoming, &mut edits);
        }
        let summary = RequestSummary {
            kind: Kind::Ignore,
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
            response_context: None,
            log_context: None,
        }
    }

    /// Starts the edits by removing the headers that hold tokens.
    fn stripped(&self) -> Edits<'_, 'c> {
        let mut edits = Edits::of(self.head);
        self.config.strip.iter().for_each(|name| edits.remove(name));
        edits
    }
}

fn is_ignored(rule: Option<Matched<'_>>) -> bool {
    rule.is_some_and(|(_, rule)| rule.action == Action::Ignore)
}

/// How much the conditions of each kind may search. A request that exceeds the budget of one kind leaves
/// the others theirs.
#[derive(Default)]
struct Budgets {
    rules: SearchBudget,
    trust: SearchBudget,
    egress: SearchBudget,
}

impl Budgets {
    fn any_exceeded(&self) -> bool {
        [&self.rules, &self.trust, &self.egress].iter().any(|budget| budget.is_exceeded())
    }
}

/// Verifies the tokens that the request has.
#[inline(never)]
fn verify_tokens(
    config: &Config,
    head: &Head<'_>,
    unix_seconds: u64,
) -> (ValidTokens, Vec<TokenFault>) {
    let mut valid = ValidTokens::default();
    // One fault for each header: several rules may check it, each with its own keys.
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
            // A token that is valid for one rule is not foreign to another.
            Some((_, known)) if fault.is_none() || *known == Some(TokenFault::Foreign) => {
                *known = fault;
            }
            Some(_) => {}
            None => faults.push((&token.name, fault)),
        }
    }
    (valid, faults.into_iter().filter_map(|(_, fault)| fault).collect())
}

fn recording<'r>(
    incoming: &mut Incoming<'_>,
    context: Context,
    reason: Reason<'r>,
) -> Recording<'r> {
    Recording {
        context,
        parent_span_id: incoming.parent.map(|parent| parent.span_id),
        trace_state: incoming.trace_state(context.trace_id).to_vec(),
        reason,
        link: incoming.restarted.take(),
    }
}

#[cfg(test)]
mod tests;
