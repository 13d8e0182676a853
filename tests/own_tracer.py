"""Envoys of plain configuration files, their own tracers on, and all spans that they export.

    with Receivers() as receivers, PlainEnvoy(bootstrap, envoy, {"otel-collector": receivers.grpc_port}) as running:
        observed = observe(receivers, running.port("edge"), {"roots": Case()}, marker=Case())
"""

import http.client
import json
import secrets
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

import topology
from receiver import Export, Receiver, decode
from service import Service

CONTEXTS = ["none", "sampled", "not sampled"]
# The percentage that the examples sample. That all or none of so many requests have a span happens once in
# eight million runs.
PERCENT, REQUESTS = 50, 24
REQUEST_ID = "guid:x-request-id"
_EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_WAIT_SECONDS = 30


@dataclass(frozen=True)
class Span:
    """What both OTLP and Zipkin's JSON say of a span."""

    name: str
    tags: dict[str, object]


@dataclass(frozen=True)
class Case:
    """`count` requests that differ in their trace contexts alone, whose formats take turns."""

    path: str = "/"
    headers: dict[str, str] = field(default_factory=dict)
    context: str = "none"
    formats: tuple[str, ...] = ("tracecontext",)
    count: int = REQUESTS


@dataclass(frozen=True)
class Observed:
    """One request: the trace that it came with, the headers that the service and the client got, its span."""

    trace_id: str | None
    upstream: dict[str, str]
    answer: dict[str, str]
    span: Span | None

    def is_sampled_upstream(self) -> bool:
        flags, bit = (self.upstream.get(name, "") for name in ("traceparent", "x-b3-sampled"))
        decisions = {it for it in [flags[-1:], bit] if it}
        assert decisions in ({"0"}, {"1"}), f"expected one decision, but found {self.upstream}"
        return decisions == {"1"}


class Receivers:
    """Receivers of OTLP over gRPC, and over HTTP of OTLP and Zipkin's JSON; a context manager."""

    def __enter__(self):
        with ExitStack() as starting:
            self._grpc = starting.enter_context(_GrpcReceiver())
            self._http = starting.enter_context(Receiver())
            self._resources = starting.pop_all()
        self.grpc_port, self.http_port = self._grpc.port, self._http.port
        return self

    def __exit__(self, *_):
        self._resources.close()

    def spans(self) -> list[Span]:
        return [*self._grpc.spans(), *(span for export in self._http.exports() for span in _of_http(export))]

    def wait_for_span_of(self, request_id: str) -> dict[object, Span]:
        """Returns all spans by their requests' ids, as soon as that of this request came."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while request_id not in (spans := {span.tags.get(REQUEST_ID): span for span in self.spans()}):
            if time.monotonic() > deadline:
                raise TimeoutError(f"after {_WAIT_SECONDS} s no span of {request_id}, but of {len(spans)} others")
            time.sleep(0.01)
        return spans


class PlainEnvoy(topology.Running):
    """A running Envoy of a bootstrap, on free ports, before an application; a context manager."""

    def __init__(self, bootstrap: dict, envoy: Path, endpoints: dict[str, int]):
        """`endpoints` has the ports of clusters; those of all others are the application's."""
        self._bootstrap = bootstrap
        self._envoy = envoy
        self._endpoints = endpoints

    def __enter__(self):
        with ExitStack() as starting:
            folder = Path(starting.enter_context(tempfile.TemporaryDirectory(prefix="sidespan-")))
            application = starting.enter_context(Service("service"))
            self._lay_out(application.port)
            file = folder / "envoy.json"
            file.write_text(json.dumps(self._bootstrap))
            command = [self._envoy, "-c", file, "--concurrency", "1", "--log-level", "warning", "--disable-hot-restart"]
            self.program = starting.enter_context(topology.Program(command, folder / "envoy.log"))
            self.program.wait_until(lambda: topology.admin_answer(self.admin_port, "/ready") is not None)
            self._resources = starting.pop_all()
        return self

    def __exit__(self, *_):
        self._resources.close()

    def port(self, listener: str) -> int:
        return self._ports[listener]

    def _lay_out(self, application_port: int) -> None:
        ports = topology.free_ports()
        self.admin_port = next(ports)
        loopback = {"address": "127.0.0.1"}
        self._bootstrap["admin"] = {"address": {"socket_address": loopback | {"port_value": self.admin_port}}}
        resources = self._bootstrap["static_resources"]
        self._ports = {listener["name"]: next(ports) for listener in resources["listeners"]}
        for listener in resources["listeners"]:
            listener["address"] = {"socket_address": loopback | {"port_value": self._ports[listener["name"]]}}
        for cluster in resources["clusters"]:
            cluster["type"] = "STATIC"
            ((endpoint,),) = [group["lb_endpoints"] for group in cluster["load_assignment"]["endpoints"]]
            port = self._endpoints.get(cluster["name"], application_port)
            endpoint["endpoint"]["address"]["socket_address"] = loopback | {"port_value": port}
            # Over one connection spans come in order.
            cluster["circuit_breakers"] = {"thresholds": [{"max_connections": 1}]}
        export_at_once(self._bootstrap)


