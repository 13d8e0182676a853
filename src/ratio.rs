//! A share of traces, decided by the trace id, so that all who use the same share agree.

use opentelemetry::trace::TraceId;

/// A probability as OpenTelemetry's rejection threshold: a trace is sampled when the 56 random
/// bits of its id are at least the threshold.
///
/// <https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/>
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratio {
    threshold: u64,
}

impl Ratio {
    pub const ALWAYS: Self = Self { threshold: 0 };

    /// Returns the ratio for a share from 0 to 1, and none for any other number.
    pub fn new(share: f64) -> Option<Self> {
        let rejected = (1.0 - share) * RANDOMNESS as f64;
        (0.0..=1.0).contains(&share).then_some(Self { threshold: rejected.round() as u64 })
    }

    pub fn samples(self, trace_id: TraceId) -> bool {
        let low = u128::from_be_bytes(trace_id.to_bytes()) as u64;
        low % RANDOMNESS >= self.threshold
    }
}

/// The right-most 7 bytes of a trace id are random (W3C Trace Context Level 2).
const RANDOMNESS: u64 = 1 << 56;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(share: f64, low_bits: u128, expected: bool) {
        let ratio = Ratio::new(share).unwrap();
        assert_eq!(ratio.samples(TraceId::from(low_bits)), expected, "{share} of {low_bits:x}");
    }

    #[test]
    fn the_threshold_splits_the_random_bits() {
        let top = u128::from(RANDOMNESS - 1);
        check(0.0, top, false);
        check(0.0, 1, false);
        check(1.0, 0, true);
        check(1.0, top, true);
        check(0.5, u128::from(RANDOMNESS / 2), true);
        check(0.5, u128::from(RANDOMNESS / 2 - 1), false);
        check(0.5, (0xff << 56) + 1, false);
    }

    #[test]
    fn only_shares_are_ratios() {
        for wrong in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(Ratio::new(wrong), None, "{wrong}");
        }
    }
}
