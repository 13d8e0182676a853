"""Rate limits hold for an Envoy and all its workers: counted under load from many connections."""

import http.client
import threading
import time

import pytest

from conftest import lane
from topology import Topology

WORKERS = 4
CONNECTIONS = 16
SECONDS = 10
PER_SECOND, BURST = 40, 20
LIMIT = {"per_second": PER_SECOND, "burst": BURST}
FORCE_ALL = {"name": "force all", "decision": "force"}


def load(port: int, seconds: float) -> tuple[int, float]:
    """Sends requests over many connections for so long; returns how many, and how long it took."""
    started = time.monotonic()
    sent = [0] * CONNECTIONS

    def send(place: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        while time.monotonic() < started + seconds:
            connection.request("GET", "/a")
            connection.getresponse().read()
            sent[place] += 1
        connection.close()

    threads = [threading.Thread(target=send, args=(place,)) for place in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(sent), time.monotonic() - started


@pytest.mark.parametrize(
    ("name", "sampling"),
    [
        ("rule", {"rules": [FORCE_ALL | {"limit": LIMIT}]}),
        ("all spans", {"rules": [FORCE_ALL], "limit": LIMIT}),
        ("late spans", {"export_on": {"status": "5xx", "limit": LIMIT}}),
    ],
)
def test_a_limit_holds_over_all_workers(outermost_envoy, name, sampling):
    over = {
        "rule": 'sidespan_rule_decisions_total{rule="force_all",outcome="limited"}',
        "all spans": "sidespan_spans_limited_total",
        "late spans": "sidespan_late_limited_total",
    }
    limited = lane(0, batch={"interval_ms": 50}, frontend="none")
    limited.filter["sampling"] = {"ratio": 0} | sampling
    with Topology({"": limited}, envoy=outermost_envoy, concurrency=WORKERS) as topology:
        sent, took = load(topology.lane().frontend_inbound, SECONDS)
        stats = topology.wait_for_stats(
            lambda stats: stats["sidespan_spans_exported_total"] == stats["sidespan_spans_recorded_total"]
            # Each request beyond the limit is counted.
            and stats.get(over[name], 0) == sent - stats["sidespan_spans_recorded_total"]
        )
        spans = topology.receiver.spans()

    made = stats["sidespan_spans_recorded_total"]
    assert made == len(spans) == len({span.span_id for span in spans})
    assert made <= BURST + took * PER_SECOND
    assert made >= 0.9 * (BURST + SECONDS * PER_SECOND)
    # There were far more requests than the limit lets through.
    assert sent > 5 * made


def test_requests_that_no_limit_concerns_do_not_use_it_up(newest_envoy):
    rule = FORCE_ALL | {"match": {"path": {"exact": "/debug"}}, "limit": {"per_second": 0.001}}
    limited = lane(0, rules=[rule], frontend="none")
    with Topology({"": limited}, envoy=newest_envoy, concurrency=WORKERS) as topology:
        port = topology.lane().frontend_inbound
        load(port, 0.5)
        for _ in range(8):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("GET", "/debug")
            connection.getresponse().read()
            connection.close()
        stats = topology.wait_for_stats(
            lambda stats: stats.get('sidespan_rule_decisions_total{rule="force_all",outcome="limited"}') == 7
        )
    assert stats['sidespan_rule_decisions_total{rule="force_all",outcome="sampled"}'] == 1
