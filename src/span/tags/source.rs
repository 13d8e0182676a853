//! The places that a tag's value comes from.
//!
//! ```text
//! cookie = pair *( ";" OWS pair )     ; pair = name "=" value, RFC 6265, section 4.2.1
//! query  = pair *( "&" pair )         ; application/x-www-form-urlencoded
//! ```
//!
//! <https://www.rfc-editor.org/rfc/rfc6265>, <https://url.spec.whatwg.org/#urlencoded-parsing>

use std::borrow::Cow;

use percent_encoding::percent_decode;

use super::property::Property;
use super::{EarlyValues, Lookup, TagValue};
use crate::http::head::{self, Head, split_query};
use crate::propagation::baggage;

/// Where one value comes from. Of several headers, parameters or cookies by one name the first
/// counts, of several members of baggage the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    RequestHeader(String),
    ResponseHeader(String),
    ResponseTrailer(String),
    /// A parameter of the request's query, decoded.
    QueryParameter(String),
    Cookie(String),
    /// A member of the incoming W3C Baggage, decoded.
    Baggage(String),
    Property(Property),
    /// The value at this index of those that were read when the request arrived.
    Early(usize),
}

/// What a value is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The request's headers.
    RequestHeaders,
    /// The response's headers.
    ResponseHeaders,
    /// The response's trailers.
    ResponseTrailers,
    /// Envoy's attributes.
    Properties,
}

impl Input {
    pub const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl Source {
    pub fn input(&self) -> Input {
        match self {
            Self::RequestHeader(_)
            | Self::QueryParameter(_)
            | Self::Cookie(_)
            | Self::Baggage(_)
            | Self::Early(_) => Input::RequestHeaders,
            Self::ResponseHeader(_) => Input::ResponseHeaders,
            Self::ResponseTrailer(_) => Input::ResponseTrailers,
            Self::Property(_) => Input::Properties,
        }
    }

    /// Returns the name of the request header that the value is read from, where it is one.
    pub fn request_header(&self) -> Option<&str> {
        match self {
            Self::RequestHeader(name) => Some(name),
            Self::QueryParameter(_) => Some(head::PATH),
            Self::Cookie(_) => Some(COOKIE),
            Self::Baggage(_) => Some(baggage::BAGGAGE),
            Self::ResponseHeader(_)
            | Self::ResponseTrailer(_)
            | Self::Property(_)
            | Self::Early(_) => None,
        }
    }

    /// Looks the value up; one that is there may be empty. One of the other phase is absent.
    pub fn find<'a>(&self, lookup: Lookup<'_, 'a>) -> Option<TagValue<'a>> {
        let text = match (lookup, self) {
            (Lookup::AtRequest(head), Self::RequestHeader(name)) => head.first(name).map(start_of),
            (Lookup::AtRequest(head), Self::QueryParameter(name)) => {
                query_parameter(head.target(), name)
            }
            (Lookup::AtRequest(head), Self::Cookie(name)) => cookie(head, name).map(Cow::Borrowed),
            (Lookup::AtRequest(head), Self::Baggage(key)) => baggage::value(head, key),
            (Lookup::AtEnd(_, facts), Self::ResponseHeader(name)) => {
                facts.response.first(name).map(start_of)
            }
            (Lookup::AtEnd(_, facts), Self::ResponseTrailer(name)) => {
                facts.trailers.first(name).map(start_of)
            }
            (Lookup::AtEnd(_, facts), Self::Property(property)) => {
                return property.find(facts.properties);
            }
            (Lookup::AtEnd(EarlyValues(values), _), Self::Early(index)) => {
                values.get(*index)?.as_deref().map(Cow::Borrowed)
            }
            _ => None,
        };
        text.map(TagValue::Text)
    }
}

/// The part of a value that is read: whoever sends it also chooses how long it is.
fn start_of(value: &[u8]) -> Cow<'_, [u8]> {
    Cow::Borrowed(value.get(..MAX_READ_BYTES).unwrap_or(value))
}

/// Returns the first parameter of that name in a request target's query, decoded. One without `=`
/// is there and empty.
fn query_parameter<'a>(target: &'a [u8], name: &str) -> Option<Cow<'a, [u8]>> {
    let query = split_query(target).1?;
    let query = query.get(..MAX_READ_BYTES).unwrap_or(query);
    for pair in query.split(|byte| *byte == b'&') {
        let (key, value) = split_pair(pair);
        if *form_decoded(key) == *name.as_bytes() {
            return Some(form_decoded(value));
        }
    }
    None
}

