"""An invalid configuration is no outage: the former one stays in force, or requests are not traced."""

import copy
import json
import subprocess
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path

import pytest

import topology
from conftest import lane
from istio import NODE, Mesh
from load import Load
from topology import Topology
from traffic import Client, new_context

WORKERS = 4
PLAIN_NODE = {"id": "backend", "cluster": "backend"}
BAD = {"sampling": {"ratio": "all"}}
REASON = 'sampling.ratio: expected a number, but found "all"'
# Much longer than the main thread compiles the module, also while other programs run: Envoy counts the time
# from before it compiled, and then cuts the connections.
DRAIN = ["--drain-time-s", "10", "--drain-strategy", "immediate"]
_CONFIG = "type.googleapis.com/envoy.config"


class Discovery:
    """The filters of one listener by extension discovery, and the listener itself, from files."""

    def __init__(self, folder: Path, names: Iterable[str], variables: dict | None):
        self._folder = folder
        self._names = list(names)
        self._variables = variables
        self._version = 0
        self.good: dict = {}

    def change(self, bootstrap: dict) -> None:
        """Leaves the listener of the backend, and makes Envoy discover it and its filters."""
        static = bootstrap["static_resources"]
        (self._listener,) = [it for it in static["listeners"] if it["name"] == "backend-inbound"]
        static["listeners"] = []
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
        # As Istio names it.
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


class Proxy:
    """An Envoy of four workers under load, and the plugins that it has."""

    def __init__(self, running: topology.Running, port: int, load: Load, good: dict):
        self.running = running
        self.port = port
        self.good = good
        self._load = load

    def send_more(self, requests: int = 50) -> None:
        self._load.wait_for(requests)

    def wait_for_rejected(self, is_rejected: bool) -> None:
        """Returns when an invalid configuration is in force, or no longer is."""
        self.running.wait_for_stats(
            lambda stats: (stats.get("sidespan_configuration_rejected", 0) > 0) == is_rejected
        )

    def wait_for_refusal(self) -> None:
        line = f"sidespan: configuration refused: {REASON}"
        self.running.program.wait_until(lambda: line in self.running.log())

    def wait_for_refusal_or_rejected(self) -> None:
        line = f"sidespan: configuration refused: {REASON}"
        gauge = "sidespan_configuration_rejected"
        self.running.program.wait_until(lambda: line in self.running.log() or self.running.stats().get(gauge, 0) > 0)

    def wait_for_drain(self) -> None:
        """Returns when no root context of the plugins is left."""
        root_contexts = 'sidespan_build_info{version="0.1.0"}'
        self.running.wait_for_stats(lambda stats: stats.get(root_contexts, 0) == 0, timeout=30)

    def recorded(self) -> int:
        return self.running.stats().get("sidespan_spans_recorded_total", 0)

    def wait_for_spans(self) -> None:
        before = self.recorded()
        self.send_more()
        self.running.wait_for_stats(lambda stats: stats.get("sidespan_spans_recorded_total", 0) > before)


class ProxyOfFiles(Proxy):
    """Its listener and its filters come from files."""

    def __init__(self, running: topology.Running, load: Load, discovery: Discovery):
        super().__init__(running, running.lane().backend_inbound, load, discovery.good)
        self.publish, self.remove, self.add = discovery.publish, discovery.remove, discovery.add


class ProxyOfIstio(Proxy):
    """Its plugins are WasmPlugins."""

    def __init__(self, mesh: Mesh, load: Load):
        super().__init__(mesh, mesh.inbound, load, {"exporter": mesh.exporter})
        self._mesh = mesh
        self._removed: dict = {}
        self._given: dict = {}

    def publish(self, **configurations: dict) -> None:
        """Gives each named plugin this configuration, which one that was removed has when it is added."""
        self._given |= configurations
        if not self._removed:
            self._mesh.publish(**configurations)

    def remove(self) -> None:
        self._removed = self._given or {"sidespan": {}}
        self._mesh.remove(*self._removed)

    def add(self) -> None:
        self._removed = {}
        self._mesh.publish(**self._given)


@contextmanager
def proxy_of_files(envoy: Path, folder: Path, first: dict, node: dict = NODE, variables: dict | None = None):
    discovery = Discovery(folder, first, variables)

    def change(bootstrap: dict) -> None:
        discovery.change(bootstrap)
        discovery.publish(**{name: config or discovery.good for name, config in first.items()})

    arguments = ["--disable-hot-restart", *DRAIN]
    options = {"node": node, "concurrency": WORKERS, "change": change, "arguments": arguments}
    with Topology({"": lane(1)}, envoy=envoy, **options) as running:
        with Load(running.lane().backend_inbound, connections=8, pause_seconds=0.05) as load:
            yield ProxyOfFiles(running, load, discovery)
            load.stop()
        assert load.statuses.keys() == {200}


@contextmanager
def proxy_of_istio(envoy: Path, folder: Path, first: dict):
    version = "1.31.0" if "1.40.0" in str(envoy) else "1.28.0"
    plugins = {name: config or {} for name, config in first.items()}
    with Mesh(envoy, version, plugins, folder, concurrency=WORKERS, arguments=DRAIN) as mesh:
        with Load(mesh.inbound, connections=8, pause_seconds=0.05) as load:
            yield ProxyOfIstio(mesh, load)
            load.stop()
        assert load.statuses.keys() == {200}


