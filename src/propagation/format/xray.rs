//! AWS X-Ray's tracing header:
//! <https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader>.
//!
//! ```text
//! X-Amzn-Trace-Id = pair *( ";" pair )       ; in any order, each of the first three once
//! pair            = "Root=1-" 8HEXDIGLC "-" 24HEXDIGLC    ; the trace id, not all zeros
//!                 / "Parent=" 16HEXDIGLC                  ; the span id, not all zeros
//!                 / "Sampled=" ( "0" / "1" / "?" )        ; all else, as ?: the receiver decides
//!                 / name "=" *any / OWS                   ; others: Self, Lineage, an application's own
//! ```
//!
//! A load balancer that makes no spans sends `Root` without `Parent`: a trace without a parent span. The
//! first eight digits of `Root` are a time if X-Ray's SDK made it, but X-Ray accepts W3C's random ids
//! too. Other pairs go on behind the context of the same trace: Lambda counts its own calls in `Lineage`
//! to find loops.

use opentelemetry::trace::TraceId;

use crate::http::digits::encode_hex;
use crate::http::edits::Edits;
use crate::http::head::Head;
use crate::propagation::context::{Context, Sampling};
use crate::propagation::extracted::{self, Extracted};
use crate::propagation::format::FormatDefinition;

pub(super) const FORMAT: FormatDefinition =
    FormatDefinition { name: "xray", headers: &[TRACE_ID], extract, inject, other_encoding: None };

fn extract(head: &Head<'_>) -> Extracted {
    let Some(line) = head.first(TRACE_ID) else {
        return Extracted::Absent;
    };
    Pairs::parse(line).and_then(Pairs::read).unwrap_or_else(Extracted::Invalid)
}

fn inject(context: &Context, edits: &mut Edits<'_, '_>) {
    if already_holds(edits.head(), context) {
        return;
    }
    let mut own = *b"Root=1-00000000-000000000000000000000000;Parent=0000000000000000;Sampled=?";
    let trace_id = context.trace_id.to_bytes();
    encode_hex(&trace_id[..4], &mut own[7..15]);
    encode_hex(&trace_id[4..], &mut own[16..40]);
    own[48..64].copy_from_slice(&context.span_id_hex());
    own[73] = match context.sampling {
        Sampling::Deferred => b'?',
        Sampling::NotSampled => b'0',
        Sampling::Sampled | Sampling::Debug => b'1',
    };
    let mut value = own.to_vec();
    for pair in other_pairs(edits.head(), &own[..40]) {
        value.push(b';');
        value.extend_from_slice(pair);
    }
    edits.set(TRACE_ID, &value);
}

/// Returns the pairs of the request's header that are no part of the context, if it has this root.
fn other_pairs<'a>(head: &Head<'a>, root: &[u8]) -> impl Iterator<Item = &'a [u8]> {
    let is_valid = |line: &&[u8]| Pairs::parse(line).and_then(Pairs::read).is_ok();
    let line = head.first(TRACE_ID).filter(is_valid);
    let pairs = || line.unwrap_or_default().split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let of_context: [&[u8]; 3] = [b"Root=", b"Parent=", b"Sampled="];
    let is_other = move |pair: &&[u8]| {
        !pair.is_empty() && !of_context.iter().any(|name| pair.starts_with(name))
    };
    let same_trace = pairs().any(|pair| pair == root);
    pairs().filter(is_other).filter(move |_| same_trace)
}

/// Tells whether the request has this context already, in one line.
fn already_holds(head: &Head<'_>, context: &Context) -> bool {
    let same = |known: Context| {
        (known.trace_id, known.span_id, known.sampling)
            == (context.trace_id, context.span_id, context.sampling)
    };
    matches!(extract(head), Extracted::Context(known) if same(known))
        && head.all(TRACE_ID).count() == 1
}

/// The values of the pairs that make up a context.
#[derive(Default)]
struct Pairs<'a> {
    root: Option<&'a [u8]>,
    parent: Option<&'a [u8]>,
    sampled: Option<&'a [u8]>,
}

