//! The resource of all spans: what the configuration says, else what Envoy's node says.
//!
//! <https://opentelemetry.io/docs/specs/semconv/resource/>

use opentelemetry::KeyValue;

use crate::attributes as key;

/// What Envoy's node tells; empty where it does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// `node.cluster`.
    pub cluster: String,
    /// Istio's label `service.istio.io/canonical-name`.
    pub canonical_name: String,
    /// Istio's label `service.istio.io/canonical-revision`.
    pub canonical_revision: String,
    /// Istio's `WORKLOAD_NAME`.
    pub workload_name: String,
    /// Istio's `NAMESPACE`.
    pub namespace: String,
    /// Istio's `NAME`.
    pub pod_name: String,
    /// Istio's `CLUSTER_ID`.
    pub cluster_id: String,
}

/// Returns the attributes, each key once. What is configured wins over the node, and
/// `service_name` over `service.name` among the configured attributes.
pub fn resource(
    service_name: Option<&str>,
    configured: &[(String, String)],
    node: &Node,
) -> Vec<KeyValue> {
    let from_config = service_name.map(|name| (key::SERVICE_NAME, name));
    let from_config = from_config
        .into_iter()
        .chain(configured.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    let from_node = [
        (key::SERVICE_NAME, service_name_of(node)),
        (key::SERVICE_VERSION, &node.canonical_revision),
        (key::K8S_NAMESPACE_NAME, &node.namespace),
        (key::K8S_POD_NAME, &node.pod_name),
        (key::K8S_CLUSTER_NAME, &node.cluster_id),
    ];
    let from_node = from_node.into_iter().filter(|(_, value)| !value.is_empty());
    let mut attributes: Vec<KeyValue> = Vec::new();
    for (key, value) in from_config.chain(from_node) {
        if !attributes.iter().any(|known| known.key.as_str() == key) {
            attributes.push(KeyValue::new(key.to_owned(), value.to_owned()));
        }
    }
    attributes
}

fn service_name_of(node: &Node) -> &str {
    [&node.canonical_name, &node.workload_name, &node.cluster]
        .into_iter()
        .find(|name| !name.is_empty())
        .map_or(UNKNOWN_SERVICE, String::as_str)
}

/// The SDK specification's default: `unknown_service:` and the process.
const UNKNOWN_SERVICE: &str = "unknown_service:envoy";
