//! Datadog's headers:
//! <https://docs.datadoghq.com/tracing/trace_collection/trace_context_propagation/#datadog-format>.
//!
//! ```text
//! x-datadog-trace-id  = 1*DIGIT      ; 64 bits, not zero: the right half of the trace id
//! x-datadog-parent-id = 1*DIGIT      ; 64 bits: the span id; zero or missing if there is no span
//! x-datadog-sampling-priority = [ "-" ] 1*DIGIT
//! x-datadog-tags      = tag *( "," tag )
//! tag                 = key "=" value    ; `_dd.p.tid=` 16HEXDIGLC: the left half of the trace id
//! ```
//!
//! A priority of 0 or less drops the trace, and a positive one keeps it. Priority 2 means that a person asked
//! for the trace, which is debug here. If there are ids and the priority is not a number, the decision is left
//! open. A priority that agrees with the decision is not changed, and neither are other tags of the same trace.
//! A left half that breaks its grammar counts as absent, as in Datadog's own tracers. `x-datadog-origin` is not
//! changed.
//!
//! Datadog's Synthetics and browser SDK send the parent id 0: their test or page is no span.

use opentelemetry::trace::{SpanId, TraceId};

use crate::http::digits;
use crate::http::edits::Edits;
use crate::http::head::Head;
use crate::propagation::context::{Context, Sampling};
use crate::propagation::extracted::Extracted;
use crate::propagation::format::FormatDefinition;

pub(super) const FORMAT: FormatDefinition = FormatDefinition {
    name: "datadog",
    headers: &[TRACE_ID, PARENT_ID, PRIORITY, TAGS],
    extract,
    inject,
    other_encoding: None,
};

fn extract(head: &Head<'_>) -> Extracted {
    let (trace_id, span_id) = (head.first(TRACE_ID), head.first(PARENT_ID));
    let sampling = match head.first(PRIORITY).map(sampling) {
        None => Sampling::Deferred,
        Some(Some(sampling)) => sampling,
        Some(None) if trace_id.is_some() => Sampling::Deferred,
        Some(None) => return Extracted::Invalid("expected a whole number as sampling priority"),
    };
    let Some(trace_id) = trace_id else {
        return Extracted::from_optional_hex(None, span_id, sampling);
    };
    let Some(right) = id(trace_id) else {
        return Extracted::Invalid("expected a decimal trace id of 64 bits, not zero");
    };
    let left = tags(head).filter_map(|tag| tag.strip_prefix(TID)).find_map(digits::decode_hex);
    let left = left.map_or(0, u64::from_be_bytes);
    let trace_id = TraceId::from(u128::from(left) << 64 | u128::from(right));
    let Some(span_id) = digits::decimal::<u64>(span_id.unwrap_or(b"0")) else {
        return Extracted::Invalid("expected a decimal parent id of 64 bits");
    };
    let span_id = (span_id != 0).then(|| SpanId::from(span_id));
    Extracted::from_ids(trace_id, span_id, sampling, left == 0)
}

/// A trace id whose right half is zero cannot be written here, so the headers are removed.
fn inject(context: &Context, edits: &mut Edits<'_, '_>) {
    let trace_id = u128::from_be_bytes(context.trace_id.to_bytes());
    let (left, right) = ((trace_id >> 64) as u64, trace_id as u64);
    if right == 0 {
        FORMAT.headers.iter().for_each(|name| edits.remove(name));
        return;
    }
    let head = edits.head();
    let same_trace = head.first(TRACE_ID).and_then(id) == Some(right);
    edits.set(TRACE_ID, right.to_string().as_bytes());
    edits.set(PARENT_ID, u64::from_be_bytes(context.span_id.to_bytes()).to_string().as_bytes());
    match (priority(context.sampling), head.first(PRIORITY).filter(|_| same_trace)) {
        (None, _) => edits.remove(PRIORITY),
        (Some(_), Some(known)) if agrees(known, context.sampling) => edits.set(PRIORITY, known),
        (Some(priority), _) => edits.set(PRIORITY, priority),
    }
    let tags = tags_with(left, tags(head).filter(|_| same_trace));
    if tags.is_empty() {
        edits.remove(TAGS);
    } else {
        edits.set(TAGS, &tags);
    }
}

/// Returns the tags with this left half of the trace id, unless it is zero. Its tag replaces the incoming
/// one, or is appended.
fn tags_with<'a>(left: u64, tags: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut tid = [0; 16];
    digits::encode_hex(&left.to_be_bytes(), &mut tid);
    let tid = [TID, &tid].concat();
    let mut own = (left != 0).then_some(tid.as_slice());
    let mut kept: Vec<&[u8]> = Vec::new();
    for tag in tags.filter(|tag| !tag.is_empty()) {
        kept.extend(if tag.starts_with(TID) { own.take() } else { Some(tag) });
    }
    kept.extend(own);
    kept.join(&b',')
}

fn tags<'a>(head: &Head<'a>) -> impl Iterator<Item = &'a [u8]> {
    let tags = head.first(TAGS).filter(|tags| tags.len() <= MAX_TAGS_BYTES);
    tags.unwrap_or_default().split(|byte| *byte == b',')
}

