use std::collections::BTreeMap;

use opentelemetry::trace::{SpanId, TraceId};
use proptest::prelude::*;

use super::*;
use crate::propagation::Format;
use crate::propagation::format::tracecontext;
use crate::propagation::testing::{applied, head};
use crate::sampling::limit::take_permits;

type Headers<'a> = &'a [(&'a str, &'a str)];
/// Beginnings of the keys of limits.
type Keys<'a> = &'a [&'a str];
/// How, by which rule, and whether the request is sampled.
type Decided = (DecisionKind, Option<usize>, bool);
/// A request, the limits that it asks, those that are full, and what comes of it.
type LimitRow<'a> = (Headers<'a>, Keys<'a>, Keys<'a>, Decided, &'a [usize], &'a str);
/// The parent of the span that is recorded, where one is.
type Parent<'a> = Option<Option<&'a str>>;

const FRESH: FreshIds =
    FreshIds { trace_id: TraceId::from_bytes([0xaa; 16]), span_id: SpanId::from_bytes([0xbb; 8]) };
const FRESH_TRACE: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const T: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const T64: &str = "00000000000000000123456789abcdef";
const S: &str = "00f067aa0ba902b7";
const OWN: &str = "bbbbbbbbbbbbbbbb";

fn config(members: &str) -> Config {
    let json = format!(r#"{{{members} "exporter": {{"otlp": {{"cluster": "c"}}}}}}"#);
    Config::parse(json.as_bytes(), &|_| None).unwrap()
}

/// A configuration whose rule decides what `x-do` says.
fn obedient(ratio: f64, inject: &str) -> Config {
    let rules = ["force", "drop", "ignore"].map(|decision| {
        format!(
            r#"{{"name": "{decision}-rule", "decision": "{decision}",
                 "match": {{"headers": {{"name": "x-do", "exact": "{decision}"}}}}}}"#
        )
    });
    let rules = rules.join(", ");
    config(&format!(
        r#""sampling": {{"ratio": {ratio}, "rules": [{rules}]}},
           "propagation": {{"inject": [{inject}]}},"#
    ))
}

/// The headers that the upstream gets.
fn upstream(head: &[(&str, &str)], edits: &[HeaderEdit<'_>]) -> Vec<(String, String)> {
    let mut lines = applied(head, edits);
    lines.retain(|(name, _)| name != "x-do");
    lines
}

/// Where the host knows nothing and every limit has room.
fn decided<'c>(config: &'c Config, head: &Head<'_>) -> Outcome<'c> {
    on_request_headers(config, head, RequestFacts::default(), FRESH, &mut |_| Ok(()))
}

impl<'c> Outcome<'c> {
    fn recording(&self) -> Option<&Recording<'c>> {
        match &self.span {
            PendingSpan::Recorded(recording) => Some(recording),
            _ => None,
        }
    }

    fn late(&self) -> Option<&Recording<'static>> {
        match &self.span {
            PendingSpan::Late(recording) => Some(recording),
            _ => None,
        }
    }
}

#[track_caller]
fn check(
    config: &Config,
    request: Headers,
    expected: Headers,
    kind: DecisionKind,
    recorded_below: Parent,
) {
    let outcome = decided(config, &head(request));
    let expected: BTreeMap<_, _> = expected.iter().copied().collect();
    let found = upstream(request, &outcome.edits);
    let found: Vec<_> = found.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{request:?}");
    assert_eq!(outcome.summary.kind, kind, "{request:?}");
    let recorded = outcome
        .recording()
        .map(|recording| recording.parent_span_id.map(|parent| parent.to_string()));
    assert_eq!(recorded, recorded_below.map(|parent| parent.map(str::to_owned)), "{request:?}");
}

#[test]
fn the_client_is_told_what_goes_upstream() {
    let config = config(
        r#""response": {"traceresponse": true, "when": "sampled"},
           "sampling": {"rules": [{"name": "i", "decision": "ignore",
               "match": {"headers": {"name": "x-do", "exact": "ignore"}}}]},"#,
    );
    for (flags, ignore, expected) in
        [("01", false, Some(OWN)), ("00", false, None), ("01", true, None)]
    {
        let parent = traceparent(T, S, flags);
        let mut lines = vec![("traceparent", parent.as_str())];
        lines.extend(ignore.then_some(("x-do", "ignore")));
        let outcome = decided(&config, &head(&lines));
        let told = outcome.response_context.map(|context| context.span_id.to_string());
        assert_eq!(told.as_deref(), expected, "{flags}");
    }
}

fn traceparent(trace: &str, span: &str, flags: &str) -> String {
    format!("00-{trace}-{span}-{flags}")
}

