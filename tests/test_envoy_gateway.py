"""The manifests of envoy/gateway/, by Envoy Gateway's own code and in real Envoys."""

import base64
import functools
import hashlib
import http.server
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml

import image
import push
import tools
import topology
from expected import server_attributes
from receiver import Receiver, Span
from service import Service
from test_image import KNOWN, PASSWORD, REALM, USER, logged_in, pushed, serving
from traffic import Client, new_context

HERE = Path(__file__).parent
FOLDER = topology.BOOTSTRAP.with_name("gateway")
GATEWAY, POLICY_BY_IMAGE, POLICY_BY_HTTP = (
    FOLDER / f"{name}.yaml" for name in ["gateway", "policy-image", "policy-http"]
)
MANIFESTS = [GATEWAY, POLICY_BY_IMAGE, POLICY_BY_HTTP]
POLICY = "EnvoyExtensionPolicy/sidespan"
ROUTE = "httproute/shop/frontend/rule/0/match/0/*"
DEBUG = {"x-debug-trace": "true"}
POD = "envoy-shop-edge-1"
INVALID = {"sampling": {"ratio": "all"}}
REASON = 'sampling.ratio: expected a number, but found "all"'
LISTENER = "shop/edge/http"
FILTER = "envoy.filters.http.wasm/envoyextensionpolicy/shop/sidespan/wasm/0"
# It ends before it fills the memory, and garbage collection takes a third of its time.
WITHOUT_GC = os.environ | {"GOGC": "off"}
_KEY = "a-key-of-the-tests"
_NODE = ["--service-cluster", "--service-node"]
_TIMEOUT_SECONDS = 20
_POLL_SECONDS = 0.05


@pytest.fixture(scope="session")
def program():
    """Envoy Gateway's own code, built once."""
    return tools.go_program(HERE / "envoy-gateway")


def validate(program: Path, file: Path) -> subprocess.CompletedProcess:
    """Does what `egctl experimental validate -f FILE` does."""
    return subprocess.run([program, "validate", file], capture_output=True, text=True, timeout=60, env=WITHOUT_GC)


