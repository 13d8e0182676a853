mod decision;
mod propagation;
mod trust;
mod upstream_span;

use std::collections::BTreeMap;

use opentelemetry::trace::{SpanId, TraceId};
use proptest::prelude::*;

use super::*;
use crate::propagation::Format;
use crate::propagation::format::tracecontext;
use crate::propagation::testing::{applied, head};

type Headers<'a> = &'a [(&'a str, &'a str)];
/// The span that is recorded, if any: the id of its parent, if it has one.
type Recorded<'a> = Option<Option<&'a str>>;

const FRESH: FreshIds = FreshIds {
    trace_id: TraceId::from_bytes([0xaa; 16]),
    span_id: SpanId::from_bytes([0xbb; 8]),
    upstream_span_id: None,
};
const FRESH_TRACE: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const T: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const T64: &str = "00000000000000000123456789abcdef";
const S: &str = "00f067aa0ba902b7";
const OWN: &str = "bbbbbbbbbbbbbbbb";

fn config(members: &str) -> Config {
    let json = format!(r#"{{{members} "exporter": {{"otlp": {{"cluster": "c"}}}}}}"#);
    Config::parse(json.as_bytes(), &|_| None).unwrap()
}

/// A configuration whose rules decide as the header `x-do` names it: `force`, `drop` or `ignore`.
fn config_with_x_do(ratio: f64, inject: &str) -> Config {
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

/// Returns the headers that the upstream gets, without `x-do`.
fn upstream(head: &[(&str, &str)], edits: &[HeaderEdit<'_>]) -> Vec<(String, String)> {
    let mut lines = applied(head, edits);
    lines.retain(|(name, _)| name != "x-do");
    lines
}

/// Decides on a request of which the host knows no facts, while every limit grants permits.
fn outcome_of<'c>(config: &'c Config, head: &Head<'_>) -> Outcome<'c> {
    on_request_headers(config, head, RequestFacts::default(), FRESH, &mut |_, _| Ok(()))
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
    expected_span: Recorded,
) {
    let outcome = outcome_of(config, &head(request));
    let expected: BTreeMap<_, _> = expected.iter().copied().collect();
    let found = upstream(request, &outcome.edits);
    let found: Vec<_> = found.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{request:?}");
    assert_eq!(outcome.summary.kind, kind, "{request:?}");
    let recorded = outcome
        .recording()
        .map(|recording| recording.parent_span_id.map(|parent| parent.to_string()));
    assert_eq!(recorded, expected_span.map(|parent| parent.map(str::to_owned)), "{request:?}");
}

fn traceparent(trace: &str, span: &str, flags: &str) -> String {
    format!("00-{trace}-{span}-{flags}")
}

/// Returns the names of all formats but the first, which is W3C's.
fn other_formats() -> Vec<&'static str> {
    Format::ALL.into_iter().skip(1).map(Format::name).collect()
}

/// A configuration that reads every format.
fn config_with_all_formats(inject: &str) -> Config {
    let extract = other_formats().join(r#"", ""#);
    config(&format!(
        r#""sampling": {{"ratio": 0}}, "propagation": {{
            "extract": ["tracecontext", "{extract}"], "inject": [{inject}],
            "baggage": {{"max_members": 64}}}},"#
    ))
}

/// Checks the headers that go upstream where the host knows these facts, and returns the outcome.
#[track_caller]
fn check_with_facts(
    config: &Config,
    request: Headers,
    facts: RequestFacts<'_>,
    expected: Headers,
) -> Outcome<'static> {
    let config = Box::leak(Box::new(config.clone()));
    let outcome = on_request_headers(config, &head(request), facts, FRESH, &mut |_, _| Ok(()));
    let found = applied(request, &outcome.edits);
    let mut expected: Vec<_> =
        expected.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    expected.sort();
    assert_eq!(found, expected, "{request:?}");
    outcome
}

/// Returns the span id that the client gets.
fn shown(response_context: &ResponseContext) -> Option<String> {
    match response_context {
        ResponseContext::Write(context) => Some(context.span_id.to_string()),
        _ => None,
    }
}

#[test]
fn the_client_gets_the_context_that_goes_upstream() {
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
        let response_context = outcome_of(&config, &head(&lines)).response_context;
        let shown = shown(&response_context);
        assert_eq!(shown.as_deref(), expected, "{flags}");
        let is_removed = response_context == ResponseContext::Remove;
        assert_eq!(is_removed, expected.is_none() && !ignore, "{flags} {ignore}");
    }
}

