"""What the page on operations says that one sees: the counters, an upgrade, and a module that Envoy does not load."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import lane
from shared_envoys import SharedTopology
from test_invalid_configuration import BAD, NODE, Discovery
from test_module import imports
from topology import MODULE, Running, Topology, admin_answer, books
from traffic import Client, new_context

PAGE = (Path(__file__).parents[1] / "docs" / "operations.md").read_text()
# With an hour between ticks, nothing is sent before the update.
HOURLY = {"interval_ms": 3_600_000}


class Plugin(Discovery):
    """A filter by extension discovery whose module can be replaced, as an update of a WasmPlugin does."""

    def upgrade(self, module: Path, configuration: dict | None = None) -> None:
        self._wasm["config"]["failure_policy"] = "FAIL_OPEN"
        # Istio puts the version of the resource there.
        self._wasm["config"]["vm_config"]["environment_variables"] = {"key_values": {"version": module.name}}
        self._wasm["config"]["vm_config"]["code"]["local"]["filename"] = str(module)
        self.publish(sidespan=configuration or self.good)


@contextmanager
def proxy(envoy: Path, folder: Path, first: Path) -> Iterator[tuple[Plugin, Running]]:
    plugin = Plugin(folder, ["sidespan"], None)

    def change(bootstrap: dict) -> None:
        plugin.change(bootstrap)
        plugin.upgrade(first)

    with SharedTopology({"": lane(1, batch=HOURLY)}, envoy=envoy, node=NODE, change=change) as running:
        yield plugin, running


def status(running: Running) -> int:
    with Client(running, "1.1") as client:
        return client.send(running.lane().backend_inbound, "/a").status


@pytest.fixture
def unloadable(tmp_path) -> Path:
    """A module that imports a function which no Envoy has."""
    name = b"proxy_get_header_map_pairs"
    assert name.decode() in [found for _, found in imports(MODULE.read_bytes())]
    module = tmp_path / "unloadable.wasm"
    module.write_bytes(MODULE.read_bytes().replace(name, name[:-1] + b"z"))
    return module


@pytest.fixture
def other(tmp_path) -> Path:
    """A module that differs by a section that changes nothing."""
    module = tmp_path / "other.wasm"
    module.write_bytes(MODULE.read_bytes() + b"\0\x08\x07version")
    return module


def test_module_that_envoy_does_not_load_as_the_first(outermost_envoy, tmp_path, unloadable):
    with proxy(outermost_envoy, tmp_path, unloadable) as (_, running):
        running.program.wait_until(lambda: "missing import" in running.log() and "failed to load" in running.log())
        assert status(running) == 500


def test_module_that_envoy_does_not_load_as_an_update(outermost_envoy, tmp_path, unloadable):
    with proxy(outermost_envoy, tmp_path, MODULE) as (plugin, running):
        assert status(running) == 200
        plugin.upgrade(unloadable)
        running.program.wait_until(lambda: "missing import" in running.log())
        assert status(running) == 200
        running.wait_for_stats(lambda stats: stats['sidespan_build_info{version="0.1.0"}'] == 2)


def test_another_module_drops_what_the_former_has_queued(outermost_envoy, tmp_path, other):
    with proxy(outermost_envoy, tmp_path, MODULE) as (plugin, running):
        assert [status(running), status(running)] == [200, 200]
        # Keys that this module does not know: the former one stays.
        plugin.upgrade(other, BAD)
        running.program.wait_until(lambda: "sidespan: configuration refused" in running.log())
        assert status(running) == 200
        plugin.upgrade(other)
        reason = 'sidespan_spans_dropped_total{reason="configuration_removed"}'
        stats = running.wait_for_stats(lambda stats: stats[reason] > 0, timeout=30)
    assert books(stats) == {"recorded": 3, "exported": 0, "queued": 0, "configuration_removed": 3}


def test_counters_are_those_that_the_page_shows(newest_envoy):
    (shown,) = re.findall(r"printed this:\n\n((?:    .*\n)+)", PAGE)
    (pattern,) = re.findall(r"grep -E '(.*)'", PAGE)
    with Topology({"": lane(1)}, envoy=newest_envoy, concurrency=2) as running, Client(running, "1.1") as client:
        for _ in range(20):
            client.through("", "/a", {"traceparent": new_context().traceparent("01")})
        running.wait_for_stats(lambda stats: stats["sidespan_spans_exported_total"] == 60)
        found = admin_answer(running.admin_port, "/stats?filter=sidespan")
    assert [line for line in found.splitlines() if re.search(pattern, line)] == [line.strip() for line in shown.splitlines()]
