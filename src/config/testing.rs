//! Functions that the tests of all sections share.

use std::cell::RefCell;

use serde::de::value::Error;
use serde::de::{Deserialize, Deserializer, Error as _, Visitor};
use serde::forward_to_deserialize_any;

use super::{Config, ConfigError};

/// Parses a configuration in an environment with one variable.
pub fn parse(json: &str) -> Result<Config, ConfigError> {
    let environment = |name: &str| (name == "POD_NAME").then(|| "checkout-1".to_owned());
    Config::parse(json.as_bytes(), &environment)
}

/// Checks that a configuration is refused at `path`, and that the reason has the `findings` in this
/// order. Returns the whole error.
#[track_caller]
pub fn check_refused(json: &str, path: &str, findings: &[&str]) -> String {
    let error = parse(json).map(|_| json.to_owned()).unwrap_err().to_string();
    let (found, reason) = match error.split_once(": expected ") {
        Some((found, reason)) => (found, reason),
        None => ("", error.strip_prefix("expected ").unwrap()),
    };
    assert_eq!(found, path, "{json}: {error}");
    let mut rest = reason;
    for finding in findings {
        let (_, after) = rest.split_once(finding).unwrap_or_else(|| {
            panic!("{json}: expected {finding:?} in {rest:?}, but found {error}");
        });
        rest = after;
    }
    assert!(reason.contains(", but found "), "{error}");
    error
}

/// Returns a configuration whose second rule has this member beside its name.
pub fn rule(member: &str) -> String {
    format!(r#"{{"sampling": {{"rules": [{{"name": "a"}}, {{"name": "b", {member}}}]}}}}"#)
}

/// Returns a configuration with a custom tag that has this member beside its key.
pub fn tag(member: &str) -> String {
    format!(r#"{{"custom_tags": [{{"tag": "a", {member}}}]}}"#)
}

/// Returns the keys of a struct that derives `Deserialize`, with their aliases.
pub fn fields<T: for<'de> Deserialize<'de>>() -> Vec<&'static str> {
    let fields = RefCell::default();
    let _ = T::deserialize(FieldRecorder(&fields));
    fields.into_inner()
}

/// Tells whether a key is the camelCase alias of another one.
pub fn is_alias(key: &str) -> bool {
    key.contains(|char: char| char.is_ascii_uppercase())
}

/// A deserializer without a value, which records the fields that a struct asks for.
struct FieldRecorder<'f>(&'f RefCell<Vec<&'static str>>);

impl<'de> Deserializer<'de> for FieldRecorder<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("expected a struct"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        *self.0.borrow_mut() = fields.to_vec();
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
