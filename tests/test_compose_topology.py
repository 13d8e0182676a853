"""The services of the compose file, run as plain processes with the compose file's own configurations.

Hosts and ports become ports of loopback; all else is as the compose file has it. Grafana is in no
registry, so its dashboards and data sources are asked without it.
"""

import http.client
import json
import os
import re
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

import tools
from applications import Application, started
from test_collector import BUILDER_CONFIGURATION
from test_compose import COMPOSE, COMPOSE_FILE, LOOPBACK
from test_mesh_dashboard import OTHERWISE_TESTED, ROWS, values
from test_monitoring import query
from topology import BOOTSTRAP, MODULE, Program, admin_answer, free_ports

SERVICES = COMPOSE["services"]
NOT_RUN = {"grafana"}
# What an image brings along and the compose file does not say.
OWN_PORTS = {"zipkin": 9411, "prometheus": 9090}
SOON = {"BATCH_TIMEOUT": "100ms", "METRICS_INTERVAL": "200ms"}
SCRAPES = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
MESH = {"frontend", "orders", "payments", "stock"}
APPLICATIONS = MESH - {"stock"}
# Who makes the spans of the chain, from the client on.
CHAIN = [
    *[("frontend", "mesh", "server"), ("frontend", "application", "server"), ("frontend", "application", "client")],
    *[("frontend", "mesh", "client"), ("orders", "mesh", "server")],
    *[("orders", "application", "server"), ("orders", "application", "client"), ("orders", "mesh", "client")],
    *[("payments", "mesh", "server"), ("payments", "application", "server"), ("payments", "application", "client")],
    *[("payments", "mesh", "client"), ("stock", "mesh", "server")],
]
VARIABLES = {"$__rate_interval": "20s", "$service": ".*", "$job": "envoy"}


class Containers:
    """Lays the compose file's services out on loopback, each address of theirs on a port of its own."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._free = free_ports()
        self._ports: dict[tuple[str, int], int] = {}

    def port(self, service: str, number: int) -> int:
        """Returns where a service's port is here. Services that share a namespace share its ports."""
        shared = SERVICES[service].get("network_mode", "").removeprefix("service:")
        return self._ports.setdefault((shared or service, number), next(self._free))

    def localised(self, text: str, service: str) -> str:
        """Returns the text with the addresses that `service` names as they are here."""

        def here(found: re.Match) -> str:
            host, number = found[1], int(found[2])
            return f"{LOOPBACK}:{self.port(service if host[0].isdigit() else host, number)}"

        hosts = "|".join([*SERVICES, r"127\.0\.0\.1", r"0\.0\.0\.0"])
        return re.sub(rf"(?<![\w.-])({hosts}):(\d+)\b", here, text)

    def with_addresses(self, part, service: str):
        """Returns a part of Envoy's bootstrap with its socket addresses as they are here."""
        if isinstance(part, list):
            return [self.with_addresses(it, service) for it in part]
        if not isinstance(part, dict):
            return part
        if "port_value" in part:
            host = service if part["address"][0].isdigit() else part["address"]
            return {"address": LOOPBACK, "port_value": self.port(host, part["port_value"])}
        return {key: self.with_addresses(it, service) for key, it in part.items()}

    def file(self, service: str, target: str) -> Path:
        """Returns where what a container sees at `target` is here."""
        return self._folder / service / target.lstrip("/")

    def mount(self, service: str) -> None:
        """Copies what is mounted into a service's container, with the addresses as they are here."""
        for mount in SERVICES[service].get("volumes", []):
            source, file = COMPOSE_FILE.parent / mount["source"], self.file(service, mount["target"])
            file.parent.mkdir(parents=True, exist_ok=True)
            if source.resolve() == MODULE.resolve():
                file.symlink_to(MODULE)
            elif service == "envoy":
                bootstrap = self.with_addresses(json.loads(json.dumps(yaml.safe_load(source.read_text()))), service)
                file.write_text(self.with_files(json.dumps(bootstrap), service))
            elif "scrape_configs" in source.read_text():
                configuration = yaml.safe_load(self.localised(source.read_text(), service))
                file.write_text(yaml.safe_dump(configuration | {"global": SCRAPES}))
            else:
                file.write_text(self.localised(source.read_text(), service))

    def with_files(self, text: str, service: str) -> str:
        for mount in SERVICES[service].get("volumes", []):
            text = text.replace(mount["target"], str(self.file(service, mount["target"])))
        return text

    def arguments(self, service: str) -> list[str]:
        """Returns a service's command line without the name of its program."""
        command = [self.with_files(self.localised(it, service), service) for it in SERVICES[service].get("command", [])]
        for index, before in enumerate(command[:-1]):
            if before == "--port":
                command[index + 1] = str(self.port(service, int(command[index + 1])))
        # Some images have a program of their own, and the command is arguments alone.
        return command if command and command[0].startswith("-") else command[1:]

    def environment(self, service: str) -> dict[str, str]:
        settings = {key: self.localised(it, service) for key, it in SERVICES[service].get("environment", {}).items()}
        if "PORT" in settings:
            settings["PORT"] = str(self.port(service, int(settings["PORT"])))
        return settings


