//! Limits that hold for all workers of an Envoy: their states are in Envoy's shared data.

use proxy_wasm::types::Bytes;

use super::host::{self, NotShared};
use crate::limit::{Limit, take_each};

/// Takes one from each limit, or from none; the error is the index of the one that refuses. A limit
/// whose state the host does not keep, or that others change again and again, refuses.
pub fn take(limits: [Option<&Limit>; 2]) -> Result<(), usize> {
    take_each(limits, &mut take_one, &mut |limit| {
        // Where that fails, one is lost until the limit fills up again.
        update(limit, |state| state.map(|state| limit.give_back(state)));
    })
}

/// Takes one from a limit, and tells whether one was left.
pub fn take_one(limit: &Limit) -> bool {
    update(limit, |state| limit.take(state, host::now()))
}

/// Replaces the state of a limit by what `next` makes of it, and tells whether that was done; where
/// `next` returns nothing, the state stays.
fn update(limit: &Limit, next: impl Fn(Option<u64>) -> Option<u64>) -> bool {
    for _ in 0..MAX_TRIES {
        let Ok(found) = host::shared_data(limit.key()) else {
            return false;
        };
        let (state, version) = found.unwrap_or((Bytes::new(), NO_VERSION));
        let state = state.try_into().ok().map(u64::from_le_bytes);
        let Some(next) = next(state) else {
            return false;
        };
        match host::set_shared_data(limit.key(), &next.to_le_bytes(), version) {
            Ok(()) => return true,
            Err(NotShared::Changed) => {}
            Err(NotShared::Failed) => return false,
        }
    }
    false
}

/// Every try that fails is one of another worker that succeeded.
const MAX_TRIES: u32 = 16;
/// A version that no value has before four thousand million writes. With it a value is made, and one
/// that another worker made meanwhile is not replaced; with 0 it would be.
const NO_VERSION: u32 = u32::MAX;
