//! B3, single and multi header: <https://github.com/openzipkin/b3-propagation>.
//!
//! ```text
//! b3                = x-b3-traceid "-" x-b3-spanid [ "-" state ] [ "-" x-b3-parentspanid ] / state
//! state             = "0" / "1" / "d"    ; d is debug: sampled, at a person's request
//! x-b3-traceid      = 1*32HEXDIG         ; not zero; leading zeros may be missing
//! x-b3-spanid       = 1*16HEXDIG         ; not zero; leading zeros may be missing
//! x-b3-parentspanid = 1*16HEXDIG         ; directly behind the span id, 16 digits
//! x-b3-sampled      = "0" / "1"          ; old senders: "true" and "false", in any case
//! x-b3-flags        = "1"                ; debug; any other value is ignored
//! ```
//!
//! The specification requires 16 or 32 digits of lower-case hex. Ids are written in this way: a trace id that
//! was received with at most 16 digits has 16. Old clients send capitals and leave leading zeros out, and
//! Envoy's own Zipkin tracer reads both. `d` in `x-b3-sampled` is read as debug; OpenTelemetry for Go and
//! brave refuse it, and OpenTelemetry for Java treats it as not sampled. A trace id without a span id is a
//! trace without a parent span, as in brave. If there are ids and the state cannot be read, the decision is
//! left open.

use crate::http::edits::Edits;
use crate::http::head::Head;
use crate::propagation::context::{Context, Sampling};
use crate::propagation::extracted::Extracted;
use crate::propagation::format::{Format, FormatDefinition};

pub(super) const SINGLE_HEADER: FormatDefinition = FormatDefinition {
    name: "b3",
    headers: &[SINGLE],
    extract: extract_single,
    inject: inject_single,
    other_encoding: Some(Format::B3Multi),
};

pub(super) const MULTI_HEADER: FormatDefinition = FormatDefinition {
    name: "b3multi",
    headers: &[TRACE_ID, SPAN_ID, PARENT_SPAN_ID, SAMPLED, FLAGS],
    extract: extract_multi,
    inject: inject_multi,
    other_encoding: Some(Format::B3Single),
};

/// Writes the single header. The parent's span id is never written.
fn inject_single(context: &Context, edits: &mut Edits<'_, '_>) {
    let mut value = Vec::with_capacity(SINGLE_LENGTH);
    value.extend_from_slice(context.trace_id_hex(&mut [0; 32]));
    value.push(b'-');
    value.extend_from_slice(&context.span_id_hex());
    match context.sampling {
        Sampling::Deferred => {}
        Sampling::NotSampled => value.extend_from_slice(b"-0"),
        Sampling::Sampled => value.extend_from_slice(b"-1"),
        Sampling::Debug => value.extend_from_slice(b"-d"),
    }
    edits.set(SINGLE, &value);
}

/// Writes the `x-b3-*` headers. The parent's span id is never written.
fn inject_multi(context: &Context, edits: &mut Edits<'_, '_>) {
    edits.set(TRACE_ID, context.trace_id_hex(&mut [0; 32]));
    edits.set(SPAN_ID, &context.span_id_hex());
    match context.sampling {
        Sampling::Debug => {
            edits.set(FLAGS, b"1");
            edits.remove(SAMPLED);
        }
        state => {
            edits.remove(FLAGS);
            match state {
                Sampling::Deferred | Sampling::Debug => edits.remove(SAMPLED),
                Sampling::NotSampled => edits.set(SAMPLED, b"0"),
                Sampling::Sampled => edits.set(SAMPLED, b"1"),
            }
        }
    }
    edits.remove(PARENT_SPAN_ID);
}

/// Reads the single header.
fn extract_single(head: &Head<'_>) -> Extracted {
    let Some(line) = head.first(SINGLE) else {
        return Extracted::Absent;
    };
    let line = line.trim_ascii();
    if let Some(state) = state(line) {
        return Extracted::Decision(state);
    }
    let mut fields = line.splitn(4, |byte| *byte == b'-');
    let mut field = || fields.next();
    let (trace_id, span_id) = (field().unwrap_or_default(), field().unwrap_or_default());
    let sampling = match (field(), field()) {
        (None, _) => Sampling::Deferred,
        (Some(parent), None) if parent.len() == 16 && is_span_id(parent) => Sampling::Deferred,
        (Some(field), parent) => match state(field) {
            None => return Extracted::Invalid("expected the sampling state 0, 1 or d"),
            Some(_) if !parent.is_none_or(is_span_id) => {
                return Extracted::Invalid("expected a parent span id of 1 to 16 hex digits");
            }
            Some(state) => state,
        },
    };
    Extracted::from_hex(trace_id, span_id, sampling)
}

/// Reads the `x-b3-*` headers.
fn extract_multi(head: &Head<'_>) -> Extracted {
    let (trace_id, span_id) = (head.first(TRACE_ID), head.first(SPAN_ID));
    let sampling = match (head.first(FLAGS), head.first(SAMPLED)) {
        (Some(b"1"), _) => Sampling::Debug,
        (_, Some(field)) => match state(field).or_else(|| old_state(field)) {
            Some(state) => state,
            None if trace_id.is_some() => Sampling::Deferred,
            None => return Extracted::Invalid("expected the sampling state 0 or 1"),
        },
        (_, None) => Sampling::Deferred,
    };
    Extracted::from_optional_hex(trace_id, span_id, sampling)
}

fn is_span_id(field: &[u8]) -> bool {
    (1..=16).contains(&field.len()) && field.iter().all(u8::is_ascii_hexdigit)
}

fn state(field: &[u8]) -> Option<Sampling> {
    match field {
        b"0" => Some(Sampling::NotSampled),
        b"1" => Some(Sampling::Sampled),
        b"d" => Some(Sampling::Debug),
        _ => None,
    }
}

fn old_state(field: &[u8]) -> Option<Sampling> {
    if field.eq_ignore_ascii_case(b"true") {
        return Some(Sampling::Sampled);
    }
    field.eq_ignore_ascii_case(b"false").then_some(Sampling::NotSampled)
}

const SINGLE: &str = "b3";
const TRACE_ID: &str = "x-b3-traceid";
const SPAN_ID: &str = "x-b3-spanid";
const PARENT_SPAN_ID: &str = "x-b3-parentspanid";
const SAMPLED: &str = "x-b3-sampled";
const FLAGS: &str = "x-b3-flags";
const SINGLE_LENGTH: usize = 51;

#[cfg(test)]
mod tests;
