"""A small HTTP/1.1 service for the demo: returns the headers that it got, and calls the next service.

Like an application that was written for a mesh, it knows nothing of tracing but this: it
copies the trace headers of a request to the requests that it makes because of it.

    python3 service.py --name frontend --port 8081 --next 127.0.0.1:10001 --authority backend

`GET /anything` answers JSON: the service's name, the headers that it saw, and under `next`
what the next service answered. `?status=503` makes the last service answer that status (the
ones before it pass it on), `?delay_ms=20` makes each of them take that long, `?calls=3` makes
each call the next that often and answer what came of the last, with the others under `earlier`.
`/healthz` is answered without calling the next.
"""

import argparse
import http.client
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

# The headers of trace contexts in all formats.
CONTEXT_HEADERS = (
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "uber-trace-id",
    "x-amzn-trace-id",
    "grpc-trace-bin",
    "x-cloud-trace-context",
)
CONTEXT_HEADER_PREFIXES = ("x-b3-", "ot-tracer-", "x-datadog-", "x-instana-")

_PASSED_ON = (*CONTEXT_HEADERS, "x-request-id")
_NEXT_TIMEOUT_SECONDS = 15


class Service:
    """A running service; a context manager that stops it. Port 0 takes a free one."""

    def __init__(
        self, name: str, port: int = 0, next_address: str | None = None, authority: str | None = None
    ):
        self.name = name
        self.next_address = next_address
        self.authority = authority
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.service = self
        self.port = self._server.server_port

    def serve_forever(self) -> None:
        self._server.serve_forever()

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, target: str, headers: list[tuple[str, str]]) -> tuple[int, dict]:
        """Returns the status and the JSON that a request is answered with."""
        url = urlsplit(target)
        knobs = parse_qs(url.query)
        time.sleep(float(knobs.get("delay_ms", ["0"])[0]) / 1000)
        body = {"service": self.name, "method": method, "target": target, "headers": headers}
        if self.next_address is None or url.path == "/healthz":
            return int(knobs.get("status", ["200"])[0]), body
        *earlier, (status, body["next"]) = (
            self._call_next(method, target, headers) for _ in range(int(knobs.get("calls", ["1"])[0]))
        )
        return status, body | ({"earlier": [answer for _, answer in earlier]} if earlier else {})

    def _call_next(self, method: str, target: str, headers: list[tuple[str, str]]) -> tuple[int, object]:
        connection = http.client.HTTPConnection(self.next_address, timeout=_NEXT_TIMEOUT_SECONDS)
        try:
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            connection.putheader("Host", self.authority or self.next_address)
            connection.putheader("User-Agent", self.name)
            for name, value in headers:
                if name in _PASSED_ON or name.startswith(CONTEXT_HEADER_PREFIXES):
                    connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            text = answer.read().decode()
        except OSError as error:
            return 502, {"error": f"{self.next_address}: {error}"}
        finally:
            connection.close()
        # Envoy answers plain text when it has no upstream; a service answers JSON.
        is_json = answer.headers.get_content_type() == "application/json"
        return answer.status, json.loads(text) if is_json else {"error": text}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # Envoy keeps its connections open
    request_queue_size = 128
    service: Service


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body in one packet: otherwise each answer waits 40 ms for an acknowledgement.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = [(name.lower(), value) for name, value in self.headers.items()]
        status, body = self.server.service.answer(self.command, self.path, headers)
        encoded = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(encoded)

    do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_GET

    def log_message(self, *_):
        pass


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", required=True, help="what the answers call this service")
    parser.add_argument("--port", type=int, required=True, help="where it listens, on loopback")
    parser.add_argument("--next", metavar="HOST:PORT", help="the service to call for each request")
    parser.add_argument("--authority", help="the host name to call it by (default: its address)")
    return parser


def main() -> None:
    arguments = parser().parse_args()
    Service(arguments.name, arguments.port, arguments.next, arguments.authority).serve_forever()


if __name__ == "__main__":
    main()
