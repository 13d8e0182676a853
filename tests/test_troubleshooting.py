"""What the page on troubleshooting says is what one sees: names, texts, and what the Collector makes of a name."""

import re
from pathlib import Path

import pytest
import yaml

import tools
from conftest import lane
from test_collector import BUILDER_CONFIGURATION, CONFIGURATION, all_exported_spans
from test_resource import ISTIO_METADATA
from topology import MODULE, Program, Topology, admin_answer, free_ports
from traffic import Client, new_context

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "troubleshooting.md").read_text()
METRICS = (DOCS / "metrics.md").read_text()


def test_metrics_are_documented():
    named = set(re.findall(r"`(sidespan_\w+)", PAGE))
    assert named and named - set(re.findall(r"`(sidespan_\w+)", METRICS)) == set()


@pytest.mark.parametrize(
    "text",
    [
        "configuration refused",
        "a protobuf message",
        "bytes that are not UTF-8",
        "what looks like YAML",
        "Envoy knows no such cluster",
        "answered ",
        "answered the gRPC status ",
        "queue_full",
        "retries_exhausted",
        "sidespan.reason",
    ],
)
def test_texts_are_those_of_the_filter(text):
    assert text.strip() in PAGE
    assert text.encode() in MODULE.read_bytes()


def test_the_collector_makes_the_names_of_istios_tracer(newest_envoy, tmp_path):
    (block,) = re.findall(r"^```yaml\n(processors:.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    configuration = yaml.safe_load(CONFIGURATION.read_text())
    configuration["processors"] |= yaml.safe_load(block)["processors"]
    pipeline = configuration["service"]["pipelines"]["traces"]
    pipeline["processors"].append("transform/istio-names")
    pipeline["exporters"] = ["file"]
    file, traces = tmp_path / "collector.yaml", tmp_path / "traces.json"
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
    context = new_context()
    command = [tools.collector(BUILDER_CONFIGURATION), "--config", file]
    unnamed = lane(1, collector_port=otlp, listeners={"frontend-inbound": {"service_name": None}})
    with Program(command, tmp_path / "collector.log", env=settings) as collector:
        collector.wait_until(lambda: admin_answer(health, "/") is not None)
        with (
            Topology({"": unnamed}, envoy=newest_envoy, node={"id": "sidecar", "cluster": "checkout.shop", "metadata": ISTIO_METADATA}) as running,
            Client(running, "1.1") as client,
        ):
            client.through("", "/a", {"traceparent": context.traceparent("01")})
            running.program.wait_until(lambda: traces.exists() and len(all_exported_spans(traces)) == 3)
    names = {span["resource"]["service.name"] for span in all_exported_spans(traces)}
    assert "checkout.shop" in names
