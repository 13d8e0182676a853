//! `custom_tags`.

use opentelemetry::KeyValue;

use super::super::error::{ConfigError, quoted};
use super::super::raw::RawCustomTag;
use super::super::{RequestHeaderTag, Tags};
use super::{Environment, Result, header_name, non_empty};
use crate::attributes;
use crate::otlp;

pub fn tags(raw: Vec<RawCustomTag>, environment: Environment<'_>) -> Result<Tags> {
    let mut names: Vec<String> = Vec::with_capacity(raw.len());
    let mut constant = vec![
        KeyValue::new(attributes::COMPONENT, "proxy"),
        KeyValue::new(attributes::SPAN_SOURCE, "mesh"),
    ];
    let mut request_headers = Vec::new();
    for (place, raw) in raw.into_iter().enumerate() {
        check_tag_name(&raw.tag, &names).map_err(|error| error.under("tag").at(place))?;
        names.push(raw.tag.clone());
        match tag(raw, environment).map_err(|error| error.at(place))? {
            Tag::Constant(Some(tag)) => constant.push(tag),
            Tag::Constant(None) => {}
            Tag::RequestHeader(tag) => request_headers.push(tag),
        }
    }
    let constant = otlp::encode_attributes(&constant);
    Ok(Tags { constant, request_headers })
}

enum Tag {
    /// None where an environment variable is missing and there is no default.
    Constant(Option<KeyValue>),
    RequestHeader(RequestHeaderTag),
}

fn tag(raw: RawCustomTag, environment: Environment<'_>) -> Result<Tag> {
    match (raw.literal, raw.request_header, raw.environment) {
        (Some(literal), None, None) => {
            let value =
                short(literal.value).map_err(|error| error.under("value").under("literal"))?;
            Ok(Tag::Constant(Some(KeyValue::new(raw.tag, value))))
        }
        (None, Some(source), None) => {
            let header = header_name(&source.name)
                .map_err(|error| error.under("name").under("request_header"))?;
            let default_value = source.default_value;
            Ok(Tag::RequestHeader(RequestHeaderTag { tag: raw.tag, header, default_value }))
        }
        (None, None, Some(source)) => {
            let name =
                non_empty(source.name).map_err(|error| error.under("name").under("environment"))?;
            let value = environment(&name).or(source.default_value).map(short).transpose();
            let value = value.map_err(|error| error.under("name").under("environment"))?;
            Ok(Tag::Constant(value.map(|value| KeyValue::new(raw.tag, value))))
        }
        (None, None, None) => Err(ConfigError::new(ONE_TAG_SOURCE, "none of them")),
        _ => Err(ConfigError::new(ONE_TAG_SOURCE, "several of them")),
    }
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

/// Checks a value that stands on every span.
fn short(value: String) -> Result<String> {
    let limit = otlp::MAX_ATTRIBUTE_VALUE_BYTES;
    if value.len() > limit {
        let found = format!("{} bytes", value.len());
        return Err(ConfigError::new(format!("a value of at most {limit} bytes"), found));
    }
    Ok(value)
}

const ONE_TAG_SOURCE: &str = "one of `literal`, `request_header`, `environment`";
