//! What spans do not hold: attributes that are left out, and parts of values that are hidden.
//!
//! The settings hold for the span's own attributes, for its name, and for custom tags: a tag reads a
//! value through a [`Protected`] source where an own attribute is made of the same value.
//!
//! ```text
//! addresses = *( text / separator )     ; x-forwarded-for, forwarded (RFC 7239, section 4)
//! separator = "," / ";" / "=" / DQUOTE / SP
//! ```

use std::borrow::Cow;
use std::net::IpAddr;
use std::rc::Rc;

use percent_encoding::percent_decode;

use super::attributes::{self as key, OwnKeys};
use super::tags::source::{Lookup, MAX_READ_BYTES, Source};
use super::tags::value::TagValue;
use crate::http::address::Address;
use crate::http::head::{AUTHORITY, Head, PATH, REQUEST_ID, USER_AGENT, split_query};
use crate::http::path;
use crate::http::redaction::{REDACTED, SecretKeys, normalized_key};
use crate::http::url::{MAX_URL_PART_BYTES, Url};
use crate::sampling::regex::Search;
use crate::sampling::search_budget::{BudgetExceeded, SearchBudget};

/// What spans do not hold.
#[derive(Debug, Clone, Default)]
pub struct Privacy {
    /// Own attributes that are left out.
    pub omitted: OwnKeys,
    /// Query parameters whose values are left out.
    pub secret_keys: SecretKeys,
    /// Parts of paths that are replaced.
    pub paths: Vec<PathRedaction>,
    /// Whether clients' addresses are recorded without their last bits.
    pub masks_clients: bool,
}

/// A part of paths that is replaced.
#[derive(Debug, Clone)]
pub struct PathRedaction {
    pub search: Search,
    pub replacement: String,
}

impl Privacy {
    /// Returns the URL of a request as spans may hold it.
    pub(crate) fn url(&self, head: &Head<'_>) -> Url {
        let (scheme, authority, target) = (head.scheme(), head.authority(), head.target());
        if self.paths.is_empty() && self.omitted == OwnKeys::default() {
            return Url::new(scheme, authority, target, &self.secret_keys);
        }
        let hides_host = self.omitted.contains(key::SERVER_ADDRESS);
        let authority = if hides_host { REDACTED } else { authority };
        let (path, query) = split_query(target);
        let query = query.filter(|_| !self.omitted.contains(key::URL_QUERY));
        let query = query.map(|query| query.get(..MAX_URL_PART_BYTES).unwrap_or(query));
        let query = query.map(|query| self.secret_keys.redacted(query));
        Url::of_parts(scheme, authority, &self.path(path), query.as_deref())
    }

    /// Returns a source that reads only what spans may hold. `name` is the request header that it reads, or
    /// Envoy's attribute with dots between its parts, or a CEL expression over attributes. The path and the
    /// query may always hold secrets.
    pub(crate) fn protected(self: &Rc<Self>, mut source: Source, name: &str) -> Source {
        let name = name.strip_prefix("request.headers.").unwrap_or(name);
        let words = name.split(|char: char| !char.is_ascii_alphanumeric() && !"-_".contains(char));
        let has_word = |word: &str| words.clone().any(|known| known.eq_ignore_ascii_case(word));
        let mut last = "";
        for (known, key) in SOURCES {
            if key == last || !known.split(['.', ':']).all(|word| word.is_empty() || has_word(word))
            {
                continue;
            }
            let shown = match key {
                key::URL_PATH => Shown::Target,
                key::URL_QUERY => Shown::Query,
                key::CLIENT_ADDRESS if self.masks_clients => Shown::Networks,
                key if self.omitted.contains(key) => Shown::All,
                _ => continue,
            };
            source = self.wrapped(source, key, shown);
            last = key;
        }
        source
    }

    /// Returns the `source` of a query parameter's value, which is hidden if the configuration names the
    /// parameter: the operator who reads a parameter by its name knows that it may be a secret.
    pub(crate) fn query_parameter(
        self: &Rc<Self>,
        name: String,
        source: fn(String) -> Source,
    ) -> Source {
        let key = normalized_key(name.as_bytes());
        // A name that is too long for a key is a secret where all are.
        let is_hidden =
            key.map_or(self.secret_keys.all, |key| self.secret_keys.are_configured_for(&key));
        let source = source(name);
        if is_hidden || self.omitted.contains(key::URL_QUERY) {
            return self.wrapped(
                source,
                key::URL_QUERY,
                if is_hidden { Shown::Nothing } else { Shown::All },
            );
        }
        source
    }

