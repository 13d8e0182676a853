"""Envoys that tests use one after the other: to start one costs two seconds of CPU, a topology in it a tenth.

    with SharedTopology(lanes, envoy=newest_envoy) as running:
        ...

Most of the two seconds go to the compilation of the module, which V8 keeps while any VM runs it, whatever its
`vm_id`. So each Envoy has a listener that keeps it. The listeners and clusters of a topology come by discovery, with
VMs of their own. They are gone when the topology ends: their root contexts too, or the test fails.

A test whose bootstrap or command line differs starts a Topology, which is an Envoy of its own.
"""

import itertools
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import topology
from topology import Program, Running, Topology

# By the discovery service: the resources' type, and what has the service's statistics.
_TYPES = {
    "lds": "type.googleapis.com/envoy.config.listener.v3.Listener",
    "cds": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
}
_MANAGERS = {"lds": "listener_manager", "cds": "cluster_manager"}
_ROOT_CONTEXTS = 'sidespan_build_info{version="0.1.0"}'

_processes = ExitStack()
_idle: list["SharedEnvoy"] = []


class SharedTopology(Topology):
    """A topology in an Envoy that other tests used before; its statistics and its log begin with it.

    `discover` replaces all its `listeners` (`lds`) or `clusters` (`cds`). Listeners that are replaced serve their
    connections for `drain_seconds`. Lines of the filter and of its host are logged from `wasm_level` up.
    """

    def __init__(
        self,
        lanes: dict[str, topology.Lane],
        *,
        envoy: Path,
        concurrency: int = 1,
        node: dict | None = None,
        change: Callable[[dict], None] = lambda bootstrap: None,
        drain_seconds: int = 0,
        wasm_level: str = "warning",
    ):
        """`change` edits the listeners and clusters of the bootstrap at the end."""
        super().__init__(lanes, envoy=envoy, concurrency=concurrency, node=node, change=change)
        self._drain_seconds = drain_seconds
        self._wasm_level = wasm_level

    def _run(self, bootstrap: dict, starting: ExitStack) -> None:
        shared = starting.enter_context(borrowed(self._envoy, self._concurrency, self._drain_seconds, self._node))
        self.admin_port, self.program, self.discover = shared.admin_port, shared.program, shared.discover
        self.listeners, self.clusters = (bootstrap["static_resources"][kind] for kind in ("listeners", "clusters"))
        self.forget()
        starting.enter_context(shared.logging(self._wasm_level))
        shared.publish(self.listeners, self.clusters)


@contextmanager
def borrowed(envoy: Path, concurrency: int = 1, drain_seconds: int = 0, node: dict | None = None):
    """Lends an Envoy of this kind that nobody uses. One whose test failed is not lent again."""
    kind = envoy, concurrency, drain_seconds, node
    found = next((it for it in _idle if it.kind == kind), None)
    if found is None:
        found = _processes.enter_context(SharedEnvoy(*kind))
    else:
        _idle.remove(found)
    yield found
    found.withdraw()
    _idle.append(found)


def stop_all() -> None:
    """Stops all Envoys that were lent."""
    _idle.clear()
    _processes.close()


