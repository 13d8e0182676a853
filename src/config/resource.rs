//! `resource_attributes`: attributes of the resource, with fixed values or from the environment.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use super::error::{ConfigError, InPath, Result};
use super::shapes::{Entries, Environment, non_empty, public_variable};
use super::tags::source::{RawLiteral, RawNamed};

/// The value of a resource attribute: a string, or an object with one source.
pub(super) enum RawResourceValue {
    Text(String),
    Source(RawResourceSource),
}

/// The source of a resource attribute: exactly one of the two.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawResourceSource {
    /// A fixed value.
    pub literal: Option<RawLiteral>,
    /// The value of an environment variable of the VM. If the variable is missing and has no default
    /// value, the attribute is left out.
    pub environment: Option<RawNamed>,
}

impl<'de> Deserialize<'de> for RawResourceValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(ResourceValueVisitor)
    }
}

struct ResourceValueVisitor;

impl<'de> Visitor<'de> for ResourceValueVisitor {
    type Value = RawResourceValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, or an object with `literal` or `environment`")
    }

    fn visit_str<E>(self, text: &str) -> std::result::Result<RawResourceValue, E> {
        Ok(RawResourceValue::Text(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(
        self,
        map: A,
    ) -> std::result::Result<RawResourceValue, A::Error> {
        let source = RawResourceSource::deserialize(MapAccessDeserializer::new(map));
        source.map(RawResourceValue::Source)
    }
}

/// Returns the attributes that have a value, in the order of the text.
pub(super) fn compile(
    raw: Entries<RawResourceValue>,
    environment: Environment<'_>,
    secrets: &[String],
) -> Result<Vec<(String, String)>> {
    let mut attributes = Vec::with_capacity(raw.0.len());
    for (key, value) in raw.0 {
        if let Some(value) = value.compile(environment, secrets).under(&key)? {
            attributes.push((key, value));
        }
    }
    Ok(attributes)
}

impl RawResourceValue {
    fn compile(self, environment: Environment<'_>, secrets: &[String]) -> Result<Option<String>> {
        let source = match self {
            Self::Text(text) => return Ok(Some(text)),
            Self::Source(source) => source,
        };
        match (source.literal, source.environment) {
            (Some(literal), None) => Ok(Some(literal.value)),
            (None, Some(variable)) => {
                let name = non_empty(variable.name).under("name").under("environment")?;
                public_variable(&name, secrets).under("name").under("environment")?;
                Ok(environment(&name).or(variable.default_value))
            }
            (None, None) => Err(ConfigError::new("`literal` or `environment`", "neither")),
            (Some(_), Some(_)) => Err(ConfigError::new("`literal` or `environment`", "both")),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::testing::{check_refused, parse};

    #[track_caller]
    fn check(attributes: &str, expected: &[(&str, &str)]) {
        let json = format!(r#"{{"resource_attributes": {attributes}}}"#);
        let found = parse(&json).unwrap().resource.attributes;
        let found: Vec<_> = found.iter().map(|(key, value)| (&**key, &**value)).collect();
        assert_eq!(found, expected, "{json}");
    }

    #[test]
    fn values_are_fixed_or_from_the_environment() {
        check(r#"{"a": "b", "c": {"literal": {"value": "d"}}}"#, &[("a", "b"), ("c", "d")]);
        check(r#"{"p": {"environment": {"name": "POD_NAME"}}}"#, &[("p", "checkout-1")]);
        check(r#"{"p": {"environment": {"name": "ZONE", "default_value": "-"}}}"#, &[("p", "-")]);
        check(r#"{"p": {"environment": {"name": "ZONE"}}, "a": "b"}"#, &[("a", "b")]);
    }

    #[test]
    fn a_value_has_one_source() {
        for (value, path, finding) in [
            ("{}", "", "neither"),
            (r#"{"literal": {"value": "a"}, "environment": {"name": "A"}}"#, "", "both"),
            (r#"{"environment": {"name": ""}}"#, ".environment.name", "\"\""),
            (r#"{"environment": {}}"#, ".environment.name", "none"),
            (r#"{"header": {"name": "a"}}"#, ".header", ""),
            ("5", "", "5"),
            ("[]", "", "an array"),
        ] {
            let json = format!(r#"{{"resource_attributes": {{"a": {value}}}}}"#);
            check_refused(&json, &format!("resource_attributes.a{path}"), &[finding]);
        }
    }
}
