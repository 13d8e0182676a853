//! Rules, limits, tokens and ratios.

use super::*;
use crate::sampling::limit::take_permits;

#[test]
fn a_rule_overrides_the_parents_decision_and_keeps_its_trace_id() {
    let config = config_with_x_do(1.0, r#""tracecontext""#);
    let up = traceparent(T, S, "01");
    let down = traceparent(T, S, "00");
    let own = traceparent(T, OWN, "01");
    let root = traceparent(FRESH_TRACE, OWN, "01");
    let root_down = traceparent(FRESH_TRACE, OWN, "00");
    let rows: [(Headers, &str, DecisionKind, Recorded); 10] = [
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
fn a_root_that_the_ratio_rejects_goes_upstream_unsampled() {
    let config = config_with_x_do(0.0, r#""tracecontext""#);
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

/// A request, and what is decided while some limits are exhausted.
struct LimitRow<'a> {
    reason: &'a str,
    request: Headers<'a>,
    /// The limits of which a permit is requested, in order.
    requested: &'a [&'a str],
    exhausted: &'a [&'a str],
    /// The kind of decision, the index of the rule, and whether the request is sampled.
    decided: (DecisionKind, Option<usize>, bool),
    /// Indices of the rules that were over their limits.
    limited: &'a [usize],
}

#[test]
fn a_request_over_the_limit_of_a_rule_goes_on_to_the_next_rule() {
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
    // The keys of the limits, up to the interval.
    let (all, a, b, c) = ("all/1", "rule/a/5", "rule/b/333", "rule/c/25");
    let rows: [LimitRow; 9] = [
        LimitRow {
            reason: "both limits grant a permit",
            request: &[],
            requested: &[a, all],
            exhausted: &[],
            decided: (DecisionKind::Force, Some(0), true),
            limited: &[],
        },
        LimitRow {
            reason: "the limit of all spans refuses",
            request: &[],
            requested: &[a, all],
            exhausted: &[all],
            decided: (DecisionKind::Force, Some(0), false),
            limited: &[],
        },
        LimitRow {
            reason: "a refuses, and the ratio of b samples none",
            request: &[],
            requested: &[a],
            exhausted: &[a],
            decided: (DecisionKind::Ratio, Some(1), false),
            limited: &[0],
        },
        LimitRow {
            reason: "a refuses, and b follows the parent",
            request: &[parent],
            requested: &[a, b, all],
            exhausted: &[a],
            decided: (DecisionKind::Parent, Some(1), true),
            limited: &[0],
        },
        LimitRow {
            reason: "a and b refuse, and no other rule matches",
            request: &[parent],
            requested: &[a, b, all],
            exhausted: &[a, b],
            decided: (DecisionKind::Parent, None, true),
            limited: &[0, 1],
        },
        LimitRow {
            reason: "a and b refuse, and c forces",
            request: &[parent, ("c", "")],
            requested: &[a, b, c, all],
            exhausted: &[a, b],
            decided: (DecisionKind::Force, Some(2), true),
            limited: &[0, 1],
        },
        LimitRow {
            reason: "every limit refuses",
            request: &[parent, ("c", "")],
            requested: &[a, b, c, all],
            exhausted: &[a, b, c, all],
            decided: (DecisionKind::Parent, None, false),
            limited: &[0, 1, 2],
        },
        LimitRow {
            reason: "a refuses, and b comes before d",
            request: &[("d", "")],
            requested: &[a],
            exhausted: &[a],
            decided: (DecisionKind::Ratio, Some(1), false),
            limited: &[0],
        },
        LimitRow {
            reason: "a and b refuse, and d ignores",
            request: &[parent, ("d", "")],
            requested: &[a, b],
            exhausted: &[a, b],
            decided: (DecisionKind::Ignore, Some(3), false),
            limited: &[0, 1],
        },
    ];
    for LimitRow { reason, request, requested, exhausted, decided, limited } in rows {
        let mut found = Vec::new();
        let has_key =
            |limit: &Limit, key: &str| limit.key().starts_with(&format!("sidespan.limit.{key}"));
        let mut take = |limit: &Limit, _| {
            let keys = [all, a, b, c];
            found.push(*keys.iter().find(|key| has_key(limit, key)).unwrap());
            !exhausted.iter().any(|key| has_key(limit, key))
        };
        let mut take_both = |limits: [Option<(&Limit, BurstShare)>; 2], permits| {
            assert_eq!(permits, Permits::One);
            take_permits(limits, &mut take, &mut |_| {})
        };
        let facts = RequestFacts::default();
        let outcome = on_request_headers(&config, &head(request), facts, FRESH, &mut take_both);
        assert_eq!(found, requested, "{reason}");
        let summary = &outcome.summary;
        assert_eq!((summary.kind, summary.rule, summary.sampled), decided, "{reason}");
        assert_eq!(summary.limited, limited, "{reason}");
        assert_eq!(summary.over_limit, exhausted.contains(&all), "{reason}");
        assert_eq!(outcome.recording().is_some(), summary.sampled, "{reason}");
    }
}

#[test]
fn a_request_over_the_limit_of_all_spans_goes_upstream_unsampled() {
    let config = config(r#""sampling": {"ratio": 0.9, "limit": {"per_second": 1}},"#);
    let up = traceparent(T, S, "01");
    let request = [("traceparent", up.as_str()), ("tracestate", "a=1,ot=th:0")];
    let outcome = on_request_headers(
        &config,
        &head(&request),
        RequestFacts::default(),
        FRESH,
        &mut |_, _| Err(1),
    );
    let down = traceparent(T, S, "00");
    let expected = [("traceparent", down.as_str()), ("tracestate", "a=1")];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(upstream(&request, &outcome.edits), expected);
}

#[test]
fn rules_match_normalized_paths() {
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
        assert_eq!(outcome_of(&config, &head(&[(":path", path)])).summary.kind, kind, "{path}");
    }
}

#[test]
fn a_valid_token_forces_a_request_and_tokens_do_not_go_upstream() {
    let config = config(
        r#""sampling": {"ratio": 0, "rules": [{"name": "debug", "decision": "force",
            "match": {"headers": [
                {"name": "x-debug-token", "token": {"max_ttl_s": 600,
                 "keys": [{"id": "ops", "secret": "0123456789abcdef0123456789abcdef"}]}},
                {"name": "x-debug", "exact": "1", "strip": true}]}}]},"#,
    );
    // For the path prefix /api; expires ten minutes into 2026.
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
        let outcome = check_with_facts(&config, request, at(now), &[request[0], context]);
        assert_eq!(outcome.summary.kind == DecisionKind::Force, forced, "{request:?} at {now}");
        assert_eq!(outcome.summary.token_faults, faults, "{request:?} at {now}");
    }
    let needed = |lines: Headers| needed_facts(&config, &head(lines));
    assert_eq!(needed(&[token]), NeededFacts { source_address: false, time: true });
    assert_eq!(needed(&[("x-debug", "1")]), NeededFacts { source_address: false, time: false });
}

