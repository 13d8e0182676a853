"""The dashboard and the alerts, on a real Prometheus that scrapes a real Envoy."""

import copy
import json
import re
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import combinations
from pathlib import Path
from typing import TypeVar

import pytest
import yaml

import tools
import topology
from conftest import lane
from envoys_tracer import trace_too
from topology import BOOTSTRAP, Program, Topology, admin_answer
from traffic import Client, new_context

T = TypeVar("T")

MONITORING = BOOTSTRAP.parent / "monitoring"
DASHBOARDS = sorted(MONITORING.glob("*dashboard.json"))
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ALERTS = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
(COLLECTORS,) = [it["query"] for it in DASHBOARD["templating"]["list"] if it["name"] == "collector"]
FIRING = 'ALERTS{alertstate="firing"}'
# The values that Grafana would insert, with windows that a test can fill.
VARIABLES = {"$__rate_interval": "20s", "$job": "envoy", "$instance": ".*", "$collector": COLLECTORS}
ISTIO_MODULE = BOOTSTRAP.parents[1] / "tests" / "istio-xds" / "go.mod"
EXPORTER = {
    "otlp": {"cluster": "otel-collector"},
    "batch": {"interval_ms": 100, "max_queue_spans": 20},
    "retry": {"initial_interval_ms": 50, "max_interval_ms": 100},
}
LIMITED = {"name": "debug", "match": {"headers": [{"name": "x-debug-trace", "exact": "true"}]}, "decision": "force"}


PLAIN, ISTIO = "plain", "as in Istio"
SETTINGS = [("1.36.4", PLAIN), ("1.40.0", PLAIN), ("1.40.0", ISTIO)]
# By the answers of the collector, of which each is seen for a second.
RESULTS = {"success", "retry", "failure"}
SOON_SECONDS = 60


@pytest.fixture(scope="module")
def every_prometheus(tmp_path_factory) -> Iterator[dict[tuple[str, str], int]]:
    """By version of Envoy and by the labels of its statistics, the port of a Prometheus that scrapes it."""
    with ExitStack() as running:
        ports = {}
        for version, labels in SETTINGS:
            watched = scraped_envoy(version, labels, tmp_path_factory.mktemp("prometheus"))
            ports[version, labels] = running.enter_context(watched)
        # Series that are missing then fail the tests that query them.
        eventually(lambda: all(map(has_seen_all, ports.values())))
        yield ports


def has_seen_all(port: int) -> bool:
    """Whether exports ended in each way between two scrapes, and each alert has fired."""
    results = query(port, "rate(sidespan_exports_total[20s]) > 0")
    fired = {series["metric"]["alertname"] for series in query(port, f"count_over_time({FIRING}[1m])")}
    return {it["metric"]["result"] for it in results} == RESULTS and fired == {rule["alert"] for rule in RULES}


@pytest.fixture(params=SETTINGS, ids=" ".join)
def prometheus(request, every_prometheus) -> int:
    """The port of a Prometheus that has scraped a filter whose exports ended in each way."""
    return every_prometheus[request.param]


