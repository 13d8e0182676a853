//! Which formats a context is read from and written to, and what becomes of the other headers.

mod b3;
pub mod baggage;
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

/// A form that a trace context has on the wire: what is written, and what a source is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    TraceContext,
    B3Single,
    B3Multi,
}

/// The propagators in force. Baggage needs none: its header passes through as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Propagation {
    pub extract: Vec<Source>,
    /// What to write. None leaves valid contexts as they came, whatever is decided here.
    pub inject: Option<Vec<Form>>,
}

/// What came in, over all formats that are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    pub parent: Option<Context>,
    /// The sampling state of the parent, or one that came without ids; a missing one is deferred.
    pub sampling: Sampling,
    /// The forms whose context broke their grammar.
    pub invalid: Vec<Form>,
    /// The trace that `tracestate` speaks of.
    trace_state_of: Option<TraceId>,
}

impl Propagation {
    /// Reads all formats; the first valid context wins, and without one the first bare decision.
    pub fn extract(&self, head: &Head<'_>) -> Incoming {
        let mut incoming = Incoming {
            parent: None,
            sampling: Sampling::Deferred,
            invalid: Vec::new(),
            trace_state_of: None,
        };
        let mut decision = None;
        let forms = self.extract.iter().flat_map(|source| source.forms());
        for form in forms {
            let extracted = match form {
                Form::TraceContext => tracecontext::extract(head),
                Form::B3Single => b3::extract_single(head),
                Form::B3Multi => b3::extract_multi(head),
            };
            match extracted {
                Extracted::Absent => {}
                Extracted::Decision(sampling) => decision = decision.or(Some(sampling)),
                Extracted::Context(context) => incoming.accept(*form, context),
                Extracted::Invalid(_) => incoming.invalid.push(*form),
            }
        }
        incoming.sampling = match (incoming.parent, decision) {
            (Some(parent), _) => parent.sampling,
            (None, decision) => decision.unwrap_or(Sampling::Deferred),
        };
        incoming
    }

    /// Writes the context in every format of `inject`, and removes the headers of formats that are
    /// read but not written: they would contradict it. Where nothing is to be written, contexts
    /// stay as they came, but for invalid ones.
    pub fn inject(&self, context: &Context, incoming: &Incoming, edits: &mut Edits<'_>) {
        let Some(inject) = &self.inject else {
            incoming.invalid.iter().for_each(|form| form.remove(edits));
            return;
        };
        let writes = |form| inject.contains(&form);
        let clears_b3 =
            self.extract.contains(&Source::B3) || writes(Form::B3Single) || writes(Form::B3Multi);
        if writes(Form::TraceContext) {
            let same_trace = incoming.trace_state_of == Some(context.trace_id);
            tracecontext::inject(context, same_trace, edits);
        } else if self.extract.contains(&Source::TraceContext) {
            tracecontext::remove(edits);
        }
        if writes(Form::B3Single) {
            b3::inject_single(context, edits);
        } else if clears_b3 {
            b3::remove_single(edits);
        }
        if writes(Form::B3Multi) {
            b3::inject_multi(context, edits);
        } else if clears_b3 {
            b3::remove_multi(edits);
        }
    }
}

impl Source {
    /// The forms that a source is read from, in order.
    fn forms(self) -> &'static [Form] {
        match self {
            Self::TraceContext => &[Form::TraceContext],
            Self::B3 => &[Form::B3Single, Form::B3Multi],
        }
    }
}

impl Form {
    fn remove(self, edits: &mut Edits<'_>) {
        match self {
            Self::TraceContext => tracecontext::remove(edits),
            Self::B3Single => b3::remove_single(edits),
            Self::B3Multi => b3::remove_multi(edits),
        }
    }
}

impl Incoming {
    /// Returns whether `tracestate` belongs to the trace of the parent.
    pub fn has_trace_state(&self) -> bool {
        self.parent.is_some_and(|parent| self.trace_state_of == Some(parent.trace_id))
    }

    fn accept(&mut self, form: Form, context: Context) {
        if form == Form::TraceContext {
            self.trace_state_of = Some(context.trace_id);
        }
        match &mut self.parent {
            Some(parent) => parent.learn_from(&context),
            none => *none = Some(context),
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
