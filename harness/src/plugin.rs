//! The filter's configuration as Envoy hands it over, in JSON. It comes from an Istio `WasmPlugin`, from a
//! file with the bare configuration, or from the scenario itself.

use std::path::Path;

use serde_json::{Map, Value};

use crate::scenario::Scenario;
use crate::yaml;

/// Settings of a VM that come from a plugin's manifest.
#[derive(Debug, Default, PartialEq)]
pub struct Plugin {
    /// JSON; empty if there is no configuration.
    pub(crate) configuration: Vec<u8>,
    /// Environment variables with inline values.
    pub environment: Vec<(String, String)>,
}

impl Plugin {
    /// Reads the plugin that a scenario names or contains. `file` is the scenario's path.
    pub(crate) fn of_scenario(scenario: &Scenario, file: &Path) -> Result<Self, yaml::Error> {
        match (&scenario.plugin, &scenario.config) {
            (Some(plugin), Some(_)) => Err(yaml::Error::at(
                file,
                plugin.referenced,
                "expected `plugin` or `config`, but found both",
            )),
            (None, config) => {
                Ok(Self { configuration: to_json(config.as_ref()), ..Self::default() })
            }
            (Some(plugin), None) => {
                let path = file.parent().unwrap_or(Path::new("")).join(&plugin.value);
                if !path.is_file() {
                    let reason = format!("expected a file, but found none at `{}`", path.display());
                    return Err(yaml::Error::at(file, plugin.referenced, reason));
                }
                Self::read(&path)
            }
        }
    }

    /// Reads a `WasmPlugin` or the bare configuration from a file.
    pub fn read(file: &Path) -> Result<Self, yaml::Error> {
        let document: Value = yaml::read(file)?;
        let error = |reason| yaml::Error { file: file.to_owned(), position: None, reason };
        Self::from_document(document).map_err(error)
    }

    /// Takes the configuration out of a manifest. A document without a `kind` is the bare configuration.
    fn from_document(mut document: Value) -> Result<Self, String> {
        let Some(kind) = document.get("kind") else {
            return Ok(Self { configuration: to_json(Some(&document)), ..Self::default() });
        };
        if kind != "WasmPlugin" {
            return Err(format!("expected the kind WasmPlugin, but found {kind}"));
        }
        let spec = document.get_mut("spec").and_then(Value::as_object_mut);
        let spec = spec.ok_or("expected a map under `spec`, but found none")?;
        let configuration = to_json(spec.get("pluginConfig"));
        let variables = spec.get("vmConfig").and_then(|vm| vm.get("env")).and_then(Value::as_array);
        let environment = variables
            .into_iter()
            .flatten()
            .filter_map(Value::as_object)
            .filter_map(inline_variable);
        Ok(Self { configuration, environment: environment.collect() })
    }
}

/// Returns a variable of `spec.vmConfig.env` that has a value. The scenario must set those that come
/// from the host.
fn inline_variable(variable: &Map<String, Value>) -> Option<(String, String)> {
    let text = |key| variable.get(key).and_then(Value::as_str);
    Some((text("name")?.to_owned(), text("value")?.to_owned()))
}

fn to_json(value: Option<&Value>) -> Vec<u8> {
    value
        .filter(|value| !value.is_null())
        .map(|value| value.to_string().into_bytes())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(yaml: &str, expected: Result<&str, &str>) {
        let document = yaml::parse(Path::new("plugin.yaml"), yaml).expect("the YAML of the test");
        let found = Plugin::from_document(document)
            .map(|plugin| String::from_utf8_lossy(&plugin.configuration).into_owned());
        assert_eq!(found.as_deref().map_err(String::as_str), expected, "{yaml}");
    }

    #[test]
    fn yaml_becomes_json_without_loss() {
        check("ratio: 1.0", Ok(r#"{"ratio":1.0}"#));
        check(
            "a: 18446744073709551615\nb: -1\nc: 1e-7",
            Ok(r#"{"a":18446744073709551615,"b":-1,"c":1e-7}"#),
        );
        check(
            "a: yes\nb: 'true'\nc: true\nd: \"1\"",
            Ok(r#"{"a":"yes","b":"true","c":true,"d":"1"}"#),
        );
        check("a: null\nb: []\nc: {}", Ok(r#"{"a":null,"b":[],"c":{}}"#));
        check("a: \"é\\u0000\\n\"", Ok("{\"a\":\"é\\u0000\\n\"}"));
        check("{}", Ok("{}"));
    }

    #[test]
    fn only_the_plugin_config_of_a_manifest_is_used() {
        check(
            "kind: WasmPlugin\nspec: {url: x, pluginConfig: {sampling: {ratio: 0}}}",
            Ok(r#"{"sampling":{"ratio":0}}"#),
        );
        check("kind: WasmPlugin\nspec: {url: x}", Ok(""));
        check(
            "kind: EnvoyFilter\nspec: {}",
            Err("expected the kind WasmPlugin, but found \"EnvoyFilter\""),
        );
        check("kind: WasmPlugin", Err("expected a map under `spec`, but found none"));
    }

    #[test]
    fn inline_variables_of_a_manifest_are_used() {
        let yaml = "kind: WasmPlugin\nspec: {vmConfig: {env: [{name: A, value: a}, {name: B, valueFrom: HOST}]}}";
        let plugin = Plugin::from_document(yaml::parse(Path::new("p"), yaml).expect("YAML"))
            .expect("a manifest");
        assert_eq!(plugin.environment, [("A".to_owned(), "a".to_owned())]);
    }
}
