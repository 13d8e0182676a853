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

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(
        service_name: Option<&str>,
        configured: &[(&str, &str)],
        node: &Node,
        expected: &[(&'static str, &'static str)],
    ) {
        let configured: Vec<_> =
            configured.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let mut found = resource(service_name, &configured, node);
        found.sort_by(|a, b| a.key.cmp(&b.key));
        let expected: Vec<_> =
            expected.iter().map(|(key, value)| KeyValue::new(*key, *value)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_service_is_called_by_the_first_name_there_is() {
        let full = Node {
            cluster: "cluster".to_owned(),
            canonical_name: "canonical".to_owned(),
            workload_name: "workload".to_owned(),
            ..Node::default()
        };
        let without_canonical = Node { canonical_name: String::new(), ..full.clone() };
        let cluster_alone = Node { workload_name: String::new(), ..without_canonical.clone() };
        let configured = [("service.name", "attribute")];
        check(Some("name"), &configured, &full, &[("service.name", "name")]);
        check(None, &configured, &full, &[("service.name", "attribute")]);
        check(None, &[], &full, &[("service.name", "canonical")]);
        check(None, &[], &without_canonical, &[("service.name", "workload")]);
        check(None, &[], &cluster_alone, &[("service.name", "cluster")]);
        check(None, &[], &Node::default(), &[("service.name", "unknown_service:envoy")]);
    }

    #[test]
    fn the_configuration_wins_over_the_node() {
        let node = Node { namespace: "shop".to_owned(), ..Node::default() };
        let configured = [("k8s.namespace.name", "other"), ("a", "b")];
        check(
            Some("name"),
            &configured,
            &node,
            &[("a", "b"), ("k8s.namespace.name", "other"), ("service.name", "name")],
        );
    }
}
