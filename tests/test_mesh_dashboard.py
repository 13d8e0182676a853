"""The dashboard of mesh and applications, on a real Prometheus.

Istio's metrics come from its own build of Envoy, so here a server says series with its labels; the
application's come from OpenTelemetry's SDK.
"""

import http.client
import json
import os
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

import tools
from topology import Program, admin_answer, free_ports
from test_monitoring import MONITORING, eventually, filled_in, query, query_data, repeated

DASHBOARD = json.loads((MONITORING / "mesh-dashboard.json").read_text())
APPLICATION = Path(__file__).with_name("metrics-app")
# Rows whose panels show what a plain Envoy and a Collector count: they are asked beside those two.
OTHERWISE_TESTED = {"Envoy without Istio", "Spans: what the Collector counts"}
# What Grafana would put in, and windows that a test can fill.
VARIABLES = {"$__rate_interval": "20s", "$service": ".*", "$reporter": "destination", "$job": ".*"}

# The labels of Istio's standard metrics, with what a sidecar says of one service.
LABELS = {
    "source_workload": "frontend-v1",
    "source_canonical_service": "frontend",
    "source_canonical_revision": "v1",
    "source_workload_namespace": "shop",
    "source_principal": "spiffe://cluster.local/ns/shop/sa/frontend",
    "source_app": "frontend",
    "source_version": "v1",
    "source_cluster": "Kubernetes",
    "destination_workload": "orders-v1",
    "destination_workload_namespace": "shop",
    "destination_principal": "spiffe://cluster.local/ns/shop/sa/orders",
    "destination_app": "orders",
    "destination_version": "v1",
    "destination_service": "orders.shop.svc.cluster.local",
    "destination_canonical_service": "orders",
    "destination_canonical_revision": "v1",
    "destination_service_name": "orders",
    "destination_service_namespace": "shop",
    "destination_cluster": "Kubernetes",
}
HTTP = {"request_protocol": "http", "response_code": "200", "grpc_response_status": "", "response_flags": "-"}
GRPC = {"request_protocol": "grpc", "grpc_response_status": "0"}
# Rows: labels that differ, and requests a scrape.
REQUESTS = [
    ({}, 8),
    ({"response_code": "503", "response_flags": "UF"}, 1),
    ({"response_code": "404"}, 1),
    (GRPC, 4),
    (GRPC | {"grpc_response_status": "14"}, 1),
]
# Who reports, and what it says of the connection: only the called side knows whether it was secure.
REPORTERS = {"destination": "mutual_tls", "source": "unknown"}
BUCKETS_MS = [0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000]
LATENCY_MS = 7
DURATION = "istio_request_duration_milliseconds"


def labelled(name: str, labels: dict[str, str], value: float) -> str:
    pairs = ",".join(f'{key}="{text}"' for key, text in labels.items())
    return f"{name}{{{pairs}}} {value}\n"


def istio_metrics(scrapes: int) -> str:
    """Returns what a sidecar shows after so many scrapes, each of which saw the same requests."""
    lines = ["# TYPE istio_requests_total counter\n"]
    for reporter, policy in REPORTERS.items():
        for different, count in REQUESTS:
            labels = {"reporter": reporter} | LABELS | HTTP | different | {"connection_security_policy": policy}
            total = count * scrapes
            lines.append(labelled("istio_requests_total", labels, total))
            for bound in [*BUCKETS_MS, "+Inf"]:
                within = total if float(bound) >= LATENCY_MS else 0
                lines.append(labelled(f"{DURATION}_bucket", labels | {"le": str(bound)}, within))
            lines.append(labelled(f"{DURATION}_sum", labels, total * LATENCY_MS))
            lines.append(labelled(f"{DURATION}_count", labels, total))
    # One caller does not speak TLS.
    plain = {"reporter": "destination"} | LABELS | HTTP | {"connection_security_policy": "none"}
    lines.append(labelled("istio_requests_total", plain | {"source_principal": "unknown"}, 5 * scrapes))
    tcp = {"reporter": "destination"} | LABELS | {"destination_canonical_service": "database"}
    tcp |= {"request_protocol": "tcp", "response_flags": "-", "connection_security_policy": "mutual_tls"}
    lines.append(labelled("istio_tcp_connections_opened_total", tcp, 9))
    lines.append(labelled("istio_tcp_connections_closed_total", tcp, 5))
    lines.append(labelled("istio_tcp_connections_closed_total", tcp | {"response_flags": "UF"}, 1))
    # Nothing was closed yet, so there is no such series.
    lines.append(labelled("istio_tcp_connections_opened_total", tcp | {"destination_canonical_service": "queue"}, 3))
    return "".join(lines)


