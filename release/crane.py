"""Runs crane, go-containerregistry's tool for registries: `crane.py ARGUMENTS`, such as `crane.py auth login HOST`."""

import os
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(_HERE.parent / "envoy"))

import tools  # noqa: E402


def crane() -> Path:
    """Returns the program, built from the version that crane/go.mod pins: a minute or two the first time."""
    return tools.go_program(_HERE / "crane")


if __name__ == "__main__":
    try:
        program = crane()
    except tools.ToolError as error:
        sys.exit(str(error))
    os.execv(program, [program, *sys.argv[1:]])
