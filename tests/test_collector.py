"""The shipped Collector configurations, in a real Collector that stands where the receiver stood."""

import json
import os
import subprocess
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml

import tools
from conftest import lane
from expected import client_attributes, server_attributes
from shared_envoys import SharedTopology
from topology import BOOTSTRAP, Lane, Program, admin_answer, books, free_ports
from traffic import Client, new_context

CONFIGURATION = BOOTSTRAP.with_name("collector.yaml")
PRESET = BOOTSTRAP.parents[1] / "examples" / "production-tail-sampling"
CONFIGURATIONS = [CONFIGURATION, *sorted(PRESET.parent.glob("*/collector.yaml"))]
BUILDER_CONFIGURATION = Path(__file__).with_name("collector-builder.yaml")

HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

# As OTLP numbers them.
SERVER, CLIENT = 2, 3
ERROR = 2


@pytest.fixture(scope="session")
def collector():
    return tools.collector(BUILDER_CONFIGURATION)


def exported_spans(traces: Path, trace_id: str) -> list[dict]:
    """Returns the spans of a trace in what the file exporter wrote, oldest first, each with resource and schema."""
    return [span for span in all_exported_spans(traces) if span["traceId"] == trace_id]


def all_exported_spans(traces: Path) -> list[dict]:
    spans = []
    for line in traces.read_text().splitlines(keepends=True):
        if not line.endswith("\n"):
            break  # not whole yet
        for of_resource in json.loads(line)["resourceSpans"]:
            resource = attributes(of_resource["resource"])
            for of_scope in of_resource["scopeSpans"]:
                spans += [
                    # The tail_sampling processor loses the schema.
                    {**span, "resource": resource, "schemaUrl": of_scope.get("schemaUrl")}
                    for span in of_scope["spans"]
                ]
    return sorted(spans, key=lambda span: int(span["startTimeUnixNano"]))


def exported_ids(traces: Path) -> int:
    """Returns how many different spans were written: one whose answer came too late is sent again."""
    return len({span["spanId"] for span in all_exported_spans(traces)})


def attributes(part: dict) -> dict:
    # In JSON whole numbers are strings, and a double without a fraction looks like a whole number.
    types = {"intValue": int, "doubleValue": float}
    decoded = {}
    for pair in part["attributes"]:
        ((kind, value),) = pair["value"].items()
        decoded[pair["key"]] = types.get(kind, lambda same: same)(value)
    return decoded


