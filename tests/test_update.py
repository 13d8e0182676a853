"""What becomes of spans when Envoy gets another configuration while it runs."""

import copy
import json
import urllib.error
import urllib.request

import topology
from topology import Program

TYPE = "type.googleapis.com/envoy.config.listener.v3.Listener"


def listener_update(listener: dict, version: str, interval_ms: int) -> str:
    """Returns a file of Envoy's listener discovery service with one listener."""
    listener = copy.deepcopy(listener)
    batch = {"interval_ms": interval_ms}
    exporter = {"otlp": {"cluster": "otel-collector"}, "batch": batch}
    wasm = topology.wasm_configuration(listener)
    wasm["configuration"]["value"] = json.dumps({"exporter": exporter})
    wasm["vm_config"]["code"]["local"]["filename"] = str(topology.MODULE)
    return json.dumps({"version_info": version, "resources": [{"@type": TYPE, **listener}]})


def stats(admin_port: int) -> dict[str, int]:
    answer = json.loads(topology.admin_answer(admin_port, "/stats?format=json&filter=spans_%5Brdeq%5D"))
    return {stat["name"].rpartition(".")[2]: stat["value"] for stat in answer["stats"] if "name" in stat}


def test_spans_that_a_replaced_configuration_leaves_are_counted_as_dropped(outermost_envoy, tmp_path):
    ports = topology.free_ports()
    admin_port, port = next(ports), next(ports)
    bootstrap = topology.load_bootstrap(topology.BOOTSTRAP)
    listener = bootstrap["static_resources"]["listeners"][0]
    listener["address"]["socket_address"]["port_value"] = port
    discovery, update = tmp_path / "listeners.json", tmp_path / "update.json"
    bootstrap["admin"]["address"]["socket_address"]["port_value"] = admin_port
    bootstrap["static_resources"]["listeners"] = []
    bootstrap["dynamic_resources"] = {"lds_config": {"path_config_source": {"path": str(discovery)}}}
    # With an hour between ticks, nothing is sent or published before the update.
    discovery.write_text(listener_update(listener, "1", 3_600_000))
    file = tmp_path / "envoy.json"
    file.write_text(json.dumps(bootstrap))
    command = [outermost_envoy, "-c", file, "--concurrency", "1", "--disable-hot-restart", "--drain-time-s", "1"]

    with Program(command, tmp_path / "envoy.log") as envoy:
        envoy.wait_until(lambda: topology.admin_answer(admin_port, "/ready") is not None)
        for _ in range(3):
            request = urllib.request.Request(f"http://127.0.0.1:{port}/a", headers={"connection": "close"})
            try:
                urllib.request.urlopen(request, timeout=10).close()
            except urllib.error.HTTPError as answered:
                assert answered.code == 503  # There is no service; the span is what counts.
        update.write_text(listener_update(listener, "2", 1_000))
        update.rename(discovery)
        envoy.wait_until(lambda: stats(admin_port).get("spans_recorded") == 3)
        assert stats(admin_port) == {
            "spans_recorded": 3,
            "spans_exported": 0,
            "spans_dropped": 3,
            "spans_queued": 0,
        }
