"""Every file of envoy/, istio/ and examples/ is loaded by a test.

The harness's tests replay the scenarios.
"""

import demo
import receiver
import service
import test_collector_tiers
import test_envoy_gateway
import test_own_tracer
import test_plain_envoy
import test_translations
import tools
import topology
import waterfall
from applications import APPS, SOURCES
from applications import MANIFEST as APPS_MANIFEST
from test_collector import CONFIGURATIONS
from test_compose import COMPOSE_FILE, MOUNTED
from test_linkerd import FILES as LINKERD
from test_manifests import HELM_VALUES, MANIFESTS, PARTS_OF_OVERLAYS, ROOT
from test_monitoring import MONITORING

LOADED = {
    topology.BOOTSTRAP,
    COMPOSE_FILE,
    *MOUNTED,
    *CONFIGURATIONS,
    *test_collector_tiers.FILES,
    *test_envoy_gateway.MANIFESTS,
    test_own_tracer.BOOTSTRAP,
    *test_plain_envoy.FILES,
    *test_translations.LOADED,
    *MANIFESTS,
    *PARTS_OF_OVERLAYS,
    HELM_VALUES,
    *LINKERD,
    APPS_MANIFEST,
    *(APPS / language / name for language, names in SOURCES.items() for name in names),
    *(MONITORING / name for name in ["alerts.yaml", "dashboard.json", "mesh-dashboard.json", "prometheus.yaml"]),
    # Modules that tests import or run, and the packages that they need.
    *(topology.BOOTSTRAP.with_name(f"{it.__name__}.py") for it in [demo, receiver, service, tools, topology, waterfall]),
    topology.BOOTSTRAP.with_name("requirements.txt"),
}
TEXT = ["README.md"]
# What Git ignores too: people run the applications where they are.
IGNORED = {"__pycache__", "node_modules", ".venv"}
LOADED_BY_THE_HARNESS = ["*scenario.yaml"]


def unloaded(folder) -> list:
    """Returns the files of a folder that no test loads."""
    files = [file for file in folder.rglob("*") if file.is_file() and not IGNORED.intersection(file.parts)]
    assert files, f"expected files in {folder}, but found none"
    elsewhere = [*TEXT, *LOADED_BY_THE_HARNESS]
    # A parallel run imports modules by paths that have `..` in them.
    loaded = {file.resolve() for file in LOADED}
    return [file for file in files if file.resolve() not in loaded and not any(file.match(it) for it in elsewhere)]


def test_every_file_is_loaded():
    assert [file for name in ["envoy", "istio", "examples"] for file in unloaded(ROOT / name)] == []


def test_a_file_that_no_test_loads_is_noticed(tmp_path):
    (tmp_path / "stray.yaml").touch()
    (tmp_path / "scenario.yaml").touch()
    assert unloaded(tmp_path) == [tmp_path / "stray.yaml"]


def test_every_file_that_is_loaded_exists():
    assert [file for file in LOADED if not file.is_file()] == []
