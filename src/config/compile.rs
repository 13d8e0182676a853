//! Raw configuration -> compiled configuration: checks what types alone cannot say.

use std::time::Duration;

use opentelemetry::KeyValue;
use regex_lite::RegexBuilder;

use super::decode::OneOrMany;
use super::error::{ConfigError, quoted};
use super::json::Json;
use super::raw::{
    Format, RawBatch, RawConfig, RawCustomTag, RawDecision, RawDirection, RawExportHeader,
    RawExporter, RawHeaderMatch, RawMatch, RawPropagation, RawRule, RawSampling, RawStringMatch,
};
use super::{Config, Exporter, RequestHeaderTag, Tags};
use crate::attributes;
use crate::head;
use crate::matching::{HeaderCondition, HeaderMatch, StringMatch, StringMatchKind};
use crate::otlp;
use crate::propagation::{Propagation, Source, Target};
use crate::queue::Limits;
use crate::ratio::Ratio;
use crate::rules::{Action, Conditions, Direction, Rule, Rules};

type Result<T> = std::result::Result<T, ConfigError>;
type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

pub fn config(raw: RawConfig, environment: Environment<'_>) -> Result<Config> {
    let service_name = raw.service_name.map(non_empty).transpose();
    let (ratio, rules) = sampling(raw.sampling).map_err(|error| error.under("sampling"))?;
    Ok(Config {
        service_name: service_name.map_err(|error| error.under("service_name"))?,
        resource_attributes: raw.resource_attributes.0,
        propagation: propagation(raw.propagation).map_err(|error| error.under("propagation"))?,
        ratio,
        rules,
        tags: tags(raw.custom_tags, environment).map_err(|error| error.under("custom_tags"))?,
        exporter: raw
            .exporter
            .map(|raw| exporter(raw, environment))
            .transpose()
            .map_err(|error| error.under("exporter"))?,
    })
}

fn propagation(raw: RawPropagation) -> Result<Propagation> {
    let extract = raw.extract.unwrap_or_else(|| DEFAULT_EXTRACT.to_vec());
    let inject = raw.inject.unwrap_or_else(|| DEFAULT_INJECT.to_vec());
    no_contradiction(&extract).map_err(|error| error.under("extract"))?;
    no_contradiction(&inject).map_err(|error| error.under("inject"))?;
    let mut sources: Vec<Source> = Vec::new();
    for source in extract.iter().filter_map(|format| source(*format)) {
        if !sources.contains(&source) {
            sources.push(source);
        }
    }
    let silent = inject.is_empty() || inject.contains(&Format::None);
    let targets = || inject.iter().filter_map(|format| target(*format)).collect();
    Ok(Propagation { extract: sources, inject: (!silent).then(targets) })
}

fn source(format: Format) -> Option<Source> {
    match format {
        Format::TraceContext => Some(Source::TraceContext),
        Format::B3 | Format::B3Multi => Some(Source::B3),
        Format::Baggage | Format::None => None,
    }
}

fn target(format: Format) -> Option<Target> {
    match format {
        Format::TraceContext => Some(Target::TraceContext),
        Format::B3 => Some(Target::B3Single),
        Format::B3Multi => Some(Target::B3Multi),
        Format::Baggage | Format::None => None,
    }
}

fn no_contradiction(formats: &[Format]) -> Result<()> {
    if formats.len() > 1 && formats.contains(&Format::None) {
        return Err(ConfigError::new("`none` alone or other formats", "both"));
    }
    for (place, format) in formats.iter().enumerate() {
        if formats.iter().take(place).any(|before| before == format) {
            return Err(ConfigError::new("each format once", "it again").at(place));
        }
    }
    Ok(())
}

