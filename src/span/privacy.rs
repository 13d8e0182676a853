//! Keeps private data out of spans: attributes that are omitted, and parts of values that are redacted.
//!
//! The settings apply to the span's own attributes, to its name, and to custom tags: a tag's value has a
//! [`Protection`] if an own attribute is made of the same value.
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
use super::tags::value::TagValue;
use super::text::MAX_READ_BYTES;
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
    /// Query parameters whose values are replaced by `REDACTED`.
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

    /// Returns what protects a value that a tag reads, the first to apply first. `name` is the request header
    /// that holds the value, or Envoy's attribute with dots between its parts, or a CEL expression over
    /// attributes. The path and the query may always hold secrets.
    pub(crate) fn protections(self: &Rc<Self>, name: &str) -> Vec<Protection> {
        let name = name.strip_prefix("request.headers.").unwrap_or(name);
        let words = name.split(|char: char| !char.is_ascii_alphanumeric() && !"-_".contains(char));
        let has_word = |word: &str| words.clone().any(|known| known.eq_ignore_ascii_case(word));
        let mut protections = Vec::new();
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
            protections.push(self.protection(key, shown));
            last = key;
        }
        protections
    }

    /// Returns what protects a query parameter that a tag reads by its name. The value is hidden if the
    /// configuration makes the parameter a secret. Built-in names of secrets do not count: an operator who
    /// asks for a parameter knows what it holds.
    pub(crate) fn of_query_parameter(self: &Rc<Self>, name: &str) -> Option<Protection> {
        let key = normalized_key(name.as_bytes());
        // A name that is too long for a key counts as a secret only if all parameters do.
        let is_hidden =
            key.map_or(self.secret_keys.all, |key| self.secret_keys.are_configured_for(&key));
        let shown = match is_hidden {
            true => Shown::Nothing,
            false if self.omitted.contains(key::URL_QUERY) => Shown::All,
            false => return None,
        };
        Some(self.protection(key::URL_QUERY, shown))
    }

    fn protection(self: &Rc<Self>, key: &'static str, shown: Shown) -> Protection {
        Protection { key, shown, privacy: self.clone(), is_hashed: false }
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

/// What a tag does not show of a value.
#[derive(Debug, Clone)]
pub struct Protection {
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

impl Protection {
    /// Tells whether the value is left out as a whole.
    pub(crate) fn omits_all(&self) -> bool {
        !matches!(self.shown, Shown::Target) && self.omits(self.key)
    }

    /// Returns the value as the tag may show it.
    pub(crate) fn protected<'a>(&self, value: TagValue<'a>) -> TagValue<'a> {
        if matches!(self.shown, Shown::All) {
            return value;
        }
        let value = value.into_text();
        let value = value.get(..MAX_READ_BYTES).unwrap_or(&value);
        let text = match self.shown {
            Shown::All | Shown::Nothing => REDACTED.to_vec(),
            Shown::Target => self.privacy.target(value, &|key| self.omits(key)),
            Shown::Query => self.privacy.secret_keys.redacted(value).into_owned(),
            Shown::Networks => masked_list(value),
        };
        TagValue::Text(text.into())
    }

    fn omits(&self, key: &str) -> bool {
        !self.is_hashed && self.privacy.omitted.contains(key)
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
