//! How a request ended: which attributes of Envoy tell it, and how their values are read.
//!
//! <https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/advanced/attributes>
//!
//! Envoy encodes numbers as 64 bits, low byte first. An absent attribute is empty.

use crate::http::grpc;
use crate::sampling::conditions::Direction;
use crate::sampling::export_on::{ExportOn, RequestEnd};
use crate::span::attributes::{self as key, OwnKeys};
use crate::span::property_list::ReadProperty;
use crate::span::{self, ActiveSpan, StreamFacts};

/// Attributes of [`stream_facts`], named as in CEL. Each lists the span's attributes that are made only of
/// it. The list is empty if something else needs the value too.
const STREAM_ATTRIBUTES: [(&str, &[&str]); 11] = [
    ("xds.listener_direction", &[]),
    ("source.address", &[key::CLIENT_ADDRESS]),
    ("request.protocol", &[key::NETWORK_PROTOCOL_VERSION]),
    (RESPONSE_CODE, &[]),
    (RESPONSE_FLAGS, &[]),
    // It tells which gRPC requests were answered in plain HTTP, and which requests were redirected.
    ("response.code_details", &[]),
    ("xds.route_name", &[key::HTTP_ROUTE, key::ROUTE_NAME]),
    ("xds.cluster_name", &[key::UPSTREAM_CLUSTER]),
    // It tells which gRPC requests no server answered.
    ("upstream.address", &[]),
    ("upstream.request_attempt_count", &[key::HTTP_REQUEST_RESEND_COUNT]),
    ("response.size", &[key::HTTP_RESPONSE_BODY_SIZE]),
];
/// Attributes of [`request_end`].
pub(crate) const END_ATTRIBUTES: [&str; 2] = [RESPONSE_CODE, RESPONSE_FLAGS];
/// The attribute of [`direction`], as the path of a property.
pub(crate) const LISTENER_DIRECTION: &str = "xds\0listener_direction";

/// Returns the attributes of [`stream_facts`] as CEL. An empty text replaces each attribute that only omitted
/// attributes need.
pub(crate) fn stream_attributes(omitted: OwnKeys) -> [&'static str; 11] {
    STREAM_ATTRIBUTES.map(|(name, keys)| {
        let is_needed = keys.is_empty() || keys.iter().any(|key| !omitted.contains(key));
        if is_needed { name } else { NOTHING }
    })
}

/// Returns the direction of a request, by the `TrafficDirection` of its listener. Istio marks the listeners
/// of a gateway as outbound, but a gateway serves its clients as an inbound sidecar does.
pub(crate) fn direction(listener_direction: &[u8], is_gateway: bool) -> Direction {
    if integer(listener_direction) == OUTBOUND && !is_gateway {
        Direction::Outbound
    } else {
        Direction::Inbound
    }
}

/// Returns the facts that end a span. `values` are those of [`stream_attributes`]; `property` reads
/// those that few requests need.
pub(crate) fn stream_facts<'v>(
    values: [&'v [u8]; 11],
    span: &ActiveSpan,
    is_gateway: bool,
    end_unix_nanos: u64,
    property: &ReadProperty<'_>,
) -> StreamFacts<'v> {
    let [
        listener_direction,
        source_address,
        protocol,
        status,
        flags,
        code_details,
        mut route_name,
        mut upstream_cluster,
        upstream_address,
        attempts,
        response_body_bytes,
    ] = values;
    if code_details == INTERNAL_REDIRECT {
        // Envoy has already replaced both by those of the redirected request, which follows in the same
        // stream.
        (route_name, upstream_cluster) = (b"", b"");
    }
    let read_size = || match span.omits(key::HTTP_REQUEST_BODY_SIZE) {
        true => 0,
        false => integer(&property("request\0size").unwrap_or_default()),
    };
    let grpc_status = if span.is_grpc() { grpc_status(property) } else { None };
    let answered_in_http = span.is_grpc()
        && grpc_status.is_none()
        && span::is_of_upstream(code_details)
        && !is_grpc_response(property);
    StreamFacts {
        direction: direction(listener_direction, is_gateway),
        source_address,
        protocol,
        status: status_code(status),
        flags: integer(flags),
        code_details,
        route_name,
        upstream_cluster,
        upstream_address,
        attempts: integer(attempts),
        request_body_bytes: span.request_body_bytes().unwrap_or_else(read_size),
        response_body_bytes: integer(response_body_bytes),
        grpc_status,
        answered_in_http,
        end_unix_nanos,
    }
}

