"""What a collector may do to a filter, under load: no request is harmed, and every span is accounted for."""

import json
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

import topology
from conftest import lane
from load import Audit, Load, answered_here, is_balanced
from receiver import Export, Receiver
from topology import Lane, Topology, books

WORKERS = 2
TIMEOUT_MS = 1_000
# Far longer than any request takes, and shorter than a collector that is waited for.
LONGEST_SECONDS = 0.9
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
    return Lane(filter=filter, collector_port=port, change=answered_here)


@contextmanager
def loaded(envoy: Path, lane: Lane, **options):
    """Runs an Envoy under load whose books are read all the while."""
    with Topology({"": lane}, envoy=envoy, concurrency=WORKERS, **options) as running:
        with Audit(running.stats) as audit, Load(running.lane().backend_inbound) as load:
            yield running, load
        assert audit.reads > 0


def settled(running: Topology, load: Load) -> dict[str, int]:
    """Returns the books once nothing is queued; no request may have failed or waited for a collector."""
    assert load.statuses.keys() == {200}
    assert load.longest_seconds < LONGEST_SECONDS
    stats = running.wait_for_stats(
        lambda stats: stats["sidespan_spans_recorded_total"] == load.sent and stats["sidespan_spans_queued"] == 0,
        timeout=30,
    )
    assert is_balanced(stats) and stats["sidespan_queue_bytes"] == 0
    found = books(stats)
    assert found.pop("queued") == 0 and found.pop("recorded") == load.sent
    return found


def logged_once(log: str, text: str) -> bool:
    """Tells whether the filter said this once: both workers meet every fault, again and again."""
    return len([line for line in log.splitlines() if text in line]) == 1


def test_collector_that_is_absent_at_start(outermost_envoy):
    port = next(topology.free_ports())
    with loaded(outermost_envoy, faulty(port)) as (running, load):
        running.wait_for_stats(lambda stats: stats['sidespan_exports_total{result="retry"}'] >= 3)
        with Receiver(port) as receiver:
            receiver.wait_for(Receiver.exports)
            load.wait_for(500)
            load.stop()
            found = settled(running, load)
            spans = accepted(receiver.exports())
    assert found.pop("exported") == len(spans) == spans.total()
    # Nothing but what the queue had no room for.
    assert found.keys() <= {"queue_full"}


def test_collector_that_is_killed_and_restarted(outermost_envoy):
    port = next(topology.free_ports())
    spans: Counter = Counter()
    with loaded(outermost_envoy, faulty(port)) as (running, load):
        for _ in range(3):
            with Receiver(port) as receiver:
                receiver.wait_for(lambda receiver: len(receiver.exports()) >= 3)
            spans += accepted(receiver.exports())
        with Receiver(port) as receiver:
            receiver.wait_for(lambda receiver: len(receiver.exports()) >= 3)
            load.stop()
            found = settled(running, load)
            spans += accepted(receiver.exports())
    # What came with a call that the end of a collector cut off came again.
    assert found.pop("exported") == len(spans)
    assert found.keys() <= {"queue_full"}


@pytest.mark.parametrize("fault", ["never answers", "closes", "drips"])
def test_collector_that_loses_its_answers(outermost_envoy, fault):
    with FaultyReceiver(fault=fault) as receiver:
        with loaded(outermost_envoy, faulty(receiver.port)) as (running, load):
            if fault == "never answers":
                receiver.answers.clear()
            retries = 'sidespan_exports_total{result="retry"}'
            running.wait_for_stats(lambda stats: stats[retries] >= 2, timeout=30)
            receiver.fault = None
            receiver.answers.set()
            running.wait_for_stats(lambda stats: stats["sidespan_spans_exported_total"] > 0, timeout=30)
            load.stop()
            found = settled(running, load)
        spans = accepted(receiver.exports())
    assert found.pop("exported") == len(spans)
    assert spans.total() > len(spans), "it had taken spans, which nobody was told"
    assert found.keys() <= {"queue_full"}


