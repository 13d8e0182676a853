//! Values of Envoy's attributes, and the bytes that a module gets for each.
//!
//! Envoy's `serializeValue` (`source/extensions/common/wasm/context.cc`): a text is its bytes, a
//! number a 64-bit little-endian integer or double, a boolean one byte, a map [`pairs`], a list
//! [`pairs`] whose names are the items.

use super::headers::Headers;
use super::pairs;
use super::status::Status;

/// Value of an attribute or of a CEL expression.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    /// An integer, or a time or duration in nanoseconds.
    Int(i64),
    Uint(u64),
    Double(f64),
    /// Text of any bytes: header values need not be UTF-8.
    Text(Vec<u8>),
    List(Vec<Value>),
    Map(Vec<(Vec<u8>, Value)>),
    /// A header map: each name once, in any case, with the joined values of its lines.
    Headers(Headers),
    /// A type of CEL, by its name.
    Type(&'static str),
    /// A message of Envoy's, such as `request`, by its path. Its fields can be read but not listed.
    Message(String),
}

/// Which numbers JSON numbers become.
#[derive(Clone, Copy)]
pub(crate) enum Numbers {
    /// Doubles only, as in a protobuf Struct such as the node's metadata.
    Double,
    /// Integers where the JSON number is one.
    Typed,
}

impl Value {
    pub(crate) fn text(text: impl Into<Vec<u8>>) -> Self {
        Self::Text(text.into())
    }

    pub(crate) fn from_json(json: &serde_json::Value, numbers: Numbers) -> Self {
        match json {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(value) => Self::Bool(*value),
            serde_json::Value::Number(number) => match (numbers, number.as_i64()) {
                (Numbers::Typed, Some(value)) => Self::Int(value),
                _ => Self::Double(number.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(text) => Self::text(text.as_str()),
            serde_json::Value::Array(items) => {
                Self::List(items.iter().map(|item| Self::from_json(item, numbers)).collect())
            }
            serde_json::Value::Object(fields) => Self::Map(
                fields
                    .iter()
                    .map(|(key, value)| (key.as_bytes().to_vec(), Self::from_json(value, numbers)))
                    .collect(),
            ),
        }
    }

    /// Returns a map's value by key or a list's item by index, as `proxy_get_property` walks a path.
    pub(crate) fn member(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => {
                entries.iter().find(|(key, _)| key == name.as_bytes()).map(|(_, value)| value)
            }
            Self::List(items) => items.get(name.parse::<usize>().ok()?),
            _ => None,
        }
    }

    /// Serialises the value. Like Envoy, it fails for a null, a type and a message.
    pub(crate) fn serialize(&self) -> Result<Vec<u8>, Status> {
        Ok(match self {
            Self::Null | Self::Type(_) | Self::Message(_) => {
                return Err(Status::SerializationFailure);
            }
            Self::Bool(value) => vec![u8::from(*value)],
            Self::Int(value) => value.to_le_bytes().to_vec(),
            Self::Uint(value) => value.to_le_bytes().to_vec(),
            Self::Double(value) => value.to_le_bytes().to_vec(),
            Self::Text(text) => text.clone(),
            Self::List(items) => {
                let items = items.iter().map(|item| Ok((item.serialize()?, Vec::new())));
                pairs::encode(&items.collect::<Result<Vec<_>, Status>>()?)
            }
            Self::Map(entries) => {
                let entries = entries.iter().map(|(key, value)| Ok((key, value.serialize()?)));
                pairs::encode(&entries.collect::<Result<Vec<_>, Status>>()?)
            }
            Self::Headers(headers) => {
                let mut entries: Vec<(&str, Vec<u8>)> = Vec::new();
                for (name, _) in headers.iter() {
                    if !entries.iter().any(|(known, _)| *known == name) {
                        entries.push((name, headers.joined(name).unwrap_or_default()));
                    }
                }
                pairs::encode(&entries)
            }
        })
    }
}
