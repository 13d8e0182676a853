"""Proxies that sample different shares of the same traces agree, and say so in tracestate."""

import pytest

from conftest import lane
from topology import Topology
from traffic import Client, new_context

TRACES = 400
ANEW = {"trust": "ignore_flags"}


def decides(ratio: float, **sampling) -> dict:
    """Returns the part of a configuration by which a proxy decides for itself."""
    return {"sampling": {"ratio": ratio, **sampling}, "propagation": ANEW}


@pytest.fixture(scope="module")
def consistent_client(outermost_envoy):
    force = {"name": "debug", "match": {"headers": {"name": "x-debug", "present": True}}, "decision": "force"}
    lanes = {
        "shares": lane(1, listeners={"frontend-inbound": decides(0.1), "backend-inbound": decides(0.5)}),
        "precise": lane(1, listeners={"frontend-inbound": decides(2 / 3, precision=6, rules=[force])}),
    }
    with Topology(lanes, envoy=outermost_envoy) as topology, Client(topology, "1.1") as client:
        yield client


def test_what_ten_percent_take_is_among_what_fifty_percent_take(consistent_client):
    contexts = [new_context() for _ in range(TRACES)]
    thresholds = {}
    for context in contexts:
        answer = consistent_client.through("shares", "/a", {"traceparent": context.traceparent("00")})
        thresholds[context.trace_id] = [call.context().get("tracestate") for call in answer.calls]
    # The last trace that is sampled twice comes last from both.
    stats = consistent_client.topology.wait_for_stats(
        lambda stats: stats['sidespan_decisions_total{decision="ratio"}'] >= 2 * TRACES
        and stats["sidespan_spans_recorded_total"] == stats["sidespan_spans_exported_total"]
    )

    randomness = {context.trace_id: int(context.trace_id[-14:], 16) for context in contexts}
    tenth = {trace for trace, random in randomness.items() if random >= 0xE6660000000000}
    half = {trace for trace, random in randomness.items() if random >= 0x80000000000000}
    spans = consistent_client.topology.receiver.spans()
    announced = {trace for trace, states in thresholds.items() if states[0] == "ot=th:e666"}
    assert announced == tenth
    assert {trace for trace, states in thresholds.items() if states[1] == "ot=th:8"} == half
    assert announced < half
    assert all(states[1] is None for trace, states in thresholds.items() if trace not in half)
    assert {span.trace_id for span in spans} == half
    assert {span.trace_state for span in spans if span.trace_id not in tenth} == {"ot=th:8"}
    assert {span.trace_state for span in spans if span.trace_id in tenth} == {"ot=th:e666", "ot=th:8"}


def test_a_trace_brings_its_own_randomness(consistent_client):
    for random, expected in [
        ("00000000000000", "ot=rv:00000000000000,a=1"),
        ("555554ffffffff", "ot=rv:555554ffffffff,a=1"),
        ("55555500000000", "ot=th:555555;rv:55555500000000,a=1"),
        ("ffffffffffffff", "ot=th:555555;rv:ffffffffffffff,a=1"),
    ]:
        context = new_context()
        state = f"a=1,ot=th:0;rv:{random}"
        headers = {"traceparent": context.traceparent("01"), "tracestate": state}
        answer = consistent_client.through("precise", "/a", headers)
        assert [call.context()["tracestate"] for call in answer.calls] == [expected] * 2


def test_what_is_forced_has_no_threshold(consistent_client):
    context = new_context()
    headers = {
        "traceparent": context.traceparent("01"),
        "tracestate": "ot=th:8;rv:ffffffffffffff,a=1",
        "x-debug": "1",
    }
    answer = consistent_client.through("precise", "/a", headers)
    states = [call.context()["tracestate"] for call in answer.calls]
    assert states == ["ot=rv:ffffffffffffff,a=1"] * 2
    assert [span.trace_state for span in consistent_client.spans(context.trace_id)] == states + states[:1]
