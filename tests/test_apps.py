"""The applications of examples/apps in a mesh: one request through all of them, and what breaks a trace.

Each chain here is one that its README.md describes.
"""

import time
from collections.abc import Iterable

import httpx
import pytest

from applications import LANGUAGES, Application, maker, started
from conftest import lane
from receiver import Span
from topology import Lane, Topology, connection_manager, free_ports
from traffic import Client, Context, new_context

BOTH = {"extract": ["tracecontext", "b3", "baggage"], "inject": ["tracecontext", "b3multi", "baggage"]}
CLIENT_ADDRESS = "203.0.113.7"
MESH_ATTRIBUTES = {
    "mesh.request_id",
    "mesh.retry_count",
    "mesh.client_ip",
    "http.forwarded_for",
    "mesh.b3.trace_id",
}

# One request through sidecars and applications: depth, service, who made the span, kind, name.
CHAIN = [
    (0, "node", "mesh", "SERVER", "GET"),
    (1, "node", "application", "SERVER", "GET /call"),
    (2, "node", "application", "CLIENT", "GET"),
    (3, "node", "mesh", "CLIENT", "GET"),
    (4, "go", "mesh", "SERVER", "GET"),
    (5, "go", "application", "SERVER", "GET /call"),
    (6, "go", "application", "CLIENT", "HTTP GET"),
    (7, "go", "mesh", "CLIENT", "GET"),
    (8, "python", "mesh", "SERVER", "GET"),
    (9, "python", "application", "SERVER", "GET /call"),
    (10, "python", "application", "CLIENT", "GET"),
    (11, "python", "mesh", "CLIENT", "GET"),
    (12, "backend", "mesh", "SERVER", "GET"),
]
MESH_SERVER, MESH_CLIENT = ("mesh", "SERVER"), ("mesh", "CLIENT")
APPLICATION = [("application", "SERVER"), ("application", "CLIENT")]
# Behind one application: its sidecar outbound, and the backend's.
BEHIND = [MESH_CLIENT, MESH_SERVER]
WHOLE = [MESH_SERVER, *APPLICATION, *BEHIND]

