"""A configuration that is not valid is no outage: the former one stays, or requests go on untraced."""

import copy
import json
import subprocess
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path

import pytest

import topology
from conftest import lane
from load import Load
from topology import Topology
from traffic import Client, new_context

WORKERS = 4
ISTIO_NODE = {"id": "sidecar~10.0.0.1~backend.shop~shop.svc.cluster.local", "cluster": "backend.shop"}
PLAIN_NODE = {"id": "backend", "cluster": "backend"}
BAD = {"sampling": {"ratio": "all"}}
REASON = 'sampling.ratio: expected a number, but found "all"'
DRAIN = ["--drain-time-s", "1", "--drain-strategy", "immediate"]
_CONFIG = "type.googleapis.com/envoy.config"


class Discovery:
    """The filters of one listener by extension discovery, and the listener itself, from files."""

    def __init__(self, folder: Path, names: Iterable[str] = ("sidespan",), variables: dict | None = None):
        self._folder = folder
        self._names = list(names)
        self._variables = variables
        self._version = 0
        self.good: dict = {}

    def change(self, bootstrap: dict) -> None:
        """Makes Envoy discover the listener of the backend, and its filters."""
        static = bootstrap["static_resources"]
        (self._listener,) = [it for it in static["listeners"] if it["name"] == "backend-inbound"]
        static["listeners"].remove(self._listener)
        filters = topology.connection_manager(self._listener)["http_filters"]
        (self._wasm,) = [filter.pop("typed_config") for filter in filters if filter["name"] == "sidespan"]
        self.good = json.loads(self._wasm["config"]["configuration"]["value"])
        if self._variables:
            self._wasm["config"]["vm_config"]["environment_variables"] = {"key_values": self._variables}
        others = [filter for filter in filters if filter["name"] != "sidespan"]
        filters[:] = [self._discovered(name) for name in self._names] + others
        bootstrap["dynamic_resources"] = {
            "lds_config": {"path_config_source": {"path": str(self._folder / "listeners.json")}}
        }
        self._write("listeners.json", [self._listener_with(filters)])

    def publish(self, **configurations: dict) -> None:
        """Gives each named filter this configuration."""
        for name, configuration in configurations.items():
            self._write(f"{name}.json", [self._filter(name, configuration)])

    def remove(self) -> None:
        """Takes the filters out of the listener."""
        filters = topology.connection_manager(self._listener)["http_filters"]
        others = [filter for filter in filters if filter["name"] not in self._names]
        self._write("listeners.json", [self._listener_with(others)])

    def add(self) -> None:
        """Puts the filters back into the listener."""
        self._write("listeners.json", [self._listener])

    def _discovered(self, name: str) -> dict:
        # A file each: Envoy wants one resource in an answer.
        found_at = {"path_config_source": {"path": str(self._folder / f"{name}.json")}}
        return {"name": name, "config_discovery": {"config_source": found_at, "type_urls": [self._wasm["@type"]]}}

    def _listener_with(self, filters: list[dict]) -> dict:
        listener = copy.deepcopy(self._listener)
        topology.connection_manager(listener)["http_filters"] = filters
        return listener | {"@type": f"{_CONFIG}.listener.v3.Listener"}

    def _filter(self, name: str, configuration: dict) -> dict:
        wasm = copy.deepcopy(self._wasm)
        # As Istio names it; the other listeners' filters are another plugin.
        wasm["config"]["name"] = f"shop.{name}"
        wasm["config"]["configuration"]["value"] = json.dumps(configuration)
        return {"@type": f"{_CONFIG}.core.v3.TypedExtensionConfig", "name": name, "typed_config": wasm}

    def _write(self, name: str, resources: list[dict]) -> None:
        self._version += 1
        for resource in resources:
            resource.setdefault("@type", f"{_CONFIG}.listener.v3.Listener")
        new = self._folder / f"new-{name}"
        new.write_text(json.dumps({"version_info": str(self._version), "resources": resources}))
        new.rename(self._folder / name)


@contextmanager
def proxy(envoy: Path, discovery: Discovery, first: dict, node: dict = ISTIO_NODE):
    """An Envoy of four workers under load, whose filters begin with these configurations."""

    def change(bootstrap: dict) -> None:
        discovery.change(bootstrap)
        discovery.publish(**{name: config or discovery.good for name, config in first.items()})

    arguments = ["--disable-hot-restart", *DRAIN]
    options = {"node": node, "concurrency": WORKERS, "change": change, "arguments": arguments}
    with Topology({"": lane(1)}, envoy=envoy, **options) as running:
        with Load(running.lane().backend_inbound, connections=8) as load:
            yield running, load
            load.stop()
        assert load.statuses.keys() == {200}


def rejected(running: Topology, count: int) -> None:
    """Waits until so many root contexts have a configuration that is not valid."""
    running.wait_for_stats(lambda stats: stats.get("sidespan_configuration_rejected") == count)


def recorded(running: Topology) -> int:
    return running.stats().get("sidespan_spans_recorded_total", 0)


def spans_are_recorded(running: Topology, load: Load) -> None:
    before = recorded(running)
    load.wait_for(50)
    running.wait_for_stats(lambda stats: stats["sidespan_spans_recorded_total"] > before)


