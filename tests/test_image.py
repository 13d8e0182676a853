"""The image of the module: the same bytes everywhere, accepted by registries and by Istio's fetcher."""

import gzip
import hashlib
import http.server
import json
import os
import random
import re
import ssl
import subprocess
import sys
import tarfile
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import image
import push
import tools
import topology
from crane import crane
from test_manifests import ROOT

RELEASE = ROOT / "release"
HERE = Path(__file__).parent
USER, PASSWORD = "ci", "a password"
# Istio's fetcher reads every realm as a URL, and refuses other words.
REALM = "https://registry.example.com"
KNOWN = {"org.opencontainers.image.title": "sidespan", "org.opencontainers.image.version": "1.2.3"}
EPOCH = "1700000000"


def run(*command, environment: dict | None = None, cwd: Path | None = None, given: str = ""):
    """Runs a command to its end. Its only credentials are those of `environment`."""
    # A make inside of a make prints more lines.
    ours = {"DOCKER_CONFIG", "SOURCE_DATE_EPOCH", "MAKEFLAGS", "MAKELEVEL"}
    inherited = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        input=given,
        cwd=cwd,
        env=inherited | {"DOCKER_CONFIG": "/nonexistent"} | (environment or {}),
        timeout=120,
    )


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def blob(folder: Path, digest: str) -> bytes:
    return (folder / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes()


def manifest(folder: Path) -> dict:
    return json.loads(blob(folder, image.digest(folder)))


@pytest.fixture(scope="module")
def layouts(tmp_path_factory, module):
    """An image layout of each format."""
    folder = tmp_path_factory.mktemp("layouts")
    for format in image.FORMATS:
        image.write(module, folder / format, format, KNOWN)
    return folder


@contextmanager
def serving(*arguments: str):
    """Yields the address of a registry."""
    program = tools.go_program(HERE / "registry")
    with subprocess.Popen(
        [program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield f"127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


@pytest.fixture(scope="module")
def registry():
    with serving() as address:
        yield address


@pytest.fixture(scope="module")
def guarded_registry():
    """A registry that wants a user and a password."""
    with serving(USER, PASSWORD, REALM) as address:
        yield address


@pytest.fixture(scope="module")
def istios_fetcher():
    return tools.go_program(HERE / "istio-xds", "./fetch")


def logged_in(folder: Path, address: str, password: str = PASSWORD) -> dict[str, str]:
    """Returns an environment whose Docker configuration has a login for the registry."""
    environment = {"DOCKER_CONFIG": str(folder / "docker")}
    login = ["auth", "login", address, "--username", USER, "--password-stdin"]
    result = run(sys.executable, RELEASE / "crane.py", *login, environment=environment, given=password)
    assert result.returncode == 0, result.stderr
    return environment


def pushed(folder: Path, reference: str, environment: dict | None = None):
    return run(sys.executable, RELEASE / "push.py", folder, reference, environment=environment)


@pytest.mark.parametrize("format", image.FORMATS)
def test_two_builds_in_two_folders_are_the_same_bytes(tmp_path, module, format):
    digests, layouts = [], []
    for name, mtime in {"a": 1, "b": 2_000_000_000}.items():
        folder = tmp_path / name
        folder.mkdir()
        copy = folder / f"{name}.wasm"
        copy.write_bytes(module.read_bytes())
        os.utime(copy, (mtime, mtime))
        command = [sys.executable, RELEASE / "image.py", copy.name, "image", "--format", format]
        result = run(*command, cwd=folder, environment={"SOURCE_DATE_EPOCH": EPOCH})
        assert result.returncode == 0, result.stderr
        digests.append(result.stdout.splitlines()[-1])
        layouts.append(files(folder / "image"))
    assert layouts[0] == layouts[1]
    assert digests == [image.digest(tmp_path / "a" / "image")] * 2


def test_make_writes_the_image_and_takes_the_format(tmp_path, module):
    for format, layers in {"image": 1, "artifact": 2}.items():
        folder = tmp_path / format
        # Not built here: the module that all tests load.
        command = ["make", "--old-file=wasm", "image", f"IMAGE={folder}", f"IMAGE_FORMAT={format}"]
        result = run(*command, cwd=ROOT)
        assert result.returncode == 0, result.stderr
        assert result.stdout.splitlines()[-1] == image.digest(folder)
        assert len(manifest(folder)["layers"]) == layers


def test_make_pushes_and_prints_the_url(tmp_path, registry):
    folder = tmp_path / "image"
    given = [f"IMAGE={folder}", f"REGISTRY={registry}/made/sidespan:1"]
    result = run("make", "--old-file=wasm", "push", *given, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == f"oci://{registry}/made/sidespan@{image.digest(folder)}"


def test_commands_of_the_front_page_pin_the_plugin_to_what_they_push(tmp_path, registry):
    block = re.search(r"```sh\n(url=.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    push_it, *_, apply_it = block.splitlines()
    folder, name = tmp_path / "image", f"{registry}/front/sidespan"
    # Another registry, the module that all tests load, and no cluster.
    changes = {
        "make push": f"make --old-file=wasm push IMAGE={folder}",
        "REGISTRY=registry.example.com/mesh/sidespan": f"REGISTRY={name}",
        " | kubectl apply -f -": "",
    }
    script = f"{push_it}\n{apply_it}"
    for before, after in changes.items():
        assert script.count(before) == 1
        script = script.replace(before, after)
    result = run("bash", "-euo", "pipefail", "-c", script, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    applied, shipped = (yaml.safe_load(text) for text in [result.stdout, (ROOT / "istio" / "wasmplugin.yaml").read_text()])
    assert applied["spec"].pop("url") == f"oci://{name}@{image.digest(folder)}"
    del shipped["spec"]["url"]
    assert applied == shipped


def test_make_refuses_to_push_to_nowhere(tmp_path):
    result = run("make", "--old-file=wasm", "push", f"IMAGE={tmp_path / 'image'}", cwd=ROOT)
    assert result.returncode == 2 and "expected REGISTRY=host/name[:tag]" in result.stderr


def test_the_image_has_the_module_as_its_only_file(layouts, module):
    (layer,) = manifest(layouts / "image")["layers"]
    assert layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"
    compressed = blob(layouts / "image", layer["digest"])
    config = json.loads(blob(layouts / "image", manifest(layouts / "image")["config"]["digest"]))
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(gzip.decompress(compressed)).hexdigest()}"]
    with tarfile.open(layouts / "image" / "blobs" / "sha256" / layer["digest"].removeprefix("sha256:")) as archive:
        (entry,) = archive.getmembers()
        assert (entry.name, entry.mtime, entry.uid, entry.gid) == ("plugin.wasm", 0, 0, 0)
        assert archive.extractfile(entry).read() == module.read_bytes()


def test_the_artifact_has_the_module_as_one_of_two_layers(layouts, module):
    config, content = manifest(layouts / "artifact")["layers"]
    assert config["mediaType"] == "application/vnd.module.wasm.config.v1+json"
    assert content["mediaType"] == "application/vnd.module.wasm.content.layer.v1+wasm"
    assert blob(layouts / "artifact", content["digest"]) == module.read_bytes()


@pytest.mark.parametrize("length", [0, 1, 65_534, 65_535, 65_536, 131_070, 200_000])
def test_stored_gzip_is_gzip(length):
    content = random.Random(length).randbytes(length)
    assert gzip.decompress(image.gzip(content)) == content


def repository(folder: Path, repository_line: str = "") -> Path:
    """Makes a Git repository of one commit."""
    (folder / "src").mkdir()
    (folder / "src" / "lib.rs").touch()
    (folder / "Cargo.toml").write_text(
        f'[workspace.package]\nversion = "1.2.3"\nlicense = "MIT"\n{repository_line}\n'
        '[package]\nname = "a"\ndescription = "b"\nversion.workspace = true\nlicense.workspace = true\n'
    )
    when = {"GIT_AUTHOR_DATE": "@1 +0000", "GIT_COMMITTER_DATE": f"@{EPOCH} +0200"}
    who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    for command in [["init", "--quiet"], ["add", "."], [*who, "commit", "--quiet", "--message", "a"]]:
        assert run("git", "-C", folder, *command, environment=when).returncode == 0
    return folder


def short(annotations: dict[str, str]) -> dict[str, str]:
    return {key.removeprefix("org.opencontainers.image."): value for key, value in annotations.items()}


def test_annotations_come_from_cargo_and_git(tmp_path, monkeypatch):
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    root = repository(tmp_path)
    known = {"title": "a", "description": "b", "version": "1.2.3", "licenses": "MIT"}
    commit = run("git", "-C", root, "rev-parse", "HEAD").stdout.strip()
    # The commit's time, in UTC.
    assert short(image.annotations(root)) == known | {"revision": commit, "created": "2023-11-14T22:13:20Z"}
    # No commit describes a module that was built from other sources.
    (root / "src" / "lib.rs").write_text("// changed")
    assert short(image.annotations(root)) == known
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    assert short(image.annotations(root)) == known | {"created": "1970-01-01T00:00:00Z"}


def test_annotations_have_the_source_if_cargo_has_it(tmp_path):
    root = repository(tmp_path, 'repository = "https://example.com/a"')
    assert short(image.annotations(root))["source"] == "https://example.com/a"


def test_sidespans_own_annotations_are_in_the_manifest(tmp_path, module):
    known = image.annotations()
    assert {"title", "version", "licenses"} <= short(known).keys()
    image.write(module, tmp_path / "image", "image", known)
    assert manifest(tmp_path / "image")["annotations"] == known


def test_other_bytes_than_a_module_are_refused(tmp_path):
    (tmp_path / "a.wasm").write_text("<html>")
    result = run(sys.executable, RELEASE / "image.py", tmp_path / "a.wasm", tmp_path / "image")
    assert result.returncode == 1 and "expected a WebAssembly module" in result.stderr
    assert not (tmp_path / "image").exists()


def test_a_folder_that_is_no_layout_is_left_alone(tmp_path, module):
    (tmp_path / "important").touch()
    result = run(sys.executable, RELEASE / "image.py", module, tmp_path)
    assert result.returncode == 1 and "expected an OCI image layout or nothing" in result.stderr
    assert (tmp_path / "important").exists()


@pytest.mark.parametrize("format", image.FORMATS)
def test_a_pushed_image_comes_back_byte_for_byte(tmp_path, layouts, registry, format):
    folder = layouts / format
    result = pushed(folder, f"{registry}/back/{format}")
    assert result.returncode == 0, result.stderr
    by_digest = f"{registry}/back/{format}@{image.digest(folder)}"
    assert result.stdout.splitlines()[-1] == f"oci://{by_digest}"
    # By its version, since no tag was given.
    for reference in [by_digest, f"{registry}/back/{format}:1.2.3"]:
        pulled = run(crane(), "manifest", reference)
        assert pulled.stdout.encode() == blob(folder, image.digest(folder)), pulled.stderr
    parts = [manifest(folder)["config"], *manifest(folder)["layers"]]
    for part in parts:
        file = tmp_path / "blob"
        with file.open("wb") as output:
            fetch = [crane(), "blob", f"{registry}/back/{format}@{part['digest']}"]
            assert subprocess.run(fetch, stdout=output, timeout=60).returncode == 0
        assert file.read_bytes() == blob(folder, part["digest"])


def test_crane_validates_the_image(layouts, registry):
    assert pushed(layouts / "image", f"{registry}/sound:1").returncode == 0
    result = run(crane(), "validate", "--remote", f"{registry}/sound:1")
    assert (result.returncode, result.stdout) == (0, f"PASS: {registry}/sound:1\n"), result.stderr


@pytest.mark.parametrize("format", image.FORMATS)
def test_istios_fetcher_accepts_the_image(layouts, registry, istios_fetcher, module, format):
    assert pushed(layouts / format, f"{registry}/istio/{format}:1").returncode == 0
    sum = hashlib.sha256(module.read_bytes()).hexdigest()
    for reference in [f"istio/{format}:1", f"istio/{format}@{image.digest(layouts / format)}"]:
        result = run(istios_fetcher, f"{registry}/{reference}")
        assert (result.returncode, result.stderr.count("error")) == (0, 0), result.stderr
        assert result.stdout.splitlines()[-2:] == [image.digest(layouts / format), sum]


def test_a_login_of_dockers_configuration_is_used(tmp_path, layouts, guarded_registry, istios_fetcher, module):
    environment = logged_in(tmp_path, guarded_registry)
    result = pushed(layouts / "image", f"{guarded_registry}/login:1", environment)
    assert result.returncode == 0, result.stderr
    assert run(istios_fetcher, f"{guarded_registry}/login:1").returncode == 1
    fetched = run(istios_fetcher, f"{guarded_registry}/login:1", environment=environment)
    assert fetched.returncode == 0, fetched.stderr
    assert fetched.stdout.splitlines()[-1] == hashlib.sha256(module.read_bytes()).hexdigest()


def test_istios_fetcher_wants_a_realm_that_is_a_url(tmp_path, layouts, istios_fetcher):
    with serving(USER, PASSWORD, "registry") as address:
        environment = logged_in(tmp_path, address)
        assert pushed(layouts / "image", f"{address}/realm:1", environment).returncode == 0
        fetched = run(istios_fetcher, f"{address}/realm:1", environment=environment)
    assert fetched.returncode == 1 and 'realm scheme "" not allowed' in fetched.stderr


@pytest.mark.parametrize("password", [None, "another password"])
def test_without_the_credential_it_says_how_to_log_in(tmp_path, layouts, guarded_registry, password):
    environment = logged_in(tmp_path, guarded_registry, password) if password else None
    result = pushed(layouts / "image", f"{guarded_registry}/denied:1", environment)
    assert (result.returncode, result.stdout) == (1, "")
    assert "401 Unauthorized" in result.stderr
    assert f"auth login {guarded_registry}" in result.stderr


class Denying(http.server.BaseHTTPRequestHandler):
    """A registry in which nobody may write."""

    def do_GET(self):
        self.send_response(200 if self.path == "/v2/" else 404)
        self.end_headers()

    do_HEAD = do_GET

    def do_POST(self):
        body = b'{"errors": [{"code": "DENIED", "message": "requested access to the resource is denied"}]}'
        self.send_response(403)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def denying(certificate: Path | None = None):
    """Yields the address of a registry in which nobody may write, by TLS where it has a certificate."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Denying) as server:
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def certificate(file: Path) -> Path:
    """Writes a key and a certificate for loopback that is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "registry")])
    now = datetime.now(UTC)
    number, end = x509.random_serial_number(), now + timedelta(1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), number, now, end)
    addresses = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    own = builder.add_extension(addresses, False).add_extension(x509.BasicConstraints(True, None), True)
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(private + own.sign(key, hashes.SHA256()).public_bytes(pem))
    return file


def test_a_registry_that_is_not_trusted_is_told_from_one_that_refuses(tmp_path, layouts):
    authority = certificate(tmp_path / "registry.pem")
    with denying(authority) as address:
        result = pushed(layouts / "image", f"{address}/untrusted:1")
        assert result.returncode == 1 and "x509: certificate signed by unknown authority" in result.stderr
        assert "in $SSL_CERT_FILE" in result.stderr
        trusted = pushed(layouts / "image", f"{address}/denied:1", {"SSL_CERT_FILE": str(authority)})
    assert trusted.returncode == 1 and "DENIED" in trusted.stderr and "x509" not in trusted.stderr


def test_a_registry_that_refuses_is_quoted(layouts):
    with denying() as address:
        result = pushed(layouts / "image", f"{address}/denied:1")
    assert (result.returncode, result.stdout) == (1, "")
    assert "DENIED: requested access to the resource is denied" in result.stderr
    assert "this login may not push there" in result.stderr


def test_a_registry_that_is_absent_is_named(layouts):
    address = f"127.0.0.1:{next(topology.free_ports())}"
    result = pushed(layouts / "image", f"{address}/absent:1")
    assert (result.returncode, result.stdout) == (1, "")
    assert "connection refused" in result.stderr
    assert f"No registry answers at {address}" in result.stderr


def test_a_folder_without_an_image_is_named(tmp_path, registry):
    result = pushed(tmp_path, f"{registry}/nothing:1")
    assert result.returncode == 1 and "run `make image`" in result.stderr


@pytest.mark.parametrize(
    ("reference", "expected"),
    [("a/b", "a/b:1.2.3"), ("a:1/b", "a:1/b:1.2.3"), ("a:1/b:c", "a:1/b:c"), ("a/b/c", "a/b/c:1.2.3")],
)
def test_the_tag_is_the_version_unless_one_is_given(layouts, reference, expected):
    assert push.tagged(reference, layouts / "image") == expected