/// Percent-decodes a part of a form, where a `+` is a space.
fn form_decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'+') {
        return percent_decode(text).into();
    }
    let mut spaced = text.to_vec();
    for byte in &mut spaced {
        if *byte == b'+' {
            *byte = b' ';
        }
    }
    Cow::Owned(percent_decode(&spaced).collect())
}

/// Returns the first cookie of that name, without the quotes around it.
fn cookie<'a>(head: &Head<'a>, name: &str) -> Option<&'a [u8]> {
    let mut left = MAX_READ_BYTES;
    for line in head.all(COOKIE) {
        let line = line.get(..left).unwrap_or(line);
        left -= line.len();
        for pair in line.split(|byte| *byte == b';') {
            let (key, value) = split_pair(pair.trim_ascii());
            if key == name.as_bytes() {
                return Some(match value {
                    [b'"', unquoted @ .., b'"'] => unquoted,
                    _ => value,
                });
            }
        }
    }
    None
}

fn split_pair(pair: &[u8]) -> (&[u8], &[u8]) {
    let mut parts = pair.splitn(2, |byte| *byte == b'=');
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

const COOKIE: &str = "cookie";
/// Bytes of a header, a query or all cookies that a tag reads.
const MAX_READ_BYTES: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::propagation::testing::head;

    #[track_caller]
    fn check(source: Source, lines: &[(&str, &str)], expected: Option<&str>) {
        let request = head(lines);
        let expected = expected.map(|text| TagValue::Text(text.as_bytes().into()));
        assert_eq!(source.find(Lookup::AtRequest(&request)), expected, "{lines:?}");
    }

    #[test]
    fn query_parameters_are_decoded_and_the_first_counts() {
        for (target, expected) in [
            ("/?order=7", Some("7")),
            ("/?a=1&order=7&order=8", Some("7")),
            ("/?order=a%20b+c%2B", Some("a b c+")),
            ("/?%6frder=7", Some("7")),
            ("/?order=a=b", Some("a=b")),
            ("/?order=%zz%", Some("%zz%")),
            ("/?order=", Some("")),
            ("/?order", Some("")),
            ("/?&&order=7", Some("7")),
            ("/?a=b?order=7", None),
            ("/?Order=7", None),
            ("/?border=7", None),
            ("/?orders=7", None),
            ("/order=7", None),
            ("/?", None),
            ("", None),
        ] {
            check(Source::QueryParameter("order".to_owned()), &[(":path", target)], expected);
        }
    }

    #[test]
    fn cookies_are_found_in_every_line() {
        for (lines, expected) in [
            (["tier=gold", "x=y"], Some("gold")),
            (["x=y; tier=gold;z=1", "tier=2"], Some("gold")),
            (["x=y", "a=b;  tier = gold"], None),
            (["x=y", "a=b;  tier=gold "], Some("gold")),
            (["x=y", "tier=a=b"], Some("a=b")),
            (["x=y", "tier=\"a b\""], Some("a b")),
            (["x=y", "tier=\"a"], Some("\"a")),
            (["x=y", "tier=\""], Some("\"")),
            (["x=y", "tier"], Some("")),
            (["xtier=1", "tierx=2"], None),
            (["", ";;="], None),
        ] {
            check(Source::Cookie("tier".to_owned()), &lines.map(|line| ("cookie", line)), expected);
        }
    }

    #[test]
    fn of_headers_by_one_name_the_first_counts() {
        let source = Source::RequestHeader("x".to_owned());
        check(source.clone(), &[("x", "1"), ("x", "2")], Some("1"));
        check(source.clone(), &[("x", "")], Some(""));
        check(source, &[("y", "1")], None);
        check(Source::ResponseHeader("x".to_owned()), &[("x", "1")], None);
        check(Source::ResponseTrailer("x".to_owned()), &[("x", "1")], None);
        check(Source::Baggage("k".to_owned()), &[("baggage", "a=1,k=v%20w;p")], Some("v w"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(text: Vec<u8>, name in "[a-z=&;%+\"]{0,3}") {
            let head = Head::new(vec![(b"cookie", &text)]);
            let _ = (query_parameter(&text, &name), cookie(&head, &name));
        }

        #[test]
        fn what_a_form_encodes_comes_back(value: Vec<u8>) {
            let encoded: String = value.iter().map(|byte| format!("%{byte:02X}")).collect();
            let target = format!("/?a=1&k={encoded}&k=2");
            let found = query_parameter(target.as_bytes(), "k");
            prop_assert_eq!(found.as_deref(), Some(value.as_slice()));
        }
    }
}
