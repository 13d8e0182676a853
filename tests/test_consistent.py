"""Consistent sampling: proxies with different ratios agree, and announce their thresholds in tracestate."""

import re

import pytest

from conftest import lane
from shared_envoys import SharedTopology
from traffic import Client, new_context

TRACES = 400
OWN = re.compile("ot=th:555555;rv:([0-9a-f]{14}),a=1")
FORCE = {"name": "debug", "match": {"headers": {"name": "x-debug", "present": True}}, "decision": "force"}


@pytest.fixture(scope="module")
def consistent_client(outermost_envoy):
    ignore_flags = {
        "sampling": {"ratio": 2 / 3, "precision": 6, "rules": [FORCE]},
        "propagation": {"trust": "ignore_flags"},
    }
    lanes = {
        "tenth": lane(1, listeners={"frontend-inbound": {"sampling": {"ratio": 0.1}}}),
        "half": lane(1, listeners={"frontend-inbound": {"sampling": {"ratio": 0.5}}}),
        "ignore-flags": lane(1, listeners={"frontend-inbound": ignore_flags}),
    }
    with SharedTopology(lanes, envoy=outermost_envoy) as topology, Client(topology, "1.1") as client:
        yield client


def states(client: Client, name: str, headers: dict) -> list[str | None]:
    """Returns the tracestate that each service saw."""
    return [call.context().get("tracestate") for call in client.through(name, "/a", headers).calls]


@pytest.mark.parametrize(
    ("name", "threshold", "announced"),
    [("tenth", 0xE6660000000000, "ot=th:e666"), ("half", 0x80000000000000, "ot=th:8")],
)
def test_a_trace_is_sampled_by_its_id(consistent_client, name, threshold, announced):
    """So what one proxy samples is among what another does that samples more."""
    sampled = 0
    for _ in range(TRACES):
        context = new_context()
        # This context leaves the decision open.
        found = states(consistent_client, name, {"b3": f"{context.trace_id}-{context.span_id}"})
        takes = int(context.trace_id[-14:], 16) >= threshold
        assert found == [announced if takes else None] * 2
        sampled += takes
    assert 0 < sampled < TRACES
    assert {span.trace_state for span in consistent_client.topology.receiver.spans()} <= {"ot=th:e666", "ot=th:8"}


def test_untrusted_context_is_decided_by_randomness_of_the_proxys_own(consistent_client):
    """The proxy announces it, so that the next ones decide by the same."""
    sampled = 0
    for number in range(100):
        context = new_context()
        claimed = "00000000000000" if number % 2 else "ffffffffffffff"
        headers = {"traceparent": context.traceparent("01"), "tracestate": f"a=1,ot=th:0;rv:{claimed}"}
        first, second = states(consistent_client, "ignore-flags", headers)
        assert first == second
        if first != "a=1":
            assert int(OWN.fullmatch(first)[1], 16) >= 0x55555500000000
            sampled += 1
    # Two thirds of 100, give or take six standard deviations.
    assert 38 <= sampled <= 95


def test_forced_trace_has_no_threshold(consistent_client):
    context = new_context()
    headers = {
        "traceparent": context.traceparent("01"),
        "tracestate": "ot=th:8;rv:ffffffffffffff,a=1",
        "x-debug": "1",
    }
    assert states(consistent_client, "ignore-flags", headers) == ["a=1"] * 2
    assert [span.trace_state for span in consistent_client.spans(context.trace_id)] == ["a=1"] * 3
