//! `custom_tags`: attributes that the operator adds to every span.
//!
//! [`RawCustomTag`] has all keys. A new source is one more field of it, and a row of `SOURCES`, which
//! compiles it.

mod compiler;
mod format;
pub(super) mod source;

use std::fmt;
use std::rc::Rc;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

use self::compiler::RawRead;
use self::source::{
    CompiledSource, RawFormatter, RawIdentity, RawLiteral, RawMetadata, RawNamed, RawProperty,
    RawRequestHeader,
};
use super::error::{ConfigError, InPath, Result, one_of, quoted};
use super::shapes::{Entries, Environment, not_null};
use crate::sampling::token::TokenHeader;
use crate::span::attributes;
use crate::span::encoding::AttributeLimits;
use crate::span::privacy::Privacy;
use crate::span::tags::format::Part;
use crate::span::tags::redact::{Redaction, Transformation};
use crate::span::tags::source::Source;
use crate::span::tags::{Tag, Tags};

/// The custom tags: a list as in Envoy's `CustomTag`, or an object by name as in Istio's Telemetry.
pub(super) enum RawCustomTags {
    List(Vec<RawCustomTag>),
    ByName(Entries<RawCustomTag>),
}

/// One custom tag: its key, exactly one source, and how the value is redacted and cut.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawCustomTag {
    /// Key of the attribute. Required in a list; in an object by name, the name is the key.
    /// Example: `user.id`.
    #[serde(deserialize_with = "not_null")]
    pub tag: Option<String>,
    /// How the value is redacted: `hash` or `mask`. Default: the value is recorded unchanged.
    pub redact: Option<RawRedaction>,
    /// How many characters of the value are recorded, from 1. Longer values are cut and counted;
    /// a default value is never cut. Default: the attribute limit.
    #[serde(alias = "maxLength")]
    pub max_length: Option<u32>,
    /// A fixed value.
    pub literal: Option<RawLiteral>,
    /// The value of an environment variable, read once. Envoy must pass the variable to the VM. A
    /// variable that holds a token's key or a credential of the exporter is refused.
    pub environment: Option<RawNamed>,
    /// The value of a request header.
    #[serde(alias = "requestHeader")]
    pub request_header: Option<RawRequestHeader>,
    /// The same as `request_header`, in Istio's spelling.
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
    /// The value of a member of the incoming `baggage`, decoded. If the name is repeated, the last
    /// member counts, as in OpenTelemetry's SDKs.
    pub baggage: Option<RawNamed>,
    /// The value of one of Envoy's attributes.
    pub property: Option<RawProperty>,
    /// The SPIFFE identity of one end of the connection: `source` or `destination`.
    pub identity: Option<RawIdentity>,
    /// A value of Envoy's metadata.
    pub metadata: Option<RawMetadata>,
    /// One of Envoy's format strings. Example: `%REQ(X-A?X-B):20%/%RESPONSE_CODE%`.
    pub value: Option<String>,
    /// A CEL expression over Envoy's attributes. Its value is recorded as text; if it fails, nothing is
    /// recorded. Example: `request.headers["x-plan"] + "/" + string(response.code)`.
    pub cel: Option<String>,
    /// The same as `value`, in Istio's spelling.
    pub formatter: Option<RawFormatter>,
    /// With `value`: when its request headers (`%REQ(…)%`) are read, at `start` or `end`. Default: `start`.
    pub read: Option<RawRead>,
    /// The source's name in Envoy Gateway's spelling: `Literal`, `Environment` or `RequestHeader`. It must be
    /// the source that the tag has. Default: none, because the source has its own key.
    pub r#type: Option<String>,
}

