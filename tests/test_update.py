"""Spans of a configuration that Envoy removes while it runs."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import lane
from topology import Topology, admin_answer, books
from traffic import Client

TYPE = "type.googleapis.com/envoy.config.listener.v3.Listener"
# With an hour between ticks, nothing is sent or published before the update.
HOURLY = {"interval_ms": 3_600_000}
ANOTHER_TENANT = {
    "otlp": {"cluster": "otel-collector", "headers": [{"name": "x-tenant", "literal": {"value": "other"}}]},
    "batch": HOURLY,
}


def listener_update(listeners: list[dict], version: str) -> str:
    """Returns a file of Envoy's listener discovery service."""
    return json.dumps({"version_info": version, "resources": [{"@type": TYPE, **it} for it in listeners]})


def removal(folder: Path) -> tuple[Callable[[dict], None], Callable[[], None]]:
    """Returns what lets a bootstrap discover its listeners, and what removes all but one of them then."""
    discovery, update = folder / "listeners.json", folder / "update.json"

    def discover(bootstrap: dict) -> None:
        listeners = bootstrap["static_resources"].pop("listeners")
        discovery.write_text(listener_update(listeners, "1"))
        # Envoy forgets the statistics of filters once there is none: one stays.
        kept = [listener for listener in listeners if listener["name"] == "frontend-inbound"]
        update.write_text(listener_update(kept, "2"))
        bootstrap["dynamic_resources"] = {"lds_config": {"path_config_source": {"path": str(discovery)}}}

    return discover, lambda: update.rename(discovery)


@pytest.mark.parametrize("left", [None, ANOTHER_TENANT], ids=["no other exporter", "exporter of another tenant"])
def test_spans_of_a_removed_configuration_are_counted_as_dropped(outermost_envoy, tmp_path, left):
    discover, remove = removal(tmp_path)
    hourly = lane(1, batch=HOURLY, listeners={"frontend-inbound": {"exporter": left}})
    arguments = ["--disable-hot-restart", "--drain-time-s", "1"]
    with Topology({"": hourly}, envoy=outermost_envoy, change=discover, arguments=arguments) as running:
        with Client(running, "1.1") as client:
            for _ in range(3):
                client.send(client.lane("").backend_inbound, "/a")
        remove()
        stats = running.wait_for_stats(lambda stats: stats["sidespan_spans_recorded_total"] == 3)
        log = running.log()
    assert books(stats) == {"recorded": 3, "exported": 0, "queued": 0, "configuration_removed": 3}
    assert "were dropped in this worker: 3 configuration_removed" in log


def test_a_removed_configuration_leaves_no_timer(outermost_envoy, tmp_path):
    """Envoy keeps the timers of root contexts that are gone."""
    discover, remove = removal(tmp_path)

    def change(bootstrap: dict) -> None:
        discover(bootstrap)
        bootstrap["enable_dispatcher_stats"] = True
        bootstrap["stats_flush_interval"] = "0.5s"

    def turns_in_two_seconds(running: Topology) -> int:
        """Returns how often the worker woke up, as far as Envoy has added that up."""
        counts = []
        for wait in (2, 0):
            shown = admin_answer(running.admin_port, "/stats/prometheus?filter=worker_0.dispatcher.loop_duration")
            counts.append(int(re.search(r"^envoy_\w*loop_duration_us_count{.*} (\d+)$", shown, re.MULTILINE).group(1)))
            time.sleep(wait)
        return counts[1] - counts[0]

    hasty = lane(
        1, batch={"interval_ms": 10}, listeners={"frontend-inbound": {"exporter": ANOTHER_TENANT}}
    )
    arguments = ["--disable-hot-restart", "--drain-time-s", "1"]
    with Topology({"": hasty}, envoy=outermost_envoy, change=change, arguments=arguments) as running:
        running.program.wait_until(lambda: turns_in_two_seconds(running) > 100)
        remove()
        running.program.wait_until(lambda: turns_in_two_seconds(running) < 50)