#[test]
fn the_decision_overrides_the_parent_and_keeps_its_trace() {
    let config = obedient(1.0, r#""tracecontext""#);
    let up = traceparent(T, S, "01");
    let down = traceparent(T, S, "00");
    let own = traceparent(T, OWN, "01");
    let root = traceparent(FRESH_TRACE, OWN, "01");
    let root_down = traceparent(FRESH_TRACE, OWN, "00");
    let rows: [(Headers, &str, DecisionKind, Parent); 10] = [
        (&[("traceparent", &up)], &own, DecisionKind::Parent, Some(Some(S))),
        (&[("traceparent", &down)], &down, DecisionKind::Parent, None),
        (&[("traceparent", &down), ("x-do", "force")], &own, DecisionKind::Force, Some(Some(S))),
        (&[("traceparent", &up), ("x-do", "drop")], &down, DecisionKind::Drop, None),
        (&[("traceparent", &up), ("x-do", "ignore")], &up, DecisionKind::Ignore, None),
        (&[("traceparent", "rubbish"), ("x-do", "ignore")], "rubbish", DecisionKind::Ignore, None),
        (&[], &root, DecisionKind::Ratio, Some(None)),
        (&[("x-do", "force")], &root, DecisionKind::Force, Some(None)),
        (&[("x-do", "drop")], &root_down, DecisionKind::Drop, None),
        (&[("traceparent", "rubbish")], &root, DecisionKind::Ratio, Some(None)),
    ];
    for (request, traceparent, kind, recorded) in rows {
        check(&config, request, &[("traceparent", traceparent)], kind, recorded);
    }
}

#[test]
fn a_root_that_the_ratio_rejects_goes_on_unsampled() {
    let config = obedient(0.0, r#""tracecontext""#);
    let root_down = traceparent(FRESH_TRACE, OWN, "00");
    check(&config, &[], &[("traceparent", &root_down)], DecisionKind::Ratio, None);
    let up = traceparent(T, S, "01");
    let own = traceparent(T, OWN, "01");
    check(
        &config,
        &[("traceparent", &up)],
        &[("traceparent", &own)],
        DecisionKind::Parent,
        Some(Some(S)),
    );
}

#[test]
fn without_an_exporter_nothing_is_recorded_and_ids_stay() {
    let config = Config::parse(b"{}", &|_| None).unwrap();
    let up = traceparent(T, S, "01");
    check(&config, &[("traceparent", &up)], &[("traceparent", &up)], DecisionKind::Parent, None);
}

#[test]
fn contexts_cross_formats() {
    let b3 = format!("{T}-{S}-1");
    let b3_short = format!("{}-{S}-1", &T64[16..]);
    let b3_debug = format!("{T}-{S}-d");
    let b3_open = format!("{T}-{S}");
    let multi = [("x-b3-traceid", T), ("x-b3-spanid", S), ("x-b3-sampled", "0")];
    let own = traceparent(T, OWN, "01");
    let own_short = traceparent(T64, OWN, "01");
    let own_b3 = format!("{T}-{OWN}-1");
    let own_b3_short = format!("{}-{OWN}-1", &T64[16..]);
    let second_hop = format!("{}-{OWN}-d", &T64[16..]);
    let own_b3_debug = format!("{T}-{OWN}-d");
    let unsampled = traceparent(T, S, "00");
    let fresh_down = traceparent(FRESH_TRACE, OWN, "00");
    let fresh_b3 = format!("{FRESH_TRACE}-{OWN}-0");
    let rows: [(&str, Headers, Headers, DecisionKind, Parent); 15] = [
        (
            r#""tracecontext""#,
            &[("b3", &b3)],
            &[("traceparent", &own)],
            DecisionKind::Parent,
            Some(Some(S)),
        ),
        (r#""tracecontext""#, &multi, &[("traceparent", &unsampled)], DecisionKind::Parent, None),
        (
            r#""tracecontext""#,
            &[("b3", &b3_open)],
            &[("traceparent", &own)],
            DecisionKind::Ratio,
            Some(Some(S)),
        ),
        (
            r#""b3""#,
            &[("traceparent", &own), ("tracestate", "a=1")],
            &[("b3", &own_b3)],
            DecisionKind::Parent,
            Some(Some(OWN)),
        ),
        (
            r#""b3", "tracecontext""#,
            &[("b3", &b3_short)],
            &[("b3", &own_b3_short), ("traceparent", &own_short)],
            DecisionKind::Parent,
            Some(Some(S)),
        ),
        (
            r#""b3""#,
            &[("b3", &b3_debug), ("x-b3-sampled", "1")],
            &[("b3", &own_b3_debug)],
            DecisionKind::Parent,
            Some(Some(S)),
        ),
        (
            r#""b3multi""#,
            &[("b3", &b3_debug)],
            &[("x-b3-traceid", T), ("x-b3-spanid", OWN), ("x-b3-flags", "1")],
            DecisionKind::Parent,
            Some(Some(S)),
        ),
        (
            r#""b3multi""#,
            &[("b3", &b3_debug), ("x-do", "drop")],
            &[("x-b3-traceid", T), ("x-b3-spanid", S), ("x-b3-sampled", "0")],
            DecisionKind::Drop,
            None,
        ),
        (
            r#""b3", "tracecontext""#,
            &[("b3", "0")],
            &[("b3", &fresh_b3), ("traceparent", &fresh_down)],
            DecisionKind::Parent,
            None,
        ),
        (
            r#""tracecontext""#,
            &[("b3", "0"), ("x-b3-parentspanid", S), ("tracestate", "a=1")],
            &[("traceparent", &fresh_down)],
            DecisionKind::Parent,
            None,
        ),
        (
            r#""none""#,
            &[("traceparent", &unsampled), ("b3", "rubbish")],
            &[("traceparent", &unsampled)],
            DecisionKind::Parent,
            None,
        ),
        (
            r#""baggage""#,
            &[("traceparent", &unsampled), ("tracestate", "a=1"), ("baggage", "k=v")],
            &[("baggage", "k=v")],
            DecisionKind::Parent,
            None,
        ),
        (
            r#""tracecontext""#,
            &[("b3", "rubbish"), multi[0], multi[1], multi[2]],
            &[("traceparent", &unsampled)],
            DecisionKind::Parent,
            None,
        ),
        (
            r#""tracecontext""#,
            &[("b3", "1"), multi[0], multi[1], multi[2]],
            &[("traceparent", &unsampled)],
            DecisionKind::Parent,
            None,
        ),
        (
            r#""tracecontext", "b3""#,
            &[("traceparent", &own_short), ("b3", &second_hop)],
            &[("traceparent", &own_short), ("b3", &second_hop)],
            DecisionKind::Parent,
            Some(Some(OWN)),
        ),
    ];
    for (inject, request, expected, kind, recorded) in rows {
        check(&obedient(1.0, inject), request, expected, kind, recorded);
    }
}

#[test]
fn trace_state_goes_on_with_its_own_trace_alone() {
    let config = obedient(1.0, r#""tracecontext""#);
    let (up, own) = (traceparent(T, S, "01"), traceparent(T, OWN, "01"));
    let b3_same = format!("{T}-{S}-1");
    let b3_other = format!("{T64}-{S}-1");
    let b3_first = config_with_b3_first();
    let state = ("tracestate", "a=1");
    let kept = [("traceparent", own.as_str()), state];
    let parent = Some(Some(S));
    check(&config, &[("traceparent", &up), state], &kept, DecisionKind::Parent, parent);
    let both = [("traceparent", up.as_str()), state, ("b3", &b3_same)];
    check(&b3_first, &both, &kept, DecisionKind::Parent, parent);
    let both = [("traceparent", up.as_str()), state, ("b3", &b3_other)];
    let other = traceparent(T64, OWN, "01");
    check(&b3_first, &both, &[("traceparent", &other)], DecisionKind::Parent, parent);
    let root = traceparent(FRESH_TRACE, OWN, "01");
    check(&config, &[state], &[("traceparent", &root)], DecisionKind::Ratio, Some(None));
}

const FORMATS: &[&str] =
    &["b3", "b3multi", "jaeger", "xray", "ottrace", "datadog", "grpc-trace-bin"];

/// A configuration that reads every format.
fn migrating(inject: &str) -> Config {
    let extract = FORMATS.join(r#"", ""#);
    config(&format!(
        r#""sampling": {{"ratio": 0}}, "propagation": {{
            "extract": ["tracecontext", "{extract}"], "inject": [{inject}],
            "baggage": {{"max_members": 64}}}},"#
    ))
}

fn config_with_b3_first() -> Config {
    config(r#""propagation": {"extract": ["b3", "tracecontext"]},"#)
}

#[test]
fn trace_state_goes_on_as_one_valid_list_or_not_at_all() {
    let config = obedient(1.0, r#""tracecontext""#);
    let silent = obedient(1.0, r#""none""#);
    let down = traceparent(T, S, "00");
    let long = format!("b={}", "v".repeat(256));
    let longest = format!("c={}", "v".repeat(253));
    let unsplit = format!("{long},{longest}");
    let rows: [(&[&str], &[&str], Faults); 9] = [
        (&["a=1", "b=2"], &["a=1,b=2"], Faults::default()),
        (&["a=1 , b=2"], &["a=1,b=2"], Faults::default()),
        (&["", "a=1"], &["a=1"], Faults::default()),
        (&["", ","], &[], Faults::default()),
        (&["a=1,b=2,a=3"], &["a=1,b=2"], Faults::default()),
        (&["a=1", "A=2"], &[], Faults { invalid_trace_state: true, ..Faults::default() }),
        (&["rubbish"], &[], Faults { invalid_trace_state: true, ..Faults::default() }),
        (&["a=1", &long, &longest], &["a=1", &long], cut(1)),
        (&["a=1", &unsplit], &["a=1", &long], cut(1)),
    ];
    for (lines, expected, faults) in rows {
        let mut request = vec![("traceparent", down.as_str())];
        request.extend(lines.iter().map(|line| ("tracestate", *line)));
        let outcome = decided(&config, &head(&request));
        let found = upstream(&request, &outcome.edits);
        let joined = expected.join(",");
        let mut expected = vec![("traceparent".to_owned(), down.clone())];
        expected.extend((!joined.is_empty()).then_some(("tracestate".to_owned(), joined)));
        assert_eq!((found, &outcome.summary.faults), (expected, &faults), "{lines:?}");
        let outcome = decided(&silent, &head(&request));
        let found = upstream(&request, &outcome.edits);
        assert_eq!(found.len() > 1, !faults.invalid_trace_state, "{lines:?}");
    }
}

fn cut(trace_state_members_dropped: u32) -> Faults {
    Faults { trace_state_members_dropped, ..Faults::default() }
}

#[test]
fn a_span_has_the_list_that_goes_on() {
    let config = obedient(1.0, r#""b3""#);
    let up = traceparent(T, S, "01");
    for (line, expected) in [("a=1 ,b=2", "a=1,b=2"), ("a=1,b", ""), ("", "")] {
        let request = [("traceparent", up.as_str()), ("tracestate", line)];
        let outcome = decided(&config, &head(&request));
        let found = &outcome.recording().unwrap().trace_state;
        assert_eq!(found, expected.as_bytes(), "{line:?}");
    }
}

#[test]
fn migrating_formats_are_read_written_and_cleared() {
    let config = migrating(r#""tracecontext", "jaeger""#);
    let down = traceparent(T, S, "00");
    let jaeger = format!("{T}:{S}:0:0");
    let xray = format!("Root=1-{}-{};Parent={S};Sampled=0", &T[..8], &T[8..]);
    let both = [("traceparent", down.as_str()), ("uber-trace-id", jaeger.as_str())];
    let right = u64::from_str_radix(&T[16..], 16).unwrap().to_string();
    let span = u64::from_str_radix(S, 16).unwrap().to_string();
    let left = format!("_dd.p.dm=-1,_dd.p.tid={}", &T[..16]);
    let rows: [Headers; 5] = [
        &[("uber-trace-id", &jaeger), ("ot-tracer-sampled", "rubbish")],
        &[("x-amzn-trace-id", &xray), ("uber-trace-id", "rubbish")],
        &[("ot-tracer-traceid", T), ("ot-tracer-spanid", S), ("ot-tracer-sampled", "false")],
        &[
            ("x-datadog-trace-id", &right),
            ("x-datadog-parent-id", &span),
            ("x-datadog-sampling-priority", "-1"),
            ("x-datadog-tags", &left),
        ],
        &[("grpc-trace-bin", "AABL+S81d7NNpqPOkp0ODkc2AQDwZ6oLqQK3AgA=")],
    ];
    for request in rows {
        check(&config, request, &both, DecisionKind::Parent, None);
    }
    let beside = [("uberctx-a", "1"), ("ot-baggage-a", "1"), ("x-datadog-origin", "rum")];
    let request = [&[("uber-trace-id", jaeger.as_str())], &beside[..]].concat();
    check(&config, &request, &[&both[..], &beside[..]].concat(), DecisionKind::Parent, None);
    let load_balancer = [("x-amzn-trace-id", "Root=1-5759e988-bd862e3fe1be46a994272793")];
    let fresh = [
        ("traceparent".to_owned(), traceparent(FRESH_TRACE, OWN, "00")),
        ("uber-trace-id".to_owned(), format!("{FRESH_TRACE}:{OWN}:0:0")),
    ];
    let fresh: Vec<_> = fresh.iter().map(|(name, value)| (&**name, &**value)).collect();
    check(&config, &load_balancer, &fresh, DecisionKind::Ratio, None);
}

#[test]
fn baggage_over_its_limits_is_cut_and_counted() {
    let config = config(r#""propagation": {"baggage": {"max_members": 64}, "inject": ["none"]},"#);
    let members: Vec<_> = (0..66).map(|member| format!("k{member}=v;p")).collect();
    let (list, expected) = (members.join(","), members[..64].join(","));
    let request = [("baggage", list.as_str())];
    let outcome = decided(&config, &head(&request));
    assert_eq!(upstream(&request, &outcome.edits), [("baggage".to_owned(), expected)],);
    assert_eq!(outcome.summary.faults, Faults { baggage_members_dropped: 2, ..Faults::default() });
}

#[test]
fn a_decision_without_ids_is_for_a_parent_that_states_none() {
    let config = obedient(1.0, r#""tracecontext""#);
    let down = traceparent(T, S, "00");
    let ids = [("x-b3-traceid", T), ("x-b3-spanid", S), ("b3", "0")];
    check(&config, &ids, &[("traceparent", &down)], DecisionKind::Parent, None);
    let up = traceparent(T, S, "01");
    let stated = [("traceparent", up.as_str()), ("b3", "0")];
    let own = traceparent(T, OWN, "01");
    check(&config, &stated, &[("traceparent", &own)], DecisionKind::Parent, Some(Some(S)));
}

#[test]
fn no_second_form_of_b3_contradicts_the_one_that_is_written() {
    let config = config(
        r#""propagation": {"extract": ["tracecontext"], "inject": ["tracecontext", "b3multi"]},"#,
    );
    let down = traceparent(T, S, "00");
    let b3 = format!("{T64}-{S}-1");
    let written = [
        ("traceparent", down.as_str()),
        ("x-b3-traceid", T),
        ("x-b3-spanid", S),
        ("x-b3-sampled", "0"),
    ];
    check(&config, &[("traceparent", &down), ("b3", &b3)], &written, DecisionKind::Parent, None);
}

#[test]
fn invalid_contexts_are_counted_for_each_format() {
    let config = obedient(1.0, r#""tracecontext""#);
    let request = [("traceparent", "x"), ("b3", "y")];
    let outcome = decided(&config, &head(&request));
    let invalid = vec![Format::TraceContext, Format::B3Single];
    assert_eq!(outcome.summary.faults, Faults { invalid, ..Faults::default() });
}

/// What came in, what went on, and why.
#[track_caller]
fn check_known(
    config: &Config,
    request: Headers,
    known: RequestFacts<'_>,
    expected: Headers,
) -> Outcome<'static> {
    let config = Box::leak(Box::new(config.clone()));
    let outcome = on_request_headers(config, &head(request), known, FRESH, &mut |_| Ok(()));
    let found = applied(request, &outcome.edits);
    let mut expected: Vec<_> =
        expected.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    expected.sort();
    assert_eq!(found, expected, "{request:?}");
    outcome
}

#[test]
fn a_rule_over_its_limit_leaves_the_request_to_the_next() {
    let config = config(
        r#""sampling": {"ratio": 0, "limit": {"per_second": 1}, "rules": [
            {"name": "a", "decision": "force", "limit": {"per_second": 2}},
            {"name": "b", "limit": {"per_second": 3}},
            {"name": "c", "decision": "force", "limit": {"per_second": 4},
             "match": {"headers": {"name": "c", "present": true}}},
            {"name": "d", "decision": "ignore",
             "match": {"headers": {"name": "d", "present": true}}}]},"#,
    );
    let up = traceparent(T, S, "01");
    let parent = ("traceparent", up.as_str());
    // The interval in the key of a limit tells which one it is.
    let (all, a, b, c) = ("all/1", "rule/a/5", "rule/b/333", "rule/c/25");
    let rows: [LimitRow; 9] = [
        (&[], &[a, all], &[], (DecisionKind::Force, Some(0), true), &[], "room in all"),
        (
            &[],
            &[a, all],
            &[all],
            (DecisionKind::Force, Some(0), false),
            &[],
            "no room for any span",
        ),
        (&[], &[a], &[a], (DecisionKind::Ratio, Some(1), false), &[0], "the ratio samples none"),
        (
            &[parent],
            &[a, b, all],
            &[a],
            (DecisionKind::Parent, Some(1), true),
            &[0],
            "the parent does",
        ),
        (
            &[parent],
            &[a, b, all],
            &[a, b],
            (DecisionKind::Parent, None, true),
            &[0, 1],
            "no rule left",
        ),
        (
            &[parent, ("c", "")],
            &[a, b, c, all],
            &[a, b],
            (DecisionKind::Force, Some(2), true),
            &[0, 1],
            "the third",
        ),
        (
            &[parent, ("c", "")],
            &[a, b, c, all],
            &[a, b, c, all],
            (DecisionKind::Parent, None, false),
            &[0, 1, 2],
            "no room at all",
        ),
        (&[("d", "")], &[a], &[a], (DecisionKind::Ratio, Some(1), false), &[0], "b comes before d"),
        (
            &[parent, ("d", "")],
            &[a, b],
            &[a, b],
            (DecisionKind::Ignore, Some(3), false),
            &[0, 1],
            "an ignored request is",
        ),
    ];
    for (request, asked, full, decided, limited, reason) in rows {
        let mut seen = Vec::new();
        let is =
            |limit: &Limit, key: &str| limit.key().starts_with(&format!("sidespan.limit.{key}"));
        let mut take = |limit: &Limit, _| {
            seen.push(limit.key().to_owned());
            !full.iter().any(|key| is(limit, key))
        };
        let mut permits = |limits: [Option<(&Limit, BurstShare)>; 2]| {
            take_permits(limits, &mut take, &mut |_| {})
        };
        let head = head(request);
        let outcome =
            on_request_headers(&config, &head, RequestFacts::default(), FRESH, &mut permits);
        assert_eq!(seen.len(), asked.len(), "{reason}: {seen:?}");
        for (seen, asked) in seen.iter().zip(asked) {
            assert!(seen.starts_with(&format!("sidespan.limit.{asked}")), "{reason}: {seen}");
        }
        assert_eq!(
            (outcome.summary.kind, outcome.summary.rule, outcome.summary.sampled),
            decided,
            "{reason}"
        );
        assert_eq!(outcome.summary.limited, limited, "{reason}");
        assert_eq!(outcome.recording().is_some(), outcome.summary.sampled, "{reason}");
        assert_eq!(outcome.summary.over_limit, full.contains(&all), "{reason}");
    }
}

#[test]
fn a_span_too_many_leaves_its_upstream_unsampled() {
    let config = config(r#""sampling": {"ratio": 0.9, "limit": {"per_second": 1}},"#);
    let up = traceparent(T, S, "01");
    let request = [("traceparent", up.as_str()), ("tracestate", "a=1,ot=th:0")];
    let outcome =
        on_request_headers(&config, &head(&request), RequestFacts::default(), FRESH, &mut |_| {
            Err(1)
        });
    let down = traceparent(T, S, "00");
    let expected = [("traceparent", down.as_str()), ("tracestate", "a=1")];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(upstream(&request, &outcome.edits), expected);
}

#[test]
fn contexts_are_trusted_as_far_as_the_rules_say() {
    let config = config(
        r#""sampling": {"ratio": 0}, "propagation": {"trust": "restart", "trust_rules": [
            {"match": {"source_ranges": ["10.0.0.0/8"]}, "trust": "accept"},
            {"match": {"direction": "outbound"}, "trust": "accept"},
            {"match": {"headers": {"name": "x-edge", "exact": "1"}}, "trust": "ignore_flags"}
        ]},"#,
    );
    let up = traceparent(T, S, "01");
    let (own, down) = (traceparent(T, OWN, "01"), traceparent(T, S, "00"));
    let root = traceparent(FRESH_TRACE, OWN, "00");
    let parent = ("traceparent", up.as_str());
    let state = ("tracestate", "a=1");
    let inside = RequestFacts { source_address: b"10.9.9.9:1", ..RequestFacts::default() };
    let outbound = RequestFacts { direction: Some(Direction::Outbound), ..RequestFacts::default() };
    let nobody = RequestFacts::default();
    let edge = ("x-edge", "1");

    let request = [parent, state];
    check_known(&config, &request, inside, &[("traceparent", &own), state]);
    check_known(&config, &request, outbound, &[("traceparent", &own), state]);
    let outcome = check_known(&config, &request, nobody, &[("traceparent", &root)]);
    assert!(outcome.summary.restarted);
    let request = [parent, state, edge];
    check_known(&config, &request, nobody, &[("traceparent", &down), state, edge]);
    for alone in [("b3", "1"), ("b3", "d"), ("x-b3-sampled", "1")] {
        let outcome = check_known(&config, &[alone], nobody, &[("traceparent", &root)]);
        assert!(!outcome.summary.restarted, "there is nothing to link to");
    }
}

#[test]
fn of_a_context_that_is_not_trusted_nothing_is_left() {
    let spans = [
        ("x-datadog-trace-id", "1"),
        ("x-datadog-sampling-priority", "2"),
        ("uber-trace-id", "1:1:0:1"),
        ("x-amzn-trace-id", "Root=1"),
        ("b3", "1"),
        ("b3", "d"),
        ("x_b3_sampled", "1"),
        ("x-b3_traceid", "1"),
        ("x-cloud-trace-context", "1/2;o=1"),
        ("sw8", "1"),
    ];
    let baggage = ("baggage", "k=v");
    let request = [&spans[..], &[baggage, ("x-request-id", "1")]].concat();
    let kept = [baggage, ("x-request-id", "1")];
    let root = traceparent(FRESH_TRACE, OWN, "01");
    for (inject, added) in [("none", None), ("tracecontext", Some(("traceparent", &*root)))] {
        let config =
            config(&format!(r#""propagation": {{"trust": "restart", "inject": ["{inject}"]}},"#));
        let expected = [&kept[..], added.as_slice()].concat();
        check_known(&config, &request, RequestFacts::default(), &expected);
    }
}

/// Where nothing is decided, what protects the upstream and the way out holds all the same.
#[test]
fn ignored_requests_take_nothing_along_that_they_may_not() {
    let with = |propagation: &str| {
        config(&format!(
            r#""sampling": {{"rules": [
                {{"name": "i", "decision": "ignore", "match": {{"path": {{"exact": "/"}}}}}},
                {{"name": "d", "decision": "force", "match": {{"headers": [
                    {{"name": "x-debug", "exact": "1", "strip": true}}]}}}}]}},
               "propagation": {{{propagation}}},"#
        ))
    };
    let (up, down) = (traceparent(T, S, "01"), traceparent(T, S, "00"));
    let path = (":path", "/");
    let (parent, state) =
        (("traceparent", up.as_str()), ("tracestate", "ot=rv:70000000000000,a=1"));
    let (debug, datadog) = (("x-debug", "1"), ("x-datadog-trace-id", "1"));
    let request = [path, parent, state, debug, datadog];
    let rows: [(&str, Headers); 5] = [
        (r#""trust": "accept""#, &[path, parent, state, datadog]),
        (r#""trust": "restart""#, &[path]),
        (
            r#""trust": "ignore_flags""#,
            &[path, ("traceparent", &down), ("tracestate", "a=1"), datadog],
        ),
        (r#""egress": [{"action": "strip"}]"#, &[path]),
        (r#""trust": "ignore_flags", "inject": ["none"]"#, &[path, parent, state, datadog]),
    ];
    for (propagation, expected) in rows {
        let config = with(propagation);
        let outcome = check_known(&config, &request, RequestFacts::default(), expected);
        assert_eq!(outcome.summary.kind, DecisionKind::Ignore, "{propagation}");
    }
    let config = with(r#""trust": "ignore_flags""#);
    check_known(&config, &[path, ("b3", "1")], RequestFacts::default(), &[path]);
}

#[test]
fn rules_see_paths_as_servers_read_them() {
    let config = config(
        r#""sampling": {"ratio": 1, "rules": [
            {"name": "d", "decision": "drop", "match": {"path": {"prefix": "/healthz"}}}]},"#,
    );
    for (path, kind) in [
        ("/healthz", DecisionKind::Drop),
        ("/healthz?a", DecisionKind::Drop),
        ("//healthz", DecisionKind::Drop),
        ("/%68ealthz", DecisionKind::Drop),
        ("/a/../healthz", DecisionKind::Drop),
        ("/healthz/../checkout", DecisionKind::Ratio),
        ("/a?/../healthz", DecisionKind::Ratio),
    ] {
        assert_eq!(decided(&config, &head(&[(":path", path)])).summary.kind, kind, "{path}");
    }
}

#[test]
fn who_exceeds_what_conditions_may_search_is_trusted_in_nothing() {
    let config = config(
        r#""sampling": {"ratio": 0, "rules": [{"name": "f", "decision": "force",
            "match": {"headers": {"name": "x", "regex": ".*a.*"}}}]},
           "propagation": {"trust": "accept",
            "trust_rules": [{"match": {"headers": {"name": "y", "contains": "a"}}, "trust": "restart"}],
            "egress": [{"authority": {"contains": "a"}, "action": "strip"}]},"#,
    );
    let (long, up) = ("b".repeat(70_000), traceparent(T, S, "00"));
    let root = traceparent(FRESH_TRACE, OWN, "00");
    let parent = ("traceparent", up.as_str());
    for (line, expected) in [
        (("x", "b"), Some(up.as_str())),
        (("x", long.as_str()), Some(&up)),
        (("y", &long), Some(&root)),
        ((":authority", &long), None),
    ] {
        let request = [parent, line];
        let outcome = decided(&config, &head(&request));
        let sent = upstream(&request, &outcome.edits);
        let found = sent.iter().find(|(name, _)| name == "traceparent");
        assert_eq!(found.map(|(_, value)| value.as_str()), expected, "{}", line.0);
        assert_eq!(outcome.summary.search_exceeded, line.1.len() > 1, "{}", line.0);
    }
}

#[test]
fn a_new_trace_links_to_the_one_that_was_not_trusted() {
    let config = config(r#""propagation": {"trust": "restart", "inject": ["none"]},"#);
    let up = traceparent(T, S, "03");
    let b3 = format!("{T64}-{S}-0");
    let baggage = ("baggage", "k=v");
    let request = [("traceparent", up.as_str()), ("tracestate", "a=1"), ("b3", &b3), baggage];
    let outcome = check_known(&config, &request, RequestFacts::default(), &[baggage]);
    let recording = outcome.recording().unwrap();
    assert_eq!(recording.parent_span_id, None);
    assert_eq!(recording.context.trace_id, FRESH.trace_id);
    assert_eq!(recording.trace_state, b"");
    let link = recording.link.as_ref().unwrap();
    assert_eq!(tracecontext::traceparent(&link.context), up.as_bytes());
    assert_eq!(link.trace_state, b"a=1");
}

#[test]
fn nothing_leaves_to_authorities_that_are_stripped() {
    let config = config(
        r#""propagation": {"inject": ["tracecontext", "b3"], "baggage": {"max_members": 64},
            "egress": [{"authority": {"suffix": ".inside"}, "action": "keep"},
                       {"authority": [{"suffix": ".com"}, {"exact": "Partner"}],
                        "action": "strip"},
                       {"port": [8443, 90], "action": "strip"}]},"#,
    );
    let (up, b3, jaeger) = (traceparent(T, S, "01"), format!("{T}-{S}-1"), format!("{T}:{S}:0:1"));
    let many = vec!["k=v"; 70].join(",");
    let rest = [("x-request-id", "1")];
    let context = [
        ("traceparent", up.as_str()),
        ("tracestate", "a=1"),
        ("b3", &b3),
        ("uber-trace-id", &jaeger),
        ("x-datadog-trace-id", "1"),
        ("baggage", &many),
        ("uberctx-user", "1"),
        ("ot-baggage-user", "1"),
        ("jaeger-baggage", "k=v"),
        ("x-datadog-origin", "rum"),
        ("x-cloud-trace-context", "1/2;o=1"),
        ("x_b3_traceid", "1"),
    ];
    for (authority, stays) in [
        ("a.com", false),
        ("A.COM", false),
        ("a.com:443", false),
        ("a.com.", false),
        ("user@a.com.:80", false),
        ("partner:80", false),
        ("a.inside", true),
        ("partner.inside:90", true),
        ("partner2", true),
        ("partner2:8443", false),
        ("partner2:90", false),
        ("partner2:91", true),
    ] {
        let request = [&[(":authority", authority)], &context[..], &rest[..]].concat();
        let outcome = decided(&config, &head(&request));
        let names: Vec<_> =
            applied(&request, &outcome.edits).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.contains(&"traceparent".to_owned()), stays, "{authority}");
        assert_eq!(names.len() == 2, !stays, "{authority}: {names:?}");
        assert!(outcome.recording().is_some(), "{authority}");
    }
}

#[test]
fn tokens_force_and_do_not_go_on() {
    let config = config(
        r#""sampling": {"ratio": 0, "rules": [{"name": "debug", "decision": "force",
            "match": {"headers": [
                {"name": "x-debug-token", "token": {"max_ttl_s": 600,
                 "keys": [{"id": "ops", "secret": "0123456789abcdef0123456789abcdef"}]}},
                {"name": "x-debug", "exact": "1", "strip": true}]}}]},"#,
    );
    // For the path /api, until ten minutes into 2026.
    let minted = "AQAAAABpVbtYA29wcy9hcGl5WIPMiMpyDQPHH0tcw_9HAbyK01iu8CoDjexpn2lOnw";
    let token = ("x-debug-token", minted);
    let at = |unix_seconds| RequestFacts { unix_seconds, ..RequestFacts::default() };
    let (sampled, root) =
        (traceparent(FRESH_TRACE, OWN, "01"), traceparent(FRESH_TRACE, OWN, "00"));
    let api = (":path", "/api?x");
    let rows: [(Headers, u64, bool, &[TokenFault]); 7] = [
        (&[api, token], 1_767_225_600, true, &[]),
        (&[api, token], 1_767_225_599, false, &[TokenFault::Rejected]),
        (&[api, token], 1_767_226_200, false, &[TokenFault::Expired]),
        (&[(":path", "/"), token], 1_767_225_600, false, &[TokenFault::Rejected]),
        (&[api, ("x-debug-token", "true")], 0, false, &[TokenFault::Malformed]),
        (&[api, token, token], 1_767_225_600, false, &[TokenFault::Malformed]),
        (&[api, ("x-debug", "1")], 0, true, &[]),
    ];
    for (request, now, forced, faults) in rows {
        let context = ("traceparent", if forced { sampled.as_str() } else { &root });
        let outcome = check_known(&config, request, at(now), &[request[0], context]);
        assert_eq!(outcome.summary.kind == DecisionKind::Force, forced, "{request:?} at {now}");
        assert_eq!(outcome.summary.token_faults, faults, "{request:?} at {now}");
    }
    let asked = |lines: Headers| needed_facts(&config, &head(lines));
    assert_eq!(asked(&[token]), NeededFacts { source_address: false, time: true });
    assert_eq!(asked(&[("x-debug", "1")]), NeededFacts { source_address: false, time: false });
}

#[test]
fn the_client_is_asked_for_where_there_is_something_to_trust() {
    let config = config(
        r#""propagation": {"trust_rules": [
            {"match": {"source_ranges": "::/0"}, "trust": "restart"}]},"#,
    );
    let asked = |lines: Headers| needed_facts(&config, &head(lines)).source_address;
    assert!(!asked(&[("x-request-id", "1"), ("baggage", "k=v")]));
    assert!(asked(&[("b3", "0")]));
    // A format that is not read is removed where the client is not trusted.
    assert!(asked(&[("uber-trace-id", "1")]));
    assert!(asked(&[("x_b3_traceid", "1")]));
    assert!(asked(&[("traceparent", "rubbish")]));
}