/// Compiles a source, if the tag has it.
type CompileSource = fn(&mut RawCustomTag, &mut Compiler<'_>) -> Option<Result<CompiledSource>>;

/// The keys of all sources. A tag must have exactly one.
const SOURCES: [(&str, CompileSource); 15] = [
    ("literal", |tag, compiler| Some(tag.literal.take()?.compile(compiler))),
    ("environment", |tag, compiler| Some(tag.environment.take()?.compile_variable(compiler))),
    ("request_header", |tag, compiler| Some(tag.request_header.take()?.compile(compiler))),
    ("header", |tag, compiler| Some(tag.header.take()?.compile(compiler))),
    ("response_header", |tag, compiler| {
        Some(tag.response_header.take()?.compile_header(compiler, Source::ResponseHeader))
    }),
    ("response_trailer", |tag, compiler| {
        Some(tag.response_trailer.take()?.compile_header(compiler, Source::ResponseTrailer))
    }),
    ("query_parameter", |tag, _| Some(tag.query_parameter.take()?.compile(Source::QueryParameter))),
    ("cookie", |tag, _| Some(tag.cookie.take()?.compile(Source::Cookie))),
    ("baggage", |tag, _| Some(tag.baggage.take()?.compile(Source::Baggage))),
    ("property", |tag, compiler| Some(tag.property.take()?.compile(compiler))),
    ("identity", |tag, compiler| Some(Ok(tag.identity.take()?.compile(compiler)))),
    ("metadata", |tag, compiler| Some(tag.metadata.take()?.compile(compiler))),
    (VALUE, |tag, compiler| {
        // A formatter without an object of its own, so `read` stands beside it.
        let raw = RawFormatter { value: tag.value.take()?, read: tag.read.take() };
        Some(raw.compile(compiler))
    }),
    ("cel", |tag, compiler| Some(CompiledSource::expression(&tag.cel.take()?, compiler))),
    ("formatter", |tag, compiler| Some(tag.formatter.take()?.compile(compiler))),
];

impl RawCustomTag {
    /// Compiles the one source that the tag has.
    fn source(mut self, compiler: &mut Compiler<'_>) -> Result<CompiledSource> {
        let mut sources = SOURCES.iter().filter_map(|(key, compile)| {
            let compiled = compile(&mut self, compiler)?;
            Some((*key, compiled))
        });
        let (key, compiled) = match (sources.next(), sources.next()) {
            (Some(only), None) => only,
            (first, second) => {
                let found = match (first, second) {
                    (Some((first, _)), Some((second, _))) => {
                        ["both `", first, "` and `", second, "`"].concat()
                    }
                    _ => "none of them".to_owned(),
                };
                return Err(ConfigError::new(one_of(&SOURCES.map(|(key, _)| key)), found));
            }
        };
        if let Some(found) = &self.r#type {
            check_type(key, found).under("type")?;
        }
        if self.read.is_some() {
            let expected = "no `read` here: it belongs beside `value`, or in `request_header`, \
                            `header` or `formatter`";
            return Err(ConfigError::new(expected, "one").under("read"));
        }
        // The keys of a `value` stand in the tag itself.
        if key == VALUE { compiled } else { compiled.under(key) }
    }

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
}

/// Checks that the `type` of a tag names the source that the tag has.
fn check_type(source: &str, found: &str) -> Result<()> {
    let expected = match source {
        "literal" => "Literal",
        "environment" => "Environment",
        "request_header" | "header" => "RequestHeader",
        _ => "no `type`",
    };
    if found == expected {
        return Ok(());
    }
    let expected = format_args!("{expected}, since the tag has `{source}`");
    Err(ConfigError::new(expected, quoted(found)))
}

/// How a value is redacted.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawRedaction {
    /// The first 16 bytes of the value's SHA-256, in hex, without salt. Short values can be found by trying
    /// all of them.
    Hash,
    /// All characters except the last four are replaced by `*`; values shorter than eight characters are
    /// masked completely.
    Mask,
}

/// The rest of the configuration, as far as tags depend on it.
pub(super) struct Settings<'s> {
    pub environment: Environment<'s>,
    /// Variables that hold secrets.
    pub secret_variables: &'s [String],
    pub allow_sensitive_headers: &'s [String],
    /// Headers that hold tokens, which are credentials too.
    pub tokens: &'s [TokenHeader],
    pub limits: AttributeLimits,
    /// Tells whether Envoy compiles a CEL expression.
    pub compiles: &'s dyn Fn(&str) -> bool,
    pub privacy: &'s Rc<Privacy>,
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
    pub(super) fn compile(self, compiler: &mut Compiler<'_>) -> Result<()> {
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
        Ok(())
    }
}

/// Compiles tags and names of spans one after the other.
pub(super) struct Compiler<'s> {
    settings: &'s Settings<'s>,
    /// The tags so far.
    tags: Tags,
    /// The keys of the entries so far.
    keys: Vec<String>,
}

impl<'s> Compiler<'s> {
    pub(super) fn new(settings: &'s Settings<'s>) -> Self {
        let tags = Tags::new(settings.limits.value_length as usize);
        Self { settings, tags, keys: Vec::new() }
    }

    pub(super) fn into_tags(self) -> Tags {
        self.tags
    }

    /// Adds a name of spans, which is a format string.
    pub(super) fn add_name(&mut self, format: &str) -> Result<()> {
        let mut parts = self.format(format, RawRead::Start)?;
        parts
            .iter_mut()
            .flat_map(Part::sources_mut)
            .for_each(|source| source.protect(self.settings.privacy));
        self.tags.push_name(parts);
        Ok(())
    }

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
            let expected = "no `tag` (the name of the entry is the tag)";
            return Err(ConfigError::new(expected, quoted(tag)).under("tag"));
        }
        self.check_key(name)?;
        self.add(name.to_owned(), raw)
    }

    fn add(&mut self, key: String, raw: RawCustomTag) -> Result<()> {
        let transformation = raw.transformation()?;
        match raw.source(self)? {
            CompiledSource::Fixed(value) => {
                let (value, _) = transformation.apply(value.as_bytes());
                if !value.is_empty() {
                    self.tags.fixed.text(&key, value.as_bytes());
                }
            }
            CompiledSource::LookedUp(mut source, default_value) => {
                source.sources_mut().for_each(|source| source.protect(self.settings.privacy));
                let key = key.clone();
                self.tags.push(Tag { key, source, default_value, transformation });
            }
        }
        self.keys.push(key);
        Ok(())
    }
}

/// The key of a format string that stands in the tag itself.
const VALUE: &str = "value";

#[cfg(test)]
mod tests;
