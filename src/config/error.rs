//! Why a configuration is refused: where, what was expected there, and what was found.

use std::fmt;

use serde::de;

/// One refused value. Displays as `path: expected X, but found Y`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    path: String,
    expected: String,
    found: String,
}

impl ConfigError {
    pub fn new(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { path: String::new(), expected: expected.into(), found: found.into() }
    }

    /// Returns the error as seen one object further out, where the value stands under `key`.
    pub fn under(mut self, key: &str) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{key}{dot}{}", self.path);
        self
    }

    /// Returns the error as seen one array further out, where the value stands at `index`.
    pub fn at(self, index: usize) -> Self {
        self.under(&format!("[{index}]"))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let colon = if self.path.is_empty() { "" } else { ": " };
        write!(f, "{}{colon}expected {}, but found {}", self.path, self.expected, self.found)
    }
}

impl std::error::Error for ConfigError {}

impl de::Error for ConfigError {
    fn custom<T: fmt::Display>(found: T) -> Self {
        Self::new("a valid value", found.to_string())
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(expected.to_string(), shown(found))
    }

    fn invalid_value(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(found: &str, expected: &'static [&'static str]) -> Self {
        Self::new(one_of(expected), quoted(found))
    }

    fn unknown_field(found: &str, expected: &'static [&'static str]) -> Self {
        Self::new(one_of(expected), format!("the unknown key {}", quoted(found)))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new("a value, since this key is required", "none").under(field)
    }
}

/// Quotes a string from the configuration, shortened to what a log line can bear.
pub fn quoted(found: &str) -> String {
    match found.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{:?}…", found.get(..end).unwrap_or_default()),
        None => format!("{found:?}"),
    }
}

/// Joins names into `one of …`.
pub fn one_of(names: &[&str]) -> String {
    match names {
        [] => "no key at all".to_owned(),
        [only] => format!("`{only}`"),
        _ => format!("one of `{}`", names.join("`, `")),
    }
}

fn shown(found: de::Unexpected<'_>) -> String {
    match found {
        de::Unexpected::Bool(value) => value.to_string(),
        de::Unexpected::Unsigned(value) => value.to_string(),
        de::Unexpected::Signed(value) => value.to_string(),
        de::Unexpected::Float(value) => value.to_string(),
        de::Unexpected::Str(value) => quoted(value),
        de::Unexpected::Unit => "null".to_owned(),
        de::Unexpected::Seq => "an array".to_owned(),
        de::Unexpected::Map => "an object".to_owned(),
        other => other.to_string(),
    }
}

const SHOWN_CHARS: usize = 100;
