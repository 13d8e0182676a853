"""Every manifest follows its schema strictly, and a real Envoy loads the filters in them."""

import copy
import json
import os
import re
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

import kubernetes
import tools
import topology

ROOT = Path(__file__).parents[1]
WITH_FILTER = ("WasmPlugin", "TrafficExtension", "EnvoyFilter")
KUSTOMIZE = ROOT / "istio" / "kustomize"
# Each environment, and the example whose plugin its overlay makes.
OVERLAYS = {
    "development": "development",
    "high-traffic": "high-traffic",
    "production": "production-tail-sampling",
    "staging": "staging",
}
PARTS_OF_OVERLAYS = {*KUSTOMIZE.rglob("kustomization.yaml"), *KUSTOMIZE.rglob("patch.yaml")}
HELM_VALUES = ROOT / "istio" / "tracing-off" / "helm-values.yaml"
ISTIO = sorted({*ROOT.glob("istio/**/*.yaml")} - PARTS_OF_OVERLAYS - {HELM_VALUES})
MANIFESTS = [
    *ISTIO,
    *sorted(
        file
        for file in ROOT.glob("examples/*/*.yaml")
        if any(isinstance(it, dict) and it.get("kind") in WITH_FILTER for it in yaml.safe_load_all(file.read_text()))
    ),
]
EXAMPLES = sorted(file.parent for file in ROOT.glob("examples/*/plugin.yaml"))
GROUP_OF_ISTIO, GROUP_OF_GATEWAYS = ".istio.io/", "gateway.networking.k8s.io/"
CRDS_MODULE = "istio.io/api@v1.31.1"
# The version that Istio's own module has.
GATEWAY_API_MODULE = "sigs.k8s.io/gateway-api@v1.6.0"


def documents(files) -> list:
    """Returns the documents of files as parameters of a test, each with a name to find it by."""
    return [
        pytest.param(document, id=f"{file.relative_to(ROOT)}:{document['kind']}")
        for file in files
        for document in yaml.safe_load_all(file.read_text())
        if document and "kind" in document
    ]


DOCUMENTS = [it for it in documents(MANIFESTS) if it.values[0]["kind"] in WITH_FILTER]
# Other resources of Istio in the examples, such as the ones that the filter replaces.
OTHERS = [
    it
    for it in documents(sorted({*ROOT.glob("examples/**/*.yaml")} - {*MANIFESTS}))
    if GROUP_OF_ISTIO in it.values[0]["apiVersion"] and it.values[0]["kind"] != "IstioOperator"
]


@pytest.fixture(scope="session")
def schemas():
    """Schemas by API version and kind: Istio's from $ISTIO_CRDS or its Go module, and Gateway's."""
    given = os.environ.get("ISTIO_CRDS")
    istio = Path(given) if given else tools.go_module(CRDS_MODULE) / "kubernetes/customresourcedefinitions.gen.yaml"
    gateways = tools.go_module(GATEWAY_API_MODULE) / "config/crd/standard/gateway.networking.k8s.io_gateways.yaml"
    definitions = [it for file in [istio, gateways] for it in yaml.safe_load_all(file.read_text()) if it]
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
    if document["kind"] == "IstioOperator":
        return  # It is no resource of a cluster: istioctl reads it, and test_istioctl.py gives it to it.
    if GROUP_OF_ISTIO not in document["apiVersion"] and GROUP_OF_GATEWAYS not in document["apiVersion"]:
        kubernetes.check(document)
        return
    # The API server knows these two; the schemas leave them open.
    schema = copy.copy(schemas[document["apiVersion"], document["kind"]])
    fields = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
    schema["properties"] = schema["properties"] | fields
    jsonschema.Draft202012Validator(schema).validate(document)


@pytest.mark.parametrize("document", [*documents(MANIFESTS), *OTHERS])
def test_manifest_follows_its_schema(schemas, document):
    check(schemas, document)


def build(folder: Path) -> list[dict]:
    """Returns what `kubectl kustomize` makes of a folder."""
    program = tools.go_program(ROOT / "tests" / "kustomize")
    result = subprocess.run([program, "build", folder], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return list(yaml.safe_load_all(result.stdout))


@pytest.mark.parametrize("environment", OVERLAYS)
def test_overlay_makes_the_plugin_of_its_example(schemas, environment):
    documents = build(KUSTOMIZE / "overlays" / environment)
    for document in documents:
        check(schemas, document)
    made = {(it["kind"], it["metadata"]["namespace"]): it for it in documents}
    example = ROOT / "examples" / OVERLAYS[environment]
    assert made["WasmPlugin", "shop"] == yaml.safe_load((example / "plugin.yaml").read_text())
    if environment == "production":
        assert made["WasmPlugin", "istio-system"] == yaml.safe_load((example / "gateway.yaml").read_text())
    # Wherever the filter is, Istio's tracer is off.
    for kind, namespace in made:
        assert made["Telemetry", namespace]["spec"]["tracing"] == [{"disableSpanReporting": True}]


def test_overlay_of_the_page_changes_image_and_namespace(schemas, tmp_path):
    page = (KUSTOMIZE / "README.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    overlay = yaml.safe_load(block)
    overlay["resources"] = [os.path.relpath(KUSTOMIZE / "mine" / it, tmp_path) for it in overlay["resources"]]
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    made = {document["kind"]: document for document in build(tmp_path)}
    for document in made.values():
        check(schemas, document)
    assert {it["metadata"]["namespace"] for it in made.values()} == {"checkout"}
    assert made["WasmPlugin"]["spec"]["url"] == "oci://registry.example.com/team/sidespan:0.1.0"


def test_every_overlay_is_built():
    assert {folder.name for folder in (KUSTOMIZE / "overlays").iterdir()} == {*OVERLAYS}


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
    part = document
    for key in path:
        part = part[key]
    part[value] = "anything"
    with pytest.raises(jsonschema.ValidationError, match=value):
        check(schemas, document)


def http_filters(document, name="sidespan") -> list[dict]:
    """Returns the filters that Istio would put into the proxy for a document, each with a name for errors."""
    if document["kind"] == "EnvoyFilter":
        filters = copy.deepcopy([patch["patch"]["value"] for patch in document["spec"]["configPatches"]])
        for number, filter in enumerate(filters):
            filter["name"] = filter["typed_config"]["config"]["name"] = f"{name}/{number}"
        return filters
    # What Istio's pilot makes of a WasmPlugin: the configuration as JSON in a StringValue.
    plugin = document["spec"]["wasm"] if document["kind"] == "TrafficExtension" else document["spec"]
    variables = [env["name"] for env in plugin.get("vmConfig", {}).get("env", [])]
    config = {
        "name": name,
        "root_id": plugin.get("pluginName", ""),
        "configuration": {
            "@type": "type.googleapis.com/google.protobuf.StringValue",
            "value": json.dumps(plugin["pluginConfig"]),
        },
        "vm_config": {
            "runtime": "envoy.wasm.runtime.v8",
            "code": {"local": {}},
            "environment_variables": {"host_env_keys": variables},
        },
    }
    wasm = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"
    return [{"name": name, "typed_config": {"@type": wasm, "config": config}}]


def environment_of(filters) -> dict[str, str]:
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
        env=environment_of(filters),
    )


def test_envoy_takes_the_filters_of_all_manifests(tmp_path):
    """In one chain, since Envoy takes longest to compile the module; an error names the document."""
    filters = [filter for it in DOCUMENTS for filter in http_filters(*it.values, it.id)]
    assert len(filters) >= len(DOCUMENTS)
    result = validate(tools.envoy("1.40.0"), tmp_path, filters)
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
