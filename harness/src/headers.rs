//! Header lines in a scenario: a map for the usual, a list for repeated lines and for values that
//! are not text.

use std::fmt;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor, value};

use crate::host::Headers;

/// Header lines, written as a map or as a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderLines(pub Vec<Header>);

/// One line, written as `{name, value}` or `{name, value_hex}`, in JSON also as `[name, value]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "RawHeader")]
pub struct Header {
    /// In lower case.
    pub name: String,
    pub value: HeaderValue,
}

/// Value of a line: text, in which an expectation may have captures, or any bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderValue {
    Text(String),
    Bytes(Vec<u8>),
}

/// The headers that somebody must get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ExpectedHeaders {
    /// What was sent, line by line.
    #[default]
    Unchanged,
    Lines(HeaderLines),
}

impl HeaderLines {
    /// The lines as they go to the filter.
    pub fn to_headers(&self) -> impl Iterator<Item = (&str, Vec<u8>)> {
        self.0.iter().map(|line| (line.name.as_str(), line.value.to_bytes()))
    }
}

impl HeaderValue {
    fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.clone().into_bytes(),
            Self::Bytes(bytes) => bytes.clone(),
        }
    }
}

/// Shows a value as a scenario would: text as it is, else its bytes in hex.
pub fn show_value(bytes: &[u8]) -> HeaderValue {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => HeaderValue::Text(text.to_owned()),
        _ => HeaderValue::Bytes(bytes.to_vec()),
    }
}

/// Shows header lines as a scenario would.
pub fn show(headers: &Headers) -> Vec<Header> {
    headers
        .iter()
        .map(|(name, value)| Header { name: name.to_owned(), value: show_value(value) })
        .collect()
}

/// Bytes in lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

impl<'de> Deserialize<'de> for HeaderLines {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LinesVisitor)
    }
}

impl<'de> Deserialize<'de> for ExpectedHeaders {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ExpectedVisitor)
    }
}

/// Written by hand: with `serde(untagged)` errors lose their place, and a value such as `007` is
/// read as a number.
struct LinesVisitor;

impl<'de> Visitor<'de> for LinesVisitor {
    type Value = HeaderLines;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("header lines (a map, or a list of {name, value})")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<HeaderLines, A::Error> {
        let mut lines = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, String>()? {
            lines.push(Header { name: name.to_ascii_lowercase(), value: HeaderValue::Text(value) });
        }
        Ok(HeaderLines(lines))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<HeaderLines, A::Error> {
        Vec::deserialize(value::SeqAccessDeserializer::new(seq)).map(HeaderLines)
    }
}

struct ExpectedVisitor;

impl<'de> Visitor<'de> for ExpectedVisitor {
    type Value = ExpectedHeaders;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("header lines (a map, or a list of {name, value}) or `unchanged`")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ExpectedHeaders, E> {
        if text == "unchanged" {
            Ok(ExpectedHeaders::Unchanged)
        } else {
            Err(E::custom(format!("expected header lines or `unchanged`, but found {text:?}")))
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ExpectedHeaders, A::Error> {
        LinesVisitor.visit_map(map).map(ExpectedHeaders::Lines)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<ExpectedHeaders, A::Error> {
        LinesVisitor.visit_seq(seq).map(ExpectedHeaders::Lines)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHeader {
    name: String,
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    value_hex: Option<String>,
}

impl TryFrom<RawHeader> for Header {
    type Error = String;

    fn try_from(raw: RawHeader) -> Result<Self, String> {
        let value = match (raw.value, raw.value_hex) {
            (Some(text), None) => HeaderValue::Text(text),
            (None, Some(digits)) => {
                let bytes = HEXLOWER_PERMISSIVE.decode(digits.as_bytes());
                HeaderValue::Bytes(
                    bytes.map_err(|_| {
                        format!("expected pairs of hex digits, but found {digits:?}")
                    })?,
                )
            }
            (None, None) => return Err("expected `value` or `value_hex`, but found neither".into()),
            (Some(_), Some(_)) => {
                return Err("expected `value` or `value_hex`, but found both".into());
            }
        };
        Ok(Self { name: raw.name.to_ascii_lowercase(), value })
    }
}
