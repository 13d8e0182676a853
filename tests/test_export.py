"""Export: batches, bounded queues, counters, retries; no failure of the collector affects a request."""

import re
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from conftest import lane, one_sidecar
from receiver import Export, Receiver, Span
from shared_envoys import SharedTopology
from topology import Lane, Topology, admin_answer, books
from traffic import Client, new_context

LONGEST_ATTRIBUTE = 1024


HISTOGRAMS = ["export_duration_milliseconds", "export_batch_spans"]
RETRY_SOON = {"initial_interval_ms": 50}


def exporting(batch: dict | None = None, **exporter) -> Lane:
    """Returns a lane whose exporter has these settings."""
    given = lane(1, batch=batch)
    given.filter["exporter"] |= exporter
    return given


def otlp(**settings) -> dict:
    return {"cluster": "otel-collector", **settings}


def lane_without_collector() -> Lane:
    # Nothing listens on port 1: connections are refused.
    given = lane(1, collector_port=1)
    given.filter["exporter"]["retry"] = RETRY_SOON | {"max_elapsed_time_ms": 500}
    return given


SENDER = [
    {"name": "x-token", "literal": {"value": "secret"}},
    {"name": "x-region", "environment": {"name": "REGION"}},
]
LANES = {
    "plain": lane(1),
    "small-batches": lane(1, batch={"max_batch_spans": 4}),
    "each-second": lane(1, batch={"interval_ms": 1_000}),
    "small-queue": exporting({"max_queue_spans": 6, "max_batch_spans": 4}, otlp=otlp(timeout_ms=60_000)),
    "no-collector": lane_without_collector(),
    "retries": exporting(retry=RETRY_SOON),
    "short-pauses": exporting(retry=RETRY_SOON | {"max_interval_ms": 100}),
    "uncompressed": exporting(otlp=otlp(compression="none")),
    "gzip": exporting(otlp=otlp(compression="gzip")),
    "sender": exporting(otlp=otlp(path="/otlp/v1/traces", headers=SENDER)),
}


class Exports:
    """What one test sends through an Envoy that tests share, and what the filter counts and exports of it."""

    def __init__(self, running: Topology, client: Client):
        self.running = running
        self.receiver = running.receiver
        self._client = client
        running.forget()
        self._received_before = len(running.receiver.exports())

    def send(self, lane: str, count: int) -> list[str]:
        return send_sampled(self._client, count, lane)

    def send_held(self, lane: str, count: int) -> list[str]:
        """Sends while no export is answered, so that all spans but those of the first batch gather."""
        self.receiver.answers.clear()
        try:
            traces = self.send(lane, count)
            self.wait_for_stats(lambda stats: stats["sidespan_spans_recorded_total"] == count)
        finally:
            self.receiver.answers.set()
        return traces

    def received(self) -> list[Export]:
        return self.receiver.exports()[self._received_before :]

    def spans(self) -> list[Span]:
        """Returns the spans that the receiver accepted."""
        return [span for export in self.received() if export.status == 200 for span in export.spans]

    def wait_for(self, found: Callable[[], object]) -> None:
        self.receiver.wait_for(lambda _: found())

    def wait_for_stats(self, wanted: Callable[[dict[str, int]], bool]) -> dict[str, int]:
        """Returns what was counted during this test, as soon as it is as `wanted`."""
        return self.running.wait_for_stats(wanted)

    def settled_books(self, recorded: int) -> dict[str, int]:
        """Returns the books, but for what is 0, as soon as all recorded spans have left the queues."""
        return settled_books(self.wait_for_stats, recorded)


@pytest.fixture(scope="module")
def exporting_envoy(each_envoy):
    lanes = {name: one_sidecar(given) for name, given in LANES.items()}
    with SharedTopology(lanes, envoy=each_envoy) as running:
        yield running


@pytest.fixture
def exports(exporting_envoy):
    receiver = exporting_envoy.receiver
    with Client(exporting_envoy, "1.1") as client:
        yield Exports(exporting_envoy, client)
    receiver.status, receiver.retry_after, receiver.most_bytes = 200, None, None
    receiver.answers.set()


def settled_books(wait_for_stats: Callable, recorded: int) -> dict[str, int]:
    def is_settled(stats: dict[str, int]) -> bool:
        return stats.get("sidespan_spans_recorded_total") == recorded and stats["sidespan_spans_queued"] == 0

    found = books(wait_for_stats(is_settled))
    return {way: spans for way, spans in found.items() if spans}


def send_sampled(client: Client, count: int, lane: str = "") -> list[str]:
    """Sends requests straight to one sidecar, which records a span each; returns their traces."""
    parents = [new_context() for _ in range(count)]
    for parent in parents:
        headers = {"traceparent": parent.traceparent("01")}
        assert client.send(client.lane(lane).backend_inbound, "/a", headers).status == 200
    return [parent.trace_id for parent in parents]


