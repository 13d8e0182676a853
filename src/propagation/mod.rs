//! Which formats a context is read from and written to, and what becomes of the other headers.

mod b3;
mod tracecontext;

use opentelemetry::trace::TraceId;

use crate::context::{Context, Extracted, Sampling};
use crate::edits::Edits;
use crate::head::Head;

pub use tracecontext::trace_state;

/// A format of trace context that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    TraceContext,
    B3,
}

/// A format of trace context that can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    TraceContext,
    B3Single,
    B3Multi,
}

/// The propagators in force. Baggage needs none: its header passes through as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Propagation {
    pub extract: Vec<Source>,
    pub inject: Vec<Target>,
}

/// What came in, over all formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incoming {
    pub parent: Option<Context>,
    /// The sampling state of the parent, or one that came without ids; a missing one is deferred.
    pub sampling: Sampling,
    /// Contexts that broke the grammar of their format.
    pub invalid: u32,
    /// The trace that `tracestate` speaks of.
    trace_state_of: Option<TraceId>,
    invalid_trace_context: bool,
    invalid_b3: bool,
}

impl Propagation {
    /// Reads all formats; the first valid context wins, and without one the first bare decision.
    pub fn extract(&self, head: &Head<'_>) -> Incoming {
        let mut incoming = Incoming::NONE;
        let mut decision = None;
        for source in &self.extract {
            let extracted = match source {
                Source::TraceContext => tracecontext::extract(head),
                Source::B3 => b3::extract(head),
            };
            match (source, extracted) {
                (_, Extracted::Absent) => {}
                (_, Extracted::Decision(sampling)) => decision = decision.or(Some(sampling)),
                (_, Extracted::Context(context)) => incoming.accept(*source, context),
                (Source::TraceContext, Extracted::Invalid(_)) => {
                    incoming.invalid += 1;
                    incoming.invalid_trace_context = true;
                }
                (Source::B3, Extracted::Invalid(_)) => {
                    incoming.invalid += 1;
                    incoming.invalid_b3 = true;
                }
            }
        }
        if let (None, Some(sampling)) = (incoming.parent, decision) {
            incoming.sampling = sampling;
        }
        incoming
    }

    /// Writes the context in every format of `inject`, and removes the headers of formats that are
    /// read but not written: they would contradict it. Where nothing is written, contexts stay as
    /// they came, but for invalid ones.
    pub fn inject(&self, context: &Context, incoming: &Incoming, edits: &mut Edits<'_>) {
        let writes = |target| self.inject.contains(&target);
        let reads = |source| self.extract.contains(&source);
        let silent = self.inject.is_empty();
        if writes(Target::TraceContext) {
            let same_trace = incoming.trace_state_of == Some(context.trace_id);
            tracecontext::inject(context, same_trace, edits);
        } else if if silent { incoming.invalid_trace_context } else { reads(Source::TraceContext) }
        {
            tracecontext::remove(edits);
        }
        let clears_b3 = if silent { incoming.invalid_b3 } else { reads(Source::B3) };
        if writes(Target::B3Single) {
            b3::inject_single(context, edits);
        } else if clears_b3 {
            b3::remove_single(edits);
        }
        if writes(Target::B3Multi) {
            b3::inject_multi(context, edits);
        } else if clears_b3 {
            b3::remove_multi(edits);
        }
    }
}

impl Incoming {
    const NONE: Self = Self {
        parent: None,
        sampling: Sampling::Deferred,
        invalid: 0,
        trace_state_of: None,
        invalid_trace_context: false,
        invalid_b3: false,
    };

    /// Returns whether `tracestate` belongs to the trace of the parent.
    pub fn has_trace_state(&self) -> bool {
        self.parent.is_some_and(|parent| self.trace_state_of == Some(parent.trace_id))
    }

    fn accept(&mut self, source: Source, context: Context) {
        if source == Source::TraceContext {
            self.trace_state_of = Some(context.trace_id);
        }
        if self.parent.is_none() {
            self.sampling = context.sampling;
            self.parent = Some(context);
        }
    }
}

#[cfg(test)]
pub mod testing {
    //! What the tests of every format need.

    use crate::context::Extracted;
    use crate::edits::{Edits, HeaderEdit};
    use crate::head::Head;

    pub fn head<'a>(lines: &'a [(&str, &str)]) -> Head<'a> {
        Head::new(lines.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect())
    }

    /// Injects into an empty head and extracts from what that makes.
    pub fn round_trip(
        inject: impl Fn(&mut Edits<'_>),
        extract: impl Fn(&Head<'_>) -> Extracted,
    ) -> Extracted {
        let empty = Head::default();
        let mut edits = Edits::of(&empty);
        inject(&mut edits);
        let edits = edits.finish();
        extract(&Head::new(
            edits
                .iter()
                .filter_map(|edit| match edit {
                    HeaderEdit::Add { name, value } => Some((name.as_bytes(), value.as_slice())),
                    HeaderEdit::Set { .. } | HeaderEdit::Remove { .. } => None,
                })
                .collect(),
        ))
    }
}