class Sidecar(ThreadingHTTPServer):
    """Shows Istio's metrics; every scrape finds more requests."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), SidecarHandler)
        self.scrapes = 0

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return super().__enter__()

    def __exit__(self, *details):
        self.shutdown()
        super().__exit__(*details)


class SidecarHandler(BaseHTTPRequestHandler):
    server: Sidecar

    def do_GET(self):
        self.server.scrapes += 1
        body = istio_metrics(self.server.scrapes).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory) -> Iterator[int]:
    """The port of a Prometheus that has seen a mesh and an application in it."""
    folder = tmp_path_factory.mktemp("mesh")
    ports = free_ports()
    port, application_port, metrics_port = next(ports), next(ports), next(ports)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")} | {
        "PORT": str(application_port),
        "METRICS_PORT": str(metrics_port),
        "OTEL_SERVICE_NAME": "orders",
        # The names of today's conventions and those of the older ones.
        "OTEL_SEMCONV_STABILITY_OPT_IN": "http/dup",
    }
    command = [tools.python_with(APPLICATION / "requirements.txt"), APPLICATION / "app.py"]
    with Sidecar() as sidecar, Program(command, folder / "application.log", environment) as application:
        application.wait_until(lambda: admin_answer(application_port, "/orders/1") is not None)
        metrics = {"static_configs": [{"targets": [f"127.0.0.1:{metrics_port}"]}]}
        configuration = {
            "global": {"scrape_interval": "500ms"},
            "scrape_configs": [
                {"job_name": "istio", "static_configs": [{"targets": [f"127.0.0.1:{sidecar.server_port}"]}]},
                {"job_name": "application"} | metrics,
                # As the Collector's Prometheus exporter shows it, if resource_to_telemetry_conversion is on.
                {
                    "job_name": "collector",
                    "metric_relabel_configs": [{"target_label": "service_name", "replacement": "payments"}],
                }
                | metrics,
            ],
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
        server, _ = tools.prometheus()
        command = [
            *[server, f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}"],
            f"--web.listen-address=127.0.0.1:{port}",
        ]

        def send() -> None:
            for target in ["/orders/7", "/fail"]:
                request(application_port, target)

        # All the while, so that no rate becomes zero.
        with Program(command, folder / "prometheus.log") as program, repeated(send):

            def seen() -> bool:
                errors = 'rate(http_server_request_duration_seconds_count{http_response_status_code="503"}[20s]) > 0'
                return len(query(port, errors)) == 2 and query(port, "rate(istio_requests_total[20s]) > 0") != []

            program.wait_until(seen)
            yield port


def request(port: int, target: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", target)
    connection.getresponse().read()
    connection.close()


def panels_by_row(dashboard: dict) -> dict[str, list[dict]]:
    rows: dict[str, list[dict]] = {}
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            rows[panel["title"]] = []
        else:
            rows[list(rows)[-1]].append(panel)
    return rows


ROWS = panels_by_row(DASHBOARD)
PANELS = [panel for row, panels in ROWS.items() if row not in OTHERWISE_TESTED for panel in panels]


def values(port: int, target: dict, variables: dict[str, str] = VARIABLES) -> dict[str, float]:
    """Returns what a target of a panel shows, by its legend; every series has the legend's labels."""
    shown = {}
    for series in query(port, filled_in(target["expr"], variables)):
        assert all(label in series["metric"] for label in re.findall(r"{{(\w+)}}", target["legendFormat"]))
        legend = re.sub(r"{{(\w+)}}", lambda found: series["metric"][found[1]], target["legendFormat"])
        shown[legend] = float(series["value"][1])
    return shown


