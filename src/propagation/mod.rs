//! Which formats a context is read from and written to, and what becomes of the other headers.

mod b3;
pub mod baggage;
pub mod context;
mod datadog;
mod grpc_trace_bin;
mod headers;
mod jaeger;
pub mod ot;
mod ottrace;
pub mod response;
pub mod tracecontext;
pub mod tracestate;
mod xray;

use opentelemetry::trace::TraceId;

use self::headers::holds_baggage;
pub use self::headers::holds_context;
use crate::http::edits::{Edits, HeaderEdit};
use crate::http::head::Head;
use crate::propagation::context::{Context, Extracted, FreshIds, Sampling};
use ot::ThresholdUpdate;
use tracestate::{TRACESTATE, TraceState};

/// A format that a trace context has on the wire, read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    TraceContext,
    B3Single,
    B3Multi,
    Jaeger,
    XRay,
    OtTrace,
    Datadog,
    GrpcTraceBin,
}

/// The propagators in force.
#[derive(Debug, Clone)]
pub struct Propagation {
    /// What to read, in order.
    pub extract: Vec<Format>,
    /// What to write. None leaves valid contexts as they came, whatever is decided here.
    pub inject: Option<Vec<Format>>,
    /// Forms that would contradict those that are written.
    stale: Vec<Format>,
    /// Without limits, the header passes through as it is.
    pub baggage: Option<baggage::Limits>,
    /// New traces say that their ids are random.
    pub random_flag: bool,
}

/// What came in, over all formats that are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming<'a> {
    pub parent: Option<Context>,
    /// The sampling state of the parent; where it leaves that open, one that came without ids.
    pub sampling: Sampling,
    pub faults: Faults,
    /// The context that a new trace was started in place of.
    pub restarted: Option<Box<Link>>,
    /// The trace that `tracestate` speaks of.
    trace_state_of: Option<TraceId>,
    trace_state: TraceState<'a>,
    /// What of the context is trusted.
    trust: TrustAction,
    /// Decides on ratios in place of what came in, where that is not trusted; 56 bits.
    own_randomness: Option<u64>,
}

/// How an incoming context is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustAction {
    /// It is followed.
    Accept,
    /// A new trace starts, whose span links to the old one.
    Restart,
    /// Its ids are kept, and sampling is decided anew.
    IgnoreFlags,
}

/// What a request brought that does not go on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// The formats whose context broke their grammar.
    pub invalid: Vec<Format>,
    pub invalid_trace_state: bool,
    pub trace_state_members_dropped: u32,
    pub baggage_members_dropped: u32,
}

/// A context that a span of another trace points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub context: Context,
    pub trace_state: Vec<u8>,
}

impl Propagation {
    /// Formats that are read and not written are stale once the context is written: they would
    /// contradict it. So is the format of B3 that is not written beside the one that is.
    pub fn new(
        extract: Vec<Format>,
        inject: Option<Vec<Format>>,
        baggage: Option<baggage::Limits>,
    ) -> Self {
        let writes =
            |format: &Format| inject.as_ref().is_some_and(|inject| inject.contains(format));
        let mut stale: Vec<_> = extract.iter().copied().filter(|format| !writes(format)).collect();
        for (format, other) in
            [(Format::B3Single, Format::B3Multi), (Format::B3Multi, Format::B3Single)]
        {
            if writes(&format) && !writes(&other) && !stale.contains(&other) {
                stale.push(other);
            }
        }
        Self { extract, inject, stale, baggage, random_flag: false }
    }

    /// Tells whether contexts are written.
    pub fn writes_contexts(&self) -> bool {
        self.inject.is_some()
    }

    /// Returns the headers of a new trace that is not sampled, in every format that is read here, in
    /// W3C's and in B3's single header, which all read who read B3.
    pub fn unsampled_headers(&self, fresh: FreshIds) -> Vec<(&'static str, Vec<u8>)> {
        let context = Context {
            trace_id: fresh.trace_id,
            span_id: fresh.span_id,
            sampling: Sampling::NotSampled,
            random: false,
            short_trace_id: false,
        };
        let head = Head::new(Vec::new());
        let mut edits = Edits::of(&head);
        let always = [Format::TraceContext, Format::B3Single];
        let is_other = |format: &&Format| !always.contains(format) && **format != Format::B3Multi;
        let others = self.extract.iter().filter(is_other);
        always.iter().chain(others).for_each(|format| format.inject(&context, &[], &mut edits));
        let added = |edit| match edit {
            HeaderEdit::Add { name, value } => Some((name, value)),
            HeaderEdit::Set { .. } | HeaderEdit::Remove { .. } => None,
        };
        edits.finish().into_iter().filter_map(added).collect()
    }

