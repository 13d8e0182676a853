//! Random trace and span ids: a generator for each VM, seeded by the host.

use opentelemetry::trace::{SpanId, TraceId};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use super::host;
use crate::propagation::context::FreshIds;

/// 256 bits of state, so that the streams of many VMs do not meet; a hostcall an id would cost
/// more than all else that an id needs.
pub(super) struct IdGenerator(Xoshiro256PlusPlus);

impl IdGenerator {
    /// Seeds from the host's randomness, and from its clock should that fail.
    pub(super) fn seeded() -> Self {
        let mut seed = [0; 32];
        match getrandom::fill(&mut seed) {
            Ok(()) => Self(Xoshiro256PlusPlus::from_seed(seed)),
            Err(_) => Self(Xoshiro256PlusPlus::seed_from_u64(host::now())),
        }
    }

    /// Returns new ids, among them one of a second span if the request may have two.
    pub(super) fn fresh(&mut self, has_upstream_span: bool) -> FreshIds {
        let high = u128::from(self.non_zero()) << 64;
        FreshIds {
            trace_id: TraceId::from(high | u128::from(self.non_zero())),
            span_id: SpanId::from(self.non_zero()),
            upstream_span_id: has_upstream_span.then(|| SpanId::from(self.non_zero())),
        }
    }

    /// Returns 32 random bits.
    pub(super) fn random(&mut self) -> u32 {
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
