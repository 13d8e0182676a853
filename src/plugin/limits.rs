//! Limits over all workers of an Envoy. Their states are in Envoy's shared data.

use super::{host, shared};
use crate::sampling::limit::{BurstShare, Limit, take_permits};

/// Takes a permit from each limit, or from none; the error is the index of the limit that refuses. A
/// limit refuses too if the host does not store its state, or other workers keep changing it.
pub(super) fn take(limits: [Option<(&Limit, BurstShare)>; 2]) -> Result<(), usize> {
    take_permits(limits, &mut take_one, &mut |limit| {
        // If that fails, a permit is lost until the limit fills up again.
        shared::update(limit.key(), |state| state.map(|state| limit.give_back(state)));
    })
}

/// Takes a permit from a limit, and tells whether one was left.
fn take_one(limit: &Limit, share: BurstShare) -> bool {
    shared::update(limit.key(), |state| limit.take(state, host::now(), share))
}

/// Tells whether to log a message about a subject: once a minute over all workers.
pub(super) fn may_log(kind: &str, subject: &str) -> bool {
    let name = ["log/", kind, "/", subject].concat();
    Limit::new(&name, LOGGED_PER_SECOND, 1).is_some_and(|limit| take_one(&limit, BurstShare::Full))
}

const LOGGED_PER_SECOND: f64 = 1.0 / 60.0;
