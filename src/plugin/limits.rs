//! Limits that hold for all workers of an Envoy: their states are in Envoy's shared data.

use super::host::{self, Failure};
use crate::limit::Limit;

/// Takes one from a limit, and tells whether one was left. Where the host does not keep the state,
/// or others change it again and again, none is.
pub fn take(limit: &Limit) -> bool {
    for _ in 0..MAX_TRIES {
        let (state, version) = match host::shared_data(limit.key()) {
            Ok((state, version)) => (state.as_slice().try_into().ok(), version),
            Err(Failure::NOT_FOUND) => (None, NO_VERSION),
            Err(_) => return false,
        };
        let state = state.map(u64::from_le_bytes);
        let Some(next) = limit.take(state, host::now()) else {
            return false;
        };
        match host::replace_shared_data(limit.key(), &next.to_le_bytes(), version) {
            Ok(()) => return true,
            Err(Failure::CAS_MISMATCH) => {}
            Err(_) => return false,
        }
    }
    false
}

/// Every try that fails is one of another worker that succeeded.
const MAX_TRIES: u32 = 16;
/// A version that no value has before four thousand million writes. With it a value is made, and one
/// that another worker made meanwhile is not replaced; with 0 it would be.
const NO_VERSION: u32 = u32::MAX;
