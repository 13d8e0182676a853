//! Sampling by ratio: OpenTelemetry's consistent probability sampling. The random bits of the trace
//! decide, so that all samplers of a trace agree.
//!
//! <https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/>

use crate::propagation::ot::{DIGITS, RANDOMNESS};

/// A sampling probability as a rejection threshold: a trace is sampled if its 56 random bits are at least
/// the threshold. So a sampler with a higher ratio samples every trace that one with a lower ratio does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratio {
    /// From 0, which samples all traces, to 2^56, which samples none.
    threshold: u64,
}

impl Ratio {
    /// Returns the ratio for a share from 0 to 1, or none for any other number.
    ///
    /// The threshold is rounded to `precision` hex digits, from 1 to 14. Leading digits `f`, which small
    /// shares have, do not count. A share above 0 stays above 0.
    pub fn new(share: f64, precision: u32) -> Option<Self> {
        if !(0.0..=1.0).contains(&share) {
            return None;
        }
        if share == 0.0 {
            return Some(Self { threshold: RANDOMNESS });
        }
        let rejected = RANDOMNESS - ((share * RANDOMNESS as f64).round() as u64).max(1);
        // The binary exponent of the share, with a mantissa from 1/2 to 1: negative for small shares.
        let exponent = (share.to_bits() >> 52) as i64 - 1022;
        let leading = exponent.min(0).unsigned_abs() / 4;
        let digits = (u64::from(precision) + leading).clamp(1, DIGITS);
        let unit = 1 << (4 * (DIGITS - digits));
        let rounded = (rejected + unit / 2) & !(unit - 1);
        Some(Self { threshold: rounded.min(RANDOMNESS - unit) })
    }

    /// Tells whether a trace of this randomness, 56 bits, is sampled.
    pub fn samples(self, randomness: u64) -> bool {
        randomness >= self.threshold
    }

    /// Returns the rejection threshold, or none if nothing is sampled: the specification has no
    /// threshold for a probability of 0.
    pub fn threshold(self) -> Option<u64> {
        (self.threshold < RANDOMNESS).then_some(self.threshold)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_xoshiro::Xoshiro256PlusPlus;
    use rand_xoshiro::rand_core::{Rng, SeedableRng};

    use super::*;
    use opentelemetry::trace::TraceId;

    use crate::propagation::ot;
    use crate::propagation::ot::randomness_of_id;

    fn ratio(share: f64) -> Ratio {
        Ratio::new(share, 4).unwrap()
    }

    #[test]
    fn thresholds_are_those_of_the_specification() {
        for (share, expected) in [
            (1.0, ["0", "0", "0"]),
            (1.0 / 2.0, ["8", "8", "8"]),
            (1.0 / 3.0, ["aab", "aaab", "aaaab"]),
            (1.0 / 4.0, ["c", "c", "c"]),
            (1.0 / 5.0, ["ccd", "cccd", "ccccd"]),
            (1.0 / 8.0, ["e", "e", "e"]),
            (1.0 / 10.0, ["e66", "e666", "e6666"]),
            (1.0 / 16.0, ["f", "f", "f"]),
            (1.0 / 100.0, ["fd71", "fd70a", "fd70a4"]),
            (1e-3, ["ffbe7", "ffbe77", "ffbe76d"]),
            (1e-4, ["fff972", "fff9724", "fff97247"]),
            (1e-5, ["ffff584", "ffff583a", "ffff583a5"]),
            (1e-6, ["ffffef4", "ffffef39", "ffffef391"]),
        ] {
            for (precision, expected) in (3..).zip(expected) {
                let threshold = Ratio::new(share, precision).unwrap().threshold().unwrap();
                let found = String::from_utf8(ot::threshold_digits(threshold)).unwrap();
                assert_eq!(found, expected, "{share} with {precision} digits");
            }
        }
    }

    #[test]
    fn the_threshold_splits_the_random_bits() {
        let top = RANDOMNESS - 1;
        for (share, precision, randomness, expected) in [
            (0.0, 4, top, false),
            (0.0, 4, 0, false),
            (1.0, 4, 0, true),
            (1.0, 4, top, true),
            (0.5, 4, RANDOMNESS / 2, true),
            (0.5, 4, RANDOMNESS / 2 - 1, false),
            (0.1, 4, 0xe6_6600_0000_0000, true),
            (0.1, 4, 0xe6_65ff_ffff_ffff, false),
            (f64::MIN_POSITIVE, 1, top, true),
            (f64::MIN_POSITIVE, 14, top - 1, false),
            (1.0 - f64::EPSILON, 14, 0, false),
            (1.0 - f64::EPSILON, 4, 0, true),
        ] {
            let ratio = Ratio::new(share, precision).unwrap();
            assert_eq!(ratio.samples(randomness), expected, "{share} of {randomness:x}");
        }
        assert_eq!(randomness_of_id(TraceId::from(u128::MAX)), top);
        assert_eq!(randomness_of_id(TraceId::from(0xff << 56 | 1)), 1);
    }

    #[test]
    fn numbers_out_of_range_are_no_ratio() {
        for wrong in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(Ratio::new(wrong, 4), None, "{wrong}");
        }
        assert_eq!(ratio(0.0).threshold(), None);
        assert_eq!(ratio(1.0), Ratio { threshold: 0 });
    }

    /// Chi-squared with one degree of freedom exceeds this once in a thousand times.
    const CRITICAL: f64 = 10.83;

    #[test]
    fn the_ratio_of_traces_is_sampled() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(7);
        let mut id =
            || TraceId::from(u128::from(random.next_u64()) << 64 | u128::from(random.next_u64()));
        let ids: Vec<_> = (0..100_000).map(|_| randomness_of_id(id())).collect();
        let shares =
            [0.9, 0.75, 0.5, 1.0 / 3.0, 0.25, 0.2, 0.125, 0.1, 0.0625, 0.05, 0.02, 0.01, 0.001];
        for share in shares {
            let sampled = ids.iter().filter(|id| ratio(share).samples(**id)).count() as f64;
            let expected = share * ids.len() as f64;
            let off = (sampled - expected).powi(2);
            let chi_squared = off / expected + off / (ids.len() as f64 - expected);
            assert!(chi_squared < CRITICAL, "{share}: {sampled}, {chi_squared}");
        }
    }

    proptest! {
        #[test]
        fn a_lower_ratio_samples_no_trace_that_a_higher_one_does_not(one in 0.0f64..=1.0, other in 0.0f64..=1.0, randomness in 0..RANDOMNESS) {
            let (less, more) = (ratio(one.min(other)), ratio(one.max(other)));
            prop_assert!(!less.samples(randomness) || more.samples(randomness));
        }

        #[test]
        fn a_threshold_is_near_its_share(share in 1e-9f64..=1.0, precision in 1u32..=14) {
            let threshold = Ratio::new(share, precision).unwrap().threshold().unwrap();
            let found = (RANDOMNESS - threshold) as f64 / RANDOMNESS as f64;
            let off = (found - share).abs() / share;
            prop_assert!(off <= 16f64.powi(1 - precision as i32) + 1e-6, "{found}");
        }
    }
}
