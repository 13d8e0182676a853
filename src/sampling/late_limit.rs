//! The limit of late spans, divided so that a flood for one reason leaves permits for the others.

use super::export_reason::ExportReason;
use super::limit::{Limit, MIN_PER_SECOND};

/// The limit of late spans: a part for each reason, and a common part for all of them.
#[derive(Debug, Clone)]
pub struct LateLimit {
    common: Limit,
    by_reason: Vec<(ExportReason, Limit)>,
}

impl LateLimit {
    /// Divides a limit: half of it is common to all reasons, the other half is divided evenly among
    /// them. All of it is common if there is one reason only, or if the burst is too small to divide.
    /// Returns none if a number is out of its range.
    pub fn new(reasons: &[ExportReason], per_second: f64, burst: u32) -> Option<Self> {
        let count = reasons.len() as u32;
        if count < 2 || burst <= count {
            let common = Limit::new("export_on", per_second, burst)?;
            return Some(Self { common, by_reason: Vec::new() });
        }
        let burst_of_reason = (burst / 2 / count).max(1);
        let rate_of_reason = (per_second / 2.0 / f64::from(count)).max(MIN_PER_SECOND);
        let common_rate = (per_second / 2.0).max(MIN_PER_SECOND);
        let common = Limit::new("export_on", common_rate, burst - count * burst_of_reason)?;
        let by_reason = reasons.iter().map(|reason| {
            let name = format!("export_on/{reason:?}");
            Some((*reason, Limit::new(&name, rate_of_reason, burst_of_reason)?))
        });
        Some(Self { common, by_reason: by_reason.collect::<Option<_>>()? })
    }

    /// Takes the permits of a late span from the part of this reason, or else from the common part. Tells
    /// whether they were granted. `take_permits` takes them from the given limit and from the limit of all
    /// spans. Its error is 0 if the given limit refuses, and 1 if the limit of all spans refuses.
    pub fn take(
        &self,
        reason: ExportReason,
        take_permits: &mut dyn FnMut(&Limit) -> Result<(), usize>,
    ) -> bool {
        let of_reason = self.by_reason.iter().find(|(of, _)| *of == reason);
        match of_reason.map(|(_, limit)| take_permits(limit)) {
            Some(Ok(())) => true,
            // The limit of all spans would refuse the common part too.
            Some(Err(1..)) => false,
            Some(Err(0)) | None => take_permits(&self.common).is_ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::sampling::limit::{BurstShare, Permits};

    const NOW: u64 = 1_800_000_000_000_000_000;

    /// Requests permits at one moment, and checks how many are granted for each reason in turn.
    #[track_caller]
    fn check(burst: u32, requested: &[(ExportReason, u32)], expected: &[u32]) {
        let reasons =
            [ExportReason::StatusClass(4), ExportReason::StatusClass(5), ExportReason::Reset];
        let limit = LateLimit::new(&reasons, 10.0, burst).unwrap();
        let mut states = HashMap::new();
        let mut granted = Vec::new();
        for (reason, times) in requested {
            let mut take_permits = |limit: &Limit| {
                let state = states.entry(limit.key().to_owned()).or_insert(None);
                let next = limit.take(*state, NOW, BurstShare::Full, Permits::One);
                *state = next.or(*state);
                next.map(drop).ok_or(0)
            };
            let count = (0..*times).filter(|_| limit.take(*reason, &mut take_permits)).count();
            granted.push(count as u32);
        }
        assert_eq!(granted, expected);
    }

    #[test]
    fn a_flood_for_one_reason_leaves_permits_for_the_others() {
        let (missing, failed) = (ExportReason::StatusClass(4), ExportReason::StatusClass(5));
        check(12, &[(missing, 100), (failed, 100), (ExportReason::Reset, 100)], &[8, 2, 2]);
        check(4, &[(missing, 100), (failed, 1), (ExportReason::Reset, 1)], &[2, 1, 1]);
        // Bursts too small to divide are common to all.
        check(3, &[(missing, 100), (failed, 1)], &[3, 0]);
        check(1, &[(failed, 100), (missing, 1)], &[1, 0]);
    }

    #[test]
    fn a_refusal_by_the_limit_of_all_spans_is_final() {
        let reasons = [ExportReason::Reset, ExportReason::Duration];
        let limit = LateLimit::new(&reasons, 10.0, 10).unwrap();
        let mut calls = 0;
        let is_permitted = limit.take(ExportReason::Reset, &mut |_| {
            calls += 1;
            Err(1)
        });
        assert_eq!((is_permitted, calls), (false, 1));
    }
}