/// Returns how a request ended, as far as `export_on` needs it. `values` are those of
/// [`END_ATTRIBUTES`], or empty. `is_grpc_request` and `property` are called only where they matter:
/// most requests end well.
///
/// A local reply of Envoy's to a gRPC request has the status 200, and the actual status in
/// `grpc-status`. It counts with the HTTP status that it stands for.
pub(crate) fn request_end(
    export_on: &ExportOn,
    values: [&[u8]; 2],
    duration_nanos: u64,
    is_grpc_request: &dyn Fn() -> bool,
    property: &ReadProperty<'_>,
) -> RequestEnd {
    let [status, flags] = values;
    let (mut status, flags) = (status_code(status), integer(flags));
    let may_hide_status = status == 200 && flags != 0 && !export_on.status.is_empty();
    let needs_grpc_status = may_hide_status || !export_on.grpc_status.is_empty();
    let is_grpc = needs_grpc_status && is_grpc_request();
    let grpc_status = if is_grpc { grpc_status(property) } else { None };
    if let Some(code) = grpc_status.filter(|_| may_hide_status) {
        let code_details = property("response\0code_details").unwrap_or_default();
        if !span::is_of_upstream(&code_details) {
            status = grpc::http_status_of_local_reply(code);
        }
    }
    RequestEnd { status, flags, grpc_status, duration_nanos }
}

/// Returns the gRPC status of the response. A Trailers-Only response has it in its headers.
///
/// `response.grpc_status` is not used: without a status, as in a response that was cut short or one of
/// gRPC-Web, Envoy derives it from HTTP's, and 200 becomes `UNKNOWN`.
fn grpc_status(property: &ReadProperty<'_>) -> Option<u64> {
    let paths = ["response\0trailers\0grpc-status", "response\0headers\0grpc-status"];
    let read = |path| property(path).filter(|status| !status.is_empty());
    paths.into_iter().find_map(read).map(|status| grpc::status(&status))
}

/// Tells whether the response says that it is a gRPC response.
fn is_grpc_response(property: &ReadProperty<'_>) -> bool {
    let content_type = property("response\0headers\0content-type");
    content_type.is_some_and(|content_type| grpc::is_grpc(&content_type))
}

/// Reads a 64-bit integer; 0 if it is absent.
fn integer(value: &[u8]) -> u64 {
    value.try_into().map(u64::from_le_bytes).unwrap_or_default()
}

/// Reads an HTTP status code. Returns 0 if the value is absent or does not fit into 16 bits.
fn status_code(value: &[u8]) -> u16 {
    u16::try_from(integer(value)).unwrap_or_default()
}

