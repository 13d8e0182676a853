"""The shipped Collector configuration, in a real Collector that stands where the receiver stood."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
import tools
from conftest import lane
from topology import BOOTSTRAP, Program, Topology, admin_answer, free_ports
from traffic import Client, new_context

CONFIGURATION = BOOTSTRAP.with_name("collector.yaml")
BUILDER_CONFIGURATION = Path(__file__).with_name("collector-builder.yaml")


@pytest.fixture(scope="session")
def collector():
    return tools.collector(BUILDER_CONFIGURATION)


def exported_spans(traces: Path, trace_id: str) -> list[dict]:
    """Returns the spans of a trace in what the file exporter wrote, each with its service."""
    spans = []
    # The last line may not be whole yet.
    for line in traces.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            for resource in json.loads(line)["resourceSpans"]:
                service = attributes(resource["resource"])["service.name"]
                for scope in resource["scopeSpans"]:
                    spans += [{"service": service, **span} for span in scope["spans"] if span["traceId"] == trace_id]
    return spans


def attributes(part: dict) -> dict:
    return {pair["key"]: next(iter(pair["value"].values())) for pair in part["attributes"]}


def test_shipped_configuration_is_valid(collector):
    checked = subprocess.run([collector, "validate", "--config", CONFIGURATION], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_spans_pass_through_the_collector(collector, newest_envoy, tmp_path):
    ports = free_ports()
    http_port, health_port = next(ports), next(ports)
    traces = tmp_path / "traces.json"
    environment = {
        **os.environ,
        "OTLP_HTTP_ENDPOINT": f"127.0.0.1:{http_port}",
        "OTLP_GRPC_ENDPOINT": f"127.0.0.1:{next(ports)}",
        "HEALTH_ENDPOINT": f"127.0.0.1:{health_port}",
        "JAEGER_OTLP_ENDPOINT": f"127.0.0.1:{next(ports)}",
        "TRACES_FILE": str(traces),
        "BATCH_TIMEOUT": "100ms",
    }
    with Program([collector, "--config", CONFIGURATION], tmp_path / "collector.log", environment) as program:
        program.wait_until(lambda: admin_answer(health_port, "/") is not None)
        configured = lane(1, collector_port=http_port)
        with Topology({"": configured}, envoy=newest_envoy) as running, Client(running, "1.1") as client:
            parent = new_context()
            client.through("", "/orders/7?status=503", {"traceparent": parent.traceparent("01")})
            deadline = time.monotonic() + 20
            while len(spans := exported_spans(traces, parent.trace_id)) < 3:
                assert time.monotonic() < deadline, program.log.read_text()
                time.sleep(0.05)
            stats = running.wait_for_stats(lambda stats: stats["sidespan.spans_exported"] == 3)

    server, outbound, backend = sorted(spans, key=lambda span: int(span["startTimeUnixNano"]))
    assert [(span["service"], span["kind"], span["name"]) for span in (server, outbound, backend)] == [
        ("frontend", 2, "GET"),
        ("frontend", 3, "GET"),
        ("backend", 2, "GET"),
    ]
    assert [span["parentSpanId"] for span in (server, outbound, backend)] == [
        parent.span_id,
        server["spanId"],
        outbound["spanId"],
    ]
    assert [attributes(span)["http.response.status_code"] for span in (server, outbound, backend)] == ["503"] * 3
    assert stats["sidespan.spans_dropped"] == 0
