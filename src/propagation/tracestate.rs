//! `tracestate` of W3C Trace Context, Level 2: <https://www.w3.org/TR/trace-context-2/#tracestate-header>.
//!
//! ```text
//! list   = member *( OWS "," OWS member )    ; the lines of one request are one list, in order
//! member = key "=" value / OWS               ; at most 32, not counting empty ones
//! key    = ( lcalpha / DIGIT ) 0*255( lcalpha / DIGIT / "_" / "-" / "*" / "/" / "@" )
//! value  = 0*255( %x20 / nblk-chr ) nblk-chr
//! nblk-chr = %x21-2B / %x2D-3C / %x3E-7E     ; printable, without "," and "="
//! ```
//!
//! In Level 1, a key had at most one `@`, between a tenant and its system, and began with a letter. If a
//! key is repeated, only its first member is passed on, which is the latest.

use std::borrow::Cow;

use opentelemetry::trace::TraceId;

use super::ot::{self, ThresholdUpdate};
use crate::http::edits::Edits;
use crate::http::head::Head;

/// A list to pass on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceState<'a> {
    /// The members, separated by commas only; empty if there are none.
    pub list: Cow<'a, [u8]>,
    /// How many members did not fit into [`MAX_BYTES`].
    pub dropped: u32,
    /// Whether OpenTelemetry's member is in the list.
    pub has_ot: bool,
}

impl TraceState<'_> {
    /// Returns the value of OpenTelemetry's member; empty if there is none.
    fn ot(&self) -> &[u8] {
        let of_ot = |member: &[u8]| has_key(member, ot::KEY);
        let member = if self.has_ot { members(&self.list).find(|it| of_ot(it)) } else { None };
        member.and_then(|member| member.get(ot::KEY.len() + 1..)).unwrap_or_default()
    }

    /// Returns the randomness that the list states for its trace.
    pub fn randomness(&self) -> Option<u64> {
        if self.has_ot { ot::randomness(self.ot()) } else { None }
    }

    /// Updates the threshold in OpenTelemetry's member after a decision on this trace. A member that
    /// changes moves to the front (section 3.3.1.3.1); if the list gets too long, other members are dropped
    /// as when a list is read. If the filter's own randomness decided, the old member is replaced.
    #[inline(never)]
    pub fn update_threshold(
        &mut self,
        update: ThresholdUpdate,
        sampled: bool,
        trace_id: TraceId,
        own_randomness: Option<u64>,
    ) {
        let value = if own_randomness.is_some() { &[] } else { self.ot() };
        let threshold = match update {
            ThresholdUpdate::Set(threshold) => Some(threshold),
            ThresholdUpdate::Erase => None,
            ThresholdUpdate::Keep => {
                let randomness = ot::randomness(value);
                let randomness = randomness.unwrap_or_else(|| ot::randomness_of_id(trace_id));
                ot::threshold(value).filter(|threshold| sampled == (randomness >= *threshold))
            }
        };
        let rewritten = match (own_randomness, threshold) {
            (Some(randomness), Some(threshold)) => ot::with_randomness(threshold, randomness),
            (Some(_), None) => Vec::new(),
            (None, _) => {
                if threshold == ot::threshold(value) && threshold.is_some() {
                    return;
                }
                ot::rewritten(value, threshold)
            }
        };
        if rewritten == self.ot() {
            return;
        }
        let mut others: Vec<&[u8]> = Vec::new();
        others.extend(members(&self.list).filter(|member| !has_key(member, ot::KEY)));
        let mut list = Vec::new();
        let mut dropped = 0;
        if !rewritten.is_empty() {
            list.extend_from_slice(ot::KEY);
            list.push(b'=');
            list.extend_from_slice(&rewritten);
            if others.len() == MAX_MEMBERS {
                others.pop();
                dropped += 1;
            }
            dropped += truncate(&mut others, MAX_BYTES - list.len() - 1);
        }
        for member in others {
            if !list.is_empty() {
                list.push(b',');
            }
            list.extend_from_slice(member);
        }
        let has_ot = !rewritten.is_empty();
        *self = Self { list: Cow::Owned(list), dropped: self.dropped + dropped, has_ot };
    }
}