    fn wrapped(self: &Rc<Self>, source: Source, key: &'static str, shown: Shown) -> Source {
        let privacy = self.clone();
        Source::Protected(Box::new(Protected { source, key, shown, privacy, is_hashed: false }))
    }

    /// Returns a request target without what spans do not hold.
    fn target(&self, target: &[u8], is_omitted: &dyn Fn(&str) -> bool) -> Vec<u8> {
        let (path, query) = split_query(target);
        let mut shown = Vec::new();
        if !is_omitted(key::URL_PATH) {
            shown.extend_from_slice(&self.path(path));
        }
        if let Some(query) = query.filter(|_| !is_omitted(key::URL_QUERY)) {
            shown.push(b'?');
            shown.extend_from_slice(&self.secret_keys.redacted(query));
        }
        shown
    }

    /// Returns a path without secrets. A path that is too long to be searched is hidden as a whole.
    fn path<'p>(&self, path: &'p [u8]) -> Cow<'p, [u8]> {
        if self.paths.is_empty() {
            let start = path.get(..MAX_READ_BYTES).unwrap_or(path);
            return self.secret_keys.redacted_path(start);
        }
        // A URL and a CEL expression may have text before the path.
        let start = path.iter().position(|byte| *byte == b'/').unwrap_or_default();
        if let Some((before, path)) = path.split_at_checked(start).filter(|_| start > 0) {
            return Cow::Owned([before, &self.path(path)].concat());
        }
        match self.replaced(path) {
            Ok(replaced) => replaced.map_or(self.secret_keys.redacted_path(path), Cow::Owned),
            Err(BudgetExceeded) => Cow::Borrowed(REDACTED),
        }
    }

    /// Returns a path with its redacted parts replaced, or `None` if it has none. A client chooses how to
    /// spell a path, so its normal spelling is searched first, then the path as it was sent, then the path
    /// with all its bytes decoded.
    fn replaced(&self, path: &[u8]) -> Result<Option<Vec<u8>>, BudgetExceeded> {
        if path.len() > MAX_URL_PART_BYTES {
            return Err(BudgetExceeded);
        }
        let path = self.secret_keys.redacted_path(path);
        let budget = SearchBudget::default();
        let normal = path::normalized(&path).ok_or(BudgetExceeded)?;
        let decoded: Cow<'_, [u8]> = percent_decode(&path).into();
        let mut searched: &[u8] = b"";
        for spelling in [&normal, &path, &decoded] {
            if **spelling == *searched {
                continue;
            }
            searched = spelling;
            let mut text = spelling.to_vec();
            let mut is_redacted = false;
            for PathRedaction { search, replacement } in &self.paths {
                let matches = search.find_all(&text, &budget)?;
                if matches.is_empty() {
                    continue;
                }
                is_redacted = true;
                let (mut redacted, mut copied) = (Vec::new(), 0);
                for found in matches {
                    redacted.extend_from_slice(text.get(copied..found.start).unwrap_or_default());
                    redacted.extend_from_slice(replacement.as_bytes());
                    copied = found.end;
                }
                redacted.extend_from_slice(text.get(copied..).unwrap_or_default());
                text = redacted;
            }
            if is_redacted {
                return Ok(Some(text));
            }
        }
        Ok(None)
    }
}

/// A source whose value spans do not hold as it is.
#[derive(Debug, Clone)]
pub struct Protected {
    pub source: Source,
    /// The own attribute that is made of the same value.
    key: &'static str,
    shown: Shown,
    privacy: Rc<Privacy>,
    /// Whether the tag records a hash, which may stand for a value that is left out.
    pub is_hashed: bool,
}

/// What a tag shows of a value whose attribute is not omitted.
#[derive(Debug, Clone, Copy)]
enum Shown {
    All,
    /// A path, with or without its query, without secrets.
    Target,
    /// A query without secrets.
    Query,
    /// Addresses, masked.
    Networks,
    Nothing,
}

