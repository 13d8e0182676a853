//! `span`: what spans record.

use serde::Deserialize;

use super::error::{ConfigError, Result, quoted};
use crate::http::redaction::{SecretKeys, normalized_key};

/// What spans record.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawSpan {
    /// More query parameters whose values `REDACTED` replaces. `*` means all parameters. A parameter
    /// with `-` in front of its name is recorded, although the name looks like that of a secret.
    /// Default: none.
    /// Example: `[promo_code, "-sort_key"]`.
    #[serde(alias = "redactQuery")]
    pub redact_query: Vec<String>,
}

impl RawSpan {
    pub(super) fn compile(self) -> Result<SecretKeys> {
        let mut keys = SecretKeys::default();
        for (index, key) in self.redact_query.into_iter().enumerate() {
            let (list, name) = match key.strip_prefix('-') {
                Some(excepted) => (&mut keys.excepted, excepted),
                None => (&mut keys.added, key.as_str()),
            };
            if key == "*" {
                keys.all = true;
                continue;
            }
            let normalized = normalized_key(name.as_bytes()).filter(|key| !key.is_empty());
            list.push(normalized.ok_or_else(|| {
                let expected = "`*`, or a name with 1 to 64 letters and digits";
                ConfigError::new(expected, quoted(&key)).at(index).under("redact_query")
            })?);
        }
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::testing::{check_refused, parse};

    #[test]
    fn parameters_are_added_and_excepted() {
        let config = parse(r#"{"span": {"redactQuery": ["Promo_Code", "-sort-key"]}}"#).unwrap();
        assert_eq!(config.span.secret_keys.added, [b"promocode"]);
        assert_eq!(config.span.secret_keys.excepted, [b"sortkey"]);
        assert!(!config.span.secret_keys.all);
        assert!(parse(r#"{"span": {"redact_query": ["*"]}}"#).unwrap().span.secret_keys.all);
        check_refused(
            r#"{"span": {"redact_query": [""]}}"#,
            "span.redact_query[0]",
            &["1 to 64 letters"],
        );
        check_refused(r#"{"span": {"redact_query": "a"}}"#, "span.redact_query", &["an array"]);
    }
}
