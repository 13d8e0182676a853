"""Sampling decisions, seen in the headers of the services and in the exported spans."""

import re

from conftest import lane
from shared_envoys import SharedTopology
from traffic import Client, new_context

NEVER = [
    "context_overwritten",
    "late_exported",
    "late_limited",
    "condition_searches_exceeded",
    "late_not_held",
    "spans_limited",
    "contexts_restarted",
    "attributes_truncated",
    "attributes_dropped",
    "tracestate_members_dropped",
    "baggage_members_dropped",
]
DROP_REASONS = [
    "queue_full",
    "rejected",
    "partial_success",
    "retries_exhausted",
    "too_large",
    "configuration_removed",
]
LANES = {"ratio-1": lane(1), "ratio-0": lane(0)}
UNSAMPLED_ROOT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00")
SAMPLED_ROOT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01")


def trace_id_of(traceparent: str) -> str:
    return traceparent.split("-")[1]


def reasons(spans) -> list[str]:
    return [span.attributes["sidespan.reason"] for span in spans]


def test_debug_header_forces_a_trace_over_an_unsampled_parent(client):
    parent = new_context()
    answer = client.through(
        "ratio-0", "/a", {"traceparent": parent.traceparent("00"), "x-debug-trace": "true"}
    )

    server, outbound, backend = client.spans(parent.trace_id)
    assert answer.status == 200
    assert server.parent_span_id == parent.span_id
    assert [call.context() for call in answer.calls] == [
        {"traceparent": f"00-{parent.trace_id}-{server.span_id}-01"},
        {"traceparent": f"00-{parent.trace_id}-{backend.span_id}-01"},
    ]
    assert reasons([server, outbound, backend]) == ["debug-header", "parent", "parent"]


def test_health_check_is_dropped_under_a_sampled_parent(client):
    parent = new_context()
    answer = client.through("ratio-1", "/healthz", {"traceparent": parent.traceparent("01")})

    assert answer.status == 200
    assert [call.context() for call in answer.calls] == [{"traceparent": parent.traceparent("00")}]
    assert client.recorded_spans("ratio-1", parent.trace_id) == []


def test_dropped_root_goes_on_unsampled(client):
    answer = client.through("ratio-1", "/healthz")

    (context,) = [call.context() for call in answer.calls]
    assert list(context) == ["traceparent"]
    assert UNSAMPLED_ROOT.fullmatch(context["traceparent"])
    assert client.recorded_spans("ratio-1", trace_id_of(context["traceparent"])) == []


def test_root_at_ratio_0_goes_on_unsampled(client):
    answer = client.through("ratio-0", "/a")

    contexts = [call.context() for call in answer.calls]
    assert UNSAMPLED_ROOT.fullmatch(contexts[0]["traceparent"])
    # Nothing is recorded below, so nothing of it changes either.
    assert contexts == [contexts[0], contexts[0]]
    assert client.recorded_spans("ratio-0", trace_id_of(contexts[0]["traceparent"])) == []


def test_root_at_ratio_1_is_traced(client):
    answer = client.through("ratio-1", "/a")

    contexts = [call.context() for call in answer.calls]
    assert all(SAMPLED_ROOT.fullmatch(context["traceparent"]) for context in contexts)
    server, outbound, backend = client.spans(trace_id_of(contexts[0]["traceparent"]))
    assert [server.parent_span_id, outbound.parent_span_id, backend.parent_span_id] == [
        "",
        server.span_id,
        outbound.span_id,
    ]
    assert reasons([server, outbound, backend]) == ["ratio", "parent", "parent"]


def test_sampled_parent_is_followed_at_ratio_0(client):
    parent = new_context()
    client.through("ratio-0", "/a", {"traceparent": parent.traceparent("01")})

    assert reasons(client.spans(parent.trace_id)) == ["parent", "parent", "parent"]


