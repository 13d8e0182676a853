//! Custom tags: the attributes that the operator adds to every span.
//!
//! A tag reads its value from a [`source`], or joins several in a [`format`](mod@format) string; then
//! [`redact`] hides or cuts it. As with Envoy's own custom tags, the default replaces a missing value,
//! and an empty value makes no tag:
//! <https://www.envoyproxy.io/docs/envoy/latest/api-v3/type/tracing/v3/custom_tag.proto>
//!
//! Values that are in the request's headers are read when the request arrives, all others at its end.

pub mod format;
pub(crate) mod property;
pub(crate) mod redact;
pub(crate) mod sensitive;
pub(crate) mod source;
pub(crate) mod time;
pub(crate) mod value;

use crate::http::head::Head;
use crate::span::encoding::Attributes;
use crate::span::text::printable;

use self::format::Part;
use self::property::Properties;
use self::redact::{Redaction, Transformation};
use self::source::{Input, Lookup, Source};
use self::value::TagValue;

/// All custom tags, and which of Envoy's attributes they read.
#[derive(Debug, Clone)]
pub struct Tags {
    /// Tags with fixed values, encoded once.
    pub fixed: Attributes,
    /// Tags that are complete when the request arrives.
    at_request: Vec<Tag>,
    /// Tags that are complete at the request's end.
    at_end: Vec<Tag>,
    /// The sources that [`Tags::at_request`] reads for tags and names at the end; [`Source::Kept`] has
    /// their index.
    kept: Vec<KeptSource>,
    /// Names of spans, in the order of `span.names`.
    names: Vec<NameFormat>,
    /// Characters of an attribute's value.
    max_chars: usize,
    pub properties: Properties,
    /// The inputs that tags and names at the end need: bits of [`Input`].
    needed_at_end: u8,
}

/// A source that is read when the request arrives, for a tag that is complete at its end.
#[derive(Debug, Clone)]
struct KeptSource {
    source: Source,
    /// Bytes of the value that are kept.
    max_bytes: usize,
}

/// Values that were read when the request arrived, for tags that are complete at its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeptValues(Vec<Option<Vec<u8>>>);

/// An attribute whose value is looked up for each request.
#[derive(Debug, Clone)]
pub struct Tag {
    pub key: String,
    pub source: TagSource,
    /// Replaces a missing value, and is recorded as it is.
    pub default_value: Option<String>,
    pub transformation: Transformation,
}

/// Where the value of a tag comes from.
#[derive(Debug, Clone)]
pub enum TagSource {
    Single(Source),
    /// Texts and sources, joined; a source without a value is empty.
    Format(Vec<Part>),
}

/// The format of a span's name.
#[derive(Debug, Clone)]
struct NameFormat {
    format: TagSource,
    /// Whether the name needs more than the request's headers.
    is_complete_at_end: bool,
}

/// Facts about a request that are known at its end. Those that no tag needs may be empty.
#[derive(Debug, Clone, Copy)]
pub struct EndFacts<'f, 'a> {
    pub response: &'f Head<'a>,
    pub trailers: &'f Head<'a>,
    /// Whether the request is a gRPC request.
    pub is_grpc: bool,
    /// The values that [`Properties::values`] returns; an absent one is empty.
    pub properties: &'f [&'a [u8]],
}

impl Tags {
    /// Starts without tags. Values get at most `max_chars` characters.
    pub fn new(max_chars: usize) -> Self {
        Self {
            fixed: Attributes::new(max_chars),
            at_request: Vec::new(),
            at_end: Vec::new(),
            kept: Vec::new(),
            names: Vec::new(),
            max_chars,
            properties: Properties::default(),
            needed_at_end: 0,
        }
    }

    /// Adds a tag. A tag that needs more than the request's headers is complete at the request's end,
    /// but its parts from those headers are still read when the request arrives.
    pub fn push(&mut self, mut tag: Tag) {
        if tag.transformation.redact == Some(Redaction::Hash) {
            tag.source.sources_mut().for_each(Source::set_hashed);
        }
        let max_bytes = match tag.transformation.redact {
            Some(Redaction::Hash) => MAX_HASHED_BYTES,
            _ => MAX_CHAR_BYTES * (self.max_chars + UNCUT_CHARS),
        };
        if self.keep_for_end(&mut tag.source, max_bytes) {
            self.at_end.push(tag);
        } else {
            self.at_request.push(tag);
        }
    }

    /// Adds a name of spans. Its index is the number of names that were added before.
    pub fn push_name(&mut self, parts: Vec<Part>) {
        let mut format = TagSource::Format(parts);
        let max_bytes = MAX_CHAR_BYTES * (self.max_chars + UNCUT_CHARS);
        let is_complete_at_end = self.keep_for_end(&mut format, max_bytes);
        self.names.push(NameFormat { format, is_complete_at_end });
    }

    /// Tells whether a value is complete at the request's end, because it needs more than the request's
    /// headers. If so, its parts from those headers are kept until then, cut to `max_bytes`.
    fn keep_for_end(&mut self, source: &mut TagSource, max_bytes: usize) -> bool {
        let needed_at_end = source.needed_at_end();
        if needed_at_end == 0 {
            return false;
        }
        self.needed_at_end |= needed_at_end;
        for source in source.sources_mut() {
            if matches!(source.input(), Input::RequestHeader(_)) {
                let index = self.kept.len();
                let source = std::mem::replace(source, Source::Kept(index));
                self.kept.push(KeptSource { source, max_bytes });
            }
        }
        true
    }

    /// Adds the tags that are complete when the request arrives. Returns the values that
    /// [`Tags::at_end`] needs of its headers.
    pub fn at_request(&self, attributes: &mut Attributes, request: &Head<'_>) -> KeptValues {
        attributes.append(&self.fixed);
        let lookup = Lookup::AtRequest(request);
        add_all(&self.at_request, attributes, lookup);
        let value = |kept: &KeptSource| {
            let value = kept.source.find(lookup)?.into_text();
            Some(value.get(..kept.max_bytes).unwrap_or(&value).to_vec())
        };
        KeptValues(self.kept.iter().map(value).collect())
    }

    /// Adds the tags that are complete at the request's end, with the values that
    /// [`Tags::at_request`] returned.
    pub fn at_end(&self, attributes: &mut Attributes, kept: &KeptValues, facts: &EndFacts<'_, '_>) {
        add_all(&self.at_end, attributes, Lookup::AtEnd(kept, facts));
    }

    /// Returns the name of a span by the index of its format, without spaces around it. Returns `None` if the
    /// name is empty, or if it needs facts of the request's end and `lookup` is [`Lookup::AtRequest`].
    #[inline(never)]
    pub fn name(&self, index: usize, lookup: Lookup<'_, '_>) -> Option<Vec<u8>> {
        let NameFormat { format, is_complete_at_end } = self.names.get(index)?;
        if *is_complete_at_end && matches!(lookup, Lookup::AtRequest(_)) {
            return None;
        }
        let name = format.value(lookup)?.into_text().trim_ascii().to_vec();
        (!name.is_empty()).then_some(name)
    }

    /// Returns the names of the request headers that tags and names read; a name may come twice.
    pub fn request_headers(&self) -> impl Iterator<Item = &str> {
        let at_request = self.at_request.iter().map(|tag| &tag.source);
        let names = self.names.iter().map(|name| &name.format);
        let at_request = at_request.chain(names).flat_map(TagSource::sources);
        let kept = self.kept.iter().map(|kept| &kept.source);
        at_request.chain(kept).filter_map(|source| match source.input() {
            Input::RequestHeader(name) => Some(name),
            _ => None,
        })
    }

    /// Tells whether any tag or name needs [`EndFacts`].
    pub fn needs_end_facts(&self) -> bool {
        self.needed_at_end != 0
    }

    /// Tells whether any tag or name needs this input at the request's end.
    pub fn needs(&self, input: Input<'_>) -> bool {
        self.needed_at_end & input.bit_at_end() != 0
    }
}

fn add_all(tags: &[Tag], attributes: &mut Attributes, lookup: Lookup<'_, '_>) {
    for tag in tags {
        tag.add(attributes, lookup);
    }
}

impl Tag {
    fn add(&self, attributes: &mut Attributes, lookup: Lookup<'_, '_>) {
        match self.source.value(lookup) {
            None => {
                let default = self.default_value.as_deref().unwrap_or_default();
                add_text(attributes, &self.key, default.as_bytes());
            }
            Some(value) if self.transformation != Transformation::default() => {
                let value = value.into_text();
                let (text, cut) = self.transformation.apply(&value);
                if cut {
                    attributes.count_truncated();
                }
                add_text(attributes, &self.key, text.as_bytes());
            }
            // Envoy refuses headers with control characters; other values may have some.
            Some(TagValue::Text(text)) if !self.source.is_raw_header() => {
                add_text(attributes, &self.key, printable(&text).as_bytes());
            }
            Some(TagValue::Text(text)) => add_text(attributes, &self.key, &text),
            Some(TagValue::Int(number)) => attributes.integer(&self.key, number.cast_unsigned()),
            Some(TagValue::Double(number)) => attributes.number(&self.key, number),
            Some(TagValue::Bool(value)) => attributes.boolean(&self.key, value),
        }
    }
}

fn add_text(attributes: &mut Attributes, key: &str, text: &[u8]) {
    if !text.is_empty() {
        attributes.text(key, text);
    }
}

impl TagSource {
    // A call for each tag would cost a sampled request 1 % more.
    #[inline(always)]
    fn value<'a>(&self, lookup: Lookup<'_, 'a>) -> Option<TagValue<'a>> {
        match self {
            Self::Single(source) => source.find(lookup),
            Self::Format(parts) => Some(TagValue::Text(format::text(parts, lookup).into())),
        }
    }

    fn is_raw_header(&self) -> bool {
        matches!(self, Self::Single(source) if source.is_raw_header())
    }

    fn sources(&self) -> Vec<&Source> {
        match self {
            Self::Single(source) => vec![source],
            Self::Format(parts) => parts.iter().flat_map(Part::sources).collect(),
        }
    }

    pub fn sources_mut(&mut self) -> impl Iterator<Item = &mut Source> {
        let (source, parts) = match self {
            Self::Single(source) => (Some(source), &mut [][..]),
            Self::Format(parts) => (None, parts.as_mut_slice()),
        };
        source.into_iter().chain(parts.iter_mut().flat_map(Part::sources_mut))
    }

    /// Returns the inputs that the value needs at the request's end: bits of [`Input`].
    fn needed_at_end(&self) -> u8 {
        self.sources().into_iter().fold(0, |inputs, source| inputs | source.input().bit_at_end())
    }
}

/// The longest character in UTF-8.
const MAX_CHAR_BYTES: usize = 4;
/// Characters that are kept beyond the limit: a cut is then still counted, and a mask hides as many
/// characters.
const UNCUT_CHARS: usize = 8;
/// A hash covers everything that a tag reads of a value.
const MAX_HASHED_BYTES: usize = 8 * 1024;

#[cfg(test)]
mod tests;
