"""Load on a listener, watched: what it answers, how long that takes, and whether the books balance."""

import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable

import topology
from topology import books, is_balanced


class Load:
    """Requests over several connections until it is stopped; a context manager that stops it."""

    def __init__(self, port: int, connections: int = 3, pause_seconds: float = 0.015):
        """Each connection makes a pause after each request, so that other programs have the CPU too."""
        self.statuses: Counter = Counter()
        self.longest_seconds = 0.0
        self._port = port
        self._pause_seconds = pause_seconds
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._send) for _ in range(connections)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self) -> None:
        """Returns when every request was answered and none is sent any more."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def sent(self) -> int:
        return self.statuses.total()

    def wait_for(self, more: int, timeout: float = 30) -> None:
        """Returns when so many more requests were answered."""
        wanted, deadline = self.sent + more, time.monotonic() + timeout
        while self.sent < wanted:
            assert time.monotonic() < deadline, f"{self.sent} of {wanted} requests after {timeout} s"
            time.sleep(0.01)

    def _send(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        while not self._stop.wait(self._pause_seconds):
            started = time.monotonic()
            try:
                status = answered(connection)
            except (OSError, http.client.HTTPException) as failure:
                status = repr(failure)
                connection.close()
            with self._lock:
                self.statuses[status] += 1
                self.longest_seconds = max(self.longest_seconds, time.monotonic() - started)
        connection.close()


def answered(connection: http.client.HTTPConnection) -> int:
    """Sends a request and returns the status of the response.

    If the server closes a connection that served requests before, the request is sent again, as HTTP clients do
    (RFC 9112, section 9.3.1). Envoy closes connections when a drain takes too long.
    """
    was_open = connection.sock is not None
    try:
        return exchanged(connection)
    except ConnectionError:
        connection.close()
        if not was_open:
            raise
        return exchanged(connection)


def exchanged(connection: http.client.HTTPConnection) -> int:
    connection.request("GET", "/a")
    response = connection.getresponse()
    response.read()
    return response.status


class Audit:
    """A context manager that reads the span counters repeatedly, and fails at its end if they did not balance.

    They balance if recorded = exported + dropped + queued.
    """

    def __init__(self, stats: Callable[[], dict[str, int]]):
        self.reads = 0
        self._stats = stats
        self._unbalanced: list[dict] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        assert self._unbalanced == []

    def _read(self) -> None:
        while not self._stop.wait(0.1):
            # A worker may be between two updates; later looks find them balanced.
            deadline = time.monotonic() + 10
            while not is_balanced(found := self._stats()):
                if time.monotonic() > deadline:
                    self._unbalanced.append(books(found))
                    break
            self.reads += 1


def answered_here(resources: dict) -> None:
    """Lets Envoy answer all requests itself, as fast as it can."""
    for listener in resources["listeners"]:
        routes = topology.connection_manager(listener)["route_config"]["virtual_hosts"][0]
        routes["routes"] = [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]
