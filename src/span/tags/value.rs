//! The value of a tag, with its type.

use std::borrow::Cow;

use crate::http::digits;

/// A value that a source has.
#[derive(Debug, Clone, PartialEq)]
pub enum TagValue<'a> {
    Text(Cow<'a, [u8]>),
    Int(i64),
    Double(f64),
    Bool(bool),
}

impl<'a> TagValue<'a> {
    /// Returns the value as text.
    pub fn into_text(self) -> Cow<'a, [u8]> {
        let text = match self {
            Self::Text(text) => return text,
            Self::Int(number) => number.to_string(),
            Self::Bool(true) => return Cow::Borrowed(b"true"),
            Self::Bool(false) => return Cow::Borrowed(b"false"),
            Self::Double(number) => digits::float(number),
        };
        Cow::Owned(text.into_bytes())
    }
}