FORCE = {"sampling": {"rules": [{"name": "orders", "decision": "force"}]}}
# What each application behind a lane of its own has in its environment, beside the default.
GO_SETTINGS = {
    "parentbased_always_on": {"OTEL_TRACES_SAMPLER": "parentbased_always_on"},
    "traceidratio": {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.5"},
    "always_off": {"OTEL_TRACES_SAMPLER": "always_off"},
    "always_on": {"OTEL_TRACES_SAMPLER": "always_on"},
    "b3-alone": {"OTEL_PROPAGATORS": "b3multi"},
    "nothing-passed-on": {"OTEL_PROPAGATORS": "none"},
}
# In a ratio of one half, by the trace id's right half: OpenTelemetry's SDKs compare it with the ratio.
BELOW_RATIO, ABOVE_RATIO = "0000000000000001", "ffffffffffffffff"


def service_lane(service: str, port: int, **options) -> Lane:
    """Returns a lane whose two sidecars are called as the application between them."""
    filter = lane(propagation=BOTH).filter | {"sampling": {}, "service_name": service}
    listeners = {"backend-inbound": {"service_name": "backend"}} | options.pop("listeners", {})
    return Lane(filter=filter, frontend=port, listeners=listeners, **options)


def at_the_edge(resources: dict) -> None:
    """Lets a lane's first sidecar trust one proxy before it, and counts attempts."""
    counting_attempts(resources)
    manager = connection_manager(resources["listeners"][0])
    manager |= {"use_remote_address": True, "xff_num_trusted_hops": 1}


def counting_attempts(resources: dict) -> None:
    for listener in resources["listeners"]:
        for host in connection_manager(listener)["route_config"]["virtual_hosts"]:
            host["include_request_attempt_count"] = True


def joined(bootstrap: dict) -> None:
    """Leads what the application of one lane calls to the sidecar of the next."""
    resources = bootstrap["static_resources"]
    listening = {listener["name"]: listener["address"] for listener in resources["listeners"]}
    clusters = {cluster["name"]: cluster for cluster in resources["clusters"]}
    for caller, called in zip(LANGUAGES, LANGUAGES[1:]):
        (group,) = clusters[f"backend-inbound.{caller}"]["load_assignment"]["endpoints"]
        (endpoint,) = group["lb_endpoints"]
        endpoint["endpoint"]["address"] = listening[f"frontend-inbound.{called}"]


@pytest.fixture(scope="module")
def programs(newest_envoy):
    """An Envoy with a lane for each application, and the applications by their names."""
    ports = free_ports()
    listening = {name: next(ports) for name in [*LANGUAGES, *GO_SETTINGS]}
    lanes = {
        "node": service_lane("node", listening["node"], change=at_the_edge),
        "go": service_lane("go", listening["go"], change=counting_attempts),
        "python": service_lane("python", listening["python"], change=counting_attempts),
        **{name: service_lane(name, listening[name]) for name in GO_SETTINGS},
    }
    with Topology(lanes, envoy=newest_envoy, change=joined) as running:
        applications = {
            name: Application(
                name if name in LANGUAGES else "go",
                port,
                f"http://127.0.0.1:{running.lane(name).frontend_outbound}/call",
                running.receiver.port,
                {"OTEL_SERVICE_NAME": name} | GO_SETTINGS.get(name, {}),
            )
            for name, port in listening.items()
        }
        with started(applications, running.program.log.parent) as programs:
            running.applications = applications
            yield running


@pytest.fixture
def client(programs):
    with Client(programs, "1.1") as client:
        yield client


def w3c(context: Context) -> dict[str, str]:
    return {"traceparent": context.traceparent("01")}


def b3(context: Context) -> dict[str, str]:
    return {"b3": f"{context.trace_id}-{context.span_id}-1"}


def b3multi(context: Context) -> dict[str, str]:
    return {"x-b3-traceid": context.trace_id, "x-b3-spanid": context.span_id, "x-b3-sampled": "1"}


def tree(spans: Iterable[Span]) -> list[tuple]:
    """Returns the rows of a trace, a child below its parent."""
    spans = list(spans)
    ids = {span.span_id for span in spans}

    def below(parent_ids: set[str], depth: int) -> list[tuple]:
        children = [span for span in spans if span.parent_span_id in parent_ids]
        return [
            row
            for span in sorted(children, key=lambda span: span.start_ns)
            for row in [
                (depth, span.service, maker(span), span.kind, span.name),
                *below({span.span_id}, depth + 1),
            ]
        ]

    return below({span.parent_span_id for span in spans} - ids, 0)


def mesh_attributes(span: Span) -> dict[str, object]:
    return {key: value for key, value in span.attributes.items() if key in MESH_ATTRIBUTES}


@pytest.mark.parametrize("carried", [w3c, b3, b3multi])
def test_request_through_three_applications_is_one_trace(client, carried):
    context = new_context()
    headers = carried(context) | {"baggage": "account=42", "x-forwarded-for": CLIENT_ADDRESS}
    answer = client.through("node", "/call", headers)

    assert answer.status == 200
    spans = client.topology.receiver.trace(context.trace_id, len(CHAIN))
    assert tree(spans) == CHAIN
    (root,) = (span for span in spans if span.parent_span_id == context.span_id)
    assert maker(root) == "mesh"
    (call,) = answer.calls
    assert call.context()["baggage"] == "account=42"

    received = dict(call.headers)
    everywhere = {
        "mesh.request_id": received["x-request-id"],
        "mesh.retry_count": 1,
        "mesh.b3.trace_id": context.trace_id,
    }
    # Envoy puts the connection's address behind the client's: of a connection on loopback, the machine's own.
    found = {(span.service, maker(span), span.kind): mesh_attributes(span) for span in spans}
    forwarded_for = found["node", "application", "SERVER"].pop("http.forwarded_for")
    assert forwarded_for.split(",")[0] == CLIENT_ADDRESS
    assert {span: attributes for span, attributes in found.items() if attributes} == {
        ("node", "application", "SERVER"): everywhere | {"mesh.client_ip": CLIENT_ADDRESS},
        ("go", "application", "SERVER"): everywhere,
        ("python", "application", "SERVER"): everywhere,
    }


def chain(client: Client, lane: str, context: Context, count: int) -> list[tuple[str, str]]:
    """Returns who made the spans of a trace, and their kinds, each the parent of the next."""
    return [(maker(span), span.kind) for span in client.spans(context.trace_id, count)]
