"""Runs the bootstrap of envoy.yaml on free ports, with its services and an OTLP receiver.

    with Topology(envoy=tools.envoy()) as topology:
        port = topology.lane().frontend_inbound

The bootstrap can be laid out several times in one Envoy: each copy, a lane, has listeners,
clusters, services and a filter configuration of its own.
"""

import copy
import functools
import http.client
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from receiver import Receiver
from service import Service

# Below the range from which the kernel gives ports to outgoing connections, so that none is taken
# between a check and a program's bind. Test processes that run side by side have a part each, with
# the programs that they start.
PORTS = range(*map(int, os.environ.get("SIDESPAN_PORTS", "20000:32000:1").split(":")))
BOOTSTRAP = Path(__file__).with_name("envoy.yaml")
MODULE = Path(__file__).parents[1] / "target" / "sidespan.wasm"

_LABEL = re.compile(r"([a-z]+)=\.=(.*?);\.;")
_POLL_SECONDS = 0.02
_START_SECONDS = 60
_STOP_SECONDS = 30
_LOG_TAIL_LINES = 30
# `setpriv` is part of util-linux. It asks the kernel for a signal when the parent ends; the shell
# looks whether the parent ended before. Both become the program, under the same process id.
_END_WITH_PARENT = ["setpriv", "--pdeathsig", "TERM", "--", "sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"']


@dataclass(frozen=True)
class Lane:
    """The settings of one copy of the bootstrap.

    `filter` replaces keys of every listener's filter configuration, `listeners` those of the
    listener that it names; None takes a key away. `frontend` is what the frontend's sidecar has
    upstream: its "service", a port that "refused", "none" for no endpoint at all, or the port of
    an application that is started beside the topology. Spans go to `collector_port`, by default
    the topology's own receiver, through a cluster that may be called `collector_cluster`. The filters
    run `module`, by default MODULE. `change` edits the lane's own copy of the bootstrap's listeners and clusters.
    """

    filter: dict = field(default_factory=dict)
    listeners: dict[str, dict] = field(default_factory=dict)
    frontend: str | int = "service"
    collector_port: int | None = None
    collector_cluster: str | None = None
    module: Path | None = None
    change: Callable[[dict], None] = lambda resources: None


@dataclass(frozen=True)
class RunningLane:
    """The ports of one lane."""

    frontend_inbound: int
    frontend_outbound: int
    backend_inbound: int


class StartError(Exception):
    """A program did not become ready; the message has the end of its log."""


def ending_with(parent: int, command: list[str | Path]) -> list[str | Path]:
    """Returns the command in a form that runs no longer than its parent, whose process id is given.

    Where `setpriv` is missing, it is the command itself.
    """
    return [*_END_WITH_PARENT, str(parent), *command] if shutil.which("setpriv") else command


class Program:
    """A started program whose output goes to a file; a context manager that stops it.

    On Linux it ends with the process that started it too, however that ends.
    """

    def __init__(self, command: list[str | Path], log: Path, env: dict[str, str] | None = None):
        self.log = log
        self._command = command
        self._env = env

    def __enter__(self):
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                ending_with(os.getpid(), self._command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._env,
                # Ctrl-C in the terminal goes to this process, which stops the program in order.
                start_new_session=True,
            )
        return self

    def __exit__(self, *_):
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def cpu_seconds(self) -> float:
        """Returns the time on a CPU that all its threads had until now (Linux)."""
        tasks = Path(f"/proc/{self._process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Returns when the program is ready; raises with the end of its log if it ends or takes too long."""
        deadline = time.monotonic() + _START_SECONDS
        while not ready():
            if (status := self._process.poll()) is not None:
                raise StartError(f"{self._command[0]} ended with status {status}:\n{self._log_tail()}")
            if time.monotonic() > deadline:
                raise StartError(
                    f"{self._command[0]} is not ready after {_START_SECONDS} s:\n{self._log_tail()}"
                )
            time.sleep(_POLL_SECONDS)

    def wait_for_end(self) -> None:
        """Returns when the program ended by itself."""
        self._process.wait(_START_SECONDS)

    def _log_tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:])


