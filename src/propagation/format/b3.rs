//! B3, single and multi header: <https://github.com/openzipkin/b3-propagation>.
//!
//! ```text
//! b3                = [ x-b3-traceid "-" x-b3-spanid [ "-" state [ "-" x-b3-parentspanid ] ] ] / state
//! state             = "0" / "1" / "d"            ; d is debug: sampled, at a person's request
//! x-b3-traceid      = 16HEXDIGLC / 32HEXDIGLC    ; not all zeros
//! x-b3-spanid       = 16HEXDIGLC                 ; not all zeros
//! x-b3-parentspanid = 16HEXDIGLC
//! x-b3-sampled      = "0" / "1"                  ; old senders: "true" and "false", in any case
//! x-b3-flags        = "1"                        ; debug; any other value is ignored
//! ```
//!
//! Ids are lower-case hex: the specification has no other, and Zipkin's own library and
//! OpenTelemetry for Go refuse upper case too. `d` in `x-b3-sampled` is read as debug, as
//! OpenTelemetry's SDKs do.

use crate::http::digits::decode_hex;
use crate::http::edits::Edits;
use crate::http::head::Head;
use crate::propagation::context::{Context, Sampling};
use crate::propagation::extracted::Extracted;
use crate::propagation::format::{Format, FormatDefinition};

pub const SINGLE_HEADER: FormatDefinition = FormatDefinition {
    name: "b3",
    headers: &[SINGLE],
    extract: extract_single,
    inject: inject_single,
    other_encoding: Some(Format::B3Multi),
};

pub const MULTI_HEADER: FormatDefinition = FormatDefinition {
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
    let sampling = match field().map(state) {
        None => Sampling::Deferred,
        Some(Some(state)) => state,
        Some(None) => return Extracted::Invalid("expected the sampling state 0, 1 or d"),
    };
    if let Some(parent) = field()
        && decode_hex::<8>(parent).is_none()
    {
        return Extracted::Invalid("expected a parent span id of 16 hex digits");
    }
    Extracted::from_hex(trace_id, span_id, sampling)
}

/// Reads the `x-b3-*` headers.
fn extract_multi(head: &Head<'_>) -> Extracted {
    let sampling = match (head.first(FLAGS), head.first(SAMPLED)) {
        (Some(b"1"), _) => Some(Sampling::Debug),
        (_, Some(field)) => match state(field).or_else(|| old_state(field)) {
            None => return Extracted::Invalid("expected the sampling state 0 or 1"),
            state => state,
        },
        (_, None) => None,
    };
    match (head.first(TRACE_ID), head.first(SPAN_ID), sampling) {
        (Some(trace_id), Some(span_id), _) => {
            Extracted::from_hex(trace_id, span_id, sampling.unwrap_or(Sampling::Deferred))
        }
        (None, None, Some(sampling)) => Extracted::Decision(sampling),
        (None, None, None) => Extracted::Absent,
        _ => Extracted::Invalid("expected a trace id and a span id, but found one of them"),
    }
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