@pytest.fixture(params=[proxy_of_files, proxy_of_istio], ids=["files", "istio"])
def proxy(request, outermost_envoy, tmp_path):
    """Makes a proxy whose plugins begin with these configurations; None is a good one."""
    return lambda first: request.param(outermost_envoy, tmp_path, first)


def test_new_proxy_takes_it_and_a_later_good_one_stays_in_force(proxy):
    """Envoy remembers that it took this configuration once, and does not ask again, unless the VM is
    another: Istio's updates change its environment, which newer Envoys tell VMs apart by.
    """
    with proxy({"sidespan": BAD}) as it:
        it.wait_for_rejected(True)
        with Client(it.running, "1.1") as client:
            traceparent = new_context().traceparent("01")
            answer = client.send(it.port, "/a", {"traceparent": traceparent})
            assert answer.calls[0].context() == {"traceparent": traceparent}
        assert it.recorded() == 0
        log = it.running.log()
        assert log.count("sidespan: configuration rejected") == 1
        assert f"no request is traced, and all go on as they came: {REASON}" in log
        it.publish(sidespan=it.good)
        it.wait_for_rejected(False)
        it.wait_for_spans()
        it.publish(sidespan=BAD)
        it.wait_for_refusal_or_rejected()
        it.wait_for_spans()
        it.publish(sidespan=it.good | {"service_name": "again"})
        it.wait_for_rejected(False)
        it.wait_for_spans()


def test_update_is_refused_and_the_good_one_stays(proxy):
    with proxy({"sidespan": None}) as it:
        it.publish(sidespan=it.good)
        it.wait_for_spans()
        for again in range(2):
            it.publish(sidespan=BAD)
            it.wait_for_refusal()
            it.wait_for_spans()
            assert it.running.stats()["sidespan_configuration_rejected"] == 0
            it.publish(sidespan=it.good | {"service_name": f"again-{again}"})
            it.wait_for_spans()


def test_one_of_two_plugins_is_invalid(proxy):
    with proxy({"one": BAD, "sidespan": None}) as it:
        it.wait_for_rejected(True)
        it.publish(sidespan=it.good)
        it.wait_for_spans()
        it.publish(one={})
        it.wait_for_rejected(False)
        it.publish(sidespan=BAD)
        it.wait_for_refusal()
        it.wait_for_spans()


@pytest.mark.parametrize("proxy", [proxy_of_istio], ids=["istio"], indirect=True)
@pytest.mark.parametrize("after", ["good", "bad"])
def test_a_plugin_that_is_removed_and_added_again(proxy, after):
    with proxy({"sidespan": None}) as it:
        it.publish(sidespan=it.good)
        it.wait_for_spans()
        it.remove()
        it.wait_for_drain()
        it.publish(sidespan=it.good if after == "good" else BAD)
        it.add()
        it.wait_for_rejected(after == "bad")
        it.publish(sidespan=it.good)
        it.wait_for_rejected(False)
        it.wait_for_spans()


@pytest.mark.parametrize("after", ["good", "bad"])
def test_a_plugin_that_is_removed_and_added_again_at_once(proxy, after):
    """Envoy remembers a refusal while any filter of the module is left, one that drains included. It then
    refuses the listener as well, and keeps the one without the filter.
    """
    with proxy({"sidespan": None}) as it:
        it.publish(sidespan=it.good)
        it.wait_for_spans()
        it.publish(sidespan=BAD)
        it.wait_for_refusal()
        it.remove()
        it.publish(sidespan=it.good if after == "good" else BAD)
        it.add()
        it.send_more(300)


def test_the_variable_of_the_vm_chooses(newest_envoy, tmp_path):
    """Without it, a proxy that neither Istio nor Envoy Gateway configures refuses."""
    bypass = {"SIDESPAN_INVALID_CONFIGURATION": "bypass"}
    with proxy_of_files(newest_envoy, tmp_path, {"sidespan": BAD}, PLAIN_NODE, bypass) as it:
        it.wait_for_rejected(True)
        # Each worker has a root context, and the main thread.
        assert it.running.stats()["sidespan_configuration_rejected"] == WORKERS + 1
        it.send_more()


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
        (NODE, {}, 0),
        (NODE, {"environment_variables": {"key_values": {"SIDESPAN_INVALID_CONFIGURATION": "refuse"}}}, 1),
        (PLAIN_NODE, {"vm_id": "envoyextensionpolicy/shop/tracing/wasm/0"}, 0),
    ],
    ids=["static", "static, bypass", "Istio", "Istio, refuse", "Envoy Gateway"],
)
def test_node_and_variable_decide_whether_a_start_is_refused(outermost_envoy, tmp_path, node, vm_config, status):
    result = validate(outermost_envoy, tmp_path, node, **vm_config)
    assert result.returncode == status, result.stderr
    assert REASON in result.stderr
