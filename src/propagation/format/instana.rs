//! Instana's headers:
//! <https://www.ibm.com/docs/en/instana-observability/current?topic=monitoring-traces#tracing-headers>.
//!
//! ```text
//! x-instana-t = 1*32HEXDIG    ; the trace id, not zero
//! x-instana-s = 1*16HEXDIG    ; the span id, not zero
//! x-instana-l = ( "0" / "1" ) [ "," *any ]    ; 0: not sampled, 1: sampled
//! ```
//!
//! If there is a trace id, a level that is missing or cannot be read counts as 1. After a comma, the level
//! names the page view of a browser. That part is meant for the first tracer only, so it is not passed on. A
//! level of 0 is written beside the ids, as OpenTelemetry's propagators for Instana do.

use crate::http::edits::Edits;
use crate::http::head::Head;
use crate::propagation::context::{Context, Sampling};
use crate::propagation::extracted::Extracted;
use crate::propagation::format::FormatDefinition;

pub(super) const FORMAT: FormatDefinition = FormatDefinition {
    name: "instana",
    headers: &[TRACE_ID, SPAN_ID, LEVEL],
    extract,
    inject,
    other_encoding: None,
};

fn extract(head: &Head<'_>) -> Extracted {
    let (trace_id, span_id) = (head.first(TRACE_ID), head.first(SPAN_ID));
    let level = head.first(LEVEL).and_then(|level| level.split(|byte| *byte == b',').next());
    let sampling = match level.map(<[u8]>::trim_ascii) {
        Some(b"0") => Sampling::NotSampled,
        Some(b"1") => Sampling::Sampled,
        _ if trace_id.is_some() => Sampling::Sampled,
        None => Sampling::Deferred,
        Some(_) => return Extracted::Invalid("expected the level 0 or 1"),
    };
    Extracted::from_optional_hex(trace_id, span_id, sampling)
}

fn inject(context: &Context, edits: &mut Edits<'_, '_>) {
    edits.set(TRACE_ID, context.trace_id_hex(&mut [0; 32]));
    edits.set(SPAN_ID, &context.span_id_hex());
    edits.set(LEVEL, if context.sampling == Sampling::NotSampled { b"0" } else { b"1" });
}

const TRACE_ID: &str = "x-instana-t";
const SPAN_ID: &str = "x-instana-s";
const LEVEL: &str = "x-instana-l";

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanId, TraceId};
    use proptest::prelude::*;

    use super::*;
    use crate::propagation::extracted::TraceRoot;
    use crate::propagation::testing::{any_context, head, named, round_trip};

    const T: &str = "80f198ee56343ba864fe8b2a57d3eff7";
    const S: &str = "e457b5a2e4d86bd1";
    const LONG: u128 = 0x80f1_98ee_5634_3ba8_64fe_8b2a_57d3_eff7;
    const SHORT: u128 = 0x64fe_8b2a_57d3_eff7;

    fn context(trace_id: u128, sampling: Sampling) -> Extracted {
        Extracted::Context(Context {
            trace_id: TraceId::from(trace_id),
            span_id: SpanId::from(0xe457_b5a2_e4d8_6bd1),
            sampling,
            random: false,
            short_trace_id: trace_id == SHORT,
        })
    }

    /// Reads a trace id, span id and level; `None` is an absent header.
    fn read(values: [Option<&str>; 3]) -> Extracted {
        extract(&head(&named(FORMAT.headers, values)))
    }

    #[track_caller]
    fn check(values: [Option<&str>; 3], expected: Extracted) {
        assert_eq!(read(values), expected, "{values:?}");
    }

    #[test]
    fn contexts_are_read() {
        let ids = |level| [Some(T), Some(S), level];
        check([None; 3], Extracted::Absent);
        check(ids(Some("1")), context(LONG, Sampling::Sampled));
        check(ids(Some("0")), context(LONG, Sampling::NotSampled));
        check(ids(None), context(LONG, Sampling::Sampled));
        check(ids(Some("2")), context(LONG, Sampling::Sampled));
        check(
            ids(Some("1,correlationType=web;correlationId=1a2b3c4d")),
            context(LONG, Sampling::Sampled),
        );
        check([Some(&T[16..]), Some(S), Some(" 1 ")], context(SHORT, Sampling::Sampled));
        let capitals = T.to_uppercase();
        check([Some(&capitals), Some(S), Some("0")], context(LONG, Sampling::NotSampled));
    }

    #[test]
    fn levels_and_trace_ids_count_alone() {
        check([None, None, Some("0")], Extracted::Decision(Sampling::NotSampled));
        check([None, None, Some("1")], Extracted::Decision(Sampling::Sampled));
        check([None, Some(S), Some("0")], Extracted::Decision(Sampling::NotSampled));
        let root = TraceRoot {
            trace_id: TraceId::from(LONG),
            sampling: Sampling::Sampled,
            short_trace_id: false,
        };
        check([Some(T), None, Some("1")], Extracted::Root(root));
    }

    #[test]
    fn invalid_contexts_are_refused() {
        for (values, reason) in [
            ([Some(""), Some(S), Some("1")], "an empty trace id"),
            ([Some("rubbish"), Some(S), Some("1")], "no hex"),
            ([Some("0"), Some(S), Some("1")], "zero trace id"),
            ([Some(T), Some("0"), Some("1")], "zero span id"),
            ([Some(T), Some(T), Some("1")], "a span id of 32 digits"),
            ([Some(T), Some(""), None], "an empty span id"),
            ([None, Some(S), None], "no trace id"),
            ([None, None, Some("")], "an empty level, without ids"),
            ([None, None, Some("yes")], "no such level, without ids"),
        ] {
            let found = read(values);
            assert!(matches!(found, Extracted::Invalid(_)), "{reason}: {values:?}: {found:?}");
        }
    }

    proptest! {
        #[test]
        fn an_injected_context_is_extracted_again(
            sent in any_context(&[Sampling::NotSampled, Sampling::Sampled]),
        ) {
            let found = round_trip(|edits| inject(&sent, edits), extract);
            prop_assert_eq!(found, Extracted::Context(sent));
        }

        #[test]
        fn no_bytes_panic(values: [Vec<u8>; 3]) {
            let lines = FORMAT.headers.iter().zip(&values);
            let lines = lines.map(|(name, value)| (name.as_bytes(), value.as_slice()));
            let _ = extract(&Head::new(lines.collect()));
        }
    }
}
