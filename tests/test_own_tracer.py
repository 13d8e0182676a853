"""What Envoy's own tracers do without the filter, as the tables of the example say.

The tables in examples/envoys-own-tracer/README.md are compared with what real Envoys do.
"""

from dataclasses import replace

import pytest

import tools
import topology
from conftest import NEWEST_ENVOY, OLDEST_ENVOY
from own_tracer import CONTEXTS, Case, Observed, PlainEnvoy, Receivers, check_table, in_contexts, observe, shares

FOLDER = topology.BOOTSTRAP.parents[1] / "examples" / "envoys-own-tracer"
BOOTSTRAP = FOLDER / "envoy.yaml"
README = FOLDER / "README.md"
VERSIONS = [OLDEST_ENVOY, NEWEST_ENVOY]
# By their listeners, what they are called, and the formats in which they find a context.
TRACERS = {"opentelemetry": "OpenTelemetry", "zipkin": "Zipkin"}
FORMATS = {"opentelemetry": ("tracecontext",), "zipkin": ("tracecontext", "b3")}
COLUMNS = [(tracer, version) for tracer in TRACERS for version in VERSIONS]

FORCED = {"x-envoy-force-trace": "true"}
# Another proxy names the client before this one: a request from outside.
OUTSIDE = {"x-forwarded-for": "203.0.113.7"}
ASKED_FOR = OUTSIDE | {"x-client-trace-id": "ticket-17"}
REQUESTS = {
    "no header, no rule of a route": Case("/"),
    "`x-envoy-force-trace` from an internal address": Case("/", FORCED),
    "`x-envoy-force-trace` from elsewhere": Case("/", OUTSIDE | FORCED),
    "`x-client-trace-id` from anywhere": Case("/", ASKED_FOR),
    "`/public/`, with `x-client-trace-id`: route with `client_sampling` 0": Case("/public/", ASKED_FOR),
    "`/orders/`: route with `random_sampling` 100": Case("/orders/7"),
    "`/healthz`: route with `random_sampling` 0": Case("/healthz"),
    "`/healthz`, with `x-envoy-force-trace`": Case("/healthz", FORCED),
    "`/metrics`: route with `overall_sampling` 0": Case("/metrics"),
    "`/metrics`, with `x-envoy-force-trace`": Case("/metrics", FORCED),
}
ORDERS = {format: Case("/orders/7", {"x-user-id": "ada"}, formats=(format,), count=1) for format in FORMATS["zipkin"]}
TAGS = {"deployment.environment.name": "production", "user.id": "ada", "cloud.region": "unknown"}


def has_tags(observed: Observed, tags: dict) -> bool | None:
    return observed.span and tags.items() <= observed.span.tags.items()


def goes_on(observed: Observed) -> bool | None:
    """Tells whether the service gets the trace that came in, and no other beside it."""
    traceparent, b3 = (observed.upstream.get(name, "") for name in ("traceparent", "x-b3-traceid"))
    return observed.trace_id and {it for it in [traceparent[3:35], b3] if it} == {observed.trace_id}


# Each with the format in which contexts come in; what cannot be told is None.
FACTS = {
    "the connection manager's tags are on the span": ("tracecontext", lambda it: has_tags(it, TAGS)),
    "the route's tag is beside them": ("tracecontext", lambda it: has_tags(it, {"team": "checkout"})),
    "the route's `decorator.operation` is the span's name": (
        "tracecontext",
        lambda it: it.span and it.span.name == "order",
    ),
    "a trace that comes in as `traceparent` goes on": ("tracecontext", goes_on),
    "a trace that comes in as `x-b3-*` goes on": ("b3", goes_on),
    "the service gets `traceparent`": ("tracecontext", lambda it: "traceparent" in it.upstream),
    "the service gets `x-b3-*`": ("tracecontext", lambda it: "x-b3-traceid" in it.upstream),
}
WORDS = {True: "yes", False: "no", None: "–"}


@pytest.fixture(scope="module")
def observed() -> dict[tuple[str, str], dict]:
    """What became of all requests, by tracer and version."""
    found = {}
    for version in VERSIONS:
        with Receivers() as receivers:
            endpoints = {"otel-collector": receivers.grpc_port, "zipkin": receivers.http_port}
            bootstrap = topology.load_bootstrap(BOOTSTRAP)
            with PlainEnvoy(bootstrap, tools.envoy(version), endpoints) as running:
                for tracer in TRACERS:
                    requests = {key: replace(it, formats=FORMATS[tracer]) for key, it in REQUESTS.items()}
                    cases = in_contexts(requests | ORDERS)
                    found[tracer, version] = observe(receivers, running.port(tracer), cases, Case("/", FORCED))
    return found


def head(first: str) -> list[str]:
    return [first, *(f"{TRACERS[tracer]}, {version}" for tracer, version in COLUMNS)]


def test_which_requests_have_a_span(observed):
    rows = [[key, *(shares(observed[column], key) for column in COLUMNS)] for key in REQUESTS]
    check_table(README, head("requests"), rows)


def test_what_spans_and_the_service_get(observed):
    rows = [[fact, *(cell(observed[column], fact) for column in COLUMNS)] for fact in FACTS]
    check_table(README, head("what"), rows)


def cell(observed: dict, fact: str) -> str:
    format, holds = FACTS[fact]
    return " / ".join(WORDS[holds(observed[format, context][0])] for context in CONTEXTS)
