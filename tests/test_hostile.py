"""Requests that an anonymous client sends to do harm, in real Envoys: no other request is affected."""

import http.client
import json

import pytest

from conftest import lane
from shared_envoys import SharedTopology
from topology import Topology
from traffic import new_context

USER = {"tag": "user.id", "request_header": {"name": "x-user-id"}}
TOKEN_RULE = {
    "name": "debug",
    "match": {"headers": [{"name": "x-debug-token", "exact": "secret", "strip": True}]},
    "decision": "force",
}
BOTS = {"headers": [{"name": "user-agent", "regex": ".*(bot|crawler|spider).*"}]}
LANES = {"tagged": lane(1, listeners={"frontend-inbound": {"custom_tags": [USER]}})}
FOREIGN = {
    "x-datadog-trace-id": "1",
    "x-datadog-sampling-priority": "2",
    "uber-trace-id": "1:1:0:1",
    "x-amzn-trace-id": "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1",
    "b3": "1",
    "x_b3_sampled": "1",
    "x-cloud-trace-context": "1/2;o=1",
}


def rules(*rules: dict, **sampling) -> dict:
    return {"rules": list(rules), "ratio": 0} | sampling


def lanes() -> dict:
    configurations = {
        "bots": {"sampling": rules({"name": "bots", "match": BOTS, "decision": "force"})},
        "health": {
            "sampling": rules(
                {"name": "health", "match": {"path": {"prefix": "/healthz"}}, "decision": "drop"}, ratio=1
            )
        },
        "ignored": {
            "sampling": rules(
                {"name": "static", "match": {"path": {"prefix": "/static"}}, "decision": "ignore"}, TOKEN_RULE
            ),
            "propagation": {"trust": "restart"},
        },
        "restart": {"propagation": {"trust": "restart", "inject": ["none"]}},
        "partner": {
            "sampling": rules(
                {
                    "name": "partner",
                    "match": {"authority": {"exact": "api.partner.example"}},
                    "decision": "force",
                }
            )
        },
        "ignore-flags": {"sampling": rules(ratio=0.001), "propagation": {"trust": "ignore_flags"}},
        "flood": {"sampling": rules(TOKEN_RULE, limit={"per_second": 0.001, "burst": 20})},
        "tags": {
            "custom_tags": [
                {"tag": "from.header", "request_header": {"name": "x-user"}},
                {"tag": "from.baggage", "baggage": {"name": "user"}},
            ]
        },
        "grpc": {"sampling": rules(export_on={"status": "5xx"})},
    }
    return {
        name: lane(
            1,
            frontend="refused" if name == "grpc" else "service",
            listeners={"frontend-inbound": configuration},
        )
        for name, configuration in configurations.items()
    }


@pytest.fixture(scope="module")
def topology(outermost_envoy):
    with SharedTopology(lanes(), envoy=outermost_envoy) as running:
        yield running
        assert [line for line in running.log().splitlines() if "[error]" in line] == []


def send(topology: Topology, name: str, target: str = "/a", headers=(), method: str = "GET"):
    """Returns the status, and the headers that the service saw. Names may repeat."""
    connection = http.client.HTTPConnection("127.0.0.1", topology.lane(name).frontend_inbound, timeout=20)
    lines = list(headers.items() if isinstance(headers, dict) else headers)
    is_given = any(key.lower() == "host" for key, _ in lines)
    connection.putrequest(method, target, skip_host=is_given, skip_accept_encoding=True)
    for key, value in lines:
        connection.putheader(key, value)
    connection.endheaders()
    response = connection.getresponse()
    body = response.read()
    connection.close()
    seen = json.loads(body)["headers"] if response.status == 200 and body else []
    return response.status, {key.lower(): value for key, value in seen}


def spans(topology: Topology, trace_id: str) -> list:
    return [
        span
        for span in topology.receiver.spans()
        if span.trace_id == trace_id and span.kind == "SERVER" and span.service == "frontend"
    ]


def is_sampled(seen: dict) -> bool:
    return seen["traceparent"].endswith("-01")


def test_a_regex_looks_through_all_headers_and_no_further(outermost_envoy):
    lines = [("user-agent", "b" * 4_000)] * 13
    with SharedTopology({"bots": lanes()["bots"]}, envoy=outermost_envoy) as running:
        assert not is_sampled(send(running, "bots", headers=lines)[1])
        assert is_sampled(send(running, "bots", headers=[*lines, ("user-agent", "a crawler")])[1])
        stats = running.wait_for_stats(lambda stats: stats["sidespan_spans_recorded_total"] == 3)
    assert stats["sidespan_condition_searches_exceeded_total"] == 0


@pytest.mark.parametrize(
    ("target", "is_health_check"),
    [
        ("/healthz", True),
        ("//healthz", True),
        ("/%68ealthz", True),
        ("/a/../healthz?b", True),
        ("/healthz/../checkout", False),
        ("/healthz/%2e%2e/checkout", False),
    ],
)
def test_another_spelling_evades_no_rule(topology, target, is_health_check):
    status, seen = send(topology, "health", target)
    assert (status, is_sampled(seen)) == (200, not is_health_check)


def test_an_ignored_request_takes_neither_token_nor_context_along(topology):
    parent = new_context().traceparent("01")
    headers = FOREIGN | {"traceparent": parent, "x-debug-token": "secret", "baggage": "k=v"}
    status, seen = send(topology, "ignored", "/static/a", headers)
    assert status == 200
    assert not {"x-debug-token", "traceparent", *FOREIGN} & seen.keys()
    assert seen["baggage"] == "k=v"


