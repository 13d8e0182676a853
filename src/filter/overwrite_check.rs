//! Whether the upstream gets the trace context that this filter wrote.
//!
//! Envoy's own tracer writes its headers after all filters, and so overwrites the context. To notice
//! that, the trace headers of one request a second are compared when the request is over.

/// Chooses the requests to check.
#[derive(Debug, Default)]
pub(crate) struct OverwriteCheck {
    last_unix_nanos: u64,
    is_due: bool,
}

impl OverwriteCheck {
    /// Makes a check due, if the last one became due a second ago or earlier.
    pub(crate) fn tick(&mut self, now_unix_nanos: u64) {
        if now_unix_nanos.saturating_sub(self.last_unix_nanos) >= INTERVAL_NANOS {
            (self.last_unix_nanos, self.is_due) = (now_unix_nanos, true);
        }
    }

    /// Tells whether to check this request, which has a context of this filter.
    pub(crate) fn take(&mut self) -> bool {
        std::mem::take(&mut self.is_due)
    }
}

/// What is logged when another context was found.
pub(crate) const WARNING: &str = "sidespan: the upstream gets another trace context than the one that \
    this filter wrote, so traces are broken: switch Envoy's own tracing off (`tracing` of the HTTP \
    connection manager; in Istio a Telemetry with `tracing: [{disableSpanReporting: true}]`)";

const INTERVAL_NANOS: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_a_second_is_checked() {
        let mut check = OverwriteCheck::default();
        assert!(!check.take(), "no tick came");
        let start = 1_767_225_600 * INTERVAL_NANOS;
        for (nanos, expected) in [
            (0, [true, false]),
            (INTERVAL_NANOS - 1, [false, false]),
            (INTERVAL_NANOS, [true, false]),
            (3 * INTERVAL_NANOS, [true, false]),
        ] {
            check.tick(start + nanos);
            assert_eq!([check.take(), check.take()], expected, "at {nanos}");
        }
    }
}