fn sampling(raw: RawSampling) -> Result<(Ratio, Rules)> {
    let root_ratio = match raw.ratio {
        Some(share) => ratio(share).map_err(|error| error.under("ratio"))?,
        None => Ratio::ALWAYS,
    };
    let mut rules: Vec<Rule> = Vec::with_capacity(raw.rules.len());
    for (place, raw) in raw.rules.into_iter().enumerate() {
        let known = rules.iter().position(|rule| rule.name == raw.name);
        let compiled = match known {
            Some(first) => Err(ConfigError::new(
                "a name that no other rule has",
                format!("{}, which is the name of rules[{first}]", quoted(&raw.name)),
            )
            .under("name")),
            None => rule(raw, root_ratio),
        };
        rules.push(compiled.map_err(|error| error.at(place).under("rules"))?);
    }
    Ok((root_ratio, Rules::new(rules)))
}

fn rule(raw: RawRule, root_ratio: Ratio) -> Result<Rule> {
    let name = non_empty(raw.name).map_err(|error| error.under("name"))?;
    let own_ratio = raw.ratio.map(ratio).transpose().map_err(|error| error.under("ratio"))?;
    let action = match (raw.decision.unwrap_or(RawDecision::Parent), own_ratio) {
        (RawDecision::Parent, own) => Action::Parent(own.unwrap_or(root_ratio)),
        (_, Some(_)) => {
            let expected = "no ratio, since it goes with the decision `parent` alone";
            return Err(ConfigError::new(expected, "one").under("ratio"));
        }
        (RawDecision::Force, None) => Action::Force,
        (RawDecision::Drop, None) => Action::Drop,
        (RawDecision::Ignore, None) => Action::Ignore,
    };
    let conditions = conditions(raw.r#match).map_err(|error| error.under("match"))?;
    Ok(Rule { name, conditions, action })
}

fn conditions(raw: RawMatch) -> Result<Conditions> {
    Ok(Conditions {
        path: each(raw.path, string_match).map_err(|error| error.under("path"))?,
        method: each(raw.method, |raw| string_match(raw.0))
            .map_err(|error| error.under("method"))?,
        authority: each(raw.authority, string_match).map_err(|error| error.under("authority"))?,
        headers: each(raw.headers, header_match).map_err(|error| error.under("headers"))?,
        direction: raw.direction.map(|direction| match direction {
            RawDirection::Inbound => Direction::Inbound,
            RawDirection::Outbound => Direction::Outbound,
        }),
    })
}

/// Compiles one value or each of many, with the index in the path where there is an array.
fn each<R, T>(raw: OneOrMany<R>, compile: impl Fn(R) -> Result<T>) -> Result<Vec<T>> {
    match raw {
        OneOrMany::One(raw) => Ok(vec![compile(raw)?]),
        OneOrMany::Many(all) => {
            let all = all.into_iter().enumerate();
            all.map(|(place, raw)| compile(raw).map_err(|error| error.at(place))).collect()
        }
    }
}

fn string_match(raw: RawStringMatch) -> Result<StringMatch> {
    let ignore_case = raw.ignore_case;
    let given = [
        ("exact", raw.exact),
        ("prefix", raw.prefix),
        ("suffix", raw.suffix),
        ("contains", raw.contains),
        ("regex", raw.regex),
    ];
    let mut given = given.into_iter().filter_map(|(kind, value)| Some((kind, value?)));
    let one = "one of `exact`, `prefix`, `suffix`, `contains`, `regex`";
    let (kind, value) = match (given.next(), given.next()) {
        (Some(only), None) => only,
        (None, _) => return Err(ConfigError::new(one, "none of them")),
        (Some((first, _)), Some((second, _))) => {
            return Err(ConfigError::new(one, format!("both `{first}` and `{second}`")));
        }
    };
    let bytes = || value.as_bytes().to_vec();
    let kind = match kind {
        "exact" => StringMatchKind::Exact(bytes()),
        "prefix" => StringMatchKind::Prefix(bytes()),
        "suffix" => StringMatchKind::Suffix(bytes()),
        "contains" => StringMatchKind::Contains(bytes()),
        _ => return regex(&value, ignore_case).map_err(|error| error.under("regex")),
    };
    Ok(StringMatch { kind, ignore_case })
}

fn regex(pattern: &str, ignore_case: bool) -> Result<StringMatch> {
    let build = |pattern: &str| {
        let mut builder = RegexBuilder::new(pattern);
        builder.case_insensitive(ignore_case).size_limit(MAX_REGEX_BYTES).build()
    };
    // On its own first: `a)|(b` would be valid between the anchors alone.
    match build(pattern).and_then(|_| build(&format!("^(?:{pattern})$"))) {
        Ok(regex) => Ok(StringMatch { kind: StringMatchKind::Regex(regex), ignore_case }),
        Err(_) => Err(ConfigError::new("a valid regular expression", quoted(pattern))),
    }
}

fn header_match(raw: RawHeaderMatch) -> Result<HeaderMatch> {
    let name = header_name(&raw.name).map_err(|error| error.under("name"))?;
    let condition = match (raw.present, raw.value) {
        (Some(_), Some(_)) => {
            return Err(ConfigError::new("`present` or a condition on the value", "both"));
        }
        (Some(present), None) => HeaderCondition::Present(present),
        (None, Some(value)) => HeaderCondition::Value(string_match(value)?),
        (None, None) => {
            let expected = "one of `exact`, `prefix`, `suffix`, `contains`, `regex`, `present`";
            return Err(ConfigError::new(expected, "none of them"));
        }
    };
    Ok(HeaderMatch { name, condition, invert: raw.invert })
}

fn tags(raw: Vec<RawCustomTag>, environment: Environment<'_>) -> Result<Tags> {
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

fn exporter(raw: RawExporter, environment: Environment<'_>) -> Result<Exporter> {
    let (limits, interval) = batch(&raw.batch).map_err(|error| error.under("batch"))?;
    let under = |error: ConfigError, key: &str| error.under(key).under("otlp");
    let path = raw.otlp.path.unwrap_or_else(|| DEFAULT_OTLP_PATH.to_owned());
    if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        let error = ConfigError::new("a path that begins with /, without spaces", quoted(&path));
        return Err(under(error, "path"));
    }
    let timeout_ms = raw.otlp.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS);
    let timeout_ms = at_least(1, timeout_ms).map_err(|error| under(error, "timeout_ms"))?;
    let mut headers = Vec::with_capacity(raw.otlp.headers.len());
    for (place, raw) in raw.otlp.headers.into_iter().enumerate() {
        let header = export_header(raw, &headers, environment);
        headers.push(header.map_err(|error| under(error.at(place), "headers"))?);
    }
    let cluster = non_empty(raw.otlp.cluster).map_err(|error| under(error, "cluster"))?;
    Ok(Exporter {
        authority: authority(&cluster),
        cluster,
        path,
        timeout: Duration::from_millis(timeout_ms.into()),
        headers,
        limits,
        interval,
    })
}

