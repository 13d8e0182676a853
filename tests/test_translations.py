"""What people have today for traces, run as it is in real Envoys, beside its translation to sidespan.

Istio's manifests of examples/from-lua and examples/from-telemetry configure a sidecar through Istio's own
xDS. The tables in the README of both are compared with what the Envoys do.
"""

import copy
import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import tools
import topology
from conftest import NEWEST_ENVOY, OLDEST_ENVOY
from istio import Mesh
from own_tracer import Case, PlainEnvoy, Receivers, check_table, export_at_once, in_contexts, observe, shares
from topology import connection_manager, load_bootstrap, wasm_configuration

EXAMPLES = topology.BOOTSTRAP.parents[1] / "examples"
FROM_LUA, FROM_TELEMETRY = EXAMPLES / "from-lua", EXAMPLES / "from-telemetry"
FORCE, SKIP, NAMES = (
    FROM_LUA / "before" / f"{name}.yaml" for name in ["force-by-header", "skip-health-checks", "name-operations"]
)
TELEMETRY, MESH_CONFIG, BOOTSTRAP = (
    FROM_TELEMETRY / "before" / f"{name}.yaml" for name in ["telemetry", "mesh-config", "bootstrap"]
)
TELEMETRY_OFF, TRANSLATED_BOOTSTRAP = FROM_TELEMETRY / "telemetry-off.yaml", FROM_TELEMETRY / "envoy.yaml"
LOADED = {FORCE, SKIP, NAMES, TELEMETRY, MESH_CONFIG, BOOTSTRAP, TELEMETRY_OFF, TRANSLATED_BOOTSTRAP}

# Each with the version of the Istio whose proxy it is.
VERSIONS = {OLDEST_ENVOY: "1.28.0", NEWEST_ENVOY: "1.31.0"}
HEAD = [*(f"Envoy {version}" for version in VERSIONS), "sidespan"]
# In sampled traces, and asked for: so much makes every tracer here record.
ASKED_FOR = {"x-client-trace-id": "ticket-17"}
MARKER = Case(headers=ASKED_FOR, context="sampled", count=1)
PLAIN = in_contexts({"no header": Case("/")})
LUA = in_contexts(
    {
        "`x-debug-trace: true`": Case("/", {"x-debug-trace": "true"}),
        "`x-priority: high`": Case("/", {"x-priority": "high"}),
        "`GET /healthz`": Case("/healthz"),
    }
)
TAGGED = {
    "ada": replace(MARKER, path="/products/7", headers=ASKED_FOR | {"x-user-id": "ada", "x-tenant-id": "acme"}),
    "nobody": MARKER,
}
API = {"api": replace(MARKER, path="/api/v1/7")}


def load(file: Path) -> dict:
    return yaml.safe_load(file.read_text())


@pytest.fixture(scope="module")
def in_the_mesh(tmp_path_factory) -> dict[str, dict]:
    """What a sidecar of each version does that has the Telemetry and the EnvoyFilters."""
    return {version: run_in_mesh(version, tmp_path_factory.mktemp("mesh")) for version in VERSIONS}


@pytest.fixture(scope="module")
def in_plain_envoys() -> dict[str, dict[str, dict]]:
    """What each listener of an Envoy of each version does that Istio knows nothing of."""
    return {version: run_in_plain_envoy(version) for version in VERSIONS}


def run_in_mesh(version: str, folder: Path) -> dict:
    port = next(topology.free_ports())
    mesh_config = load(MESH_CONFIG)
    (provider,) = mesh_config["extensionProviders"]
    # As in the file, but for the port: the sidecar's listener for the Collector has it too.
    provider["opentelemetry"]["port"] = port
    with Receivers() as receivers:
        collector = service_entry(provider["opentelemetry"]["service"], port, "grpc", receivers.grpc_port)
        resources = [*(load(file) for file in [TELEMETRY, FORCE, SKIP, NAMES]), collector]
        options = {"resources": resources, "mesh_config": mesh_config, "change": export_at_once}
        with Mesh(tools.envoy(version), VERSIONS[version], {}, folder, **options) as mesh:
            observed = observe(receivers, mesh.inbound, PLAIN | LUA | API | TAGGED, MARKER)
            return observed | {"configuration": topology.admin_answer(mesh.admin_port, "/config_dump")}


def service_entry(host: str, port: int, protocol: str, endpoint_port: int) -> dict:
    """Returns what makes a Collector on loopback known to the mesh."""
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": "otel-collector", "namespace": "observability"},
        "spec": {
            "hosts": [host],
            "location": "MESH_INTERNAL",
            "resolution": "STATIC",
            "ports": [{"number": port, "name": "otlp", "protocol": protocol.upper()}],
            "endpoints": [{"address": "127.0.0.1", "ports": {"otlp": endpoint_port}}],
        },
    }


