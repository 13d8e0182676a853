//! The sources of tags: where a value is read, and how.
//!
//! A new source is one more variant of [`Source`]. The compiler then asks for its input, its protection
//! and its look-up, which all stand in this file.
//!
//! ```text
//! cookie = pair *( ";" OWS pair )     ; pair = name "=" value, RFC 6265, section 4.2.1
//! query  = pair *( "&" pair )         ; application/x-www-form-urlencoded
//! ```
//!
//! <https://www.rfc-editor.org/rfc/rfc6265>, <https://url.spec.whatwg.org/#urlencoded-parsing>

use std::borrow::Cow;
use std::rc::Rc;

use percent_encoding::percent_decode;

use super::property::Property;
use super::value::TagValue;
use super::{EndFacts, KeptValues};
use crate::http::head::{self, Head, split_query};
use crate::propagation::baggage;
use crate::span::privacy::{Privacy, Protection};
use crate::span::text::MAX_READ_BYTES;

/// Where one value comes from. If a header, parameter or cookie is repeated, the first counts; if a
/// member of baggage is, the last.
#[derive(Debug, Clone)]
pub enum Source {
    RequestHeader(String),
    ResponseHeader(String),
    ResponseTrailer(String),
    /// A parameter of the request's query, decoded.
    QueryParameter(String),
    /// A parameter of the request's query, decoded but for its plus signs.
    PlainQueryParameter(String),
    Cookie(String),
    /// A member of the incoming W3C Baggage, decoded.
    Baggage(String),
    Property(Property),
    /// The value at this index of [`KeptValues`].
    Kept(usize),
    /// A value that may not be shown as it is.
    Protected(Box<Protected>),
}

/// A source, and what protects its value.
#[derive(Debug, Clone)]
pub struct Protected {
    source: Source,
    protections: Vec<Protection>,
}

/// What a value is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input<'s> {
    /// The request header of this name, when the request arrives. It is kept in full for late spans.
    RequestHeader(&'s str),
    /// [`KeptValues`], at the request's end.
    KeptValues,
    ResponseHeaders,
    ResponseTrailers,
    /// Envoy's attributes.
    Properties,
}

/// The data that sources read: the headers when a request arrives, everything else at its end.
#[derive(Debug, Clone, Copy)]
pub enum Lookup<'f, 'a> {
    AtRequest(&'f Head<'a>),
    AtEnd(&'a KeptValues, &'f EndFacts<'f, 'a>),
}

impl Source {
    /// Protects the value if it is, or is a part of, what an own attribute holds: see [`Privacy`]. Attributes
    /// and CEL expressions are protected when they are compiled, since they have their names only then.
    pub fn protect(&mut self, privacy: &Rc<Privacy>) {
        let protections = match self {
            Self::RequestHeader(name) => privacy.protections(name),
            Self::QueryParameter(name) | Self::PlainQueryParameter(name) => {
                privacy.of_query_parameter(name).into_iter().collect()
            }
            // No own attribute holds their values.
            Self::ResponseHeader(_)
            | Self::ResponseTrailer(_)
            | Self::Cookie(_)
            | Self::Baggage(_) => return,
            Self::Property(_) | Self::Kept(_) | Self::Protected(_) => return,
        };
        self.protect_by(protections);
    }

    /// Protects the value. The first protection is applied first.
    pub fn protect_by(&mut self, protections: Vec<Protection>) {
        if !protections.is_empty() {
            let source = std::mem::replace(self, Self::Kept(0));
            *self = Self::Protected(Box::new(Protected { source, protections }));
        }
    }

    /// Notes that the tag records a hash of the value.
    pub fn set_hashed(&mut self) {
        if let Self::Protected(protected) = self {
            protected.protections.iter_mut().for_each(|protection| protection.is_hashed = true);
        }
    }

    pub fn input(&self) -> Input<'_> {
        match self {
            Self::RequestHeader(name) => Input::RequestHeader(name),
            Self::QueryParameter(_) | Self::PlainQueryParameter(_) => {
                Input::RequestHeader(head::PATH)
            }
            Self::Cookie(_) => Input::RequestHeader(COOKIE),
            Self::Baggage(_) => Input::RequestHeader(baggage::BAGGAGE),
            Self::Kept(_) => Input::KeptValues,
            Self::ResponseHeader(_) => Input::ResponseHeaders,
            Self::ResponseTrailer(_) => Input::ResponseTrailers,
            Self::Property(_) => Input::Properties,
            Self::Protected(protected) => protected.source.input(),
        }
    }

    /// Tells whether the value is a header, or a part of one, as it was sent.
    pub fn is_raw_header(&self) -> bool {
        use Source::{Cookie, RequestHeader, ResponseHeader, ResponseTrailer};
        matches!(self, RequestHeader(_) | ResponseHeader(_) | ResponseTrailer(_) | Cookie(_))
    }

    /// Returns the value, which may be empty, or `None` where it is missing or known at another time.
    pub fn find<'a>(&self, lookup: Lookup<'_, 'a>) -> Option<TagValue<'a>> {
        let text = match self {
            Self::RequestHeader(name) => lookup.request()?.first(name).map(start_of),
            Self::ResponseHeader(name) => lookup.end_facts()?.response.first(name).map(start_of),
            Self::ResponseTrailer(name) => lookup.end_facts()?.trailers.first(name).map(start_of),
            Self::QueryParameter(name) | Self::PlainQueryParameter(name) => {
                let is_form = matches!(self, Self::QueryParameter(_));
                query_parameter(lookup.request()?.target(), name, is_form)
            }
            Self::Cookie(name) => cookie(lookup.request()?, name).map(Cow::Borrowed),
            Self::Baggage(key) => baggage::value(lookup.request()?, key),
            Self::Property(property) => {
                let facts = lookup.end_facts().filter(|it| it.is_grpc || !property.is_of_grpc())?;
                return property.find(facts.properties);
            }
            Self::Kept(index) => lookup.kept(*index).map(Cow::Borrowed),
            Self::Protected(protected) => {
                let Protected { source, protections } = &**protected;
                if protections.iter().any(Protection::omits_all) {
                    return None;
                }
                let value = source.find(lookup)?;
                return Some(protections.iter().fold(value, |value, it| it.protected(value)));
            }
        };
        text.map(TagValue::Text)
    }
}