def test_unsampled_parent_is_followed_at_ratio_1(client):
    parent = new_context()
    answer = client.through("ratio-1", "/a", {"traceparent": parent.traceparent("00")})

    untouched = {"traceparent": parent.traceparent("00")}
    assert [call.context() for call in answer.calls] == [untouched, untouched]
    assert client.recorded_spans("ratio-1", parent.trace_id) == []


def test_rule_with_a_ratio_overrides_the_general_one(client):
    answer = client.through("ratio-0", "/checkout", method="POST")

    trace_id = trace_id_of(answer.calls[0].context()["traceparent"])
    assert reasons(client.spans(trace_id)) == ["ratio", "parent", "parent"]


def test_rule_for_one_method_leaves_the_others(client):
    answer = client.through("ratio-0", "/checkout")

    assert UNSAMPLED_ROOT.fullmatch(answer.calls[0].context()["traceparent"])


def test_ignored_request_is_not_touched(client):
    sent = {
        "traceparent": "00-no-context-at-all",
        "tracestate": "vendor=1",
        "b3": "neither",
        "x-b3-traceid": "463ac35c9f6413ad",
        "baggage": "account=7",
    }
    answer = client.through("ratio-1", "/site.css", sent)

    assert [call.context() for call in answer.calls] == [sent, sent]


def test_ignored_request_without_context_gets_none(client):
    answer = client.through("ratio-1", "/site.css")

    assert [call.context() for call in answer.calls] == [{}, {}]


def test_every_decision_is_counted(each_envoy):
    parent = new_context()
    with SharedTopology({"": lane(0)}, envoy=each_envoy) as running, Client(running, "1.1") as client:
        client.through("", "/a", {"traceparent": parent.traceparent("00"), "x-debug-trace": "true"})
        client.through("", "/healthz")
        client.through("", "/site.css")
        client.through("", "/a")
        client.through("", "/a", {"traceparent": "00-malformed"})

        # The services behind the first hop see what it decided, and the last sidecar what the
        # second did: all but the ignored request and the health check, which goes no further.
        expected = {
            'sidespan_decisions_total{decision="force"}': 1,
            'sidespan_decisions_total{decision="drop"}': 1,
            'sidespan_decisions_total{decision="ignore"}': 3,
            'sidespan_decisions_total{decision="parent"}': 2 + 2 + 2,
            'sidespan_decisions_total{decision="ratio"}': 2,
            'sidespan_rule_decisions_total{rule="debug-header",outcome="sampled"}': 1,
            'sidespan_rule_decisions_total{rule="health-checks",outcome="unsampled"}': 1,
            'sidespan_rule_decisions_total{rule="static-files",outcome="ignored"}': 3,
            'sidespan_rule_decisions_total{rule="none",outcome="sampled"}': 2,
            'sidespan_rule_decisions_total{rule="none",outcome="unsampled"}': 2 + 2 + 2,
            'sidespan_invalid_contexts_total{format="tracecontext"}': 1,
            **dict.fromkeys(map("sidespan_{}_total".format, NEVER), 0),
            **{f'sidespan_spans_dropped_total{{reason="{reason}"}}': 0 for reason in DROP_REASONS},
            'sidespan_exports_total{result="retry"}': 0,
            'sidespan_exports_total{result="failure"}': 0,
            "sidespan_spans_recorded_total": 3,
            "sidespan_spans_exported_total": 3,
            "sidespan_queue_bytes": 0,
            "sidespan_spans_queued": 0,
            "sidespan_configuration_rejected": 0,
        }
        stats = running.wait_for_stats(lambda stats: expected.items() <= stats.items())
        exports = running.receiver.exports()
    # Root contexts in the worker and in the main thread. Two of the three listeners have the same
    # configuration, for which newer Envoys have one.
    root_contexts = stats.pop("sidespan_configured_total")
    assert root_contexts in (2 * 2, 2 * 3) and stats.pop('sidespan_build_info{version="0.1.0"}') == root_contexts
    assert {name: stats[name] for name in stats.keys() - expected.keys()} == {
        'sidespan_exports_total{result="success"}': len(exports),
        "sidespan_export_bytes_total": sum(len(export.body) for export in exports),
    }
