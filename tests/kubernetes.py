"""Checks Kubernetes' own resources without a cluster: each by its schema, and what refers to what.

    documents = read(file)
    for document in documents:
        check(document)
    assert dangling_references(documents) == []

The schemas are Kubernetes' own, made strict: a field that Kubernetes would drop fails.
"""

import functools
import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import yaml
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

import tools

VERSION = "1.37.0"
REQUIREMENTS = Path(__file__).with_name("kubernetes-schemas") / "requirements.txt"

WORKLOADS = ("DaemonSet", "Deployment", "StatefulSet")


def read(file: Path) -> list[dict]:
    """Returns the documents of a file; a key that stands twice in an object fails."""
    return [document for document in yaml.load_all(file.read_text(), _StrictLoader) if document is not None]


def check(document: dict) -> None:
    """Raises jsonschema's ValidationError when Kubernetes would refuse the document, or drop a part of it."""
    _validator(document["apiVersion"], document["kind"]).validate(document)


def dangling_references(documents: list[dict]) -> list[str]:
    """Returns the references to something that none of the documents defines, each as `kind/name: what`.

    Checks the pods that Services and PodDisruptionBudgets select, the ports of Services and probes,
    ConfigMaps, ServiceAccounts, volumes and namespaces. It does not check Secrets, which are in no file.
    """
    names = {(document["kind"], document["metadata"]["name"]) for document in documents}
    pods = [document["spec"]["template"] for document in documents if document["kind"] in WORKLOADS]
    return [
        f"{document['kind']}/{document['metadata']['name']}: {problem}"
        for document in documents
        for problem in _problems(document, names, pods)
    ]


def _problems(document: dict, names: set[tuple[str, str]], pods: list[dict]) -> Iterator[str]:
    spec, kind = document.get("spec", {}), document["kind"]
    if (namespace := document["metadata"].get("namespace")) and ("Namespace", namespace) not in names:
        yield f"namespace {namespace}"
    if kind == "Service":
        selected = _selected(pods, spec["selector"])
        if not selected:
            yield f"selector {spec['selector']}"
        for port in spec["ports"]:
            target = port.get("targetPort", port["port"])
            if not all(target in _ports(container) for pod in selected for container in pod["spec"]["containers"]):
                yield f"targetPort {target}"
    if kind == "PodDisruptionBudget" and not _selected(pods, spec["selector"]["matchLabels"]):
        yield f"selector {spec['selector']['matchLabels']}"
    if kind in WORKLOADS:
        template, labels = spec["template"], spec["selector"]["matchLabels"]
        if not _selected([template], labels):
            yield f"selector {labels}"
        if kind == "StatefulSet" and ("Service", spec["serviceName"]) not in names:
            yield f"serviceName {spec['serviceName']}"
        yield from _problems_of_pod(template["spec"], names)


def _problems_of_pod(pod: dict, names: set[tuple[str, str]]) -> Iterator[str]:
    account = pod.get("serviceAccountName", "default")
    if account != "default" and ("ServiceAccount", account) not in names:
        yield f"serviceAccountName {account}"
    volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
    config_maps = [volume["configMap"]["name"] for volume in volumes.values() if "configMap" in volume]
    for container in pod["containers"]:
        config_maps += [it["configMapRef"]["name"] for it in container.get("envFrom", []) if "configMapRef" in it]
        yield from (
            f"volumeMount {mount['name']}"
            for mount in container.get("volumeMounts", [])
            if mount["name"] not in volumes
        )
        probes = [container[name] for name in ("livenessProbe", "readinessProbe", "startupProbe") if name in container]
        for probe in probes:
            action = probe.get("httpGet")
            if action and action["port"] not in _ports(container):
                yield f"port {action['port']} of a probe"
    yield from (f"configMap {name}" for name in config_maps if ("ConfigMap", name) not in names)


def _selected(pods: list[dict], labels: dict[str, str]) -> list[dict]:
    return [pod for pod in pods if labels.items() <= pod["metadata"]["labels"].items()]


def _ports(container: dict) -> set[int | str]:
    """Returns the ports of a container, by number and by name."""
    ports = container.get("ports", [])
    return {port["containerPort"] for port in ports} | {port["name"] for port in ports if "name" in port}


@functools.cache
def _validator(api_version: str, kind: str) -> jsonschema.Draft202012Validator:
    group, _, version = api_version.rpartition("/")
    # `networking.k8s.io/v1` is `networking-v1` in the name of the file.
    parts = [kind.lower(), *([group.split(".")[0]] if group else []), version]
    file = _schemas() / f"{'-'.join(parts)}.json"
    if not file.is_file():
        raise ValueError(f"expected a kind of Kubernetes {VERSION}, but found {api_version} {kind}")
    registry = Registry(retrieve=_schema)
    return jsonschema.Draft202012Validator(json.loads(file.read_text()), registry=registry)


@functools.cache
def _schema(uri: str) -> Resource:
    return DRAFT202012.create_resource(json.loads((_schemas() / Path(uri).name).read_text()))


@functools.cache
def _schemas() -> Path:
    folder = tools.python_with(REQUIREMENTS).parents[1]
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
    return packages / "kubernetes_validate" / "kubernetes-json-schema" / f"v{VERSION}-local-strict"


class _StrictLoader(yaml.SafeLoader):
    """Reads YAML as kubectl does, which refuses an object with two equal keys."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep) for key, _ in node.value]
        if twice := [key for key in set(keys) if keys.count(key) > 1]:
            problem = f"expected each key once, but found {twice}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return super().construct_mapping(node, deep)
