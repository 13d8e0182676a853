//! Requests that are exported although they were not sampled, for how they ended.
//!
//! Such a span is that of one hop: whoever came before and after was told that the trace is not
//! sampled, and exports nothing.

use std::cell::Cell;
use std::rc::Rc;

use crate::http::head::{self, Head};
use crate::http::response_flags;
use crate::http::url::MAX_URL_PART_BYTES;
use crate::sampling::limit::Limit;

/// How a request ends that is exported late; any one condition is enough.
#[derive(Debug, Clone)]
pub struct ExportOn {
    /// First and last status code of each range.
    pub status: Vec<(u16, u16)>,
    pub grpc_status: Vec<u64>,
    /// Bits of Envoy's response flags.
    pub flags: u64,
    /// Streams that were cut short.
    pub resets: bool,
    pub min_duration_nanos: Option<u64>,
    pub limits: LateLimits,
    /// Bytes of request headers that are kept for late spans, over all requests of a worker.
    pub max_held_bytes: usize,
}

/// The limit of late spans. Each kind of ending has a part that the others cannot use up, and the rest
/// is common.
#[derive(Debug, Clone)]
pub struct LateLimits {
    common: Limit,
    of_kinds: Vec<(EndingKind, Limit)>,
}

/// What a request ended with, as far as limits tell endings apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndingKind {
    /// The first digit of the status.
    Status(u16),
    GrpcStatus,
    ResponseFlags,
    Resets,
    Duration,
}

/// A condition that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Met {
    /// The name of its key.
    pub key: &'static str,
    pub kind: EndingKind,
}

impl LateLimits {
    /// Divides a limit: one half is common to all kinds, the other is divided evenly among them. Where
    /// there is one kind, or the burst is too small to divide, all is common. Returns none where a number
    /// is not in its range.
    pub fn new(kinds: &[EndingKind], per_second: f64, burst: u32) -> Option<Self> {
        let count = kinds.len() as u32;
        if count < 2 || burst <= count {
            let common = Limit::new("export_on", per_second, burst)?;
            return Some(Self { common, of_kinds: Vec::new() });
        }
        let own_burst = (burst / 2 / count).max(1);
        let own_rate = (per_second / 2.0 / f64::from(count)).max(MIN_PER_SECOND);
        let common_rate = (per_second / 2.0).max(MIN_PER_SECOND);
        let common = Limit::new("export_on", common_rate, burst - count * own_burst)?;
        let of_kinds = kinds.iter().map(|kind| {
            let name = format!("export_on/{kind:?}");
            Some((*kind, Limit::new(&name, own_rate, own_burst)?))
        });
        Some(Self { common, of_kinds: of_kinds.collect::<Option<_>>()? })
    }

