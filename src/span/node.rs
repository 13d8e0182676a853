//! Envoy's node: the workload that it describes, and who manages this Envoy.

use crate::span::resource::Node;

impl Node {
    /// Reads the node. `property` returns a property by its path, with a zero byte between the parts; it
    /// is empty if absent. Only Istio's nodes have the metadata.
    pub(crate) fn read(property: &dyn Fn(&str) -> String) -> Self {
        Self {
            cluster: property("xds\0node\0cluster"),
            canonical_name: property(
                "xds\0node\0metadata\0LABELS\0service.istio.io/canonical-name",
            ),
            canonical_revision: property(
                "xds\0node\0metadata\0LABELS\0service.istio.io/canonical-revision",
            ),
            workload_name: property("xds\0node\0metadata\0WORKLOAD_NAME"),
            namespace: property("xds\0node\0metadata\0NAMESPACE"),
            pod_name: property("xds\0node\0metadata\0NAME"),
            cluster_id: property("xds\0node\0metadata\0CLUSTER_ID"),
        }
    }
}

/// Tells whether this Envoy is a gateway of Istio's.
pub(crate) fn is_gateway(node_id: &str) -> bool {
    node_id.starts_with("router~")
}

/// Tells whether Istio or Envoy Gateway configures this Envoy while it runs: Istio by the type of proxy
/// that begins the node's id (`pkg/model/proxy.go`), Envoy Gateway by its name for the VM
/// (`internal/gatewayapi/envoyextensionpolicy.go`).
pub(crate) fn is_managed(node_id: &str, vm_id: &str) -> bool {
    ["sidecar~", "router~", "waypoint~"].iter().any(|proxy| node_id.starts_with(proxy))
        || vm_id.starts_with("envoyextensionpolicy/")
}

/// The property that holds the node's id.
pub(crate) const NODE_ID: &str = "xds\0node\0id";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_read_from_its_properties() {
        let expected = Node {
            cluster: "xds.node.cluster".to_owned(),
            canonical_name: "xds.node.metadata.LABELS.service.istio.io/canonical-name".to_owned(),
            canonical_revision: "xds.node.metadata.LABELS.service.istio.io/canonical-revision"
                .to_owned(),
            workload_name: "xds.node.metadata.WORKLOAD_NAME".to_owned(),
            namespace: "xds.node.metadata.NAMESPACE".to_owned(),
            pod_name: "xds.node.metadata.NAME".to_owned(),
            cluster_id: "xds.node.metadata.CLUSTER_ID".to_owned(),
        };
        assert_eq!(Node::read(&|path| path.replace('\0', ".")), expected);
    }

    #[test]
    fn istio_and_envoy_gateway_manage_their_proxies() {
        for (node_id, vm_id, gateway, managed) in [
            ("sidecar~10.0.0.1~cart-1.shop~shop.svc.cluster.local", "", false, true),
            ("router~10.0.0.1~gateway-1.istio-system~istio-system.svc", "", true, true),
            ("waypoint~10.0.0.1~waypoint-1.shop~shop.svc.cluster.local", "", false, true),
            ("envoy-1", "envoyextensionpolicy/default/sidespan/wasm/0", false, true),
            ("envoy-1", "sidespan", false, false),
            ("routers", "", false, false),
            ("", "", false, false),
        ] {
            assert_eq!((is_gateway(node_id), is_managed(node_id, vm_id)), (gateway, managed));
        }
    }
}
