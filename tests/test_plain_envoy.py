"""Plain Envoy: what examples/envoy/ shows, as it stands there, and what each failure policy means."""

import hashlib
import http.client
import json
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml

import topology
from receiver import Receiver
from service import Service
from test_manifests import ROOT
from traffic import new_context

FOLDER = ROOT / "examples" / "envoy"
FILES = sorted(FOLDER.glob("*.yaml"))
POLICIES = ["FAIL_OPEN", "FAIL_CLOSED", "FAIL_RELOAD"]
CONFIGURATION = {"service_name": "shop", "exporter": {"otlp": {"cluster": "otel-collector"}}}
BAD_CONFIGURATION = {"sampling": {"ratio": 2}}


class Modules:
    """A web server with modules by their paths; a context manager that stops it."""

    def __init__(self, **modules: bytes):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                body = modules.get(self.path.removeprefix("/").removesuffix(".wasm"))
                self.send_response(404 if body is None else 200)
                self.send_header("content-length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,))
        self.port = self._server.server_port

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Plain(topology.Running):
    """An Envoy with a copy of the example's files, an application and a receiver."""

    def __init__(self, envoy: Path, folder: Path, bootstrap: str | dict, **replacements: str):
        """`replacements` are more texts of the files, by what stands for them."""
        self._envoy = envoy
        self._folder = folder
        self._bootstrap = bootstrap
        self._replacements = replacements
        self._stack = ExitStack()

    def __enter__(self):
        with ExitStack() as starting:
            self.receiver = starting.enter_context(Receiver())
            application = starting.enter_context(Service("application"))
            ports = topology.free_ports()
            self.port, self.admin_port = next(ports), next(ports)
            self._replacements = {
                "port_value: 10000": f"port_value: {self.port}",
                "port_value: 9901": f"port_value: {self.admin_port}",
                "port_value: 8080": f"port_value: {application.port}",
                "port_value: 4318": f"port_value: {self.receiver.port}",
                # The receiver listens there alone.
                "address: localhost": "address: 127.0.0.1",
                "/var/lib/envoy/sidespan.wasm": str(topology.MODULE),
                "/etc/envoy": str(self._folder),
            } | self._replacements
            for file in FILES:
                self.write(file.name, file.read_text())
            if isinstance(self._bootstrap, dict):
                # In blocks, whose texts are replaced as those of the files are.
                self.write("bootstrap.yaml", yaml.safe_dump(self._bootstrap))
                self._bootstrap = "bootstrap.yaml"
            command = [self._envoy, "-c", self._folder / self._bootstrap, "--disable-hot-restart"]
            options = ["--concurrency", "1", "--log-level", "warning"]
            self.program = starting.enter_context(topology.Program([*command, *options], self._folder / "envoy.log"))
            self.program.wait_until(lambda: topology.admin_answer(self.admin_port, "/ready") is not None)
            self._stack = starting.pop_all()
        return self

    def __exit__(self, *_):
        self._stack.close()

    def write(self, name: str, text: str) -> None:
        """Puts a file of the example into the folder, as an editor does that replaces it."""
        for stands_for, it in self._replacements.items():
            text = text.replace(stands_for, it)
        new = self._folder / f"new-{name}"
        new.write_text(text)
        new.rename(self._folder / name)

    def status(self, headers: dict[str, str] | None = None) -> int | None:
        """Returns what a sampled request is answered, or None where nothing listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            context = {"traceparent": new_context().traceparent("01")}
            connection.request("GET", "/a", headers=context | (headers or {}))
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except OSError:
            return None
        finally:
            connection.close()

    def wait_for_span(self, service: str = "shop") -> None:
        """Sends requests until one of them has a span of this service."""
        def has_span() -> bool:
            assert self.status() == 200
            return any(span.service == service for span in self.receiver.spans())

        self.program.wait_until(has_span)


def entry(name: str) -> dict:
    (it,) = yaml.safe_load((FOLDER / name).read_text())
    return it


def test_what_is_pasted_is_in_the_whole_bootstrap():
    static = yaml.safe_load((FOLDER / "static.yaml").read_text())["static_resources"]
    manager = topology.connection_manager(static["listeners"][0])
    assert manager["http_filters"][0] == entry("filter.yaml")
    assert entry("cluster.yaml") in static["clusters"]
    assert len((FOLDER / "filter.yaml").read_text().splitlines()) <= 16


def test_all_ways_have_the_same_filter():
    (listener,) = yaml.safe_load((FOLDER / "listeners.yaml").read_text())["resources"]
    (discovered,) = yaml.safe_load((FOLDER / "sidespan.yaml").read_text())["resources"]
    filter = entry("filter.yaml")
    assert topology.connection_manager(listener)["http_filters"][0] == filter
    assert discovered["typed_config"] == filter["typed_config"]
    remote = entry("remote-filter.yaml")
    remote["typed_config"]["config"]["vm_config"]["code"] = filter["typed_config"]["config"]["vm_config"]["code"]
    assert remote == filter


def test_envoy_runs_it_and_spans_arrive(outermost_envoy, tmp_path):
    with Plain(outermost_envoy, tmp_path, "static.yaml") as running:
        running.wait_for_span()
        assert "[error]" not in running.log()


@pytest.mark.parametrize(("bootstrap", "file"), [("lds.yaml", "listeners.yaml"), ("ecds.yaml", "sidespan.yaml")])
def test_a_file_that_changes_is_read_and_a_wrong_one_is_not(newest_envoy, tmp_path, bootstrap, file):
    with Plain(newest_envoy, tmp_path, bootstrap) as running:
        running.program.wait_until(lambda: running.status() == 200)
        assert "[error]" not in running.log()
        good = (FOLDER / file).read_text()
        running.write(file, wrong(good))
        running.program.wait_until(lambda: "configuration refused: sampling.ratio" in running.log())
        running.wait_for_span()
        running.write(file, good.replace('"service_name": "shop"', '"service_name": "shop-2"'))
        running.wait_for_span("shop-2")


def wrong(text: str) -> str:
    """Returns a file whose filter's configuration is not valid."""
    good, bad = '{"service_name": "shop", ', '{"service_name": "shop", "sampling": {"ratio": 2}, '
    assert good in text
    return text.replace(good, bad)


def with_filter(filter: dict, *clusters: dict, policy: str = "FAIL_OPEN", configuration: dict = CONFIGURATION) -> dict:
    """Returns static.yaml with another filter, and more clusters."""
    bootstrap = yaml.safe_load((FOLDER / "static.yaml").read_text())
    static = bootstrap["static_resources"]
    config = filter["typed_config"]["config"]
    config["failure_policy"] = policy
    config["configuration"]["value"] = json.dumps(configuration)
    topology.connection_manager(static["listeners"][0])["http_filters"][0] = filter
    static["clusters"] += clusters
    return bootstrap


@contextmanager
def fetching(envoy: Path, folder: Path, served: dict[str, bytes], wanted: bytes, **options):
    """Runs an Envoy that fetches `sidespan` of what is `served`, and whose checksum is that of `wanted`."""
    filter = entry("remote-filter.yaml")
    remote = filter["typed_config"]["config"]["vm_config"]["code"]["remote"]
    remote["sha256"] = hashlib.sha256(wanted).hexdigest()
    remote["retry_policy"]["num_retries"] = options.pop("retries", remote["retry_policy"]["num_retries"])
    with Modules(**served) as modules:
        bootstrap = with_filter(filter, entry("remote-cluster.yaml"), **options)
        port = {"port_value: 8000": f"port_value: {modules.port}"}
        with Plain(envoy, folder, bootstrap, **port) as running:
            yield running


def test_envoy_fetches_the_module(outermost_envoy, tmp_path, module):
    content = module.read_bytes()
    with fetching(outermost_envoy, tmp_path, {"sidespan": content}, content) as running:
        running.wait_for_span()
        assert "[error]" not in running.log()


@pytest.mark.parametrize("served", [{"sidespan": b"another module"}, {}], ids=["another checksum", "not found"])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_module_that_cannot_be_had(newest_envoy, tmp_path, module, policy, served):
    # One retry only: each waits longer.
    with fetching(newest_envoy, tmp_path, served, module.read_bytes(), policy=policy, retries=1) as running:
        running.program.wait_until(lambda: running.status() is not None)
        assert {running.status() for _ in range(5)} == {200 if policy == "FAIL_OPEN" else 503}
        assert "Retry limit exceeded for fetching data from remote data source" in running.log()
        assert running.stats() == {}


@pytest.mark.parametrize("policy", POLICIES)
def test_a_fetched_module_that_refuses_its_configuration(newest_envoy, tmp_path, module, policy):
    content = module.read_bytes()
    options = {"policy": policy, "configuration": BAD_CONFIGURATION}
    with fetching(newest_envoy, tmp_path, {"sidespan": content}, content, **options) as running:
        running.program.wait_until(lambda: running.status() is not None)
        assert {running.status() for _ in range(5)} == {200 if policy == "FAIL_OPEN" else 503}
        assert "configuration refused: sampling.ratio" in running.log()


MANY_HEADERS = {f"x-{number}": "a" for number in range(20)}


def trapping() -> bytes:
    """Returns a module that traps when a request has more than 16 headers."""
    def section(id: int, *entries: bytes) -> bytes:
        body = bytes([len(entries)]) + b"".join(entries)
        return bytes([id, len(body)]) + body

    def exported(name: str, kind: int, index: int) -> bytes:
        return bytes([len(name)]) + name.encode() + bytes([kind, index])

    def code(instructions: bytes) -> bytes:
        return bytes([len(instructions) + 2, 0]) + instructions + b"\x0b"

    return b"".join(
        [
            b"\0asm\1\0\0\0",
            # (), (i32 i32 i32) -> i32, (i32) -> i32, (i32 i32)
            section(1, b"\x60\0\0", b"\x60\3\x7f\x7f\x7f\1\x7f", b"\x60\1\x7f\1\x7f", b"\x60\2\x7f\x7f\0"),
            section(3, b"\0", b"\1", b"\2", b"\3"),
            section(5, b"\0\1"),
            section(
                7,
                exported("memory", 2, 0),
                exported("proxy_abi_version_0_2_1", 0, 0),
                exported("proxy_on_request_headers", 0, 1),
                exported("malloc", 0, 2),
                exported("proxy_on_context_create", 0, 3),
            ),
            section(
                10,
                code(b""),
                # if (number of headers > 16) unreachable; return 0
                code(b"\x20\1\x41\x10\x4b\x04\x40\0\x0b\x41\0"),
                code(b"\x41\0"),
                code(b""),
            ),
        ]
    )


@pytest.mark.parametrize("policy", POLICIES)
def test_a_module_that_traps(newest_envoy, tmp_path, policy):
    """The filter does not trap, as far as is known: another module shows what Envoy would do."""
    (tmp_path / "traps.wasm").write_bytes(trapping())
    bootstrap = with_filter(entry("filter.yaml"), policy=policy)
    module = {str(topology.MODULE): str(tmp_path / "traps.wasm")}
    with Plain(newest_envoy, tmp_path, bootstrap, **module) as running:
        running.program.wait_until(lambda: running.status() == 200)
        assert running.status(MANY_HEADERS) == 503
        assert {running.status() for _ in range(5)} == {200 if policy == "FAIL_OPEN" else 503}
        if policy != "FAIL_CLOSED":
            running.program.wait_until(lambda: running.status() == 200)
        # Only a reloaded module is there to trap again.
        traps = {"FAIL_OPEN": 1, "FAIL_CLOSED": 1, "FAIL_RELOAD": 2}[policy]
        assert running.status(MANY_HEADERS) == (200 if policy == "FAIL_OPEN" else 503)
        running.program.wait_until(lambda: running.log().count("RuntimeError: unreachable") == traps)
