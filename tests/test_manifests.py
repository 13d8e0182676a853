"""Every manifest with the filter: strictly by Istio's schemas, and loaded by a real Envoy."""

import copy
import json
import os
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

import tools
import topology

ROOT = Path(__file__).parents[1]
WITH_FILTER = ("WasmPlugin", "TrafficExtension", "EnvoyFilter")
MANIFESTS = sorted(
    file
    for file in [*ROOT.glob("istio/**/*.yaml"), *ROOT.glob("examples/*/*.yaml")]
    if any(document.get("kind") in WITH_FILTER for document in yaml.safe_load_all(file.read_text()) if document)
)
EXAMPLES = sorted(file.parent for file in ROOT.glob("examples/*/plugin.yaml"))
CRDS_MODULE = "istio.io/api@v1.31.1"


DOCUMENTS = [
    pytest.param(document, id=f"{file.relative_to(ROOT)}:{document['kind']}")
    for file in MANIFESTS
    for document in yaml.safe_load_all(file.read_text())
    if document["kind"] in WITH_FILTER
]


@pytest.fixture(scope="session")
def schemas():
    """Istio's schemas by API version and kind, from $ISTIO_CRDS or Istio's Go module of its API."""
    given = os.environ.get("ISTIO_CRDS")
    folder = "kubernetes/customresourcedefinitions.gen.yaml"
    file = Path(given) if given else tools.go_module(CRDS_MODULE) / folder
    definitions = [document for document in yaml.safe_load_all(file.read_text()) if document]
    return {
        (f"{definition['spec']['group']}/{version['name']}", definition["spec"]["names"]["kind"]): strict(
            version["schema"]["openAPIV3Schema"]
        )
        for definition in definitions
        for version in definition["spec"]["versions"]
    }


def strict(schema):
    """Returns the schema with unknown fields forbidden wherever Kubernetes would prune them."""
    schema = copy.copy(schema)
    if "properties" in schema:
        schema["properties"] = {name: strict(inner) for name, inner in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema["additionalProperties"] = False
    elif isinstance(schema.get("additionalProperties"), dict):
        schema["additionalProperties"] = strict(schema["additionalProperties"])
    if "items" in schema:
        schema["items"] = strict(schema["items"])
    return schema


def check(schemas, document):
    # The API server knows these two; the schemas leave them open.
    schema = copy.copy(schemas[document["apiVersion"], document["kind"]])
    fields = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
    schema["properties"] = schema["properties"] | fields
    jsonschema.Draft202012Validator(schema).validate(document)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_manifest_follows_istios_schema(schemas, document):
    check(schemas, document)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["spec"], "unknownField"),
        (["spec", "vmConfig"], "environment"),
        (["spec", "match", 0], "direction"),
    ],
)
def test_unknown_field_fails_the_schema(schemas, path, value):
    document = yaml.safe_load((ROOT / "istio" / "wasmplugin.yaml").read_text())
    document["spec"]["match"] = [{"mode": "SERVER"}]
    check(schemas, document)
    place = document
    for key in path:
        place = place[key]
    place[value] = "anything"
    with pytest.raises(jsonschema.ValidationError, match=value):
        check(schemas, document)


def http_filters(document) -> list[dict]:
    """Returns the filters that Istio would put into the proxy for a document."""
    if document["kind"] == "EnvoyFilter":
        return [patch["patch"]["value"] for patch in document["spec"]["configPatches"]]
    # What Istio's pilot makes of a WasmPlugin: the configuration as JSON in a StringValue.
    config = {
        "name": "shop.sidespan",
        "root_id": document["spec"].get("pluginName", ""),
        "configuration": {
            "@type": "type.googleapis.com/google.protobuf.StringValue",
            "value": json.dumps(document["spec"]["pluginConfig"]),
        },
        "vm_config": {
            "runtime": "envoy.wasm.runtime.v8",
            "code": {"local": {}},
            "environment_variables": {
                "host_env_keys": [env["name"] for env in document["spec"].get("vmConfig", {}).get("env", [])]
            },
        },
    }
    wasm = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"
    return [{"name": "shop.sidespan", "typed_config": {"@type": wasm, "config": config}}]


def environment(filters) -> dict[str, str]:
    """Returns an environment with the variables that filters take from the proxy's."""
    vms = [filter["typed_config"]["config"]["vm_config"] for filter in filters]
    names = {name for vm in vms for name in vm.get("environment_variables", {}).get("host_env_keys", [])}
    return os.environ | dict.fromkeys(names, "long enough for a key of 32 bytes")


def validate(envoy, folder, filters) -> subprocess.CompletedProcess:
    bootstrap = topology.load_bootstrap(topology.BOOTSTRAP)
    (listener, *_) = bootstrap["static_resources"]["listeners"]
    bootstrap["static_resources"]["listeners"] = [listener]
    (network_filter,) = listener["filter_chains"][0]["filters"]
    chain = network_filter["typed_config"]["http_filters"]
    filters = copy.deepcopy(filters)
    for filter in filters:
        code = filter["typed_config"]["config"]["vm_config"]["code"]
        code["local"]["filename"] = str(topology.MODULE)
    chain[:] = [*filters, chain[-1]]
    file = folder / "envoy.json"
    file.write_text(json.dumps(bootstrap))
    return subprocess.run(
        [envoy, "--mode", "validate", "-c", file],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(filters),
    )


@pytest.mark.parametrize("document", DOCUMENTS)
def test_envoy_takes_the_filter_of_the_manifest(tmp_path, document):
    result = validate(tools.envoy("1.40.0"), tmp_path, http_filters(document))
    assert result.returncode == 0, result.stderr


def test_envoy_refuses_a_manifest_with_a_wrong_configuration(tmp_path):
    document = yaml.safe_load((ROOT / "istio" / "wasmplugin.yaml").read_text())
    document["spec"]["pluginConfig"]["sampling"]["ratio"] = 2
    result = validate(tools.envoy("1.40.0"), tmp_path, http_filters(document))
    assert result.returncode == 1
    assert "sampling.ratio: expected a number from 0 to 1, but found 2" in result.stderr


@pytest.mark.parametrize("folder", EXAMPLES, ids=[folder.name for folder in EXAMPLES])
def test_every_example_of_a_plugin_has_its_three_files(folder):
    assert {"README.md", "plugin.yaml", "scenario.yaml"} <= {file.name for file in folder.iterdir()}
