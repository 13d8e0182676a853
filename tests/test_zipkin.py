"""Spans as Zipkin v2 JSON: in Zipkin's own server, and as the Collector's receiver for Zipkin reads them."""

import json
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

import tools
from conftest import lane
from expected import Port, Positive, client_attributes, server_attributes
from shared_envoys import SharedTopology
from test_collector import BUILDER_CONFIGURATION, CLIENT, ERROR, SERVER, attributes, exported_spans
from topology import Lane, Program, Topology, admin_answer, connection_manager, free_ports
from traffic import Client, new_context

LOOPBACK = "127.0.0.1"
FAILING = "/orders/7?status=503"
SLOW = "/orders/7?delay_ms=300"
MANIFEST = (Path(__file__).parents[1] / "Cargo.toml").read_text()
VERSION = re.search(r'^version = "(.+)"$', MANIFEST, re.MULTILINE).group(1)
SCOPE = {"otel.scope.name": "sidespan", "otel.scope.version": VERSION}
POD = {"k8s.pod.name": "shop-1"}
# A tracestate may have a `|`, which separates the parts of a link.
STATE, BARRED_STATE = "a=1", "a=1|2"


class Spelled:
    """Equal to every text that spells a number equal to this."""

    def __init__(self, number):
        self._number = number

    def __eq__(self, other):
        return type(other) is str and (json.loads(other) == self._number or float(other) == self._number)

    def __repr__(self):
        return f"{self._number!r} in a text"


def tags(attributes: dict) -> dict:
    """Returns attributes as Zipkin has them: every value is a text."""
    numbers = (int, float, Port, Positive)
    return {key: Spelled(value) if isinstance(value, numbers) else value for key, value in attributes.items()}


@pytest.fixture(scope="module")
def zipkin(tmp_path_factory):
    """A Zipkin server: its program and its port."""
    port = next(free_ports())
    listener = {"ip": LOOPBACK, "port": port, "protocols": "http"}
    arguments = [f"--armeria.ports[0].{key}={value}" for key, value in listener.items()]
    log = tmp_path_factory.mktemp("zipkin") / "zipkin.log"
    with Program([*tools.zipkin(), *arguments], log) as program:
        program.wait_until(lambda: admin_answer(port, "/health") is not None)
        yield program, port


@pytest.fixture(scope="module")
def collector(tmp_path_factory):
    """A Collector, the port of its receiver for Zipkin, and the file that its spans go to."""
    folder, ports = tmp_path_factory.mktemp("collector"), free_ports()
    port, health_port = next(ports), next(ports)
    traces, configuration = folder / "traces.json", folder / "collector.yaml"
    configuration.write_text(
        yaml.safe_dump(
            {
                "extensions": {"health_check": {"endpoint": f"{LOOPBACK}:{health_port}"}},
                "receivers": {"zipkin": {"endpoint": f"{LOOPBACK}:{port}"}},
                "exporters": {"file": {"path": str(traces), "flush_interval": "100ms"}},
                "service": {
                    "extensions": ["health_check"],
                    "pipelines": {"traces": {"receivers": ["zipkin"], "exporters": ["file"]}},
                    "telemetry": {"metrics": {"level": "none"}},
                },
            }
        )
    )
    command = [tools.collector(BUILDER_CONFIGURATION), "--config", configuration]
    with Program(command, folder / "collector.log") as program:
        program.wait_until(lambda: admin_answer(health_port, "/") is not None)
        yield program, port, traces


def zipkin_lane(port: int, compression: str = "none", **options) -> Lane:
    given = lane(1, collector_port=port, **options)
    zipkin = {"cluster": "otel-collector", "compression": compression}
    given.filter["exporter"] = {"zipkin": zipkin, "batch": {"interval_ms": 100}}
    given.filter["resource_attributes"] = POD
    return given


