//! Callbacks: which are called in which order, and what they can do to a stream and to their VM.

use sidespan_harness::host::{Headers, Intervention, Message, StreamInfo};

use super::*;

#[test]
fn a_module_needs_no_callbacks() {
    exchange(&mut start("(memory (export \"memory\") 1)"));
}

/// The module exports every callback of the ABI, as SDKs do; each logs its name.
#[test]
fn callbacks_are_called_in_the_order_of_envoy() {
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
        // on_done returned false, which makes Envoy wait for a root context but not for a stream.
        "proxy_on_delete",
        "proxy_on_tick",
    ];
    assert_eq!(messages(&vm.take_log()), expected);
}

/// Name, number of parameters, and result: true, Continue, or for on_done false.
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
fn a_trap_names_its_callback() {
    let mut vm = start(&toy(
        "",
        "(func (export \"proxy_on_request_headers\") (param i32 i32 i32) (result i32) unreachable)",
    ));
    let trap = vm.request(StreamInfo::default(), Message::default()).expect_err("a trap");
    assert_eq!(
        trap.to_string(),
        "proxy_on_request_headers trapped: wasm trap: wasm `unreachable` instruction executed"
    );
}

#[test]
fn pauses_and_local_responses_are_recorded() {
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
fn memory_size_follows_the_module() {
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
fn modules_that_envoy_does_not_load_are_errors() {
    let error = |text: &str| {
        let started =
            module::from_wat(text).and_then(|module| module.start(&Settings::default()).map(drop));
        format!("{:#}", started.err().unwrap_or_else(|| anyhow::anyhow!("nothing")))
    };
    let unknown = "(import \"wasi_snapshot_preview1\" \"fd_filestat_get\" (func (param i32 i32) (result i32)))";
    assert!(
        error(unknown).contains("expected imports that Envoy has, but found"),
        "{}",
        error(unknown)
    );
    let types = "(func (export \"proxy_on_log\"))";
    assert!(
        error(types).contains("expected proxy_on_log with the types of the ABI"),
        "{}",
        error(types)
    );
}

#[test]
fn the_effective_context_must_exist() {
    check("(call $effective (i32.const 99))", "", [BAD_ARGUMENT; 3]);
    check("(call $effective (i32.const 1))", "", [OK; 3]);
}

#[test]
fn a_stream_cannot_be_kept_alive() {
    check("(call $done)", "", [NOT_FOUND; 3]);
}
