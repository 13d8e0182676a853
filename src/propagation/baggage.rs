//! W3C Baggage: <https://www.w3.org/TR/baggage/>.
//!
//! ```text
//! list     = member *( "," member )           ; the lines of one request are one list, in order
//! member   = OWS key OWS "=" OWS value *( OWS ";" property ) OWS
//! key      = 1*tchar                          ; a token of RFC 9110, section 5.6.2
//! value    = *baggage-octet                   ; percent-encoded
//! baggage-octet = %x21 / %x23-2B / %x2D-3A / %x3C-5B / %x5D-7E
//! property = OWS key [ OWS "=" OWS value ]
//! ```
//!
//! The header is passed on byte for byte, unless it exceeds a configured limit.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use crate::http::edits::Edits;
use crate::http::head::{Head, is_tchar};

/// Returns the value of a member, percent-decoded and without its properties; it may not be UTF-8. The
/// last member with that key wins, as in OpenTelemetry's SDKs. Members that break the grammar are
/// skipped. Only the first 8,192 bytes of a list are read.
///
/// <https://opentelemetry.io/docs/specs/otel/baggage/api/#conflict-resolution>
pub fn value<'a>(head: &Head<'a>, key: &str) -> Option<Cow<'a, [u8]>> {
    let mut last = None;
    let mut bytes_left = Limits::MINIMUM.max_bytes;
    for member in members(head) {
        let Some(rest) = bytes_left.checked_sub(member.len() + 1) else { break };
        bytes_left = rest;
        match parse(member) {
            Some((name, value)) if name == key.as_bytes() => last = Some(value),
            _ => {}
        }
    }
    last.map(|value| percent_decode(value).into())
}

/// Limits of the baggage that is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub max_members: usize,
    /// Counted as one line, with the commas between members.
    pub max_bytes: usize,
}

impl Limits {
    /// The specification asks every hop to pass on at least as much.
    pub const MINIMUM: Self = Self { max_members: 64, max_bytes: 8192 };

    /// Cuts a list that is too long after the last whole member that fits, and returns how many members were
    /// dropped. If several members have the same key and the last is dropped, the upstream sees an earlier
    /// one, while the span's tags read the incoming list.
    pub fn apply(self, head: &Head<'_>, edits: &mut Edits<'_, '_>) -> u32 {
        let (lines, members) = (|| head.all(BAGGAGE), || members(head));
        let bytes = lines().map(|line| line.len() + 1).sum::<usize>().saturating_sub(1);
        if bytes <= self.max_bytes && members().count() <= self.max_members {
            return 0;
        }
        let mut list = Vec::with_capacity(bytes.min(self.max_bytes));
        let (mut kept, mut rest) = (0, members());
        let dropped = loop {
            let Some(member) = rest.next() else { break 0 };
            let comma = usize::from(kept > 0);
            if kept == self.max_members || list.len() + comma + member.len() > self.max_bytes {
                break 1 + rest.count();
            }
            list.extend_from_slice(b",".get(..comma).unwrap_or_default());
            list.extend_from_slice(member);
            kept += 1;
        };
        if list.is_empty() {
            edits.remove(BAGGAGE);
        } else {
            edits.set(BAGGAGE, &list);
        }
        dropped as u32
    }
}

/// Returns all members that are not empty, whether they are valid or not.
fn members<'a>(head: &Head<'a>) -> impl Iterator<Item = &'a [u8]> {
    let members = head.all(BAGGAGE).flat_map(|line| line.split(|byte| *byte == b','));
    members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// Splits a member into its key and its value, still percent-encoded. Its properties are not checked.
fn parse(member: &[u8]) -> Option<(&[u8], &[u8])> {
    let pair = member.split(|byte| *byte == b';').next()?;
    let mut parts = pair.splitn(2, |byte| *byte == b'=');
    let (key, value) = (parts.next()?.trim_ascii(), parts.next()?.trim_ascii());
    let valid = !key.is_empty() && key.iter().all(is_tchar) && value.iter().all(is_baggage_octet);
    valid.then_some((key, value))
}

fn is_baggage_octet(byte: &u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\')
}

