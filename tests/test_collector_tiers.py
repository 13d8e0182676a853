"""The Collectors of examples/collector, each in a real Collector behind a real Envoy with the filter."""

import contextlib
import os
import re
import subprocess
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

import kubernetes
import tools
from conftest import lane
from expected import server_attributes
from receiver import Receiver, Span
from shared_envoys import SharedTopology
from test_collector import BUILDER_CONFIGURATION, speaks_http2
from topology import BOOTSTRAP, Lane, Program, Topology, admin_answer, books, connection_manager, free_ports
from traffic import Client, new_context

COLLECTORS = BOOTSTRAP.parents[1] / "examples" / "collector"
APP = COLLECTORS.parent / "apps" / "python"
GATEWAY, CORRELATION, MULTI_CLUSTER = (
    COLLECTORS / name / "collector.yaml" for name in ("gateway", "correlation", "multi-cluster")
)
BALANCER, SAMPLER = (COLLECTORS / "tail-sampling" / f"{name}.yaml" for name in ("balancer", "sampler"))
# By configuration: the file of Kubernetes that has it, and the name of its ConfigMap there.
DEPLOYED = {
    GATEWAY: (COLLECTORS / "gateway" / "kubernetes.yaml", "otel-collector"),
    CORRELATION: (COLLECTORS / "correlation" / "kubernetes.yaml", "otel-collector"),
    MULTI_CLUSTER: (COLLECTORS / "multi-cluster" / "kubernetes.yaml", "otel-collector"),
    BALANCER: (COLLECTORS / "tail-sampling" / "kubernetes.yaml", "otel-collector"),
    SAMPLER: (COLLECTORS / "tail-sampling" / "kubernetes.yaml", "otel-sampler"),
}
KUBERNETES = sorted({file for file, _ in DEPLOYED.values()})
# The manifests with the filter, by the name of the Collector's receiver that they send to.
PLUGINS = {name: COLLECTORS / f"{name}.yaml" for name in ("otlp-http", "otlp-grpc", "zipkin")}
FILES = [*DEPLOYED, *KUBERNETES]

TOKEN = "a token of the backend"
# A variable of a configuration that has no default.
REQUIRED = re.compile(r"\$\{env:(\w+)\}")
HEALTH_BY_COMPONENTS = "--feature-gates=+extension.healthcheck.useComponentStatus"
EXPORT_SOON = {"interval_ms": 100}


class Backend(Receiver):
    """A receiver that takes only what comes with its token."""

    def keep(self, path, headers, body):
        is_allowed = headers.get("authorization") == f"Bearer {TOKEN}"
        return super().keep(path, headers, body, 200 if is_allowed else 401)


@dataclass(frozen=True)
class RunningCollector:
    """The ports of a Collector, by what listens there, and its program."""

    ports: dict[str, int]
    program: Program

    def answer(self, port: str, target: str) -> str | None:
        return admin_answer(self.ports[port], target)

    def metrics(self, name: str) -> int:
        """Returns the sum of a metric's series; 0 when there is none yet."""
        lines = [line for line in self.answer("metrics", "/metrics").splitlines() if line.startswith(f"{name}{{")]
        return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines)

    def wait_for_metric(self, name: str, value: int) -> None:
        self.program.wait_until(lambda: self.metrics(name) >= value)

    def log(self) -> str:
        return self.program.log.read_text()


def ports_of_a_collector() -> dict[str, int]:
    ports = free_ports()
    return {name: next(ports) for name in ("otlp-http", "otlp-grpc", "zipkin", "health", "pprof", "zpages", "metrics")}


