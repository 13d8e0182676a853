//! Limits over all workers of an Envoy. Their states are in Envoy's shared data.

use super::{host, shared};
use crate::export::log;
use crate::sampling::limit::{BurstShare, Limit, Permits, take_permits};

/// Takes permits from each limit, or from none; the error is the index of the limit that refuses. A
/// limit refuses too if the host does not store its state, or other workers keep changing it.
pub(super) fn take(
    limits: [Option<(&Limit, BurstShare)>; 2],
    permits: Permits,
) -> Result<(), usize> {
    take_permits(limits, &mut |limit, share| take_from(limit, share, permits), &mut |limit| {
        // If that fails, permits are lost until the limit fills up again.
        shared::update(limit.key(), |state| state.map(|state| limit.give_back(state, permits)));
    })
}

/// Takes permits from a limit, and tells whether the limit granted them.
fn take_from(limit: &Limit, share: BurstShare, permits: Permits) -> bool {
    shared::update(limit.key(), |state| limit.take(state, host::now(), share, permits))
}

/// Tells whether to log a message about a subject: once a minute over all workers.
pub(super) fn may_log(kind: &str, subject: &str) -> bool {
    log::limit(kind, subject).is_some_and(|limit| take_from(&limit, BurstShare::Full, Permits::One))
}
