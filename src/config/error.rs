//! Errors of a configuration: the path, what was expected there, and what was found.
//!
//! ```text
//! sampling.rules[2].match.path.regex: expected a valid regular expression, but found "("
//! ```

use std::fmt;

use serde::de::{self, Expected, Unexpected};

use crate::http::digits;

/// A refused value. Displays as `path: expected X, but found Y`.
///
/// It is one pointer: hundreds of functions return it, and to move two strings takes 40 KB of the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(Box<Refusal>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Refusal {
    path: String,
    /// `expected X, but found Y`.
    reason: String,
}

pub(super) type Result<T> = std::result::Result<T, ConfigError>;

impl ConfigError {
    pub fn new(expected: impl fmt::Display, found: impl fmt::Display) -> Self {
        Self::of(&expected, &found)
    }

    #[inline(never)]
    fn of(expected: &dyn fmt::Display, found: &dyn fmt::Display) -> Self {
        Self::of_reason(format!("expected {expected}, but found {found}"))
    }

    fn of_reason(reason: String) -> Self {
        Self(Box::new(Refusal { path: String::new(), reason }))
    }

    /// Puts a key in front of the path: the value stands under `key` of an object. Only the beginning
    /// of a long key is shown, since it may be a secret.
    #[inline(never)]
    pub fn under(mut self, key: &str) -> Self {
        let path = &mut self.0.path;
        if !path.is_empty() && !path.starts_with('[') {
            path.insert(0, '.');
        }
        if is_long(key) {
            path.insert(0, '…');
        }
        path.insert_str(0, if is_long(key) { start_of(key) } else { key });
        self
    }

    /// Puts an index in front of the path: the value is the element at `index` of an array.
    #[inline(never)]
    pub fn at(self, index: usize) -> Self {
        self.under(&format!("[{index}]"))
    }

    /// Puts the path at which a deserializer stopped in front of the error's own.
    pub fn locate(self, path: &serde_path_to_error::Path) -> Self {
        use serde_path_to_error::Segment;
        path.iter().rev().fold(self, |error, segment| match segment {
            Segment::Seq { index } => error.at(*index),
            Segment::Map { key } => error.under(key),
            // A key that is not a string, or the name of an enum's variant.
            Segment::Unknown | Segment::Enum { .. } => error,
        })
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusal { path, reason } = &*self.0;
        if !path.is_empty() {
            write!(f, "{path}: ")?;
        }
        f.write_str(reason)
    }
}

impl std::error::Error for ConfigError {}

/// The errors of serde's derived code, in this crate's wording.
impl de::Error for ConfigError {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Self::of_reason(reason.to_string())
    }

    #[inline(never)]
    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = expected.to_string();
        match (found, expected.as_str()) {
            (_, SECRET) => Self::new("a string", "something else, which is not shown"),
            // The string may be a secret, for example in place of a token's keys.
            (Unexpected::Str(_), OBJECT) => Self::new(OBJECT, "a string"),
            _ => Self::new(expected, shown(found)),
        }
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    #[inline(never)]
    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(one_of(expected), quoted(variant))
    }

    #[inline(never)]
    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        // The list includes the aliases in camelCase; documented keys have no capital letters.
        let is_documented = |key: &&str| !key.bytes().any(|byte| byte.is_ascii_uppercase());
        let keys: Vec<&str> = expected.iter().copied().filter(is_documented).collect();
        if keys.is_empty() {
            return Self::new("an object without keys", quoted(field));
        }
        Self::new(format_args!("a known key, {}", one_of(&keys)), quoted(field))
    }

    #[inline(never)]
    fn missing_field(field: &'static str) -> Self {
        Self::new("a value, which is required", "none").under(field)
    }

    #[inline(never)]
    fn duplicate_field(field: &'static str) -> Self {
        Self::new("the key once, in one spelling", "it twice").under(field)
    }
}

/// Puts a key or an index in front of an error's path.
pub(super) trait InPath: Sized {
    /// See [`ConfigError::under`].
    fn under(self, key: &str) -> Self;
    /// See [`ConfigError::at`].
    fn at(self, index: usize) -> Self;
}

impl<T> InPath for Result<T> {
    fn under(self, key: &str) -> Self {
        self.map_err(|error| error.under(key))
    }

    fn at(self, index: usize) -> Self {
        self.map_err(|error| error.at(index))
    }
}

fn shown(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Float(number) => digits::float(number),
        Unexpected::Str(text) => quoted(text),
        Unexpected::Unit => "null".to_owned(),
        Unexpected::Seq => "an array".to_owned(),
        Unexpected::Map => "an object".to_owned(),
        // A JSON value is none of the others.
        _ => "another value".to_owned(),
    }
}

/// Quotes a string from the configuration. Only the beginning of a long string is shown, since it may
/// be a secret in the wrong place.
pub(super) fn quoted(found: &str) -> String {
    if !is_long(found) {
        return format!("{found:?}");
    }
    format!("{:?}… ({} bytes)", start_of(found), found.len())
}

fn is_long(text: &str) -> bool {
    text.chars().nth(SECRET_CHARS - 1).is_some()
}

fn start_of(text: &str) -> &str {
    let end = text.char_indices().nth(SHOWN_CHARS).map_or(text.len(), |(end, _)| end);
    text.get(..end).unwrap_or_default()
}

/// Lists names for an error: ``one of `a`, `b` ``.
pub(super) fn one_of(names: &[&str]) -> String {
    match names {
        [only] => format!("`{only}`"),
        _ => format!("one of `{}`", names.join("`, `")),
    }
}

/// What a visitor of an object expects.
pub(super) const OBJECT: &str = "an object";
/// What a visitor of a secret expects. An error does not show what it found instead.
pub(super) const SECRET: &str = "a secret";
/// Strings of at least this many characters may be secrets: no key of a token is shorter.
const SECRET_CHARS: usize = 32;
const SHOWN_CHARS: usize = 16;
