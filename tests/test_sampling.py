"""Trust in contexts, tokens that force a trace, and late export, in real Envoys."""

import base64
import hashlib
import hmac
import re
import struct
import time

import pytest

from conftest import lane
from shared_envoys import SharedTopology
from traffic import Client, new_context

KEY = "0123456789abcdef0123456789abcdef"
TOKEN = {"keys": [{"id": "ops", "secret": KEY}], "max_ttl_s": 600}
GUARDED = {
    "name": "debug-token",
    "match": {"headers": [{"name": "x-debug-token", "token": TOKEN}]},
    "decision": "force",
}
EDGE = {
    "trust": "restart",
    "trust_rules": [
        {"match": {"source_ranges": ["192.0.2.0/24"]}, "trust": "accept"},
        {
            "match": {"source_ranges": ["127.0.0.0/8"], "headers": {"name": "x-mesh", "present": True}},
            "trust": "accept",
        },
        {"match": {"headers": {"name": "x-ignore-flags", "present": True}}, "trust": "ignore_flags"},
    ],
}
EGRESS = [{"authority": [{"exact": "backend"}], "action": "strip"}]
SAMPLED_ROOT = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-01")


def lanes() -> dict:
    """Lanes of an Envoy of these tests' own."""
    guarded = lane(0, rules=[GUARDED])
    late = lane(0, frontend="refused")
    late.filter["sampling"] = {
        "ratio": 0,
        "rules": [{"name": "health", "match": {"path": {"exact": "/healthz"}}, "decision": "drop"}],
        "export_on": {"status": ["5xx"]},
    }
    edge = lane(1, listeners={"frontend-inbound": {"propagation": EDGE}})
    stripped = lane(1, listeners={"frontend-outbound": {"propagation": {"egress": EGRESS}}})
    return {"guarded": guarded, "late": late, "edge": edge, "stripped": stripped}


@pytest.fixture(scope="module")
def sampling_envoy(outermost_envoy):
    with SharedTopology(lanes(), envoy=outermost_envoy) as running:
        yield running


@pytest.fixture
def sampling_client(sampling_envoy):
    with Client(sampling_envoy, "1.1") as client:
        yield client


