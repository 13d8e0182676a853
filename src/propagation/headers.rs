//! The names of headers that hold a trace context or baggage, in any tracing system.
//!
//! Such headers are removed when the caller is not trusted, or when a request leaves the mesh. That
//! includes formats that the filter does not read: an application behind it may.

use super::baggage;
use super::format::Format;
use super::tracestate::TRACESTATE;
use crate::http::head::Head;

/// Tells whether a header holds a context, or a part of one, in any tracing system.
pub(crate) fn holds_context(name: &[u8]) -> bool {
    let is_one_of = |known: &[&str]| known.iter().any(|known| is_spelled(name, known));
    // Few names get past their first and third byte.
    let (first, third) = first_and_third(name);
    THIRD_LETTERS.get(first).is_some_and(|letters| letters >> third & 1 == 1)
        && (Format::HEADERS.iter().any(|headers| is_one_of(headers)) || is_one_of(OTHER_CONTEXTS))
}

/// Tells whether a header holds baggage, in any tracing system.
pub(super) fn holds_baggage(name: &[u8]) -> bool {
    let begins =
        |prefix: &&str| name.get(..prefix.len()).is_some_and(|start| is_spelled(start, prefix));
    BAGGAGE.iter().any(|known| is_spelled(name, known)) || BAGGAGE_PREFIXES.iter().any(begins)
}

/// Tells whether a header holds a context in a known format, or W3C's baggage.
pub(crate) fn is_known_header(name: &str) -> bool {
    name == baggage::BAGGAGE || Format::HEADERS.iter().any(|headers| headers.contains(&name))
}

/// Returns the lines that name a trace and its parent span, in all known formats, sorted.
pub(crate) fn trace_headers(head: &Head<'_>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let names = Format::HEADERS.iter().copied().flatten();
    let mut lines = Vec::new();
    for name in names.filter(|name| **name != TRACESTATE) {
        let line = |value: &[u8]| (name.as_bytes().to_vec(), value.to_vec());
        lines.extend(head.all(name).map(line));
    }
    lines.sort_unstable();
    lines
}

/// Tells whether an application may take a header's name for this one: some treat `_` and `-` as
/// the same.
fn is_spelled(name: &[u8], known: &str) -> bool {
    // Most names of the same length differ at their end.
    let is_same = |(one, other): (&u8, u8)| *one == other || (*one == b'_' && other == b'-');
    name.len() == known.len() && name.iter().zip(known.bytes()).rev().all(is_same)
}

/// The third letters of headers with a context, a bit each, by their first letters.
const THIRD_LETTERS: [u32; 32] = {
    let mut letters = third_letters([0; 32], OTHER_CONTEXTS);
    let mut formats = Format::HEADERS;
    while let [headers, rest @ ..] = formats {
        letters = third_letters(letters, headers);
        formats = rest;
    }
    letters
};

/// Adds the third letters of these names.
#[expect(clippy::indexing_slicing, reason = "an index out of bounds stops the build")]
const fn third_letters(mut letters: [u32; 32], mut names: &[&str]) -> [u32; 32] {
    while let [name, rest @ ..] = names {
        let (first, third) = first_and_third(name.as_bytes());
        letters[first] |= 1 << third;
        names = rest;
    }
    letters
}

/// Returns the low five bits of the first and of the third byte, which differ between lower-case letters.
const fn first_and_third(name: &[u8]) -> (usize, u32) {
    match name {
        [first, _, b'_', ..] => ((*first & 31) as usize, (b'-' & 31) as u32),
        [first, _, third, ..] => ((*first & 31) as usize, (*third & 31) as u32),
        [first, ..] => ((*first & 31) as usize, 0),
        [] => (0, 0),
    }
}

/// Headers of formats that are not read here, and headers that tell of a trace besides its context.
const OTHER_CONTEXTS: &[&str] = &[
    "traceresponse",
    "jaeger-debug-id",
    "x-ot-span-context",
    "x-datadog-origin",
    "elastic-apm-traceparent",
    "newrelic",
    "sw8",
    "sw8-x",
];
const BAGGAGE: &[&str] = &[baggage::BAGGAGE, "jaeger-baggage", "sw8-correlation"];
const BAGGAGE_PREFIXES: &[&str] = &["ot-baggage-", "uberctx-"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::propagation::testing::head;

    #[test]
    fn contexts_are_known_in_any_spelling() {
        for name in Format::HEADERS.iter().copied().flatten().chain(OTHER_CONTEXTS) {
            assert!(holds_context(name.as_bytes()), "{name}");
            assert!(holds_context(name.replace('-', "_").as_bytes()), "{name}");
            assert!(!holds_baggage(name.as_bytes()), "{name}");
            assert!(!holds_context(format!("{name}-2").as_bytes()), "{name}-2");
        }
        for name in ["traceparen", "x-b3", "x-request-id", "tracestat_", "b-3", ":path", ""] {
            assert!(!holds_context(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn baggage_is_known_in_any_spelling() {
        for name in ["baggage", "uberctx-a", "uberctx_a", "ot-baggage-b", "jaeger_baggage"] {
            assert!(holds_baggage(name.as_bytes()), "{name}");
            assert!(!holds_context(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn trace_headers_do_not_depend_on_their_order() {
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
