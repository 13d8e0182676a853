//! Values as text in one line.

use std::borrow::Cow;

/// Reads text. Bytes that are not UTF-8 and characters that have no place in one line become U+FFFD.
pub fn printable(value: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(value);
    match text.contains(is_unprintable) {
        true => Cow::Owned(text.replace(is_unprintable, "\u{fffd}")),
        false => text,
    }
}

/// Tells whether a character has no place in one line of text.
pub fn is_unprintable(char: char) -> bool {
    char.is_control() || matches!(char, '\u{2028}' | '\u{2029}')
}

/// Returns the first so many characters of a text.
pub fn first_chars(text: &str, max_chars: usize) -> &str {
    // No text has more characters than bytes.
    if text.len() <= max_chars {
        return text;
    }
    let end = text.char_indices().nth(max_chars).map_or(text.len(), |(end, _)| end);
    text.get(..end).unwrap_or_default()
}