    /// Takes one from the part of this kind, or else from the common one, and tells whether either had
    /// one left. `permits` takes one from this limit and one from that of all spans.
    pub fn take(
        &self,
        kind: EndingKind,
        permits: &mut dyn FnMut(&Limit) -> Result<(), usize>,
    ) -> bool {
        let of_kind = self.of_kinds.iter().find(|(of, _)| *of == kind);
        match of_kind.map(|(_, limit)| permits(limit)) {
            Some(Ok(())) => true,
            // The limit of all spans refuses.
            Some(Err(1..)) => false,
            Some(Err(0)) | None => permits(&self.common).is_ok(),
        }
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ending {
    /// 0 where no response was sent.
    pub status: u16,
    pub flags: u64,
    pub grpc_status: Option<u64>,
    pub duration_nanos: u64,
}

/// Keeps what a late span needs of request heads until the requests end, within a number of bytes.
#[derive(Debug)]
pub struct HeldHeads {
    lines: Rc<[KeptLine]>,
    max_bytes: usize,
    bytes: Rc<Cell<usize>>,
}

/// A header of which a late span is made.
#[derive(Debug)]
struct KeptLine {
    name: String,
    /// Bytes of a value that are kept.
    max_bytes: usize,
}

/// The kept lines of one request's head.
#[derive(Debug)]
pub struct HeldHead {
    kept: Rc<[KeptLine]>,
    /// Index of the name and length of the value of each line.
    lines: Vec<(u16, u32)>,
    /// The values one after the other.
    values: Vec<u8>,
    /// Bytes of all requests, of which these are given back at the end.
    bytes: Rc<Cell<usize>>,
}

impl HeldHeads {
    /// Keeps the lines that every span is made of, cut to what a span can hold, and whole lines of
    /// `tag_headers`. `max_chars` is the longest value of an attribute.
    pub fn new<'t>(
        max_bytes: usize,
        max_chars: usize,
        tag_headers: impl Iterator<Item = &'t str>,
    ) -> Self {
        // A character has at most four bytes, and one more tells that the value was cut.
        let value_bytes = 4 * (max_chars + 1);
        let own = [
            (head::PATH, MAX_URL_PART_BYTES),
            // Whole, since user information at its front is left out of spans.
            (head::AUTHORITY, usize::MAX),
            (head::METHOD, value_bytes),
            (head::SCHEME, value_bytes),
            (head::USER_AGENT, value_bytes),
            (head::REQUEST_ID, value_bytes),
            (head::CONTENT_TYPE, value_bytes),
            (head::CONTENT_LENGTH, value_bytes),
            (head::UPGRADE, value_bytes),
        ];
        let line = |(name, max_bytes): (&str, usize)| KeptLine { name: name.to_owned(), max_bytes };
        let mut lines: Vec<KeptLine> = own.map(line).into();
        for name in tag_headers {
            match lines.iter_mut().find(|line| line.name == name) {
                Some(line) => line.max_bytes = usize::MAX,
                None => lines.push(line((name, usize::MAX))),
            }
        }
        Self { lines: lines.into(), max_bytes, bytes: Rc::default() }
    }

    /// Keeps what is needed of a head; nothing where there is no room for it.
    pub fn hold(&self, head: &Head<'_>) -> Option<HeldHead> {
        let mut lines = Vec::with_capacity(self.lines.len());
        let mut values = Vec::with_capacity(TYPICAL_VALUES_BYTES);
        for (index, line) in (0..).zip(self.lines.iter()) {
            for value in head.all(&line.name) {
                let value = value.get(..line.max_bytes).unwrap_or(value);
                lines.push((index, value.len() as u32));
                values.extend_from_slice(value);
            }
        }
        if values.capacity() > TYPICAL_VALUES_BYTES {
            // What has grown has up to twice the room that it needs.
            values.shrink_to_fit();
        }
        let (kept, bytes) = (self.lines.clone(), self.bytes.clone());
        let held = HeldHead { kept, lines, values, bytes };
        let total = self.bytes.get() + held.len();
        self.bytes.set(total);
        // Where it is too much, its drop gives the bytes back.
        (total <= self.max_bytes).then_some(held)
    }
}

impl HeldHead {
    pub fn head(&self) -> Head<'_> {
        let mut rest = self.values.as_slice();
        let mut lines = Vec::with_capacity(self.lines.len());
        for (index, len) in &self.lines {
            let Some((value, after)) = rest.split_at_checked(*len as usize) else { break };
            let Some(line) = self.kept.get(usize::from(*index)) else { break };
            rest = after;
            lines.push((line.name.as_bytes(), value));
        }
        Head::new(lines)
    }

    /// Returns the bytes of memory that it takes.
    fn len(&self) -> usize {
        self.values.capacity() + self.lines.capacity() * size_of::<(u16, u32)>() + STREAM_BYTES
    }
}

impl Drop for HeldHead {
    fn drop(&mut self) {
        self.bytes.set(self.bytes.get().saturating_sub(self.len()));
    }
}

