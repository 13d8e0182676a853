"""Faults of a collector under load: no request fails or waits, and every span is counted."""

import copy
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

import topology
from conftest import lane, one_sidecar
from load import Audit, Load, answered_here
from receiver import Export, Receiver
from shared_envoys import SharedTopology
from topology import Lane, Topology, books

WORKERS = 2
# Where a collector does not answer, and elsewhere: no answer may be late then, or its spans are sent twice.
SHORT_TIMEOUT_MS, TIMEOUT_MS = 4_000, 30_000
# Far longer than any request takes, and shorter than a call to a collector that does not answer.
LONGEST_SECONDS = 3.9
BATCH = {"interval_ms": 50}
RETRY = {"initial_interval_ms": 100, "max_interval_ms": 400}
QUEUE_FULL = 'sidespan_spans_dropped_total{reason="queue_full"}'


class FaultyReceiver(Receiver):
    """A receiver that answers as `fault` says, until that is None."""

    def __init__(self, port: int = 0, fault: str | None = None):
        super().__init__(port)
        self.fault = fault

    def answer(self, handler: BaseHTTPRequestHandler, status: int) -> None:
        match self.fault:
            case "partial success":
                rejected = ExportTracePartialSuccess(rejected_spans=1, error_message="too old")
                body = ExportTraceServiceResponse(partial_success=rejected).SerializeToString()
                handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            case "closes":
                handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
                handler.close_connection = True
            case "drips":
                handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
                for _ in range(100):
                    handler.wfile.write(b"\0")
                    time.sleep(0.05)
            case _:
                super().answer(handler, status)


def accepted(exports: list[Export]) -> Counter:
    """Returns how often each span came in exports that were taken."""
    return Counter(span.span_id for export in exports if export.status == 200 for span in export.spans)


def exporter(**changes) -> dict:
    otlp = {"cluster": "otel-collector", "timeout_ms": TIMEOUT_MS} | changes.pop("otlp", {})
    return {"otlp": otlp, "batch": BATCH, "retry": RETRY} | changes


def faulty(port: int, **changes) -> Lane:
    """Returns a lane that exports to a port."""
    filter = lane(1).filter | {"exporter": exporter(**changes)}
    return one_sidecar(Lane(filter=filter, collector_port=port, change=answered_here))


class Loaded:
    """One lane of an Envoy under load: what the filter counts from now on, and what Envoy logged."""

    def __init__(self, running: Topology, lane: str = ""):
        self.load = Load(running.lane(lane).backend_inbound)
        self.cluster = f"otel-collector.{lane}" if lane else "otel-collector"
        self._running = running
        self._started = time.monotonic()
        running.forget()
        self.wait_for_stats = running.wait_for_stats

    def settled(self) -> dict[str, int]:
        """Stops the load and returns the books once nothing is queued; no request may have failed or waited."""
        self.load.stop()
        assert self.load.statuses.keys() == {200}
        assert self.load.longest_seconds < LONGEST_SECONDS
        stats = self.wait_for_stats(
            lambda stats: stats["sidespan_spans_recorded_total"] == self.load.sent
            and stats["sidespan_spans_queued"] == stats["sidespan_queue_bytes"] == 0,
            timeout=30,
        )
        found = books(stats)
        assert found.pop("queued") == 0 and found.pop("recorded") == self.load.sent
        return found

    def logged_once(self, text: str) -> bool:
        """Tells whether the filter logged this once a minute: both workers meet every fault, again and again."""
        minutes = (time.monotonic() - self._started) // 60
        return 1 <= len([line for line in self._running.log().splitlines() if text in line]) <= 1 + minutes


@contextmanager
def under_load(running: Topology, lane: str = "") -> Iterator[Loaded]:
    """Puts load on one lane, and reads the Envoy's books all the while."""
    loaded = Loaded(running, lane)
    defined = dict.fromkeys(running.stats(), 0)
    with Audit(lambda: defined | running.stats(used_only=True)) as audit, loaded.load:
        yield loaded
    assert audit.reads > 0


@contextmanager
def loaded(
    envoy: Path, lane: Lane, change: Callable[[dict], None], drain_seconds: int = 0
) -> Iterator[tuple[Loaded, SharedTopology]]:
    """Puts load on a topology of one lane, whose listeners are drained for so long when they are replaced."""
    options = {"concurrency": WORKERS, "drain_seconds": drain_seconds, "change": change}
    with SharedTopology({"": lane}, envoy=envoy, **options) as running, under_load(running) as loaded:
        yield loaded, running


LANES = [
    "absent-at-start",
    "restarted",
    "never-answers",
    "closes",
    "drips",
    "unavailable",
    "refuses",
    "takes-a-part",
]


