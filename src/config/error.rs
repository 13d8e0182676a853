//! Why a configuration is refused: where, what was expected there, and what was found.

use std::fmt;

/// One refused value. Displays as `path: expected X, but found Y`.
///
/// Boxed, since every step of the decoding passes a result on, and its size is code in the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(Box<Refusal>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Refusal {
    path: String,
    expected: String,
    found: String,
}

impl ConfigError {
    pub fn new(expected: impl AsRef<str>, found: impl AsRef<str>) -> Self {
        Self::of(expected.as_ref(), found.as_ref())
    }

    /// Out of line, like the others: nearly every line of the configuration's code can end here.
    #[inline(never)]
    fn of(expected: &str, found: &str) -> Self {
        let (expected, found) = (expected.to_owned(), found.to_owned());
        Self(Box::new(Refusal { path: String::new(), expected, found }))
    }

    /// Returns the error as seen one object further out, where the value stands under `key`.
    #[inline(never)]
    pub fn under(mut self, key: &str) -> Self {
        if !self.0.path.is_empty() && !self.0.path.starts_with('[') {
            self.0.path.insert(0, '.');
        }
        self.0.path.insert_str(0, key);
        self
    }

    /// Returns the error as seen one array further out, where the value stands at `index`.
    #[inline(never)]
    pub fn at(self, index: usize) -> Self {
        self.under(&format!("[{index}]"))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.path.is_empty() {
            write!(f, "{}: ", self.0.path)?;
        }
        write!(f, "expected {}, but found {}", self.0.expected, self.0.found)
    }
}

impl std::error::Error for ConfigError {}

/// Quotes a string from the configuration, shortened to what a log line can bear.
#[inline(never)]
pub fn quoted(found: &str) -> String {
    // Rust's own `{:?}` knows which characters can be seen, which takes 5 KB of the module.
    let mut quoted = String::from("\"");
    for char in found.chars().take(SHOWN_CHARS) {
        match char {
            '\n' => quoted.push_str("\\n"),
            // A byte order mark is not seen either.
            '\0'..' ' | '\x7f'..'\u{a0}' | '\u{feff}' => {
                quoted.push_str("\\u{");
                let digits = (0..4).rev().map(|place| (char as u32 >> (4 * place)) & 15);
                for digit in digits.skip_while(|digit| *digit == 0) {
                    quoted.extend(char::from_digit(digit, 16));
                }
                quoted.push('}');
            }
            char => {
                if matches!(char, '"' | '\\') {
                    quoted.push('\\');
                }
                quoted.push(char);
            }
        }
    }
    let is_cut = found.chars().nth(SHOWN_CHARS).is_some();
    quoted.push_str(if is_cut { "\"…" } else { "\"" });
    quoted
}

/// Joins names into `one of …`.
pub fn one_of(names: &[&str]) -> String {
    match names {
        [only] => format!("`{only}`"),
        _ => format!("one of `{}`", names.join("`, `")),
    }
}

const SHOWN_CHARS: usize = 100;
