//! URL parts as spans record them: host and port of an authority, and targets without secrets.
//!
//! <https://opentelemetry.io/docs/specs/semconv/registry/attributes/url/>

use crate::http::digits;
use crate::http::head::split_query;
use crate::http::redaction::SecretKeys;

/// Splits an authority into host and port, without user information. An IPv6 host loses its brackets.
/// The port is `None` unless it is a number from 1 to 65535.
pub fn host_and_port(authority: &[u8]) -> (&[u8], Option<u16>) {
    let authority = without_user_info(authority);
    if let Some(rest) = authority.strip_prefix(b"[") {
        let (host, rest) = split_at_byte(rest, b']');
        return (host, rest.and_then(|rest| rest.strip_prefix(b":")).and_then(port));
    }
    let (host, rest) = split_at_byte(authority, b':');
    (host, rest.and_then(port))
}

/// Returns the text before the first such byte, and the text after it, if there is one.
fn split_at_byte(text: &[u8], byte: u8) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(byte, text).and_then(|at| text.split_at_checked(at)) {
        Some((before, rest)) => (before, rest.get(1..)),
        None => (text, None),
    }
}

/// Returns the port of a scheme if the authority has none (RFC 9110, section 4.2).
pub fn default_port(scheme: &[u8]) -> Option<u16> {
    match scheme {
        b"http" => Some(80),
        b"https" => Some(443),
        _ => None,
    }
}

/// The absolute URL of a request, without user information and secrets. Scheme, authority and target
/// are each cut to [`MAX_URL_PART_BYTES`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Url {
    text: Vec<u8>,
    path_start: usize,
    path_end: usize,
}

impl Url {
    /// Builds the URL from the pseudo headers of a request.
    pub fn new(scheme: &[u8], authority: &[u8], target: &[u8], secrets: &SecretKeys) -> Self {
        let (path, query) = split_query(truncated(target));
        let query = query.map(|query| secrets.redacted(query));
        Self::of_parts(scheme, authority, &secrets.redacted_path(path), query.as_deref())
    }

    /// Builds the URL of parts whose path and query hold no secrets.
    pub fn of_parts(scheme: &[u8], authority: &[u8], path: &[u8], query: Option<&[u8]>) -> Self {
        let (scheme, authority) = (truncated(scheme), truncated(without_user_info(authority)));
        let path = truncated(path);
        // Redaction may have made the query longer.
        let query =
            query.map(|query| query.get(..MAX_URL_PART_BYTES - path.len()).unwrap_or(query));
        let path_start = scheme.len() + SCHEME_END.len() + authority.len();
        let path_end = path_start + path.len();
        let query_len = query.map_or(0, |query| 1 + query.len());
        // A stream keeps the text as long as it lives, so the buffer gets exactly the size it needs.
        let mut text = Vec::with_capacity(path_end + query_len);
        for part in [scheme, SCHEME_END, authority, path] {
            text.extend_from_slice(part);
        }
        if let Some(query) = query {
            text.push(b'?');
            text.extend_from_slice(query);
        }
        Self { text, path_start, path_end }
    }

    /// Returns the whole URL.
    pub fn full(&self) -> &[u8] {
        &self.text
    }

    /// Returns the URL without its path.
    pub fn without_path(&self) -> Vec<u8> {
        let origin = self.text.get(..self.path_start).unwrap_or_default();
        [origin, self.text.get(self.path_end..).unwrap_or_default()].concat()
    }

    /// Returns the path.
    pub fn path(&self) -> &[u8] {
        self.text.get(self.path_start..self.path_end).unwrap_or_default()
    }

    /// Returns the text after the `?`, if there is one.
    pub fn query(&self) -> Option<&[u8]> {
        self.text.get(self.path_end + 1..)
    }
}

fn truncated(part: &[u8]) -> &[u8] {
    part.get(..MAX_URL_PART_BYTES).unwrap_or(part)
}

fn without_user_info(authority: &[u8]) -> &[u8] {
    memchr::memrchr(b'@', authority).and_then(|at| authority.get(at + 1..)).unwrap_or(authority)
}

fn port(digits: &[u8]) -> Option<u16> {
    digits::decimal(digits).filter(|port| *port != 0)
}

/// The most bytes of each part of a URL. A stream keeps its URL as long as it lives, so longer parts are cut.
pub const MAX_URL_PART_BYTES: usize = 2048;
const SCHEME_END: &[u8] = b"://";

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(authority: &str, host: &str, port: Option<u16>) {
        assert_eq!(host_and_port(authority.as_bytes()), (host.as_bytes(), port), "{authority}");
    }

    #[test]
    fn authorities_have_host_and_port() {
        check("shop", "shop", None);
        check("shop:8080", "shop", Some(8080));
        check("10.0.0.1:1", "10.0.0.1", Some(1));
        check("[::1]:8080", "::1", Some(8080));
        check("[::1]", "::1", None);
        check("user:pass@shop:80", "shop", Some(80));
        check("shop:", "shop", None);
        check("shop:0", "shop", None);
        check("shop:65536", "shop", None);
        check("shop:+80", "shop", None);
        check("shop:123456", "shop", None);
        check("[::1", "::1", None);
        check("", "", None);
    }

    #[test]
    fn urls_have_parts() {
        let url = Url::new(b"https", b"u:p@shop:444", b"/a?sig=1&b=2", &SecretKeys::default());
        assert_eq!(url.full(), b"https://shop:444/a?sig=REDACTED&b=2");
        assert_eq!(
            (url.path(), url.query()),
            (b"/a".as_slice(), Some(b"sig=REDACTED&b=2".as_slice()))
        );
        let long = ["u:", &"p".repeat(MAX_URL_PART_BYTES), "@shop"].concat();
        assert_eq!(
            Url::new(b"http", long.as_bytes(), b"/", &SecretKeys::default()).full(),
            b"http://shop/"
        );
        let url = Url::new(b"http", b"shop", b"/a?", &SecretKeys::default());
        assert_eq!((url.path(), url.query()), (b"/a".as_slice(), Some(b"".as_slice())));
        let url = Url::new(b"http", b"shop", b"/a", &SecretKeys::default());
        assert_eq!((url.path(), url.query()), (b"/a".as_slice(), None));
    }

    #[test]
    fn a_url_allocates_only_what_it_keeps() {
        let long = vec![b'a'; 60_000];
        let secrets = [b"/?".as_slice(), &b"sig=&".repeat(12_000)].concat();
        for (scheme, authority, target, kept) in [
            (&b"http"[..], &b"shop"[..], &b"/a"[..], "http://shop/a".len()),
            (b"http", b"shop", &long, "http://shop".len() + MAX_URL_PART_BYTES),
            (b"http", &long, b"/", "http:///".len() + MAX_URL_PART_BYTES),
            (&long, b"shop", b"/", "://shop/".len() + MAX_URL_PART_BYTES),
            (b"http", b"shop", b"/?sig=a&b", "http://shop/?sig=REDACTED&b".len()),
            (b"http", b"shop", &secrets, "http://shop?".len() + MAX_URL_PART_BYTES),
        ] {
            let url = Url::new(scheme, authority, target, &SecretKeys::default());
            assert_eq!((url.text.len(), url.text.capacity()), (kept, kept));
        }
    }
}