impl Protected {
    /// Returns what spans may hold of the value, or `None` if that is nothing.
    pub(crate) fn find<'a>(&self, lookup: Lookup<'_, 'a>) -> Option<TagValue<'a>> {
        let Self { source, key, shown, privacy, .. } = self;
        let is_omitted = |key: &str| !self.is_hashed && privacy.omitted.contains(key);
        if !matches!(shown, Shown::Target) && is_omitted(key) {
            return None;
        }
        let value = source.find(lookup)?;
        if matches!(shown, Shown::All) {
            return Some(value);
        }
        let value = value.into_text();
        let value = value.get(..MAX_READ_BYTES).unwrap_or(&value);
        let text = match shown {
            Shown::All | Shown::Nothing => REDACTED.to_vec(),
            Shown::Target => privacy.target(value, &is_omitted),
            Shown::Query => privacy.secret_keys.redacted(value).into_owned(),
            Shown::Networks => masked_list(value),
        };
        Some(TagValue::Text(text.into()))
    }
}

/// Returns the network of an address: IPv4 up to the third byte, IPv6 up to the third group. An IPv4 address
/// that is mapped to IPv6 counts as IPv4.
pub(crate) fn masked(ip: IpAddr) -> String {
    let ip = match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets().map(u32::from);
            return format!("{a}.{b}.{c}.0");
        }
        IpAddr::V6(ip) => ip,
    };
    let [a, b, c, ..] = ip.segments().map(u32::from);
    // An address of 6to4 has a whole IPv4 address in its second and third group (RFC 3056, section 2).
    let c = if a == SIX_TO_FOUR { c & 0xff00 } else { c };
    let mut text = format!("{a:x}:{b:x}:{c:x}::");
    // Zeros at the end are part of the `::`.
    while text == "0::" || text.ends_with(":0::") {
        text.truncate(text.len() - 3);
        text.push_str(if text.is_empty() { "::" } else { ":" });
    }
    text
}

/// Returns the first 2,048 bytes of a list of addresses, each masked. The names in `forwarded` stay;
/// everything else is hidden.
fn masked_list(list: &[u8]) -> Vec<u8> {
    let mut shown = Vec::new();
    let mut rest = list.get(..MAX_URL_PART_BYTES).unwrap_or(list);
    loop {
        let is_separator = |byte: &u8| b",;=\" ".contains(byte);
        let len = rest.iter().position(is_separator).unwrap_or(rest.len());
        let (item, after) = rest.split_at_checked(len).unwrap_or_default();
        match Address::parse(item) {
            Some(address) => shown.extend_from_slice(masked(address.ip).as_bytes()),
            None if item.is_empty() || after.starts_with(b"=") => shown.extend_from_slice(item),
            None => shown.extend_from_slice(REDACTED),
        }
        let Some((separator, after)) = after.split_first() else { return shown };
        shown.push(*separator);
        rest = after;
    }
}

/// The first group of 6to4's addresses.
const SIX_TO_FOUR: u32 = 0x2002;
/// Request headers and attributes of Envoy's that hold the values of own attributes, or addresses and paths
/// of the same kind.
const SOURCES: [(&str, &str); 24] = [
    ("source.address", key::CLIENT_ADDRESS),
    ("x-forwarded-for", key::CLIENT_ADDRESS),
    ("forwarded", key::CLIENT_ADDRESS),
    ("x-envoy-external-address", key::CLIENT_ADDRESS),
    ("x-real-ip", key::CLIENT_ADDRESS),
    ("x-client-ip", key::CLIENT_ADDRESS),
    ("x-cluster-client-ip", key::CLIENT_ADDRESS),
    ("true-client-ip", key::CLIENT_ADDRESS),
    ("cf-connecting-ip", key::CLIENT_ADDRESS),
    (PATH, key::URL_PATH),
    ("request.path", key::URL_PATH),
    ("request.url_path", key::URL_PATH),
    ("x-envoy-original-path", key::URL_PATH),
    ("x-original-uri", key::URL_PATH),
    ("x-forwarded-uri", key::URL_PATH),
    ("request.query", key::URL_QUERY),
    (USER_AGENT, key::USER_AGENT_ORIGINAL),
    ("request.useragent", key::USER_AGENT_ORIGINAL),
    (AUTHORITY, key::SERVER_ADDRESS),
    // `request.host` too. Envoy reads `:authority` for the header `host`.
    ("host", key::SERVER_ADDRESS),
    ("x-forwarded-host", key::SERVER_ADDRESS),
    ("connection.requested_server_name", key::SERVER_ADDRESS),
    (REQUEST_ID, key::REQUEST_ID),
    ("request.id", key::REQUEST_ID),
];

#[cfg(test)]
mod tests;
