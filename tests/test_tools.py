"""The cache of tools: nothing broken or half made is taken from it."""

import subprocess
import sys
from pathlib import Path

import pytest

import tools

# The tests themselves run in an environment that the cache made.
SCRIPTS = sorted(file for file in (Path(sys.prefix) / "bin").iterdir() if file.read_bytes()[:2] == b"#!")


def test_the_environment_of_the_tests_is_of_the_cache():
    assert Path(sys.prefix).parent == tools._CACHE
    assert {"pip", "pytest"} <= {file.name for file in SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS, ids=[file.name for file in SCRIPTS])
def test_scripts_of_an_environment_name_its_own_interpreter(script):
    interpreter = Path(script.read_text().splitlines()[0].removeprefix("#!"))
    assert interpreter.parent == Path(sys.prefix) / "bin" and interpreter.exists()


def test_a_script_of_an_environment_runs():
    pip = Path(sys.prefix) / "bin" / "pip"
    shown = subprocess.run([pip, "--version"], capture_output=True, text=True)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith("pip ")


@pytest.mark.parametrize("movable", [True, False])
def test_an_interrupted_build_is_made_again_and_a_finished_one_is_not(tmp_path, monkeypatch, movable):
    monkeypatch.setattr(tools, "_CACHE", tmp_path / "cache")

    def interrupted(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tools._cached("a", interrupted, movable)
    built = tools._cached("a", lambda folder: (folder / "whole").touch(), movable)
    assert {file.name for file in built.iterdir()} - {tools._COMPLETE} == {"whole"}
    assert tools._cached("a", interrupted, movable) == built
