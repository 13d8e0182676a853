"""A second tracer: the filter notices that upstreams get another context than its own."""

import time

import pytest

from conftest import lane
from envoys_tracer import PROVIDERS, trace_too
from shared_envoys import SharedTopology
from topology import Topology
from traffic import Client

COUNTER = "sidespan_context_overwritten_total"
WARNING = "the upstream gets another trace context than the one that this filter wrote"


def send_until(running: Topology, client: Client, counted: int) -> None:
    """Sends requests until so many contexts were found overwritten."""
    for _ in range(60):
        for _ in range(5):
            assert client.through("", "/a").status == 200
        try:
            running.wait_for_stats(lambda stats: stats[COUNTER] >= counted, timeout=0.2)
        except TimeoutError:
            continue
        return
    raise AssertionError(f"not {counted} after 300 requests: {running.stats()}")


def decisions(stats: dict[str, int]) -> int:
    """Returns how many requests were decided."""
    return sum(value for name, value in stats.items() if name.startswith("sidespan_decisions_total"))


@pytest.mark.parametrize("provider", PROVIDERS)
def test_it_is_counted_and_logged(outermost_envoy, provider):
    """The OpenTelemetry tracer writes over `traceparent`, the Zipkin tracer adds B3 beside it."""
    lanes = {"": lane(1, change=lambda resources: trace_too(resources, provider))}
    started = time.monotonic()
    with SharedTopology(lanes, envoy=outermost_envoy) as running, Client(running, "1.1") as client:
        send_until(running, client, 4)
        log = running.log()
    minutes = (time.monotonic() - started) // 60
    assert 1 <= log.count(WARNING) <= 1 + minutes
    assert "tracing: [{disableSpanReporting: true}]" in log


def test_one_request_a_tick_is_compared(newest_envoy):
    seconds = 3
    lanes = {"": lane(1, change=trace_too, batch={"interval_ms": seconds * 1_000})}
    started = time.monotonic()
    with SharedTopology(lanes, envoy=newest_envoy) as running, Client(running, "1.1") as client:
        running.wait_for_stats(lambda stats: COUNTER in stats)
        for _ in range(60):
            client.through("", "/a")
        running.wait_for_stats(lambda stats: stats[COUNTER] > 0)
        counted = running.stats()[COUNTER]
        ticks = 1 + (time.monotonic() - started) // seconds
    # Each of three listeners compares the first request after a tick.
    assert counted <= 3 * ticks


def test_without_a_second_tracer_nothing_is_counted(outermost_envoy):
    """Neither where the context is the filter's, nor where it leaves contexts alone."""
    requests = [{}, {"b3": "0"}, {"traceparent": "00-malformed"}, {"x-debug-trace": "true"}] * 10
    injects = {"own": ["tracecontext"], "b3": ["b3multi", "baggage"], "none": ["none"]}
    lanes = {
        name: lane(1, propagation={"inject": inject}, batch={"interval_ms": 20}) for name, inject in injects.items()
    }
    with SharedTopology(lanes, envoy=outermost_envoy) as running, Client(running, "1.1") as client:
        for name in lanes:
            for headers in requests:
                client.through(name, "/a", headers)
        decided = len(lanes) * len(requests) * 3
        stats = running.wait_for_stats(lambda stats: decisions(stats) == decided)
        assert stats[COUNTER] == 0
        assert WARNING not in running.log()
