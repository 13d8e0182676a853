"""The applications of examples/apps in a mesh: one request through all of them, and what breaks a trace.

What their README.md says that one sees is seen here.
"""

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

import kubernetes
from applications import APPS, LANGUAGES, MANIFEST, SOURCES, Application, maker, started
from conftest import lane
from receiver import Span
from topology import Lane, Program, Topology, connection_manager, free_ports
from traffic import Client, Context, new_context

INJECT_BOTH = {"inject": ["tracecontext", "b3multi", "baggage"]}
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
# Of a request through one application: its sidecar's span, its own, and those of the sidecars behind it.
SIDECAR = [("mesh", "SERVER")]
APPLICATION = [("application", "SERVER"), ("application", "CLIENT")]
BEHIND = [("mesh", "CLIENT"), ("mesh", "SERVER")]
WHOLE = SIDECAR + APPLICATION + BEHIND

LENGTH_LIMIT = 64
# Right halves of trace ids, by which SDKs take their ratio: below one half for certain, and above it.
BELOW_HALF, ABOVE_HALF = "0000000000000001", "ffffffffffffffff"
# Applications in Go, each behind a lane of its name: what they have in their environment.
ALONE = {
    "parentbased_always_on": {"OTEL_TRACES_SAMPLER": "parentbased_always_on"},
    "parentbased_traceidratio": {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"},
    "traceidratio": {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.5"},
    "always_off": {"OTEL_TRACES_SAMPLER": "always_off"},
    "always_off, then force": {"OTEL_TRACES_SAMPLER": "always_off"},
    "always_on": {"OTEL_TRACES_SAMPLER": "always_on"},
    "b3multi": {"OTEL_PROPAGATORS": "b3multi"},
    "none": {"OTEL_PROPAGATORS": "none"},
    "exports lost": {},
    "exports traced": {},
    "exports dropped": {},
}
# The last two send their spans through their own sidecar, to the path that OTLP has.
EXPORTS = ("exports traced", "exports dropped")
PATH_OF_EXPORTS = "/v1/traces"
# Rules of a lane's outbound sidecar.
RULES = {
    "always_off, then force": [{"name": "all", "decision": "force"}],
    "exports dropped": [{"name": "exports", "match": {"path": {"exact": PATH_OF_EXPORTS}}, "decision": "drop"}],
}
# Rows: lane, flags and right half of the trace that comes in, the fragments that are recorded of it, the
# flags that the backend gets.
DECISIONS = {
    "sampled, and followed": ("parentbased_always_on", "01", ABOVE_HALF, [WHOLE], "01"),
    "not sampled, and followed": ("parentbased_always_on", "00", BELOW_HALF, [], "00"),
    "sampled, and no root": ("parentbased_traceidratio", "01", ABOVE_HALF, [WHOLE], "01"),
    "sampled, within the ratio": ("traceidratio", "01", BELOW_HALF, [WHOLE], "01"),
    "sampled, outside the ratio": ("traceidratio", "01", ABOVE_HALF, [SIDECAR], "00"),
    "not sampled, within the ratio": ("traceidratio", "00", BELOW_HALF, [APPLICATION + BEHIND], "01"),
    "sampled, and lost": ("always_off", "01", BELOW_HALF, [SIDECAR], "00"),
    "sampled, lost, and forced": ("always_off, then force", "01", BELOW_HALF, [SIDECAR, BEHIND], "01"),
    "not sampled, and recorded": ("always_on", "00", ABOVE_HALF, [APPLICATION + BEHIND], "01"),
}


@dataclass(frozen=True)
class Mesh:
    topology: Topology
    applications: dict[str, Application]
    programs: dict[str, Program]


def service_lane(service: str, port: int, change=lambda resources: None, **propagation) -> Lane:
    """Returns a lane whose two sidecars are called as the application between them."""
    filter = lane(propagation=propagation).filter | {"sampling": {}, "service_name": service}
    listeners = {
        "frontend-outbound": {"sampling": {"rules": RULES.get(service, [])}},
        "backend-inbound": {"service_name": "backend"},
    }
    return Lane(filter=filter, listeners=listeners, frontend=port, change=change)


def with_attempts(resources: dict) -> None:
    """Lets sidecars say how often a request was tried."""
    for listener in resources["listeners"]:
        for host in connection_manager(listener)["route_config"]["virtual_hosts"]:
            host["include_request_attempt_count"] = True


def at_the_edge(resources: dict) -> None:
    """Lets the first sidecar say who the client is, behind one trusted proxy."""
    with_attempts(resources)
    (listener,) = (listener for listener in resources["listeners"] if listener["name"] == "frontend-inbound")
    connection_manager(listener).update(use_remote_address=True, xff_num_trusted_hops=1)


def joined(bootstrap: dict) -> None:
    """Leads what an application calls to the next one's sidecar, and exports to the receiver."""
    resources = bootstrap["static_resources"]
    listeners = {listener["name"]: listener["address"] for listener in resources["listeners"]}
    endpoints = {}
    for cluster in resources["clusters"]:
        (group,) = cluster["load_assignment"]["endpoints"]
        (one,) = group["lb_endpoints"]
        endpoints[cluster["name"]] = one["endpoint"]
    for caller, called in zip(LANGUAGES, LANGUAGES[1:]):
        endpoints[f"backend-inbound.{caller}"]["address"] = listeners[f"frontend-inbound.{called}"]
    for name in EXPORTS:
        endpoints[f"backend-service.{name}"]["address"] = endpoints[f"otel-collector.{name}"]["address"]


@pytest.fixture(scope="module")
def mesh(newest_envoy):
    """An Envoy with a lane for each application, and the applications in them."""
    ports = free_ports()
    nowhere = next(ports)
    listening = {name: next(ports) for name in [*LANGUAGES, *ALONE]}
    lanes = {
        "node": service_lane("node", listening["node"], at_the_edge, **INJECT_BOTH),
        "go": service_lane("go", listening["go"], with_attempts, **INJECT_BOTH),
        "python": service_lane("python", listening["python"], with_attempts, **INJECT_BOTH),
        **{name: service_lane(name, listening[name]) for name in ALONE},
        "b3multi, and injected": service_lane("b3multi", listening["b3multi"], **INJECT_BOTH),
    }
    with Topology(lanes, envoy=newest_envoy, change=joined) as running:
        applications = {
            name: Application(
                language=name if name in LANGUAGES else "go",
                port=port,
                next=f"http://127.0.0.1:{running.lane(name).frontend_outbound}/call",
                collector_port=running.receiver.port,
                settings={
                    "OTEL_SERVICE_NAME": name,
                    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": str(LENGTH_LIMIT),
                    **ALONE.get(name, {}),
                },
            )
            for name, port in listening.items()
        }
        applications["exports lost"] = replace(applications["exports lost"], collector_port=nowhere)
        for name in EXPORTS:
            outbound = running.lane(name).frontend_outbound
            refused = f"http://127.0.0.1:{nowhere}/call"
            applications[name] = replace(applications[name], next=refused, collector_port=outbound)
        with started(applications, running.program.log.parent) as programs:
            yield Mesh(running, applications, programs)


@pytest.fixture
def client(mesh):
    with Client(mesh.topology, "1.1") as client:
        yield client


def w3c(context: Context) -> dict[str, str]:
    return {"traceparent": context.traceparent("01")}


def b3(context: Context) -> dict[str, str]:
    return {"b3": f"{context.trace_id}-{context.span_id}-1"}


def b3multi(context: Context) -> dict[str, str]:
    return {"x-b3-traceid": context.trace_id, "x-b3-spanid": context.span_id, "x-b3-sampled": "1"}


def context_within(right_half: str) -> Context:
    return Context(secrets.token_hex(8) + right_half, secrets.token_hex(8))


def rows(spans: list[Span]) -> list[tuple]:
    """Returns a row for each span, with its depth, children below their parent."""

    def below(parent_ids: set[str], depth: int) -> Iterator[tuple]:
        children = [span for span in spans if span.parent_span_id in parent_ids]
        for span in sorted(children, key=lambda span: span.start_ns):
            yield depth, span.service, maker(span), span.kind, span.name
            yield from below({span.span_id}, depth + 1)

    return list(below({span.parent_span_id for span in spans} - {span.span_id for span in spans}, 0))


def fragments(spans: list[Span]) -> list[list[tuple[str, str]]]:
    """Returns who made the spans of a trace, and their kinds, in a list for each span without its parent."""
    found = []
    for depth, _, made_by, kind, _ in rows(spans):
        if depth == 0:
            found.append([])
        found[-1].append((made_by, kind))
    return found


def recorded(client: Client, context: Context, lane: str) -> list[Span]:
    """Returns the spans of a trace, when those of a later one have come from the same programs."""
    marker = context_within(BELOW_HALF)
    client.through(lane, "/call", w3c(marker))
    expected = {"always_off": SIDECAR, "always_off, then force": SIDECAR + BEHIND}.get(lane, WHOLE)
    client.topology.receiver.trace(marker.trace_id, len(expected))
    return [span for span in client.topology.receiver.spans() if span.trace_id == context.trace_id]


def mesh_attributes(span: Span) -> dict[str, object]:
    return {key: value for key, value in span.attributes.items() if key in MESH_ATTRIBUTES}


def servers(spans: list[Span], service: str) -> list[Span]:
    """Returns the SERVER spans that a service made itself."""
    made = (service, "application", "SERVER")
    return [span for span in spans if (span.service, maker(span), span.kind) == made]


def server_of(spans: list[Span], context: Context, service: str) -> list[Span]:
    return [span for span in servers(spans, service) if span.trace_id == context.trace_id]


@pytest.mark.parametrize("carried", [w3c, b3, b3multi])
def test_request_through_three_applications_is_one_trace(client, carried):
    context = new_context()
    headers = carried(context) | {"baggage": "account=42", "x-forwarded-for": CLIENT_ADDRESS}
    answer = client.through("node", "/call", headers)

    assert answer.status == 200
    spans = client.topology.receiver.trace(context.trace_id, len(CHAIN))
    assert rows(spans) == CHAIN
    assert {span.attributes["http.response.status_code"] for span in spans} == {200}
    assert [maker(span) for span in spans if span.parent_span_id == context.span_id] == ["mesh"]
    (call,) = answer.calls
    assert call.context()["baggage"] == "account=42"

    everywhere = {
        "mesh.request_id": dict(call.headers)["x-request-id"],
        "mesh.retry_count": 1,
        "mesh.b3.trace_id": context.trace_id,
    }
    found = {(span.service, maker(span), span.kind): mesh_attributes(span) for span in spans}
    # Envoy puts the connection's address behind the client's: on loopback it takes the machine's own.
    forwarded_for = found["node", "application", "SERVER"].pop("http.forwarded_for")
    assert forwarded_for.split(",")[0] == CLIENT_ADDRESS
    assert {span: attributes for span, attributes in found.items() if attributes} == {
        ("node", "application", "SERVER"): everywhere | {"mesh.client_ip": CLIENT_ADDRESS},
        ("go", "application", "SERVER"): everywhere,
        ("python", "application", "SERVER"): everywhere,
    }


@pytest.mark.parametrize("language", LANGUAGES)
def test_attempts_that_are_no_number_are_left_out(client, mesh, language):
    counts = ["", "x", "-1", "+1", "1.5", "1e3", "99999999999"]
    contexts = {count: new_context() for count in counts}
    for count, context in contexts.items():
        headers = w3c(context) | {"x-envoy-attempt-count": count}
        assert client.send(mesh.applications[language].port, "/call", headers).status == 200

    for count, context in contexts.items():
        (server,) = client.topology.receiver.wait_for(
            lambda receiver: server_of(receiver.spans(), context, language)
        )
        assert mesh_attributes(server) == {}, count


@pytest.mark.parametrize("language", LANGUAGES)
def test_of_two_contexts_sdks_take_the_last_and_the_filter_leaves_one(client, mesh, language):
    first, last = new_context(), new_context()
    client.send(mesh.applications[language].port, "/call", w3c(first) | b3multi(last))
    client.topology.receiver.wait_for(lambda receiver: server_of(receiver.spans(), last, language))

    first, last = new_context(), new_context()
    client.through(language, "/call", w3c(first) | b3multi(last))
    client.topology.receiver.wait_for(lambda receiver: server_of(receiver.spans(), first, language))


@pytest.mark.parametrize("language", LANGUAGES)
def test_attribute_of_a_caller_is_as_long_as_the_limit(client, mesh, language):
    context = new_context()
    headers = w3c(context) | {"x-request-id": "a" * 4000}
    assert client.send(mesh.applications[language].port, "/call", headers).status == 200

    (server,) = client.topology.receiver.wait_for(lambda receiver: server_of(receiver.spans(), context, language))
    assert mesh_attributes(server) == {"mesh.request_id": "a" * LENGTH_LIMIT}


@pytest.mark.parametrize("row", DECISIONS)
def test_sampler_of_an_application_keeps_a_trace_whole_or_breaks_it(client, row):
    lane, flags, right_half, expected, flags_behind = DECISIONS[row]
    context = context_within(right_half)
    answer = client.through(lane, "/call", {"traceparent": context.traceparent(flags)})

    assert answer.status == 200
    assert fragments(recorded(client, context, lane)) == expected
    (call,) = answer.calls
    assert call.context()["traceparent"].split("-")[3] == flags_behind


@pytest.mark.parametrize(
    ("lane", "expected", "flags_behind"),
    [("parentbased_always_on", [APPLICATION + BEHIND], "01"), ("parentbased_traceidratio", [], "00")],
)
def test_sidecars_follow_a_trace_that_begins_in_the_application(client, mesh, lane, expected, flags_behind):
    answer = client.send(mesh.applications[lane].port, "/call")

    (call,) = answer.calls
    _, trace_id, span_id, flags = call.context()["traceparent"].split("-")
    assert flags == flags_behind
    assert fragments(recorded(client, Context(trace_id, span_id), lane)) == expected


def test_application_that_reads_another_format_starts_a_second_trace(client):
    context = new_context()
    answer = client.through("b3multi", "/call", w3c(context))

    (call,) = answer.calls
    second = call.context()["traceparent"].split("-")[1]
    assert fragments(client.topology.receiver.trace(second, 4)) == [APPLICATION + BEHIND]
    assert fragments(client.topology.receiver.trace(context.trace_id, 1)) == [SIDECAR]


def test_filter_that_injects_its_format_too_mends_the_trace(client):
    context = new_context()
    client.through("b3multi, and injected", "/call", w3c(context))

    assert fragments(client.topology.receiver.trace(context.trace_id, len(WHOLE))) == [WHOLE]


def test_application_that_passes_nothing_on_leaves_three_traces(client):
    context = new_context()
    answer = client.through("none", "/call", w3c(context))

    (call,) = answer.calls
    third = call.context()["traceparent"].split("-")[1]
    (server,) = client.topology.receiver.wait_for(lambda receiver: servers(receiver.spans(), "none"))
    assert len({context.trace_id, server.trace_id, third}) == 3
    assert fragments(client.topology.receiver.trace(context.trace_id, 1)) == [SIDECAR]
    assert fragments(client.topology.receiver.trace(server.trace_id, 2)) == [APPLICATION]
    assert fragments(client.topology.receiver.trace(third, 2)) == [BEHIND]


def test_exports_that_nobody_takes_cost_spans_and_no_request(client, mesh):
    context = new_context()
    answer = client.through("exports lost", "/call", w3c(context))

    assert answer.status == 200
    mesh.programs["exports lost"].wait_until(
        lambda: "connection refused" in mesh.programs["exports lost"].log.read_text()
    )
    # The request went through all the same: the second half names a parent that no backend has.
    assert fragments(client.topology.receiver.trace(context.trace_id, 3)) == [SIDECAR, BEHIND]


@pytest.mark.parametrize("name", EXPORTS)
def test_exports_through_the_sidecar_are_traced_unless_a_rule_drops_them(client, name):
    # The application exports one batch after the other: when the second comes, the first has been answered.
    for _ in range(2):
        context = new_context()
        client.through(name, "/call", w3c(context))
        assert fragments(client.topology.receiver.trace(context.trace_id, 3)) == [SIDECAR + APPLICATION]
    marker = new_context()
    client.send(client.lane(name).frontend_outbound, "/marker", w3c(marker))
    client.topology.receiver.trace(marker.trace_id, len(BEHIND))

    exports = [
        (maker(span), span.kind, span.parent_span_id)
        for span in client.topology.receiver.spans()
        if span.service == name and PATH_OF_EXPORTS in span.attributes.get("url.full", "")
    ]
    assert set(exports) == ({("mesh", "CLIENT", "")} if name == "exports traced" else set())


@pytest.mark.parametrize("language", LANGUAGES)
def test_probe_past_the_sidecar_makes_no_trace(client, mesh, language):
    assert client.send(mesh.applications[language].port, "/healthz").status == 200

    context = new_context()
    client.through(language, "/call", w3c(context))
    client.topology.receiver.wait_for(lambda receiver: server_of(receiver.spans(), context, language))
    paths = {span.attributes["url.path"] for span in servers(client.topology.receiver.spans(), language)}
    assert paths == {"/call"}


def test_application_that_is_stopped_sends_what_it_has(client, tmp_path):
    ports = free_ports()
    nowhere = next(ports)
    applications = {
        language: Application(
            language=language,
            port=next(ports),
            next=f"http://127.0.0.1:{nowhere}/call",
            collector_port=client.topology.receiver.port,
            settings={"OTEL_SERVICE_NAME": language, "OTEL_BSP_SCHEDULE_DELAY": "60000"},
        )
        for language in LANGUAGES
    }
    contexts = {language: new_context() for language in LANGUAGES}
    with started(applications, tmp_path):
        for language, application in applications.items():
            assert client.send(application.port, "/call", w3c(contexts[language])).status == 502

    for context in contexts.values():
        assert fragments(client.topology.receiver.trace(context.trace_id, 2)) == [APPLICATION]


@pytest.mark.parametrize("language", LANGUAGES)
def test_image_is_pinned_and_has_no_root(language):
    lines = (APPS / language / "Dockerfile").read_text().splitlines()
    steps = [tuple(line.split(maxsplit=1)) for line in lines if line and not line.startswith("#")]
    instructions = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "EXPOSE", "USER", "CMD"}
    assert {name for name, _ in steps} <= instructions

    bases = [text.partition(" AS ")[0] for name, text in steps if name == "FROM"]
    assert all(base == "scratch" or re.fullmatch(r"[a-z]+:\d+\.\d+\.\d+(-slim)?", base) for base in bases), bases
    # By numbers, since Kubernetes cannot tell who a name is.
    assert [text for name, text in steps if name == "USER"] == ["65532:65532"]
    assert ("ENV", "HOST=0.0.0.0 PORT=8080") in steps
    copied = [
        file
        for name, text in steps
        if name == "COPY" and not text.startswith("--from=")
        for file in text.split()[:-1]
    ]
    assert sorted(copied) == sorted(name for name in SOURCES[language] if name != "Dockerfile")


def test_table_of_samplers_has_the_ratios_of_the_examples():
    table = re.findall(
        r"^\| [^|]* \| \[[^]]*\]\(\.\./([a-z-]+)\) \| ([^|]*) \| `([^`]*)`", (APPS / "README.md").read_text(), re.M
    )
    for example, ratio, _ in table:
        (plugin,) = kubernetes.read(APPS.parent / example / "plugin.yaml")
        sampling = plugin["spec"]["pluginConfig"]["sampling"]
        decisions = {rule["decision"] for rule in sampling["rules"] if "match" not in rule}
        assert ratio == ("all requests" if decisions == {"force"} else str(sampling["ratio"])), example
    # Each follows its parent.
    samplers = {sampler for _, _, sampler in table}
    assert samplers == {"parentbased_always_on", "parentbased_traceidratio"} <= ALONE.keys()
    assert len(table) == 4


def test_manifests_follow_kubernetes_schemas_and_name_one_another():
    documents = kubernetes.read(MANIFEST)
    for document in documents:
        kubernetes.check(document)
    assert kubernetes.dangling_references(documents) == []

    services = {document["metadata"]["name"] for document in documents if document["kind"] == "Service"}
    containers = {
        document["metadata"]["name"]: document["spec"]["template"]["spec"]["containers"][0]
        for document in documents
        if document["kind"] == "Deployment"
    }
    environments = {
        name: {variable["name"]: variable.get("value") for variable in container["env"]}
        for name, container in containers.items()
    }
    assert {name: variables.get("NEXT") for name, variables in environments.items()} == {
        "frontend": "http://orders/call",
        "orders": "http://payments/call",
        "payments": None,
    }
    assert services == set(containers)
    for name, variables in environments.items():
        assert variables["OTEL_SERVICE_NAME"] == name
        assert variables["OTEL_TRACES_SAMPLER"] == "parentbased_always_on"
        assert variables["OTEL_EXPORTER_OTLP_ENDPOINT"].endswith(".svc.cluster.local:4318")
