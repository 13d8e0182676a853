"""The example for Linkerd: its gateway, its Collector and an application, with a stand-in for Linkerd's proxies."""

import json
import os
from contextlib import ExitStack
from dataclasses import dataclass

import httpx
import pytest
import yaml

import kubernetes
import tools
import topology
from applications import Application, started
from linkerd import SERVICE, Proxy
from receiver import Receiver
from test_collector import BUILDER_CONFIGURATION
from test_manifests import ROOT, build
from topology import Program, free_ports, load_bootstrap
from traffic import new_context

EXAMPLE = ROOT / "examples" / "linkerd"
BOOTSTRAP = EXAMPLE / "envoy.yaml"
VALUES = EXAMPLE / "linkerd-values.yaml"
FILES = [EXAMPLE / name for name in ["envoy.yaml", "kubernetes.yaml", "kustomization.yaml", "linkerd-values.yaml"]]
FORCED = {"x-debug-trace": "true"}
API_SERVER = "api-server"


@dataclass(frozen=True)
class Mesh:
    """The gateway's port, the proxies that its requests pass, and what the backend got."""

    port: int
    outbound: Proxy
    inbound: Proxy
    backend: Receiver

    def send(self, path: str, headers: dict[str, str]) -> None:
        answer = httpx.get(f"http://127.0.0.1:{self.port}{path}", headers=headers, timeout=20)
        assert answer.status_code == 200, answer.text


def gateway(admin_port: int, port: int, next_port: int, collector_port: int) -> dict:
    """Returns the example's bootstrap with other addresses, and the module of this checkout."""
    bootstrap = load_bootstrap(BOOTSTRAP)
    bootstrap["admin"]["address"]["socket_address"]["port_value"] = admin_port
    static = bootstrap["static_resources"]
    (listener,) = static["listeners"]
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    wasm = topology.wasm_configuration(listener)
    wasm["vm_config"]["code"]["local"]["filename"] = str(topology.MODULE)
    configuration = json.loads(wasm["configuration"]["value"])
    # So that no test waits for long, and the limit of the rule is not what they test.
    configuration["exporter"]["batch"] = {"interval_ms": 100}
    configuration["sampling"]["rules"][1]["limit"] = {"per_second": 1000}
    wasm["configuration"]["value"] = json.dumps(configuration)
    ports = {API_SERVER: next_port, "otel-collector": collector_port}
    for cluster in static["clusters"]:
        ((endpoint,),) = [group["lb_endpoints"] for group in cluster["load_assignment"]["endpoints"]]
        address = {"address": "127.0.0.1", "port_value": ports.pop(cluster["name"])}
        endpoint["endpoint"]["address"]["socket_address"] = address
    assert ports == {}
    return bootstrap