@pytest.fixture(scope="module")
def faulty_envoy(outermost_envoy):
    """An Envoy with a lane for each fault, and the ports on which their collectors are to be."""
    ports = dict(zip(LANES, topology.free_ports()))
    lanes = {name: faulty(port) for name, port in ports.items()}
    for name in ["never-answers", "drips"]:
        lanes[name] = faulty(ports[name], otlp={"timeout_ms": SHORT_TIMEOUT_MS})
    lanes["unavailable"] = faulty(ports["unavailable"], batch=BATCH | {"max_queue_spans": 200, "max_batch_spans": 100})
    with SharedTopology(lanes, envoy=outermost_envoy, concurrency=WORKERS) as running:
        yield running, ports


def test_collector_that_is_absent_at_start(faulty_envoy):
    running, ports = faulty_envoy
    with under_load(running, "absent-at-start") as loaded:
        loaded.wait_for_stats(lambda stats: stats['sidespan_exports_total{result="retry"}'] >= 3)
        with Receiver(ports["absent-at-start"]) as receiver:
            receiver.wait_for(Receiver.exports)
            loaded.load.wait_for(200)
            found = loaded.settled()
            spans = accepted(receiver.exports())
    assert found.pop("exported") == len(spans) == spans.total()
    # Spans are lost only where the queue was full.
    assert found.keys() <= {"queue_full"}


def test_collector_that_is_killed_and_restarted(faulty_envoy):
    running, ports = faulty_envoy
    spans: Counter = Counter()
    with under_load(running, "restarted") as loaded:
        for _ in range(3):
            with Receiver(ports["restarted"]) as receiver:
                receiver.wait_for(lambda receiver: len(receiver.exports()) >= 3)
            spans += accepted(receiver.exports())
        with Receiver(ports["restarted"]) as receiver:
            receiver.wait_for(lambda receiver: len(receiver.exports()) >= 3)
            found = loaded.settled()
            spans += accepted(receiver.exports())
    # The spans of a call that the collector's end cut off are sent again.
    assert found.pop("exported") == len(spans)
    assert found.keys() <= {"queue_full"}


@pytest.mark.parametrize("fault", ["never answers", "closes", "drips"])
def test_collector_that_loses_its_answers(faulty_envoy, fault):
    running, ports = faulty_envoy
    name = fault.replace(" ", "-")
    with FaultyReceiver(ports[name], fault) as receiver, under_load(running, name) as loaded:
        if fault == "never answers":
            receiver.answers.clear()
        retries = 'sidespan_exports_total{result="retry"}'
        loaded.wait_for_stats(lambda stats: stats[retries] >= 2, timeout=30)
        receiver.fault = None
        receiver.answers.set()
        loaded.wait_for_stats(lambda stats: stats["sidespan_spans_exported_total"] > 0, timeout=30)
        found = loaded.settled()
        spans = accepted(receiver.exports())
    assert found.pop("exported") == len(spans)
    assert spans.total() > len(spans), "the collector took spans whose answers were lost"
    assert found.keys() <= {"queue_full"}


def test_collector_that_is_unavailable_for_ten_seconds(faulty_envoy):
    running, ports = faulty_envoy
    with Receiver(ports["unavailable"]) as receiver, under_load(running, "unavailable") as loaded:
        receiver.status = 503
        started = time.monotonic()
        time.sleep(10)
        loaded.wait_for_stats(lambda stats: stats.get(QUEUE_FULL, 0) > 0)
        receiver.status = 200
        seconds = time.monotonic() - started
        receiver.wait_for(lambda receiver: receiver.exports()[-1].status == 200)
        found = loaded.settled()
        exports = receiver.exports()
    spans = accepted(exports)
    assert found.pop("exported") == len(spans) == spans.total()
    assert found.keys() == {"queue_full"}
    refused = [export for export in exports if export.status == 503]
    # One worker or two had requests, each with pauses that grow to 0.4 s, give or take half.
    assert seconds / 2 < len(refused) < 2 * (5 + seconds / 0.2)
    # The oldest spans were exported, not dropped in favour of newer ones.
    assert {span.span_id for span in refused[-1].spans} <= spans.keys()
    assert loaded.logged_once(f'the collector at cluster "{loaded.cluster}" does not accept spans: answered 503; ')
    assert loaded.logged_once(f'spans for the collector at cluster "{loaded.cluster}" were dropped')


def test_collector_that_refuses_for_ever(faulty_envoy):
    running, ports = faulty_envoy
    with Receiver(ports["refuses"]) as receiver, under_load(running, "refuses") as loaded:
        receiver.status = 400
        loaded.load.wait_for(300)
        found = loaded.settled()
        sent = Counter(span.span_id for export in receiver.exports() for span in export.spans)
    assert found.pop("exported") == 0
    assert set(sent.values()) == {1}, "a rejected batch is not sent again"
    assert found.pop("rejected") == len(sent)
    assert loaded.logged_once(" rejected; it answered 400")
    assert found.keys() <= {"queue_full"}


