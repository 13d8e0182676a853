"""Every manifest of Istio through istioctl, which validates it and analyzes it, as users do before they apply it."""

import functools
import subprocess

import pytest
import yaml

import tools
from test_manifests import HELM_VALUES, KUSTOMIZE, MANIFESTS, OVERLAYS, ROOT, build

COLLECTOR = ROOT / "istio" / "collector"
# Files that are applied together; all files are analyzed one by one as well.
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
    output = result.stdout + result.stderr
    assert output.count('" is valid') + output.count('" has warnings') == len(MANIFESTS)


@pytest.mark.parametrize("files", [*TOGETHER, *([file] for file in MANIFESTS)], ids=identifier)
def test_analysis_of_manifests_finds_nothing(files):
    result = analyze(files)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "No validation issues found" in result.stdout + result.stderr


@pytest.mark.parametrize("environment", OVERLAYS)
def test_analysis_of_overlays_finds_nothing(tmp_path, environment):
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


@functools.cache
def installation(folder: str) -> dict[tuple[str, str], dict]:
    """Returns the resources that `istioctl install` makes of a folder's IstioOperator, by kind and name."""
    result = istioctl("manifest", "generate", "-f", ROOT / "istio" / folder / "istiooperator.yaml")
    assert result.returncode == 0, result.stderr
    return {(it["kind"], it["metadata"]["name"]): it for it in yaml.safe_load_all(result.stdout) if it}


@pytest.mark.parametrize("folder", ["tracing-off", "statistics"])
def test_installation_has_the_mesh_configuration(folder):
    made = yaml.safe_load(installation(folder)["ConfigMap", "istio"]["data"]["mesh"])
    written = yaml.safe_load((ROOT / "istio" / folder / "istiooperator.yaml").read_text())["spec"]["meshConfig"]
    defaults = made.pop("defaultConfig")
    assert defaults == defaults | written.pop("defaultConfig")
    assert made == made | written


def test_sidecar_gets_the_module_of_the_config_map(tmp_path):
    """As Istio's injector does it, by the annotations of the pod template: the proxy alone has the mount."""
    injector = installation("tracing-off")["ConfigMap", "istio-sidecar-injector"]["data"]
    texts = {
        "meshConfigFile": installation("tracing-off")["ConfigMap", "istio"]["data"]["mesh"],
        "injectConfigFile": injector["config"],
        "valuesFile": injector["values"],
    }
    arguments = ["--revision", "default", "-f", ROOT / "istio" / "no-registry" / "deployment.yaml"]
    for option, text in texts.items():
        file = tmp_path / option
        file.write_text(text)
        arguments += [f"--{option}", file]
    result = istioctl("kube-inject", *arguments)
    assert result.returncode == 0, result.stderr
    (deployment,) = [it for it in yaml.safe_load_all(result.stdout) if it]
    pod = deployment["spec"]["template"]["spec"]
    mounts = {
        container["name"]: mount
        for container in [*pod["containers"], *pod["initContainers"]]
        for mount in container.get("volumeMounts", [])
        if mount["name"] == "sidespan"
    }
    assert mounts == {"istio-proxy": {"name": "sidespan", "mountPath": "/var/local/lib/wasm", "readOnly": True}}
    assert {"name": "sidespan", "configMap": {"name": "sidespan-wasm"}} in pod["volumes"]
    plugin = yaml.safe_load((ROOT / "istio" / "no-registry" / "wasmplugin.yaml").read_text())["spec"]
    assert plugin["url"] == f"file://{mounts['istio-proxy']['mountPath']}/sidespan.wasm"
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert plugin["selector"]["matchLabels"].items() <= labels.items()


def test_helm_values_say_the_same_as_the_operator():
    operator = yaml.safe_load(HELM_VALUES.with_name("istiooperator.yaml").read_text())
    assert yaml.safe_load(HELM_VALUES.read_text()) == {"meshConfig": operator["spec"]["meshConfig"]}