@pytest.fixture(scope="module")
def mesh(newest_envoy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("linkerd")
    ports = free_ports()
    grpc_port, http_port, admin_port, port, app_port = (next(ports) for _ in range(5))
    with ExitStack() as running:
        backend = running.enter_context(Receiver())
        environment = os.environ | {
            "OTLP_GRPC_ENDPOINT": f"127.0.0.1:{grpc_port}",
            "OTLP_HTTP_ENDPOINT": f"127.0.0.1:{http_port}",
            "BACKEND_ENDPOINT": f"http://127.0.0.1:{backend.port}",
            "BATCH_TIMEOUT": "50ms",
        }
        command = [tools.collector(BUILDER_CONFIGURATION), "--config", EXAMPLE / "collector.yaml"]
        # One after the other, so that a later trace does not arrive before an earlier one.
        command += ["--set", "exporters.otlphttp.sending_queue.num_consumers=1"]
        # Its own metrics would take a port that all Collectors of the tests want.
        command += ["--set", "service.telemetry.metrics.level=none"]
        collector = running.enter_context(Program(command, folder / "collector.log", env=environment))
        collector.wait_until(lambda: "Everything is ready" in collector.log.read_text())
        manifest = kubernetes.read(EXAMPLE / "kubernetes.yaml")
        (deployment,) = [it for it in manifest if (it["kind"], it["metadata"]["name"]) == ("Deployment", API_SERVER)]
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        settings = {it["name"]: it["value"] for it in container["env"] if "ENDPOINT" not in it["name"]}
        application = Application("python", app_port, "", http_port, settings)
        running.enter_context(started({API_SERVER: application}, folder))
        inbound = running.enter_context(Proxy("inbound", app_port, grpc_port))
        outbound = running.enter_context(Proxy("outbound", inbound.port, grpc_port))
        file = folder / "envoy.json"
        file.write_text(json.dumps(gateway(admin_port, port, outbound.port, http_port)))
        command = [newest_envoy, "-c", file, "--disable-hot-restart", "--concurrency", "1", "-l", "warning"]
        envoy = running.enter_context(Program(command, folder / "envoy.log"))
        envoy.wait_until(lambda: topology.admin_answer(port, "/healthz") is not None)
        yield Mesh(port, outbound, inbound, backend)


def test_all_hops_are_in_one_trace(mesh):
    mesh.send("/call", FORCED)
    trace_id = mesh.outbound.got[-1]["traceparent"].split("-")[1]
    spans = mesh.backend.trace(trace_id, 4)
    assert [(span.service, span.kind) for span in spans] == [
        ("gateway", "SERVER"),
        (SERVICE, "CLIENT"),
        (SERVICE, "SERVER"),
        (API_SERVER, "SERVER"),
    ]
    parents = [span.parent_span_id for span in spans]
    assert parents == ["", *(span.span_id for span in spans[:-1])]
    assert {span.resource["mesh.name"] for span in spans} == {"linkerd"}
    assert spans[0].attributes["sidespan.reason"] == "debug-header"


def test_b3_headers_name_the_gateway_behind_linkerd_too(mesh):
    mesh.send("/call", FORCED)
    first, second = mesh.outbound.got[-1], mesh.inbound.got[-1]
    _, trace_id, span_id, flags = first["traceparent"].split("-")
    b3 = {name: value for name, value in first.items() if name.startswith("x-b3-")}
    assert b3 == {"x-b3-traceid": trace_id, "x-b3-spanid": span_id, "x-b3-sampled": "1"}
    assert flags == "01"
    assert b3 == {name: value for name, value in second.items() if name.startswith("x-b3-")}
    assert second["traceparent"].split("-")[2] != span_id


def test_what_a_client_sends_is_not_followed(mesh):
    context = new_context()
    mesh.send("/call", FORCED | {"traceparent": context.traceparent("01"), "b3": "0"})
    got = mesh.outbound.got[-1]
    trace_id = got["traceparent"].split("-")[1]
    assert trace_id != context.trace_id
    assert got.keys().isdisjoint({"b3", *FORCED})
    (root, *_) = mesh.backend.trace(trace_id, 4)
    assert root.links == ((context.trace_id, context.span_id, ""),)


def test_what_is_not_sampled_leaves_no_span(mesh):
    mesh.send("/healthz", {})
    got = mesh.inbound.got[-1]
    _, trace_id, _, flags = got["traceparent"].split("-")
    assert (flags, got["x-b3-sampled"]) == ("00", "0")
    # A trace that comes later is there: so would be spans of this one.
    mesh.send("/call", FORCED)
    mesh.backend.trace(mesh.outbound.got[-1]["traceparent"].split("-")[1], 4)
    assert [span for span in mesh.backend.spans() if span.trace_id == trace_id] == []


@pytest.fixture(scope="module")
def manifest():
    """What `kubectl apply -k` applies."""
    return build(EXAMPLE)


def test_manifest_is_kubernetes(manifest):
    for document in manifest:
        kubernetes.check(document)
    # The page's second command makes it of the module.
    assert kubernetes.dangling_references(manifest) == ["Deployment/gateway: configMap sidespan-wasm"]


def test_manifest_has_the_files(manifest):
    data = [it["data"] for it in manifest if it["kind"] == "ConfigMap"]
    assert sorted(data, key=str) == sorted(
        [{name: (EXAMPLE / name).read_text()} for name in ["envoy.yaml", "collector.yaml"]], key=str
    )


def test_every_pod_is_meshed_by_its_template(manifest):
    deployments = [it for it in manifest if it["kind"] == "Deployment"]
    assert len(deployments) == 3
    for deployment in deployments:
        assert "annotations" not in deployment["metadata"]
        assert deployment["spec"]["template"]["metadata"]["annotations"]["linkerd.io/inject"] == "enabled"


def test_values_name_the_collector_of_the_manifest(manifest):
    tracing = yaml.safe_load(VALUES.read_text())["proxy"]["tracing"]
    assert tracing["enabled"] is True
    host, _, port = tracing["collector"]["endpoint"].partition(":")
    (service,) = [it for it in manifest if it["kind"] == "Service" and it["metadata"]["name"] == "otel-collector"]
    name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
    assert host == f"{name}.{namespace}.svc.cluster.local"
    assert int(port) in [it["port"] for it in service["spec"]["ports"]]
    assert tracing["collector"]["meshIdentity"] == {"serviceAccountName": name, "namespace": namespace}
    accounts = [it["metadata"] for it in manifest if it["kind"] == "ServiceAccount"]
    assert {"name": name, "namespace": namespace} in accounts
