//! `custom_tags`, and the limits on attributes.

use super::super::decode::OneOrMany;
use super::super::error::{ConfigError, one_of, quoted};
use super::super::raw::{
    NamedSource, RawAttributeLimits, RawCustomTag, RawCustomTags, RawIdentity, RawMetadata,
    RawMetadataOf, RawNamedSource, RawPropertyType, RawRedaction, RawSource,
};
use super::{Environment, Result, header_name, non_empty};
use crate::attributes;
use crate::otlp::{AttributeLimits, Attributes, first_chars};
use crate::request::TokenHeader;
use crate::tags::format::{self, Part, Written};
use crate::tags::property::{Encoding, Property, Type};
use crate::tags::redact::{Redaction, Transformation};
use crate::tags::source::Source;
use crate::tags::{Tag, Tags, Value, sensitive};

/// What tags are compiled against.
pub struct Settings<'s> {
    pub environment: Environment<'s>,
    pub allow_sensitive_headers: &'s [String],
    /// Headers that hold tokens, which are credentials as well.
    pub tokens: &'s [TokenHeader],
    pub limits: AttributeLimits,
}

pub fn limits(raw: &RawAttributeLimits) -> Result<AttributeLimits> {
    let default = AttributeLimits::default();
    let count = raw.attribute_count_limit.unwrap_or(default.count);
    let length = raw.attribute_value_length_limit.unwrap_or(default.value_length);
    Ok(AttributeLimits {
        count: within(count, 0, MAX_COUNT, "attribute_count_limit")?,
        value_length: within(length, MIN_LENGTH, MAX_LENGTH, "attribute_value_length_limit")?,
    })
}

fn within(value: u32, least: u32, most: u32, key: &str) -> Result<u32> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    let expected = format!("a whole number from {least} to {most}");
    Err(ConfigError::new(expected, value.to_string()).under(key))
}

pub fn tags(raw: RawCustomTags, settings: &Settings<'_>) -> Result<Tags> {
    let max_chars = settings.limits.value_length as usize;
    let mut marks = Attributes::new(max_chars);
    marks.text(attributes::COMPONENT, b"proxy");
    marks.text(attributes::SPAN_SOURCE, b"mesh");
    let mut compiler =
        Compiler { settings, tags: Tags::new(marks, Attributes::new(max_chars), max_chars) };
    let mut names: Vec<String> = Vec::with_capacity(raw.tags.len());
    let by_name = raw.by_name;
    for (place, raw) in raw.tags.into_iter().enumerate() {
        let name = raw.tag.clone();
        let added = match check_tag_name(&name, &names) {
            Ok(()) => compiler.add(raw),
            Err(error) if by_name => Err(error),
            Err(error) => Err(error.under("tag")),
        };
        added.map_err(|error| if by_name { error.under(&name) } else { error.at(place) })?;
        names.push(name);
    }
    Ok(compiler.tags)
}

fn check_tag_name(tag: &str, names: &[String]) -> Result<()> {
    if tag.is_empty() {
        return Err(ConfigError::new("a non-empty string", "\"\""));
    }
    if attributes::RESERVED.contains(&tag) {
        return Err(ConfigError::new("a tag that the filter does not set itself", quoted(tag)));
    }
    match names.iter().position(|name| name == tag) {
        Some(first) => Err(ConfigError::new(
            "a tag that no other entry has",
            format!("{}, which is the tag of custom_tags[{first}]", quoted(tag)),
        )),
        None => Ok(()),
    }
}

/// The tags so far.
struct Compiler<'s> {
    settings: &'s Settings<'s>,
    tags: Tags,
}

/// What a source comes to.
enum Compiled {
    /// A value that never changes; an empty one makes no tag.
    Constant(String),
    /// A value that is looked up, and what stands for it.
    Lookup(Value, Option<String>),
}