class Gateway(topology.Running):
    """Envoy Gateway's translation and xDS, an Envoy, a service and an OTLP receiver; a context manager.

    `change` edits the resources of the example, which are given by kind.
    """

    def __init__(self, program: Path, envoy: Path, folder: Path, change: Callable[[dict], None] = lambda it: None):
        self._program = program
        self._envoy = envoy
        self._folder = folder
        self._change = change
        self._ports = topology.free_ports()
        self.admin_port, self.port, self.closed_port = (next(self._ports) for _ in range(3))
        self.statuses: dict[str, dict] = {}

    def __enter__(self):
        with ExitStack() as starting:
            self.receiver = starting.enter_context(Receiver())
            self._service = starting.enter_context(Service("frontend"))
            self.modules_port = starting.enter_context(file_server(topology.MODULE.parent))
            log = starting.enter_context(open(self._folder / "gateway.log", "w"))
            (self._folder / "modules").mkdir()
            command = [self._program, "serve", self._folder / "modules", self._write(self._change)]
            self._gateway = starting.enter_context(
                subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=WITHOUT_GC
                )
            )
            starting.callback(self._gateway.kill)
            answer = self._answer()
            arguments = answer["arguments"]
            given = {name: arguments[arguments.index(name) + 1] for name in ["--config-yaml", *_NODE]}
            file = self._folder / "envoy.json"
            file.write_text(json.dumps(self._bootstrap(yaml.safe_load(given["--config-yaml"]), answer)))
            node = [part for name in _NODE for part in (name, given[name])]
            options = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
            self.program = starting.enter_context(
                topology.Program(
                    [self._envoy, "-c", file, *node, *options],
                    self._folder / "envoy.log",
                    os.environ | {"ENVOY_POD_NAME": POD, "ENVOY_SERVICE_ZONE": "a"},
                )
            )
            self.program.wait_until(lambda: topology.admin_answer(self.admin_port, "/ready") is not None)
            self._resources = starting.pop_all()
        return self

    def __exit__(self, *_):
        self._resources.close()

    def publish(self, change: Callable[[dict], None]) -> None:
        """Publishes the example's resources again, with another change."""
        self._gateway.stdin.write(f"{self._write(change)}\n")
        self._gateway.stdin.flush()
        self._answer()

    def listener(self) -> dict:
        """Returns the listener of the gateway that Envoy has in force."""
        dump = json.loads(topology.admin_answer(self.admin_port, "/config_dump?resource=dynamic_listeners"))
        (state,) = [it["active_state"] for it in dump["configs"] if it.get("name") == LISTENER]
        return state["listener"]

    def gateway_log(self) -> str:
        return (self._folder / "gateway.log").read_text()

    def _answer(self) -> dict:
        line = self._gateway.stdout.readline()
        assert line, self.gateway_log()[-3000:]
        answer = json.loads(line)
        self.statuses = answer["statuses"]
        return answer

    def _write(self, change: Callable[[dict], None]) -> Path:
        resources = by_kind(GATEWAY, POLICY_BY_HTTP)
        resources["Gateway"]["spec"]["listeners"][0]["port"] = self.port
        (rule,) = resources["HTTPRoute"]["spec"]["rules"]
        rule["backendRefs"][0]["port"] = self._service.port
        resources["Service"] = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "frontend", "namespace": "shop"},
            "spec": {"clusterIP": "127.0.0.1", "ports": [{"name": "http", "port": self._service.port}]},
        }
        code = wasm(resources)["code"]["http"]
        code["url"] = f"http://127.0.0.1:{self.modules_port}/{topology.MODULE.name}"
        code["sha256"] = hashlib.sha256(topology.MODULE.read_bytes()).hexdigest()
        wasm(resources)["config"]["exporter"]["batch"] = {"interval_ms": 100}
        change(resources)
        file = self._folder / "resources.yaml"
        # The gateway reads JSON as YAML too, and JSON has no aliases.
        file.write_text("\n---\n".join(json.dumps(it) for it in resources.values()))
        return file

    def _bootstrap(self, bootstrap: dict, answer: dict) -> dict:
        """Moves what would be elsewhere in a cluster to loopback, without the cluster's certificates."""
        bootstrap["admin"]["address"]["socket_address"]["port_value"] = self.admin_port
        clusters = {it["name"]: it for it in bootstrap["static_resources"]["clusters"]}
        del clusters["xds_cluster"]["transport_socket"]
        (group,) = clusters["otel-collector"]["load_assignment"]["endpoints"]
        (collector,) = group["lb_endpoints"]
        collector["endpoint"]["address"]["socket_address"] = loopback(self.receiver.port)
        # In a cluster, Envoy Gateway adds this one where it has a certificate for it.
        modules = {"endpoint": {"address": {"socket_address": loopback(answer["wasm_port"])}}}
        bootstrap["static_resources"]["clusters"].append(
            {
                "name": "wasm_cluster",
                "load_assignment": {"cluster_name": "wasm_cluster", "endpoints": [{"lb_endpoints": [modules]}]},
            }
        )
        return bootstrap


def wasm(resources: dict) -> dict:
    (extension,) = resources["EnvoyExtensionPolicy"]["spec"]["wasm"]
    return extension


def by_kind(*files: Path) -> dict[str, dict]:
    return {it["kind"]: it for file in files for it in yaml.safe_load_all(file.read_text())}


def conditions(status, type: str) -> list[tuple[str, str]]:
    """Returns the status and the message of each condition of a type, wherever they are."""
    if isinstance(status, list):
        return [found for part in status for found in conditions(part, type)]
    if not isinstance(status, dict):
        return []
    own = [(status["status"], status["message"])] if status.get("type") == type else []
    return own + conditions(list(status.values()), type)


def recorded(gateway: Gateway, client: Client, trace_id: str) -> list[Span]:
    """Returns the spans of a trace that may have none, once a later one came: Envoy has one worker."""
    marker = new_context()
    client.send(gateway.port, "/marker", {"traceparent": marker.traceparent("01"), "x-api-key": _KEY})
    gateway.receiver.trace(marker.trace_id, 1)
    return [span for span in gateway.receiver.spans() if span.trace_id == trace_id]


