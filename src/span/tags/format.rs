//! Format strings: the part of Envoy's substitution format that tags take.
//!
//! ```text
//! format    = *( text / "%%" / "%" command [ "(" argument ")" [ ":" length ] ] "%" )
//! command   = 1*( A-Z / "_" / 0-9 )
//! argument  = *any                   ; as short as possible
//! ```
//!
//! <https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage>

use super::source::{Lookup, Source};
use super::time::append_time;
use super::value::TagValue;
use crate::http::digits;
use crate::http::head::split_query;
use crate::span::text::first_chars;

/// A part of a compiled format string.
#[derive(Debug, Clone)]
pub enum Part {
    Text(String),
    /// The first source that has a value, cut to `max_length` characters.
    Value {
        sources: Vec<Source>,
        max_length: Option<u32>,
        conversion: Conversion,
    },
}

/// What a command makes of its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conversion {
    None,
    /// Cuts the query off a path.
    WithoutQuery,
    /// Writes the value of [`START_TIME`](super::time::START_TIME) in this format.
    Time(String),
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
        let mut searched = 0;
        loop {
            let (_, end) = split_before(after.get(searched..)?, |byte| byte == b')');
            let behind = end.strip_prefix(')')?;
            searched = after.len() - behind.len();
            if let Some(length) = behind.strip_prefix(':') {
                let (length, end) = split_before(length, |byte| byte == b'%');
                (max_length, rest) = (digits::decimal(length.as_bytes()), end);
            } else {
                (max_length, rest) = (None, behind);
            }
            if rest.starts_with('%') && max_length.is_some() != behind.starts_with('%') {
                argument = after.get(..searched - 1);
                break;
            }
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
            Part::Value { sources, max_length, conversion } => {
                let value = sources.iter().find_map(|source| source.find(lookup));
                let Some(value) = value.map(TagValue::into_text) else {
                    continue;
                };
                let mut time = Vec::new();
                let value = match conversion {
                    Conversion::None => &*value,
                    Conversion::WithoutQuery => split_query(&value).0,
                    Conversion::Time(format) => {
                        let _ = append_time(&mut time, format, &value);
                        &time
                    }
                };
                match max_length {
                    Some(max) => {
                        let value = String::from_utf8_lossy(value);
                        text.extend_from_slice(first_chars(&value, *max as usize).as_bytes());
                    }
                    None => text.extend_from_slice(value),
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
        check("%CEL(a(b)):3%", &[command("CEL", Some("a(b)"), Some(3))]);
        check("%CEL(a(b):c)%", &[command("CEL", Some("a(b):c"), None)]);
        check("%A(b):c):2%", &[command("A", Some("b):c"), Some(2))]);
        check("%START_TIME(%s%)%", &[command("START_TIME", Some("%s%"), None)]);
        check("%A(b)%)", &[command("A", Some("b"), None), Text(")")]);
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
