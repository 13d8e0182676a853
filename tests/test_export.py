"""How spans leave: in batches, bounded, counted, and never at the cost of a request."""

import re
from contextlib import ExitStack

import pytest

from conftest import lane
from receiver import Receiver
from topology import Lane, Topology, admin_answer, books
from traffic import Client, new_context

LONGEST_ATTRIBUTE = 1024


def books_once_settled(topology: Topology, recorded: int) -> dict[str, int]:
    """Returns the books, but for what is 0, as soon as all recorded spans have left the queues."""

    def is_settled(stats: dict[str, int]) -> bool:
        return stats.get("sidespan_spans_recorded_total") == recorded and stats["sidespan_spans_queued"] == 0

    found = books(topology.wait_for_stats(is_settled))
    return {way: spans for way, spans in found.items() if spans}


def send_sampled(client: Client, count: int) -> list[str]:
    """Sends requests straight to one sidecar, which records a span each; returns their traces."""
    parents = [new_context() for _ in range(count)]
    for parent in parents:
        headers = {"traceparent": parent.traceparent("01")}
        assert client.send(client.lane("").backend_inbound, "/a", headers).status == 200
    return [parent.trace_id for parent in parents]


def test_the_start_is_logged_once_for_all_workers(outermost_envoy):
    arguments = ["--component-log-level", "wasm:info"]
    options = {"concurrency": 4, "arguments": ["--disable-hot-restart", *arguments]}
    with Topology({"": lane(0.25)}, envoy=outermost_envoy, **options) as running:
        line = (
            'sidespan 0.1.0: 4 rules, ratio 0.25; spans go to cluster "otel-collector" by OTLP, http/protobuf; '
            "contexts are read as tracecontext, b3, b3multi and written as tracecontext"
        )
        running.program.wait_until(lambda: line in running.log())
        running.wait_for_stats(lambda stats: stats["sidespan_configured_total"] >= 10)
        assert running.log().count(line) == 1


def test_spans_leave_in_batches(each_envoy):
    lanes = {"": lane(1, batch={"max_batch_spans": 4, "interval_ms": 500})}
    with Topology(lanes, envoy=each_envoy) as running, Client(running, "1.1") as client:
        traces = send_sampled(client, 12)
        settled = books_once_settled(running, 12)
        bodies = running.receiver.exports()

    assert sorted(span.trace_id for body in bodies for span in body.spans) == sorted(traces)
    assert max(len(body.spans) for body in bodies) == 4
    assert settled == {"recorded": 12, "exported": 12}


def test_one_body_carries_what_an_interval_brought(each_envoy):
    lanes = {"": lane(1, batch={"interval_ms": 1000})}
    with Topology(lanes, envoy=each_envoy) as running, Client(running, "1.1") as client:
        traces = send_sampled(client, 40)
        running.receiver.wait_for(lambda receiver: len(receiver.spans()) == len(traces))
        bodies = running.receiver.exports()

    # Forty requests take a fraction of an interval, and may meet its end once or twice.
    assert len(bodies) <= 3
    for body in bodies:
        assert (body.path, body.headers["content-type"]) == ("/v1/traces", "application/x-protobuf")


def test_full_queue_drops_and_counts(each_envoy):
    lanes = {"": lane(1, batch={"max_queue_spans": 6, "max_batch_spans": 4})}
    with Topology(lanes, envoy=each_envoy) as running, Client(running, "1.1") as client:
        running.receiver.answers.clear()
        send_sampled(client, 40)
        # One call is under way with a batch, and no other is made; the queue holds what it may.
        full = {"recorded": 40, "exported": 0, "queue_full": 34, "queued": 6}
        running.wait_for_stats(lambda stats: books(stats) == full)
        assert len(running.receiver.wait_for(Receiver.exports)) == 1
        running.receiver.answers.set()
        settled = books_once_settled(running, 40)

    assert settled == {"recorded": 40, "exported": 6, "queue_full": 34}


def test_collector_that_stays_away_costs_spans_and_no_request(each_envoy):
    # Port 1 is nobody's: it refuses.
    away = lane(1, collector_port=1)
    away.filter["exporter"]["retry"] = {"initial_interval_ms": 50, "max_elapsed_time_ms": 500}
    with Topology({"": away}, envoy=each_envoy) as running, Client(running, "1.1") as client:
        send_sampled(client, 20)
        settled = books_once_settled(running, 20)
        log = running.log()

    assert settled == {"recorded": 20, "retries_exhausted": 20}
    (failing,) = [line for line in log.splitlines() if "takes no spans now" in line]
    assert 'the collector at cluster "otel-collector" takes no spans now: answered 503; ' in failing
    (dropped,) = [line for line in log.splitlines() if "were dropped" in line]
    assert " retries_exhausted; it answered 503" in dropped


