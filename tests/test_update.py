"""What becomes of spans when Envoy loses a configuration while it runs."""

import json

from conftest import lane
from topology import Topology, books
from traffic import Client

TYPE = "type.googleapis.com/envoy.config.listener.v3.Listener"


def listener_update(listeners: list[dict], version: str) -> str:
    """Returns a file of Envoy's listener discovery service."""
    return json.dumps({"version_info": version, "resources": [{"@type": TYPE, **it} for it in listeners]})


def test_spans_that_a_removed_configuration_leaves_are_counted_as_dropped(outermost_envoy, tmp_path):
    discovery, update = tmp_path / "listeners.json", tmp_path / "update.json"

    def discover(bootstrap: dict) -> None:
        listeners = bootstrap["static_resources"].pop("listeners")
        discovery.write_text(listener_update(listeners, "1"))
        # Envoy forgets the statistics of filters once there is none: one stays, which exports nothing.
        kept = [listener for listener in listeners if listener["name"] == "frontend-inbound"]
        update.write_text(listener_update(kept, "2"))
        bootstrap["dynamic_resources"] = {"lds_config": {"path_config_source": {"path": str(discovery)}}}

    # With an hour between ticks, nothing is sent or published before the update.
    hourly = lane(
        1, batch={"interval_ms": 3_600_000}, listeners={"frontend-inbound": {"exporter": None}}
    )
    arguments = ["--disable-hot-restart", "--drain-time-s", "1"]
    with Topology({"": hourly}, envoy=outermost_envoy, change=discover, arguments=arguments) as running:
        with Client(running, "1.1") as client:
            for _ in range(3):
                client.send(client.lane("").backend_inbound, "/a")
        update.rename(discovery)
        stats = running.wait_for_stats(lambda stats: stats["sidespan_spans_recorded_total"] == 3)
        log = running.log()
    assert books(stats) == {"recorded": 3, "exported": 0, "queued": 0, "configuration_removed": 3}
    assert 'were dropped in this worker: 3 configuration_removed' in log
