//! gRPC over HTTP/2: methods, statuses and message prefixes, by OpenTelemetry's RPC conventions.
//!
//! <https://opentelemetry.io/docs/specs/semconv/rpc/grpc/>,
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>
//!
//! ```text
//! :path        = "/" service-name "/" method-name
//! content-type = "application/grpc" [ "+" subtype / "-web" … ]
//! ```

use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use opentelemetry::trace::SpanKind;

use crate::http::digits;

/// Tells whether a content type is gRPC's or gRPC-Web's.
pub(crate) fn is_grpc(content_type: &[u8]) -> bool {
    let rest = content_type.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b'-' | b';')))
}

/// Returns `package.Service/Method` if the path is of that form.
pub(crate) fn method(path: &[u8]) -> Option<&[u8]> {
    let method = path.strip_prefix(b"/")?;
    let mut parts = method.split(|byte| *byte == b'/');
    let (service, name) = (parts.next()?, parts.next()?);
    (parts.next().is_none() && !service.is_empty() && !name.is_empty()).then_some(method)
}

/// Reads `grpc-status`. A value that is no gRPC status code is `UNKNOWN`, as in gRPC's own clients.
pub(crate) fn status(header: &[u8]) -> u64 {
    let code = digits::decimal::<u64>(header);
    code.filter(|code| status_name(*code).is_some()).unwrap_or(UNKNOWN)
}

/// Returns the HTTP status of one of Envoy's local replies by its gRPC status: the inverse of
/// `httpToGrpcStatus` in Envoy's `source/common/grpc/status.cc`. `UNAVAILABLE` (14) stands for 429, 502, 503 and
/// 504 there; it becomes 503. `DEADLINE_EXCEEDED` (4) is not from this function: it is the reply to a stream that
/// exceeds its longest duration (`onStreamMaxDurationReached`, `source/common/http/conn_manager_impl.cc`).
pub(crate) fn http_status_of_local_reply(code: u64) -> u16 {
    match code {
        OK => 200,
        13 => 400,
        16 => 401,
        7 => 403,
        UNIMPLEMENTED => 404,
        4 => 504,
        14 => 503,
        _ => 500,
    }
}

/// Returns the name of a status code, if gRPC defines it.
pub(crate) fn status_name(code: u64) -> Option<&'static str> {
    usize::try_from(code).ok().and_then(|code| STATUS_NAMES.get(code).copied())
}

/// Tells whether a status is an error: for a client every status but `OK`, for a server those that the
/// caller did not cause.
pub(crate) fn is_error(kind: &SpanKind, code: u64) -> bool {
    match kind {
        SpanKind::Server => matches!(code, UNKNOWN | 4 | UNIMPLEMENTED | 13..=15),
        _ => code != OK,
    }
}

/// Returns the only message of a response, if it is complete and not compressed.
///
/// ```text
/// message = %x00 length *OCTET     ; length: four bytes, big-endian
/// ```
pub(crate) fn message(body: &[u8]) -> Option<&[u8]> {
    let ([0, length @ ..], rest) = body.split_first_chunk::<MESSAGE_PREFIX_BYTES>()? else {
        return None;
    };
    rest.get(..u32::from_be_bytes(*length) as usize)
}

/// Writes the prefix of a message, whose bytes follow the space for it.
pub(crate) fn write_message_prefix(framed: &mut [u8]) {
    if let Some((prefix, message)) = framed.split_first_chunk_mut::<MESSAGE_PREFIX_BYTES>() {
        let [a, b, c, d] = (message.len() as u32).to_be_bytes();
        *prefix = [0, a, b, c, d];
    }
}

/// The base64 of binary metadata (names that end in `-bin`): read with or without padding, and written
/// without.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The bytes before a message: the compressed flag, and the length.
pub(crate) const MESSAGE_PREFIX_BYTES: usize = 5;

