//! Attributes of the operator's own: where each value comes from, and what is done to it before it
//! is recorded.
//!
//! As with Envoy's own custom tags, the default stands for a value that is missing, and an empty
//! value makes no tag:
//! <https://www.envoyproxy.io/docs/envoy/latest/api-v3/type/tracing/v3/custom_tag.proto>

pub mod format;
pub mod property;
pub mod redact;
pub mod sensitive;
pub mod source;

use std::borrow::Cow;

use crate::http::digits;
use crate::http::head::Head;
use crate::span::encoding::Attributes;
use crate::span::text::printable;

use self::format::Part;
use self::property::Properties;
use self::redact::{Redaction, Transformation};
use self::source::{Input, Source};

/// All tags, and what of Envoy they ask for.
#[derive(Debug, Clone)]
pub struct Tags {
    /// The span's own that never change.
    pub marks: Attributes,
    /// Those that never change.
    pub constant: Attributes,
    request: Vec<Tag>,
    end: Vec<Tag>,
    /// Sources of tags at the end that are read when the request arrives.
    early: Vec<EarlySource>,
    /// Characters of an attribute's value.
    max_chars: usize,
    pub properties: Properties,
    /// What those at the end ask for: bits of [`Input`].
    asks: u8,
}

/// A source that [`Source::Early`] stands for.
#[derive(Debug, Clone)]
struct EarlySource {
    source: Source,
    /// Bytes of the value that are kept.
    max_bytes: usize,
}

/// Values that were read when the request arrived, for tags that are finished at its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EarlyValues(Vec<Option<Vec<u8>>>);

/// An attribute whose value is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    pub key: String,
    pub value: Value,
    /// Recorded as it is where there is no value.
    pub default_value: Option<String>,
    pub transformation: Transformation,
}

/// What makes up a tag's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Source(Source),
    /// Texts and sources in a row; a source without a value is empty.
    Format(Vec<Part>),
}

/// What is known of a request at its end. What no tag asks for may be left empty.
#[derive(Debug, Clone, Copy)]
pub struct EndFacts<'f, 'a> {
    pub response: &'f Head<'a>,
    pub trailers: &'f Head<'a>,
    /// The values of [`Properties::values`], in that order; one that is absent is empty.
    pub properties: &'f [&'a [u8]],
}

/// What sources are looked up in: the request when it arrives, or all else at its end.
#[derive(Debug, Clone, Copy)]
pub enum Lookup<'f, 'a> {
    AtRequest(&'f Head<'a>),
    AtEnd(&'a EarlyValues, &'f EndFacts<'f, 'a>),
}

/// A value that was found.
#[derive(Debug, Clone, PartialEq)]
pub enum TagValue<'a> {
    Text(Cow<'a, [u8]>),
    Int(i64),
    Double(f64),
    Bool(bool),
}

impl Tags {
    /// Starts with the span's own constants, and no tags.
    pub fn new(marks: Attributes, constant: Attributes, max_chars: usize) -> Self {
        Self {
            marks,
            constant,
            request: Vec::new(),
            end: Vec::new(),
            early: Vec::new(),
            max_chars,
            properties: Properties::default(),
            asks: 0,
        }
    }

    /// Adds a tag to those of the request, or of its end, when its value is known. Request headers
    /// are read when the request arrives in either case.
    pub fn push(&mut self, mut tag: Tag) {
        let asks = tag.value.asks() & !Input::RequestHeaders.bit();
        if asks == 0 {
            self.request.push(tag);
            return;
        }
        self.asks |= asks;
        let max_bytes = match tag.transformation.redact {
            Some(Redaction::Hash) => MAX_HASHED_BYTES,
            _ => MAX_CHAR_BYTES * (self.max_chars + UNCUT_CHARS),
        };
        for source in tag.value.sources_mut() {
            if source.input() == Input::RequestHeaders {
                let index = self.early.len();
                let source = std::mem::replace(source, Source::Early(index));
                self.early.push(EarlySource { source, max_bytes });
            }
        }
        self.end.push(tag);
    }

    /// Adds the tags that the request's headers say, and returns what later tags need of them.
    pub fn at_request(&self, attributes: &mut Attributes, request: &Head<'_>) -> EarlyValues {
        attributes.append(&self.constant);
        let lookup = Lookup::AtRequest(request);
        add_all(&self.request, attributes, lookup);
        let value = |early: &EarlySource| {
            let value = early.source.find(lookup)?.into_text();
            Some(value.get(..early.max_bytes).unwrap_or(&value).to_vec())
        };
        EarlyValues(self.early.iter().map(value).collect())
    }