def filters(gateway: Gateway) -> list[str]:
    """Returns the kinds of the filters that Envoy has in force, in their order."""
    names = [it["name"] for it in connection_manager(gateway.listener())["http_filters"]]
    return [name.split("/")[0].removeprefix("envoy.filters.http.") for name in names]


def configuration(gateway: Gateway) -> str:
    """Returns the filter's configuration that Envoy has in force, as Envoy gives it to the filter."""
    filter, *_ = connection_manager(gateway.listener())["http_filters"]
    return filter["typed_config"]["config"]["configuration"]["value"]


def listener_updates(gateway: Gateway, result: str) -> int:
    """Returns how many updates of listeners had a result."""
    answer = topology.admin_answer(gateway.admin_port, f"/stats?format=json&filter=^listener_manager.lds.{result}$")
    (stat,) = json.loads(answer)["stats"]
    return stat["value"]


def connection_manager(listener: dict) -> dict:
    (filter,) = listener["default_filter_chain"]["filters"]
    return filter["typed_config"]


def wait_for(wanted: Callable[[], bool]) -> None:
    """Returns when what the gateway published is `wanted`.

    Listeners and routes come one after the other, so that a test waits for each that it needs.
    """
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while not wanted():
        assert time.monotonic() < deadline, f"not so after {_TIMEOUT_SECONDS} s"
        time.sleep(_POLL_SECONDS)


def guard(resources: dict) -> None:
    """Adds what may refuse a request: faults, origins, and a key."""
    target = {"targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "frontend"}]}
    metadata = {"name": "guard", "namespace": "shop"}
    policy = {"apiVersion": "gateway.envoyproxy.io/v1alpha1", "metadata": metadata}
    key = base64.b64encode(_KEY.encode()).decode()
    resources["Secret"] = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"tests": key}}
    security = {
        "cors": {"allowOrigins": ["https://shop.example.com"]},
        "apiKeyAuth": {"credentialRefs": [{"name": "guard"}], "extractFrom": [{"headers": ["x-api-key"]}]},
    }
    faults = {"faultInjection": {"abort": {"httpStatus": 503, "percentage": 0}}}
    resources["SecurityPolicy"] = policy | {"kind": "SecurityPolicy", "spec": target | security}
    resources["BackendTrafficPolicy"] = policy | {"kind": "BackendTrafficPolicy", "spec": target | faults}


def loopback(port: int) -> dict:
    return {"address": "127.0.0.1", "port_value": port}


@contextmanager
def file_server(folder: Path):
    """Serves a folder by HTTP, and gives the port."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture(scope="module")
def gateway(program, newest_envoy, tmp_path_factory):
    """The example as it is, from the module's HTTP server."""
    with Gateway(program, newest_envoy, tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture(scope="module")
def client(gateway):
    with Client(gateway, "1.1") as client:
        yield client


@pytest.fixture(scope="module")
def changing(program, newest_envoy, tmp_path_factory):
    """A gateway for tests that publish other resources, each all that it needs."""
    with Gateway(program, newest_envoy, tmp_path_factory.mktemp("changing")) as running:
        yield running


def test_the_manifests_are_valid(program, tmp_path):
    # In one file, since the program takes longest to start; an error names the resource.
    file = tmp_path / "manifests.yaml"
    file.write_text("\n---\n".join(manifest.read_text() for manifest in MANIFESTS))
    result = validate(program, file)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"rootId": "sidespan"}, "spec.wasm[0].rootId: Invalid value: value provided for unknown field"),
        ({"code": {"type": "HTTP"}}, "If type is HTTP, http field needs to be set."),
    ],
)
def test_a_wrong_manifest_is_not_valid(program, tmp_path, keys, message):
    policy = yaml.safe_load(POLICY_BY_HTTP.read_text())
    policy["spec"]["wasm"][0] |= keys
    file = tmp_path / "policy.yaml"
    file.write_text(yaml.safe_dump(policy))
    result = validate(program, file)
    assert result.returncode == 1
    assert message in result.stderr


