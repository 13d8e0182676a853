//! Which headers speak of a trace, whatever their format: those that go no further where a client is
//! not trusted, or the way leads out of the mesh.

use super::baggage;
use super::tracestate::TRACESTATE;

/// Tells whether a header holds a context, or a part of one, in any format.
pub fn holds_context(name: &[u8]) -> bool {
    // What most headers begin with is looked up no further.
    matches!(
        name.first(),
        Some(b'b' | b'e' | b'g' | b'j' | b'n' | b'o' | b's' | b't' | b'u' | b'x')
    ) && CONTEXTS.iter().any(|known| is_spelled(name, known))
}

/// Tells whether a header holds baggage, in any format.
pub fn holds_baggage(name: &[u8]) -> bool {
    let begins =
        |prefix: &&str| name.get(..prefix.len()).is_some_and(|start| is_spelled(start, prefix));
    BAGGAGE.iter().any(|it| is_spelled(name, it)) || BAGGAGE_PREFIXES.iter().any(begins)
}

/// Tells whether an application may take a header's name for this one: some take `_` and `-` for the
/// same.
fn is_spelled(name: &[u8], known: &str) -> bool {
    // Most names of the same length differ at their end.
    let is_same = |(one, other): (&u8, u8)| *one == other || (*one == b'_' && other == b'-');
    name.len() == known.len() && name.iter().zip(known.bytes()).rev().all(is_same)
}

/// Headers of all formats, of those too that are not read here, and of a trace besides its context.
const CONTEXTS: &[&str] = &[
    "traceparent",
    TRACESTATE,
    "traceresponse",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "uber-trace-id",
    "jaeger-debug-id",
    "x-amzn-trace-id",
    "ot-tracer-traceid",
    "ot-tracer-spanid",
    "ot-tracer-sampled",
    "x-ot-span-context",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "x-datadog-tags",
    "x-datadog-origin",
    "grpc-trace-bin",
    "x-cloud-trace-context",
    "elastic-apm-traceparent",
    "newrelic",
    "sw8",
    "sw8-x",
    "x-instana-l",
    "x-instana-s",
    "x-instana-t",
];
const BAGGAGE: &[&str] = &[baggage::BAGGAGE, "jaeger-baggage", "sw8-correlation"];
const BAGGAGE_PREFIXES: &[&str] = &["ot-baggage-", "uberctx-"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::propagation::Format;

    #[test]
    fn the_headers_of_every_format_are_contexts_in_any_spelling() {
        for name in Format::ALL.iter().flat_map(|format| format.headers()) {
            assert!(holds_context(name.as_bytes()), "{name}");
            assert!(holds_context(name.replace('-', "_").as_bytes()), "{name}");
            assert!(!holds_baggage(name.as_bytes()), "{name}");
        }
        assert!(CONTEXTS.iter().all(|name| holds_context(name.as_bytes())));
        for name in
            ["traceparen", "x-b3", "x-b3-traceid-2", "x-request-id", "tracestat_", "b-3", ""]
        {
            assert!(!holds_context(name.as_bytes()), "{name}");
        }
        for name in ["baggage", "uberctx-a", "uberctx_a", "ot-baggage-b", "jaeger_baggage"] {
            assert!(holds_baggage(name.as_bytes()), "{name}");
        }
    }
}
