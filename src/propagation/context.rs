//! A trace context as it crosses a process boundary, whatever its format.

use opentelemetry::trace::{SpanId, TraceFlags, TraceId};

use crate::http::digits::{decode_hex, encode_hex};

/// A valid context: neither id is all zeros.
///
/// OpenTelemetry's `SpanContext` has no room for what B3 knows besides: a sampling decision that
/// is left open, debug, and the width of the trace id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub sampling: Sampling,
    /// The trace id is known to be random (W3C Trace Context Level 2, random-trace-id flag).
    pub random: bool,
    /// The trace id came in 64 bits wide, as B3 and others allow, and is written so in them.
    pub short_trace_id: bool,
}

impl Context {
    /// Returns the flags as W3C Trace Context writes them.
    pub fn flags(&self) -> TraceFlags {
        let random = if self.random { RANDOM } else { TraceFlags::NOT_SAMPLED };
        random.with_sampled(self.sampling.is_sampled())
    }

    /// Fills a buffer with the trace id in hex, and returns the width that it came in.
    pub fn trace_id_hex<'b>(&self, hex: &'b mut [u8; 32]) -> &'b [u8] {
        encode_hex(&self.trace_id.to_bytes(), hex);
        if self.short_trace_id { &hex[16..] } else { hex }
    }

    /// Returns the properties that access logs read, with their values in hex: the fields of
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

    pub fn span_id_hex(&self) -> [u8; 16] {
        let mut hex = [0; 16];
        encode_hex(&self.span_id.to_bytes(), &mut hex);
        hex
    }

    /// Takes what another header says of the same trace and this one has no room for: a 64-bit
    /// trace id, its randomness, debug.
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

/// Fresh random ids, neither all zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FreshIds {
    pub trace_id: TraceId,
    pub span_id: SpanId,
}

/// What a context says of sampling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampling {
    /// No sampling state, which B3 and others allow: the receiver decides.
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

    /// Returns the sampling of what goes on, once it is decided: debug stays debug.
    pub fn decided(self, sampled: bool) -> Self {
        match (self, sampled) {
            (Self::Debug, true) => Self::Debug,
            (_, true) => Self::Sampled,
            (_, false) => Self::NotSampled,
        }
    }
}

/// What the headers of one format hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extracted {
    /// No header of the format.
    Absent,
    /// A sampling state without ids, as B3 and X-Ray allow.
    Decision(Sampling),
    Context(Context),
    /// A header of the format that breaks its grammar, and the reason.
    Invalid(&'static str),
}

impl Extracted {
    /// Reads a trace id of 16 or 32 digits of lower-case hex and a span id of 16.
    #[inline(never)]
    pub fn of_ids(trace_id: &[u8], span_id: &[u8], sampling: Sampling) -> Self {
        let short_trace_id = trace_id.len() == 16;
        let trace_id = if short_trace_id {
            parse_span_id(trace_id)
                .map(|id| TraceId::from(u128::from(u64::from_be_bytes(id.to_bytes()))))
        } else {
            parse_trace_id(trace_id)
        };
        let Some(trace_id) = trace_id else {
            return Self::Invalid("expected a trace id of 16 or 32 hex digits, not all zeros");
        };
        let Some(span_id) = parse_span_id(span_id) else {
            return Self::Invalid("expected a span id of 16 hex digits, not all zeros");
        };
        Self::Context(Context { trace_id, span_id, sampling, random: false, short_trace_id })
    }

    /// Reads ids as [`Extracted::of_ids`] does, whose leading zeros may be missing.
    pub fn of_bare_ids(trace_id: &[u8], span_id: &[u8], sampling: Sampling) -> Self {
        let Some(span_id) = padded::<16>(span_id) else {
            return Self::Invalid("expected a span id of 16 hex digits at most");
        };
        match (padded::<16>(trace_id), padded::<32>(trace_id)) {
            (Some(short), _) => Self::of_ids(&short, &span_id, sampling),
            (_, Some(long)) => Self::of_ids(&long, &span_id, sampling),
            _ => Self::Invalid("expected a trace id of 32 hex digits at most"),
        }
    }
}

/// Returns digits with the zeros that are left out before them; none where there is no digit, or
/// too many.
pub fn padded<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut padded = [b'0'; N];
    let (_, place) = padded.split_at_mut_checked(N.checked_sub(digits.len())?)?;
    place.copy_from_slice(digits);
    (!digits.is_empty()).then_some(padded)
}

/// Reads exactly 16 bytes of lower-case hex; all zeros is none.
#[inline(never)]
pub fn parse_span_id(hex: &[u8]) -> Option<SpanId> {
    let id = u64::from_be_bytes(decode_hex(hex)?);
    (id != 0).then(|| SpanId::from(id))
}

/// Reads exactly 32 bytes of lower-case hex; all zeros is none.
#[inline(never)]
pub fn parse_trace_id(hex: &[u8]) -> Option<TraceId> {
    let id = u128::from_be_bytes(decode_hex(hex)?);
    (id != 0).then(|| TraceId::from(id))
}

/// W3C Trace Context Level 2, section 3.2.2.5.2.
pub const RANDOM: TraceFlags = TraceFlags::new(0x02);