impl Compiler<'_> {
    fn add(&mut self, raw: RawCustomTag) -> Result<()> {
        let transformation = transformation(&raw)?;
        let compiled = self.source(raw.source).map_err(|error| error.under(&raw.key))?;
        match compiled {
            Compiled::Constant(value) => {
                let (value, _) = transformation.apply(value.as_bytes());
                if !value.is_empty() {
                    self.tags.constant.text(&raw.tag, value.as_bytes());
                }
            }
            Compiled::Lookup(value, default_value) => {
                self.tags.push(Tag { key: raw.tag, value, default_value, transformation });
            }
        }
        Ok(())
    }

    fn source(&mut self, source: RawSource) -> Result<Compiled> {
        let (value, default_value, key) = match source {
            RawSource::Literal(literal) => {
                let value = non_empty(literal.value).and_then(|value| self.short(value));
                return value.map(Compiled::Constant).map_err(|error| error.under("value"));
            }
            RawSource::Named(NamedSource::Environment, source) => {
                let value = self.variable(source);
                return value.map(Compiled::Constant).map_err(|error| error.under("name"));
            }
            RawSource::Named(place, source) => {
                let found = self.named(place, &source.name).map(Value::Source);
                (found, source.default_value, "name")
            }
            RawSource::Property(raw) => {
                let property = self.property(&raw.path, raw.r#type).map(Value::Source);
                (property, raw.default_value, "path")
            }
            RawSource::Metadata(raw) => {
                let default_value = raw.default_value.clone();
                (self.metadata(&raw).map(Value::Source), default_value, "metadata_key")
            }
            RawSource::Formatter(literal) => (self.format(&literal.value), None, "value"),
            RawSource::Identity(end) => (Ok(Value::Source(self.identity(end))), None, ""),
            RawSource::Value(text) => return Ok(Compiled::Lookup(self.format(&text)?, None)),
        };
        match value {
            Ok(value) => Ok(Compiled::Lookup(value, default_value)),
            Err(error) => Err(error.under(key)),
        }
    }

    fn variable(&self, source: RawNamedSource) -> Result<String> {
        let name = non_empty(source.name)?;
        let value = (self.settings.environment)(&name).or(source.default_value);
        self.short(value.unwrap_or_default())
    }

    /// Checks a value that stands on every span.
    fn short(&self, value: String) -> Result<String> {
        let limit = self.settings.limits.value_length as usize;
        match value.chars().count() {
            chars if chars > limit => Err(ConfigError::new(
                format!("a value of at most {limit} characters"),
                format!("{chars} characters"),
            )),
            _ => Ok(value),
        }
    }

    fn named(&self, place: NamedSource, name: &str) -> Result<Source> {
        let of = match place {
            NamedSource::RequestHeader => Source::RequestHeader,
            NamedSource::ResponseHeader => Source::ResponseHeader,
            NamedSource::ResponseTrailer => Source::ResponseTrailer,
            NamedSource::QueryParameter => Source::QueryParameter,
            NamedSource::Cookie => Source::Cookie,
            NamedSource::Environment | NamedSource::Baggage => Source::Baggage,
        };
        let is_header = matches!(
            place,
            NamedSource::RequestHeader | NamedSource::ResponseHeader | NamedSource::ResponseTrailer
        );
        let name = if is_header { self.header(name) } else { non_empty(name.to_owned()) };
        name.map(of)
    }

    /// Checks the name of a header whose value is recorded.
    fn header(&self, name: &str) -> Result<String> {
        let name = header_name(name)?;
        self.check_not_sensitive(&name)?;
        Ok(name)
    }

    fn check_not_sensitive(&self, name: &str) -> Result<()> {
        let mut allowed = self.settings.allow_sensitive_headers.iter();
        let holds_token = || self.settings.tokens.iter().any(|token| token.name == name);
        if (sensitive::is_sensitive(name) || holds_token())
            && !allowed.any(|known| known.eq_ignore_ascii_case(name))
        {
            let expected = "a header without credentials, or one of `allow_sensitive_headers`";
            return Err(ConfigError::new(expected, quoted(name)));
        }
        Ok(())
    }

    fn property(
        &mut self,
        path: &OneOrMany<String>,
        given: Option<RawPropertyType>,
    ) -> Result<Source> {
        let path = path_of(path)?;
        self.check_path(&path)?;
        let record = given.map(|given| match given {
            RawPropertyType::String => Type::Text,
            RawPropertyType::Int => Type::Int,
            RawPropertyType::Double => Type::Double,
            RawPropertyType::Bool => Type::Bool,
        });
        let encoding = Encoding::of(&path, record);
        Ok(self.attribute(path, encoding, record))
    }

    /// An attribute whose path does not depend on the direction.
    fn attribute(&mut self, path: String, encoding: Encoding, record: Option<Type>) -> Source {
        let place = self.tags.properties.place(path.clone(), path);
        Source::Property(Property::new(place, encoding, record))
    }

    /// Checks that a path does not lead to headers that must not be recorded.
    fn check_path(&self, path: &str) -> Result<()> {
        let mut parts = path.split('\0');
        let whole = match (parts.next(), parts.next()) {
            (Some("request" | "response"), None) => true,
            (Some("request" | "response"), Some("headers" | "trailers")) => {
                match (parts.next(), parts.next()) {
                    (Some(name), None) => {
                        return self.check_not_sensitive(&name.to_ascii_lowercase());
                    }
                    _ => true,
                }
            }
            _ => false,
        };
        if whole {
            return Err(ConfigError::new(
                "the path of one value",
                quoted(&path.replace('\0', ".")),
            ));
        }
        Ok(())
    }

    /// The identity of one end: in the certificates of the connection that came in, or of the one
    /// that goes out.
    fn identity(&mut self, end: RawIdentity) -> Source {
        let (inbound, outbound) = match end {
            RawIdentity::Source => {
                ("connection\0uri_san_peer_certificate", "upstream\0uri_san_local_certificate")
            }
            RawIdentity::Destination => {
                ("connection\0uri_san_local_certificate", "upstream\0uri_san_peer_certificate")
            }
        };
        let place = self.tags.properties.place(inbound.to_owned(), outbound.to_owned());
        Source::Property(Property::new(place, Encoding::Plain(Type::Text), None))
    }

    fn metadata(&mut self, raw: &RawMetadata) -> Result<Source> {
        let root = match raw.kind.0 {
            RawMetadataOf::Request => "metadata",
            RawMetadataOf::Route => "xds.route_metadata",
            RawMetadataOf::Cluster => "xds.cluster_metadata",
            RawMetadataOf::Host => "xds.upstream_host_metadata",
        };
        let mut keys = raw.metadata_key.key.clone();
        for segment in &raw.metadata_key.path {
            keys.push('\0');
            keys.push_str(&segment.key);
        }
        self.metadata_value(root, &keys)
    }

    /// A value of metadata, recorded as Envoy's own tags have it: as text. `keys` are the namespace
    /// and those in it, with a zero byte between them.
    fn metadata_value(&mut self, root: &str, keys: &str) -> Result<Source> {
        if !keys.contains('\0') || keys.split('\0').any(str::is_empty) {
            let expected = "a namespace, and a key in it";
            return Err(ConfigError::new(expected, quoted(&keys.replace('\0', "."))));
        }
        let mut path = root.replace('.', "\0");
        path.push_str("\0filter_metadata\0");
        path.push_str(keys);
        Ok(self.attribute(path, Encoding::Metadata, Some(Type::Text)))
    }

    fn format(&mut self, text: &str) -> Result<Value> {
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let split = format::split_part(rest);
            let Some((part, after)) = split else {
                return Err(ConfigError::new(format::EXPECTED, quoted(rest)));
            };
            parts.push(match part {
                Written::Text(text) => Part::Text(text.to_owned()),
                Written::Command { name, argument, max_length } => {
                    self.command(name, argument, max_length)?
                }
            });
            rest = after;
        }
        if parts.is_empty() {
            return Err(ConfigError::new("a non-empty string", "\"\""));
        }
        Ok(Value::Format(parts))
    }

    fn command(&mut self, name: &str, argument: Option<&str>, max: Option<u32>) -> Result<Part> {
        let mut sources = Vec::new();
        match argument {
            None => {
                let known = format::PROPERTY_COMMANDS.iter().find(|(known, ..)| *known == name);
                let (_, path, encoding) = known.ok_or_else(|| unknown_command(name))?;
                sources.push(self.attribute(path.replace('.', "\0"), *encoding, None));
            }
            Some(variable) if name == format::ENVIRONMENT => {
                let text = (self.settings.environment)(variable).unwrap_or_default();
                let max_chars = max.map_or(usize::MAX, |max| max as usize);
                return Ok(Part::Text(first_chars(&text, max_chars).to_owned()));
            }
            Some(argument) => {
                let place = match name {
                    format::REQ => NamedSource::RequestHeader,
                    format::RESP => NamedSource::ResponseHeader,
                    format::TRAILER => NamedSource::ResponseTrailer,
                    _ => {
                        let known =
                            format::METADATA_COMMANDS.iter().find(|(known, _)| *known == name);
                        let (_, root) = known.ok_or_else(|| unknown_command(name))?;
                        let source = self.metadata_value(root, &argument.replace(':', "\0"))?;
                        return Ok(Part::Value { sources: vec![source], max_length: max });
                    }
                };
                for name in argument.splitn(2, '?') {
                    sources.push(self.named(place, name)?);
                }
            }
        }
        Ok(Part::Value { sources, max_length: max })
    }
}