class SharedEnvoy(Running):
    """A running Envoy that takes listeners and clusters from files; a context manager that stops it."""

    def __init__(self, envoy: Path, concurrency: int, drain_seconds: int, node: dict | None):
        self.kind = envoy, concurrency, drain_seconds, node
        self._concurrency = concurrency
        self._versions = itertools.count(1)
        self._borrower = 1

    def __enter__(self):
        envoy, concurrency, drain_seconds, node = self.kind
        with ExitStack() as starting:
            self._folder = Path(starting.enter_context(tempfile.TemporaryDirectory(prefix="sidespan-")))
            file = self._folder / "envoy.json"
            file.write_text(json.dumps(self._bootstrap() | ({"node": node} if node else {})))
            self._write("lds", [])
            self._write("cds", [])
            drain = ["--drain-time-s", str(drain_seconds), "--drain-strategy", "immediate"]
            command = [envoy, "-c", file, "--concurrency", str(concurrency), "--log-level", "warning", *drain]
            # By default, Envoy writes access logs every ten seconds.
            command += ["--file-flush-interval-msec", "50"]
            self.program = starting.enter_context(Program([*command, "--disable-hot-restart"], self._folder / "envoy.log"))
            self.program.wait_until(lambda: topology.admin_answer(self.admin_port, "/ready") is not None)
            # The last that root contexts count when they begin.
            configured = "sidespan_configured_total"
            self.program.wait_until(lambda: self.stats().get(configured) == concurrency + 1)
            self._resources = starting.pop_all()
        return self

    def __exit__(self, *_):
        self._resources.close()

    def publish(self, listeners: list[dict], clusters: list[dict]) -> None:
        """Returns when all workers take connections. Envoy may refuse none."""
        created = self._count("listener_manager.listener_create_success") + len(listeners) * self._concurrency
        if not (self.discover("cds", clusters) and self.discover("lds", listeners)):
            raise topology.StartError(self.log()[-10_000:])
        self.program.wait_until(lambda: self._count("listener_manager.listener_create_success") == created)

    def discover(self, service: str, resources: list[dict]) -> bool:
        """Publishes all listeners (`lds`) or clusters (`cds`), and tells whether Envoy took them all."""
        counters = [f"{_MANAGERS[service]}.{service}.update_{result}" for result in ("success", "rejected")]
        before = [self._count(counter) for counter in counters]
        self._write(service, resources)
        self.program.wait_until(lambda: [self._count(counter) for counter in counters] != before)
        return self._count(counters[0]) > before[0]

    @contextmanager
    def logging(self, wasm_level: str) -> Iterator[None]:
        """Logs of the filter and its host what is of this level or above."""
        topology.admin_answer(self.admin_port, f"/logging?wasm={wasm_level}", "POST")
        yield
        topology.admin_answer(self.admin_port, "/logging?wasm=warning", "POST")

    def withdraw(self) -> None:
        """Returns when nothing is left of what was published."""
        self.discover("lds", [])
        self.program.wait_until(self._is_unused)
        self.discover("cds", [])
        self.program.wait_until(lambda: self._count("cluster_manager.active_clusters") == 0)
        self._borrower += 1

    def _is_unused(self) -> bool:
        # Those of the listener that keeps the module: one for each worker, and the main thread's.
        is_drained = self._count("listener_manager.total_listeners_draining") == 0
        return is_drained and topology.filter_stats(self.admin_port, used_only=True).get(_ROOT_CONTEXTS) == self._concurrency + 1

    def _count(self, name: str) -> int:
        target = f"/stats?format=json&usedonly&filter=^{name}$"
        return sum(stat["value"] for stat in json.loads(topology.admin_answer(self.admin_port, target))["stats"])

    def _write(self, service: str, resources: list[dict]) -> None:
        typed = [{"@type": _TYPES[service]} | resource for resource in resources]
        text = json.dumps({"version_info": str(next(self._versions)), "resources": typed})
        new = self._folder / "new"
        new.write_text(re.sub(r'"vm_id": "([^"]*)"', rf'"vm_id": "\1-{self._borrower}"', text))
        new.rename(self._folder / service)

    def _bootstrap(self) -> dict:
        bootstrap = topology.load_bootstrap(topology.BOOTSTRAP)
        self.admin_port = next(topology.free_ports())
        bootstrap["admin"]["address"]["socket_address"]["port_value"] = self.admin_port
        bootstrap["static_resources"] = {"listeners": [keeper()]}
        # Statistics say how often a worker wakes up, soon after it did.
        bootstrap |= {"enable_dispatcher_stats": True, "stats_flush_interval": "0.5s"}
        bootstrap["dynamic_resources"] = {
            f"{service}_config": {"path_config_source": {"path": str(self._folder / service)}} for service in _TYPES
        }
        return bootstrap


def keeper() -> dict:
    """Returns a listener that is not used, but keeps the compiled module."""
    return unused_listener("keeper", "{}")


def unused_listener(name: str, configuration: str | None) -> dict:
    """Returns a listener with a filter in a VM of its own, without routes."""
    (listener, *_) = topology.load_bootstrap(topology.BOOTSTRAP)["static_resources"]["listeners"]
    listener["name"] = name
    listener["address"]["socket_address"]["port_value"] = next(topology.free_ports())
    topology.connection_manager(listener)["route_config"] = {}
    wasm = topology.wasm_configuration(listener)
    wasm["vm_config"]["vm_id"] = name
    wasm["vm_config"]["code"]["local"]["filename"] = str(topology.MODULE)
    if configuration is None:
        del wasm["configuration"]
    else:
        wasm["configuration"]["value"] = configuration
    return listener
