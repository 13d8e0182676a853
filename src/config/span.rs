//! `span`: what spans record.

use serde::Deserialize;

use super::error::{ConfigError, InPath, Result, quoted};
use super::matching::HeaderConditions;
use super::sampling::RawMatch;
use super::tags;
use crate::http::redaction::{SecretKeys, normalized_key};
use crate::sampling::match_list::MatchList;

/// What spans record.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawSpan {
    /// Names of spans in order; the first that matches a request names its span. Default: the method and
    /// the route's template for HTTP, the called method for gRPC.
    pub names: Vec<RawName>,
    /// More query parameters whose values `REDACTED` replaces. `*` means all parameters. A parameter
    /// with `-` in front of its name is recorded, although the name looks like that of a secret.
    /// Default: none.
    /// Example: `[promo_code, "-sort_key"]`.
    #[serde(alias = "redactQuery")]
    pub redact_query: Vec<String>,
}

/// The name of some spans.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawName {
    /// The requests whose spans have this name: all conditions must match; within a list, any one.
    /// Default: every request.
    #[serde(default)]
    pub r#match: RawMatch,
    /// The name: one of Envoy's format strings, as in the `value` of a tag. Spaces around it are left
    /// out, and a name that is then empty is replaced by the default one. Required.
    /// Example: `%REQ(:METHOD)% %ROUTE_NAME%`.
    pub name: String,
}

impl RawSpan {
    /// Returns the conditions of all names, which it takes out.
    pub(super) fn take_matches(&mut self, headers: &mut HeaderConditions<'_>) -> Result<MatchList> {
        let mut matches = Vec::with_capacity(self.names.len());
        for (index, raw) in self.names.iter_mut().enumerate() {
            let conditions = std::mem::take(&mut raw.r#match).compile(headers);
            matches.push(conditions.under("match").at(index).under("names")?);
        }
        Ok(MatchList::new(matches))
    }

    /// Adds the names to `tags`. Returns the query parameters whose values spans leave out.
    pub(super) fn compile(self, tags: &mut tags::Compiler<'_>) -> Result<SecretKeys> {
        for (index, raw) in self.names.iter().enumerate() {
            tags.add_name(&raw.name).under("name").at(index).under("names")?;
        }
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
    fn names_have_conditions_and_a_format() {
        let config = parse(
            r#"{"span": {"names": [
                {"match": {"path": {"prefix": "/api/"}, "direction": "inbound"}, "name": "api"},
                {"name": "%REQ(:METHOD)% %ROUTE_NAME%"}]}}"#,
        );
        assert!(config.unwrap().needs_direction());
        for (name, path, words) in [
            (r#"{}"#, ".name", &["required"][..]),
            (r#"{"name": ""}"#, ".name", &["a non-empty string"]),
            (r#"{"name": 7}"#, ".name", &["a string"]),
            (r#"{"name": "%REQ(x"}"#, ".name", &["%REQ(X?Y):12%", r#""%REQ(x""#]),
            (r#"{"name": "%NO_COMMAND%"}"#, ".name", &["a known command", "NO_COMMAND"]),
            (r#"{"name": "%REQ(Authorization)%"}"#, ".name", &["without credentials"]),
            (r#"{"name": "a", "match": {"path": []}}"#, ".match.path", &["at least one"]),
            (r#"{"name": "a", "match": {"regex": "("}}"#, ".match.regex", &["a known key"]),
            (
                r#"{"name": "a", "match": {"path": {"regex": "("}}}"#,
                ".match.path.regex",
                &["a valid regular expression"],
            ),
            (r#"{"name": "a", "route": "b"}"#, ".route", &["a known key"]),
        ] {
            let json = format!(r#"{{"span": {{"names": [{{"name": "first"}}, {name}]}}}}"#);
            check_refused(&json, &format!("span.names[1]{path}"), words);
        }
        check_refused(r#"{"span": {"names": "a"}}"#, "span.names", &["an array"]);
    }

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