fn transformation(raw: &RawCustomTag) -> Result<Transformation> {
    let redact = raw.redact.map(|redact| match redact {
        RawRedaction::Hash => Redaction::Hash,
        RawRedaction::Mask => Redaction::Mask,
    });
    if raw.max_length == Some(0) {
        let error = ConfigError::new("a whole number from 1 up", "0");
        return Err(error.under("max_length"));
    }
    Ok(Transformation { redact, max_length: raw.max_length })
}

/// Joins the parts of a path as the host wants them, with a zero byte between them.
fn path_of(path: &OneOrMany<String>) -> Result<String> {
    let mut joined = String::new();
    match path {
        OneOrMany::One(dotted) => joined = dotted.replace('.', "\0"),
        OneOrMany::Many(parts) => {
            for (place, part) in parts.iter().enumerate() {
                if place > 0 {
                    joined.push('\0');
                }
                joined.push_str(part);
            }
        }
    }
    let dotted = matches!(path, OneOrMany::One(_));
    if joined.split('\0').any(str::is_empty) || (dotted && joined.contains('[')) {
        let found = quoted(&joined.replace('\0', "."));
        return Err(ConfigError::new("a path such as `xds.route_name`, or its parts", found));
    }
    Ok(joined)
}

fn unknown_command(name: &str) -> ConfigError {
    let mut known = vec![format::REQ, format::RESP, format::TRAILER, format::ENVIRONMENT];
    for (name, _) in &format::METADATA_COMMANDS {
        known.push(name);
    }
    for (name, ..) in &format::PROPERTY_COMMANDS {
        known.push(name);
    }
    ConfigError::new(format!("a known command, {}", one_of(&known)), quoted(name))
}

const MAX_COUNT: u32 = 1_024;
const MIN_LENGTH: u32 = 32;
const MAX_LENGTH: u32 = 16_384;
