//! Builds two trees of the same structure: the result that a case expects, and the result that was
//! found. Their YAML is what a user sees as the difference.

mod captures;
mod spans;
mod tree;

use std::collections::BTreeMap;

use crate::host::{Call, LogLine, Request};
use crate::otlp::ExportedSpan;
use crate::scenario::headers::{self, Header, HeaderValue, hex};
use crate::scenario::{Expect, ExpectedCall, ExpectedHeaders, ExpectedSpan};
use crate::session::{Exchange, HeaderChange};

pub(crate) use captures::Captures;
pub(crate) use spans::{Times, found_span};
pub(crate) use tree::Tree;

use captures::escape;
use spans::expected_span;
use tree::entry;

/// The result of a case.
pub(crate) struct Found<'a> {
    pub(crate) exchange: &'a Exchange,
    pub(crate) spans: &'a [ExportedSpan],
    pub(crate) calls: &'a [Call],
    pub(crate) log: &'a [LogLine],
    pub(crate) metrics: BTreeMap<&'a str, Option<i64>>,
    pub(crate) times: Times,
}

/// Returns the expected and the found tree. Optional parts are in both trees if they are expected, and
/// in neither if not.
pub(crate) fn trees(expect: &Expect, found: &Found) -> (Tree, Tree) {
    let mut pairs = vec![
        ("upstream", header_trees(&expect.upstream, &found.exchange.request)),
        ("client", header_trees(&expect.client, &found.exchange.response)),
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
        expected_entries.push(entry(key, expected));
        found_entries.push(entry(key, found));
    }
    (Tree::Map(expected_entries), Tree::Map(found_entries))
}

fn header_trees(expected: &ExpectedHeaders, change: &HeaderChange) -> (Tree, Tree) {
    let mut found = headers::lines(&change.after);
    let expected = match expected {
        ExpectedHeaders::Unchanged => without_captures(headers::lines(&change.before)),
        ExpectedHeaders::Lines(lines) => {
            // A pseudo header that is not expected must be unchanged, and is then left out.
            found.retain(|line| {
                let is_expected = lines.0.iter().any(|expected| expected.name == line.name);
                let before = change.before.first(&line.name).map(headers::value);
                is_expected || !line.name.starts_with(':') || before.as_ref() != Some(&line.value)
            });
            expected_lines(&lines.0)
        }
    };
    (line_tree(expected), line_tree(found))
}

/// Escapes the captures in lines whose values are literal.
fn without_captures(mut lines: Vec<Header>) -> Vec<Header> {
    for line in &mut lines {
        if let HeaderValue::Text(text) = &mut line.value {
            *text = escape(text);
        }
    }
    lines
}

/// Converts expected bytes that are text to text, as they are in found lines.
fn expected_lines(lines: &[Header]) -> Vec<Header> {
    let lines = lines.iter().map(|line| match &line.value {
        HeaderValue::Text(_) => line.clone(),
        HeaderValue::Bytes(bytes) => {
            let line = Header { name: line.name.clone(), value: headers::value(bytes) };
            without_captures(vec![line]).remove(0)
        }
    });
    lines.collect()
}

fn line_tree(lines: Vec<Header>) -> Tree {
    let entries = lines.into_iter().map(|line| {
        let value = match line.value {
            HeaderValue::Text(text) => Tree::Text(text),
            HeaderValue::Bytes(bytes) => Tree::symbol(format!("value_hex {}", hex(&bytes))),
        };
        (line.name, value)
    });
    Tree::sorted(entries.collect())
}

fn span_trees(expected: &[ExpectedSpan], found: &Found) -> (Tree, Tree) {
    let expected_trees = expected.iter().map(|span| expected_span(span, found.times)).collect();
    let found_trees = found.spans.iter().enumerate();
    let found_trees =
        found_trees.map(|(index, span)| found_span(span, expected.get(index), found.times));
    (Tree::List(expected_trees), Tree::List(found_trees.collect()))
}

fn metric_trees(
    expected: &BTreeMap<String, i64>,
    found: &BTreeMap<&str, Option<i64>>,
) -> (Tree, Tree) {
    let expected_trees = expected.iter().map(|(name, value)| (name.clone(), Tree::number(*value)));
    let found_trees = expected.keys().map(|name| {
        let value = found.get(name.as_str()).copied().flatten();
        (name.clone(), value.map_or_else(|| Tree::symbol("not defined"), Tree::number))
    });
    (Tree::Map(expected_trees.collect()), Tree::Map(found_trees.collect()))
}

fn log_trees(expected: &[String], log: &[LogLine]) -> (Tree, Tree) {
    let found =
        expected.iter().filter(|text| log.iter().any(|line| line.message.contains(text.as_str())));
    let tree = |text: &String| Tree::text(escape(text));
    (Tree::List(expected.iter().map(tree).collect()), Tree::List(found.map(Tree::text).collect()))
}

fn call_trees(expected: &[ExpectedCall], found: &[Call]) -> (Tree, Tree) {
    let expected_trees = expected.iter().map(|call| {
        let lines = expected_lines(&call.headers.0);
        call_tree(&escape(&call.cluster), lines, call.timeout_ms)
    });
    let found_trees = found.iter().enumerate().map(|(index, call)| {
        let headers = match &call.request {
            Request::Http { headers, .. } => headers,
            Request::Grpc { metadata, .. } => metadata,
        };
        let expected_timeout = expected.get(index).and_then(|expected| expected.timeout_ms);
        let timeout_ms = expected_timeout.map(|_| call.timeout_ms);
        call_tree(&call.cluster, headers::lines(headers), timeout_ms)
    });
    (Tree::List(expected_trees.collect()), Tree::List(found_trees.collect()))
}

fn call_tree(cluster: &str, lines: Vec<Header>, timeout_ms: Option<u32>) -> Tree {
    let mut entries =
        vec![entry("cluster", Tree::text(cluster)), entry("headers", line_tree(lines))];
    entries.extend(timeout_ms.map(|timeout| entry("timeout_ms", Tree::number(timeout))));
    Tree::Map(entries)
}
