//! Attributes, name and error of an HTTP span.
//!
//! <https://opentelemetry.io/docs/specs/semconv/http/http-spans/>

use opentelemetry::trace::SpanKind;

use super::attributes as key;
use super::encoding::SpanFields;
use super::{OTHER, StreamFacts};
use crate::http::head::{Head, REQUEST_ID, USER_AGENT};
use crate::http::response_flags::{self, Cut, SWITCHING_PROTOCOLS};
use crate::http::url::Url;
use crate::sampling::conditions::Direction;

/// Adds the method and the scheme. Returns the method as the span's name begins with it.
pub(crate) fn request_attributes(fields: &mut SpanFields, head: &Head<'_>) -> &'static str {
    let method = known_method(head.method());
    fields.text(key::HTTP_REQUEST_METHOD, method.unwrap_or(OTHER).as_bytes());
    if method.is_none() {
        fields.text(key::HTTP_REQUEST_METHOD_ORIGINAL, head.method());
    }
    if !head.scheme().is_empty() {
        fields.text(key::URL_SCHEME, head.scheme());
    }
    method.unwrap_or(UNKNOWN_METHOD_NAME)
}

/// Adds the user agent and Envoy's request id.
pub(crate) fn caller_attributes(fields: &mut SpanFields, head: &Head<'_>) {
    for (key, header) in [(key::USER_AGENT_ORIGINAL, USER_AGENT), (key::REQUEST_ID, REQUEST_ID)] {
        if let Some(value) = head.first(header) {
            fields.text(key, value);
        }
    }
}

/// Adds path and query to a server's span, and the whole URL to a client's.
pub(crate) fn url_attributes(fields: &mut SpanFields, direction: Direction, url: &Url) {
    match direction {
        Direction::Inbound => {
            fields.text(key::URL_PATH, url.path());
            if let Some(query) = url.query() {
                fields.text(key::URL_QUERY, query);
            }
        }
        Direction::Outbound if fields.omitted.contains(key::URL_PATH) => {
            fields.text(key::URL_FULL, &url.without_path());
        }
        Direction::Outbound => fields.text(key::URL_FULL, url.full()),
    }
}

/// Adds the version of HTTP, or the protocol that the connection switched to.
pub(crate) fn protocol_attributes(
    fields: &mut SpanFields,
    is_web_socket: bool,
    facts: StreamFacts<'_>,
) {
    if is_web_socket && facts.status == SWITCHING_PROTOCOLS {
        fields.text(key::NETWORK_PROTOCOL_NAME, b"websocket");
    } else if let Some(version) = protocol_version(facts.protocol) {
        fields.text(key::NETWORK_PROTOCOL_VERSION, version);
    }
}

/// Adds how often Envoy tried again, and the sizes of both bodies. Zeros are left out.
pub(crate) fn volume_attributes(fields: &mut SpanFields, facts: StreamFacts<'_>) {
    for (key, value) in [
        (key::HTTP_REQUEST_RESEND_COUNT, facts.attempts.saturating_sub(1)),
        (key::HTTP_REQUEST_BODY_SIZE, facts.request_body_bytes),
        (key::HTTP_RESPONSE_BODY_SIZE, facts.response_body_bytes),
    ] {
        if value != 0 {
            fields.integer(key, value);
        }
    }
}

/// Adds the status of the response, and Envoy's response flags and code details.
pub(crate) fn response_attributes(fields: &mut SpanFields, facts: StreamFacts<'_>) {
    if facts.status != 0 {
        fields.integer(key::HTTP_RESPONSE_STATUS_CODE, u64::from(facts.status));
    }
    if facts.flags != 0 {
        fields.text(key::RESPONSE_FLAGS, response_flags::names(facts.flags).as_bytes());
    }
    if !facts.code_details.is_empty() {
        fields.text(key::RESPONSE_CODE_DETAILS, facts.code_details);
    }
}

/// Adds the route. Returns the name of the span: the method, and the route if its name is a template of
/// the path, which begins with a slash, and is not omitted. Istio and Envoy Gateway name routes freely, as
/// `httproute/shop/frontend/rule/0/match/0/*`: such a name is an attribute of its own.
pub(crate) fn name(fields: &mut SpanFields, method: &str, route_name: &[u8]) -> Vec<u8> {
    let mut name = method.as_bytes().to_vec();
    if route_name.starts_with(b"/") {
        fields.text(key::HTTP_ROUTE, route_name);
        if !fields.omitted.contains(key::HTTP_ROUTE) {
            name.push(b' ');
            name.extend_from_slice(route_name);
        }
    } else if !route_name.is_empty() && !ISTIO_ROUTES.contains(&route_name) {
        fields.text(key::ROUTE_NAME, route_name);
    }
    name
}

/// Returns `error.type` if the conventions treat the request as an error: the status is 5xx, or 4xx on a
/// client's span; no response was sent; or the upstream or a timeout cut the response short.
pub(crate) fn error_type(
    kind: &SpanKind,
    facts: StreamFacts<'_>,
    cut: Option<Cut>,
) -> Option<String> {
    match facts.status {
        500.. => Some(facts.status.to_string()),
        400.. if *kind == SpanKind::Client => Some(facts.status.to_string()),
        1.. if !matches!(cut, Some(Cut::Timeout | Cut::UpstreamReset)) => None,
        _ if facts.flags == 0 => Some(OTHER.to_owned()),
        _ => Some(response_flags::names(facts.flags)),
    }
}

/// Returns a method of RFC 9110, section 9, or PATCH (RFC 5789).
fn known_method(method: &[u8]) -> Option<&'static str> {
    Some(match method {
        b"GET" => "GET",
        b"POST" => "POST",
        b"PUT" => "PUT",
        b"DELETE" => "DELETE",
        b"HEAD" => "HEAD",
        b"OPTIONS" => "OPTIONS",
        b"PATCH" => "PATCH",
        b"CONNECT" => "CONNECT",
        b"TRACE" => "TRACE",
        _ => return None,
    })
}

