"""The manifests of istio/ on real Envoys, which Istio's own xDS configures: sidecars and a gateway."""

import copy
import json
import subprocess
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

import tools
import topology
from istio import Mesh
from service import Service
from test_collector import BUILDER_CONFIGURATION
from test_manifests import ROOT
from traffic import Client, new_context

ISTIO = ROOT / "istio"
VERSION = "1.31.0"
HOST = "otel-collector.observability.svc.cluster.local"
GATEWAY = {"istio": "ingressgateway"}
GATEWAY_NODE = {"id": "router~192.0.2.2~ingress.istio-system~istio-system.svc.cluster.local", "cluster": "ingress"}


def load(*parts: str) -> list[dict]:
    return [document for document in yaml.safe_load_all(ISTIO.joinpath(*parts).read_text()) if document]


def plugin(file: str, exporter: dict, **metadata) -> dict:
    """Returns the plugin of a manifest, with the module of this checkout, every root sampled, and another exporter."""
    (document,) = [it for it in load("attach", file) if it["kind"] in ("WasmPlugin", "TrafficExtension")]
    document["metadata"] |= metadata
    wasm = document["spec"].get("wasm", document["spec"])
    wasm["url"] = f"file://{topology.MODULE}"
    wasm["pluginConfig"]["sampling"]["ratio"] = 1
    wasm["pluginConfig"]["exporter"] = exporter
    return document


def as_traffic_extension(plugin: dict) -> dict:
    """Returns a WasmPlugin as the resource that follows it."""
    spec = dict(plugin["spec"])
    wasm = {key: spec.pop(key) for key in ("url", "failStrategy", "pluginConfig")}
    return plugin | {"kind": "TrafficExtension", "spec": spec | {"wasm": wasm}}


def service_entry(host: str, port: int, endpoint_port: int) -> dict:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": host.split(".")[0], "namespace": "shop"},
        "spec": {
            "hosts": [host],
            "location": "MESH_INTERNAL",
            "resolution": "STATIC",
            "ports": [{"number": port, "name": "http", "protocol": "HTTP"}],
            "endpoints": [{"address": "127.0.0.1", "ports": {"http": endpoint_port}}],
        },
    }


@contextmanager
def mesh(envoy: Path, folder: Path, resources: Callable[[Mesh], list[dict]], **options):
    """A mesh with resources that depend on its ports; they may be changed, and published."""
    given: list[dict] = []
    made = Mesh(envoy, VERSION, {}, folder, resources=given, **options)
    given += resources(made)
    with made:
        made.resources = given
        yield made


def gateway(bootstrap: dict) -> None:
    """Makes the proxy an ingress gateway."""
    metadata = bootstrap["node"]["metadata"]
    metadata |= {"NAMESPACE": "istio-system", "NAME": "ingress", "LABELS": GATEWAY, "INSTANCE_IPS": "192.0.2.2"}
    bootstrap["node"] = GATEWAY_NODE | {"metadata": metadata}


def gateway_resources(port: int, service_port: int) -> list[dict]:
    """Returns what leads all requests from the gateway's port to a service."""
    host = "frontend.shop.svc.cluster.local"
    server = {"bind": "127.0.0.1", "hosts": ["*"], "port": {"number": port, "name": "http", "protocol": "HTTP"}}
    networking = {"apiVersion": "networking.istio.io/v1", "metadata": {"name": "ingress", "namespace": "istio-system"}}
    return [
        service_entry(host, 80, service_port),
        networking | {"kind": "Gateway", "spec": {"selector": GATEWAY, "servers": [server]}},
        networking
        | {
            "kind": "VirtualService",
            "spec": {
                "hosts": ["*"],
                "gateways": ["ingress"],
                "http": [{"route": [{"destination": {"host": host, "port": {"number": 80}}}]}],
            },
        },
    ]


def send(running: Mesh, port: int, host: str = "frontend") -> str:
    """Sends a request in a sampled trace, and returns the trace's id."""
    context = new_context()
    with Client(running, "1.1") as client:
        answer = client.send(port, "/a", {"host": host, "traceparent": context.traceparent("01")})
    assert answer.status == 200
    return context.trace_id


