"""How spans leave: in batches, bounded, counted, and never at the cost of a request."""

import pytest
import topology as topologies
from conftest import lane
from receiver import Receiver
from topology import Topology
from traffic import Client, new_context

BOOKS = ("spans_recorded", "spans_exported", "spans_dropped", "spans_queued")


def settled(topology: Topology) -> dict[str, int]:
    """Returns the books once no span is queued; they balance, then and always."""
    stats = topology.wait_for_stats(lambda stats: books(stats)["spans_recorded"] == gone(books(stats)))
    return books(stats)


def books(stats: dict[str, int]) -> dict[str, int]:
    return {name: stats.get(f"sidespan.{name}", 0) for name in BOOKS}


def gone(books: dict[str, int]) -> int:
    return books["spans_exported"] + books["spans_dropped"]


def grown(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {name: after[name] - before[name] for name in BOOKS}


def send_sampled(client: Client, lane: str, count: int) -> list[str]:
    """Sends requests straight to one sidecar, which records a span each; returns their traces."""
    parents = [new_context() for _ in range(count)]
    for parent in parents:
        headers = {"traceparent": parent.traceparent("01")}
        assert client.send(client.lane(lane).backend_inbound, "/a", headers).status == 200
    return [parent.trace_id for parent in parents]


def bodies_with(receiver: Receiver, traces: list[str]):
    return [export for export in receiver.exports() if any(span.trace_id in traces for span in export.spans)]


def test_spans_leave_in_batches(client_1):
    topology = client_1.topology
    before = settled(topology)
    traces = send_sampled(client_1, "small-batches", 12)
    after = settled(topology)

    bodies = bodies_with(topology.receiver, traces)
    sent = [span.trace_id for export in bodies for span in export.spans]
    assert sorted(sent) == sorted(traces)
    sizes = [len(export.spans) for export in bodies]
    assert max(sizes) == 4
    assert grown(before, after) == {"spans_recorded": 12, "spans_exported": 12, "spans_dropped": 0, "spans_queued": 0}


def test_export_is_an_otlp_request(client_1):
    topology = client_1.topology
    (trace,) = send_sampled(client_1, "ratio-1", 1)
    topology.receiver.trace(trace, 1)

    (export,) = bodies_with(topology.receiver, [trace])
    assert export.path == "/v1/traces"
    assert export.headers["content-type"] == "application/x-protobuf"
    assert int(export.headers["content-length"]) == len(export.body)


def test_full_queue_drops_and_counts(client_1):
    topology = client_1.topology
    before = settled(topology)
    traces = send_sampled(client_1, "small-queue", 40)
    after = grown(before, settled(topology))

    arrived = [span for span in topology.receiver.spans() if span.trace_id in traces]
    assert after == {
        "spans_recorded": 40,
        "spans_exported": len(arrived),
        "spans_dropped": 40 - len(arrived),
        "spans_queued": 0,
    }
    assert after["spans_dropped"] > 0


def test_unreachable_collector_costs_spans_and_no_request(client_1):
    before = settled(client_1.topology)
    send_sampled(client_1, "collector-down", 20)
    after = grown(before, settled(client_1.topology))

    assert after == {"spans_recorded": 20, "spans_exported": 0, "spans_dropped": 20, "spans_queued": 0}


@pytest.mark.parametrize("status", [400, 429, 503])
def test_refused_export_is_counted_as_dropped(client_1, status):
    topology = client_1.topology
    before = settled(topology)
    topology.receiver.status = status
    try:
        send_sampled(client_1, "ratio-1", 3)
        after = grown(before, settled(topology))
    finally:
        topology.receiver.status = 200

    assert after == {"spans_recorded": 3, "spans_exported": 0, "spans_dropped": 3, "spans_queued": 0}


def test_export_names_its_sender_by_configured_headers(newest_envoy):
    headers = [
        {"name": "x-token", "literal": {"value": "secret"}},
        {"name": "x-region", "environment": {"name": "REGION"}},
    ]
    otlp = {"cluster": "otel-collector", "path": "/otlp/v1/traces", "headers": headers}
    exporter = {"otlp": otlp, "batch": {"interval_ms": 100}}
    configured = topologies.Lane(filter={"sampling": {"ratio": 1}, "exporter": exporter})
    with Topology({"": configured}, envoy=newest_envoy) as running, Client(running, "1.1") as client:
        (trace,) = send_sampled(client, "", 1)
        running.receiver.trace(trace, 1)
        (export,) = bodies_with(running.receiver, [trace])
    assert export.path == "/otlp/v1/traces"
    assert (export.headers["x-token"], export.headers["x-region"]) == ("secret", "eu-west-1")


def test_workers_keep_one_set_of_books(newest_envoy):
    with Topology({"": lane(1)}, envoy=newest_envoy, concurrency=2) as running:
        traces = []
        for _ in range(20):
            # Each client opens a connection of its own, and the kernel spreads them over the workers.
            with Client(running, "1.1") as client:
                traces += send_sampled(client, "", 1)
        after = settled(running)
        arrived = [span.trace_id for span in running.receiver.spans()]
    assert after == {"spans_recorded": 20, "spans_exported": 20, "spans_dropped": 0, "spans_queued": 0}
    assert sorted(arrived) == sorted(traces)


HOSTILE = {
    "not UTF-8 in what is recorded": [
        ("user-agent", b"\xff\xfe\x80"),
        ("x-user-id", b"\xc3\x28"),
        ("x-request-id", b"\xf0\x28\x8c\x28"),
    ],
    "not UTF-8 in every context header": [
        ("traceparent", b"\xff\xfe"),
        ("tracestate", b"\xff\xfe"),
        ("b3", b"\xff\xfe"),
        ("x-b3-traceid", b"\xff\xfe"),
        ("x-b3-spanid", b"\xff\xfe"),
        ("x-b3-sampled", b"\xff\xfe"),
        ("baggage", b"\xff\xfe"),
    ],
    "a huge value": [("user-agent", "u" * 50_000)],
    "a huge tag": [("x-user-id", "u" * 50_000)],
    "a huge context": [("traceparent", "0" * 25_000), ("b3", "-" * 25_000)],
    "the same header many times": [("traceparent", f"00-{'1' * 32}-{'2' * 16}-01")] * 40,
    "empty values": [("traceparent", ""), ("b3", ""), ("x-b3-traceid", ""), ("x-user-id", "")],
}


@pytest.mark.parametrize("row", HOSTILE)
def test_hostile_headers_harm_nobody(client, row):
    forced = [("x-debug-trace", "true"), *HOSTILE[row]]
    answer = client.through("tagged", "/a", forced)

    assert answer.status == 200
    # The receiver decodes what came, so text that is not UTF-8 would fail there.
    context = answer.calls[0].context()["traceparent"]
    client.spans(context.split("-")[1])