/// Returns `1.1` for `HTTP/1.1`.
fn protocol_version(protocol: &[u8]) -> Option<&[u8]> {
    protocol.strip_prefix(b"HTTP/")
}

/// The conventions' word for an unknown method in a span's name.
const UNKNOWN_METHOD_NAME: &str = "HTTP";
/// The names of the routes that Istio makes itself; they tell nothing about the request.
const ISTIO_ROUTES: [&[u8]; 3] = [b"default", b"allow_any", b"block_all"];

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::trace::v1::status;

    use super::*;
    use crate::span::testing::{FACTS, check, check_named, record};

    #[test]
    fn a_server_span_describes_the_request() {
        check(
            &[
                (":method", b"GET"),
                (":scheme", b"https"),
                (":authority", b"shop:8443"),
                (":path", b"/cart?item=1&sig=secret"),
                ("user-agent", b"curl/8"),
                ("x-request-id", b"7"),
                ("x-user-id", b"u\xff"),
                ("x-tenant-id", b"acme"),
            ],
            FACTS,
            &[
                ("http.request.method", "GET"),
                ("url.scheme", "https"),
                ("url.path", "/cart"),
                ("url.query", "item=1&sig=REDACTED"),
                ("server.address", "shop"),
                ("server.port", "=8443"),
                ("client.address", "10.0.0.9"),
                ("network.peer.address", "10.0.0.9"),
                ("network.peer.port", "=4242"),
                ("user_agent.original", "curl/8"),
                ("guid:x-request-id", "7"),
                ("http.response.status_code", "=200"),
                ("response_code_details", "via_upstream"),
                ("user.id", "u\u{fffd}"),
                ("tenant.id", "acme"),
            ],
        );
    }

    #[test]
    fn a_client_span_describes_the_call() {
        check(
            &[
                (":method", b"BREW"),
                (":scheme", b"http"),
                (":authority", b"user:pass@pot"),
                (":path", b"/coffee?milk"),
            ],
            StreamFacts { direction: Direction::Outbound, status: 404, ..FACTS },
            &[
                ("http.request.method", "_OTHER"),
                ("http.request.method_original", "BREW"),
                ("url.scheme", "http"),
                ("url.full", "http://pot/coffee?milk"),
                ("server.address", "pot"),
                ("server.port", "=80"),
                ("network.peer.address", "10.0.0.7"),
                ("network.peer.port", "=8080"),
                ("http.response.status_code", "=404"),
                ("error.type", "404"),
                ("response_code_details", "via_upstream"),
                ("user.id", "-"),
            ],
        );
    }

    #[test]
    fn a_span_is_named_by_method_and_route() {
        let get: &[(&str, &[u8])] = &[(":method", b"GET"), (":path", b"/products/7")];
        let brew: &[(&str, &[u8])] = &[(":method", b"BREW")];
        for (lines, route_name, name, template, other) in [
            (get, b"".as_slice(), "GET", "", ""),
            (get, b"/products/{id}", "GET /products/{id}", "/products/{id}", ""),
            (get, b"/\xff", "GET /\u{fffd}", "/\u{fffd}", ""),
            (get, b"shop", "GET", "", "shop"),
            (get, b"httproute/a/b/rule/0/match/0/*", "GET", "", "httproute/a/b/rule/0/match/0/*"),
            (get, b"\xff", "GET", "", "\u{fffd}"),
            (get, b"default", "GET", "", ""),
            (brew, b"/pot", "HTTP /pot", "/pot", ""),
        ] {
            let expected = [("http.route", template), ("route_name", other)];
            check_named(lines, StreamFacts { route_name, ..FACTS }, name, &expected);
        }
    }

    #[test]
    fn a_websocket_has_no_http_version() {
        let upgrade: &[(&str, &[u8])] = &[(":method", b"GET"), ("upgrade", b"WebSocket")];
        let protocol = |name, version| {
            [("network.protocol.name", name), ("network.protocol.version", version)]
        };
        let switched = StreamFacts { status: 101, ..FACTS };
        check_named(upgrade, switched, "GET", &protocol("websocket", ""));
        check_named(upgrade, FACTS, "GET", &protocol("", "1.1"));
    }

    #[test]
    fn retries_and_sizes_are_recorded_unless_zero() {
        let keys =
            ["http.request.resend_count", "http.request.body.size", "http.response.body.size"];
        let found = |facts| {
            let (_, attributes) = record(&[], facts);
            keys.map(|key| attributes.get(key).cloned().unwrap_or_default())
        };
        let facts = StreamFacts {
            attempts: 3,
            request_body_bytes: 5,
            response_body_bytes: 1 << 40,
            ..FACTS
        };
        assert_eq!(found(facts), ["=2", "=5", "=1099511627776"]);
        assert_eq!(found(FACTS), ["", "", ""]);
        assert_eq!(found(StreamFacts { attempts: 0, ..FACTS }), ["", "", ""]);
    }

    #[test]
    fn the_flags_are_the_error_of_a_request_without_a_response() {
        let reset = StreamFacts {
            status: 0,
            flags: 1 << 14,
            code_details: b"downstream_remote_disconnect",
            ..FACTS
        };
        let (span, attributes) = record(&[], reset);
        assert_eq!(attributes.get("error.type").map(String::as_str), Some("DC"));
        assert_eq!(attributes.get("response_flags").map(String::as_str), Some("DC"));
        assert_eq!(attributes.get("http.response.status_code"), None);
        assert_eq!(span.status.unwrap().code(), status::StatusCode::Error);
    }
}
