//! OpenCensus's binary format in gRPC metadata:
//! <https://github.com/census-instrumentation/opencensus-specs/blob/master/encodings/BinaryEncoding.md>.
//!
//! ```text
//! grpc-trace-bin = base64( version trace-id span-id [ options ] *OCTET )   ; padding may be missing
//! version        = %x00
//! trace-id       = %x00 16OCTET    ; not all zeros
//! span-id        = %x01 8OCTET     ; not all zeros
//! options        = %x02 OCTET      ; bit 0: sampled; missing options mean not sampled
//! ```
//!
//! Fields come in the order of their numbers. Bytes after the known fields are ignored.

use base64::Engine as _;
use opentelemetry::trace::{SpanId, TraceId};

use crate::http::edits::Edits;
use crate::http::grpc;
use crate::http::head::Head;
use crate::propagation::context::{Context, Sampling};
use crate::propagation::extracted::Extracted;
use crate::propagation::format::FormatDefinition;

pub(super) const FORMAT: FormatDefinition = FormatDefinition {
    name: "grpc-trace-bin",
    headers: &[GRPC_TRACE_BIN],
    extract,
    inject,
    other_encoding: None,
};

fn extract(head: &Head<'_>) -> Extracted {
    match head.first(GRPC_TRACE_BIN) {
        None => Extracted::Absent,
        Some(line) => parse(line).map_or_else(Extracted::Invalid, Extracted::Context),
    }
}

/// Writes the header without padding, as gRPC does.
fn inject(context: &Context, edits: &mut Edits<'_, '_>) {
    let mut bytes = [0; 29];
    bytes[2..18].copy_from_slice(&context.trace_id.to_bytes());
    bytes[18] = SPAN_ID;
    bytes[19..27].copy_from_slice(&context.span_id.to_bytes());
    bytes[27] = OPTIONS;
    bytes[28] = u8::from(context.sampling.is_sampled());
    edits.set(GRPC_TRACE_BIN, grpc::BASE64.encode(bytes).as_bytes());
}

fn parse(line: &[u8]) -> Result<Context, &'static str> {
    let bytes = grpc::BASE64.decode(line.trim_ascii()).map_err(|_| "expected base64")?;
    let rest = bytes.strip_prefix(&[VERSION]).ok_or("expected version 0")?;
    let (trace_id, rest) = field(rest, TRACE_ID).ok_or("expected a trace id of 16 bytes")?;
    let (span_id, rest) = field(rest, SPAN_ID).ok_or("expected a span id of 8 bytes")?;
    let (trace_id, span_id) = (TraceId::from_bytes(*trace_id), SpanId::from_bytes(*span_id));
    if trace_id == TraceId::INVALID || span_id == SpanId::INVALID {
        return Err("expected ids that are not all zeros");
    }
    let sampled = matches!(field(rest, OPTIONS), Some(([options], _)) if options & 1 == 1);
    let sampling = if sampled { Sampling::Sampled } else { Sampling::NotSampled };
    Ok(Context { trace_id, span_id, sampling, random: false, short_trace_id: false })
}

/// Splits off the field of this number: returns its value and the bytes after it.
fn field<const N: usize>(bytes: &[u8], number: u8) -> Option<(&[u8; N], &[u8])> {
    bytes.strip_prefix(&[number])?.split_first_chunk()
}