@pytest.mark.parametrize("file", ["namespace.yaml", "traffic-extension.yaml"])
def test_sidecar_makes_spans_of_both_directions(newest_envoy, tmp_path, file):
    port, host = next(topology.free_ports()), "stock.shop.svc.cluster.local"
    with Service("stock") as stock:
        entry = service_entry(host, port, stock.port)
        with mesh(newest_envoy, tmp_path, lambda made: [plugin(file, made.exporter), entry]) as running:
            (inbound,) = running.receiver.trace(send(running, running.inbound), 1)
            (outbound,) = running.receiver.trace(send(running, port, f"{host}:{port}"), 1)
    assert (inbound.kind, inbound.service) == ("SERVER", "backend.shop")
    assert (outbound.kind, outbound.service) == ("CLIENT", "backend.shop")


@pytest.mark.parametrize("translated", [lambda plugin: plugin, as_traffic_extension], ids=["plugin", "extension"])
def test_gateway_makes_server_spans_of_new_traces(newest_envoy, tmp_path, translated):
    with Service("frontend") as service:

        def resources(made: Mesh) -> list[dict]:
            document = translated(plugin("ingress-gateway.yaml", made.exporter))
            return [document, *gateway_resources(made.inbound, service.port)]

        with mesh(newest_envoy, tmp_path, resources, change=gateway) as running:
            trace_id = send(running, running.inbound)
            (span,) = running.receiver.wait_for(
                lambda receiver: [it for it in receiver.spans() if trace_id in str(it.links)]
            )
    assert (span.kind, span.parent_span_id) == ("SERVER", "")
    assert span.trace_id != trace_id


def test_plugins_of_the_mesh_and_of_the_namespace_both_run(newest_envoy, tmp_path):
    """Unlike Telemetry, no plugin overrides another: the page warns of it."""

    def resources(made: Mesh) -> list[dict]:
        return [plugin(file, made.exporter) for file in ["mesh.yaml", "namespace.yaml"]]

    with mesh(newest_envoy, tmp_path, resources) as running:
        first, second = running.receiver.trace(send(running, running.inbound), 2)
    assert second.parent_span_id == first.span_id
    assert [first.kind, second.kind] == ["SERVER", "SERVER"]


def test_collector_that_the_proxy_does_not_know_is_waited_for(newest_envoy, tmp_path):
    """As a Sidecar resource hides it: the spans leave as soon as it is among the hosts of `egress`."""
    port = next(topology.free_ports())
    otlp = {"otlp": {"cluster": f"outbound|{port}||{HOST}"}}
    soon = {"batch": {"interval_ms": 100}, "retry": {"initial_interval_ms": 100, "max_interval_ms": 100}}
    with mesh(newest_envoy, tmp_path, lambda made: [plugin("namespace.yaml", otlp | soon)]) as running:
        # The first change makes Istio send all again, and an update of a plugin drops what is queued.
        configured = running.stats()["sidespan_configured_total"]
        running.publish()
        running.wait_for_stats(lambda stats: stats["sidespan_configured_total"] > configured)
        trace_id = send(running, running.inbound)
        stats = running.wait_for_stats(lambda stats: stats["sidespan_spans_queued"] > 0)
        assert stats["sidespan_spans_exported_total"] == 0
        line = f'"outbound|{port}||{HOST}" does not accept spans: Envoy knows no such cluster'
        running.program.wait_until(lambda: line in running.log())
        running.resources.append(service_entry(HOST, port, running.receiver.port))
        running.publish()
        assert len(running.receiver.trace(trace_id, 1)) == 1


def tracers(running: Mesh) -> set[str]:
    """Returns the providers of the tracing blocks that the proxy has; `none` is a block without one."""
    dump = json.loads(topology.admin_answer(running.admin_port, "/config_dump?resource=dynamic_listeners"))
    active = [listener["active_state"] for listener in dump["configs"] if "active_state" in listener]
    found = set()

    def visit(value) -> None:
        if isinstance(value, dict):
            if "http_filters" in value and "tracing" in value:
                found.add(value["tracing"].get("provider", {}).get("name", "none"))
            for part in value.values():
                visit(part)
        elif isinstance(value, list):
            for part in value:
                visit(part)

    visit(active)
    return found