def export_at_once(bootstrap: dict) -> None:
    """Lets Envoy's tracers export each span when it ends, in place of five at once or after seconds."""
    settings = {"tracing.opentelemetry.min_flush_spans": 1, "tracing.zipkin.min_flush_spans": 1}
    bootstrap["layered_runtime"] = {"layers": [{"name": "export-at-once", "static_layer": settings}]}


def observe(receivers: Receivers, port: int, cases: dict, marker: Case) -> dict[object, list[Observed]]:
    """Sends the requests of all cases, and returns what was observed of each, under the case's key.

    The last request, `marker`, must have a span. Spans are exported in order: once this one came, all did.
    """
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        sent = {key: [_send(client, case, number) for number in range(case.count)] for key, case in cases.items()}
        _, last, _ = _send(client, marker, 0)
    finally:
        client.close()
    spans = receivers.wait_for_span_of(last["x-request-id"])
    return {
        key: [Observed(*one, spans.get(one[1]["x-request-id"])) for one in requests]
        for key, requests in sent.items()
    }


def in_contexts(cases: dict[str, Case]) -> dict[tuple[str, str], Case]:
    """Returns each case once without a context, once in sampled traces and once in others."""
    return {(key, context): replace(case, context=context) for key, case in cases.items() for context in CONTEXTS}


def shares(observed: dict, key: str) -> str:
    """Returns how many requests of a case have a span: those without a context / sampled / not sampled."""
    return " / ".join(_share(observed[key, context]) for context in CONTEXTS)


def _share(observed: list[Observed]) -> str:
    # The service gets a sampled context if the request has a span, and else an unsampled one.
    assert [it.is_sampled_upstream() for it in observed] == [it.span is not None for it in observed]
    spans = sum(it.span is not None for it in observed)
    return {0: "none", len(observed): "all"}.get(spans, f"{PERCENT} %")


def table(head: list[str], rows: list[list[str]]) -> str:
    """Returns a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def check_table(readme: Path, head: list[str], rows: list[list[str]]) -> None:
    """Compares a table of a README with what was observed."""
    expected = table(head, rows)
    assert expected in readme.read_text(), f"expected in {readme}, as observed:\n\n{expected}"


def _send(client: http.client.HTTPConnection, case: Case, number: int) -> tuple[str | None, dict, dict]:
    trace_id = None if case.context == "none" else secrets.token_hex(16)
    context = _context(trace_id, case.context == "sampled", case.formats[number % len(case.formats)])
    client.request("GET", case.path, headers=case.headers | context)
    answer = client.getresponse()
    text = answer.read().decode()
    assert answer.status == 200, text
    return trace_id, dict(json.loads(text)["headers"]), {name.lower(): value for name, value in answer.getheaders()}


def _context(trace_id: str | None, is_sampled: bool, format: str) -> dict[str, str]:
    if trace_id is None:
        return {}
    span_id, sampled = secrets.token_hex(8), str(int(is_sampled))
    if format == "tracecontext":
        return {"traceparent": f"00-{trace_id}-{span_id}-0{sampled}"}
    return {"x-b3-traceid": trace_id, "x-b3-spanid": span_id, "x-b3-sampled": sampled}


def _of_http(export: Export) -> list[Span]:
    if export.path != "/api/v2/spans":
        return _of_otlp(export.spans)
    return [Span(it["name"], it["tags"]) for it in json.loads(export.body)]


def _of_otlp(spans: list) -> list[Span]:
    return [Span(it.name, it.attributes) for it in spans]


class _GrpcReceiver(grpc.GenericRpcHandler):
    """A running OTLP receiver that speaks gRPC."""

    def __init__(self):
        self._lock = threading.Lock()
        self._spans: list[Span] = []

    def __enter__(self):
        # One thread takes the exports in the order in which they come.
        self._worker = ThreadPoolExecutor(1)
        self._server = grpc.server(self._worker, handlers=[self])
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        return self

    def __exit__(self, *_):
        self._server.stop(grace=None).wait()
        self._worker.shutdown()

    def spans(self) -> list[Span]:
        with self._lock:
            return list(self._spans)

    def service(self, handler_call_details):
        if handler_call_details.method == _EXPORT:
            return grpc.unary_unary_rpc_method_handler(
                self._keep,
                request_deserializer=ExportTraceServiceRequest.FromString,
                response_serializer=ExportTraceServiceResponse.SerializeToString,
            )

    def _keep(self, request, _):
        with self._lock:
            self._spans += _of_otlp(decode(request))
        return ExportTraceServiceResponse()
