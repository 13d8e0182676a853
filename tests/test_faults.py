"""Faults of a collector under load: no request fails or waits, and every span is counted."""

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
from load import Audit, Load, answered_here, is_balanced
from receiver import Export, Receiver
from shared_envoys import SharedTopology
from topology import Lane, Topology, books

WORKERS = 2
TIMEOUT_MS = 2_000
# Far longer than any request takes, and shorter than a call to a collector that does not answer.
LONGEST_SECONDS = 1.9
BATCH = {"interval_ms": 50}
RETRY = {"initial_interval_ms": 100, "max_interval_ms": 400}


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
        self._counted_before = running.stats()

    def wait_for_stats(self, wanted: Callable[[dict[str, int]], bool], timeout: float = 10) -> dict[str, int]:
        return self._counted(self._running.wait_for_stats(lambda stats: wanted(self._counted(stats)), timeout))

    def settled(self) -> dict[str, int]:
        """Stops the load and returns the books once nothing is queued; no request may have failed or waited."""
        self.load.stop()
        assert self.load.statuses.keys() == {200}
        assert self.load.longest_seconds < LONGEST_SECONDS
        stats = self.wait_for_stats(
            lambda stats: stats["sidespan_spans_recorded_total"] == self.load.sent
            and stats["sidespan_spans_queued"] == 0,
            timeout=30,
        )
        assert is_balanced(stats) and stats["sidespan_queue_bytes"] == 0
        found = books(stats)
        assert found.pop("queued") == 0 and found.pop("recorded") == self.load.sent
        return found

    def logged_once(self, text: str) -> bool:
        """Tells whether the filter logged this once: both workers meet every fault, again and again."""
        return len([line for line in self._running.log().splitlines() if text in line]) == 1

    def _counted(self, stats: dict[str, int]) -> dict[str, int]:
        return {name: value - self._counted_before.get(name, 0) for name, value in stats.items()}


@contextmanager
def under_load(running: Topology, lane: str = "") -> Iterator[Loaded]:
    """Puts load on one lane, and reads the Envoy's books all the while."""
    loaded = Loaded(running, lane)
    with Audit(running.stats) as audit, loaded.load:
        yield loaded
    assert audit.reads > 0


@contextmanager
def loaded(envoy: Path, lane: Lane, **options) -> Iterator[Loaded]:
    """Runs an Envoy of its own under load."""
    with Topology({"": lane}, envoy=envoy, concurrency=WORKERS, **options) as running:
        with under_load(running) as loaded:
            yield loaded


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
    lanes["unavailable"] = faulty(ports["unavailable"], batch=BATCH | {"max_queue_spans": 200, "max_batch_spans": 100})
    with SharedTopology(lanes, envoy=outermost_envoy, concurrency=WORKERS) as running:
        yield running, ports


def test_collector_that_is_absent_at_start(faulty_envoy):
    running, ports = faulty_envoy
    with under_load(running, "absent-at-start") as loaded:
        loaded.wait_for_stats(lambda stats: stats['sidespan_exports_total{result="retry"}'] >= 3)
        with Receiver(ports["absent-at-start"]) as receiver:
            receiver.wait_for(Receiver.exports)
            loaded.load.wait_for(500)
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
        unavailable = time.monotonic()
        loaded.wait_for_stats(lambda _: time.monotonic() > unavailable + 10, timeout=20)
        receiver.status = 200
        receiver.wait_for(lambda receiver: receiver.exports()[-1].status == 200)
        found = loaded.settled()
        exports = receiver.exports()
    spans = accepted(exports)
    assert found.pop("exported") == len(spans) == spans.total()
    assert found.keys() == {"queue_full"}, "expected more spans in ten seconds than a queue holds"
    refused = [export for export in exports if export.status == 503]
    # One worker or two had requests, each with pauses that grow to 0.4 s, give or take half.
    assert 10 / 0.7 < len(refused) < 2 * (5 + 10 / 0.2)
    # The oldest spans were exported, not dropped in favour of newer ones.
    assert {span.span_id for span in refused[-1].spans} <= spans.keys()
    assert loaded.logged_once(f'the collector at cluster "{loaded.cluster}" takes no spans now: answered 503; ')
    assert loaded.logged_once(f'spans for the collector at cluster "{loaded.cluster}" were dropped')


def test_collector_that_refuses_for_ever(faulty_envoy):
    running, ports = faulty_envoy
    with Receiver(ports["refuses"]) as receiver, under_load(running, "refuses") as loaded:
        receiver.status = 400
        loaded.load.wait_for(1_000)
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
            loaded.load.wait_for(1_000)
            found = loaded.settled()
            exports = receiver.exports()
    spans = accepted(exports)
    assert found.pop("partial_success") == len(exports)
    assert found.pop("exported") == len(spans) - len(exports) == spans.total() - len(exports)
    assert found.keys() <= {"queue_full"}
    assert loaded.logged_once(f'the collector at cluster "{loaded.cluster}" rejected 1 spans: too old')