def run_in_plain_envoy(version: str) -> dict[str, dict]:
    bootstrap, translated = load_bootstrap(BOOTSTRAP), load_bootstrap(TRANSLATED_BOOTSTRAP)
    (before,), (after,) = (it["static_resources"]["listeners"] for it in [bootstrap, translated])
    run_here(wasm_configuration(after))
    api = {"name": "api-v1", "match": {"prefix": "/api/v1/"}}
    listeners = {
        "bootstrap": (before, PLAIN | TAGGED),
        "named route": (with_route(before, api | patch(NAMES)), API),
        "route's metadata": (with_route(before, {"metadata": patch(SKIP)["route"]["metadata"]}), PLAIN),
        "translated bootstrap": (after, PLAIN | TAGGED),
        "from-lua": (with_route(with_plugin(after, FROM_LUA), api), PLAIN | LUA | API),
        "from-telemetry": (with_plugin(after, FROM_TELEMETRY), PLAIN | TAGGED),
    }
    bootstrap["static_resources"]["listeners"] = [it | {"name": name} for name, (it, _) in listeners.items()]
    with Receivers() as receivers:
        endpoints = {"otel-collector": receivers.grpc_port}
        with PlainEnvoy(bootstrap, tools.envoy(version), endpoints) as running:
            return {
                name: observe(receivers, running.port(name), cases, MARKER) for name, (_, cases) in listeners.items()
            }


def run_here(filter: dict) -> None:
    """Has a filter run the module that was built, and export soon."""
    filter["vm_config"]["code"]["local"]["filename"] = str(topology.MODULE)
    config = json.loads(filter["configuration"]["value"])
    config["exporter"]["batch"] = {"interval_ms": 100}
    filter["configuration"]["value"] = json.dumps(config)


def patch(file: Path) -> dict:
    """Returns what the only patch of an EnvoyFilter merges."""
    (only,) = load(file)["spec"]["configPatches"]
    return only["patch"]["value"]


def with_route(listener: dict, route: dict) -> dict:
    """Returns the listener with one more route before its own; what it does not say is as in the last."""
    listener = copy.deepcopy(listener)
    (host,) = connection_manager(listener)["route_config"]["virtual_hosts"]
    last = host["routes"][-1]
    host["routes"] = [{key: last[key] for key in ["match", "route"]} | route, *host["routes"]]
    return listener


def with_plugin(listener: dict, example: Path) -> dict:
    """Returns the listener with the configuration of an example; its spans go as those of the listener did."""
    listener = copy.deepcopy(listener)
    shipped = wasm_configuration(listener)["configuration"]
    config = load(example / "plugin.yaml")["spec"]["pluginConfig"]
    shipped["value"] = json.dumps(config | {"exporter": json.loads(shipped["value"])["exporter"]})
    return listener


def test_which_requests_have_a_span(in_the_mesh, in_plain_envoys):
    """Those of a Lua script's headers, of health checks, and of others."""
    rows = [
        [
            key,
            *(shares(observed, key) for observed in in_the_mesh.values()),
            sidespan(in_plain_envoys, "from-lua", lambda observed: shares(observed, key)),
        ]
        for key in dict.fromkeys(key for key, _ in PLAIN | LUA)
    ]
    check_table(FROM_LUA / "README.md", ["requests", *HEAD], rows)


def test_operations_of_routes(in_plain_envoys):
    operation = "x-envoy-decorator-operation"
    wanted = {
        "the span's name": lambda observed: code(span_of(observed, "api").name),
        "`route_name`": lambda observed: code(span_of(observed, "api").tags.get("route_name")),
        f"`{operation}` in the answer": lambda observed: code(observed["api"][0].answer.get(operation)),
    }
    rows = [
        [
            what,
            *(read(observed["named route"]) for observed in in_plain_envoys.values()),
            sidespan(in_plain_envoys, "from-lua", read),
        ]
        for what, read in wanted.items()
    ]
    check_table(FROM_LUA / "README.md", ["`GET /api/v1/7`", *HEAD], rows)


def test_what_a_telemetry_does(in_the_mesh, in_plain_envoys):
    wanted = {
        "requests with a span": lambda observed: shares(observed, "no header"),
        "`deployment.environment.name`": tag("ada", "deployment.environment.name"),
        "`cloud.region`, without the variable": tag("ada", "cloud.region"),
        "`user.id`": tag("ada", "user.id"),
        "`user.id`, without the header": tag("nobody", "user.id"),
    }
    rows = [
        [
            what,
            *(read(observed) for observed in in_the_mesh.values()),
            sidespan(in_plain_envoys, "from-telemetry", read),
        ]
        for what, read in wanted.items()
    ]
    check_table(FROM_TELEMETRY / "README.md", ["the Telemetry", *HEAD], rows)


