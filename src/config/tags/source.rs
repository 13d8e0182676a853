//! The sources of custom tags.

use serde::Deserialize;

use super::Compiler;
use crate::config::error::{ConfigError, InPath, Result, quoted};
use crate::config::shapes::{OneOrMany, header_name, non_empty, public_variable};
use crate::span::tags::property::{Encoding, Property, Type};
use crate::span::tags::source::Source;
use crate::span::tags::{Value, sensitive};

/// A fixed value.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawLiteral {
    /// The value, which is not empty. Required. Example: `production`.
    pub value: String,
}

/// A value that is looked up by name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawNamed {
    /// Name of the header, variable, parameter, cookie or member. Required. Example: `order`.
    pub name: String,
    /// Value if nothing has that name. Default: nothing is recorded. Example: `-`.
    #[serde(alias = "defaultValue")]
    pub default_value: Option<String>,
}

/// The value of a request header.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawRequestHeader {
    /// Name of the header. Required. Example: `x-user-id`.
    pub name: String,
    /// Value where the header is missing. Default: the tag is left out. Example: `-`.
    #[serde(alias = "defaultValue")]
    pub default_value: Option<String>,
    /// When the header is read: `start`, as it arrived, or `end`, as later filters left it.
    /// Default: `start`.
    pub read: Option<RawRead>,
}

/// One of Envoy's format strings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawFormatter {
    /// The format string. Required. Example: `%REQ(X-A?X-B):20%/%RESPONSE_CODE%`.
    pub value: String,
    /// When its `%REQ(…)%` are read: `start` or `end`. Default: `start`.
    pub read: Option<RawRead>,
}

/// When request headers are read.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RawRead {
    /// When the request arrives, before any later filter.
    Start,
    /// When the request ends, as Envoy's own custom tags are: with what later filters have set.
    End,
}

/// One of Envoy's attributes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawProperty {
    /// Its path, dotted or as a list of parts. Required. Example: `xds.route_name`.
    pub path: OneOrMany<String>,
    /// Value where the attribute is absent. Default: the tag is left out.
    #[serde(alias = "defaultValue")]
    pub default_value: Option<String>,
    /// The type that it is recorded as: `string`, `int`, `double` or `bool`. Default: the type
    /// that Envoy documents; `string` for other paths.
    pub r#type: Option<RawPropertyType>,
}

/// What a property is recorded as.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RawPropertyType {
    String,
    Int,
    Double,
    Bool,
}

/// One end of a connection.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RawIdentity {
    /// The caller.
    Source,
    /// The called service.
    Destination,
}

/// A value of Envoy's metadata.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawMetadata {
    /// Whose metadata: exactly one key of `request`, `route`, `cluster` and `host`. Required.
    /// Example: `{request: {}}`.
    pub kind: RawMetadataKind,
    /// Where the value is in it. Required.
    /// Example: `{key: envoy.filters.http.jwt_authn, path: [{key: sub}]}`.
    #[serde(alias = "metadataKey")]
    pub metadata_key: RawMetadataKey,
    /// Value if there is none, or a list or an object. Default: the tag is left out.
    #[serde(alias = "defaultValue")]
    pub default_value: Option<String>,
}

/// Whose metadata it is, in the notation of Envoy's `MetadataKind`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawMetadataKind {
    /// Dynamic metadata of the request.
    pub request: Option<Empty>,
    /// Metadata of its route.
    pub route: Option<Empty>,
    /// Metadata of its upstream cluster.
    pub cluster: Option<Empty>,
    /// Metadata of its upstream host.
    pub host: Option<Empty>,
}

/// An object without keys.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

/// The place of a value in metadata.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawMetadataKey {
    /// The namespace. Required. Example: `envoy.filters.http.jwt_authn`.
    pub key: String,
    /// The keys in it, from outermost to innermost, at least one.
    #[serde(default)]
    pub path: Vec<RawMetadataSegment>,
}

/// One step into metadata.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawMetadataSegment {
    /// Its key. Required.
    pub key: String,
}

/// The one source of a tag.
pub enum RawSource {
    Literal(RawLiteral),
    Environment(RawNamed),
    RequestHeader(RawRequestHeader),
    ResponseHeader(RawNamed),
    ResponseTrailer(RawNamed),
    QueryParameter(RawNamed),
    Cookie(RawNamed),
    Baggage(RawNamed),
    Property(RawProperty),
    Identity(RawIdentity),
    Metadata(RawMetadata),
    Formatter(RawFormatter),
}

/// A compiled source.
pub enum Compiled {
    /// A value that never changes; an empty one makes no tag.
    Constant(String),
    /// A value that is looked up, and its default.
    Lookup(Value, Option<String>),
}

