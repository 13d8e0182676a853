"""Plain Envoy: what examples/envoy/ shows, as it stands there, and what each failure policy means."""

import copy
import hashlib
import http.client
import json
from contextlib import ExitStack, closing, contextmanager
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
# Of the listeners that have one of them each.
PORTS = {policy: 10001 + number for number, policy in enumerate(POLICIES)}
CONFIGURATION = {"service_name": "shop", "exporter": {"otlp": {"cluster": "otel-collector"}}}
BAD_CONFIGURATION = {"sampling": {"ratio": 2}}
GOOD, BAD = '{"service_name": "shop", ', '{"service_name": "shop", "sampling": {"ratio": 2}, '


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

    def __init__(
        self, envoy: Path, folder: Path, bootstrap: str, changed: dict[str, object] | None = None, **texts: str
    ):
        """`changed` are files with other contents; `texts` replace more of what the files say."""
        self._envoy = envoy
        self._folder = folder
        self._bootstrap = bootstrap
        self._changed = changed or {}
        self._texts = texts
        self._stack = ExitStack()

    def __enter__(self):
        with ExitStack() as starting:
            self.receiver = starting.enter_context(Receiver())
            application = starting.enter_context(Service("application"))
            ports = topology.free_ports()
            self.port, self.admin_port = next(ports), next(ports)
            self.ports = {policy: next(ports) for policy in POLICIES}
            self._texts = {
                "port_value: 10000": f"port_value: {self.port}",
                "port_value: 9901": f"port_value: {self.admin_port}",
                "port_value: 8080": f"port_value: {application.port}",
                "port_value: 4318": f"port_value: {self.receiver.port}",
                # The receiver listens there alone.
                "address: localhost": "address: 127.0.0.1",
                "/var/lib/envoy/sidespan.wasm": str(topology.MODULE),
                "/etc/envoy": str(self._folder),
                **{f"port_value: {PORTS[policy]}": f"port_value: {port}" for policy, port in self.ports.items()},
            } | self._texts
            for file in FILES:
                self.write(file.name, file.read_text())
            for name, content in self._changed.items():
                # In blocks, whose texts are replaced as those of the files are.
                self.write(name, yaml.safe_dump(content))
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
        for former, text_now in self._texts.items():
            text = text.replace(former, text_now)
        new = self._folder / f"new-{name}"
        new.write_text(text)
        new.rename(self._folder / name)

    def statuses(self) -> dict[str, set[int | None]]:
        """Returns what five requests are answered by the listener of each policy."""
        self.program.wait_until(lambda: all(self.status(port=port) is not None for port in self.ports.values()))
        return {policy: {self.status(port=port) for _ in range(5)} for policy, port in self.ports.items()}

    def status(self, headers: dict[str, str] | None = None, port: int | None = None) -> int | None:
        """Returns what a sampled request is answered, or None where nothing listens."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=20)
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
        with closing(http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)) as connection:
            assert asked(connection) == (200, None)
            running.write(file, wrong(good))
            running.program.wait_until(lambda: "configuration refused: sampling.ratio" in running.log())
            running.wait_for_span()
            running.write(file, good.replace('"service_name": "shop"', '"service_name": "shop-2"'))
            running.wait_for_span("shop-2")
            if file == "sidespan.yaml":
                # The listener is the same: it is not drained.
                assert asked(connection) == (200, None)


def asked(connection: http.client.HTTPConnection) -> tuple[int, str | None]:
    """Returns what a request on a connection is answered, and what is said of the connection's end."""
    connection.request("GET", "/a")
    answer = connection.getresponse()
    answer.read()
    return answer.status, answer.getheader("connection")


@pytest.mark.parametrize(
    ("bootstrap", "file", "status"), [("lds.yaml", "listeners.yaml", None), ("ecds.yaml", "sidespan.yaml", 500)]
)
def test_the_first_configuration_of_a_file_is_wrong(newest_envoy, tmp_path, bootstrap, file, status):
    with Plain(newest_envoy, tmp_path, bootstrap, **{GOOD: BAD}) as running:
        running.program.wait_until(lambda: "configuration refused: sampling.ratio" in running.log())
        assert {running.status() for _ in range(5)} == {status}
        running.write(file, (FOLDER / file).read_text().replace('"shop"', '"shop-2"'))
        running.program.wait_until(lambda: running.status() == 200)
        running.wait_for_span("shop-2")


def test_the_first_configuration_is_wrong_and_bypassed(newest_envoy, tmp_path):
    discovered = yaml.safe_load((FOLDER / "sidespan.yaml").read_text())
    config = discovered["resources"][0]["typed_config"]["config"]
    config["vm_config"]["environment_variables"] = {"key_values": {"SIDESPAN_INVALID_CONFIGURATION": "bypass"}}
    config["configuration"]["value"] = json.dumps(BAD_CONFIGURATION)
    with Plain(newest_envoy, tmp_path, "ecds.yaml", {"sidespan.yaml": discovered}) as running:
        running.program.wait_until(lambda: "configuration rejected" in running.log())
        assert {running.status() for _ in range(5)} == {200}