impl<'a> Pairs<'a> {
    fn parse(line: &'a [u8]) -> Result<Self, &'static str> {
        if line.len() > MAX_BYTES {
            return Err("expected at most 2,048 bytes");
        }
        let mut pairs = Self::default();
        for pair in line.split(|byte| *byte == b';').map(<[u8]>::trim_ascii) {
            if pair.is_empty() {
                continue;
            }
            let mut parts = pair.splitn(2, |byte| *byte == b'=');
            let (Some(name), Some(value)) = (parts.next(), parts.next()) else {
                return Err("expected pairs of name and value");
            };
            let pair = match name {
                b"Root" => &mut pairs.root,
                b"Parent" => &mut pairs.parent,
                b"Sampled" => &mut pairs.sampled,
                _ => continue,
            };
            if pair.replace(value).is_some() {
                return Err("expected each of Root, Parent and Sampled once");
            }
        }
        Ok(pairs)
    }

    fn read(self) -> Result<Extracted, &'static str> {
        let sampling = match self.sampled {
            Some(b"0") => Sampling::NotSampled,
            Some(b"1") => Sampling::Sampled,
            None | Some(_) => Sampling::Deferred,
        };
        let trace_id = self.root.map(|root| trace_id(root).ok_or("expected 1-8hex-24hex as Root"));
        let parent = self.parent.map(|parent| {
            extracted::parse_span_id(parent).ok_or("expected 16 hex digits as Parent")
        });
        match (trace_id.transpose()?, self.parent) {
            (Some(trace_id), _) => {
                Ok(Extracted::from_ids(trace_id, parent.transpose()?, sampling, false))
            }
            (None, _) if sampling != Sampling::Deferred => Ok(Extracted::Decision(sampling)),
            (None, Some(_)) => Err("expected a Root beside Parent"),
            (None, None) => Ok(Extracted::Absent),
        }
    }
}

/// Reads the trace id of a root.
fn trace_id(root: &[u8]) -> Option<TraceId> {
    let (time, unique) = root.strip_prefix(b"1-")?.split_at_checked(8)?;
    extracted::parse_trace_id(&[time, unique.strip_prefix(b"-")?].concat())
}

const TRACE_ID: &str = "x-amzn-trace-id";
/// Four times as long as any known header with the pairs that load balancers and services add.
const MAX_BYTES: usize = 2 * 1024;

#[cfg(test)]
mod tests {
    use opentelemetry::trace::SpanId;
    use proptest::prelude::*;

    use super::*;
    use crate::propagation::extracted::TraceRoot;
    use crate::propagation::testing::{any_context, head, round_trip, written};

    const R: &str = "Root=1-5759e988-bd862e3fe1be46a994272793";
    const P: &str = "Parent=53995c3f42cd8ad8";

    fn context(sampling: Sampling) -> Extracted {
        Extracted::Context(Context {
            trace_id: TraceId::from(0x5759_e988_bd86_2e3f_e1be_46a9_9427_2793),
            span_id: SpanId::from(0x5399_5c3f_42cd_8ad8),
            sampling,
            random: false,
            short_trace_id: false,
        })
    }

    fn root(sampling: Sampling) -> Extracted {
        let trace_id = TraceId::from(0x5759_e988_bd86_2e3f_e1be_46a9_9427_2793);
        Extracted::Root(TraceRoot { trace_id, sampling, short_trace_id: false })
    }

    #[track_caller]
    fn check(line: &str, expected: Extracted) {
        assert_eq!(extract(&head(&[(TRACE_ID, line)])), expected, "{line:?}");
    }

    #[track_caller]
    fn check_invalid(line: &str, reason: &str) {
        let found = extract(&head(&[(TRACE_ID, line)]));
        assert!(matches!(found, Extracted::Invalid(_)), "{reason}: {line:?}: {found:?}");
    }

    #[test]
    fn contexts_are_read() {
        assert_eq!(extract(&head(&[])), Extracted::Absent);
        check(&format!("{R};{P};Sampled=1"), context(Sampling::Sampled));
        check(&format!("{R};{P};Sampled=0"), context(Sampling::NotSampled));
        check(&format!("{R};{P};Sampled=?"), context(Sampling::Deferred));
        check(&format!("{R};{P}"), context(Sampling::Deferred));
        check(&format!("Sampled=1;{P};{R}"), context(Sampling::Sampled));
        check(&format!(" {R} ; {P} ;\tSampled=1; "), context(Sampling::Sampled));
        check(
            &format!("Self=1-0-0;{R};{P};Sampled=1;Lineage=a:b|c=d;root=x"),
            context(Sampling::Sampled),
        );
    }

    #[test]
    fn a_root_without_a_parent_is_a_trace_without_a_parent_span() {
        check(R, root(Sampling::Deferred));
        check(&format!("Self=1-67891234-12456789abcdef012345678;{R}"), root(Sampling::Deferred));
        check(&format!("{R};Sampled=?"), root(Sampling::Deferred));
        check(&format!("{R};Sampled=1"), root(Sampling::Sampled));
        check(&format!("{R};Sampled=0"), root(Sampling::NotSampled));
    }

