"""Services that do what the demo's cannot: gRPC, WebSocket, silence, closed connections, mutual TLS.

    with Peers() as peers, Topology({"peers": Lane(change=peers.join)}, envoy=...) as topology:

The sidecar of the frontend, inbound and outbound, then has a route to each of them.
"""

import datetime
import ipaddress
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import websockets.sync.server
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from topology import connection_manager

GRPC_SERVICE = "shop.Orders"
CLIENT_IDENTITY = "spiffe://cluster.local/ns/shop/sa/frontend"
SERVER_IDENTITY = "spiffe://cluster.local/ns/shop/sa/backend"

_LISTENERS = ("frontend-inbound", "frontend-outbound")
_UPSTREAM_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"


class Peers:
    """All of the services, running; a context manager that stops them."""

    def __enter__(self):
        with ExitStack() as starting:
            self._http = starting.enter_context(_HttpService())
            self._grpc = starting.enter_context(_GrpcService())
            self._web_socket = starting.enter_context(_WebSocketService())
            self._resources = starting.pop_all()
        # Released for each call of `Hold` that has reached the service.
        self.held = self._grpc.held
        return self

    def __exit__(self, *_):
        self._resources.close()

    def join(self, resources: dict) -> None:
        """Gives a lane the routes and clusters that lead to the services."""
        once_more = {"retry_policy": {"retry_on": "5xx", "num_retries": 1}}
        routes = [
            _route(f"/{GRPC_SERVICE}/Wait", "grpc", timeout="0.2s"),
            _route(f"/{GRPC_SERVICE}/", "grpc"),
            _route("/socket", "web-socket"),
            _route("/silent", "http", timeout="0.2s"),
            _route("/flaky", "http", **once_more),
            {"name": "/named/{id}"} | _route("/named/", "http"),
            {"name": "default"} | _route("/by-istio/", "http"),
            {"name": "/moved/{id}"} | _route("/moved/", "http", internal_redirect_policy={}),
            {"name": "/found/{id}"} | _route("/found/", "found"),
            _route("/http/", "http"),
        ]
        for listener in resources["listeners"]:
            if listener["name"] in _LISTENERS:
                manager = connection_manager(listener)
                manager["upgrade_configs"] = [{"upgrade_type": "websocket"}]
                (virtual_host,) = manager["route_config"]["virtual_hosts"]
                virtual_host["routes"] = routes
        resources["clusters"] += [
            _cluster("http", self._http.port),
            _cluster("found", self._http.port),
            _cluster("grpc", self._grpc.port, "http2_protocol_options"),
            _cluster("web-socket", self._web_socket.port),
        ]


def use_mutual_tls(resources: dict, folder: Path) -> None:
    """Makes the sidecars of a lane speak TLS with each other, each by a certificate with its identity."""
    authority = _Authority(folder)
    (cluster,) = (one for one in resources["clusters"] if one["name"] == "backend-inbound")
    cluster["transport_socket"] = authority.transport_socket("Upstream", CLIENT_IDENTITY)
    (listener,) = (one for one in resources["listeners"] if one["name"] == "backend-inbound")
    (chain,) = listener["filter_chains"]
    chain["transport_socket"] = authority.transport_socket("Downstream", SERVER_IDENTITY)


class _HttpService(ThreadingHTTPServer):
    """An HTTP service that answers by the path: silent, flaky, cut, closed, chunked."""

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _HttpHandler)
        self.port = self.server_port
        self.over = threading.Event()
        self.failed: set[str] = set()

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.shutdown()
        self.server_close()


