//! Headers that hold credentials. No tag records them unless `allow_sensitive_headers` names them.

/// Tells whether a header holds credentials. `header` is its name in lower case.
pub(crate) fn is_sensitive(header: &str) -> bool {
    HEADERS.contains(&header)
}

/// Headers that hold credentials. docs/spans.md shows the same list.
pub(crate) const HEADERS: [&str; 35] = [
    "api-key",
    "apikey",
    "authorization",
    "cf-access-jwt-assertion",
    "cookie",
    "ocp-apim-subscription-key",
    "private-token",
    "proxy-authorization",
    "sec-websocket-protocol",
    "set-cookie",
    "x-access-token",
    "x-amz-security-token",
    "x-amzn-oidc-accesstoken",
    "x-amzn-oidc-data",
    "x-api-key",
    "x-api-token",
    "x-apikey",
    "x-auth-request-access-token",
    "x-auth-token",
    "x-authorization",
    "x-client-secret",
    "x-csrf-token",
    "x-csrftoken",
    "x-forwarded-access-token",
    "x-forwarded-authorization",
    "x-forwarded-client-cert",
    "x-functions-key",
    "x-goog-api-key",
    "x-goog-iap-jwt-assertion",
    "x-id-token",
    "x-original-authorization",
    "x-refresh-token",
    "x-session-token",
    "x-vault-token",
    "x-xsrf-token",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_sensitive_and_nothing_else_is() {
        for name in ["authorization", "cookie", "set-cookie", "x-api-key", "x-xsrf-token"] {
            assert!(is_sensitive(name), "{name}");
        }
        for name in ["", "x-request-id", "authorization2", "traceparent", ":path"] {
            assert!(!is_sensitive(name), "{name}");
        }
    }

    #[test]
    fn the_page_shows_the_list() {
        let page = include_str!("../../../docs/spans.md");
        let text = page.split_once("are not recorded:").unwrap().1.split_once("A tag").unwrap().0;
        let listed: Vec<_> = text.split('`').skip(1).step_by(2).collect();
        assert_eq!(listed, HEADERS);
    }
}
