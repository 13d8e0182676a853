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
    Context(Context),
    /// A header of the format that breaks its grammar, and the reason.
    Invalid(&'static str),
}

impl Extracted {
    /// Reads a trace id of 16 or 32 digits of lower-case hex and a span id of 16.
    #[inline(never)]
    pub fn from_hex(trace_id: &[u8], span_id: &[u8], sampling: Sampling) -> Self {
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

    /// Reads ids as [`Extracted::from_hex`] does, but their leading zeros may be missing.
    pub fn from_unpadded_hex(trace_id: &[u8], span_id: &[u8], sampling: Sampling) -> Self {
        let Some(span_id) = zero_padded::<16>(span_id) else {
            return Self::Invalid("expected a span id of 16 hex digits at most");
        };
        match (zero_padded::<16>(trace_id), zero_padded::<32>(trace_id)) {
            (Some(short), _) => Self::from_hex(&short, &span_id, sampling),
            (_, Some(long)) => Self::from_hex(&long, &span_id, sampling),
            _ => Self::Invalid("expected a trace id of 32 hex digits at most"),
        }
    }
}

/// Adds leading zeros to digits. Returns `None` if there is no digit, or more than `N`.
pub fn zero_padded<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut padded = [b'0'; N];
    let (_, end) = padded.split_at_mut_checked(N.checked_sub(digits.len())?)?;
    end.copy_from_slice(digits);
    (!digits.is_empty()).then_some(padded)
}

/// Reads exactly 16 digits of lower-case hex, not all zeros.
#[inline(never)]
pub fn parse_span_id(hex: &[u8]) -> Option<SpanId> {
    let id = u64::from_be_bytes(decode_hex(hex)?);
    (id != 0).then(|| SpanId::from(id))
}

/// Reads exactly 32 digits of lower-case hex, not all zeros.
#[inline(never)]
pub fn parse_trace_id(hex: &[u8]) -> Option<TraceId> {
    let id = u128::from_be_bytes(decode_hex(hex)?);
    (id != 0).then(|| TraceId::from(id))
}