impl Input<'_> {
    /// Returns the bit of an input that is read at the request's end, in a set of inputs; 0 of others.
    pub const fn bit_at_end(self) -> u8 {
        match self {
            Self::RequestHeader(_) | Self::KeptValues => 0,
            Self::ResponseHeaders => 1,
            Self::ResponseTrailers => 2,
            Self::Properties => 4,
        }
    }
}

impl<'f, 'a> Lookup<'f, 'a> {
    fn request(self) -> Option<&'f Head<'a>> {
        match self {
            Self::AtRequest(head) => Some(head),
            Self::AtEnd(..) => None,
        }
    }

    fn end_facts(self) -> Option<&'f EndFacts<'f, 'a>> {
        match self {
            Self::AtRequest(_) => None,
            Self::AtEnd(_, facts) => Some(facts),
        }
    }

    fn kept(self, index: usize) -> Option<&'a [u8]> {
        match self {
            Self::AtRequest(_) => None,
            Self::AtEnd(KeptValues(values), _) => values.get(index)?.as_deref(),
        }
    }
}

/// Returns the beginning of a header's value, which may be of any length.
fn start_of(value: &[u8]) -> Cow<'_, [u8]> {
    Cow::Borrowed(value.get(..MAX_READ_BYTES).unwrap_or(value))
}

/// Returns the first parameter of that name in a request target's query, decoded. A parameter without
/// `=` has an empty value. In a form, `+` is a space.
fn query_parameter<'a>(target: &'a [u8], name: &str, is_form: bool) -> Option<Cow<'a, [u8]>> {
    let query = split_query(target).1?;
    let query = query.get(..MAX_READ_BYTES).unwrap_or(query);
    for pair in query.split(|byte| *byte == b'&') {
        let (key, value) = split_pair(pair);
        if *decoded(key, is_form) == *name.as_bytes() {
            return Some(decoded(value, is_form));
        }
    }
    None
}

/// Percent-decodes a name or a value of a query. In a form, `+` is a space.
fn decoded(text: &[u8], is_form: bool) -> Cow<'_, [u8]> {
    if !is_form || !text.contains(&b'+') {
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

/// Returns the value of the first cookie of that name, without quotes around it.
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
    fn the_first_query_parameter_counts_and_is_decoded() {
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
    fn plus_signs_of_a_plain_parameter_stay() {
        let source = Source::PlainQueryParameter("q".to_owned());
        check(source.clone(), &[(":path", "/?q=a%20b+c&q=2")], Some("a b+c"));
        check(source.clone(), &[(":path", "/?%71=")], Some(""));
        check(source, &[(":path", "/?r=1")], None);
    }

    #[test]
    fn cookies_are_found_in_every_cookie_header() {
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
    fn the_first_header_and_the_last_member_of_baggage_count() {
        let source = Source::RequestHeader("x".to_owned());
        check(source.clone(), &[("x", "1"), ("x", "2")], Some("1"));
        check(source.clone(), &[("x", "")], Some(""));
        check(source, &[("y", "1")], None);
        check(Source::ResponseHeader("x".to_owned()), &[("x", "1")], None);
        check(Source::ResponseTrailer("x".to_owned()), &[("x", "1")], None);
        check(Source::Baggage("k".to_owned()), &[("baggage", "k=1,k=v%20w;p")], Some("v w"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(text: Vec<u8>, name in "[a-z=&;%+\"]{0,3}") {
            let head = Head::new(vec![(b"cookie", &text)]);
            let _ = (query_parameter(&text, &name, true), cookie(&head, &name));
        }

        #[test]
        fn a_form_encoded_value_is_decoded(value: Vec<u8>) {
            let encoded: String = value.iter().map(|byte| format!("%{byte:02X}")).collect();
            let target = format!("/?a=1&k={encoded}&k=2");
            let found = query_parameter(target.as_bytes(), "k", true);
            prop_assert_eq!(found.as_deref(), Some(value.as_slice()));
        }
    }
}