def test_telemetry_turns_istios_tracer_off(newest_envoy, tmp_path):
    ports = topology.free_ports()
    port, nobody = next(ports), next(ports)
    provider = {"name": "otel-tracing", "opentelemetry": {"service": HOST, "port": port}}
    mesh_config = {"extensionProviders": [provider]}
    # That of the root namespace, which every proxy follows that has none of its own.
    before, of_namespace = load("per-namespace", "before.yaml")
    of_namespace["metadata"]["namespace"] = "shop"

    def resources(made: Mesh) -> list[dict]:
        return [plugin("namespace.yaml", made.exporter), service_entry(HOST, port, nobody), before]

    with mesh(newest_envoy, tmp_path, resources, mesh_config=mesh_config) as running:
        always = running.resources[:2]
        names = ["mesh", "namespace", "workload", "propagation-off"]
        off = {name: load("tracing-off", f"{name}.yaml") for name in names}
        (of_workload,) = off["workload"]
        of_workload["spec"]["selector"]["matchLabels"] = {"app": "backend"}
        undone = copy.deepcopy(of_namespace)
        del undone["spec"]["tracing"][0]["disableSpanReporting"]

        def applied(telemetry: list[dict], expected: set[str]) -> None:
            running.resources[:] = [*always, *telemetry]
            running.publish()
            running.program.wait_until(lambda: tracers(running) == expected)

        on, none = {"envoy.tracers.opentelemetry"}, set()
        # Rows: the Telemetry resources of the mesh, and the tracers of the sidecar. What was there before
        # each row had the opposite effect.
        for telemetry, expected in [
            ([before], on),
            (off["mesh"], none),
            # A namespace that only names a provider does not undo it, one that says `false` does.
            ([*off["mesh"], undone], none),
            ([*off["mesh"], of_namespace], on),
            ([before, *off["namespace"]], none),
            ([before, of_workload], none),
            (off["propagation-off"], on),
        ]:
            applied(*((off["mesh"], none) if expected == on else ([before], on)))
            applied(telemetry, expected)
        # The last row has a tracer that writes no context: the application gets the filter's.
        with Client(running, "1.1") as client:
            context = new_context()
            answer = client.send(running.inbound, "/a", {"traceparent": context.traceparent("01")})
        (call,) = answer.calls
        spans = running.receiver.trace(context.trace_id, 1)
        sent = {span.span_id for span in spans if span.attributes.get("span.source") == "mesh"}
        assert {call.context()["traceparent"].split("-")[2]} == sent


def test_mesh_configuration_gives_no_proxy_a_tracer(newest_envoy, tmp_path):
    (operator,) = load("tracing-off", "istiooperator.yaml")
    mesh_config = operator["spec"]["meshConfig"]
    with mesh(newest_envoy, tmp_path, lambda made: [], mesh_config=mesh_config) as running:
        assert tracers(running) <= {"none"}


@pytest.mark.parametrize("is_named", [True, False], ids=["provider", "no provider"])
def test_gateway_whose_clusters_are_filtered_knows_the_providers(newest_envoy, tmp_path, monkeypatch, is_named):
    """The provider that traces nothing makes the Collector's cluster known."""
    monkeypatch.setenv("PILOT_FILTER_GATEWAY_CLUSTER_CONFIG", "true")
    (operator,) = load("tracing-off", "istiooperator.yaml")
    mesh_config = operator["spec"]["meshConfig"] | ({} if is_named else {"extensionProviders": []})
    with Service("frontend") as service:

        def resources(made: Mesh) -> list[dict]:
            return [service_entry(HOST, 4318, service.port), *gateway_resources(made.inbound, service.port)]

        with mesh(newest_envoy, tmp_path, resources, change=gateway, mesh_config=mesh_config) as running:
            clusters = topology.admin_answer(running.admin_port, "/clusters")
            assert (f"outbound|4318||{HOST}::" in clusters) == is_named
            assert tracers(running) <= {"none"}


def test_collector_of_the_manifest_is_valid(tmp_path):
    (configuration,) = [it["data"]["config.yaml"] for it in load("collector", "collector.yaml") if "data" in it]
    file = tmp_path / "config.yaml"
    file.write_text(configuration)
    command = [tools.collector(BUILDER_CONFIGURATION), "validate", "--config", file]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (checked.returncode, checked.stderr) == (0, "")
