"""What the page on troubleshooting says is what one sees: names, texts, and what the Collector makes of a name."""

import re
from pathlib import Path

import pytest
import yaml

from conftest import lane
from test_collector import all_exported_spans, collecting
from test_resource import ISTIO_METADATA
from topology import MODULE, Topology
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
    context = new_context()
    node = {"id": "sidecar", "cluster": "checkout.shop", "metadata": ISTIO_METADATA}
    with collecting(yaml.safe_load(block)["processors"], tmp_path) as (otlp, traces):
        unnamed = lane(1, collector_port=otlp, listeners={"frontend-inbound": {"service_name": None}})
        with Topology({"": unnamed}, envoy=newest_envoy, node=node) as running, Client(running, "1.1") as client:
            client.through("", "/a", {"traceparent": context.traceparent("01")})
            running.program.wait_until(lambda: traces.exists() and len(all_exported_spans(traces)) == 3)
        services = [span["resource"]["service.name"] for span in all_exported_spans(traces)]
    assert services == ["checkout.shop", "frontend.shop", "backend.shop"]
