//! The resource of all spans, from the configuration, the environment and Envoy's node.
//!
//! <https://opentelemetry.io/docs/specs/semconv/resource/>

use opentelemetry::KeyValue;
use percent_encoding::percent_decode_str;

use crate::span::attributes as key;

/// The part of the configuration that describes the resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceSettings {
    pub service_name: Option<String>,
    pub attributes: Vec<(String, String)>,
}

/// Facts about the workload from Envoy's node. A field is empty where the node does not have it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Node {
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

/// OpenTelemetry's environment variables that describe the resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResourceVariables {
    /// `OTEL_SERVICE_NAME`; empty where it is not set.
    pub service_name: String,
    /// `OTEL_RESOURCE_ATTRIBUTES`, decoded. A malformed list is ignored as a whole.
    pub attributes: Result<Vec<(String, String)>, String>,
}

impl ResourceVariables {
    /// Reads the variables. `environment` returns the value of one.
    ///
    /// <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#general-sdk-configuration>
    pub(crate) fn read(environment: &dyn Fn(&str) -> Option<String>) -> Self {
        let variable = |name| environment(name).unwrap_or_default();
        Self {
            service_name: variable(SERVICE_NAME_VARIABLE),
            attributes: attributes(&variable(ATTRIBUTES_VARIABLE)),
        }
    }
}

/// Decodes a list of attributes. One malformed attribute makes the whole list an error, as the
/// specification demands.
///
/// ```text
/// list      = [ attribute *( "," attribute ) [ "," ] ]
/// attribute = OWS key OWS "=" OWS value OWS           ; both percent-encoded
/// ```
///
/// <https://opentelemetry.io/docs/specs/otel/resource/sdk/#specifying-resource-information-via-an-environment-variable>
fn attributes(list: &str) -> Result<Vec<(String, String)>, String> {
    let decoded = |text: &str| match percent_decode_str(text.trim()).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err("UTF-8 in percent-encoding, but found other bytes"),
    };
    let attribute = |item: &str| {
        let (key, value) = item.split_once('=').ok_or("key=value, but found no =")?;
        let (key, value) = (decoded(key)?, decoded(value)?);
        if key.is_empty() { Err("a key before the =, but found none") } else { Ok((key, value)) }
    };
    let items = list.split(',').enumerate().filter(|(_, item)| !item.trim().is_empty());
    let read = items.map(|(index, item)| {
        // The value may be a secret, so it is not shown.
        attribute(item).map_err(|expected| {
            format!(
                "{ATTRIBUTES_VARIABLE}: item {}: expected {expected}; the whole variable is ignored",
                index + 1
            )
        })
    });
    read.collect()
}