    /// Reads all formats. The first valid context wins; where it leaves sampling open, the first bare
    /// decision states it.
    pub fn extract<'a>(&self, head: &Head<'a>) -> Incoming<'a> {
        let mut incoming = Incoming {
            parent: None,
            sampling: Sampling::Deferred,
            faults: Faults::default(),
            restarted: None,
            trace_state_of: None,
            trace_state: TraceState::default(),
            trust: TrustAction::Accept,
            own_randomness: None,
        };
        let mut decision = None;
        for format in &self.extract {
            match format.extract(head) {
                Extracted::Absent => {}
                Extracted::Decision(sampling) => decision = decision.or(Some(sampling)),
                Extracted::Context(context) => incoming.accept(*format, context),
                Extracted::Invalid(_) => incoming.faults.invalid.push(*format),
            }
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

    /// Passes on the context of an ignored request, as far as it is trusted. A sampling decision that is
    /// not trusted becomes "not sampled".
    #[inline(never)]
    pub fn pass_on(&self, incoming: &mut Incoming<'_>, edits: &mut Edits<'_, '_>) {
        match (incoming.trust, incoming.parent) {
            (TrustAction::Accept, _) => {}
            (TrustAction::IgnoreFlags, _) if self.inject.is_none() => {}
            (TrustAction::IgnoreFlags, Some(parent)) => {
                incoming.update_threshold(parent.trace_id, ThresholdUpdate::Erase, false);
                let context = Context { sampling: Sampling::NotSampled, ..parent };
                self.inject(&context, incoming, edits);
            }
            _ => remove_contexts(edits, &[]),
        }
    }

    /// Writes the context in every format of `inject`, and removes stale headers. Where nothing is
    /// to be written, contexts stay as they came, but for invalid ones.
    pub fn inject(&self, context: &Context, incoming: &Incoming<'_>, edits: &mut Edits<'_, '_>) {
        let Some(inject) = &self.inject else {
            if incoming.trust == TrustAction::Restart {
                return remove_contexts(edits, &[]);
            }
            incoming.faults.invalid.iter().for_each(|format| format.remove(edits));
            if incoming.faults.invalid_trace_state {
                edits.remove(TRACESTATE);
            }
            return;
        };
        let trace_state = incoming.trace_state(context.trace_id);
        if incoming.trust == TrustAction::Restart {
            remove_contexts(edits, inject);
        }
        inject.iter().for_each(|format| format.inject(context, trace_state, edits));
        self.stale.iter().for_each(|format| format.remove(edits));
    }
}

impl Format {
    pub const ALL: [Self; 8] = [
        Self::TraceContext,
        Self::B3Single,
        Self::B3Multi,
        Self::Jaeger,
        Self::XRay,
        Self::OtTrace,
        Self::Datadog,
        Self::GrpcTraceBin,
    ];

    /// Returns the name that configuration and metrics use.
    pub fn name(self) -> &'static str {
        match self {
            Self::TraceContext => "tracecontext",
            Self::B3Single => "b3",
            Self::B3Multi => "b3multi",
            Self::Jaeger => "jaeger",
            Self::XRay => "xray",
            Self::OtTrace => "ottrace",
            Self::Datadog => "datadog",
            Self::GrpcTraceBin => "grpc-trace-bin",
        }
    }

    fn extract(self, head: &Head<'_>) -> Extracted {
        match self {
            Self::TraceContext => tracecontext::extract(head),
            Self::B3Single => b3::extract_single(head),
            Self::B3Multi => b3::extract_multi(head),
            Self::Jaeger => jaeger::extract(head),
            Self::XRay => xray::extract(head),
            Self::OtTrace => ottrace::extract(head),
            Self::Datadog => datadog::extract(head),
            Self::GrpcTraceBin => grpc_trace_bin::extract(head),
        }
    }

    fn inject(self, context: &Context, trace_state: &[u8], edits: &mut Edits<'_, '_>) {
        match self {
            Self::TraceContext => tracecontext::inject(context, trace_state, edits),
            Self::B3Single => b3::inject_single(context, edits),
            Self::B3Multi => b3::inject_multi(context, edits),
            Self::Jaeger => jaeger::inject(context, edits),
            Self::XRay => xray::inject(context, edits),
            Self::OtTrace => ottrace::inject(context, edits),
            Self::Datadog => datadog::inject(context, edits),
            Self::GrpcTraceBin => grpc_trace_bin::inject(context, edits),
        }
    }

    /// The headers that hold a context in this format.
    fn headers(self) -> &'static [&'static str] {
        match self {
            Self::TraceContext => &[tracecontext::TRACEPARENT, TRACESTATE],
            Self::B3Single => &[b3::SINGLE],
            Self::B3Multi => b3::MULTI,
            Self::Jaeger => &[jaeger::UBER_TRACE_ID],
            Self::XRay => &[xray::TRACE_ID],
            Self::OtTrace => ottrace::HEADERS,
            Self::Datadog => datadog::HEADERS,
            Self::GrpcTraceBin => &[grpc_trace_bin::GRPC_TRACE_BIN],
        }
    }

    fn remove(self, edits: &mut Edits<'_, '_>) {
        self.headers().iter().for_each(|name| edits.remove(name));
    }
}

