//! What Envoy's node tells of the workload.

use super::host;
use crate::span::resource::Node;

/// Reads the node. Istio's metadata is missing elsewhere, and then empty.
pub fn node() -> Node {
    Node {
        cluster: text("xds\0node\0cluster"),
        canonical_name: text("xds\0node\0metadata\0LABELS\0service.istio.io/canonical-name"),
        canonical_revision: text(
            "xds\0node\0metadata\0LABELS\0service.istio.io/canonical-revision",
        ),
        workload_name: text("xds\0node\0metadata\0WORKLOAD_NAME"),
        namespace: text("xds\0node\0metadata\0NAMESPACE"),
        pod_name: text("xds\0node\0metadata\0NAME"),
        cluster_id: text("xds\0node\0metadata\0CLUSTER_ID"),
    }
}

/// Tells whether this Envoy is one of Istio's gateways. Their listeners are outbound ones by
/// name, though a gateway serves its clients as an inbound sidecar does.
pub fn is_gateway() -> bool {
    text("xds\0node\0id").starts_with("router~")
}

/// Tells whether Istio or Envoy Gateway configures this Envoy while it runs: Istio by the kind of
/// proxy in the node's id (`pkg/model/proxy.go`), Envoy Gateway by its name for the VM
/// (`internal/gatewayapi/envoyextensionpolicy.go`).
pub fn is_managed() -> bool {
    let id = text("xds\0node\0id");
    ["sidecar~", "router~", "waypoint~"].iter().any(|kind| id.starts_with(kind))
        || text("plugin_vm_id").starts_with("envoyextensionpolicy/")
}

/// Returns a property, and an empty text where it is absent.
pub fn text(path: &str) -> String {
    let bytes = host::property(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    bytes.unwrap_or_default()
}
