//! The host has exactly the imports that Envoy has: the whole ABI 0.2.1, and a part of WASI.

use std::collections::BTreeSet;

use sidespan_harness::host::{Faults, import_names};

use crate::module;

#[test]
fn every_hostcall_of_the_abi_is_linked_and_nothing_else() {
    let expected: BTreeSet<_> =
        imports().map(|(module, name, _)| format!("{module}.{name}")).collect();
    let found: BTreeSet<_> = import_names().expect("the ABI links").into_iter().collect();
    assert_eq!(found, expected);
}

/// An SDK imports all hostcalls, whether the plugin makes them or not.
#[test]
fn a_module_can_import_every_hostcall_with_the_types_of_the_abi() {
    let declared = imports().map(|(module, name, parameters)| {
        let parameters: String = parameters.chars().map(|size| format!(" {size}")).collect();
        let parameters = parameters.replace('i', "i32").replace('j', "i64");
        let result = if name == "proc_exit" { "" } else { "(result i32)" };
        format!("(import \"{module}\" \"{name}\" (func (param{parameters}) {result}))\n")
    });
    module::from_wat(&declared.collect::<String>()).expect("the module links");
}

#[test]
fn every_import_has_a_list_of_envoys_statuses() {
    for (_, name, _) in imports() {
        assert!(Faults::statuses_of(&name).is_some(), "{name}");
    }
    assert_eq!(Faults::statuses_of("proxy_none"), None);
}

/// Returns module, name and parameters of all imports.
fn imports() -> impl Iterator<Item = (&'static str, String, &'static str)> {
    let abi = ABI.iter().map(|(name, parameters)| ("env", format!("proxy_{name}"), *parameters));
    let wasi = ["wasi_snapshot_preview1", "wasi_unstable"].into_iter().flat_map(|module| {
        WASI.iter().map(move |(name, parameters)| (module, (*name).to_owned(), *parameters))
    });
    abi.chain(wasi)
}

/// "Functions implemented in the host" of <https://github.com/proxy-wasm/spec/tree/main/abi-versions/v0.2.1>,
/// and their parameters: `i` has 32 bits, `j` has 64.
const ABI: [(&str, &str); 39] = [
    ("log", "iii"),
    ("get_log_level", "i"),
    ("get_current_time_nanoseconds", "i"),
    ("set_tick_period_milliseconds", "i"),
    ("get_buffer_bytes", "iiiii"),
    ("get_buffer_status", "iii"),
    ("set_buffer_bytes", "iiiii"),
    ("get_header_map_pairs", "iii"),
    ("get_header_map_size", "ii"),
    ("get_header_map_value", "iiiii"),
    ("set_header_map_pairs", "iii"),
    ("add_header_map_value", "iiiii"),
    ("replace_header_map_value", "iiiii"),
    ("remove_header_map_value", "iii"),
    ("continue_stream", "i"),
    ("close_stream", "i"),
    ("get_status", "iii"),
    ("send_local_response", "iiiiiiii"),
    ("http_call", "iiiiiiiiii"),
    ("grpc_call", "iiiiiiiiiiii"),
    ("grpc_stream", "iiiiiiiii"),
    ("grpc_send", "iiii"),
    ("grpc_cancel", "i"),
    ("grpc_close", "i"),
    ("set_effective_context", "i"),
    ("done", ""),
    ("get_property", "iiii"),
    ("set_property", "iiii"),
    ("define_metric", "iiii"),
    ("get_metric", "ii"),
    ("record_metric", "ij"),
    ("increment_metric", "ij"),
    ("get_shared_data", "iiiii"),
    ("set_shared_data", "iiiii"),
    ("register_shared_queue", "iii"),
    ("resolve_shared_queue", "iiiii"),
    ("dequeue_shared_queue", "iii"),
    ("enqueue_shared_queue", "iii"),
    ("call_foreign_function", "iiiiii"),
];

/// The functions of `wasi_snapshot_preview1` in Envoy 1.36.
const WASI: [(&str, &str); 18] = [
    ("args_get", "ii"),
    ("args_sizes_get", "ii"),
    ("clock_time_get", "iji"),
    ("environ_get", "ii"),
    ("environ_sizes_get", "ii"),
    ("fd_close", "i"),
    ("fd_fdstat_get", "ii"),
    ("fd_fdstat_set_flags", "ii"),
    ("fd_prestat_dir_name", "iii"),
    ("fd_prestat_get", "ii"),
    ("fd_read", "iiii"),
    ("fd_seek", "ijii"),
    ("fd_write", "iiii"),
    ("path_open", "iiiiijjii"),
    ("poll_oneoff", "iiii"),
    ("proc_exit", "i"),
    ("random_get", "ii"),
    ("sched_yield", ""),
];
