"""The Envoys of the tests: one of each version, with a lane for each filter configuration."""

from dataclasses import replace
from pathlib import Path

import pytest
from xdist.scheduler import LoadFileScheduling

import tools
import topology
from topology import Lane, Topology
from traffic import Client

ENVOY_VERSIONS = ["1.36.4", "1.37.0", "1.39.3", "1.40.0"]
OLDEST_ENVOY, NEWEST_ENVOY = ENVOY_VERSIONS[0], ENVOY_VERSIONS[-1]

# The files that take longest: where they began last, all but one process would wait for it.
LONGEST = [
    "test_export",
    "test_invalid_configuration",
    "test_faults",
    "test_collector",
    "test_envoy_gateway",
    "test_differential",
]
# The files that use the Envoys of LANES, which one process of a parallel run takes.
SHARING = ["test_decision", "test_export", "test_propagation", "test_spans", "test_tracecontext"]
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
CUSTOM_TAGS = [
    {"tag": "deployment", "literal": {"value": "test"}},
    {"tag": "user.id", "request_header": {"name": "x-user-id"}},
    {"tag": "tier", "request_header": {"name": "x-tier", "default_value": "free"}},
    {"tag": "region", "environment": {"name": "REGION", "default_value": "nowhere"}},
    {"tag": "zone", "environment": {"name": "ZONE", "default_value": "nowhere"}},
]
SPAN_NAMES = [
    {"match": {"path": {"prefix": "/api/v1/"}, "direction": "inbound"}, "name": "api-v1-request"},
    {"match": {"headers": {"name": "operation-id", "present": True}}, "name": " %REQ(operation-id)% "},
    {"match": {"direction": "outbound"}, "name": "call %UPSTREAM_CLUSTER%"},
    {"name": "%REQ(:METHOD)% %ROUTE_NAME% %RESPONSE_CODE%"},
]
OTHER_FORMATS = ["jaeger", "xray", "ottrace", "datadog", "grpc-trace-bin", "gcp", "instana"]


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


LANES = {
    "ratio-1": lane(1),
    "ratio-0": lane(0),
    "tagged": lane(1, listeners={"frontend-inbound": {"custom_tags": CUSTOM_TAGS}}),
    "inject-b3": lane(1, propagation={"inject": ["b3"]}),
    "inject-b3multi": lane(1, propagation={"inject": ["b3multi"]}),
    "inject-both": lane(1, propagation={"inject": ["tracecontext", "b3"]}),
    "migrating": lane(
        1,
        propagation={
            "extract": ["tracecontext", *OTHER_FORMATS],
            "inject": ["tracecontext", "baggage"],
            "baggage": {"max_members": 64},
        },
    ),
    "inject-others": lane(
        1, propagation={"extract": ["tracecontext", *OTHER_FORMATS], "inject": OTHER_FORMATS}
    ),
    "refused": lane(1, frontend="refused"),
    "no-endpoint": lane(1, frontend="none"),
    "two spans": lane(1, span={"spawn_upstream_span": True}),
    "named": lane(1, span={"names": SPAN_NAMES}),
    "all-recorded": lane(1, rules=[{"name": "all", "decision": "force"}]),
}


def pytest_configure(config):
    """Gives each process of a parallel run ports of its own."""
    if worker := getattr(config, "workerinput", None):
        index = int(worker["workerid"].removeprefix("gw"))
        topology.PORTS = topology.PORTS[index :: worker["workercount"]]


def unit(file: Path) -> str:
    """Returns the name of the tests that one process of a parallel run takes: a file, or all of SHARING."""
    return "test_export" if file.stem in SHARING else file.stem


@pytest.hookimpl(trylast=True)  # after pytest has put tests of the same Envoy side by side
def pytest_collection_modifyitems(items):
    """Puts the longest files first."""
    items.sort(key=lambda item: LONGEST.index(unit(item.path)) if unit(item.path) in LONGEST else len(LONGEST))


class FileScheduling(LoadFileScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return unit(Path(super()._split_scope(nodeid)))


def pytest_xdist_make_scheduler(config, log):
    return FileScheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def module():
    """The filter that all tests load; without it none can pass."""
    if not topology.MODULE.is_file():
        pytest.exit(f"expected the filter at {topology.MODULE}, but found nothing: run `make wasm` first", 1)
    return topology.MODULE


@pytest.fixture(scope="session", params=ENVOY_VERSIONS)
def each_envoy(request):
    """The binary of each version, for tests that start one of their own."""
    return tools.envoy(request.param)


def flush_often(bootstrap: dict) -> None:
    """Lets Envoy add up its histograms soon, by default every five seconds."""
    bootstrap["stats_flush_interval"] = "0.5s"


@pytest.fixture(scope="session")
def envoys(each_envoy):
    """A running Envoy of each version with all LANES, shared by the tests: starting one takes a second."""
    with Topology(LANES, envoy=each_envoy, change=flush_often) as running:
        yield running
        # A trap or a refused hostcall shows here, even where every request was answered.
        assert [
            line for line in running.log().splitlines() if "[error]" in line or "[critical]" in line
        ] == []


@pytest.fixture(scope="session", params=[OLDEST_ENVOY, NEWEST_ENVOY])
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
