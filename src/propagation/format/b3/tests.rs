use opentelemetry::trace::{SpanId, TraceId};
use proptest::prelude::*;

use super::*;
use crate::propagation::extracted::TraceRoot;
use crate::propagation::testing::{head, round_trip, written};

const LONG: u128 = 0x80f1_98ee_5634_3ba8_64fe_8b2a_57d3_eff7;
const SHORT: u128 = 0x64fe_8b2a_57d3_eff7;
const SPAN: u64 = 0xe457_b5a2_e4d8_6bd1;

fn context(trace_id: u128, sampling: Sampling) -> Extracted {
    Extracted::Context(Context {
        trace_id: TraceId::from(trace_id),
        span_id: SpanId::from(SPAN),
        sampling,
        random: false,
        short_trace_id: trace_id == SHORT,
    })
}

#[track_caller]
fn check_single(line: &str, expected: Extracted) {
    assert_eq!(extract_single(&head(&[(SINGLE, line)])), expected, "{line:?}");
}

#[track_caller]
fn check_multi(lines: &[(&str, &str)], expected: Extracted) {
    assert_eq!(extract_multi(&head(lines)), expected, "{lines:?}");
}

#[track_caller]
fn check_invalid(found: Extracted, reason: &str) {
    assert!(matches!(found, Extracted::Invalid(_)), "{reason}: {found:?}");
}

const T: &str = "80f198ee56343ba864fe8b2a57d3eff7";
const T64: &str = "64fe8b2a57d3eff7";
const S: &str = "e457b5a2e4d86bd1";

#[test]
fn single_headers_are_read() {
    check_single(&format!("{T}-{S}-1"), context(LONG, Sampling::Sampled));
    check_single(&format!("{T}-{S}-0"), context(LONG, Sampling::NotSampled));
    check_single(&format!("{T}-{S}-d"), context(LONG, Sampling::Debug));
    check_single(&format!("{T}-{S}"), context(LONG, Sampling::Deferred));
    check_single(&format!("{T}-{S}-1-{T64}"), context(LONG, Sampling::Sampled));
    check_single(&format!("{T64}-{S}-1"), context(SHORT, Sampling::Sampled));
    check_single(&format!("{T}-{S}-{T64}"), context(LONG, Sampling::Deferred));
    check_single("0", Extracted::Decision(Sampling::NotSampled));
    check_single("1", Extracted::Decision(Sampling::Sampled));
    check_single("d", Extracted::Decision(Sampling::Debug));
}

#[test]
fn multi_headers_are_read() {
    let ids = [(TRACE_ID, T), (SPAN_ID, S)];
    let with = |extra: &[(&'static str, &'static str)]| [&ids[..], extra].concat();
    check_multi(&with(&[]), context(LONG, Sampling::Deferred));
    check_multi(&with(&[(SAMPLED, "1")]), context(LONG, Sampling::Sampled));
    check_multi(&with(&[(SAMPLED, "true")]), context(LONG, Sampling::Sampled));
    check_multi(&with(&[(SAMPLED, "True")]), context(LONG, Sampling::Sampled));
    check_multi(&with(&[(SAMPLED, "0")]), context(LONG, Sampling::NotSampled));
    check_multi(&with(&[(SAMPLED, "false")]), context(LONG, Sampling::NotSampled));
    check_multi(&with(&[(SAMPLED, "d")]), context(LONG, Sampling::Debug));
    check_multi(&with(&[(FLAGS, "1")]), context(LONG, Sampling::Debug));
    check_multi(&with(&[(FLAGS, "1"), (SAMPLED, "0")]), context(LONG, Sampling::Debug));
    check_multi(&with(&[(FLAGS, "0"), (SAMPLED, "1")]), context(LONG, Sampling::Sampled));
    check_multi(
        &[(TRACE_ID, T64), (SPAN_ID, S), (SAMPLED, "1")],
        context(SHORT, Sampling::Sampled),
    );
    check_multi(&with(&[(PARENT_SPAN_ID, "rubbish")]), context(LONG, Sampling::Deferred));
    check_multi(&[(SAMPLED, "0")], Extracted::Decision(Sampling::NotSampled));
    check_multi(&[(SAMPLED, "d")], Extracted::Decision(Sampling::Debug));
    check_multi(&[(FLAGS, "1")], Extracted::Decision(Sampling::Debug));
    check_multi(&[(FLAGS, "0"), (PARENT_SPAN_ID, S)], Extracted::Absent);
    check_multi(&[], Extracted::Absent);
}

/// As old clients write them, and Envoy's Zipkin tracer reads them.
#[test]
fn capitals_and_missing_zeros_are_read() {
    let (trace, span) = (T.to_uppercase(), S.to_uppercase());
    check_single(&format!("{trace}-{span}-1"), context(LONG, Sampling::Sampled));
    let ids = [(TRACE_ID, trace.as_str()), (SPAN_ID, span.as_str()), (SAMPLED, "1")];
    check_multi(&ids, context(LONG, Sampling::Sampled));
    let read = |trace_id: u128, span_id: u64, short_trace_id| {
        Extracted::Context(Context {
            trace_id: TraceId::from(trace_id),
            span_id: SpanId::from(span_id),
            sampling: Sampling::Sampled,
            random: false,
            short_trace_id,
        })
    };
    check_single("abc-7-1", read(0xabc, 7, true));
    check_single("abc-7-1-9", read(0xabc, 7, true));
    check_multi(&[(TRACE_ID, "ABC"), (SPAN_ID, "7"), (SAMPLED, "1")], read(0xabc, 7, true));
    check_single("10000000000000abc-7-1", read(0x1_0000_0000_0000_0abc, 7, false));
}