@contextlib.contextmanager
def running(
    file: Path,
    log: Path,
    *,
    backend: int | None = None,
    token: str | None = TOKEN,
    ports: dict[str, int] | None = None,
    arguments: tuple = (),
    **environment: str,
) -> Iterator[RunningCollector]:
    """Runs a Collector on loopback; it sends to the port `backend`, with `token`."""
    ports = ports or ports_of_a_collector()
    endpoints = {"OTLP_HTTP": "otlp-http", "OTLP_GRPC": "otlp-grpc"}
    endpoints |= {name.upper(): name for name in ("zipkin", "health", "pprof", "zpages")}
    settings = {f"{name}_ENDPOINT": f"127.0.0.1:{ports[port]}" for name, port in endpoints.items()}
    settings |= {"METRICS_HOST": "127.0.0.1", "METRICS_PORT": str(ports["metrics"]), "BATCH_TIMEOUT": "50ms"}
    if backend is not None:
        settings["BACKEND_ENDPOINT"] = f"http://127.0.0.1:{backend}"
    if token is not None:
        settings["BACKEND_TOKEN"] = token
    command = [tools.collector(BUILDER_CONFIGURATION), "--config", file, *arguments]
    with Program(command, log, os.environ | settings | environment) as program:
        program.wait_until(lambda: admin_answer(ports["health"], "/health") is not None)
        yield RunningCollector(ports, program)


def plugin_lane(manifest: Path, port: int) -> Lane:
    """Returns a lane whose filters export as the manifest says."""
    given = yaml.safe_load(manifest.read_text())["spec"]["pluginConfig"]
    (exporter,) = given["exporter"].values()
    return lane_of(given["exporter"], exporter["cluster"], port, exporter.get("protocol") == "grpc")


def lane_of(exporter: dict, cluster: str | None, port: int, is_http2: bool = False) -> Lane:
    change = speaks_http2 if is_http2 else lambda _: None
    given = lane(1, collector_port=port, collector_cluster=cluster, change=change)
    given.filter["exporter"] = exporter | {"batch": EXPORT_SOON}
    return given


def chain(spans: list[Span]) -> list[Span]:
    """Returns the spans of a trace from its root on, each the parent of the next."""
    (span,) = (one for one in spans if one.parent_span_id not in {each.span_id for each in spans})
    ordered = [span]
    while len(ordered) < len(spans):
        (span,) = (one for one in spans if one.parent_span_id == span.span_id)
        ordered.append(span)
    return ordered


# What is wrong with the filter's exporter: the exporter, the Collector's port, whether its cluster speaks HTTP/2,
# and what the filter's log says.
WRONG = {
    "a cluster that Envoy does not know": (
        {"otlp": {"cluster": "otel-colector"}},
        "otlp-http",
        False,
        "does not accept spans: Envoy knows no such cluster",
    ),
    "OTLP over HTTP to the port of gRPC": ({"otlp": {}}, "otlp-grpc", False, "does not accept spans: answered 502"),
    "OTLP over HTTP to the port of gRPC, by HTTP/2": (
        {"otlp": {}},
        "otlp-grpc",
        True,
        "were dropped in this worker: . rejected; it answered 415",
    ),
    "gRPC to the port of HTTP": (
        {"otlp": {"protocol": "grpc"}},
        "otlp-http",
        True,
        "does not accept spans: answered the gRPC status UNAVAILABLE: .* protocol error",
    ),
    "gRPC through a cluster of HTTP/1.1": (
        {"otlp": {"protocol": "grpc"}},
        "otlp-grpc",
        False,
        "does not accept spans: answered the gRPC status UNAVAILABLE: .* protocol error",
    ),
    "Zipkin to the port of OTLP": (
        {"zipkin": {}},
        "otlp-http",
        False,
        "were dropped in this worker: . rejected; it answered 404",
    ),
    "OTLP to the port of Zipkin": (
        {"otlp": {}},
        "zipkin",
        False,
        "were dropped in this worker: . rejected; it answered 400",
    ),
}


def wrong_lane(row: str, ports: dict[str, int]) -> tuple[str, Lane]:
    """Returns the cluster that the filter of a row names, and its lane."""
    exporter, port, is_http2, _ = WRONG[row]
    ((kind, settings),) = exporter.items()
    # The log says a thing about a cluster once a minute, so each row has its own.
    cluster = settings.get("cluster") or f"collector-{list(WRONG).index(row)}"
    known = None if "cluster" in settings else cluster
    return cluster, lane_of({kind: settings | {"cluster": cluster}}, known, ports[port], is_http2)


@pytest.fixture(scope="module")
def backend():
    with Backend() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def gateway(backend, tmp_path_factory):
    log = tmp_path_factory.mktemp("gateway") / "collector.log"
    with running(GATEWAY, log, backend=backend.port) as collector:
        yield collector


