"""What the tests share: lanes, the Envoys of each version, and which process of a parallel run takes which file."""

import os
from dataclasses import replace

import pytest

import tools
import topology
from shared_envoys import SharedTopology, stop_all
from topology import Lane
from traffic import Client

ENVOY_VERSIONS = ["1.36.4", "1.37.0", "1.39.3", "1.40.0"]
OLDEST_ENVOY, NEWEST_ENVOY = ENVOY_VERSIONS[0], ENVOY_VERSIONS[-1]

# The files that take longest: where they began last, all but one process would wait for it.
LONGEST = [
    "test_invalid_configuration",
    "test_export",
    "test_faults",
    "test_plain_envoy",
    "test_collector",
    "test_monitoring",
    "test_envoy_gateway",
    "test_differential",
    "test_pages",
]
RULES = [
    {"name": "health-checks", "match": {"path": [{"prefix": "/healthz"}]}, "decision": "drop"},
    {"name": "static-files", "match": {"path": [{"suffix": ".css"}]}, "decision": "ignore"},
    {
        "name": "debug-header",
        "match": {"headers": [{"name": "x-debug-trace", "exact": "true"}]},
        "decision": "force",
    },
    {"name": "checkout", "match": {"method": ["POST"], "path": [{"prefix": "/checkout"}]}, "ratio": 1},
]


def lane(
    ratio: float = 1,
    *,
    rules: list | None = None,
    batch: dict | None = None,
    propagation: dict | None = None,
    span: dict | None = None,
    **options,
) -> Lane:
    """Returns a lane whose filters export soon, so that no test waits for long."""
    return Lane(
        filter={
            "sampling": {"ratio": ratio, "rules": rules or RULES},
            "custom_tags": [],
            "propagation": propagation or {},
            "span": span or {},
            "exporter": {
                "otlp": {"cluster": "otel-collector"},
                "batch": {"interval_ms": 50} | (batch or {}),
            },
        },
        **options,
    )


def one_sidecar(given: Lane) -> Lane:
    """Returns the lane with export from its last sidecar alone; ticks of the others would cost CPU."""
    seldom = given.filter["exporter"] | {"batch": {"interval_ms": 3_600_000}}
    return replace(given, listeners={name: {"exporter": seldom} for name in ("frontend-inbound", "frontend-outbound")})


def pytest_configure(config):
    """Gives each process of a parallel run ports of its own, and the programs that it starts too."""
    if worker := getattr(config, "workerinput", None):
        index = int(worker["workerid"].removeprefix("gw"))
        ports = topology.PORTS = topology.PORTS[index :: worker["workercount"]]
        os.environ["SIDESPAN_PORTS"] = f"{ports.start}:{ports.stop}:{ports.step}"


@pytest.hookimpl(trylast=True)  # after pytest has put tests of the same Envoy side by side
def pytest_collection_modifyitems(items):
    """Puts the longest files first."""
    items.sort(key=lambda it: LONGEST.index(it.path.stem) if it.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(scope="session", autouse=True)
def module():
    """The filter that all tests load; without it none can pass."""
    if not topology.MODULE.is_file():
        pytest.exit(f"expected the filter at {topology.MODULE}, but found nothing: run `make wasm` first", 1)
    return topology.MODULE


@pytest.fixture(scope="session", autouse=True)
def shared_envoys(module):
    """Stops the Envoys that tests share."""
    yield
    stop_all()


@pytest.fixture(scope="module", params=ENVOY_VERSIONS)
def each_envoy(request):
    """The binary of each version, for tests that start one of their own."""
    return tools.envoy(request.param)


@pytest.fixture(scope="module")
def envoys(each_envoy, request):
    """A running Envoy of each version with the LANES of the file."""
    with SharedTopology(request.module.LANES, envoy=each_envoy) as running:
        yield running
        # A trap or a refused hostcall shows here, even where every request was answered.
        assert [
            line for line in running.log().splitlines() if "[error]" in line or "[critical]" in line
        ] == []


@pytest.fixture(scope="module", params=[OLDEST_ENVOY, NEWEST_ENVOY])
def outermost_envoy(request):
    """The binary of the oldest and of the newest version, for what hardly differs between them."""
    return tools.envoy(request.param)


@pytest.fixture(scope="session")
def newest_envoy():
    return tools.envoy(NEWEST_ENVOY)


@pytest.fixture(params=["1.1", "2"])
def http(request):
    """The HTTP version that the client speaks."""
    return request.param


@pytest.fixture
def client(envoys, http):
    with Client(envoys, http) as client:
        yield client


@pytest.fixture
def client_1(envoys):
    """A client for what does not depend on the HTTP version."""
    with Client(envoys, "1.1") as client:
        yield client
