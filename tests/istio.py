"""An Envoy that Istio's own xDS configures, without a cluster.

    with Mesh(envoy, "1.31.0", {"sidespan": plugin_config}, folder) as mesh:
        mesh.publish(sidespan=another_config)

The Envoy is the sidecar of an application: a listener inbound, and the Collector's cluster outbound.
"""

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import yaml

import tools
import topology
from receiver import Receiver
from service import Service

_HERE = Path(__file__).parent
_HTTP2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_HOST = "otel-collector.shop.svc.cluster.local"
_LABELS = {"app": "backend"}
# Filters that plain Envoys lack.
_OFF = {"PILOT_ENABLE_ALPN_FILTER": "false", "PILOT_ENABLE_METADATA_EXCHANGE": "false"}
# Istio finds a workload by its address, so no other endpoint may have it. Nothing listens there.
_ADDRESS = "192.0.2.1"
NODE = {"id": f"sidecar~{_ADDRESS}~backend.shop~shop.svc.cluster.local", "cluster": "backend.shop"}


class Mesh(topology.Running):
    """Istio's xDS, an Envoy, an application and an OTLP receiver; a context manager that stops all."""

    def __init__(
        self,
        envoy: Path,
        istio_version: str,
        plugins: dict[str, dict],
        folder: Path,
        *,
        concurrency: int = 1,
        arguments: tuple = (),
        resources: Sequence[dict] = (),
        mesh_config: dict | None = None,
        change: Callable[[dict], None] = lambda bootstrap: None,
    ):
        """`resources` are more of Istio's; `change` edits the proxy's bootstrap."""
        self._envoy = envoy
        self._istio_version = istio_version
        self._plugins = plugins
        self._folder = folder
        self._more = resources
        self._mesh_config = {"enableAutoMtls": False} | (mesh_config or {})
        self._change = change
        self._arguments = ["--concurrency", str(concurrency), "--log-level", "warning", *arguments]
        self._resources = ExitStack()
        self._ports = topology.free_ports()
        self.admin_port, self.inbound, self._collector_port = (next(self._ports) for _ in range(3))

    def __enter__(self):
        program = tools.go_program(_HERE / "istio-xds")
        with ExitStack() as starting:
            self.receiver = starting.enter_context(Receiver())
            self._application = starting.enter_context(Service("backend"))
            (self._folder / "mesh.yaml").write_text(yaml.safe_dump(self._mesh_config))
            log = starting.enter_context(open(self._folder / "istio.log", "w"))
            self._istio = starting.enter_context(
                subprocess.Popen(
                    [program, self._folder / "mesh.yaml", self._write_resources()],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env=os.environ | _OFF,
                )
            )
            starting.callback(self._istio.kill)
            xds_port = int(self._istio.stdout.readline())
            file = self._folder / "envoy.json"
            bootstrap = self._bootstrap(xds_port)
            self._change(bootstrap)
            file.write_text(json.dumps(bootstrap))
            command = [self._envoy, "-c", file, "--disable-hot-restart", *self._arguments]
            self.program = starting.enter_context(topology.Program(command, self._folder / "envoy.log"))
            self.program.wait_until(lambda: topology.admin_answer(self.inbound, "/a") is not None)
            self._resources = starting.pop_all()
        return self

    def __exit__(self, *_):
        self._resources.close()

    @property
    def exporter(self) -> dict:
        """The exporter of a plugin, to the receiver that stands for the Collector."""
        otlp = {"cluster": f"outbound|{self._collector_port}||{_HOST}"}
        return {"otlp": otlp, "batch": {"interval_ms": 100}}

    def publish(self, **plugins: dict) -> None:
        """Creates or changes WasmPlugins by their names."""
        self._plugins = self._plugins | plugins
        self._apply()

    def remove(self, *names: str) -> None:
        """Deletes WasmPlugins."""
        self._plugins = {name: it for name, it in self._plugins.items() if name not in names}
        self._apply()

    def _apply(self) -> None:
        """Returns when Istio has the resources; it pushes them by itself."""
        file = self._write_resources()
        self._istio.stdin.write(f"{file}\n")
        self._istio.stdin.flush()
        assert self._istio.stdout.readline() == f"{file}\n", (self._folder / "istio.log").read_text()[-2000:]

    def _write_resources(self) -> Path:
        file = self._folder / "resources.yaml"
        plugins = (self._plugin(*it) for it in self._plugins.items())
        file.write_text(yaml.safe_dump_all([*self._mesh(), *self._more, *plugins]))
        return file

    def _plugin(self, name: str, configuration: dict) -> dict:
        spec = {"url": f"file://{topology.MODULE}", "phase": "AUTHN", "pluginConfig": configuration}
        return _resource("extensions.istio.io/v1alpha1", "WasmPlugin", name, spec)

    def _mesh(self) -> list[dict]:
        networking = "networking.istio.io/v1"
        inbound = {"number": self.inbound, "name": "http", "protocol": "HTTP"}
        collector = {"number": self._collector_port, "name": "http-otlp", "protocol": "HTTP"}
        own_host = "backend.shop.svc.cluster.local"
        more_hosts = [host for it in self._more for host in it["spec"].get("hosts", [])]
        service = {"location": "MESH_INTERNAL", "resolution": "STATIC"}
        sidecar = {
            "workloadSelector": {"labels": _LABELS},
            # Without redirection of packets, each listener has an address of its own.
            "ingress": [
                {
                    "port": inbound,
                    "bind": "127.0.0.1",
                    "captureMode": "NONE",
                    "defaultEndpoint": f"127.0.0.1:{self._application.port}",
                }
            ],
            "egress": [{"captureMode": "NONE", "hosts": [f"*/{host}" for host in [_HOST, *more_hosts]]}],
        }
        return [
            _resource("security.istio.io/v1", "PeerAuthentication", "default", {"mtls": {"mode": "DISABLE"}}),
            _resource(networking, "Sidecar", "backend", sidecar),
            _resource(networking, "WorkloadEntry", "backend", {"address": _ADDRESS, "labels": _LABELS}),
            _resource(
                networking,
                "ServiceEntry",
                "backend",
                service | {"hosts": [own_host], "ports": [inbound], "workloadSelector": {"labels": _LABELS}},
            ),
            _resource(
                networking,
                "ServiceEntry",
                "collector",
                service
                | {
                    "hosts": [_HOST],
                    "ports": [collector],
                    "endpoints": [{"address": "127.0.0.1", "ports": {"http-otlp": self.receiver.port}}],
                },
            ),
        ]

    def _bootstrap(self, xds_port: int) -> dict:
        metadata = {
            "NAMESPACE": "shop",
            "NAME": "backend",
            "LABELS": _LABELS,
            "ISTIO_VERSION": self._istio_version,
            "INSTANCE_IPS": _ADDRESS,
            "INTERCEPTION_MODE": "NONE",
            "CLUSTER_ID": "Kubernetes",
        }
        by_ads = {"ads": {}, "resource_api_version": "V3"}
        http2 = {
            "@type": f"type.googleapis.com/{_HTTP2}",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
        endpoint = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": xds_port}}}
        istiod = {
            "name": "xds-grpc",
            "type": "STATIC",
            "typed_extension_protocol_options": {_HTTP2: http2},
            "load_assignment": {
                "cluster_name": "xds-grpc",
                "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
            },
        }
        return {
            "node": NODE | {"metadata": metadata},
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": self.admin_port}}},
            "dynamic_resources": {
                "lds_config": by_ads,
                "cds_config": by_ads,
                "ads_config": {
                    "api_type": "GRPC",
                    "transport_api_version": "V3",
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
                },
            },
            "static_resources": {"clusters": [istiod]},
        }


def _resource(version: str, kind: str, name: str, spec: dict) -> dict:
    metadata = {"name": name, "namespace": "shop"}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}
