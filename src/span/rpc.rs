//! Attributes, name and error of a gRPC span.
//!
//! <https://opentelemetry.io/docs/specs/semconv/rpc/rpc-spans/>,
//! <https://opentelemetry.io/docs/specs/semconv/rpc/grpc/>

use opentelemetry::trace::SpanKind;

use super::attributes as key;
use super::encoding::SpanFields;
use super::{OTHER, StreamFacts, http};
use crate::http::grpc;
use crate::http::response_flags::Cut;
use crate::http::url::Url;

/// Adds the called method and its status. Returns the name of the span, and its `error.type` where
/// the call failed.
///
/// A span of an inbound request, or of its call upstream, is named by the method only if a server answered
/// and has the method. Otherwise `rpc.method` is `_OTHER`: clients must not be able to create span names by
/// calling methods that do not exist. If paths are omitted, this applies to all spans, because the path may
/// not be a method at all.
pub(crate) fn name_and_error_type(
    fields: &mut SpanFields,
    kind: &SpanKind,
    is_inbound: bool,
    url: &Url,
    facts: StreamFacts<'_>,
    cut: Option<Cut>,
) -> (Vec<u8>, Option<String>) {
    fields.text(key::RPC_SYSTEM_NAME, GRPC);
    let refused = facts.grpc_status.map_or(facts.status >= 400, |it| it == grpc::UNIMPLEMENTED);
    let unanswered = facts.upstream_address.is_empty() || facts.status == 0;
    let hides_path = fields.omitted.contains(key::URL_PATH);
    let unknown = (is_inbound || hides_path) && (refused || unanswered);
    let hides_method = fields.omitted.contains(key::RPC_METHOD);
    let name = match grpc::method(url.path()) {
        _ if hides_method => GRPC,
        Some(method) if !unknown => {
            fields.text(key::RPC_METHOD, method);
            method
        }
        _ => {
            fields.text(key::RPC_METHOD, OTHER.as_bytes());
            if !hides_path {
                let path = url.path();
                fields.text(key::RPC_METHOD_ORIGINAL, path.strip_prefix(b"/").unwrap_or(path));
            }
            GRPC
        }
    };
    let error_type = match facts.grpc_status {
        Some(status) => {
            let status_name = grpc::status_name(status).unwrap_or_default();
            fields.text(key::RPC_RESPONSE_STATUS_CODE, status_name.as_bytes());
            grpc::is_error(kind, status).then(|| status_name.to_owned())
        }
        None => http::error_type(kind, facts, cut),
    };
    (name.to_vec(), error_type)
}

const GRPC: &[u8] = b"grpc";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::conditions::Direction::{self, Inbound, Outbound};
    use crate::span::testing::{FACTS, check_named};

    /// Facts of a call that ended with this status of gRPC's.
    fn ended(direction: Direction, grpc_status: Option<u64>) -> StreamFacts<'static> {
        StreamFacts { direction, grpc_status, route_name: b"grpc", ..FACTS }
    }

    /// Checks the span's name and attributes; an empty value stands for an absent attribute.
    #[track_caller]
    fn check(path: &str, facts: StreamFacts<'_>, name: &str, expected: &[(&str, &str)]) {
        let lines: [(&str, &[u8]); 3] = [
            (":method", b"POST"),
            (":path", path.as_bytes()),
            ("content-type", b"application/grpc"),
        ];
        check_named(&lines, facts, name, expected);
    }

    #[test]
    fn a_call_is_named_by_its_method() {
        check(
            ADD,
            ended(Inbound, Some(0)),
            "shop.Cart/Add",
            &[
                ("rpc.system.name", "grpc"),
                ("rpc.method", "shop.Cart/Add"),
                ("rpc.response.status_code", "OK"),
                ("error.type", ""),
                ("http.route", ""),
            ],
        );
        let too_many_parts = [("rpc.method", "_OTHER"), ("rpc.method_original", "a/b/c")];
        check("/a/b/c?x", ended(Inbound, Some(0)), "grpc", &too_many_parts);
    }

    #[test]
    fn the_status_is_an_error_by_the_kind_of_the_span() {
        let not_found =
            |error_type| [("rpc.response.status_code", "NOT_FOUND"), ("error.type", error_type)];
        check(ADD, ended(Inbound, Some(5)), "shop.Cart/Add", &not_found(""));
        check(ADD, ended(Outbound, Some(5)), "shop.Cart/Add", &not_found("NOT_FOUND"));
        let reset = StreamFacts { flags: 1 << 6, ..ended(Outbound, None) };
        check(ADD, reset, "shop.Cart/Add", &[("error.type", "UC")]);
        let cancelled = StreamFacts { flags: 1 << 28, ..ended(Outbound, None) };
        check(ADD, cancelled, "shop.Cart/Add", &[("error.type", "")]);
    }

    #[test]
    fn a_server_span_names_no_method_that_the_server_does_not_have() {
        let unimplemented = [
            ("rpc.method", "_OTHER"),
            ("rpc.method_original", "shop.Cart/Add"),
            ("error.type", "UNIMPLEMENTED"),
        ];
        check(ADD, ended(Inbound, Some(12)), "grpc", &unimplemented);
        check(ADD, ended(Outbound, Some(12)), "shop.Cart/Add", &[("rpc.method_original", "")]);
        let refused = StreamFacts { status: 404, ..ended(Inbound, None) };
        check(ADD, refused, "grpc", &[("rpc.method", "_OTHER"), ("error.type", "")]);
    }

    #[test]
    fn a_server_span_names_no_method_that_no_server_answered() {
        let no_response = StreamFacts { status: 0, flags: 1 << 28, ..ended(Inbound, None) };
        check(ADD, no_response, "grpc", &[("rpc.method", "_OTHER"), ("error.type", "DR")]);
        let from_client = StreamFacts { direction: Outbound, ..no_response };
        check(ADD, from_client, "shop.Cart/Add", &[]);
        let no_upstream = StreamFacts { upstream_address: b"", ..ended(Inbound, Some(14)) };
        check(ADD, no_upstream, "grpc", &[("rpc.response.status_code", "UNAVAILABLE")]);
    }

    #[test]
    fn a_call_that_is_answered_in_plain_http_has_an_http_span() {
        let plain = StreamFacts { answered_in_http: true, status: 503, ..ended(Inbound, None) };
        let of_http = [("rpc.system.name", ""), ("rpc.method", ""), ("error.type", "503")];
        check(ADD, plain, "POST", &of_http);
    }

    const ADD: &str = "/shop.Cart/Add";
}