@pytest.fixture(scope="module")
def mesh(gateway, newest_envoy):
    """An Envoy with a lane for each way to export, right and wrong."""
    lanes = {name: plugin_lane(manifest, gateway.ports[name]) for name, manifest in PLUGINS.items()}
    lanes |= {row: wrong_lane(row, gateway.ports)[1] for row in WRONG}
    with SharedTopology(lanes, envoy=newest_envoy) as topology, Client(topology, "1.1") as client:
        yield client


@pytest.mark.parametrize("name", PLUGINS)
def test_the_gateway_passes_spans_on(gateway, mesh, backend, name):
    parent, request_id = new_context(), str(uuid.uuid4())
    target = "/orders/7?status=503"
    mesh.through(name, target, {"traceparent": parent.traceparent("01"), "x-request-id": request_id})

    spans = chain(backend.trace(parent.trace_id, 3))
    assert [(span.service, span.kind, span.status) for span in spans] == [
        ("frontend", "SERVER", "ERROR"),
        ("frontend", "CLIENT", "ERROR"),
        ("backend", "SERVER", "ERROR"),
    ]
    assert {span.resource["mesh.name"] for span in spans} == {"istio"}
    if name != "zipkin":  # where every value is a text
        given = "frontend", "1.1", target, request_id, name
        error = {"http.response.status_code": 503, "error.type": "503", "user_agent.original": "tests"}
        recorded = server_attributes(*given, **error)
        removed = ("upstream_cluster", "upstream_address")
        assert spans[0].attributes == {key: recorded[key] for key in recorded if key not in removed}
    for span in spans:
        assert not {"upstream_cluster", "downstream_cluster", "upstream_address"} & span.attributes.keys()
        assert (span.attributes["component"], span.attributes["span.source"]) == ("proxy", "mesh")


def test_the_extensions_of_operations_answer(gateway):
    assert '"status":"Server available"' in gateway.answer("health", "/health")
    assert "heap profile" in gateway.answer("pprof", "/debug/pprof/heap?debug=1")
    assert "otlp_http" in gateway.answer("zpages", "/debug/pipelinez")
    assert "otelcol_exporter_queue_capacity" in gateway.answer("metrics", "/metrics")


@pytest.mark.parametrize("row", WRONG)
def test_what_a_wrong_exporter_looks_like(gateway, mesh, row):
    cluster, _ = wrong_lane(row, gateway.ports)
    mesh.through(row, "/orders")
    expected = re.compile(f'collector at cluster "{cluster}" {WRONG[row][-1]}')
    mesh.topology.program.wait_until(lambda: expected.search(mesh.topology.log()))


def test_a_missing_token_shows_in_metrics_and_in_no_health_check(backend, newest_envoy, tmp_path):
    """Neither in the check of pipelines that the extension has had for long, nor in that by components."""
    changed = tmp_path / "changed.yaml"
    pipeline_check = {"enabled": True, "interval": "1s", "exporter_failure_threshold": 1}
    changed.write_text(yaml.safe_dump({"extensions": {"health_check": {"check_collector_pipeline": pipeline_check}}}))
    arguments = {"pipelines": ("--config", str(changed)), "components": (HEALTH_BY_COMPONENTS,)}
    context = new_context()
    with ExitStack() as stack:
        collectors = {
            name: stack.enter_context(
                running(GATEWAY, tmp_path / name, backend=backend.port, token=None, arguments=arguments[name])
            )
            for name in arguments
        }
        lanes = {name: plugin_lane(PLUGINS["otlp-http"], it.ports["otlp-http"]) for name, it in collectors.items()}
        # Two clusters of one Envoy cannot have the same name.
        port = collectors["components"].ports["otlp-http"]
        lanes["components"] = lane_of({"otlp": {"cluster": "second"}}, "second", port)
        topology = stack.enter_context(SharedTopology(lanes, envoy=newest_envoy))
        client = stack.enter_context(Client(topology, "1.1"))
        for name, collector in collectors.items():
            for _ in range(2):
                client.through(name, "/orders", {"traceparent": context.traceparent("01")})
            collector.wait_for_metric("otelcol_exporter_send_failed_spans", 6)
            assert collector.answer("health", "/health") is not None
            for logged in ["Exporting failed. Dropping data.", "HTTP Status Code 401"]:
                collector.program.wait_until(lambda line=logged, of=collector: line in of.log())
        stats = topology.wait_for_stats(lambda stats: stats["sidespan_spans_exported_total"] == 12)
    # The filters did their part.
    assert books(stats) == {"recorded": 12, "exported": 12, "queued": 0}
    assert [span for span in backend.spans() if span.trace_id == context.trace_id] == []