def test_collector_that_is_unavailable_for_ten_seconds(newest_envoy):
    with Receiver() as receiver:
        with loaded(newest_envoy, faulty(receiver.port)) as (running, load):
            receiver.status = 503
            unavailable = time.monotonic()
            running.wait_for_stats(lambda _: time.monotonic() > unavailable + 10, timeout=20)
            receiver.status = 200
            receiver.wait_for(lambda receiver: receiver.exports()[-1].status == 200)
            load.stop()
            found = settled(running, load)
            log = running.log()
        exports = receiver.exports()
    spans = accepted(exports)
    assert found.pop("exported") == len(spans) == spans.total()
    assert found.keys() == {"queue_full"}, "ten seconds of load are more than a queue holds"
    refused = [export for export in exports if export.status == 503]
    # One worker or two had requests, each with pauses that grow to 0.4 s, give or take half.
    assert 10 / 0.7 < len(refused) < 2 * (5 + 10 / 0.2)
    # What waited came out: it was not thrown away for what was newer.
    assert {span.span_id for span in refused[-1].spans} <= spans.keys()
    assert logged_once(log, 'the collector at cluster "otel-collector" takes no spans now: answered 503; ')
    assert logged_once(log, 'spans for the collector at cluster "otel-collector" were dropped')


def test_collector_that_refuses_for_ever(outermost_envoy):
    with Receiver() as receiver:
        receiver.status = 400
        with loaded(outermost_envoy, faulty(receiver.port)) as (running, load):
            load.wait_for(1_000)
            load.stop()
            found = settled(running, load)
            log = running.log()
        sent = Counter(span.span_id for export in receiver.exports() for span in export.spans)
    assert found.pop("exported") == 0
    assert set(sent.values()) == {1}, "what is refused is not sent again"
    assert found.pop("rejected") == len(sent)
    assert logged_once(log, " rejected; it answered 400")
    assert found.keys() <= {"queue_full"}


def test_collector_that_takes_a_part(outermost_envoy):
    with FaultyReceiver(fault="partial success") as receiver:
        with loaded(outermost_envoy, faulty(receiver.port)) as (running, load):
            load.wait_for(1_000)
            load.stop()
            found = settled(running, load)
            log = running.log()
        exports = receiver.exports()
    spans = accepted(exports)
    assert found.pop("partial_success") == len(exports)
    assert found.pop("exported") == len(spans) - len(exports) == spans.total() - len(exports)
    assert found.keys() <= {"queue_full"}
    assert logged_once(log, 'the collector at cluster "otel-collector" rejected 1 spans: too old')


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
        with loaded(outermost_envoy, lane, change=take_collector_away) as (running, load):
            running.wait_for_stats(lambda stats: stats['sidespan_exports_total{result="retry"}'] >= 4)
            (tmp_path / "later.json").rename(clusters)
            receiver.wait_for(Receiver.exports)
            load.stop()
            found = settled(running, load)
            log = running.log()
        spans = accepted(receiver.exports())
    assert found.pop("exported") == len(spans) == spans.total()
    assert found.keys() <= {"queue_full"}
    assert logged_once(log, "takes no spans now: Envoy knows no such cluster; ")


@pytest.mark.parametrize("discovery", ["LDS", "ECDS"])
def test_configuration_that_is_replaced(outermost_envoy, tmp_path, discovery):
    """Five times, and the collector takes its time, so that a batch is always under way."""
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
        with loaded(outermost_envoy, faulty(receiver.port), **options) as (running, load):
            for version in range(1, 6):
                load.wait_for(200)
                publish(version)
                service = f"version-{version}"
                receiver.wait_for(lambda receiver: any(span.service == service for span in receiver.spans()))
            load.wait_for(200)
            load.stop()
            found = settled(running, load)
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
        load = stack.enter_context(Load(running.lane().backend_inbound))
        load.wait_for(500)
        second = [
            outermost_envoy,
            *["-c", tmp_path / "second.json", "--concurrency", str(WORKERS), "--log-level", "warning"],
            *["--base-id", base_id.read_text().strip(), "--restart-epoch", "1", *drain],
        ]
        stack.enter_context(topology.Program(second, tmp_path / "second.log"))
        running.program.wait_for_end()
        load.wait_for(500)
        load.stop()
        found = settled(running, load)
        spans = accepted(receiver.exports())
    assert found == {"exported": len(spans)} and len(spans) == spans.total()


class SlowReceiver(Receiver):
    """A receiver that takes a while for each answer."""

    def answer(self, handler: BaseHTTPRequestHandler, status: int) -> None:
        time.sleep(0.03)
        super().answer(handler, status)


_CONFIG = "type.googleapis.com/envoy.config"
