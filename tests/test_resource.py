"""Whose spans they are: the resource, from the configuration, from Istio's node metadata, from the node."""

from collections.abc import Callable

import pytest

import topology
from conftest import lane
from topology import Topology
from traffic import Client, new_context

ISTIO_METADATA = {
    "NAMESPACE": "shop",
    "NAME": "checkout-6d4b75cb6d-hx2p7",
    "CLUSTER_ID": "east",
    "WORKLOAD_NAME": "checkout-v2",
    "LABELS": {
        "service.istio.io/canonical-name": "checkout",
        "service.istio.io/canonical-revision": "v2",
    },
}
ISTIO_RESOURCE = {
    "k8s.namespace.name": "shop",
    "k8s.pod.name": "checkout-6d4b75cb6d-hx2p7",
    "k8s.cluster.name": "east",
    "service.version": "v2",
}


def unnamed(**filter) -> dict:
    """Returns a lane whose frontend sidecar has no service_name of its own."""
    return {"": lane(1, listeners={"frontend-inbound": {"service_name": None} | filter})}


def with_environment(variables: dict[str, str]) -> Callable[[dict], None]:
    """Returns what gives the VMs of a lane's filters these variables."""

    def change(resources: dict) -> None:
        for listener in resources["listeners"]:
            vm = topology.wasm_configuration(listener)["vm_config"]
            vm["environment_variables"] = {"key_values": variables}

    return change


def server_span(running: Topology):
    with Client(running, "1.1") as client:
        parent = new_context()
        client.through("", "/a", {"traceparent": parent.traceparent("01")})
        return client.spans(parent.trace_id)[0]


@pytest.mark.parametrize(
    "node, filter, resource, kind",
    [
        pytest.param(
            {
                "id": "sidecar~10.0.0.1~checkout.shop~shop.svc",
                "cluster": "checkout.shop",
                "metadata": ISTIO_METADATA,
            },
            {},
            {"service.name": "checkout", **ISTIO_RESOURCE},
            "SERVER",
            id="an istio sidecar is named by its canonical service",
        ),
        pytest.param(
            {
                "id": "router~10.0.0.2~gateway.istio~istio.svc",
                "cluster": "gateway.istio",
                "metadata": {"WORKLOAD_NAME": "gateway"},
            },
            {},
            {"service.name": "gateway"},
            "SERVER",
            id="an istio gateway is named by its workload",
        ),
        pytest.param(
            {"id": "plain", "cluster": "edge"},
            {"resource_attributes": {"deployment.environment.name": "test"}},
            {"service.name": "edge", "deployment.environment.name": "test"},
            "SERVER",
            id="a plain envoy is named by its cluster",
        ),
        pytest.param(
            {
                "id": "sidecar~10.0.0.1~checkout.shop~shop.svc",
                "cluster": "checkout.shop",
                "metadata": ISTIO_METADATA,
            },
            {"service_name": "front"},
            {"service.name": "front", **ISTIO_RESOURCE},
            "SERVER",
            id="the configured name comes first",
        ),
    ],
)
def test_resource_names_the_workload(outermost_envoy, node, filter, resource, kind):
    with Topology(unnamed(**filter), envoy=outermost_envoy, node=node) as running:
        span = server_span(running)
    assert span.resource == resource
    assert span.kind == kind


def test_gateway_serves_on_its_outbound_listener(outermost_envoy):
    node = {"id": "router~10.0.0.2~gateway.istio~istio.svc", "cluster": "gateway.istio"}
    parent = new_context()
    with (
        Topology({"": lane(1)}, envoy=outermost_envoy, node=node) as running,
        Client(running, "1.1") as client,
    ):
        client.send(running.lane().frontend_outbound, "/a", {"traceparent": parent.traceparent("01")})
        gateway, _ = client.spans(parent.trace_id, 2)
    assert gateway.kind == "SERVER"


@pytest.mark.parametrize(
    "variables, filter, resource",
    [
        ({"OTEL_SERVICE_NAME": "shop"}, {}, {"service.name": "shop"}),
        ({"OTEL_SERVICE_NAME": "shop"}, {"service_name": "front"}, {"service.name": "front"}),
        (
            {"OTEL_RESOURCE_ATTRIBUTES": "service.name=shop,team=caf%C3%A9,zone=a", "ZONE": "b"},
            {"resource_attributes": {"zone": {"environment": {"name": "ZONE"}}, "rack": {"environment": {"name": "RACK"}}}},
            {"service.name": "shop", "team": "caf\u00e9", "zone": "b"},
        ),
        ({"OTEL_RESOURCE_ATTRIBUTES": "team=shop,zone"}, {}, {"service.name": "edge"}),
    ],
    ids=["name", "configured name", "attributes", "malformed attributes"],
)
def test_resource_of_the_environment(outermost_envoy, variables, filter, resource):
    lanes = {"": lane(1, listeners={"frontend-inbound": {"service_name": None} | filter}, change=with_environment(variables))}
    with Topology(lanes, envoy=outermost_envoy, node={"id": "plain", "cluster": "edge"}) as running:
        assert server_span(running).resource == resource
        log = running.log()
    malformed = "OTEL_RESOURCE_ATTRIBUTES: item 2: expected key=value, but found no =; it is ignored"
    assert log.count(malformed) == (1 if resource == {"service.name": "edge"} else 0)
