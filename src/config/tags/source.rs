//! The sources of custom tags: their raw structs, and how each is compiled.

use serde::Deserialize;

use super::compiler::{RawRead, zero_separated};
use super::{Compiler, format};
use crate::config::error::{ConfigError, InPath, Result, quoted};
use crate::config::shapes::{OneOrMany, non_empty, public_variable};
use crate::span::tags::TagSource;
use crate::span::tags::property::{Encoding, Property, PropertySource, Type};
use crate::span::tags::source::Source;

/// A fixed value.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawLiteral {
    /// The value, not empty. Required. Example: `production`.
    pub value: String,
}

/// A value that is found by name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawNamed {
    /// Name of the header, variable, parameter, cookie or member. Required. Example: `order`.
    pub name: String,
    /// The value that is recorded if there is none. Default: nothing is recorded. Example: `-`.
    #[serde(alias = "defaultValue")]
    pub default_value: Option<String>,
}

/// The value of a request header.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRequestHeader {
    /// Name of the header. Required. Example: `x-user-id`.
    pub name: String,
    /// The value that is recorded if the header is absent. Default: nothing is recorded. Example: `-`.
    #[serde(alias = "defaultValue")]
    pub default_value: Option<String>,
    /// When the header is read: at `start` or `end`. Default: `start`.
    pub read: Option<RawRead>,
}

/// One of Envoy's format strings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawFormatter {
    /// The format string. Required. Example: `%REQ(X-A?X-B):20%/%RESPONSE_CODE%`.
    pub value: String,
    /// When its request headers (`%REQ(…)%`) are read: at `start` or `end`. Default: `start`.
    pub read: Option<RawRead>,
}

/// One of Envoy's attributes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawProperty {
    /// Path of the attribute, dotted or as a list of parts. Required. Example: `xds.route_name`.
    pub path: OneOrMany<String>,
    /// The value that is recorded if the attribute is absent. Default: nothing is recorded.
    #[serde(alias = "defaultValue")]
    pub default_value: Option<String>,
    /// Type of the recorded value: `string`, `int`, `double` or `bool`. Default: the type that Envoy
    /// documents; `string` for other paths.
    pub r#type: Option<RawPropertyType>,
}

/// The type of a recorded property.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawPropertyType {
    String,
    Int,
    Double,
    Bool,
}

/// One end of a connection.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawIdentity {
    /// The caller.
    Source,
    /// The called service.
    Destination,
}

/// A value of Envoy's metadata.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawMetadata {
    /// Whose metadata it is: exactly one key of `request`, `route`, `cluster` and `host`. Required.
    /// Example: `{request: {}}`.
    pub kind: RawMetadataKind,
    /// The namespace and the keys of the value. Required.
    /// Example: `{key: envoy.filters.http.jwt_authn, path: [{key: sub}]}`.
    #[serde(alias = "metadataKey")]
    pub metadata_key: RawMetadataKey,
    /// The value that is recorded if there is none, or if it is a list or an object. Default: nothing
    /// is recorded.
    #[serde(alias = "defaultValue")]
    pub default_value: Option<String>,
}

/// Whose metadata a tag reads, in the notation of Envoy's `MetadataKind`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawMetadataKind {
    /// Dynamic metadata of the request.
    pub request: Option<Empty>,
    /// Metadata of the request's route.
    pub route: Option<Empty>,
    /// Metadata of the upstream cluster.
    pub cluster: Option<Empty>,
    /// Metadata of the upstream host.
    pub host: Option<Empty>,
}

/// An object without keys.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Empty {}

/// Where a value stands in metadata.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawMetadataKey {
    /// Namespace of the metadata. Required. Example: `envoy.filters.http.jwt_authn`.
    pub key: String,
    /// Keys in the namespace, from the outermost to the innermost, at least one.
    #[serde(default)]
    pub path: Vec<RawMetadataSegment>,
}

/// One step into metadata.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawMetadataSegment {
    /// The key. Required.
    pub key: String,
}

/// A compiled source.
pub(crate) enum CompiledSource {
    /// A value that never changes; an empty one makes no tag.
    Fixed(String),
    /// A value that is looked up for each request, and its default.
    LookedUp(TagSource, Option<String>),
}

impl CompiledSource {
    /// Compiles a CEL expression.
    pub(crate) fn expression(text: &str, compiler: &mut Compiler<'_>) -> Result<Self> {
        compiler.expression(text).map(|source| Self::single(source, None))
    }

    fn single(source: Source, default_value: Option<String>) -> Self {
        Self::LookedUp(TagSource::Single(source), default_value)
    }
}