def test_the_books_balance_while_the_collector_has_no_memory(backend, newest_envoy, tmp_path):
    tiny = tmp_path / "tiny.yaml"
    limit = {"check_interval": "100ms", "limit_mib": 2, "spike_limit_mib": 1}
    tiny.write_text(yaml.safe_dump({"processors": {"memory_limiter": limit}}))
    ports = ports_of_a_collector()
    exported = plugin_lane(PLUGINS["otlp-http"], ports["otlp-http"])
    exported.filter["exporter"]["batch"] = EXPORT_SOON | {"max_queue_spans": 20}
    exported.filter["exporter"]["retry"] = {"initial_interval_ms": 100, "max_interval_ms": 200}
    full = 'sidespan_spans_dropped_total{reason="queue_full"}'
    context = new_context()
    with SharedTopology({"": exported}, envoy=newest_envoy) as topology, Client(topology, "1.1") as client:
        with running(
            GATEWAY, tmp_path / "tiny.log", backend=backend.port, ports=ports, arguments=("--config", str(tiny))
        ) as collector:
            collector.program.wait_until(lambda: "Memory usage is above soft limit. Refusing data." in collector.log())
            for _ in range(30):
                client.through("", "/orders", {"traceparent": context.traceparent("01")})
            stats = topology.wait_for_stats(lambda stats: stats["sidespan_spans_recorded_total"] == 90)
            collector.wait_for_metric("otelcol_receiver_refused_spans", 1)
            topology.program.wait_until(lambda: "does not accept spans: answered 503" in topology.log())
        refused = books(stats)
        assert refused["exported"] == 0 and refused["queue_full"] > 0 and refused["queued"] > 0
        assert sum(refused.values()) == 2 * refused["recorded"]

        with running(GATEWAY, tmp_path / "collector.log", backend=backend.port, ports=ports):
            stats = topology.wait_for_stats(lambda stats: stats["sidespan_spans_queued"] == 0)
            taken = stats["sidespan_spans_exported_total"]
            backend.trace(context.trace_id, taken)
    dropped = stats[full]
    assert books(stats) == {"recorded": 90, "exported": taken, "queued": 0, "queue_full": dropped}
    assert taken == refused["queued"] and taken + dropped == 90
    assert len({span.span_id for span in backend.spans() if span.trace_id == context.trace_id}) == taken


@pytest.fixture(scope="module")
def correlated(backend, newest_envoy, tmp_path_factory):
    """An Envoy and an application on OpenTelemetry's SDK, both with the Collector that tells them apart."""
    folder = tmp_path_factory.mktemp("correlation")
    with ExitStack() as stack:
        collector = stack.enter_context(running(CORRELATION, folder / "collector.log", backend=backend.port))
        port = next(free_ports())
        exported = lane(1, frontend=port, collector_port=collector.ports["otlp-http"], batch=EXPORT_SOON)
        pod = {"k8s.namespace.name": "shop", "k8s.pod.name": "frontend-5d7"}
        exported.filter["resource_attributes"] = pod
        unnamed = {"service_name": "unknown_service:envoy"}
        exported.listeners["frontend-outbound"] = unnamed | {
            "custom_tags": [{"tag": "istio.canonical_service", "literal": {"value": "frontend"}}]
        }
        exported.listeners["backend-inbound"] = unnamed | {"resource_attributes": {"k8s.deployment.name": "backend"}}
        own = Lane(
            filter={"exporter": None, "sampling": {"rules": [{"name": "all", "decision": "ignore"}]}},
            collector_port=collector.ports["zipkin"],
            collector_cluster="zipkin",
            change=traced_by_envoy,
        )
        topology = stack.enter_context(SharedTopology({"app": exported, "own": own}, envoy=newest_envoy))
        settings = {
            "PORT": str(port),
            "NEXT": f"http://127.0.0.1:{topology.lane('app').frontend_outbound}/orders",
            "OTEL_SERVICE_NAME": "frontend",
            # As a Deployment has it, with `$(POD_NAME)` for the values.
            "OTEL_RESOURCE_ATTRIBUTES": "POD_NAME=frontend-5d7,NAMESPACE=shop",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.ports['otlp-http']}",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
        command = [tools.python_with(APP / "requirements.txt"), APP / "app.py"]
        app = stack.enter_context(Program(command, folder / "app.log", inherited | settings))
        app.wait_until(lambda: admin_answer(port, "/healthz") is not None)
        yield stack.enter_context(Client(topology, "1.1"))


