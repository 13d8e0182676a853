"""Runs the tests against real Envoys and a real Collector: `python3 tests/run.py [pytest arguments]`."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "envoy"))

import tools  # noqa: E402

tools.reexec_in_venv(HERE / "requirements.txt")

import pytest  # noqa: E402

import topology  # noqa: E402

topology.exit_on_signals()
arguments = sys.argv[1:]
names_tests = any(Path(argument.partition("::")[0]).exists() for argument in arguments)
# conftest.py keeps tests together that share Envoys, and orders the files. Tests mostly wait, so that
# four processes keep two cores busy.
everything = [str(HERE), "--numprocesses=4", "--dist=loadfile", "--no-loadscope-reorder"]
sys.exit(pytest.main(["-c", str(HERE / "pytest.ini"), *arguments, *([] if names_tests else everything)]))
