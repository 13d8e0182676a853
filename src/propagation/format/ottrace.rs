//! OT Trace, the headers of OpenTracing's basic tracers:
//! <https://opentelemetry.io/docs/specs/otel/context/api-propagators/#propagators-distribution>.
//!
//! ```text
//! ot-tracer-traceid = 1*32HEXDIG    ; not zero; leading zeros may be missing
//! ot-tracer-spanid  = 1*16HEXDIG    ; not zero; leading zeros may be missing
//! ot-tracer-sampled = "true" / "false" / "1" / "0"    ; if it is missing, the receiver decides
//! ```
//!
//! OpenTracing's own tracers write ids without leading zeros, and read 16 digits at most. Here ids are
//! written with their zeros: a trace id that was received with at most 16 digits gets 16, others get 32. Some SDKs
//! write only the right half of the trace id for those old tracers, but that splits a trace in two.
//! A trace id without a span id is a trace without a parent span. Next to ids, a state that cannot be
//! read leaves the decision open. `ot-baggage-*` headers are left alone.

use crate::http::edits::Edits;
use crate::http::head::Head;
use crate::propagation::context::{Context, Sampling};
use crate::propagation::extracted::Extracted;
use crate::propagation::format::FormatDefinition;

pub(super) const FORMAT: FormatDefinition = FormatDefinition {
    name: "ottrace",
    headers: &[TRACE_ID, SPAN_ID, SAMPLED],
    extract,
    inject,
    other_encoding: None,
};

fn extract(head: &Head<'_>) -> Extracted {
    let trace_id = head.first(TRACE_ID);
    let sampling = match head.first(SAMPLED) {
        None => Sampling::Deferred,
        Some(b"true" | b"1") => Sampling::Sampled,
        Some(b"false" | b"0") => Sampling::NotSampled,
        Some(_) if trace_id.is_some() => Sampling::Deferred,
        Some(_) => return Extracted::Invalid("expected the sampling state true or false"),
    };
    Extracted::from_optional_hex(trace_id, head.first(SPAN_ID), sampling)
}

fn inject(context: &Context, edits: &mut Edits<'_, '_>) {
    edits.set(TRACE_ID, context.trace_id_hex(&mut [0; 32]));
    edits.set(SPAN_ID, &context.span_id_hex());
    match context.sampling {
        Sampling::Deferred => edits.remove(SAMPLED),
        Sampling::NotSampled => edits.set(SAMPLED, b"false"),
        Sampling::Sampled | Sampling::Debug => edits.set(SAMPLED, b"true"),
    }
}

const TRACE_ID: &str = "ot-tracer-traceid";
const SPAN_ID: &str = "ot-tracer-spanid";
const SAMPLED: &str = "ot-tracer-sampled";

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanId, TraceId};
    use proptest::prelude::*;

    use super::*;
    use crate::propagation::extracted::TraceRoot;
    use crate::propagation::testing::{any_context, head, named, round_trip};

    const LONG: u128 = 0x80f1_98ee_5634_3ba8_64fe_8b2a_57d3_eff7;
    const SHORT: u128 = 0x64fe_8b2a_57d3_eff7;
    const T: &str = "80f198ee56343ba864fe8b2a57d3eff7";
    const T64: &str = "64fe8b2a57d3eff7";
    const S: &str = "e457b5a2e4d86bd1";

    fn context(trace_id: u128, sampling: Sampling) -> Extracted {
        Extracted::Context(Context {
            trace_id: TraceId::from(trace_id),
            span_id: SpanId::from(0xe457_b5a2_e4d8_6bd1),
            sampling,
            random: false,
            short_trace_id: trace_id == SHORT,
        })
    }

    /// Reads a trace id, span id and sampling state; `None` is an absent header.
    fn read(values: [Option<&str>; 3]) -> Extracted {
        extract(&head(&named(FORMAT.headers, values)))
    }

    #[track_caller]
    fn check(values: [Option<&str>; 3], expected: Extracted) {
        assert_eq!(read(values), expected, "{values:?}");
    }

    #[test]
    fn contexts_are_read() {
        check([None; 3], Extracted::Absent);
        check([Some(T), Some(S), None], context(LONG, Sampling::Deferred));
        check([Some(T), Some(S), Some("true")], context(LONG, Sampling::Sampled));
        check([Some(T), Some(S), Some("1")], context(LONG, Sampling::Sampled));
        check([Some(T), Some(S), Some("false")], context(LONG, Sampling::NotSampled));
        check([Some(T), Some(S), Some("0")], context(LONG, Sampling::NotSampled));
        check([Some(T64), Some(S), Some("true")], context(SHORT, Sampling::Sampled));
        let padded = format!("{:0>32}", &T[1..]);
        let whole = read([Some(&padded), Some("0000000000000001"), None]);
        assert!(matches!(whole, Extracted::Context(_)));
        check([Some(&T[1..]), Some("1"), None], whole);
    }

    #[test]
    fn capitals_and_unknown_states_are_read() {
        let upper = T.to_uppercase();
        check([Some(&upper), Some(&S.to_uppercase()), None], context(LONG, Sampling::Deferred));
        check([Some(T), Some(S), Some("")], context(LONG, Sampling::Deferred));
        check([Some(T), Some(S), Some("yes")], context(LONG, Sampling::Deferred));
    }

    #[test]
    fn a_trace_id_and_a_state_count_alone() {
        let root = |sampling| {
            let trace_id = TraceId::from(LONG);
            Extracted::Root(TraceRoot { trace_id, sampling, short_trace_id: false })
        };
        check([Some(T), None, Some("true")], root(Sampling::Sampled));
        check([Some(T), None, None], root(Sampling::Deferred));
        check([None, None, Some("true")], Extracted::Decision(Sampling::Sampled));
        check([None, Some(S), Some("false")], Extracted::Decision(Sampling::NotSampled));
    }

    #[test]
    fn invalid_contexts_are_refused() {
        let zeros = "0".repeat(32);
        for (values, reason) in [
            ([None, Some(S), None], "no trace id"),
            ([None, None, Some("yes")], "no such state, without ids"),
            ([Some(""), Some(S), None], "an empty trace id"),
            ([Some(T), Some(""), None], "an empty span id"),
            ([Some(&zeros), Some(S), None], "zero trace id"),
            ([Some(&zeros[..16]), Some(S), None], "zero short trace id"),
            ([Some(T), Some(&zeros[..16]), None], "zero span id"),
            ([Some(&format!("0{T}")), Some(S), None], "33 digits"),
            ([Some(T), Some(T), None], "a span id of 32 digits"),
            ([Some("+4fe8b2a57d3eff7"), Some(S), None], "a sign is no digit"),
        ] {
            assert!(matches!(read(values), Extracted::Invalid(_)), "{reason}: {values:?}");
        }
    }

    proptest! {
        #[test]
        fn an_injected_context_is_extracted_again(
            sent in any_context(&[Sampling::Deferred, Sampling::NotSampled, Sampling::Sampled]),
        ) {
            let found = round_trip(|edits| inject(&sent, edits), extract);
            prop_assert_eq!(found, Extracted::Context(sent));
        }

        #[test]
        fn no_bytes_panic(values: [Vec<u8>; 3]) {
            let lines = FORMAT.headers.iter().zip(&values);
            let _ = extract(&Head::new(
                lines.map(|(name, value)| (name.as_bytes(), value.as_slice())).collect(),
            ));
        }
    }
}