@pytest.mark.parametrize("status", [400, 401, 404, 500, 501])
def test_what_is_refused_for_good_is_not_sent_again(outermost_envoy, status):
    with Topology({"": lane(1)}, envoy=outermost_envoy) as running, Client(running, "1.1") as client:
        running.receiver.status = status
        traces = send_sampled(client, 3)
        settled = books_once_settled(running, 3)
        sent = [span.trace_id for export in running.receiver.exports() for span in export.spans]

    assert settled == {"recorded": 3, "rejected": 3}
    assert sorted(sent) == sorted(traces)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_is_not_taken_now_is_sent_again(outermost_envoy, status):
    soon = lane(1)
    soon.filter["exporter"]["retry"] = {"initial_interval_ms": 50}
    with Topology({"": soon}, envoy=outermost_envoy) as running, Client(running, "1.1") as client:
        running.receiver.status = status
        traces = send_sampled(client, 3)
        running.receiver.wait_for(lambda receiver: len(receiver.exports()) >= 3)
        running.receiver.status = 200
        settled = books_once_settled(running, 3)
        exports = running.receiver.exports()

    assert settled == {"recorded": 3, "exported": 3}
    assert sorted(span.trace_id for span in running.receiver.spans()) == sorted(traces)
    assert [export.status for export in exports][:3] == [status] * 3


def test_retry_after_is_honoured(outermost_envoy):
    soon = lane(1)
    soon.filter["exporter"]["retry"] = {"initial_interval_ms": 50}
    with Topology({"": soon}, envoy=outermost_envoy) as running, Client(running, "1.1") as client:
        running.receiver.status, running.receiver.retry_after = 503, "2"
        send_sampled(client, 1)
        running.receiver.wait_for(Receiver.exports)
        running.receiver.status = 200
        settled = books_once_settled(running, 1)
        first, second = running.receiver.exports()

    assert settled == {"recorded": 1, "exported": 1}
    assert second.received_at - first.received_at >= 2


def test_no_retry_after_stops_exports_for_long(outermost_envoy):
    soon = lane(1)
    soon.filter["exporter"]["retry"] = {
        "initial_interval_ms": 50,
        "max_interval_ms": 100,
        "max_elapsed_time_ms": 2_000,
    }
    with Topology({"": soon}, envoy=outermost_envoy) as running, Client(running, "1.1") as client:
        running.receiver.status, running.receiver.retry_after = 503, "999999"
        send_sampled(client, 1)
        running.receiver.wait_for(Receiver.exports)
        running.receiver.status = 200
        settled = books_once_settled(running, 1)

    assert settled == {"recorded": 1, "exported": 1}


def test_a_batch_that_is_too_large_is_sent_in_parts(outermost_envoy):
    with Topology({"": lane(1, batch={"interval_ms": 1_000})}, envoy=outermost_envoy) as running:
        running.receiver.most_bytes = 5_000
        with Client(running, "1.1") as client:
            traces = send_sampled(client, 40)
            settled = books_once_settled(running, 40)
        exports = running.receiver.exports()

    assert settled == {"recorded": 40, "exported": 40}
    assert sorted(span.trace_id for span in running.receiver.spans()) == sorted(traces)
    assert {export.status for export in exports} == {200, 413}
    assert all((len(export.body) > 5_000) == (export.status == 413) for export in exports)


def test_a_compressed_body_is_a_fraction_of_the_plain_one(each_envoy):
    sizes = {}
    for compression in ("none", "gzip"):
        compressed = lane(1, batch={"interval_ms": 1_000})
        compressed.filter["exporter"]["otlp"]["compression"] = compression
        with Topology({"": compressed}, envoy=each_envoy) as running, Client(running, "1.1") as client:
            traces = send_sampled(client, 40)
            settled = books_once_settled(running, 40)
            exports = running.receiver.exports()
            stats = running.stats()
        assert settled == {"recorded": 40, "exported": 40}
        assert sorted(span.trace_id for export in exports for span in export.spans) == sorted(traces)
        encodings = {export.headers.get("content-encoding", "none") for export in exports}
        assert encodings == {compression}
        sizes[compression] = sum(len(export.body) for export in exports)
        assert stats["sidespan_export_bytes_total"] == sizes[compression]
    # Ids are random, and all else is the same in each span.
    assert 40 * 24 < sizes["gzip"] < sizes["none"] / 5


