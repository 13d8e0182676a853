//! Conditions on requests, which several sections have: on strings, headers, ports and the direction.

use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use super::error::{ConfigError, InPath, Result, quoted};
use super::shapes::{Environment, OneOrMany, header_name, not_null};
use super::token::RawToken;
use crate::http::digits;
use crate::http::head::AUTHORITY;
use crate::http::path;
use crate::http::url;
use crate::propagation;
use crate::sampling::conditions::Direction;
use crate::sampling::matching::{
    HeaderCondition, HeaderMatch, MAX_TOKENS, StringMatch, StringMatchKind,
};
use crate::sampling::regex::{Invalid, Regex};
use crate::sampling::token::TokenHeader;

/// A condition on a string: exactly one of `exact`, `prefix`, `suffix`, `contains` and `regex`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "an object")]
pub(super) struct RawStringMatch {
    /// The value equals this. Example: `/healthz`.
    pub exact: Option<String>,
    /// The value begins with this. Example: `/api/`.
    pub prefix: Option<String>,
    /// The value ends with this. Example: `.css`.
    pub suffix: Option<String>,
    /// The value contains this. Example: `debug`.
    pub contains: Option<String>,
    /// The whole value matches this regular expression, as in Envoy's `safe_regex`.
    /// Example: `/items/[0-9]+`.
    pub regex: Option<String>,
    /// Whether ASCII letters match in either case. Default: `false`.
    #[serde(alias = "ignoreCase")]
    pub ignore_case: bool,
}

/// A condition on the method. A plain string stands for `exact`.
pub(super) struct RawMethodMatch(pub RawStringMatch);

/// A condition on a header: its `name`, and `present`, `token` or a condition on the value.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct RawHeaderMatch {
    /// Name of the header, in either case; also `:path`, `:method`, `:authority` and `:scheme`. `host`
    /// stands for `:authority`. Required. Example: `x-debug-trace`.
    pub name: String,
    /// Whether the header must be present (`true`) or absent (`false`), whatever its value.
    pub present: Option<bool>,
    /// Whether to invert the condition; an absent header then matches.
    /// Default: `false`.
    #[serde(default)]
    pub invert: bool,
    /// The header holds a valid signed token.
    pub token: Option<RawToken>,
    /// Whether the header is removed before the request goes upstream. Default: `true` with `token`,
    /// else `false`.
    pub strip: Option<bool>,
    /// The value equals this.
    pub exact: Option<String>,
    /// The value begins with this.
    pub prefix: Option<String>,
    /// The value ends with this.
    pub suffix: Option<String>,
    /// The value contains this.
    pub contains: Option<String>,
    /// The whole value matches this regular expression, as in Envoy's `safe_regex`.
    pub regex: Option<String>,
    /// Whether ASCII letters match in either case. Default: `false`.
    #[serde(default, alias = "ignoreCase", deserialize_with = "not_null")]
    pub ignore_case: Option<bool>,
}

/// The direction of a request.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RawDirection {
    Inbound,
    Outbound,
}

impl<'de> Deserialize<'de> for RawMethodMatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(MethodVisitor)
    }
}

struct MethodVisitor;

impl<'de> Visitor<'de> for MethodVisitor {
    type Value = RawMethodMatch;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a method or an object")
    }

    fn visit_str<E: de::Error>(self, method: &str) -> std::result::Result<RawMethodMatch, E> {
        let exact = Some(method.to_owned());
        Ok(RawMethodMatch(RawStringMatch { exact, ..RawStringMatch::default() }))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<RawMethodMatch, A::Error> {
        RawStringMatch::deserialize(MapAccessDeserializer::new(map)).map(RawMethodMatch)
    }
}

/// Compiles conditions on headers, and collects the headers that hold tokens and those to remove.
pub(super) struct HeaderConditions<'e> {
    pub environment: Environment<'e>,
    /// The headers that hold tokens. Conditions refer to them by index.
    pub tokens: Vec<TokenHeader>,
    /// Headers that are removed before the request goes upstream.
    pub strip: Vec<String>,
}

impl HeaderConditions<'_> {
    pub(super) fn compile(&mut self, raw: OneOrMany<RawHeaderMatch>) -> Result<Vec<HeaderMatch>> {
        raw.compile(&mut |raw| self.header_match(raw))
    }

    fn header_match(&mut self, raw: RawHeaderMatch) -> Result<HeaderMatch> {
        let mut name = header_name(&raw.name).under("name")?;
        if name == "host" {
            // Envoy has the host in this header, whatever the protocol.
            name = AUTHORITY.to_owned();
        }
        let strip = raw.strip.unwrap_or(raw.token.is_some());
        let RawHeaderMatch { exact, prefix, suffix, contains, regex, ignore_case, .. } = raw;
        let has_value = ignore_case.is_some()
            || [&exact, &prefix, &suffix, &contains, &regex].iter().any(|it| it.is_some());
        let condition = match (raw.present, raw.token) {
            (Some(present), None) if !has_value => HeaderCondition::Present(present),
            (None, Some(token)) if !has_value => {
                HeaderCondition::Token(self.token(&name, token).under("token")?)
            }
            (None, None) if has_value => {
                let ignore_case = ignore_case.unwrap_or_default();
                let value = RawStringMatch { exact, prefix, suffix, contains, regex, ignore_case };
                HeaderCondition::Value(value.compile()?)
            }
            (None, None) => {
                let expected =
                    "one of `exact`, `prefix`, `suffix`, `contains`, `regex`, `present`, `token`";
                return Err(ConfigError::new(expected, "none of them"));
            }
            _ => {
                let expected = "`present`, `token` or a condition on the value";
                return Err(ConfigError::new(expected, "several of them"));
            }
        };
        if strip && (is_needed(&name) || propagation::is_known_header(&name)) {
            let expected = "a header that neither HTTP, Envoy nor a trace context needs";
            return Err(ConfigError::new(expected, quoted(&name)).under("name"));
        }
        if strip && !self.strip.contains(&name) {
            self.strip.push(name.clone());
        }
        Ok(HeaderMatch { name, condition, invert: raw.invert })
    }

    /// Adds a header that holds a token, and returns its index.
    fn token(&mut self, header: &str, raw: RawToken) -> Result<u32> {
        let index = self.tokens.len() as u32;
        if index == MAX_TOKENS {
            return Err(ConfigError::new("at most 64 tokens in the whole configuration", "more"));
        }
        let check = raw.compile(self.environment)?;
        self.tokens.push(TokenHeader { name: header.to_owned(), check });
        Ok(index)
    }
}