def test_what_a_bootstrap_does(in_plain_envoys):
    wanted = {
        "requests with a span": lambda observed: shares(observed, "no header"),
        "`deployment.environment.name`": tag("ada", "deployment.environment.name"),
        "`user.id`": tag("ada", "user.id"),
        "`user.id`, without the header": tag("nobody", "user.id"),
        "`tenant.id`": tag("ada", "tenant.id"),
        "`tenant.id`, without the header": tag("nobody", "tenant.id"),
        "the span's name for `GET /products/7`": lambda observed: code(span_of(observed, "ada").name),
        "the span's name for `GET /`": lambda observed: code(span_of(observed, "nobody").name),
    }
    rows = [
        [
            what,
            *(read(observed["bootstrap"]) for observed in in_plain_envoys.values()),
            sidespan(in_plain_envoys, "translated bootstrap", read),
        ]
        for what, read in wanted.items()
    ]
    check_table(FROM_TELEMETRY / "README.md", ["the bootstrap", *HEAD], rows)


def sidespan(in_plain_envoys: dict, listener: str, read: Callable[[dict], str]) -> str:
    """Returns what is read of sidespan's requests, which is the same in all versions."""
    (found,) = {read(observed[listener]) for observed in in_plain_envoys.values()}
    return found


def tag(key: str, name: str) -> Callable[[dict], str]:
    return lambda observed: code(span_of(observed, key).tags.get(name))


def span_of(observed: dict, key: str):
    (one,) = observed[key]
    return one.span


def code(value: str | None) -> str:
    return "–" if value is None else f"`{value}`"


def test_a_sidecar_that_changed_over_does_what_the_column_says(in_plain_envoys, newest_envoy, tmp_path):
    port = next(topology.free_ports())
    config = load(FROM_LUA / "plugin.yaml")["spec"]["pluginConfig"]
    otlp = config["exporter"]["otlp"]
    _, given, _, host = otlp["cluster"].split("|")
    otlp["cluster"] = otlp["cluster"].replace(given, str(port))
    plugins = {"sidespan": config}
    with Receivers() as receivers:
        resources = [load(TELEMETRY_OFF), service_entry(host, port, "http", receivers.http_port)]
        with Mesh(newest_envoy, VERSIONS[NEWEST_ENVOY], plugins, tmp_path, resources=resources) as mesh:
            observed = observe(receivers, mesh.inbound, PLAIN | LUA | API, MARKER)
    for key, _ in PLAIN | LUA:
        assert shares(observed, key) == sidespan(in_plain_envoys, "from-lua", lambda it: shares(it, key)), key
    # The name needs no route of its own: Istio calls this one `default`.
    assert span_of(observed, "api").name == "api-v1-request"


def test_no_inbound_route_of_a_sidecar_has_the_name(in_the_mesh):
    for observed in in_the_mesh.values():
        assert span_of(observed, "api").name.startswith("backend.shop:")
        assert "api-v1" not in observed["configuration"]


def test_istio_leaves_out_the_key_that_envoy_does_not_know(in_the_mesh):
    for observed in in_the_mesh.values():
        # The rest of the patch is there.
        assert json.dumps({"propagate": False})[1:-1] in observed["configuration"]
        assert "disable_tracing" not in observed["configuration"]


@pytest.mark.parametrize("version", VERSIONS)
def test_envoy_refuses_the_key_where_the_patch_has_it(version, tmp_path):
    bootstrap = load_bootstrap(BOOTSTRAP)
    (listener,) = bootstrap["static_resources"]["listeners"]
    (host,) = connection_manager(listener)["route_config"]["virtual_hosts"]
    host["routes"][0]["route"] |= patch(SKIP)["route"]
    file = tmp_path / "envoy.json"
    file.write_text(json.dumps(bootstrap))
    command = [tools.envoy(version), "--mode", "validate", "-c", file]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    # Envoy varies the spaces of such errors, so that nobody relies on their text.
    assert "no such field: 'metadata'" in " ".join(result.stderr.split())


def test_the_key_does_nothing_where_envoy_takes_it(in_plain_envoys):
    for observed in in_plain_envoys.values():
        assert shares(observed["route's metadata"], "no header") == shares(observed["bootstrap"], "no header")


def test_the_translated_bootstrap_has_the_same_clusters():
    one, other = (load(file)["static_resources"]["clusters"] for file in [BOOTSTRAP, TRANSLATED_BOOTSTRAP])
    assert one == other