def test_cluster_that_is_added_later(outermost_envoy, tmp_path):
    clusters = tmp_path / "clusters.json"
    clusters.write_text(json.dumps({"resources": []}))

    def take_collector_away(bootstrap: dict) -> None:
        static = bootstrap["static_resources"]
        (collector,) = [it for it in static["clusters"] if it["name"] == "otel-collector"]
        static["clusters"].remove(collector)
        later = {"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", **collector}
        (tmp_path / "later.json").write_text(json.dumps({"version_info": "2", "resources": [later]}))
        bootstrap["dynamic_resources"] = {"cds_config": {"path_config_source": {"path": str(clusters)}}}

    with Receiver() as receiver:
        lane = faulty(receiver.port)
        with loaded(outermost_envoy, lane, change=take_collector_away) as running:
            running.wait_for_stats(lambda stats: stats['sidespan_exports_total{result="retry"}'] >= 4)
            (tmp_path / "later.json").rename(clusters)
            receiver.wait_for(Receiver.exports)
            found = running.settled()
            assert running.logged_once("takes no spans now: Envoy knows no such cluster; ")
        spans = accepted(receiver.exports())
    assert found.pop("exported") == len(spans) == spans.total()
    assert found.keys() <= {"queue_full"}


@pytest.mark.parametrize("discovery", ["LDS", "ECDS"])
def test_configuration_that_is_replaced(outermost_envoy, tmp_path, discovery):
    """Five times, with a slow collector, so that a batch is always under way."""
    file = tmp_path / "discovered.json"
    discovered = {}

    def discover(bootstrap: dict) -> None:
        static = bootstrap["static_resources"]
        (listener,) = [it for it in static["listeners"] if it["name"] == "backend-inbound"]
        if discovery == "LDS":
            static["listeners"].remove(listener)
            source = {"lds_config": {"path_config_source": {"path": str(file)}}}
            bootstrap["dynamic_resources"] = source
            discovered["resource"] = {"@type": f"{_CONFIG}.listener.v3.Listener", **listener}
            discovered["wasm"] = topology.wasm_configuration(discovered["resource"])
        else:
            (filter, *_) = topology.connection_manager(listener)["http_filters"]
            typed = filter.pop("typed_config")
            filter["config_discovery"] = {
                "config_source": {"path_config_source": {"path": str(file)}},
                "type_urls": [typed["@type"]],
            }
            discovered["resource"] = {
                "@type": f"{_CONFIG}.core.v3.TypedExtensionConfig",
                "name": filter["name"],
                "typed_config": typed,
            }
            discovered["wasm"] = typed["config"]
        publish(0)

    def publish(version: int) -> None:
        value = discovered["wasm"]["configuration"]["value"]
        changed = json.loads(value) | {"service_name": f"version-{version}"}
        discovered["wasm"]["configuration"]["value"] = json.dumps(changed)
        new = tmp_path / "new.json"
        new.write_text(json.dumps({"version_info": str(version), "resources": [discovered["resource"]]}))
        new.rename(file)

    with SlowReceiver() as receiver:
        options = {
            "change": discover,
            "arguments": ["--disable-hot-restart", "--drain-time-s", "1", "--drain-strategy", "immediate"],
        }
        with loaded(outermost_envoy, faulty(receiver.port), **options) as running:
            for version in range(1, 6):
                running.load.wait_for(200)
                publish(version)
                service = f"version-{version}"
                receiver.wait_for(lambda receiver: any(span.service == service for span in receiver.spans()))
            running.load.wait_for(200)
            found = running.settled()
        spans = accepted(receiver.exports())
    assert found.pop("exported") == len(spans)
    assert found.keys() <= {"queue_full"}


def test_envoy_that_drains_and_restarts_hot(outermost_envoy, tmp_path):
    base_id = tmp_path / "base-id"
    drain = ["--drain-time-s", "1", "--drain-strategy", "immediate", "--parent-shutdown-time-s", "3"]

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
        load.wait_for(500)
        second = [
            outermost_envoy,
            *["-c", tmp_path / "second.json", "--concurrency", str(WORKERS), "--log-level", "warning"],
            *["--base-id", base_id.read_text().strip(), "--restart-epoch", "1", *drain],
        ]
        stack.enter_context(topology.Program(second, tmp_path / "second.log"))
        running.program.wait_for_end()
        load.wait_for(500)
        found = loaded.settled()
        spans = accepted(receiver.exports())
    assert found == {"exported": len(spans)} and len(spans) == spans.total()


class SlowReceiver(Receiver):
    """A receiver that answers slowly."""

    def answer(self, handler: BaseHTTPRequestHandler, status: int) -> None:
        time.sleep(0.03)
        super().answer(handler, status)


_CONFIG = "type.googleapis.com/envoy.config"
