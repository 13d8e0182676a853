"""Measures what export costs: `python3 tests/bench_export.py` (needs h2load).

One Envoy with one worker and the default limits stands before another Envoy that answers, and exports to
one real Collector. The program prints

- how fast the worker handles 20,000 sampled requests,
- the bytes of a span,
- the latency of requests while the collector is healthy, and while it is down,
- the CPU time of a span, and that of a span of Envoy's own tracer with the same tags.

Things that are compared are measured in turns, and the medians are printed.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "envoy"))

import tools  # noqa: E402

tools.reexec_in_venv(HERE / "requirements.txt")

import yaml  # noqa: E402

import topology  # noqa: E402
from load import answered_here  # noqa: E402
from test_collector import speaks_http2  # noqa: E402
from topology import Lane, Program, Topology, admin_answer, books, connection_manager  # noqa: E402

REQUESTS = 20_000
ROUNDS = 9
REQUESTS_A_ROUND = 4_000
TAGS = [
    {"tag": "user.id", "request_header": {"name": "x-user-id"}},
    {"tag": "tenant.id", "request_header": {"name": "x-tenant-id"}},
    {"tag": "request.id", "request_header": {"name": "x-request-id"}},
    {"tag": "environment", "literal": {"value": "production"}},
]
HEADERS = {"x-user-id": "u-123", "x-tenant-id": "acme", "accept": "*/*", "cookie": "a=b; c=d"}
NO_FILTER, DOWN = "no filter", "collector down"
# Each with the tracer's share of sampled requests, and how it exports.
TRACERS = {"tracer 0 %": (0, "http"), "tracer http": (100, "http"), "tracer gRPC": (100, "grpc")}
# A tracer sends what it has when it has five spans or this is over; the filter, after a second.
SETTLE_SECONDS = 1.2
TYPES = "type.googleapis.com/envoy"


def main() -> None:
    if not (h2load := shutil.which("h2load")):
        sys.exit("expected h2load on PATH (Debian's nghttp2-client), but found none")
    ports = topology.free_ports()
    http_port, grpc_port, health_port, upstream_port = (next(ports) for _ in range(4))
    envoy = tools.envoy(tools.ENVOY_VERSION)
    lanes = {
        NO_FILTER: lane(http_port),
        "unsampled": lane(http_port, ratio=0),
        "sampled http": lane(http_port),
        "sampled gRPC": lane(grpc_port, protocol="grpc"),
        "sampled gzip": lane(http_port, compression="gzip"),
        # Nothing listens on port 1: connections are refused.
        DOWN: lane(1),
    } | {name: lane(grpc_port if kind == "grpc" else http_port, protocol=kind) for name, (_, kind) in TRACERS.items()}
    with tempfile.TemporaryDirectory(prefix="sidespan-") as name:
        folder = Path(name)
        file = configuration(folder, http_port, grpc_port, health_port)
        command = [tools.collector(HERE / "collector-builder.yaml"), "--config", file]
        upstream = [envoy, "--config-yaml", yaml.safe_dump(answering(upstream_port)), "--concurrency", "1"]
        upstream += ["--disable-hot-restart", "--log-level", "warning"]
        with ExitStack() as stack:
            collector = stack.enter_context(Program(command, folder / "collector.log"))
            collector.wait_until(lambda: admin_answer(health_port, "/") is not None)
            stack.enter_context(Program(upstream, folder / "upstream.log")).wait_until(
                lambda: admin_answer(upstream_port, "/") is not None
            )
            change = partial(lay_out, upstream_port)
            running = stack.enter_context(Topology(lanes, envoy=envoy, change=change))
            send = {
                name: partial(load, h2load, folder, running.lane(name).backend_inbound, REQUESTS_A_ROUND) for name in lanes
            }
            # The lane that is down sends the same again and again: it begins last.
            for name in lanes.keys() - {DOWN}:
                send[name]()
            report_throughput(running, partial(load, h2load, folder, running.lane("sampled http").backend_inbound))
            for kind in ("http", "gzip"):
                report_bytes(running, kind, send[f"sampled {kind}"])
            report_rounds(running, send)


def report_throughput(running: Topology, send) -> None:
    before = settled(running)
    seconds, _ = send(REQUESTS)
    after = settled(running)
    delta = {way: spans - before.get(way, 0) for way, spans in after.items()}
    print(f"{REQUESTS} sampled requests in {seconds:.2f} s, {REQUESTS / seconds:.0f} a second: {delta}")


def report_bytes(running: Topology, kind: str, send) -> None:
    settled(running)
    before = running.stats()
    send()
    settled(running)
    after = running.stats()
    spans, sent = (
        after[name] - before[name] for name in ("sidespan_spans_exported_total", "sidespan_export_bytes_total")
    )
    print(f"{kind}: {spans} spans exported, {sent / spans:.0f} bytes each")


def report_rounds(running: Topology, send: dict) -> None:
    """Measures all lanes by turns; what a lane adds is what it takes beyond that without a filter."""
    cpu, p99 = {name: [] for name in send}, {name: [] for name in send}
    for _ in range(ROUNDS):
        for name, load_lane in send.items():
            before = running.program.cpu_seconds()
            p99[name].append(load_lane()[1])
            time.sleep(SETTLE_SECONDS)
            cpu[name].append((running.program.cpu_seconds() - before) / REQUESTS_A_ROUND * 1e6)
    added = {name: [with_it - without for with_it, without in zip(cpu[name], cpu[NO_FILTER])] for name in send}
    print("\nCPU of the Envoy, microseconds a request   added   p99 in ms")
    for name in send:
        median = statistics.median
        print(f"  {name:15s} {median(cpu[name]):24.1f} {median(added[name]):7.1f} {median(p99[name]) / 1e3:11.2f}")
    print("\nfilter / tracer   all that is added   a span alone")
    for ours, theirs in [("sampled http", "tracer http"), ("sampled gRPC", "tracer gRPC"), ("sampled http", "tracer gRPC")]:
        whole = ratio(added[ours], added[theirs])
        alone = ratio(beyond(added[ours], added["unsampled"]), beyond(added[theirs], added["tracer 0 %"]))
        print(f"  {ours} / {theirs}: {whole}; {alone}")
    print(f"p99, collector down / well: {ratio(p99[DOWN], p99['sampled http'])}")


def beyond(values: list[float], base: list[float]) -> list[float]:
    return [value - under for value, under in zip(values, base)]


def ratio(values: list[float], others: list[float]) -> str:
    """Returns the ratio of medians, and the quartiles of the rounds' own ratios."""
    rounds = statistics.quantiles([value / other for value, other in zip(values, others)], n=4)
    return f"{statistics.median(values) / statistics.median(others):.2f} [{rounds[0]:.2f} {rounds[2]:.2f}]"