def traced_by_envoy(resources: dict) -> None:
    """Switches Envoy's own tracer on in every listener of a lane."""
    zipkin = {
        "@type": "type.googleapis.com/envoy.config.trace.v3.ZipkinConfig",
        "collector_cluster": "zipkin",
        "collector_endpoint": "/api/v2/spans",
        "collector_endpoint_version": "HTTP_JSON",
    }
    for listener in resources["listeners"]:
        provider = {"name": "envoy.tracers.zipkin", "typed_config": zipkin}
        connection_manager(listener)["tracing"] = {"random_sampling": {"value": 100}, "provider": provider}


def test_mesh_and_application_are_told_apart_in_one_tree(correlated, backend):
    context = new_context()
    correlated.through("app", "/call", {"traceparent": context.traceparent("01")})

    spans = chain(backend.trace(context.trace_id, 5))
    assert spans[0].parent_span_id == context.span_id
    assert [(span.attributes["span.source"], span.kind, span.service) for span in spans] == [
        ("mesh", "SERVER", "frontend"),
        ("application", "SERVER", "frontend"),
        ("application", "CLIENT", "frontend"),
        # Neither said its service: by Istio's label, and by the Deployment.
        ("mesh", "CLIENT", "frontend"),
        ("mesh", "SERVER", "backend"),
    ]
    # The backend's filter names no pod.
    places = [(it.resource["k8s.namespace.name"], it.resource["k8s.pod.name"]) for it in spans[:4]]
    assert places == [("shop", "frontend-5d7")] * 4
    assert not any({"POD_NAME", "NAMESPACE"} & span.resource.keys() for span in spans)


def test_spans_of_envoys_own_tracer_are_the_meshs(correlated, backend):
    trace_id = new_context().trace_id
    correlated.through("own", "/orders", {"x-b3-traceid": trace_id, "x-b3-spanid": trace_id[:16], "x-b3-sampled": "1"})

    spans = backend.trace(trace_id, 3)
    assert [span.attributes["span.source"] for span in spans] == ["mesh"] * 3


def test_a_trace_across_clusters_tells_the_cluster_of_each_span(backend, newest_envoy, tmp_path):
    """The Collector of `west` exports to that of `east`, which has the same configuration."""
    context = new_context()
    with ExitStack() as stack:

        def start(cluster: str, backend: int) -> RunningCollector:
            log = tmp_path / f"{cluster}.log"
            return stack.enter_context(running(MULTI_CLUSTER, log, backend=backend, CLUSTER_NAME=cluster))

        def start_envoy(collector: RunningCollector, **options) -> Topology:
            exported = lane(1, collector_port=collector.ports["otlp-http"], batch=EXPORT_SOON, **options)
            # What Istio says of every cluster that is not named.
            exported.filter["resource_attributes"] = {"k8s.cluster.name": "Kubernetes"}
            return stack.enter_context(SharedTopology({"": exported}, envoy=newest_envoy))

        east = start("east", backend.port)
        west = start("west", east.ports["otlp-http"])
        gateway_of_east = start_envoy(east)
        gateway_of_west = start_envoy(west, frontend=gateway_of_east.lane().frontend_inbound)
        client = stack.enter_context(Client(gateway_of_west, "1.1"))
        client.through("", "/orders", {"traceparent": context.traceparent("01")})
        spans = chain(backend.trace(context.trace_id, 4))

    clusters = [(it.resource["k8s.cluster.name"], it.resource["mesh.cluster"], it.service) for it in spans]
    assert clusters == [
        ("west", "west", "west/frontend"),
        ("east", "east", "east/frontend"),
        ("east", "east", "east/frontend"),
        ("east", "east", "east/backend"),
    ]
    assert [span.kind for span in spans] == ["SERVER", "SERVER", "CLIENT", "SERVER"]


