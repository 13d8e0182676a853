"""Whole spans: ids, times, kind, status, resource, attributes."""

import http.client
import socket
import time
import uuid

import pytest

from conftest import lane
from expected import client_attributes, server_attributes
from traffic import new_context

CUSTOM_TAGS = [
    {"tag": "deployment", "literal": {"value": "test"}},
    {"tag": "user.id", "request_header": {"name": "x-user-id"}},
    {"tag": "tier", "request_header": {"name": "x-tier", "default_value": "free"}},
    {"tag": "region", "environment": {"name": "REGION", "default_value": "nowhere"}},
    {"tag": "zone", "environment": {"name": "ZONE", "default_value": "nowhere"}},
]
SPAN_NAMES = [
    {"match": {"path": {"prefix": "/api/v1/"}, "direction": "inbound"}, "name": "api-v1-request"},
    {"match": {"headers": {"name": "operation-id", "present": True}}, "name": " %REQ(operation-id)% "},
    {"match": {"direction": "outbound"}, "name": "call %UPSTREAM_CLUSTER%"},
    {"name": "%REQ(:METHOD)% %ROUTE_NAME% %RESPONSE_CODE%"},
]
LANES = {
    "ratio-1": lane(1),
    "tagged": lane(1, listeners={"frontend-inbound": {"custom_tags": CUSTOM_TAGS}}),
    "refused": lane(1, frontend="refused"),
    "no-endpoint": lane(1, frontend="none"),
    "two spans": lane(1, span={"spawn_upstream_span": True}),
    "named": lane(1, span={"names": SPAN_NAMES}),
}
HAS_REMOTE, IS_REMOTE = 0x100, 0x200
SAMPLED = 0x01


def test_request_leaves_a_chain_of_whole_spans(client):
    parent, request_id = new_context(), str(uuid.uuid4())
    target = "/orders/7?verbose=1"
    sent_at = time.time_ns()
    client.through("ratio-1", target, {"traceparent": parent.traceparent("01"), "x-request-id": request_id})
    answered_at = time.time_ns()

    spans = client.spans(parent.trace_id)
    server, outbound, backend = spans
    assert [(span.service, span.kind, span.name, span.status) for span in spans] == [
        ("frontend", "SERVER", "GET", "UNSET"),
        ("frontend", "CLIENT", "GET", "UNSET"),
        ("backend", "SERVER", "GET", "UNSET"),
    ]
    assert [span.parent_span_id for span in spans] == [parent.span_id, server.span_id, outbound.span_id]
    assert [span.flags for span in spans] == [SAMPLED | HAS_REMOTE | IS_REMOTE] * 3
    assert [span.scope for span in spans] == ["sidespan"] * 3
    times = [
        sent_at,
        *(span.start_ns for span in spans),
        *(span.end_ns for span in reversed(spans)),
        answered_at,
    ]
    assert times == sorted(times)
    assert server.attributes == server_attributes(
        "frontend", client.http, target, request_id, **{"user_agent.original": "tests"}
    )
    assert outbound.attributes == client_attributes(
        target, request_id, client.lane("ratio-1").backend_inbound
    )
    assert backend.attributes == server_attributes(
        "backend", "1.1", target, request_id, **{"user_agent.original": "frontend"}
    )


def test_route_that_has_a_name_names_the_span(client):
    parent = new_context()
    client.through("ratio-1", "/products/7?verbose=1", {"traceparent": parent.traceparent("01")})

    spans = client.spans(parent.trace_id)
    assert [span.name for span in spans] == ["GET /products/{id}"] * 3
    assert [span.attributes["http.route"] for span in spans] == ["/products/{id}"] * 3


def test_span_has_the_first_name_whose_conditions_match(client):
    def names(target: str, **headers) -> list[str]:
        parent = new_context()
        client.through("named", target, {"traceparent": parent.traceparent("01")} | headers)
        spans = client.spans(parent.trace_id)
        cluster = spans[1].attributes["upstream_cluster"]
        return [span.name.replace(cluster, "CLUSTER") for span in spans]

    assert names("/api/v1/7?x=1") == ["api-v1-request", "call CLUSTER", "api-v1-request"]
    assert names("/products/7") == ["GET /products/{id} 200", "call CLUSTER", "GET /products/{id} 200"]
    # The application does not pass the header on, and the route has no name.
    assert names("/a", **{"operation-id": "list"}) == ["list", "call CLUSTER", "GET  200"]
    # An empty name falls to the default one.
    assert names("/products/7", **{"operation-id": ""})[0] == "GET /products/{id}"


def test_call_upstream_has_a_span_whose_id_goes_upstream(client):
    parent = new_context()
    answer = client.through("two spans", "/a?x=1", {"traceparent": parent.traceparent("01")})

    spans = client.spans(parent.trace_id, 5)
    # The outbound listener has a CLIENT span already.
    assert [(span.service, span.kind) for span in spans] == [
        ("frontend", "SERVER"),
        ("frontend", "CLIENT"),
        ("frontend", "CLIENT"),
        ("backend", "SERVER"),
        ("backend", "CLIENT"),
    ]
    remote = [span.flags & IS_REMOTE != 0 for span in spans]
    assert remote == [True, False, True, True, False]
    received = [call.context()["traceparent"].split("-")[2] for call in answer.calls]
    assert received == [spans[1].span_id, spans[4].span_id]
    of_request, of_call = spans[3].attributes, spans[4].attributes
    assert (of_request["url.path"], of_call["url.full"].partition("/a")[1:]) == ("/a", ("/a", "?x=1"))
    assert "upstream_address" not in of_request
    assert of_call["network.peer.address"] == "127.0.0.1"


