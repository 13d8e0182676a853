"""The checks of Kubernetes' resources find what is wrong."""

import copy

import jsonschema
import pytest
import yaml

import kubernetes

POD = {
    "metadata": {"labels": {"app": "shop"}},
    "spec": {
        "serviceAccountName": "shop",
        "volumes": [{"name": "settings", "configMap": {"name": "shop"}}],
        "containers": [
            {
                "name": "shop",
                "image": "shop:1",
                "ports": [{"name": "http", "containerPort": 8080}],
                "envFrom": [{"configMapRef": {"name": "shop"}}],
                "volumeMounts": [{"name": "settings", "mountPath": "/settings"}],
                "readinessProbe": {"httpGet": {"path": "/", "port": "http"}},
                "resources": {"limits": {"cpu": "2", "memory": "1Gi"}},
            }
        ],
    },
}
SELECTED = {"matchLabels": {"app": "shop"}}


def document(kind: str, api_version: str = "v1", **parts) -> dict:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": "shop", "namespace": "shop"}, **parts}


DOCUMENTS = [
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}},
    document("ServiceAccount"),
    document("ConfigMap", data={"a": "b"}),
    document("StatefulSet", "apps/v1", spec={"serviceName": "shop", "selector": SELECTED, "template": POD}),
    document("Service", spec={"selector": {"app": "shop"}, "ports": [{"port": 80, "targetPort": "http"}]}),
    document("PodDisruptionBudget", "policy/v1", spec={"maxUnavailable": 1, "selector": SELECTED}),
]
NAMESPACE, ACCOUNT, CONFIG_MAP, WORKLOAD, SERVICE, BUDGET = range(len(DOCUMENTS))
CONTAINER = (WORKLOAD, "spec", "template", "spec", "containers", 0)


def changed(path: tuple, value) -> list[dict]:
    """Returns the documents with another value at a path."""
    documents = copy.deepcopy(DOCUMENTS)
    *above, last = path
    place = documents
    for key in above:
        place = place[key]
    place[last] = value
    return documents


def test_right_documents_pass():
    for each in DOCUMENTS:
        kubernetes.check(each)
    assert kubernetes.dangling_references(DOCUMENTS) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((WORKLOAD, "spec", "replica"), 3),
        ((WORKLOAD, "spec", "replicas"), "three"),
        ((WORKLOAD, "spec", "selector"), {"labels": {"app": "shop"}}),
        ((*CONTAINER, "port"), []),
        ((*CONTAINER, "ports", 0), {"name": "http"}),
        ((*CONTAINER, "readinessProbe"), {"httpGet": {"path": "/"}}),
        ((*CONTAINER, "env"), [{"name": "A", "value": 1}]),
        ((SERVICE, "spec", "ports", 0, "appprotocol"), "grpc"),
        ((CONFIG_MAP, "data"), {"a": {"b": "c"}}),
        ((BUDGET, "apiVersion"), "v1"),
        ((BUDGET, "kind"), "DisruptionBudget"),
    ],
    ids=str,
)
def test_wrong_document_fails(path, value):
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        for each in changed(path, value):
            kubernetes.check(each)


@pytest.mark.parametrize(
    ("path", "value", "found"),
    [
        ((NAMESPACE, "metadata", "name"), "shops", None),
        ((ACCOUNT, "metadata", "name"), "shops", "StatefulSet/shop: serviceAccountName shop"),
        ((CONFIG_MAP, "metadata", "name"), "shops", "StatefulSet/shop: configMap shop"),
        ((WORKLOAD, "spec", "serviceName"), "shops", "StatefulSet/shop: serviceName shops"),
        ((WORKLOAD, "spec", "selector", "matchLabels"), {"app": "a"}, "StatefulSet/shop: selector {'app': 'a'}"),
        ((*CONTAINER, "volumeMounts", 0, "name"), "secrets", "StatefulSet/shop: volumeMount secrets"),
        ((*CONTAINER, "readinessProbe", "httpGet", "port"), 80, "StatefulSet/shop: port 80 of a probe"),
        ((SERVICE, "spec", "selector"), {"app": "shops"}, "Service/shop: selector {'app': 'shops'}"),
        ((SERVICE, "spec", "ports", 0, "targetPort"), "https", "Service/shop: targetPort https"),
        ((BUDGET, "spec", "selector", "matchLabels"), {"app": "a"}, "PodDisruptionBudget/shop: selector {'app': 'a'}"),
    ],
    ids=str,
)
def test_dangling_reference_is_found(path, value, found):
    problems = kubernetes.dangling_references(changed(path, value))
    if found is None:
        assert set(problems) == {f"{it['kind']}/shop: namespace shop" for it in DOCUMENTS[1:]}
    else:
        assert found in problems


def test_a_key_that_stands_twice_fails(tmp_path):
    file = tmp_path / "twice.yaml"
    file.write_text("metadata:\n  name: a\n  name: b\n")
    with pytest.raises(yaml.constructor.ConstructorError, match="expected each key once, but found \\['name'\\]"):
        kubernetes.read(file)