pub const BAGGAGE: &str = "baggage";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::propagation::testing::{head, written};

    /// Looks up `k` in these lines.
    #[track_caller]
    fn check(lines: &[&str], expected: Option<&str>) {
        let lines: Vec<_> = lines.iter().map(|line| (BAGGAGE, *line)).collect();
        let head = head(&lines);
        let found = value(&head, "k");
        assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{lines:?}");
    }

    #[test]
    fn members_are_found_by_their_keys() {
        check(&["k=v"], Some("v"));
        check(&["k="], Some(""));
        check(&["a=1,k=v,b=2"], Some("v"));
        check(&[" a = 1 ,\tk\t=\tv "], Some("v"));
        check(&["a=1", "b=2,k=v"], Some("v"));
        check(&["k=1,k=2"], Some("2"));
        check(&["k=1,k=2", "k=3"], Some("3"));
        check(&["k=1", "k="], Some(""));
        check(&["k=v;p;q=1"], Some("v"));
        check(&["k=v ; p = \"any\\thing\" "], Some("v"));
        check(&["k=a=b"], Some("a=b"));
        check(&["k=a%20b%2C%C3%A9"], Some("a b,é"));
        check(&["k=100%"], Some("100%"));
        check(&[",,k=v,"], Some("v"));
    }

    #[test]
    fn invalid_members_are_skipped() {
        check(&[], None);
        check(&[""], None);
        check(&["K=v"], None);
        check(&["ak=v"], None);
        check(&["k"], None);
        check(&["k;p=1"], None);
        check(&["=v"], None);
        check(&["a=1;k=v"], None);
        check(&["%6b=v"], None);
        check(&["k=a b"], None);
        check(&["k=\"v\""], None);
        check(&["k=a\\b"], None);
        check(&["k=é"], None);
        check(&["k=v,k=a b"], Some("v"));
        check(&["k=v,k"], Some("v"));
        check(&["k=v,k k=1"], Some("v"));
    }

    /// Applies limits of 3 members and 20 bytes.
    #[track_caller]
    fn check_limited(lines: &[&str], expected: &[&str], dropped: u32) {
        let limits = Limits { max_members: 3, max_bytes: 20 };
        let head: Vec<_> = lines.iter().map(|line| (BAGGAGE, *line)).collect();
        let counts = std::cell::Cell::new(0);
        let found = written(&head, |edits| counts.set(limits.apply(edits.head(), edits)));
        let found: Vec<_> = found.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!((found, counts.get()), (expected.to_vec(), dropped), "{lines:?}");
    }

    #[test]
    fn lists_within_their_limits_are_not_edited() {
        check_limited(&[], &[], 0);
        check_limited(&[""], &[""], 0);
        check_limited(&["a=1 , b=2;p,,c"], &["a=1 , b=2;p,,c"], 0);
        check_limited(&["a=1", "b=2,c=3"], &["a=1", "b=2,c=3"], 0);
        check_limited(&["a=123456789", "b=123456"], &["a=123456789", "b=123456"], 0);
        check_limited(&["a=345678901234567890"], &["a=345678901234567890"], 0);
        check_limited(&[",,,,,,,,,"], &[",,,,,,,,,"], 0);
    }

    #[test]
    fn lists_over_a_limit_keep_their_first_whole_members() {
        check_limited(&["a=1,b=2,c=3,d=4"], &["a=1,b=2,c=3"], 1);
        check_limited(&["a=1", "b=2", "c=3;p=q", "d=4,e=5"], &["a=1,b=2,c=3;p=q"], 2);
        check_limited(&["a=1234567;p,b=345678901"], &["a=1234567;p"], 1);
        check_limited(&["a=1234567;p,b=3456789,c=1"], &["a=1234567;p"], 2);
        check_limited(&["a=123456789", "b=1234567"], &["a=123456789"], 1);
        check_limited(&["a=3456789012345678901,b=2"], &[], 2);
        check_limited(&["                        a=1"], &["a=1"], 0);
        check_limited(&[",,,,,,,,,,,,,,,,,,,,,,,,"], &[], 0);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(lines: Vec<Vec<u8>>) {
            let lines = lines.iter().map(|line| (BAGGAGE.as_bytes(), line.as_slice()));
            let head = Head::new(lines.collect());
            let _ = value(&head, "k");
            Limits { max_members: 1, max_bytes: 9 }.apply(&head, &mut Edits::of(&head));
        }
    }
}
