//! Random trace and span ids, from a seed.

use opentelemetry::trace::{SpanId, TraceId};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use super::context::FreshIds;

/// Generates ids from a seed. Its 256 bits of state keep the sequences of many VMs apart. A hostcall for each id
/// would cost more than everything else that an id needs.
pub(crate) struct IdGenerator(Xoshiro256PlusPlus);

impl IdGenerator {
    pub(crate) fn from_seed(seed: [u8; 32]) -> Self {
        Self(Xoshiro256PlusPlus::from_seed(seed))
    }

    /// Expands a number to a seed.
    pub(crate) fn seed_from_u64(number: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(number))
    }

    /// Returns new ids, among them one of a second span if the request may have two.
    pub(crate) fn fresh(&mut self, has_upstream_span: bool) -> FreshIds {
        let high = u128::from(self.non_zero()) << 64;
        FreshIds {
            trace_id: TraceId::from(high | u128::from(self.non_zero())),
            span_id: SpanId::from(self.non_zero()),
            upstream_span_id: has_upstream_span.then(|| SpanId::from(self.non_zero())),
        }
    }

    /// Returns 32 random bits.
    pub(crate) fn random(&mut self) -> u32 {
        self.0.next_u32()
    }

    fn non_zero(&mut self) -> u64 {
        loop {
            let bits = self.0.next_u64();
            if bits != 0 {
                return bits;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_of_a_request_differ() {
        let mut ids = IdGenerator::seed_from_u64(7);
        let mut seen = BTreeSet::new();
        for _ in 0..1_000 {
            let FreshIds { trace_id, span_id, upstream_span_id } = ids.fresh(true);
            let [high, low] = [0, 8].map(|at| trace_id.to_bytes()[at..at + 8].to_vec());
            let spans = [Some(span_id), upstream_span_id].map(|id| id.unwrap().to_bytes().to_vec());
            for bits in [high, low].into_iter().chain(spans) {
                assert!(seen.insert(bits), "two ids share 64 bits");
            }
        }
        assert_eq!(ids.fresh(false).upstream_span_id, None);
    }

    #[test]
    fn no_id_is_zero() {
        // With its first and last words zero, the generator's first bits are zeros.
        let mut seed = [0; 32];
        seed[8] = 1;
        assert_eq!(IdGenerator::from_seed(seed).0.next_u64(), 0);
        let trace_id = IdGenerator::from_seed(seed).fresh(false).trace_id.to_bytes();
        assert_ne!(trace_id[..8], [0; 8]);
    }

    #[test]
    fn other_seeds_make_other_ids() {
        let of_number = |number| IdGenerator::seed_from_u64(number).fresh(true);
        let of_seed = |byte| IdGenerator::from_seed([byte; 32]).fresh(true);
        assert_eq!(of_number(1), of_number(1));
        assert_ne!(of_number(1), of_number(2));
        assert_eq!(of_seed(1), of_seed(1));
        assert_ne!(of_seed(1), of_seed(2));
        assert_ne!(of_seed(0), of_seed(1), "a seed of zeros is a seed too");
    }
}