def test_no_trace_is_split_between_samplers(newest_envoy, tmp_path):
    """Two balancers before two samplers; the frontend exports to one balancer, the backend to the other."""
    waits = {"DECISION_WAIT": "20s", "DECISION_WAIT_AFTER_ROOT": "1s"}
    with ExitStack() as stack:
        # One for each sampler, so that it is known who kept what.
        backends = [stack.enter_context(Backend()) for _ in range(2)]
        samplers = [
            stack.enter_context(running(SAMPLER, tmp_path / f"sampler-{at}.log", backend=backend.port, **waits))
            for at, backend in enumerate(backends)
        ]
        endpoints = ", ".join(f"'127.0.0.1:{sampler.ports['otlp-grpc']}'" for sampler in samplers)
        resolver = f"{{static: {{hostnames: [{endpoints}]}}}}"
        balancers = [
            stack.enter_context(running(BALANCER, tmp_path / f"balancer-{at}.log", SAMPLERS=resolver))
            for at in range(2)
        ]

        def add_second_collector(resources: dict) -> None:
            (first,) = (it for it in resources["clusters"] if it["name"] == "otel-collector")
            assignment = yaml.safe_load(yaml.safe_dump(first["load_assignment"]))
            endpoint = assignment["endpoints"][0]["lb_endpoints"][0]["endpoint"]
            endpoint["address"]["socket_address"]["port_value"] = balancers[1].ports["otlp-http"]
            resources["clusters"].append(first | {"name": "second", "load_assignment": assignment})

        exported = lane(
            1, collector_port=balancers[0].ports["otlp-http"], batch=EXPORT_SOON, change=add_second_collector
        )
        exported.listeners["backend-inbound"] = {"exporter": {"otlp": {"cluster": "second"}, "batch": EXPORT_SOON}}
        topology = stack.enter_context(SharedTopology({"": exported}, envoy=newest_envoy))
        client = stack.enter_context(Client(topology, "1.1"))

        def trace_of(target: str) -> str:
            answer = client.through("", target)
            return answer.calls[0].context()["traceparent"].split("-")[1]

        slow = trace_of("/orders?delay_ms=600")  # in each of two services
        # Of so many a share of 10 % is neither none nor all, but once in ten million runs.
        others = {trace_of("/orders") for _ in range(150)}
        failing = trace_of("/orders?status=503")
        decided = "otelcol_processor_tail_sampling_global_count_traces_sampled"
        samplers[0].program.wait_until(lambda: sum(it.metrics(decided) for it in samplers) == len(others) + 2)
        kept = [Counter(), Counter()]

        def all_came() -> bool:
            kept[:] = [Counter(span.trace_id for span in backend.spans()) for backend in backends]
            return {slow, failing} <= (kept[0] + kept[1]).keys() and set((kept[0] + kept[1]).values()) == {3}

        samplers[0].program.wait_until(all_came)
        begun = [sampler.metrics("otelcol_processor_tail_sampling_new_trace_id_received") for sampler in samplers]
        paths = [balancer.metrics("otelcol_receiver_accepted_spans") for balancer in balancers]

    # A trace of which each sampler had a part would count at both.
    assert sum(begun) == len(others) + 2 and min(begun) > 0
    assert not kept[0].keys() & kept[1].keys()
    assert 0 < len(others & (kept[0] + kept[1]).keys()) < len(others)
    assert paths == [2 * (len(others) + 2), len(others) + 2]


def test_a_balancer_finds_samplers_by_dns(tmp_path):
    """By the value of its pod, but for the name, which only a cluster knows."""
    resolver = yaml.safe_load(environment_of(*pod_of(BALANCER))["SAMPLERS"])
    resolver["dns"]["hostname"] = "localhost"
    with running(BALANCER, tmp_path / "collector.log", SAMPLERS=yaml.safe_dump(resolver)) as balancer:
        balancer.wait_for_metric("otelcol_loadbalancer_num_backends", 1)