#[test]
fn a_trace_id_and_a_decision_count_alone() {
    let root = |sampling| {
        let trace_id = TraceId::from(LONG);
        Extracted::Root(TraceRoot { trace_id, sampling, short_trace_id: false })
    };
    check_multi(&[(TRACE_ID, T)], root(Sampling::Deferred));
    check_multi(&[(TRACE_ID, T), (SAMPLED, "1")], root(Sampling::Sampled));
    check_multi(&[(SPAN_ID, S), (SAMPLED, "0")], Extracted::Decision(Sampling::NotSampled));
    let undecided = [(TRACE_ID, T), (SPAN_ID, S), (SAMPLED, "yes")];
    check_multi(&undecided, context(LONG, Sampling::Deferred));
}

#[test]
fn no_parent_and_no_second_state_are_written() {
    let sent = |sampling| Context {
        trace_id: TraceId::from(LONG),
        span_id: SpanId::from(SPAN),
        sampling,
        random: false,
        short_trace_id: false,
    };
    let all =
        [(FLAGS, "1"), (PARENT_SPAN_ID, T64), (SAMPLED, "0"), (SPAN_ID, T64), (TRACE_ID, T64)];
    for (sampling, state) in [
        (Sampling::Deferred, None),
        (Sampling::NotSampled, Some((SAMPLED, "0"))),
        (Sampling::Sampled, Some((SAMPLED, "1"))),
        (Sampling::Debug, Some((FLAGS, "1"))),
    ] {
        let expected: Vec<_> = state.into_iter().chain([(SPAN_ID, S), (TRACE_ID, T)]).collect();
        let found = written(&all, |edits| inject_multi(&sent(sampling), edits));
        assert_eq!(found, written(&expected, |_| {}), "{sampling:?}");
    }
}

#[test]
fn invalid_contexts_are_refused() {
    let zeros = "0".repeat(32);
    for (line, reason) in [
        (String::new(), "empty"),
        ("2".to_owned(), "no such state"),
        (T.to_owned(), "no span id"),
        (format!("{T}-"), "an empty span id"),
        (format!("{T}-{S}-"), "an empty state"),
        (format!("{T}-{S}-2"), "no such state"),
        (format!("{T}-{S}-1-"), "an empty parent"),
        (format!("{T}-{S}-1-{S}-{S}"), "more than a parent"),
        (format!("{zeros}-{S}-1"), "zero trace id"),
        (format!("{T}-{}-1", "0".repeat(16)), "zero span id"),
        (format!("{T}0-{S}-1"), "33 digits"),
        (format!("+{}-{S}-1", "1".repeat(15)), "a sign is no digit"),
        (format!("{T}-{S}-true"), "a state of the multi headers"),
        (format!("{T}-{S}-1-{T}"), "a parent of 32 digits"),
        (format!("{T}-{S}-1,{T}-{S}-1"), "two headers joined"),
        ("01".to_owned(), "two states"),
        ("D".to_owned(), "upper case"),
    ] {
        check_invalid(extract_single(&head(&[(SINGLE, &line)])), reason);
    }
    check_invalid(extract_multi(&head(&[(SPAN_ID, S)])), "no trace id");
    check_invalid(extract_multi(&head(&[(TRACE_ID, &zeros), (SPAN_ID, S)])), "zero trace id");
    check_invalid(extract_multi(&head(&[(SAMPLED, "")])), "an empty state");
    check_invalid(extract_multi(&head(&[(SAMPLED, "2")])), "no such state");
}

proptest! {
    #[test]
    fn an_injected_context_is_extracted_again(
        trace in 1u128.., span in 1u64.., state in 0usize..4, short: bool,
    ) {
        let states = [Sampling::Deferred, Sampling::NotSampled, Sampling::Sampled, Sampling::Debug];
        let trace = if short { u128::from(trace as u64).max(1) } else { trace };
        let sent = Context {
            trace_id: TraceId::from(trace),
            span_id: SpanId::from(span),
            sampling: states[state],
            random: false,
            short_trace_id: short,
        };
        prop_assert_eq!(round_trip(|edits| inject_single(&sent, edits), extract_single), Extracted::Context(sent));
        prop_assert_eq!(round_trip(|edits| inject_multi(&sent, edits), extract_multi), Extracted::Context(sent));
    }

    #[test]
    fn no_bytes_panic(single: Vec<u8>, trace: Vec<u8>, span: Vec<u8>, sampled: Vec<u8>) {
        let lines = [(SINGLE, &single), (TRACE_ID, &trace), (SPAN_ID, &span), (SAMPLED, &sampled)];
        for from in 0..lines.len() {
            let lines = lines.iter().skip(from).map(|(k, v)| (k.as_bytes(), v.as_slice()));
            let head = Head::new(lines.collect());
            let _ = (extract_single(&head), extract_multi(&head));
        }
    }
}