/// Returns the members of a valid list.
fn members(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',').filter(|member| !member.is_empty())
}

/// Writes a list as the one line of the header, or removes the header if the list is empty.
pub fn inject(list: &[u8], edits: &mut Edits<'_, '_>) {
    if list.is_empty() {
        edits.remove(TRACESTATE);
    } else {
        edits.set(TRACESTATE, list);
    }
}

/// Reads all lines as one list. One member that breaks the grammar makes the whole list invalid.
pub fn extract<'a>(head: &Head<'a>) -> Result<TraceState<'a>, &'static str> {
    let sizes = head.all(TRACESTATE).map(<[u8]>::len);
    if sizes.sum::<usize>() > MAX_READ_BYTES {
        return Err("expected a list of at most 16 KiB");
    }
    let mut members: Vec<&[u8]> = Vec::new();
    let mut count = 0;
    for member in head.all(TRACESTATE).flat_map(|line| line.split(|byte| *byte == b',')) {
        let member = member.trim_ascii();
        if member.is_empty() {
            continue;
        }
        let key = key(member).ok_or("expected list members of the form key=value")?;
        count += 1;
        if count > MAX_MEMBERS {
            return Err("expected at most 32 list members");
        }
        if !members.iter().any(|known| has_key(known, key)) {
            members.push(member);
        }
    }
    let dropped = truncate(&mut members, MAX_BYTES);
    let has_ot = members.iter().any(|member| has_key(member, ot::KEY));
    let mut lines = head.all(TRACESTATE);
    let list = match (lines.next(), lines.next()) {
        (Some(line), None) if joined_len(&members) == line.len() => Cow::Borrowed(line),
        _ => Cow::Owned(members.join(&b',')),
    };
    Ok(TraceState { list, dropped, has_ot })
}

/// Removes members until the list is short enough, and returns how many. As the specification asks, it
/// removes long members first, and then from the end.
fn truncate(members: &mut Vec<&[u8]>, max_bytes: usize) -> u32 {
    let mut dropped = 0;
    while joined_len(members) > max_bytes {
        let long = members.iter().rposition(|member| member.len() > LONG_MEMBER_BYTES);
        members.remove(long.unwrap_or(members.len().saturating_sub(1)));
        dropped += 1;
    }
    dropped
}

fn joined_len(members: &[&[u8]]) -> usize {
    let commas = members.len().saturating_sub(1);
    members.iter().map(|member| member.len()).sum::<usize>() + commas
}

fn has_key(member: &[u8], key: &[u8]) -> bool {
    member.strip_prefix(key).is_some_and(|rest| rest.first() == Some(&b'='))
}

/// Returns the key of a valid member.
fn key(member: &[u8]) -> Option<&[u8]> {
    let mut parts = member.splitn(2, |byte| *byte == b'=');
    let (key, value) = (parts.next()?, parts.next()?);
    (is_key(key) && is_value(value)).then_some(key)
}

fn is_key(key: &[u8]) -> bool {
    let first = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    key.len() <= 256
        && key.first().is_some_and(first)
        && key.iter().all(|byte| first(byte) || matches!(byte, b'_' | b'-' | b'*' | b'/' | b'@'))
}

/// Its member is trimmed, so the value does not end in a space.
fn is_value(value: &[u8]) -> bool {
    let char = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b',' | b'=');
    (1..=256).contains(&value.len()) && value.iter().all(char)
}

pub const TRACESTATE: &str = "tracestate";
const MAX_MEMBERS: usize = 32;
/// A longer list is invalid without being read. The longest list that the grammar allows is only a little
/// longer: 32 keys and values of 256 bytes.
const MAX_READ_BYTES: usize = 16 * 1024;
/// The specification asks every hop to pass on at least as much.
pub const MAX_BYTES: usize = 512;
/// A longer member is removed before others.
const LONG_MEMBER_BYTES: usize = 128;

#[cfg(test)]
mod tests;
