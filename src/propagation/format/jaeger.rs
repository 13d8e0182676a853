//! Jaeger's `uber-trace-id`: <https://www.jaegertracing.io/docs/1.76/client-libraries/#trace-span-identity>.
//!
//! ```text
//! uber-trace-id  = trace-id ":" span-id ":" parent-span-id ":" flags
//! trace-id       = 1*32HEXDIG   ; not zero; leading zeros may be missing
//! span-id        = 1*16HEXDIG   ; not zero; leading zeros may be missing
//! parent-span-id = *any         ; deprecated: ignored, and written as 0
//! flags          = 1*2HEXDIG    ; 01 sampled, 02 debug, which implies sampled; others are not written
//! ```
//!
//! The value may be percent-encoded, with colons as `%3A`. Ids are written with their leading zeros,
//! as the specification asks of senders: a trace id that was received with at most 16 digits gets 16, others
//! get 32, in lower case. `uberctx-*` headers are baggage and left alone.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use crate::http::digits::decode_hex;
use crate::http::edits::Edits;
use crate::http::head::Head;
use crate::propagation::context::{Context, Sampling};
use crate::propagation::extracted::{self, Extracted};
use crate::propagation::format::FormatDefinition;

pub(super) const FORMAT: FormatDefinition = FormatDefinition {
    name: "jaeger",
    headers: &[UBER_TRACE_ID],
    extract,
    inject,
    other_encoding: None,
};

fn extract(head: &Head<'_>) -> Extracted {
    let Some(line) = head.first(UBER_TRACE_ID) else {
        return Extracted::Absent;
    };
    let line = line.trim_ascii();
    if line.len() > MAX_ENCODED_LENGTH {
        return Extracted::Invalid("expected four fields");
    }
    let value = Cow::from(percent_decode(line));
    let mut fields = value.split(|byte| *byte == b':');
    let mut field = || fields.next().unwrap_or_default();
    let (trace_id, span_id, _, flags) = (field(), field(), field(), field());
    if fields.next().is_some() {
        return Extracted::Invalid("expected four fields");
    }
    let sampling =
        match extracted::normalized_hex(flags).and_then(|flags: [u8; 2]| decode_hex(&flags)) {
            Some([flags]) if flags & DEBUG != 0 => Sampling::Debug,
            Some([flags]) if flags & SAMPLED != 0 => Sampling::Sampled,
            Some(_) => Sampling::NotSampled,
            None => return Extracted::Invalid("expected flags of one or two hex digits"),
        };
    Extracted::from_hex(trace_id, span_id, sampling)
}

fn inject(context: &Context, edits: &mut Edits<'_, '_>) {
    let mut value = Vec::with_capacity(LENGTH);
    value.extend_from_slice(context.trace_id_hex(&mut [0; 32]));
    value.push(b':');
    value.extend_from_slice(&context.span_id_hex());
    value.extend_from_slice(match context.sampling {
        Sampling::Deferred | Sampling::NotSampled => b":0:0",
        Sampling::Sampled => b":0:1",
        Sampling::Debug => b":0:3",
    });
    edits.set(UBER_TRACE_ID, &value);
}