@contextmanager
def scraped_envoy(version: str, labels: str, folder: Path) -> Iterator[int]:
    from_outside = {"headers": [{"name": "x-outside", "present": True}]}
    filter = lane(1).filter | {
        "exporter": EXPORTER,
        "propagation": {"trust_rules": [{"match": from_outside, "trust": "restart"}]},
        "sampling": {
            "ratio": 1,
            "rules": [LIMITED | {"limit": {"per_second": 0.5, "burst": 1}}],
            "export_on": {"status": ["5xx"]},
        },
    }
    lanes = {
        "": topology.Lane(filter=filter),
        "traced": lane(1, change=trace_too),
        "invalid": topology.Lane(filter={"sampling": {"ratio": "all"}}, change=bypass_invalid),
    }

    def change(bootstrap: dict) -> None:
        bootstrap["stats_flush_interval"] = "0.5s"
        if labels == ISTIO:
            label_as_istio(bootstrap)

    with Topology(lanes, envoy=tools.envoy(version), change=change) as running:
        configuration = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())
        configuration["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
        (scraped,) = configuration["scrape_configs"]
        scraped["static_configs"] = [{"targets": [f"127.0.0.1:{running.admin_port}"]}]
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
        (folder / "alerts.yaml").write_text(yaml.safe_dump({"groups": [{"name": "soon", "rules": soon(RULES)}]}))
        port = next(topology.free_ports())
        server, _ = tools.prometheus()
        command = [
            *[server, f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}"],
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with Program(command, folder / "prometheus.log") as program, requests_until_the_end(running):
            program.wait_until(lambda: query(port, 'up{job="envoy"} == 1') != [])
            yield port


@contextmanager
def requests_until_the_end(running: Topology) -> Iterator[None]:
    """Sends requests all the while; the collector answers 503, 400 and 200 in turns."""
    statuses = [503, 400, 200]
    with Client(running, "1.1") as client:

        def send() -> None:
            # For a second each.
            running.receiver.status = statuses[int(time.monotonic()) % len(statuses)]
            send_all_kinds(client)

        with repeated(send):
            yield


@contextmanager
def repeated(action: Callable[[], None]) -> Iterator[None]:
    """Does something again and again, with pauses of a tenth of a second."""
    ending = threading.Event()

    def repeat() -> None:
        while not ending.wait(0.1):
            action()

    with ThreadPoolExecutor() as threads:
        repeating = threads.submit(repeat)
        try:
            yield
        finally:
            ending.set()
        # Raises what went wrong there.
        repeating.result()


def label_as_istio(bootstrap: dict) -> None:
    """Lets Envoy's statistics have the names, the labels and the selection that a proxy of Istio gives them."""
    regexps = sorted({it for panel in PANELS for it in re.findall(r"'((?:http|cluster)[^']*)'", panel["description"])})
    bootstrap["stats_config"] = istio_stats_config(regexps)
    for listener in bootstrap["static_resources"]["listeners"]:
        topology.connection_manager(listener)["stat_prefix"] += ";"
    for cluster in bootstrap["static_resources"]["clusters"]:
        cluster["alt_stat_name"] = f"{cluster['name']};"


def istio_stats_config(inclusion_regexps: list[str]) -> dict:
    """Returns the `stats_config` of Istio's bootstrap, with our labels as extraStatTags."""
    version = re.search(r"\sistio\.io/istio (v\S+)", ISTIO_MODULE.read_text())[1]
    folder = tools.go_module(f"istio.io/istio@{version}") / "tools" / "packaging" / "common"
    template = (folder / "envoy_bootstrap.json").read_text()
    tags = re.search(r'"stats_tags": (\[.*?\n    \])', template, re.DOTALL)[1]
    extra = ["decision", "format", "outcome", "reason", "result", "rule", "version"]
    loop = r"{{- range \$a, \$tag := \.extraStatTags }}(.*?){{- end }}"
    tags = re.sub(
        loop, lambda it: "".join(it[1].replace("{{ $tag }}", tag) for tag in extra), tags, flags=re.DOTALL
    )
    kept = [{"prefix": it} for it in ["cluster_manager", "listener_manager", "server", "cluster.xds-grpc", "wasm"]]
    kept += [{"safe_regex": {"regex": it}} for it in inclusion_regexps]
    matcher = {"inclusion_list": {"patterns": kept}}
    return {"use_all_default_tags": False, "stats_tags": json.loads(tags), "stats_matcher": matcher}


def send_all_kinds(client: Client) -> None:
    unsampled = {"traceparent": new_context().traceparent("00")}
    for headers in [
        {},
        unsampled,
        unsampled | {"x-debug-trace": "true"},
        {"traceparent": "00-malformed"},
        {"x-outside": "1", "traceparent": new_context().traceparent("01")},
    ]:
        client.through("", "/a", headers)
    client.through("", "/a?status=503", unsampled)
    client.through("traced", "/a")
    client.through("invalid", "/a")


def bypass_invalid(resources: dict) -> None:
    variables = {"key_values": {"SIDESPAN_INVALID_CONFIGURATION": "bypass"}}
    for listener in resources["listeners"]:
        config = topology.wasm_configuration(listener)
        # Envoy 1.36 shares a VM, and so its environment, among all of one vm_id.
        config["vm_config"]["vm_id"] = "invalid"
        config["vm_config"]["environment_variables"] = variables


def soon(rules: list[dict]) -> list[dict]:
    """Returns the alerts with windows of seconds."""
    rules = copy.deepcopy(rules)
    for rule in rules:
        rule["expr"] = re.sub(r"\b5m\b", "4s", rule["expr"])
        rule.pop("for", None)
    return rules


def filled_in(expression: str, variables: dict[str, str] = VARIABLES) -> str:
    """Returns the query with its variables' values; `$1` is no variable, but a group of label_replace."""
    for variable, value in variables.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression.replace('"$1"', "")
    return expression


def query(port: int, expression: str) -> list[dict]:
    """Returns the series of an expression at this moment; none after a scrape that took too long, until the next."""
    answer = admin_answer(port, "/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
    return json.loads(answer)["data"]["result"] if answer else []


def query_data(port: int, expression: str) -> list[dict]:
    """Returns the series of an expression as soon as there are any."""
    return eventually(lambda: query(port, expression))


def eventually(found: Callable[[], T]) -> T:
    """Returns what `found` returns as soon as it is true, or after a while."""
    deadline = time.monotonic() + SOON_SECONDS
    while not (answer := found()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return answer


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_every_query_of_the_dashboard_has_data(prometheus, panel):
    for target in panel["targets"]:
        expression = filled_in(target["expr"])
        found = query_data(prometheus, expression)
        values = [float(series["value"][1]) for series in found]
        assert values and all(value == value for value in values), f"{expression}: {found}"
        for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
            assert all(label in series["metric"] for series in found)


def test_neither_exports_nor_the_admin_are_taken_for_the_application(prometheus):
    (latency,) = [panel for panel in PANELS if panel["title"] == "Latency of mesh and application, p95"]
    mesh, application = (query_data(prometheus, filled_in(target["expr"])) for target in latency["targets"])
    clusters = {series["metric"]["cluster"] for series in application}
    listeners = {series["metric"]["listener"] for series in mesh}
    everything = query_data(prometheus, "envoy_cluster_upstream_rq_time_count")
    called = {series["metric"].get("envoy_cluster_name") or series["metric"]["cluster_name"] for series in everything}
    assert "otel-collector" in called and clusters and clusters == {it for it in called if "otel-collector" not in it}
    assert listeners and not any("admin" in listener for listener in listeners)

    matchers = {"cluster": 'envoy_cluster_name!~"$collector"', "http": 'envoy_http_conn_manager_prefix!="admin"'}
    for target in [target for panel in PANELS for target in panel["targets"]]:
        for family, matcher in matchers.items():
            assert len(re.findall(rf"\benvoy_{family}_\w+{{", target["expr"])) == target["expr"].count(matcher)
            if family == "cluster":
                assert target["expr"].count(matcher) == target["expr"].count('cluster_name!~"$collector|')


QUERIED = [it for it in DASHBOARD["templating"]["list"] if it["type"] == "query"]


@pytest.mark.parametrize("variable", QUERIED, ids=lambda variable: variable["name"])
def test_every_variable_has_values(prometheus, variable):
    selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()
    found = query_data(prometheus, selector.replace("$job", "envoy"))
    assert found and all(label in series["metric"] for series in found)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_fires(prometheus, rule):
    # They fire and end with the collector's answers, so the query covers the past.
    past = f'count_over_time(ALERTS{{alertname="{rule["alert"]}", alertstate="firing"}}[1m])'
    assert query_data(prometheus, past) != []


def test_names_are_as_prometheus_wants_them(prometheus):
    (instance,) = {series["metric"]["instance"] for series in query_data(prometheus, "up")}
    shown = admin_answer(int(instance.rpartition(":")[2]), "/stats/prometheus")
    ours = [line for line in shown.splitlines(keepends=True) if re.match(r"(# TYPE )?sidespan_", line)]
    _, promtool = tools.prometheus()
    checked = subprocess.run([promtool, "check", "metrics"], input="".join(ours), capture_output=True, text=True)
    # Envoy has no help texts, and its histograms take whole numbers: seconds would say nothing.
    complaints = [line for line in checked.stderr.splitlines() if not line.endswith("no help text")]
    unit = 'sidespan_export_duration_milliseconds use base unit "seconds" instead of "milliseconds"'
    assert complaints == [unit]


def test_shipped_files_are_valid():
    _, promtool = tools.prometheus()
    for kind, file in [("config", "prometheus.yaml"), ("rules", "alerts.yaml")]:
        checked = subprocess.run([promtool, "check", kind, MONITORING / file], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_panels_do_not_overlap_and_explain_themselves(file):
    panels = json.loads(file.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in [panel for panel in panels if panel["type"] != "row"]:
        assert panel["description"] and panel["fieldConfig"]["defaults"]["unit"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y, (one, other)


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_grafana_knows_every_key(file):
    assert unknown_keys(file) == []


def test_a_key_that_grafana_does_not_know_is_noticed(tmp_path):
    dashboard = copy.deepcopy(DASHBOARD)
    dashboard["panels"][1]["targets"][0]["expression"] = "up"
    (tmp_path / "dashboard.json").write_text(json.dumps(dashboard))
    assert unknown_keys(tmp_path / "dashboard.json") == ["$.panels[1].targets[0].expression"]


def unknown_keys(file: Path) -> list[str]:
    """Returns the keys of a dashboard that Grafana's own model does not have."""
    script = Path(__file__).with_name("grafana") / "unknown_keys.py"
    python = tools.python_with(script.with_name("requirements.txt"))
    printed = subprocess.run([python, script, file], capture_output=True, text=True, check=True).stdout
    # Grafana keeps it beside `query`; its model does not say so.
    return [key for key in printed.splitlines() if not re.fullmatch(r"\$\.templating\.list\[\d+\]\.definition", key)]
