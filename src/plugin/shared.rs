//! Numbers that all workers of an Envoy share: Envoy keeps them by key, for each `vm_id`.

use proxy_wasm::types::Bytes;

use super::host::{self, NotShared};

/// Returns the number at a key, and none where there is none.
pub fn number(key: &str) -> Option<u64> {
    host::shared_data(key).ok().flatten().and_then(|(bytes, _)| from_bytes(bytes))
}

/// Replaces the number at a key by what `next` makes of it, and tells whether that was done; where
/// `next` returns nothing, the number stays.
pub fn update(key: &str, next: impl Fn(Option<u64>) -> Option<u64>) -> bool {
    for _ in 0..MAX_TRIES {
        let Ok(found) = host::shared_data(key) else {
            return false;
        };
        let (bytes, version) = found.unwrap_or((Bytes::new(), NO_VERSION));
        let Some(next) = next(from_bytes(bytes)) else {
            return false;
        };
        match host::set_shared_data(key, &next.to_le_bytes(), version) {
            Ok(()) => return true,
            Err(NotShared::Changed) => {}
            Err(NotShared::Failed) => return false,
        }
    }
    false
}

fn from_bytes(bytes: Bytes) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_le_bytes)
}

/// Every try that fails is one of another worker that succeeded.
const MAX_TRIES: u32 = 16;
/// A version that no value has before four thousand million writes. With it a value is made, and one
/// that another worker made meanwhile is not replaced; with 0 it would be.
const NO_VERSION: u32 = u32::MAX;