def test_a_new_proxy_takes_it_and_does_nothing(outermost_envoy, tmp_path):
    discovery = Discovery(tmp_path)
    with proxy(outermost_envoy, discovery, {"sidespan": BAD}) as (running, load):
        # Each worker has a root context, and the main thread.
        rejected(running, WORKERS + 1)
        with Client(running, "1.1") as client:
            context = new_context()
            traceparent = context.traceparent("01")
            answer = client.send(running.lane().backend_inbound, "/a", {"traceparent": traceparent})
            assert answer.calls[0].context() == {"traceparent": traceparent}
        assert recorded(running) == 0
        log = running.log()
        assert log.count("sidespan: configuration rejected") == 1
        assert f"no request is traced, and all go on as they came: {REASON}" in log
        discovery.publish(sidespan=discovery.good)
        rejected(running, 0)
        spans_are_recorded(running, load)


def test_an_update_is_refused_and_the_good_one_stays(outermost_envoy, tmp_path):
    discovery = Discovery(tmp_path)
    with proxy(outermost_envoy, discovery, {"sidespan": None}) as (running, load):
        spans_are_recorded(running, load)
        for _ in range(2):
            discovery.publish(sidespan=BAD)
            running.program.wait_until(lambda: f"sidespan: configuration refused: {REASON}" in running.log())
            spans_are_recorded(running, load)
            assert running.stats()["sidespan_configuration_rejected"] == 0
            discovery.publish(sidespan=discovery.good | {"service_name": "again"})
            spans_are_recorded(running, load)


def test_one_that_was_taken_and_comes_again_leaves_the_good_one_in_force(outermost_envoy, tmp_path):
    """Envoy remembers that it took this configuration once, and does not ask again."""
    discovery = Discovery(tmp_path)
    with proxy(outermost_envoy, discovery, {"sidespan": BAD}) as (running, load):
        rejected(running, WORKERS + 1)
        discovery.publish(sidespan=discovery.good)
        rejected(running, 0)
        spans_are_recorded(running, load)
        discovery.publish(sidespan=BAD)
        rejected(running, WORKERS + 1)
        spans_are_recorded(running, load)
        discovery.publish(sidespan=discovery.good)
        rejected(running, 0)
        spans_are_recorded(running, load)


def test_one_of_two_filters_is_invalid(outermost_envoy, tmp_path):
    discovery = Discovery(tmp_path, ["one", "sidespan"])
    with proxy(outermost_envoy, discovery, {"one": BAD, "sidespan": None}) as (running, load):
        rejected(running, WORKERS + 1)
        spans_are_recorded(running, load)
        discovery.publish(one={}, sidespan=BAD)
        rejected(running, 0)
        spans_are_recorded(running, load)


@pytest.mark.parametrize("after", ["good", "bad"])
def test_a_filter_that_is_removed_and_added_again(outermost_envoy, tmp_path, after):
    """Envoy remembers a refusal while any filter of the module is left, one that drains included. It then
    refuses the listener as well, and keeps the one without the filter.
    """
    discovery = Discovery(tmp_path)
    with proxy(outermost_envoy, discovery, {"sidespan": None}) as (running, load):
        spans_are_recorded(running, load)
        discovery.publish(sidespan=BAD)
        running.program.wait_until(lambda: "configuration refused" in running.log())
        discovery.remove()
        load.wait_for(500)
        discovery.publish(sidespan=discovery.good if after == "good" else BAD)
        discovery.add()
        load.wait_for(500)
        discovery.publish(sidespan=discovery.good)
        discovery.add()
        rejected(running, 0)
        spans_are_recorded(running, load)


def test_the_variable_of_the_vm_chooses(newest_envoy, tmp_path):
    """Without it, a proxy that neither Istio nor Envoy Gateway configures refuses."""
    discovery = Discovery(tmp_path, variables={"SIDESPAN_INVALID_CONFIGURATION": "bypass"})
    with proxy(newest_envoy, discovery, {"sidespan": BAD}, node=PLAIN_NODE) as (running, load):
        rejected(running, WORKERS + 1)
        load.wait_for(50)


def validate(envoy: Path, folder: Path, node: dict, **vm_config) -> subprocess.CompletedProcess:
    """Validates the shipped bootstrap for this node, with one configuration that is not valid."""
    bootstrap = topology.load_bootstrap(topology.BOOTSTRAP)
    bootstrap["node"] = node
    for listener in bootstrap["static_resources"]["listeners"]:
        config = topology.wasm_configuration(listener)
        config["vm_config"]["code"]["local"]["filename"] = str(topology.MODULE)
        config["vm_config"] |= vm_config
    config["configuration"]["value"] = json.dumps(BAD)
    file = folder / "envoy.json"
    file.write_text(json.dumps(bootstrap))
    command = [envoy, "--mode", "validate", "-c", file, "--disable-hot-restart", "-l", "warning"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "node, vm_config, status",
    [
        (PLAIN_NODE, {}, 1),
        (PLAIN_NODE, {"environment_variables": {"key_values": {"SIDESPAN_INVALID_CONFIGURATION": "bypass"}}}, 0),
        (ISTIO_NODE, {}, 0),
        (ISTIO_NODE, {"environment_variables": {"key_values": {"SIDESPAN_INVALID_CONFIGURATION": "refuse"}}}, 1),
        (PLAIN_NODE, {"vm_id": "envoyextensionpolicy/shop/tracing/wasm/0"}, 0),
    ],
    ids=["static", "static, bypass", "Istio", "Istio, refuse", "Envoy Gateway"],
)
def test_who_refuses_at_the_start(outermost_envoy, tmp_path, node, vm_config, status):
    result = validate(outermost_envoy, tmp_path, node, **vm_config)
    assert result.returncode == status, result.stderr
    assert REASON in result.stderr