#[test]
fn what_is_not_sampled_may_be_exported_late() {
    let config = config(
        r#""sampling": {"ratio": 0, "export_on": {"status": "5xx"}, "rules": [
            {"name": "d", "decision": "drop", "match": {"path": {"exact": "/drop"}}},
            {"name": "i", "decision": "ignore", "match": {"path": {"exact": "/ignore"}}},
            {"name": "f", "decision": "force", "match": {"path": {"exact": "/force"}}}]},"#,
    );
    let down = traceparent(T, S, "00");
    let parent = ("traceparent", down.as_str());
    let state = ("tracestate", "ot=th:e,a=1");
    for (path, late) in [("/", true), ("/drop", false), ("/ignore", false), ("/force", false)] {
        let request = [(":path", path), parent, state];
        let outcome = decided(&config, &head(&request));
        assert_eq!(outcome.late().is_some(), late, "{path}");
        let Some(recording) = outcome.late() else { continue };
        assert_eq!(recording.context.span_id, FRESH.span_id);
        assert!(!recording.context.sampling.is_sampled());
        assert_eq!(recording.parent_span_id.unwrap().to_string(), S);
        assert_eq!(recording.trace_state, b"a=1", "no probability made this span");
        assert_eq!(recording.reason, Reason::Late);
        let sent: Vec<_> = upstream(&request, &outcome.edits);
        assert!(sent.contains(&("traceparent".to_owned(), down.clone())));
        assert!(sent.contains(&("tracestate".to_owned(), state.1.to_owned())));
    }
    let outcome = decided(&config, &head(&[]));
    let sent = upstream(&[], &outcome.edits);
    let root = traceparent(FRESH_TRACE, OWN, "00");
    assert_eq!(sent, [("traceparent".to_owned(), root)], "its id is that of the late span");
    assert_eq!(outcome.late().unwrap().context.span_id, FRESH.span_id);
}

