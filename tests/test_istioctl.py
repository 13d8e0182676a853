"""Every manifest of Istio through istioctl, which validates it and analyzes it, as users do before they apply it."""

import subprocess

import pytest
import yaml

import tools
from test_manifests import HELM_VALUES, KUSTOMIZE, MANIFESTS, OVERLAYS, ROOT, build

COLLECTOR = ROOT / "istio" / "collector"
# What is applied together; the rest is analyzed file by file.
TOGETHER = [
    [COLLECTOR / name for name in ["collector.yaml", "in-mesh.yaml", "grpc.yaml", "sidecar.yaml"]],
    [COLLECTOR / name for name in ["collector.yaml", "without-sidecar.yaml", "grpc.yaml", "sidecar.yaml"]],
    [ROOT / "istio" / "no-registry" / name for name in ["deployment.yaml", "wasmplugin.yaml"]],
]
# Istio says of every EnvoyFilter that it may break with an upgrade. The pages say so too.
SUPPRESSED = ["--suppress", "IST0133=EnvoyFilter *"]


def istioctl(*arguments) -> subprocess.CompletedProcess:
    program = tools.go_program(ROOT / "tests" / "istioctl")
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=120)


def validate(files) -> subprocess.CompletedProcess:
    return istioctl("validate", *(argument for file in files for argument in ("-f", file)))


def analyze(files) -> subprocess.CompletedProcess:
    # Without -A it looks at the namespace `default` alone, in which nothing is.
    offline = ["--use-kube=false", "-A", "--failure-threshold", "Info"]
    return istioctl("analyze", *offline, *SUPPRESSED, *files)


def identifier(files) -> str:
    return "+".join(str(file.relative_to(ROOT)) for file in files)


def test_every_manifest_is_valid():
    result = validate(MANIFESTS)
    assert result.returncode == 0, result.stderr
    said = result.stdout + result.stderr
    assert said.count('" is valid') + said.count('" has warnings') == len(MANIFESTS)


@pytest.mark.parametrize("files", [*TOGETHER, *([file] for file in MANIFESTS)], ids=identifier)
def test_nothing_is_to_be_said_about_manifests(files):
    result = analyze(files)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "No validation issues found" in result.stdout + result.stderr


@pytest.mark.parametrize("environment", OVERLAYS)
def test_nothing_is_to_be_said_about_overlays(tmp_path, environment):
    file = tmp_path / "built.yaml"
    file.write_text(yaml.safe_dump_all(build(KUSTOMIZE / "overlays" / environment)))
    for result in [validate([file]), analyze([file])]:
        assert result.returncode == 0, result.stdout + result.stderr


def test_unknown_field_is_not_valid(tmp_path):
    document = yaml.safe_load((ROOT / "istio" / "wasmplugin.yaml").read_text())
    document["spec"]["phases"] = "AUTHN"
    file = tmp_path / "plugin.yaml"
    file.write_text(yaml.safe_dump(document))
    result = validate([file])
    assert result.returncode != 0
    assert 'unknown field "phases"' in result.stderr


def test_warning_of_the_analysis_fails(tmp_path):
    documents = list(yaml.safe_load_all((COLLECTOR / "outside.yaml").read_text()))
    (rule,) = [it for it in documents if it["kind"] == "DestinationRule"]
    del rule["spec"]["trafficPolicy"]["tls"]["caCertificates"]
    file = tmp_path / "outside.yaml"
    file.write_text(yaml.safe_dump_all(documents))
    result = analyze([file])
    assert result.returncode != 0
    assert "IST0128" in result.stdout + result.stderr


@pytest.mark.parametrize("folder", ["tracing-off", "statistics"])
def test_installation_has_the_mesh_configuration(folder):
    """istioctl makes the ConfigMap of the mesh from an IstioOperator, without a cluster."""
    file = ROOT / "istio" / folder / "istiooperator.yaml"
    result = istioctl("manifest", "generate", "-f", file)
    assert result.returncode == 0, result.stderr
    (config_map,) = [
        it
        for it in yaml.safe_load_all(result.stdout)
        if it and it["kind"] == "ConfigMap" and it["metadata"]["name"] == "istio"
    ]
    made = yaml.safe_load(config_map["data"]["mesh"])
    written = yaml.safe_load(file.read_text())["spec"]["meshConfig"]
    defaults = made.pop("defaultConfig")
    assert defaults == defaults | written.pop("defaultConfig")
    assert made == made | written


def test_helm_values_say_the_same_as_the_operator():
    operator = yaml.safe_load(HELM_VALUES.with_name("istiooperator.yaml").read_text())
    assert yaml.safe_load(HELM_VALUES.read_text()) == {"meshConfig": operator["spec"]["meshConfig"]}
