//! Numbers that all workers of an Envoy share: Envoy keeps them by key, for each `vm_id`.

use proxy_wasm::types::Bytes;

use super::host;
use crate::sampling::shared_number;

/// Returns the number at a key; none if it has no value.
pub(super) fn number(key: &str) -> Option<u64> {
    host::shared_data(key).ok().flatten().and_then(|(bytes, _)| from_bytes(bytes))
}

/// Replaces the number at a key by the result of `next`, and tells whether that succeeded. Nothing is written
/// if `next` returns `None`.
pub(super) fn update(key: &str, next: impl Fn(Option<u64>) -> Option<u64>) -> bool {
    let read = || {
        let found = host::shared_data(key).ok()?;
        Some(found.map(|(bytes, version)| (from_bytes(bytes), version)))
    };
    let write = |number: u64, version| host::set_shared_data(key, &number.to_le_bytes(), version);
    shared_number::update(read, write, next)
}

fn from_bytes(bytes: Bytes) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_le_bytes)
}
