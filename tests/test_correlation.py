"""Spans of the mesh and of an application under OpenTelemetry's own SDKs form one tree.

The applications are in `examples/apps`: a folder a language, each instrumented as its users do it.
"""

import pytest

from applications import LANGUAGES, Application, maker, started
from conftest import lane
from shared_envoys import SharedTopology
from topology import Lane, free_ports
from traffic import Client, Context, new_context

RULES = [
    {"name": "debug", "match": {"headers": [{"name": "x-debug", "exact": "true"}]}, "decision": "force"},
    {"name": "mute", "match": {"headers": [{"name": "x-mute", "exact": "true"}]}, "decision": "drop"},
]
# By what OpenTelemetry calls the propagator: what the filters read and write. The SDKs are told
# by the same name, in $OTEL_PROPAGATORS.
PROPAGATION = {
    "tracecontext": {},
    "b3multi": {"extract": ["b3"], "inject": ["b3multi"]},
}

# From the client to the backend: who made the span, and its kind.
TREE = [
    ("mesh", "SERVER"),
    ("application", "SERVER"),
    ("application", "CLIENT"),
    ("mesh", "CLIENT"),
    ("mesh", "SERVER"),
]
DEBUG, MUTE = {"x-debug": "true"}, {"x-mute": "true"}

ROOTS = [(language, propagator) for language in LANGUAGES for propagator in PROPAGATION]


def w3c(context: Context, sampled: str) -> dict[str, str]:
    return {"traceparent": context.traceparent(f"0{sampled}")}


def b3(context: Context, sampled: str) -> dict[str, str]:
    return {"b3": f"{context.trace_id}-{context.span_id}-{sampled}"}


def b3multi(context: Context, sampled: str) -> dict[str, str]:
    return {
        "x-b3-traceid": context.trace_id,
        "x-b3-spanid": context.span_id,
        "x-b3-sampled": sampled,
    }


# Rows: the propagator of the application, how the context comes in and whether it is sampled,
# other headers.
RECORDED = {
    "sampled": ("tracecontext", w3c, "1", {}),
    "not sampled, and forced": ("tracecontext", w3c, "0", DEBUG),
    "from B3 to W3C": ("tracecontext", b3, "1", {}),
    "sampled B3": ("b3multi", b3multi, "1", {}),
    "B3 not sampled, and forced": ("b3multi", b3multi, "0", DEBUG),
}
NOT_RECORDED = {
    "not sampled": ("tracecontext", w3c, "0", {}),
    "sampled, and dropped": ("tracecontext", w3c, "1", MUTE),
    "B3 not sampled": ("b3multi", b3multi, "0", {}),
    "sampled B3, and dropped": ("b3multi", b3multi, "1", MUTE),
}


@pytest.fixture(scope="module")
def applications(newest_envoy):
    """An Envoy with a lane for each application, and the applications, all started at once."""
    ports = free_ports()
    chosen = {(language, name): next(ports) for language in LANGUAGES for name in PROPAGATION}
    lanes = {
        f"{language}-{name}": Lane(
            filter=lane(propagation=PROPAGATION[name]).filter | {"sampling": {"rules": RULES}}, frontend=port
        )
        for (language, name), port in chosen.items()
    }
    with SharedTopology(lanes, envoy=newest_envoy) as running:
        settings = {"OTEL_SERVICE_NAME": "frontend"}
        applications = {
            f"{language}-{name}": Application(
                language,
                port,
                f"http://127.0.0.1:{running.lane(f'{language}-{name}').frontend_outbound}/orders",
                running.receiver.port,
                settings | {"OTEL_PROPAGATORS": name},
            )
            for (language, name), port in chosen.items()
        }
        with started(applications, running.program.log.parent):
            yield running


@pytest.fixture
def client(applications):
    with Client(applications, "1.1") as client:
        yield client


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("row", RECORDED)
def test_spans_of_mesh_and_application_are_one_chain(client, language, row):
    propagator, carried, sampled, others = RECORDED[row]
    context = new_context()
    answer = client.through(f"{language}-{propagator}", "/call", carried(context, sampled) | others)

    assert answer.status == 200
    spans = client.spans(context.trace_id, len(TREE))
    assert [(maker(span), span.kind) for span in spans] == TREE
    assert spans[0].parent_span_id == context.span_id


@pytest.mark.parametrize("language, propagator", ROOTS)
def test_root_of_the_mesh_is_the_root_of_all(client, language, propagator):
    answer = client.through(f"{language}-{propagator}", "/call")

    assert answer.status == 200
    (call,) = answer.calls
    received = call.context()
    trace_id = received.get("x-b3-traceid") or received["traceparent"].split("-")[1]
    spans = client.spans(trace_id, len(TREE))
    assert [(maker(span), span.kind) for span in spans] == TREE
    assert spans[0].parent_span_id == ""


def test_older_sdk_for_go_refuses_the_random_flag(client):
    context = new_context()
    answer = client.through("go-tracecontext", "/call", {"traceparent": context.traceparent("03")})

    (call,) = answer.calls
    (server,) = client.spans(context.trace_id, 1)
    assert server.attributes["component"] == "proxy"
    below = client.spans(call.context()["traceparent"].split("-")[1], len(TREE) - 1)
    assert [(maker(span), span.kind) for span in below] == TREE[1:]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("row", NOT_RECORDED)
def test_nobody_records_what_the_mesh_does_not(client, language, row):
    propagator, carried, sampled, others = NOT_RECORDED[row]
    lane = f"{language}-{propagator}"
    context, marker = new_context(), new_context()
    answer = client.through(lane, "/call", carried(context, sampled) | others)
    client.through(lane, "/call", carried(marker, "1"))

    assert answer.status == 200
    # Filters and SDKs export in order: when the marker's spans have come, others would have.
    client.spans(marker.trace_id, len(TREE))
    assert [span for span in client.topology.receiver.spans() if span.trace_id == context.trace_id] == []
