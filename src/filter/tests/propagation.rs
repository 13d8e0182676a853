//! Contexts across formats, `tracestate` and baggage.

use super::*;

#[test]
fn contexts_are_carried_across_formats() {
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
    let rows: [(&str, Headers, Headers, DecisionKind, Recorded); 15] = [
        // B3 becomes W3C.
        (
            r#""tracecontext""#,
            &[("b3", &b3)],
            &[("traceparent", &own)],
            DecisionKind::Parent,
            Some(Some(S)),
        ),
        // B3 in several headers becomes W3C.
        (r#""tracecontext""#, &multi, &[("traceparent", &unsampled)], DecisionKind::Parent, None),
        // B3 without a decision: the ratio decides.
        (
            r#""tracecontext""#,
            &[("b3", &b3_open)],
            &[("traceparent", &own)],
            DecisionKind::Ratio,
            Some(Some(S)),
        ),
        // W3C becomes B3, and tracestate is removed.
        (
            r#""b3""#,
            &[("traceparent", &own), ("tracestate", "a=1")],
            &[("b3", &own_b3)],
            DecisionKind::Parent,
            Some(Some(OWN)),
        ),
        // A short trace id keeps its length in B3.
        (
            r#""b3", "tracecontext""#,
            &[("b3", &b3_short)],
            &[("b3", &own_b3_short), ("traceparent", &own_short)],
            DecisionKind::Parent,
            Some(Some(S)),
        ),
        // The debug flag is kept, and the other format of B3 is removed.
        (
            r#""b3""#,
            &[("b3", &b3_debug), ("x-b3-sampled", "1")],
            &[("b3", &own_b3_debug)],
            DecisionKind::Parent,
            Some(Some(S)),
        ),
        // The debug flag has a header of its own.
        (
            r#""b3multi""#,
            &[("b3", &b3_debug)],
            &[("x-b3-traceid", T), ("x-b3-spanid", OWN), ("x-b3-flags", "1")],
            DecisionKind::Parent,
            Some(Some(S)),
        ),
        // A rule overrides the debug flag.
        (
            r#""b3multi""#,
            &[("b3", &b3_debug), ("x-do", "drop")],
            &[("x-b3-traceid", T), ("x-b3-spanid", S), ("x-b3-sampled", "0")],
            DecisionKind::Drop,
            None,
        ),
        // A decision without ids is followed, with fresh ids.
        (
            r#""b3", "tracecontext""#,
            &[("b3", "0")],
            &[("b3", &fresh_b3), ("traceparent", &fresh_down)],
            DecisionKind::Parent,
            None,
        ),
        // A tracestate without a trace is removed.
        (
            r#""tracecontext""#,
            &[("b3", "0"), ("x-b3-parentspanid", S), ("tracestate", "a=1")],
            &[("traceparent", &fresh_down)],
            DecisionKind::Parent,
            None,
        ),
        // With `none`, only invalid contexts are removed.
        (
            r#""none""#,
            &[("traceparent", &unsampled), ("b3", "rubbish")],
            &[("traceparent", &unsampled)],
            DecisionKind::Parent,
            None,
        ),
        // With baggage alone, contexts that are read are removed.
        (
            r#""baggage""#,
            &[("traceparent", &unsampled), ("tracestate", "a=1"), ("baggage", "k=v")],
            &[("baggage", "k=v")],
            DecisionKind::Parent,
            None,
        ),
        // After an invalid context the next format is read.
        (
            r#""tracecontext""#,
            &[("b3", "rubbish"), multi[0], multi[1], multi[2]],
            &[("traceparent", &unsampled)],
            DecisionKind::Parent,
            None,
        ),
        // A decision without ids does not override that of a context.
        (
            r#""tracecontext""#,
            &[("b3", "1"), multi[0], multi[1], multi[2]],
            &[("traceparent", &unsampled)],
            DecisionKind::Parent,
            None,
        ),
        // The debug flag of B3 is kept beside W3C.
        (
            r#""tracecontext", "b3""#,
            &[("traceparent", &own_short), ("b3", &second_hop)],
            &[("traceparent", &own_short), ("b3", &second_hop)],
            DecisionKind::Parent,
            Some(Some(OWN)),
        ),
    ];
    for (inject, request, expected, kind, recorded) in rows {
        check(&config_with_x_do(1.0, inject), request, expected, kind, recorded);
    }
}

#[test]
fn trace_state_is_kept_with_its_own_trace_only() {
    let config = config_with_x_do(1.0, r#""tracecontext""#);
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

fn config_with_b3_first() -> Config {
    config(r#""propagation": {"extract": ["b3", "tracecontext"]},"#)
}

#[test]
fn trace_state_goes_upstream_as_one_valid_list_or_not_at_all() {
    let config = config_with_x_do(1.0, r#""tracecontext""#);
    let silent = config_with_x_do(1.0, r#""none""#);
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
        let outcome = outcome_of(&config, &head(&request));
        let found = upstream(&request, &outcome.edits);
        let joined = expected.join(",");
        let mut expected = vec![("traceparent".to_owned(), down.clone())];
        expected.extend((!joined.is_empty()).then_some(("tracestate".to_owned(), joined)));
        assert_eq!((found, &outcome.summary.faults), (expected, &faults), "{lines:?}");
        let outcome = outcome_of(&silent, &head(&request));
        let found = upstream(&request, &outcome.edits);
        assert_eq!(found.len() > 1, !faults.invalid_trace_state, "{lines:?}");
    }
}

fn cut(trace_state_members_dropped: u32) -> Faults {
    Faults { trace_state_members_dropped, ..Faults::default() }
}

#[test]
fn a_span_records_the_trace_state_that_goes_upstream() {
    let config = config_with_x_do(1.0, r#""b3""#);
    let up = traceparent(T, S, "01");
    for (line, expected) in [("a=1 ,b=2", "a=1,b=2"), ("a=1,b", ""), ("", "")] {
        let request = [("traceparent", up.as_str()), ("tracestate", line)];
        let outcome = outcome_of(&config, &head(&request));
        let found = &outcome.recording().unwrap().trace_state;
        assert_eq!(found, expected.as_bytes(), "{line:?}");
    }
}

#[test]
fn every_format_is_read_and_formats_that_are_not_written_are_removed() {
    let config = config_with_all_formats(r#""tracecontext", "jaeger""#);
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
}

/// A load balancer and a synthetic test name a trace, and have no span in it.
#[test]
fn a_trace_without_a_parent_span_keeps_its_id_and_decision() {
    let config = config_with_all_formats(r#""tracecontext""#);
    let aws = "5759e988bd862e3fe1be46a994272793";
    let root = format!("Root=1-{}-{}", &aws[..8], &aws[8..]);
    let sampled = format!("{root};Sampled=1");
    let datadog = [
        ("x-datadog-trace-id", "3238677264721744442"),
        ("x-datadog-parent-id", "0"),
        ("x-datadog-sampling-priority", "1"),
    ];
    let right = format!("{:032x}", 3_238_677_264_721_744_442_u64);
    let (up, down) = (traceparent(T, S, "01"), traceparent(T, OWN, "01"));
    let rows: [(Headers, &str, &str, DecisionKind, Recorded); 4] = [
        (&[("x-amzn-trace-id", &root)], aws, "00", DecisionKind::Ratio, None),
        (&[("x-amzn-trace-id", &sampled)], aws, "01", DecisionKind::Parent, Some(None)),
        (&datadog, &right, "01", DecisionKind::Parent, Some(None)),
        (&[("x-cloud-trace-context", aws)], aws, "00", DecisionKind::Ratio, None),
    ];
    for (request, trace_id, flags, kind, recorded) in rows {
        let expected = traceparent(trace_id, OWN, flags);
        check(&config, request, &[("traceparent", &expected)], kind, recorded);
    }
    // A context that has a parent span comes first.
    let both = [("x-amzn-trace-id", sampled.as_str()), ("traceparent", &up)];
    check(&config, &both, &[("traceparent", &down)], DecisionKind::Parent, Some(Some(S)));
}

#[test]
fn baggage_over_its_limits_is_cut_and_counted() {
    let config = config(r#""propagation": {"baggage": {"max_members": 64}, "inject": ["none"]},"#);
    let members: Vec<_> = (0..66).map(|member| format!("k{member}=v;p")).collect();
    let (list, expected) = (members.join(","), members[..64].join(","));
    let request = [("baggage", list.as_str())];
    let outcome = outcome_of(&config, &head(&request));
    assert_eq!(upstream(&request, &outcome.edits), [("baggage".to_owned(), expected)],);
    assert_eq!(outcome.summary.faults, Faults { baggage_members_dropped: 2, ..Faults::default() });
}

#[test]
fn a_decision_without_ids_applies_to_a_parent_without_a_decision() {
    let config = config_with_x_do(1.0, r#""tracecontext""#);
    let down = traceparent(T, S, "00");
    let ids = [("x-b3-traceid", T), ("x-b3-spanid", S), ("b3", "0")];
    check(&config, &ids, &[("traceparent", &down)], DecisionKind::Parent, None);
    let up = traceparent(T, S, "01");
    let stated = [("traceparent", up.as_str()), ("b3", "0")];
    let own = traceparent(T, OWN, "01");
    check(&config, &stated, &[("traceparent", &own)], DecisionKind::Parent, Some(Some(S)));
}

#[test]
fn the_format_of_b3_that_is_not_written_is_removed() {
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
    let config = config_with_x_do(1.0, r#""tracecontext""#);
    let request = [("traceparent", "x"), ("b3", "y")];
    let outcome = outcome_of(&config, &head(&request));
    let invalid = vec![Format::TraceContext, Format::B3Single];
    assert_eq!(outcome.summary.faults, Faults { invalid, ..Faults::default() });
}

#[test]
fn new_traces_have_the_random_flag_if_it_is_configured() {
    let config = config(r#""propagation": {"random_flag": true},"#);
    let (root, up) = (traceparent(FRESH_TRACE, OWN, "03"), traceparent(T, S, "01"));
    check_with_facts(&config, &[], RequestFacts::default(), &[("traceparent", &root)]);
    let own = traceparent(T, OWN, "01");
    let request = [("traceparent", up.as_str())];
    check_with_facts(&config, &request, RequestFacts::default(), &[("traceparent", &own)]);
}
