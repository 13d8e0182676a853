"""Rate limits hold over all workers of an Envoy, under load from many connections."""

import http.client
import time

import pytest

from conftest import lane
from load import Load
from shared_envoys import SharedTopology

WORKERS = 4
CONNECTIONS = 16
SECONDS = 3
PER_SECOND, BURST = 40, 20
LIMIT = {"per_second": PER_SECOND, "burst": BURST}
FORCE_ALL = {"name": "force all", "decision": "force"}
# Rows: the settings, and the counter of the requests beyond the limit.
LIMITS = {
    "rule": (
        {"rules": [FORCE_ALL | {"limit": LIMIT}]},
        'sidespan_rule_decisions_total{rule="force_all",outcome="limited"}',
    ),
    "all-spans": ({"rules": [FORCE_ALL], "limit": LIMIT}, "sidespan_spans_limited_total"),
    "late-spans": ({"export_on": {"status": "5xx", "limit": LIMIT}}, "sidespan_late_limited_total"),
}


def load(port: int, seconds: float) -> tuple[int, float]:
    """Sends requests over many connections for so long; returns how many, and how long it took.

    It goes on until there were far more than a limit lets through.
    """
    started = time.monotonic()
    with Load(port, CONNECTIONS, pause_seconds=0.01) as sent:
        time.sleep(seconds)
        while sent.sent < 2 * permits(time.monotonic() - started):
            time.sleep(0.1)
    return sent.sent, time.monotonic() - started


def permits(seconds: float) -> float:
    """Returns how many requests the limits let through at most."""
    return BURST + seconds * PER_SECOND


def limited_lane(sampling: dict):
    limited = lane(0, frontend="none")
    limited.filter["sampling"] = {"ratio": 0} | sampling
    return limited


@pytest.fixture(scope="module")
def limiting_envoy(outermost_envoy):
    lanes = {name: limited_lane(sampling) for name, (sampling, _) in LIMITS.items()}
    with SharedTopology(lanes, envoy=outermost_envoy, concurrency=WORKERS) as running:
        yield running


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_holds_over_all_workers(limiting_envoy, name):
    _, over = LIMITS[name]
    recorded, exported = "sidespan_spans_recorded_total", "sidespan_spans_exported_total"
    before, spans_before = limiting_envoy.stats(), len(limiting_envoy.receiver.spans())

    def counted(stats: dict[str, int], counter: str) -> int:
        return stats.get(counter, 0) - before.get(counter, 0)

    sent, took = load(limiting_envoy.lane(name).frontend_inbound, SECONDS)
    stats = limiting_envoy.wait_for_stats(
        # Each request beyond the limit is counted.
        lambda stats: counted(stats, exported) == counted(stats, recorded) == sent - counted(stats, over)
    )

    made, spans = counted(stats, recorded), limiting_envoy.receiver.spans()[spans_before:]
    assert made == len(spans) == len({span.span_id for span in spans})
    # The limit refills after the burst. How much of it is used depends on when the requests come.
    assert BURST < made <= permits(took)


def test_requests_that_no_limit_concerns_do_not_use_it_up(newest_envoy):
    rule = FORCE_ALL | {"match": {"path": {"exact": "/debug"}}, "limit": {"per_second": 0.001}}
    limited = lane(0, rules=[rule], frontend="none")
    counter = 'sidespan_rule_decisions_total{{rule="force_all",outcome="{}"}}'
    with SharedTopology({"": limited}, envoy=newest_envoy, concurrency=WORKERS) as topology:
        port = topology.lane().frontend_inbound
        load(port, 0.5)
        for _ in range(8):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("GET", "/debug")
            connection.getresponse().read()
            connection.close()
        topology.wait_for_stats(
            lambda stats: [stats.get(counter.format(outcome)) for outcome in ("sampled", "limited")] == [1, 7]
        )
