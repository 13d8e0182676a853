"""The compose file, checked without Docker: its schema, the files it mounts, the commands it runs.

What its services do together is in test_compose_topology.py.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

import service
import tools
from topology import BOOTSTRAP, MODULE

# The Compose specification's own library, whose schema is the strict one.
LOADER = Path(__file__).with_name("compose")
COMPOSE_FILE = BOOTSTRAP.with_name("compose.yaml").resolve()
ROOT = COMPOSE_FILE.parents[1]
COMPOSE = yaml.safe_load(COMPOSE_FILE.read_text())
PROGRAMS = {name: part for name, part in COMPOSE["services"].items() if "build" in part}
MOUNTS = [volume for part in COMPOSE["services"].values() for volume in part.get("volumes", [])]
# The files that the services read, but for the module.
MOUNTED = sorted({(COMPOSE_FILE.parent / it["source"]).resolve() for it in MOUNTS} - {MODULE.resolve()})
LOOPBACK = "127.0.0.1"


@pytest.fixture(scope="module")
def schema():
    (library,) = re.findall(r"github\.com/compose-spec/compose-go/v2 v\S+", (LOADER / "go.mod").read_text())
    return json.loads((tools.go_module(library.replace(" ", "@")) / "schema" / "compose-spec.json").read_text())


def test_compose_file_follows_the_specification(schema):
    validator = jsonschema.validators.validator_for(schema)(schema)
    assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(COMPOSE)] == []


def test_schema_refuses_an_unknown_key(schema):
    compose = COMPOSE | {"services": COMPOSE["services"] | {"envoy": {"image": "envoy", "imagine": True}}}
    assert not jsonschema.validators.validator_for(schema)(schema).is_valid(compose)


def loaded(file: Path) -> subprocess.CompletedProcess:
    """Loads a compose file as Docker Compose does, with the library that it is made of."""
    return subprocess.run([tools.go_program(LOADER), file], capture_output=True, text=True, timeout=60)


def test_docker_compose_takes_the_file():
    answer = loaded(COMPOSE_FILE)
    assert answer.returncode == 0, answer.stderr
    services = json.loads(answer.stdout)["services"]
    assert services.keys() == COMPOSE["services"].keys()
    contexts = {name: Path(part["build"]["context"]) for name, part in services.items() if "build" in part}
    apps = ROOT / "examples" / "apps"
    assert contexts == {"frontend": apps / "node", "orders": apps / "go", "payments": apps / "python"}


def test_docker_compose_refuses_the_namespace_of_no_service(tmp_path):
    file = tmp_path / "compose.yaml"
    file.write_text(COMPOSE_FILE.read_text().replace("network_mode: service:envoy", "network_mode: service:none"))
    answer = loaded(file)
    assert answer.returncode != 0 and "none" in answer.stderr


def test_mounted_files_exist():
    assert MOUNTS
    assert [it["source"] for it in MOUNTS if not (COMPOSE_FILE.parent / it["source"]).is_file()] == []


def test_images_are_built_from_dockerfiles_that_exist():
    assert PROGRAMS
    folders = [COMPOSE_FILE.parent / part["build"] for part in PROGRAMS.values()]
    assert [folder for folder in folders if not (folder / "Dockerfile").is_file()] == []


def test_images_are_pinned():
    images = [part["image"] for name, part in COMPOSE["services"].items() if name not in PROGRAMS]
    assert [image for image in images if not re.search(r":v?\d+\.\d+", image)] == []


def test_dashboards_are_checked_by_the_model_of_the_grafana_that_shows_them():
    _, version = COMPOSE["services"]["grafana"]["image"].split(":")
    requirements = Path(__file__).with_name("grafana") / "requirements.txt"
    assert f"!{version}\n" in requirements.read_text()


def test_no_folder_is_made_for_a_file_that_is_missing():
    wanted = {"type": "bind", "read_only": True, "bind": {"create_host_path": False}}
    assert [mount for mount in MOUNTS if mount | wanted != mount] == []


def test_ports_are_published_on_loopback_alone():
    ports = [port for part in COMPOSE["services"].values() for port in part.get("ports", [])]
    assert ports
    for port in ports:
        address, published, target = port.split(":")
        assert address == LOOPBACK and published == target


def test_hosts_in_configurations_are_services():
    settings = [value for part in COMPOSE["services"].values() for value in part.get("environment", {}).values()]
    texts = {str(file): file.read_text() for file in MOUNTED if file.suffix == ".yaml"}
    texts["environment"] = "\n".join(settings)
    named = {(where, host) for where, text in texts.items() for host in re.findall(r"\b([a-z][a-z-]+):\d{4,5}\b", text)}
    assert {"otel-collector", "jaeger", "zipkin", "envoy", "prometheus"} <= {host for _, host in named}
    assert [it for it in named if it[1] not in COMPOSE["services"]] == []


def test_envoy_takes_its_command_line(outermost_envoy, tmp_path):
    (name, *arguments) = COMPOSE["services"]["envoy"]["command"]
    assert name == "envoy"
    mounts = {it["target"]: COMPOSE_FILE.parent / it["source"] for it in COMPOSE["services"]["envoy"]["volumes"]}
    (module,) = [target for target, source in mounts.items() if source.resolve() == MODULE.resolve()]
    (bootstrap,) = mounts.keys() - {module}
    text, file = mounts[bootstrap].read_text(), tmp_path / "envoy.yaml"
    assert module in text and bootstrap in arguments
    file.write_text(text.replace(module, str(MODULE)))
    arguments[arguments.index(bootstrap)] = file
    command = [outermost_envoy, "--mode", "validate", *arguments]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert checked.returncode == 0, checked.stderr


def test_service_takes_its_command_line():
    (interpreter, file, *arguments) = COMPOSE["services"]["stock"]["command"]
    assert (interpreter, file) == ("python3", "/service.py")
    assert service.parser().parse_args(arguments).name == "stock"


def test_prometheus_takes_its_configuration():
    _, promtool = tools.prometheus()
    file = COMPOSE_FILE.parent / "monitoring" / "compose-prometheus.yaml"
    checked = subprocess.run([promtool, "check", "config", file], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def make(*arguments: str, path: Path) -> subprocess.CompletedProcess:
    """Runs make where nothing but what is in `path` is found."""
    for name in ("make", "sh"):
        (path / name).symlink_to(shutil.which(name))
    command = [path / "make", "-C", ROOT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PATH": str(path)}, timeout=60)


def test_make_says_that_docker_is_missing(tmp_path):
    answer = make("compose", path=tmp_path)
    assert answer.returncode != 0
    assert "make compose: expected Docker with its compose plugin" in answer.stderr


def test_make_builds_the_module_before_it_starts_the_containers(tmp_path):
    printed = make("--dry-run", "compose", path=tmp_path).stdout
    built, started = "cargo build -p sidespan", "docker compose -f envoy/compose.yaml up --build"
    assert 0 < printed.index(built) < printed.index(started)