class Running:
    """A running Envoy, by its `admin_port` and its `program`."""

    admin_port: int
    program: Program
    _counted_before: dict[str, int] = {}
    _logged_before = 0

    def forget(self) -> None:
        """Makes `stats` and `log` begin now: they leave out what was counted or logged before."""
        self._counted_before = {}
        self._counted_before = self.wait_for_stats(lambda _: True)
        self._logged_before = len(self.program.log.read_text(errors="replace"))

    def stats(self, used_only: bool = False) -> dict[str, int]:
        """Returns the filter's counters and gauges, each named as Prometheus shows it.

        With `used_only`, returns only those that ever changed, for which Envoy needs a fifth of the time.
        """
        found = filter_stats(self.admin_port, used_only)
        return {name: value - self._counted_before.get(name, 0) for name, value in found.items()}

    def wait_for_stats(self, wanted: Callable[[dict[str, int]], bool], timeout: float = 30) -> dict[str, int]:
        """Waits until the counts of spans balance and `wanted` is true; the filter publishes them on its tick.

        The metrics are read once more after they were as wanted: the first read may have read a metric before
        the worker updated it. A worker updates the recorded spans last, so that the second read has all updates
        of a tick that changed them.
        """
        deadline = time.monotonic() + timeout
        stats = self.stats()
        was_found = False
        while not (is_found := is_balanced(stats) and wanted(stats)) or not was_found:
            if not is_found and time.monotonic() > deadline:
                balance = "" if is_balanced(stats) else ", whose spans do not balance"
                raise TimeoutError(f"after {timeout} s the metrics are still {stats}{balance}")
            if not is_found:
                time.sleep(_POLL_SECONDS)
            was_found = is_found
            stats = dict.fromkeys(stats, 0) | self.stats(used_only=True)
        return stats

    def log(self) -> str:
        return self.program.log.read_text(errors="replace")[self._logged_before :]


class Topology(Running):
    """A running Envoy with its services and its receiver; a context manager that stops them."""

    def __init__(
        self,
        lanes: dict[str, Lane] | None = None,
        *,
        envoy: Path,
        node: dict | None = None,
        concurrency: int = 1,
        change: Callable[[dict], None] = lambda bootstrap: None,
        arguments: Iterable[str] = ("--disable-hot-restart",),
    ):
        """`change` edits the whole bootstrap at the end; `arguments` are further ones for Envoy."""
        self._lanes = lanes or {"": Lane()}
        self._envoy = envoy
        self._node = node
        self._concurrency = concurrency
        self._change = change
        # Without hot restart there is no shared memory, and any number of Envoys run side by side.
        self._arguments = arguments
        self._running: dict[str, RunningLane] = {}
        self._resources = ExitStack()

    def __enter__(self):
        with ExitStack() as starting:
            self.receiver = starting.enter_context(Receiver())
            bootstrap = self._lay_out(starting)
            self._change(bootstrap)
            self._run(bootstrap, starting)
            self._resources = starting.pop_all()
        return self

    def _run(self, bootstrap: dict, starting: ExitStack) -> None:
        """Starts an Envoy with this bootstrap, and returns when it is ready."""
        folder = Path(starting.enter_context(tempfile.TemporaryDirectory(prefix="sidespan-")))
        file = folder / "envoy.json"
        file.write_text(json.dumps(bootstrap, indent=1))
        self.admin_port = bootstrap["admin"]["address"]["socket_address"]["port_value"]
        command = [self._envoy, "-c", file, "--concurrency", str(self._concurrency), "--log-level", "warning"]
        self.program = starting.enter_context(Program([*command, *self._arguments], folder / "envoy.log"))
        self.program.wait_until(lambda: admin_answer(self.admin_port, "/ready") is not None)

    def __exit__(self, *_):
        self._resources.close()

    def lane(self, name: str = "") -> RunningLane:
        return self._running[name]

    def _lay_out(self, starting: ExitStack) -> dict:
        template = load_bootstrap(BOOTSTRAP)
        ports = free_ports()
        bootstrap = copy.deepcopy(template)
        bootstrap["admin"]["address"]["socket_address"]["port_value"] = next(ports)
        bootstrap["node"] = self._node or template["node"]
        bootstrap["static_resources"] = {"listeners": [], "clusters": []}
        for name, lane in self._lanes.items():
            resources = self._lane_resources(template["static_resources"], name, lane, ports, starting)
            bootstrap["static_resources"]["listeners"] += resources["listeners"]
            bootstrap["static_resources"]["clusters"] += resources["clusters"]
        return bootstrap

    def _lane_resources(
        self, template: dict, name: str, lane: Lane, ports: Iterator[int], starting: ExitStack
    ) -> dict:
        resources = copy.deepcopy(template)
        lane.change(resources)
        running = RunningLane(*(next(ports) for _ in range(3)))
        self._running[name] = running
        backend = starting.enter_context(Service("backend"))
        frontend = starting.enter_context(
            Service("frontend", next_address=f"127.0.0.1:{running.frontend_outbound}", authority="backend")
        )
        listening = {
            "frontend-inbound": running.frontend_inbound,
            "frontend-outbound": running.frontend_outbound,
            "backend-inbound": running.backend_inbound,
        }
        endpoints = {
            "frontend-service": {"service": frontend.port, "refused": next(ports), "none": None}.get(
                lane.frontend, lane.frontend
            ),
            "backend-inbound": running.backend_inbound,
            "backend-service": backend.port,
            "otel-collector": lane.collector_port or self.receiver.port,
        }
        suffix = name and f".{name}"
        cluster_names = {cluster["name"]: cluster["name"] + suffix for cluster in resources["clusters"]}
        if lane.collector_cluster is not None:
            cluster_names["otel-collector"] = lane.collector_cluster
        for listener in resources["listeners"]:
            listener["address"]["socket_address"]["port_value"] = listening[listener["name"]]
            wasm = wasm_configuration(listener)
            wasm["vm_config"]["code"]["local"]["filename"] = str(lane.module or MODULE)
            shipped = json.loads(wasm["configuration"]["value"])
            changed = shipped | lane.filter | lane.listeners.get(listener["name"], {})
            given = {key: value for key, value in changed.items() if value is not None}
            wasm["configuration"]["value"] = json.dumps(_with_cluster_names(given, cluster_names))
            listener["name"] += suffix
        for cluster in resources["clusters"]:
            if cluster["name"] in endpoints:
                _set_endpoint(cluster, endpoints[cluster["name"]])
        return _with_cluster_names(resources, cluster_names)