fn batch(raw: &RawBatch) -> Result<(Limits, Duration)> {
    let queue = at_least(1, raw.max_queue_spans.unwrap_or(DEFAULT_MAX_QUEUE_SPANS));
    let max_queue_spans = queue.map_err(|error| error.under("max_queue_spans"))?;
    let default = DEFAULT_MAX_BATCH_SPANS.min(max_queue_spans);
    let batch = at_least(1, raw.max_batch_spans.unwrap_or(default));
    let max_batch_spans = batch.map_err(|error| error.under("max_batch_spans"))?;
    if max_batch_spans > max_queue_spans {
        let expected = format!("at most max_queue_spans, which is {max_queue_spans}");
        return Err(
            ConfigError::new(expected, max_batch_spans.to_string()).under("max_batch_spans")
        );
    }
    let interval = at_least(MIN_INTERVAL_MS, raw.interval_ms.unwrap_or(DEFAULT_INTERVAL_MS));
    let interval_ms = interval.map_err(|error| error.under("interval_ms"))?;
    let limits = Limits { max_queue_spans, max_batch_spans };
    Ok((limits, Duration::from_millis(interval_ms.into())))
}

fn export_header(
    raw: RawExportHeader,
    known: &[(String, String)],
    environment: Environment<'_>,
) -> Result<(String, String)> {
    let name = header_name(&raw.name).map_err(|error| error.under("name"))?;
    let set_already = EXPORT_HEADERS.contains(&name.as_str());
    if name.starts_with(':') || set_already || known.iter().any(|(other, _)| *other == name) {
        let expected = "a header that neither the exporter nor another entry sets";
        return Err(ConfigError::new(expected, quoted(&name)).under("name"));
    }
    let (value, source, key) = match (raw.literal, raw.environment) {
        (Some(literal), None) => (literal.value, "literal", "value"),
        (None, Some(source)) => {
            let value = environment(&source.name).or(source.default_value).ok_or_else(|| {
                let expected = "an environment variable of the VM, or a default_value";
                ConfigError::new(expected, quoted(&source.name)).under("name").under("environment")
            })?;
            (value, "environment", "name")
        }
        (None, None) => return Err(ConfigError::new("`literal` or `environment`", "neither")),
        (Some(_), Some(_)) => return Err(ConfigError::new("`literal` or `environment`", "both")),
    };
    if value.bytes().any(|byte| byte.is_ascii_control()) {
        // The value may be a secret: it is not shown.
        let error =
            ConfigError::new("a value without control characters", "one, such as a newline");
        return Err(error.under(key).under(source));
    }
    Ok((name, value))
}

