"""What Envoy's own tracers do without the filter, as the tables of the example say.

The tables in examples/envoys-own-tracer/README.md are compared with what real Envoys do.
"""

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

import tools
import topology
from conftest import NEWEST_ENVOY, OLDEST_ENVOY
from own_tracer import CONTEXTS, Case, Observed, PlainEnvoy, Receivers, check_table, in_contexts, observe, shares

FOLDER = topology.BOOTSTRAP.parents[1] / "examples" / "envoys-own-tracer"
BOOTSTRAP = FOLDER / "envoy.yaml"
README = FOLDER / "README.md"
VERSIONS = [OLDEST_ENVOY, NEWEST_ENVOY]
# By their listeners.
TRACERS = {"opentelemetry": "OpenTelemetry", "zipkin": "Zipkin"}
SAMPLERS = {"always-on": "`always_on`", "cel": "`cel`"}
# The formats in which contexts come in; the OpenTelemetry tracer finds them in one.
FORMATS = {"zipkin": ("tracecontext", "b3")}

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
DEBUG = {"x-debug-trace": "true"}
SAMPLED_REQUESTS = {
    "no header": Case("/"),
    "`x-debug-trace: true`": Case("/", DEBUG),
    "`x-envoy-force-trace` from an internal address": Case("/", FORCED),
    "`/healthz`": Case("/healthz?full=1"),
    "`/healthz`, with `x-debug-trace: true`": Case("/healthz?full=1", DEBUG),
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
                    formats = FORMATS.get(tracer, ("tracecontext",))
                    requests = {key: replace(it, formats=formats) for key, it in REQUESTS.items()}
                    cases = in_contexts(requests | ORDERS)
                    found[tracer, version] = observe(receivers, running.port(tracer), cases, Case("/", FORCED))
                for sampler in SAMPLERS:
                    cases, marker = in_contexts(SAMPLED_REQUESTS), Case("/", FORCED | DEBUG)
                    found[sampler, version] = observe(receivers, running.port(sampler), cases, marker)
                # The README says it of the expression.
                assert "message 'xds.type.v3.CelExpression'" in running.log()
    return found


def check(observed: dict, first: str, listeners: dict[str, str], rows: dict[str, Callable[[dict], str]]) -> None:
    """Compares a table of the README, which has a column for each listener and version."""
    columns = [(listener, version) for listener in listeners for version in VERSIONS]
    head = [first, *(f"{listeners[listener]}, {version}" for listener, version in columns)]
    cells = [[key, *(read(observed[column]) for column in columns)] for key, read in rows.items()]
    check_table(README, head, cells)


def test_which_requests_have_a_span(observed):
    check(observed, "requests", TRACERS, {key: partial(shares, key=key) for key in REQUESTS})


def test_which_requests_have_a_span_where_a_sampler_decides(observed):
    check(observed, "requests", SAMPLERS, {key: partial(shares, key=key) for key in SAMPLED_REQUESTS})


def test_what_spans_and_the_service_get(observed):
    check(observed, "what", TRACERS, {fact: partial(cell, fact=fact) for fact in FACTS})


@pytest.mark.parametrize("version", VERSIONS)
def test_an_expression_in_text_is_refused(version, tmp_path):
    bootstrap = topology.load_bootstrap(BOOTSTRAP)
    (listener,) = (it for it in bootstrap["static_resources"]["listeners"] if it["name"] == "cel")
    provider = topology.connection_manager(listener)["tracing"]["provider"]["typed_config"]
    provider["sampler"]["typed_config"]["expression"] = {"cel_expr_string": "request.url_path != '/healthz'"}
    file = tmp_path / "envoy.json"
    file.write_text(json.dumps(bootstrap))
    command = [tools.envoy(version), "--mode", "validate", "-c", file]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "CEL expression not set" in result.stderr


def cell(observed: dict, fact: str) -> str:
    format, holds = FACTS[fact]
    return " / ".join(WORDS[holds(observed[format, context][0])] for context in CONTEXTS)
