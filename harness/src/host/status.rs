//! Status of a hostcall, as proxy-wasm ABI 0.2.1 numbers it.
//! <https://github.com/proxy-wasm/spec/tree/main/abi-versions/v0.2.1#proxy_status_t>

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Status {
    Ok = 0,
    NotFound = 1,
    BadArgument = 2,
    SerializationFailure = 3,
    InvalidMemoryAccess = 6,
    Empty = 7,
    CasMismatch = 8,
    InternalFailure = 10,
}