def test_both_policies_differ_in_their_code_alone():
    by_image, by_http = (yaml.safe_load(file.read_text()) for file in [POLICY_BY_IMAGE, POLICY_BY_HTTP])
    for policy in [by_image, by_http]:
        del policy["spec"]["wasm"][0]["code"]
    assert by_image == by_http


def test_the_labels_of_the_metrics_are_those_of_the_other_bootstrap():
    patches = by_kind(GATEWAY)["EnvoyProxy"]["spec"]["bootstrap"]["jsonPatches"]
    tags = [patch["value"] for patch in patches if patch["path"] == "/stats_config/stats_tags/-"]
    assert tags == topology.load_bootstrap(topology.BOOTSTRAP)["stats_config"]["stats_tags"]


def test_every_resource_is_accepted(gateway):
    found = {name: conditions(status, "Accepted") for name, status in gateway.statuses.items()}
    assert set(found) == {POLICY, "Gateway/edge", "HTTPRoute/frontend", "EnvoyProxy/sidespan"}
    assert {status for of_one in found.values() for status, _ in of_one} == {"True"}, found


def test_the_filter_is_the_only_tracer(gateway):
    manager = connection_manager(gateway.listener())
    assert "tracing" not in manager
    assert [it["name"] for it in manager["http_filters"]] == [FILTER, "envoy.filters.http.router"]


def test_a_request_has_a_span(gateway, client):
    context = new_context()
    target = "/products/7?color=red"
    (call,) = client.send(gateway.port, target, {"traceparent": context.traceparent("01")}).calls
    (span,) = gateway.receiver.trace(context.trace_id, 1)
    assert call.context() == {"traceparent": f"00-{context.trace_id}-{span.span_id}-01"}
    assert (span.service, span.kind, span.parent_span_id) == ("edge", "SERVER", context.span_id)
    assert span.name == "GET"
    others = {
        "user_agent.original": "tests",
        "route_name": ROUTE,
        "upstream_cluster": "httproute/shop/frontend/rule/0",
        "pod": POD,
    }
    request_id = dict(call.headers)["x-request-id"]
    assert span.attributes == server_attributes("frontend", "1.1", target, request_id, **others)


@pytest.mark.parametrize(
    ("path", "headers", "flags", "reason"),
    [
        ("/a", {}, "01", "parent"),
        ("/a", {}, "00", None),
        ("/a", DEBUG, "00", "debug-header"),
        ("/healthz", {}, "01", None),
    ],
)
def test_the_rules_decide(gateway, client, path, headers, flags, reason):
    context = new_context()
    answer = client.send(gateway.port, path, {"traceparent": context.traceparent(flags)} | headers)
    (call,) = answer.calls
    reasons = [span.attributes["sidespan.reason"] for span in recorded(gateway, client, context.trace_id)]
    assert reasons == ([reason] if reason else [])
    assert call.context()["traceparent"].endswith("-01" if reason else "-00")


def test_roots_are_sampled_by_the_ratio(gateway, client):
    # Its last 14 digits are compared with nine tenths of their range.
    low, high = "0" * 31 + "1", "f" * 32
    flags = []
    for trace_id in [low, high]:
        (call,) = client.send(gateway.port, "/a", {"b3": f"{trace_id}-{'1' * 16}"}).calls
        flags.append(call.context()["traceparent"][-2:])
    assert flags == ["00", "01"]


def test_the_metrics_have_labels(gateway, client):
    client.send(gateway.port, "/healthz")
    wanted = 'sidespan_rule_decisions_total{outcome="unsampled",rule="health-checks"}'
    gateway.wait_for_stats(lambda stats: stats.get('sidespan_decisions_total{decision="drop"}'))
    text = topology.admin_answer(gateway.admin_port, "/stats/prometheus?filter=sidespan")
    assert wanted in text


def test_the_filter_comes_before_all_that_may_refuse_a_request(changing):
    changing.publish(guard)
    wait_for(lambda: filters(changing) == ["wasm", "fault", "cors", "api_key_auth", "router"])
    context = new_context()
    with Client(changing, "1.1") as client:
        wait_for(lambda: client.send(changing.port, "/a").status == 401)
        answer = client.send(changing.port, "/a", {"traceparent": context.traceparent("01")})
        (span,) = recorded(changing, client, context.trace_id)
    assert (answer.status, span.attributes["http.response.status_code"]) == (401, 401)