/// Removes every context and all baggage, whatever its format.
pub fn remove_all(edits: &mut Edits<'_, '_>) {
    edits.remove_all(|name| holds_context(name) || holds_baggage(name));
}

/// Removes every context but the headers of these formats, which are written.
fn remove_contexts(edits: &mut Edits<'_, '_>, written: &[Format]) {
    let headers = || written.iter().flat_map(|format| format.headers());
    edits.remove_all(|name| {
        holds_context(name) && headers().all(|header| header.as_bytes() != name)
    });
}

/// Returns the lines that name a trace and its parent span, in any format, sorted.
pub fn trace_headers(head: &Head<'_>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let names = Format::ALL.iter().flat_map(|format| format.headers());
    let mut lines = Vec::new();
    for name in names.filter(|name| **name != TRACESTATE) {
        let line = |value: &[u8]| (name.as_bytes().to_vec(), value.to_vec());
        lines.extend(head.all(name).map(line));
    }
    lines.sort_unstable();
    lines
}

/// Tells whether a header holds a context in a format that is read here, or baggage.
pub fn is_known_header(name: &str) -> bool {
    name == baggage::BAGGAGE || Format::ALL.iter().any(|format| format.headers().contains(&name))
}

impl Incoming<'_> {
    /// Returns the 56 bits that decide on ratios: those that the trace states, else those of its id.
    pub fn randomness(&self, trace_id: TraceId) -> u64 {
        if let Some(randomness) = self.own_randomness {
            return randomness;
        }
        let stated = (self.trace_state_of == Some(trace_id)).then(|| self.trace_state.randomness());
        stated.flatten().unwrap_or_else(|| ot::randomness_of_id(trace_id))
    }

    /// Brings `tracestate` up to a decision.
    pub fn update_threshold(
        &mut self,
        trace_id: TraceId,
        threshold_update: ThresholdUpdate,
        sampled: bool,
    ) {
        if !self.trace_state.has_ot && !matches!(threshold_update, ThresholdUpdate::Set(_)) {
            return;
        }
        if self.trace_state_of != Some(trace_id) {
            (self.trace_state_of, self.trace_state) = (Some(trace_id), TraceState::default());
        }
        self.trace_state.update_threshold(threshold_update, sampled, trace_id, self.own_randomness);
        self.faults.trace_state_members_dropped = self.trace_state.dropped;
    }

    /// Handles the context as far as it is trusted. `fresh` has the randomness of a trace whose ids are
    /// not trusted.
    pub fn apply_trust(&mut self, trust: TrustAction, fresh: FreshIds) {
        self.trust = trust;
        match trust {
            TrustAction::Accept => {}
            TrustAction::IgnoreFlags => {
                self.sampling = Sampling::Deferred;
                // Whoever chose the id and `tracestate` chose what they say of randomness.
                self.own_randomness = self.parent.map(|_| ot::randomness_of_id(fresh.trace_id));
            }
            TrustAction::Restart => self.restart(),
        }
    }

    /// Forgets the context, but for what a link to it says.
    fn restart(&mut self) {
        self.sampling = Sampling::Deferred;
        if let Some(context) = self.parent.take() {
            let trace_state = self.trace_state(context.trace_id).to_vec();
            self.restarted = Some(Box::new(Link { context, trace_state }));
        }
        (self.trace_state_of, self.trace_state) = (None, TraceState::default());
    }

    /// Returns the list that goes with this trace, which is empty where there is none.
    pub fn trace_state(&self, trace_id: TraceId) -> &[u8] {
        if self.trace_state_of == Some(trace_id) { &self.trace_state.list } else { &[] }
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
}

impl<'a> Incoming<'a> {
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

#[cfg(test)]
pub mod testing {
    //! What the tests of every format need.