impl Compiler<'_> {
    pub fn source(&mut self, raw: RawSource) -> Result<Compiled> {
        let lookup = |source: Source, default_value| {
            Ok(Compiled::Lookup(Value::Source(source), default_value))
        };
        match raw {
            RawSource::Literal(raw) => {
                let value = non_empty(raw.value).and_then(|value| self.short(value));
                value.map(Compiled::Constant).under("value")
            }
            RawSource::Environment(raw) => {
                let name = non_empty(raw.name).under("name")?;
                public_variable(&name, self.settings.secret_variables).under("name")?;
                let value = (self.settings.environment)(&name).or(raw.default_value);
                self.short(value.unwrap_or_default()).map(Compiled::Constant).under("name")
            }
            RawSource::RequestHeader(raw) => {
                let read = raw.read.unwrap_or(RawRead::Start);
                lookup(self.request_header(&raw.name, read).under("name")?, raw.default_value)
            }
            RawSource::ResponseHeader(raw) => {
                let name = self.header(&raw.name).under("name")?;
                lookup(Source::ResponseHeader(name), raw.default_value)
            }
            RawSource::ResponseTrailer(raw) => {
                let name = self.header(&raw.name).under("name")?;
                lookup(Source::ResponseTrailer(name), raw.default_value)
            }
            RawSource::QueryParameter(raw) => {
                let name = non_empty(raw.name).under("name")?;
                lookup(Source::QueryParameter(name), raw.default_value)
            }
            RawSource::Cookie(raw) => {
                lookup(Source::Cookie(non_empty(raw.name).under("name")?), raw.default_value)
            }
            RawSource::Baggage(raw) => {
                lookup(Source::Baggage(non_empty(raw.name).under("name")?), raw.default_value)
            }
            RawSource::Property(raw) => {
                let source = self.property(&raw.path, raw.r#type).under("path")?;
                lookup(source, raw.default_value)
            }
            RawSource::Identity(end) => lookup(self.identity(end), None),
            RawSource::Metadata(raw) => {
                let source = self.metadata(&raw)?;
                lookup(source, raw.default_value)
            }
            RawSource::Formatter(RawFormatter { value, read }) => {
                let read = self.read_of_format(&value, read)?;
                Ok(Compiled::Lookup(self.format(&value, read).under("value")?, None))
            }
        }
    }

    /// Checks a value that stands on every span.
    fn short(&self, value: String) -> Result<String> {
        let limit = self.settings.limits.value_length as usize;
        match value.chars().count() {
            chars if chars > limit => Err(ConfigError::new(
                format_args!("a value of at most {limit} characters"),
                format_args!("{chars} characters"),
            )),
            _ => Ok(value),
        }
    }

    pub fn request_header(&mut self, name: &str, read: RawRead) -> Result<Source> {
        let name = self.header(name)?;
        Ok(match read {
            RawRead::Start => Source::RequestHeader(name),
            RawRead::End => {
                let path = format!("request\0headers\0{name}");
                self.attribute(path, Encoding::Plain(Type::Text), Some(Type::Text))
            }
        })
    }

    /// Checks the name of a header whose value is recorded.
    pub fn header(&self, name: &str) -> Result<String> {
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
        let path = joined_path(path)?;
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
    pub fn attribute(&mut self, path: String, encoding: Encoding, record: Option<Type>) -> Source {
        let place = self.tags.properties.place(path.clone(), path);
        Source::Property(Property::new(place, encoding, record))
    }

    /// Checks that a path does not lead to headers that must not be recorded.
    fn check_path(&self, path: &str) -> Result<()> {
        let parts: Vec<&str> = path.split('\0').collect();
        match parts.as_slice() {
            ["request" | "response", "headers" | "trailers", name] => {
                self.check_not_sensitive(&name.to_ascii_lowercase())
            }
            ["request" | "response"] | ["request" | "response", "headers" | "trailers", ..] => {
                let found = quoted(&path.replace('\0', "."));
                Err(ConfigError::new("the path of one value", found))
            }
            _ => Ok(()),
        }
    }

    /// The identity of one end: in the certificates of the incoming connection, or of the outgoing
    /// one.
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
        let root = raw.kind.root().under("kind")?;
        let mut keys = raw.metadata_key.key.clone();
        for segment in &raw.metadata_key.path {
            keys.push('\0');
            keys.push_str(&segment.key);
        }
        self.metadata_value(root, &keys).under("metadata_key")
    }

    /// A value of metadata, recorded as Envoy's own tags have it: as text. `keys` are the namespace
    /// and the keys in it, with a zero byte between them.
    pub fn metadata_value(&mut self, root: &str, keys: &str) -> Result<Source> {
        if !keys.contains('\0') || keys.split('\0').any(str::is_empty) {
            let expected = "a namespace, and a key in it";
            return Err(ConfigError::new(expected, quoted(&keys.replace('\0', "."))));
        }
        let path = format!("{}\0filter_metadata\0{keys}", root.replace('.', "\0"));
        Ok(self.attribute(path, Encoding::Metadata, Some(Type::Text)))
    }
}

impl RawMetadataKind {
    /// Returns the attribute that the metadata is in.
    fn root(&self) -> Result<&'static str> {
        let expected = "one of `request`, `route`, `cluster`, `host`";
        let given = [&self.request, &self.route, &self.cluster, &self.host];
        match given.map(Option::is_some) {
            [true, false, false, false] => Ok("metadata"),
            [false, true, false, false] => Ok("xds.route_metadata"),
            [false, false, true, false] => Ok("xds.cluster_metadata"),
            [false, false, false, true] => Ok("xds.upstream_host_metadata"),
            [false, false, false, false] => Err(ConfigError::new(expected, "none of them")),
            _ => Err(ConfigError::new(expected, "several of them")),
        }
    }
}

/// Joins the parts of a path as the host wants them, with a zero byte between them.
fn joined_path(path: &OneOrMany<String>) -> Result<String> {
    let (joined, is_dotted) = match path {
        OneOrMany::One(dotted) => (dotted.replace('.', "\0"), true),
        OneOrMany::Many(parts) => (parts.join("\0"), false),
    };
    if joined.split('\0').any(str::is_empty) || (is_dotted && joined.contains('[')) {
        let found = quoted(&joined.replace('\0', "."));
        return Err(ConfigError::new("a path such as `xds.route_name`, or its parts", found));
    }
    Ok(joined)
}
