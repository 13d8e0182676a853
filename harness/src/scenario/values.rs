//! Values in a scenario for which YAML has no type: times, response flags, Envoy's attributes by path,
//! and values of span attributes.

use std::str::FromStr;

use serde::Deserialize;
use serde_json::Value;

/// A time in nanoseconds since 1970, written as RFC 3339.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct Timestamp(pub u64);

impl Default for Timestamp {
    /// 2026-01-01T00:00:00Z.
    fn default() -> Self {
        Self(1_767_225_600_000_000_000)
    }
}

impl TryFrom<String> for Timestamp {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let time = text.parse::<jiff::Timestamp>().ok();
        let nanoseconds = time.and_then(|time| u64::try_from(time.as_nanosecond()).ok());
        nanoseconds.map(Self).ok_or_else(|| {
            format!("expected a time such as 2026-01-01T00:00:00Z, but found {text:?}")
        })
    }
}

/// Envoy's response flags: their short names, such as `"UF,URX"`, or their bits as a number.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(try_from = "Value")]
pub(crate) struct ResponseFlags(pub(crate) u64);

impl TryFrom<Value> for ResponseFlags {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match (value.as_u64(), value.as_str()) {
            (Some(bits), _) => Ok(Self(bits)),
            (_, Some(names)) => names.parse(),
            _ => Err(format!(
                "expected response flags (short names with commas, or bits), but found {value}"
            )),
        }
    }
}

impl FromStr for ResponseFlags {
    type Err = String;

    fn from_str(names: &str) -> Result<Self, String> {
        let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
        let mut bits = names.map(|name| {
            let bit = RESPONSE_FLAGS.iter().position(|flag| *flag == name);
            let bit = bit
                .ok_or_else(|| format!("expected a response flag such as UF, but found {name:?}"));
            bit.map(|bit| 1 << bit)
        });
        bits.try_fold(0, |all, bit| bit.map(|bit: u64| all | bit)).map(Self)
    }
}

/// Values of Envoy's attributes by path. The parts of a path are separated by dots, and a part that
/// contains a dot is in brackets: `metadata.filter_metadata[envoy.lb].canary`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(try_from = "serde_json::Map<String, Value>")]
pub(crate) struct Properties(pub(crate) Vec<(Vec<String>, Value)>);

impl TryFrom<serde_json::Map<String, Value>> for Properties {
    type Error = String;

    fn try_from(values: serde_json::Map<String, Value>) -> Result<Self, String> {
        let parsed = values.into_iter().map(|(path, value)| Ok((parse_path(&path)?, value)));
        parsed.collect::<Result<_, String>>().map(Self)
    }
}

/// Parses a path into its parts: `path = name *("." name / "[" name "]")`.
fn parse_path(path: &str) -> Result<Vec<String>, String> {
    let found = || format!("expected a path such as a.b[c.d].e, but found {path:?}");
    let (mut parts, mut rest) = (Vec::new(), path);
    loop {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        parts.push(part);
        rest = after;
        while let Some(bracket) = rest.strip_prefix('[') {
            let (part, after) = bracket.split_once(']').ok_or_else(found)?;
            parts.push(part);
            rest = after;
        }
        if rest.is_empty() && parts.iter().all(|part| !part.is_empty() && !part.contains(']')) {
            return Ok(parts.into_iter().map(str::to_owned).collect());
        }
        rest = rest.strip_prefix('.').ok_or_else(found)?;
    }
}

/// Value of a span's attribute.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(try_from = "Value")]
pub(crate) enum AttributeValue {
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(String),
    List(Vec<AttributeValue>),
}

impl TryFrom<Value> for AttributeValue {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value {
            Value::Bool(value) => Ok(Self::Bool(value)),
            Value::String(text) => Ok(Self::Text(text)),
            Value::Array(items) => {
                items.into_iter().map(Self::try_from).collect::<Result<_, _>>().map(Self::List)
            }
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(value), _) => Ok(Self::Int(value)),
                (None, Some(value)) if number.is_f64() => Ok(Self::Double(value)),
                _ => Err(format!("expected a signed 64-bit number, but found {number}")),
            },
            Value::Null | Value::Object(_) => Err(format!(
                "expected the value of an attribute (text, number, true, false, or a list), but \
                 found {value}"
            )),
        }
    }
}

/// Short names of Envoy's core response flags; the index of a name is its bit
/// (`envoy/stream_info/stream_info.h`, `CoreResponseFlag`).
const RESPONSE_FLAGS: [&str; 30] = [
    "LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL", "UAEX", "RLSE", "DC",
    "URX", "SI", "IH", "DPE", "UMSDR", "RFCF", "NFCF", "DT", "UPE", "NC", "OM", "DF", "DO", "DR",
    "UDO",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, expected: Option<&[&str]>) {
        let found = parse_path(path);
        let parts = found.as_ref().ok().map(|parts| parts.iter().map(String::as_str).collect());
        assert_eq!(parts, expected.map(<[&str]>::to_vec), "{path}: {found:?}");
    }

    #[test]
    fn parts_are_separated_by_dots_or_in_brackets() {
        check("a", Some(&["a"]));
        check("a.b_c.d-e", Some(&["a", "b_c", "d-e"]));
        check("a.b[c.d].e", Some(&["a", "b", "c.d", "e"]));
        check("a[b][c.d]", Some(&["a", "b", "c.d"]));
    }

    #[test]
    fn malformed_paths_are_rejected() {
        for path in ["", ".", "a.", ".a", "a..b", "[a", "a]", "[a]", "a[]", "a[b]c", "a[b.c"] {
            check(path, None);
        }
    }
}