def test_export_names_its_sender_by_configured_headers(newest_envoy):
    headers = [
        {"name": "x-token", "literal": {"value": "secret"}},
        {"name": "x-region", "environment": {"name": "REGION"}},
    ]
    otlp = {"cluster": "otel-collector", "path": "/otlp/v1/traces", "headers": headers}
    exporter = {"otlp": otlp, "batch": {"interval_ms": 100}}
    with Topology({"": Lane(filter={"exporter": exporter})}, envoy=newest_envoy) as running:
        with Client(running, "1.1") as client:
            send_sampled(client, 1)
        running.receiver.wait_for(Receiver.spans)
        (export,) = running.receiver.exports()
    assert export.path == "/otlp/v1/traces"
    assert (export.headers["x-token"], export.headers["x-region"]) == ("secret", "eu-west-1")


def test_workers_keep_one_set_of_books(newest_envoy):
    with Topology({"": lane(1)}, envoy=newest_envoy, concurrency=2) as running:
        traces = []
        for _ in range(20):
            # Each client opens a connection of its own, and the kernel spreads them over the workers.
            with Client(running, "1.1") as client:
                traces += send_sampled(client, 1)
        settled = books_once_settled(running, 20)
        arrived = [span.trace_id for span in running.receiver.spans()]
    assert settled == {"recorded": 20, "exported": 20}
    assert sorted(arrived) == sorted(traces)


def test_prometheus_sees_names_and_labels(outermost_envoy):
    with Topology({"": lane(1)}, envoy=outermost_envoy) as running, Client(running, "1.1") as client:
        send_sampled(client, 3)
        stats = running.wait_for_stats(lambda stats: stats["sidespan_spans_exported_total"] == 3)
        shown = admin_answer(running.admin_port, "/stats/prometheus")
        # Envoy adds up its histograms every few seconds.
        exports = stats['sidespan_exports_total{result="success"}']
        running.program.wait_until(lambda: histogram_counts(running) == [exports, exports])

    lines = [line for line in shown.splitlines() if line.startswith("sidespan_")]
    counted = {frozenset(parts(series)): float(value) for series, value in map(str.split, lines)}
    for series, value in stats.items():
        assert counted[frozenset(parts(series))] == value
    # Envoy's own labels are still there.
    assert 'envoy_cluster_name="otel-collector"' in shown


def histogram_counts(running: Topology) -> list[int]:
    shown = admin_answer(running.admin_port, "/stats/prometheus")
    counts = dict(re.findall(r"^(sidespan_\w+)_count{} (\d+)$", shown, re.MULTILINE))
    return [int(counts[name]) for name in ("sidespan_export_duration_milliseconds", "sidespan_export_batch_spans")]


def parts(series: str) -> list[str]:
    """Returns the name of a series and its labels, whose order means nothing."""
    return re.findall(r'\w+(?:="[^"]*")?', series)


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


def test_long_value_is_cut_and_counted(each_envoy):
    with Topology({"": lane(1)}, envoy=each_envoy) as running, Client(running, "1.1") as client:
        client.send(client.lane("").backend_inbound, "/a", [("user-agent", "u" * 50_000)])
        (span,) = running.receiver.wait_for(Receiver.spans)
        running.wait_for_stats(lambda stats: stats["sidespan_attributes_truncated_total"] == 1)

    assert span.attributes["user_agent.original"] == "u" * LONGEST_ATTRIBUTE


@pytest.mark.parametrize("extract", [["tracecontext"], ["b3"], ["xray", "datadog"]], ids=" ".join)
def test_exports_are_not_traced(outermost_envoy, extract):
    """A second Envoy stands before the collector, and its filter takes roots with ratio 1."""
    propagation = {"extract": extract}
    with Receiver() as receiver, ExitStack() as stack:
        before = {"": lane(1, propagation=propagation, frontend=receiver.port)}
        collector_side = stack.enter_context(Topology(before, envoy=outermost_envoy))
        port = collector_side.lane().frontend_inbound
        lanes = {"": lane(1, propagation=propagation, batch={"interval_ms": 20}, collector_port=port)}
        running = stack.enter_context(Topology(lanes, envoy=outermost_envoy))
        client = stack.enter_context(Client(running, "1.1"))
        while len(receiver.exports()) < 100:
            client.send(running.lane().backend_inbound, "/a")
        stats = collector_side.wait_for_stats(lambda stats: stats['sidespan_decisions_total{decision="parent"}'] >= 100)
        assert (stats["sidespan_spans_recorded_total"], stats['sidespan_decisions_total{decision="ratio"}']) == (0, 0)
        assert {span.service for span in receiver.spans()} == {"backend"}
        assert collector_side.receiver.exports() == []
