"""The compose file, checked without Docker: its schema, the files it mounts, the commands it runs."""

import json
import subprocess

import jsonschema
import pytest
import yaml

import service
import tools
from topology import BOOTSTRAP

# The Compose specification's own library, whose schema is the strict one.
COMPOSE_LIBRARY = "github.com/compose-spec/compose-go/v2@v2.16.2"
COMPOSE_FILE = BOOTSTRAP.with_name("compose.yaml")


@pytest.fixture(scope="module")
def schema():
    return json.loads((tools.go_module(COMPOSE_LIBRARY) / "schema" / "compose-spec.json").read_text())


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load(COMPOSE_FILE.read_text())


def test_compose_file_follows_the_specification(schema, compose):
    validator = jsonschema.validators.validator_for(schema)(schema)
    assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(compose)] == []


def test_schema_refuses_an_unknown_key(schema, compose):
    compose = compose | {"services": compose["services"] | {"envoy": {"image": "envoy", "imagine": True}}}
    assert not jsonschema.validators.validator_for(schema)(schema).is_valid(compose)


def mounts(compose) -> list:
    return [volume for part in compose["services"].values() for volume in part.get("volumes", [])]


def test_mounted_files_exist(compose):
    files = [mount["source"] for mount in mounts(compose)]
    assert files
    assert [file for file in files if not (COMPOSE_FILE.parent / file).is_file()] == []


def test_no_folder_is_made_for_a_file_that_is_missing(compose):
    wanted = {"type": "bind", "read_only": True, "bind": {"create_host_path": False}}
    assert [mount for mount in mounts(compose) if mount | wanted != mount] == []


def test_network_namespaces_are_those_of_services(compose):
    modes = {part["network_mode"] for part in compose["services"].values() if "network_mode" in part}
    assert modes == {"service:envoy"}


def test_envoy_takes_its_command_line(compose, outermost_envoy):
    (name, *arguments) = compose["services"]["envoy"]["command"]
    assert name == "envoy"
    checked = subprocess.run(
        [outermost_envoy, "--mode", "validate", *arguments],
        cwd=COMPOSE_FILE.parents[1],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("name", ["frontend", "backend"])
def test_service_takes_its_command_line(compose, name):
    (interpreter, file, *arguments) = compose["services"][name]["command"]
    assert (interpreter, file) == ("python3", "/service.py")
    assert service.parser().parse_args(arguments).name == name