def test_root_has_no_remote_parent(client_1):
    answer = client_1.through("ratio-1", "/a")

    server, *_ = client_1.spans(answer.calls[0].context()["traceparent"].split("-")[1])
    assert server.flags & IS_REMOTE == 0
    assert server.flags & 0xFF == SAMPLED


def test_tracestate_is_on_every_span(client):
    parent = new_context()
    client.through(
        "ratio-1", "/a", {"traceparent": parent.traceparent("01"), "tracestate": "vendor=1,other=2"}
    )

    assert [span.trace_state for span in client.spans(parent.trace_id)] == ["vendor=1,other=2"] * 3


def test_outbound_span_knows_the_version_that_its_caller_speaks(client):
    parent = new_context()
    client.send(client.lane("ratio-1").frontend_outbound, "/a", {"traceparent": parent.traceparent("01")})

    outbound, backend = client.spans(parent.trace_id, 2)
    versions = [span.attributes["network.protocol.version"] for span in (outbound, backend)]
    assert versions == [client.http, client.http]


def test_custom_tags_are_on_the_span(client):
    parent = new_context()
    headers = {"traceparent": parent.traceparent("01"), "x-user-id": "ada"}
    client.through("tagged", "/checkout", headers, method="POST")

    tags = ("deployment", "user.id", "tier", "region", "zone")
    server, outbound, _ = client.spans(parent.trace_id)
    assert {tag: server.attributes.get(tag) for tag in tags} == {
        "deployment": "test",
        "user.id": "ada",
        "tier": "free",
        "region": "eu-west-1",
        "zone": "nowhere",
    }
    # The other listeners have no tags configured.
    assert not set(tags) & set(outbound.attributes)


@pytest.mark.parametrize(
    "status, server_status, client_status",
    [
        pytest.param(404, "UNSET", "ERROR", id="a client error is none of the server's"),
        pytest.param(503, "ERROR", "ERROR", id="a server error is everyone's"),
    ],
)
def test_error_is_told_by_status_and_type(client, status, server_status, client_status):
    parent = new_context()
    answer = client.through("ratio-1", f"/a?status={status}", {"traceparent": parent.traceparent("01")})

    assert answer.status == status
    spans = client.spans(parent.trace_id)
    assert [span.status for span in spans] == [server_status, client_status, server_status]
    assert [span.attributes["http.response.status_code"] for span in spans] == [status] * 3
    expected = {"ERROR": str(status), "UNSET": None}
    assert [span.attributes.get("error.type") for span in spans] == [expected[span.status] for span in spans]


@pytest.mark.parametrize(
    "lane, flags, details",
    [
        pytest.param("refused", "UF", "upstream_reset_before_response_started{", id="connection refused"),
        pytest.param("no-endpoint", "UH", "no_healthy_upstream", id="no endpoint"),
    ],
)
def test_answer_of_envoy_itself_has_its_flags(client, lane, flags, details):
    parent = new_context()
    answer = client.through(lane, "/a", {"traceparent": parent.traceparent("01")})

    assert answer.status == 503
    (server,) = client.spans(parent.trace_id, 1)
    assert server.status == "ERROR"
    assert server.attributes["http.response.status_code"] == 503
    assert server.attributes["error.type"] == "503"
    assert server.attributes["response_flags"] == flags
    assert server.attributes["response_code_details"].startswith(details)


def test_client_that_leaves_is_told_by_envoys_flag(client_1):
    parent = new_context()
    request = (
        f"GET /a?delay_ms=3000 HTTP/1.1\r\nhost: frontend\r\ntraceparent: {parent.traceparent('01')}\r\n\r\n"
    )
    port = client_1.lane("ratio-1").frontend_inbound
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(request.encode())
    # Both sides of the connection are closed now, long before the service answers.
    receiver = client_1.topology.receiver
    (server,) = receiver.wait_for(
        lambda receiver: [span for span in receiver.spans() if span.parent_span_id == parent.span_id]
    )
    assert server.status == "ERROR"
    assert "http.response.status_code" not in server.attributes
    assert server.attributes["response_flags"] == "DC"
    assert server.attributes["error.type"] == "DC"


def test_unknown_method_is_other(client_1):
    parent = new_context()
    connection = http.client.HTTPConnection(
        "127.0.0.1", client_1.lane("no-endpoint").frontend_inbound, timeout=20
    )
    connection.request("PURGE", "/a", headers={"traceparent": parent.traceparent("01")})
    connection.getresponse().read()
    connection.close()

    (server,) = client_1.spans(parent.trace_id, 1)
    assert server.name == "HTTP"
    assert server.attributes["http.request.method"] == "_OTHER"
    assert server.attributes["http.request.method_original"] == "PURGE"
