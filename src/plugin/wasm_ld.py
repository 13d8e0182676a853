#!/usr/bin/env python3
"""Links the module without the exports that the filter does not implement.

usage: wasm_ld.py LINKER-ARGUMENTS...   (as rustc calls its linker)

The SDK exports every callback of the ABI. Envoy calls each one that is exported, for every request,
and a call that does nothing costs as much as reading a header. rustc has no option that takes an
export of a dependency back, so its arguments are filtered on their way to the linker, which then
also leaves out the code behind them.
"""

import os
import subprocess
import sys

KEPT_CALLBACKS = {
    "proxy_on_memory_allocate",
    "proxy_on_vm_start",
    "proxy_on_configure",
    "proxy_on_context_create",
    "proxy_on_tick",
    "proxy_on_http_call_response",
    "proxy_on_request_headers",
    "proxy_on_log",
    "proxy_on_delete",
}


def kept(arguments):
    """Returns the arguments without `--export` pairs of callbacks that are not kept."""
    pairs = iter(arguments)
    for argument in pairs:
        if argument != "--export":
            yield argument
            continue
        symbol = next(pairs, "")
        if not symbol.startswith("proxy_on_") or symbol in KEPT_CALLBACKS:
            yield from (argument, symbol)


def rust_lld():
    def printed(*what):
        return subprocess.run(["rustc", *what], check=True, capture_output=True, text=True).stdout

    host = next(line[6:] for line in printed("-vV").splitlines() if line.startswith("host: "))
    return os.path.join(printed("--print", "sysroot").strip(), "lib/rustlib", host, "bin/rust-lld")


if __name__ == "__main__":
    linker = rust_lld()
    os.execv(linker, [linker, *kept(sys.argv[1:])])
