"""Spans of a configuration that Envoy removes while it runs."""

import re
import time

import pytest

from conftest import lane
from shared_envoys import SharedTopology
from topology import admin_answer, books
from traffic import Client

# With an hour between ticks, nothing is sent before the update.
HOURLY = {"interval_ms": 3_600_000}
ANOTHER_TENANT = {
    "otlp": {"cluster": "otel-collector", "headers": [{"name": "x-tenant", "literal": {"value": "other"}}]},
    "batch": HOURLY,
}


@pytest.mark.parametrize("left", [None, ANOTHER_TENANT], ids=["no other exporter", "exporter of another tenant"])
def test_spans_of_a_removed_configuration_are_counted_as_dropped(outermost_envoy, left):
    hourly = lane(1, batch=HOURLY, listeners={"frontend-inbound": {"exporter": left}})
    with SharedTopology({"": hourly}, envoy=outermost_envoy, drain_seconds=1) as running:
        with Client(running, "1.1") as client:
            for _ in range(3):
                client.send(client.lane("").backend_inbound, "/a")
        running.discover("lds", [it for it in running.listeners if it["name"] == "frontend-inbound"])
        stats = running.wait_for_stats(lambda stats: books(stats)["recorded"] == 3 and not books(stats)["queued"])
        log = running.log()
    assert books(stats) == {"recorded": 3, "exported": 0, "queued": 0, "configuration_removed": 3}
    assert "were dropped in this worker: 3 configuration_removed" in log


def test_a_removed_configuration_leaves_no_timer(outermost_envoy):
    """Envoy keeps the timers of root contexts that are gone."""
    hasty = lane(1, batch={"interval_ms": 10}, listeners={"frontend-inbound": {"exporter": ANOTHER_TENANT}})
    with SharedTopology({"": hasty}, envoy=outermost_envoy) as running:
        running.program.wait_until(lambda: turns_in_two_seconds(running) > 100)
        running.discover("lds", [it for it in running.listeners if it["name"] == "frontend-inbound"])
        running.program.wait_until(lambda: turns_in_two_seconds(running) < 50)


def turns_in_two_seconds(running: SharedTopology) -> int:
    """Returns how often the worker woke up, as far as Envoy has added that up: 0 until it has done so once."""
    counts = []
    for wait in (2, 0):
        shown = admin_answer(running.admin_port, "/stats/prometheus?filter=worker_0.dispatcher.loop_duration")
        counts += map(int, re.findall(r"^envoy_\w*loop_duration_us_count{.*} (\d+)$", shown, re.MULTILINE))
        time.sleep(wait)
    return counts[1] - counts[0] if len(counts) == 2 else 0