#[test]
fn without_an_exporter_nothing_is_recorded_and_ids_are_kept() {
    let config = Config::parse(b"{}", &|_| None).unwrap();
    let up = traceparent(T, S, "01");
    check(&config, &[("traceparent", &up)], &[("traceparent", &up)], DecisionKind::Parent, None);
}

#[test]
fn the_first_name_that_matches_names_a_span_now_or_late() {
    let names = r#""span": {"names": [
        {"match": {"path": {"prefix": "/api/"}, "method": "GET"}, "name": "read"},
        {"match": {"headers": {"name": "x-name", "present": true}}, "name": "by header"},
        {"match": {"path": {"prefix": "/api/"}}, "name": "write"}]},"#;
    let late = r#""sampling": {"ratio": 0, "export_on":
        {"status": ["5xx"], "limit": {"per_second": 1}}},"#;
    let (now, late) = (config(names), config(&format!("{names}{late}")));
    let long = "/".repeat(70_000);
    for (method, path, header, expected) in [
        ("GET", "/api/x?a=/", "x-none", Some(0)),
        ("GET", "/api/x", "x-name", Some(0)),
        ("POST", "/api/x", "x-name", Some(1)),
        ("POST", "/v2/../api/x", "x-none", Some(2)),
        ("GET", "/", "x-none", None),
        ("GET", "/", "x-name", Some(1)),
        ("GET", &long, "x-none", None),
    ] {
        let lines = [(":method", method), (":path", path), (header, "")];
        let name_index = outcome_of(&now, &head(&lines)).recording().unwrap().name_index;
        assert_eq!(name_index, expected, "{lines:?}");
        let outcome = outcome_of(&late, &head(&lines));
        assert_eq!(outcome.late().unwrap().name_index, expected, "{lines:?}");
        assert_eq!(outcome.summary.search_exceeded, path == long);
    }
}

#[test]
fn requests_that_are_not_sampled_may_be_exported_late() {
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
        let outcome = outcome_of(&config, &head(&request));
        assert_eq!(outcome.late().is_some(), late, "{path}");
        let Some(recording) = outcome.late() else { continue };
        assert_eq!(recording.context.span_id, FRESH.span_id);
        assert!(!recording.context.sampling.is_sampled());
        assert_eq!(recording.parent_span_id.unwrap().to_string(), S);
        assert_eq!(recording.trace_state, b"a=1", "no ratio sampled this span");
        assert_eq!(recording.reason, Reason::Late);
        let sent: Vec<_> = upstream(&request, &outcome.edits);
        assert!(sent.contains(&("traceparent".to_owned(), down.clone())));
        assert!(sent.contains(&("tracestate".to_owned(), state.1.to_owned())));
    }
    let outcome = outcome_of(&config, &head(&[]));
    let sent = upstream(&[], &outcome.edits);
    let root = traceparent(FRESH_TRACE, OWN, "00");
    assert_eq!(sent, [("traceparent".to_owned(), root)], "its id is that of the late span");
    assert_eq!(outcome.late().unwrap().context.span_id, FRESH.span_id);
}

proptest! {
    #[test]
    fn no_headers_panic(
        values in prop::collection::vec(any::<Vec<u8>>(), 9),
        format in prop::sample::select(other_formats()),
    ) {
        let names = ["traceparent", "tracestate", "b3", "x-b3-traceid", "uber-trace-id",
                     "x-amzn-trace-id", "grpc-trace-bin", ":path", "baggage"];
        let lines = names.iter().zip(&values).map(|(name, value)| (name.as_bytes(), value.as_slice()));
        let config = config_with_all_formats(&format!(r#""{format}""#));
        let _ = outcome_of(&config, &Head::new(lines.collect()));
    }

    /// A second filter changes nothing of the unsampled context that the first one wrote.
    #[test]
    fn an_unsampled_context_passes_a_second_filter_unchanged(
        trace in 1u128.., span in 1u64.., random: bool, format in prop::sample::select(other_formats()),
    ) {
        let line = format!("00-{trace:032x}-{span:016x}-0{}", if random { 2 } else { 0 });
        let request = [("traceparent", line.as_str())];
        let config = config_with_all_formats(&format!(r#""tracecontext", "{format}""#));
        let outcome = outcome_of(&config, &head(&request));
        let sent = upstream(&request, &outcome.edits);
        let sent: Vec<_> = sent.iter().map(|(name, value)| (&**name, &**value)).collect();
        prop_assert!(sent.contains(&request[0]));
        prop_assert!(sent.len() > 1);
        let outcome = outcome_of(&config, &head(&sent));
        prop_assert_eq!(outcome.edits, vec![]);
        prop_assert_eq!(outcome.summary.faults, Faults::default());
    }
}
