"""The applications of examples/apps as programs: each is a service under OpenTelemetry's own SDK."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import tools
from receiver import Span
from topology import Program

APPS = Path(__file__).parents[1] / "examples" / "apps"
# By language, what each is made of.
SOURCES = {
    "node": ["Dockerfile", "app.js", "tracing.js", "package.json", "package-lock.json"],
    "go": ["Dockerfile", "main.go", "go.mod", "go.sum"],
    "python": ["Dockerfile", "app.py", "requirements.txt"],
}
MANIFEST = APPS / "kubernetes.yaml"
LANGUAGES = tuple(SOURCES)

_EXPORT_SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50"}


@dataclass(frozen=True)
class Application:
    """One to be started: where it listens, whom it calls, where its spans go, more of its environment."""

    language: str
    port: int
    next: str
    collector_port: int
    settings: dict[str, str] = field(default_factory=dict)

    def program(self, log: Path) -> Program:
        command, environment = _COMMANDS[self.language]()
        settings = {
            "PORT": str(self.port),
            "NEXT": self.next,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.collector_port}",
        }
        # What is set in the tests' environment must not reach the SDKs.
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
        return Program(command, log, env=inherited | environment | _EXPORT_SOON | settings | self.settings)


@contextmanager
def started(applications: dict[str, Application], folder: Path) -> Iterator[dict[str, Program]]:
    """Starts all at once, each with a log of its name in `folder`, and goes on when all of them listen."""
    with ExitStack() as running:
        programs = {
            name: running.enter_context(application.program(folder / f"{name}.log"))
            for name, application in applications.items()
        }
        for name, program in programs.items():
            program.wait_until(lambda: _listens(applications[name].port))
        yield programs


def maker(span: Span) -> str:
    """Returns whether the mesh or the application made a span, by the attributes that collectors use."""
    marks = {key: span.attributes.get(key) for key in ("component", "span.source")}
    return {("proxy", "mesh"): "mesh", (None, None): "application"}[tuple(marks.values())]


def _node():
    interpreter, packages = tools.node_packages(APPS / "node")
    return [interpreter, APPS / "node" / "app.js"], {"NODE_PATH": str(packages)}


def _go():
    return [tools.go_program(APPS / "go")], {}


def _python():
    return [tools.python_with(APPS / "python" / "requirements.txt"), APPS / "python" / "app.py"], {}


_COMMANDS = {"node": _node, "go": _go, "python": _python}


def _listens(port: int) -> bool:
    try:
        # No request: it would leave a trace.
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
