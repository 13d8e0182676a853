//! W3C Trace Context, Level 2: <https://www.w3.org/TR/trace-context-2/>.
//!
//! ```text
//! traceparent = version "-" trace-id "-" parent-id "-" trace-flags
//! version     = 2HEXDIGLC   ; ff is forbidden; above 00, more may follow after another "-"
//! trace-id    = 32HEXDIGLC  ; not all zeros
//! parent-id   = 16HEXDIGLC  ; not all zeros
//! trace-flags = 2HEXDIGLC   ; 01 sampled, 02 random trace id
//! ```
//!
//! `tracestate`, which goes with it, is read and written in [`tracestate`](super::super::tracestate).

use opentelemetry::trace::TraceFlags;

use super::FormatDefinition;
use crate::http::digits;
use crate::http::edits::Edits;
use crate::http::head::Head;
use crate::propagation::context::{Context, RANDOM, Sampling};
use crate::propagation::extracted::{self, Extracted};
use crate::propagation::tracestate::TRACESTATE;

pub(crate) const FORMAT: FormatDefinition = FormatDefinition {
    name: "tracecontext",
    headers: &[TRACEPARENT, TRACESTATE],
    extract,
    inject,
    other_encoding: None,
};

/// Reads `traceparent`. Several lines of it are invalid.
fn extract(head: &Head<'_>) -> Extracted {
    let mut lines = head.all(TRACEPARENT);
    match (lines.next(), lines.next()) {
        (None, _) => Extracted::Absent,
        (Some(line), None) => parse(line).map_or_else(Extracted::Invalid, Extracted::Context),
        _ => Extracted::Invalid("expected one traceparent line, but found several"),
    }
}

fn inject(context: &Context, edits: &mut Edits<'_, '_>) {
    edits.set(TRACEPARENT, &traceparent(context));
}

/// Returns a context as the value of `traceparent`.
#[inline(always)]
pub(crate) fn traceparent(context: &Context) -> [u8; 55] {
    let mut value = *b"00-00000000000000000000000000000000-0000000000000000-00";
    digits::encode_hex(&context.trace_id.to_bytes(), &mut value[3..35]);
    digits::encode_hex(&context.span_id.to_bytes(), &mut value[36..52]);
    digits::encode_hex(&[context.flags().to_u8()], &mut value[53..55]);
    value
}

fn parse(line: &[u8]) -> Result<Context, &'static str> {
    let mut fields = line.trim_ascii().splitn(5, |byte| *byte == b'-');
    let mut field = || fields.next().unwrap_or_default();
    let [version] = digits::decode_hex(field()).ok_or("expected a version of two hex digits")?;
    let trace_id =
        extracted::parse_trace_id(field()).ok_or("expected a trace id, not all zeros")?;
    let span_id = extracted::parse_span_id(field()).ok_or("expected a parent id, not all zeros")?;
    let [flags] = digits::decode_hex(field()).ok_or("expected flags of two hex digits")?;
    match (version, fields.next()) {
        (0xff, _) => return Err("expected a version other than ff"),
        (0, Some(_)) => return Err("expected nothing after the flags of version 00"),
        _ => {}
    }
    let flags = TraceFlags::new(flags);
    let sampling = if flags.is_sampled() { Sampling::Sampled } else { Sampling::NotSampled };
    let random = flags & RANDOM == RANDOM;
    Ok(Context { trace_id, span_id, sampling, random, short_trace_id: false })
}

