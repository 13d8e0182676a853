//! Path normalization: one spelling for all paths that mean the same to a server.
//!
//! A client chooses the spelling, so that conditions on raw paths could be evaded: `/%61dmin` and
//! `/x/../admin` are both `/admin`.

use std::borrow::Cow;

use crate::http::digits::hex_value;
use crate::http::head::split_query;

/// Returns the normalized path of a target, without the query: percent-encoded unreserved
/// characters are decoded (RFC 3986, section 6.2.2.2), dot segments are removed (section 5.2.4), a
/// backslash is a slash, and repeated slashes are one. Returns `None` if the path must be rewritten and is
/// longer than [`MAX_REWRITTEN_BYTES`].
pub fn normalized(target: &[u8]) -> Option<Cow<'_, [u8]>> {
    if let Some(path) = normal_path(target) {
        return Some(Cow::Borrowed(path));
    }
    let path = split_query(target).0;
    (path.len() <= MAX_REWRITTEN_BYTES).then(|| Cow::Owned(rewritten(path)))
}

/// The longest path that is rewritten: that takes some hundred instructions a byte.
const MAX_REWRITTEN_BYTES: usize = 8 * 1024;

/// Returns the path if it is normal. For a few normal paths, such as `/.a`, it returns `None` too. It runs
/// for every request, so it reads eight bytes at a time.
fn normal_path(target: &[u8]) -> Option<&[u8]> {
    let (words, rest) = target.as_chunks::<8>();
    let mut last = [0; 8];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    let mut previous_slashes = 0;
    let mut start = 0;
    for word in words.iter().chain([&last]) {
        let word = u64::from_le_bytes(*word);
        let slashes = equal(word, b'/');
        // A dot differs from a slash in the lowest bit.
        let dots_or_slashes = equal(word | u64::from_le_bytes([1; 8]), b'/');
        let after_slashes = slashes << 8 | previous_slashes >> 56;
        previous_slashes = slashes;
        let odd = (after_slashes & dots_or_slashes) | equal(word, b'%') | equal(word, b'\\');
        let question_marks = equal(word, b'?');
        let lowest = question_marks & question_marks.wrapping_neg();
        let before_query = lowest.wrapping_sub(1);
        if odd & before_query != 0 {
            return None;
        }
        if question_marks != 0 {
            return target.get(..start + question_marks.trailing_zeros() as usize / 8);
        }
        start += 8;
    }
    Some(target)
}

/// Returns a word with the highest bit set in each byte that equals this one.
#[inline]
fn equal(word: u64, byte: u8) -> u64 {
    const LOW: u64 = u64::from_le_bytes([0x7f; 8]);
    let zero_where_equal = word ^ u64::from_le_bytes([byte; 8]);
    !(((zero_where_equal & LOW) + LOW) | zero_where_equal | LOW)
}

#[cold]
#[inline(never)]
fn rewritten(path: &[u8]) -> Vec<u8> {
    let decoded = decode_unreserved(path);
    if !decoded.starts_with(b"/") {
        return decoded;
    }
    let mut normal = Vec::with_capacity(decoded.len());
    // The index of the slash that begins each segment so far.
    let mut slashes = Vec::new();
    for &byte in decoded.iter().chain(b"/") {
        if byte != b'/' {
            normal.push(byte);
            continue;
        }
        let start = slashes.last().copied().unwrap_or_default();
        match normal.get(start..) {
            // This slash ends a segment and begins the next.
            Some(b"/") => {}
            Some(b"/.") => normal.truncate(start + 1),
            Some(b"/..") => {
                slashes.pop();
                let parent = slashes.pop().unwrap_or_default();
                normal.truncate(parent);
                slashes.push(parent);
                normal.push(b'/');
            }
            _ => {
                slashes.push(normal.len());
                normal.push(b'/');
            }
        }
    }
    // The slash that the loop appends stays only if the path ended in a slash or a dot segment.
    let ends_in_segment =
        !matches!(decoded.rsplit(|byte| *byte == b'/').next(), Some(b"" | b"." | b".."));
    if ends_in_segment {
        normal.pop();
    }
    normal
}

fn decode_unreserved(path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, after_byte)) = rest.split_first() {
        rest = after_byte;
        decoded.push(match (byte, after_byte) {
            (b'%', [high, low, after @ ..]) if let Some(byte) = unreserved(*high, *low) => {
                rest = after;
                byte
            }
            (b'\\', _) => b'/',
            (byte, _) => byte,
        });
    }
    decoded
}

/// Returns the unreserved character that two hex digits encode.
fn unreserved(high: u8, low: u8) -> Option<u8> {
    let byte = hex_value(high)? << 4 | hex_value(low)?;
    (byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)).then_some(byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_normalized_as_servers_read_them() {
        for (sent, expected) in [
            ("", ""),
            ("/", "/"),
            ("*", "*"),
            ("/healthz", "/healthz"),
            ("/a/", "/a/"),
            ("/a.b/.c/..d/...", "/a.b/.c/..d/..."),
            ("/healthz/../checkout", "/checkout"),
            ("/a/./b", "/a/b"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/b/../", "/a/"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("//healthz", "/healthz"),
            ("/a//b///", "/a/b/"),
            ("/a//../b", "/b"),
            ("/%68ealthz", "/healthz"),
            ("/a/%2e%2E/b", "/b"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a%252e", "/a%252e"),
            ("/a%", "/a%"),
            ("/a%4", "/a%4"),
            ("/a%zz", "/a%zz"),
            ("\\a\\..\\b", "/b"),
            ("a/../b", "a/../b"),
            ("/a?b=/../c", "/a"),
            ("/abcdefg?/..", "/abcdefg"),
            ("/abcdefgh/%61?/..%61", "/abcdefgh/a"),
            ("?", ""),
        ] {
            assert_eq!(normalized(sent.as_bytes()).as_deref(), Some(expected.as_bytes()), "{sent}");
        }
    }

    #[test]
    fn paths_too_long_to_rewrite_have_no_normal_spelling() {
        let long = "a".repeat(MAX_REWRITTEN_BYTES - 1);
        assert_eq!(normalized(format!("/{long}%61").as_bytes()), None);
        assert!(normalized(format!("/{long}b").as_bytes()).is_some());
        assert!(normalized(format!("/%61?{long}").as_bytes()).is_some());
    }

    proptest! {
        #[test]
        fn paths_of_every_length_are_normalized(
            before in "[a-c/]{0,20}", what in "//|/\\.\\./|%61|\\\\", after in "[a-c]{0,20}", query in "(\\?[/.%a]{0,9})?",
        ) {
            let sent = format!("/{before}{what}{after}");
            let target = format!("{sent}{query}");
            prop_assert_eq!(normalized(target.as_bytes()).unwrap(), rewritten(sent.as_bytes()));
            prop_assert!(normal_path(target.as_bytes()).is_none(), "{}", target);
            let plain = format!("/{}{after}", before.replace('/', "d"));
            let target = format!("{plain}{query}");
            prop_assert_eq!(normal_path(target.as_bytes()), Some(plain.as_bytes()));
        }

        #[test]
        fn normal_paths_stay(sent in "(/|\\.|a|%2e|%|\\\\){0,12}") {
            let once = normalized(sent.as_bytes()).unwrap();
            if once.starts_with(b"/") {
                prop_assert_eq!(normalized(&once).unwrap(), once.as_ref());
            }
        }
    }
}
