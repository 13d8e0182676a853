//! Envoy's substitution format strings, as far as spans need them.
//!
//! ```text
//! format    = *( text / "%%" / "%" command [ "(" argument ")" [ ":" length ] ] "%" )
//! command   = 1*( A-Z / "_" / 0-9 )
//! argument  = *( any but ")" )       ; of REQ, RESP, TRAILER: name [ "?" name ]
//! ```
//!
//! <https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage>

use super::property::{Encoding, Type};
use super::source::Source;
use super::{Lookup, TagValue};
use crate::http::digits;
use crate::span::text::first_chars;

/// A part of a compiled format string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Text(String),
    /// The first source that has a value, and how many characters of it.
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

/// A part of a format string as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written<'t> {
    Text(&'t str),
    Command { name: &'t str, argument: Option<&'t str>, max_length: Option<u32> },
}

/// Takes the first part off a format string that is not empty, and returns what follows it; none
/// where the text is not [`EXPECTED`].
pub fn split_part(format: &str) -> Option<(Written<'_>, &str)> {
    let Some(text) = format.strip_prefix('%') else {
        let (text, rest) = split_before(format, |byte| byte == b'%');
        return Some((Written::Text(text), rest));
    };
    if let Some(rest) = text.strip_prefix('%') {
        return Some((Written::Text("%"), rest));
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
    (!name.is_empty()).then_some((Written::Command { name, argument, max_length }, rest))
}

/// Splits a text before the first byte like this, which is ASCII.
fn split_before(text: &str, is_end: impl Fn(u8) -> bool) -> (&str, &str) {
    let end = text.bytes().position(is_end).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// Returns the text that the parts make.
pub(super) fn text(parts: &[Part], lookup: Lookup<'_, '_>) -> Vec<u8> {
    let mut text = Vec::new();
    for part in parts {
        match part {
            Part::Text(literal) => text.extend_from_slice(literal.as_bytes()),
            Part::Value { sources, max_length } => {
                let found = sources.iter().find_map(|source| source.find(lookup));
                let Some(value) = found.map(TagValue::into_text) else {
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

/// What a format string is.
pub const EXPECTED: &str = "text with commands such as %REQ(X?Y):12%, and %% for a %";

/// A command that stands for one of Envoy's attributes: its name, the attribute, its encoding.
pub type PropertyCommand = (&'static str, &'static str, Encoding);

const TEXT: Encoding = Encoding::Plain(Type::Text);
const INT: Encoding = Encoding::Plain(Type::Int);

/// The commands without an argument.
pub const PROPERTY_COMMANDS: [PropertyCommand; 25] = [
    ("BYTES_RECEIVED", "request.size", INT),
    ("BYTES_SENT", "response.size", INT),
    ("CONNECTION_ID", "connection.id", INT),
    ("DOWNSTREAM_LOCAL_ADDRESS", "destination.address", TEXT),
    ("DOWNSTREAM_LOCAL_URI_SAN", "connection.uri_san_local_certificate", TEXT),
    ("DOWNSTREAM_PEER_URI_SAN", "connection.uri_san_peer_certificate", TEXT),
    ("DOWNSTREAM_REMOTE_ADDRESS", "source.address", TEXT),
    ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "source.address", Encoding::Host),
    ("DOWNSTREAM_TLS_VERSION", "connection.tls_version", TEXT),
    ("DURATION", "request.duration", Encoding::Millis),
    ("GRPC_STATUS_NUMBER", "response.grpc_status", INT),
    ("PROTOCOL", "request.protocol", TEXT),
    ("REQUESTED_SERVER_NAME", "connection.requested_server_name", TEXT),
    ("RESPONSE_CODE", "response.code", INT),
    ("RESPONSE_CODE_DETAILS", "response.code_details", TEXT),
    ("RESPONSE_FLAGS", "response.flags", Encoding::Flags),
    ("ROUTE_NAME", "xds.route_name", TEXT),
    ("UPSTREAM_CLUSTER", "xds.cluster_name", TEXT),
    ("UPSTREAM_HOST", "upstream.address", TEXT),
    ("UPSTREAM_LOCAL_URI_SAN", "upstream.uri_san_local_certificate", TEXT),
    ("UPSTREAM_PEER_URI_SAN", "upstream.uri_san_peer_certificate", TEXT),
    ("UPSTREAM_REMOTE_ADDRESS", "upstream.address", TEXT),
    ("UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "upstream.address", Encoding::Host),
    ("UPSTREAM_REQUEST_ATTEMPT_COUNT", "upstream.request_attempt_count", INT),
    ("UPSTREAM_TRANSPORT_FAILURE_REASON", "upstream.transport_failure_reason", TEXT),
];

/// The commands that read metadata, and where it is.
pub const METADATA_COMMANDS: [(&str, &str); 3] = [
    ("CLUSTER_METADATA", "xds.cluster_metadata"),
    ("DYNAMIC_METADATA", "metadata"),
    ("UPSTREAM_METADATA", "xds.upstream_host_metadata"),
];

pub const ENVIRONMENT: &str = "ENVIRONMENT";
pub const REQ: &str = "REQ";
pub const RESP: &str = "RESP";
pub const TRAILER: &str = "TRAILER";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(mut format: &str) -> Option<Vec<Written<'_>>> {
        let mut parts = Vec::new();
        while !format.is_empty() {
            let (part, rest) = split_part(format)?;
            parts.push(part);
            format = rest;
        }
        Some(parts)
    }

    fn command<'t>(name: &'t str, argument: Option<&'t str>, max: Option<u32>) -> Written<'t> {
        Written::Command { name, argument, max_length: max }
    }

    #[track_caller]
    fn check(format: &str, expected: &[Written<'_>]) {
        assert_eq!(parse(format).as_deref(), Some(expected), "{format:?}");
    }

    #[test]
    fn formats_are_split_at_their_commands() {
        use Written::Text;
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
    fn what_is_no_format_is_refused() {
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
        fn text_without_percent_signs_stays(format in "[^%]{1,20}") {
            prop_assert_eq!(parse(&format), Some(vec![Written::Text(&format)]));
        }
    }
}