#[test]
fn trace_state_has_the_threshold_of_the_ratio_that_decided() {
    let nine_tenths = config(r#""sampling": {"ratio": 0.9},"#);
    let all = config(r#""sampling": {"ratio": 1},"#);
    let half_untrusted =
        config(r#""sampling": {"ratio": 0.5}, "propagation": {"trust": "ignore_flags"},"#);
    let quarter_untrusted =
        config(r#""sampling": {"ratio": 0.25}, "propagation": {"trust": "ignore_flags"},"#);
    let forced =
        config(r#""sampling": {"ratio": 0.5, "rules": [{"name": "f", "decision": "force"}]},"#);
    let up = traceparent(T, S, "01");
    let parent = ("traceparent", up.as_str());
    let state = |list: &'static str| ("tracestate", list);
    let rows: [(&Config, Headers, Option<&str>, &str); 9] = [
        (&nine_tenths, &[], Some("ot=th:199a"), "a new trace is sampled by the ratio"),
        (&all, &[], None, "a ratio of 1 states no threshold"),
        (
            &nine_tenths,
            &[parent, state("ot=th:0")],
            Some("ot=th:0"),
            "the parent's threshold is kept",
        ),
        (
            &nine_tenths,
            &[parent, state("ot=th:f")],
            None,
            "the parent's threshold contradicts its randomness",
        ),
        (&nine_tenths, &[parent, state("a=1")], Some("a=1"), "the parent has no threshold"),
        (
            &half_untrusted,
            &[parent, state("a=1")],
            Some("ot=th:8;rv:aaaaaaaaaaaaaa,a=1"),
            "sampled anew",
        ),
        (
            &half_untrusted,
            &[parent, state("a=1,ot=th:0;rv:70000000000000;k:v")],
            Some("ot=th:8;rv:aaaaaaaaaaaaaa,a=1"),
            "randomness that a client states does not count",
        ),
        (
            &quarter_untrusted,
            &[parent, state("ot=th:0;rv:ffffffffffffff,a=1")],
            Some("a=1"),
            "sampled anew, and rejected",
        ),
        (
            &forced,
            &[parent, state("ot=th:8;rv:90000000000000,a=1")],
            Some("ot=rv:90000000000000,a=1"),
            "a forced request has no threshold",
        ),
    ];
    for (config, request, expected, reason) in rows {
        let outcome = outcome_of(config, &head(request));
        let sent = upstream(request, &outcome.edits);
        let found = sent.iter().find(|(name, _)| name == "tracestate");
        assert_eq!(found.map(|(_, value)| value.as_str()), expected, "{reason}");
    }
}
