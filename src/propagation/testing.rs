//! Helpers for the tests of every format, and of rooms that read headers.

use opentelemetry::trace::{SpanId, TraceId};
use proptest::prelude::*;

use crate::http::edits::{Edits, HeaderEdit};
use crate::http::head::Head;
use crate::propagation::context::{Context, Sampling};
use crate::propagation::extracted::Extracted;

/// Makes a head of these lines.
pub fn head<'a>(lines: &'a [(&str, &str)]) -> Head<'a> {
    Head::new(lines.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect())
}

/// Returns the header lines of these names and values; `None` is an absent header.
pub fn named<'a, const N: usize>(
    names: &[&'static str],
    values: [Option<&'a str>; N],
) -> Vec<(&'static str, &'a str)> {
    names.iter().zip(values).filter_map(|(name, value)| Some((*name, value?))).collect()
}

/// Contexts with a short or a long trace id, and one of these sampling states.
pub fn any_context(states: &'static [Sampling]) -> impl Strategy<Value = Context> {
    let trace_id = prop_oneof![
        (1u64..).prop_map(|id| (u128::from(id), true)),
        (1u64.., 1u64..)
            .prop_map(|(left, right)| (u128::from(left) << 64 | u128::from(right), false)),
    ];
    (trace_id, 1u64.., prop::sample::select(states)).prop_map(|(trace_id, span_id, sampling)| {
        Context {
            trace_id: TraceId::from(trace_id.0),
            span_id: SpanId::from(span_id),
            sampling,
            random: false,
            short_trace_id: trace_id.1,
        }
    })
}

/// Returns header lines after the edits that a function makes, sorted.
pub fn written(lines: &[(&str, &str)], edit: impl Fn(&mut Edits<'_, '_>)) -> Vec<(String, String)> {
    let head = head(lines);
    let mut edits = Edits::of(&head);
    edit(&mut edits);
    applied(lines, &edits.finish())
}

/// Returns header lines after these edits, sorted.
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

/// Injects into an empty head, and extracts from the result.
pub fn round_trip(
    inject: impl Fn(&mut Edits<'_, '_>),
    extract: impl Fn(&Head<'_>) -> Extracted,
) -> Extracted {
    let lines = written(&[], inject);
    let lines: Vec<_> = lines.iter().map(|(name, value)| (&**name, &**value)).collect();
    extract(&head(&lines))
}
