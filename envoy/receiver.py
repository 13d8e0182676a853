"""An OTLP/HTTP receiver that keeps every byte it was sent, for the demo and the tests.

https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

import gzip
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1 import trace_pb2

T = TypeVar("T")


@dataclass(frozen=True)
class Export:
    """One request to the receiver, unchanged, and the status of the response."""

    received_at: float
    path: str
    headers: dict[str, str]
    body: bytes
    status: int

    @cached_property
    def spans(self) -> list["Span"]:
        """The decoded spans; a body that is no OTLP request raises."""
        compressed = self.headers.get("content-encoding") == "gzip"
        body = gzip.decompress(self.body) if compressed else self.body
        return decode(ExportTraceServiceRequest.FromString(body))


@dataclass(frozen=True)
class Span:
    """One span with its resource, ids as lower-case hex."""

    resource: dict[str, object]
    scope: str
    trace_id: str
    span_id: str
    parent_span_id: str
    trace_state: str
    flags: int
    name: str
    kind: str
    start_ns: int
    end_ns: int
    attributes: dict[str, object]
    status: str
    events: tuple[str, ...] = ()
    # Trace id, span id and tracestate of each.
    links: tuple[tuple[str, str, str], ...] = ()

    @property
    def service(self) -> str:
        return self.resource["service.name"]


class Receiver:
    """A running receiver; a context manager that stops it. Port 0 takes a free one.

    `status` is the status of its responses from now on, with `retry_after` where that is set; a body of
    more than `most_bytes` gets 413. `spans` has only spans of accepted requests. While `answers` is
    cleared, no request is answered.
    """

    def __init__(self, port: int = 0):
        self.status = 200
        self.retry_after: str | None = None
        self.most_bytes: int | None = None
        self.answers = threading.Event()
        self.answers.set()
        self._exports: list[Export] = []
        self._changed = threading.Condition()
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.receiver = self
        self.port = self._server.server_port

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.answers.set()
        self._server.shutdown()
        self._server.server_close()
        self._server.hang_up()

    def exports(self) -> list[Export]:
        with self._changed:
            return list(self._exports)

    def spans(self) -> list[Span]:
        return [span for export in self.exports() if export.status == 200 for span in export.spans]

    def wait_for(self, found: Callable[["Receiver"], T], timeout: float = 30) -> T:
        """Returns the first true answer of `found`, which is asked again after each export."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not (answer := found(self)):
                if not self._changed.wait(deadline - time.monotonic()):
                    names = [
                        f"{span.service} {span.kind} {span.name} {span.trace_id}" for span in self.spans()
                    ]
                    raise TimeoutError(
                        f"{len(self._exports)} exports in {timeout} s, and not what was waited for; "
                        f"the last spans: {names[-20:]}"
                    )
            return answer

    def trace(self, trace_id: str, spans: int, timeout: float = 30) -> list[Span]:
        """Waits until `spans` spans of the trace came; returns all of them, root first."""

        def found(receiver: Receiver) -> list[Span]:
            trace = [span for span in receiver.spans() if span.trace_id == trace_id]
            return trace if len(trace) >= spans else []

        return sorted(self.wait_for(found, timeout), key=lambda span: span.start_ns)

    def answer(self, handler: BaseHTTPRequestHandler, status: int) -> None:
        """Answers one export."""
        body = ExportTraceServiceResponse().SerializeToString()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/x-protobuf")
        handler.send_header("Content-Length", str(len(body)))
        if self.retry_after is not None:
            handler.send_header("Retry-After", self.retry_after)
        handler.end_headers()
        handler.wfile.write(body)

    def keep(self, path: str, headers: dict[str, str], body: bytes, status: int | None = None) -> int:
        """Keeps one request, and returns the status of its response: `status`, if that is given."""
        with self._changed:
            is_too_large = self.most_bytes is not None and len(body) > self.most_bytes
            status = 413 if is_too_large else status or self.status
            self._exports.append(Export(time.time(), path, headers, body, status))
            self._changed.notify_all()
            return status


def decode(request: ExportTraceServiceRequest) -> list[Span]:
    return [
        Span(
            resource=_attributes(of_resource.resource.attributes),
            scope=of_scope.scope.name,
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_span_id=span.parent_span_id.hex(),
            trace_state=span.trace_state,
            flags=span.flags,
            name=span.name,
            kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
            start_ns=span.start_time_unix_nano,
            end_ns=span.end_time_unix_nano,
            attributes=_attributes(span.attributes),
            status=trace_pb2.Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"),
            events=tuple(event.name for event in span.events),
            links=tuple(
                (link.trace_id.hex(), link.span_id.hex(), link.trace_state) for link in span.links
            ),
        )
        for of_resource in request.resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    ]


def _attributes(pairs) -> dict[str, object]:
    attributes = {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
    if len(attributes) != len(pairs):
        raise ValueError(f"expected every attribute once, but found {[pair.key for pair in pairs]}")
    return attributes


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # Envoy keeps its connection open
    request_queue_size = 128
    receiver: Receiver

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._connections: set[socket.socket] = set()

    def get_request(self):
        connection, address = super().get_request()
        self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request):
        self._connections.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Closes all connections, as the end of a process would."""
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request, client_address):
        """Prints nothing when a connection is closed during a response."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self):
        body = self._body()
        headers = {name.lower(): value for name, value in self.headers.items()}
        status = self.server.receiver.keep(self.path, headers, body)
        self.server.receiver.answers.wait()
        self.server.receiver.answer(self, status)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        # OpenTelemetry's SDK for Node sends its exports so.
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def log_message(self, *_):
        pass