    #[test]
    fn a_decision_without_a_root_is_kept() {
        check("", Extracted::Absent);
        check("Sampled=?", Extracted::Absent);
        check("Sampled=0", Extracted::Decision(Sampling::NotSampled));
        check(&format!("{P};Sampled=1"), Extracted::Decision(Sampling::Sampled));
    }

    #[test]
    fn an_unknown_state_leaves_the_decision_open() {
        for state in ["", "2", "d", "true"] {
            check(&format!("{R};{P};Sampled={state}"), context(Sampling::Deferred));
        }
    }

    #[test]
    fn invalid_contexts_are_refused() {
        for (line, reason) in [
            ("rubbish".to_owned(), "no pair"),
            (format!("{R};{P};Sampled"), "no value"),
            (P.to_owned(), "no root"),
            (format!("{R};Parent="), "an empty parent"),
            (format!("{R};{P}0"), "17 digits of parent"),
            (format!("{R};Parent={}", "0".repeat(16)), "zero parent"),
            (format!("{R};Parent=53995C3F42CD8AD8"), "upper case"),
            (format!("{R};{R};{P}"), "two roots"),
            (format!("{R};{P};{P}"), "two parents"),
            (format!("{R};{P};Sampled=1;Sampled=0"), "two states"),
            ("Root=1-5759e988-bd862e3fe1be46a99427279".to_owned(), "23 digits, no parent"),
            (format!("{R}0;{P}"), "25 digits"),
            (format!("Root=2-5759e988-bd862e3fe1be46a994272793;{P}"), "an unknown version"),
            (format!("Root=1-5759e98-8bd862e3fe1be46a994272793;{P}"), "a dash elsewhere"),
            (format!("Root=1-5759e988bd862e3fe1be46a994272793;{P}"), "no second dash"),
            (format!("Root=1-{}-{};{P}", "0".repeat(8), "0".repeat(24)), "zero trace id"),
            (format!("Root=1-5759e98é-d862e3fe1be46a994272793;{P}"), "not ASCII"),
            (format!("Root=1-5759E988-bd862e3fe1be46a994272793;{P}"), "upper case"),
            (format!("{R},{P}"), "another separator"),
        ] {
            check_invalid(&line, reason);
        }
    }

    #[test]
    fn other_pairs_go_on_with_their_own_trace() {
        let line = format!("Self=1-0-0;{R};{P};Sampled=1;Lineage=a:b");
        let plain = format!("{R};{P};Sampled=1");
        let Extracted::Context(sampled) = context(Sampling::Sampled) else { unreachable!() };
        let down = Context { sampling: Sampling::NotSampled, ..sampled };
        let child = Context { span_id: SpanId::from(7), ..sampled };
        let written = |context: &Context, lines: &[&str]| {
            let lines: Vec<_> = lines.iter().map(|line| (TRACE_ID, *line)).collect();
            written(&lines, |edits| inject(context, edits))
        };
        let expected = |line: &str| vec![(TRACE_ID.to_owned(), line.to_owned())];
        assert_eq!(written(&sampled, &[&line]), expected(&line));
        let others = "Self=1-0-0;Lineage=a:b";
        assert_eq!(written(&sampled, &[&line, &plain]), expected(&format!("{plain};{others}")));
        assert_eq!(written(&down, &[&line]), expected(&format!("{R};{P};Sampled=0;{others}")));
        let own = format!("{R};Parent=0000000000000007;Sampled=1");
        assert_eq!(written(&child, &[&line]), expected(&format!("{own};{others}")));
        // As a load balancer sends it to a function that calls itself.
        let no_parent = format!("{R};Lineage=1:a87bd80c:1");
        let with_lineage = format!("{own};Lineage=1:a87bd80c:1");
        assert_eq!(written(&child, &[&no_parent]), expected(&with_lineage));
        let other_trace = Context { trace_id: TraceId::from(7), ..child };
        let other_root = "Root=1-00000000-000000000000000000000007";
        let alone = format!("{other_root};Parent=0000000000000007;Sampled=1");
        assert_eq!(written(&other_trace, &[&line]), expected(&alone));
        assert_eq!(written(&child, &[&format!("{R};{R};Lineage=a")]), expected(&own));
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
        fn no_bytes_panic(line: Vec<u8>, root: Vec<u8>) {
            let root = [b"Root=1-".as_slice(), &root].concat();
            for line in [line, root] {
                let _ = extract(&Head::new(vec![(TRACE_ID.as_bytes(), &line)]));
            }
        }
    }
}
