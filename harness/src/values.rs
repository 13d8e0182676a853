//! Values in a scenario that YAML has no type for: times, response flags, Envoy's attributes by
//! path, attribute values.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

/// A time in nanoseconds since 1970, written as RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamp(pub u64);

impl Default for Timestamp {
    /// 2026-01-01T00:00:00Z.
    fn default() -> Self {
        Self(1_767_225_600_000_000_000)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = text.parse::<jiff::Timestamp>().ok();
        let nanoseconds = time.and_then(|time| u64::try_from(time.as_nanosecond()).ok());
        let expected =
            || format!("expected a time such as 2026-01-01T00:00:00Z, but found {text:?}");
        nanoseconds.map(Self).ok_or_else(|| D::Error::custom(expected()))
    }
}

/// Envoy's response flags as bits, written as such or by their short names: `"UF,URX"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseFlags(pub u64);

impl<'de> Deserialize<'de> for ResponseFlags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FlagsVisitor;

        impl Visitor<'_> for FlagsVisitor {
            type Value = ResponseFlags;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("response flags (short names with commas, or bits)")
            }

            fn visit_u64<E: Error>(self, bits: u64) -> Result<ResponseFlags, E> {
                Ok(ResponseFlags(bits))
            }

            fn visit_i64<E: Error>(self, bits: i64) -> Result<ResponseFlags, E> {
                let bits = u64::try_from(bits);
                bits.map(ResponseFlags)
                    .map_err(|_| E::custom("expected response flags, but found less than 0"))
            }

            fn visit_str<E: Error>(self, names: &str) -> Result<ResponseFlags, E> {
                let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
                let mut bits = names.map(|name| {
                    let bit = RESPONSE_FLAGS.iter().position(|flag| *flag == name);
                    let bit = bit.ok_or_else(|| {
                        format!("expected a response flag such as UF, but found {name:?}")
                    });
                    bit.map(|bit| 1 << bit)
                });
                let bits = bits.try_fold(0, |all, bit| bit.map(|bit: u64| all | bit));
                bits.map(ResponseFlags).map_err(E::custom)
            }
        }

        deserializer.deserialize_any(FlagsVisitor)
    }
}

/// Values of Envoy's attributes by the parts of their paths, written with dots between; a part that
/// has a dot itself is in brackets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Properties(pub Vec<(Vec<String>, serde_json::Value)>);

impl<'de> Deserialize<'de> for Properties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let values = serde_json::Map::deserialize(deserializer)?;
        let parsed = values.into_iter().map(|(path, value)| Ok((parse_path(&path)?, value)));
        parsed.collect::<Result<_, String>>().map(Self).map_err(D::Error::custom)
    }
}

/// Reads `name *("." name / "[" name "]")`.
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

/// Value of an attribute of a span.
#[derive(Clone, Debug, PartialEq)]
pub enum AttributeValue {
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(String),
    List(Vec<AttributeValue>),
}

impl<'de> Deserialize<'de> for AttributeValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;

        impl<'de> Visitor<'de> for ValueVisitor {
            type Value = AttributeValue;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an attribute's value (text, number, true, false, or a list)")
            }

            fn visit_bool<E>(self, value: bool) -> Result<AttributeValue, E> {
                Ok(AttributeValue::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<AttributeValue, E> {
                Ok(AttributeValue::Int(value))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<AttributeValue, E> {
                let found = |_| {
                    E::custom(format!("expected a number of 64 bits with sign, but found {value}"))
                };
                i64::try_from(value).map(AttributeValue::Int).map_err(found)
            }

            fn visit_f64<E>(self, value: f64) -> Result<AttributeValue, E> {
                Ok(AttributeValue::Double(value))
            }

            fn visit_str<E>(self, value: &str) -> Result<AttributeValue, E> {
                Ok(AttributeValue::Text(value.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<AttributeValue, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = seq.next_element()? {
                    values.push(value);
                }
                Ok(AttributeValue::List(values))
            }
        }

        deserializer.deserialize_any(ValueVisitor)
    }
}

/// Short names of Envoy's core response flags; the place is the bit
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
    fn paths_have_dots_between_their_parts() {
        check("a", Some(&["a"]));
        check("a.b_c.d-e", Some(&["a", "b_c", "d-e"]));
        check("a.b[c.d].e", Some(&["a", "b", "c.d", "e"]));
        check("a[b][c.d]", Some(&["a", "b", "c.d"]));
    }

    #[test]
    fn paths_that_say_less_than_a_name_are_refused() {
        for path in ["", ".", "a.", ".a", "a..b", "[a", "a]", "[a]", "a[]", "a[b]c", "a[b.c"] {
            check(path, None);
        }
    }
}
