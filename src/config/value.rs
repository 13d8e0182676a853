//! A JSON value: the step between the text and the raw structs.
//!
//! [`Value`] is stricter than serde_json's own value: an object has each key once, a struct is read
//! from an object only, and an enum from a name only. It is also more lenient: a whole number may be
//! written as a double, since Istio's `pluginConfig` passes through a protobuf `Struct`, which stores
//! every number as a double.

use std::fmt;
use std::iter::Enumerate;
use std::vec::IntoIter;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer,
    MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::error::{ConfigError, InPath, OBJECT, Result, one_of, quoted};
use crate::http::digits;

/// A JSON value. The keys of an object stay in the order of the text.
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(f64),
    String(String),
    Array(Vec<Value>),
    Object(Vec<(String, Value)>),
}

impl Value {
    /// Deserializes the value. An error has the path of the wrong value.
    pub(super) fn read<T: DeserializeOwned>(self) -> Result<T> {
        T::deserialize(self)
    }

    /// Returns the error that the value is not `expected`.
    #[inline(never)]
    fn unlike(&self, expected: &str) -> ConfigError {
        let found = match self {
            Self::Null => "null",
            Self::Bool(true) => "true",
            Self::Bool(false) => "false",
            Self::Number(number) => &digits::float(*number),
            Self::String(text) => &quoted(text),
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        };
        ConfigError::new(expected, found)
    }

    /// Returns the error that the value is not an array or an object. A string or a number is not
    /// shown: in place of the exporter's headers, or of a token's keys, it may be a secret.
    #[inline(never)]
    fn unlike_shape(&self, expected: &str) -> ConfigError {
        match self {
            Self::String(_) => ConfigError::new(expected, "a string"),
            Self::Number(_) => ConfigError::new(expected, "a number"),
            other => other.unlike(expected),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> std::result::Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, number: u64) -> std::result::Result<Value, E> {
        Ok(Value::Number(number as f64))
    }

    fn visit_i64<E>(self, number: i64) -> std::result::Result<Value, E> {
        Ok(Value::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> std::result::Result<Value, E> {
        Ok(Value::Number(number))
    }

    fn visit_str<E>(self, text: &str) -> std::result::Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Value, A::Error> {
        let mut entries: Vec<(String, Value)> = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if entries.iter().any(|(known, _)| *known == key) {
                map.next_value::<Duplicate>()?;
            }
            entries.push((key, map.next_value()?));
        }
        Ok(Value::Object(entries))
    }
}

/// The value of a repeated key. Reading it always fails, so that the path of the error has the key.
struct Duplicate;

impl<'de> Deserialize<'de> for Duplicate {
    fn deserialize<D: Deserializer<'de>>(_: D) -> std::result::Result<Self, D::Error> {
        Err(de::Error::custom("expected the key once, but found it twice"))
    }
}

impl<'de> Deserializer<'de> for Value {
    type Error = ConfigError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self {
            Self::Null => visitor.visit_unit(),
            Self::Bool(value) => visitor.visit_bool(value),
            Self::Number(number) => visitor.visit_f64(number),
            Self::String(text) => visitor.visit_string(text),
            Self::Array(values) => visitor.visit_seq(Elements::new(values)),
            Self::Object(entries) => visitor.visit_map(Members::new(entries)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self {
            Self::Null => visitor.visit_none(),
            some => visitor.visit_some(some),
        }
    }

    // Each method calls only the visitor's methods that can succeed: every other call would add code to
    // the module.

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self {
            Self::Bool(value) => visitor.visit_bool(value),
            other => Err(other.unlike("true or false")),
        }
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self {
            Self::Number(number) if f64::from(number as u32) == number => {
                visitor.visit_u32(number as u32)
            }
            other => Err(other.unlike("a whole number from 0 to 4294967295")),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self {
            Self::Number(number) => visitor.visit_f64(number),
            other => Err(other.unlike("a number")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self {
            Self::String(text) => visitor.visit_string(text),
            other => Err(other.unlike("a string")),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self {
            Self::Array(values) => visitor.visit_seq(Elements::new(values)),
            other => Err(other.unlike_shape("an array")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self {
            Self::Object(entries) => visitor.visit_map(Members::new(entries)),
            other => Err(other.unlike_shape(OBJECT)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        match self {
            Self::String(name) if variants.contains(&name.as_str()) => {
                visitor.visit_enum(name.into_deserializer())
            }
            other => Err(other.unlike(&one_of(variants))),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u64 u128 f32 char str bytes byte_buf unit
        unit_struct newtype_struct tuple tuple_struct identifier ignored_any
    }
}

/// The elements of an array. Puts the index in front of an error's path.
struct Elements(Enumerate<IntoIter<Value>>);

impl Elements {
    fn new(values: Vec<Value>) -> Self {
        Self(values.into_iter().enumerate())
    }
}

impl<'de> SeqAccess<'de> for Elements {
    type Error = ConfigError;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        match self.0.next() {
            Some((index, value)) => seed.deserialize(value).map(Some).at(index),
            None => Ok(None),
        }
    }
}

/// The members of an object. Puts the key, as it is written, in front of an error's path.
struct Members {
    rest: IntoIter<(String, Value)>,
    /// The member whose key was read last.
    current: (String, Value),
}

impl Members {
    fn new(entries: Vec<(String, Value)>) -> Self {
        Self { rest: entries.into_iter(), current: (String::new(), Value::Null) }
    }
}

impl<'de> MapAccess<'de> for Members {
    type Error = ConfigError;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        let Some(member) = self.rest.next() else {
            return Ok(None);
        };
        self.current = member;
        let (key, _) = &self.current;
        seed.deserialize(StrDeserializer::new(key)).map(Some).under(key)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value> {
        let (key, value) = std::mem::replace(&mut self.current, (String::new(), Value::Null));
        seed.deserialize(value).under(&key)
    }
}