const TRACEPARENT: &str = "traceparent";

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanId, TraceId};
    use proptest::prelude::*;

    use super::*;

    const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
    const SPAN: u64 = 0x00f0_67aa_0ba9_02b7;

    fn context(sampling: Sampling, random: bool) -> Extracted {
        Extracted::Context(Context {
            trace_id: TraceId::from(TRACE),
            span_id: SpanId::from(SPAN),
            sampling,
            random,
            short_trace_id: false,
        })
    }

    #[track_caller]
    fn check(traceparent: &str, expected: Extracted) {
        let head = Head::new(vec![(TRACEPARENT.as_bytes(), traceparent.as_bytes())]);
        assert_eq!(extract(&head), expected, "{traceparent:?}");
    }

    #[track_caller]
    fn check_invalid(traceparent: &str, reason: &str) {
        let head = Head::new(vec![(TRACEPARENT.as_bytes(), traceparent.as_bytes())]);
        assert!(matches!(extract(&head), Extracted::Invalid(_)), "{traceparent:?}: {reason}");
    }

    #[test]
    fn valid_contexts_are_read() {
        let ids = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
        check(&format!("00-{ids}-00"), context(Sampling::NotSampled, false));
        check(&format!("00-{ids}-01"), context(Sampling::Sampled, false));
        check(&format!("00-{ids}-03"), context(Sampling::Sampled, true));
        check(&format!("00-{ids}-fc"), context(Sampling::NotSampled, false));
        check(&format!("cc-{ids}-01"), context(Sampling::Sampled, false));
        check(&format!("cc-{ids}-01-what-comes"), context(Sampling::Sampled, false));
        for (before, after) in [(" ", ""), ("\t", ""), ("", " "), ("", "\t"), ("\t ", " \t")] {
            check(&format!("{before}00-{ids}-01{after}"), context(Sampling::Sampled, false));
        }
    }

    #[test]
    fn invalid_contexts_are_refused() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let span = "00f067aa0ba902b7";
        check_invalid("", "empty");
        check_invalid("-", "empty fields");
        check_invalid(&format!("ff-{trace}-{span}-01"), "forbidden version");
        check_invalid(&format!("0-{trace}-{span}-01"), "short version");
        check_invalid(&format!("+0-{trace}-{span}-01"), "a sign is no digit");
        check_invalid(&format!("00-{}-{span}-01", "0".repeat(32)), "zero trace id");
        check_invalid(&format!("00-{trace}-{}-01", "0".repeat(16)), "zero parent id");
        check_invalid(&format!("00-{}-{span}-01", trace.to_uppercase()), "upper case");
        check_invalid(&format!(".0-{trace}-{span}-01"), "no hex");
        check_invalid(&format!("0.-{trace}-{span}-01"), "no hex");
        check_invalid(&format!("000-{trace}-{span}-01"), "long version");
        check_invalid(&format!("0000-{trace}-{span}-01"), "long version");
        check_invalid(&format!("00-{trace}0-{span}-01"), "long trace id");
        check_invalid(&format!("00-{}-{span}-01", &trace[1..]), "short trace id");
        check_invalid(&format!("00-.{}-{span}-01", &trace[1..]), "no hex");
        check_invalid(&format!("00-{}.-{span}-01", &trace[1..]), "no hex");
        check_invalid(&format!("00-{trace}-{span}0-01"), "long parent id");
        check_invalid(&format!("00-{trace}-{}-01", &span[1..]), "short parent id");
        check_invalid(&format!("00-{trace}-.{}-01", &span[1..]), "no hex");
        check_invalid(&format!("00-{trace}-{}.-01", &span[1..]), "no hex");
        check_invalid(&format!("00-{trace}-{span}"), "no flags");
        check_invalid(&format!("00-{trace}-{span}-1"), "short flags");
        check_invalid(&format!("00-{trace}-{span}-001"), "long flags");
        check_invalid(&format!("00-{trace}-{span}-.0"), "no hex");
        check_invalid(&format!("00-{trace}-{span}-0."), "no hex");
        check_invalid(&format!("00-{trace}-{span}-0g"), "no hex");
        check_invalid(&format!("00-{trace}-{span}-01."), "version 00 ends here");
        check_invalid(&format!("00-{trace}-{span}-01-"), "version 00 ends here");
        check_invalid(&format!("00-{trace}-{span}-01-more"), "version 00 ends here");
        check_invalid(&format!("cc-{trace}-{span}-01.more"), "no dash before the rest");
        check_invalid("00-é-é-é", "not ASCII");
    }

    #[test]
    fn repeated_lines_are_invalid() {
        let line = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".as_slice();
        let head = Head::new(vec![(TRACEPARENT.as_bytes(), line); 2]);
        assert!(matches!(extract(&head), Extracted::Invalid(_)));
        let line = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        check_invalid(&format!("{line},{line}"), "two lines joined");
        check_invalid(&format!("{line}, {line}"), "two lines joined");
        let future = line.replacen("00", "cc", 1);
        check_invalid(&format!("{future},{future}"), "two lines joined");
    }

    proptest! {
        #[test]
        fn an_injected_context_is_extracted_again(
            trace in 1u128.., span in 1u64.., sampled: bool, random: bool,
        ) {
            let sampling = if sampled { Sampling::Sampled } else { Sampling::NotSampled };
            let sent = Context {
                trace_id: TraceId::from(trace),
                span_id: SpanId::from(span),
                sampling,
                random,
                short_trace_id: false,
            };
            prop_assert_eq!(crate::propagation::testing::round_trip(
                |edits| inject(&sent, edits),
                extract,
            ), Extracted::Context(sent));
        }

        #[test]
        fn no_bytes_panic(line: Vec<u8>) {
            let _ = extract(&Head::new(vec![(TRACEPARENT.as_bytes(), &line)]));
        }
    }
}
