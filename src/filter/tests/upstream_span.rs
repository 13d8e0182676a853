use super::*;

/// The id of the span of the call upstream.
const UPSTREAM: &str = "cccccccccccccccc";

/// The ids of a request and of its spans, and the permits that it took.
#[derive(Debug, PartialEq, Eq)]
struct Ids {
    upstream: String,
    parent: Option<String>,
    span: Option<String>,
    upstream_span: Option<String>,
    permits: Vec<Permits>,
}

#[track_caller]
fn check(config: &Config, direction: Direction, request: Headers, expected: Ids) {
    let fresh = FreshIds { upstream_span_id: Some(SpanId::from_hex(UPSTREAM).unwrap()), ..FRESH };
    let facts = RequestFacts { direction: Some(direction), ..RequestFacts::default() };
    let mut permits = Vec::new();
    let mut take = |limits: [Option<(&Limit, BurstShare)>; 2], count| {
        permits.extend(limits.iter().flatten().map(|_| count));
        Ok(())
    };
    let outcome = on_request_headers(config, &head(request), facts, fresh, &mut take);
    let lines = upstream(request, &outcome.edits);
    let traceparent = lines.iter().find(|(name, _)| name == "traceparent").unwrap();
    let recording = outcome.recording().or(outcome.late());
    let found = Ids {
        upstream: traceparent.1[36..52].to_owned(),
        parent: recording.and_then(|it| it.parent_span_id).map(|id| id.to_string()),
        span: recording.map(|it| it.context.span_id.to_string()),
        upstream_span: recording.and_then(|it| it.upstream_span_id).map(|id| id.to_string()),
        permits,
    };
    assert_eq!(found, expected, "{direction:?} {request:?}");
    // Access logs and the client get the id of the request's own span, if it has one. The client of a request
    // that is not sampled and has a parent gets the parent's id.
    let is_sampled = outcome.summary.sampled;
    let logged = outcome.log_context.unwrap().span_id.to_string();
    let shown = shown(&outcome.response_context).unwrap();
    let own = found.span.unwrap_or(found.upstream);
    assert_eq!(logged, own);
    assert_eq!(shown, found.parent.filter(|_| !is_sampled).unwrap_or(own));
}

#[test]
fn an_inbound_request_has_a_second_span_whose_id_goes_upstream() {
    use Direction::{Inbound, Outbound};
    let options = r#""span": {"spawn_upstream_span": true}, "access_log": {"filter_state": true},
        "response": {"traceresponse": true, "when": "always"},"#;
    let limits = r#""limit": {"per_second": 1}, "rules": [
        {"name": "all", "limit": {"per_second": 1}}]"#;
    let all = config(&format!(r#"{options} "sampling": {{{limits}}},"#));
    let late = config(&format!(
        r#"{options} "sampling": {{"ratio": 0, "export_on":
            {{"status": ["5xx"], "limit": {{"per_second": 1}}}}}},"#
    ));
    let [sampled, unsampled] = ["01", "00"].map(|flags| traceparent(T, S, flags));
    let [sampled, unsampled] = [&sampled, &unsampled].map(|value| [("traceparent", &**value)]);
    let id = |id: &str| Some(id.to_owned());
    let ids = |upstream: &str, parent, span, upstream_span, permits: &[Permits]| Ids {
        upstream: upstream.to_owned(),
        parent,
        span,
        upstream_span,
        permits: permits.to_vec(),
    };
    let two = ids(UPSTREAM, id(S), id(OWN), id(UPSTREAM), &[Permits::Two; 2]);
    check(&all, Inbound, &sampled, two);
    let root = ids(UPSTREAM, None, id(OWN), id(UPSTREAM), &[Permits::Two; 2]);
    check(&all, Inbound, &[], root);
    // An outbound span is the span of the call already.
    check(&all, Outbound, &sampled, ids(OWN, id(S), id(OWN), None, &[Permits::One; 2]));
    check(&all, Inbound, &unsampled, ids(S, None, None, None, &[]));
    // The id that goes upstream belongs to no span yet: the end decides on a late span.
    check(&late, Inbound, &unsampled, ids(S, id(S), id(OWN), id(UPSTREAM), &[]));
    check(&late, Inbound, &[], ids(UPSTREAM, None, id(OWN), id(UPSTREAM), &[]));
    check(&late, Outbound, &[], ids(OWN, None, id(OWN), None, &[]));
}
