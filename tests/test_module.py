"""The module itself: its imports, its exports, its size, and the module that Cargo alone builds."""

import topology
from conftest import lane
from shared_envoys import SharedTopology
from traffic import Client

LARGEST_MODULE = 640 * 1024
# What Cargo builds, before wasm-opt.
PLAIN_MODULE = topology.MODULE.parent / "wasm32-wasip1" / "wasm" / "sidespan.wasm"

# Envoy calls each callback that is exported, which costs even where it does nothing.
EXPORTS = """
    memory _initialize proxy_abi_version_0_2_1 proxy_on_memory_allocate proxy_on_context_create
    proxy_on_configure proxy_on_tick proxy_on_http_call_response proxy_on_request_headers
    proxy_on_response_headers proxy_on_log proxy_on_delete
""".split()

# What Envoy 1.36.4 links: found by loading it with modules of one import each, for every
# function of proxy-wasm's ABI 0.2.1 and of WASI preview 1.
# https://github.com/proxy-wasm/spec/tree/main/abi-versions/v0.2.1
PROVIDED = {
    "env": """
        proxy_log proxy_get_log_level proxy_get_status proxy_set_property proxy_get_property
        proxy_continue_stream proxy_close_stream proxy_send_local_response
        proxy_get_shared_data proxy_set_shared_data proxy_register_shared_queue
        proxy_resolve_shared_queue proxy_enqueue_shared_queue proxy_dequeue_shared_queue
        proxy_get_header_map_value proxy_add_header_map_value proxy_replace_header_map_value
        proxy_remove_header_map_value proxy_get_header_map_pairs proxy_set_header_map_pairs
        proxy_get_header_map_size proxy_grpc_call proxy_grpc_stream proxy_grpc_send
        proxy_grpc_cancel proxy_grpc_close proxy_get_buffer_bytes proxy_get_buffer_status
        proxy_set_buffer_bytes proxy_http_call proxy_define_metric proxy_increment_metric
        proxy_record_metric proxy_get_metric proxy_set_effective_context proxy_done
        proxy_call_foreign_function proxy_set_tick_period_milliseconds
        proxy_get_current_time_nanoseconds
    """.split(),
    "wasi_snapshot_preview1": """
        args_get args_sizes_get environ_get environ_sizes_get clock_time_get fd_close
        fd_fdstat_get fd_fdstat_set_flags fd_prestat_get fd_prestat_dir_name fd_read fd_seek
        fd_write path_open poll_oneoff proc_exit sched_yield random_get
    """.split(),
}
_IMPORT_SECTION, _EXPORT_SECTION = 2, 7
_FUNCTION = 0


class _Reader:
    """Reads the numbers and names of WebAssembly's binary format.

    https://webassembly.github.io/spec/core/binary/modules.html
    """

    def __init__(self, data: bytes):
        self.data = data
        self.at = 0

    def bytes(self, count: int) -> bytes:
        self.at += count
        assert self.at <= len(self.data), "expected more bytes, but found the end"
        return self.data[self.at - count : self.at]

    def unsigned(self) -> int:
        value = shift = 0
        while True:
            (byte,) = self.bytes(1)
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def name(self) -> str:
        return self.bytes(self.unsigned()).decode()


def section(module: bytes, number: int) -> _Reader:
    """Returns what stands in a section."""
    reader = _Reader(module)
    assert reader.bytes(8) == b"\0asm\1\0\0\0"
    while True:
        (found,) = reader.bytes(1)
        content = _Reader(reader.bytes(reader.unsigned()))
        if found == number:
            return content


def imports(module: bytes) -> list[tuple[str, str]]:
    """Returns the module and name of every import, all of which must be functions."""
    content = section(module, _IMPORT_SECTION)
    found = []
    for _ in range(content.unsigned()):
        found.append((content.name(), content.name()))
        assert content.bytes(1) == bytes([_FUNCTION]), (
            f"expected a function, but found another kind: {found[-1]}"
        )
        content.unsigned()
    return found


def exports(module: bytes) -> list[str]:
    """Returns the name of every export."""
    content = section(module, _EXPORT_SECTION)
    found = []
    for _ in range(content.unsigned()):
        found.append(content.name())
        content.bytes(1)
        content.unsigned()
    return found


def test_oldest_envoy_provides_every_import(module):
    missing = [
        (source, name)
        for source, name in imports(module.read_bytes())
        if name not in PROVIDED.get(source, [])
    ]
    assert missing == []


def test_only_callbacks_that_do_something_are_exported(module):
    assert sorted(exports(module.read_bytes())) == sorted(EXPORTS)


def test_module_that_cargo_alone_builds_runs(outermost_envoy):
    """It exports all callbacks of the SDK, and works as the optimised one does."""
    assert len(exports(PLAIN_MODULE.read_bytes())) > len(EXPORTS)
    lanes = {"": lane(1, module=PLAIN_MODULE)}
    with SharedTopology(lanes, envoy=outermost_envoy) as running, Client(running, "1.1") as client:
        for _ in range(5):
            assert client.send(client.lane("").backend_inbound, "/a").status == 200
        stats = running.wait_for_stats(lambda stats: stats["sidespan_spans_exported_total"] == 5)
        assert "[error]" not in running.log()
    assert stats["sidespan_spans_recorded_total"] == 5


def test_module_is_small(module):
    assert module.stat().st_size <= LARGEST_MODULE
