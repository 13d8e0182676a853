//! Google Cloud's `x-cloud-trace-context`:
//! <https://docs.cloud.google.com/trace/docs/trace-context#legacy-http-header>.
//!
//! ```text
//! x-cloud-trace-context = trace-id [ "/" span-id ] [ ";o=" options ]
//! trace-id = 32HEXDIG    ; not all zeros
//! span-id  = 1*DIGIT     ; 64 bits; zero or missing if there is no span
//! options  = 1*DIGIT     ; 0: not sampled, odd: sampled; if they are missing, the receiver decides
//! ```
//!
//! Google's load balancers add the header to requests that have none, and export no span for it.

use opentelemetry::trace::SpanId;

use crate::http::digits;
use crate::http::edits::Edits;
use crate::http::head::Head;
use crate::propagation::context::{Context, Sampling};
use crate::propagation::extracted::{self, Extracted};
use crate::propagation::format::FormatDefinition;

pub(super) const FORMAT: FormatDefinition = FormatDefinition {
    name: "gcp",
    headers: &[CLOUD_TRACE_CONTEXT],
    extract,
    inject,
    other_encoding: None,
};

fn extract(head: &Head<'_>) -> Extracted {
    match head.first(CLOUD_TRACE_CONTEXT) {
        None => Extracted::Absent,
        Some(line) => parse(line.trim_ascii()).unwrap_or_else(Extracted::Invalid),
    }
}

fn inject(context: &Context, edits: &mut Edits<'_, '_>) {
    let mut value = vec![0; 32];
    digits::encode_hex(&context.trace_id.to_bytes(), &mut value);
    value.push(b'/');
    let span_id = u64::from_be_bytes(context.span_id.to_bytes());
    value.extend_from_slice(span_id.to_string().as_bytes());
    value.extend_from_slice(match context.sampling {
        Sampling::Deferred => b"",
        Sampling::NotSampled => b";o=0",
        Sampling::Sampled | Sampling::Debug => b";o=1",
    });
    edits.set(CLOUD_TRACE_CONTEXT, &value);
}

fn parse(line: &[u8]) -> Result<Extracted, &'static str> {
    let mut parts = line.splitn(2, |byte| *byte == b';');
    let ids = parts.next().unwrap_or_default();
    let sampling = match parts.next().map(|option| option.strip_prefix(b"o=")) {
        None => Sampling::Deferred,
        Some(options) => match options.and_then(digits::decimal::<u32>) {
            Some(options) if options & 1 == 1 => Sampling::Sampled,
            Some(_) => Sampling::NotSampled,
            None => Sampling::Deferred,
        },
    };
    let mut ids = ids.splitn(2, |byte| *byte == b'/');
    let trace_id =
        ids.next().filter(|hex| hex.len() == 32).and_then(extracted::normalized_hex::<32>);
    let trace_id = trace_id.and_then(|hex| extracted::parse_trace_id(&hex));
    let trace_id = trace_id.ok_or("expected a trace id of 32 hex digits, not all zeros")?;
    let span_id = digits::decimal::<u64>(ids.next().unwrap_or(b"0"));
    let span_id = span_id.ok_or("expected a decimal span id of 64 bits")?;
    let span_id = (span_id != 0).then(|| SpanId::from(span_id));
    Ok(Extracted::from_ids(trace_id, span_id, sampling, false))
}

const CLOUD_TRACE_CONTEXT: &str = "x-cloud-trace-context";

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TraceId;
    use proptest::prelude::*;

    use super::*;
    use crate::propagation::extracted::TraceRoot;
    use crate::propagation::testing::{any_context, head, round_trip};

    const T: &str = "105445aa7843bc8bf206b12000100000";
    const TRACE: u128 = 0x1054_45aa_7843_bc8b_f206_b120_0010_0000;

    fn context(sampling: Sampling) -> Extracted {
        Extracted::Context(Context {
            trace_id: TraceId::from(TRACE),
            span_id: SpanId::from(1),
            sampling,
            random: false,
            short_trace_id: false,
        })
    }

    fn root(sampling: Sampling) -> Extracted {
        Extracted::Root(TraceRoot {
            trace_id: TraceId::from(TRACE),
            sampling,
            short_trace_id: false,
        })
    }

    #[track_caller]
    fn check(line: &str, expected: Extracted) {
        assert_eq!(extract(&head(&[(CLOUD_TRACE_CONTEXT, line)])), expected, "{line:?}");
    }

    #[test]
    fn contexts_are_read() {
        assert_eq!(extract(&head(&[])), Extracted::Absent);
        check(&format!("{T}/1;o=1"), context(Sampling::Sampled));
        check(&format!("{T}/1;o=3"), context(Sampling::Sampled));
        check(&format!("{T}/1;o=0"), context(Sampling::NotSampled));
        check(&format!("{T}/1"), context(Sampling::Deferred));
        check(&format!(" {}/1;o=1 ", T.to_uppercase()), context(Sampling::Sampled));
        check(&format!("{T}/1;o=x"), context(Sampling::Deferred));
        check(&format!("{T}/1;"), context(Sampling::Deferred));
    }

    #[test]
    fn a_trace_without_a_span_is_a_root() {
        check(T, root(Sampling::Deferred));
        check(&format!("{T};o=1"), root(Sampling::Sampled));
        check(&format!("{T}/0;o=1"), root(Sampling::Sampled));
        check(&format!("{T}/0;o=0"), root(Sampling::NotSampled));
    }

    #[test]
    fn invalid_contexts_are_refused() {
        for (line, reason) in [
            (String::new(), "empty"),
            ("rubbish".to_owned(), "no hex"),
            (format!("{}/1", &T[1..]), "31 digits"),
            (format!("{T}0/1"), "33 digits"),
            (format!("{}/1", "0".repeat(32)), "zero trace id"),
            (format!("{T}/"), "an empty span id"),
            (format!("{T}/a"), "a span id in hex"),
            (format!("{T}/-1"), "a sign is no digit"),
            (format!("{T}/18446744073709551616"), "more than 64 bits"),
            (format!("{T}/1/2"), "two span ids"),
            (format!("{T} /1"), "a space"),
            ("/1;o=1".to_owned(), "no trace id"),
        ] {
            let found = extract(&head(&[(CLOUD_TRACE_CONTEXT, &line)]));
            assert!(matches!(found, Extracted::Invalid(_)), "{reason}: {line:?}: {found:?}");
        }
    }

    proptest! {
        #[test]
        fn an_injected_context_is_extracted_again(
            sent in any_context(&[Sampling::Deferred, Sampling::NotSampled, Sampling::Sampled]),
        ) {
            let found = round_trip(|edits| inject(&sent, edits), extract);
            let sent = Context { short_trace_id: false, ..sent };
            prop_assert_eq!(found, Extracted::Context(sent));
        }

        #[test]
        fn no_bytes_panic(line: Vec<u8>) {
            let _ = extract(&Head::new(vec![(CLOUD_TRACE_CONTEXT.as_bytes(), &line)]));
        }
    }
}