    /// Adds the tags whose values are known at the request's end. `early` is what
    /// [`Tags::at_request`] returned.
    pub fn at_end(
        &self,
        attributes: &mut Attributes,
        early: &EarlyValues,
        facts: &EndFacts<'_, '_>,
    ) {
        add_all(&self.end, attributes, Lookup::AtEnd(early, facts));
    }

    /// Returns the names of the request headers that tags are made of; a name may come twice.
    pub fn request_headers(&self) -> impl Iterator<Item = &str> {
        let of_request = self.request.iter().flat_map(|tag| tag.value.sources());
        let of_end = self.early.iter().map(|early| &early.source);
        of_request.chain(of_end).filter_map(Source::request_header)
    }

    /// Whether a tag needs anything at the request's end.
    pub fn needs_end_facts(&self) -> bool {
        self.asks != 0
    }

    /// Whether a tag needs headers of this phase at the request's end.
    pub fn needs(&self, input: Input) -> bool {
        self.asks & input.bit() != 0
    }
}

fn add_all(tags: &[Tag], attributes: &mut Attributes, lookup: Lookup<'_, '_>) {
    for tag in tags {
        tag.add(attributes, lookup);
    }
}

impl Tag {
    fn add(&self, attributes: &mut Attributes, lookup: Lookup<'_, '_>) {
        let found = match &self.value {
            Value::Source(source) => source.find(lookup),
            Value::Format(parts) => Some(TagValue::Text(format::text(parts, lookup).into())),
        };
        match found {
            None => {
                let default = self.default_value.as_deref().unwrap_or_default();
                add_text(attributes, &self.key, default.as_bytes());
            }
            Some(found) if self.transformation != Transformation::default() => {
                let value = found.into_text();
                let (text, cut) = self.transformation.apply(&value);
                if cut {
                    attributes.count_truncated();
                }
                add_text(attributes, &self.key, text.as_bytes());
            }
            // Envoy lets no control character through in a header; all else may have some.
            Some(TagValue::Text(text)) if !self.value.is_header() => {
                add_text(attributes, &self.key, printable(&text).as_bytes());
            }
            Some(TagValue::Text(text)) => add_text(attributes, &self.key, &text),
            Some(TagValue::Int(number)) => attributes.integer(&self.key, number.cast_unsigned()),
            Some(TagValue::Double(number)) => attributes.number(&self.key, number),
            Some(TagValue::Bool(truth)) => attributes.boolean(&self.key, truth),
        }
    }
}

fn add_text(attributes: &mut Attributes, key: &str, text: &[u8]) {
    if !text.is_empty() {
        attributes.text(key, text);
    }
}

impl Value {
    /// Whether it is a header as it was sent, or a part of one.
    fn is_header(&self) -> bool {
        use Source::{Cookie, RequestHeader, ResponseHeader, ResponseTrailer};
        let Self::Source(source) = self else { return false };
        matches!(source, RequestHeader(_) | ResponseHeader(_) | ResponseTrailer(_) | Cookie(_))
    }

    fn sources(&self) -> Vec<&Source> {
        match self {
            Self::Source(source) => vec![source],
            Self::Format(parts) => parts.iter().flat_map(Part::sources).collect(),
        }
    }

    /// What the value is read from, a bit for each [`Input`].
    fn asks(&self) -> u8 {
        match self {
            Self::Source(source) => source.input().bit(),
            Self::Format(parts) => {
                let mut asked = 0;
                for part in parts {
                    for source in part.sources() {
                        asked |= source.input().bit();
                    }
                }
                asked
            }
        }
    }

    fn sources_mut(&mut self) -> impl Iterator<Item = &mut Source> {
        let (source, parts) = match self {
            Self::Source(source) => (Some(source), &mut [][..]),
            Self::Format(parts) => (None, parts.as_mut_slice()),
        };
        source.into_iter().chain(parts.iter_mut().flat_map(Part::sources_mut))
    }
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

/// Bytes of a character in UTF-8.
const MAX_CHAR_BYTES: usize = 4;
/// Characters that are kept beyond the limit, so that a cut is counted, and a mask hides as much.
const UNCUT_CHARS: usize = 8;
/// A hash is over all that a tag reads of a value.
const MAX_HASHED_BYTES: usize = 8 * 1024;

#[cfg(test)]
mod tests;
