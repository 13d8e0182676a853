//! Hostcalls answer as Envoy does, phase by phase.

use sidespan_harness::host::{
    CallAnswer, Direction, Headers, Intervention, LogLine, Message, Node, Settings, StreamInfo, Vm,
};

use crate::module;

/// Makes one hostcall in the request phase, in the response phase and in on_log; compares the
/// numbers that it answers with. In `call`, `$at` and `$size` are where `text` is.
#[track_caller]
fn check(call: &str, text: &str, expected: [u8; 3]) {
    assert_eq!(probe(call, text), expected, "{call} with {text:?}");
}

#[track_caller]
fn probe(call: &str, text: &str) -> Vec<u8> {
    let mut vm = start(&toy(
        text,
        &format!(
            "(func $probe (local $at i32) (local $size i32)
               (local.set $at (i32.const {TEXT_AT})) (local.set $size (i32.const {}))
               (i32.store8 (i32.const 0) (i32.add (i32.const 48) {call}))
               (drop (call $log (i32.const 2) (i32.const 0) (i32.const 1))))
             (func (export \"proxy_on_request_headers\") (param i32 i32 i32) (result i32) (call $probe) (i32.const 0))
             (func (export \"proxy_on_response_headers\") (param i32 i32 i32) (result i32) (call $probe) (i32.const 0))
             (func (export \"proxy_on_log\") (param i32) (call $probe))",
            text.len()
        ),
    ));
    exchange(&mut vm);
    let log = vm.take_log();
    log.iter()
        .map(|line| line.message.chars().next().map_or(0, |first| (first as u32 - 48) as u8))
        .collect()
}

/// A module with an allocator, `text` in its memory, and a few imports by short names.
fn toy(text: &str, functions: &str) -> String {
    let text: String = text.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    format!(
        "(import \"env\" \"proxy_log\" (func $log (param i32 i32 i32) (result i32)))
         (import \"env\" \"proxy_get_header_map_value\" (func $header (param i32 i32 i32 i32 i32) (result i32)))
         (import \"env\" \"proxy_get_header_map_pairs\" (func $headers (param i32 i32 i32) (result i32)))
         (import \"env\" \"proxy_get_header_map_size\" (func $map_size (param i32 i32) (result i32)))
         (import \"env\" \"proxy_add_header_map_value\" (func $add (param i32 i32 i32 i32 i32) (result i32)))
         (import \"env\" \"proxy_get_property\" (func $property (param i32 i32 i32 i32) (result i32)))
         (import \"env\" \"proxy_get_buffer_bytes\" (func $buffer (param i32 i32 i32 i32 i32) (result i32)))
         (import \"env\" \"proxy_define_metric\" (func $define (param i32 i32 i32 i32) (result i32)))
         (import \"env\" \"proxy_increment_metric\" (func $increment (param i32 i64) (result i32)))
         (import \"env\" \"proxy_get_metric\" (func $metric (param i32 i32) (result i32)))
         (import \"env\" \"proxy_get_shared_data\" (func $get_data (param i32 i32 i32 i32 i32) (result i32)))
         (import \"env\" \"proxy_set_shared_data\" (func $set_data (param i32 i32 i32 i32 i32) (result i32)))
         (import \"env\" \"proxy_dequeue_shared_queue\" (func $dequeue (param i32 i32 i32) (result i32)))
         (import \"env\" \"proxy_http_call\"
           (func $http (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
         (import \"env\" \"proxy_set_effective_context\" (func $effective (param i32) (result i32)))
         (import \"env\" \"proxy_set_tick_period_milliseconds\" (func $tick_period (param i32) (result i32)))
         (import \"env\" \"proxy_send_local_response\"
           (func $local_response (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
         (import \"env\" \"proxy_call_foreign_function\" (func $foreign (param i32 i32 i32 i32 i32 i32) (result i32)))
         (import \"env\" \"proxy_done\" (func $done (result i32)))
         (import \"wasi_snapshot_preview1\" \"random_get\" (func $random (param i32 i32) (result i32)))
         (import \"wasi_snapshot_preview1\" \"fd_close\" (func $close (param i32) (result i32)))
         (import \"wasi_snapshot_preview1\" \"fd_write\" (func $write (param i32 i32 i32 i32) (result i32)))
         (import \"wasi_snapshot_preview1\" \"environ_get\" (func $environ (param i32 i32) (result i32)))
         (import \"wasi_snapshot_preview1\" \"clock_time_get\" (func $clock (param i32 i64 i32) (result i32)))
         (memory (export \"memory\") 2)
         (data (i32.const {TEXT_AT}) \"{text}\")
         (global $free (mut i32) (i32.const 65536))
         (func (export \"proxy_on_memory_allocate\") (param $size i32) (result i32)
           (global.get $free)
           (global.set $free (i32.add (global.get $free) (local.get $size))))
         {functions}"
    )
}

#[track_caller]
fn start(text: &str) -> Vm {
    let settings = Settings {
        configuration: b"{}".to_vec(),
        clusters: Some(vec!["known".into()]),
        environment: vec![("POD_NAME".into(), "checkout-1".into())],
        node: Node {
            id: "sidecar~a".into(),
            metadata: serde_json::from_str(
                r#"{"NAMESPACE": "shop", "LABELS": {"app": "checkout"}, "NOTHING": null}"#,
            )
            .expect("JSON"),
            ..Node::default()
        },
        ..Settings::default()
    };
    let module = module::from_wat(text).expect("the module loads");
    module
        .start(&settings)
        .expect("the module is instantiated")
        .expect("the configuration is taken")
}

#[track_caller]
fn exchange(vm: &mut Vm) {
    let info = StreamInfo {
        direction: Direction::Outbound,
        protocol: "HTTP/2".into(),
        source_address: "10.0.0.9:40000".into(),
        upstream_address: "10.0.0.8:8080".into(),
        response_code_details: "via_upstream".into(),
        route_name: Some(String::new()),
        attempt_count: 2,
        backend_latency_ns: Some(1),
        upstream_peer_san: Some("spiffe://td/db".into()),
        properties: given(),
        ..StreamInfo::default()
    };
    let message = |lines: &[(&str, &str)]| Message {
        headers: lines.iter().copied().collect(),
        ..Message::default()
    };
    let request = [(":path", "/a?b"), (":method", "GET"), ("content-length", "3")];
    let context = vm.request(info, message(&request)).expect("no trap");
    let trailers = [("x-late", "1")].into_iter().collect();
    vm.response(context, Message { trailers, ..message(&[(":status", "200")]) }).expect("no trap");
    vm.finish(context).expect("no trap");
}

/// Properties of the exchange beside what Envoy knows.
fn given() -> Vec<(Vec<String>, serde_json::Value)> {
    let given = serde_json::json!({
        "canary": true, "double": 1.5, "list": ["a", 9], "null": null, "map": {"a": 1}
    });
    let part = |path: &str| path.split('.').map(str::to_owned).collect();
    vec![
        (part("metadata.given"), given),
        (part("metadata"), serde_json::json!({})),
        (part("xds.virtual_host_name"), serde_json::Value::Null),
        (part("request.given"), "a".into()),
        (part("response.given"), "a".into()),
        (part("upstream.given"), "a".into()),
    ]
}

#[test]
fn headers_are_readable_in_their_phase_and_in_on_log() {
    let header = |map: u32| {
        format!(
            "(call $header (i32.const {map}) (local.get $at) (local.get $size) (i32.const 16) (i32.const 20))"
        )
    };
    check(&header(REQUEST_HEADERS), ":path", [OK, BAD_ARGUMENT, OK]);
    check(&header(REQUEST_HEADERS), ":PATH", [OK, BAD_ARGUMENT, OK]);
    check(&header(REQUEST_HEADERS), "x-absent", [NOT_FOUND, BAD_ARGUMENT, NOT_FOUND]);
    check(&header(RESPONSE_HEADERS), ":status", [BAD_ARGUMENT, OK, OK]);
    check(&header(RESPONSE_TRAILERS), "x-late", [BAD_ARGUMENT, BAD_ARGUMENT, OK]);
    check(&header(9), ":status", [BAD_ARGUMENT; 3]);
}

#[test]
fn a_whole_map_is_readable_always_and_empty_out_of_its_phase() {
    check("(call $headers (i32.const 0) (i32.const 16) (i32.const 20))", "", [OK; 3]);
    // The size that was handed over, of two lines and of none.
    let size = "(block (result i32) (drop (call $headers (i32.const 0) (i32.const 16) (i32.const 20))) (i32.load (i32.const 20)))";
    check(size, "", [4 + 24 + 5 + 4 + 7 + 3 + 14 + 1 + 6, 0, 68]);
}

#[test]
fn the_size_of_a_map_is_there_in_its_phase_alone() {
    check("(call $map_size (i32.const 0) (i32.const 16))", "", [OK, BAD_ARGUMENT, BAD_ARGUMENT]);
}

#[test]
fn trailers_that_never_came_are_not_found_in_on_log() {
    let header = "(call $header (i32.const 1) (local.get $at) (local.get $size) (i32.const 16) (i32.const 20))";
    check(header, "x", [BAD_ARGUMENT, BAD_ARGUMENT, NOT_FOUND]);
}

#[test]
fn headers_are_changed_in_their_phase_alone() {
    let add = |map: u32| {
        format!(
            "(call $add (i32.const {map}) (local.get $at) (local.get $size) (local.get $at) (local.get $size))"
        )
    };
    check(&add(REQUEST_HEADERS), "x-added", [OK, BAD_ARGUMENT, BAD_ARGUMENT]);
    check(&add(RESPONSE_HEADERS), "x-added", [BAD_ARGUMENT, OK, BAD_ARGUMENT]);
    check(&add(RESPONSE_TRAILERS), "x-added", [BAD_ARGUMENT; 3]);
}

#[test]
fn properties_are_there_in_the_phases_that_envoy_has_them_in() {
    let property =
        "(call $property (local.get $at) (local.get $size) (i32.const 16) (i32.const 20))";
    // As Envoy 1.36.4 and 1.40.0 answered, for a request without TLS that an upstream answered.
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
        // Those that the case gives.
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
fn numbers_are_64_bits_little_endian() {
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
fn a_response_without_a_grpc_status_has_that_of_its_http_status() {
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

#[test]
fn a_list_of_attributes_is_evaluated_whole() {
    let evaluate = "(block (result i32)
        (drop (call $foreign (i32.const 1024) (i32.const 11) (i32.const 1048) (i32.sub (local.get $size) (i32.const 24))
          (i32.const 16) (i32.const 20)))
        (call $foreign (i32.const 1035) (i32.const 13) (i32.load (i32.const 16)) (i32.const 4) (i32.const 16) (i32.const 20)))";
    let check = |expression: &str, expected| {
        check(evaluate, &format!("expr_createexpr_evaluate{expression}"), expected);
    };
    check("[request.path,response.code]", [INTERNAL_FAILURE, INTERNAL_FAILURE, OK]);
    check("[response.flags,xds.listener_direction]", [OK; 3]);
    check(
        "[has(connection.tls) ? connection.tls : \"\", response.code]",
        [INTERNAL_FAILURE, OK, OK],
    );
    check("[metadata.given.canary]", [OK; 3]);
    check("[has(metadata.given.none) ? 1 : 0]", [OK; 3]);
    check("[request.headers[\"content-length\"]]", [OK, INTERNAL_FAILURE, OK]);
    let guarded =
        "\"content-length\" in request.headers ? request.headers[\"content-length\"] : \"\"";
    check(&format!("[{guarded}]"), [OK; 3]);
    check("[has(metadata.filter_metadata) && has(metadata.filter_metadata.none) ? 1 : 0]", [OK; 3]);
    check("[request]", [SERIALIZATION_FAILURE; 3]);
    check("[has(xds.route_metadata.filter_metadata) ? 1 : 0]", [OK; 3]);
}

#[test]
fn expressions_are_refused_where_envoy_refuses_them() {
    let create = "(call $foreign (local.get $at) (i32.const 11) (i32.const 1035)
        (i32.sub (local.get $size) (i32.const 11)) (i32.const 16) (i32.const 20))";
    check(create, "expr_create[", [BAD_ARGUMENT; 3]);
    check(create, "expr_create[a", [BAD_ARGUMENT; 3]);
    check(create, "expr_create[]", [OK; 3]);
    let evaluate = "(call $foreign (local.get $at) (i32.const 13) (i32.const 1037)
        (i32.sub (local.get $size) (i32.const 13)) (i32.const 16) (i32.const 20))";
    check(evaluate, "expr_evaluate\0\0\0", [BAD_ARGUMENT; 3]);
    check(evaluate, "expr_evaluate\0\0\0\0", [NOT_FOUND; 3]);
    check(evaluate, "expr_evaluate", [BAD_ARGUMENT; 3]);
    check(
        "(call $foreign (local.get $at) (local.get $size) (i32.const 0) (i32.const 0) (i32.const 16) (i32.const 20))",
        "sign",
        [NOT_FOUND; 3],
    );
}

#[test]
fn a_counter_takes_no_negative_and_a_gauge_does() {
    let increment = |kind: u32, offset: i64| {
        format!(
            "(block (result i32)
               (drop (call $define (i32.const {kind}) (local.get $at) (local.get $size) (i32.const 16)))
               (call $increment (i32.load (i32.const 16)) (i64.const {offset})))"
        )
    };
    check(&increment(COUNTER, 1), "a", [OK; 3]);
    check(&increment(COUNTER, 0), "a", [BAD_ARGUMENT; 3]);
    check(&increment(COUNTER, -1), "a", [BAD_ARGUMENT; 3]);
    check(&increment(GAUGE, -1), "a", [OK; 3]);
    check(&increment(HISTOGRAM, 1), "a", [BAD_ARGUMENT; 3]);
    check("(call $metric (i32.const 400) (i32.const 16))", "", [NOT_FOUND; 3]);
    check(
        "(call $define (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 16))",
        "",
        [BAD_ARGUMENT; 3],
    );
}

#[test]
fn shared_data_is_compared_and_swapped() {
    let read = "(call $get_data (local.get $at) (local.get $size) (i32.const 16) (i32.const 20) (i32.const 24))";
    check(read, "key", [NOT_FOUND; 3]);
    let write = |cas: u32| {
        format!(
            "(call $set_data (local.get $at) (local.get $size) (i32.const 0) (i32.const 1) (i32.const {cas}))"
        )
    };
    check(&write(0), "key", [OK; 3]);
    // The first write makes version 1; the second, of that version, makes 2.
    check(&write(1), "key", [OK, OK, CAS_MISMATCH]);
    check("(call $dequeue (i32.const 1) (i32.const 16) (i32.const 20))", "", [NOT_FOUND; 3]);
}

#[test]
fn what_envoy_does_not_have_is_answered_so() {
    check(
        "(call $foreign (local.get $at) (local.get $size) (i32.const 0) (i32.const 0) (i32.const 16) (i32.const 20))",
        "sign",
        [NOT_FOUND; 3],
    );
    check("(call $effective (i32.const 99))", "", [BAD_ARGUMENT; 3]);
    check("(call $effective (i32.const 1))", "", [OK; 3]);
    check("(call $done)", "", [NOT_FOUND; 3]);
    check(
        "(call $buffer (i32.const 7) (i32.const 0) (i32.const 9) (i32.const 16) (i32.const 20))",
        "",
        [NOT_FOUND; 3],
    );
    check("(call $close (i32.const 3))", "", [OK; 3]);
    check(
        "(call $write (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 16))",
        "",
        [WASI_BADF; 3],
    );
    check("(call $clock (i32.const 2) (i64.const 0) (i32.const 16))", "", [WASI_NOTSUP; 3]);
}

#[test]
fn pointers_out_of_memory_are_refused() {
    check("(call $log (i32.const 2) (i32.const -1) (i32.const 2))", "", [INVALID_MEMORY_ACCESS; 3]);
    check(
        "(call $log (i32.const 2) (i32.const 131072) (i32.const 1))",
        "",
        [INVALID_MEMORY_ACCESS; 3],
    );
    check(
        "(call $headers (i32.const 0) (i32.const -4) (i32.const -4))",
        "",
        [INVALID_MEMORY_ACCESS; 3],
    );
    check("(call $random (i32.const -1) (i32.const 8))", "", [WASI_FAULT; 3]);
}

#[test]
fn calls_go_to_known_clusters_with_all_pseudo_headers() {
    let request = [(":method", "POST"), (":path", "/"), (":authority", "known")];
    for (cluster, lines, expected) in [
        ("known", &request[..], OK),
        ("other", &request[..], BAD_ARGUMENT),
        ("", &request[..], BAD_ARGUMENT),
        ("known", &request[..2], BAD_ARGUMENT),
        ("known", &[], BAD_ARGUMENT),
    ] {
        assert_eq!(probe_call(cluster, lines), [expected; 3], "{cluster} {lines:?}");
    }
}

#[track_caller]
fn probe_call(cluster: &str, lines: &[(&str, &str)]) -> Vec<u8> {
    let map = lines.iter().copied().collect::<Headers>().encode();
    // The map's bytes are all below 0x80, so that they are the text's.
    let text = format!("{cluster}{}", String::from_utf8(map.clone()).expect("small sizes"));
    probe(&http_call(cluster.len(), map.len()), &text)
}

fn http_call(cluster: usize, map: usize) -> String {
    let map_at = TEXT_AT + cluster;
    format!(
        "(call $http (i32.const {TEXT_AT}) (i32.const {cluster}) (i32.const {map_at}) (i32.const {map})
           (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 100) (i32.const 16))"
    )
}

#[test]
fn the_root_context_hears_the_answer_to_every_call() {
    let map =
        Headers::from_iter([(":method", "POST"), (":path", "/"), (":authority", "known")]).encode();
    let text = format!("known{}", String::from_utf8(map.clone()).expect("small sizes"));
    let call = http_call("known".len(), map.len());
    let mut vm = start(&toy(
        &text,
        &format!(
            "(func (export \"proxy_on_configure\") (param i32 i32) (result i32)
               (drop (call $tick_period (i32.const 500))) (i32.const 1))
             (func (export \"proxy_on_tick\") (param i32) (drop {call}))
             (func (export \"proxy_on_log\") (param i32) (drop {call}))
             (func (export \"proxy_on_http_call_response\") (param i32 i32 i32 i32 i32)
               (drop (call $log (i32.const 2) (i32.const {TEXT_AT}) (i32.const 5))))"
        ),
    ));
    exchange(&mut vm);
    let calls = vm.take_calls();
    assert_eq!(calls.len(), 1, "the call of on_log is sent");
    vm.answer(&calls[0], CallAnswer::default()).expect("no trap");
    assert_eq!(messages(&vm.take_log()), ["known"], "and answered, though its stream is gone");

    assert_eq!(vm.next_tick_ns(), Some(500_000_000));
    vm.tick().expect("no trap");
    let calls = vm.take_calls();
    vm.answer(&calls[0], CallAnswer::default()).expect("no trap");
    assert_eq!(messages(&vm.take_log()), ["known"]);
}

#[test]
fn randomness_follows_the_seed() {
    let text = toy(
        "",
        "(func (export \"proxy_on_vm_start\") (param i32 i32) (result i32)
           (drop (call $random (i32.const 64) (i32.const 16)))
           (drop (call $log (i32.const 2) (i32.const 64) (i32.const 16)))
           (i32.const 1))",
    );
    let module = module::from_wat(&text).expect("the module loads");
    let draw = |seed| {
        let settings = Settings { seed, ..Settings::default() };
        messages(
            &module.start(&settings).expect("it is instantiated").expect("it starts").take_log(),
        )
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn the_environment_is_what_the_settings_say() {
    let mut vm = start(&toy(
        "",
        "(func (export \"proxy_on_vm_start\") (param i32 i32) (result i32)
           (drop (call $environ (i32.const 64) (i32.const 128)))
           (drop (call $log (i32.const 2) (i32.load (i32.const 64)) (i32.const 19)))
           (i32.const 1))",
    ));
    assert_eq!(messages(&vm.take_log()), ["POD_NAME=checkout-1"]);
}

#[test]
fn a_module_that_exports_no_callback_runs() {
    exchange(&mut start("(memory (export \"memory\") 1)"));
}

/// Each callback of the ABI logs its name; an SDK exports all of them.
#[test]
fn a_module_that_exports_every_callback_runs() {
    let (mut text, mut functions) = (String::new(), String::new());
    for (name, parameters, result) in CALLBACKS {
        let (at, size) = (TEXT_AT + text.len(), name.len());
        let log = format!("(drop (call $log (i32.const 2) (i32.const {at}) (i32.const {size})))");
        let parameters = " i32".repeat(parameters);
        let result = result.map(|value| format!("(i32.const {value})"));
        let results = result.as_ref().map_or("", |_| "(result i32)");
        functions += &format!(
            "(func (export \"{name}\") (param{parameters}) {results} {log} {})",
            result.unwrap_or_default()
        );
        text += name;
    }
    let mut vm = start(&toy(&text, &functions));
    let message = |name: &str| Message {
        headers: Headers::from_iter([(name, "a")]),
        body: b"body".to_vec(),
        trailers: Headers::from_iter([("x-late", "1")]),
    };
    let context = vm.request(StreamInfo::default(), message(":path")).expect("no trap");
    vm.response(context, message(":status")).expect("no trap");
    let stream = vm.finish(context).expect("no trap").expect("a stream");
    assert_eq!(stream.interventions, []);
    vm.tick().expect("no trap");
    let expected = [
        "_initialize",
        "proxy_on_context_create",
        "proxy_on_vm_start",
        "proxy_on_configure",
        "proxy_on_context_create",
        "proxy_on_request_headers",
        "proxy_on_request_body",
        "proxy_on_request_trailers",
        "proxy_on_response_headers",
        "proxy_on_response_body",
        "proxy_on_response_trailers",
        "proxy_on_log",
        "proxy_on_done",
        // Although on_done asked to be waited for: Envoy waits for root contexts alone.
        "proxy_on_delete",
        "proxy_on_tick",
    ];
    assert_eq!(messages(&vm.take_log()), expected);
}

/// Name, number of parameters, and what it returns: true, Continue, or for on_done false.
const CALLBACKS: [(&str, usize, Option<u32>); 26] = [
    ("_initialize", 0, None),
    ("proxy_on_context_create", 2, None),
    ("proxy_on_vm_start", 2, Some(1)),
    ("proxy_on_configure", 2, Some(1)),
    ("proxy_on_tick", 1, None),
    ("proxy_on_queue_ready", 2, None),
    ("proxy_on_new_connection", 1, Some(0)),
    ("proxy_on_downstream_data", 3, Some(0)),
    ("proxy_on_downstream_connection_close", 2, None),
    ("proxy_on_upstream_data", 3, Some(0)),
    ("proxy_on_upstream_connection_close", 2, None),
    ("proxy_on_request_headers", 3, Some(0)),
    ("proxy_on_request_body", 3, Some(0)),
    ("proxy_on_request_trailers", 2, Some(0)),
    ("proxy_on_response_headers", 3, Some(0)),
    ("proxy_on_response_body", 3, Some(0)),
    ("proxy_on_response_trailers", 2, Some(0)),
    ("proxy_on_http_call_response", 5, None),
    ("proxy_on_grpc_receive_initial_metadata", 3, None),
    ("proxy_on_grpc_receive", 3, None),
    ("proxy_on_grpc_receive_trailing_metadata", 3, None),
    ("proxy_on_grpc_close", 3, None),
    ("proxy_on_foreign_function", 3, None),
    ("proxy_on_log", 1, None),
    ("proxy_on_done", 1, Some(0)),
    ("proxy_on_delete", 1, None),
];

#[test]
fn a_trap_is_a_fault_that_names_its_callback() {
    let mut vm = start(&toy(
        "",
        "(func (export \"proxy_on_request_headers\") (param i32 i32 i32) (result i32) unreachable)",
    ));
    let fault = vm.request(StreamInfo::default(), Message::default()).expect_err("a trap");
    assert_eq!(
        fault.to_string(),
        "proxy_on_request_headers trapped: wasm trap: wasm `unreachable` instruction executed"
    );
}

#[test]
fn pauses_and_local_responses_are_noticed() {
    let mut vm = start(&toy(
        "",
        "(func (export \"proxy_on_request_headers\") (param i32 i32 i32) (result i32)
           (drop (call $local_response (i32.const 403) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
             (i32.const 0) (i32.const 0) (i32.const -1)))
           (i32.const 1))",
    ));
    let context = vm.request(StreamInfo::default(), Message::default()).expect("no trap");
    let stream = vm.finish(context).expect("no trap").expect("a stream");
    assert_eq!(
        stream.interventions,
        [
            Intervention::LocalResponse(403),
            Intervention::Paused { callback: "proxy_on_request_headers", action: 1 }
        ]
    );
}

#[test]
fn memory_that_the_module_takes_is_seen() {
    let mut vm = start(&toy(
        "",
        "(func (export \"proxy_on_request_headers\") (param i32 i32 i32) (result i32)
           (drop (memory.grow (i32.const 1))) (i32.const 0))",
    ));
    let before = vm.memory_size();
    exchange(&mut vm);
    assert_eq!(vm.memory_size(), before + 65_536);
}

#[test]
fn modules_that_envoy_would_not_load_are_refused() {
    let refused = |text: &str| {
        let started =
            module::from_wat(text).and_then(|module| module.start(&Settings::default()).map(drop));
        format!("{:#}", started.err().unwrap_or_else(|| anyhow::anyhow!("nothing")))
    };
    let unknown = "(import \"wasi_snapshot_preview1\" \"fd_filestat_get\" (func (param i32 i32) (result i32)))";
    assert!(
        refused(unknown).contains("expected imports that Envoy has, but found"),
        "{}",
        refused(unknown)
    );
    let types = "(func (export \"proxy_on_log\"))";
    assert!(
        refused(types).contains("expected proxy_on_log with the types of the ABI"),
        "{}",
        refused(types)
    );
}

fn messages(log: &[LogLine]) -> Vec<String> {
    log.iter().map(|line| line.message.clone()).collect()
}

const TEXT_AT: usize = 1024;

const REQUEST_HEADERS: u32 = 0;
const RESPONSE_HEADERS: u32 = 2;
const RESPONSE_TRAILERS: u32 = 3;
const COUNTER: u32 = 0;
const GAUGE: u32 = 1;
const HISTOGRAM: u32 = 2;

const OK: u8 = 0;
const NOT_FOUND: u8 = 1;
const BAD_ARGUMENT: u8 = 2;
const SERIALIZATION_FAILURE: u8 = 3;
const INVALID_MEMORY_ACCESS: u8 = 6;
const CAS_MISMATCH: u8 = 8;
const INTERNAL_FAILURE: u8 = 10;
const WASI_BADF: u8 = 8;
const WASI_FAULT: u8 = 21;
const WASI_NOTSUP: u8 = 58;