def settled(running: Topology) -> dict[str, int]:
    """Returns the books once nothing moves any more: what is for the lane that is down stays queued."""
    before = None
    while (found := books(running.stats())) != before:
        before = found
        time.sleep(SETTLE_SECONDS)
    return found


def lane(port: int, ratio: float = 1, **otlp) -> Lane:
    otlp = {"cluster": "otel-collector"} | {key: value for key, value in otlp.items() if value != "http"}
    # A collector that is down is asked again and again for as long as the run takes.
    exporter = {"otlp": otlp, "retry": {"max_elapsed_time_ms": 0}}
    filter = {"sampling": {"ratio": ratio}, "custom_tags": TAGS, "exporter": exporter}

    change = speaks_http2 if "protocol" in otlp else lambda _: None
    return Lane(filter=filter, collector_port=port, change=change)


def lay_out(upstream_port: int, bootstrap: dict) -> None:
    """Lets the other Envoy answer, and replaces the filter of lanes by a tracer or by nothing."""
    for cluster in bootstrap["static_resources"]["clusters"]:
        if cluster["name"].startswith("backend-service."):
            (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
            endpoint["endpoint"]["address"]["socket_address"]["port_value"] = upstream_port
    for listener in bootstrap["static_resources"]["listeners"]:
        _, _, lane = listener["name"].partition(".")
        manager = connection_manager(listener)
        if lane == NO_FILTER or lane in TRACERS:
            manager["http_filters"] = [it for it in manager["http_filters"] if it["name"] != "sidespan"]
        if lane in TRACERS:
            manager["tracing"] = tracing(f"otel-collector.{lane}", *TRACERS[lane])


def answering(port: int) -> dict:
    """Returns the bootstrap of an Envoy that answers everything."""
    bootstrap = topology.load_bootstrap(topology.BOOTSTRAP)
    resources = bootstrap["static_resources"]
    answered_here(resources)
    (listener,) = [it for it in resources["listeners"] if it["name"] == "backend-inbound"]
    listener["address"]["socket_address"]["port_value"] = port
    manager = connection_manager(listener)
    manager["http_filters"] = [it for it in manager["http_filters"] if it["name"] != "sidespan"]
    return {"static_resources": {"listeners": [listener]}}


def tracing(cluster: str, percent: float, kind: str) -> dict:
    uri = {"uri": "http://collector/v1/traces", "cluster": cluster, "timeout": "1s"}
    exports = {
        "http": {"http_service": {"http_uri": uri}},
        "grpc": {"grpc_service": {"envoy_grpc": {"cluster_name": cluster}, "timeout": "1s"}},
    }
    config = {"@type": f"{TYPES}.config.trace.v3.OpenTelemetryConfig", "service_name": "backend"} | exports[kind]
    return {
        "random_sampling": {"value": percent},
        "custom_tags": TAGS,
        "provider": {"name": "envoy.tracers.opentelemetry", "typed_config": config},
    }


def load(h2load: str, folder: Path, port: int, requests: int) -> tuple[float, float]:
    """Sends requests over 16 connections; returns how long they took, and their 99th percentile in microseconds."""
    log = folder / "requests.log"
    log.unlink(missing_ok=True)
    headers = [f"--header={name}: {value}" for name, value in HEADERS.items()]
    command = [h2load, "--h1", f"--requests={requests}", "--clients=16", f"--log-file={log}", *headers]
    subprocess.run([*command, f"http://127.0.0.1:{port}/api/v1/items/42?x=1"], check=True, capture_output=True)
    # Start in microseconds, status, duration in microseconds.
    rows = [tuple(map(int, line.split())) for line in log.read_text().splitlines()]
    assert {status for _, status, _ in rows} == {200}
    starts = [start for start, _, _ in rows]
    durations = sorted(duration for _, _, duration in rows)
    end = max(start + duration for start, _, duration in rows)
    return (end - min(starts)) / 1e6, durations[len(durations) * 99 // 100]


def configuration(folder: Path, http_port: int, grpc_port: int, health_port: int) -> Path:
    protocols = {"http": {"endpoint": f"127.0.0.1:{http_port}"}, "grpc": {"endpoint": f"127.0.0.1:{grpc_port}"}}
    file = folder / "collector.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "extensions": {"health_check": {"endpoint": f"127.0.0.1:{health_port}"}},
                "receivers": {"otlp": {"protocols": protocols}},
                "exporters": {"debug": {}},
                "service": {
                    "extensions": ["health_check"],
                    "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["debug"]}},
                    "telemetry": {"metrics": {"level": "none"}},
                },
            }
        )
    )
    return file


if __name__ == "__main__":
    main()
