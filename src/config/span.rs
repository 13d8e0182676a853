//! `span`: what spans record.

use serde::Deserialize;

use super::error::{ConfigError, InPath, Result, one_of, quoted};
use super::matching::{HeaderConditions, invalid_regex};
use super::sampling::RawMatch;
use super::tags;
use crate::http::redaction::{SecretKeys, normalized_key};
use crate::sampling::match_list::MatchList;
use crate::sampling::regex::Search;
use crate::span::attributes::{self, OwnKeys};
use crate::span::privacy::{PathRedaction, Privacy};
use crate::span::text::is_unprintable;

/// What spans record.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawSpan {
    /// Whether inbound requests, and all requests of a gateway, get a second span: a CLIENT span of the call
    /// upstream, below the SERVER span. Its id goes upstream. Default: `false`.
    #[serde(alias = "spawnUpstreamSpan")]
    pub spawn_upstream_span: bool,
    /// Names of spans in order; the first that matches a request names its span. Default: the method and
    /// the route's template for HTTP, the called method for gRPC.
    pub names: Vec<RawName>,
    /// The span's own attributes that are left out. The values of `client.address`, `url.path`,
    /// `url.query`, `server.address`, `user_agent.original` and `guid:x-request-id` are left out of other
    /// attributes, names and tags too. Default: none.
    /// Example: `[client.address, url.query, user_agent.original]`.
    pub omit: Vec<String>,
    /// More query parameters whose values are replaced by `REDACTED`. `*` means all parameters. A name with
    /// `-` in front is an exception: its value is recorded even if the name looks like a secret's, or `*` is
    /// listed.
    /// Default: none.
    /// Example: `[promo_code, "-sort_key"]`.
    #[serde(alias = "redactQuery")]
    pub redact_query: Vec<String>,
    /// Parts of paths that are replaced, in this order. Default: none.
    #[serde(alias = "redactPath")]
    pub redact_path: Vec<RawPathRedaction>,
    /// How much of a client's address is recorded: `full`, or `masked`, which keeps the first 24 bits of an
    /// IPv4 address and the first 48 bits of an IPv6 address. Default: `full`.
    #[serde(alias = "clientAddress")]
    pub client_address: Option<String>,
}

/// A part of paths that is replaced.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPathRedaction {
    /// The regular expression of the part. All matches in a path are replaced, each as long as possible.
    /// Required. Example: `/users/[^/]+`.
    pub regex: String,
    /// The text that replaces each match as a whole, at most 64 characters. Required.
    /// Example: `/users/{id}`.
    pub replacement: String,
}

/// The name of some spans.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawName {
    /// The requests whose spans have this name: all conditions must match; within a list, any one.
    /// Default: every request.
    #[serde(default)]
    pub r#match: RawMatch,
    /// The name: one of Envoy's format strings, as in the `value` of a tag. Spaces around it are removed. If
    /// nothing is left, the span gets its default name. Required.
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

    /// Adds the names to `tags`.
    pub(super) fn add_names(&self, tags: &mut tags::Compiler<'_>) -> Result<()> {
        for (index, raw) in self.names.iter().enumerate() {
            tags.add_name(&raw.name).under("name").at(index).under("names")?;
        }
        Ok(())
    }

    pub(super) fn privacy(&self) -> Result<Privacy> {
        let mut omitted = OwnKeys::default();
        for (index, key) in self.omit.iter().enumerate() {
            if !omitted.insert(key) {
                let expected = one_of(&attributes::RESERVED);
                return Err(ConfigError::new(expected, quoted(key)).at(index).under("omit"));
            }
        }
        let mut paths = Vec::new();
        for (index, raw) in self.redact_path.iter().enumerate() {
            paths.push(raw.compile().at(index).under("redact_path")?);
        }
        let masks_clients = match self.client_address.as_deref() {
            None | Some("full") => false,
            Some("masked") => true,
            Some(other) => {
                let expected = one_of(&["full", "masked"]);
                return Err(ConfigError::new(expected, quoted(other)).under("client_address"));
            }
        };
        Ok(Privacy { omitted, secret_keys: self.secret_keys()?, paths, masks_clients })
    }

    fn secret_keys(&self) -> Result<SecretKeys> {
        let mut keys = SecretKeys::default();
        for (index, key) in self.redact_query.iter().enumerate() {
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
                ConfigError::new(expected, quoted(key)).at(index).under("redact_query")
            })?);
        }
        Ok(keys)
    }
}

impl RawPathRedaction {
    fn compile(&self) -> Result<PathRedaction> {
        let Self { regex, replacement } = self;
        let search = Search::new(regex).map_err(|invalid| invalid_regex(invalid, regex));
        let search = search.and_then(|search| match search.matches_empty() {
            true => {
                let expected = "a regular expression that does not match the empty text";
                Err(ConfigError::new(expected, quoted(regex)))
            }
            false => Ok(search),
        });
        let search = search.under("regex")?;
        let refers_to_group = |pair: &[u8]| matches!(pair, [b'\\' | b'$', next] if next.is_ascii_digit() || *next == b'{');
        if replacement.chars().count() > MAX_REPLACEMENT_CHARS
            || replacement.contains(is_unprintable)
            || replacement.as_bytes().windows(2).any(refers_to_group)
        {
            let expected = format_args!(
                "at most {MAX_REPLACEMENT_CHARS} characters, without references to groups such as \\1 or $1"
            );
            return Err(ConfigError::new(expected, quoted(replacement)).under("replacement"));
        }
        Ok(PathRedaction { search, replacement: replacement.clone() })
    }
}

const MAX_REPLACEMENT_CHARS: usize = 64;

