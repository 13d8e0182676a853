//! What a gRPC request says of itself, by OpenTelemetry's RPC conventions.
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

/// Tells whether a content type is one of gRPC's, gRPC-Web's among them.
pub fn is_grpc(content_type: &[u8]) -> bool {
    let rest = content_type.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b'-' | b';')))
}

/// Returns `package.Service/Method`, where the path has that form.
pub fn method(path: &[u8]) -> Option<&[u8]> {
    let method = path.strip_prefix(b"/")?;
    let mut parts = method.split(|byte| *byte == b'/');
    let (service, name) = (parts.next()?, parts.next()?);
    (parts.next().is_none() && !service.is_empty() && !name.is_empty()).then_some(method)
}

/// Reads `grpc-status`; what is no code of gRPC's is `UNKNOWN`, as its own clients have it.
pub fn status(header: &[u8]) -> u64 {
    let code = digits::decimal::<u64>(header);
    code.filter(|code| status_name(*code).is_some()).unwrap_or(UNKNOWN)
}

/// Returns the status that an answer of Envoy's own would have over plain HTTP: the inverse of
/// `httpToGrpcStatus` in Envoy's `source/common/grpc/status.cc`, where 503 stands for 429, 502 and 504.
pub fn http_status_of_local_reply(code: u64) -> u16 {
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

/// Returns the name of a status code; none of those that gRPC does not know.
pub fn status_name(code: u64) -> Option<&'static str> {
    usize::try_from(code).ok().and_then(|code| STATUS_NAMES.get(code).copied())
}

/// Tells whether a status is an error: on a client all but `OK`, on a server those that are not the
/// caller's doing.
pub fn is_error(kind: &SpanKind, code: u64) -> bool {
    match kind {
        SpanKind::Server => matches!(code, UNKNOWN | 4 | UNIMPLEMENTED | 13..=15),
        _ => code != OK,
    }
}

/// Returns the one message of an answer; none where it is compressed or not whole.
///
/// ```text
/// message = %x00 length *OCTET     ; length: four bytes, the highest first
/// ```
pub fn message(body: &[u8]) -> Option<&[u8]> {
    let ([0, len @ ..], rest) = body.split_first_chunk::<MESSAGE_PREFIX_BYTES>()? else {
        return None;
    };
    rest.get(..u32::from_be_bytes(*len) as usize)
}

/// Writes the head of the one message whose bytes are behind the place for it.
pub fn write_message_prefix(framed: &mut [u8]) {
    if let Some((head, message)) = framed.split_first_chunk_mut::<MESSAGE_PREFIX_BYTES>() {
        let [a, b, c, d] = (message.len() as u32).to_be_bytes();
        *head = [0, a, b, c, d];
    }
}

/// The base64 of binary metadata, whose names end in `-bin`: read with padding or without, and
/// written without.
pub const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Bytes of what stands before a message.
pub const MESSAGE_PREFIX_BYTES: usize = 5;

pub const OK: u64 = 0;
pub const CANCELLED: u64 = 1;
const UNKNOWN: u64 = 2;
pub const DEADLINE_EXCEEDED: u64 = 4;
pub const RESOURCE_EXHAUSTED: u64 = 8;
pub const ABORTED: u64 = 10;
pub const OUT_OF_RANGE: u64 = 11;
/// The server has no such method.
pub const UNIMPLEMENTED: u64 = 12;
pub const UNAVAILABLE: u64 = 14;
pub const DATA_LOSS: u64 = 15;

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
    fn content_types_of_grpc_are_known() {
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
    fn binary_metadata_is_read_with_padding_or_without() {
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
    fn a_status_is_a_number() {
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

    /// What Envoy makes of a status in its own answers is what it was.
    #[test]
    fn answers_of_envoy_have_their_status_back() {
        for (http, code) in
            [(400, 13), (401, 16), (403, 7), (404, 12), (500, 2), (503, 14), (504, 4)]
        {
            assert_eq!(http_status_of_local_reply(code), http);
        }
    }

    #[test]
    fn errors_are_by_side() {
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
