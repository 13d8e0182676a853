//! The result of reading one format's headers, and the readers of ids that the formats share.

use opentelemetry::trace::{SpanId, TraceId};

use super::context::{Context, Sampling};
use crate::http::digits::decode_hex;

/// What the headers of one format hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extracted {
    /// No header of the format.
    Absent,
    /// A sampling state without ids, as B3 and X-Ray allow.
    Decision(Sampling),
    /// A trace id without a parent span, as load balancers send it: the span of this hop is the root.
    Root(TraceRoot),
    Context(Context),
    /// A header of the format that breaks its grammar, and the reason.
    Invalid(&'static str),
}

/// A trace that has no span yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceRoot {
    pub trace_id: TraceId,
    pub sampling: Sampling,
    /// The trace id came in 64 bits.
    pub short_trace_id: bool,
}

impl Extracted {
    /// Returns the context of these ids; without a span id, the trace without a parent span.
    pub(crate) fn from_ids(
        trace_id: TraceId,
        span_id: Option<SpanId>,
        sampling: Sampling,
        short_trace_id: bool,
    ) -> Self {
        match span_id {
            None => Self::Root(TraceRoot { trace_id, sampling, short_trace_id }),
            Some(span_id) => Self::Context(Context {
                trace_id,
                span_id,
                sampling,
                random: false,
                short_trace_id,
            }),
        }
    }

    /// Reads a trace id of 1 to 32 hex digits and a span id of 1 to 16, not zero. Old senders leave
    /// leading zeros out, and write capitals.
    #[inline(never)]
    pub fn from_hex(trace_id: &[u8], span_id: &[u8], sampling: Sampling) -> Self {
        let Self::Root(TraceRoot { trace_id, short_trace_id, .. }) =
            Self::root_from_hex(trace_id, sampling)
        else {
            return Self::Invalid("expected a trace id of 1 to 32 hex digits, not zero");
        };
        let Some(span_id) = normalized_hex::<16>(span_id).and_then(|hex| parse_span_id(&hex))
        else {
            return Self::Invalid("expected a span id of 1 to 16 hex digits, not zero");
        };
        Self::Context(Context { trace_id, span_id, sampling, random: false, short_trace_id })
    }

    /// Reads a trace id as [`Extracted::from_hex`] does.
    pub fn root_from_hex(trace_id: &[u8], sampling: Sampling) -> Self {
        let short_trace_id = trace_id.len() <= 16;
        match normalized_hex::<32>(trace_id).and_then(|hex| parse_trace_id(&hex)) {
            Some(trace_id) => Self::Root(TraceRoot { trace_id, sampling, short_trace_id }),
            None => Self::Invalid("expected a trace id of 1 to 32 hex digits, not zero"),
        }
    }

    /// Reads ids of which one or both may be missing, beside a sampling state. A trace id alone is a
    /// trace without a parent span, and without a trace id only the sampling state is left.
    pub fn from_optional_hex(
        trace_id: Option<&[u8]>,
        span_id: Option<&[u8]>,
        sampling: Sampling,
    ) -> Self {
        match (trace_id, span_id) {
            (Some(trace_id), Some(span_id)) => Self::from_hex(trace_id, span_id, sampling),
            (Some(trace_id), None) => Self::root_from_hex(trace_id, sampling),
            (None, _) if sampling != Sampling::Deferred => Self::Decision(sampling),
            (None, Some(_)) => Self::Invalid("expected a trace id beside the span id"),
            (None, None) => Self::Absent,
        }
    }
}

/// Returns hex digits in lower case, with missing leading zeros added.
pub(crate) fn normalized_hex<const N: usize>(hex: &[u8]) -> Option<[u8; N]> {
    let mut hex = zero_padded::<N>(hex)?;
    hex.make_ascii_lowercase();
    Some(hex)
}

/// Adds leading zeros to digits. Returns `None` if there is no digit, or more than `N`.
fn zero_padded<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut padded = [b'0'; N];
    let (_, end) = padded.split_at_mut_checked(N.checked_sub(digits.len())?)?;
    end.copy_from_slice(digits);
    (!digits.is_empty()).then_some(padded)
}

/// Reads exactly 16 digits of lower-case hex, not all zeros.
#[inline(never)]
pub(crate) fn parse_span_id(hex: &[u8]) -> Option<SpanId> {
    let id = u64::from_be_bytes(decode_hex(hex)?);
    (id != 0).then(|| SpanId::from(id))
}

/// Reads exactly 32 digits of lower-case hex, not all zeros.
#[inline(never)]
pub fn parse_trace_id(hex: &[u8]) -> Option<TraceId> {
    let id = u128::from_be_bytes(decode_hex(hex)?);
    (id != 0).then(|| TraceId::from(id))
}
