//! Properties: which exist in each phase, and how they are serialised.

use sidespan_harness::host::{Message, StreamInfo};

use super::*;

#[test]
fn properties_exist_in_the_phases_of_envoy() {
    let property =
        "(call $property (local.get $at) (local.get $size) (i32.const 16) (i32.const 20))";
    // What Envoy 1.36.4 and 1.40.0 returned for a request without TLS that an upstream answered.
    let table = [
        ("request.path", [OK, NOT_FOUND, OK]),
        ("request.query", [OK, NOT_FOUND, OK]),
        ("request.protocol", [OK; 3]),
        ("request.time", [OK; 3]),
        ("request.size", [OK; 3]),
        ("request.total_size", [OK; 3]),
        ("request.duration", [NOT_FOUND, NOT_FOUND, OK]),
        ("request.headers", [OK; 3]),
        ("request.headers.:method", [OK, NOT_FOUND, OK]),
        ("request.headers.x-absent", [NOT_FOUND; 3]),
        ("response.code", [NOT_FOUND, OK, OK]),
        ("response.code_details", [NOT_FOUND, OK, OK]),
        ("response.flags", [OK; 3]),
        ("response.size", [OK; 3]),
        ("response.headers", [OK; 3]),
        ("response.headers.:status", [NOT_FOUND, OK, OK]),
        ("response.trailers", [OK; 3]),
        ("response.trailers.x-late", [NOT_FOUND, NOT_FOUND, OK]),
        ("response.grpc_status", [NOT_FOUND, OK, OK]),
        ("response.backend_latency", [NOT_FOUND, NOT_FOUND, OK]),
        ("source.address", [OK; 3]),
        ("source.port", [OK; 3]),
        ("connection.id", [OK; 3]),
        ("connection.mtls", [OK; 3]),
        ("connection.uri_san_peer_certificate", [NOT_FOUND; 3]),
        ("connection.uri_san_local_certificate", [NOT_FOUND; 3]),
        ("upstream.address", [NOT_FOUND, OK, OK]),
        ("upstream.port", [NOT_FOUND, OK, OK]),
        ("upstream.request_attempt_count", [OK; 3]),
        ("upstream.uri_san_peer_certificate", [NOT_FOUND, OK, OK]),
        ("upstream.uri_san_local_certificate", [NOT_FOUND; 3]),
        ("xds.listener_direction", [OK; 3]),
        ("xds.route_name", [OK; 3]),
        ("xds.cluster_name", [NOT_FOUND; 3]),
        ("xds.node.id", [OK; 3]),
        ("xds.node.cluster", [OK; 3]),
        ("xds.node.metadata.NAMESPACE", [OK; 3]),
        ("xds.node.metadata.LABELS.app", [OK; 3]),
        ("xds.node.metadata.ABSENT", [NOT_FOUND; 3]),
        ("xds.listener_name", [NOT_FOUND; 3]),
        ("node.id", [NOT_FOUND; 3]),
        ("listener_direction", [NOT_FOUND; 3]),
        ("plugin_name", [OK; 3]),
        ("xds.node.metadata.NOTHING", [SERIALIZATION_FAILURE; 3]),
        // From `StreamInfo::properties`.
        ("metadata.given.canary", [OK; 3]),
        ("metadata.given.canary.more", [NOT_FOUND; 3]),
        ("metadata.given.list.1", [OK; 3]),
        ("metadata.given.list.2", [NOT_FOUND; 3]),
        ("metadata.given.null", [NOT_FOUND; 3]),
        ("metadata.given.map", [OK; 3]),
        ("xds.virtual_host_name", [NOT_FOUND; 3]),
        ("request.given", [OK, NOT_FOUND, OK]),
        ("response.given", [NOT_FOUND, OK, OK]),
        ("upstream.given", [NOT_FOUND, OK, OK]),
    ];
    for (path, expected) in table {
        check(property, &path.replace('.', "\0"), expected);
    }
}

#[test]
fn values_are_serialised_as_envoy_does() {
    let first_byte = "(block (result i32)
        (drop (call $property (local.get $at) (local.get $size) (i32.const 16) (i32.const 20)))
        (i32.load8_u (i32.load (i32.const 16))))";
    check(first_byte, "xds\0listener_direction", [2; 3]);
    let size = "(block (result i32)
        (drop (call $property (local.get $at) (local.get $size) (i32.const 16) (i32.const 20)))
        (i32.load (i32.const 20)))";
    check(size, "xds\0listener_direction", [8; 3]);
    check(size, "response\0flags", [8; 3]);
    check(size, "metadata\0given\0canary", [1; 3]);
    check(size, "metadata\0given\0double", [8; 3]);
    check(first_byte, "request\0size", [3, 0, 3]);
    check(first_byte, "upstream\0request_attempt_count", [0, 2, 2]);
    check(first_byte, "metadata\0given\0list\x001", [9; 3]);
    check(first_byte, "metadata\0given\0canary", [1; 3]);
    check(first_byte, "metadata\0given\0map", [1; 3]);
}

#[test]
fn the_grpc_status_comes_from_trailer_header_or_http_status() {
    let status = |headers: &[(&str, &str)], trailers: &[(&str, &str)]| {
        let mut vm = start(&toy(
            "response\0grpc_status",
            &format!(
                "(func (export \"proxy_on_log\") (param i32)
                   (drop (call $property (i32.const {TEXT_AT}) (i32.const 20) (i32.const 16) (i32.const 20)))
                   (i32.store8 (i32.const 0) (i32.add (i32.const 48) (i32.load8_s (i32.load (i32.const 16)))))
                   (drop (call $log (i32.const 2) (i32.const 0) (i32.const 1))))"
            ),
        ));
        let context = vm.request(StreamInfo::default(), Message::default()).expect("no trap");
        let response = Message {
            headers: headers.iter().copied().collect(),
            trailers: trailers.iter().copied().collect(),
            ..Message::default()
        };
        vm.response(context, response).expect("no trap");
        vm.finish(context).expect("no trap");
        messages(&vm.take_log()).concat().chars().map(|c| c as i32 - 48).collect::<Vec<_>>()
    };
    assert_eq!(status(&[(":status", "200")], &[("grpc-status", "5")]), [5]);
    assert_eq!(status(&[(":status", "200"), ("grpc-status", "7")], &[]), [7]);
    assert_eq!(status(&[(":status", "200"), ("grpc-status", "7")], &[("grpc-status", "0")]), [0]);
    assert_eq!(status(&[(":status", "200"), ("grpc-status", "17")], &[]), [-1]);
    assert_eq!(status(&[(":status", "200"), ("grpc-status", "x")], &[]), [-1]);
    for (http, grpc) in [("200", 2), ("400", 13), ("401", 16), ("403", 7), ("404", 12), ("503", 14)]
    {
        assert_eq!(status(&[(":status", http)], &[]), [grpc], "{http}");
    }
}
