//! Trace context and baggage in the headers of requests and responses.
//!
//! [`Propagation`] is the configured propagator: it extracts the context that a request brings, and
//! injects the one that goes upstream. A context that it reads and does not write would contradict
//! the written one, so it removes its headers. With `extract: [tracecontext, b3]` and `inject: [b3]`:
//!
//! ```text
//! traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01      extracted, then removed
//! b3: 4bf92f3577b34da6a3ce929d0e0e4736-53995c3f42cd8ad8-1                   injected
//! ```

pub mod baggage;
pub(crate) mod context;
pub(crate) mod extracted;
pub(crate) mod format;
mod headers;
pub(crate) mod ids;
mod incoming;
pub mod ot;
pub(crate) mod response;
#[cfg(test)]
pub mod testing;
pub mod tracestate;

use self::context::{Context, FreshIds, Sampling};
pub(crate) use self::format::Format;
use self::headers::holds_baggage;
pub(crate) use self::headers::{holds_context, is_known_header, trace_headers};
pub(crate) use self::incoming::{Faults, Incoming, Link, TrustAction};
use self::ot::ThresholdUpdate;
use self::tracestate::TRACESTATE;
use crate::http::edits::{Edits, HeaderEdit};
use crate::http::head::Head;

/// The configured propagator.
#[derive(Debug, Clone)]
pub struct Propagation {
    /// The formats to read, in order.
    pub extract: Vec<Format>,
    /// The formats to write. With `None`, valid contexts are not changed, whatever is decided here, unless
    /// the trace is restarted.
    pub inject: Option<Vec<Format>>,
    /// Formats whose headers would contradict the written ones.
    stale: Vec<Format>,
    /// Without limits, the `baggage` header is passed on unchanged.
    pub baggage: Option<baggage::Limits>,
    /// Whether new traces have W3C's random flag.
    pub random_flag: bool,
}

impl Propagation {
    /// Formats that are read but not written are stale once a context is written, and so is the other
    /// encoding of a written format.
    pub fn new(
        extract: Vec<Format>,
        inject: Option<Vec<Format>>,
        baggage: Option<baggage::Limits>,
    ) -> Self {
        let written = inject.as_deref().unwrap_or_default();
        let other_encodings = written.iter().filter_map(|format| format.other_encoding());
        let mut stale: Vec<Format> = Vec::new();
        for format in extract.iter().copied().chain(other_encodings) {
            if !written.contains(&format) && !stale.contains(&format) {
                stale.push(format);
            }
        }
        Self { extract, inject, stale, baggage, random_flag: false }
    }

    /// Tells whether contexts are written.
    pub fn writes_contexts(&self) -> bool {
        self.inject.is_some()
    }

    /// Reads the context that a request brings.
    pub fn extract<'a>(&self, head: &Head<'a>) -> Incoming<'a> {
        Incoming::extract(&self.extract, head)
    }

    /// Writes the context in every format of `inject`, and removes stale headers. Without `inject`, only
    /// invalid contexts are removed, or all contexts if the trace was restarted.
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
        if incoming.trust == TrustAction::Restart {
            remove_contexts(edits, inject);
        }
        for format in inject {
            format.inject(context, edits);
            if *format == Format::TraceContext {
                tracestate::inject(incoming.trace_state(context.trace_id), edits);
            }
        }
        self.stale.iter().for_each(|format| format.remove(edits));
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

    /// Returns the headers of a new trace that is not sampled: in W3C's format, in B3's single header,
    /// which every reader of B3 accepts, and in each other format that is read here.
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
        let is_other = |format: &&Format| !format.encodings().any(|it| always.contains(&it));
        let others = self.extract.iter().filter(is_other);
        always.iter().chain(others).for_each(|format| format.inject(&context, &mut edits));
        let added = |edit| match edit {
            HeaderEdit::Add { name, value } => Some((name, value)),
            HeaderEdit::Set { .. } | HeaderEdit::Remove { .. } => None,
        };
        edits.finish().into_iter().filter_map(added).collect()
    }
}

/// Removes every context and all baggage, in any format.
pub(crate) fn remove_all(edits: &mut Edits<'_, '_>) {
    edits.remove_where(|name| holds_context(name) || holds_baggage(name));
}

/// Removes every context, in any format, but keeps the headers of these formats, which are written.
fn remove_contexts(edits: &mut Edits<'_, '_>, written: &[Format]) {
    let headers = || written.iter().flat_map(|format| format.headers());
    edits.remove_where(|name| {
        holds_context(name) && headers().all(|header| header.as_bytes() != name)
    });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use opentelemetry::trace::{SpanId, TraceId};

    use super::*;

    #[test]
    fn unsampled_headers_are_read_as_not_sampled_in_every_format() {
        let fresh = FreshIds {
            upstream_span_id: None,
            trace_id: TraceId::from_bytes([0xab; 16]),
            span_id: SpanId::from_bytes([0xcd; 8]),
        };
        for format in Format::ALL {
            let propagation = Propagation::new(vec![format], None, None);
            let headers = propagation.unsampled_headers(fresh);
            let names: BTreeSet<_> = headers.iter().map(|(name, _)| name).collect();
            assert_eq!(names.len(), headers.len(), "{format:?}: {headers:?}");
            let lines = headers.iter().map(|(name, value)| (name.as_bytes(), &value[..]));
            let head = Head::new(lines.collect());
            let encodings = format.encodings().collect();
            let incoming = Propagation::new(encodings, None, None).extract(&head);
            assert_eq!(incoming.sampling, Sampling::NotSampled, "{format:?}: {headers:?}");
        }
    }
}
