"""An invalid configuration is no outage: the former configuration stays in force, or requests are not traced."""

import copy
import json
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import topology
from conftest import lane
from istio import NODE, Mesh
from load import Load
from shared_envoys import SharedTopology, borrowed, unused_listener
from traffic import Client, new_context

WORKERS = 4
BAD = {"sampling": {"ratio": "all"}}
REASON = 'sampling.ratio: expected a number, but found "all"'
# Much longer than the main thread needs for an update, also while other programs run: Envoy counts the time from
# before it, and then cuts the connections.
DRAIN_SECONDS = 3
ISTIO_KIND = {"concurrency": WORKERS, "drain_seconds": DRAIN_SECONDS, "node": NODE}
ROOT_CONTEXTS = 'sidespan_build_info{version="0.1.0"}'
EXTENSION = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"


class Discovery:
    """The filters of the backend's listener by extension discovery, from files."""

    def __init__(self, folder: Path, names: Iterable[str], variables: dict | None):
        self._folder = folder
        self._names = list(names)
        self._variables = variables
        self._version = 0
        self.good: dict = {}

    def change(self, bootstrap: dict) -> None:
        """Leaves the listener of the backend, and makes Envoy discover its filters."""
        static = bootstrap["static_resources"]
        static["listeners"] = [it for it in static["listeners"] if it["name"] == "backend-inbound"]
        filters = topology.connection_manager(*static["listeners"])["http_filters"]
        (self._wasm,) = [filter.pop("typed_config") for filter in filters if filter["name"] == "sidespan"]
        self.good = json.loads(self._wasm["config"]["configuration"]["value"])
        if self._variables:
            self._wasm["config"]["vm_config"]["environment_variables"] = {"key_values": self._variables}
        others = [filter for filter in filters if filter["name"] != "sidespan"]
        filters[:] = [self._discovered(name) for name in self._names] + others

    def publish(self, **configurations: dict) -> None:
        """Gives each named filter this configuration."""
        for name, configuration in configurations.items():
            self._version += 1
            # A file each: Envoy wants one resource in an answer.
            resources = {"version_info": str(self._version), "resources": [self._filter(name, configuration)]}
            new = self._folder / "new"
            new.write_text(json.dumps(resources))
            new.rename(self._file(name))

    def without_filters(self, listener: dict) -> dict:
        """Returns the listener without the filters that are discovered."""
        listener = copy.deepcopy(listener)
        manager = topology.connection_manager(listener)
        manager["http_filters"] = [it for it in manager["http_filters"] if it["name"] not in self._names]
        return listener

    def _discovered(self, name: str) -> dict:
        found_at = {"path_config_source": {"path": str(self._file(name))}}
        return {"name": name, "config_discovery": {"config_source": found_at, "type_urls": [self._wasm["@type"]]}}

    def _filter(self, name: str, configuration: dict) -> dict:
        wasm = copy.deepcopy(self._wasm)
        # As Istio names it.
        wasm["config"]["name"] = f"shop.{name}"
        wasm["config"]["configuration"]["value"] = json.dumps(configuration)
        return {"@type": EXTENSION, "name": name, "typed_config": wasm}

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.json"


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

    def refusals(self) -> int:
        """Returns how many updates of filters Envoy has refused."""
        target = "/stats?format=json&usedonly&filter=^extension_config_discovery.*config_fail$"
        return sum(stat["value"] for stat in json.loads(topology.admin_answer(self.running.admin_port, target))["stats"])

    def wait_for_refusal_or_rejected(self) -> None:
        line = f"sidespan: configuration refused: {REASON}"
        gauge = "sidespan_configuration_rejected"
        self.running.program.wait_until(lambda: line in self.running.log() or self.running.stats().get(gauge, 0) > 0)

    def wait_for_drain(self) -> None:
        """Returns when no root context of the plugins is left."""
        self.running.wait_for_stats(lambda stats: stats[ROOT_CONTEXTS] == 0)

    def recorded(self) -> int:
        return self.running.stats().get("sidespan_spans_recorded_total", 0)

    def wait_for_spans(self) -> None:
        """Returns when requests are recorded, more than were answered and not counted before."""
        before = self.recorded()
        self.send_more(50)
        self.running.wait_for_stats(lambda stats: stats.get("sidespan_spans_recorded_total", 0) >= before + 40)


class ProxyOfFiles(Proxy):
    """Its listener and its filters come from files."""

    def __init__(self, running: SharedTopology, load: Load, discovery: Discovery):
        super().__init__(running, running.lane().backend_inbound, load, discovery.good)
        self.publish = discovery.publish
        self._discovery = discovery

    def remove(self) -> None:
        """Takes the filters out of the listener."""
        self.running.discover("lds", map(self._discovery.without_filters, self.running.listeners))

    def add(self) -> None:
        """Puts the filters back into the listener, which Envoy may refuse."""
        self.running.discover("lds", self.running.listeners)