def test_a_context_that_is_not_trusted_leaves_nothing_behind(topology):
    status, seen = send(topology, "restart", headers=FOREIGN | {"traceparent": new_context().traceparent("01")})
    assert status == 200
    assert not {"traceparent", *FOREIGN} & seen.keys()


@pytest.mark.parametrize("host", ["API.partner.EXAMPLE", "api.partner.example:443", "api.partner.example."])
def test_another_spelling_of_an_authority_is_the_same(topology, host):
    status, seen = send(topology, "partner", headers={"host": host})
    assert (status, is_sampled(seen)) == (200, True)


def test_nobody_chooses_the_randomness_that_is_not_trusted(topology):
    sampled = 0
    for number in range(200):
        traceparent = f"00-{number + 1:018x}ffffffffffffff-00f067aa0ba902b7-01"
        headers = {"traceparent": traceparent, "tracestate": "ot=rv:ffffffffffffff"}
        sampled += is_sampled(send(topology, "ignore-flags", headers=headers)[1])
    # Of 200 at a ratio of 0.001, five are less likely than one in 300,000.
    assert sampled < 5


def test_a_list_of_one_key_again_and_again_goes_no_further(topology):
    headers = {"traceparent": new_context().traceparent("01"), "tracestate": ",".join(["a=1"] * 10_000)}
    status, seen = send(topology, "bots", headers=headers)
    assert status == 200
    assert "tracestate" not in seen


def test_a_flood_of_sampled_parents_leaves_room_for_a_token(topology):
    parents = [is_sampled(send(topology, "flood", headers=parent())[1]) for _ in range(40)]
    assert sum(parents) == 18
    forced = [
        is_sampled(send(topology, "flood", headers={"x-debug-token": "secret"})[1]) for _ in range(3)
    ]
    assert forced == [True, True, False]


def traced(topology: Topology, name: str, target: str = "/a", headers: dict | None = None):
    """Returns the server's span of a sampled request."""
    context = new_context()
    send(topology, name, target, {"traceparent": context.traceparent("01")} | (headers or {}))
    topology.wait_for_stats(lambda _: spans(topology, context.trace_id))
    (span,) = spans(topology, context.trace_id)
    return span


def test_no_tag_breaks_a_line(topology):
    headers = {"x-user": "a\u0085b\u2028c\u2029d".encode(), "baggage": "user=a%0Ab%0D%1B%E2%80%A8c"}
    attributes = traced(topology, "tags", headers=headers).attributes
    assert attributes["from.header"] == "a\ufffdb\ufffdc\ufffdd"
    assert attributes["from.baggage"] == "a\ufffdb\ufffd\ufffd\ufffdc"


def test_no_secret_of_a_query_is_recorded(topology):
    secrets = ["code", "x-api-key", "jwt", "session_id", "reset_token", "user[password]", "token[]", "SAMLResponse"]
    query = "&".join([*(f"{key}=hidden" for key in secrets), "page=2;token=hidden"])
    attributes = traced(topology, "tags", f"/a;jsessionid=hidden?{query}").attributes
    assert "hidden" not in str(attributes)
    assert "page=2" in attributes["url.query"]


def parent() -> dict:
    return {"traceparent": new_context().traceparent("01")}


def test_grpc_content_type_hides_no_503(topology):
    context = new_context()
    headers = {"traceparent": context.traceparent("00"), "content-type": "application/grpc"}
    send(topology, "grpc", headers=headers, method="POST")
    topology.wait_for_stats(lambda _: spans(topology, context.trace_id))
    (span,) = spans(topology, context.trace_id)
    assert span.attributes["sidespan.export_on"] == "status"
    assert span.attributes["response_flags"] == "UF"


HOSTILE = {
    "not UTF-8 in what is recorded": [
        ("user-agent", b"\xff\xfe\x80"),
        ("x-user-id", b"\xc3\x28"),
        ("x-request-id", b"\xf0\x28\x8c\x28"),
    ],
    "not UTF-8 in every context header": [
        ("traceparent", b"\xff\xfe"),
        ("tracestate", b"\xff\xfe"),
        ("b3", b"\xff\xfe"),
        ("x-b3-traceid", b"\xff\xfe"),
        ("x-b3-spanid", b"\xff\xfe"),
        ("x-b3-sampled", b"\xff\xfe"),
        ("baggage", b"\xff\xfe"),
    ],
    "a huge value": [("user-agent", "u" * 50_000)],
    "a huge tag": [("x-user-id", "u" * 50_000)],
    "a huge context": [("traceparent", "0" * 25_000), ("b3", "-" * 25_000)],
    "the same header many times": [("traceparent", f"00-{'1' * 32}-{'2' * 16}-01")] * 40,
    "empty values": [("traceparent", ""), ("b3", ""), ("x-b3-traceid", ""), ("x-user-id", "")],
}


def test_hostile_headers_harm_no_request(client):
    forced = [("x-debug-trace", "true")]
    answers = {row: client.through("tagged", "/a", forced + headers) for row, headers in HOSTILE.items()}

    for row, answer in answers.items():
        assert answer.status == 200, row
        # The receiver decodes what came, so text that is not UTF-8 would fail there.
        context = answer.calls[0].context()["traceparent"]
        client.spans(context.split("-")[1])
