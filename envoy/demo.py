"""Runs sidespan in a real Envoy, sends requests that show what it does, and prints the outcome of each.

`make demo` runs this. With --keep everything then stays up until Ctrl-C, and new traces are printed as
they arrive.
"""

import argparse
import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field, fields
from pathlib import Path

import tools

if __name__ == "__main__":
    tools.reexec_in_venv(Path(__file__).with_name("requirements.txt"))

# What follows imports packages that only the virtual environment has.
import topology  # noqa: E402
from receiver import Receiver, Span  # noqa: E402
from waterfall import Style, draw, printable  # noqa: E402

_PARENT = "b7ad6b7169203331"
_ORDINARY_REQUESTS = 20
_SETTLED_SECONDS = 1.5  # a little more than the filters' interval: by then a trace is whole
_REFRESH_SECONDS = 0.25
_MARGIN = "   "
_DECISIONS = ("force", "drop", "ignore", "parent", "ratio")
_CONTEXT_HEADERS = ("traceparent", "tracestate", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-sampled")


@dataclass(frozen=True)
class Request:
    title: str
    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    dropped_by: str | None = None


@dataclass(frozen=True)
class Answer:
    """What the client got, and the headers with which each service was called, in their order."""

    status: int
    calls: list[tuple[str, dict[str, str]]]

    def traceparent(self) -> str:
        """Returns the context that the last service was called with."""
        return self.calls[-1][1]["traceparent"]

    def trace_id(self) -> str:
        return self.traceparent().split("-")[1]

    def sampled(self) -> bool:
        return int(self.traceparent().split("-")[3], 16) & 1 == 1


REQUESTS = [
    Request(
        "A debug header forces a trace that the caller did not sample",
        "GET",
        "/products/7?delay_ms=4",
        {"traceparent": f"00-0af7651916cd43dd8448eb211c80319c-{_PARENT}-00", "x-debug-trace": "true"},
    ),
    Request(
        "B3 comes in, W3C goes on, the trace stays the same",
        "GET",
        "/orders?delay_ms=4",
        {"b3": f"1bf7651916cd43dd8448eb211c80319c-{_PARENT}-1"},
    ),
    Request(
        "An error in the backend shows on every span above it",
        "GET",
        "/orders/13?status=503&delay_ms=4",
        {"traceparent": f"00-2cf7651916cd43dd8448eb211c80319c-{_PARENT}-01"},
    ),
    Request(
        "Every checkout is traced, and tagged with its user",
        "POST",
        "/checkout?delay_ms=4",
        {"x-user-id": "ada"},
    ),
    Request(
        "A health check is dropped although the caller sampled it",
        "GET",
        "/healthz",
        {"traceparent": f"00-3df7651916cd43dd8448eb211c80319c-{_PARENT}-01"},
        dropped_by="health-checks",
    ),
]
ORDINARY = Request("An ordinary request", "GET", "/products")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    keep_help = "stay up until Ctrl-C, and say which ports to curl"
    parser.add_argument("--keep", action="store_true", help=keep_help)
    arguments = parser.parse_args()
    topology.exit_on_signals()
    if not topology.MODULE.is_file():
        sys.exit(f"expected the filter at {topology.MODULE}, but found nothing: run `make wasm` first")
    try:
        _show(tools.envoy(), arguments.keep)
    except (tools.ToolError, topology.StartError, TimeoutError) as error:
        sys.exit(str(error))


def _show(envoy: Path, keep: bool) -> None:
    tools.progress(f"starts {_version(envoy)} with two services and an OTLP receiver")
    with topology.Topology(envoy=envoy) as running:
        _Demo(running, Style.of_stdout()).play()
        if keep:
            with contextlib.suppress(KeyboardInterrupt):
                _Visit(running, Style.of_stdout()).host()
            print()
        tools.progress("stops everything")


class _Demo:
    """One showing: sends all requests, then prints a section for each and the sums."""

    def __init__(self, running: topology.Topology, style: Style):
        self._running = running
        self._style = style

    def play(self) -> None:
        tools.progress(f"sends {len(REQUESTS) + _ORDINARY_REQUESTS} requests")
        port = self._running.lane().frontend_inbound
        answers = [send(port, request) for request in REQUESTS]
        ordinary = [send(port, ORDINARY) for _ in range(_ORDINARY_REQUESTS)]
        tools.progress("waits for the filters to export their spans")
        recorded = [answer for answer in answers + ordinary if answer.sampled()]
        for answer in recorded:
            self._running.receiver.trace(answer.trace_id(), _spans(answer))
        stats = self._running.wait_for_stats(lambda stats: _is_complete(stats, answers + ordinary))

        self._print_route()
        for number, (request, answer) in enumerate(zip(REQUESTS, answers, strict=True), 1):
            self._print_request(number, request, answer)
        self._print_dropped(answers, ordinary)
        self._print_counters(stats)

    def _print_route(self) -> None:
        print()
        print(self._style.bold("client → [ sidecar → frontend → sidecar ] → [ sidecar → backend ]"))
        print(self._style.dim("Each sidecar is a listener of one Envoy; sidespan is its only tracer."))

    def _print_request(self, number: int, request: Request, answer: Answer) -> None:
        style = self._style
        print()
        print(style.bold(f"{number}  {request.title}"))
        print(f"{_MARGIN}{request.method} {request.target}   {style.dim(f'answered {answer.status}')}")
        _print_fields({f"{name}:": value for name, value in request.headers.items()}, style)
        _print_fields(_context(answer), style)
        print()
        if request.dropped_by:
            spans = [span for span in self._running.receiver.spans() if span.trace_id == answer.trace_id()]
            print(f"{_MARGIN}{len(spans)} spans, dropped by rule {request.dropped_by}")
        else:
            _print_trace(self._running.receiver.trace(answer.trace_id(), _spans(answer)), style)

    def _print_dropped(self, answers: list[Answer], ordinary: list[Answer]) -> None:
        style = self._style
        print()
        print(style.bold("Dropped, and why"))
        for request, answer in zip(REQUESTS, answers, strict=True):
            if request.dropped_by:
                self._print_drop(f"{request.method} {request.target}", f"rule {request.dropped_by}", answer)
        unsampled = [answer for answer in ordinary if not answer.sampled()]
        if unsampled:
            what = f"{len(unsampled)} of {len(ordinary)} × {ORDINARY.method} {ORDINARY.target}"
            self._print_drop(what, f"ratio {_shipped_ratio()}", unsampled[0])

    def _print_drop(self, what: str, why: str, answer: Answer) -> None:
        print(f"{_MARGIN}{what:26}  {why}")
        _print_fields({"  service got": f"traceparent: {answer.traceparent()}"}, self._style)

    def _print_counters(self, stats: dict[str, int]) -> None:
        decisions = [f"{stats[_decisions(kind)]} {kind}" for kind in _DECISIONS]
        books = topology.books(stats)
        recorded, exported, queued = (books.pop(way) for way in ("recorded", "exported", "queued"))
        source = self._style.dim("   (Envoy's /stats, wasmcustom.sidespan.*)")
        print()
        print(self._style.bold("The filter's own counters") + source)
        print(f"{_MARGIN}decisions  {' · '.join(decisions)}")
        ways = f"{exported} exported + {sum(books.values())} dropped + {queued} queued"
        print(f"{_MARGIN}spans      {recorded} recorded = {ways}")
        print()


class _Visit:
    """Keeps the topology up for a visitor with curl, and prints the traces that come."""

    def __init__(self, running: topology.Topology, style: Style):
        self._running = running
        self._style = style

    def host(self) -> None:
        lane = self._running.lane()
        url = f"http://127.0.0.1:{lane.frontend_inbound}"
        admin = self._running.admin_port
        short_b3 = f"{os.urandom(8).hex()}-{_PARENT}-1"
        print(self._style.bold("Running until Ctrl-C. Try:"))
        for command in (
            f"curl -s {url}/products -H 'x-debug-trace: true' | python3 -m json.tool",
            f"curl -s -X POST {url}/checkout -H 'x-user-id: ada'",
            f"curl -s '{url}/orders?status=503' -H 'b3: {short_b3}'",
            f"curl -s --http2-prior-knowledge {url}/products -H 'x-debug-trace: true'",
            f"curl -s 'http://127.0.0.1:{admin}/stats?filter=sidespan'",
        ):
            print(f"{_MARGIN}{command}")
        ports = [f"{field.name.replace('_', ' ')} {getattr(lane, field.name)}" for field in fields(lane)]
        print(self._style.dim(f"{_MARGIN}ports: {', '.join(ports)}, admin {admin}"))
        sys.stdout.flush()
        printed = {span.trace_id for span in self._running.receiver.spans()}
        while True:
            for trace_id, trace in _settled(self._running.receiver).items():
                if trace_id not in printed:
                    printed.add(trace_id)
                    self._print(trace_id, trace)
            time.sleep(_REFRESH_SECONDS)

    def _print(self, trace_id: str, trace: list[Span]) -> None:
        print()
        clock = self._style.bold(time.strftime("%H:%M:%S"))
        print(f"{_MARGIN}{clock}  {self._style.dim(f'trace {trace_id}')}")
        _print_trace(trace, self._style)
        sys.stdout.flush()


def send(port: int, request: Request) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    own = {"Host": "frontend", "User-Agent": "demo"}
    connection.request(request.method, request.target, headers=own | request.headers)
    answer = connection.getresponse()
    hop = json.loads(answer.read())
    connection.close()
    calls = []
    while hop and "service" in hop:
        calls.append((hop["service"], dict(hop["headers"])))
        hop = hop.get("next")
    return Answer(answer.status, calls)


def _shipped_ratio() -> float:
    listener = topology.load_bootstrap(topology.BOOTSTRAP)["static_resources"]["listeners"][0]
    return json.loads(topology.wasm_configuration(listener)["configuration"]["value"])["sampling"]["ratio"]


def _settled(receiver: Receiver) -> dict[str, list[Span]]:
    """Returns the traces to which nothing was added for as long as a filter may hold a span back."""
    last_change: dict[str, float] = {}
    traces: dict[str, list[Span]] = {}
    for export in receiver.exports():
        for span in export.spans:
            last_change[span.trace_id] = export.received_at
            traces.setdefault(span.trace_id, []).append(span)
    return {id: trace for id, trace in traces.items() if time.time() - last_change[id] > _SETTLED_SECONDS}


def _is_complete(stats: dict[str, int], answers: list[Answer]) -> bool:
    """Returns whether the filters have published what they did with all requests."""
    decided = sum(stats.get(_decisions(kind), 0) for kind in _DECISIONS)
    return decided == sum(map(_spans, answers)) and stats["sidespan_spans_queued"] == 0


def _decisions(kind: str) -> str:
    return f'sidespan_decisions_total{{decision="{kind}"}}'


def _spans(answer: Answer) -> int:
    """Returns how many sidecars a request passed, each of which may record a span.

    There is one into each service, and one out of each but the last.
    """
    return len(answer.calls) * 2 - 1


def _context(answer: Answer) -> dict[str, str]:
    return {
        f"{service} got": "  ".join(
            f"{name}: {headers[name]}" for name in _CONTEXT_HEADERS if name in headers
        )
        for service, headers in answer.calls
    }


def _print_fields(pairs: dict[str, str], style: Style) -> None:
    for name, value in pairs.items():
        print(f"{_MARGIN}{style.dim(f'{name:14}')} {printable(value)}")


def _print_trace(trace: list[Span], style: Style) -> None:
    narrower = Style(style.width - len(_MARGIN), style.colour)
    for line in draw(trace, narrower):
        print(f"{_MARGIN}{line}")


def _version(envoy: Path) -> str:
    printed = subprocess.run([envoy, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"/(\d+\.\d+\.\d+)", printed)
    return f"Envoy {found[1]}" if found else str(envoy)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