/// The empty text as CEL.
const NOTHING: &str = "\"\"";
/// `ResponseCodeDetails::InternalRedirect` in Envoy's `envoy/stream_info/stream_info.h`.
const INTERNAL_REDIRECT: &[u8] = b"internal_redirect";
const RESPONSE_CODE: &str = "response.code";
const RESPONSE_FLAGS: &str = "response.flags";
/// `TrafficDirection::OUTBOUND`
const OUTBOUND: u64 = 2;

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::config::Config;
    use crate::filter::{PendingSpan, RequestFacts, on_request_headers};
    use crate::http::head::Head;
    use crate::propagation::context::FreshIds;
    use crate::span::testing::recording;

    const UPSTREAM_RESET: u64 = 1 << 6;
    const TRAILER: &str = "response\0trailers\0grpc-status";
    const HEADER: &str = "response\0headers\0grpc-status";
    const DETAILS: &str = "response\0code_details";

    /// A reader of these properties, which notes what it reads.
    fn reader<'p>(
        properties: &'p [(&str, &str)],
        paths: &'p RefCell<Vec<String>>,
    ) -> impl Fn(&str) -> Option<Vec<u8>> + 'p {
        move |path| {
            paths.borrow_mut().push(path.replace('\0', "."));
            let mut properties = properties.iter();
            properties.find(|(known, _)| *known == path).map(|(_, value)| value.as_bytes().to_vec())
        }
    }

    #[test]
    fn only_outbound_listeners_of_sidecars_are_outbound() {
        for (value, is_gateway, expected) in [
            (&2u64.to_le_bytes()[..], false, Direction::Outbound),
            (&2u64.to_le_bytes(), true, Direction::Inbound),
            (&1u64.to_le_bytes(), false, Direction::Inbound),
            (&0u64.to_le_bytes(), false, Direction::Inbound),
            (b"", false, Direction::Inbound),
            (b"\x02", false, Direction::Inbound),
            (b"outbound", false, Direction::Inbound),
        ] {
            assert_eq!(direction(value, is_gateway), expected, "{value:?} {is_gateway}");
        }
    }

    #[test]
    fn attributes_that_only_omitted_keys_need_are_not_read() {
        let all = [
            "client.address",
            "network.protocol.version",
            "http.route",
            "route_name",
            "upstream_cluster",
            "http.request.resend_count",
            "http.response.body.size",
        ];
        let missing = |keys: &[&str]| {
            let mut omitted = OwnKeys::default();
            assert!(keys.iter().all(|key| omitted.insert(key)));
            let names = STREAM_ATTRIBUTES.iter().zip(stream_attributes(omitted));
            names
                .filter(|(_, asked)| *asked == NOTHING)
                .map(|((name, _), _)| *name)
                .collect::<Vec<_>>()
        };
        let none: [&str; 0] = [];
        assert_eq!(missing(&[]), none);
        assert_eq!(missing(&["client.address"]), ["source.address"]);
        assert_eq!(missing(&["network.peer.address", "http.route"]), none, "others need the same");
        assert_eq!(missing(&["http.route", "route_name"]), ["xds.route_name"]);
        assert_eq!(missing(&all).len(), 6);
        assert_eq!(
            missing(&key::RESERVED),
            missing(&all),
            "names, errors and events need the rest"
        );
    }

    #[test]
    fn a_size_that_is_omitted_is_not_read() {
        let config = r#"{"span": {"omit": ["http.request.body.size"]}}"#;
        let config = Config::parse(config.as_bytes(), &|_| None).unwrap();
        let span = ActiveSpan::start(&config.span, &Head::new(Vec::new()), false, &recording(), 0);
        let paths = RefCell::default();
        stream_facts([b""; 11], &span, false, 5, &reader(&[], &paths));
        assert_eq!(*paths.borrow(), [""; 0]);
    }

    #[test]
    fn a_status_has_sixteen_bits() {
        for (value, expected) in [(0, 0), (200, 200), (65_535, 65_535), (65_536, 0), (u64::MAX, 0)]
        {
            assert_eq!(status_code(&value.to_le_bytes()), expected);
        }
        assert_eq!((status_code(b""), status_code(b"200")), (0, 0));
    }

    /// The span of a request with these headers beside its method and path.
    fn span(lines: &[(&str, &str)]) -> Box<ActiveSpan> {
        let config = r#"{"exporter": {"otlp": {"cluster": "c"}}}"#;
        let config = Config::parse(config.as_bytes(), &|_| None).unwrap();
        let lines = [(":method", "POST"), (":path", "/a/B")].iter().chain(lines);
        let head = Head::new(lines.map(|(k, v)| (k.as_bytes(), v.as_bytes())).collect());
        let fresh =
            FreshIds { trace_id: 1u128.into(), span_id: 2u64.into(), upstream_span_id: None };
        let facts = RequestFacts::default();
        let outcome = on_request_headers(&config, &head, facts, fresh, &mut |_, _| Ok(()));
        let PendingSpan::Recorded(recording) = outcome.span else {
            panic!("{outcome:?}");
        };
        ActiveSpan::start(&config.span, &head, false, &recording, 1)
    }

    #[test]
    fn each_attribute_becomes_a_fact() {
        let numbers = [2, 503, UPSTREAM_RESET, 3, 99].map(u64::to_le_bytes);
        let [direction, status, flags, attempts, size] = &numbers;
        let values: [&[u8]; 11] = [
            direction,
            b"10.0.0.1:80",
            b"HTTP/2",
            status,
            flags,
            b"details",
            b"route",
            b"cluster",
            b"10.0.0.2:80",
            attempts,
            size,
        ];
        let expected = StreamFacts {
            direction: Direction::Outbound,
            source_address: b"10.0.0.1:80",
            protocol: b"HTTP/2",
            status: 503,
            flags: UPSTREAM_RESET,
            code_details: b"details",
            route_name: b"route",
            upstream_cluster: b"cluster",
            upstream_address: b"10.0.0.2:80",
            attempts: 3,
            request_body_bytes: 7,
            response_body_bytes: 99,
            grpc_status: None,
            answered_in_http: false,
            end_unix_nanos: 5,
        };
        let paths = RefCell::default();
        let none = reader(&[], &paths);
        let span = span(&[("content-length", "7")]);
        assert_eq!(stream_facts(values, &span, false, 5, &none), expected);
        let mut redirected = values;
        redirected[5] = INTERNAL_REDIRECT;
        let unknown = StreamFacts {
            code_details: INTERNAL_REDIRECT,
            route_name: b"",
            upstream_cluster: b"",
            ..expected
        };
        assert_eq!(stream_facts(redirected, &span, false, 5, &none), unknown);
        let absent = StreamFacts {
            direction: Direction::Inbound,
            source_address: b"",
            protocol: b"",
            status: 0,
            flags: 0,
            code_details: b"",
            route_name: b"",
            upstream_cluster: b"",
            upstream_address: b"",
            attempts: 0,
            response_body_bytes: 0,
            ..expected
        };
        assert_eq!(stream_facts([b""; 11], &span, false, 5, &none), absent);
        assert_eq!(*paths.borrow(), [""; 0], "no property is read for most requests");
    }

    #[test]
    fn a_size_that_the_headers_do_not_tell_is_read() {
        let paths = RefCell::default();
        let bytes = str::from_utf8(&[7, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        for (properties, expected) in [(&[("request\0size", bytes)][..], 7), (&[], 0)] {
            let facts = stream_facts([b""; 11], &span(&[]), false, 5, &reader(properties, &paths));
            assert_eq!(facts.request_body_bytes, expected);
        }
    }

    /// Compares `grpc_status` and `answered_in_http` of a gRPC request.
    #[track_caller]
    fn check_grpc(code_details: &str, properties: &[(&str, &str)], expected: (Option<u64>, bool)) {
        let mut values = [&b""[..]; 11];
        values[5] = code_details.as_bytes();
        let span = span(&[("content-type", "application/grpc"), ("content-length", "7")]);
        let paths = RefCell::default();
        let facts = stream_facts(values, &span, false, 5, &reader(properties, &paths));
        assert_eq!((facts.grpc_status, facts.answered_in_http), expected);
    }

    #[test]
    fn a_grpc_status_is_in_trailers_or_headers() {
        let content_type = "response\0headers\0content-type";
        check_grpc("via_upstream", &[(TRAILER, "5"), (HEADER, "0")], (Some(5), false));
        check_grpc("via_upstream", &[(HEADER, "7")], (Some(7), false));
        check_grpc("via_upstream", &[(TRAILER, ""), (HEADER, "7")], (Some(7), false));
        check_grpc("via_upstream", &[(TRAILER, "x")], (Some(2), false));
        // Cut short, answered by Envoy, and answered by a server that does not speak gRPC.
        check_grpc("via_upstream", &[(content_type, "application/grpc")], (None, false));
        check_grpc("route_not_found", &[(content_type, "text/html")], (None, false));
        check_grpc("via_upstream", &[(content_type, "text/html")], (None, true));
        check_grpc("via_upstream", &[], (None, true));
    }

    const STATUS: &str = r#""status": ["5xx"]"#;
    const GRPC_STATUS: &str = r#""grpc_status": [14]"#;

    /// Compares the end of a gRPC request, and which properties were read.
    #[track_caller]
    fn check_end(
        export_on: &str,
        (status, flags): (u64, u64),
        properties: &[(&str, &str)],
        expected: (u16, Option<u64>),
        expected_paths: &[&str],
    ) {
        let config = format!(
            r#"{{"sampling": {{"export_on": {{{export_on}, "limit": {{"per_second": 1}}}}}},
                "exporter": {{"otlp": {{"cluster": "c"}}}}}}"#
        );
        let config = Config::parse(config.as_bytes(), &|_| None).unwrap();
        let values = [&status.to_le_bytes()[..], &flags.to_le_bytes()];
        let paths = RefCell::new(Vec::new());
        let is_grpc = || {
            paths.borrow_mut().push("head".to_owned());
            true
        };
        let export_on = config.export_on.unwrap();
        let end = request_end(&export_on, values, 9, &is_grpc, &reader(properties, &paths));
        assert_eq!((end.status, end.grpc_status), expected);
        assert_eq!((end.flags, end.duration_nanos), (flags, 9));
        assert_eq!(*paths.borrow(), expected_paths);
    }

    #[test]
    fn a_request_that_ends_well_reads_no_further_properties() {
        check_end(STATUS, (200, 0), &[], (200, None), &[]);
        check_end(STATUS, (503, UPSTREAM_RESET), &[], (503, None), &[]);
        check_end(r#""resets": true"#, (200, UPSTREAM_RESET), &[], (200, None), &[]);
    }

    #[test]
    fn a_local_reply_to_grpc_counts_with_its_http_status() {
        let trailers = "response.trailers.grpc-status";
        let headers = "response.headers.grpc-status";
        let details = "response.code_details";
        let all = &["head", trailers, headers, details];
        let local = [(HEADER, "14"), (DETAILS, "no_healthy_upstream")];
        check_end(STATUS, (200, 2), &local, (503, Some(14)), all);
        let of_upstream = [(HEADER, "14"), (DETAILS, "via_upstream")];
        check_end(STATUS, (200, 2), &of_upstream, (200, Some(14)), all);
        check_end(STATUS, (200, 2), &[], (200, None), &all[..3]);
        check_end(GRPC_STATUS, (200, 0), &[(TRAILER, "14")], (200, Some(14)), &all[..2]);
        check_end(GRPC_STATUS, (200, 2), &[(TRAILER, "14")], (200, Some(14)), &all[..2]);
    }
}