impl ExportOn {
    /// Returns the condition that holds; the first where several do.
    pub fn holds(&self, ending: &Ending) -> Option<Met> {
        let status = ending.status;
        let met = |key, kind| Some(Met { key, kind });
        if self.status.iter().any(|(first, last)| (*first..=*last).contains(&status)) {
            return met("status", EndingKind::Status(status / 100));
        }
        if ending.grpc_status.is_some_and(|status| self.grpc_status.contains(&status)) {
            return met("grpc_status", EndingKind::GrpcStatus);
        }
        if self.flags & ending.flags != 0 {
            return met("response_flags", EndingKind::ResponseFlags);
        }
        if self.resets && response_flags::cut(ending.flags, status).is_some() {
            return met("resets", EndingKind::Resets);
        }
        let slow = |least| ending.duration_nanos >= least;
        let is_slow = self.min_duration_nanos.is_some_and(slow);
        if is_slow { met("min_duration_ms", EndingKind::Duration) } else { None }
    }

    /// Tells whether more than the duration is asked for.
    pub fn asks_response(&self) -> bool {
        !self.status.is_empty() || self.flags != 0 || self.resets
    }
}

/// The least rate of a limit.
const MIN_PER_SECOND: f64 = 0.001;
/// Memory that a request takes beside its lines, until it ends.
const STREAM_BYTES: usize = 256;
/// Room for the values of most requests.
const TYPICAL_VALUES_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    const OK: Ending = Ending { status: 200, flags: 0, grpc_status: None, duration_nanos: 999 };
    const RESET: u64 = 1 << 6;
    const TIMEOUT: u64 = 1 << 2;
    const NO_HEALTHY_UPSTREAM: u64 = 1 << 1;

    #[test]
    fn any_one_condition_is_enough() {
        let on = ExportOn {
            status: vec![(500, 599), (429, 429)],
            grpc_status: vec![2, 14],
            flags: NO_HEALTHY_UPSTREAM,
            resets: true,
            min_duration_nanos: Some(1000),
            limits: LateLimits::new(&[], 1.0, 1).unwrap(),
            max_held_bytes: 0,
        };
        let rows = [
            (OK, None),
            (Ending { status: 0, ..OK }, None),
            (Ending { status: 499, ..OK }, None),
            (Ending { status: 428, ..OK }, None),
            (Ending { status: 429, ..OK }, Some("status")),
            (Ending { status: 500, ..OK }, Some("status")),
            (Ending { status: 599, duration_nanos: 1000, ..OK }, Some("status")),
            (Ending { status: 600, ..OK }, None),
            (Ending { grpc_status: Some(0), ..OK }, None),
            (Ending { grpc_status: Some(14), ..OK }, Some("grpc_status")),
            (Ending { flags: 1 << 13, ..OK }, None),
            (Ending { flags: NO_HEALTHY_UPSTREAM, ..OK }, Some("response_flags")),
            (Ending { flags: RESET, ..OK }, Some("resets")),
            (Ending { status: 101, flags: RESET, ..OK }, None),
            (Ending { status: 101, flags: RESET | TIMEOUT, ..OK }, Some("resets")),
            (Ending { duration_nanos: 1000, ..OK }, Some("min_duration_ms")),
        ];
        for (ending, expected) in rows {
            assert_eq!(on.holds(&ending).map(|met| met.key), expected, "{ending:?}");
        }
    }

    /// How many of each kind pass one after the other, all at once.
    #[track_caller]
    fn check_parts(burst: u32, asked: &[(EndingKind, u32)], expected: &[u32]) {
        let kinds = [EndingKind::Status(4), EndingKind::Status(5), EndingKind::Resets];
        let limits = LateLimits::new(&kinds, 10.0, burst).unwrap();
        let mut states = std::collections::HashMap::new();
        let mut passed = Vec::new();
        for (kind, times) in asked {
            let mut permits = |limit: &Limit| {
                let state = states.entry(limit.key().to_owned()).or_insert(None);
                let next = limit.take(
                    *state,
                    1_800_000_000_000_000_000,
                    crate::sampling::limit::Share::Whole,
                );
                *state = next.or(*state);
                next.map(drop).ok_or(0)
            };
            passed.push((0..*times).filter(|_| limits.take(*kind, &mut permits)).count() as u32);
        }
        assert_eq!(passed, expected);
    }

    #[test]
    fn a_flood_of_one_kind_leaves_room_for_the_others() {
        let (missing, failed) = (EndingKind::Status(4), EndingKind::Status(5));
        check_parts(12, &[(missing, 100), (failed, 100), (EndingKind::Resets, 100)], &[8, 2, 2]);
        check_parts(4, &[(missing, 100), (failed, 1), (EndingKind::Resets, 1)], &[2, 1, 1]);
        // Where the kinds share all, the limit holds as well.
        check_parts(3, &[(missing, 100), (failed, 1)], &[3, 0]);
        check_parts(1, &[(failed, 100), (missing, 1)], &[1, 0]);
    }

    #[test]
    fn the_limit_of_all_spans_ends_the_search() {
        let limits =
            LateLimits::new(&[EndingKind::Resets, EndingKind::Duration], 10.0, 10).unwrap();
        let mut asked = 0;
        let permitted = limits.take(EndingKind::Resets, &mut |_| {
            asked += 1;
            Err(1)
        });
        assert_eq!((permitted, asked), (false, 1));
    }

    #[test]
    fn what_is_not_asked_for_does_not_hold() {
        let on = ExportOn {
            status: vec![],
            grpc_status: vec![],
            flags: 0,
            resets: false,
            min_duration_nanos: Some(u64::MAX),
            limits: LateLimits::new(&[], 1.0, 1).unwrap(),
            max_held_bytes: 0,
        };
        let ending =
            Ending { status: 503, flags: u64::MAX, grpc_status: Some(14), duration_nanos: 1 };
        assert_eq!(on.holds(&ending), None);
        assert!(!on.asks_response());
    }

    /// The lines that are kept of a head.
    fn kept(lines: &[(&str, &str)], tag_headers: &[&str]) -> Vec<(String, String)> {
        let held = HeldHeads::new(1 << 20, 32, tag_headers.iter().copied());
        let head = crate::propagation::testing::head(lines);
        let kept = held.hold(&head).unwrap();
        let value = |(index, len): &(u16, u32), start: &mut usize| {
            let value = &kept.values[*start..*start + *len as usize];
            *start += value.len();
            let name = kept.kept[usize::from(*index)].name.clone();
            (name, String::from_utf8_lossy(value).into_owned())
        };
        let mut start = 0;
        kept.lines.iter().map(|line| value(line, &mut start)).collect()
    }

    #[test]
    fn only_lines_that_a_span_can_hold_are_kept() {
        let long = "x".repeat(60_000);
        let lines = [
            (":path", long.as_str()),
            (":method", "GET"),
            ("user-agent", &long),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("x-other", &long),
        ];
        let mut expected = vec![
            (":path".to_owned(), "x".repeat(2048)),
            (":method".to_owned(), "GET".to_owned()),
            ("user-agent".to_owned(), "x".repeat(132)),
        ];
        assert_eq!(kept(&lines, &[]), expected);
        expected[0].1 = long.clone();
        expected.push(("cookie".to_owned(), "a=1".to_owned()));
        expected.push(("cookie".to_owned(), "b=2".to_owned()));
        assert_eq!(kept(&lines, &["cookie", ":path"]), expected);
    }

    #[test]
    fn what_has_no_room_is_not_kept_until_others_end() {
        let held = HeldHeads::new(1500, 32, std::iter::empty());
        let lines = [(":path", "/a")];
        let head = crate::propagation::testing::head(&lines);
        let first = held.hold(&head).unwrap();
        let second = held.hold(&head).unwrap();
        assert!(held.hold(&head).is_none());
        assert_eq!(held.bytes.get(), first.len() + second.len());
        drop(first);
        let third = held.hold(&head).unwrap();
        assert_eq!(third.head().target(), b"/a");
        drop((second, third));
        assert_eq!(held.bytes.get(), 0);
    }
}