/// Returns the authority of a cluster's receiver. Istio's clusters are called
/// `direction|port|subset|host`, and receivers refuse a `Host` with a `|` in it.
fn authority(cluster: &str) -> String {
    let parts: Vec<&str> = cluster.split('|').collect();
    if let [_direction, port, _subset, host] = parts.as_slice() {
        return format!("{host}:{port}");
    }
    let host_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    if cluster.bytes().all(host_byte) { cluster.to_owned() } else { ANY_AUTHORITY.to_owned() }
}

fn ratio(share: f64) -> Result<Ratio> {
    Ratio::new(share).ok_or_else(|| {
        let found = serde_json::Number::from_f64(share).map_or(Json::Null, Json::Number);
        found.unlike("a number from 0 to 1")
    })
}

fn non_empty(value: String) -> Result<String> {
    if value.is_empty() { Err(ConfigError::new("a non-empty string", "\"\"")) } else { Ok(value) }
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

fn at_least(least: u32, value: u32) -> Result<u32> {
    if value < least {
        return Err(ConfigError::new(format!("a whole number from {least} up"), value.to_string()));
    }
    Ok(value)
}

/// Checks a header's name (a token of RFC 9110, section 5.6.2, or a pseudo header of a request)
/// and returns it in lower case, as Envoy keeps it.
fn header_name(name: &str) -> Result<String> {
    let pseudo = [head::PATH, head::METHOD, head::AUTHORITY, head::SCHEME];
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if pseudo.contains(&name) || (!name.is_empty() && name.bytes().all(token)) {
        return Ok(name.to_ascii_lowercase());
    }
    Err(ConfigError::new("the name of a header", quoted(name)))
}

const DEFAULT_EXTRACT: [Format; 3] = [Format::TraceContext, Format::B3, Format::Baggage];
const DEFAULT_INJECT: [Format; 2] = [Format::TraceContext, Format::Baggage];
const DEFAULT_OTLP_PATH: &str = "/v1/traces";
const DEFAULT_TIMEOUT_MS: u32 = 10_000;
const DEFAULT_MAX_QUEUE_SPANS: u32 = 2_048;
const DEFAULT_MAX_BATCH_SPANS: u32 = 512;
const DEFAULT_INTERVAL_MS: u32 = 1_000;
/// The tick that sends batches also publishes the metrics; faster ones would cost for nothing.
const MIN_INTERVAL_MS: u32 = 10;
/// Largest compiled regular expression: with [`crate::matching::MAX_REGEX_INPUT_BYTES`] it bounds
/// the time that one match can take.
const MAX_REGEX_BYTES: usize = 64 * 1024;
/// What the exporter sets itself.
const EXPORT_HEADERS: [&str; 4] = ["host", "content-type", "content-length", "user-agent"];
/// The authority where a cluster's name cannot be one.
const ANY_AUTHORITY: &str = "otlp";
const ONE_TAG_SOURCE: &str = "one of `literal`, `request_header`, `environment`";
