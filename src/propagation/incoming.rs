//! The trace context that a request brought, over all formats that are read.

use opentelemetry::trace::TraceId;

use super::context::{Context, FreshIds, Sampling};
use super::extracted::{Extracted, TraceRoot};
use super::format::Format;
use super::ot::{self, ThresholdUpdate};
use super::tracestate::{self, TraceState};
use crate::http::head::Head;

/// The context that a request brought, and what was wrong with its headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming<'a> {
    /// The first valid context, in the order in which formats are read.
    pub parent: Option<Context>,
    /// The first trace without a parent span, if there is no parent.
    pub root: Option<TraceRoot>,
    /// The parent's sampling state. If the parent leaves it open, or there is no parent, the first
    /// sampling state that came without a parent span.
    pub sampling: Sampling,
    pub faults: Faults,
    /// The former parent, if a new trace was started in its place.
    pub restarted: Option<Box<Link>>,
    /// How the context is handled.
    pub trust: TrustAction,
    trace_state: TraceState<'a>,
    /// The trace that `trace_state` belongs to.
    trace_state_of: Option<TraceId>,
    /// The 56 bits that ratios use in place of the trace's own randomness, which an untrusted caller chose.
    own_randomness: Option<u64>,
}

/// How an incoming context is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustAction {
    /// The context is followed.
    Accept,
    /// A new trace starts, whose span links to the old one.
    Restart,
    /// The ids are kept, and sampling is decided anew.
    IgnoreFlags,
}

/// The parts of a request's context and baggage that are not passed on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// The formats whose headers broke their grammar.
    pub invalid: Vec<Format>,
    pub invalid_trace_state: bool,
    pub trace_state_members_dropped: u32,
    pub baggage_members_dropped: u32,
}

/// A link from a span to another trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub context: Context,
    pub trace_state: Vec<u8>,
}

impl<'a> Incoming<'a> {
    /// Reads these formats in order. The first valid context is the parent; the others add what its
    /// format has no room for. `tracestate` is read if `traceparent` is of the parent's trace.
    pub fn extract(formats: &[Format], head: &Head<'a>) -> Self {
        let mut incoming = Self {
            parent: None,
            root: None,
            sampling: Sampling::Deferred,
            faults: Faults::default(),
            restarted: None,
            trust: TrustAction::Accept,
            trace_state: TraceState::default(),
            trace_state_of: None,
            own_randomness: None,
        };
        let mut decision = None;
        for format in formats {
            match format.extract(head) {
                Extracted::Absent => {}
                Extracted::Decision(sampling) => decision = decision.or(Some(sampling)),
                Extracted::Root(root) => {
                    let stated = Some(root.sampling).filter(|it| *it != Sampling::Deferred);
                    decision = decision.or(stated);
                    incoming.root = incoming.root.or(Some(root));
                }
                Extracted::Context(context) => incoming.accept(*format, context),
                Extracted::Invalid(_) => incoming.faults.invalid.push(*format),
            }
        }
        if incoming.parent.is_some() {
            incoming.root = None;
        }
        incoming.sampling = match incoming.parent.map_or(Sampling::Deferred, |it| it.sampling) {
            Sampling::Deferred => decision.unwrap_or(Sampling::Deferred),
            stated => stated,
        };
        if incoming.parent.is_some_and(|parent| incoming.trace_state_of == Some(parent.trace_id)) {
            incoming.accept_trace_state(head);
        }
        incoming
    }

    fn accept(&mut self, format: Format, context: Context) {
        if format == Format::TraceContext {
            self.trace_state_of = Some(context.trace_id);
        }
        match &mut self.parent {
            Some(parent) => parent.merge(&context),
            none => *none = Some(context),
        }
    }

    fn accept_trace_state(&mut self, head: &Head<'a>) {
        match tracestate::extract(head) {
            Ok(trace_state) => {
                self.faults.trace_state_members_dropped = trace_state.dropped;
                self.trace_state = trace_state;
            }
            Err(_) => self.faults.invalid_trace_state = true,
        }
    }
}

impl Incoming<'_> {
    /// Handles the context according to its trust. The trace id of `fresh` supplies the randomness
    /// for ratios if the caller may not choose it.
    pub fn apply_trust(&mut self, trust: TrustAction, fresh: FreshIds) {
        self.trust = trust;
        match trust {
            TrustAction::Accept => {}
            TrustAction::IgnoreFlags => {
                self.sampling = Sampling::Deferred;
                // The caller chose the trace id and `tracestate`, and with them their randomness.
                let has_trace = self.parent.is_some() || self.root.is_some();
                self.own_randomness = has_trace.then(|| ot::randomness_of_id(fresh.trace_id));
            }
            TrustAction::Restart => self.restart(),
        }
    }

    /// Forgets the context, except for a link to it.
    fn restart(&mut self) {
        self.sampling = Sampling::Deferred;
        self.root = None;
        if let Some(context) = self.parent.take() {
            let trace_state = self.trace_state(context.trace_id).to_vec();
            self.restarted = Some(Box::new(Link { context, trace_state }));
        }
        (self.trace_state_of, self.trace_state) = (None, TraceState::default());
    }

    /// Returns the trace that goes on: the incoming one, or a new one with the fresh id.
    pub fn trace(&self, fresh: FreshIds) -> TraceRoot {
        let Self { parent, root, sampling, .. } = self;
        let (trace_id, short_trace_id) = match (parent, root) {
            (Some(parent), _) => (parent.trace_id, parent.short_trace_id),
            (None, Some(root)) => (root.trace_id, root.short_trace_id),
            (None, None) => (fresh.trace_id, false),
        };
        TraceRoot { trace_id, sampling: *sampling, short_trace_id }
    }

    /// Returns the 56 bits that decide on ratios: those that `tracestate` states for this trace, or
    /// else those of the trace id.
    pub fn randomness(&self, trace_id: TraceId) -> u64 {
        if let Some(randomness) = self.own_randomness {
            return randomness;
        }
        let stated = (self.trace_state_of == Some(trace_id)).then(|| self.trace_state.randomness());
        stated.flatten().unwrap_or_else(|| ot::randomness_of_id(trace_id))
    }

    /// Returns the `tracestate` list of this trace; empty if it has none.
    pub fn trace_state(&self, trace_id: TraceId) -> &[u8] {
        if self.trace_state_of == Some(trace_id) { &self.trace_state.list } else { &[] }
    }

    /// Updates the sampling threshold in `tracestate` after a decision on this trace.
    pub fn update_threshold(&mut self, trace_id: TraceId, update: ThresholdUpdate, sampled: bool) {
        if !self.trace_state.has_ot && !matches!(update, ThresholdUpdate::Set(_)) {
            return;
        }
        if self.trace_state_of != Some(trace_id) {
            (self.trace_state_of, self.trace_state) = (Some(trace_id), TraceState::default());
        }
        self.trace_state.update_threshold(update, sampled, trace_id, self.own_randomness);
        self.faults.trace_state_members_dropped = self.trace_state.dropped;
    }
}