class _HttpHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _HttpService

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        match self.path.split("?")[0].strip("/").split("/"):
            case ["silent"]:
                self.server.over.wait()
                self.close_connection = True
            case ["flaky"] if self.path not in self.server.failed:
                self.server.failed.add(self.path)
                self.answer(503, b"")
            case ["http", "cut"]:
                self.head(200, "Content-Length", "100")
                self.wfile.write(b"abc")
                self.close_connection = True
            case ["http", "closed"]:
                self.close_connection = True
            case ["http", "chunked"]:
                self.head(200, "Transfer-Encoding", "chunked")
                self.wfile.write(b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")
            case ["moved", key]:
                self.head(302, "Location", f"http://{self.headers['Host']}/found/{key}")
            case ["http", "web"]:
                self.answer(200, b"hello", self.headers["Content-Type"])
            case _:
                self.answer(200, b"hello")

    do_POST = do_GET

    def answer(self, status: int, body: bytes, content_type: str = "text/plain") -> None:
        self.head(status, "Content-Length", str(len(body)), content_type)
        self.wfile.write(body)

    def head(self, status: int, name: str, value: str, content_type: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_):
        pass


class _GrpcService(grpc.GenericRpcHandler):
    """The gRPC service `shop.Orders`, whose messages are bytes."""

    def __init__(self):
        self.held = threading.Semaphore(0)

    def __enter__(self):
        self._workers = ThreadPoolExecutor(4)
        self._server = grpc.server(self._workers, handlers=[self])
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        return self

    def __exit__(self, *_):
        self._server.stop(grace=None).wait()
        self._workers.shutdown()

    def service(self, handler_call_details):
        match handler_call_details.method.removeprefix(f"/{GRPC_SERVICE}/"):
            case "Get":
                return grpc.unary_unary_rpc_method_handler(lambda request, _: request)
            case "List":
                return grpc.unary_stream_rpc_method_handler(lambda request, _: iter([request] * 3))
            case "Break":
                return grpc.unary_stream_rpc_method_handler(_break)
            case "Refuse":
                return grpc.unary_unary_rpc_method_handler(_refuse)
            case "Wait":
                return grpc.unary_unary_rpc_method_handler(_wait)
            case "Watch":
                return grpc.unary_stream_rpc_method_handler(_watch)
            case "Hold":
                return grpc.unary_unary_rpc_method_handler(self._hold)

    def _hold(self, request, context):
        self.held.release()
        return _wait(request, context)


def _break(request, context):
    """Answers once, so that the status comes in trailers after a body."""
    yield request
    context.abort(grpc.StatusCode.DATA_LOSS, "lost")


def _watch(request, context):
    """Answers once, and then waits until the client is gone."""
    yield request
    _wait(request, context)


def _refuse(_, context):
    """Answers by nothing but a status: the head of the response is its trailers."""
    context.abort(grpc.StatusCode.PERMISSION_DENIED, "not yours")


def _wait(_, context):
    """Answers when the client is gone."""
    over = threading.Event()
    context.add_callback(over.set)
    over.wait()
    return b""


class _WebSocketService:
    """A WebSocket service that sends back each message."""

    def __enter__(self):
        self._server = websockets.sync.server.serve(_echo, "127.0.0.1", 0)
        self.port = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()


def _echo(connection):
    for message in connection:
        connection.send(message)


class _Authority:
    """A certificate authority that lives as long as a test; its files are in `folder`."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._root = self._write("root", self._certificate(self._name, self._key, []))

    def transport_socket(self, side: str, identity: str) -> dict:
        """Returns Envoy's `Upstream` or `Downstream` transport socket for a holder of `identity`."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.UniformResourceIdentifier(identity), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, side)])
        encoded = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        own = {
            "certificate_chain": self._write(side, self._certificate(subject, key, names)),
            "private_key": self._write(f"{side}-key", encoded),
        }
        return {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{_TLS}.{side}TlsContext",
                **({"require_client_certificate": True} if side == "Downstream" else {}),
                "common_tls_context": {
                    "tls_certificates": [own],
                    "validation_context": {"trusted_ca": self._root},
                },
            },
        }

    def _certificate(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, names: list) -> bytes:
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _write(self, name: str, content: bytes) -> dict:
        file = self._folder / f"{name}.pem"
        file.write_bytes(content)
        return {"filename": str(file)}


def _route(prefix: str, cluster: str, **action) -> dict:
    return {"match": {"prefix": prefix}, "route": {"cluster": cluster, **action}}


def _cluster(name: str, port: int, http: str = "http_protocol_options") -> dict:
    address = {"address": "127.0.0.1", "port_value": port}
    return {
        "name": name,
        "typed_extension_protocol_options": {
            _UPSTREAM_HTTP: {
                "@type": f"type.googleapis.com/{_UPSTREAM_HTTP}",
                "explicit_http_config": {http: {}},
            }
        },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": address}}}]}],
        },
    }