def token(expires: float, key_id: str = "ops", path_prefix: str = "", key: str = KEY) -> str:
    """Mints a token by the format's description alone."""
    payload = b"\x01" + struct.pack(">Q", int(expires)) + bytes([len(key_id)])
    payload += key_id.encode() + path_prefix.encode()
    signature = hmac.new(key.encode(), b"sidespan token\0" + payload, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(payload + signature).rstrip(b"=").decode()


def names(call) -> list[str]:
    return [name for name, _ in call.headers]


def test_a_token_forces_a_trace_and_goes_no_further(sampling_client):
    parent = new_context()
    headers = {"traceparent": parent.traceparent("00"), "x-debug-token": token(time.time() + 300)}
    answer = sampling_client.through("guarded", "/a", headers)

    server, outbound, backend = sampling_client.spans(parent.trace_id)
    assert server.attributes["sidespan.reason"] == "debug-token"
    assert [outbound.attributes["sidespan.reason"], backend.attributes["sidespan.reason"]] == ["parent"] * 2
    assert all("x-debug-token" not in names(call) for call in answer.calls)
    assert KEY not in str([server, outbound, backend])


def test_tokens_that_are_not_valid_are_counted_and_force_nothing(sampling_client):
    before = sampling_client.topology.stats()
    now = time.time()
    for bad in [
        token(now - 1),
        token(now + 10_000),
        token(now + 300, key="another key that is as long as it must be"),
        token(now + 300, path_prefix="/b"),
        "true",
    ]:
        answer = sampling_client.through("guarded", "/a", {"x-debug-token": bad})
        (context, _) = [call.context() for call in answer.calls]
        assert context["traceparent"].endswith("-00")
        assert "x-debug-token" not in names(answer.calls[0])
    wanted = {"expired": 1, "foreign": 3, "malformed": 1}
    refused = {f'sidespan_tokens_refused_total{{reason="{why}"}}': n for why, n in wanted.items()}
    counted = {name: before.get(name, 0) + n for name, n in refused.items()}
    sampling_client.topology.wait_for_stats(lambda stats: counted.items() <= stats.items())
    assert KEY not in sampling_client.topology.log()


def test_an_untrusted_context_becomes_a_link(sampling_client):
    outside = new_context()
    headers = {"traceparent": outside.traceparent("00"), "tracestate": "a=1", "baggage": "k=v"}
    answer = sampling_client.through("edge", "/a", headers)

    (context, _) = [call.context() for call in answer.calls]
    trace_id = SAMPLED_ROOT.fullmatch(context["traceparent"]).group(1)
    assert trace_id != outside.trace_id
    assert (context.get("tracestate"), context["baggage"]) == (None, "k=v")
    server, outbound, _ = sampling_client.spans(trace_id)
    assert server.parent_span_id == ""
    assert server.links == ((outside.trace_id, outside.span_id, "a=1"),)
    assert outbound.links == ()


def test_a_context_is_trusted_by_address_and_header(sampling_client):
    parent = new_context()
    headers = {"traceparent": parent.traceparent("01"), "x-mesh": "1"}
    sampling_client.through("edge", "/a", headers)
    server, _, _ = sampling_client.spans(parent.trace_id)
    assert (server.parent_span_id, server.links) == (parent.span_id, ())


def test_flags_are_ignored_and_the_trace_is_kept(sampling_client):
    parent = new_context()
    headers = {"traceparent": parent.traceparent("00"), "x-ignore-flags": "1"}
    sampling_client.through("edge", "/a", headers)
    server, _, _ = sampling_client.spans(parent.trace_id)
    assert (server.parent_span_id, server.attributes["sidespan.reason"]) == (parent.span_id, "ratio")


def test_no_context_leaves_to_an_authority_that_is_stripped(sampling_client):
    parent = new_context()
    headers = {"traceparent": parent.traceparent("01"), "tracestate": "a=1", "baggage": "k=v"}
    answer = sampling_client.through("stripped", "/a", headers)

    frontend, backend = answer.calls
    assert frontend.context()["baggage"] == "k=v"
    (root,) = [backend.context()["traceparent"]]
    assert SAMPLED_ROOT.fullmatch(root).group(1) != parent.trace_id, "the backend's sidecar begins a new trace"
    assert "baggage" not in backend.context()
    server, outbound = sampling_client.spans(parent.trace_id, 2)
    assert (server.kind, outbound.kind) == ("SERVER", "CLIENT")


def test_failed_request_is_exported_late_and_alone(sampling_client):
    parent = new_context()
    answer = sampling_client.through("late", "/a", {"traceparent": parent.traceparent("00")})

    assert answer.status == 503
    (server,) = sampling_client.spans(parent.trace_id, 1)
    assert (server.parent_span_id, server.status) == (parent.span_id, "ERROR")
    assert server.flags & 1 == 0
    assert server.attributes["sidespan.reason"] == "late"
    assert server.attributes["sidespan.export_on"] == "status"
    assert server.attributes["response_flags"] == "UF"
    assert server.attributes["url.path"] == "/a"


def test_a_dropped_request_is_not_exported_late(sampling_client):
    dropped, failed = new_context(), new_context()
    sampling_client.through("late", "/healthz", {"traceparent": dropped.traceparent("00")})
    sampling_client.through("late", "/a", {"traceparent": failed.traceparent("00")})
    sampling_client.spans(failed.trace_id, 1)
    assert [
        span for span in sampling_client.topology.receiver.spans() if span.trace_id == dropped.trace_id
    ] == []


def test_decisions_are_counted_by_rule(sampling_client):
    def counts(stats):
        return {name: stats.get(name, 0) for name in wanted}

    wanted = {
        'sidespan_rule_decisions_total{rule="health",outcome="unsampled"}': 1,
        'sidespan_rule_decisions_total{rule="none",outcome="unsampled"}': 1,
        "sidespan_late_exported_total": 1,
    }
    before = counts(sampling_client.topology.stats())
    sampling_client.through("late", "/healthz")
    sampling_client.through("late", "/b")
    sampling_client.topology.wait_for_stats(
        lambda stats: all(counts(stats)[name] >= before[name] + n for name, n in wanted.items())
    )
