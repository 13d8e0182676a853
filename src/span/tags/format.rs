//! Format strings: the part of Envoy's substitution format that tags take.
//!
//! ```text
//! format    = *( text / "%%" / "%" command [ "(" argument ")" [ ":" length ] ] "%" )
//! command   = 1*( A-Z / "_" / 0-9 )
//! argument  = *( any but ")" )       ; of REQ, RESP, TRAILER: name [ "?" name ]
//! ```
//!
//! <https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage>

use super::source::{Lookup, Source};
use super::value::TagValue;
use crate::http::digits;
use crate::span::text::first_chars;

/// A part of a compiled format string.
#[derive(Debug, Clone)]
pub enum Part {
    Text(String),
    /// The first source that has a value, cut to `max_length` characters.
    Value {
        sources: Vec<Source>,
        max_length: Option<u32>,
    },
}

impl Part {
    pub fn sources(&self) -> &[Source] {
        match self {
            Self::Text(_) => &[],
            Self::Value { sources, .. } => sources,
        }
    }

    pub fn sources_mut(&mut self) -> &mut [Source] {
        match self {
            Self::Text(_) => &mut [],
            Self::Value { sources, .. } => sources,
        }
    }
}

/// A part of a format string that is split, but not compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParsedPart<'t> {
    Text(&'t str),
    Command { name: &'t str, argument: Option<&'t str>, max_length: Option<u32> },
}

/// Splits the first part off a format string that is not empty. Returns the part and the rest, or
/// `None` where the text is not [`EXPECTED`].
pub fn split_part(format: &str) -> Option<(ParsedPart<'_>, &str)> {
    let Some(text) = format.strip_prefix('%') else {
        let (text, rest) = split_before(format, |byte| byte == b'%');
        return Some((ParsedPart::Text(text), rest));
    };
    if let Some(rest) = text.strip_prefix('%') {
        return Some((ParsedPart::Text("%"), rest));
    }
    let is_name = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    let (name, mut rest) = split_before(text, |byte| !is_name(byte));
    let (mut argument, mut max_length) = (None, None);
    if let Some(after) = rest.strip_prefix('(') {
        let (inner, after) = split_before(after, |byte| byte == b')');
        (argument, rest) = (Some(inner), after.strip_prefix(')')?);
        if let Some(after) = rest.strip_prefix(':') {
            let (length, after) = split_before(after, |byte| byte == b'%');
            (max_length, rest) = (Some(digits::decimal(length.as_bytes())?), after);
        }
    }
    let rest = rest.strip_prefix('%')?;
    (!name.is_empty()).then_some((ParsedPart::Command { name, argument, max_length }, rest))
}

/// Splits a text before the first byte for which `is_end` holds; such a byte is ASCII.
fn split_before(text: &str, is_end: impl Fn(u8) -> bool) -> (&str, &str) {
    let end = text.bytes().position(is_end).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// Joins the parts of a format string.
pub(super) fn text(parts: &[Part], lookup: Lookup<'_, '_>) -> Vec<u8> {
    let mut text = Vec::new();
    for part in parts {
        match part {
            Part::Text(literal) => text.extend_from_slice(literal.as_bytes()),
            Part::Value { sources, max_length } => {
                let value = sources.iter().find_map(|source| source.find(lookup));
                let Some(value) = value.map(TagValue::into_text) else {
                    continue;
                };
                match max_length {
                    Some(max) => {
                        let value = String::from_utf8_lossy(&value);
                        text.extend_from_slice(first_chars(&value, *max as usize).as_bytes());
                    }
                    None => text.extend_from_slice(&value),
                }
            }
        }
    }
    text
}

/// Describes a format string in errors.
pub const EXPECTED: &str = "text with commands such as %REQ(X?Y):12%, and %% for a %";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(mut format: &str) -> Option<Vec<ParsedPart<'_>>> {
        let mut parts = Vec::new();
        while !format.is_empty() {
            let (part, rest) = split_part(format)?;
            parts.push(part);
            format = rest;
        }
        Some(parts)
    }

    fn command<'t>(name: &'t str, argument: Option<&'t str>, max: Option<u32>) -> ParsedPart<'t> {
        ParsedPart::Command { name, argument, max_length: max }
    }

    #[track_caller]
    fn check(format: &str, expected: &[ParsedPart<'_>]) {
        assert_eq!(parse(format).as_deref(), Some(expected), "{format:?}");
    }

    #[test]
    fn a_format_is_split_at_its_commands() {
        use ParsedPart::Text;
        check("", &[]);
        check("plain", &[Text("plain")]);
        check("100%%", &[Text("100"), Text("%")]);
        check("%PROTOCOL%", &[command("PROTOCOL", None, None)]);
        check("%REQ(X?Y):12%", &[command("REQ", Some("X?Y"), Some(12))]);
        check("%REQ()%", &[command("REQ", Some(""), None)]);
        check(
            "a%REQ(:PATH)%b%%%RESPONSE_CODE%é",
            &[
                Text("a"),
                command("REQ", Some(":PATH"), None),
                Text("b"),
                Text("%"),
                command("RESPONSE_CODE", None, None),
                Text("é"),
            ],
        );
    }

    #[test]
    fn malformed_formats_are_refused() {
        for format in [
            "%",
            "a%",
            "50% off",
            "%req(x)%",
            "%(X)%",
            "%REQ",
            "%REQ(X)",
            "%REQ(X)a%",
            "%REQ(X%",
            "%REQ(X):%",
            "%REQ(X):-1%",
            "%REQ(X):+1%",
            "%REQ(X):9999999999%",
            "%PROTOCOL:3%",
            "%é%",
        ] {
            assert_eq!(parse(format), None, "{format:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(format in "[%A-Z():?0-9é]{0,20}") {
            let _ = parse(&format);
        }

        #[test]
        fn text_without_percent_signs_is_one_part(format in "[^%]{1,20}") {
            prop_assert_eq!(parse(&format), Some(vec![ParsedPart::Text(&format)]));
        }
    }
}
