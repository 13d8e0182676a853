//! Expected and exported spans as trees.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};

use super::tree::{Tree, entry};
use crate::otlp::ExportedSpan;
use crate::scenario::headers::hex;
use crate::scenario::{AttributeValue, ExpectedSpan};

/// Times in nanoseconds; starts are since 1970.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub(crate) scenario_ns: u64,
    pub(crate) request_ns: u64,
    pub(crate) duration_ns: u64,
}

/// Returns the tree of an expected span. The request's times are its default times.
pub(crate) fn expected_span(span: &ExpectedSpan, times: Times) -> Tree {
    let request_start = times.request_ns - times.scenario_ns;
    let start = span.start_ms.map_or(request_start, |ms| ms * NANOS_PER_MS);
    let duration = span.duration_ms.map_or(times.duration_ns, |ms| ms * NANOS_PER_MS);
    let mut entries = vec![
        entry("name", Tree::text(&span.name)),
        entry("kind", Tree::symbol(span.kind.as_str())),
        entry("trace_id", Tree::text(&span.trace_id)),
        entry("span_id", Tree::text(&span.span_id)),
    ];
    push_text(&mut entries, "parent_span_id", &span.parent_span_id);
    push_text(&mut entries, "trace_state", &span.trace_state);
    if let Some(flags) = span.flags {
        entries.push(entry("flags", Tree::Flags(flags)));
    }
    entries.push(entry("start_ms", milliseconds(start.into())));
    entries.push(entry("duration_ms", milliseconds(duration.into())));
    push_status(&mut entries, span.status.code.as_str(), &span.status.message);
    entries.push(entry("attributes", expected_attributes(&span.attributes)));
    let events = span.events.iter().map(|event| {
        Tree::Map(vec![
            entry("name", Tree::text(&event.name)),
            entry("attributes", expected_attributes(&event.attributes)),
        ])
    });
    push_list(&mut entries, "events", events.collect());
    let links = span.links.iter().map(|link| {
        let mut entries = vec![
            entry("trace_id", Tree::text(&link.trace_id)),
            entry("span_id", Tree::text(&link.span_id)),
        ];
        push_text(&mut entries, "trace_state", &link.trace_state);
        entries.push(entry("attributes", expected_attributes(&link.attributes)));
        Tree::Map(entries)
    });
    push_list(&mut entries, "links", links.collect());
    if let Some(scope) = &span.scope {
        entries.push(entry("scope", Tree::text(scope)));
    }
    if let Some(resource) = &span.resource {
        entries.push(entry("resource", expected_attributes(resource)));
    }
    Tree::Map(entries)
}

/// Returns the tree of an exported span. Parts that `expected` leaves out are left out; if no span is
/// expected, the tree has flags but no scope or resource.
pub(crate) fn found_span(
    exported: &ExportedSpan,
    expected: Option<&ExpectedSpan>,
    times: Times,
) -> Tree {
    let span = &exported.span;
    let mut entries = vec![
        entry("name", Tree::text(&span.name)),
        entry("kind", Tree::symbol(kind(span.kind))),
        entry("trace_id", Tree::text(hex(&span.trace_id))),
        entry("span_id", Tree::text(hex(&span.span_id))),
    ];
    push_text(&mut entries, "parent_span_id", &hex(&span.parent_span_id));
    push_text(&mut entries, "trace_state", &span.trace_state);
    if expected.is_none_or(|expected| expected.flags.is_some()) {
        entries.push(entry("flags", Tree::Flags(span.flags)));
    }
    let start = i128::from(span.start_time_unix_nano) - i128::from(times.scenario_ns);
    let duration = i128::from(span.end_time_unix_nano) - i128::from(span.start_time_unix_nano);
    entries.push(entry("start_ms", milliseconds(start)));
    entries.push(entry("duration_ms", milliseconds(duration)));
    if let Some(status) = &span.status {
        push_status(&mut entries, &status_code(status.code), &status.message);
    }
    entries.push(entry("attributes", attributes(&span.attributes)));
    let events = span.events.iter().map(|event| {
        Tree::Map(vec![
            entry("name", Tree::text(&event.name)),
            entry("attributes", attributes(&event.attributes)),
        ])
    });
    push_list(&mut entries, "events", events.collect());
    let links = span.links.iter().map(|link| {
        let mut entries = vec![
            entry("trace_id", Tree::text(hex(&link.trace_id))),
            entry("span_id", Tree::text(hex(&link.span_id))),
        ];
        push_text(&mut entries, "trace_state", &link.trace_state);
        entries.push(entry("attributes", attributes(&link.attributes)));
        Tree::Map(entries)
    });
    push_list(&mut entries, "links", links.collect());
    push_dropped(&mut entries, span);
    if expected.is_some_and(|expected| expected.scope.is_some()) {
        entries.push(entry("scope", Tree::text(&exported.scope)));
    }
    if expected.is_some_and(|expected| expected.resource.is_some()) {
        entries.push(entry("resource", attributes(&exported.resource)));
    }
    Tree::Map(entries)
}