@dataclass(frozen=True)
class Running:
    containers: Containers

    def port(self, service: str, number: int) -> int:
        return self.containers.port(service, number)

    def json(self, service: str, number: int, target: str):
        answer = admin_answer(self.port(service, number), target)
        return answer and json.loads(answer)


def applications(containers: Containers) -> dict[str, Application]:
    found = {}
    for name, part in SERVICES.items():
        if "build" in part:
            settings = containers.environment(name)
            collector = containers.port("otel-collector", 4318)
            language = Path(part["build"]).name
            found[name] = Application(language, int(settings["PORT"]), settings["NEXT"], collector, settings)
    return found


def commands(containers: Containers, envoy: Path) -> dict[str, tuple[list, Callable[[], bool]]]:
    """Returns how each service that is no application is run here, and when it is ready."""
    port = containers.port
    prometheus, _ = tools.prometheus()
    data = f"--storage.tsdb.path={containers.file('prometheus', '/prometheus')}"
    kept = [it for it in containers.arguments("prometheus") if not it.startswith("--storage.")]
    prometheus_port, zipkin_port = (port(name, OWN_PORTS[name]) for name in ("prometheus", "zipkin"))
    listener = {"ip": LOOPBACK, "port": zipkin_port, "protocols": "http"}
    zipkin = [f"--armeria.ports[0].{key}={value}" for key, value in listener.items()]
    return {
        "envoy": (
            # Without hot restart there is no shared memory, and any number of Envoys run side by side.
            [envoy, *containers.arguments("envoy"), "--disable-hot-restart", "--concurrency", "1"],
            lambda: admin_answer(port("envoy", 9901), "/ready") is not None,
        ),
        "stock": (
            [sys.executable, BOOTSTRAP.with_name("service.py"), *containers.arguments("stock")[1:]],
            # Past its sidecar, so that it leaves no trace.
            lambda: admin_answer(port("stock", 8084), "/") is not None,
        ),
        "otel-collector": (
            [tools.collector(BUILDER_CONFIGURATION), *containers.arguments("otel-collector")],
            lambda: admin_answer(port("otel-collector", 13133), "/") is not None,
        ),
        "jaeger": (
            [tools.jaeger(), *containers.arguments("jaeger")],
            lambda: admin_answer(port("jaeger", 16686), "/api/services") is not None,
        ),
        "zipkin": ([*tools.zipkin(), *zipkin], lambda: admin_answer(zipkin_port, "/health") is not None),
        "prometheus": (
            [prometheus, *kept, data, f"--web.listen-address={LOOPBACK}:{prometheus_port}"],
            lambda: admin_answer(prometheus_port, "/-/ready") is not None,
        ),
    }