impl RawLiteral {
    pub(crate) fn compile(self, compiler: &Compiler<'_>) -> Result<CompiledSource> {
        let value = non_empty(self.value).and_then(|value| compiler.check_length(value));
        value.map(CompiledSource::Fixed).under("value")
    }
}

impl RawNamed {
    /// Compiles a source that needs nothing but a name.
    pub(crate) fn compile(self, source: fn(String) -> Source) -> Result<CompiledSource> {
        let name = non_empty(self.name).under("name")?;
        Ok(CompiledSource::single(source(name), self.default_value))
    }

    /// Compiles a source that is a header, which must not hold credentials.
    pub(crate) fn compile_header(
        self,
        compiler: &Compiler<'_>,
        source: fn(String) -> Source,
    ) -> Result<CompiledSource> {
        let name = compiler.header(&self.name).under("name")?;
        Ok(CompiledSource::single(source(name), self.default_value))
    }

    /// Reads an environment variable.
    pub(crate) fn compile_variable(self, compiler: &Compiler<'_>) -> Result<CompiledSource> {
        let name = non_empty(self.name).under("name")?;
        public_variable(&name, compiler.settings.secret_variables).under("name")?;
        let value = (compiler.settings.environment)(&name).or(self.default_value);
        let value = compiler.check_length(value.unwrap_or_default());
        value.map(CompiledSource::Fixed).under("name")
    }
}

impl RawRequestHeader {
    pub(crate) fn compile(self, compiler: &mut Compiler<'_>) -> Result<CompiledSource> {
        let read = self.read.unwrap_or(RawRead::Start);
        let source = compiler.request_header(&self.name, read).under("name")?;
        Ok(CompiledSource::single(source, self.default_value))
    }
}

impl RawProperty {
    pub(crate) fn compile(self, compiler: &mut Compiler<'_>) -> Result<CompiledSource> {
        let path = joined_path(&self.path);
        let path = path.and_then(|path| compiler.check_path(&path).map(|()| path)).under("path")?;
        let record_as = self.r#type.map(|raw| match raw {
            RawPropertyType::String => Type::Text,
            RawPropertyType::Int => Type::Int,
            RawPropertyType::Double => Type::Double,
            RawPropertyType::Bool => Type::Bool,
        });
        let encoding = Encoding::of(&path, record_as);
        let source = compiler.attribute(path, encoding, record_as);
        Ok(CompiledSource::single(source, self.default_value))
    }
}

impl RawIdentity {
    /// Compiles the identity of one end, which stands in the certificates of the incoming connection
    /// or of the outgoing one.
    pub(crate) fn compile(self, compiler: &mut Compiler<'_>) -> CompiledSource {
        let (inbound, outbound) = match self {
            Self::Source => {
                ("connection\0uri_san_peer_certificate", "upstream\0uri_san_local_certificate")
            }
            Self::Destination => {
                ("connection\0uri_san_local_certificate", "upstream\0uri_san_peer_certificate")
            }
        };
        let [inbound, outbound] =
            [inbound, outbound].map(|path| PropertySource::Path(path.to_owned()));
        let index = compiler.tags.properties.add(inbound, outbound);
        let property = Property::new(index, Encoding::Plain(Type::Text), None);
        CompiledSource::single(Source::Property(property), None)
    }
}

impl RawMetadata {
    pub(crate) fn compile(self, compiler: &mut Compiler<'_>) -> Result<CompiledSource> {
        let root = self.kind.root().under("kind")?;
        let mut keys = self.metadata_key.key;
        for segment in &self.metadata_key.path {
            keys.push('\0');
            keys.push_str(&segment.key);
        }
        let source = compiler.metadata(root, &keys).under("metadata_key")?;
        Ok(CompiledSource::single(source, self.default_value))
    }
}

impl RawFormatter {
    pub(crate) fn compile(self, compiler: &mut Compiler<'_>) -> Result<CompiledSource> {
        let read = format::check_read(&self.value, self.read)?;
        let parts = compiler.format(&self.value, read).under("value")?;
        Ok(CompiledSource::LookedUp(TagSource::Format(parts), None))
    }
}

impl RawMetadataKind {
    /// Returns the path of the attribute that holds the metadata.
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

/// Joins the parts of a path with a zero byte between them, as the host takes it.
fn joined_path(path: &OneOrMany<String>) -> Result<String> {
    let (joined, is_dotted) = match path {
        OneOrMany::One(dotted) => (zero_separated(dotted, '.'), true),
        OneOrMany::Many(parts) => (parts.join("\0"), false),
    };
    if joined.split('\0').any(str::is_empty) || (is_dotted && joined.contains('[')) {
        let found = quoted(&joined.replace('\0', "."));
        return Err(ConfigError::new("a path such as `xds.route_name`, or its parts", found));
    }
    Ok(joined)
}
