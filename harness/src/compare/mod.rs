//! Puts what a case expects and what was found into two trees of the same form.

mod spans;

use std::collections::BTreeMap;

use spans::expected_span;
pub use spans::found_span;

use crate::captures::escape;
use crate::headers::{self, ExpectedHeaders, Header, HeaderValue, hex};
use crate::host::{Call, Headers, LogLine, Request};
use crate::otlp::ExportedSpan;
use crate::scenario::{Expect, ExpectedCall, ExpectedSpan};
use crate::tree::Tree;

/// What came of a case.
pub struct Found<'a> {
    /// The request's headers before and after the filter.
    pub request: (&'a Headers, &'a Headers),
    /// The response's, likewise.
    pub response: (&'a Headers, &'a Headers),
    pub spans: &'a [ExportedSpan],
    pub calls: &'a [Call],
    pub log: &'a [LogLine],
    pub metrics: BTreeMap<&'a str, Option<i64>>,
    /// Start of the scenario, start of the request, and the request's duration.
    pub times: Times,
}

/// Times in nanoseconds, the starts since 1970.
#[derive(Clone, Copy)]
pub struct Times {
    pub scenario_ns: u64,
    pub request_ns: u64,
    pub duration_ns: u64,
}

/// The expected and the found tree. What is compared only where it is expected is in neither,
/// unless it is.
pub fn trees(expect: &Expect, found: &Found) -> (Tree, Tree) {
    let mut pairs = vec![
        ("upstream", header_trees(&expect.upstream, found.request)),
        ("client", header_trees(&expect.client, found.response)),
        ("spans", span_trees(&expect.spans, found)),
    ];
    if !expect.metrics.is_empty() {
        pairs.push(("metrics", metric_trees(&expect.metrics, &found.metrics)));
    }
    if !expect.log.is_empty() {
        pairs.push(("log", log_trees(&expect.log, found.log)));
    }
    if let Some(calls) = &expect.calls {
        pairs.push(("calls", call_trees(calls, found.calls)));
    }
    let (mut expected_entries, mut found_entries) = (Vec::new(), Vec::new());
    for (key, (expected, found)) in pairs {
        expected_entries.push((key.to_owned(), expected));
        found_entries.push((key.to_owned(), found));
    }
    (Tree::Map(expected_entries), Tree::Map(found_entries))
}

fn header_trees(expected: &ExpectedHeaders, (before, after): (&Headers, &Headers)) -> (Tree, Tree) {
    let mut found = headers::show(after);
    let expected = match expected {
        ExpectedHeaders::Unchanged => literal(headers::show(before)),
        ExpectedHeaders::Lines(lines) => {
            // A pseudo header that nobody named is compared with what was sent.
            found.retain(|line| {
                let named = lines.0.iter().any(|expected| expected.name == line.name);
                let sent = before.first(&line.name).map(headers::show_value);
                named || !line.name.starts_with(':') || sent.as_ref() != Some(&line.value)
            });
            expected_lines(&lines.0)
        }
    };
    (line_tree(expected), line_tree(found))
}

/// Lines that are meant as they are, without captures.
fn literal(mut lines: Vec<Header>) -> Vec<Header> {
    for line in &mut lines {
        if let HeaderValue::Text(text) = &mut line.value {
            *text = escape(text);
        }
    }
    lines
}

/// Expected lines with bytes that are text shown as text, as found ones are.
fn expected_lines(lines: &[Header]) -> Vec<Header> {
    let shown = lines.iter().map(|line| match &line.value {
        HeaderValue::Text(_) => line.clone(),
        HeaderValue::Bytes(bytes) => {
            literal(vec![Header { name: line.name.clone(), value: headers::show_value(bytes) }])
                .remove(0)
        }
    });
    shown.collect()
}

fn line_tree(lines: Vec<Header>) -> Tree {
    let entries = lines.into_iter().map(|line| {
        let value = match line.value {
            HeaderValue::Text(text) => Tree::Text(text),
            HeaderValue::Bytes(bytes) => Tree::word(format!("value_hex {}", hex(&bytes))),
        };
        (line.name, value)
    });
    Tree::sorted(entries.collect())
}

fn span_trees(expected: &[ExpectedSpan], found: &Found) -> (Tree, Tree) {
    let trees = expected.iter().map(|span| expected_span(span, found.times)).collect();
    let found_trees = found.spans.iter().enumerate();
    let found_trees =
        found_trees.map(|(index, span)| found_span(span, expected.get(index), found.times));
    (Tree::List(trees), Tree::List(found_trees.collect()))
}

fn metric_trees(
    expected: &BTreeMap<String, i64>,
    found: &BTreeMap<&str, Option<i64>>,
) -> (Tree, Tree) {
    let trees = expected.iter().map(|(name, value)| (name.clone(), Tree::number(*value)));
    let found_trees = expected.keys().map(|name| {
        let value = found.get(name.as_str()).copied().flatten();
        (name.clone(), value.map_or_else(|| Tree::word("not defined"), Tree::number))
    });
    (Tree::Map(trees.collect()), Tree::Map(found_trees.collect()))
}

fn log_trees(expected: &[String], log: &[LogLine]) -> (Tree, Tree) {
    let found =
        expected.iter().filter(|text| log.iter().any(|line| line.message.contains(text.as_str())));
    let tree = |text: &String| Tree::text(escape(text));
    (Tree::List(expected.iter().map(tree).collect()), Tree::List(found.map(Tree::text).collect()))
}

fn call_trees(expected: &[ExpectedCall], found: &[Call]) -> (Tree, Tree) {
    let trees = expected.iter().map(|call| {
        let lines = expected_lines(&call.headers.0);
        call_tree(&escape(&call.cluster), lines, call.timeout_ms)
    });
    let found_trees = found.iter().enumerate().map(|(index, call)| {
        let headers = match &call.request {
            Request::Http { headers, .. } => headers,
            Request::Grpc { metadata, .. } => metadata,
        };
        let timed = expected.get(index).is_some_and(|expected| expected.timeout_ms.is_some());
        call_tree(&call.cluster, headers::show(headers), timed.then_some(call.timeout_ms))
    });
    (Tree::List(trees.collect()), Tree::List(found_trees.collect()))
}

fn call_tree(cluster: &str, lines: Vec<Header>, timeout_ms: Option<u32>) -> Tree {
    let mut entries =
        vec![entry("cluster", Tree::text(cluster)), entry("headers", line_tree(lines))];
    entries.extend(timeout_ms.map(|timeout| entry("timeout_ms", Tree::number(timeout))));
    Tree::Map(entries)
}

pub(super) fn entry(key: &str, value: Tree) -> (String, Tree) {
    (key.to_owned(), value)
}