    use opentelemetry::trace::{SpanId, TraceId};
    use proptest::prelude::*;

    use crate::http::edits::{Edits, HeaderEdit};
    use crate::http::head::Head;
    use crate::propagation::context::{Context, Extracted, Sampling};

    pub fn head<'a>(lines: &'a [(&str, &str)]) -> Head<'a> {
        Head::new(lines.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect())
    }

    /// Contexts with a short trace id or a long one, in one of these states.
    pub fn any_context(states: &'static [Sampling]) -> impl Strategy<Value = Context> {
        let trace_id = prop_oneof![
            (1u64..).prop_map(|id| (u128::from(id), true)),
            (1u64.., 1u64..)
                .prop_map(|(left, right)| (u128::from(left) << 64 | u128::from(right), false)),
        ];
        (trace_id, 1u64.., prop::sample::select(states)).prop_map(
            |(trace_id, span_id, sampling)| Context {
                trace_id: TraceId::from(trace_id.0),
                span_id: SpanId::from(span_id),
                sampling,
                random: false,
                short_trace_id: trace_id.1,
            },
        )
    }

    /// Returns header lines as edits leave them, sorted.
    pub fn written(
        lines: &[(&str, &str)],
        edit: impl Fn(&mut Edits<'_, '_>),
    ) -> Vec<(String, String)> {
        let head = head(lines);
        let mut edits = Edits::of(&head);
        edit(&mut edits);
        applied(lines, &edits.finish())
    }

    /// Returns header lines with these edits made, sorted.
    pub fn applied(lines: &[(&str, &str)], edits: &[HeaderEdit<'_>]) -> Vec<(String, String)> {
        let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
        let mut lines: Vec<_> =
            lines.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        for edit in edits {
            match edit {
                HeaderEdit::Add { name, value } => lines.push((name.to_string(), text(value))),
                HeaderEdit::Set { name, value } => {
                    lines.retain(|(known, _)| known != name);
                    lines.push((name.to_string(), text(value)));
                }
                HeaderEdit::Remove { name } => lines.retain(|(known, _)| known != name),
            }
        }
        lines.sort();
        lines
    }

    /// Injects into an empty head and extracts from what that makes.
    pub fn round_trip(
        inject: impl Fn(&mut Edits<'_, '_>),
        extract: impl Fn(&Head<'_>) -> Extracted,
    ) -> Extracted {
        let lines = written(&[], inject);
        let lines: Vec<_> = lines.iter().map(|(name, value)| (&**name, &**value)).collect();
        extract(&head(&lines))
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanId, TraceId};

    use super::testing::head;
    use super::*;

    #[test]
    fn a_context_that_is_not_sampled_is_read_so_in_every_format() {
        let fresh = FreshIds {
            trace_id: TraceId::from_bytes([0xab; 16]),
            span_id: SpanId::from_bytes([0xcd; 8]),
        };
        for format in Format::ALL {
            let propagation = Propagation::new(vec![format], None, None);
            let headers = propagation.unsampled_headers(fresh);
            let names: std::collections::BTreeSet<_> =
                headers.iter().map(|(name, _)| name).collect();
            assert_eq!(names.len(), headers.len(), "{format:?}: {headers:?}");
            let lines = headers.iter().map(|(name, value)| (name.as_bytes(), &value[..])).collect();
            // `b3multi` in a configuration reads the single header too.
            let extract = match format {
                Format::B3Multi => vec![Format::B3Single, Format::B3Multi],
                format => vec![format],
            };
            let head = Head::new(lines);
            let incoming = Propagation::new(extract, None, None).extract(&head);
            assert_eq!(incoming.sampling, Sampling::NotSampled, "{format:?}: {headers:?}");
        }
    }

    #[test]
    fn headers_that_name_a_trace_are_compared_whatever_their_order() {
        let one = head(&[("traceparent", "a"), ("accept", "b"), ("x-b3-traceid", "c")]);
        let other = head(&[("x-b3-traceid", "c"), ("tracestate", "d"), ("traceparent", "a")]);
        assert_eq!(trace_headers(&one), trace_headers(&other));
        for changed in [
            head(&[("traceparent", "b"), ("x-b3-traceid", "c")]),
            head(&[("traceparent", "a")]),
            head(&[("traceparent", "a"), ("x-b3-traceid", "c"), ("b3", "0")]),
            head(&[("traceparent", "a"), ("traceparent", "a"), ("x-b3-traceid", "c")]),
        ] {
            assert_ne!(trace_headers(&one), trace_headers(&changed));
        }
    }
}