def edge_lane(port: int) -> Lane:
    """A lane that follows no context, and whose backend has a tenth of a second to answer."""

    def hurry(resources: dict) -> None:
        for listener in resources["listeners"]:
            if listener["name"] == "backend-inbound":
                (virtual_host,) = connection_manager(listener)["route_config"]["virtual_hosts"]
                for route in virtual_host["routes"]:
                    route["route"]["timeout"] = "0.1s"

    listeners = {"frontend-inbound": {"propagation": {"trust": "restart"}}}
    return zipkin_lane(port, listeners=listeners, change=hurry)


@pytest.fixture(scope="module")
def exporting_envoy(zipkin, collector, newest_envoy):
    _, port, _ = collector
    _, zipkin_port = zipkin
    lanes = {
        "none": zipkin_lane(zipkin_port),
        "gzip": zipkin_lane(zipkin_port, "gzip"),
        "edge": edge_lane(zipkin_port),
        "collector": zipkin_lane(port),
        "collector-edge": edge_lane(port),
    }
    with SharedTopology(lanes, envoy=newest_envoy) as running:
        yield running


@contextmanager
def exported(running: Topology, spans: int) -> Iterator[Client]:
    """Gives a client, and returns when so many more spans are exported."""
    counter = "sidespan_spans_exported_total"
    before = running.stats().get(counter, 0)
    with Client(running, "1.1") as client:
        yield client
    running.wait_for_stats(lambda stats: stats.get(counter) == before + spans)


def stored_trace(zipkin: tuple[Program, int], trace_id: str) -> list[dict]:
    """Returns the three spans of a trace, oldest first, once Zipkin has them: it answers before it stores them."""

    def stored() -> list[dict]:
        return json.loads(admin_answer(port, f"/api/v2/trace/{trace_id}") or "[]")

    program, port = zipkin
    program.wait_until(lambda: len(stored()) == 3)
    return sorted(stored(), key=lambda span: span["timestamp"])


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_zipkin_stores_a_trace_whole(zipkin, exporting_envoy, compression):
    parent, request_id = new_context(), str(uuid.uuid4())
    headers = {
        "traceparent": parent.traceparent("01"),
        "tracestate": BARRED_STATE,
        "x-request-id": request_id,
    }
    started = time.time_ns() // 1000
    with exported(exporting_envoy, 3) as client:
        client.through(compression, FAILING, headers)
        peer_port = client.lane(compression).backend_inbound
    ended = time.time_ns() // 1000

    spans = stored_trace(zipkin, parent.trace_id)
    for span in spans:
        assert started <= span["timestamp"] < span["timestamp"] + span["duration"] <= ended
    server, outbound, backend = spans
    shared = {**SCOPE, **POD, "w3c.tracestate": BARRED_STATE, "otel.status_code": "ERROR", "error": ""}
    error = {"http.response.status_code": 503, "error.type": "503", **shared}
    given = "1.1", FAILING, request_id, compression

    def expected(span: dict, above: dict, kind: str, service: str, of_kind: dict, **others) -> dict:
        return {
            "traceId": parent.trace_id,
            "parentId": above["id"],
            "id": span["id"],
            "kind": kind,
            # Zipkin keeps names in lower case.
            "name": "get",
            "timestamp": span["timestamp"],
            "duration": span["duration"],
            "localEndpoint": {"serviceName": service},
            "tags": tags(of_kind),
            **others,
        }

    assert server == expected(
        server,
        {"id": parent.span_id},
        "SERVER",
        "frontend",
        server_attributes("frontend", *given, **error, **{"user_agent.original": "tests"}),
    )
    assert outbound == expected(
        outbound,
        server,
        "CLIENT",
        "frontend",
        client_attributes(FAILING, request_id, peer_port, compression, **error),
        remoteEndpoint={"serviceName": "backend", "ipv4": LOOPBACK, "port": peer_port},
    )
    assert backend == expected(
        backend,
        outbound,
        "SERVER",
        "backend",
        server_attributes("backend", *given, **error, **{"user_agent.original": "frontend"}),
    )
    _, port = zipkin
    links = json.loads(admin_answer(port, f"/api/v2/dependencies?endTs={ended // 1000 + 1}"))
    assert {"parent": "frontend", "child": "backend"}.items() <= links[0].items()