#[test]
fn ratios_are_announced() {
    let most = config(r#""sampling": {"ratio": 0.9},"#);
    let all = config(r#""sampling": {"ratio": 1},"#);
    let anew = config(r#""sampling": {"ratio": 0.5}, "propagation": {"trust": "ignore_flags"},"#);
    let rarely =
        config(r#""sampling": {"ratio": 0.25}, "propagation": {"trust": "ignore_flags"},"#);
    let force =
        config(r#""sampling": {"ratio": 0.5, "rules": [{"name": "f", "decision": "force"}]},"#);
    let up = traceparent(T, S, "01");
    let parent = ("traceparent", up.as_str());
    let state = |list: &'static str| ("tracestate", list);
    let rows: [(&Config, Headers, Option<&str>, &str); 9] = [
        (&most, &[], Some("ot=th:199a"), "a new trace"),
        (&all, &[], None, "all are"),
        (&most, &[parent, state("ot=th:0")], Some("ot=th:0"), "the parent's is kept"),
        (&most, &[parent, state("ot=th:f")], None, "the parent's is wrong"),
        (&most, &[parent, state("a=1")], Some("a=1"), "the parent said nothing"),
        (&anew, &[parent, state("a=1")], Some("ot=th:8;rv:aaaaaaaaaaaaaa,a=1"), "decided anew"),
        (
            &anew,
            &[parent, state("a=1,ot=th:0;rv:70000000000000;k:v")],
            Some("ot=th:8;rv:aaaaaaaaaaaaaa,a=1"),
            "what the client says of randomness does not count",
        ),
        (
            &rarely,
            &[parent, state("ot=th:0;rv:ffffffffffffff,a=1")],
            Some("a=1"),
            "decided anew, against it",
        ),
        (
            &force,
            &[parent, state("ot=th:8;rv:90000000000000,a=1")],
            Some("ot=rv:90000000000000,a=1"),
            "forced",
        ),
    ];
    for (config, request, expected, reason) in rows {
        let outcome = decided(config, &head(request));
        let sent = upstream(request, &outcome.edits);
        let found = sent.iter().find(|(name, _)| name == "tracestate");
        assert_eq!(found.map(|(_, value)| value.as_str()), expected, "{reason}");
    }
}

#[test]
fn new_traces_say_that_they_are_random_where_that_is_asked_for() {
    let config = config(r#""propagation": {"random_flag": true},"#);
    let (root, up) = (traceparent(FRESH_TRACE, OWN, "03"), traceparent(T, S, "01"));
    check_known(&config, &[], RequestFacts::default(), &[("traceparent", &root)]);
    let own = traceparent(T, OWN, "01");
    let request = [("traceparent", up.as_str())];
    check_known(&config, &request, RequestFacts::default(), &[("traceparent", &own)]);
}

proptest! {
    #[test]
    fn no_headers_panic(
        values in prop::collection::vec(any::<Vec<u8>>(), 9),
        format in prop::sample::select(FORMATS),
    ) {
        let names = ["traceparent", "tracestate", "b3", "x-b3-traceid", "uber-trace-id",
                     "x-amzn-trace-id", "grpc-trace-bin", ":path", "baggage"];
        let lines = names.iter().zip(&values).map(|(name, value)| (name.as_bytes(), value.as_slice()));
        let config = migrating(&format!(r#""{format}""#));
        let _ = decided(&config, &Head::new(lines.collect()));
    }

    /// Doing the work again on what went upstream unsampled changes nothing, in any format.
    #[test]
    fn an_unsampled_context_is_left_alone(
        trace in 1u128.., span in 1u64.., random: bool, format in prop::sample::select(FORMATS),
    ) {
        let line = format!("00-{trace:032x}-{span:016x}-0{}", if random { 2 } else { 0 });
        let request = [("traceparent", line.as_str())];
        let config = migrating(&format!(r#""tracecontext", "{format}""#));
        let outcome = decided(&config, &head(&request));
        let sent = upstream(&request, &outcome.edits);
        let sent: Vec<_> = sent.iter().map(|(name, value)| (&**name, &**value)).collect();
        prop_assert!(sent.contains(&request[0]));
        prop_assert!(sent.len() > 1);
        let outcome = decided(&config, &head(&sent));
        prop_assert_eq!(outcome.edits, vec![]);
        prop_assert_eq!(outcome.summary.faults, Faults::default());
    }
}
