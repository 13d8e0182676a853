//! Compiles the values that tags read: headers, attributes, CEL expressions, metadata. Values that may hold
//! credentials are refused.

use serde::Deserialize;

use super::Compiler;
use crate::config::error::{ConfigError, Result, quoted};
use crate::config::shapes::header_name;
use crate::span::cel;
use crate::span::tags::property::{Encoding, Property, PropertySource, Type};
use crate::span::tags::sensitive;
use crate::span::tags::source::Source;

/// When request headers are read.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawRead {
    /// When the request arrives, before later filters change it.
    Start,
    /// When the request ends, with the changes of later filters, as Envoy's own custom tags do.
    End,
}

impl Compiler<'_> {
    /// Checks that a fixed value is not longer than the limit of attribute values.
    pub(super) fn check_length(&self, value: String) -> Result<String> {
        let limit = self.settings.limits.value_length as usize;
        match value.chars().count() {
            chars if chars > limit => Err(ConfigError::new(
                format_args!("a value of at most {limit} characters"),
                format_args!("{chars} characters"),
            )),
            _ => Ok(value),
        }
    }

    /// Compiles a request header. Read at the end, it is one of Envoy's attributes.
    pub(crate) fn request_header(&mut self, name: &str, read: RawRead) -> Result<Source> {
        let name = self.header(name)?;
        Ok(match read {
            RawRead::Start => Source::RequestHeader(name),
            RawRead::End => {
                let path = format!("request\0headers\0{name}");
                self.attribute(path, Encoding::Plain(Type::Text), Some(Type::Text))
            }
        })
    }

    /// Checks the name of a header whose value is recorded. Returns it in lower case.
    pub(crate) fn header(&self, name: &str) -> Result<String> {
        let name = header_name(name)?;
        self.check_not_sensitive(&name)?;
        Ok(name)
    }

    #[inline(never)]
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

    /// Checks that a path leads to one value, and not to a header with credentials.
    pub(super) fn check_path(&self, path: &str) -> Result<()> {
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

    /// Compiles one of Envoy's attributes. Its path, with a zero byte between the parts, does not
    /// depend on the direction.
    pub(crate) fn attribute(
        &mut self,
        path: String,
        encoding: Encoding,
        record_as: Option<Type>,
    ) -> Source {
        let name = path.replace('\0', ".");
        let source = PropertySource::Path(path);
        let index = self.tags.properties.add(source.clone(), source);
        let mut source = Source::Property(Property::new(index, encoding, record_as));
        source.protect_by(self.settings.privacy.protections(&name));
        source
    }

    /// Compiles a CEL expression. Each word in it may be the name of a header.
    pub(crate) fn expression(&mut self, text: &str) -> Result<Source> {
        let lower = text.to_ascii_lowercase();
        for word in lower.as_bytes().split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'-') {
            self.check_not_sensitive(std::str::from_utf8(word).unwrap_or_default())?;
        }
        // The name of a token's header may have characters that end a word here.
        for token in self.settings.tokens.iter().filter(|token| lower.contains(&token.name)) {
            self.check_not_sensitive(&token.name)?;
        }
        let is_readable = !text.trim().is_empty() && text.len() <= MAX_EXPRESSION_BYTES;
        if !is_readable || !(self.settings.compiles)(text) {
            let expected = "a CEL expression of at most 2048 bytes that Envoy compiles (its log has the \
                            reason at `info`)";
            return Err(ConfigError::new(expected, quoted(text)));
        }
        let mut source = self.property(PropertySource::Cel(cel::text_of(text)));
        source.protect_by(self.settings.privacy.protections(text));
        Ok(source)
    }

    /// Compiles a property that is text, and does not depend on the direction.
    pub(crate) fn property(&mut self, source: PropertySource) -> Source {
        let index = self.tags.properties.add(source.clone(), source);
        Source::Property(Property::new(index, Encoding::Plain(Type::Text), None))
    }

    /// Compiles a value of metadata, which is recorded as text, as Envoy's own tags record it. `keys`
    /// are the namespace and the keys in it, with a zero byte between them.
    pub(crate) fn metadata(&mut self, root: &str, keys: &str) -> Result<Source> {
        if !keys.contains('\0') || keys.split('\0').any(str::is_empty) {
            let expected = "a namespace, and a key in it";
            return Err(ConfigError::new(expected, quoted(&keys.replace('\0', "."))));
        }
        let path = [&zero_separated(root, '.'), "\0filter_metadata\0", keys].concat();
        Ok(self.attribute(path, Encoding::Metadata, Some(Type::Text)))
    }
}

/// Returns a path with a zero byte between its parts, as the host takes it.
#[inline(never)]
pub(super) fn zero_separated(path: &str, separator: char) -> String {
    path.replace(separator, "\0")
}

/// Longest CEL expression of a tag.
const MAX_EXPRESSION_BYTES: usize = 2048;