/// Tells whether HTTP or Envoy needs a request header.
fn is_needed(name: &str) -> bool {
    NEEDED_HEADERS.contains(&name) || NEEDED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

const NEEDED_HEADERS: &[&str] = &[
    "connection",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-request-id",
];
const NEEDED_PREFIXES: &[&str] =
    &[":", "content-", "grpc-", "proxy-", "sec-websocket-", "x-envoy-", "x-forwarded-"];

impl RawStringMatch {
    /// Compiles a condition on the path. Rules see normalized paths only, so a pattern in another
    /// spelling would never match.
    pub(super) fn compile_path(self) -> Result<StringMatch> {
        let is_normal = |path: &str| {
            path::normalized(path.as_bytes()).is_some_and(|normal| *normal == *path.as_bytes())
        };
        let expected = "a normalized path: without a query, dot segments, repeated slashes, \
                        backslashes and needless percent-encoding";
        if let Some(path) = self.exact.as_deref().filter(|path| !is_normal(path)) {
            return Err(ConfigError::new(expected, quoted(path)).under("exact"));
        }
        // Dots at the end of a prefix are no dot segment: they may begin a longer name.
        let is_normal_prefix = |prefix: &str| is_normal(&[prefix, "a"].concat());
        if let Some(path) = self.prefix.as_deref().filter(|path| !is_normal_prefix(path)) {
            return Err(ConfigError::new(expected, quoted(path)).under("prefix"));
        }
        self.compile()
    }

    /// Compiles a condition on the host of an authority.
    pub(super) fn compile_host(mut self) -> Result<StringMatch> {
        self.ignore_case = true;
        for (kind, pattern) in [("exact", &self.exact), ("suffix", &self.suffix)] {
            if let Some(pattern) = pattern
                && url::host_and_port(pattern.as_bytes()).1.is_some()
            {
                let expected = "a host without a port (use the condition `port`)";
                return Err(ConfigError::new(expected, quoted(pattern)).under(kind));
            }
        }
        self.compile()
    }

    pub(super) fn compile(self) -> Result<StringMatch> {
        let given = [
            ("exact", self.exact),
            ("prefix", self.prefix),
            ("suffix", self.suffix),
            ("contains", self.contains),
            ("regex", self.regex),
        ];
        let mut given = given.into_iter().filter_map(|(kind, value)| Some((kind, value?)));
        let one = "one of `exact`, `prefix`, `suffix`, `contains`, `regex`";
        let (kind, value) = match (given.next(), given.next()) {
            (Some(only), None) => only,
            (Some((first, _)), Some((second, _))) => {
                return Err(ConfigError::new(one, format_args!("both `{first}` and `{second}`")));
            }
            (None, _) => return Err(ConfigError::new(one, "none of them")),
        };
        let kind = match kind {
            "exact" => StringMatchKind::Exact(value.into_bytes()),
            "prefix" => StringMatchKind::Prefix(value.into_bytes()),
            "suffix" => StringMatchKind::Suffix(value.into_bytes()),
            "contains" => return Ok(StringMatch::contains(value.as_bytes(), self.ignore_case)),
            _ => {
                let regex = regex(&value, self.ignore_case).under("regex")?;
                StringMatchKind::Regex(Box::new(regex))
            }
        };
        Ok(StringMatch { kind, ignore_case: self.ignore_case })
    }
}

/// Checks a port, which JSON has as a number of any kind.
pub(super) fn port_number(number: f64) -> Result<u16> {
    let port = number as u16;
    if port == 0 || f64::from(port) != number {
        let expected = "a whole number from 1 to 65535";
        return Err(ConfigError::new(expected, digits::float(number)));
    }
    Ok(port)
}

impl From<RawDirection> for Direction {
    fn from(raw: RawDirection) -> Self {
        match raw {
            RawDirection::Inbound => Self::Inbound,
            RawDirection::Outbound => Self::Outbound,
        }
    }
}

fn regex(pattern: &str, ignore_case: bool) -> Result<Regex> {
    Regex::new(pattern, ignore_case).map_err(|invalid| invalid_regex(invalid, pattern))
}

/// Returns the error of a pattern that cannot be compiled.
pub(super) fn invalid_regex(invalid: Invalid, pattern: &str) -> ConfigError {
    let expected = match invalid {
        Invalid::Syntax => "a valid regular expression",
        Invalid::TooLarge => "a regular expression with fewer repetitions",
    };
    ConfigError::new(expected, quoted(pattern))
}

#[cfg(test)]
mod tests;
