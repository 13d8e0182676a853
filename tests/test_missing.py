"""Attributes, clusters and functions that are missing or change while Envoy runs harm no request."""

from conftest import lane
from load import Load
from shared_envoys import SharedTopology
from test_module import exports, imports
from topology import Topology, wasm_configuration
from traffic import Client, new_context

FOREIGN = "proxy_call_foreign_function"
TAGS = [
    {"tag": "missing.attribute", "property": {"path": "connection.of_a_later_envoy"}},
    {"tag": "missing.part", "property": {"path": "later.attribute", "default_value": "none"}},
    {"tag": "missing.variable", "environment": {"name": "NOT_GIVEN"}},
    {"tag": "default.variable", "environment": {"name": "NOT_GIVEN", "default_value": "none"}},
    {"tag": "method", "property": {"path": "request.method"}},
]
TAGGED = {"missing.part": "none", "default.variable": "none", "method": "GET"}


def without_foreign_functions(module: bytes):
    """Returns what forbids a lane's filters Envoy's own functions: CEL and zlib."""
    names = [name for _, name in imports(module)] + exports(module)
    allowed = {"allowed_capabilities": {name: {} for name in names if name != FOREIGN}}

    def change(resources: dict) -> None:
        for listener in resources["listeners"]:
            wasm_configuration(listener)["capability_restriction_config"] = allowed

    return change


def check_span(running: Topology) -> None:
    """Sends a request whose span has the tags that can be had, and all of its own attributes."""
    parent = new_context()
    with Client(running, "1.1") as client:
        client.through("", "/a", {"traceparent": parent.traceparent("01")})
        (span, *_) = client.spans(parent.trace_id)
    tags = {key: value for key, value in span.attributes.items() if key in {tag["tag"] for tag in TAGS}}
    assert tags == TAGGED
    assert span.attributes["http.response.status_code"] == 200


def no_errors(running: Topology) -> bool:
    """Tells whether neither Envoy nor a filter logged an error, but for calls that the test forbids."""
    errors = [line for line in running.log().splitlines() if "[error]" in line or "[critical]" in line]
    return all(f"restricted proxy-wasm capability: {FOREIGN}" in line for line in errors)


def test_tags_that_this_envoy_cannot_have(outermost_envoy):
    lanes = {"": lane(1, listeners={"frontend-inbound": {"custom_tags": TAGS}})}
    with SharedTopology(lanes, envoy=outermost_envoy) as running:
        check_span(running)
        assert no_errors(running)


def test_envoy_without_foreign_functions(outermost_envoy, module):
    """Attributes are read one by one, and export requests are sent uncompressed."""
    compressed = {"otlp": {"cluster": "otel-collector", "compression": "gzip"}, "batch": {"interval_ms": 100}}
    options = {"custom_tags": TAGS, "exporter": compressed}
    lanes = {
        "": lane(
            1,
            listeners={"frontend-inbound": options},
            change=without_foreign_functions(module.read_bytes()),
        )
    }
    with SharedTopology(lanes, envoy=outermost_envoy) as running:
        check_span(running)
        check_span(running)
        exports = running.receiver.exports()
        assert len(exports) > 1 and all("content-encoding" not in export.headers for export in exports)
        assert running.log().count("export requests are sent uncompressed: Envoy cannot compress them") == 1
        assert no_errors(running)


def test_node_without_metadata(outermost_envoy):
    nameless = lane(1, listeners={"frontend-inbound": {"service_name": None, "custom_tags": TAGS}})
    with Topology({"": nameless}, envoy=outermost_envoy, node={"id": "a", "cluster": "b"}) as running:
        check_span(running)
        assert no_errors(running)


def test_cluster_that_goes_away_and_comes_back(outermost_envoy):
    often = {"interval_ms": 50, "max_queue_spans": 2_000}
    with SharedTopology({"": lane(1, batch=often)}, envoy=outermost_envoy, concurrency=2) as running:
        others = [it for it in running.clusters if it["name"] != "otel-collector"]
        with Load(running.lane().backend_inbound) as load:
            running.wait_for_stats(lambda stats: stats["sidespan_spans_exported_total"] > 0)
            running.discover("cds", others)
            running.wait_for_stats(lambda stats: stats['sidespan_exports_total{result="retry"}'] > 0)
            load.wait_for(100)
            gone = running.stats()["sidespan_spans_exported_total"]
            running.discover("cds", running.clusters)
            running.wait_for_stats(lambda stats: stats["sidespan_spans_exported_total"] > gone, timeout=30)
            load.stop()
        stats = running.wait_for_stats(
            lambda stats: stats["sidespan_spans_recorded_total"] == load.sent and stats["sidespan_spans_queued"] == 0,
            timeout=30,
        )
        log = running.log()
    assert load.statuses.keys() == {200}
    dropped = sum(value for name, value in stats.items() if name.startswith("sidespan_spans_dropped_total"))
    assert stats["sidespan_spans_exported_total"] + dropped == load.sent
    # A call that was under way when the cluster went got no answer.
    assert log.count("does not accept spans: ") == 1


def test_two_versions_of_the_module(outermost_envoy, tmp_path, module):
    """As while an update goes from listener to listener: other bytes make another VM of the same id."""
    other = tmp_path / "other.wasm"
    # A custom section, which changes nothing but the bytes.
    other.write_bytes(module.read_bytes() + b"\0\x08\x07version")

    limited = {"limit": {"per_second": 0.001, "burst": 5}}
    rules = [{"name": "all", "decision": "force", **limited}]
    lanes = {"": lane(1, rules=rules), "other": lane(1, rules=rules, module=other)}
    with SharedTopology(lanes, envoy=outermost_envoy) as running, Client(running, "1.1") as client:
        for _ in range(10):
            for name in lanes:
                assert client.send(running.lane(name).backend_inbound, "/a", {"traceparent": "00-malformed"}).status == 200
        stats = running.wait_for_stats(
            lambda stats: stats["sidespan_spans_recorded_total"] == stats["sidespan_spans_exported_total"] == 20
        )
        assert no_errors(running)
    # The limit holds over both.
    assert stats['sidespan_rule_decisions_total{rule="all",outcome="sampled"}'] == 5