@pytest.mark.parametrize("file", CONFIGURATIONS, ids=[file.parent.name for file in CONFIGURATIONS])
def test_shipped_configuration_is_valid(collector, file):
    checked = subprocess.run([collector, "validate", "--config", file], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


@contextmanager
def collecting(processors: dict, folder: Path) -> Iterator[tuple[int, Path]]:
    """Runs the shipped Collector with more processors; gives its port for OTLP over HTTP, and the file of spans."""
    configuration = yaml.safe_load(CONFIGURATION.read_text())
    configuration["processors"] |= processors
    pipeline = configuration["service"]["pipelines"]["traces"]
    pipeline["processors"] += list(processors)
    pipeline["exporters"] = ["file"]
    file, traces = folder / "collector.yaml", folder / "traces.json"
    file.write_text(yaml.safe_dump(configuration))
    ports = free_ports()
    health, otlp, grpc = (next(ports) for _ in range(3))
    settings = {
        "HEALTH_ENDPOINT": f"127.0.0.1:{health}",
        "OTLP_HTTP_ENDPOINT": f"127.0.0.1:{otlp}",
        "OTLP_GRPC_ENDPOINT": f"127.0.0.1:{grpc}",
        "TRACES_FILE": str(traces),
        "BATCH_TIMEOUT": "50ms",
    }
    command = [tools.collector(BUILDER_CONFIGURATION), "--config", file]
    with Program(command, folder / "collector.log", env=settings) as program:
        program.wait_until(lambda: admin_answer(health, "/") is not None)
        yield otlp, traces


def speaks_http2(resources: dict, name: str = "otel-collector") -> None:
    """Lets a cluster speak HTTP/2, as gRPC needs it."""
    (cluster,) = [it for it in resources["clusters"] if it["name"] == name]
    cluster["typed_extension_protocol_options"] = {
        HTTP_OPTIONS: {
            "@type": f"type.googleapis.com/{HTTP_OPTIONS}",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }


HTTP_CLUSTER = "outbound|4318||otel-collector.shop.svc.cluster.local"
GRPC_CLUSTER = "outbound|4317||otel-collector.shop.svc.cluster.local"
# By lane: the name of the Collector's cluster, and the exporter's settings.
EXPORTERS = {
    "plain": (None, {}),
    "gzip": (None, {"compression": "gzip"}),
    # A Host header with a `|` in it is refused by the Collector's HTTP server.
    "istio": (HTTP_CLUSTER, {}),
    "grpc": (None, {"protocol": "grpc"}),
    "istio-grpc": (GRPC_CLUSTER, {"protocol": "grpc"}),
}


def exporting(http_port: int, grpc_port: int, cluster: str | None, otlp: dict) -> Lane:
    port, change = (grpc_port, speaks_http2) if "protocol" in otlp else (http_port, lambda _: None)
    given = lane(1, collector_port=port, collector_cluster=cluster, change=change)
    given.filter["exporter"]["otlp"] |= otlp
    return given


def test_spans_pass_through_the_collector(collector, outermost_envoy, tmp_path):
    ports = free_ports()
    http_port, grpc_port, health_port = next(ports), next(ports), next(ports)
    traces = tmp_path / "traces.json"
    environment = {
        **os.environ,
        "OTLP_HTTP_ENDPOINT": f"127.0.0.1:{http_port}",
        "OTLP_GRPC_ENDPOINT": f"127.0.0.1:{grpc_port}",
        "HEALTH_ENDPOINT": f"127.0.0.1:{health_port}",
        # Nobody is there: the traces must be in the file all the same.
        "JAEGER_OTLP_ENDPOINT": f"127.0.0.1:{next(ports)}",
        "TRACES_FILE": str(traces),
        "BATCH_TIMEOUT": "100ms",
    }
    lanes = {name: exporting(http_port, grpc_port, *settings) for name, settings in EXPORTERS.items()}
    sent = {name: (new_context(), str(uuid.uuid4())) for name in lanes}
    target = "/orders/7?status=503"
    with Program([collector, "--config", CONFIGURATION], tmp_path / "collector.log", environment) as program:
        program.wait_until(lambda: admin_answer(health_port, "/") is not None)
        with SharedTopology(lanes, envoy=outermost_envoy) as running, Client(running, "1.1") as client:
            for name, (parent, request_id) in sent.items():
                client.through(name, target, {"traceparent": parent.traceparent("01"), "x-request-id": request_id})
            program.wait_until(lambda: exported_ids(traces) == 3 * len(lanes))
            stats = running.wait_for_stats(lambda stats: stats["sidespan_spans_exported_total"] == 3 * len(lanes))
            peer_ports = {name: running.lane(name).backend_inbound for name in lanes}

    assert books(stats) == {"recorded": 3 * len(lanes), "exported": 3 * len(lanes), "queued": 0}
    for name, (parent, request_id) in sent.items():
        spans = server, outbound, backend = exported_spans(traces, parent.trace_id)
        assert [(span["name"], span["kind"], span["status"]) for span in spans] == [
            ("GET", SERVER, {"code": ERROR}),
            ("GET", CLIENT, {"code": ERROR}),
            ("GET", SERVER, {"code": ERROR}),
        ], name
        parents = [span["parentSpanId"] for span in spans]
        assert parents == [parent.span_id, server["spanId"], outbound["spanId"]], name
        resources = [span["resource"] for span in spans]
        assert resources == [{"service.name": name} for name in ("frontend", "frontend", "backend")]
        assert {span["schemaUrl"] for span in spans} == {"https://opentelemetry.io/schemas/1.42.0"}
        error = {"http.response.status_code": 503, "error.type": "503"}
        assert attributes(server) == server_attributes(
            "frontend", "1.1", target, request_id, name, **error, **{"user_agent.original": "tests"}
        )
        assert attributes(outbound) == client_attributes(target, request_id, peer_ports[name], name, **error)
        assert attributes(backend) == server_attributes(
            "backend", "1.1", target, request_id, name, **error, **{"user_agent.original": "frontend"}
        )


def test_a_collector_that_takes_only_small_messages_gets_them(collector, newest_envoy, tmp_path):
    """gRPC has no status for a message that is too large; the Collector's words must be understood."""
    ports = free_ports()
    port, health_port = next(ports), next(ports)
    traces, file = tmp_path / "traces.json", tmp_path / "collector.yaml"
    grpc = {"endpoint": f"127.0.0.1:{port}", "max_recv_msg_size_mib": 1}
    file.write_text(
        yaml.safe_dump(
            {
                "extensions": {"health_check": {"endpoint": f"127.0.0.1:{health_port}"}},
                "receivers": {"otlp": {"protocols": {"grpc": grpc}}},
                "exporters": {"file": {"path": str(traces), "flush_interval": "100ms"}},
                "service": {
                    "extensions": ["health_check"],
                    "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["file"]}},
                    "telemetry": {"metrics": {"level": "none"}},
                },
            }
        )
    )
    large = lane(1, collector_port=port, change=speaks_http2, batch={"max_batch_bytes": 4 << 20})
    large.filter["exporter"]["otlp"]["protocol"] = "grpc"
    large.filter["exporter"]["retry"] = {"initial_interval_ms": 100, "max_interval_ms": 400}
    large.filter["attribute_limits"] = {"attribute_value_length_limit": 16_384}
    with SharedTopology({"": large}, envoy=newest_envoy) as running, Client(running, "1.1") as client:
        # Before the Collector starts, so that the spans gather, however long the requests take.
        for _ in range(150):
            client.send(client.lane("").backend_inbound, "/a", [("user-agent", "u" * 15_000)])
        running.wait_for_stats(lambda stats: stats["sidespan_spans_recorded_total"] == 150)
        with Program([collector, "--config", file], tmp_path / "collector.log") as program:
            program.wait_until(lambda: admin_answer(health_port, "/") is not None)
            stats = running.wait_for_stats(lambda stats: stats["sidespan_spans_exported_total"] == 150)
            program.wait_until(lambda: exported_ids(traces) == 150)
    assert books(stats) == {"recorded": 150, "exported": 150, "queued": 0}
    assert stats['sidespan_exports_total{result="failure"}'] > 0


def test_exports_over_grpc_are_not_traced(collector, outermost_envoy, tmp_path):
    """A second Envoy stands before the Collector, and its filter takes roots with ratio 1."""
    ports = free_ports()
    port, health_port = next(ports), next(ports)
    environment = {
        **os.environ,
        "OTLP_HTTP_ENDPOINT": f"127.0.0.1:{next(ports)}",
        "OTLP_GRPC_ENDPOINT": f"127.0.0.1:{port}",
        "HEALTH_ENDPOINT": f"127.0.0.1:{health_port}",
        "JAEGER_OTLP_ENDPOINT": f"127.0.0.1:{next(ports)}",
        "TRACES_FILE": str(tmp_path / "traces.json"),
        "BATCH_TIMEOUT": "100ms",
    }
    before = lane(1, frontend=port, change=lambda resources: speaks_http2(resources, "frontend-service"))
    with ExitStack() as stack:
        command = [collector, "--config", CONFIGURATION]
        program = stack.enter_context(Program(command, tmp_path / "collector.log", environment))
        program.wait_until(lambda: admin_answer(health_port, "/") is not None)
        collector_side = stack.enter_context(SharedTopology({"": before}, envoy=outermost_envoy))
        frontend = collector_side.lane().frontend_inbound
        exported = lane(1, batch={"interval_ms": 10}, collector_port=frontend, change=speaks_http2)
        exported.filter["exporter"]["otlp"]["protocol"] = "grpc"
        running = stack.enter_context(SharedTopology({"": exported}, envoy=outermost_envoy))
        client = stack.enter_context(Client(running, "1.1"))
        succeeded = 'sidespan_exports_total{result="success"}'
        while running.stats().get(succeeded, 0) < 30:
            client.send(running.lane().backend_inbound, "/a")
        followed = 'sidespan_decisions_total{decision="parent"}'
        stats = collector_side.wait_for_stats(lambda stats: stats[followed] >= 30)
    assert (stats["sidespan_spans_recorded_total"], stats['sidespan_decisions_total{decision="ratio"}']) == (0, 0)


def test_collector_keeps_errors_slow_traces_and_a_share_of_the_rest(collector, newest_envoy, tmp_path):
    """Two sidecars and, before them, the gateway of the preset, with the preset's Collector behind."""
    ports = free_ports()
    http_port, health_port = next(ports), next(ports)
    traces = tmp_path / "traces.json"
    here = tmp_path / "here.yaml"
    here.write_text(
        yaml.safe_dump(
            {
                "extensions": {"health_check": {"endpoint": f"127.0.0.1:{health_port}"}},
                "receivers": {
                    "otlp": {
                        "protocols": {
                            "grpc": {"endpoint": f"127.0.0.1:{next(ports)}"},
                            "http": {"endpoint": f"127.0.0.1:{http_port}"},
                        }
                    }
                },
                "exporters": {"file": {"path": str(traces), "flush_interval": "100ms"}},
                "service": {
                    "pipelines": {"traces": {"exporters": ["file"]}},
                    "telemetry": {"metrics": {"level": "none"}},
                },
            }
        )
    )
    command = [collector, "--config", PRESET / "collector.yaml", "--config", here]
    gateway, sidecar = filter_of("gateway.yaml"), filter_of("plugin.yaml")
    lanes = {
        "": Lane(
            filter=sidecar,
            listeners={"frontend-inbound": gateway},
            collector_port=http_port,
            collector_cluster=sidecar["exporter"]["otlp"]["cluster"],
        )
    }
    outside = new_context()
    with Program(command, tmp_path / "collector.log") as program:
        program.wait_until(lambda: admin_answer(health_port, "/") is not None)
        with SharedTopology(lanes, envoy=newest_envoy) as running, Client(running, "1.1") as client:

            def trace_of(target: str) -> str:
                answer = client.through("", target, {"traceparent": outside.traceparent("00")})
                return answer.calls[0].context()["traceparent"].split("-")[1]

            failing = trace_of("/orders?status=503")
            slow = trace_of("/orders?delay_ms=600")  # in each of two services
            # Of so many a share of 10 % is neither none nor all, but once in ten million runs.
            others = {trace_of("/orders") for _ in range(150)}
            check = trace_of("/healthz")
            # The last to come, so that those before it are decided as soon as it is.
            last = trace_of("/orders?status=500")
            program.wait_until(lambda: len(exported_spans(traces, last)) == 3)
            stats = running.wait_for_stats(lambda stats: stats["sidespan_spans_exported_total"] == 3 * 153)

    spans_of = Counter(span["traceId"] for span in all_exported_spans(traces))
    kept = others & spans_of.keys()
    assert spans_of == dict.fromkeys({failing, slow, last} | kept, 3)
    assert 0 < len(kept) < len(others)
    assert outside.trace_id not in spans_of and check not in spans_of
    root, *_ = exported_spans(traces, failing)
    assert not root.get("parentSpanId")
    assert [(link["traceId"], link["spanId"]) for link in root["links"]] == [
        (outside.trace_id, outside.span_id)
    ]
    assert books(stats) == {"recorded": 3 * 153, "exported": 3 * 153, "queued": 0}
    assert stats["sidespan_contexts_restarted_total"] == 154


def filter_of(manifest: str) -> dict:
    """Returns the filter configuration of the preset, without those keys of the bootstrap's that it has not."""
    given = yaml.safe_load((PRESET / manifest).read_text())["spec"]["pluginConfig"]
    return {"service_name": manifest, "custom_tags": None} | given
