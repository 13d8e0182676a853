"""The resource of spans: from the configuration, the environment, Istio's node metadata or the node."""

import pytest

import topology
from conftest import lane
from topology import Lane, Topology
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


NODES = {
    "sidecar": {
        "id": "sidecar~10.0.0.1~checkout.shop~shop.svc",
        "cluster": "checkout.shop",
        "metadata": ISTIO_METADATA,
    },
    "gateway": {
        "id": "router~10.0.0.2~gateway.istio~istio.svc",
        "cluster": "gateway.istio",
        "metadata": {"WORKLOAD_NAME": "gateway"},
    },
    "plain": {"id": "plain", "cluster": "edge"},
}
ZONE_AND_RACK = {name: {"environment": {"name": name.upper()}} for name in ("zone", "rack")}
# By node: rows of the environment, of the first sidecar's settings, and of its spans' resource.
ROWS = {
    "sidecar": {
        "canonical-service": ({}, {}, {"service.name": "checkout", **ISTIO_RESOURCE}),
        "configured-name": ({}, {"service_name": "front"}, {"service.name": "front", **ISTIO_RESOURCE}),
    },
    "gateway": {"workload": ({}, {}, {"service.name": "gateway"})},
    "plain": {
        "cluster": (
            {},
            {"resource_attributes": {"deployment.environment.name": "test"}},
            {"service.name": "edge", "deployment.environment.name": "test"},
        ),
        "variable": ({"OTEL_SERVICE_NAME": "shop"}, {}, {"service.name": "shop"}),
        "configured-name": ({"OTEL_SERVICE_NAME": "shop"}, {"service_name": "front"}, {"service.name": "front"}),
        "attributes": (
            {"OTEL_RESOURCE_ATTRIBUTES": "service.name=shop,team=caf%C3%A9,zone=a", "ZONE": "b"},
            {"resource_attributes": ZONE_AND_RACK},
            {"service.name": "shop", "team": "caf\u00e9", "zone": "b"},
        ),
        "malformed": ({"OTEL_RESOURCE_ATTRIBUTES": "team=shop,zone"}, {}, {"service.name": "edge"}),
    },
}
MALFORMED = "OTEL_RESOURCE_ATTRIBUTES: item 2: expected key=value, but found no =; the whole variable is ignored"


def lane_of(row: str, variables: dict[str, str], settings: dict) -> Lane:
    """Returns a lane whose first sidecar has no service_name but that of the settings."""

    def change(resources: dict) -> None:
        for listener in resources["listeners"]:
            vm = topology.wasm_configuration(listener)["vm_config"]
            vm["environment_variables"] = {"key_values": variables}
            # Envoy 1.36 shares a VM, and so its environment, among all of one vm_id.
            vm["vm_id"] = row

    return lane(1, listeners={"frontend-inbound": {"service_name": None} | settings}, change=change)


@pytest.mark.parametrize("node", NODES)
def test_resource_names_the_workload(outermost_envoy, node):
    rows = ROWS[node]
    lanes = {row: lane_of(row, variables, settings) for row, (variables, settings, _) in rows.items()}
    with Topology(lanes, envoy=outermost_envoy, node=NODES[node]) as running, Client(running, "1.1") as client:
        for row, (_, _, resource) in rows.items():
            parent = new_context()
            client.through(row, "/a", {"traceparent": parent.traceparent("01")})
            server, *_ = client.spans(parent.trace_id)
            assert (server.resource, server.kind) == (resource, "SERVER"), row
        log = running.log()
    assert log.count(MALFORMED) == ("malformed" in rows)


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
