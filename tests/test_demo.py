"""`make demo`'s program, run as a person would run it."""

import os
import re
import signal
import subprocess
import sys

import tools
from conftest import NEWEST_ENVOY
from topology import BOOTSTRAP

DEMO = BOOTSTRAP.with_name("demo.py")
SPAN_LINE = re.compile(r"(frontend|backend)\s+(SERVER|CLIENT)\s+(GET|POST) /\S+\s+[━╸╺ ]+\d+\.\d ms")


def environment() -> dict[str, str]:
    return os.environ | {"ENVOY": str(tools.envoy(NEWEST_ENVOY))}


def test_demo_shows_every_trace_and_what_was_dropped():
    shown = subprocess.run(
        [sys.executable, DEMO], env=environment(), capture_output=True, text=True, timeout=120
    )

    assert shown.returncode == 0, shown.stderr
    assert len(SPAN_LINE.findall(shown.stdout)) == 4 * 3
    assert "why: debug-header" in shown.stdout
    assert "user.id: ada" in shown.stdout
    assert "0 spans, dropped by rule health-checks" in shown.stdout
    assert re.search(r"(\d+) recorded = \1 exported \+ 0 dropped \+ 0 queued", shown.stdout)
    assert max(len(line) for line in shown.stdout.splitlines()) <= 100
    assert "\x1b" not in shown.stdout


def test_kept_demo_stays_until_ctrl_c():
    with subprocess.Popen(
        [sys.executable, DEMO, "--keep"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as shown:
        try:
            curl = next(line for line in shown.stdout if line.strip().startswith("curl "))
            assert re.search(r"http://127\.0\.0\.1:\d+/products", curl)
            assert shown.poll() is None
            shown.send_signal(signal.SIGINT)
            shown.communicate(timeout=30)
        finally:
            # Not killed: it has an Envoy of its own to stop.
            shown.terminate()
    assert shown.returncode == 0
