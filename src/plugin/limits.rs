//! Limits that hold for all workers of an Envoy: their states are in Envoy's shared data.

use super::{host, shared};
use crate::sampling::limit::{BurstShare, Limit, take_permits};

/// Takes one from each limit, or from none; the error is the index of the one that refuses. A limit
/// whose state the host does not keep, or that others change again and again, refuses.
pub fn take(limits: [Option<(&Limit, BurstShare)>; 2]) -> Result<(), usize> {
    take_permits(limits, &mut take_one, &mut |limit| {
        // Where that fails, one is lost until the limit fills up again.
        shared::update(limit.key(), |state| state.map(|state| limit.give_back(state)));
    })
}

/// Takes one from a limit, and tells whether one was left.
fn take_one(limit: &Limit, share: BurstShare) -> bool {
    shared::update(limit.key(), |state| limit.take(state, host::now(), share))
}

/// Tells whether a message about a subject may be logged: once a minute, by all workers together.
pub fn may_log(kind: &str, subject: &str) -> bool {
    let name = ["log/", kind, "/", subject].concat();
    Limit::new(&name, LOGGED_PER_SECOND, 1).is_some_and(|limit| take_one(&limit, BurstShare::Full))
}

const LOGGED_PER_SECOND: f64 = 1.0 / 60.0;
