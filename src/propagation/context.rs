//! A trace context as it crosses a process boundary, whatever its format.

use opentelemetry::trace::{SpanId, TraceFlags, TraceId};

use crate::http::digits::encode_hex;

/// A valid context: neither id is all zeros.
///
/// OpenTelemetry's `SpanContext` has no room for three facts that B3 carries: that the sampling
/// decision is left open, debug, and the width of the trace id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub sampling: Sampling,
    /// The trace id is known to be random (W3C Trace Context Level 2, random-trace-id flag).
    pub random: bool,
    /// The trace id was received with 64 bits, as B3 and others allow. These formats then write it with 64 bits.
    pub short_trace_id: bool,
}

impl Context {
    /// Returns the flags as W3C Trace Context writes them.
    pub fn flags(&self) -> TraceFlags {
        let random = if self.random { RANDOM } else { TraceFlags::NOT_SAMPLED };
        random.with_sampled(self.sampling.is_sampled())
    }

    /// Writes the trace id to a buffer in hex, and returns its digits: 16 if it was received with 64 bits,
    /// else 32.
    pub fn trace_id_hex<'b>(&self, hex: &'b mut [u8; 32]) -> &'b [u8] {
        encode_hex(&self.trace_id.to_bytes(), hex);
        if self.short_trace_id { &hex[16..] } else { hex }
    }

    /// Returns the properties that access logs read, their values in hex. They are the fields of
    /// <https://opentelemetry.io/docs/specs/otel/compatibility/logging_trace_context/>.
    pub fn properties(&self) -> [(&'static str, Vec<u8>); 3] {
        let mut trace_id = vec![0; 32];
        encode_hex(&self.trace_id.to_bytes(), &mut trace_id);
        let mut flags = vec![0; 2];
        encode_hex(&[self.flags().to_u8()], &mut flags);
        [
            ("sidespan.trace_id", trace_id),
            ("sidespan.span_id", self.span_id_hex().to_vec()),
            ("sidespan.trace_flags", flags),
        ]
    }

    /// Returns the span id in hex.
    pub fn span_id_hex(&self) -> [u8; 16] {
        let mut hex = [0; 16];
        encode_hex(&self.span_id.to_bytes(), &mut hex);
        hex
    }

    /// Adds what another format says of the same trace and this one has no room for: a 64-bit trace
    /// id, its randomness, debug. A context of another trace adds nothing.
    pub fn merge(&mut self, other: &Self) {
        if self.trace_id != other.trace_id {
            return;
        }
        self.short_trace_id |= other.short_trace_id;
        self.random |= other.random;
        if (self.sampling, other.sampling) == (Sampling::Sampled, Sampling::Debug) {
            self.sampling = Sampling::Debug;
        }
    }
}

/// New random ids for a request; none is all zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FreshIds {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    /// The id of a second span, for the call upstream; absent if no request has one.
    pub upstream_span_id: Option<SpanId>,
}

/// The sampling state of a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampling {
    /// Left open, which B3 and others allow: the receiver decides.
    Deferred,
    NotSampled,
    Sampled,
    /// B3's `d`, Datadog's 2: sampled, and asked for by a person.
    Debug,
}

impl Sampling {
    pub fn is_sampled(self) -> bool {
        matches!(self, Self::Sampled | Self::Debug)
    }

    /// Returns the sampling state to pass on after this decision: debug stays debug.
    pub fn decided(self, sampled: bool) -> Self {
        match (self, sampled) {
            (Self::Debug, true) => Self::Debug,
            (_, true) => Self::Sampled,
            (_, false) => Self::NotSampled,
        }
    }
}

/// The random-trace-id flag (W3C Trace Context Level 2, section 3.2.2.5.2).
pub(crate) const RANDOM: TraceFlags = TraceFlags::new(0x02);
