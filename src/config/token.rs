//! `token` of a header condition: a signed debug token.

use serde::Deserialize;

use super::error::{ConfigError, InPath, Result, quoted};
use super::shapes::{Environment, Secret, at_least};
use crate::sampling::token::{Key, TokenCheck};

/// A signed token that a header must hold.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawToken {
    /// Keys whose tokens are valid, at least one.
    /// Example: `[{id: ops, environment: {name: DEBUG_TOKEN_KEY}}]`.
    pub keys: Vec<RawTokenKey>,
    /// The longest time until a valid token expires, in seconds, from 1. Default: `3600`. Example: `600`.
    #[serde(alias = "maxTtlS")]
    pub max_ttl_s: Option<u32>,
}

/// A key that signs tokens: its `id`, and at least 32 bytes from exactly one source.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTokenKey {
    /// Name of the key, from 1 to 64 bytes; each token names its key. Required. Example: `ops`.
    pub id: String,
    /// The environment variable of the VM that holds the key.
    pub environment: Option<RawVariable>,
    /// The key itself.
    pub secret: Option<Secret>,
}

/// A variable of the VM's environment.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawVariable {
    /// Its name. Required. Example: `DEBUG_TOKEN_KEY`.
    pub name: String,
}

impl RawToken {
    pub(super) fn compile(self, environment: Environment<'_>) -> Result<TokenCheck> {
        let max_ttl = at_least(1, self.max_ttl_s.unwrap_or(DEFAULT_MAX_TTL_S));
        let max_ttl_seconds = max_ttl.under("max_ttl_s")?.into();
        if self.keys.is_empty() {
            return Err(ConfigError::new("at least one", "an empty array").under("keys"));
        }
        let mut keys: Vec<Key> = Vec::new();
        for (index, raw) in self.keys.into_iter().enumerate() {
            keys.push(raw.compile(&keys, environment).at(index).under("keys")?);
        }
        Ok(TokenCheck { keys, max_ttl_seconds })
    }
}

impl RawTokenKey {
    /// Compiles a key. No error shows the secret.
    fn compile(self, others: &[Key], environment: Environment<'_>) -> Result<Key> {
        if others.iter().any(|key| key.id == self.id) {
            let expected = "an id that no other key has";
            return Err(ConfigError::new(expected, quoted(&self.id)).under("id"));
        }
        if self.id.is_empty() || self.id.len() > MAX_KEY_ID_BYTES {
            let expected = "an id of 1 to 64 bytes";
            return Err(ConfigError::new(expected, quoted(&self.id)).under("id"));
        }
        let (secret, source) = match (self.secret, self.environment) {
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
            (Some(_), Some(_)) => {
                return Err(ConfigError::new("`environment` or `secret`", "both"));
            }
        };
        let bytes = secret.len();
        Key::new(self.id, secret.into_bytes()).ok_or_else(|| {
            let found = format_args!("{bytes} bytes");
            ConfigError::new("a key of at least 32 bytes", found).under(source)
        })
    }
}

const DEFAULT_MAX_TTL_S: u32 = 3600;
const MAX_KEY_ID_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use crate::config::testing::{check_refused, parse, rule};

    /// Returns a rule whose header condition has a token with these members.
    fn token(members: &str) -> String {
        rule(&format!(r#""match": {{"headers": [{{"name": "x-t", "token": {{{members}}}}}]}}"#))
    }

    fn key(members: &str) -> String {
        token(&format!(r#""keys": [{{"id": "a", {members}}}]"#))
    }

    #[test]
    fn wrong_tokens_are_refused_and_no_secret_is_shown() {
        let at = "sampling.rules[1].match.headers[0].token";
        let secret = "0123456789abcdef0123456789abcde";
        let whole = format!("{secret}f");
        let two = format!(
            r#""keys": [{{"id": "a", "secret": "{whole}"}}, {{"id": "a", "secret": "{whole}"}}]"#
        );
        let short = "a key of at least 32 bytes";
        let hidden = "but found something else, which is not shown";
        for (json, path, findings) in [
            (token(""), ".keys", ["at least one", "an empty array"]),
            (token(r#""keys": []"#), ".keys", ["at least one", "an empty array"]),
            (token(r#""keys": [], "max_ttl_s": 0"#), ".max_ttl_s", ["from 1 up", "found 0"]),
            (
                token(r#""keys": [{"id": "", "secret": "x"}]"#),
                ".keys[0].id",
                ["an id of 1 to 64 bytes", "found \"\""],
            ),
            (token(&two), ".keys[1].id", ["an id that no other key has", "found \"a\""]),
            (key(&format!(r#""secret": "{secret}""#)), ".keys[0].secret", [short, "31 bytes"]),
            (
                key(r#""environment": {"name": "POD_NAME"}"#),
                ".keys[0].environment",
                [short, "10 bytes"],
            ),
            (
                key(r#""environment": {"name": "NONE"}"#),
                ".keys[0].environment.name",
                ["an environment variable of the VM", "found \"NONE\""],
            ),
            (
                key(&format!(r#""environment": "{whole}""#)),
                ".keys[0].environment",
                ["an object", "found a string"],
            ),
            (key(r#""secret": 1234567890123456"#), ".keys[0].secret", ["a string", hidden]),
            (key(&format!(r#""secret": ["{whole}"]"#)), ".keys[0].secret", ["a string", hidden]),
            (
                key(&format!(r#""secret": "{whole}", "secret": "{whole}""#)),
                ".keys[0].secret",
                ["the key once", "it twice"],
            ),
            (
                key(&format!(r#""secret": "{whole}", "environment": {{"name": "POD_NAME"}}"#)),
                ".keys[0]",
                ["`environment` or `secret`", "both"],
            ),
            (
                token(&format!(r#""keys": ["{whole}"]"#)),
                ".keys[0]",
                ["an object", "found a string"],
            ),
            (token(&format!(r#""keys": "{whole}""#)), ".keys", ["an array", "found a string"]),
            (
                token(r#""keys": [{"id": "a"}]"#),
                ".keys[0]",
                ["`environment` or `secret`", "neither"],
            ),
        ] {
            let error = check_refused(&json, &format!("{at}{path}"), &findings);
            assert!(!error.contains("0123456789") && !error.contains("1234567890"), "{error}");
        }
        let json = rule(&format!(r#""match": {{"headers": {{"name": "x", "token": "{whole}"}}}}"#));
        check_refused(&json, "sampling.rules[1].match.headers.token", &["found a string"]);
    }

    #[test]
    fn headers_with_tokens_are_sensitive() {
        let whole = "0123456789abcdef0123456789abcdef";
        let tokens = format!(r#"{{"keys": [{{"id": "a", "secret": "{whole}"}}]}}"#);
        let guarded = format!(
            r#"{{"custom_tags": [{{"tag": "a", "request_header": {{"name": "X-T"}}}}],
                "sampling": {{"rules": [{{"name": "r", "decision": "force",
                    "match": {{"headers": {{"name": "x-t", "token": {tokens}}}}}}}]}}}}"#
        );
        let path = "custom_tags[0].request_header.name";
        check_refused(&guarded, path, &["a header without credentials", "found \"x-t\""]);
        let shown = format!("{:?}", parse(&guarded.replace("X-T", "x-u")).unwrap());
        assert!(!shown.contains("0123456789"));
    }
}