pub(crate) const OK: u64 = 0;
pub(crate) const CANCELLED: u64 = 1;
const UNKNOWN: u64 = 2;
pub(crate) const DEADLINE_EXCEEDED: u64 = 4;
pub(crate) const RESOURCE_EXHAUSTED: u64 = 8;
pub(crate) const ABORTED: u64 = 10;
pub(crate) const OUT_OF_RANGE: u64 = 11;
/// The server does not have the method.
pub(crate) const UNIMPLEMENTED: u64 = 12;
pub(crate) const UNAVAILABLE: u64 = 14;
pub(crate) const DATA_LOSS: u64 = 15;

const STATUS_NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    #[test]
    fn content_types_of_grpc_are_recognized() {
        for (content_type, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc-web+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpcx", false),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(is_grpc(content_type.as_bytes()), expected, "{content_type}");
        }
    }

    #[track_caller]
    fn check_binary(text: &str, expected: Option<&str>) {
        let found = BASE64.decode(text).ok();
        assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{text:?}");
    }

    #[test]
    fn binary_metadata_is_read_with_or_without_padding() {
        check_binary("", Some(""));
        check_binary("Zg==", Some("f"));
        check_binary("Zg=", Some("f"));
        check_binary("Zg", Some("f"));
        check_binary("Zm8=", Some("fo"));
        check_binary("Zm8", Some("fo"));
        check_binary("Zm9v", Some("foo"));
        check_binary("Zm9vYmFy", Some("foobar"));
        check_binary("fn5+Pz8/", Some("~~~???"));
        for text in [
            "=",
            "==",
            "===",
            "====",
            "Z",
            "Z===",
            "Zg===",
            "Zm8==",
            "Zm9v=",
            "Zm9v==",
            "Zm9v====",
            "Zh==",
            "Zh",
            "Zm9",
            "Zm=v",
            "=m9v",
            "Zm 9",
            "Zm9v\n",
            "Zm9-",
            "Zm9_",
            "Zm9v,Zm9v",
            "Zm\u{e9}",
        ] {
            check_binary(text, None);
        }
    }

    #[test]
    fn methods_are_service_and_name() {
        for (path, expected) in [
            ("/shop.Cart/Add", Some("shop.Cart/Add")),
            ("/Cart/Add", Some("Cart/Add")),
            ("shop.Cart/Add", None),
            ("/shop.Cart", None),
            ("/shop.Cart/", None),
            ("//Add", None),
            ("/a/shop.Cart/Add", None),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(method(path.as_bytes()), expected.map(str::as_bytes), "{path}");
        }
    }

    #[test]
    fn a_status_that_grpc_does_not_define_is_unknown() {
        for (header, expected) in [
            ("0", 0),
            ("16", 16),
            ("17", 2),
            ("99", 2),
            ("", 2),
            ("-1", 2),
            ("+5", 2),
            ("OK", 2),
            ("99999999999", 2),
        ] {
            assert_eq!(status(header.as_bytes()), expected, "{header}");
        }
    }

    #[test]
    fn local_replies_get_back_the_status_that_envoy_converted() {
        for (http, code) in
            [(400, 13), (401, 16), (403, 7), (404, 12), (500, 2), (503, 14), (504, 4)]
        {
            assert_eq!(http_status_of_local_reply(code), http);
        }
    }

    #[test]
    fn a_server_does_not_count_errors_of_its_callers() {
        for (code, name, server, client) in [
            (0, Some("OK"), false, false),
            (1, Some("CANCELLED"), false, true),
            (2, Some("UNKNOWN"), true, true),
            (4, Some("DEADLINE_EXCEEDED"), true, true),
            (5, Some("NOT_FOUND"), false, true),
            (12, Some("UNIMPLEMENTED"), true, true),
            (13, Some("INTERNAL"), true, true),
            (14, Some("UNAVAILABLE"), true, true),
            (15, Some("DATA_LOSS"), true, true),
            (16, Some("UNAUTHENTICATED"), false, true),
        ] {
            assert_eq!(status_name(code), name, "{code}");
            assert_eq!(is_error(&SpanKind::Server, code), server, "{code}");
            assert_eq!(is_error(&SpanKind::Client, code), client, "{code}");
        }
    }
}
