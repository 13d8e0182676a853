//! Conditions on strings and headers, and the tokens that headers hold.

use regex_lite::RegexBuilder;

use super::super::decode::OneOrMany;
use super::super::error::{ConfigError, quoted};
use super::super::raw::{RawHeaderMatch, RawStringMatch, RawToken, RawTokenKey};
use super::{Environment, Result, header_name};
use crate::matching::{HeaderCondition, HeaderMatch, MAX_TOKENS, StringMatch, StringMatchKind};
use crate::propagation;
use crate::request::TokenHeader;
use crate::token::{Key, TokenCheck};

/// Compiles conditions on headers, and collects what they ask for.
pub struct Headers<'e> {
    pub environment: Environment<'e>,
    /// The headers that hold tokens; a condition names its place.
    pub tokens: Vec<TokenHeader>,
    /// Headers that are removed before the upstream.
    pub strip: Vec<String>,
}

impl Headers<'_> {
    pub fn each(&mut self, raw: OneOrMany<RawHeaderMatch>) -> Result<Vec<HeaderMatch>> {
        each(raw, &mut |raw| self.header_match(raw))
    }

    fn header_match(&mut self, raw: RawHeaderMatch) -> Result<HeaderMatch> {
        let name = header_name(&raw.name).map_err(|error| error.under("name"))?;
        let strip = raw.strip.unwrap_or(raw.token.is_some());
        let condition = match (raw.present, raw.value, raw.token) {
            (Some(present), None, None) => HeaderCondition::Present(present),
            (None, Some(value), None) => HeaderCondition::Value(string_match(value)?),
            (None, None, Some(token)) => {
                HeaderCondition::Token(self.token(&name, token).map_err(|it| it.under("token"))?)
            }
            (None, None, None) => {
                let expected =
                    "one of `exact`, `prefix`, `suffix`, `contains`, `regex`, `present`, `token`";
                return Err(ConfigError::new(expected, "none of them"));
            }
            _ => {
                let expected = "`present`, `token` or a condition on the value";
                return Err(ConfigError::new(expected, "several of them"));
            }
        };
        if strip && (name.starts_with(':') || propagation::is_context_header(&name)) {
            let expected = "a header that a request can do without and that holds no context";
            return Err(ConfigError::new(expected, quoted(&name)).under("name"));
        }
        if strip && !self.strip.contains(&name) {
            self.strip.push(name.clone());
        }
        Ok(HeaderMatch { name, condition, invert: raw.invert })
    }

    /// Returns the place of the token among all.
    fn token(&mut self, header: &str, raw: RawToken) -> Result<u32> {
        let place = self.tokens.len() as u32;
        if place == MAX_TOKENS {
            return Err(ConfigError::new("at most 64 tokens in all", "more"));
        }
        let max_ttl = raw.max_ttl_s.unwrap_or(DEFAULT_MAX_TTL_S);
        let max_ttl = super::at_least(1, max_ttl).map_err(|error| error.under("max_ttl_s"))?;
        if raw.keys.is_empty() {
            return Err(ConfigError::new("at least one", "an empty array").under("keys"));
        }
        let mut keys: Vec<Key> = Vec::new();
        for (place, raw) in raw.keys.into_iter().enumerate() {
            let known = keys.iter().any(|key| key.id == raw.id);
            let key =
                match known {
                    true => Err(ConfigError::new("an id that no other key has", quoted(&raw.id))
                        .under("id")),
                    false => key(raw, self.environment),
                };
            keys.push(key.map_err(|error| error.at(place).under("keys"))?);
        }
        let check = TokenCheck { keys, max_ttl_seconds: max_ttl.into() };
        self.tokens.push(TokenHeader { name: header.to_owned(), check });
        Ok(place)
    }
}

/// Compiles a key. Nothing that is found is shown: it may be the secret.
fn key(raw: RawTokenKey, environment: Environment<'_>) -> Result<Key> {
    if raw.id.is_empty() || raw.id.len() > MAX_KEY_ID_BYTES {
        let expected = "an id of 1 to 64 bytes";
        return Err(ConfigError::new(expected, quoted(&raw.id)).under("id"));
    }
    let (secret, source) = match (raw.secret, raw.environment) {
        (Some(secret), None) => (secret.0, "secret"),
        (None, Some(variable)) => match environment(&variable.name) {
            Some(secret) => (secret, "environment"),
            None => {
                let expected = "an environment variable of the VM";
                let error = ConfigError::new(expected, quoted(&variable.name));
                return Err(error.under("name").under("environment"));
            }
        },
        (None, None) => return Err(ConfigError::new("`environment` or `secret`", "neither")),
        (Some(_), Some(_)) => return Err(ConfigError::new("`environment` or `secret`", "both")),
    };
    let bytes = secret.len();
    Key::new(raw.id, secret.into_bytes()).ok_or_else(|| {
        ConfigError::new("a key of at least 32 bytes", format!("{bytes} bytes")).under(source)
    })
}

/// Compiles one value or each of many, with the index in the path where there is an array.
pub fn each<R, T>(raw: OneOrMany<R>, compile: &mut dyn FnMut(R) -> Result<T>) -> Result<Vec<T>> {
    match raw {
        OneOrMany::One(raw) => Ok(vec![compile(raw)?]),
        OneOrMany::Many(all) => {
            let mut compiled = Vec::new();
            for (place, raw) in all.into_iter().enumerate() {
                compiled.push(compile(raw).map_err(|error| error.at(place))?);
            }
            Ok(compiled)
        }
    }
}

pub fn string_match(raw: RawStringMatch) -> Result<StringMatch> {
    let ignore_case = raw.ignore_case;
    let given = [
        ("exact", raw.exact),
        ("prefix", raw.prefix),
        ("suffix", raw.suffix),
        ("contains", raw.contains),
        ("regex", raw.regex),
    ];
    let one = "one of `exact`, `prefix`, `suffix`, `contains`, `regex`";
    let mut only: Option<(&str, String)> = None;
    for (kind, value) in given {
        match (value, &only) {
            (None, _) => {}
            (Some(_), Some((first, _))) => {
                return Err(ConfigError::new(one, format!("both `{first}` and `{kind}`")));
            }
            (Some(value), None) => only = Some((kind, value)),
        }
    }
    let Some((kind, value)) = only else {
        return Err(ConfigError::new(one, "none of them"));
    };
    if kind == "regex" {
        return regex(&value, ignore_case).map_err(|error| error.under("regex"));
    }
    let bytes = value.into_bytes();
    let kind = match kind {
        "exact" => StringMatchKind::Exact(bytes),
        "prefix" => StringMatchKind::Prefix(bytes),
        "suffix" => StringMatchKind::Suffix(bytes),
        _ => return Ok(StringMatch::contains(&bytes, ignore_case)),
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

/// Largest compiled regular expression: with [`crate::matching::MAX_REGEX_INPUT_BYTES`] it bounds
/// the time that one match can take.
const MAX_REGEX_BYTES: usize = 64 * 1024;
const DEFAULT_MAX_TTL_S: u32 = 3600;
const MAX_KEY_ID_BYTES: usize = 64;