fn push_text(entries: &mut Vec<(String, Tree)>, key: &str, text: &str) {
    if !text.is_empty() {
        entries.push(entry(key, Tree::text(text)));
    }
}

fn push_list(entries: &mut Vec<(String, Tree)>, key: &str, items: Vec<Tree>) {
    if !items.is_empty() {
        entries.push(entry(key, Tree::List(items)));
    }
}

/// Appends a status unless it is the default one.
fn push_status(entries: &mut Vec<(String, Tree)>, code: &str, message: &str) {
    if code == "UNSET" && message.is_empty() {
        return;
    }
    let mut status = vec![entry("code", Tree::symbol(code))];
    push_text(&mut status, "message", message);
    entries.push(entry("status", Tree::Map(status)));
}

/// Appends the numbers of dropped parts. No span is expected to have any, so they show as a difference.
fn push_dropped(entries: &mut Vec<(String, Tree)>, span: &Span) {
    let counts = [
        ("dropped_attributes_count", span.dropped_attributes_count),
        ("dropped_events_count", span.dropped_events_count),
        ("dropped_links_count", span.dropped_links_count),
    ];
    entries.extend(
        counts
            .into_iter()
            .filter(|&(_, count)| count > 0)
            .map(|(key, count)| entry(key, Tree::number(count))),
    );
}

fn kind(number: i32) -> String {
    let kind =
        SpanKind::try_from(number).map(|kind| kind.as_str_name().trim_start_matches("SPAN_KIND_"));
    kind.map_or_else(|_| number.to_string(), str::to_owned)
}

fn status_code(number: i32) -> String {
    let code = StatusCode::try_from(number)
        .map(|code| code.as_str_name().trim_start_matches("STATUS_CODE_"));
    code.map_or_else(|_| number.to_string(), str::to_owned)
}

fn expected_attributes(attributes: &BTreeMap<String, AttributeValue>) -> Tree {
    let entries = attributes.iter().map(|(key, value)| (key.clone(), expected_value(value)));
    Tree::sorted(entries.collect())
}

fn expected_value(value: &AttributeValue) -> Tree {
    match value {
        AttributeValue::Bool(value) => Tree::Bool(*value),
        AttributeValue::Int(value) => Tree::number(*value),
        AttributeValue::Double(value) => Tree::double(*value),
        AttributeValue::Text(value) => Tree::text(value),
        AttributeValue::List(values) => Tree::List(values.iter().map(expected_value).collect()),
    }
}

fn attributes(attributes: &[KeyValue]) -> Tree {
    let entries = attributes
        .iter()
        .map(|attribute| (attribute.key.clone(), any_value(attribute.value.as_ref())));
    Tree::sorted(entries.collect())
}

fn any_value(value: Option<&AnyValue>) -> Tree {
    match value.and_then(|value| value.value.as_ref()) {
        None => Tree::symbol("null"),
        Some(Value::BoolValue(value)) => Tree::Bool(*value),
        Some(Value::IntValue(value)) => Tree::number(*value),
        Some(Value::DoubleValue(value)) => Tree::double(*value),
        Some(Value::StringValue(value)) => Tree::text(value),
        Some(Value::BytesValue(value)) => Tree::symbol(format!("value_hex {}", hex(value))),
        Some(Value::ArrayValue(array)) => {
            Tree::List(array.values.iter().map(|value| any_value(Some(value))).collect())
        }
        Some(Value::KvlistValue(list)) => attributes(&list.values),
        Some(other) => Tree::symbol(format!("{other:?}")),
    }
}

/// Converts nanoseconds to milliseconds, with a fraction if needed.
fn milliseconds(nanoseconds: i128) -> Tree {
    let nanos_per_ms = i128::from(NANOS_PER_MS);
    match i64::try_from(nanoseconds / nanos_per_ms) {
        Ok(whole) if nanoseconds % nanos_per_ms == 0 => Tree::number(whole),
        _ => Tree::double(nanoseconds as f64 / NANOS_PER_MS as f64),
    }
}

const NANOS_PER_MS: u64 = 1_000_000;
