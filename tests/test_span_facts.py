"""Outcomes of requests in their spans: gRPC and WebSocket, retries, time-outs, resets, sizes."""

import contextlib
import secrets

import grpc
import httpx
import pytest
import websockets.sync.client

from conftest import lane
from peers import CLIENT_IDENTITY, GRPC_SERVICE, SERVER_IDENTITY, Peers, use_mutual_tls
from receiver import Span
from shared_envoys import SharedTopology
from traffic import Client, new_context

LANE = "peers"
# Attributes of the request, the peers and the time, which other tests compare.
COMMON = {
    "http.request.method",
    "url.scheme",
    "url.path",
    "url.query",
    "url.full",
    "server.address",
    "server.port",
    "client.address",
    "network.peer.address",
    "network.peer.port",
    "user_agent.original",
    "component",
    "span.source",
    "sidespan.reason",
    "guid:x-request-id",
    "upstream_address",
    "upstream_time_to_first_byte_ms",
}
KINDS = ("SERVER", "CLIENT")
IDENTITIES = [
    {"tag": "caller", "identity": "source"},
    {"tag": "called", "identity": "destination"},
]


@pytest.fixture(scope="module")
def peers():
    with Peers() as peers:
        yield peers


@pytest.fixture(scope="module")
def topology(outermost_envoy, peers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    lanes = {
        LANE: lane(change=peers.join),
        "mutual-tls": lane(
            listeners={
                name: {"custom_tags": IDENTITIES}
                for name in ("frontend-inbound", "frontend-outbound", "backend-inbound")
            },
            change=lambda resources: use_mutual_tls(resources, folder),
        ),
    }
    with SharedTopology(lanes, envoy=outermost_envoy) as running:
        yield running
        assert [line for line in running.log().splitlines() if "[error]" in line] == []


@pytest.fixture
def client(topology):
    with Client(topology, "1.1") as client:
        yield client


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def port(client: Client, kind: str) -> int:
    """Returns the port of the listener that makes spans of this kind."""
    running = client.lane(LANE)
    return {"SERVER": running.frontend_inbound, "CLIENT": running.frontend_outbound}[kind]


def outcome(span: Span) -> dict:
    attributes = {key: value for key, value in span.attributes.items() if key not in COMMON}
    return {"name": span.name, "status": span.status, "events": span.events, **attributes}


def check(client: Client, kind: str, trace_id: str, expected: dict) -> None:
    (span,) = client.spans(trace_id, 1)
    assert span.kind == kind
    assert outcome(span) == expected


def http_outcome(name: str = "GET", cluster: str | None = "http", **others) -> dict:
    return {
        "name": name,
        "status": "UNSET",
        "events": (),
        "network.protocol.version": "1.1",
        "http.response.status_code": 200,
        "response_code_details": "via_upstream",
        **({"upstream_cluster": f"{cluster}.{LANE}"} if cluster else {}),
        **others,
    }


def failed(error: str, flags: str, details: str, *events: str) -> dict:
    return {
        "status": "ERROR",
        "error.type": error,
        "response_flags": flags,
        "response_code_details": details,
        "events": events,
    }


STATUS, ROUTE = "http.response.status_code", "http.route"
SENT, RECEIVED, RESENT = "http.request.body.size", "http.response.body.size", "http.request.resend_count"
# Rows: the request's method, target and body; the outcome.
HTTP = {
    "a body without a length": ("GET", "/http/chunked", b"", http_outcome(**{RECEIVED: 7})),
    "bodies both ways": ("POST", "/http/a", b"0123456789", http_outcome("POST", **{SENT: 10, RECEIVED: 5})),
    "a route with a name": (
        "GET",
        "/named/7",
        b"",
        http_outcome("GET /named/{id}", **{ROUTE: "/named/{id}", RECEIVED: 5}),
    ),
    "a route that Istio named": ("GET", "/by-istio/a", b"", http_outcome(**{RECEIVED: 5})),
    "a second attempt": ("GET", "/flaky?KEY", b"", http_outcome(**{RESENT: 1, RECEIVED: 5})),
    "no answer in time": (
        "GET",
        "/silent",
        b"",
        http_outcome(**{STATUS: 504, RECEIVED: 24}, **failed("504", "UT", "response_timeout", "timeout")),
    ),
    "a closed connection instead of an answer": (
        "GET",
        "/http/closed",
        b"",
        http_outcome(
            **{STATUS: 503, RECEIVED: 95},
            **failed(
                "503", "UC", "upstream_reset_before_response_started{connection_termination}", "reset"
            ),
        ),
    ),
    "an answer that was cut": (
        "GET",
        "/http/cut",
        b"",
        http_outcome(
            **{RECEIVED: 3},
            **failed("UPE", "UPE", "upstream_reset_after_response_started{protocol_error}", "reset"),
        ),
    ),
}


@pytest.mark.parametrize("row", HTTP)
def test_http_request(client, kind, row):
    method, target, body, expected = HTTP[row]
    context = new_context()
    url = f"http://127.0.0.1:{port(client, kind)}{target.replace('KEY', secrets.token_hex(4))}"
    # Envoy closes the connection where it cannot finish an answer.
    with contextlib.suppress(httpx.RemoteProtocolError):
        httpx.request(method, url, content=body, headers={"traceparent": context.traceparent("01")}, timeout=20)

    check(client, kind, context.trace_id, expected)


def test_internal_redirect_makes_a_second_request(client, kind):
    context = new_context()
    client.send(port(client, kind), "/moved/7", {"traceparent": context.traceparent("01")})

    first, second = client.spans(context.trace_id, 2)
    # When the first span ends, Envoy tells the route and the cluster of the second request alone.
    details = {STATUS: 302, "response_code_details": "internal_redirect"}
    assert outcome(first) == http_outcome(cluster=None, **details)
    assert outcome(second) == http_outcome(
        "GET /found/{id}", "found", **{ROUTE: "/found/{id}", RECEIVED: 5}
    )
    assert first.attributes["upstream_address"] == second.attributes["upstream_address"]


def test_request_without_a_route(client, kind):
    context = new_context()
    client.send(port(client, kind), "/nowhere", {"traceparent": context.traceparent("01")})

    of_client = {"status": "ERROR", "error.type": "404"}
    check(
        client,
        kind,
        context.trace_id,
        http_outcome(
            cluster=None,
            **{STATUS: 404, "response_flags": "NR", "response_code_details": "route_not_found"},
            **(of_client if kind == "CLIENT" else {}),
        ),
    )


def test_client_is_the_last_that_forwarded(client):
    context = new_context()
    headers = {"traceparent": context.traceparent("01"), "x-forwarded-for": "192.0.2.1, 192.0.2.2"}
    client.send(port(client, "SERVER"), "/http/a", headers)

    (span,) = client.spans(context.trace_id, 1)
    assert span.attributes["client.address"] == "192.0.2.2"
    assert "network.peer.address" not in span.attributes


def grpc_outcome(method: str, rpc_status: str | None, **others) -> dict:
    return http_outcome(
        f"{GRPC_SERVICE}/{method}",
        "grpc",
        **{
            "network.protocol.version": "2",
            "rpc.system.name": "grpc",
            "rpc.method": f"{GRPC_SERVICE}/{method}",
            **({"rpc.response.status_code": rpc_status} if rpc_status else {}),
            # Each message has a prefix of five bytes.
            SENT: 7,
            **others,
        },
    )


def error(status: str) -> dict:
    return {"status": "ERROR", "error.type": status}


# A client must not be able to name spans by methods that the server does not have.
UNKNOWN_METHOD = {
    "name": "grpc",
    "rpc.method": "_OTHER",
    "rpc.method_original": f"{GRPC_SERVICE}/Missing",
}
# Rows: the method; the outcome for server and client.
GRPC = {
    "unary": ("Get", grpc_outcome("Get", "OK", **{RECEIVED: 7}), {}, {}),
    "a stream of answers": ("List", grpc_outcome("List", "OK", **{RECEIVED: 21}), {}, {}),
    "an error in trailers": (
        "Break",
        grpc_outcome("Break", "DATA_LOSS", **{RECEIVED: 7}),
        error("DATA_LOSS"),
        error("DATA_LOSS"),
    ),
    "an error, and nothing else": (
        "Refuse",
        grpc_outcome("Refuse", "PERMISSION_DENIED"),
        {},
        error("PERMISSION_DENIED"),
    ),
    "an unknown method": (
        "Missing",
        grpc_outcome("Missing", "UNIMPLEMENTED"),
        UNKNOWN_METHOD | error("UNIMPLEMENTED"),
        error("UNIMPLEMENTED"),
    ),
}


@pytest.mark.parametrize("row", GRPC)
def test_grpc_call(client, kind, row):
    method, expected, of_server, of_client = GRPC[row]
    context = new_context()
    with grpc_method(client, kind, method) as call, contextlib.suppress(grpc.RpcError):
        list(call(b"hi", metadata=[("traceparent", context.traceparent("01"))]))

    check(client, kind, context.trace_id, expected | {"SERVER": of_server, "CLIENT": of_client}[kind])


def test_grpc_call_that_is_not_answered_in_time(client, kind):
    context = new_context()
    with grpc_method(client, kind, "Wait") as call, pytest.raises(grpc.RpcError):
        list(call(b"hi", metadata=[("traceparent", context.traceparent("01"))]))

    # Envoy answers a gRPC request by a status in the head of a 200.
    ended = failed("UNAVAILABLE", "UT", "response_timeout", "timeout")
    check(client, kind, context.trace_id, grpc_outcome("Wait", "UNAVAILABLE", **ended))


def test_grpc_call_that_its_client_gives_up(client, peers, kind):
    context = new_context()
    with grpc_method(client, kind, "Hold") as call:
        answer = call(b"hi", metadata=[("traceparent", context.traceparent("01"))])
        assert peers.held.acquire(timeout=20)
        answer.cancel()

    expected = grpc_outcome("Hold", None, **failed("DR", "DR", "http2.remote_reset", "reset"))
    del expected[STATUS]
    # Neither must a client that does not wait for an answer.
    unknown = UNKNOWN_METHOD | {"rpc.method_original": f"{GRPC_SERVICE}/Hold"}
    check(client, kind, context.trace_id, expected | (unknown if kind == "SERVER" else {}))


def test_grpc_stream_that_its_client_gives_up(client, kind):
    context = new_context()
    with grpc_method(client, kind, "Watch") as call:
        answers = call(b"hi", metadata=[("traceparent", context.traceparent("01"))])
        assert next(answers) == b"hi"
        answers.cancel()

    cut = {"response_flags": "DR", "response_code_details": "http2.remote_reset", "events": ("reset",)}
    check(client, kind, context.trace_id, grpc_outcome("Watch", None, **{RECEIVED: 7}, **cut))


def test_grpc_web_has_its_status_in_the_body(client, kind):
    context = new_context()
    headers = {"traceparent": context.traceparent("01"), "content-type": "application/grpc-web+proto"}
    httpx.post(f"http://127.0.0.1:{port(client, kind)}/http/web", content=b"1234567", headers=headers, timeout=20)

    rpc = {"rpc.system.name": "grpc", "rpc.method": "http/web"}
    check(client, kind, context.trace_id, http_outcome("http/web", **{SENT: 7, RECEIVED: 5}, **rpc))


def test_grpc_content_type_at_a_plain_service_makes_no_rpc_span(client, kind):
    context = new_context()
    headers = {"traceparent": context.traceparent("01"), "content-type": "application/grpc"}
    httpx.post(f"http://127.0.0.1:{port(client, kind)}/http/made-up", content=b"1234567", headers=headers, timeout=20)

    expected = http_outcome("POST", **{SENT: 7, RECEIVED: 5})
    check(client, kind, context.trace_id, expected)


def test_grpc_content_type_without_an_upstream_names_no_method(client):
    context = new_context()
    headers = {"traceparent": context.traceparent("01"), "content-type": "application/grpc"}
    httpx.post(f"http://127.0.0.1:{port(client, 'SERVER')}/nowhere/made-up", content=b"", headers=headers, timeout=20)

    (span,) = client.spans(context.trace_id, 1)
    assert (span.name, span.attributes["rpc.method"]) == ("grpc", "_OTHER")
    assert span.attributes["rpc.method_original"] == "nowhere/made-up"


def test_web_socket_ends_its_span(client, kind):
    context, meanwhile = new_context(), new_context()
    url = f"ws://127.0.0.1:{port(client, kind)}/socket"
    headers = {"traceparent": context.traceparent("01")}
    with websockets.sync.client.connect(url, additional_headers=headers, compression=None) as socket:
        socket.send("hello")
        assert socket.recv(timeout=20) == "hello"
        client.send(port(client, kind), "/http/a", {"traceparent": meanwhile.traceparent("01")})
        # Spans are exported in order: that of the stream is not over.
        client.spans(meanwhile.trace_id, 1)
        assert context.trace_id not in [span.trace_id for span in client.topology.receiver.spans()]

    # The service closes the connection, as the protocol has it; Envoy calls that a reset.
    details = "upstream_reset_after_response_started{connection_termination}"
    expected = http_outcome(
        cluster="web-socket",
        **{STATUS: 101, "network.protocol.name": "websocket", SENT: 19, RECEIVED: 11},
        **{"response_flags": "UC", "response_code_details": details},
    )
    del expected["network.protocol.version"]
    check(client, kind, context.trace_id, expected)


def test_identities_are_those_of_the_certificates(client):
    context = new_context()
    client.through("mutual-tls", "/orders", {"traceparent": context.traceparent("01")})

    spans = client.spans(context.trace_id)
    both = (CLIENT_IDENTITY, SERVER_IDENTITY)
    assert [(span.kind, span.attributes.get("caller"), span.attributes.get("called")) for span in spans] == [
        ("SERVER", None, None),
        ("CLIENT", *both),
        ("SERVER", *both),
    ]


@contextlib.contextmanager
def grpc_method(client: Client, kind: str, method: str):
    """Gives a function that calls a method with bytes, and returns the answers."""
    with grpc.insecure_channel(f"127.0.0.1:{port(client, kind)}") as channel:
        yield channel.unary_stream(f"/{GRPC_SERVICE}/{method}")
