//! The host has the whole ABI 0.2.1, and the part of WASI that Envoy has; no more.

use std::collections::BTreeSet;

use sidespan_harness::host::import_names;

#[test]
fn every_hostcall_of_the_abi_is_linked_and_nothing_else() {
    let wasi = WASI.iter().flat_map(|name| {
        [format!("wasi_snapshot_preview1.{name}"), format!("wasi_unstable.{name}")]
    });
    let env = ABI.iter().map(|name| format!("env.proxy_{name}"));
    let expected: BTreeSet<_> = env.chain(wasi).collect();
    let found: BTreeSet<_> = import_names().expect("the ABI links").into_iter().collect();
    assert_eq!(found, expected);
}

/// <https://github.com/proxy-wasm/spec/tree/main/abi-versions/v0.2.1>, functions implemented in the host.
const ABI: [&str; 39] = [
    "log",
    "get_log_level",
    "get_current_time_nanoseconds",
    "set_tick_period_milliseconds",
    "get_buffer_bytes",
    "get_buffer_status",
    "set_buffer_bytes",
    "get_header_map_pairs",
    "get_header_map_size",
    "get_header_map_value",
    "set_header_map_pairs",
    "add_header_map_value",
    "replace_header_map_value",
    "remove_header_map_value",
    "continue_stream",
    "close_stream",
    "get_status",
    "send_local_response",
    "http_call",
    "grpc_call",
    "grpc_stream",
    "grpc_send",
    "grpc_cancel",
    "grpc_close",
    "set_effective_context",
    "done",
    "get_property",
    "set_property",
    "define_metric",
    "get_metric",
    "record_metric",
    "increment_metric",
    "get_shared_data",
    "set_shared_data",
    "register_shared_queue",
    "resolve_shared_queue",
    "dequeue_shared_queue",
    "enqueue_shared_queue",
    "call_foreign_function",
];

/// What Envoy 1.36 links for a module's `wasi_snapshot_preview1`.
const WASI: [&str; 15] = [
    "args_get",
    "args_sizes_get",
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
    "fd_close",
    "fd_fdstat_get",
    "fd_prestat_dir_name",
    "fd_prestat_get",
    "fd_read",
    "fd_seek",
    "fd_write",
    "path_open",
    "proc_exit",
    "random_get",
];
