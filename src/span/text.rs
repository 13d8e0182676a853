//! Values as one line of text.

use std::borrow::Cow;

/// Returns a value as one line of text. Bytes that are not UTF-8, control characters and line
/// separators become U+FFFD.
pub(crate) fn printable(value: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(value);
    match text.contains(is_unprintable) {
        true => Cow::Owned(text.replace(is_unprintable, "\u{fffd}")),
        false => text,
    }
}

/// Tells whether a character is a control character, or ends a line.
pub(crate) fn is_unprintable(char: char) -> bool {
    char.is_control() || matches!(char, '\u{2028}' | '\u{2029}')
}

/// Returns the first `max_chars` characters of a text.
pub(crate) fn first_chars(text: &str, max_chars: usize) -> &str {
    // A text never has more characters than bytes.
    if text.len() <= max_chars {
        return text;
    }
    let end = text.char_indices().nth(max_chars).map_or(text.len(), |(end, _)| end);
    text.get(..end).unwrap_or_default()
}

/// The most bytes of a header, a query, a path or all cookies that are read for one attribute.
pub(crate) const MAX_READ_BYTES: usize = 8 * 1024;