const GRPC_TRACE_BIN: &str = "grpc-trace-bin";
const VERSION: u8 = 0;
const TRACE_ID: u8 = 0;
const SPAN_ID: u8 = 1;
const OPTIONS: u8 = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::propagation::testing::{any_context, head, round_trip};

    const T: [u8; 16] = [0xfb; 16];
    const S: [u8; 8] = [0xff; 8];

    fn encoded(parts: &[&[u8]]) -> String {
        grpc::BASE64.encode(parts.concat())
    }

    #[track_caller]
    fn check(line: &str, sampling: Sampling) {
        let expected = Context {
            trace_id: TraceId::from_bytes(T),
            span_id: SpanId::from_bytes(S),
            sampling,
            random: false,
            short_trace_id: false,
        };
        let found = extract(&head(&[(GRPC_TRACE_BIN, line)]));
        assert_eq!(found, Extracted::Context(expected), "{line:?}");
    }

    #[track_caller]
    fn check_invalid(line: &str, reason: &str) {
        let found = extract(&head(&[(GRPC_TRACE_BIN, line)]));
        assert!(matches!(found, Extracted::Invalid(_)), "{reason}: {line:?}: {found:?}");
    }

    #[test]
    fn contexts_are_read() {
        assert_eq!(extract(&head(&[])), Extracted::Absent);
        let ids = [[0, 0].as_slice(), &T, &[1], &S].concat();
        let sampled = encoded(&[&ids, &[2, 1]]);
        check(&sampled, Sampling::Sampled);
        check(&format!("{sampled}="), Sampling::Sampled);
        check(&format!(" {sampled}\t"), Sampling::Sampled);
        check(&encoded(&[&ids, &[2, 0]]), Sampling::NotSampled);
        check(&encoded(&[&ids, &[2, 0xff]]), Sampling::Sampled);
        check(&encoded(&[&ids, &[2, 0xfe]]), Sampling::NotSampled);
        check(&encoded(&[&ids]), Sampling::NotSampled);
        check(&encoded(&[&ids, &[2]]), Sampling::NotSampled);
        check(&encoded(&[&ids, &[9, 2, 1]]), Sampling::NotSampled);
        check(&encoded(&[&ids, &[2, 1], &[9; 40]]), Sampling::Sampled);
    }

    #[test]
    fn invalid_contexts_are_refused() {
        let whole = encoded(&[&[0, 0], &T, &[1], &S, &[2, 1]]);
        for (line, reason) in [
            (String::new(), "empty"),
            ("=".to_owned(), "padding alone"),
            ("rubbish!".to_owned(), "no base64"),
            (whole.replace('/', "_"), "base64 for URLs"),
            (format!("{whole},{whole}"), "two headers joined"),
            (format!("{whole}=="), "too much padding"),
            (format!("{}\u{e9}", &whole[..37]), "not ASCII"),
            (whole[..37].to_owned(), "a length that no bytes have"),
            (format!("{}h", &whole[..38]), "bits after the end"),
            (encoded(&[&[0]]), "a version alone"),
            (encoded(&[&[1, 0], &T, &[1], &S, &[2, 1]]), "version 1"),
            (encoded(&[&[0, 0], &T]), "no span id"),
            (encoded(&[&[0, 0], &T[1..]]), "15 bytes of trace id"),
            (encoded(&[&[0, 0], &T, &[1], &S[1..]]), "7 bytes of span id"),
            (encoded(&[&[0, 0], &T[1..], &[1], &S, &[2, 1]]), "15 bytes of trace id, and more"),
            (encoded(&[&[0, 1], &S, &[0], &T, &[2, 1]]), "another order"),
            (encoded(&[&[0, 0], &[0; 16], &[1], &S, &[2, 1]]), "zero trace id"),
            (encoded(&[&[0, 0], &T, &[1], &[0; 8], &[2, 1]]), "zero span id"),
        ] {
            check_invalid(&line, reason);
        }
    }

    proptest! {
        #[test]
        fn an_injected_context_is_extracted_again(
            sent in any_context(&[Sampling::NotSampled, Sampling::Sampled]),
        ) {
            let found = round_trip(|edits| inject(&sent, edits), extract);
            let sent = Context { short_trace_id: false, ..sent };
            prop_assert_eq!(found, Extracted::Context(sent));
        }

        #[test]
        fn no_bytes_panic(line: Vec<u8>) {
            for line in [grpc::BASE64.encode(&line).into_bytes(), line] {
                let _ = extract(&Head::new(vec![(GRPC_TRACE_BIN.as_bytes(), &line)]));
            }
        }
    }
}
