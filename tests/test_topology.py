"""What starts the programs of the tests and of the demo."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import topology

RECORDED = "sidespan_spans_recorded_total"
EXPORTED = "sidespan_spans_exported_total"
QUEUED = "sidespan_spans_queued"
REJECTED = 'sidespan_spans_dropped_total{reason="rejected"}'

SLEEPER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from topology import Program
with Program(["sleep", "600"], Path(sys.argv[2])) as program:
    print(program._process.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_a_program_ends_with_the_process_that_started_it(tmp_path, ending):
    command = [sys.executable, "-c", SLEEPER, Path(topology.__file__).parent, tmp_path / "log"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as starter:
        pid = int(starter.stdout.readline())
        assert is_running(pid)
        starter.send_signal(ending)
        deadline = time.monotonic() + 20
        while is_running(pid):
            assert time.monotonic() < deadline, f"process {pid} goes on"
            time.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="programs are tied to their parent on Linux only")
def test_a_program_is_not_started_if_its_parent_has_ended():
    ended = 2**22  # Linux gives process ids below it.
    assert subprocess.run(topology.ending_with(ended, ["sleep", "600"]), timeout=20).returncode == 1


def is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    try:
        return "\nState:\tZ" not in status.read_text()
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("stats", "expected"),
    [
        ({}, True),
        ({RECORDED: 0, EXPORTED: 0, QUEUED: 0}, True),
        ({RECORDED: 6, EXPORTED: 1, QUEUED: 2, REJECTED: 3}, True),
        ({RECORDED: 6}, False),
        ({RECORDED: 6, EXPORTED: 6, QUEUED: 6}, False),
        ({RECORDED: 3, EXPORTED: 0, QUEUED: 0, REJECTED: 0}, False),
    ],
)
def test_spans_balance_if_each_is_exported_queued_or_dropped(stats, expected):
    assert topology.is_balanced(stats) == expected
