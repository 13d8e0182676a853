//! `response`: headers that tell the client which trace its request belongs to.

use serde::Deserialize;

use super::error::{ConfigError, InPath, Result, quoted};
use super::shapes::header_name;
use crate::propagation::response::{Response, When};

/// Headers of the response that name the trace.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawResponse {
    /// Name of a response header that gets the trace id, as 32 hex digits. Default: none.
    /// Example: `x-trace-id`.
    #[serde(alias = "traceIdHeader")]
    pub trace_id_header: Option<String>,
    /// Whether the response gets W3C's `traceresponse`. Default: `false`.
    pub traceresponse: bool,
    /// Whether the response gets the context of `traceresponse` in `server-timing`, which scripts in
    /// browsers can read. Default: `false`.
    #[serde(alias = "serverTiming")]
    pub server_timing: bool,
    /// Which responses get these headers: `always`, `sampled` or `forced`. Default: `always`.
    pub when: Option<RawWhen>,
}

/// Which responses get the headers.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawWhen {
    /// All responses.
    Always,
    /// Responses to sampled requests.
    Sampled,
    /// Responses to requests that a rule forced.
    Forced,
}

impl RawResponse {
    pub(super) fn compile(self) -> Result<Response> {
        let trace_id_header = self.trace_id_header.as_deref().map(free_header).transpose();
        Ok(Response {
            trace_id_header: trace_id_header.under("trace_id_header")?,
            traceresponse: self.traceresponse,
            server_timing: self.server_timing,
            when: match self.when {
                None | Some(RawWhen::Always) => When::Always,
                Some(RawWhen::Sampled) => When::Sampled,
                Some(RawWhen::Forced) => When::Forced,
            },
        })
    }
}

/// Checks that the header has no other meaning in a response.
fn free_header(name: &str) -> Result<String> {
    let name = header_name(name)?;
    let is_taken = TAKEN_HEADERS.contains(&name.as_str())
        || TAKEN_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    if is_taken {
        let expected = "a header that has no other meaning in a response";
        return Err(ConfigError::new(expected, quoted(&name)));
    }
    Ok(name)
}

/// Headers that clients, caches, browsers or this filter itself need.
const TAKEN_HEADERS: &[&str] = &[
    "accept-ch",
    "accept-patch",
    "accept-post",
    "accept-ranges",
    "age",
    "allow",
    "alt-svc",
    "cache-control",
    "clear-site-data",
    "connection",
    "date",
    "etag",
    "expect-ct",
    "expires",
    "keep-alive",
    "last-modified",
    "link",
    "location",
    "nel",
    "origin-agent-cluster",
    "p3p",
    "permissions-policy",
    "pragma",
    "proxy-authenticate",
    "referrer-policy",
    "refresh",
    "report-to",
    "reporting-endpoints",
    "retry-after",
    "server",
    "server-timing",
    "set-cookie",
    "sourcemap",
    "strict-transport-security",
    "te",
    "timing-allow-origin",
    "traceresponse",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "x-content-type-options",
    "x-dns-prefetch-control",
    "x-download-options",
    "x-frame-options",
    "x-permitted-cross-domain-policies",
    "x-powered-by",
    "x-robots-tag",
    "x-ua-compatible",
    "x-xss-protection",
];
const TAKEN_PREFIXES: &[&str] = &[
    ":",
    "content-",
    "access-control-",
    "cross-origin-",
    "grpc-",
    "sec-",
    "x-envoy-",
    "x-forwarded-",
];

#[cfg(test)]
mod tests {
    use crate::config::testing::{check_refused, parse};

    #[test]
    fn wrong_response_headers_are_refused_with_their_path() {
        let taken = "a header that has no other meaning in a response";
        for (members, path, findings) in [
            (r#""trace_id_header": "x y""#, "trace_id_header", ["name of a header", "\"x y\""]),
            (r#""trace_id_header": """#, "trace_id_header", ["name of a header", "\"\""]),
            (r#""trace_id_header": ":path""#, "trace_id_header", [taken, "\":path\""]),
            (
                r#""traceIdHeader": "Content-Length""#,
                "trace_id_header",
                [taken, "\"content-length\""],
            ),
            (
                r#""trace_id_header": "X-Frame-Options""#,
                "trace_id_header",
                [taken, "\"x-frame-options\""],
            ),
            (
                r#""trace_id_header": "x-envoy-upstream-service-time""#,
                "trace_id_header",
                [taken, "upstream"],
            ),
            (r#""trace_id_header": "Set-Cookie""#, "trace_id_header", [taken, "\"set-cookie\""]),
            (
                r#""trace_id_header": "traceresponse""#,
                "trace_id_header",
                [taken, "\"traceresponse\""],
            ),
            (
                r#""when": "never""#,
                "when",
                ["one of `always`, `sampled`, `forced`", "found \"never\""],
            ),
            (r#""when": {"always": null}"#, "when", ["one of `always`", "found an object"]),
            (r#""server_timing": "yes""#, "server_timing", ["true or false", "found \"yes\""]),
            (r#""serverTiming": null"#, "serverTiming", ["true or false", "found null"]),
        ] {
            let json = format!(r#"{{"response": {{{members}}}}}"#);
            check_refused(&json, &format!("response.{path}"), &findings);
        }
        let config = parse(r#"{"response": {"traceIdHeader": "X-Trace-Id"}}"#).unwrap();
        assert_eq!(config.response.trace_id_header.as_deref(), Some("x-trace-id"));
    }
}
