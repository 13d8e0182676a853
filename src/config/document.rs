//! The text of a configuration: one JSON object (RFC 8259).
//!
//! A YAML document and a protobuf `Struct` are common mistakes. Both are recognized, and the error
//! names them.
//!
//! <https://www.rfc-editor.org/rfc/rfc8259>

use prost::Message;
use prost_types::Struct;

use super::error::{ConfigError, Result, quoted};
use super::value::Value;

/// Parses the text. Empty input, and input of white space alone, means the empty object.
pub(super) fn parse(input: &[u8]) -> Result<Value> {
    let text = std::str::from_utf8(input).map_err(|_| {
        let found = if is_protobuf_struct(input) { PROTOBUF } else { "bytes that are not UTF-8" };
        ConfigError::new(EXPECTED, found)
    })?;
    if text.bytes().all(|byte| WHITE_SPACE.contains(&byte)) {
        return Ok(Value::Object(Vec::new()));
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| refused(text, error.inner()).locate(error.path()))?;
    json.end().map_err(|error| refused(text, &error))?;
    Ok(value)
}

/// Returns the error of a text that serde_json refuses.
fn refused(text: &str, error: &serde_json::Error) -> ConfigError {
    if error.is_data() {
        return serde::de::Error::custom(error);
    }
    if is_protobuf_struct(text.as_bytes()) {
        return ConfigError::new(EXPECTED, PROTOBUF);
    }
    if let Some(key) = yaml_key(text) {
        let found = format!(
            "what looks like YAML, with the key {}; Envoy's StringValue must hold JSON",
            quoted(key)
        );
        return ConfigError::new(EXPECTED, found);
    }
    ConfigError::new("JSON", format_args!("an error: {error}"))
}

/// Tells whether the bytes are a `google.protobuf.Struct` with at least one field.
///
/// <https://protobuf.dev/reference/protobuf/google.protobuf/#struct>
fn is_protobuf_struct(bytes: &[u8]) -> bool {
    let Ok(Struct { fields }) = Struct::decode(bytes) else {
        return false;
    };
    !fields.is_empty() && fields.iter().all(|(key, value)| !key.is_empty() && value.kind.is_some())
}

/// Returns the first key of a YAML block mapping. Returns `None` for a text that begins like JSON.
fn yaml_key(text: &str) -> Option<&str> {
    if text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    text.lines().find_map(|line| {
        let (key, value) = line.trim_start_matches([' ', '-']).split_once(':')?;
        let key = key.trim_matches(['"', '\'']);
        let is_key = key.starts_with(|char: char| char.is_ascii_alphabetic())
            && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        let is_mapping = value.is_empty() || value.starts_with([' ', '\t']);
        (is_key && is_mapping).then_some(key)
    })
}

const EXPECTED: &str = "one JSON object";
const PROTOBUF: &str =
    "a protobuf message; give Envoy the configuration as a google.protobuf.StringValue";
/// White space of JSON, which is less than that of Unicode.
const WHITE_SPACE: &[u8] = b" \t\n\r";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check_refused(input: impl AsRef<[u8]>, expected: &str) {
        let error = parse(input.as_ref()).map(|_| ()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }

    /// Encodes a length-delimited field of protobuf.
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let len = content.len();
        let mut bytes = vec![number << 3 | 2];
        if len >= 128 {
            bytes.push(len as u8 | 128);
        }
        bytes.push(if len >= 128 { (len >> 7) as u8 } else { len as u8 });
        bytes.extend_from_slice(content);
        bytes
    }

    /// Encodes an entry of a `Struct` whose value is text.
    fn entry(key: &str, text: &str) -> Vec<u8> {
        let value = field(3, text.as_bytes());
        field(1, &[field(1, key.as_bytes()), field(2, &value)].concat())
    }

    #[test]
    fn malformed_json_is_refused_with_its_position() {
        for (text, expected) in [
            (
                "{",
                "expected JSON, but found an error: EOF while parsing an object at line 1 column 1",
            ),
            (
                "{\"a\": {\"b\": [1, {x",
                "a.b[1]: expected JSON, but found an error: key must be a string at line 1 column 18",
            ),
            ("{}{}", "expected JSON, but found an error: trailing characters at line 1 column 3"),
            (
                "{\"a\": 1e400}",
                "a: expected JSON, but found an error: number out of range at line 1 column 11",
            ),
            ("\u{feff}{}", "expected JSON, but found an error: expected value at line 1 column 1"),
            (
                "{\"a\": {\"b\": 1, \"c\": 2, \"b\": 1}}",
                "a.b: expected the key once, but found it twice at line 1 column 28",
            ),
            (
                &"[".repeat(100_000),
                &format!(
                    "{}: expected JSON, but found an error: recursion limit exceeded at line 1 \
                     column 128",
                    "[0]".repeat(127)
                ),
            ),
        ] {
            check_refused(text, expected);
        }
        check_refused(b"\"\xff\"", "expected one JSON object, but found bytes that are not UTF-8");
    }

    #[test]
    fn a_protobuf_struct_is_recognized() {
        let long = entry("service_name", &"a".repeat(200));
        let double =
            field(1, &[field(1, b"ratio"), field(2, b"\x11\0\0\0\0\0\0\xf0\x3f")].concat());
        let several = [entry("service_name", "a"), entry("x", "")].concat();
        for message in [entry("service_name", "checkout"), long, double, several] {
            check_refused(
                message,
                "expected one JSON object, but found a protobuf message; give Envoy the \
                 configuration as a google.protobuf.StringValue",
            );
        }
        for text in ["\n", "\n\n{}", "\n\t{  }", "\r\n {\"a\": 1}"] {
            assert!(parse(text.as_bytes()).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn yaml_is_recognized_by_its_keys() {
        for (text, key) in [
            ("sampling:\n  ratio: 0.1\n", "sampling"),
            ("# comment\n\nservice_name: checkout", "service_name"),
            ("---\nexporter: {otlp: {cluster: c}}", "exporter"),
            ("- tag: a", "tag"),
            ("\"service_name\": \"a\"", "service_name"),
        ] {
            let expected = format!(
                "expected one JSON object, but found what looks like YAML, with the key \"{key}\"; \
                 Envoy's StringValue must hold JSON"
            );
            check_refused(text, &expected);
        }
        for text in ["{sampling: {}}", "[a: b]", "http://example", "a:b", "no key", ": a", "é: a"]
        {
            let error = parse(text.as_bytes()).map(|_| ()).unwrap_err().to_string();
            assert!(!error.contains("YAML"), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn the_same_texts_are_read_as_by_serde_json(text in r#"[\[\]{}:,"ab0-9.e -]{0,12}"#) {
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            match parse(text.as_bytes()) {
                Ok(_) => prop_assert!(theirs.is_ok() || text.trim().is_empty(), "{text}"),
                Err(ours) => {
                    prop_assert!(theirs.is_err() || ours.to_string().contains("twice"), "{text}");
                }
            }
        }
    }
}
