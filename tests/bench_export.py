"""What export costs requests, in one run: `python3 tests/bench_export.py` (needs h2load).

Twenty thousand sampled requests, as fast as one worker takes them, to a real Collector at the default
limits; then the latency of requests whose collector is well beside that of requests whose collector is
down, by turns.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "envoy"))

import tools  # noqa: E402

tools.reexec_in_venv(HERE / "requirements.txt")

import yaml  # noqa: E402

import topology  # noqa: E402
from load import answered_here  # noqa: E402
from topology import Lane, Program, Topology, admin_answer, books  # noqa: E402

REQUESTS = 20_000
ROUNDS = 9


def main() -> None:
    if not (h2load := shutil.which("h2load")):
        sys.exit("expected h2load on PATH (Debian's nghttp2-client), but found none")
    ports = topology.free_ports()
    collector_port, health_port = next(ports), next(ports)
    exporter = {"otlp": {"cluster": "otel-collector"}}
    filter = {"sampling": {"ratio": 1}, "custom_tags": None, "exporter": exporter}
    lanes = {
        "well": Lane(filter=filter, collector_port=collector_port, change=answered_here),
        # Port 1 is nobody's: it refuses.
        "down": Lane(filter=filter, collector_port=1, change=answered_here),
    }
    with tempfile.TemporaryDirectory(prefix="sidespan-") as name:
        folder = Path(name)
        command = [tools.collector(HERE / "collector-builder.yaml"), "--config", configuration(folder, collector_port, health_port)]
        with Program(command, folder / "collector.log") as collector:
            collector.wait_until(lambda: admin_answer(health_port, "/") is not None)
            with Topology(lanes, envoy=tools.envoy(tools.ENVOY_VERSION)) as running:
                port = {lane: running.lane(lane).backend_inbound for lane in lanes}
                load(h2load, folder, port["well"], REQUESTS)
                warm = running.wait_for_stats(lambda stats: stats["sidespan_spans_queued"] == 0)
                seconds, _ = load(h2load, folder, port["well"], REQUESTS)
                stats = running.wait_for_stats(lambda stats: stats["sidespan_spans_queued"] == 0)
                spans = stats["sidespan_spans_exported_total"] - warm["sidespan_spans_exported_total"]
                sent = stats["sidespan_export_bytes_total"] - warm["sidespan_export_bytes_total"]
                print(f"{REQUESTS} sampled requests in {seconds:.2f} s, {REQUESTS / seconds:.0f} a second")
                print(f"{spans} spans exported, {sent / spans:.0f} bytes each; {books(stats)}")
                p99s = {lane: [] for lane in lanes}
                for _ in range(ROUNDS):
                    for lane in lanes:
                        p99s[lane].append(load(h2load, folder, port[lane], 4_000)[1])
                well, down = (statistics.median(p99s[lane]) for lane in ("well", "down"))
                spread = ", ".join(f"{down / well:.2f}" for well, down in zip(p99s["well"], p99s["down"]))
                print(f"p99 with the collector down / well: {down / 1e3:.2f} ms / {well / 1e3:.2f} ms = {down / well:.2f} ({spread})")


def load(h2load: str, folder: Path, port: int, requests: int) -> tuple[float, float]:
    """Sends requests over 16 connections; returns how long they took, and their 99th percentile in microseconds."""
    log = folder / "requests.log"
    log.unlink(missing_ok=True)
    command = [h2load, "--h1", f"--requests={requests}", "--clients=16", f"--log-file={log}", f"http://127.0.0.1:{port}/a"]
    subprocess.run(command, check=True, capture_output=True)
    # Start in microseconds, status, duration in microseconds.
    rows = [tuple(map(int, line.split())) for line in log.read_text().splitlines()]
    assert {status for _, status, _ in rows} == {200}
    starts = [start for start, _, _ in rows]
    durations = sorted(duration for _, _, duration in rows)
    end = max(start + duration for start, _, duration in rows)
    return (end - min(starts)) / 1e6, durations[len(durations) * 99 // 100]


def configuration(folder: Path, port: int, health_port: int) -> Path:
    file = folder / "collector.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "extensions": {"health_check": {"endpoint": f"127.0.0.1:{health_port}"}},
                "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{port}"}}}},
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