#[cfg(test)]
mod tests {
    use super::OwnKeys;
    use crate::config::testing::{check_refused, parse};

    #[test]
    fn names_have_conditions_and_a_format() {
        let config = parse(
            r#"{"span": {"names": [
                {"match": {"path": {"prefix": "/api/"}, "direction": "inbound"}, "name": "api"},
                {"name": "%REQ(:METHOD)% %ROUTE_NAME%"}]}}"#,
        );
        assert_eq!(config.unwrap().span.names.conditions().count(), 2);
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
        assert_eq!(config.span.privacy.secret_keys.added, [b"promocode"]);
        assert_eq!(config.span.privacy.secret_keys.excepted, [b"sortkey"]);
        assert!(!config.span.privacy.secret_keys.all);
        assert!(
            parse(r#"{"span": {"redact_query": ["*"]}}"#).unwrap().span.privacy.secret_keys.all
        );
        check_refused(
            r#"{"span": {"redact_query": [""]}}"#,
            "span.redact_query[0]",
            &["1 to 64 letters"],
        );
        check_refused(r#"{"span": {"redact_query": "a"}}"#, "span.redact_query", &["an array"]);
    }

    #[test]
    fn only_own_attributes_can_be_omitted() {
        let omitted = |json| parse(json).unwrap().span.privacy.omitted;
        let both =
            omitted(r#"{"span": {"omit": ["url.query", "guid:x-request-id", "url.query"]}}"#);
        assert!(both.contains("url.query") && both.contains("guid:x-request-id"));
        assert!(!both.contains("url.path"));
        assert_eq!(omitted(r#"{"span": {"omit": []}}"#), OwnKeys::default());
        for (omit, path, findings) in [
            (r#"["url.query", "url.quer"]"#, "[1]", ["one of `client.address`,", "\"url.quer\""]),
            (r#"["Client.Address"]"#, "[0]", ["`client.address`", "\"Client.Address\""]),
            (r#"["*"]"#, "[0]", ["`sidespan.export_on`", "\"*\""]),
            (r#"[""]"#, "[0]", ["`url.full`", "\"\""]),
            (r#"["service.name"]"#, "[0]", ["`url.path`", "\"service.name\""]),
            (r#"[1]"#, "[0]", ["a string", "found 1"]),
            (r#""url.query""#, "", ["an array", "a string"]),
            ("null", "", ["an array", "null"]),
        ] {
            let json = format!(r#"{{"span": {{"omit": {omit}}}}}"#);
            check_refused(&json, &format!("span.omit{path}"), &findings);
        }
    }

    #[test]
    fn path_redactions_are_a_pattern_and_a_text() {
        let json = r#"{"span": {"redactPath": [{"regex": "[0-9]+", "replacement": ""},
            {"regex": "/users/[^/]+", "replacement": "/users/{id} $ \\\\"}]}}"#;
        assert_eq!(parse(json).unwrap().span.privacy.paths.len(), 2);
        let groups = "without references to groups";
        let long = format!(r#""regex": "a", "replacement": "{}""#, "a".repeat(65));
        for (members, path, findings) in [
            (r#""regex": "(", "replacement": """#, ".regex", ["a valid regular", "\"(\""]),
            (r#""regex": "(?=a)", "replacement": """#, ".regex", ["a valid regular", "(?=a)"]),
            (r#""regex": "a{9999}", "replacement": """#, ".regex", ["fewer", "a{9999}"]),
            (r#""regex": "a.{20}b", "replacement": """#, ".regex", ["fewer", "a.{20}b"]),
            (r#""regex": "a*", "replacement": """#, ".regex", ["the empty text", "\"a*\""]),
            (r#""regex": "", "replacement": """#, ".regex", ["the empty text", "\"\""]),
            (r#""regex": "(a)", "replacement": "\\1""#, ".replacement", [groups, "1"]),
            (r#""regex": "(a)", "replacement": "b$1""#, ".replacement", [groups, "b$1"]),
            (r#""regex": "(a)", "replacement": "${a}""#, ".replacement", [groups, "${a}"]),
            (r#""regex": "a", "replacement": "a\nb""#, ".replacement", ["64 characters", "a\\nb"]),
            (&long, ".replacement", ["64 characters", "aaa"]),
            (r#""regex": "a""#, ".replacement", ["a value", "none"]),
            (r#""replacement": "a""#, ".regex", ["a value", "none"]),
            (r#""pattern": "a""#, ".pattern", ["`regex`, `replacement`", "\"pattern\""]),
            (r#""regex": 1"#, ".regex", ["a string", "1"]),
        ] {
            let json = format!(r#"{{"span": {{"redact_path": [{{{members}}}]}}}}"#);
            check_refused(&json, &format!("span.redact_path[0]{path}"), &findings);
        }
        let json = r#"{"span": {"redact_path": {"regex": "a", "replacement": ""}}}"#;
        check_refused(json, "span.redact_path", &["an array", "an object"]);
    }

    #[test]
    fn addresses_are_full_or_masked() {
        let masks = |members: &str| {
            parse(&format!(r#"{{"span": {{{members}}}}}"#)).unwrap().span.privacy.masks_clients
        };
        assert!(!masks(""));
        assert!(!masks(r#""client_address": "full""#));
        assert!(masks(r#""clientAddress": "masked""#));
        for (value, findings) in [
            (r#""none""#, ["one of `full`, `masked`", "\"none\""]),
            (r#""Masked""#, ["one of `full`, `masked`", "\"Masked\""]),
            ("true", ["a string", "true"]),
            ("24", ["a string", "24"]),
        ] {
            check_refused(
                &format!(r#"{{"span": {{"client_address": {value}}}}}"#),
                "span.client_address",
                &findings,
            );
        }
    }
}