/// Returns the attributes of the resource, each key once. The configuration wins over the
/// environment, and the environment over the node. Within each of the first two, `service_name` and
/// `OTEL_SERVICE_NAME` win over an attribute `service.name`.
pub(crate) fn resource(
    settings: &ResourceSettings,
    variables: &ResourceVariables,
    node: &Node,
) -> Vec<KeyValue> {
    let configured = settings.attributes.iter();
    let from_variables = variables.attributes.iter().flatten();
    let pair = |(key, value): &'_ (String, String)| (key.clone(), value.clone());
    let from_node = [
        (key::SERVICE_NAME, service_name_of(node)),
        (key::SERVICE_VERSION, &node.canonical_revision),
        (key::K8S_NAMESPACE_NAME, &node.namespace),
        (key::K8S_POD_NAME, &node.pod_name),
        (key::K8S_CLUSTER_NAME, &node.cluster_id),
    ];
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    let from_node = from_node.into_iter().filter(|(_, value)| !value.is_empty());
    let named = |name: Option<&str>| name.map(|name| owned((key::SERVICE_NAME, name)));
    let variable = Some(variables.service_name.as_str()).filter(|name| !name.is_empty());
    let all = named(settings.service_name.as_deref())
        .into_iter()
        .chain(configured.map(pair))
        .chain(named(variable))
        .chain(from_variables.map(pair))
        .chain(from_node.map(owned));
    let mut attributes: Vec<KeyValue> = Vec::new();
    for (key, value) in all {
        if !attributes.iter().any(|known| known.key.as_str() == key) {
            attributes.push(KeyValue::new(key, value));
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

const SERVICE_NAME_VARIABLE: &str = "OTEL_SERVICE_NAME";
const ATTRIBUTES_VARIABLE: &str = "OTEL_RESOURCE_ATTRIBUTES";
/// The default of OpenTelemetry's specification: `unknown_service:` and the name of the process.
const UNKNOWN_SERVICE: &str = "unknown_service:envoy";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// Checks the resource. `variables` are `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`.
    #[track_caller]
    fn check(
        config: &str,
        variables: [&str; 2],
        node: &Node,
        expected: &[(&'static str, &'static str)],
    ) {
        let config = Config::parse(config.as_bytes(), &|_| None).unwrap();
        let variables = ResourceVariables::read(&|name| match name {
            "OTEL_SERVICE_NAME" => Some(variables[0].to_owned()),
            "OTEL_RESOURCE_ATTRIBUTES" => Some(variables[1].to_owned()),
            _ => None,
        });
        let mut found = resource(&config.resource, &variables, node);
        found.sort_by(|a, b| a.key.cmp(&b.key));
        let expected: Vec<_> =
            expected.iter().map(|(key, value)| KeyValue::new(*key, *value)).collect();
        assert_eq!(found, expected);
    }

    const UNSET: [&str; 2] = ["", ""];

    #[test]
    fn the_first_name_that_exists_is_the_service_name() {
        let full = Node {
            cluster: "cluster".to_owned(),
            canonical_name: "canonical".to_owned(),
            workload_name: "workload".to_owned(),
            ..Node::default()
        };
        let without_canonical = Node { canonical_name: String::new(), ..full.clone() };
        let cluster_alone = Node { workload_name: String::new(), ..without_canonical.clone() };
        let attribute = r#""resource_attributes": {"service.name": "attribute"}"#;
        let both = format!(r#"{{"service_name": "name", {attribute}}}"#);
        let attribute = format!("{{{attribute}}}");
        let variables = ["variable", "service.name=listed"];
        check(&both, variables, &full, &[("service.name", "name")]);
        check(&attribute, variables, &full, &[("service.name", "attribute")]);
        check("{}", variables, &full, &[("service.name", "variable")]);
        check("{}", ["", "service.name=listed"], &full, &[("service.name", "listed")]);
        check("{}", UNSET, &full, &[("service.name", "canonical")]);
        check("{}", UNSET, &without_canonical, &[("service.name", "workload")]);
        check("{}", UNSET, &cluster_alone, &[("service.name", "cluster")]);
        check("{}", UNSET, &Node::default(), &[("service.name", "unknown_service:envoy")]);
    }

    #[test]
    fn the_configuration_wins_over_the_environment_and_that_over_the_node() {
        let node = Node {
            namespace: "shop".to_owned(),
            pod_name: "pod".to_owned(),
            cluster_id: "east".to_owned(),
            ..Node::default()
        };
        check(
            r#"{"service_name": "name", "resource_attributes": {"k8s.namespace.name": "other", "a": "b"}}"#,
            ["", "k8s.namespace.name=listed,k8s.pod.name=listed,c=d"],
            &node,
            &[
                ("a", "b"),
                ("c", "d"),
                ("k8s.cluster.name", "east"),
                ("k8s.namespace.name", "other"),
                ("k8s.pod.name", "listed"),
                ("service.name", "name"),
            ],
        );
    }

    #[test]
    fn lists_follow_the_specification() {
        for (list, expected) in [
            ("", Ok(&[][..])),
            ("a=b", Ok(&[("a", "b")][..])),
            (" a = b , c= ,", Ok(&[("a", "b"), ("c", "")])),
            ("a=b=c", Ok(&[("a", "b=c")])),
            ("team=caf%C3%A9,path=%2Fa%2Cb", Ok(&[("team", "caf\u{e9}"), ("path", "/a,b")])),
            ("a=100%", Ok(&[("a", "100%")])),
            ("a=b,c", Err("item 2: expected key=value, but found no =")),
            ("a=b,=c", Err("item 2: expected a key before the =, but found none")),
            ("a=%ff", Err("item 1: expected UTF-8 in percent-encoding, but found other bytes")),
        ] {
            let found = attributes(list);
            match expected {
                Ok(expected) => {
                    let found = found.unwrap();
                    let found: Vec<_> = found.iter().map(|(k, v)| (&**k, &**v)).collect();
                    assert_eq!(found, expected, "{list}");
                }
                Err(expected) => {
                    let error = found.unwrap_err();
                    assert!(error.contains(expected), "{list}: {error}");
                }
            }
        }
    }
}
