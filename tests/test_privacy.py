"""What the page on privacy offers keeps personal data out: its filter and its Collector, whole."""

import re
from pathlib import Path

import yaml

from conftest import lane
from test_collector import all_exported_spans, attributes, collecting
from topology import Topology
from traffic import Client, new_context

PAGE = (Path(__file__).parents[1] / "docs" / "privacy.md").read_text()
PERSONAL = {
    "x-user-id": "user-4711",
    "x-phone": "0301234567",
    "baggage": "tenant=a-tenant-with-a-long-name,user=4711",
    "user-agent": "browser of Ann",
    "authorization": "Bearer of-ann",
}
TARGET = "/orders/ann;jsessionid=of-ann?email=ann%40example.com&token=of-ann"


def exported_attributes(envoy: Path, folder: Path, options: dict, processors: dict) -> list[dict]:
    """Returns the attributes of a request's three spans, as they leave a Collector with these processors."""
    rules = options.pop("sampling", {}).get("rules", [])
    listeners = {name: options for name in ["frontend-inbound", "frontend-outbound", "backend-inbound"]}
    with collecting(processors, folder) as (otlp, traces):
        lanes = {"": lane(1, rules=rules, collector_port=otlp, listeners=listeners)}
        with Topology(lanes, envoy=envoy) as running, Client(running, "1.1") as client:
            client.through("", "/account/ann", PERSONAL | {"traceparent": new_context().traceparent("01")})
            client.through("", TARGET, PERSONAL | {"traceparent": new_context().traceparent("01")})
            recorded = 3 if rules else 6
            running.program.wait_until(lambda: traces.exists() and len(all_exported_spans(traces)) >= recorded)
            running.wait_for_stats(lambda stats: stats["sidespan_spans_recorded_total"] == recorded)
    return [attributes(span) for span in all_exported_spans(traces)]


def test_filter_and_collector_of_the_page_leave_nothing_personal(newest_envoy, tmp_path):
    blocks = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    options, collector = (yaml.safe_load(block) for block in blocks)
    spans = exported_attributes(newest_envoy, tmp_path, options, collector["processors"])
    text = str(spans)
    personal = ["ann", "user-4711", "user=4711", "0301234567", "127.0.0.1'", "long-name"]
    assert [word for word in personal if word in text] == []
    assert spans[0]["phone"] == "******4567"
    assert spans[0]["tenant"] == "a-tenant-with-a-"
    assert spans[0]["url.query"] == "email=REDACTED&token=REDACTED"


def test_what_the_page_says_of_the_defaults(newest_envoy, tmp_path):
    spans = exported_attributes(newest_envoy, tmp_path, {}, {})
    # The three of the other request come first.
    server = spans[3]
    assert server["url.path"] == "/orders/ann;jsessionid=REDACTED"
    assert server["url.query"] == "email=ann%40example.com&token=REDACTED"
    assert server["user_agent.original"] == "browser of Ann"
    assert server["client.address"] == "127.0.0.1"
    assert "of-ann" not in str(spans)