class ProxyOfIstio(Proxy):
    """Its plugins are WasmPlugins."""

    def __init__(self, mesh: Mesh, load: Load, first: dict):
        super().__init__(mesh, mesh.inbound, load, {"exporter": mesh.exporter})
        self._mesh = mesh
        self._removed: dict = {}
        self._given = first

    def publish(self, **configurations: dict) -> None:
        """Gives each named plugin this configuration, which one that was removed has when it is added."""
        self._given |= configurations
        if not self._removed:
            self._mesh.publish(**configurations)

    def remove(self) -> None:
        self._removed = self._given
        self._mesh.remove(*self._removed)

    def add(self) -> None:
        self._removed = {}
        self._mesh.publish(**self._given)


@contextmanager
def proxy_of_files(envoy: Path, folder: Path, first: dict, variables: dict | None = None, **kind):
    discovery = Discovery(folder, first, variables)

    def change(bootstrap: dict) -> None:
        discovery.change(bootstrap)
        discovery.publish(**{name: config or discovery.good for name, config in first.items()})

    with SharedTopology({"": lane(1)}, envoy=envoy, change=change, **(kind or ISTIO_KIND)) as running:
        with load_on(running.lane().backend_inbound) as load:
            yield ProxyOfFiles(running, load, discovery)


@contextmanager
def proxy_of_istio(envoy: Path, folder: Path, first: dict):
    """A proxy of its own: a root context of a removed plugin was once still there after 30 seconds."""
    version = "1.31.0" if "1.40.0" in str(envoy) else "1.28.0"
    plugins = {name: config or {} for name, config in first.items()}
    # Longer than with shared Envoys: this one compiles the module again after it had no plugin.
    arguments = ("--drain-time-s", str(3 * DRAIN_SECONDS), "--drain-strategy", "immediate")
    with Mesh(envoy, version, plugins, folder, concurrency=WORKERS, arguments=arguments) as mesh:
        with load_on(mesh.inbound) as load:
            yield ProxyOfIstio(mesh, load, plugins)


@contextmanager
def load_on(port: int) -> Iterator[Load]:
    """Puts load on all workers of a listener, of which no request may fail."""
    with Load(port, connections=2 * WORKERS, pause_seconds=0.1) as load:
        yield load
        load.stop()
    assert load.statuses.keys() == {200}


@pytest.fixture(params=[proxy_of_files, proxy_of_istio], ids=["files", "istio"])
def proxy(request, outermost_envoy, tmp_path):
    """Makes a proxy whose plugins begin with these configurations; None is a good one."""
    make = request.param
    return lambda first: make(outermost_envoy, tmp_path, first)


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
        assert f"requests pass unchanged and are not traced: {REASON}" in log
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
            refusals = it.refusals()
            it.publish(sidespan=BAD)
            it.wait_for_refusal()
            # Envoy may remember the refusal, and then logs nothing of the filter.
            it.running.program.wait_until(lambda before=refusals: it.refusals() > before)
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
    with proxy_of_files(newest_envoy, tmp_path, {"sidespan": BAD}, bypass, concurrency=2) as it:
        it.wait_for_rejected(True)
        # Each worker has a root context, and the main thread.
        it.running.wait_for_stats(lambda stats: stats["sidespan_configuration_rejected"] == 2 + 1)
        it.send_more()


PLAIN_KIND: dict = {}
ENVOY_GATEWAY = {"vm_id": "envoyextensionpolicy/shop/tracing/wasm/0"}


def chosen(way: str) -> dict:
    return {"environment_variables": {"key_values": {"SIDESPAN_INVALID_CONFIGURATION": way}}}


@pytest.mark.parametrize(
    "kind, vm_config, is_taken",
    [
        (PLAIN_KIND, {}, False),
        (PLAIN_KIND, chosen("bypass"), True),
        (ISTIO_KIND, {}, True),
        (ISTIO_KIND, chosen("refuse"), False),
        (PLAIN_KIND, ENVOY_GATEWAY, True),
    ],
    ids=["static", "static, bypass", "Istio", "Istio, refuse", "Envoy Gateway"],
)
def test_node_and_variable_decide_whether_a_listener_is_refused(outermost_envoy, kind, vm_config, is_taken):
    listener = unused_listener("invalid", json.dumps(BAD))
    topology.wasm_configuration(listener)["vm_config"] |= vm_config
    with borrowed(outermost_envoy, **kind) as running:
        running.forget()
        assert running.discover("lds", [listener]) == is_taken
        running.program.wait_until(lambda: REASON in running.log())


@pytest.mark.parametrize("node, status", [({"id": "backend", "cluster": "backend"}, 1), (NODE, 0)], ids=["static", "Istio"])
def test_a_start_is_refused_as_a_listener_is(outermost_envoy, tmp_path, node, status):
    bootstrap = topology.load_bootstrap(topology.BOOTSTRAP)
    bootstrap["node"] = node
    bootstrap["static_resources"] = {"listeners": [unused_listener("invalid", json.dumps(BAD))]}
    file = tmp_path / "envoy.json"
    file.write_text(json.dumps(bootstrap))
    command = [outermost_envoy, "--mode", "validate", "-c", file, "--disable-hot-restart", "-l", "warning"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == status, result.stderr
    assert REASON in result.stderr