def check(port: int, target: dict, expected: dict | set, variables: dict[str, str] = VARIABLES) -> None:
    """Fails unless a target of a panel shows these values, or some values by these legends, now or soon."""

    def shown() -> dict | set:
        found = values(port, target, variables)
        return found if isinstance(expected, dict) else set(found)

    assert eventually(lambda: shown() == expected), f"expected {expected}, but found {shown()}"


def panel(title: str, row: str) -> dict:
    (found,) = [it for it in ROWS[row] if it["title"] == title]
    return found


def test_rows_that_are_tested_elsewhere_exist():
    assert OTHERWISE_TESTED <= ROWS.keys()


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: f"{panel['id']} {panel['title']}")
def test_every_query_has_data(prometheus, panel):
    for target in panel["targets"]:
        shown = eventually(lambda shown=target: values(prometheus, shown))
        assert shown and all(value == value for value in shown.values()), target["expr"]


@pytest.mark.parametrize("reporter, total", [("destination", 20), ("source", 15)])
def test_a_request_counts_once_for_the_chosen_reporter(prometheus, reporter, total):
    (target,) = panel("Requests by caller", "Mesh: Istio's metrics")["targets"]
    expression = filled_in(target["expr"], VARIABLES | {"$reporter": reporter})
    everyone = filled_in(target["expr"], VARIABLES).replace('reporter="destination", ', "")
    # One query, since rates differ from one moment to the next.
    (share,) = query_data(prometheus, f"({expression}) / ({everyone})")
    assert float(share["value"][1]) == pytest.approx(total / 35, rel=0.01)


def test_shares_are_those_of_the_requests(prometheus):
    mesh = "Mesh: Istio's metrics"
    (errors,), (secure,) = (panel(title, mesh)["targets"] for title in ["Share of 5xx", "Share of mutual TLS"])
    check(prometheus, errors, {"orders": pytest.approx(1 / 20, rel=0.01)})
    check(prometheus, secure, {"orders": pytest.approx(15 / 20, rel=0.01)})


def test_open_connections_are_those_not_closed(prometheus):
    (target,) = panel("Open TCP connections", "Mesh: Istio's metrics")["targets"]
    check(prometheus, target, {"database": 3, "queue": 3})


def test_service_names_come_from_the_label_or_from_target_info(prometheus):
    for title in ["Latency, p99", "Latency under the older conventions, p99", "Share of 5xx"]:
        (target,) = panel(title, "Applications: OpenTelemetry's metrics")["targets"]
        check(prometheus, target, {"orders", "payments"})


def test_mesh_and_application_meet_in_the_name_of_the_service(prometheus):
    (mesh, application) = panel("Errors: share of 5xx", "Mesh beside application")["targets"]
    check(prometheus, mesh, {"mesh orders"})
    assert eventually(lambda: "application orders" in values(prometheus, application))
    (target,) = panel("Errors that no application answered", "Mesh beside application")["targets"]
    check(prometheus, target, {"orders"})


def test_services_are_chosen_by_the_variable(prometheus):
    chosen = VARIABLES | {"$service": "payments"}
    (target,) = panel("Share of 5xx", "Applications: OpenTelemetry's metrics")["targets"]
    check(prometheus, target, {"payments"}, chosen)
    (target,) = panel("Share of 5xx", "Mesh: Istio's metrics")["targets"]
    assert values(prometheus, target, chosen) == {}


def test_every_variable_is_defined():
    defined = {"$" + variable["name"] for variable in DASHBOARD["templating"]["list"]} | {"$__rate_interval"}
    assert VARIABLES.keys() <= defined
    # Grafana's own name of all values.
    text = json.dumps(DASHBOARD).replace("$__all", "")
    used = set(re.findall(r"\$[a-z_]\w*", text)) | {"$" + name for name in re.findall(r"\${(\w+)}", text)}
    assert used <= defined


def test_links_name_labels_that_their_series_have():
    for it in [it for panels in ROWS.values() for it in panels]:
        for link in it["fieldConfig"]["defaults"].get("links", []):
            (label,) = set(re.findall(r"__field\.labels\.(\w+)", link["url"] + link["title"]))
            assert all(f"{{{{{label}}}}}" in target["legendFormat"] for target in it["targets"])
