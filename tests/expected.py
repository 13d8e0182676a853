"""The attributes that spans of the tests' requests have, whole."""

import re


class Port:
    """Equal to every port number."""

    def __eq__(self, other):
        return type(other) is int and 0 < other < 65536

    def __repr__(self):
        return "a port"


class LoopbackAddress:
    """Equal to every address of loopback with a port."""

    def __eq__(self, other):
        return re.fullmatch(r"127\.0\.0\.1:\d+", other) is not None

    def __repr__(self):
        return "an address of loopback"


class Positive:
    """Equal to every number of its type above zero."""

    def __init__(self, of: type):
        self._of = of

    def __eq__(self, other):
        return type(other) is self._of and other > 0

    def __repr__(self):
        return f"a positive {self._of.__name__}"


def server_attributes(
    service: str, http: str, target: str, request_id: str, lane: str = "ratio-1", **others
) -> dict:
    path, _, query = target.partition("?")
    return {
        "http.request.method": "GET",
        "url.scheme": "http",
        "url.path": path,
        **({"url.query": query} if query else {}),
        "server.address": service,
        "server.port": 80,
        "client.address": "127.0.0.1",
        "network.peer.address": "127.0.0.1",
        "network.peer.port": Port(),
        "network.protocol.version": http,
        "http.response.status_code": 200,
        "component": "proxy",
        "span.source": "mesh",
        "sidespan.reason": "parent",
        "response_code_details": "via_upstream",
        "guid:x-request-id": request_id,
        "upstream_cluster": _cluster(f"{service}-service", lane),
        "upstream_address": LoopbackAddress(),
        "upstream_time_to_first_byte_ms": Positive(float),
        "http.response.body.size": Positive(int),
        **others,
    }


def client_attributes(
    target: str, request_id: str, peer_port: int, lane: str = "ratio-1", **others
) -> dict:
    return {
        "http.request.method": "GET",
        "url.scheme": "http",
        "url.full": f"http://backend{target}",
        "server.address": "backend",
        "server.port": 80,
        "network.peer.address": "127.0.0.1",
        "network.peer.port": peer_port,
        "network.protocol.version": "1.1",
        "user_agent.original": "frontend",
        "http.response.status_code": 200,
        "component": "proxy",
        "span.source": "mesh",
        "sidespan.reason": "parent",
        "response_code_details": "via_upstream",
        "guid:x-request-id": request_id,
        "upstream_cluster": _cluster("backend-inbound", lane),
        "upstream_address": f"127.0.0.1:{peer_port}",
        "upstream_time_to_first_byte_ms": Positive(float),
        "http.response.body.size": Positive(int),
        **others,
    }


def _cluster(name: str, lane: str) -> str:
    return f"{name}.{lane}" if lane else name
