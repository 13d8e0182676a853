"""The trace id in the response, as a client of a real Envoy sees it."""

import httpx
import pytest

from conftest import lane
from shared_envoys import SharedTopology
from topology import Topology, connection_manager
from traffic import Client, new_context

LISTENER = "frontend-inbound"
ALL = {"trace_id_header": "X-Trace-Id", "traceresponse": True, "server_timing": True}
WRITTEN = ("x-trace-id", "traceresponse", "server-timing")


def no_route_for_nowhere(resources: dict) -> None:
    """Leaves `/nowhere` without a route, and gives every response values of the upstream's own."""
    for listener in resources["listeners"]:
        (virtual_host,) = connection_manager(listener)["route_config"]["virtual_hosts"]
        for route in virtual_host["routes"]:
            route["match"] = {"safe_regex": {"regex": "/(a|static).*"}}
            route["response_headers_to_add"] = [
                {"header": {"key": "x-trace-id", "value": "not ours"}},
                {"header": {"key": "server-timing", "value": "db;dur=53"}},
            ]


def answering(response: dict):
    return lane(1, listeners={LISTENER: {"response": response}}, change=no_route_for_nowhere)


LANES = {
    "always": answering(ALL),
    "sampled": answering(ALL | {"when": "sampled"}),
    "forced": answering(ALL | {"when": "forced"}),
    "one": answering({"traceresponse": True}),
    "none": answering({}),
}


@pytest.fixture(scope="module")
def topology(each_envoy):
    with SharedTopology(LANES, envoy=each_envoy) as running:
        yield running
        assert [line for line in running.log().splitlines() if "[error]" in line] == []


def answer(topology: Topology, name: str, target: str, flags: str, headers: dict | None = None):
    """Returns the context that was sent, and the response's header lines that may be written."""
    parent = new_context()
    url = f"http://127.0.0.1:{topology.lane(name).frontend_inbound}{target}"
    sent = {"traceparent": parent.traceparent(flags)} | (headers or {})
    response = httpx.get(url, headers=sent, timeout=20)
    lines = [line for line in response.headers.multi_items() if line[0] in WRITTEN]
    return parent, response.status_code, sorted(lines)


def expected_lines(trace_id: str, span_id: str, flags: str, *others: tuple[str, str]) -> list[tuple[str, str]]:
    context = f"00-{trace_id}-{span_id}-{flags}"
    own = [
        ("x-trace-id", trace_id),
        ("traceresponse", context),
        ("server-timing", f'traceparent;desc="{context}"'),
    ]
    return sorted([*own, *others])


UPSTREAMS = [("server-timing", "db;dur=53"), ("x-trace-id", "not ours")]


def test_response_names_the_span_of_its_request(topology):
    parent, status, lines = answer(topology, "always", "/a", "01")

    with Client(topology, "1.1") as client:
        span = client.spans(parent.trace_id)[0]
    assert (status, lines) == (200, expected_lines(parent.trace_id, span.span_id, "01", UPSTREAMS[0]))


def test_response_names_the_upstream_context_of_an_unrecorded_request(topology):
    parent, status, lines = answer(topology, "always", "/a", "00")

    assert (status, lines) == (200, expected_lines(parent.trace_id, parent.span_id, "00", UPSTREAMS[0]))


def test_answers_of_envoy_itself_are_covered(topology):
    parent, status, lines = answer(topology, "always", "/nowhere", "00")

    assert (status, lines) == (404, expected_lines(parent.trace_id, parent.span_id, "00"))


def test_ignored_requests_are_left_alone(topology):
    _, status, lines = answer(topology, "always", "/static/a.css", "01")

    assert (status, lines) == (200, UPSTREAMS)


def test_only_configured_headers_are_written(topology):
    parent, _, lines = answer(topology, "one", "/a", "00")
    context = f"00-{parent.trace_id}-{parent.span_id}-00"
    assert lines == sorted([("traceresponse", context), *UPSTREAMS])
    assert answer(topology, "none", "/a", "01")[2] == UPSTREAMS


FORCED = {"x-debug-trace": "true"}


@pytest.mark.parametrize(
    ("name", "flags", "headers", "expected"),
    [
        ("sampled", "01", {}, True),
        ("sampled", "00", {}, False),
        ("sampled", "00", FORCED, True),
        ("forced", "01", {}, False),
        ("forced", "00", FORCED, True),
    ],
)
def test_condition_selects_requests(topology, name, flags, headers, expected):
    parent, _, lines = answer(topology, name, "/a", flags, headers)

    assert (("x-trace-id", parent.trace_id) in lines) == expected
    assert any(line[0] == "traceresponse" for line in lines) == expected
    # Values that the upstream forges are removed.
    assert ("x-trace-id", "not ours") not in lines