def test_without_an_order_the_filter_comes_after_authentication(changing):
    def change(resources):
        guard(resources)
        del resources["EnvoyProxy"]["spec"]["filterOrder"]

    changing.publish(change)
    wait_for(lambda: filters(changing) == ["fault", "cors", "api_key_auth", "wasm", "router"])


def test_a_request_without_a_route_has_no_span(changing):
    changing.publish(lambda resources: resources["HTTPRoute"]["spec"].update(hostnames=["frontend"]))
    context = new_context()
    elsewhere = {"host": "elsewhere", "traceparent": context.traceparent("01")}
    with Client(changing, "1.1") as client:
        wait_for(lambda: client.send(changing.port, "/a").status == 200)
        assert client.send(changing.port, "/a", elsewhere).status == 404
        assert recorded(changing, client, context.trace_id) == []


def test_without_a_name_the_service_is_called_after_the_gateway(changing):
    changing.publish(lambda resources: wasm(resources)["config"].pop("service_name"))
    wait_for(lambda: "service_name" not in configuration(changing))
    context = new_context()
    with Client(changing, "1.1") as client:
        client.send(changing.port, "/a", {"traceparent": context.traceparent("01")})
        (span,) = recorded(changing, client, context.trace_id)
    assert span.service == "shop/edge"


def test_a_missing_cluster_is_named_in_the_log(changing):
    otlp = {"cluster": "missing"}
    changing.publish(lambda resources: wasm(resources)["config"]["exporter"].update(otlp=otlp))
    wait_for(lambda: json.dumps(otlp, separators=(",", ":")) in configuration(changing))
    with Client(changing, "1.1") as client:
        answer = client.send(changing.port, "/a", {"traceparent": new_context().traceparent("01")})
        assert answer.status == 200
    wait_for(lambda: 'cluster "missing" does not accept spans: Envoy knows no such cluster' in changing.log())


def test_without_the_policy_the_filter_is_gone(changing):
    changing.publish(lambda resources: resources.pop("EnvoyExtensionPolicy"))
    wait_for(lambda: filters(changing) == ["router"])


def test_an_invalid_update_leaves_the_former_configuration_in_force(changing):
    changing.publish(lambda resources: None)
    wait_for(lambda: filters(changing) == ["wasm", "router"])
    rejected = listener_updates(changing, "update_rejected")
    changing.publish(lambda resources: wasm(resources).update(config=INVALID))
    wait_for(lambda: listener_updates(changing, "update_rejected") > rejected)
    assert f"configuration refused: {REASON}" in changing.log()
    # Envoy Gateway's status says nothing of it, its log does.
    assert {status for status, _ in conditions(changing.statuses[POLICY], "Accepted")} == {"True"}
    wait_for(lambda: "Envoy rejected the last update" in changing.gateway_log())
    context = new_context()
    with Client(changing, "1.1") as client:
        client.send(changing.port, "/a", {"traceparent": context.traceparent("01")})
        assert recorded(changing, client, context.trace_id)


