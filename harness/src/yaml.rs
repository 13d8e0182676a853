//! Reads YAML files into types; what does not fit is refused with its place:
//! `FILE:LINE:COLUMN: expected …, but found …`.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_saphyr::{Error, Location};

/// A file that cannot be used, as one line for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub file: PathBuf,
    /// Line and column from 1; `None` where the whole file is meant.
    pub place: Option<(u64, u64)>,
    /// `expected …, but found …`.
    pub reason: String,
}

impl Refused {
    pub fn at(file: &Path, location: Location, reason: impl Into<String>) -> Self {
        Self { file: file.to_owned(), place: known(location), reason: reason.into() }
    }
}

impl std::error::Error for Refused {}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some((line, column)) = self.place {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.reason)
    }
}

/// Reads a YAML file into a type.
pub fn read<T: DeserializeOwned>(file: &Path) -> Result<T, Refused> {
    let text = std::fs::read_to_string(file).map_err(|error| Refused {
        file: file.to_owned(),
        place: None,
        reason: format!("expected a readable file, but found: {error}"),
    })?;
    parse(file, &text)
}

/// Parses YAML into a type; `file` is named in the refusal. Only `true` and `false` are booleans.
pub fn parse<T: DeserializeOwned>(file: &Path, text: &str) -> Result<T, Refused> {
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let error = error.without_snippet();
        let location = error.location().unwrap_or(Location::UNKNOWN);
        Refused::at(file, location, reason(error, &found(text, location)))
    })
}

fn reason(error: &Error, found: &str) -> String {
    match error {
        Error::SerdeUnknownField { field, expected, .. } => {
            format!(
                "expected {}, but found the key `{field}`",
                one_of("the key", "one of the keys", expected)
            )
        }
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            format!("expected {}, but found `{variant}`", one_of("", "one of", expected))
        }
        Error::SerdeMissingField { field, .. } => {
            format!("expected the key `{field}`, but found none")
        }
        Error::SerdeInvalidType { unexpected, expected, .. }
        | Error::SerdeInvalidValue { unexpected, expected, .. } => {
            format!("expected {}, but found {unexpected}", value(expected))
        }
        Error::Unexpected { expected, .. } => {
            format!("expected {}, but found {found}", node(expected))
        }
        Error::InvalidScalar { ty, .. } => format!("expected {}, but found {found}", scalar(ty)),
        Error::InvalidBooleanStrict { .. } => {
            format!("expected `true` or `false`, but found {found}")
        }
        Error::NullIntoString { .. } => "expected text, but found nothing".into(),
        Error::ExternallyTaggedEnumExpectedScalarOrMapping { .. } => {
            format!("expected a word, but found {found}")
        }
        Error::DuplicateMappingKey { key, .. } => {
            format!(
                "expected each key once, but found `{}` again",
                key.as_deref().unwrap_or("a key")
            )
        }
        Error::MultipleDocuments { .. } => "expected one document, but found several".into(),
        Error::Eof { .. } => "expected more, but found the end of the file".into(),
        Error::Message { msg, .. } if msg.starts_with("expected") => msg.clone(),
        other => format!(
            "expected YAML of the known form, but found: {}",
            first_line(&other.to_string())
        ),
    }
}

fn one_of(single: &str, many: &str, names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    let lead = if names.len() == 1 { single } else { many };
    format!("{lead} {}", quoted.join(", ")).trim_start().to_owned()
}

/// The parser's word for a node in the words of a user.
fn node(expected: &str) -> &str {
    match expected {
        "mapping start" => "a map",
        "sequence start" => "a list",
        "string scalar" => "text",
        other => other,
    }
}

/// What serde expects in the words of a user.
fn value(expected: &str) -> &str {
    match expected {
        "a nonzero u64" => "a whole number from 1 up",
        other => other,
    }
}

/// Rust's name of a type in the words of a user.
fn scalar(ty: &str) -> String {
    match ty {
        "u8" | "u16" | "u32" | "u64" | "usize" => {
            format!("a whole number from 0 up ({} bits)", &ty[1..])
        }
        "i8" | "i16" | "i32" | "i64" | "isize" => format!("a whole number ({} bits)", &ty[1..]),
        other => format!("a {other} value"),
    }
}

/// What stands at a place, as the user wrote it.
fn found(text: &str, location: Location) -> String {
    let Some((line, column)) = known(location) else {
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

fn known(location: Location) -> Option<(u64, u64)> {
    (location.line() > 0).then(|| (location.line(), location.column().max(1)))
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
