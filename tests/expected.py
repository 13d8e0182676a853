"""The attributes that spans of the tests' requests have, whole."""


class Port:
    """Equal to every port number."""

    def __eq__(self, other):
        return type(other) is int and 0 < other < 65536

    def __repr__(self):
        return "a port"


def server_attributes(service: str, http: str, target: str, request_id: str, **others) -> dict:
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
        **others,
    }


def client_attributes(target: str, request_id: str, peer_port: int, **others) -> dict:
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
        **others,
    }
