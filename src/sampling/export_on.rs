//! The requests that were not sampled but are exported because of how they ended.
//!
//! The hops before and after were told that the trace is not sampled. They export a late span of their own only
//! if their `export_on` matches too. So a late span often has neither its parent nor its children in the backend.

use super::export_reason::ExportReason;
use super::late_limit::LateLimit;
use crate::http::response_flags;

/// The conditions under which a request is exported late; one of them is enough.
#[derive(Debug, Clone)]
pub struct ExportOn {
    /// First and last status code of each range.
    pub status: Vec<(u16, u16)>,
    pub grpc_status: Vec<u64>,
    /// Bits of Envoy's response flags.
    pub flags: u64,
    /// Whether streams that were cut short are exported.
    pub resets: bool,
    pub min_duration_nanos: Option<u64>,
    pub limit: LateLimit,
    /// Bytes of request headers that a worker holds for late spans, over all its requests.
    pub max_held_bytes: usize,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestEnd {
    /// 0 if no response was sent.
    pub status: u16,
    pub flags: u64,
    pub grpc_status: Option<u64>,
    pub duration_nanos: u64,
}

impl ExportOn {
    /// Returns the first condition that matches.
    pub fn matching(&self, end: &RequestEnd) -> Option<ExportReason> {
        let status = end.status;
        if self.status.iter().any(|(first, last)| (*first..=*last).contains(&status)) {
            return Some(ExportReason::StatusClass(status / 100));
        }
        if end.grpc_status.is_some_and(|status| self.grpc_status.contains(&status)) {
            return Some(ExportReason::GrpcStatus);
        }
        if self.flags & end.flags != 0 {
            return Some(ExportReason::ResponseFlags);
        }
        if self.resets && response_flags::cut(end.flags, status).is_some() {
            return Some(ExportReason::Reset);
        }
        let is_slow = self.min_duration_nanos.is_some_and(|least| end.duration_nanos >= least);
        is_slow.then_some(ExportReason::Duration)
    }

    /// Tells whether a condition needs the status or the flags of the response.
    pub fn needs_response(&self) -> bool {
        !self.status.is_empty() || self.flags != 0 || self.resets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: RequestEnd =
        RequestEnd { status: 200, flags: 0, grpc_status: None, duration_nanos: 999 };
    const NO_HEALTHY_UPSTREAM: u64 = 1 << 1;
    const TIMEOUT: u64 = 1 << 2;
    const RESET: u64 = 1 << 6;
    const RATE_LIMITED: u64 = 1 << 13;

    fn no_conditions() -> ExportOn {
        ExportOn {
            status: vec![],
            grpc_status: vec![],
            flags: 0,
            resets: false,
            min_duration_nanos: None,
            limit: LateLimit::new(&[], 1.0, 1).unwrap(),
            max_held_bytes: 0,
        }
    }

    #[test]
    fn one_matching_condition_is_enough() {
        let export_on = ExportOn {
            status: vec![(500, 599), (429, 429)],
            grpc_status: vec![2, 14],
            flags: NO_HEALTHY_UPSTREAM,
            resets: true,
            min_duration_nanos: Some(1000),
            ..no_conditions()
        };
        for (end, expected) in [
            (OK, None),
            (RequestEnd { status: 0, ..OK }, None),
            (RequestEnd { status: 499, ..OK }, None),
            (RequestEnd { status: 428, ..OK }, None),
            (RequestEnd { status: 429, ..OK }, Some("status")),
            (RequestEnd { status: 500, ..OK }, Some("status")),
            (RequestEnd { status: 599, duration_nanos: 1000, ..OK }, Some("status")),
            (RequestEnd { status: 600, ..OK }, None),
            (RequestEnd { grpc_status: Some(0), ..OK }, None),
            (RequestEnd { grpc_status: Some(14), ..OK }, Some("grpc_status")),
            (RequestEnd { flags: RATE_LIMITED, ..OK }, None),
            (RequestEnd { flags: NO_HEALTHY_UPSTREAM, ..OK }, Some("response_flags")),
            (RequestEnd { flags: RESET, ..OK }, Some("resets")),
            // A connection that switched protocols ends with a reset.
            (RequestEnd { status: 101, flags: RESET, ..OK }, None),
            (RequestEnd { status: 101, flags: RESET | TIMEOUT, ..OK }, Some("resets")),
            (RequestEnd { duration_nanos: 1000, ..OK }, Some("min_duration_ms")),
        ] {
            assert_eq!(export_on.matching(&end).map(ExportReason::key), expected, "{end:?}");
        }
    }

    #[test]
    fn absent_conditions_match_nothing() {
        let export_on = ExportOn { min_duration_nanos: Some(u64::MAX), ..no_conditions() };
        let end =
            RequestEnd { status: 503, flags: u64::MAX, grpc_status: Some(14), duration_nanos: 1 };
        assert_eq!(export_on.matching(&end), None);
        assert!(!export_on.needs_response());
    }
}
