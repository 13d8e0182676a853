//! Header lines in a scenario: a map, or a list for repeated names and for values that are not text.
//!
//! ```yaml
//! headers: {x-user-id: u-1}
//! headers: [{name: x-tag, value: a}, {name: x-tag, value_hex: ff00}]
//! ```

use std::fmt;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::Deserialize;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::host::Headers;

/// Header lines in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeaderLines(pub(crate) Vec<Header>);

/// One header line: `{name, value}` or `{name, value_hex}`, in JSON also `[name, value]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "RawHeader")]
pub(crate) struct Header {
    /// In lower case.
    pub(crate) name: String,
    pub(crate) value: HeaderValue,
}

/// Value of a header line: text, with captures if it is expected, or any bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeaderValue {
    Text(String),
    Bytes(Vec<u8>),
}

/// Expected headers of a message after the filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ExpectedHeaders {
    /// The same lines as before the filter.
    #[default]
    Unchanged,
    Lines(HeaderLines),
}

impl HeaderLines {
    /// Iterates over the names of the lines and the bytes of their values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, Vec<u8>)> {
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

/// Reads headers or trailers of a request or a response, which have keys of their own for pseudo headers.
pub(super) fn without_pseudo_headers<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<HeaderLines, D::Error> {
    let lines = HeaderLines::deserialize(deserializer)?;
    match lines.0.iter().find(|line| line.name.starts_with(':')) {
        Some(Header { name, .. }) => Err(D::Error::custom(format_args!(
            "expected no pseudo header (requests have the keys `method`, `scheme`, `authority` and `path`, responses \
             have `status`), but found \"{name}\""
        ))),
        None => Ok(lines),
    }
}

/// Converts a value to a scenario's: text, or bytes if it is not UTF-8 or has control characters.
pub(crate) fn value(bytes: &[u8]) -> HeaderValue {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => HeaderValue::Text(text.to_owned()),
        _ => HeaderValue::Bytes(bytes.to_vec()),
    }
}

/// Converts headers to the lines of a scenario.
pub(crate) fn lines(headers: &Headers) -> Vec<Header> {
    headers
        .iter()
        .map(|(name, bytes)| Header { name: name.to_owned(), value: value(bytes) })
        .collect()
}

/// Formats bytes as lower-case hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
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

/// Written by hand: with `serde(untagged)`, errors lose their line, and a value such as `007` becomes a
/// number.
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
        Vec::deserialize(SeqAccessDeserializer::new(seq)).map(HeaderLines)
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