def wrong(text: str) -> str:
    """Returns a file whose filter's configuration is not valid."""
    assert GOOD in text
    return text.replace(GOOD, BAD)


def with_filter(filter: dict, *clusters: dict, configuration: dict = CONFIGURATION, apart: bool = False) -> dict:
    """Returns static.yaml with another filter and more clusters, and a listener more for each policy.

    The filters share a VM in each worker unless they are kept `apart`.
    """
    bootstrap = yaml.safe_load((FOLDER / "static.yaml").read_text())
    static = bootstrap["static_resources"]
    (listener,) = static["listeners"]
    filter["typed_config"]["config"]["configuration"]["value"] = json.dumps(configuration)
    topology.connection_manager(listener)["http_filters"][0] = filter
    for policy, port in PORTS.items():
        another = copy.deepcopy(listener) | {"name": policy}
        another["address"]["socket_address"]["port_value"] = port
        config = topology.wasm_configuration(another)
        config["failure_policy"] = policy
        if apart:
            config["vm_config"]["vm_id"] = policy
        static["listeners"].append(another)
    static["clusters"] += clusters
    return bootstrap


@contextmanager
def fetching(envoy: Path, folder: Path, served: dict[str, bytes], wanted: bytes, configuration: dict = CONFIGURATION):
    """Runs an Envoy that fetches `sidespan` of what is `served`, and whose checksum is that of `wanted`."""
    filter = entry("remote-filter.yaml")
    remote = filter["typed_config"]["config"]["vm_config"]["code"]["remote"]
    remote["sha256"] = hashlib.sha256(wanted).hexdigest()
    if not served.get("sidespan") == wanted:
        # Each retry waits longer.
        remote["retry_policy"]["num_retries"] = 1
    with Modules(**served) as modules:
        bootstrap = with_filter(filter, entry("remote-cluster.yaml"), configuration=configuration)
        port = {"port_value: 8000": f"port_value: {modules.port}"}
        with Plain(envoy, folder, "static.yaml", {"static.yaml": bootstrap}, **port) as running:
            yield running


def test_envoy_fetches_the_module(outermost_envoy, tmp_path, module):
    content = module.read_bytes()
    with fetching(outermost_envoy, tmp_path, {"sidespan": content}, content) as running:
        running.wait_for_span()
        assert running.statuses() == dict.fromkeys(POLICIES, {200})
        assert "[error]" not in running.log()


OPEN_OR_503 = {"FAIL_OPEN": {200}, "FAIL_CLOSED": {503}, "FAIL_RELOAD": {503}}


@pytest.mark.parametrize("served", [{"sidespan": b"another module"}, {}], ids=["another checksum", "not found"])
def test_a_module_that_cannot_be_had(newest_envoy, tmp_path, module, served):
    with fetching(newest_envoy, tmp_path, served, module.read_bytes()) as running:
        assert running.statuses() == OPEN_OR_503
        assert "Retry limit exceeded for fetching data from remote data source" in running.log()
        assert running.stats() == {}


def test_a_fetched_module_that_refuses_its_configuration(newest_envoy, tmp_path, module):
    content = module.read_bytes()
    with fetching(newest_envoy, tmp_path, {"sidespan": content}, content, BAD_CONFIGURATION) as running:
        assert running.statuses() == OPEN_OR_503
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


def test_a_module_that_traps(newest_envoy, tmp_path):
    """The filter does not trap, as far as is known: another module shows what Envoy would do."""
    (tmp_path / "traps.wasm").write_bytes(trapping())
    bootstrap = with_filter(entry("filter.yaml"), apart=True)
    module = {str(topology.MODULE): str(tmp_path / "traps.wasm")}
    with Plain(newest_envoy, tmp_path, "static.yaml", {"static.yaml": bootstrap}, **module) as running:
        assert running.statuses() == dict.fromkeys(POLICIES, {200})
        trapped = {policy: running.status(MANY_HEADERS, port) for policy, port in running.ports.items()}
        assert trapped == dict.fromkeys(POLICIES, 503)
        running.program.wait_until(lambda: running.status(port=running.ports["FAIL_RELOAD"]) == 200)
        assert running.statuses() == {"FAIL_OPEN": {200}, "FAIL_CLOSED": {503}, "FAIL_RELOAD": {200}}
        # Where there is no filter left, there is none to trap; one that was reloaded is there again.
        trapped = {policy: running.status(MANY_HEADERS, port) for policy, port in running.ports.items()}
        assert trapped == {"FAIL_OPEN": 200, "FAIL_CLOSED": 503, "FAIL_RELOAD": 503}