def test_collector_that_takes_a_part(faulty_envoy):
    running, ports = faulty_envoy
    with FaultyReceiver(ports["takes-a-part"], "partial success") as receiver:
        with under_load(running, "takes-a-part") as loaded:
            loaded.load.wait_for(300)
            found = loaded.settled()
            exports = receiver.exports()
    spans = accepted(exports)
    assert found.pop("partial_success") == len(exports)
    assert found.pop("exported") == len(spans) - len(exports) == spans.total() - len(exports)
    assert found.keys() <= {"queue_full"}
    assert loaded.logged_once(f'the collector at cluster "{loaded.cluster}" rejected 1 spans: too old')


def test_cluster_that_is_added_later(outermost_envoy):
    removed = []

    def remove_collector(bootstrap: dict) -> None:
        clusters = bootstrap["static_resources"]["clusters"]
        removed.extend(it for it in clusters if it["name"] == "otel-collector")
        clusters.remove(*removed)

    with Receiver() as receiver:
        with loaded(outermost_envoy, faulty(receiver.port), remove_collector) as (it, running):
            it.wait_for_stats(lambda stats: stats['sidespan_exports_total{result="retry"}'] >= 4)
            running.discover("cds", running.clusters + removed)
            receiver.wait_for(Receiver.exports)
            found = it.settled()
            assert it.logged_once("does not accept spans: Envoy knows no such cluster; ")
        spans = accepted(receiver.exports())
    assert found.pop("exported") == len(spans) == spans.total()
    assert found.keys() <= {"queue_full"}


@pytest.mark.parametrize("discovery", ["LDS", "ECDS"])
def test_configuration_that_is_replaced(outermost_envoy, tmp_path, discovery):
    """Five times, with a slow collector, so that a batch is always under way."""
    file, filters = tmp_path / "discovered.json", []

    def discover_filter(bootstrap: dict) -> None:
        (listener,) = [it for it in bootstrap["static_resources"]["listeners"] if it["name"] == "backend-inbound"]
        (filter, *_) = topology.connection_manager(listener)["http_filters"]
        filters.append(copy.deepcopy(filter))
        if discovery == "ECDS":
            found_at = {"path_config_source": {"path": str(file)}}
            type_url = filter.pop("typed_config")["@type"]
            filter["config_discovery"] = {"config_source": found_at, "type_urls": [type_url]}
            write(0)
        else:
            # The filter of the listener itself.
            filters[0] = filter

    def write(version: int) -> None:
        resource = {"@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"} | filters[0]
        new = tmp_path / "new.json"
        new.write_text(json.dumps({"version_info": str(version), "resources": [resource]}))
        new.rename(file)

    with SlowReceiver() as receiver:
        drain_seconds = 5 if discovery == "LDS" else 0
        with loaded(outermost_envoy, faulty(receiver.port), discover_filter, drain_seconds) as (it, running):
            shipped = filters[0]["typed_config"]["config"]["configuration"]
            for version in range(1, 6):
                it.load.wait_for(100)
                service = f"version-{version}"
                shipped["value"] = json.dumps(json.loads(shipped["value"]) | {"service_name": service})
                if discovery == "ECDS":
                    write(version)
                else:
                    assert running.discover("lds", running.listeners)
                receiver.wait_for(lambda receiver: any(span.service == service for span in receiver.spans()))
            it.load.wait_for(100)
            found = it.settled()
        spans = accepted(receiver.exports())
    assert found.pop("exported") == len(spans)
    assert found.keys() <= {"queue_full"}


def test_envoy_that_drains_and_restarts_hot(outermost_envoy, tmp_path):
    base_id = tmp_path / "base-id"
    drain = ["--drain-time-s", "1", "--drain-strategy", "immediate", "--parent-shutdown-time-s", "6"]

    def flush_never(bootstrap: dict) -> None:
        # The second process takes over what the first counted since it last flushed: all of it.
        (tmp_path / "second.json").write_text(json.dumps({**bootstrap, "stats_flush_interval": "0.1s"}))
        bootstrap["stats_flush_interval"] = "299s"

    with Receiver() as receiver, ExitStack() as stack:
        first = ["--use-dynamic-base-id", "--base-id-path", str(base_id), *drain]
        lane = faulty(receiver.port)
        running = stack.enter_context(
            Topology({"": lane}, envoy=outermost_envoy, concurrency=WORKERS, change=flush_never, arguments=first)
        )
        loaded = Loaded(running)
        load = stack.enter_context(loaded.load)
        load.wait_for(200)
        second = [
            outermost_envoy,
            *["-c", tmp_path / "second.json", "--concurrency", str(WORKERS), "--log-level", "warning"],
            *["--base-id", base_id.read_text().strip(), "--restart-epoch", "1", *drain],
        ]
        stack.enter_context(topology.Program(second, tmp_path / "second.log"))
        running.program.wait_for_end()
        load.wait_for(200)
        found = loaded.settled()
        spans = accepted(receiver.exports())
    assert found == {"exported": len(spans)} and len(spans) == spans.total()


class SlowReceiver(Receiver):
    """A receiver that answers slowly."""

    def answer(self, handler: BaseHTTPRequestHandler, status: int) -> None:
        time.sleep(0.03)
        super().answer(handler, status)