/// Tells whether a priority agrees with a decision.
fn agrees(priority: &[u8], decided: Sampling) -> bool {
    match sampling(priority) {
        Some(Sampling::Debug) => decided.is_sampled(),
        stated => stated == Some(decided),
    }
}

fn sampling(priority: &[u8]) -> Option<Sampling> {
    if priority == b"2" {
        return Some(Sampling::Debug);
    }
    let digits = priority.strip_prefix(b"-").unwrap_or(priority);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let is_positive = digits.len() == priority.len() && digits.iter().any(|digit| *digit != b'0');
    Some(if is_positive { Sampling::Sampled } else { Sampling::NotSampled })
}

fn priority(sampling: Sampling) -> Option<&'static [u8]> {
    match sampling {
        Sampling::Deferred => None,
        Sampling::NotSampled => Some(b"0"),
        Sampling::Sampled => Some(b"1"),
        Sampling::Debug => Some(b"2"),
    }
}

/// Reads a decimal number of 64 bits, not zero.
fn id(digits: &[u8]) -> Option<u64> {
    digits::decimal(digits).filter(|id| *id != 0)
}

const TRACE_ID: &str = "x-datadog-trace-id";
const PARENT_ID: &str = "x-datadog-parent-id";
const PRIORITY: &str = "x-datadog-sampling-priority";
const TAGS: &str = "x-datadog-tags";
/// Longer tags count as absent, as in Datadog's own tracers.
const MAX_TAGS_BYTES: usize = 512;
/// Begins the tag that holds the left half of the trace id.
const TID: &[u8] = b"_dd.p.tid=";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::propagation::extracted::TraceRoot;
    use crate::propagation::testing::{any_context, head, named, round_trip, written};

    const RIGHT: u128 = 0x64fe_8b2a_57d3_eff7;
    const LONG: u128 = 0x80f1_98ee_5634_3ba8_64fe_8b2a_57d3_eff7;
    const R: &str = "7277407061855694839";
    const TID_TAG: &str = "_dd.p.tid=80f198ee56343ba8";

    fn context(trace_id: u128, sampling: Sampling) -> Context {
        Context {
            trace_id: TraceId::from(trace_id),
            span_id: SpanId::from(7),
            sampling,
            random: false,
            short_trace_id: trace_id == RIGHT,
        }
    }

    /// Reads a trace id, parent id, priority and tags; `None` is an absent header.
    #[track_caller]
    fn check(values: [Option<&str>; 4], expected: Extracted) {
        assert_eq!(extract(&head(&named(FORMAT.headers, values))), expected, "{values:?}");
    }

    /// Writes a context to a request with such headers.
    #[track_caller]
    fn check_written(values: [Option<&str>; 4], sent: Context, expected: [Option<&str>; 4]) {
        let found = written(&named(FORMAT.headers, values), |edits| inject(&sent, edits));
        let expected = written(&named(FORMAT.headers, expected), |_| {});
        assert_eq!(found, expected, "{values:?}");
    }

    #[test]
    fn contexts_are_read() {
        let read = |trace_id, sampling| Extracted::Context(context(trace_id, sampling));
        let ids = |priority, tags| [Some(R), Some("7"), priority, tags];
        check([None; 4], Extracted::Absent);
        check([None, None, None, Some(TID_TAG)], Extracted::Absent);
        check([None, None, Some("0"), None], Extracted::Decision(Sampling::NotSampled));
        check(ids(None, None), read(RIGHT, Sampling::Deferred));
        check(ids(Some("-1"), None), read(RIGHT, Sampling::NotSampled));
        check(ids(Some("0"), None), read(RIGHT, Sampling::NotSampled));
        check(ids(Some("1"), None), read(RIGHT, Sampling::Sampled));
        check(ids(Some("2"), None), read(RIGHT, Sampling::Debug));
        for priority in ["3", "10", "99999999999999999999"] {
            check(ids(Some(priority), None), read(RIGHT, Sampling::Sampled));
        }
        for priority in ["-2", "-3", "00", "-0"] {
            check(ids(Some(priority), None), read(RIGHT, Sampling::NotSampled));
        }
        for unreadable in ["", "-", "+1", "1.0", "keep"] {
            check(ids(Some(unreadable), None), read(RIGHT, Sampling::Deferred));
        }
        check([Some("18446744073709551615"), Some("7"), None, None], {
            let largest = Context {
                short_trace_id: true,
                ..context(u128::from(u64::MAX), Sampling::Deferred)
            };
            Extracted::Context(largest)
        });
        check(ids(Some("1"), Some(TID_TAG)), read(LONG, Sampling::Sampled));
        let among = format!("_dd.p.dm=-0,{TID_TAG},team=a");
        check(ids(Some("1"), Some(&among)), read(LONG, Sampling::Sampled));
        for tags in ["", "_dd.p.tid=", "_dd.p.tid=80F198EE56343BA8", "_dd.p.tid=1,x", "rubbish"] {
            check(ids(Some("1"), Some(tags)), read(RIGHT, Sampling::Sampled));
        }
    }

    /// As Datadog's Synthetics send it.
    #[test]
    fn a_trace_without_a_parent_span_is_a_root() {
        let root = |trace_id: u128, sampling| {
            let short_trace_id = trace_id == RIGHT;
            let trace_id = TraceId::from(trace_id);
            Extracted::Root(TraceRoot { trace_id, sampling, short_trace_id })
        };
        check([Some(R), Some("0"), Some("1"), None], root(RIGHT, Sampling::Sampled));
        check([Some(R), None, Some("-1"), None], root(RIGHT, Sampling::NotSampled));
        check([Some(R), Some("0"), None, Some(TID_TAG)], root(LONG, Sampling::Deferred));
    }

    #[test]
    fn a_decision_without_a_trace_id_is_kept() {
        check([None, Some("7"), Some("2"), None], Extracted::Decision(Sampling::Debug));
        check([None, Some("rubbish"), Some("0"), None], Extracted::Decision(Sampling::NotSampled));
    }

    #[test]
    fn invalid_contexts_are_refused() {
        for (values, reason) in [
            ([None, Some("7"), None, None], "no trace id"),
            ([Some(""), Some("7"), None, None], "an empty trace id"),
            ([Some("0"), Some("7"), None, None], "zero trace id"),
            ([Some(R), Some(""), None, None], "an empty parent id"),
            ([Some("18446744073709551616"), Some("7"), None, None], "more than 64 bits"),
            ([Some("+1"), Some("7"), None, None], "a sign is no digit"),
            ([Some("-1"), Some("7"), None, None], "a sign is no digit"),
            ([Some("64fe8b2a57d3eff7"), Some("7"), None, None], "hex"),
            ([Some(R), Some("7 7"), None, None], "a space"),
            ([Some(R), Some("é"), None, None], "not ASCII"),
            ([None, None, Some("keep"), None], "no whole number, without ids"),
            ([None, Some("7"), Some("1.0"), None], "no whole number, without a trace id"),
        ] {
            let found = extract(&head(&named(FORMAT.headers, values)));
            assert!(matches!(found, Extracted::Invalid(_)), "{reason}: {values:?}: {found:?}");
        }
    }

    #[test]
    fn priorities_that_agree_with_the_decision_stay() {
        let up = context(LONG, Sampling::Sampled);
        let tags = format!("a=1,{TID_TAG},b=2");
        let all = |priority| [Some(R), Some("7"), Some(priority), Some(&*tags)];
        check_written(all("1"), up, all("1"));
        check_written(all("2"), up, all("2"));
        check_written(all("3"), up, all("3"));
        check_written(all("0"), up, all("1"));
        check_written(all("rubbish"), up, all("1"));
        let down = context(LONG, Sampling::NotSampled);
        check_written(all("-1"), down, all("-1"));
        check_written(all("2"), down, all("0"));
        check_written(all("1"), context(LONG, Sampling::Debug), all("2"));
        let deferred = context(LONG, Sampling::Deferred);
        check_written(all("1"), deferred, [Some(R), Some("7"), None, Some(&tags)]);
    }

    #[test]
    fn tags_are_passed_on_only_with_their_own_trace() {
        let up = context(LONG, Sampling::Sampled);
        let both = format!("a=1,{TID_TAG}");
        let ids = |tags| [Some(R), Some("7"), Some("1"), tags];
        check_written([None; 4], up, ids(Some(TID_TAG)));
        check_written(ids(None), up, ids(Some(TID_TAG)));
        check_written(ids(Some("a=1,")), up, ids(Some(&both)));
        check_written(ids(Some("_dd.p.tid=1,_dd.p.tid=2")), up, ids(Some(TID_TAG)));
        let other = [Some("1"), Some("7"), Some("2"), Some("a=1")];
        check_written(other, up, ids(Some(TID_TAG)));
        let short = context(RIGHT, Sampling::Sampled);
        check_written(ids(Some("_dd.p.tid=1,a=1")), short, ids(Some("a=1")));
        check_written(ids(Some(TID_TAG)), short, ids(None));
        let without_right = Context { trace_id: TraceId::from(1u128 << 64), ..up };
        check_written(ids(Some("a=1")), without_right, [None; 4]);
    }

    proptest! {
        #[test]
        fn an_injected_context_is_extracted_again(
            sent in any_context(&[
                Sampling::Deferred, Sampling::NotSampled, Sampling::Sampled, Sampling::Debug,
            ]),
        ) {
            let found = round_trip(|edits| inject(&sent, edits), extract);
            prop_assert_eq!(found, Extracted::Context(sent));
        }

        #[test]
        fn no_bytes_panic(values: [Vec<u8>; 4]) {
            let lines = FORMAT.headers.iter().zip(&values);
            let head = Head::new(
                lines.map(|(name, value)| (name.as_bytes(), value.as_slice())).collect(),
            );
            let _ = extract(&head);
            inject(&context(LONG, Sampling::Sampled), &mut Edits::of(&head));
        }
    }
}
