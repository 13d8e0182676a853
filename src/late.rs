//! Requests that are exported although they were not sampled, for how they ended.
//!
//! Such a span is that of one hop: whoever came before and after was told that the trace is not
//! sampled, and exports nothing.

use crate::limit::Limit;
use crate::response_flags;

/// How a request ends that is exported late; any one condition is enough.
#[derive(Debug, Clone)]
pub struct ExportOn {
    /// First and last status code of each range.
    pub status: Vec<(u16, u16)>,
    pub grpc_status: Vec<u64>,
    /// Bits of Envoy's response flags.
    pub flags: u64,
    /// Streams that were cut short.
    pub resets: bool,
    pub min_duration_nanos: Option<u64>,
    pub limit: Option<Limit>,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ending {
    /// 0 where no response was sent.
    pub status: u16,
    pub flags: u64,
    pub grpc_status: Option<u64>,
    pub duration_nanos: u64,
}

impl ExportOn {
    /// Returns the condition that holds, by the name of its key; the first where several do.
    pub fn holds(&self, ending: &Ending) -> Option<&'static str> {
        let status = ending.status;
        if self.status.iter().any(|(first, last)| (*first..=*last).contains(&status)) {
            return Some("status");
        }
        if ending.grpc_status.is_some_and(|status| self.grpc_status.contains(&status)) {
            return Some("grpc_status");
        }
        if self.flags & ending.flags != 0 {
            return Some("response_flags");
        }
        if self.resets && response_flags::cut(ending.flags, status).is_some() {
            return Some("resets");
        }
        let slow = |least| ending.duration_nanos >= least;
        self.min_duration_nanos.is_some_and(slow).then_some("min_duration_ms")
    }

    /// Tells whether more than the duration is asked for.
    pub fn asks_response(&self) -> bool {
        !self.status.is_empty() || self.flags != 0 || self.resets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: Ending = Ending { status: 200, flags: 0, grpc_status: None, duration_nanos: 999 };
    const RESET: u64 = 1 << 6;
    const TIMEOUT: u64 = 1 << 2;
    const NO_HEALTHY_UPSTREAM: u64 = 1 << 1;

    #[test]
    fn any_one_condition_is_enough() {
        let on = ExportOn {
            status: vec![(500, 599), (429, 429)],
            grpc_status: vec![2, 14],
            flags: NO_HEALTHY_UPSTREAM,
            resets: true,
            min_duration_nanos: Some(1000),
            limit: None,
        };
        let rows = [
            (OK, None),
            (Ending { status: 0, ..OK }, None),
            (Ending { status: 499, ..OK }, None),
            (Ending { status: 428, ..OK }, None),
            (Ending { status: 429, ..OK }, Some("status")),
            (Ending { status: 500, ..OK }, Some("status")),
            (Ending { status: 599, duration_nanos: 1000, ..OK }, Some("status")),
            (Ending { status: 600, ..OK }, None),
            (Ending { grpc_status: Some(0), ..OK }, None),
            (Ending { grpc_status: Some(14), ..OK }, Some("grpc_status")),
            (Ending { flags: 1 << 13, ..OK }, None),
            (Ending { flags: NO_HEALTHY_UPSTREAM, ..OK }, Some("response_flags")),
            (Ending { flags: RESET, ..OK }, Some("resets")),
            (Ending { status: 101, flags: RESET, ..OK }, None),
            (Ending { status: 101, flags: RESET | TIMEOUT, ..OK }, Some("resets")),
            (Ending { duration_nanos: 1000, ..OK }, Some("min_duration_ms")),
        ];
        for (ending, expected) in rows {
            assert_eq!(on.holds(&ending), expected, "{ending:?}");
        }
    }

    #[test]
    fn what_is_not_asked_for_does_not_hold() {
        let on = ExportOn {
            status: vec![],
            grpc_status: vec![],
            flags: 0,
            resets: false,
            min_duration_nanos: Some(u64::MAX),
            limit: None,
        };
        let ending =
            Ending { status: 503, flags: u64::MAX, grpc_status: Some(14), duration_nanos: 1 };
        assert_eq!(on.holds(&ending), None);
        assert!(!on.asks_response());
    }
}
