//! Functions of CEL, and the names of its types.
//! <https://github.com/google/cel-spec/blob/master/doc/langdef.md#list-of-standard-definitions>

use regex::bytes::Regex;

use super::FAILED;
use crate::host::status::Status;
use crate::host::value::Value;

/// A function that Envoy has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Function {
    Contains,
    Double,
    EndsWith,
    Int,
    Matches,
    Size,
    StartsWith,
    String,
    Type,
    Uint,
    /// A function that this host only compiles: calls of it fail.
    Other,
}

impl Function {
    /// Returns a function that is called as `name(a)`.
    pub(super) fn global(name: &str) -> Option<Self> {
        Some(match name {
            "double" => Self::Double,
            "int" => Self::Int,
            "matches" => Self::Matches,
            "size" => Self::Size,
            "string" => Self::String,
            "type" => Self::Type,
            "uint" => Self::Uint,
            "bytes" | "duration" | "dyn" | "timestamp" => Self::Other,
            _ => return None,
        })
    }

    /// Returns a function that is called as `a.name(b)`.
    pub(super) fn method(name: &str) -> Option<Self> {
        Some(match name {
            "contains" => Self::Contains,
            "endsWith" => Self::EndsWith,
            "matches" => Self::Matches,
            "size" => Self::Size,
            "startsWith" => Self::StartsWith,
            _ if OF_TIME.contains(&name) => Self::Other,
            _ => return None,
        })
    }

    /// Applies the function. It fails for values of other types, and where the result has no value.
    pub(super) fn apply(self, arguments: &[Value]) -> Result<Value, Status> {
        let value = match (self, arguments) {
            (Self::Contains, [Value::Text(text), Value::Text(part)]) => {
                let has = part.is_empty() || text.windows(part.len()).any(|window| window == part);
                Some(Value::Bool(has))
            }
            (Self::StartsWith, [Value::Text(text), Value::Text(part)]) => {
                Some(Value::Bool(text.starts_with(part)))
            }
            (Self::EndsWith, [Value::Text(text), Value::Text(part)]) => {
                Some(Value::Bool(text.ends_with(part)))
            }
            (Self::Matches, [Value::Text(text), Value::Text(pattern)]) => {
                let regex = str::from_utf8(pattern).ok().and_then(|it| Regex::new(it).ok());
                regex.map(|regex| Value::Bool(regex.is_match(text)))
            }
            (Self::Size, [value]) => size(value).map(|size| Value::Int(size as i64)),
            (Self::Type, [value]) => type_of(value).map(Value::Type),
            (Self::String, [value]) => string(value).map(Value::Text),
            (Self::Int, [Value::Int(value)]) => Some(Value::Int(*value)),
            (Self::Int, [Value::Uint(value)]) => i64::try_from(*value).ok().map(Value::Int),
            (Self::Int, [Value::Double(value)]) => Some(Value::Int(*value as i64)),
            (Self::Int, [Value::Text(text)]) => parsed(text).map(Value::Int),
            (Self::Uint, [Value::Uint(value)]) => Some(Value::Uint(*value)),
            (Self::Uint, [Value::Int(value)]) => u64::try_from(*value).ok().map(Value::Uint),
            (Self::Uint, [Value::Text(text)]) => parsed(text).map(Value::Uint),
            (Self::Double, [Value::Double(value)]) => Some(Value::Double(*value)),
            (Self::Double, [Value::Int(value)]) => Some(Value::Double(*value as f64)),
            (Self::Double, [Value::Uint(value)]) => Some(Value::Double(*value as f64)),
            (Self::Double, [Value::Text(text)]) => parsed(text).map(Value::Double),
            _ => None,
        };
        value.ok_or(FAILED)
    }
}

/// Returns the type that an identifier names.
pub(super) fn type_by_name(name: &str) -> Option<&'static str> {
    TYPES.into_iter().find(|known| *known == name)
}

fn type_of(value: &Value) -> Option<&'static str> {
    Some(match value {
        Value::Null => "null_type",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int",
        Value::Uint(_) => "uint",
        Value::Double(_) => "double",
        Value::Text(_) => "string",
        Value::List(_) => "list",
        Value::Map(_) | Value::Headers(_) | Value::Message(_) => "map",
        Value::Type(_) => return None,
    })
}

fn size(value: &Value) -> Option<usize> {
    Some(match value {
        Value::Text(text) => String::from_utf8_lossy(text).chars().count(),
        Value::List(items) => items.len(),
        Value::Map(entries) => entries.len(),
        Value::Headers(headers) => headers.iter().count(),
        _ => return None,
    })
}

fn string(value: &Value) -> Option<Vec<u8>> {
    let text = match value {
        Value::Text(text) => return Some(text.clone()),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Double(value) => value.to_string(),
        _ => return None,
    };
    Some(text.into_bytes())
}

fn parsed<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    str::from_utf8(text).ok()?.parse().ok()
}

const TYPES: [&str; 8] = ["bool", "double", "int", "list", "map", "null_type", "string", "uint"];
/// Functions of timestamps and durations.
const OF_TIME: [&str; 10] = [
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
];
