//! Request heads that are held until their requests end: a late span is made of them.

use std::cell::Cell;
use std::rc::Rc;

use crate::http::head::{self, Head};
use crate::http::url::MAX_URL_PART_BYTES;

/// Holds request heads within a number of bytes. Of each head it holds the headers that a span needs.
#[derive(Debug)]
pub(crate) struct HeldHeads {
    headers: Rc<[HeldHeader]>,
    max_bytes: usize,
    /// Bytes of all heads that are held now.
    bytes: Rc<Cell<usize>>,
}

/// A header that a span needs.
#[derive(Debug)]
struct HeldHeader {
    name: String,
    /// Longer values are cut.
    max_value_bytes: usize,
}

/// One request's head, until it is dropped.
#[derive(Debug)]
pub(crate) struct HeldHead {
    headers: Rc<[HeldHeader]>,
    /// For each line the index of its header and the length of its value.
    lines: Vec<(u16, u32)>,
    /// The values of the lines, one after the other.
    values: Vec<u8>,
    /// Bytes of all heads, this one among them.
    bytes: Rc<Cell<usize>>,
}

impl HeldHeads {
    /// Returns an empty store. It holds the headers of which every span is made, cut to the length that
    /// a span can have, and `tag_headers` uncut. `max_chars` is the longest value of an attribute.
    pub(crate) fn new<'t>(
        max_bytes: usize,
        max_chars: usize,
        tag_headers: impl Iterator<Item = &'t str>,
    ) -> Self {
        // A character has at most four bytes. One character more tells that the value was cut.
        let max_value_bytes = 4 * (max_chars + 1);
        let of_every_span = [
            (head::PATH, MAX_URL_PART_BYTES),
            // Uncut: spans leave out user information, which comes first.
            (head::AUTHORITY, usize::MAX),
            (head::METHOD, max_value_bytes),
            (head::SCHEME, max_value_bytes),
            (head::USER_AGENT, max_value_bytes),
            (head::REQUEST_ID, max_value_bytes),
            (head::CONTENT_TYPE, max_value_bytes),
            (head::CONTENT_LENGTH, max_value_bytes),
            (head::UPGRADE, max_value_bytes),
        ];
        let header = |(name, max_value_bytes): (&str, usize)| HeldHeader {
            name: name.to_owned(),
            max_value_bytes,
        };
        let mut headers: Vec<HeldHeader> = of_every_span.map(header).into();
        for name in tag_headers {
            match headers.iter_mut().find(|header| header.name == name) {
                Some(header) => header.max_value_bytes = usize::MAX,
                None => headers.push(header((name, usize::MAX))),
            }
        }
        Self { headers: headers.into(), max_bytes, bytes: Rc::default() }
    }

    /// Holds a head, or returns none if there is no room for it.
    pub(crate) fn hold(&self, head: &Head<'_>) -> Option<HeldHead> {
        let mut lines = Vec::with_capacity(self.headers.len());
        let mut values = Vec::with_capacity(TYPICAL_VALUES_BYTES);
        for (index, header) in (0..).zip(self.headers.iter()) {
            for value in head.all(&header.name) {
                let value = value.get(..header.max_value_bytes).unwrap_or(value);
                lines.push((index, value.len() as u32));
                values.extend_from_slice(value);
            }
        }
        if values.capacity() > TYPICAL_VALUES_BYTES {
            // A vector that grew has up to twice the room that it needs.
            values.shrink_to_fit();
        }
        let (headers, bytes) = (self.headers.clone(), self.bytes.clone());
        let held = HeldHead { headers, lines, values, bytes };
        let total = self.bytes.get() + held.memory_bytes();
        self.bytes.set(total);
        // A head without room is dropped here, which subtracts its bytes again.
        (total <= self.max_bytes).then_some(held)
    }
}

impl HeldHead {
    /// Returns the lines that are held.
    pub(crate) fn head(&self) -> Head<'_> {
        let mut rest = self.values.as_slice();
        let mut lines = Vec::with_capacity(self.lines.len());
        for (index, len) in &self.lines {
            let Some((value, after)) = rest.split_at_checked(*len as usize) else { break };
            let Some(header) = self.headers.get(usize::from(*index)) else { break };
            rest = after;
            lines.push((header.name.as_bytes(), value));
        }
        Head::new(lines)
    }

    fn memory_bytes(&self) -> usize {
        self.values.capacity() + self.lines.capacity() * size_of::<(u16, u32)>() + STREAM_BYTES
    }
}

impl Drop for HeldHead {
    fn drop(&mut self) {
        self.bytes.set(self.bytes.get().saturating_sub(self.memory_bytes()));
    }
}

/// Memory that a request takes beside its lines and values.
const STREAM_BYTES: usize = 256;
/// Room for the values of most requests.
const TYPICAL_VALUES_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::propagation::testing::head;

    #[track_caller]
    fn check(lines: &[(&str, &str)], tag_headers: &[&str], expected: &[(&str, &str)]) {
        let heads = HeldHeads::new(1 << 20, 32, tag_headers.iter().copied());
        let held = heads.hold(&head(lines)).unwrap();
        let mut values = held.values.as_slice();
        let mut found = Vec::new();
        for (index, len) in &held.lines {
            let (value, rest) = values.split_at(*len as usize);
            values = rest;
            let name = held.headers[usize::from(*index)].name.as_str();
            found.push((name, std::str::from_utf8(value).unwrap()));
        }
        assert_eq!(found, expected);
    }

    #[test]
    fn only_headers_that_a_span_needs_are_held() {
        let long = "x".repeat(60_000);
        let lines = [
            (":path", long.as_str()),
            (":method", "GET"),
            ("user-agent", &long),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("x-other", &long),
        ];
        let (method, user_agent) = ((":method", "GET"), ("user-agent", &long[..132]));
        let cut = [(":path", &long[..2048]), method, user_agent];
        check(&lines, &[], &cut);
        let with_tags = [lines[0], method, user_agent, ("cookie", "a=1"), ("cookie", "b=2")];
        check(&lines, &["cookie", ":path"], &with_tags);
    }

    #[test]
    fn a_head_without_room_is_not_held_until_others_are_dropped() {
        let heads = HeldHeads::new(1500, 32, std::iter::empty());
        let lines = [(":path", "/a")];
        let head = head(&lines);
        let first = heads.hold(&head).unwrap();
        let second = heads.hold(&head).unwrap();
        assert!(heads.hold(&head).is_none());
        assert_eq!(heads.bytes.get(), first.memory_bytes() + second.memory_bytes());
        drop(first);
        let third = heads.hold(&head).unwrap();
        assert_eq!(third.head().target(), b"/a");
        drop((second, third));
        assert_eq!(heads.bytes.get(), 0);
    }
}