def pod_of(configuration: Path) -> tuple[list[dict], dict]:
    """Returns the documents that are in force with a configuration, and the pod that has it."""
    file, name = DEPLOYED[configuration]
    documents = {(it["kind"], it["metadata"]["name"]): it for it in kubernetes.read(DEPLOYED[GATEWAY][0])}
    documents |= {(it["kind"], it["metadata"]["name"]): it for it in kubernetes.read(file)}
    (workload,) = (
        it for (kind, own), it in documents.items() if kind in kubernetes.WORKLOADS and own == name
    )
    return list(documents.values()), workload["spec"]["template"]["spec"]


def environment_of(documents: list[dict], pod: dict) -> dict[str, str]:
    """Returns the environment of a pod's container; what comes from a Secret is TOKEN."""
    (container,) = pod["containers"]
    maps = {it["metadata"]["name"]: it["data"] for it in documents if it["kind"] == "ConfigMap"}
    environment = {}
    for source in container.get("envFrom", []):
        environment |= maps[source["configMapRef"]["name"]]
    return environment | {it["name"]: it.get("value", TOKEN) for it in container["env"]}


@pytest.mark.parametrize("configuration", DEPLOYED, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_the_collector_takes_its_configuration_with_the_environment_of_its_pod(configuration):
    environment = environment_of(*pod_of(configuration))
    assert set(REQUIRED.findall(configuration.read_text())) <= environment.keys()
    command = [tools.collector(BUILDER_CONFIGURATION), "validate", "--config", configuration]
    checked = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("configuration", DEPLOYED, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_the_config_map_has_the_very_file(configuration):
    documents, pod = pod_of(configuration)
    (volume,) = pod["volumes"]
    (config_map,) = (
        it for it in documents if it["kind"] == "ConfigMap" and it["metadata"]["name"] == volume["configMap"]["name"]
    )
    assert config_map["data"] == {"collector.yaml": configuration.read_text()}
    (container,) = pod["containers"]
    (mount,) = container["volumeMounts"]
    assert container["args"] == [f"--config={mount['mountPath']}/collector.yaml"]


@pytest.mark.parametrize("configuration", DEPLOYED, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_kubernetes_takes_the_documents(configuration):
    documents, _ = pod_of(configuration)
    for document in documents:
        kubernetes.check(document)
    assert kubernetes.dangling_references(documents) == []


@pytest.mark.parametrize("configuration", DEPLOYED, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_the_limiter_refuses_before_go_slows_down_and_that_before_the_kernel_kills(configuration):
    documents, pod = pod_of(configuration)
    (container,) = pod["containers"]
    limit = mebibytes(container["resources"]["limits"]["memory"])
    limiter = yaml.safe_load(configuration.read_text())["processors"]["memory_limiter"]
    refuses_from = limit * (limiter["limit_percentage"] - limiter["spike_limit_percentage"]) / 100
    collects_from = mebibytes(environment_of(documents, pod)["GOMEMLIMIT"])
    assert mebibytes(container["resources"]["requests"]["memory"]) < refuses_from < collects_from < limit


def mebibytes(quantity: str) -> int:
    """Returns a quantity of Kubernetes or of Go, such as 2Gi or 1750MiB, in MiB."""
    number, unit = re.fullmatch(r"(\d+)([MG])iB?", quantity).groups()
    return int(number) * {"M": 1, "G": 1024}[unit]


def test_ports_say_their_protocol():
    documents, _ = pod_of(GATEWAY)
    (service,) = (it for it in documents if it["kind"] == "Service")
    assert {port["port"]: port["appProtocol"] for port in service["spec"]["ports"]} == {
        4317: "grpc",
        4318: "http",
        9411: "http",
    }
    # The clusters that the filters name are those that Istio makes of this Service.
    host = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.cluster.local"
    ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
    for name, manifest in PLUGINS.items():
        (exporter,) = yaml.safe_load(manifest.read_text())["spec"]["pluginConfig"]["exporter"].values()
        assert exporter["cluster"] == f"outbound|{ports[name]}||{host}"
