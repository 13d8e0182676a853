"""A stand-in for Linkerd's proxy: what it does to the context of a request, and the span that it exports.

    with Proxy("outbound", next_port, collector_port) as proxy:

Linkerd's proxy itself is in no package registry. These are the facts that it plays, as its parsers of
August 2026 have them:

- It reads `traceparent` of version 00 first, then the `x-b3-*` headers, of which `x-b3-sampled: 1` alone
  means sampled. It does not read the single `b3` header, nor `x-b3-flags`.
- It writes a new span id into `traceparent`, and leaves B3 headers beside it as they were. Where there are
  only B3 headers it writes the new id there.
- It starts no trace and takes no decision: it exports a span of what is sampled, over OTLP/gRPC.

The real one makes two spans of each request, one for each of its sides.
"""

import http.client
import re
import secrets
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.proto.trace.v1.trace_pb2 import Span

SERVICE = "linkerd-proxy"
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_KINDS = {"inbound": Span.SPAN_KIND_SERVER, "outbound": Span.SPAN_KIND_CLIENT}
_SECONDS = 30


@dataclass(frozen=True)
class _Context:
    trace_id: str
    parent_id: str
    is_sampled: bool


class Proxy:
    """One running proxy; a context manager that stops it. `got` has the headers of each request it was sent."""

    def __init__(self, direction: str, next_port: int, collector_port: int):
        self._direction = direction
        self.next_port = next_port
        self._collector = f"127.0.0.1:{collector_port}"
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.proxy = self
        self.port = self._server.server_port
        self.got: list[dict[str, str]] = []

    def __enter__(self):
        self._channel = grpc.insecure_channel(self._collector)
        self._exporter = TraceServiceStub(self._channel)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._channel.close()

    def forward(self, target: str, headers: dict[str, str]) -> tuple[int, bytes]:
        """Returns the answer to a request, sent on with the context that Linkerd's proxy would write."""
        self.got.append(headers)
        context, span_id, started = _read(headers), secrets.token_hex(8), time.time_ns()
        if context is not None:
            headers = headers | _renewed(headers, context, span_id)
        with closing(http.client.HTTPConnection("127.0.0.1", self.next_port, timeout=_SECONDS)) as connection:
            connection.request("GET", target, headers=headers)
            answer = connection.getresponse()
            status, body = answer.status, answer.read()
        if context is not None and context.is_sampled:
            self._export(context, span_id, started)
        return status, body

    def _export(self, context: _Context, span_id: str, started: int) -> None:
        request = ExportTraceServiceRequest()
        of_resource = request.resource_spans.add()
        of_resource.resource.attributes.add(key="service.name").value.string_value = SERVICE
        span = of_resource.scope_spans.add().spans.add()
        span.trace_id = bytes.fromhex(context.trace_id)
        span.span_id = bytes.fromhex(span_id)
        span.parent_span_id = bytes.fromhex(context.parent_id)
        span.name, span.kind = self._direction, _KINDS[self._direction]
        span.start_time_unix_nano, span.end_time_unix_nano = started, time.time_ns()
        self._exporter.Export(request, timeout=_SECONDS)


def _read(headers: dict[str, str]) -> _Context | None:
    if match := _TRACEPARENT.fullmatch(headers.get("traceparent", "")):
        trace_id, parent_id, flags = match.groups()
        return _Context(trace_id, parent_id, bool(int(flags, 16) & 1))
    trace_id, parent_id = headers.get("x-b3-traceid"), headers.get("x-b3-spanid")
    if trace_id and parent_id:
        return _Context(trace_id.zfill(32), parent_id, headers.get("x-b3-sampled") == "1")
    return None


def _renewed(headers: dict[str, str], context: _Context, span_id: str) -> dict[str, str]:
    if "traceparent" in headers:
        return {"traceparent": f"00-{context.trace_id}-{span_id}-{int(context.is_sampled):02x}"}
    return {"x-b3-parentspanid": context.parent_id, "x-b3-spanid": span_id}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        headers = {name.lower(): value for name, value in self.headers.items()}
        status, body = self.server.proxy.forward(self.path, headers)
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass
