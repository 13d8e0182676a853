//! `custom_tags`: attributes of the operator's own.

mod format;
pub mod source;

use std::fmt;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

use self::source::{
    Compiled, RawFormatter, RawIdentity, RawLiteral, RawMetadata, RawNamed, RawProperty, RawRead,
    RawRequestHeader, RawSource,
};
use super::error::{ConfigError, InPath, Result, one_of, quoted};
use super::shapes::{Entries, Environment, not_null};
use crate::sampling::token::TokenHeader;
use crate::span::attributes;
use crate::span::encoding::{AttributeLimits, Attributes};
use crate::span::tags::redact::{Redaction, Transformation};
use crate::span::tags::{Tag, Tags};

/// The custom tags: a list as in Envoy's `CustomTag`, or an object by name as in Istio's Telemetry.
pub enum RawCustomTags {
    List(Vec<RawCustomTag>),
    ByName(Entries<RawCustomTag>),
}

/// An attribute of the operator's own: its key, exactly one source, and what is done to the value.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawCustomTag {
    /// Key of the attribute. Required in a list; in an object by name, the name is the key.
    /// Example: `user.id`.
    #[serde(deserialize_with = "not_null")]
    pub tag: Option<String>,
    /// How the value is made unreadable: `hash` or `mask`. Default: it is recorded as it is.
    pub redact: Option<RawRedaction>,
    /// Characters of the value that are recorded, from 1; a cut is counted, and a default value is not
    /// cut. Default: the attribute limit.
    #[serde(alias = "maxLength")]
    pub max_length: Option<u32>,
    /// A fixed value.
    pub literal: Option<RawLiteral>,
    /// The value of an environment variable, read once; the VM must be given it. A variable that holds a
    /// token's key or a credential of the exporter is refused.
    pub environment: Option<RawNamed>,
    /// The value of a request header.
    #[serde(alias = "requestHeader")]
    pub request_header: Option<RawRequestHeader>,
    /// The same, in Istio's spelling.
    pub header: Option<RawRequestHeader>,
    /// The value of a response header.
    #[serde(alias = "responseHeader")]
    pub response_header: Option<RawNamed>,
    /// The value of a response trailer.
    #[serde(alias = "responseTrailer")]
    pub response_trailer: Option<RawNamed>,
    /// The value of a query parameter, decoded.
    #[serde(alias = "queryParameter")]
    pub query_parameter: Option<RawNamed>,
    /// The value of a cookie.
    pub cookie: Option<RawNamed>,
    /// The value of a member of the incoming `baggage`, decoded; of several by one name the last, as in
    /// the SDKs.
    pub baggage: Option<RawNamed>,
    /// One of Envoy's attributes.
    pub property: Option<RawProperty>,
    /// The SPIFFE identity of one end of the connection: `source` or `destination`.
    pub identity: Option<RawIdentity>,
    /// A value of Envoy's metadata.
    pub metadata: Option<RawMetadata>,
    /// One of Envoy's format strings. Example: `%REQ(X-A?X-B):20%/%RESPONSE_CODE%`.
    pub value: Option<String>,
    /// The same, in Istio's spelling.
    pub formatter: Option<RawFormatter>,
    /// With `value`: when its `%REQ(…)%` are read, `start` or `end`. Default: `start`.
    pub read: Option<RawRead>,
}

/// How a value is made unreadable.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RawRedaction {
    /// The first 16 bytes of its SHA-256, in hex, without salt: whoever tries all short values finds it.
    Hash,
    /// A `*` for each character but the last four, for all of fewer than eight.
    Mask,
}

/// The settings that tags are compiled against.
pub struct Settings<'s> {
    pub environment: Environment<'s>,
    /// Variables that hold secrets.
    pub secret_variables: &'s [String],
    pub allow_sensitive_headers: &'s [String],
    /// Headers that hold tokens, which are credentials as well.
    pub tokens: &'s [TokenHeader],
    pub limits: AttributeLimits,
}

impl Default for RawCustomTags {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl<'de> Deserialize<'de> for RawCustomTags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(CustomTagsVisitor)
    }
}

struct CustomTagsVisitor;

impl<'de> Visitor<'de> for CustomTagsVisitor {
    type Value = RawCustomTags;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array, or an object by name")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> std::result::Result<RawCustomTags, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(seq)).map(RawCustomTags::List)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<RawCustomTags, A::Error> {
        Entries::deserialize(MapAccessDeserializer::new(map)).map(RawCustomTags::ByName)
    }
}

impl RawCustomTags {
    pub fn compile(self, settings: &Settings<'_>) -> Result<Tags> {
        let max_chars = settings.limits.value_length as usize;
        let mut marks = Attributes::new(max_chars);
        marks.text(attributes::COMPONENT, b"proxy");
        marks.text(attributes::SPAN_SOURCE, b"mesh");
        let tags = Tags::new(marks, Attributes::new(max_chars), max_chars);
        let mut compiler = Compiler { settings, tags, keys: Vec::new() };
        match self {
            Self::List(tags) => {
                for (index, mut raw) in tags.into_iter().enumerate() {
                    let key = raw.tag.take();
                    let added = match key {
                        Some(key) => compiler.check_key(&key).under("tag").map(|()| key),
                        None => Err(de::Error::missing_field("tag")),
                    };
                    added.and_then(|key| compiler.add(key, raw)).at(index)?;
                }
            }
            Self::ByName(Entries(tags)) => {
                for (name, raw) in tags {
                    compiler.add_by_name(&name, raw).under(&name)?;
                }
            }
        }
        Ok(compiler.tags)
    }
}

/// The tags so far.
struct Compiler<'s> {
    settings: &'s Settings<'s>,
    tags: Tags,
    keys: Vec<String>,
}

impl Compiler<'_> {
    fn check_key(&self, key: &str) -> Result<()> {
        if key.is_empty() {
            return Err(ConfigError::new("a non-empty string", "\"\""));
        }
        if attributes::RESERVED.contains(&key) {
            return Err(ConfigError::new("a tag that the filter does not set itself", quoted(key)));
        }
        match self.keys.iter().position(|known| known == key) {
            Some(first) => Err(ConfigError::new(
                "a tag that no other entry has",
                format_args!("{}, which is the tag of custom_tags[{first}]", quoted(key)),
            )),
            None => Ok(()),
        }
    }

    fn add_by_name(&mut self, name: &str, raw: RawCustomTag) -> Result<()> {
        if let Some(tag) = &raw.tag {
            let expected = "no `tag`, since the name above is the tag";
            return Err(ConfigError::new(expected, quoted(tag)).under("tag"));
        }
        self.check_key(name)?;
        self.add(name.to_owned(), raw)
    }

    fn add(&mut self, key: String, raw: RawCustomTag) -> Result<()> {
        let transformation = raw.transformation()?;
        let (own_key, source) = raw.source()?;
        let compiled = self.source(source);
        let compiled = match own_key {
            Some(own_key) => compiled.under(own_key),
            None => compiled,
        };
        match compiled? {
            Compiled::Constant(value) => {
                let (value, _) = transformation.apply(value.as_bytes());
                if !value.is_empty() {
                    self.tags.constant.text(&key, value.as_bytes());
                }
            }
            Compiled::Lookup(value, default_value) => {
                let key = key.clone();
                self.tags.push(Tag { key, value, default_value, transformation });
            }
        }
        self.keys.push(key);
        Ok(())
    }
}

impl RawCustomTag {
    fn transformation(&self) -> Result<Transformation> {
        let redact = self.redact.map(|redact| match redact {
            RawRedaction::Hash => Redaction::Hash,
            RawRedaction::Mask => Redaction::Mask,
        });
        if self.max_length == Some(0) {
            return Err(ConfigError::new("a whole number from 1 up", "0").under("max_length"));
        }
        Ok(Transformation { redact, max_length: self.max_length })
    }

    /// Returns the one source, and its key. A `value` is a formatter that has no object of its own.
    fn source(self) -> Result<(Option<&'static str>, RawSource)> {
        use RawSource as Source;
        let read = self.read;
        let given = [
            ("literal", self.literal.map(Source::Literal)),
            ("environment", self.environment.map(Source::Environment)),
            ("request_header", self.request_header.map(Source::RequestHeader)),
            ("header", self.header.map(Source::RequestHeader)),
            ("response_header", self.response_header.map(Source::ResponseHeader)),
            ("response_trailer", self.response_trailer.map(Source::ResponseTrailer)),
            ("query_parameter", self.query_parameter.map(Source::QueryParameter)),
            ("cookie", self.cookie.map(Source::Cookie)),
            ("baggage", self.baggage.map(Source::Baggage)),
            ("property", self.property.map(Source::Property)),
            ("identity", self.identity.map(Source::Identity)),
            ("metadata", self.metadata.map(Source::Metadata)),
            ("value", self.value.map(|value| Source::Formatter(RawFormatter { value, read }))),
            ("formatter", self.formatter.map(Source::Formatter)),
        ];
        let keys = given.each_ref().map(|(key, _)| *key);
        let mut given = given.into_iter().filter_map(|(key, source)| Some((key, source?)));
        let (key, source) = match (given.next(), given.next()) {
            (Some(only), None) => only,
            (None, _) => return Err(ConfigError::new(one_of(&keys), "none of them")),
            (Some((first, _)), Some((second, _))) => {
                let found = format_args!("both `{first}` and `{second}`");
                return Err(ConfigError::new(one_of(&keys), found));
            }
        };
        let own_key = (key != "value").then_some(key);
        if read.is_some() && own_key.is_some() {
            let expected = "no `read` here, since it stands beside `value`, or in \
                            `request_header`, `header` or `formatter`";
            return Err(ConfigError::new(expected, "one").under("read"));
        }
        Ok((own_key, source))
    }
}

#[cfg(test)]
mod tests;