const UBER_TRACE_ID: &str = "uber-trace-id";
const SAMPLED: u8 = 1;
const DEBUG: u8 = 2;
const LENGTH: usize = 32 + 1 + 16 + 4;
/// The length with a parent span id, two digits of flags, and every character percent-encoded.
const MAX_ENCODED_LENGTH: usize = 3 * (32 + 1 + 16 + 1 + 16 + 1 + 2);

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanId, TraceId};
    use proptest::prelude::*;

    use super::*;
    use crate::propagation::testing::{any_context, head, round_trip};

    const LONG: u128 = 0x80f1_98ee_5634_3ba8_64fe_8b2a_57d3_eff7;
    const T: &str = "80f198ee56343ba864fe8b2a57d3eff7";
    const S: &str = "e457b5a2e4d86bd1";

    /// Compares trace id, sampling and whether the trace id is short; the span id is 1.
    #[track_caller]
    fn check(line: &str, trace_id: u128, sampling: Sampling, short_trace_id: bool) {
        let expected = Context {
            trace_id: TraceId::from(trace_id),
            span_id: SpanId::from(1),
            sampling,
            random: false,
            short_trace_id,
        };
        let found = extract(&head(&[(UBER_TRACE_ID, line)]));
        assert_eq!(found, Extracted::Context(expected), "{line:?}");
    }

    #[track_caller]
    fn check_invalid(line: &str, reason: &str) {
        let found = extract(&head(&[(UBER_TRACE_ID, line)]));
        assert!(matches!(found, Extracted::Invalid(_)), "{reason}: {line:?}: {found:?}");
    }

    #[test]
    fn contexts_are_read() {
        assert_eq!(extract(&head(&[])), Extracted::Absent);
        check(&format!("{T}:1:0:1"), LONG, Sampling::Sampled, false);
        check(&format!("{T}:0000000000000001:{S}:0"), LONG, Sampling::NotSampled, false);
        check(&format!("{T}:1::3"), LONG, Sampling::Debug, false);
        check(&format!("{T}:1:no id:2"), LONG, Sampling::Debug, false);
        check(&format!("{T}:1:0:01"), LONG, Sampling::Sampled, false);
        check(&format!("{T}:1:0:fc"), LONG, Sampling::NotSampled, false);
        check("ab:1:0:1", 0xab, Sampling::Sampled, true);
        check("00000000000000ab:1:0:1", 0xab, Sampling::Sampled, true);
        check("000000000000000ab:1:0:1", 0xab, Sampling::Sampled, false);
        check("ab%3A1%3a0%3A1", 0xab, Sampling::Sampled, true);
        check(" ab:1:0:1\t", 0xab, Sampling::Sampled, true);
    }

    #[test]
    fn invalid_contexts_are_refused() {
        for (line, reason) in [
            (String::new(), "empty"),
            (":::".to_owned(), "empty fields"),
            (T.to_owned(), "one field"),
            (format!("{T}:{S}"), "two fields"),
            (format!("{T}:{S}:0"), "three fields"),
            (format!("{T}:{S}:0:1:"), "five fields"),
            (format!("{T}:{S}:0:"), "empty flags"),
            (format!("{T}:{S}:0:001"), "three digits of flags"),
            (format!("{T}:{S}:0:g"), "no hex in the flags"),
            (format!(":{S}:0:1"), "no trace id"),
            (format!("0:{S}:0:1"), "zero trace id"),
            (format!("{}:{S}:0:1", "0".repeat(32)), "zero trace id"),
            (format!("0{T}:{S}:0:1"), "33 digits of trace id"),
            (format!("+1:{S}:0:1"), "a sign is no digit"),
            (format!("{T}::0:1"), "no span id"),
            (format!("{T}:0:0:1"), "zero span id"),
            (format!("{T}:0{S}:0:1"), "17 digits of span id"),
            (format!("{T}:é:0:1"), "not ASCII"),
            (format!("{T}%253A{S}:0:1"), "encoded twice"),
            (format!("{T}-{S}-0-1"), "other separators"),
            (format!("{T}:{S}:0:1,{T}:{S}:0:1"), "two headers joined"),
        ] {
            check_invalid(&line, reason);
        }
    }

    proptest! {
        #[test]
        fn an_injected_context_is_extracted_again(
            sent in any_context(&[Sampling::NotSampled, Sampling::Sampled, Sampling::Debug]),
        ) {
            let found = round_trip(|edits| inject(&sent, edits), extract);
            prop_assert_eq!(found, Extracted::Context(sent));
        }

        #[test]
        fn no_bytes_panic(line: Vec<u8>) {
            let _ = extract(&Head::new(vec![(UBER_TRACE_ID.as_bytes(), &line)]));
        }
    }
}
