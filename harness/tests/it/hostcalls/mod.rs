//! Hostcalls return what Envoy returns, in each phase. The tests make them from small modules in
//! WebAssembly's text format.

mod callbacks;
mod calls;
mod foreign;
mod messages;
mod metrics;
mod properties;
mod shared_data;
mod wasi;

use sidespan_harness::host::{Direction, LogLine, Message, Node, Settings, StreamInfo, Vm};

use crate::module;

/// Makes one hostcall in the request phase, in the response phase and in on_log, and compares the three
/// statuses. `text` is in memory, and `call` has its address and size in `$at` and `$size`.
#[track_caller]
fn check(call: &str, text: &str, expected: [u8; 3]) {
    assert_eq!(statuses(call, text), expected, "{call} with {text:?}");
}

/// Returns the statuses of a hostcall in the three phases. The module logs each as one character.
#[track_caller]
fn statuses(call: &str, text: &str) -> Vec<u8> {
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

/// Returns the body of a module with an allocator, imports with short names, `text` in its memory, and
/// these functions.
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

/// Starts a VM of the module.
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
        .expect("the configuration is accepted")
}

/// Sends a request without TLS that an upstream answers.
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
        properties: properties(),
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

/// Properties of the exchange in addition to Envoy's own.
fn properties() -> Vec<(Vec<String>, serde_json::Value)> {
    let members = serde_json::json!({
        "canary": true, "double": 1.5, "list": ["a", 9], "null": null, "map": {"a": 1}
    });
    let parts = |path: &str| path.split('.').map(str::to_owned).collect();
    vec![
        (parts("metadata.given"), members),
        (parts("metadata"), serde_json::json!({})),
        (parts("xds.virtual_host_name"), serde_json::Value::Null),
        (parts("request.given"), "a".into()),
        (parts("response.given"), "a".into()),
        (parts("upstream.given"), "a".into()),
    ]
}

fn messages(log: &[LogLine]) -> Vec<String> {
    log.iter().map(|line| line.message.clone()).collect()
}

const TEXT_AT: usize = 1024;

const OK: u8 = 0;
const NOT_FOUND: u8 = 1;
const BAD_ARGUMENT: u8 = 2;
const SERIALIZATION_FAILURE: u8 = 3;
const INVALID_MEMORY_ACCESS: u8 = 6;
const CAS_MISMATCH: u8 = 8;
const INTERNAL_FAILURE: u8 = 10;
