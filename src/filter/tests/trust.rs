//! Trust, egress and what ignored requests are stripped of.

use super::*;

#[test]
fn the_first_matching_trust_rule_decides_how_a_context_is_handled() {
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
    let unknown = RequestFacts::default();
    let edge = ("x-edge", "1");

    let request = [parent, state];
    check_with_facts(&config, &request, inside, &[("traceparent", &own), state]);
    check_with_facts(&config, &request, outbound, &[("traceparent", &own), state]);
    let outcome = check_with_facts(&config, &request, unknown, &[("traceparent", &root)]);
    assert!(outcome.summary.restarted);
    let request = [parent, state, edge];
    check_with_facts(&config, &request, unknown, &[("traceparent", &down), state, edge]);
    for alone in [("b3", "1"), ("b3", "d"), ("x-b3-sampled", "1")] {
        let outcome = check_with_facts(&config, &[alone], unknown, &[("traceparent", &root)]);
        assert!(!outcome.summary.restarted, "a decision without ids is nothing to link to");
    }
}

#[test]
fn a_context_that_is_not_trusted_is_removed_in_every_format() {
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
        check_with_facts(&config, &request, RequestFacts::default(), &expected);
    }
}

/// `strip`, `trust` and `egress` hold for ignored requests too.
#[test]
fn ignored_requests_are_stripped_of_headers_that_may_not_go_upstream() {
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
        let outcome = check_with_facts(&config, &request, RequestFacts::default(), expected);
        assert_eq!(outcome.summary.kind, DecisionKind::Ignore, "{propagation}");
    }
    let config = with(r#""trust": "ignore_flags""#);
    check_with_facts(&config, &[path, ("b3", "1")], RequestFacts::default(), &[path]);
}

#[test]
fn a_request_over_the_search_budget_matches_no_rule_and_is_not_trusted() {
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
        let outcome = outcome_of(&config, &head(&request));
        let sent = upstream(&request, &outcome.edits);
        let found = sent.iter().find(|(name, _)| name == "traceparent");
        assert_eq!(found.map(|(_, value)| value.as_str()), expected, "{}", line.0);
        assert_eq!(outcome.summary.search_exceeded, line.1.len() > 1, "{}", line.0);
    }
}

#[test]
fn a_restarted_trace_links_to_the_context_that_was_not_trusted() {
    let config = config(r#""propagation": {"trust": "restart", "inject": ["none"]},"#);
    let up = traceparent(T, S, "03");
    let b3 = format!("{T64}-{S}-0");
    let baggage = ("baggage", "k=v");
    let request = [("traceparent", up.as_str()), ("tracestate", "a=1"), ("b3", &b3), baggage];
    let outcome = check_with_facts(&config, &request, RequestFacts::default(), &[baggage]);
    let recording = outcome.recording().unwrap();
    assert_eq!(recording.parent_span_id, None);
    assert_eq!(recording.context.trace_id, FRESH.trace_id);
    assert_eq!(recording.trace_state, b"");
    let link = recording.link.as_ref().unwrap();
    assert_eq!(tracecontext::traceparent(&link.context), up.as_bytes());
    assert_eq!(link.trace_state, b"a=1");
}

#[test]
fn no_context_goes_to_authorities_that_an_egress_rule_strips() {
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
        let outcome = outcome_of(&config, &head(&request));
        let names: Vec<_> =
            applied(&request, &outcome.edits).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.contains(&"traceparent".to_owned()), stays, "{authority}");
        assert_eq!(names.len() == 2, !stays, "{authority}: {names:?}");
        assert!(outcome.recording().is_some(), "{authority}");
    }
}

#[test]
fn the_source_address_is_needed_only_with_a_context() {
    let config = config(
        r#""propagation": {"trust_rules": [
            {"match": {"source_ranges": "::/0"}, "trust": "restart"}]},"#,
    );
    let is_needed = |lines: Headers| needed_facts(&config, &head(lines)).source_address;
    assert!(!is_needed(&[("x-request-id", "1"), ("baggage", "k=v")]));
    assert!(is_needed(&[("b3", "0")]));
    // A format that is not read is removed too if the client is not trusted.
    assert!(is_needed(&[("uber-trace-id", "1")]));
    assert!(is_needed(&[("x_b3_traceid", "1")]));
    assert!(is_needed(&[("traceparent", "rubbish")]));
}
