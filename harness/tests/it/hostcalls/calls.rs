//! HTTP calls, and who gets their responses.

use sidespan_harness::host::{CallResponse, Headers};

use super::*;

#[test]
fn a_call_needs_a_known_cluster_and_all_pseudo_headers() {
    let request = [(":method", "POST"), (":path", "/"), (":authority", "known")];
    for (cluster, lines, expected) in [
        ("known", &request[..], OK),
        ("other", &request[..], BAD_ARGUMENT),
        ("", &request[..], BAD_ARGUMENT),
        ("known", &request[..2], BAD_ARGUMENT),
        ("known", &[], BAD_ARGUMENT),
    ] {
        assert_eq!(call_statuses(cluster, lines), [expected; 3], "{cluster} {lines:?}");
    }
}

#[track_caller]
fn call_statuses(cluster: &str, lines: &[(&str, &str)]) -> Vec<u8> {
    let map = lines.iter().copied().collect::<Headers>().encode();
    // All bytes of the serialised map are below 0x80, so they are UTF-8.
    let text = format!("{cluster}{}", String::from_utf8(map.clone()).expect("small sizes"));
    statuses(&http_call(cluster.len(), map.len()), &text)
}

/// Returns an HTTP call with a cluster and a header map of these sizes, one after the other at `TEXT_AT`.
fn http_call(cluster: usize, map: usize) -> String {
    let map_at = TEXT_AT + cluster;
    format!(
        "(call $http (i32.const {TEXT_AT}) (i32.const {cluster}) (i32.const {map_at}) (i32.const {map})
           (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 100) (i32.const 16))"
    )
}

#[test]
fn the_root_context_gets_the_response_to_every_call() {
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
    assert_eq!(calls.len(), 1, "on_log can make a call");
    vm.respond(&calls[0], CallResponse::default()).expect("no trap");
    assert_eq!(
        messages(&vm.take_log()),
        ["known"],
        "its response arrives although the stream is gone"
    );

    assert_eq!(vm.next_tick_ns(), Some(500_000_000));
    vm.tick().expect("no trap");
    let calls = vm.take_calls();
    vm.respond(&calls[0], CallResponse::default()).expect("no trap");
    assert_eq!(messages(&vm.take_log()), ["known"]);
}
