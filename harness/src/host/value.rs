//! Values of Envoy's attributes with their types, and the bytes that a module gets of them.
//!
//! Envoy's `serializeValue` (`source/extensions/common/wasm/context.cc`): text is its bytes, a
//! number a 64-bit little-endian integer or double, a bool one byte, a map the ABI's pairs, a list
//! pairs whose names are the items.

use super::guest::Status;
use super::headers::Headers;

/// Value of an attribute or of a CEL expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    /// Also a time or a duration in nanoseconds.
    Int(i64),
    Uint(u64),
    Double(f64),
    /// Text of any bytes: header values need not be UTF-8.
    Text(Vec<u8>),
    List(Vec<Value>),
    Map(Vec<(Vec<u8>, Value)>),
    /// Header lines: a map with each name once, in any case, and the values of its lines joined.
    Headers(Headers),
    /// A map of Envoy's, named by its path, whose members can be read and not listed.
    Attributes(String),
}

/// How JSON numbers are typed: a protobuf Struct, such as the node's metadata, has doubles only.
#[derive(Clone, Copy)]
pub enum Numbers {
    Double,
    Typed,
}

impl Value {
    pub fn text(text: impl Into<Vec<u8>>) -> Self {
        Self::Text(text.into())
    }

    pub fn from_json(json: &serde_json::Value, numbers: Numbers) -> Self {
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

    /// Member of a map or item of a list by name or index, as `proxy_get_property` walks a path.
    pub fn part(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => {
                entries.iter().find(|(key, _)| key == name.as_bytes()).map(|(_, value)| value)
            }
            Self::List(items) => items.get(name.parse::<usize>().ok()?),
            _ => None,
        }
    }

    /// Serialises the value. Envoy cannot serialise a null or a map that it cannot list.
    pub fn serialize(&self) -> Result<Vec<u8>, Status> {
        Ok(match self {
            Self::Null | Self::Attributes(_) => return Err(Status::SerializationFailure),
            Self::Bool(value) => vec![u8::from(*value)],
            Self::Int(value) => value.to_le_bytes().to_vec(),
            Self::Uint(value) => value.to_le_bytes().to_vec(),
            Self::Double(value) => value.to_le_bytes().to_vec(),
            Self::Text(text) => text.clone(),
            Self::List(items) => {
                let items = items.iter().map(|item| Ok((item.serialize()?, Vec::new())));
                pairs(&items.collect::<Result<Vec<_>, Status>>()?)
            }
            Self::Map(entries) => {
                let entries = entries.iter().map(|(key, value)| Ok((key, value.serialize()?)));
                pairs(&entries.collect::<Result<Vec<_>, Status>>()?)
            }
            Self::Headers(headers) => {
                let mut entries: Vec<(&str, Vec<u8>)> = Vec::new();
                for (name, _) in headers.iter() {
                    if !entries.iter().any(|(known, _)| *known == name) {
                        entries.push((name, headers.joined(name).unwrap_or_default()));
                    }
                }
                pairs(&entries)
            }
        })
    }
}

/// Serialises pairs of any bytes as the ABI has them.
///
/// ```text
/// pairs = count (name-size value-size){count} (name NUL value NUL){count}   ; sizes: u32 little endian
/// ```
pub fn pairs<N: AsRef<[u8]>, V: AsRef<[u8]>>(pairs: &[(N, V)]) -> Vec<u8> {
    let mut bytes = (pairs.len() as u32).to_le_bytes().to_vec();
    for (name, value) in pairs {
        bytes.extend((name.as_ref().len() as u32).to_le_bytes());
        bytes.extend((value.as_ref().len() as u32).to_le_bytes());
    }
    for (name, value) in pairs {
        for text in [name.as_ref(), value.as_ref()] {
            bytes.extend(text);
            bytes.push(0);
        }
    }
    bytes
}