@pytest.mark.parametrize("fail_open", [True, False])
def test_an_invalid_configuration_of_a_new_proxy_costs_traces_alone(program, newest_envoy, tmp_path, fail_open):
    def change(resources):
        wasm(resources).update(config=INVALID, failOpen=fail_open)

    context = new_context().traceparent("01")
    with Gateway(program, newest_envoy, tmp_path, change) as gateway, Client(gateway, "1.1") as client:
        answer = client.send(gateway.port, "/a", {"traceparent": context})
        assert [call.context() for call in answer.calls] == [{"traceparent": context}]
        assert gateway.wait_for_stats(lambda stats: stats.get("sidespan_configuration_rejected"))
        assert f"configuration rejected, requests pass unchanged and are not traced: {REASON}" in gateway.log()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ({"sha256": "0" * 64}, "which does not match: " + "0" * 64),
        ({"url": "http://127.0.0.1:{modules}/missing.wasm"}, "status code 404"),
        ({"url": "127.0.0.1:{closed}/sidespan:0.1.0"}, "could not fetch Wasm OCI image: "),
    ],
    ids=["checksum", "missing", "no registry"],
)
def test_a_module_that_cannot_be_had_is_in_the_status(changing, code, message):
    ports = {"modules": changing.modules_port, "closed": changing.closed_port}
    given = {key: value.format(**ports) for key, value in code.items()}

    def change(resources, fail_open):
        if message.startswith("could not fetch Wasm OCI image"):
            wasm(resources)["code"] = {"type": "Image", "image": given}
        else:
            wasm(resources)["code"]["http"] |= given
        wasm(resources)["failOpen"] = fail_open

    with Client(changing, "1.1") as client:
        changing.publish(functools.partial(change, fail_open=True))
        ((status, found),) = conditions(changing.statuses[POLICY], "Accepted")
        assert status == "False" and message in found
        wait_for(lambda: filters(changing) == ["router"])
        wait_for(lambda: client.send(changing.port, "/a").status == 200)
        changing.publish(functools.partial(change, fail_open=False))
        wait_for(lambda: client.send(changing.port, "/a").status == 500)


@pytest.fixture(scope="module")
def image_by_digest(tmp_path_factory, module):
    """The module's image in a registry, as `oci://HOST/NAME@sha256:…`."""
    layout = tmp_path_factory.mktemp("image") / "layout"
    image.write(module, layout, "image", KNOWN)
    with serving() as registry:
        yield f"oci://{push.push(layout, f'{registry}/sidespan')}"


def by_image(url: str, sha256: str, resources: dict) -> None:
    code = wasm(by_kind(POLICY_BY_IMAGE))["code"]
    code["image"] |= {"url": url, "sha256": sha256}
    wasm(resources)["code"] = code


def test_the_module_comes_from_an_image(changing, image_by_digest):
    changing.publish(functools.partial(by_image, image_by_digest, image_by_digest.partition("@sha256:")[2]))
    ((status, message),) = conditions(changing.statuses[POLICY], "Accepted")
    assert status == "True", message
    wait_for(lambda: filters(changing) == ["wasm", "router"])
    context = new_context()
    with Client(changing, "1.1") as client:
        client.send(changing.port, "/a", {"traceparent": context.traceparent("01")})
        assert recorded(changing, client, context.trace_id)


def test_the_checksum_of_the_module_is_not_that_of_the_image(changing, image_by_digest, module):
    url = image_by_digest.partition("@")[0] + ":" + KNOWN["org.opencontainers.image.version"]
    changing.publish(functools.partial(by_image, url, hashlib.sha256(module.read_bytes()).hexdigest()))
    ((status, message),) = conditions(changing.statuses[POLICY], "Accepted")
    assert status == "False" and "does not match" in message


@pytest.mark.parametrize("with_secret", [True, False])
def test_an_image_behind_a_password_needs_the_secret(changing, tmp_path, module, with_secret):
    layout = tmp_path / "layout"
    image.write(module, layout, "image", KNOWN)
    with serving(USER, PASSWORD, REALM) as registry:
        result = pushed(layout, f"{registry}/private:1", logged_in(tmp_path, registry))
        assert result.returncode == 0, result.stderr
        login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        docker = base64.b64encode(json.dumps({"auths": {registry: {"auth": login}}}).encode()).decode()

        def change(resources):
            by_image(f"oci://{registry}/private:1", image.digest(layout).removeprefix("sha256:"), resources)
            resources["Secret"] = {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "login", "namespace": "shop"},
                "type": "kubernetes.io/dockerconfigjson",
                "data": {".dockerconfigjson": docker},
            }
            if with_secret:
                wasm(resources)["code"]["image"]["pullSecretRef"] = {"name": "login"}

        changing.publish(change)
    ((status, message),) = conditions(changing.statuses[POLICY], "Accepted")
    assert status == str(with_secret), message
    assert with_secret or "could not fetch Wasm OCI image" in message and "UNAUTHORIZED" in message
