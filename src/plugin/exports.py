"""Takes exports out of the module that the filter does not implement.

usage: exports.py MODULE OUTPUT

The SDK exports every callback of the ABI. Envoy calls each one that is exported, for every request,
and a call that does nothing costs as much as reading a header. There is no linker option for it.
"""

import sys

KEPT = {
    "memory",
    "_initialize",
    "proxy_abi_version_0_2_1",
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
MAGIC = b"\0asm\1\0\0\0"
EXPORT_SECTION = 7


def read_leb128(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def leb128(value):
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def kept_exports(section):
    """Returns the export section with the entries in KEPT alone, and their names."""
    count, at = read_leb128(section, 0)
    names, entries = set(), []
    for _ in range(count):
        start = at
        length, at = read_leb128(section, at)
        name = section[at : at + length].decode()
        _, at = read_leb128(section, at + length + 1)
        if name in KEPT:
            names.add(name)
            entries.append(section[start:at])
    return leb128(len(entries)) + b"".join(entries), names


def trimmed(module):
    if not module.startswith(MAGIC):
        sys.exit("expected a WebAssembly module, but found something else")
    output, at, names = bytearray(MAGIC), len(MAGIC), set()
    while at < len(module):
        kind = module[at]
        size, start = read_leb128(module, at + 1)
        section, at = module[start : start + size], start + size
        if kind == EXPORT_SECTION:
            section, names = kept_exports(section)
        output += bytes([kind]) + leb128(len(section)) + section
    if names != KEPT:
        sys.exit(f"expected the module to export {sorted(KEPT - names)}, but found no such export")
    return bytes(output)


if __name__ == "__main__":
    source, target = sys.argv[1:]
    with open(source, "rb") as file:
        module = trimmed(file.read())
    with open(target, "wb") as file:
        file.write(module)