def test_start_is_logged_once_for_all_workers(outermost_envoy):
    options = {"concurrency": 2, "wasm_level": "info"}
    with SharedTopology({"": lane(0.25)}, envoy=outermost_envoy, **options) as running:
        line = (
            'sidespan 0.1.0: 4 rules, ratio 0.25; spans go to cluster "otel-collector" by OTLP, http/protobuf; '
            "contexts are read as tracecontext, b3, b3multi and written as tracecontext"
        )
        running.program.wait_until(lambda: line in running.log())
        running.wait_for_stats(lambda stats: stats["sidespan_configured_total"] >= 6)
        assert running.log().count(line) == 1


def test_spans_leave_in_batches(exports):
    traces = exports.send_held("small-batches", 12)

    assert exports.settled_books(12) == {"recorded": 12, "exported": 12}
    assert sorted(span.trace_id for span in exports.spans()) == sorted(traces)
    assert max(len(export.spans) for export in exports.received()) == 4


def test_one_body_carries_the_spans_of_an_interval(exports):
    started = time.monotonic()
    exports.send("each-second", 40)
    exports.settled_books(40)
    seconds = time.monotonic() - started

    assert len(exports.received()) <= 1 + seconds
    for export in exports.received():
        assert (export.path, export.headers["content-type"]) == ("/v1/traces", "application/x-protobuf")


def test_full_queue_drops_and_counts(exports):
    exports.receiver.answers.clear()
    exports.send("small-queue", 40)
    # One call with a batch is under way, and no other is made; the queue is full.
    full = {"recorded": 40, "exported": 0, "queue_full": 34, "queued": 6}
    exports.wait_for_stats(lambda stats: books(stats) == full)
    exports.wait_for(exports.received)
    assert len(exports.received()) == 1
    exports.receiver.answers.set()

    assert exports.settled_books(40) == {"recorded": 40, "exported": 6, "queue_full": 34}


def test_absent_collector_costs_spans_and_no_request(exports):
    exports.send("no-collector", 20)

    assert exports.settled_books(20) == {"recorded": 20, "retries_exhausted": 20}
    log = [line for line in exports.running.log().splitlines() if '"otel-collector.no-collector"' in line]
    (failing,) = [line for line in log if "does not accept spans" in line]
    assert 'the collector at cluster "otel-collector.no-collector" does not accept spans: answered 503; ' in failing
    (dropped,) = [line for line in log if "were dropped" in line]
    assert " retries_exhausted; it answered 503" in dropped


@pytest.mark.parametrize("status", [400, 401, 404, 500, 501])
def test_rejected_batch_is_not_sent_again(exports, status):
    exports.receiver.status = status
    traces = exports.send("plain", 3)

    assert exports.settled_books(3) == {"recorded": 3, "rejected": 3}
    assert sorted(span.trace_id for export in exports.received() for span in export.spans) == sorted(traces)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_batch_is_sent_again_after_a_retryable_status(exports, status):
    exports.receiver.status = status
    traces = exports.send("retries", 3)
    exports.wait_for(lambda: len(exports.received()) >= 3)
    exports.receiver.status = 200

    assert exports.settled_books(3) == {"recorded": 3, "exported": 3}
    assert sorted(span.trace_id for span in exports.spans()) == sorted(traces)
    assert [export.status for export in exports.received()][:3] == [status] * 3


def test_retry_after_is_honoured(exports):
    exports.receiver.status, exports.receiver.retry_after = 503, "1"
    exports.send("retries", 1)
    exports.wait_for(exports.received)
    exports.receiver.status = 200

    assert exports.settled_books(1) == {"recorded": 1, "exported": 1}
    first, second, *_ = exports.received()
    assert second.received_at - first.received_at >= 1


def test_long_retry_after_is_cut(exports):
    exports.receiver.status, exports.receiver.retry_after = 503, "999999"
    exports.send("short-pauses", 1)
    exports.wait_for(exports.received)
    exports.receiver.status = 200

    assert exports.settled_books(1) == {"recorded": 1, "exported": 1}


def test_a_batch_that_is_too_large_is_sent_in_parts(exports):
    exports.receiver.most_bytes = 5_000
    traces = exports.send_held("plain", 40)

    assert exports.settled_books(40) == {"recorded": 40, "exported": 40}
    assert sorted(span.trace_id for span in exports.spans()) == sorted(traces)
    assert {export.status for export in exports.received()} == {200, 413}
    assert all((len(export.body) > 5_000) == (export.status == 413) for export in exports.received())


