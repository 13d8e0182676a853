//! One request, from its headers to what becomes of it: the one place where features meet.

use opentelemetry::trace::{SpanId, TraceId};

use crate::config::Config;
use crate::context::Context;
use crate::decision::{Kind, decide};
use crate::edits::{Edits, HeaderEdit};
use crate::head::Head;
use crate::propagation::trace_state;
use crate::rules::{Action, Direction};
use crate::span::Recording;

/// Fresh random ids, neither all zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FreshIds {
    pub trace_id: TraceId,
    pub span_id: SpanId,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome<'c> {
    pub kind: Kind,
    pub edits: Vec<HeaderEdit>,
    /// Contexts that were malformed and treated as absent.
    pub invalid_contexts: u32,
    /// The span to record, where this hop records one.
    pub recording: Option<Recording<'c>>,
}

/// Decides on a request and works out what its upstream is told.
///
/// A request that is recorded here passes its own span id on. One that is not keeps the ids that
/// it came with, so that nothing upstream hangs below a span that does not exist; without ids it
/// gets fresh ones, so that nothing upstream takes itself for a root and samples anew.
pub fn on_request_headers<'c>(
    config: &'c Config,
    head: &Head<'_>,
    direction: Option<Direction>,
    fresh: FreshIds,
) -> Outcome<'c> {
    let rule = config.rules.first_match(head, direction);
    if rule.is_some_and(|rule| rule.action == Action::Ignore) {
        let kind = Kind::Ignore;
        return Outcome { kind, edits: Vec::new(), invalid_contexts: 0, recording: None };
    }
    let incoming = config.propagation.extract(head);
    let parent = incoming.parent;
    let trace_id = parent.map_or(fresh.trace_id, |parent| parent.trace_id);
    let decision = decide(rule, incoming.sampling, trace_id, config.ratio);
    let recorded = decision.sampled && config.exporter.is_some();
    let context = Context {
        trace_id,
        span_id: match parent {
            Some(parent) if !recorded => parent.span_id,
            _ => fresh.span_id,
        },
        sampling: incoming.sampling.decided(decision.sampled),
        random: parent.is_none_or(|parent| parent.random),
        short_trace_id: parent.is_some_and(|parent| parent.short_trace_id),
    };
    let mut edits = Edits::of(head);
    config.propagation.inject(&context, &incoming, &mut edits);
    let recording = recorded.then(|| Recording {
        context,
        parent_span_id: parent.map(|parent| parent.span_id),
        trace_state: incoming
            .has_trace_state()
            .then(|| trace_state(head))
            .flatten()
            .unwrap_or_default(),
        reason: decision.reason,
    });
    Outcome {
        kind: decision.kind,
        edits: edits.finish(),
        invalid_contexts: incoming.invalid,
        recording,
    }
}