@pytest.fixture(scope="module")
def running(newest_envoy, tmp_path_factory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("compose")
    containers = Containers(folder)
    programs, ways = applications(containers), commands(containers, newest_envoy)
    assert programs.keys() | ways.keys() == SERVICES.keys() - NOT_RUN
    with ExitStack() as resources:
        others = {}
        for name, (command, _) in ways.items():
            containers.mount(name)
            environment = {**os.environ, **containers.environment(name), **SOON}
            others[name] = resources.enter_context(Program(command, folder / f"{name}.log", environment))
        resources.enter_context(started(programs, folder))
        for name, (_, ready) in ways.items():
            others[name].wait_until(ready)
        yield Running(containers)


def call(running: Running) -> str:
    """Sends a request that is traced through all services, and returns the trace's id, which the answer says."""
    connection = http.client.HTTPConnection(LOOPBACK, running.port("envoy", 8000), timeout=20)
    connection.request("GET", "/call", headers={"x-debug-trace": "true"})
    answer = connection.getresponse()
    body = json.loads(answer.read())
    connection.close()
    assert (answer.status, body["service"]) == (200, "stock")
    received = dict(body["headers"])
    assert received["traceparent"].split("-")[1] == answer.headers["x-trace-id"]
    return answer.headers["x-trace-id"]


@pytest.fixture(scope="module")
def trace_id(running) -> str:
    return call(running)


def eventually(wanted: Callable[[], object], timeout: float = 20):
    """Returns what `wanted` returns as soon as it is true."""
    deadline = time.monotonic() + timeout
    while not (found := wanted()):
        assert time.monotonic() < deadline, f"still {found!r} after {timeout} s"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def in_jaeger(running, trace_id) -> list[dict]:
    """The spans of the trace in Jaeger, once all have come."""

    def spans():
        found = running.json("jaeger", 16686, f"/api/traces/{trace_id}")
        if not found:
            return None
        # An answer's ids of processes are its own.
        (trace,) = found["data"]
        named = [it | {"service": trace["processes"][it["processID"]]["serviceName"]} for it in trace["spans"]]
        # A span whose export was answered too late is sent again, and stored twice.
        named = list({it["spanID"]: it for it in named}.values())
        return named if len([span for span in named if kind(span)]) == len(CHAIN) else None

    return eventually(spans)


def tags(span: dict) -> dict:
    return {tag["key"]: tag["value"] for tag in span["tags"]}


def kind(span: dict) -> str | None:
    """Returns `server` or `client`; None of the spans that an SDK makes of what goes on inside."""
    found = tags(span).get("span.kind")
    return found if found in ("server", "client") else None


def parent(span: dict) -> str | None:
    return next((it["spanID"] for it in span["references"] if it["refType"] == "CHILD_OF"), None)


def test_jaeger_has_one_chain_from_the_client_to_the_last_service(in_jaeger):
    by_id = {span["spanID"]: span for span in in_jaeger}
    (span,) = [span for span in in_jaeger if span["service"] == "stock"]
    chain = []
    while span is not None:
        if kind(span):
            chain.append((span["service"], tags(span).get("span.source", "application"), kind(span)))
        above = parent(span)
        span = None if above is None else by_id[above]
    assert chain[::-1] == CHAIN


def test_zipkin_has_the_same_spans(running, trace_id, in_jaeger):
    wanted = {span["spanID"] for span in in_jaeger}

    def spans():
        found = running.json("zipkin", 9411, f"/api/v2/trace/{trace_id}") or []
        return {span["id"] for span in found} == wanted and found

    found = eventually(spans)
    assert {span["localEndpoint"]["serviceName"] for span in found} == MESH


def test_admin_answers_and_counts_the_spans(running, in_jaeger):
    assert admin_answer(running.port("envoy", 9901), "/ready") == "LIVE\n"
    mesh = len([it for it in CHAIN if it[1] == "mesh"])
    exported = rf"^sidespan_spans_exported_total{{}} ([1-9]\d*)$"
    shown = eventually(
        lambda: re.search(exported, admin_answer(running.port("envoy", 9901), "/stats/prometheus") or "", re.MULTILINE)
    )
    assert int(shown[1]) >= mesh


def test_prometheus_has_what_the_filter_and_the_applications_count(running, in_jaeger):
    port = running.port("prometheus", 9090)
    eventually(lambda: query(port, 'sidespan_spans_exported_total{job="envoy"} > 0'))

    def counted():
        calls = query(port, 'traces_span_metrics_calls_total{span_kind="SPAN_KIND_SERVER"}')
        return {(it["metric"]["service_name"], it["metric"]["span_source"]) for it in calls}

    wanted = {(name, "mesh") for name in MESH} | {(name, "application") for name in APPLICATIONS}
    eventually(lambda: counted() == wanted)


@pytest.mark.parametrize(
    "panel",
    [panel for row in sorted(OTHERWISE_TESTED) for panel in ROWS[row]],
    ids=lambda it: f"{it['id']} {it['title']}",
)
def test_every_query_of_the_mesh_dashboard_has_data(running, panel):
    for target in panel["targets"]:

        def shown():
            # A rate takes requests between two scrapes.
            call(running)
            found = values(running.port("prometheus", 9090), target, VARIABLES)
            return found if all(value == value for value in found.values()) else None

        assert eventually(shown), target["expr"]


def data_sources() -> dict[str, dict]:
    (mount,) = [it for it in SERVICES["grafana"]["volumes"] if "provisioning/datasources" in it["target"]]
    sources = yaml.safe_load((COMPOSE_FILE.parent / mount["source"]).read_text())["datasources"]
    return {source["uid"]: source for source in sources}


def test_exemplars_lead_to_traces_by_the_label_that_grafana_is_told(running, in_jaeger):
    settings = data_sources()["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert {it["datasourceUid"] for it in settings} == {"jaeger", "zipkin"}
    (label,) = {it["name"] for it in settings}
    (panel,) = [it for it in ROWS["Spans: what the Collector counts"] if it["title"] == "Latency, p99"]
    assert [target["exemplar"] for target in panel["targets"]] == [True]

    def exemplars():
        now = time.time()
        asked = {"query": "traces_span_metrics_duration_milliseconds_bucket", "start": now - 60, "end": now + 1}
        answer = running.json("prometheus", 9090, "/api/v1/query_exemplars?" + urllib.parse.urlencode(asked))
        return {it["labels"][label] for series in answer["data"] for it in series["exemplars"]}

    # Each bucket has its newest.
    example = eventually(exemplars).pop()
    assert eventually(lambda: running.json("jaeger", 16686, f"/api/traces/{example}"))
    assert eventually(lambda: running.json("zipkin", 9411, f"/api/v2/trace/{example}"))


@pytest.mark.parametrize(
    "uid, target", [("prometheus", "/-/ready"), ("jaeger", "/api/services"), ("zipkin", "/health")]
)
def test_grafana_is_told_where_its_data_sources_are(running, uid, target):
    url = urllib.parse.urlsplit(running.containers.localised(data_sources()[uid]["url"], "grafana"))
    assert url.hostname == LOOPBACK and admin_answer(url.port, target) is not None


def test_grafana_finds_both_dashboards():
    mounts = {it["target"]: COMPOSE_FILE.parent / it["source"] for it in SERVICES["grafana"]["volumes"]}
    (providers,) = [file for target, file in mounts.items() if "provisioning/dashboards" in target]
    (provider,) = yaml.safe_load(providers.read_text())["providers"]
    found = [file for target, file in mounts.items() if Path(target).parent == Path(provider["options"]["path"])]
    assert sorted(json.loads(file.read_text())["uid"] for file in found) == ["sidespan", "sidespan-mesh"]