def test_a_compressed_body_is_a_fraction_of_the_plain_one(exporting_envoy):
    sizes = {}
    for lane, encoding in [("uncompressed", "none"), ("gzip", "gzip")]:
        with Client(exporting_envoy, "1.1") as client:
            exports = Exports(exporting_envoy, client)
            traces = exports.send_held(lane, 40)
        assert exports.settled_books(40) == {"recorded": 40, "exported": 40}
        assert sorted(span.trace_id for span in exports.spans()) == sorted(traces)
        assert {export.headers.get("content-encoding", "none") for export in exports.received()} == {encoding}
        sizes[encoding] = sum(len(export.body) for export in exports.received())
        exports.wait_for_stats(lambda stats: stats["sidespan_export_bytes_total"] == sizes[encoding])
    # Ids are random, and all else is the same in each span.
    assert 40 * 24 < sizes["gzip"] < sizes["none"] / 5


def test_export_names_its_sender_by_configured_headers(exports):
    exports.send("sender", 1)
    exports.wait_for(exports.spans)

    (export,) = exports.received()
    assert export.path == "/otlp/v1/traces"
    assert (export.headers["x-token"], export.headers["x-region"]) == ("secret", "eu-west-1")


def test_long_value_is_cut_and_counted(exports, exporting_envoy):
    port = exporting_envoy.lane("plain").backend_inbound
    with Client(exporting_envoy, "1.1") as client:
        client.send(port, "/a", [("user-agent", "u" * 50_000)])
    exports.wait_for_stats(lambda stats: stats["sidespan_attributes_truncated_total"] == 1)
    exports.wait_for(exports.spans)

    (span,) = exports.spans()
    assert span.attributes["user_agent.original"] == "u" * LONGEST_ATTRIBUTE


def test_workers_keep_one_set_of_books(newest_envoy):
    with SharedTopology({"": lane(1)}, envoy=newest_envoy, concurrency=2) as running:
        traces = []
        for _ in range(20):
            # Each client opens a connection of its own, and the kernel spreads them over the workers.
            with Client(running, "1.1") as client:
                traces += send_sampled(client, 1)
        settled = settled_books(running.wait_for_stats, 20)
        arrived = [span.trace_id for span in running.receiver.spans()]
    assert settled == {"recorded": 20, "exported": 20}
    assert sorted(arrived) == sorted(traces)


def test_prometheus_sees_names_and_labels(each_envoy):
    def flush_often(bootstrap: dict) -> None:
        """Lets Envoy add up its histograms soon, by default every five seconds."""
        bootstrap["stats_flush_interval"] = "0.5s"

    with Topology({"": lane(1)}, envoy=each_envoy, change=flush_often) as running, Client(running, "1.1") as client:
        send_sampled(client, 3)
        stats = running.wait_for_stats(lambda stats: stats["sidespan_spans_exported_total"] == 3)
        wanted = {frozenset(parts(series)): value for series, value in stats.items()}
        exports = stats['sidespan_exports_total{result="success"}']
        wanted |= {frozenset([f"sidespan_{name}_count"]): exports for name in HISTOGRAMS}
        running.program.wait_until(lambda: wanted.items() <= prometheus(running).items())
        # Envoy's own labels are still there.
        assert 'envoy_cluster_name="otel-collector"' in admin_answer(running.admin_port, "/stats/prometheus")


def prometheus(running: Topology) -> dict[frozenset, float]:
    """Returns the filter's series on Envoy's page for Prometheus."""
    shown = admin_answer(running.admin_port, "/stats/prometheus")
    lines = [line for line in shown.splitlines() if line.startswith("sidespan_")]
    return {frozenset(parts(series)): float(value) for series, value in map(str.split, lines)}


def parts(series: str) -> list[str]:
    """Returns the name of a series and its labels, whose order means nothing."""
    return re.findall(r'\w+(?:="[^"]*")?', series)


def test_exports_are_not_traced(outermost_envoy):
    """A second Envoy stands before the collector, and its filter takes roots with ratio 1."""
    extracts = {"w3c": ["tracecontext"], "b3": ["b3"], "others": ["xray", "datadog"]}
    with Receiver() as receiver, ExitStack() as stack:
        before = {
            name: lane(1, propagation={"extract": extract}, frontend=receiver.port)
            for name, extract in extracts.items()
        }
        collector_side = stack.enter_context(SharedTopology(before, envoy=outermost_envoy))
        lanes = {
            name: lane(
                1,
                propagation={"extract": extract},
                batch={"interval_ms": 10},
                collector_port=collector_side.lane(name).frontend_inbound,
            )
            for name, extract in extracts.items()
        }
        running = stack.enter_context(SharedTopology(lanes, envoy=outermost_envoy))
        client = stack.enter_context(Client(running, "1.1"))
        for index, name in enumerate(extracts, start=1):
            while len(receiver.exports()) < 30 * index:
                client.send(running.lane(name).backend_inbound, "/a")
        stats = collector_side.wait_for_stats(lambda stats: stats['sidespan_decisions_total{decision="parent"}'] >= 90)
        assert (stats["sidespan_spans_recorded_total"], stats['sidespan_decisions_total{decision="ratio"}']) == (0, 0)
