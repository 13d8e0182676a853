//! Spellings of a path and of an authority that mean the same, made one: a client chooses among them.

use std::borrow::Cow;

use crate::head::split_query;

/// Returns the path of a target as servers read it, without the query: percent-encoded unreserved
/// characters stand for themselves (RFC 3986, section 6.2.2.2), dot segments are gone (section 5.2.4), a
/// backslash is a slash, and slashes in a row are one.
pub fn path(target: &[u8]) -> Cow<'_, [u8]> {
    match normal_path(target) {
        Some(path) => Cow::Borrowed(path),
        None => Cow::Owned(rewritten(split_query(target).0)),
    }
}

/// Returns the path where there is nothing to rewrite, and sometimes none though there is nothing, as
/// in `/.a`. Eight bytes at a time, since every request is looked at.
fn normal_path(target: &[u8]) -> Option<&[u8]> {
    let (words, rest) = target.as_chunks::<8>();
    let mut last = [0; 8];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    let mut former = 0;
    let mut start = 0;
    for word in words.iter().chain([&last]) {
        let word = u64::from_le_bytes(*word);
        let slashes = equal(word, b'/');
        // A dot differs from a slash in the lowest bit.
        let dots_or_slashes = equal(word | u64::from_le_bytes([1; 8]), b'/');
        let behind_slashes = slashes << 8 | former >> 56;
        former = slashes;
        let odd = (behind_slashes & dots_or_slashes) | equal(word, b'%') | equal(word, b'\\');
        let marks = equal(word, b'?');
        let before_mark = (marks & marks.wrapping_neg()).wrapping_sub(1);
        if odd & before_mark != 0 {
            return None;
        }
        if marks != 0 {
            return target.get(..start + marks.trailing_zeros() as usize / 8);
        }
        start += 8;
    }
    Some(target)
}

/// Returns the highest bit of each byte that is this one.
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
    let Some(rest) = decoded.strip_prefix(b"/") else {
        return decoded;
    };
    // Each segment behind its slash.
    let mut normal = Vec::with_capacity(decoded.len());
    let mut segments = rest.split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            b"." => {}
            b".." => {
                let parent = normal.iter().rposition(|byte| *byte == b'/');
                normal.truncate(parent.unwrap_or_default());
            }
            b"" if !is_last => continue,
            _ => {
                normal.push(b'/');
                normal.extend_from_slice(segment);
                continue;
            }
        }
        if is_last {
            normal.push(b'/');
        }
    }
    normal
}

fn decode_unreserved(path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%'
            && let Some(([high, low], behind)) = after.split_first_chunk()
            && let Some(value) = hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low)
            && is_unreserved(value)
        {
            decoded.push(value);
            rest = behind;
        } else {
            decoded.push(if byte == b'\\' { b'/' } else { byte });
        }
    }
    decoded
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Returns the host of an authority, without the user, the port and dots at the end. Hosts are equal
/// in either case.
pub fn host(authority: &[u8]) -> &[u8] {
    let mut host = split(authority).0;
    while let Some((b'.', rest)) = host.split_last() {
        host = rest;
    }
    host
}

/// Returns the port of an authority, where it has one from 0 to 65535.
pub fn port(authority: &[u8]) -> Option<u16> {
    std::str::from_utf8(split(authority).1?).ok()?.parse().ok()
}

/// Splits the user off, and then the host from the digits of the port, which may be empty.
fn split(authority: &[u8]) -> (&[u8], Option<&[u8]>) {
    let host_and_port = authority.rsplit(|byte| *byte == b'@').next().unwrap_or_default();
    match host_and_port.iter().rposition(|byte| !byte.is_ascii_digit()) {
        Some(colon) if host_and_port.get(colon) == Some(&b':') => {
            let (host, port) = host_and_port.split_at(colon);
            (host, port.get(1..))
        }
        _ => (host_and_port, None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_as_servers_read_them() {
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
            assert_eq!(path(sent.as_bytes()), expected.as_bytes(), "{sent}");
        }
    }

    #[test]
    fn authorities_are_hosts_and_ports() {
        for (authority, expected, expected_port) in [
            ("api.example", "api.example", None),
            ("API.Example", "API.Example", None),
            ("api.example:443", "api.example", Some(443)),
            ("api.example.", "api.example", None),
            ("api.example.:443", "api.example", Some(443)),
            ("user@api.example", "api.example", None),
            ("user:1@x@api.example:8", "api.example", Some(8)),
            ("api.example:", "api.example", None),
            ("api.example:99999", "api.example", None),
            ("[::1]:8080", "[::1]", Some(8080)),
            ("[::1]", "[::1]", None),
            ("127.0.0.1", "127.0.0.1", None),
            ("127", "127", None),
            ("", "", None),
        ] {
            assert_eq!(host(authority.as_bytes()), expected.as_bytes(), "{authority}");
            assert_eq!(port(authority.as_bytes()), expected_port, "{authority}");
        }
    }

    proptest! {
        #[test]
        fn paths_of_every_length_are_looked_at(
            before in "[a-c/]{0,20}", what in "//|/\\.\\./|%61|\\\\", after in "[a-c]{0,20}", query in "(\\?[/.%a]{0,9})?",
        ) {
            let sent = format!("/{before}{what}{after}");
            let target = format!("{sent}{query}");
            prop_assert_eq!(path(target.as_bytes()), rewritten(sent.as_bytes()));
            prop_assert!(normal_path(target.as_bytes()).is_none(), "{}", target);
            let plain = format!("/{}{after}", before.replace('/', "d"));
            let target = format!("{plain}{query}");
            prop_assert_eq!(normal_path(target.as_bytes()), Some(plain.as_bytes()));
        }

        #[test]
        fn what_is_normal_stays(sent in "(/|\\.|a|%2e|%|\\\\){0,12}") {
            let once = path(sent.as_bytes()).into_owned();
            if once.starts_with(b"/") {
                prop_assert_eq!(path(&once).into_owned(), once);
            }
        }
    }
}