def load_bootstrap(file: Path) -> dict:
    # Through JSON, so that what the file writes once and aliases becomes separate values.
    return json.loads(json.dumps(yaml.safe_load(file.read_text())))


def connection_manager(listener: dict) -> dict:
    """Returns the part of a listener that configures its HTTP connection manager."""
    return listener["filter_chains"][0]["filters"][0]["typed_config"]


def wasm_configuration(listener: dict) -> dict:
    """Returns the part of a listener that configures its sidespan filter."""
    filters = connection_manager(listener)["http_filters"]
    (filter,) = (filter for filter in filters if filter["name"] == "sidespan")
    return filter["typed_config"]["config"]


def admin_answer(port: int, target: str, method: str = "GET") -> str | None:
    """Returns the body of a 200 from an HTTP server on loopback, None of another status or no server."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_START_SECONDS)
    try:
        connection.request(method, target)
        answer = connection.getresponse()
        body = answer.read().decode()
    except OSError:
        return None
    finally:
        connection.close()
    return body if answer.status == 200 else None


def filter_stats(admin_port: int, used_only: bool = False) -> dict[str, int]:
    """Returns the filter's counters and gauges of an Envoy, each named as Prometheus shows it."""
    target = f"/stats?format=json&filter=^wasmcustom%5C.sidespan%5C.{'&usedonly' if used_only else ''}"
    stats = json.loads(admin_answer(admin_port, target))["stats"]
    return {series(stat["name"]): stat["value"] for stat in stats if "name" in stat}


def series(name: str) -> str:
    """Returns the name that Prometheus shows for a statistic, with the labels that `stats_tags` extract."""
    labels = [f'{key}="{value}"' for key, value in _LABEL.findall(name)]
    family = _LABEL.sub("", name).removeprefix("wasmcustom.").replace(".", "_")
    return f"{family}{{{','.join(labels)}}}" if labels else family


def books(stats: dict[str, int]) -> dict[str, int]:
    """Returns the numbers of recorded, exported and queued spans, and of dropped ones by reason."""
    ways = {"recorded": "spans_recorded_total", "exported": "spans_exported_total", "queued": "spans_queued"}
    found = {way: stats.get(f"sidespan_{name}", 0) for way, name in ways.items()}
    dropped = {name: value for name, value in stats.items() if name.startswith("sidespan_spans_dropped_total")}
    return found | {name.split('"')[1]: value for name, value in dropped.items() if value}


def is_balanced(stats: dict[str, int]) -> bool:
    """Tells whether all recorded spans are exported, dropped or queued.

    A worker updates its metrics one by one, so that a read between two updates does not balance. Without the
    filter's metrics there is nothing to balance.
    """
    found = books(stats)
    return found.pop("recorded") == sum(found.values())


def exit_on_signals() -> None:
    """Makes SIGTERM and SIGINT unwind the stack, so that context managers stop what they started.

    A shell starts a background job with SIGINT ignored, and Python then leaves it so.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    signal.signal(signal.SIGINT, signal.default_int_handler)


def free_ports() -> Iterator[int]:
    """Yields free ports of loopback. None comes again before all others have: a program may not have bound it yet."""
    for port in _shuffled_ports():
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        yield port


@functools.cache
def _shuffled_ports() -> Iterator[int]:
    ports = list(PORTS)
    random.shuffle(ports)
    return itertools.cycle(ports)


def _set_endpoint(cluster: dict, port: int | None) -> None:
    (group,) = cluster["load_assignment"]["endpoints"]
    if port is None:
        group["lb_endpoints"] = []
    else:
        (endpoint,) = group["lb_endpoints"]
        endpoint["endpoint"]["address"]["socket_address"]["port_value"] = port


def _with_cluster_names(value, names: dict[str, str]):
    """Returns the resources with every cluster renamed, where it is defined and where it is named."""
    if isinstance(value, dict):
        is_cluster = "load_assignment" in value
        return {
            key: names.get(part, part)
            if isinstance(part, str)
            and (key in ("cluster", "cluster_name") or is_cluster and key == "name")
            else _with_cluster_names(part, names)
            for key, part in value.items()
        }
    if isinstance(value, list):
        return [_with_cluster_names(part, names) for part in value]
    return value
