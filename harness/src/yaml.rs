//! Deserialises YAML files. Errors name the position: `FILE:LINE:COLUMN: expected …, but found …`.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_saphyr::{Error as YamlError, Location};

/// Why a file is unusable, as one line for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub(crate) file: PathBuf,
    /// Line and column from 1; `None` for the whole file.
    pub(crate) position: Option<(u64, u64)>,
    /// `expected …, but found …`.
    pub(crate) reason: String,
}

impl Error {
    pub(crate) fn at(file: &Path, location: Location, reason: impl Into<String>) -> Self {
        Self { file: file.to_owned(), position: position(location), reason: reason.into() }
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some((line, column)) = self.position {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.reason)
    }
}

/// Reads a YAML file.
pub(crate) fn read<T: DeserializeOwned>(file: &Path) -> Result<T, Error> {
    let text = std::fs::read_to_string(file).map_err(|error| Error {
        file: file.to_owned(),
        position: None,
        reason: format!("expected a readable file, but found: {error}"),
    })?;
    parse(file, &text)
}

/// Parses YAML. Errors name `file`. Only `true` and `false` are booleans.
pub(crate) fn parse<T: DeserializeOwned>(file: &Path, text: &str) -> Result<T, Error> {
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let error = error.without_snippet();
        let location = error.location().unwrap_or(Location::UNKNOWN);
        Error::at(file, location, reason(error, &found(text, location)))
    })
}

fn reason(error: &YamlError, found: &str) -> String {
    match error {
        YamlError::SerdeUnknownField { field, expected, .. } => {
            format!(
                "expected {}, but found the key `{field}`",
                one_of("the key", "one of the keys", expected)
            )
        }
        YamlError::SerdeUnknownVariant { variant, expected, .. } => {
            format!("expected {}, but found `{variant}`", one_of("", "one of", expected))
        }
        YamlError::SerdeMissingField { field, .. } => {
            format!("expected the key `{field}`, but found none")
        }
        YamlError::SerdeInvalidType { unexpected, expected, .. }
        | YamlError::SerdeInvalidValue { unexpected, expected, .. } => {
            format!("expected {}, but found {unexpected}", value(expected))
        }
        YamlError::Unexpected { expected, .. } => {
            format!("expected {}, but found {found}", node(expected))
        }
        YamlError::InvalidScalar { ty, .. } => {
            format!("expected {}, but found {found}", scalar(ty))
        }
        YamlError::InvalidBooleanStrict { .. } => {
            format!("expected `true` or `false`, but found {found}")
        }
        YamlError::NullIntoString { .. } => "expected text, but found nothing".into(),
        YamlError::ExternallyTaggedEnumExpectedScalarOrMapping { .. } => {
            format!("expected a word, but found {found}")
        }
        YamlError::DuplicateMappingKey { key, .. } => {
            format!(
                "expected each key once, but found `{}` again",
                key.as_deref().unwrap_or("a key")
            )
        }
        YamlError::MultipleDocuments { .. } => "expected one document, but found several".into(),
        YamlError::Eof { .. } => "expected more, but found the end of the file".into(),
        YamlError::Message { msg, .. } if msg.starts_with("expected") => msg.clone(),
        other => format!("expected valid YAML, but found: {}", first_line(&other.to_string())),
    }
}

fn one_of(single: &str, many: &str, names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    let lead = if names.len() == 1 { single } else { many };
    format!("{lead} {}", quoted.join(", ")).trim_start().to_owned()
}

/// Returns a user's word for a node of the parser.
fn node(expected: &str) -> &str {
    match expected {
        "mapping start" => "a map",
        "sequence start" => "a list",
        "string scalar" => "text",
        other => other,
    }
}

/// Returns a user's words for a value that serde expects.
fn value(expected: &str) -> &str {
    match expected {
        "a nonzero u64" => "a whole number from 1 up",
        other => other,
    }
}

/// Returns a user's words for a Rust type.
fn scalar(ty: &str) -> String {
    match ty {
        "u8" | "u16" | "u32" | "u64" | "usize" => {
            format!("a whole number from 0 up ({} bits)", &ty[1..])
        }
        "i8" | "i16" | "i32" | "i64" | "isize" => format!("a whole number ({} bits)", &ty[1..]),
        other => format!("a {other} value"),
    }
}

/// Returns the text at a location, as the user wrote it.
fn found(text: &str, location: Location) -> String {
    let Some((line, column)) = position(location) else {
        return "nothing".into();
    };
    let line = text.lines().nth(line as usize - 1).unwrap_or_default();
    let rest: String = line.chars().skip(column as usize - 1).collect();
    let rest = rest.split(" #").next().unwrap_or_default().trim_end();
    match rest.chars().next() {
        None => "nothing".into(),
        Some('[') => "a list".into(),
        Some('{') => "a map".into(),
        Some('-') if rest == "-" || rest.starts_with("- ") => "a list".into(),
        Some(quote @ ('"' | '\'')) => {
            let end = rest[1..].find(quote).map_or(rest.len(), |end| end + 2);
            rest[..end].to_owned()
        }
        Some(_) if rest.contains(": ") || rest.ends_with(':') => "a map".into(),
        Some(_) => format!("`{}`", rest.split([',', ']', '}']).next().unwrap_or_default()),
    }
}

fn position(location: Location) -> Option<(u64, u64)> {
    (location.line() > 0).then(|| (location.line(), location.column().max(1)))
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