def test_zipkin_stores_links_and_events(zipkin, exporting_envoy):
    outside = new_context()
    headers = {"traceparent": outside.traceparent("01"), "tracestate": STATE}
    with exported(exporting_envoy, 3) as client:
        answer = client.through("edge", SLOW, headers)

    trace_id = answer.calls[0].context()["traceparent"].split("-")[1]
    server, outbound, backend = stored_trace(zipkin, trace_id)
    assert "parentId" not in server
    assert server["tags"]["otlp.link.0"] == f"{outside.trace_id}|{outside.span_id}|{STATE}|{{}}|0"
    assert "otlp.link.0" not in outbound["tags"] | backend["tags"]
    end = backend["timestamp"] + backend["duration"]
    (annotation,) = backend["annotations"]
    # Times are cut to microseconds, each for itself.
    assert annotation in [{"timestamp": end + rest, "value": "timeout"} for rest in (0, 1)]
    assert "annotations" not in server and "annotations" not in outbound


@pytest.mark.parametrize("state", [STATE, BARRED_STATE])
def test_the_collector_reads_back_what_was_recorded(collector, exporting_envoy, state):
    program, _, traces = collector
    parent, outside, request_id = new_context(), new_context(), str(uuid.uuid4())
    headers = {"tracestate": state, "x-request-id": request_id}
    with exported(exporting_envoy, 6) as client:
        client.through("collector", FAILING, headers | {"traceparent": parent.traceparent("01")})
        answer = client.through("collector-edge", SLOW, headers | {"traceparent": outside.traceparent("01")})
        peer_port = client.lane("collector").backend_inbound
    trace_id = answer.calls[0].context()["traceparent"].split("-")[1]
    for each in (parent.trace_id, trace_id):
        program.wait_until(lambda trace_id=each: len(exported_spans(traces, trace_id)) == 3)

    server, outbound, backend = exported_spans(traces, parent.trace_id)
    assert [(span["name"], span["kind"], span["status"]) for span in (server, outbound, backend)] == [
        ("GET", SERVER, {"code": ERROR}),
        ("GET", CLIENT, {"code": ERROR}),
        ("GET", SERVER, {"code": ERROR}),
    ]
    parents = [span["parentSpanId"] for span in (server, outbound, backend)]
    assert parents == [parent.span_id, server["spanId"], outbound["spanId"]]
    assert {span["traceState"] for span in (server, outbound, backend)} == {state}
    resources = [span["resource"] for span in (server, outbound, backend)]
    assert resources == [{"service.name": name, **POD} for name in ("frontend", "frontend", "backend")]
    # Attributes that Zipkin keeps as tags, and those that the Collector makes of Zipkin's endpoint.
    error = {"http.response.status_code": 503, "error.type": "503", "error": "", **SCOPE}
    peer = {"peer.service": "backend", "net.peer.ip": LOOPBACK}
    given = "1.1", FAILING, request_id, "collector"
    assert attributes(server) == tags(
        server_attributes("frontend", *given, **error, **{"user_agent.original": "tests"})
    )
    assert attributes(outbound) == {
        **tags(client_attributes(FAILING, request_id, peer_port, "collector", **error, **peer)),
        "net.peer.port": peer_port,
    }
    assert attributes(backend) == tags(
        server_attributes("backend", *given, **error, **{"user_agent.original": "frontend"})
    )

    server, _, backend = exported_spans(traces, trace_id)
    kept = {"traceState": state} if state == STATE else {}
    assert server["links"] == [{"traceId": outside.trace_id, "spanId": outside.span_id, **kept}]
    assert [event["name"] for event in backend["events"]] == ["timeout"]
