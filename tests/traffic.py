"""Sends requests through a lane of the topology, and reads back what the services and the receiver got."""

import secrets
from dataclasses import dataclass

import httpx

from receiver import Span
from service import CONTEXT_HEADER_PREFIXES, CONTEXT_HEADERS
from topology import RunningLane, Topology


@dataclass(frozen=True)
class Call:
    """How one service was called."""

    service: str
    headers: list[tuple[str, str]]

    def context(self) -> dict[str, str]:
        """Returns the headers that carry a trace's context; one that came twice fails."""
        pairs = [
            (name, value)
            for name, value in self.headers
            if name in CONTEXT_HEADERS or name.startswith(CONTEXT_HEADER_PREFIXES)
        ]
        assert len(dict(pairs)) == len(pairs), f"expected each context header once, but found {pairs}"
        return dict(pairs)


@dataclass(frozen=True)
class Answer:
    status: int
    calls: list[Call]


@dataclass(frozen=True)
class Context:
    """A trace context of the tests' own making."""

    trace_id: str
    span_id: str

    def traceparent(self, flags: str) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{flags}"


def new_context(trace_id_bytes: int = 16) -> Context:
    return Context(secrets.token_hex(trace_id_bytes), secrets.token_hex(8))


class Client:
    """Speaks one HTTP version to the topology's listeners."""

    def __init__(self, topology: Topology, http: str):
        self.http = http
        self.topology = topology
        # Nothing here speaks TLS, and to read the certificates of all authorities takes 30 ms.
        self._client = httpx.Client(http1=http == "1.1", http2=http == "2", verify=False, timeout=20)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._client.close()

    def lane(self, name: str) -> RunningLane:
        return self.topology.lane(name)

    def send(self, port: int, target: str, headers: dict | list | None = None, method: str = "GET") -> Answer:
        """Returns the status, and how each service was called, in their order."""
        given = list(headers.items()) if isinstance(headers, dict) else headers or []
        # Envoy joins lines of the same name, so a test's own user agent must be the only one.
        names = {name for name, _ in given}
        own = [pair for pair in [("host", "frontend"), ("user-agent", "tests")] if pair[0] not in names]
        answer = self._client.request(method, f"http://127.0.0.1:{port}{target}", headers=own + given)
        assert answer.http_version == f"HTTP/{self.http}"
        is_json = answer.headers.get("content-type") == "application/json"
        hop = answer.json() if is_json else None
        calls = []
        while hop and "service" in hop:
            calls.append(Call(hop["service"], [(name, value) for name, value in hop["headers"]]))
            hop = hop.get("next")
        return Answer(answer.status_code, calls)

    def through(
        self, lane: str, target: str, headers: dict | list | None = None, method: str = "GET"
    ) -> Answer:
        """Sends a request to the frontend's sidecar of a lane."""
        return self.send(self.lane(lane).frontend_inbound, target, headers, method)

    def spans(self, trace_id: str, count: int = 3) -> list[Span]:
        """Returns the spans of a trace, each the parent of the next, as soon as there are `count`."""
        spans = self.topology.receiver.trace(trace_id, count)
        assert len(spans) == count, f"expected {count} spans, but found {spans}"
        ordered = []
        above = {span.parent_span_id for span in spans} - {span.span_id for span in spans}
        while len(ordered) < count:
            (child,) = (span for span in spans if span.parent_span_id in above)
            ordered.append(child)
            above = {child.span_id}
        return ordered

    def recorded_spans(self, lane: str, trace_id: str) -> list[Span]:
        """Returns the spans of a trace that may have none.

        A forced request goes through the same listeners after it: each exports in order, so that
        once its spans came, those of the trace in question came too.
        """
        marker = new_context()
        self.through(lane, "/marker", {"traceparent": marker.traceparent("00"), "x-debug-trace": "true"})
        self.spans(marker.trace_id)
        return [span for span in self.topology.receiver.spans() if span.trace_id == trace_id]
